//! The receipt of a contribution, and the quality in it.

use serde::{Deserialize, Serialize};

use super::Record;

/// One dimension of the quality score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityDimension {
    /// `validity`, `label`, `completeness`, `uniqueness`, `stability`, `information`, `outliers`.
    pub name: String,
    /// s_d in 0..1, 6 decimals.
    pub value: f64,
    /// w_d; the weights add up to 1.
    pub weight: f64,
    /// −w_d · ln(max(s_d, 0.01)), 6 decimals; the losses add up to −ln of the score before its gates.
    pub loss: f64,
    /// False when the contract gives no reference to measure against (then the value is 1).
    pub measured: bool,
}

/// Quality of a contribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Version of the formula.
    pub formula: String,
    /// Q in 0..1, 6 decimals; none below 100 valid rows.
    pub score: Option<f64>,
    /// Wilson lower bound of validity (z = 1.96) below 1,000 rows.
    pub validity_lower: Option<f64>,
    /// Gate that capped the score: `incompatible_schema`, `contamination`, `leakage`; empty when none did.
    pub gate: String,
    /// Why there is no score, or other remarks: `insufficient`, `label_conflict:N`, `leakage_column`, `near_dup:N`; sorted.
    pub flags: Vec<String>,
    /// By dimension, in the order of the formula.
    pub dimensions: Vec<QualityDimension>,
}

/// A chunk that a receipt binds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptChunk {
    /// Number of the chunk.
    pub chunk: i64,
    /// Keyed digest of the chunk, hex.
    pub chunk_digest: String,
    /// Leaves under its root.
    pub rows: i64,
    /// RFC 6962 root of the chunk, hex; empty without rows.
    pub root: String,
}

/// The one receipt of a contribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Id of the contribution.
    pub contribution_id: String,
    /// Who contributed.
    pub contributor: String,
    /// Model that the rows are for.
    pub model: String,
    /// Contract that the rows were checked against; empty when there was none.
    pub contract_digest: String,
    /// `admitted`, `refused` or `incomplete`.
    pub status: String,
    /// Rows received.
    pub received: i64,
    /// Rows accepted; 0 unless admitted.
    pub accepted: i64,
    /// Rows refused by reason code: received = accepted + Σ count.
    pub refused: Vec<RefusedCount>,
    /// Quality with its dimensions.
    pub quality: Quality,
    /// PII found by type (cells).
    pub pii: Vec<PiiCount>,
    /// RFC 6962 root over the chunks, hex; empty without rows.
    pub merkle_root: String,
    /// Leaves under the chunk roots together.
    pub merkle_rows: i64,
    /// Chunks that were expected.
    pub chunks: i64,
    /// The chunks that the receipt binds, at most [`Receipt::MAX_LISTED_CHUNKS`]; beyond that see `chunks_digest`.
    pub bound: Vec<ReceiptChunk>,
    /// SHA-256 over the list of all bound chunks (u32be chunk ‖ chunk digest as its hex digits), hex.
    pub chunks_digest: String,
    /// Highest append time among the chunks in `contributions`.
    pub last_appended: i64,
    /// Every chunk was signed by the key that the contributor's name is.
    #[serde(default)]
    pub contributor_verified: bool,
    /// How: `ed25519` or `eip191`; none when the contributor is not verified.
    #[serde(default)]
    pub contributor_signature: Option<String>,
    /// Leaf hash of its statement in the log of attestations, hex; empty in receipts that were made before it.
    #[serde(default)]
    pub leaf: String,
}
record!(Receipt, "receipt");

impl Receipt {
    /// Above this many chunks a receipt lists none and binds them by digest alone.
    pub const MAX_LISTED_CHUNKS: usize = 1024;
}

/// Refused rows of one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefusedCount {
    /// Reason code.
    pub reason: String,
    /// Rows.
    pub count: i64,
}

/// Cells that held PII of one type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PiiCount {
    /// Type of PII.
    #[serde(rename = "type")]
    pub kind: String,
    /// Cells.
    pub count: i64,
}

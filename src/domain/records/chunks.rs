//! A chunk on its way from `contributions` to what deduplication says of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Count, Position, Record};

/// One chunk of a contribution, as an outsider sends it on `contributions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Id of the contribution; without it the record's key is the id, without both it is derived.
    pub contribution_id: Option<String>,
    /// Who contributes: an opaque name or wallet address.
    pub contributor: String,
    /// Model that the rows are for.
    pub model: String,
    /// Contract that the chunk was made for; the one in force when it is missing.
    pub contract_digest: Option<String>,
    /// `json`, `csv`, `parquet`, `arrow` or `avro`.
    pub format: String,
    /// Number of this chunk, from 0.
    pub chunk: i64,
    /// How many chunks the contribution has.
    pub chunks: i64,
    /// The chunk: a complete document of its format, or that document sealed.
    #[serde(with = "apache_avro::serde::bytes")]
    pub payload: Vec<u8>,
    /// Id of the intake key that the payload is sealed to (`codec::sealed`); none when it is plain.
    pub sealed: Option<String>,
    /// The contributor's signature of this chunk (`attest::contributor`); none when it is not signed.
    pub signature: Option<String>,
}
record!(Contribution, "contribution");

/// What identifies a chunk of rows on its way through the stages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId {
    /// Id of the contribution.
    pub contribution_id: String,
    /// Who contributes.
    pub contributor: String,
    /// Model that the rows are for.
    pub model: String,
    /// Digest of the contract that the rows were checked against; empty when there was none to check against.
    pub contract_digest: String,
    /// Number of this chunk, from 0.
    pub chunk: i64,
    /// Keyed digest of the chunk as it was sent (HMAC under the model's dedup key), hex.
    pub chunk_digest: String,
    /// Which of its rows passed intake ([`ChunkId::passed_rows`]); empty when none did. The same chunk sent again may pass other
    /// rows, because a timestamp is no longer in the future: then it is not the same chunk to dedup and receipts.
    pub passed: String,
}

impl ChunkId {
    /// Tells sets of rows of one chunk apart: SHA-256 over their numbers (u32be, rising), 16 hex digits.
    #[must_use]
    pub fn passed_rows(rows: &[u32]) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let mut hasher = Sha256::new();
        rows.iter().for_each(|row| hasher.update(row.to_be_bytes()));
        let hash: [u8; 32] = hasher.finalize().into();
        data_encoding::HEXLOWER.encode(hash.first_chunk::<8>().map_or(&hash[..], |head| &head[..]))
    }
}

/// How many rows of a chunk went to a hash shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardRows {
    /// Partition of `contributions.screened`.
    pub shard: i32,
    /// Rows that went there; never zero.
    pub rows: i64,
}

/// Integer sums of one column over the *valid* rows of a chunk: they add up over chunks in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSums {
    /// Column name.
    pub column: String,
    /// Null cells.
    pub nulls: i64,
    /// Cells beyond robust z = 6 on the contract's median and MAD.
    pub outliers: i64,
    /// Cells by reference quantile bin (one more than the contract's edges); empty without a reference.
    pub bins: Vec<i64>,
    /// Keyed digest of the smallest and largest canonical cell: equal when the column is constant; empty without cells.
    pub least: String,
    /// See `least`.
    pub greatest: String,
    /// Sum over rows, modulo 2^64, of a keyed hash of (row, cell): equal in two columns when they are duplicates.
    pub fingerprint: String,
}

/// Mergeable sums for the quality score.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualitySums {
    /// Rows that passed every check of intake.
    pub valid: i64,
    /// By column, sorted by name.
    pub columns: Vec<ColumnSums>,
    /// Valid rows by label value (as a class token, never a free value), sorted.
    pub labels: Vec<Count>,
    /// Rows that nearly repeat an earlier row of the same chunk; exact duplicates do not count.
    pub near_duplicates: i64,
    /// The chunk lacks a required column or names an unknown one: gate 0.
    pub incompatible_schema: bool,
}

/// Intake's account of one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which chunk.
    pub id: ChunkId,
    /// How many chunks the contribution has.
    pub chunks: i64,
    /// Rows received; a chunk that cannot be parsed counts as one.
    pub received: i64,
    /// Rows that intake refused, by reason code.
    pub refused: Vec<Count>,
    /// Rows by hash shard; their sum is `received` less Σ `refused`.
    pub shards: Vec<ShardRows>,
    /// Mergeable sums for the quality score.
    pub quality: QualitySums,
    /// PII found, by type (cells).
    pub pii: Vec<Count>,
    /// RFC 6962 root over the screened rows of the chunk, hex; empty when there is none.
    pub chunk_root: String,
    /// Where the chunk stands in `contributions`.
    pub position: Position,
    /// Append time of the chunk's record.
    pub appended: i64,
    /// Keyed digests of the contributor's name, `hmac-sha256:KEY:HEX`; two while a token key rotates, the new one first.
    pub contributor_pseudonyms: Vec<String>,
    /// How the contributor signed the chunk (`ed25519`, `eip191`), once it was verified; none when it is not signed.
    pub contributor_signature: Option<String>,
    /// SHA-256 of the match filters of the sealed benchmarks that the rows were compared with, hex, sorted.
    #[serde(default)]
    pub match_filters: Vec<String>,
    /// Highest natural collision rate among these benchmarks, in millionths.
    #[serde(default)]
    pub collision_ppm: i64,
}

/// A recorded fact about time: every source writes it into every partition of the marked topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Partition of the source topic.
    pub source: i32,
    /// How many partitions the source topic has.
    pub sources: i32,
    /// Highest append time that the source has seen and fully written out; 0 before its first record.
    pub high_time: i64,
    /// The source has nothing left to read: the mark's own append time counts instead of `high_time`.
    pub at_end: bool,
}

/// What travels on `contributions.manifests`: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEvent {
    /// Account of a chunk.
    pub manifest: Option<Manifest>,
    /// Time mark.
    pub mark: Option<Mark>,
}
record!(ManifestEvent, "manifest");

/// The screened rows of one chunk that belong to one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenedRows {
    /// Which chunk.
    pub id: ChunkId,
    /// Hash shard (= partition).
    pub shard: i32,
    /// Part number when the rows of the shard did not fit into one record, from 0.
    pub part: i32,
    /// How many parts there are.
    pub parts: i32,
    /// Rows in the batch.
    pub rows: i64,
    /// The contract refuses a row whose features stand earlier with another label.
    pub refuse_label_conflicts: bool,
    /// Arrow IPC stream: `_row` (UInt32, row in the chunk), `_row_hash` (FixedSizeBinary 16), `_feature_hash`
    /// (FixedSizeBinary 16, without the label), then the contract's columns with PII as tokens.
    #[serde(with = "apache_avro::serde::bytes")]
    pub batch: Vec<u8>,
}

/// A chunk whose rows are given up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleasedChunk {
    /// Number of the chunk.
    pub chunk: i64,
    /// Keyed digest of the chunk, hex.
    pub chunk_digest: String,
    /// Which of its rows had passed: [`ChunkId::passed`].
    pub passed: String,
}

/// A contribution gives rows up (it is incomplete, refused, or the chunks reused its id). Names its owner in full: the same id,
/// number and digest may have been sent by somebody else, whose rows it must not touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Id of the contribution.
    pub contribution_id: String,
    /// Who contributed.
    pub contributor: String,
    /// Model that the rows are for.
    pub model: String,
    /// Contract that the rows were checked against.
    pub contract_digest: String,
    /// The chunks, by number; never empty. Many chunks come in several releases.
    pub chunks: Vec<ReleasedChunk>,
}

/// What travels on `contributions.screened`: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenedEvent {
    /// Rows to be deduplicated.
    pub rows: Option<ScreenedRows>,
    /// A release mark.
    pub release: Option<Release>,
}
record!(ScreenedEvent, "screened");

/// Dedup's verdict on the rows of one chunk in one shard (part).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which chunk.
    pub id: ChunkId,
    /// Hash shard.
    pub shard: i32,
    /// Part number, from 0.
    pub part: i32,
    /// How many parts the shard's rows came in.
    pub parts: i32,
    /// Rows seen for the first time.
    pub accepted: i64,
    /// Rows that deduplication refused, by reason code.
    pub duplicates: Vec<Count>,
    /// Rows whose features stand earlier in the shard with another label: accepted, unless the contract refuses them.
    pub label_conflicts: i64,
}
record!(Verdict, "verdict");

/// First-seen rows of one chunk in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which chunk.
    pub id: ChunkId,
    /// Hash shard.
    pub shard: i32,
    /// Part number, from 0.
    pub part: i32,
    /// Rows in the batch.
    pub rows: i64,
    /// Arrow IPC stream with the columns of [`ScreenedRows::batch`].
    #[serde(with = "apache_avro::serde::bytes")]
    pub batch: Vec<u8>,
}
record!(Accepted, "accepted");

/// One refused row: why, and the shape of what was seen, never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Row in the chunk, from 0; −1 for the chunk as a whole.
    pub row: i64,
    /// Reason code.
    pub code: String,
    /// Column; empty when the refusal is about none.
    pub column: String,
    /// The rule that failed, as the contract names it.
    pub rule: String,
    /// What was expected.
    pub expected: String,
    /// Shape of what was seen ("string, 11 digits").
    pub shape: String,
    /// Keyed digest of the row, hex; empty when there is no row.
    pub row_digest: String,
}

/// Refusals of one chunk, batched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which chunk.
    pub id: ChunkId,
    /// `intake`, `dedup` or `receipts`.
    pub stage: String,
    /// Where the chunk stands in `contributions`; none when rows are refused later, without their record at hand.
    pub position: Option<Position>,
    /// The refused rows, in row order.
    pub refusals: Vec<Refusal>,
}
record!(Refused, "refused");

//! The predicates that this version makes: the receipt of a contribution, and the beginning or end of a key of the log.

use serde::{Deserialize, Serialize};

/// How often, by reason or kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// Reason code or kind.
    pub name: String,
    /// How often.
    pub n: i64,
}

/// Receipt of a contribution: what was received and accepted, why the rest was refused, and what binds the rows.
///
/// The subject is the contribution's Merkle root (`attest::row`): salted leaves, so that small contributions cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Contribution {
    /// `admitted`, `refused` or `incomplete`.
    pub status: String,
    /// Id of the contribution.
    pub contribution_id: String,
    /// Who contributed.
    pub contributor: Contributor,
    /// Model that the rows are for.
    pub model: String,
    /// Contract that the rows were checked against, by its digest: the schema's fingerprint. Empty when there was none.
    pub contract_digest: String,
    /// Highest append time among the chunks, RFC 3339 UTC in seconds.
    pub evaluated_at: String,
    /// Rows received = accepted + Σ refused.
    pub received: i64,
    /// Rows accepted.
    pub accepted: i64,
    /// Rows refused, by reason code.
    pub refused: Vec<Counted>,
    /// What binds the rows.
    pub rows: Rows,
    /// What binds the chunks.
    pub chunks: Chunks,
    /// How good they are.
    pub quality: Quality,
    /// Cells that held personal data, by type.
    pub pii: Vec<Counted>,
}

impl Contribution {
    /// Status of one whose rows count.
    pub const ADMITTED: &'static str = "admitted";
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/contribution/v1";
}

/// Who contributed: never the name itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Contributor {
    /// `hmac-sha256:KEY:HEX` of the name; two while a key rotates, the new one first.
    pub pseudonyms: Vec<String>,
    /// Every chunk was signed by the contributor's own key.
    pub verified: bool,
    /// How it was signed: `ed25519` or `eip191`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The wallet that signed: where shares are paid to. Only of a contributor that is verified by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout_address: Option<String>,
}

/// What binds the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rows {
    /// How a row becomes a leaf: `hk-row-v1`.
    pub leaf_alg: String,
    /// Leaves: the rows that passed every check but those for duplicates.
    pub n: i64,
    /// RFC 6962 root over the chunks, hex; the subject's digest.
    pub root: String,
}

/// What binds the chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunks {
    /// SHA-256 over the list of chunks (u32be number ‖ keyed digest, hex), hex.
    pub digest: String,
    /// Chunks that were expected.
    pub n: i64,
}

/// Quality, in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Quality {
    /// By dimension, in the order of the formula.
    pub dimensions: Vec<Dimension>,
    /// Remarks, sorted.
    pub flags: Vec<String>,
    /// Version of the formula.
    pub formula: String,
    /// Gate that capped the score; empty when none did.
    pub gate: String,
    /// The score in millionths; left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_ppm: Option<String>,
}

/// One dimension of quality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// False when the contract gave nothing to measure against.
    pub measured: bool,
    /// Its name.
    pub name: String,
    /// Its value in millionths.
    pub ppm: String,
}

/// A key of the log begins, and ends its predecessor. Signed by the attester in force before; the first one by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeyEvent {
    /// `begin` for the first keys of a log, `rotate` afterwards.
    pub event: String,
    /// Name of the log.
    pub origin: String,
    /// `attester` or `log`.
    pub role: String,
    /// The key's id, as in envelopes.
    pub keyid: String,
    /// The key, hex.
    pub public: String,
    /// First index that it signs; of a log key the first leaf of the first tree head.
    pub from_index: i64,
    /// Id of the key that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl KeyEvent {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/key-event/v1";
}

/// A fraction of six decimals in millionths.
#[must_use]
pub fn ppm(value: f64) -> String {
    // Receipts round to six decimals, so the product is an integer but for its last bits; values lie within 0..1.
    format!("{:.0}", value * 1_000_000.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A receipt with every field.
    pub fn contribution() -> Contribution {
        let counted = |name: &str, n| Counted { name: name.to_owned(), n };
        Contribution {
            status: "admitted".to_owned(),
            contribution_id: "c-1".to_owned(),
            contributor: Contributor {
                pseudonyms: vec![format!("hmac-sha256:k1:{}", "ab".repeat(32))],
                verified: true,
                signature: Some("eip191".to_owned()),
                payout_address: Some("0x52908400098527886e0f7030069857d2e4169ee7".to_owned()),
            },
            model: "vol-retardé".to_owned(),
            contract_digest: "cd".repeat(32),
            evaluated_at: "2026-01-31T12:00:00Z".to_owned(),
            received: 3,
            accepted: 2,
            refused: vec![counted("DUP_IN_BATCH", 1)],
            rows: Rows { leaf_alg: super::super::statement::ROW_TREE.to_owned(), n: 3, root: "07".repeat(32) },
            chunks: Chunks { digest: "ef".repeat(32), n: 1 },
            quality: Quality {
                dimensions: vec![Dimension { measured: true, name: "validity".to_owned(), ppm: ppm(0.987654) }],
                flags: vec!["insufficient".to_owned()],
                formula: "1".to_owned(),
                gate: String::new(),
                score_ppm: Some(ppm(0.9)),
            },
            pii: vec![counted("email_address", 3)],
        }
    }

    /// A log's first attester.
    pub fn key_event() -> KeyEvent {
        KeyEvent {
            event: "begin".to_owned(),
            origin: "hokusai/acme/0011223344556677".to_owned(),
            role: "attester".to_owned(),
            keyid: "aa".repeat(32),
            public: "bb".repeat(32),
            from_index: 0,
            replaces: None,
        }
    }

    #[test]
    fn six_decimals_become_exact_millionths() {
        for millionths in [0, 1, 7, 289_999, 290_000, 333_333, 999_999, 1_000_000] {
            let text = format!("0.{millionths:06}");
            let value = if millionths == 1_000_000 { 1.0 } else { text.parse::<f64>().unwrap() };
            assert_eq!(ppm(value), millionths.to_string());
        }
    }
}

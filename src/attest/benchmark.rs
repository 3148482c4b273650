//! What binds a sealed benchmark: the tree over its rows, the commitment to its labels, and the statement about it.
//!
//! ```text
//! leaf of row i = SHA-256(00 ‖ salt_i ‖ JCS(row))                                        RFC 6962, RFC 8785
//! salt_i        = HMAC-SHA-256(tree secret, "hk-att/v1/row-salt" 00 ‖ u64be(i))[..16]
//! commitment    = SHA-256("hk-att/v1/labels" 00 ‖ salt ‖ u64be(n) ‖ for each row: u32be(len) ‖ JCS(label))
//! salt          = HMAC-SHA-256(tree secret, "hk-att/v1/label-salt" 00 ‖ rows root)
//! ```
//!
//! Rows stand in the order of their keyed canonical hashes, which are unique: neither the file nor its format shows.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::decision::SignedCommand;
use super::tree::{CompactRange, Hash, leaf_hash_parts};
use crate::domain::keys::MacKey;

const ROW_SALT: &[u8] = b"hk-att/v1/row-salt\0";
const LABEL_SALT: &[u8] = b"hk-att/v1/label-salt\0";
const LABELS: &[u8] = b"hk-att/v1/labels\0";

/// Algorithm name of a subject that is a benchmark's rows root.
pub const BENCHMARK_TREE: &str = "hk-salted-row-v1";

/// The tree over the rows of a benchmark; rows come in their order.
#[derive(Debug, Clone)]
pub struct BenchmarkTree {
    salts: MacKey,
    range: CompactRange,
}

impl BenchmarkTree {
    /// The tree without rows, under the tenant's tree key.
    #[must_use]
    pub fn new(tree_key: &MacKey) -> Self {
        Self { salts: tree_key.absorbed(&[ROW_SALT]), range: CompactRange::new() }
    }

    /// The salt of row `index`.
    #[must_use]
    pub fn salt(&self, index: u64) -> [u8; 16] {
        self.salts.digest128(&[&index.to_be_bytes()])
    }

    /// Appends the next row, as canonical JSON; returns its leaf hash.
    pub fn append(&mut self, row: &[u8]) -> Hash {
        let leaf = row_leaf(&self.salt(self.range.size()), row);
        self.range.push(leaf);
        leaf
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.range.size()
    }

    /// Root over the rows so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.range.root()
    }
}

/// Leaf hash of a row, as canonical JSON.
#[must_use]
pub fn row_leaf(salt: &[u8; 16], row: &[u8]) -> Hash {
    leaf_hash_parts(&[salt, row])
}

/// Commits to the labels, canonical JSON each, in the order of the rows with this root.
#[must_use]
pub fn label_commitment<'l>(tree_key: &MacKey, root: &Hash, labels: impl ExactSizeIterator<Item = &'l [u8]>) -> Hash {
    let mut commitment = LabelCommitment::new(&label_salt(tree_key, root), labels.len() as u64);
    labels.for_each(|label| commitment.append(label));
    commitment.finish()
}

/// The salt of the labels of the rows with this root.
#[must_use]
pub fn label_salt(tree_key: &MacKey, root: &Hash) -> Hash {
    tree_key.digest(&[LABEL_SALT, root])
}

/// A commitment in the making.
#[derive(Debug, Clone)]
pub struct LabelCommitment(Sha256);

impl LabelCommitment {
    /// To so many labels.
    #[must_use]
    pub fn new(salt: &Hash, labels: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(LABELS);
        hasher.update(salt);
        hasher.update(labels.to_be_bytes());
        Self(hasher)
    }

    /// The next label, as canonical JSON.
    pub fn append(&mut self, label: &[u8]) {
        // A cell has at most some megabytes.
        self.0.update(u32::try_from(label.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.update(label);
    }

    /// The commitment.
    #[must_use]
    pub fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

/// A decimal string of at most six places in millionths; none for anything else, negative numbers too.
#[must_use]
pub fn millionths(decimal: &str) -> Option<u64> {
    let (whole, places) = decimal.split_once('.').map_or((decimal, None), |(w, p)| (w, Some(p)));
    let digits = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 9) || (whole.len() > 1 && whole.starts_with('0')) || !places.is_none_or(|p| digits(p, 6)) {
        return None;
    }
    let places: u64 = format!("{:0<6}", places.unwrap_or("0")).parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000_000 + places)
}

/// A benchmark was sealed or retired. The subject is its rows root, named `MODEL/NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BenchmarkDecision {
    /// `seal` or `retire`.
    pub action: String,
    /// Name and version.
    pub benchmark: String,
    /// The signed command that was carried out.
    pub command: SignedCommand,
    /// Attempts family: rows root of the first benchmark in the chain of overlaps.
    pub family: String,
    /// Model.
    pub model: String,
    /// Why it was retired; left out when nothing was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Revision of the model that the decision made.
    pub revision: i64,
    /// What is sealed; left out at retirement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealFacts>,
}

impl BenchmarkDecision {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/benchmark/v1";
}

/// What a seal fixes. No row, label or cell stands in it but the names of strata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SealFacts {
    /// Rows that were in the pool too, in millionths, rounded up.
    pub collision_rate_ppm: String,
    /// Contract that the rows were checked against.
    pub contract_digest: String,
    /// Commitment to the labels, hex.
    pub label_commitment: String,
    /// SHA-256 of the match filter, hex.
    pub match_filter: String,
    /// Levels merged into `other`.
    pub merged: Vec<String>,
    /// What binds the rows.
    pub rows: SealedRows,
    /// SHA-256 of the encrypted rows, hex.
    pub sealed_rows: String,
    /// Strata.
    pub strata: Vec<String>,
    /// Planned standard deviation of a paired difference, in millionths; left out without strata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strata_deviation_ppm: Option<String>,
    /// Margin that strata were frozen for, in millionths; left out without strata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strata_margin_ppm: Option<String>,
}

/// What binds the rows of a benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SealedRows {
    /// How a row becomes a leaf: [`BENCHMARK_TREE`].
    pub leaf_alg: String,
    /// Leaves.
    pub n: i64,
    /// RFC 6962 root, hex; the subject's digest.
    pub root: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MacKey {
        MacKey::new(&[7; 32], "")
    }

    #[test]
    fn roots_and_commitments_are_frozen() {
        // Recomputed with Python's hmac and hashlib from the module documentation.
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let mut tree = BenchmarkTree::new(&key());
        tree.append(br#"{"a":1}"#);
        tree.append(br#"{"a":"2.5"}"#);
        assert_eq!(hex(&tree.salt(1)), "d4f69aa0a3712dbe2d0a3fdf005628ef");
        assert_eq!(hex(&tree.root()), "673a8646c2bbdcc584866686a94009332d40e0382b29e0bdbf72d07ecf7c6d20");
        let labels: [&[u8]; 2] = [b"0", b"1"];
        assert_eq!(
            hex(&label_commitment(&key(), &tree.root(), labels.into_iter())),
            "7f88c038ac29d460f7c0134d2fda547a9e91533ca5fec979cf2f9c255ef70669"
        );
    }

    #[test]
    fn a_label_that_differs_gives_another_commitment_and_no_cut_of_the_texts_the_same() {
        let commit = |labels: &[&[u8]]| label_commitment(&key(), &[1; 32], labels.iter().copied());
        assert_ne!(commit(&[b"0", b"1"]), commit(&[b"1", b"0"]));
        assert_ne!(commit(&[b"01", b""]), commit(&[b"0", b"1"]));
    }

    #[test]
    fn decimals_of_at_most_six_places_are_millionths() {
        for (text, value) in
            [("0", 0), ("0.02", 20_000), ("1.000000", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000)]
        {
            assert_eq!(millionths(text), Some(value), "{text}");
        }
        for bad in ["", ".5", "1.", "-0.1", "01", "0.1234567", "1e3", "NaN", "+1", "1234567890", "0,5"] {
            assert_eq!(millionths(bad), None, "{bad}");
        }
    }
}

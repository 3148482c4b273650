//! What binds the labels and scores behind an evaluation's figures: a salted tree, row by row.
//!
//! ```text
//! leaf of row i = SHA-256(00 ‖ salt_i ‖ JCS(sample))                                              RFC 6962, RFC 8785
//! salt_i        = HMAC-SHA-256(tree secret, "hk-att/v1/sample-salt" 00 ‖ evaluation id ‖ 00 ‖ u64be(i))[..16]
//! sample        = {"base":[…],"cand":[…],"i":i,"id":…,"label":…,"metrics":[[…,…],…],"strata":[…]}
//! ```
//!
//! `id` is the leaf hash of the sealed row, so the rows root of the benchmark follows from the samples: who has them sees that each
//! sealed row was scored once. Scores are quanta of 10⁻⁶. `metrics` are the baseline's and the candidate's value of each custom metric that
//! the contract declares, in its order; left out when it declares none. Without the salts nobody can try labels and scores until the root fits.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jcs::{self, JcsError};
use super::tree::{CompactRange, Hash, leaf_hash_parts};
use crate::domain::keys::MacKey;

const SALT: &[u8] = b"hk-att/v1/sample-salt\0";

/// How a sample becomes a leaf.
pub const SAMPLE_TREE: &str = "hk-sample-v1";

/// A sealed row as both models saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The baseline's score in quanta; of several classes one for each.
    pub base: Vec<i64>,
    /// The candidate's.
    pub cand: Vec<i64>,
    /// Place of the row among the sealed rows, from 0.
    pub i: u64,
    /// Leaf hash of the sealed row, hex.
    pub id: String,
    /// Its label, as it stands in the row.
    pub label: Value,
    /// By custom metric: the baseline's and the candidate's value in millionths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<[i64; 2]>,
    /// By column of strata: the row's stratum; null for none.
    pub strata: Vec<Option<String>>,
}

/// What binds the samples of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SampledRows {
    /// How a sample becomes a leaf: [`SAMPLE_TREE`].
    pub leaf_alg: String,
    /// Leaves.
    pub n: i64,
    /// RFC 6962 root, hex.
    pub root: String,
}

/// The salts of an evaluation's samples.
#[derive(Debug, Clone)]
pub struct SampleSalts(MacKey);

impl SampleSalts {
    /// Under the tenant's tree key.
    #[must_use]
    pub fn new(tree_key: &MacKey, evaluation_id: &str) -> Self {
        Self(tree_key.absorbed(&[SALT, evaluation_id.as_bytes(), b"\0"]))
    }

    /// The salt of the sample at a place.
    #[must_use]
    pub fn salt(&self, index: u64) -> [u8; 16] {
        self.0.digest128(&[&index.to_be_bytes()])
    }
}

/// The tree over samples; they come in their order.
#[derive(Debug, Clone, Default)]
pub struct SampleTree(CompactRange);

impl SampleTree {
    /// Appends the next sample.
    ///
    /// # Errors
    /// A sample without canonical form: an integer beyond 2^53.
    pub fn append(&mut self, salt: &[u8; 16], sample: &Sample) -> Result<(), JcsError> {
        self.0.push(leaf(salt, sample)?);
        Ok(())
    }

    /// What binds the samples so far.
    #[must_use]
    pub fn bound(&self) -> SampledRows {
        SampledRows {
            leaf_alg: SAMPLE_TREE.to_owned(),
            n: i64::try_from(self.0.size()).unwrap_or(i64::MAX),
            root: data_encoding::HEXLOWER.encode(&self.0.root()),
        }
    }
}

/// Leaf hash of a sample.
///
/// # Errors
/// See [`SampleTree::append`].
pub fn leaf(salt: &[u8; 16], sample: &Sample) -> Result<Hash, JcsError> {
    Ok(leaf_hash_parts(&[salt, &jcs::to_canonical(sample)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(i: u64, cand: i64) -> Sample {
        let (label, strata) = (Value::from(1), vec![Some("plan=basic".to_owned()), None]);
        Sample { base: vec![250_000], cand: vec![cand], i, id: "ab".repeat(32), label, metrics: Vec::new(), strata }
    }

    #[test]
    fn roots_of_samples_are_frozen() {
        // Recomputed with Python's hmac, hashlib and json from the module documentation.
        let key = MacKey::new(&[7; 32], "");
        let salts = SampleSalts::new(&key, "00112233445566778899aabbccddeeff");
        let mut tree = SampleTree::default();
        (0..3).for_each(|i| tree.append(&salts.salt(i), &sample(i, 900_000)).unwrap());
        assert_eq!(data_encoding::HEXLOWER.encode(&salts.salt(1)), "2e961dc23c40b99fed204bbd5e8b69d7");
        let bound = tree.bound();
        assert_eq!(
            (bound.n, bound.root.as_str()),
            (3, "347a2c8035bb3831c30c29898a7184d9d4db5ae15275495c102ae136cf42522c")
        );
    }

    #[test]
    fn every_part_of_a_sample_and_its_salt_show_in_its_leaf() {
        let of = |salt: u8, change: &dyn Fn(&mut Sample)| {
            let mut changed = sample(4, 900_000);
            change(&mut changed);
            leaf(&[salt; 16], &changed).unwrap()
        };
        let changes: [&dyn Fn(&mut Sample); 8] = [
            &|_| (),
            &|s| s.base[0] += 1,
            &|s| s.cand[0] += 1,
            &|s| s.i += 1,
            &|s| s.id.replace_range(..1, "b"),
            &|s| s.label = Value::from("1"),
            &|s| s.strata[0] = None,
            &|s| s.metrics = vec![[1, 2]],
        ];
        let mut leaves: Vec<Hash> = changes.into_iter().map(|change| of(1, change)).collect();
        leaves.push(of(2, &|_| ()));
        leaves.sort_unstable();
        leaves.dedup();
        assert_eq!(leaves.len(), 9);
        assert!(leaf(&[1; 16], &Sample { cand: vec![1 << 53], ..sample(0, 0) }).is_err());
    }
}

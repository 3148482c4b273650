//! Merkle trees of RFC 6962: roots, inclusion and consistency proofs, and strict verifiers.
//!
//! A leaf is `SHA-256(0x00 ‖ data)`, a node `SHA-256(0x01 ‖ left ‖ right)`, and the empty tree's root
//! `SHA-256("")`. An odd node is promoted, never duplicated. Invariants:
//!
//! - [`CompactRange`] holds one hash per set bit of its size, so its state is bounded by 64 hashes
//!   whatever the number of leaves, and the same leaves give the same root in whatever pieces they came.
//! - A verifier accepts a path of exactly the length that index and size demand (RFC 9162 §2.1.3.2):
//!   a hash too many is as wrong as a hash too few. Take the size and the root from a signed statement only.

use sha2::{Digest, Sha256};
use thiserror::Error;

/// A SHA-256 hash: a leaf, a node or a root.
pub type Hash = [u8; 32];

/// Why a tree's state or proof was refused.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum TreeError {
    /// The leaf's index is not below the size of the tree.
    #[error("leaf {index} is outside a tree of {size} leaves")]
    OutOfRange {
        /// Index of the leaf, from 0.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The older tree is larger than the newer one.
    #[error("a tree of {new} leaves cannot continue one of {old}")]
    Shrunk {
        /// Leaves in the older tree.
        old: u64,
        /// Leaves in the newer tree.
        new: u64,
    },
    /// The proof has another number of hashes than its indices demand.
    #[error("the proof has {found} hashes where {expected} are needed")]
    PathLength {
        /// Hashes needed.
        expected: usize,
        /// Hashes found.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("the proof does not lead to the stated root")]
    WrongRoot,
    /// The persisted state is not one that this code writes.
    #[error("the stored tree state is malformed: {0}")]
    State(&'static str),
}

/// Hash of one leaf's data.
pub fn leaf_hash(data: &[u8]) -> Hash {
    leaf_hash_parts(&[data])
}

/// Hash of one leaf whose data is the concatenation of `parts`.
pub fn leaf_hash_parts(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut data = [1; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    Sha256::digest(data).into()
}

/// Root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Root of the tree over `leaves` (leaf hashes, in order).
pub fn root(leaves: &[Hash]) -> Hash {
    let mut range = CompactRange::new();
    for leaf in leaves {
        range.push(*leaf);
    }
    range.root()
}

/// The right edge of a growing tree: what is needed to append leaves and to tell the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    /// Roots of the perfect subtrees, the largest first: one for each set bit of `size`.
    peaks: Vec<Hash>,
}

impl CompactRange {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves appended so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf, given by its data.
    pub fn append(&mut self, data: &[u8]) {
        self.push(leaf_hash(data));
    }

    /// Appends a leaf, given by its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_each(leaf, |_, _, _| {});
    }

    /// Appends a leaf and shows each perfect subtree that it completes, itself first: level (0 for the leaf), index among the
    /// subtrees of its level, root. What `attest::nodes` proves with.
    pub fn push_each(&mut self, leaf: Hash, mut completed: impl FnMut(u8, u64, &Hash)) {
        let (mut node, mut level) = (leaf, 0);
        completed(level, self.size, &node);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
                level += 1;
                completed(level, self.size >> level, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// Root over the leaves so far.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// The state as bytes: `u64be(size)`, then the peaks, the largest subtree first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 32 * self.peaks.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        self.peaks.iter().for_each(|peak| bytes.extend_from_slice(peak));
        bytes
    }

    /// Reads what [`CompactRange::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`TreeError::State`] if the number of peaks does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TreeError> {
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(TreeError::State("no size"))?;
        let size = u64::from_be_bytes(*size);
        let (peaks, []) = rest.as_chunks::<32>() else {
            return Err(TreeError::State("a hash is cut short"));
        };
        if peaks.len() != size.count_ones() as usize {
            return Err(TreeError::State("the number of hashes does not fit the size"));
        }
        Ok(Self { size, peaks: peaks.to_vec() })
    }
}

/// Proof that leaf `index` is in the tree over `leaves`: sibling hashes from the leaf up.
///
/// # Errors
/// [`TreeError::OutOfRange`] if there is no such leaf.
pub fn inclusion_proof(leaves: &[Hash], index: u64) -> Result<Vec<Hash>, TreeError> {
    let size = leaves.len() as u64;
    let mut at = usize::try_from(index).unwrap_or(usize::MAX);
    if at >= leaves.len() {
        return Err(TreeError::OutOfRange { index, size });
    }
    let (mut rest, mut path) = (leaves, Vec::new());
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split(rest.len()));
        if at < left.len() {
            path.push(root(right));
            rest = left;
        } else {
            path.push(root(left));
            at -= left.len();
            rest = right;
        }
    }
    path.reverse();
    Ok(path)
}

/// Checks that `leaf` is number `index` of the `size` leaves under `root` (RFC 9162 §2.1.3.2).
///
/// # Errors
/// [`TreeError`] names what is wrong: the index, the length of the path, or the root it leads to.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange { index, size });
    }
    let inner = (u64::BITS - (index ^ (size - 1)).leading_zeros()) as usize;
    let border = (index.checked_shr(inner as u32).unwrap_or(0)).count_ones() as usize;
    let expected = inner + border;
    if path.len() != expected {
        return Err(TreeError::PathLength { expected, found: path.len() });
    }
    let (low, high) = path.split_at(inner);
    let mut node = *leaf;
    for (level, sibling) in low.iter().enumerate() {
        node = if index >> level & 1 == 0 { node_hash(&node, sibling) } else { node_hash(sibling, &node) };
    }
    node = high.iter().fold(node, |node, sibling| node_hash(sibling, &node));
    if node == *root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// Proof that the tree over `leaves` continues the tree over its first `old` leaves (RFC 9162 §2.1.4.1).
///
/// # Errors
/// [`TreeError::Shrunk`] if there are fewer than `old` leaves.
pub fn consistency_proof(leaves: &[Hash], old: u64) -> Result<Vec<Hash>, TreeError> {
    let new = leaves.len() as u64;
    if old > new {
        return Err(TreeError::Shrunk { old, new });
    }
    let mut proof = Vec::new();
    if old != 0 && old != new {
        subproof(leaves, old as usize, true, &mut proof);
    }
    Ok(proof)
}

/// Checks that the tree of `new_size` leaves under `new_root` continues that of `old_size` under `old_root`
/// (RFC 9162 §2.1.4.2).
///
/// # Errors
/// [`TreeError`] names what is wrong: the sizes, the length of the proof, or a root it leads to.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), TreeError> {
    if old_size > new_size {
        return Err(TreeError::Shrunk { old: old_size, new: new_size });
    }
    if old_size == 0 || old_size == new_size {
        let same = old_size == 0 && *old_root == empty_root() || old_size != 0 && old_root == new_root;
        return match (proof.len(), same) {
            (0, true) => Ok(()),
            (0, false) => Err(TreeError::WrongRoot),
            (found, _) => Err(TreeError::PathLength { expected: 0, found }),
        };
    }
    let mut walk = (old_size - 1, new_size - 1);
    while walk.0 & 1 == 1 {
        walk = (walk.0 >> 1, walk.1 >> 1);
    }
    // A perfect old tree is itself the first node of the proof, and is left out of it.
    let (first, rest) = match proof.split_first() {
        _ if old_size.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return Err(TreeError::PathLength { expected: 1, found: 0 }),
    };
    let (mut old, mut new, mut used) = (*first, *first, 0);
    while walk.1 > 0 {
        let on_left = walk.0 & 1 == 1;
        if on_left || walk.0 == walk.1 {
            let sibling =
                rest.get(used).ok_or(TreeError::PathLength { expected: proof.len() + 1, found: proof.len() })?;
            used += 1;
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while walk.0 & 1 == 0 && walk.0 != 0 {
                walk = (walk.0 >> 1, walk.1 >> 1);
            }
        } else {
            let sibling =
                rest.get(used).ok_or(TreeError::PathLength { expected: proof.len() + 1, found: proof.len() })?;
            used += 1;
            new = node_hash(&new, sibling);
        }
        walk = (walk.0 >> 1, walk.1 >> 1);
    }
    if used != rest.len() {
        return Err(TreeError::PathLength { expected: proof.len() - rest.len() + used, found: proof.len() });
    }
    if old == *old_root && new == *new_root { Ok(()) } else { Err(TreeError::WrongRoot) }
}

/// The largest power of two below `len` (which is 2 or more): where RFC 6962 splits a tree.
fn split(len: usize) -> usize {
    len.next_power_of_two() / 2
}

/// `SUBPROOF(m, D_n, whole)` of RFC 9162 §2.1.4.1.
fn subproof(leaves: &[Hash], old: usize, whole: bool, proof: &mut Vec<Hash>) {
    if old == leaves.len() {
        if !whole {
            proof.push(root(leaves));
        }
        return;
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    if old <= at {
        subproof(left, old, whole, proof);
        proof.push(root(right));
    } else {
        subproof(right, old - at, false, proof);
        proof.push(root(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const VECTORS: &str = include_str!("../../tests/vectors/attestation/rfc6962.json");
    const MUST_DIFFER: &str = include_str!("../../tests/vectors/attestation/merkle_must_differ.json");

    fn bytes(value: &Value) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    fn hash(value: &Value) -> Hash {
        bytes(value).try_into().unwrap()
    }

    fn hashes(value: &Value) -> Vec<Hash> {
        value.as_array().unwrap().iter().map(hash).collect()
    }

    fn leaves(value: &Value) -> Vec<Hash> {
        value.as_array().unwrap().iter().map(|leaf| leaf_hash(&bytes(leaf))).collect()
    }

    #[test]
    fn roots_equal_those_of_certificate_transparency() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let all = leaves(&vectors["ct_inputs_hex"]);
        for case in vectors["ct_reference"].as_array().unwrap() {
            let size = case["n"].as_u64().unwrap() as usize;
            assert_eq!(root(&all[..size]), hash(&case["root"]), "{size} leaves");
        }
    }

    #[test]
    fn proofs_equal_those_of_independent_implementations_and_negatives_are_refused() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        for tree in vectors["trees"].as_array().unwrap() {
            let leaves = leaves(&tree["leaves_hex"]);
            let (size, top) = (leaves.len() as u64, hash(&tree["root"]));
            assert_eq!(root(&leaves), top);
            for case in tree["inclusion"].as_array().unwrap() {
                let (index, path) = (case["index"].as_u64().unwrap(), hashes(&case["path"]));
                assert_eq!(inclusion_proof(&leaves, index).unwrap(), path, "leaf {index} of {size}");
                assert_eq!(verify_inclusion(&leaves[index as usize], index, size, &path, &top), Ok(()));
            }
            for case in tree["consistency"].as_array().unwrap() {
                let (old, path) = (case["m"].as_u64().unwrap(), hashes(&case["path"]));
                let old_root = hash(&case["old_root"]);
                assert_eq!(consistency_proof(&leaves, old).unwrap(), path, "{old} of {size}");
                assert_eq!(verify_consistency(old, &old_root, size, &top, &path), Ok(()));
            }
            for case in tree["negative_inclusion"].as_array().unwrap() {
                let index = case["index"].as_u64().unwrap();
                let leaf = leaves[case["leaf_index"].as_u64().unwrap() as usize];
                assert!(verify_inclusion(&leaf, index, size, &hashes(&case["path"]), &top).is_err(), "{case}");
            }
        }
    }

    #[test]
    fn a_tree_cannot_be_mistaken_for_another_with_spliced_or_repeated_leaves() {
        let cases: Value = serde_json::from_str(MUST_DIFFER).unwrap();
        for case in cases.as_array().unwrap() {
            assert_ne!(root(&leaves(&case["a"])), root(&leaves(&case["b"])), "{}", case["why"]);
        }
    }

    #[test]
    fn a_state_with_missing_peaks_is_refused() {
        let mut range = CompactRange::new();
        (0..5_u8).for_each(|leaf| range.append(&[leaf]));
        let bytes = range.to_bytes();
        assert_eq!(CompactRange::from_bytes(&bytes), Ok(range));
        assert!(CompactRange::from_bytes(&bytes[..bytes.len() - 32]).is_err());
        assert!(CompactRange::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(CompactRange::from_bytes(&bytes[..7]).is_err());
    }

    proptest! {
        #[test]
        fn every_leaf_of_every_tree_proves_itself_and_no_other_index_size_or_length(size in 1_u64..80, pick in 0_u64..80, old in 0_u64..80) {
            let leaves: Vec<Hash> = (0..size).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect();
            let (index, old, top) = (pick % size, old % (size + 1), root(&leaves));
            let leaf = &leaves[index as usize];
            let mut path = inclusion_proof(&leaves, index).unwrap();
            prop_assert_eq!(verify_inclusion(leaf, index, size, &path, &top), Ok(()));
            prop_assert!(verify_inclusion(leaf, size, size, &path, &top).is_err());
            prop_assert!(index + 1 >= size || verify_inclusion(leaf, index + 1, size, &path, &top).is_err());
            path.push(top);
            prop_assert!(verify_inclusion(leaf, index, size, &path, &top).is_err());

            let mut proof = consistency_proof(&leaves, old).unwrap();
            let old_root = root(&leaves[..old as usize]);
            prop_assert_eq!(verify_consistency(old, &old_root, size, &top, &proof), Ok(()));
            prop_assert!(old == size || verify_consistency(old + 1, &old_root, size, &top, &proof).is_err());
            proof.push(top);
            prop_assert!(verify_consistency(old, &old_root, size, &top, &proof).is_err());
        }

        #[test]
        fn verifiers_never_panic(index: u64, size: u64, old: u64, hashes in proptest::collection::vec(any::<Hash>(), 0..70)) {
            let _ = verify_inclusion(&[0; 32], index, size, &hashes, &[1; 32]);
            let _ = verify_consistency(old, &[0; 32], size, &[1; 32], &hashes);
        }

        #[test]
        fn a_restored_state_continues_as_if_never_stored(before in 0_u64..70, after in 0_u64..70) {
            let leaf = |leaf: u64| leaf_hash(&leaf.to_be_bytes());
            let mut range = CompactRange::new();
            (0..before).for_each(|at| range.push(leaf(at)));
            let mut range = CompactRange::from_bytes(&range.to_bytes()).unwrap();
            (before..before + after).for_each(|at| range.push(leaf(at)));
            let all: Vec<Hash> = (0..before + after).map(leaf).collect();
            prop_assert_eq!(range.root(), root(&all));
        }
    }
}

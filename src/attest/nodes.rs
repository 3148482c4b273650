//! Proofs from stored nodes: a log of any size proves with a few dozen look-ups.
//!
//! What is stored is the root of each *perfect* subtree, named by level and index (a leaf is at level 0); an appended leaf
//! completes two of them on average ([`CompactRange::push_each`]). They never change, whatever is appended later, so proofs
//! for any earlier size come from the same store. The paths are those of RFC 6962, and equal to `tree`'s.
//!
//! [`CompactRange::push_each`]: super::tree::CompactRange::push_each

use super::tree::{Hash, TreeError, node_hash};

/// Why a proof could not be made: there is none, or a node could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// Index or sizes do not fit.
    #[error("leaf or tree {asked} lies outside a tree of {size} leaves")]
    OutOfRange {
        /// Index or size that was asked for.
        asked: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The store failed.
    #[error("a node cannot be read: {0}")]
    Node(E),
}

/// Reads the root of a perfect subtree by level and index.
pub trait Nodes {
    /// Why a node could not be read.
    type Error;

    /// The node.
    ///
    /// # Errors
    /// When the store fails or lacks it.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Root of the leaves `from..to`, where `from` is a multiple of the range's smallest enclosing power of two, as it is of every
/// range that RFC 6962 cuts a tree into.
fn range_root<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let size = to - from;
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        return nodes.node(u8::try_from(level).unwrap_or(u8::MAX), from >> level);
    }
    let middle = from + split(size);
    Ok(node_hash(&range_root(nodes, from, middle)?, &range_root(nodes, middle, to)?))
}

/// The largest power of two below `size` (2 or more): where RFC 6962 splits a tree.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// Root over the first `size` leaves.
///
/// # Errors
/// When a node cannot be read.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(super::tree::empty_root()) } else { range_root(nodes, 0, size) }
}

/// Proof that leaf `index` is among the first `size`: sibling hashes from the leaf up.
///
/// # Errors
/// [`ProofError`].
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, ProofError<N::Error>> {
    if index >= size {
        return Err(ProofError::OutOfRange { asked: index, size });
    }
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        let sibling = if index < middle { (middle, to) } else { (from, middle) };
        path.push(range_root(nodes, sibling.0, sibling.1).map_err(ProofError::Node)?);
        (from, to) = if index < middle { (from, middle) } else { (middle, to) };
    }
    path.reverse();
    Ok(path)
}

/// Proof that the first `old` leaves are the beginning of the first `size` (`SUBPROOF` of RFC 9162 §2.1.4.1); empty for `old`
/// 0 and `size`.
///
/// # Errors
/// [`ProofError`].
pub fn consistency_proof<N: Nodes>(nodes: &N, old: u64, size: u64) -> Result<Vec<Hash>, ProofError<N::Error>> {
    if old > size {
        return Err(ProofError::OutOfRange { asked: old, size });
    }
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to != old {
        let middle = from + split(to - from);
        let sibling = if old <= middle { (middle, to) } else { (from, middle) };
        path.push(range_root(nodes, sibling.0, sibling.1).map_err(ProofError::Node)?);
        (from, to) = if old <= middle { (from, middle) } else { (middle, to) };
    }
    if from > 0 {
        path.push(range_root(nodes, from, to).map_err(ProofError::Node)?);
    }
    path.reverse();
    Ok(path)
}

/// Nodes in memory, made from leaves: for readers of a whole log.
#[derive(Debug, Clone, Default)]
pub struct MemoryNodes {
    levels: Vec<Vec<Hash>>,
    range: super::tree::CompactRange,
}

impl MemoryNodes {
    /// The nodes over these leaf hashes.
    #[must_use]
    pub fn of(leaves: impl IntoIterator<Item = Hash>) -> Self {
        let mut nodes = Self::default();
        leaves.into_iter().for_each(|leaf| nodes.push(leaf));
        nodes
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        self.range.push_each(leaf, |level, _, node| {
            let level = usize::from(level);
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            if let Some(nodes) = levels.get_mut(level) {
                nodes.push(*node);
            }
        });
    }

    /// Leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.range.size()
    }
}

impl Nodes for MemoryNodes {
    type Error = TreeError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, TreeError> {
        let nodes = self.levels.get(usize::from(level));
        let node = nodes.and_then(|nodes| nodes.get(usize::try_from(index).ok()?));
        node.copied().ok_or(TreeError::OutOfRange { index, size: self.size() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(|leaf| tree::leaf_hash(&leaf.to_be_bytes())).collect()
    }

    #[test]
    fn every_proof_of_every_tree_up_to_70_is_that_of_the_whole_tree_and_verifies() {
        let all = leaves(70);
        let nodes = MemoryNodes::of(all.iter().copied());
        for size in 0..=70 {
            let part = &all[..size as usize];
            let top = root(&nodes, size).unwrap();
            assert_eq!(top, tree::root(part));
            for index in 0..size {
                let path = inclusion_proof(&nodes, index, size).unwrap();
                assert_eq!(path, tree::inclusion_proof(part, index).unwrap(), "leaf {index} of {size}");
                assert_eq!(tree::verify_inclusion(&part[index as usize], index, size, &path, &top), Ok(()));
            }
            for old in 0..=size {
                let path = consistency_proof(&nodes, old, size).unwrap();
                assert_eq!(path, tree::consistency_proof(part, old).unwrap(), "{old} of {size}");
                let before = root(&nodes, old).unwrap();
                assert_eq!(tree::verify_consistency(old, &before, size, &top, &path), Ok(()));
            }
        }
    }

    #[test]
    fn a_proof_with_one_bit_changed_one_hash_dropped_or_one_too_many_is_refused() {
        let all = leaves(23);
        let nodes = MemoryNodes::of(all.iter().copied());
        let top = root(&nodes, 23).unwrap();
        for index in 0..23 {
            let good = inclusion_proof(&nodes, index, 23).unwrap();
            let refused = |path: &[Hash]| tree::verify_inclusion(&all[index as usize], index, 23, path, &top).is_err();
            mutations(&good).iter().for_each(|path| assert!(refused(path), "leaf {index}"));
        }
        for old in 1..23 {
            let good = consistency_proof(&nodes, old, 23).unwrap();
            let before = root(&nodes, old).unwrap();
            let refused = |path: &[Hash]| tree::verify_consistency(old, &before, 23, &top, path).is_err();
            mutations(&good).iter().for_each(|path| assert!(refused(path), "{old} leaves"));
        }
    }

    fn mutations(good: &[Hash]) -> Vec<Vec<Hash>> {
        let mut all: Vec<_> = (0..good.len())
            .flat_map(|at| {
                let (mut flipped, mut dropped, mut twice) = (good.to_vec(), good.to_vec(), good.to_vec());
                flipped[at][at % 32] ^= 1 << (at % 8);
                dropped.remove(at);
                twice.insert(at, good[at]);
                [flipped, dropped, twice]
            })
            .collect();
        all.push([good, &[[0; 32]]].concat());
        if good.len() > 1 && good[0] != good[1] {
            let mut swapped = good.to_vec();
            swapped.swap(0, 1);
            all.push(swapped);
        }
        all
    }

    #[test]
    fn what_lies_outside_the_tree_has_no_proof() {
        let nodes = MemoryNodes::of(leaves(5));
        assert_eq!(inclusion_proof(&nodes, 5, 5), Err(ProofError::OutOfRange { asked: 5, size: 5 }));
        assert_eq!(consistency_proof(&nodes, 6, 5), Err(ProofError::OutOfRange { asked: 6, size: 5 }));
        assert!(matches!(inclusion_proof(&nodes, 0, 6), Err(ProofError::Node(_))));
    }
}

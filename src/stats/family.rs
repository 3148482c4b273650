//! Which benchmarks share their attempts: those that share rows. Otherwise sealing the same rows anew would reset what may be spent.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Digest of a row or of a tree of rows.
pub type Digest = [u8; 32];

/// Two benchmarks overlap when they share more than one row in this many, of the smaller one.
pub const OVERLAP: u128 = 100;

/// A benchmark that was sealed before.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// Its attempts family: the rows root of the first benchmark in the chain.
    pub family: Digest,
    /// Digests of its rows.
    pub rows: &'a BTreeSet<Digest>,
}

/// The rows overlap with benchmarks of several families, so no family's count of attempts would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the rows overlap with benchmarks of {0} attempts families; help: leave out the rows of all but one of them")]
pub struct SeveralFamilies(pub usize);

/// The attempts family of rows that are to be sealed: that of the benchmarks they overlap with, or one of their own, named by their
/// root. Fixed at sealing; the caller passes every benchmark of the tenant, retired ones too.
///
/// # Errors
/// [`SeveralFamilies`].
pub fn family_of<'a>(
    root: Digest,
    rows: &BTreeSet<Digest>,
    sealed: impl IntoIterator<Item = Sealed<'a>>,
) -> Result<Digest, SeveralFamilies> {
    let mut families: BTreeMap<Digest, u64> = BTreeMap::new();
    for other in sealed {
        if overlaps(rows, other.rows) {
            *families.entry(other.family).or_insert(0) += 1;
        }
    }
    if families.len() > 1 {
        return Err(SeveralFamilies(families.len()));
    }
    Ok(families.into_keys().next().unwrap_or(root))
}

/// Whether two sets share more than 1 % of the smaller one. Of the smaller: a benchmark that is a tenth of another is all in it, however
/// little of the other that is.
#[must_use]
pub fn overlaps(one: &BTreeSet<Digest>, other: &BTreeSet<Digest>) -> bool {
    let (small, large) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let shared = small.iter().filter(|row| large.contains(*row)).count();
    shared as u128 * OVERLAP > small.len() as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(range: std::ops::Range<u32>) -> BTreeSet<Digest> {
        range
            .map(|number| {
                let mut digest = [0; 32];
                digest[..4].copy_from_slice(&number.to_be_bytes());
                digest
            })
            .collect()
    }

    #[test]
    fn rows_that_are_new_found_a_family_and_rows_that_are_known_join_one() {
        let (first, root) = (rows(0..1_000), [1; 32]);
        assert_eq!(family_of(root, &first, []), Ok(root));
        let sealed = Sealed { family: root, rows: &first };
        // Ten of a thousand are 1 %, not more.
        assert_eq!(family_of([2; 32], &rows(990..1_990), [sealed]), Ok([2; 32]));
        assert_eq!(family_of([2; 32], &rows(989..1_989), [sealed]), Ok(root));
    }

    #[test]
    fn a_small_part_of_a_large_benchmark_joins_its_family() {
        let large = rows(0..100_000);
        let sealed = Sealed { family: [1; 32], rows: &large };
        assert_eq!(family_of([2; 32], &rows(500..600), [sealed]), Ok([1; 32]));
    }

    #[test]
    fn a_bridge_between_two_families_is_refused() {
        let (first, second) = (rows(0..1_000), rows(1_000..2_000));
        let both = [Sealed { family: [1; 32], rows: &first }, Sealed { family: [2; 32], rows: &second }];
        assert_eq!(family_of([3; 32], &rows(500..1_500), both), Err(SeveralFamilies(2)));
    }

    #[test]
    fn a_chain_of_overlaps_is_one_family() {
        let (first, second) = (rows(0..1_000), rows(900..1_900));
        let family = family_of([2; 32], &second, [Sealed { family: [1; 32], rows: &first }]).unwrap();
        let chain = [Sealed { family: [1; 32], rows: &first }, Sealed { family, rows: &second }];
        assert_eq!(family_of([3; 32], &rows(1_800..2_800), chain), Ok([1; 32]));
    }
}

//! A sorted run: what one transaction adds to a shard's deduplication state, as it stands in the changelog.
//!
//! Layout, integers big-endian: version (1 byte), then four sections, each a count (u32) and fixed-width items:
//! owners (number of the first one before them, u32), verdicts, released owners, rows sorted by (features, tag).
//! What stands on this machine's disk has a format of its own ([`super::disk`]): the changelog is the truth.

use super::index::{Entry, RowKey};
use super::owners::{OwnerFacts, PartVerdict};

/// Format version of a run.
pub const VERSION: u8 = 1;

/// Items per section of one run: together at most 784 KiB, below what a broker accepts by default.
const OWNERS: usize = 4_096;
const VERDICTS: usize = 4_096;
const RELEASED: usize = 16_384;
const ROWS: usize = 12_288;

/// What one transaction, or a part of it, adds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Run {
    /// Number of the first of `owners`.
    pub first_owner: u32,
    /// New owners, numbered from `first_owner`.
    pub owners: Vec<OwnerFacts>,
    /// Verdicts, by owner and part.
    pub verdicts: Vec<((u32, u32), PartVerdict)>,
    /// Owners that gave their rows up.
    pub released: Vec<u32>,
    /// Rows, sorted.
    pub rows: Vec<(RowKey, Entry)>,
}

impl Run {
    /// Nothing to log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.verdicts.is_empty() && self.released.is_empty() && self.rows.is_empty()
    }

    /// Cuts the run into runs that each fit into one changelog record.
    #[must_use]
    pub fn split(mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        while !self.is_empty() {
            let rest = Run {
                first_owner: self.first_owner + u32::try_from(self.owners.len().min(OWNERS)).unwrap_or(0),
                owners: tail(&mut self.owners, OWNERS),
                verdicts: tail(&mut self.verdicts, VERDICTS),
                released: tail(&mut self.released, RELEASED),
                rows: tail(&mut self.rows, ROWS),
            };
            runs.push(std::mem::replace(&mut self, rest));
        }
        runs
    }

    /// The run as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            32 + self.owners.len() * 52 + self.verdicts.len() * 32 + self.released.len() * 4 + self.rows.len() * 32,
        );
        out.push(VERSION);
        count(&mut out, self.owners.len());
        out.extend_from_slice(&self.first_owner.to_be_bytes());
        for owner in &self.owners {
            out.extend_from_slice(&owner.ident.to_be_bytes());
            out.extend_from_slice(&owner.batch.to_be_bytes());
            out.extend_from_slice(&owner.contributor.to_be_bytes());
            out.extend_from_slice(&owner.chunk.to_be_bytes());
        }
        count(&mut out, self.verdicts.len());
        for ((owner, part), v) in &self.verdicts {
            for word in [*owner, *part].into_iter().chain(v.words()) {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        count(&mut out, self.released.len());
        for owner in &self.released {
            out.extend_from_slice(&owner.to_be_bytes());
        }
        count(&mut out, self.rows.len());
        for (key, entry) in &self.rows {
            out.extend_from_slice(&key.features.to_be_bytes());
            out.extend_from_slice(&key.tag.to_be_bytes());
            out.extend_from_slice(&entry.owner.to_be_bytes());
            out.extend_from_slice(&entry.row.to_be_bytes());
        }
        out
    }

    /// Reads a run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut at = Reader(bytes);
        let version = u8::from_be_bytes(at.take()?);
        if version != VERSION {
            return Err(format!("format version {version}, this program reads {VERSION}"));
        }
        let owners = at.count(52)?;
        let mut run = Run { first_owner: at.u32()?, ..Run::default() };
        for _ in 0..owners {
            run.owners.push(OwnerFacts {
                ident: at.u128()?,
                batch: at.u128()?,
                contributor: at.u128()?,
                chunk: at.u32()?,
            });
        }
        for _ in 0..at.count(32)? {
            let key = (at.u32()?, at.u32()?);
            let words = [at.u32()?, at.u32()?, at.u32()?, at.u32()?, at.u32()?, at.u32()?];
            run.verdicts.push((key, PartVerdict::of_words(words)));
        }
        for _ in 0..at.count(4)? {
            run.released.push(at.u32()?);
        }
        for _ in 0..at.count(32)? {
            let key = RowKey { features: at.u128()?, tag: u64::from_be_bytes(at.take()?) };
            run.rows.push((key, Entry { tag: key.tag, owner: at.u32()?, row: at.u32()? }));
        }
        if at.0.is_empty() { Ok(run) } else { Err(format!("{} bytes too many", at.0.len())) }
    }
}

fn tail<T>(items: &mut Vec<T>, keep: usize) -> Vec<T> {
    items.split_off(items.len().min(keep))
}

fn count(out: &mut Vec<u8>, items: usize) {
    out.extend_from_slice(&u32::try_from(items).unwrap_or(u32::MAX).to_be_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("cut short")?;
        self.0 = rest;
        Ok(*head)
    }
    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take()?))
    }
    fn u128(&mut self) -> Result<u128, String> {
        Ok(u128::from_be_bytes(self.take()?))
    }
    /// A count of items that the rest of the run can hold.
    fn count(&mut self, width: usize) -> Result<usize, String> {
        let items = self.u32()? as usize;
        if items.saturating_mul(width) > self.0.len() {
            return Err(format!("{items} items of {width} bytes stated, {} bytes there", self.0.len()));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(owners: usize, rows: usize) -> Run {
        Run {
            first_owner: 5,
            owners: (0..owners as u32)
                .map(|i| OwnerFacts { ident: u128::from(i), batch: 2, contributor: 3, chunk: i })
                .collect(),
            verdicts: (0..owners as u32)
                .map(|i| ((5 + i, 0), PartVerdict { parts: 1, accepted: i, ..PartVerdict::default() }))
                .collect(),
            released: vec![1, 2],
            rows: (0..rows as u64)
                .map(|i| (RowKey { features: u128::from(i) << 90, tag: i }, Entry { tag: i, owner: 5, row: i as u32 }))
                .collect(),
        }
    }

    #[test]
    fn a_large_transaction_is_cut_into_runs_that_each_fit_into_a_record_and_lose_nothing() {
        let whole = run(5_000, 40_000);
        let parts = whole.clone().split();
        assert!(parts.iter().all(|p| p.encode().len() <= 900 * 1024));
        let mut joined = Run { first_owner: 5, ..Run::default() };
        for part in parts {
            if !part.owners.is_empty() {
                assert_eq!(part.first_owner, 5 + joined.owners.len() as u32);
            }
            joined.owners.extend(part.owners);
            joined.verdicts.extend(part.verdicts);
            joined.released.extend(part.released);
            joined.rows.extend(part.rows);
        }
        assert_eq!(joined, whole);
    }

    #[test]
    fn a_run_of_another_version_is_refused() {
        let mut bytes = run(1, 1).encode();
        bytes[0] = VERSION + 1;
        assert!(Run::decode(&bytes).unwrap_err().contains("format version"));
    }

    proptest! {
        #[test]
        fn a_run_reads_back_as_it_was_written(owners in 0..20_usize, rows in 0..50_usize) {
            let run = run(owners, rows);
            prop_assert_eq!(Run::decode(&run.encode()).unwrap(), run);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(cut in 0..200_usize, at in 0..200_usize, to: u8) {
            let mut bytes = run(2, 3).encode();
            let length = bytes.len();
            bytes[at % length] = to;
            bytes.truncate(length - cut % length);
            let _ = Run::decode(&bytes);
        }
    }
}

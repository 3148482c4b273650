//! The match filter: by it intake knows a row that is sealed, and sealing an overlap with earlier benchmarks.
//!
//! ```text
//! "HKMF" 01 ‖ u64be n ‖ n × 16 bytes ‖ u64be m ‖ m × 16 bytes
//! ```
//!
//! The first list holds the feature hashes under the *model's* key (`codec::canonical`), the second those under the
//! tenant's key for overlaps; each is sorted and without doubles. Both are keyed: without the ring nobody can try a row. No
//! label goes into either.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use bytes::Bytes;

use super::SealingError;
use crate::stats::family::Digest;

/// Media type of the blob.
pub const MEDIA_TYPE: &str = "application/vnd.hokusai.match-filter";

/// Column of the feature hash in batches of screened and accepted rows.
pub const FEATURE_HASH: &str = "_feature_hash";

const MAGIC: &[u8; 5] = b"HKMF\x01";
const HASH: usize = 16;

/// Largest filter that is read: both lists of the largest benchmark.
pub const MAX_BYTES: u64 = 64 << 20;

/// A filter in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct MatchFilter {
    bytes: Bytes,
    /// Hashes in the first list.
    features: usize,
}

impl std::fmt::Debug for MatchFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MatchFilter({} features)", self.features)
    }
}

impl MatchFilter {
    /// The filter of rows.
    #[must_use]
    pub fn new(features: &[[u8; HASH]], overlaps: &[[u8; HASH]]) -> Self {
        let mut bytes = MAGIC.to_vec();
        let mut list = |hashes: &[[u8; HASH]]| {
            let hashes: BTreeSet<_> = hashes.iter().collect();
            bytes.extend((hashes.len() as u64).to_be_bytes());
            hashes.iter().for_each(|hash| bytes.extend_from_slice(*hash));
            hashes.len()
        };
        let count = list(features);
        list(overlaps);
        Self { bytes: bytes.into(), features: count }
    }

    /// Reads a filter.
    ///
    /// # Errors
    /// [`SealingError::Blob`] when it is damaged.
    pub fn parse(bytes: Bytes) -> Result<Self, SealingError> {
        let broken = |why: &str| SealingError::Blob { what: "a match filter", why: why.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("it is none of this version"))?;
        let (features, rest) = take(rest).ok_or_else(|| broken("its first list is damaged"))?;
        let (_, rest) = take(rest).ok_or_else(|| broken("its second list is damaged"))?;
        if !rest.is_empty() {
            return Err(broken("something follows it"));
        }
        Ok(Self { bytes, features })
    }

    /// The filter as bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn features(&self) -> &[[u8; HASH]] {
        let from = MAGIC.len() + 8;
        let list = self.bytes.get(from..from + self.features * HASH).unwrap_or_default();
        list.as_chunks().0
    }

    /// Whether a row of these features is sealed.
    #[must_use]
    pub fn contains(&self, features: &[u8; HASH]) -> bool {
        self.features().binary_search(features).is_ok()
    }

    /// Digests of the rows under the tenant's key, for [`crate::stats::family`].
    #[must_use]
    pub fn overlaps(&self) -> BTreeSet<Digest> {
        let from = MAGIC.len() + 16 + self.features * HASH;
        let list: &[[u8; HASH]] = self.bytes.get(from..).unwrap_or_default().as_chunks().0;
        list.iter().map(digest).collect()
    }
}

/// A hash of 16 bytes as a digest of the family's arithmetic.
#[must_use]
pub fn digest(hash: &[u8; HASH]) -> Digest {
    let mut digest = Digest::default();
    digest[..HASH].copy_from_slice(hash);
    digest
}

/// A list: its length, and what follows. Strictly rising, so that a look-up finds what is there.
fn take(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_be_bytes(*count)).ok()?;
    let (list, rest) = rest.split_at_checked(count.checked_mul(HASH)?)?;
    let hashes: &[[u8; HASH]] = list.as_chunks().0;
    hashes.is_sorted_by(|a, b| a < b).then_some((count, rest))
}

/// The rows of a batch of screened or accepted rows that none of the filters knows, and how many it took out: what a data set
/// may be made of. Rows of the pool may be older than the benchmark that they stand in.
///
/// # Errors
/// [`SealingError::Arrow`] when the batch has no feature hashes.
pub fn without_sealed<'f>(
    batch: &RecordBatch,
    filters: impl IntoIterator<Item = &'f MatchFilter> + Clone,
) -> Result<(RecordBatch, usize), SealingError> {
    let missing = || arrow::error::ArrowError::SchemaError(format!("the column {FEATURE_HASH} is missing or has gaps"));
    let hashes = batch.column_by_name(FEATURE_HASH).and_then(|c| c.as_fixed_size_binary_opt()).ok_or_else(missing)?;
    let mut keep = Vec::with_capacity(hashes.len());
    for row in 0..hashes.len() {
        let hash: &[u8; HASH] = hashes.value(row).try_into().map_err(|_| missing())?;
        keep.push(!filters.clone().into_iter().any(|filter| filter.contains(hash)));
    }
    let out = keep.iter().filter(|keep| !**keep).count();
    if out == 0 {
        return Ok((batch.clone(), 0));
    }
    Ok((filter_record_batch(batch, &BooleanArray::from(keep))?, out))
}

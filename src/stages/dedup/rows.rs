//! A screened batch as dedup sees it: a row's number and its two hashes; the other columns are carried along.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::UInt32Type;

use crate::codec::ipc::{self, Compression, IpcError, Limits};

/// Column with the row's number in its chunk.
pub const ROW: &str = "_row";
/// Column with the hash of the row.
pub const ROW_HASH: &str = "_row_hash";
/// Column with the hash of the row without its label.
pub const FEATURE_HASH: &str = "_feature_hash";

/// A row's number in its chunk and its two hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashedRow {
    /// Row in the chunk.
    pub row: u32,
    /// Hash of the row.
    pub row_hash: u128,
    /// Hash of the row without its label.
    pub feature_hash: u128,
}

/// Why a screened batch cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Not a batch.
    #[error(transparent)]
    Ipc(#[from] IpcError),
    /// A batch without one of the three columns.
    #[error("column {0} is missing, has nulls or is of another type")]
    Column(&'static str),
    /// Another number of rows than the record states.
    #[error("{stated} rows stated, {found} there")]
    Count {
        /// As the record says.
        stated: usize,
        /// In the batch.
        found: usize,
    },
}

/// Reads a batch and the hashes of its rows.
///
/// # Errors
/// [`RowsError`], without a value of the batch.
pub fn read(stream: &[u8], stated: usize) -> Result<(RecordBatch, Vec<HashedRow>), RowsError> {
    let batch = ipc::read(stream, Limits::default())?;
    if batch.num_rows() != stated {
        return Err(RowsError::Count { stated, found: batch.num_rows() });
    }
    let column =
        |name| batch.column_by_name(name).filter(|column| column.null_count() == 0).ok_or(RowsError::Column(name));
    let numbers = column(ROW)?.as_primitive_opt::<UInt32Type>().ok_or(RowsError::Column(ROW))?;
    let hashes = |name| {
        let hashes = column(name)?.as_fixed_size_binary_opt().filter(|c| c.value_length() == 16);
        hashes.ok_or(RowsError::Column(name))
    };
    let (row_hashes, feature_hashes) = (hashes(ROW_HASH)?, hashes(FEATURE_HASH)?);
    let word = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_or(0, u128::from_be_bytes);
    let row = |i| HashedRow {
        row: numbers.value(i),
        row_hash: word(row_hashes.value(i)),
        feature_hash: word(feature_hashes.value(i)),
    };
    let rows = (0..batch.num_rows()).map(row).collect();
    Ok((batch, rows))
}

/// The rows of a batch that `keep` marks, as a stream.
///
/// # Errors
/// When they cannot be written.
pub fn filter(batch: &RecordBatch, keep: &[bool]) -> Result<Vec<u8>, IpcError> {
    let kept = arrow::compute::filter_record_batch(batch, &BooleanArray::from(keep.to_vec()));
    // Not compressed: the producer compresses whole batches of records.
    ipc::write(&kept.map_err(IpcError::Write)?, Compression::None)
}

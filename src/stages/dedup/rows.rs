//! A screened batch as dedup sees it: three columns decoded, the rest carried along as bytes.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

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

/// Reads the hash columns of an Arrow IPC stream and nothing else of it.
///
/// # Errors
/// What is wrong with the stream, without a value of it.
pub fn read_hashes(stream: &[u8], expected: usize) -> Result<Vec<HashedRow>, String> {
    let schema = StreamReader::try_new(stream, None).map_err(|e| e.to_string())?.schema();
    let place = |name: &str| schema.index_of(name).map_err(|_| format!("no column {name}"));
    let columns = vec![place(ROW)?, place(ROW_HASH)?, place(FEATURE_HASH)?];
    let mut rows = Vec::with_capacity(expected.min(stream.len()));
    for batch in StreamReader::try_new(stream, Some(columns)).map_err(|e| e.to_string())? {
        append_hashes(&batch.map_err(|e| e.to_string())?, &mut rows)?;
    }
    if rows.len() != expected {
        return Err(format!("{expected} rows stated, {} there", rows.len()));
    }
    Ok(rows)
}

fn append_hashes(batch: &RecordBatch, rows: &mut Vec<HashedRow>) -> Result<(), String> {
    let column =
        |name: &str| batch.column_by_name(name).filter(|c| c.null_count() == 0).ok_or(format!("{name} has nulls"));
    let numbers = column(ROW)?.as_primitive_opt::<UInt32Type>().ok_or(format!("{ROW} is not UInt32"))?;
    let hashes = |name: &str| {
        let column = column(name)?.as_fixed_size_binary_opt().ok_or(format!("{name} is not FixedSizeBinary"))?;
        if column.value_length() == 16 { Ok(column.clone()) } else { Err(format!("{name} is not 16 bytes wide")) }
    };
    let (row_hashes, feature_hashes) = (hashes(ROW_HASH)?, hashes(FEATURE_HASH)?);
    let word = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map_or(0, u128::from_be_bytes);
    rows.extend((0..batch.num_rows()).map(|i| HashedRow {
        row: numbers.value(i),
        row_hash: word(row_hashes.value(i)),
        feature_hash: word(feature_hashes.value(i)),
    }));
    Ok(())
}

/// The rows of a stream that `keep` marks, as a stream.
///
/// # Errors
/// What is wrong with the stream.
pub fn filter(stream: &[u8], keep: &[bool]) -> Result<Vec<u8>, String> {
    let reader = StreamReader::try_new(stream, None).map_err(|e| e.to_string())?;
    let mut writer = StreamWriter::try_new(Vec::new(), &reader.schema()).map_err(|e| e.to_string())?;
    let mut rest = keep;
    for batch in reader {
        let batch = batch.map_err(|e| e.to_string())?;
        let (mask, after) = rest.split_at_checked(batch.num_rows()).ok_or("more rows than hashes")?;
        rest = after;
        let kept = arrow::compute::filter_record_batch(&batch, &BooleanArray::from(mask.to_vec()));
        writer.write(&kept.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    writer.into_inner().map_err(|e| e.to_string())
}

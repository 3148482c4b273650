//! Screened rows as Arrow IPC streams that each fit into one record.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::codec::ipc::{self, Compression, IpcError};
use crate::stages::limits::OUTPUT_BYTES;

/// Ids and framing around a batch in its record.
const ENVELOPE_BYTES: usize = 4 * 1024;
const HASH_BYTES: i32 = 16;
const BUFFER_PADDING: usize = 64;

/// One part: an Arrow IPC stream and the number of its rows.
pub(super) struct Part {
    pub stream: Vec<u8>,
    pub rows: usize,
}

/// Schema of screened rows: position, hashes, then the contract's columns.
pub(super) fn screened_schema(contract: &Schema) -> Schema {
    let hash = |name: &str| Field::new(name, DataType::FixedSizeBinary(HASH_BYTES), false);
    let mut fields = vec![
        Arc::new(Field::new("_row", DataType::UInt32, false)),
        Arc::new(hash("_row_hash")),
        Arc::new(hash("_feature_hash")),
    ];
    fields.extend(contract.fields().iter().cloned());
    Schema::new(fields)
}

/// The screened rows of a chunk as one batch.
pub(super) fn screened_batch(
    schema: &SchemaRef,
    rows: &[u32],
    row_hashes: &[[u8; 16]],
    feature_hashes: &[[u8; 16]],
    columns: &[ArrayRef],
) -> Result<RecordBatch, ArrowError> {
    let hashes = |hashes: &[[u8; 16]]| -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(FixedSizeBinaryArray::try_new(HASH_BYTES, hashes.as_flattened().to_vec().into(), None)?))
    };
    let mut all: Vec<ArrayRef> =
        vec![Arc::new(UInt32Array::from(rows.to_vec())), hashes(row_hashes)?, hashes(feature_hashes)?];
    all.extend(columns.iter().cloned());
    RecordBatch::try_new(Arc::clone(schema), all)
}

/// Rows of a batch by shard, in row order; shards without rows are left out.
pub(super) fn by_shard(batch: &RecordBatch, shards: &[u32], count: u32) -> Result<Vec<(u32, RecordBatch)>, ArrowError> {
    if count == 1 {
        return Ok(vec![(0, batch.clone())]);
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); count as usize];
    for (row, shard) in (0..).zip(shards) {
        if let Some(rows) = rows.get_mut(*shard as usize) {
            rows.push(row);
        }
    }
    let taken = |(shard, rows): (u32, Vec<u32>)| Ok((shard, take_record_batch(batch, &UInt32Array::from(rows))?));
    (0..).zip(rows).filter(|(_, rows)| !rows.is_empty()).map(taken).collect()
}

/// Cuts a batch into parts. Where it is cut depends on the rows alone.
pub(super) fn parts(batch: &RecordBatch) -> Result<Vec<Part>, IpcError> {
    let sizes = row_bytes(batch);
    let most = OUTPUT_BYTES.saturating_sub(ENVELOPE_BYTES);
    let mut parts = Vec::new();
    // Most batches are far below the limit: they are written at once. (Above it they are cut like all others.)
    if sizes.iter().sum::<usize>() < most / 2 {
        let stream = encode(batch)?;
        if stream.len() <= most {
            return Ok(vec![Part { stream, rows: batch.num_rows() }]);
        }
    }
    let budget = most.saturating_sub(frame_bytes(batch)?).max(1);
    let (mut start, mut bytes) = (0, 0_usize);
    for (row, size) in sizes.iter().enumerate() {
        if row > start && bytes + size > budget {
            write(&batch.slice(start, row - start), most, &mut parts)?;
            (start, bytes) = (row, 0);
        }
        bytes += size;
    }
    write(&batch.slice(start, batch.num_rows() - start), most, &mut parts)?;
    Ok(parts)
}

/// Writes a part, in halves if it is larger than was estimated.
fn write(batch: &RecordBatch, most: usize, parts: &mut Vec<Part>) -> Result<(), IpcError> {
    let stream = encode(batch)?;
    let rows = batch.num_rows();
    if stream.len() <= most || rows <= 1 {
        parts.push(Part { stream, rows });
        return Ok(());
    }
    write(&batch.slice(0, rows / 2), most, parts)?;
    write(&batch.slice(rows / 2, rows - rows / 2), most, parts)
}

/// Not compressed: the producer compresses whole batches of records.
fn encode(batch: &RecordBatch) -> Result<Vec<u8>, IpcError> {
    ipc::write(batch, Compression::None)
}

/// Bytes of a stream that do not grow with its rows; a column has up to three buffers, each padded.
fn frame_bytes(batch: &RecordBatch) -> Result<usize, IpcError> {
    Ok(encode(&batch.slice(0, 0))?.len() + batch.num_columns() * 3 * BUFFER_PADDING)
}

/// Bytes that each row takes in the stream.
fn row_bytes(batch: &RecordBatch) -> Vec<usize> {
    let fixed: usize = batch.columns().iter().map(|c| 1 + c.data_type().primitive_width().unwrap_or(4)).sum();
    let mut sizes = vec![fixed + 2 * HASH_BYTES as usize; batch.num_rows()];
    for column in batch.columns().iter().filter(|c| c.data_type() == &DataType::Utf8) {
        let texts = column.as_string::<i32>();
        for (size, ends) in sizes.iter_mut().zip(texts.value_offsets().windows(2)) {
            *size += usize::try_from(ends[1] - ends[0]).unwrap_or(0);
        }
    }
    sizes
}

//! Batches inside records (`contributions.screened`, `.accepted`): Arrow IPC streams, compressed.
//!
//! The bytes of a batch depend on the batch alone, so that a replay writes the same record.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::guard::guarded;
use super::ipc_check::{Budget, Fault, check};

/// How the buffers of a batch are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: quick.
    #[default]
    Lz4,
    /// Zstandard: small.
    Zstd,
}

/// What a batch may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of its buffers, uncompressed.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 65_536, bytes: 128 << 20 }
    }
}

/// Why a batch could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// It cannot be written: a defect of the caller.
    #[error("the batch cannot be written: {0}")]
    Write(ArrowError),
    /// The bytes are no Arrow IPC stream, or a damaged one.
    #[error("not an Arrow IPC stream: {0}")]
    Broken(&'static str),
    /// The batch is beyond a limit.
    #[error("the batch is beyond the limit of {limit} {what}")]
    TooLarge {
        /// What is beyond it.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// Writes a batch as an Arrow IPC stream.
///
/// # Errors
/// When it has a type that cannot be written.
pub fn write(batch: &RecordBatch, compression: Compression) -> Result<Vec<u8>, IpcError> {
    let codec = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        Compression::Zstd => Some(CompressionType::ZSTD),
    };
    let options = IpcWriteOptions::default().try_with_compression(codec).map_err(IpcError::Write)?;
    let mut bytes = Vec::new();
    let mut writer =
        StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).map_err(IpcError::Write)?;
    writer.write(batch).and_then(|()| writer.finish()).map_err(IpcError::Write)?;
    drop(writer);
    Ok(bytes)
}

/// Reads what [`write`] wrote; a stream of several batches is put together.
///
/// # Errors
/// When the bytes are damaged or beyond a limit; nothing large is allocated before that is known.
pub fn read(bytes: &[u8], limits: Limits) -> Result<RecordBatch, IpcError> {
    let budget = Budget { rows: limits.rows, bytes: limits.bytes };
    let stream = check(bytes, budget).map_err(|fault| match fault {
        Fault::Broken(what) => IpcError::Broken(what),
        Fault::Rows => IpcError::TooLarge { what: "rows", limit: limits.rows },
        Fault::Bytes => IpcError::TooLarge { what: "bytes", limit: limits.bytes },
    })?;
    guarded(|| unpack(stream)).unwrap_or(Err(IpcError::Broken("the decoder gave up on it")))
}

fn unpack(stream: &[u8]) -> Result<RecordBatch, IpcError> {
    let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|_| IpcError::Broken("its schema"))?;
    let batches = reader.by_ref().collect::<Result<Vec<_>, _>>().map_err(|_| IpcError::Broken("a batch"))?;
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => concat_batches(&reader.schema(), &batches).map_err(|_| IpcError::Broken("a batch")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, DictionaryArray, FixedSizeBinaryBuilder, Int64Array, StringArray, UInt32Array};
    use arrow::datatypes::Int8Type;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(rows: u32) -> RecordBatch {
        let mut hashes = FixedSizeBinaryBuilder::new(16);
        (0..rows).for_each(|row| hashes.append_value([u8::try_from(row % 256).unwrap(); 16]).unwrap());
        let texts: StringArray =
            (0..rows).map(|row| (row % 3 != 0).then(|| "text ".repeat(row as usize % 7))).collect();
        RecordBatch::try_from_iter_with_nullable([
            ("_row", Arc::new(UInt32Array::from_iter_values(0..rows)) as ArrayRef, false),
            ("_row_hash", Arc::new(hashes.finish()) as ArrayRef, false),
            ("text", Arc::new(texts) as ArrayRef, true),
        ])
        .unwrap()
    }

    #[test]
    fn a_batch_comes_back_and_its_bytes_depend_on_nothing_else() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for rows in [0, 1, 5_000] {
                let bytes = write(&batch(rows), compression).unwrap();
                assert_eq!(read(&bytes, Limits::default()).unwrap(), batch(rows), "{compression:?} {rows}");
                assert_eq!(write(&batch(rows), compression).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn limits_hold_before_anything_is_decompressed() {
        let zeros =
            RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![0; 60_000])) as ArrayRef)]).unwrap();
        for compression in [Compression::Lz4, Compression::Zstd] {
            let bytes = write(&zeros, compression).unwrap();
            assert!(bytes.len() < 5_000, "{}", bytes.len());
            let limits = |rows, bytes| Limits { rows, bytes };
            assert!(matches!(read(&bytes, limits(59_999, 1 << 20)), Err(IpcError::TooLarge { what: "rows", .. })));
            assert!(matches!(read(&bytes, limits(60_000, 400_000)), Err(IpcError::TooLarge { what: "bytes", .. })));
            assert_eq!(read(&bytes, limits(60_000, 480_000)).unwrap(), zeros);
        }
    }

    #[test]
    fn dictionaries_are_read() {
        let words: DictionaryArray<Int8Type> = ["a", "b", "a"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("d", Arc::new(words) as ArrayRef)]).unwrap();
        assert_eq!(read(&write(&batch, Compression::Lz4).unwrap(), Limits::default()).unwrap(), batch);
    }

    #[test]
    fn truncated_and_flipped_bytes_are_refused_or_read_but_never_panic() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let bytes = write(&batch(40), compression).unwrap();
            for at in 0..bytes.len() {
                let _ = read(&bytes[..at], Limits::default());
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xFF;
                let _ = read(&damaged, Limits::default());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, Limits::default());
            let _ = read(&[b"ARROW1\0\0\xFF\xFF\xFF\xFF", bytes.as_slice()].concat(), Limits::default());
        }
    }
}

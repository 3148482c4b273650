//! The rows, encrypted: only who holds the evaluation key reads them, and only as the benchmark that they were sealed as.
//!
//! ```text
//! "HKSB" 01 ‖ u32be frames ‖ for each frame: u32be length ‖ HPKE (`domain::keys::seal`)
//! info = "hokusai/sealed-rows/v1" 00 ‖ model ‖ NAME@VERSION ‖ contract digest ‖ rows root (hex), each behind its u32be
//!        length ‖ u32be frame ‖ u32be frames
//! ```
//!
//! A frame is an Arrow IPC stream (Zstandard) of consecutive rows. So a frame cannot be left out, moved or taken into another
//! benchmark; that the rows are those of the root is checked once more when they are opened.

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::SealingError;
use super::rows::RowWriter;
use crate::attest::benchmark::BenchmarkTree;
use crate::attest::tree::Hash;
use crate::codec::ipc::{self, Compression, Limits};
use crate::domain::keys::{MacKey, PublicKey, SealingKey};
use crate::domain::records::Benchmark;

/// Media type of the blob.
pub const MEDIA_TYPE: &str = "application/vnd.hokusai.sealed-rows";

/// Rows of a frame.
pub const FRAME_ROWS: usize = 16_384;

/// Largest blob that is read.
pub const MAX_BLOB: u64 = 1 << 30;

const MAGIC: &[u8; 5] = b"HKSB\x01";

/// What rows are sealed as.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// Model.
    pub model: &'a str,
    /// `NAME@VERSION`.
    pub benchmark: &'a str,
    /// Contract that they passed.
    pub contract_digest: &'a str,
    /// Root over them, hex.
    pub rows_root: &'a str,
}

impl<'a> Seat<'a> {
    /// Of a benchmark's record.
    #[must_use]
    pub fn of(record: &'a Benchmark) -> Self {
        Self {
            model: &record.model,
            benchmark: &record.benchmark,
            contract_digest: &record.contract_digest,
            rows_root: &record.rows_root,
        }
    }

    fn info(&self, frame: u32, frames: u32) -> Vec<u8> {
        let mut info = b"hokusai/sealed-rows/v1\0".to_vec();
        for field in [self.model, self.benchmark, self.contract_digest, self.rows_root] {
            info.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            info.extend(field.as_bytes());
        }
        info.extend(frame.to_be_bytes());
        info.extend(frames.to_be_bytes());
        info
    }
}

fn broken(why: impl Into<String>) -> SealingError {
    SealingError::Blob { what: "the sealed rows", why: why.into() }
}

/// Encrypts rows that stand in their order. Each sealing takes fresh randomness.
///
/// # Errors
/// A key that cannot be sealed to, or rows that cannot be written.
pub fn seal(rows: &[RecordBatch], seat: Seat<'_>, to: &PublicKey) -> Result<Bytes, SealingError> {
    let frames = u32::try_from(rows.len()).map_err(|_| broken("too many frames"))?;
    let mut blob = MAGIC.to_vec();
    blob.extend(frames.to_be_bytes());
    for (number, batch) in (0..).zip(rows) {
        let stream = ipc::write(batch, Compression::Zstd).map_err(|error| broken(error.to_string()))?;
        let sealed = to.seal(&seat.info(number, frames), &stream).map_err(|error| broken(error.to_string()))?;
        blob.extend(u32::try_from(sealed.len()).map_err(|_| broken("a frame is too large"))?.to_be_bytes());
        blob.extend(sealed);
    }
    Ok(blob.into())
}

/// Opens the rows of a benchmark's record, in their order, and checks that they are the rows of its root.
///
/// # Errors
/// [`SealingError::Blob`] for another key, another benchmark's rows, or damage.
pub fn open(
    blob: &[u8],
    record: &Benchmark,
    key: &SealingKey,
    tree_key: &MacKey,
) -> Result<Vec<RecordBatch>, SealingError> {
    Ok(open_with_leaves(blob, record, key, tree_key)?.0)
}

/// The same, with the leaf hash of each row.
///
/// # Errors
/// See [`open`].
pub fn open_with_leaves(
    blob: &[u8],
    record: &Benchmark,
    key: &SealingKey,
    tree_key: &MacKey,
) -> Result<(Vec<RecordBatch>, Vec<Hash>), SealingError> {
    let mut leaves = Vec::new();
    let rest = blob.strip_prefix(MAGIC).ok_or_else(|| broken("they are none of this version"))?;
    let (frames, mut rest) = rest.split_first_chunk::<4>().ok_or_else(|| broken("cut short"))?;
    let frames = u32::from_be_bytes(*frames);
    let (mut rows, mut tree, mut bytes) = (Vec::new(), BenchmarkTree::new(tree_key), 0_usize);
    for number in 0..frames {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| broken("cut short"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (sealed, after) = after.split_at_checked(length).ok_or_else(|| broken("cut short"))?;
        rest = after;
        let stream = key.open(&Seat::of(record).info(number, frames), sealed).map_err(|e| broken(e.to_string()))?;
        let limits = Limits { rows: FRAME_ROWS, bytes: super::MAX_BYTES.saturating_sub(bytes) };
        let batch = ipc::read(&stream, limits).map_err(|error| broken(error.to_string()))?;
        bytes = bytes.saturating_add(batch.get_array_memory_size());
        let mut writer = RowWriter::new(batch.schema_ref())?;
        for row in 0..batch.num_rows() {
            leaves.push(tree.append(writer.write(&batch, row)?));
        }
        rows.push(batch);
    }
    let root = data_encoding::HEXLOWER.encode(&tree.root());
    if !rest.is_empty() || root != record.rows_root || i64::try_from(tree.rows()) != Ok(record.rows) {
        return Err(broken("they are not the rows of the benchmark's root"));
    }
    Ok((rows, leaves))
}

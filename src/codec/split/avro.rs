//! Avro object container files: cut between blocks; header and sync marker stay, so each chunk is a complete file
//! (Avro 1.12 specification, "Object Container Files").

use std::io::BufRead;

use super::{Cut, Gatherer, Range, SplitError};
use crate::domain::limits::MAX_CHUNK_WIRE;

const MAGIC: &[u8] = b"Obj\x01";
const SYNC: usize = 16;
/// Largest file header (schema and codec).
const MAX_HEADER: usize = 1 << 20;
const HELP: &str = "write the file with smaller blocks (sync interval), or as Parquet";

/// Cuts an object container file without decoding its rows.
pub(super) fn cut(file: impl BufRead) -> Result<Cut, SplitError> {
    let mut input = Input { file, at: 0, kept: Some(Vec::new()) };
    if input.bytes(MAGIC.len())?.as_deref() != Some(MAGIC) {
        return Err(malformed("it does not begin with the magic bytes Obj1"));
    }
    loop {
        let entries = input.long()?;
        if entries == 0 {
            break;
        }
        if entries < 0 {
            input.long()?;
        }
        for _ in 0..entries.unsigned_abs().saturating_mul(2) {
            let length = input.length(MAX_HEADER)?;
            input.bytes(length)?.ok_or_else(truncated)?;
        }
    }
    let sync = input.bytes(SYNC)?.ok_or_else(truncated)?;
    let header = input.kept.take().unwrap_or_default();
    let mut gatherer = Gatherer::new(header.len());
    while !input.file.fill_buf()?.is_empty() {
        let from = input.at;
        let rows = usize::try_from(input.long()?).map_err(|_| malformed("a block with a negative count"))?;
        let length = input.length(MAX_CHUNK_WIRE)?;
        input.skip(length)?;
        if input.bytes(SYNC)?.as_deref() != Some(&*sync) {
            return Err(malformed("a sync marker is not where it should be"));
        }
        let piece = Range { from, to: input.at };
        gatherer.add(piece, rows, || format!("the block at byte {from}"), HELP)?;
    }
    Ok(Cut::Ranges { before: header, ranges: gatherer.finish(), after: b"" })
}

/// A reader that counts, and keeps the header's bytes.
struct Input<R> {
    file: R,
    at: u64,
    kept: Option<Vec<u8>>,
}

impl<R: BufRead> Input<R> {
    /// `n` bytes, or none at the end of the file.
    fn bytes(&mut self, n: usize) -> Result<Option<Vec<u8>>, SplitError> {
        let mut bytes = vec![0; n];
        match self.file.read_exact(&mut bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        self.at += n as u64;
        if let Some(kept) = &mut self.kept {
            if kept.len() + n > MAX_HEADER {
                return Err(malformed("its header is larger than 1 MiB"));
            }
            kept.extend_from_slice(&bytes);
        }
        Ok(Some(bytes))
    }

    fn skip(&mut self, mut n: usize) -> Result<(), SplitError> {
        while n > 0 {
            let here = self.file.fill_buf()?.len().min(n);
            if here == 0 {
                return Err(truncated());
            }
            self.file.consume(here);
            self.at += here as u64;
            n -= here;
        }
        Ok(())
    }

    /// A zig-zag variable-length long.
    fn long(&mut self) -> Result<i64, SplitError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?.and_then(|b| b.first().copied()).ok_or_else(truncated)?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                #[allow(clippy::cast_possible_wrap)] // Zig-zag: the wrap is the encoding.
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(malformed("a number of more than ten bytes"))
    }

    fn length(&mut self, limit: usize) -> Result<usize, SplitError> {
        let at = self.at;
        match usize::try_from(self.long()?) {
            Ok(length) if length <= limit => Ok(length),
            _ => Err(SplitError::TooLarge { what: format!("the block at byte {at}"), help: HELP }),
        }
    }
}

fn malformed(detail: &str) -> SplitError {
    SplitError::Malformed { format: "Avro", detail: detail.to_owned(), help: "write an object container file" }
}

fn truncated() -> SplitError {
    malformed("it ends in the middle")
}

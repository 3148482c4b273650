//! CSV: cut between records (RFC 4180 quoting), the header repeated in every chunk.

use std::io::BufRead;

use super::super::formats::Splitter;
use super::{Cut, Gatherer, Range, SplitError};
use crate::domain::limits::MAX_CHUNK_WIRE;

const HELP: &str = "check the quotes: a quoted field that never ends swallows the rest of the file";

/// Cuts a CSV document.
pub(super) fn cut(mut file: impl BufRead) -> Result<Cut, SplitError> {
    let mut records = Records { at: 0 };
    let mut header = Vec::new();
    let Some(end) = records.next(&mut file, Some(&mut header))? else { return Err(SplitError::Empty) };
    if header.last() != Some(&b'\n') {
        header.push(b'\n');
    }
    let mut gatherer = Gatherer::new(header.len());
    let mut from = end.to;
    while let Some(record) = records.next(&mut file, None)? {
        let piece = Range { from, to: record.to };
        from = record.to;
        // Blank lines between records belong to the range around them and are no rows.
        if !record.blank {
            gatherer.add(piece, 1, || format!("the record that ends at byte {}", piece.to), HELP)?;
        }
    }
    Ok(Cut::Ranges { before: header, ranges: gatherer.finish(), after: b"" })
}

struct Record {
    to: u64,
    blank: bool,
}

/// Finds the ends of records.
struct Records {
    at: u64,
}

impl Records {
    /// The next record's end; its bytes are copied to `keep`.
    fn next(&mut self, file: &mut impl BufRead, mut keep: Option<&mut Vec<u8>>) -> Result<Option<Record>, SplitError> {
        let (start, mut splitter, mut blank) = (self.at, Splitter::default(), true);
        loop {
            let buffer = file.fill_buf()?;
            if buffer.is_empty() {
                return Ok((self.at > start).then_some(Record { to: self.at, blank }));
            }
            let end = splitter.end(buffer);
            let (used, ended) = (end.unwrap_or(buffer.len()), end.is_some());
            let line = buffer.get(..used).unwrap_or_default();
            blank &= line.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            if let Some(keep) = keep.as_deref_mut() {
                keep.extend_from_slice(line);
            }
            file.consume(used);
            self.at += used as u64;
            if ended {
                return Ok(Some(Record { to: self.at, blank }));
            }
            if self.at - start > MAX_CHUNK_WIRE as u64 {
                return Err(SplitError::TooLarge { what: format!("the record at byte {start}"), help: HELP });
            }
        }
    }
}

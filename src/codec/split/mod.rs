//! A local file of any format, cut into chunks that are complete documents.
//!
//! Invariants:
//! * the cut is a function of the file's bytes alone, so that an interrupted sending resumes with equal chunks;
//! * the number of chunks is known before the first one is sent;
//! * every chunk keeps the limits that intake checks ([`crate::domain::limits`]);
//! * memory is bounded by a few chunks, whatever the size of the file. (A row-wise file is cut at byte ranges and a
//!   columnar file at row numbers; both are read again when the chunks are made);
//! * a file that is written to between the two readings is an error.

mod avro;
mod columnar;
mod csv;
mod json;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::formats::Format;
use crate::domain::limits::{MAX_CHUNK_ROWS, MAX_CHUNK_WIRE};

/// Why a file cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The format is not told by the file's ending.
    #[error("its ending tells no format\nhelp: name it with --input-format csv, json, parquet, arrow or avro")]
    UnknownFormat,
    /// The file holds no row.
    #[error("it holds no row")]
    Empty,
    /// The file is no document of its format.
    #[error("no valid {format}: {detail}\nhelp: {help}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What is wrong and where; repeats no value.
        detail: String,
        /// The way out.
        help: &'static str,
    },
    /// A piece that cannot be cut further is larger than a chunk may be.
    #[error("{what} is larger than a chunk may be ({MAX_CHUNK_WIRE} bytes)\nhelp: {help}")]
    TooLarge {
        /// Which piece.
        what: String,
        /// The way out.
        help: &'static str,
    },
    /// More chunks than a contribution may have.
    #[error("{0} chunks; a contribution has at most {max}\nhelp: cut the file into several contributions", max = crate::domain::limits::MAX_CHUNKS)]
    TooManyChunks(usize),
}

/// The format that somebody named, or that a file's ending tells.
///
/// # Errors
/// [`SplitError::UnknownFormat`].
pub fn format_of(path: &Path, named: Option<&str>) -> Result<Format, SplitError> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match named.unwrap_or(&ending) {
        "jsonl" | "ndjson" => Ok(Format::Json),
        "pq" => Ok(Format::Parquet),
        "arrows" | "ipc" | "feather" => Ok(Format::Arrow),
        name => name.parse().map_err(|_| SplitError::UnknownFormat),
    }
}

/// A piece of a row-wise file: bytes `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
}

/// How the chunks are made when they are sent.
#[derive(Debug)]
enum Cut {
    /// `before` + the bytes of a range + `after`.
    Ranges { before: Vec<u8>, ranges: Vec<Range>, after: &'static [u8] },
    /// Rows of a columnar file.
    Columnar(columnar::Chunks),
}

/// A file and how it is cut.
#[derive(Debug)]
pub struct Plan {
    path: PathBuf,
    format: Format,
    cut: Cut,
    digest: String,
    stamp: Stamp,
}

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { length: metadata.len(), modified: metadata.modified().ok() })
    }
}

fn changed() -> SplitError {
    SplitError::Io(std::io::Error::other("the file was changed while it was sent"))
}

impl Plan {
    /// Reads a file once and decides where it is cut. `format` is `json`, `csv`, `parquet`, `arrow` or `avro`; by
    /// default the file's ending tells.
    ///
    /// # Errors
    /// When the file is unreadable, no document of its format, empty, or cannot be cut small enough.
    pub fn open(path: &Path, format: Option<&str>) -> Result<Self, SplitError> {
        let format = format_of(path, format)?;
        let stamp = Stamp::of(path)?;
        let read = || File::open(path).map(|file| BufReader::with_capacity(1 << 16, file));
        let cut = match format {
            Format::Csv => csv::cut(read()?)?,
            Format::Json => json::cut(read()?)?,
            Format::Avro => avro::cut(read()?)?,
            Format::Parquet => Cut::Columnar(columnar::Chunks::parquet(path)?),
            Format::Arrow => Cut::Columnar(columnar::Chunks::arrow(path)?),
        };
        let format = match &cut {
            Cut::Columnar(chunks) if chunks.is_arrow() => Format::Arrow,
            _ => format,
        };
        let plan = Self { path: path.to_owned(), format, cut, digest: digest(read()?)?, stamp };
        plan.unchanged()?;
        match plan.chunks() {
            0 => Err(SplitError::Empty),
            n if i64::try_from(n).map_or(true, |n| n > crate::domain::limits::MAX_CHUNKS) => {
                Err(SplitError::TooManyChunks(n))
            }
            _ => Ok(plan),
        }
    }

    fn unchanged(&self) -> Result<(), SplitError> {
        if Stamp::of(&self.path)? == self.stamp { Ok(()) } else { Err(changed()) }
    }

    /// Name of the chunks' format, as it stands in a contribution.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.format.name()
    }

    /// Number of chunks, at least 1.
    #[must_use]
    pub fn chunks(&self) -> usize {
        match &self.cut {
            Cut::Ranges { ranges, .. } => ranges.len(),
            Cut::Columnar(chunks) => chunks.len(),
        }
    }

    /// SHA-256 of the file's bytes, hex: what the plan is a function of.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The chunks in order, each a complete document.
    ///
    /// Each item is an error when the file cannot be read any more or was changed meanwhile.
    pub fn payloads(&self) -> Box<dyn Iterator<Item = Result<Vec<u8>, SplitError>> + Send + '_> {
        let payloads = match &self.cut {
            Cut::Columnar(chunks) => chunks.payloads(&self.path),
            Cut::Ranges { before, ranges, after } => {
                Box::new(ranges.iter().map(move |range| self.range(before, *range, after)))
            }
        };
        Box::new(payloads.map(|payload| payload.and_then(|payload| self.unchanged().map(|()| payload))))
    }

    fn range(&self, before: &[u8], range: Range, after: &[u8]) -> Result<Vec<u8>, SplitError> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(range.from))?;
        let length = range.to.saturating_sub(range.from);
        let mut payload = Vec::with_capacity(MAX_CHUNK_WIRE.min(before.len() + after.len() + usize_of(length)));
        payload.extend_from_slice(before);
        let read = file.take(length).read_to_end(&mut payload)?;
        if read as u64 != length {
            return Err(changed());
        }
        payload.extend_from_slice(after);
        Ok(payload)
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn digest(mut file: impl Read) -> Result<String, SplitError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&hash.finalize())),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Gathers consecutive pieces into ranges within the limits of a chunk.
#[derive(Debug)]
struct Gatherer {
    /// Bytes that every chunk has besides its range.
    overhead: usize,
    ranges: Vec<Range>,
    open: Option<Range>,
    rows: usize,
}

impl Gatherer {
    fn new(overhead: usize) -> Self {
        Self { overhead, ranges: Vec::new(), open: None, rows: 0 }
    }

    /// Adds a piece of `rows` rows; pieces come in order, and a range covers what lies between its pieces.
    fn add(
        &mut self,
        piece: Range,
        rows: usize,
        what: impl Fn() -> String,
        help: &'static str,
    ) -> Result<(), SplitError> {
        let fits = |from: u64| usize_of(piece.to - from) + self.overhead <= MAX_CHUNK_WIRE;
        if !fits(piece.from) || rows > MAX_CHUNK_ROWS {
            return Err(SplitError::TooLarge { what: what(), help });
        }
        match &mut self.open {
            Some(open) if fits(open.from) && self.rows + rows <= MAX_CHUNK_ROWS => {
                open.to = piece.to;
                self.rows += rows;
            }
            open => {
                self.ranges.extend(open.replace(piece));
                self.rows = rows;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Range> {
        self.ranges.extend(self.open.take());
        self.ranges
    }
}

#[cfg(test)]
mod tests;

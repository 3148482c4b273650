//! One segment file: raw batches, and in memory what is needed to find one by offset or time.
//!
//! The index is sparse: one entry about every [`INDEX_INTERVAL`] bytes. A closed segment keeps its summary in a
//! sidecar file, so that only the last segment is read at start. A sidecar that does not match is ignored.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::batch::{HEADER, Header, NONE, Records};
use super::producers::Aborted;
use crate::broker::disk::{Disk, LogFile};

/// Bytes between two index entries.
const INDEX_INTERVAL: u64 = 16 << 10;

/// Where a batch is, and the largest timestamp of everything before it in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry(i64, u64, i64);

/// What is known of a segment without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Bytes of the file.
    pub length: u64,
    /// The offset after the last record.
    pub next_offset: i64,
    /// The timestamp of the first batch; segments roll by it.
    pub first_timestamp: Option<i64>,
    pub max_timestamp: i64,
    /// Position of the batch that holds the largest timestamp.
    max_timestamp_at: u64,
    /// Milliseconds of the clock at the last append.
    pub written_at: i64,
    /// Transactions whose abort marker is in this segment, in the order of the markers.
    pub aborted: Vec<Aborted>,
    index: Vec<Entry>,
    indexed_to: u64,
}

impl Summary {
    pub(crate) fn new(base: i64) -> Self {
        Self {
            length: 0,
            next_offset: base,
            first_timestamp: None,
            max_timestamp: NONE,
            max_timestamp_at: 0,
            written_at: NONE,
            aborted: Vec::new(),
            index: Vec::new(),
            indexed_to: 0,
        }
    }

    /// Notes a batch at the end of the file.
    pub(crate) fn observe(&mut self, header: &Header, now: i64) {
        let at = self.length;
        if self.index.is_empty() || at >= self.indexed_to + INDEX_INTERVAL {
            self.index.push(Entry(header.base_offset, at, self.max_timestamp));
            self.indexed_to = at;
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_at = at;
        }
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.length += header.size as u64;
        self.next_offset = header.next_offset();
        self.written_at = now;
    }

    /// A position at or before the batch that holds `offset`.
    fn position_of(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|entry| entry.0 <= offset);
        after.checked_sub(1).and_then(|at| self.index.get(at)).map_or(0, |entry| entry.1)
    }

    /// A position at or before the first batch with a timestamp of at least `timestamp`.
    fn position_of_time(&self, timestamp: i64) -> u64 {
        let after = self.index.partition_point(|entry| entry.2 < timestamp);
        after.checked_sub(1).and_then(|at| self.index.get(at)).map_or(0, |entry| entry.1)
    }
}

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub offset: i64,
    pub timestamp: i64,
}

/// A segment of a partition.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub base: i64,
    pub file: Arc<LogFile>,
    pub summary: Summary,
}

impl Segment {
    /// A new, empty segment.
    pub(crate) fn create(disk: &Arc<Disk>, folder: &Path, base: i64) -> io::Result<Self> {
        let file = disk.create(&log_path(folder, base))?;
        Ok(Self { base, file: Arc::new(file), summary: Summary::new(base) })
    }

    /// A segment over a file whose batches are still to be observed.
    pub(crate) fn over(base: i64, file: LogFile) -> Self {
        Self { base, file: Arc::new(file), summary: Summary::new(base) }
    }

    /// About how many bytes there are from `offset` on.
    pub(crate) fn length_from(&self, offset: i64) -> u64 {
        match offset < self.summary.next_offset {
            true => self.summary.length - self.summary.position_of(offset),
            false => 0,
        }
    }

    /// What a fetch needs to read this segment without the partition's lock.
    pub(crate) fn window(&self, offset: i64) -> io::Result<Window> {
        self.window_from(self.summary.position_of(offset))
    }

    /// The window for a search by time.
    pub(crate) fn time_window(&self, timestamp: i64) -> io::Result<Window> {
        self.window_from(self.summary.position_of_time(timestamp))
    }

    /// The window that starts with the batch of the largest timestamp.
    pub(crate) fn max_timestamp_window(&self) -> io::Result<Window> {
        self.window_from(self.summary.max_timestamp_at)
    }

    fn window_from(&self, from: u64) -> io::Result<Window> {
        Ok(Window { file: self.file.file()?, from, to: self.summary.length })
    }

    /// Writes the sidecar of a closed segment.
    pub(crate) fn write_sidecar(&self) -> io::Result<()> {
        write_checked(&self.file.path().with_extension("index"), &self.summary)
    }

    /// The summary in the sidecar, if it fits the file.
    pub(crate) fn read_sidecar(log: &Path, length: u64) -> Option<Summary> {
        read_checked(&log.with_extension("index")).filter(|summary: &Summary| summary.length == length)
    }
}

/// A stretch of a segment file, from a batch border to the end as it was when the window was taken.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<File>,
    from: u64,
    to: u64,
}

impl Window {
    /// Whole batches from the one that holds `offset`, below `upper`, `max_bytes` at most.
    ///
    /// With `at_least_one` the first batch is returned whatever its size.
    pub(crate) fn read(
        &self,
        offset: i64,
        upper: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> io::Result<bytes::Bytes> {
        let available = usize::try_from(self.to - self.from).unwrap_or(usize::MAX);
        let mut buffer = vec![0; available.min(max_bytes.saturating_add(INDEX_INTERVAL as usize))];
        self.file.read_exact_at(&mut buffer, self.from)?;
        let (mut at, mut start) = (0, None);
        while let Some(header) = buffer.get(at..).and_then(Header::parse) {
            if header.next_offset() <= offset {
                at += header.size;
                continue;
            }
            let begin = *start.get_or_insert(at);
            let first = begin == at;
            if header.base_offset >= upper || (at + header.size - begin > max_bytes && !(first && at_least_one)) {
                break;
            }
            if at + header.size > buffer.len() {
                if !first {
                    break;
                }
                let mut whole = vec![0; header.size.min(available - at)];
                self.file.read_exact_at(&mut whole, self.from + at as u64)?;
                return Ok(whole.into());
            }
            at += header.size;
        }
        let begin = start.unwrap_or(at).min(buffer.len());
        Ok(bytes::Bytes::from(buffer).slice(begin..at.max(begin)))
    }

    /// Calls `visit` with the header and bytes of every batch, in order, until it returns a value.
    pub(crate) fn scan<T>(
        &self,
        mut visit: impl FnMut(&Header, &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let mut reader = BatchReader::new(Arc::clone(&self.file), self.from, self.to);
        while let Some((header, batch)) = reader.next_batch()? {
            if let Some(found) = visit(&header, batch)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record at or after `offset` with a timestamp of at least `timestamp`.
    pub(crate) fn find_time(&self, timestamp: i64, offset: i64, limit: usize) -> io::Result<Option<Found>> {
        self.scan(|header, batch| {
            if header.max_timestamp < timestamp || header.last_offset() < offset {
                return Ok(None);
            }
            let payload = match header.codec().map(|codec| codec.decompress(&batch[HEADER..], limit)) {
                Some(Ok(payload)) => payload,
                _ => return Ok(None),
            };
            for record in Records::new(&payload).flatten() {
                let found = Found {
                    offset: header.base_offset + i64::from(record.offset_delta),
                    timestamp: match header.is_log_append_time() {
                        true => header.max_timestamp,
                        false => header.base_timestamp.saturating_add(record.timestamp_delta),
                    },
                };
                if found.timestamp >= timestamp && found.offset >= offset {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }
}

/// Reads a file batch by batch through one bounded buffer.
pub(crate) struct BatchReader {
    file: Arc<File>,
    at: u64,
    to: u64,
    buffer: Vec<u8>,
    start: usize,
    returned: usize,
}

const READ_AHEAD: usize = 256 << 10;

impl BatchReader {
    pub(crate) fn new(file: Arc<File>, from: u64, to: u64) -> Self {
        Self { file, at: from, to, buffer: Vec::new(), start: 0, returned: 0 }
    }

    /// Where the next batch starts.
    pub(crate) fn position(&self) -> u64 {
        self.at + self.returned as u64
    }

    /// The next batch, or `None` when no whole batch follows.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<(Header, &[u8])>> {
        self.at += self.returned as u64;
        self.start += std::mem::take(&mut self.returned);
        if !self.fill(HEADER)? {
            return Ok(None);
        }
        let Some(header) = Header::parse(&self.buffer[self.start..]) else { return Ok(None) };
        if header.magic != 2 || !self.fill(header.size)? {
            return Ok(None);
        }
        self.returned = header.size;
        Ok(Some((header, &self.buffer[self.start..self.start + header.size])))
    }

    /// Makes `needed` bytes available behind `start`; false when the file ends before.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        if self.buffer.len() - self.start >= needed {
            return Ok(true);
        }
        let left = usize::try_from(self.to - self.at).unwrap_or(usize::MAX);
        if left < needed {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let old = self.buffer.len();
        self.buffer.resize(left.min(needed.max(READ_AHEAD)), 0);
        self.file.read_exact_at(&mut self.buffer[old..], self.at + old as u64)?;
        Ok(true)
    }
}

/// The file of the segment that starts at `base`.
pub(crate) fn log_path(folder: &Path, base: i64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// Writes a derived file: a checksum line, then JSON. When power loss takes it away it is derived again.
pub(crate) fn write_checked(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let mut content = format!("{:08x}\n", crc32c::crc32c(&body)).into_bytes();
    content.extend_from_slice(&body);
    let mut file = File::create(path)?;
    file.write_all(&content)?;
    file.sync_data()
}

/// Reads a derived file; `None` when it is missing or does not match its checksum.
pub(crate) fn read_checked<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let content = std::fs::read(path).ok()?;
    let (crc, body) = content.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(&crc[..8]).ok()?, 16).ok()?;
    (crc32c::crc32c(body) == crc).then(|| serde_json::from_slice(body).ok())?
}

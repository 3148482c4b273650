//! One partition: appending, reading and finding records. Recovery, retention and compaction are beside.
//!
//! All state is behind one lock that is never held across a wait. Appends write to the page cache under it;
//! reads take what they need under it and touch the file without it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use tokio::sync::Notify;

use super::batch::{self, Demands, Header, Refusal};
use super::producers::{Aborted, Producers, Verdict, WrittenBatch};
use super::segment::{Found, Segment, write_checked};
use crate::broker::disk::Disk;
use crate::broker::flusher::{Flush, Flusher, Ticket};
use crate::broker::topic_config::TopicConfig;
use crate::broker::{lock, now_ms};

/// The only leader epoch there is on one node.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// What every partition of a broker shares.
pub(crate) struct Shared {
    pub disk: Arc<Disk>,
    pub flusher: Arc<Flusher>,
    pub decompressed_batch_bytes: usize,
    pub compaction_keys: usize,
}

/// One partition of a topic.
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) index: i32,
    pub(super) folder: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) config: RwLock<Arc<TopicConfig>>,
    pub(super) state: Mutex<State>,
    /// Held while segments are removed or replaced.
    pub(super) cleaning: Mutex<()>,
    marked: AtomicBool,
}

pub(super) struct State {
    /// By base offset; the last one is written to. Empty until the first append.
    pub segments: BTreeMap<i64, Segment>,
    pub log_start: i64,
    pub next_offset: i64,
    pub high_watermark: i64,
    pub producers: Producers,
    /// Everything below has been compacted.
    pub compacted_to: i64,
    pub waiters: Vec<(u64, Arc<Notify>)>,
    pub deleted: bool,
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// Offsets every answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub log_start: i64,
    pub high_watermark: i64,
    pub last_stable: i64,
    pub end: i64,
}

/// An appended batch, or the earlier one it repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub base_offset: i64,
    /// The time the log stamped, -1 when it did not.
    pub append_time: i64,
    pub log_start: i64,
    pub ticket: Ticket,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("a later epoch of the producer has written to this partition")]
    Fenced,
    #[error("the batch does not continue its producer's sequence")]
    OutOfOrder,
    #[error("the topic was deleted")]
    Deleted,
    #[error("the log cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// What a fetch found.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub offsets: Offsets,
    pub records: Bytes,
    pub aborted: Vec<Aborted>,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the offset is outside the log")]
    OutOfRange,
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl Partition {
    pub(super) fn with_state(
        topic: String,
        index: i32,
        folder: PathBuf,
        shared: Arc<Shared>,
        config: Arc<TopicConfig>,
        state: State,
    ) -> Self {
        Self {
            topic,
            index,
            folder,
            shared,
            config: RwLock::new(config),
            state: Mutex::new(state),
            cleaning: Mutex::new(()),
            marked: AtomicBool::new(false),
        }
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Puts another configuration in force.
    pub(crate) fn configure(&self, config: Arc<TopicConfig>) {
        *self.config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = config;
    }

    /// Appends one batch of a client.
    pub(crate) fn append(self: &Arc<Self>, bytes: &[u8]) -> Result<Appended, AppendError> {
        let config = self.config();
        let now = now_ms();
        let accepted = batch::accept(bytes, &self.demands(&config), now)?;
        let (mut bytes, mut header) = (accepted.bytes, accepted.header);
        let mut state = self.locked();
        if state.deleted {
            return Err(AppendError::Deleted);
        }
        let append_time = if config.log_append_time { now } else { batch::NONE };
        if header.producer_id >= 0 {
            match state.producers.judge(&header) {
                Verdict::Append => {}
                Verdict::Duplicate(earlier) => return Ok(self.repeated(&state, &earlier, config.log_append_time)),
                Verdict::Fenced => return Err(AppendError::Fenced),
                Verdict::OutOfOrder => return Err(AppendError::OutOfOrder),
            }
        }
        header.base_offset = state.next_offset;
        batch::place(&mut bytes, header.base_offset, LEADER_EPOCH);
        self.write(&mut state, &header, &bytes, &config, now)?;
        if header.producer_id >= 0 {
            state.producers.appended(&header, now);
        }
        if !self.shared.flusher.gates_readers() {
            state.show_all();
        }
        let log_start = state.log_start;
        drop(state);
        Ok(Appended { base_offset: header.base_offset, append_time, log_start, ticket: self.shared.flusher.mark(self) })
    }

    /// Ends a producer's transaction in this partition. Returns the marker's offset.
    pub(crate) fn append_marker(
        self: &Arc<Self>,
        producer_id: i64,
        epoch: i16,
        commit: bool,
    ) -> Result<(i64, Ticket), AppendError> {
        let now = now_ms();
        let mut bytes = batch::marker(producer_id, epoch, commit, 0, now);
        let mut header = Header::parse(&bytes).ok_or(Refusal::Corrupt)?;
        let config = self.config();
        let mut state = self.locked();
        if state.deleted {
            return Err(AppendError::Deleted);
        }
        header.base_offset = state.next_offset;
        batch::place(&mut bytes, header.base_offset, LEADER_EPOCH);
        self.write(&mut state, &header, &bytes, &config, now)?;
        if let Some(aborted) = state.producers.ended(&header, commit, now)
            && let Some(mut active) = state.segments.last_entry()
        {
            active.get_mut().summary.aborted.push(aborted);
        }
        if !self.shared.flusher.gates_readers() {
            state.show_all();
        }
        // The decision is on the disk already: the transaction's records may be read before the marker is.
        state.wake();
        drop(state);
        Ok((header.base_offset, self.shared.flusher.mark(self)))
    }

    fn demands(&self, config: &TopicConfig) -> Demands {
        Demands {
            max_bytes: config.max_message_bytes,
            keys_required: config.compact,
            append_time: config.log_append_time,
            max_ahead: config.timestamp_after_max_ms,
            max_behind: config.timestamp_before_max_ms,
            decompressed_bytes: self.shared.decompressed_batch_bytes,
            recompress: config.compression,
        }
    }

    /// Answers a batch that was written before. Its first answer may still wait for the disk, so this one does too.
    fn repeated(self: &Arc<Self>, state: &State, earlier: &WrittenBatch, stamped: bool) -> Appended {
        Appended {
            base_offset: earlier.first_offset,
            append_time: if stamped { earlier.timestamp } else { batch::NONE },
            log_start: state.log_start,
            ticket: self.shared.flusher.mark(self),
        }
    }

    fn write(
        &self,
        state: &mut State,
        header: &Header,
        bytes: &[u8],
        config: &TopicConfig,
        now: i64,
    ) -> io::Result<()> {
        if self.must_roll(state, header, config, now) {
            self.roll(state)?;
        }
        let Some(mut active) = state.segments.last_entry() else {
            return Err(io::Error::other("the partition has no segment"));
        };
        let active = active.get_mut();
        active.file.append(bytes)?;
        active.summary.observe(header, now);
        state.next_offset = header.next_offset();
        Ok(())
    }

    fn must_roll(&self, state: &State, header: &Header, config: &TopicConfig, now: i64) -> bool {
        let Some((base, active)) = state.segments.last_key_value() else { return true };
        let summary = &active.summary;
        if summary.length == 0 {
            return false;
        }
        let age = match summary.first_timestamp {
            Some(first) if first >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now.saturating_sub(summary.written_at),
        };
        summary.length + header.size as u64 > config.segment_bytes
            || age > config.segment_ms
            || header.last_offset() - base > i64::from(i32::MAX)
    }

    /// Closes the active segment, on the disk as a whole, and opens the next one.
    pub(super) fn roll(&self, state: &mut State) -> io::Result<()> {
        if let Some((_, active)) = state.segments.last_key_value() {
            active.file.sync()?;
            active.write_sidecar()?;
            active.file.park();
        }
        self.snapshot_producers(state)?;
        let next = Segment::create(&self.shared.disk, &self.folder, state.next_offset)?;
        state.segments.insert(state.next_offset, next);
        Ok(())
    }

    pub(super) fn snapshot_producers(&self, state: &State) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        write_checked(&self.folder.join(format!("{:020}.producers", state.next_offset)), &state.producers)
    }

    /// The offsets as they are now.
    pub(crate) fn offsets(&self) -> Offsets {
        self.locked().offsets()
    }

    /// About how many bytes there are from `offset` on in its segment.
    pub(crate) fn readable(&self, offset: i64) -> usize {
        let state = self.locked();
        let segment = state.segments.range(..=offset).next_back().map(|(_, segment)| segment);
        usize::try_from(segment.map_or(0, |segment| segment.length_from(offset))).unwrap_or(usize::MAX)
    }

    /// Batches from the one that holds `offset`.
    pub(crate) fn read(
        &self,
        offset: i64,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Fetched, ReadError> {
        let mut from = offset;
        loop {
            let state = self.locked();
            let offsets = state.offsets();
            if offset < offsets.log_start || offset > offsets.end {
                return Err(ReadError::OutOfRange);
            }
            let upper = offsets.upper(isolation);
            let empty = Fetched { offsets, records: Bytes::new(), aborted: Vec::new() };
            if from >= upper || (max_bytes == 0 && !at_least_one) {
                return Ok(empty);
            }
            let Some((_, segment)) = state.segments.range(..=from).next_back() else { return Ok(empty) };
            let (window, next) = (segment.window(from)?, segment.summary.next_offset);
            let following = state.segments.range(from + 1..).next().map(|(&base, _)| base);
            drop(state);
            let records = window.read(from, upper, max_bytes, at_least_one)?;
            if records.is_empty()
                && let Some(base) = following
                && base < upper
                && base >= next
            {
                from = base;
                continue;
            }
            let aborted = match isolation {
                Isolation::ReadCommitted if !records.is_empty() => self.aborted(offset, &records),
                _ => Vec::new(),
            };
            return Ok(Fetched { offsets, records, aborted });
        }
    }

    /// Aborted transactions with records or marker among `records`, which start at or after `offset`.
    fn aborted(&self, offset: i64, records: &[u8]) -> Vec<Aborted> {
        let (mut at, mut end) = (0, offset);
        while let Some(header) = records.get(at..).and_then(Header::parse) {
            end = header.next_offset();
            at += header.size;
        }
        let state = self.locked();
        let first = state.segments.range(..=offset).next_back().map_or(0, |(&base, _)| base);
        let mut found = Vec::new();
        for segment in state.segments.range(first..).map(|(_, segment)| segment) {
            let aborted = &segment.summary.aborted;
            let from = aborted.partition_point(|aborted| aborted.last_offset < offset);
            found.extend(aborted[from..].iter().filter(|aborted| aborted.first_offset < end));
        }
        found
    }

    /// The first record with at least this timestamp that the reader may see.
    pub(crate) fn find_time(&self, timestamp: i64, isolation: Isolation) -> io::Result<Option<Found>> {
        let (windows, log_start, upper) = {
            let state = self.locked();
            let offsets = state.offsets();
            let candidates = state.segments.values().filter(|segment| segment.summary.max_timestamp >= timestamp);
            let windows: io::Result<Vec<_>> = candidates.map(|segment| segment.time_window(timestamp)).collect();
            (windows, offsets.log_start, offsets.upper(isolation))
        };
        for window in windows? {
            if let Some(found) = window.find_time(timestamp, log_start, self.shared.decompressed_batch_bytes)? {
                return Ok(Some(found).filter(|found| found.offset < upper));
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp.
    pub(crate) fn find_max_time(&self) -> io::Result<Option<Found>> {
        let (window, timestamp, log_start) = {
            let state = self.locked();
            // The earliest of several segments with the same maximum.
            let best = state.segments.values().rev().max_by_key(|segment| segment.summary.max_timestamp);
            let Some(segment) = best.filter(|segment| segment.summary.max_timestamp >= 0) else { return Ok(None) };
            (segment.max_timestamp_window()?, segment.summary.max_timestamp, state.log_start)
        };
        window.find_time(timestamp, log_start, self.shared.decompressed_batch_bytes)
    }

    /// Registers a reader to be woken when more becomes visible.
    pub(crate) fn wait(&self, reader: u64, notify: &Arc<Notify>) {
        self.locked().waiters.push((reader, Arc::clone(notify)));
    }

    /// Takes a reader off the list.
    pub(crate) fn forget_waiter(&self, reader: u64) {
        self.locked().waiters.retain(|(id, _)| *id != reader);
    }

    /// A look at the producers.
    pub(crate) fn with_producers<T>(&self, look: impl FnOnce(&Producers) -> T) -> T {
        look(&self.locked().producers)
    }

    /// Refuses further appends and wakes every reader: the topic is gone.
    pub(crate) fn mark_deleted(&self) {
        let mut state = self.locked();
        state.deleted = true;
        state.segments.clear();
        state.wake();
    }
}

impl State {
    pub(super) fn offsets(&self) -> Offsets {
        let high_watermark = self.high_watermark.max(self.log_start);
        Offsets {
            log_start: self.log_start,
            high_watermark,
            last_stable: self.producers.first_open().map_or(high_watermark, |open| open.min(high_watermark)),
            end: self.next_offset,
        }
    }

    fn show_all(&mut self) {
        self.high_watermark = self.next_offset;
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        for (_, notify) in self.waiters.drain(..) {
            notify.notify_one();
        }
    }
}

impl Offsets {
    /// The first offset a reader may not see.
    pub(crate) fn upper(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
        }
    }
}

impl Flush for Partition {
    fn marked(&self) -> &AtomicBool {
        &self.marked
    }

    fn flush(&self) -> io::Result<()> {
        let (file, reached) = {
            let state = self.locked();
            let Some((_, active)) = state.segments.last_key_value() else { return Ok(()) };
            (Arc::clone(&active.file), state.next_offset)
        };
        if let Err(error) = file.sync() {
            // A deleted topic's files may go away under the flusher.
            return if self.locked().deleted { Ok(()) } else { Err(error) };
        }
        let mut state = self.locked();
        if state.high_watermark < reached {
            state.high_watermark = reached;
            state.wake();
        }
        Ok(())
    }
}

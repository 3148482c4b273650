//! One table on its way from the topic to Delta: what was decoded, up to where, and when it is committed.
//!
//! A lane is *ready* or *resting*. Ready: its positions came from the newest Delta snapshot, and records are taken in
//! from there. Any failure of the table (a fence, a full disk, a store out of reach, a topic made anew) drops what was
//! decoded and lets the lane rest; when the rest is over it opens the table afresh, takes its positions from there and
//! the consumer seeks to them. There is no other way back, so there is no other state to get wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::decode::{Decoder, Incoming, Unreadable};
use super::error::WarehouseError;
use super::store::Store;
use super::tables::Table;
use super::writer::{Committed, TableWriter};

/// Rows committed to a table.
pub(super) const ROWS: &str = "hokusai_warehouse_rows_total";
/// Times a table failed and was opened afresh.
pub(super) const FAILURES: &str = "hokusai_warehouse_failures_total";
/// Records left out of a table because they cannot be read.
pub(super) const UNREADABLE: &str = "hokusai_warehouse_unreadable_total";
/// Seconds of a Delta commit, files included.
pub(super) const COMMIT_SECONDS: &str = "hokusai_warehouse_commit_seconds";

/// Unreadable records whose places are noted in the commit.
const MAX_NOTED: usize = 100;

/// Rests after failures in a row, in seconds.
const RESTS: [u64; 5] = [1, 2, 5, 10, 30];

/// When a table is committed: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Rows decoded.
    pub rows: usize,
    /// Bytes of the records that they came in.
    pub bytes: usize,
    /// Age of the oldest row, or of a position that moved without rows.
    pub age: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { rows: 65_536, bytes: 32 << 20, age: Duration::from_secs(5) }
    }
}

/// What happened to a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Decoded, or skipped with a note.
    In,
    /// The lane rests or the record was seen before.
    Ignored,
    /// It may be readable later: the lane must rest.
    Later(String),
}

/// A table, its decoder and its writer.
pub(super) struct Lane {
    table: Table,
    topic: String,
    decoder: Decoder,
    writer: Option<TableWriter>,
    owned: BTreeSet<i32>,
    /// Offset of the next record to take in, by owned partition; only while ready, and only where it is known.
    next: BTreeMap<i32, i64>,
    rows: usize,
    bytes: usize,
    oldest: Option<Instant>,
    unreadable: Vec<(i32, i64)>,
    unreadable_count: u64,
    failures: usize,
    wake: Option<Instant>,
}

impl Lane {
    pub(super) fn new(table: Table, topic: String, decoder: Decoder) -> Self {
        Self {
            table,
            topic,
            decoder,
            writer: None,
            owned: BTreeSet::new(),
            next: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            oldest: None,
            unreadable: Vec::new(),
            unreadable_count: 0,
            failures: 0,
            wake: None,
        }
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn owned(&self) -> &BTreeSet<i32> {
        &self.owned
    }

    /// Next offsets to take in.
    pub(super) fn next(&self) -> &BTreeMap<i32, i64> {
        &self.next
    }

    pub(super) fn is_ready(&self) -> bool {
        self.writer.is_some()
    }

    /// The rest is over (or never began) and there is something to do.
    pub(super) fn is_waking(&self, now: Instant) -> bool {
        self.writer.is_none() && !self.owned.is_empty() && self.wake.is_none_or(|wake| wake <= now)
    }

    /// Partitions were assigned: they are read once the lane is opened again, with those it had.
    pub(super) fn assign(&mut self, partitions: &[i32]) {
        self.owned.extend(partitions);
        self.drop_decoded();
        self.writer = None;
        self.wake = None;
    }

    /// Partitions were taken away; what was decoded of them was committed before or is dropped with the rest.
    pub(super) fn revoke(&mut self, partitions: &[i32]) {
        self.owned.retain(|partition| !partitions.contains(partition));
        self.next.retain(|partition, _| !partitions.contains(partition));
        if self.is_dirty() {
            self.drop_decoded();
            self.writer = None;
        }
        if let Some(writer) = &mut self.writer {
            writer.give_up(partitions);
        }
    }

    /// Opens the table and takes its positions. Returns, for every owned partition, where to read on; none means
    /// from the log's start.
    pub(super) async fn open(
        &mut self,
        store: &Store,
        topic_id: Option<&str>,
    ) -> Result<BTreeMap<i32, Option<i64>>, WarehouseError> {
        let mut writer = TableWriter::open(store, self.table, &self.topic, topic_id).await?;
        let partitions: Vec<i32> = self.owned.iter().copied().collect();
        let positions = writer.take_over(&partitions).await?;
        self.drop_decoded();
        self.next.clone_from(&positions);
        self.writer = Some(writer);
        self.wake = None;
        Ok(partitions.into_iter().map(|partition| (partition, positions.get(&partition).copied())).collect())
    }

    /// Decides where an owned partition is read from; `low` and `high` are the log's ends.
    pub(super) fn start(
        &mut self,
        partition: i32,
        position: Option<i64>,
        low: i64,
        high: i64,
    ) -> Result<i64, WarehouseError> {
        let from = position.unwrap_or(low);
        if from < low || from > high {
            return Err(WarehouseError::PositionLost {
                table: self.table.name(),
                topic: self.topic.clone(),
                partition,
                position: from,
                low,
                high,
            });
        }
        Ok(from)
    }

    /// Lets the lane rest after a failure; longer after each one in a row.
    pub(super) fn rest(&mut self, failure: WarehouseError, now: Instant) {
        let seconds = RESTS.get(self.failures).or(RESTS.last()).copied().unwrap_or(30);
        self.failures += 1;
        self.drop_decoded();
        self.writer = None;
        self.wake = Some(now + Duration::from_secs(seconds));
        tracing::warn!(table = self.table.name(), topic = self.topic, error = %failure, retry_in_seconds = seconds, "table rests");
        metrics::counter!(FAILURES, "table" => self.table.name()).increment(1);
    }

    fn drop_decoded(&mut self) {
        // What is dropped here is read again, so an error in it shows up again too.
        let _ = self.decoder.take();
        self.next.clear();
        self.settle();
    }

    fn settle(&mut self) {
        self.rows = 0;
        self.bytes = 0;
        self.oldest = None;
        self.unreadable.clear();
        self.unreadable_count = 0;
    }

    /// Takes a record in.
    pub(super) fn take(&mut self, record: &Incoming<'_>) -> Taken {
        let seen = self.next.get(&record.partition).is_some_and(|next| record.offset < *next);
        if !self.is_ready() || !self.owned.contains(&record.partition) || seen {
            return Taken::Ignored;
        }
        match self.decoder.push(record) {
            Ok(rows) => self.rows += rows,
            Err(Unreadable::Retry(error)) => return Taken::Later(error.to_string()),
            Err(Unreadable::Skipped(reason)) => self.note_unreadable(record, &reason),
        }
        self.bytes += record.value.map_or(0, <[u8]>::len);
        self.reach(record.partition, record.offset + 1);
        Taken::In
    }

    fn note_unreadable(&mut self, record: &Incoming<'_>, reason: &str) {
        let (partition, offset) = (record.partition, record.offset);
        tracing::error!(
            topic = self.topic,
            partition,
            offset,
            reason,
            "record cannot be read and is left out of the table"
        );
        metrics::counter!(UNREADABLE, "table" => self.table.name()).increment(1);
        self.unreadable_count += 1;
        if self.unreadable.len() < MAX_NOTED {
            self.unreadable.push((partition, offset));
        }
    }

    /// Everything below `next` was taken in: records, and the gaps that transaction markers leave.
    pub(super) fn reach(&mut self, partition: i32, next: i64) {
        let committed = self.writer.as_ref().and_then(|writer| writer.position(partition));
        if !self.is_ready() || !self.owned.contains(&partition) || committed.is_some_and(|at| next <= at) {
            return;
        }
        let known = self.next.entry(partition).or_insert(next);
        *known = next.max(*known);
        self.oldest.get_or_insert_with(Instant::now);
    }

    /// Something was taken in and not committed.
    pub(super) fn is_dirty(&self) -> bool {
        self.oldest.is_some()
    }

    /// A threshold is reached.
    pub(super) fn is_due(&self, thresholds: &Thresholds, now: Instant) -> bool {
        self.rows >= thresholds.rows
            || self.bytes >= thresholds.bytes
            || self.oldest.is_some_and(|oldest| now.duration_since(oldest) >= thresholds.age)
    }

    /// Commits what was taken in.
    pub(super) async fn commit(&mut self) -> Result<Option<Committed>, WarehouseError> {
        let note = self.note();
        let Some(writer) = &mut self.writer else { return Ok(None) };
        let started = Instant::now();
        let batches = self.decoder.take()?;
        let committed = writer.commit(&batches, &self.next, note).await?;
        self.settle();
        self.failures = 0;
        if let Some(committed) = &committed {
            let table = self.table.name();
            metrics::histogram!(COMMIT_SECONDS, "table" => table).record(started.elapsed().as_secs_f64());
            metrics::counter!(ROWS, "table" => table).increment(committed.rows as u64);
            tracing::debug!(table, version = committed.version, rows = committed.rows, "table committed");
        }
        Ok(committed)
    }

    fn note(&self) -> Option<serde_json::Value> {
        if self.unreadable_count == 0 {
            return None;
        }
        let places: Vec<_> =
            self.unreadable.iter().map(|(p, o)| serde_json::json!({ "partition": p, "offset": o })).collect();
        Some(serde_json::json!({ "unreadable": self.unreadable_count, "places": places }))
    }
}

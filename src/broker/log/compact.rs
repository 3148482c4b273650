//! Compaction: of each key only the last record stays.
//!
//! It works on closed segments below the last stable offset, so every record it sees is committed or aborted.
//! Invariants:
//! - offsets, and the order of records, do not change; a reader that starts anywhere sees, for every key, the
//!   last value at or after its position;
//! - records of aborted transactions go; a marker stays as long as records of its transaction do, and
//!   `delete.retention.ms` longer, so that no reader takes an aborted record for a committed one;
//! - a tombstone stays `delete.retention.ms` after the pass that first met it. The time it may go is kept in its
//!   batch, as Apache Kafka does (`DELETE_HORIZON`);
//! - the last batch of each producer stays, without records if need be, so that its sequence can be recovered;
//! - the cleaned file takes the place of the first segment it replaces in one step, and the others are removed
//!   in order: a crash in between leaves a log that compacts to the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use super::batch::{self, HEADER, Header, Records, assemble, copy_record, marker_commits};
use super::partition::{LEADER_EPOCH, Partition};
use super::producers::Aborted;
use super::segment::{BatchReader, Segment, Summary, log_path, write_checked};
use crate::broker::disk::LogFile;
use crate::broker::lock;
use crate::broker::topic_config::TopicConfig;

/// What a pass has done, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub before: u64,
    pub after: u64,
}

/// The last offset of every key in the part of the log that is new since the last pass.
struct Latest {
    /// Two hashes with random keys, so that nobody can make two keys collide.
    hashers: (RandomState, RandomState),
    offsets: HashMap<(u64, u64), i64>,
    /// The part of the log that was read ends here.
    end: i64,
}

impl Latest {
    fn new() -> Self {
        Self { hashers: (RandomState::new(), RandomState::new()), offsets: HashMap::new(), end: 0 }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    fn note(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        self.offsets.insert(hash, offset);
    }

    fn is_superseded(&self, key: &[u8], offset: i64) -> bool {
        self.offsets.get(&self.hash(key)).is_some_and(|latest| *latest > offset)
    }
}

/// Follows transactions through the log: which batches belong to aborted ones, which markers have records left.
struct Transactions {
    /// Aborted transactions by first offset.
    aborted: BTreeMap<i64, Vec<Aborted>>,
    /// Producers inside an aborted transaction.
    aborting: HashSet<i64>,
    /// Producers of whose current transaction something is kept.
    kept: HashSet<i64>,
}

impl Transactions {
    fn new(known: &[Aborted]) -> Self {
        let mut aborted: BTreeMap<i64, Vec<Aborted>> = BTreeMap::new();
        for entry in known {
            aborted.entry(entry.first_offset).or_default().push(*entry);
        }
        Self { aborted, aborting: HashSet::new(), kept: HashSet::new() }
    }

    /// Moves on to a batch; whether its records count.
    fn enter(&mut self, header: &Header) -> bool {
        while let Some(entry) = self.aborted.first_entry()
            && *entry.key() <= header.last_offset()
        {
            self.aborting.extend(entry.remove().iter().map(|aborted| aborted.producer_id));
        }
        !(header.is_transactional() && !header.is_control() && self.aborting.contains(&header.producer_id))
    }

    /// A marker ends the transaction; whether records of it are still there.
    fn end(&mut self, header: &Header) -> bool {
        self.aborting.remove(&header.producer_id);
        self.kept.remove(&header.producer_id)
    }
}

/// What a pass works on.
struct Plan {
    segments: Vec<Segment>,
    /// Aborted transactions of the whole log: the marker of one that began in these segments may stand behind them.
    aborted: Vec<Aborted>,
    /// Where the last batch of each producer ends.
    last_of_producers: HashSet<i64>,
    dirty_from: i64,
}

impl Partition {
    /// Compacts if the topic wants it and enough is new; tells what it did.
    pub(crate) fn compact(&self, now: i64) -> io::Result<Option<Compacted>> {
        let config = self.config();
        if !config.compact {
            return Ok(None);
        }
        let _cleaning = lock(&self.cleaning);
        let Some(plan) = self.plan(&config, now) else { return Ok(None) };
        let latest = self.latest_offsets(&plan)?;
        if latest.end <= plan.dirty_from {
            return Ok(None);
        }
        let segments = || plan.segments.iter().filter(|segment| segment.base < latest.end);
        let before = segments().map(|segment| segment.summary.length).sum();
        let segments: Vec<Segment> = segments().cloned().collect();
        let mut transactions = Transactions::new(&plan.aborted);
        let mut after = 0;
        for group in groups(&segments, config.segment_bytes) {
            after += self.clean_group(group, &plan, &latest, &mut transactions, now)?;
        }
        self.locked().compacted_to = latest.end;
        write_checked(&self.folder.join("compacted"), &latest.end)?;
        Ok(Some(Compacted { before, after }))
    }

    /// The closed segments, if enough of them is new.
    fn plan(&self, config: &TopicConfig, now: i64) -> Option<Plan> {
        let state = self.locked();
        let stable = state.offsets().last_stable;
        let young = now.saturating_sub(config.min_compaction_lag_ms);
        let closed = state.segments.len().saturating_sub(1);
        let segments: Vec<Segment> = state
            .segments
            .values()
            .take(closed)
            .take_while(|segment| segment.summary.next_offset <= stable)
            .take_while(|segment| {
                segment.base < state.compacted_to
                    || config.min_compaction_lag_ms == 0
                    || segment.summary.max_timestamp <= young
            })
            .cloned()
            .collect();
        let dirty_from = state.compacted_to.max(state.log_start);
        let is_dirty = |segment: &&Segment| segment.summary.next_offset > dirty_from;
        let dirty: u64 = segments.iter().filter(is_dirty).map(|segment| segment.summary.length).sum();
        let total: u64 = segments.iter().map(|segment| segment.summary.length).sum();
        let oldest = segments.iter().find(is_dirty).map_or(i64::MAX, |segment| segment.summary.max_timestamp);
        let overdue = now.saturating_sub(oldest) > config.max_compaction_lag_ms;
        let is_worth_it = dirty > 0 && (dirty as f64 / total as f64 >= config.min_cleanable_dirty_ratio || overdue);
        let aborted = state.segments.values().flat_map(|segment| &segment.summary.aborted).copied().collect();
        let last_of_producers = state.producers.last_offsets();
        is_worth_it.then_some(Plan { segments, aborted, last_of_producers, dirty_from })
    }

    /// Reads the new part of the log, as far as the keys fit into memory.
    fn latest_offsets(&self, plan: &Plan) -> io::Result<Latest> {
        let mut latest = Latest::new();
        latest.end = plan.dirty_from;
        let mut transactions = Transactions::new(&plan.aborted);
        for segment in &plan.segments {
            let mut reader = BatchReader::new(segment.file.file()?, 0, segment.summary.length);
            while let Some((header, bytes)) = reader.next_batch()? {
                let counts = transactions.enter(&header);
                if header.is_control() {
                    transactions.end(&header);
                } else if counts && header.last_offset() >= plan.dirty_from {
                    let payload = self.payload(&header, bytes)?;
                    for record in Records::new(&payload).flatten() {
                        if let Some(key) = record.key {
                            latest.note(key, header.base_offset + i64::from(record.offset_delta));
                        }
                    }
                }
                if latest.offsets.len() >= self.shared.compaction_keys {
                    latest.end = latest.end.max(header.next_offset());
                    return Ok(latest);
                }
            }
            latest.end = latest.end.max(segment.summary.next_offset);
        }
        Ok(latest)
    }

    fn payload<'a>(&self, header: &Header, bytes: &'a [u8]) -> io::Result<std::borrow::Cow<'a, [u8]>> {
        let codec = header.codec().ok_or_else(|| io::Error::other("unknown compression codec"))?;
        codec.decompress(&bytes[HEADER..], self.shared.decompressed_batch_bytes).map_err(io::Error::other)
    }

    /// Writes the cleaned form of some segments and puts it in their place; returns its size.
    fn clean_group(
        &self,
        group: &[Segment],
        plan: &Plan,
        latest: &Latest,
        transactions: &mut Transactions,
        now: i64,
    ) -> io::Result<u64> {
        let Some(first) = group.first() else { return Ok(0) };
        let config = self.config();
        let path = log_path(&self.folder, first.base);
        let mut out = Cleaned::new(first.base, self.shared.disk.create(&path.with_extension("cleaned"))?);
        for segment in group {
            let markers: HashMap<i64, Aborted> =
                segment.summary.aborted.iter().map(|aborted| (aborted.last_offset, *aborted)).collect();
            let mut reader = BatchReader::new(segment.file.file()?, 0, segment.summary.length);
            while let Some((header, bytes)) = reader.next_batch()? {
                let counts = transactions.enter(&header);
                let kept = if header.is_control() {
                    let has_records = transactions.end(&header);
                    self.clean_marker(&header, bytes, has_records || header.base_offset >= latest.end, &config, now)
                } else if !counts {
                    None
                } else {
                    let cleaned = self.clean_batch(&header, bytes, latest, &config, now)?;
                    if cleaned.is_some() && header.is_transactional() {
                        transactions.kept.insert(header.producer_id);
                    }
                    cleaned
                };
                let is_last = plan.last_of_producers.contains(&header.last_offset()) && !header.is_control();
                if let Some(kept) = kept.or_else(|| is_last.then(|| emptied(&header))) {
                    out.append(&kept, segment.summary.written_at)?;
                    out.summary.aborted.extend(markers.get(&header.base_offset));
                }
            }
        }
        self.replace(group, out)
    }

    /// A marker, or `None` when nothing refers to it any more and its time is over.
    fn clean_marker(
        &self,
        header: &Header,
        bytes: &[u8],
        has_records: bool,
        config: &TopicConfig,
        now: i64,
    ) -> Option<Vec<u8>> {
        if has_records || marker_commits(bytes).is_none() {
            return Some(bytes.to_vec());
        }
        match header.delete_horizon() {
            Some(horizon) if horizon <= now => None,
            Some(_) => Some(bytes.to_vec()),
            None => Some(with_horizon(header, &bytes[HEADER..], now.saturating_add(config.delete_retention_ms))),
        }
    }

    /// A batch without its superseded records, or `None` when none is left.
    fn clean_batch(
        &self,
        header: &Header,
        bytes: &[u8],
        latest: &Latest,
        config: &TopicConfig,
        now: i64,
    ) -> io::Result<Option<Vec<u8>>> {
        let payload = self.payload(header, bytes)?;
        let (mut kept, mut dropped, mut tombstones) = (Vec::new(), false, false);
        for record in Records::new(&payload) {
            let record = record.map_err(io::Error::other)?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let superseded = record.key.is_none_or(|key| latest.is_superseded(key, offset));
            let over = record.is_tombstone && header.delete_horizon().is_some_and(|horizon| horizon <= now);
            if superseded || (over && offset < latest.end) {
                dropped = true;
            } else {
                tombstones |= record.is_tombstone && offset < latest.end;
                kept.push(record);
            }
        }
        let needs_horizon = tombstones && header.delete_horizon().is_none();
        if kept.is_empty() {
            return Ok(None);
        }
        if !dropped && !needs_horizon {
            return Ok(Some(bytes.to_vec()));
        }
        let base_timestamp = match needs_horizon {
            true => now.saturating_add(config.delete_retention_ms),
            false => header.base_timestamp,
        };
        let (mut records, mut max_timestamp) = (Vec::new(), batch::NONE);
        for record in &kept {
            let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
            max_timestamp = max_timestamp.max(timestamp);
            copy_record(&mut records, record, timestamp.saturating_sub(base_timestamp));
        }
        let codec = header.codec().ok_or_else(|| io::Error::other("unknown compression codec"))?;
        let header = Header {
            records: kept.len() as i32,
            base_timestamp,
            max_timestamp: if header.is_log_append_time() { header.max_timestamp } else { max_timestamp },
            attributes: if needs_horizon { batch::with_delete_horizon(header.attributes) } else { header.attributes },
            ..*header
        };
        let payload = codec.compress(&records).map_err(io::Error::other)?;
        Ok(Some(assemble(&header, LEADER_EPOCH, &payload)))
    }

    /// Puts a cleaned file in the place of the segments it was made from.
    fn replace(&self, group: &[Segment], cleaned: Cleaned) -> io::Result<u64> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(0) };
        let mut summary = cleaned.summary;
        // Where the group ends stays known even when its last records are gone.
        summary.next_offset = last.summary.next_offset;
        summary.written_at = last.summary.written_at;
        cleaned.file.sync()?;
        let length = summary.length;
        let mut state = self.locked();
        if state.deleted {
            drop(state);
            return self.shared.disk.remove(cleaned.file.path()).map(|()| 0);
        }
        let path = log_path(&self.folder, first.base);
        self.shared.disk.remove(&path.with_extension("index"))?;
        let segment = Segment { base: first.base, file: Arc::new(cleaned.file.rename(&path)?), summary };
        segment.write_sidecar()?;
        segment.file.park();
        state.segments.insert(first.base, segment);
        let rest: Vec<Segment> = group[1..].iter().filter_map(|old| state.segments.remove(&old.base)).collect();
        drop(state);
        self.remove(&rest)?;
        Ok(length)
    }
}

/// A batch without records. It keeps the last sequence of its producer in the log, for recovery to find.
fn emptied(header: &Header) -> Vec<u8> {
    let header = Header {
        attributes: batch::plain(header.attributes),
        base_timestamp: batch::NONE,
        max_timestamp: batch::NONE,
        records: 0,
        ..*header
    };
    assemble(&header, LEADER_EPOCH, &[])
}

/// The batch with a delete horizon; its records' timestamps stay what they were.
fn with_horizon(header: &Header, payload: &[u8], horizon: i64) -> Vec<u8> {
    let mut records = Vec::with_capacity(payload.len() + 8);
    for record in Records::new(payload).flatten() {
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        copy_record(&mut records, &record, timestamp.saturating_sub(horizon));
    }
    let header =
        Header { base_timestamp: horizon, attributes: batch::with_delete_horizon(header.attributes), ..*header };
    assemble(&header, LEADER_EPOCH, &records)
}

/// Neighbours that together stay below the segment size.
fn groups(segments: &[Segment], segment_bytes: u64) -> Vec<&[Segment]> {
    let (mut groups, mut start, mut size) = (Vec::new(), 0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let too_far = segment.summary.next_offset - segments[start].base > i64::from(i32::MAX);
        if at > start && (size + segment.summary.length > segment_bytes || too_far) {
            groups.push(&segments[start..at]);
            (start, size) = (at, 0);
        }
        size += segment.summary.length;
    }
    if start < segments.len() {
        groups.push(&segments[start..]);
    }
    groups
}

/// A segment in the making.
struct Cleaned {
    file: LogFile,
    summary: Summary,
}

impl Cleaned {
    fn new(base: i64, file: LogFile) -> Self {
        Self { file, summary: Summary::new(base) }
    }

    fn append(&mut self, bytes: &[u8], written_at: i64) -> io::Result<()> {
        let header = Header::parse(bytes).ok_or_else(|| io::Error::other("a cleaned batch has no header"))?;
        self.file.append(bytes)?;
        self.summary.observe(&header, written_at);
        Ok(())
    }
}

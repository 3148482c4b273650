//! Deleting: by age, by size, and up to an offset on request. Whole segments go; offsets stay.

use std::io;

use super::partition::{Offsets, Partition, State};
use super::segment::Segment;
use crate::broker::lock;
use crate::broker::topic_config::TopicConfig;

impl Partition {
    /// Removes the segments that the topic's retention gives up; returns the new log start if it moved.
    ///
    /// As in Apache Kafka the records' own timestamps count, and the last segment can go too: a new, empty one
    /// keeps the next offset.
    pub(crate) fn retain(&self, now: i64) -> io::Result<Option<i64>> {
        let config = self.config();
        let _cleaning = lock(&self.cleaning);
        let mut state = self.locked();
        if state.deleted {
            return Ok(None);
        }
        let expired = if config.delete { expired(&state, &config, now) } else { 0 };
        if expired > 0 && expired == state.segments.len() {
            self.roll(&mut state)?;
            if let Some((_, active)) = state.segments.last_key_value() {
                active.file.sync()?;
            }
        }
        let new_start =
            state.segments.keys().nth(expired).copied().filter(|start| expired > 0 && *start > state.log_start);
        if let Some(start) = new_start {
            state.log_start = start;
        }
        let removed = self.take_spent(&mut state)?;
        drop(state);
        self.remove(&removed)?;
        Ok(new_start)
    }

    /// Takes out the segments below the log start. The last one goes too when nothing of it is left, unlike in Apache Kafka, where
    /// it waits for the next record: what was asked to be deleted leaves the disk. A new, empty one keeps the next offset.
    fn take_spent(&self, state: &mut State) -> io::Result<Vec<Segment>> {
        let spent = state
            .segments
            .last_key_value()
            .is_some_and(|(_, active)| active.summary.length > 0 && active.summary.next_offset <= state.log_start);
        if spent && !state.deleted && state.offsets().last_stable >= state.next_offset {
            self.roll(state)?;
            if let Some((_, active)) = state.segments.last_key_value() {
                active.file.sync()?;
            }
        }
        Ok(state.take_below_start())
    }

    /// Moves the log start up to `offset`, -1 meaning the high watermark.
    pub(crate) fn delete_records(&self, offset: i64) -> Result<i64, Offsets> {
        let mut state = self.locked();
        let offsets = state.offsets();
        let offset = if offset == -1 { offsets.high_watermark } else { offset };
        if offset < 0 || offset > offsets.high_watermark {
            return Err(offsets);
        }
        state.log_start = state.log_start.max(offset);
        Ok(state.log_start)
    }

    /// Gives the descriptors of closed segments back.
    pub(crate) fn park(&self) {
        let state = self.locked();
        for segment in state.segments.values().rev().skip(1) {
            segment.file.park();
        }
    }

    pub(super) fn remove(&self, segments: &[Segment]) -> io::Result<()> {
        for segment in segments {
            let path = segment.file.path();
            self.shared.disk.remove(path)?;
            self.shared.disk.remove(&path.with_extension("index"))?;
            self.shared.disk.remove(&path.with_extension("producers"))?;
        }
        Ok(())
    }

    /// Forgets producers that have not written since `horizon`.
    pub(crate) fn expire_producers(&self, horizon: i64) {
        self.locked().producers.expire(horizon);
    }

    /// Removes the segments below the log start, which DeleteRecords may have moved. While a compaction runs this
    /// is left to the next look of the maintenance.
    pub(crate) fn remove_below_start(&self) -> io::Result<()> {
        let Ok(_cleaning) = self.cleaning.try_lock() else { return Ok(()) };
        let mut state = self.locked();
        let removed = self.take_spent(&mut state)?;
        drop(state);
        self.remove(&removed)
    }
}

impl State {
    /// Takes out the closed segments that end at or below the log start.
    fn take_below_start(&mut self) -> Vec<Segment> {
        let mut removed = Vec::new();
        while self.segments.len() > 1
            && let Some(first) = self.segments.first_entry()
            && first.get().summary.next_offset <= self.log_start
        {
            removed.push(first.remove());
        }
        removed
    }
}

/// How many segments, from the first one, retention gives up. Nothing unread by the disk or open is touched.
fn expired(state: &State, config: &TopicConfig, now: i64) -> usize {
    let stable = state.offsets().last_stable;
    let mut size: u64 = state.segments.values().map(|segment| segment.summary.length).sum();
    let mut count = 0;
    for segment in state.segments.values() {
        let summary = &segment.summary;
        let newest = if summary.max_timestamp >= 0 { summary.max_timestamp } else { summary.written_at };
        let is_active = count + 1 == state.segments.len();
        let too_old = config.retention_ms.is_some_and(|ms| now.saturating_sub(newest) > ms);
        // By size a segment goes only when what is left still fills the bound.
        let too_much =
            !is_active && config.retention_bytes.is_some_and(|bytes| size.saturating_sub(summary.length) >= bytes);
        if summary.length == 0 || summary.next_offset > stable || !(too_old || too_much) {
            break;
        }
        size -= summary.length;
        count += 1;
    }
    count
}

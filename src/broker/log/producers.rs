//! What a partition remembers of its idempotent and transactional producers.
//!
//! The rules are those of Apache Kafka's `ProducerStateManager`: a batch continues its producer's sequence, or it
//! is one of the last five and is answered again without being written, or it is refused.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::batch::Header;

const REMEMBERED_BATCHES: usize = 5;
const NO_EPOCH: i16 = -1;

/// Producers remembered in one partition; beyond, those that have been silent for longest are forgotten.
const REMEMBERED_PRODUCERS: usize = 50_000;

/// One batch a producer has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub first_offset: i64,
    pub last_offset: i64,
    pub timestamp: i64,
}

/// One producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    pub epoch: i16,
    pub batches: VecDeque<WrittenBatch>,
    /// Milliseconds of the clock when it last wrote.
    pub last_seen: i64,
    /// First offset of its open transaction.
    pub open_since: Option<i64>,
    pub coordinator_epoch: i32,
}

impl Producer {
    pub(crate) fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }
}

/// An aborted transaction of one partition, as Fetch tells it to consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The offset of the marker.
    pub last_offset: i64,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It continues the sequence.
    Append,
    /// It was written before.
    Duplicate(WrittenBatch),
    /// A later epoch of the same producer has written already.
    Fenced,
    /// Something before it is missing, or it is an old duplicate.
    OutOfOrder,
}

/// All producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    /// Open transactions by first offset.
    #[serde(skip)]
    open: BTreeMap<i64, i64>,
}

impl Producers {
    /// Rebuilds what is derived after reading a snapshot.
    pub(crate) fn restored(mut self) -> Self {
        self.open = self.known.iter().filter_map(|(&id, producer)| Some((producer.open_since?, id))).collect();
        self
    }

    /// Judges a batch of an idempotent producer.
    pub(crate) fn judge(&self, header: &Header) -> Verdict {
        let Some(producer) = self.known.get(&header.producer_id) else { return Verdict::Append };
        if header.producer_epoch < producer.epoch {
            return Verdict::Fenced;
        }
        if header.producer_epoch > producer.epoch {
            let fresh = header.base_sequence == 0 || producer.epoch == NO_EPOCH;
            return if fresh { Verdict::Append } else { Verdict::OutOfOrder };
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let same = |batch: &&WrittenBatch| batch.first_sequence == first && batch.last_sequence == last;
        if let Some(batch) = producer.batches.iter().find(same) {
            return Verdict::Duplicate(*batch);
        }
        let previous = producer.last_sequence();
        let next = if previous == i32::MAX { 0 } else { previous + 1 };
        if first == next { Verdict::Append } else { Verdict::OutOfOrder }
    }

    /// Notes a batch that was appended.
    pub(crate) fn appended(&mut self, header: &Header, now: i64) {
        self.make_room();
        let producer = self.known.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            last_seen: now,
            open_since: None,
            coordinator_epoch: -1,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(WrittenBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
        producer.last_seen = now;
        if header.is_transactional() && producer.open_since.is_none() {
            producer.open_since = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
    }

    /// Notes a transaction marker; returns the transaction if it aborted one with records in this partition.
    pub(crate) fn ended(&mut self, header: &Header, commit: bool, now: i64) -> Option<Aborted> {
        let producer = self.known.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            last_seen: now,
            open_since: None,
            coordinator_epoch: 0,
        });
        if header.producer_epoch > producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.last_seen = now;
        producer.coordinator_epoch = 0;
        let first_offset = producer.open_since.take()?;
        self.open.remove(&first_offset);
        (!commit).then_some(Aborted { producer_id: header.producer_id, first_offset, last_offset: header.base_offset })
    }

    /// The first offset of the oldest open transaction.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.first_key_value().map(|(&offset, _)| offset)
    }

    /// Producers with an open transaction: id and epoch.
    pub(crate) fn open(&self) -> Vec<(i64, i16)> {
        self.open.values().filter_map(|id| Some((*id, self.known.get(id)?.epoch))).collect()
    }

    /// The first offset of the producer's open transaction.
    pub(crate) fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.known.get(&producer_id)?.open_since
    }

    /// Whether the producer has an open transaction here.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.open_since(producer_id).is_some()
    }

    /// Where the last batch of each producer ends.
    pub(crate) fn last_offsets(&self) -> HashSet<i64> {
        self.known.values().filter_map(|producer| Some(producer.batches.back()?.last_offset)).collect()
    }

    /// Every producer, ordered by id.
    pub(crate) fn all(&self) -> Vec<(i64, &Producer)> {
        let mut all: Vec<_> = self.known.iter().map(|(&id, producer)| (id, producer)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn make_room(&mut self) {
        if self.known.len() < REMEMBERED_PRODUCERS {
            return;
        }
        let mut seen: Vec<i64> = self.known.values().map(|producer| producer.last_seen).collect();
        let (_, middle, _) = seen.select_nth_unstable(REMEMBERED_PRODUCERS / 2);
        let horizon = *middle;
        self.expire(horizon.saturating_add(1));
    }

    /// Forgets producers without an open transaction that were last seen before `horizon`.
    pub(crate) fn expire(&mut self, horizon: i64) {
        self.known.retain(|_, producer| producer.open_since.is_some() || producer.last_seen >= horizon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, sequence: i32, count: i32, offset: i64) -> Header {
        Header {
            base_offset: offset,
            size: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            records: count,
        }
    }

    #[test]
    fn a_sequence_continues_repeats_or_is_refused() {
        let mut producers = Producers::default();
        for number in 0..7 {
            let next = batch(0, number * 10, 10, i64::from(number) * 10);
            assert_eq!(producers.judge(&next), Verdict::Append);
            producers.appended(&next, 0);
        }
        assert!(matches!(producers.judge(&batch(0, 60, 10, 0)), Verdict::Duplicate(found) if found.first_offset == 60));
        assert!(matches!(producers.judge(&batch(0, 20, 10, 0)), Verdict::Duplicate(_)), "the fifth last");
        assert_eq!(producers.judge(&batch(0, 10, 10, 0)), Verdict::OutOfOrder, "older than the last five");
        assert_eq!(producers.judge(&batch(0, 71, 1, 0)), Verdict::OutOfOrder, "a gap");
        assert_eq!(producers.judge(&batch(1, 1, 1, 0)), Verdict::OutOfOrder, "a new epoch starts at 0");
        producers.appended(&batch(1, 0, 1, 70), 0);
        assert_eq!(producers.judge(&batch(0, 70, 1, 0)), Verdict::Fenced);
    }

    #[test]
    fn the_number_of_remembered_producers_is_bounded_and_open_transactions_are_kept() {
        let mut producers = Producers::default();
        for id in 0..REMEMBERED_PRODUCERS as i64 * 2 {
            let attributes = if id == 3 { 1 << 4 } else { 0 };
            producers.appended(&Header { producer_id: id, attributes, ..batch(0, 0, 1, id) }, id);
        }
        assert!(producers.all().len() <= REMEMBERED_PRODUCERS);
        assert!(producers.is_open(3));
    }

    #[test]
    fn sequences_wrap_around() {
        let mut producers = Producers::default();
        let last = batch(0, i32::MAX - 1, 4, 0);
        assert_eq!(last.last_sequence(), 1);
        producers.appended(&last, 0);
        assert_eq!(producers.judge(&batch(0, 2, 1, 4)), Verdict::Append);
        producers.appended(&batch(0, i32::MAX - 3, 4, 4), 0);
        assert_eq!(producers.judge(&batch(0, 0, 1, 8)), Verdict::Append);
    }
}

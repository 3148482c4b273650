//! The batches of the open transaction, kept until it commits.
//!
//! After an abort the consumer's position does not rewind. Instead of seeking back and fetching again, a task keeps
//! the batches of the transaction (bounded by its byte limit) and processes them again from memory, in the same order.
//!
//! A batch that makes its transaction abort twice for a cause that a retry cannot heal is halved again and again; each
//! part is tried in a transaction of its own, until the one record is found that cannot be processed.
//!
//! Invariants:
//! * parts of one partition stay in offset order and together cover exactly the batch's interval;
//! * a part of one record is never split, and only such a part is given up.

use std::collections::VecDeque;

use super::progress::Interval;
use super::stage::Batch;

/// A batch and what happened to it so far.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Which input of the task it came from.
    pub input: usize,
    /// The records.
    pub batch: Batch,
    /// What it covers.
    pub interval: Interval,
    /// How often its transaction aborted for a cause that lies in it.
    failures: u8,
    /// Processed in a transaction of its own.
    pub alone: bool,
    /// Why its one record is given up: it goes to the dead letters instead of to the stage.
    pub given_up: Option<GivenUp>,
}

/// Why a record is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Stable code.
    pub reason: &'static str,
    /// What went wrong, without any byte of the record.
    pub detail: String,
}

/// How often a cause must be seen before a batch is split.
const FAILURES_BEFORE_SPLIT: u8 = 2;

impl Work {
    pub(crate) fn new(input: usize, batch: Batch, interval: Interval) -> Self {
        Self { input, batch, interval, failures: 0, alone: false, given_up: None }
    }

    fn part(&self, from: usize, to: usize, interval: Interval) -> Self {
        let failures = FAILURES_BEFORE_SPLIT - 1;
        Self { batch: self.batch.slice(from, to), interval, failures, alone: true, given_up: None, input: self.input }
    }

    /// The two halves; `None` when there is but one record.
    fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.batch.len() / 2;
        if middle == 0 {
            return None;
        }
        let left = self.batch.slice(0, middle);
        let cut = left.last_offset()? + 1;
        let (records, Interval { from, to, .. }) = (self.batch.len(), self.interval);
        Some([
            self.part(0, middle, Interval { from, to: cut, records: middle }),
            self.part(middle, records, Interval { from: cut, to, records: records - middle }),
        ])
    }

    /// What becomes of a batch after one more failure that lies in it.
    fn failed(mut self, cause: GivenUp) -> Vec<Self> {
        self.failures = self.failures.saturating_add(1);
        self.alone = true;
        if self.failures < FAILURES_BEFORE_SPLIT {
            return vec![self];
        }
        match self.halves() {
            Some(halves) => halves.into(),
            None => {
                self.given_up = Some(cause);
                vec![self]
            }
        }
    }
}

/// Batches that were read but are not committed, to be processed (again) before anything new.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    queue: VecDeque<Work>,
}

impl Replay {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next batch; `None` when it must be alone in its transaction and something is in it already.
    pub(crate) fn next(&mut self, transaction_is_empty: bool) -> Option<Work> {
        if !transaction_is_empty && self.queue.front().is_some_and(|w| w.alone) {
            return None;
        }
        self.queue.pop_front()
    }

    /// The transaction of `works` (in the order of processing) aborted for a cause that lies outside of them.
    pub(crate) fn aborted(&mut self, works: Vec<Work>) {
        for work in works.into_iter().rev() {
            self.queue.push_front(work);
        }
    }

    /// The transaction of `works` aborted for a cause that lies in the last of them.
    pub(crate) fn failed(&mut self, mut works: Vec<Work>, cause: GivenUp) {
        if let Some(culprit) = works.pop() {
            works.extend(culprit.failed(cause));
        }
        self.aborted(works);
    }

    /// The transaction of `works` aborted for a cause that lies in one of them, nobody knows in which.
    pub(crate) fn failed_somewhere(&mut self, works: Vec<Work>, cause: &GivenUp) {
        self.aborted(works.into_iter().flat_map(|work| work.failed(cause.clone())).collect());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn work(offsets: &[i64]) -> Work {
        let mut batch = Batch::new("in", 0);
        for offset in offsets {
            batch.push(*offset, 0, None, Some(offset.to_string().as_bytes()));
        }
        let (from, to) = (offsets.first().copied().unwrap_or(0), offsets.last().map_or(0, |o| o + 1));
        Work::new(0, batch, Interval { from, to, records: offsets.len() })
    }

    fn cause() -> GivenUp {
        GivenUp { reason: "BAD", detail: "bad".into() }
    }

    /// Processes until nothing is left; transactions with a poisoned offset fail. Returns committed and given-up offsets.
    fn run(works: Vec<Work>, poisoned: &[i64], blame_known: bool) -> (Vec<i64>, Vec<i64>, usize) {
        let mut replay = Replay::default();
        replay.aborted(works);
        let (mut committed, mut given_up, mut transactions) = (Vec::new(), Vec::new(), 0);
        while !replay.is_empty() {
            transactions += 1;
            assert!(transactions < 10_000, "endless");
            let mut open: Vec<Work> = Vec::new();
            let mut failed = false;
            while let Some(next) = replay.next(open.is_empty()) {
                let alone = next.alone;
                let bad = next.given_up.is_none() && next.batch.iter().any(|m| poisoned.contains(&m.offset));
                open.push(next);
                failed |= bad;
                if alone || (bad && blame_known) {
                    break;
                }
            }
            match (failed, blame_known) {
                (true, true) => replay.failed(open, cause()),
                (true, false) => replay.failed_somewhere(open, &cause()),
                (false, _) => {
                    for work in open {
                        let into = if work.given_up.is_some() { &mut given_up } else { &mut committed };
                        into.extend(work.batch.iter().map(|m| m.offset));
                    }
                }
            }
        }
        (committed, given_up, transactions)
    }

    #[test]
    fn one_bad_record_among_a_thousand_is_the_only_one_given_up() {
        let offsets: Vec<i64> = (0..1_000).collect();
        let (committed, given_up, transactions) = run(vec![work(&offsets)], &[777], true);
        assert_eq!(given_up, [777]);
        assert_eq!(committed.len(), 999);
        assert!(transactions < 30, "{transactions} transactions to find it");
    }

    #[test]
    fn an_abort_without_blame_gives_up_nothing() {
        let mut replay = Replay::default();
        for _ in 0..10 {
            let mut open = Vec::new();
            if replay.is_empty() {
                open.push(work(&[1, 2]));
            }
            while let Some(next) = replay.next(open.is_empty()) {
                open.push(next);
            }
            replay.aborted(open);
        }
        let left = replay.next(true).unwrap();
        assert!(left.given_up.is_none() && !left.alone && left.batch.len() == 2);
    }

    proptest! {
        #[test]
        fn exactly_the_bad_records_are_given_up_and_order_is_kept(
            sizes in prop::collection::vec(1_i64..20, 1..6),
            bad in prop::collection::btree_set(0_i64..60, 0..5),
            blame_known in any::<bool>(),
        ) {
            let mut next = 0;
            let mut works = Vec::new();
            for size in sizes {
                // Every third offset is a hole, as transaction markers leave them.
                let offsets: Vec<i64> = (next..next + size).filter(|o| o % 3 != 2).collect();
                next += size;
                if !offsets.is_empty() {
                    works.push(work(&offsets));
                }
            }
            let all: Vec<i64> = works.iter().flat_map(|w| w.batch.iter().map(|m| m.offset).collect::<Vec<_>>()).collect();
            let bad: Vec<i64> = bad.into_iter().collect();
            let (committed, given_up, _) = run(works, &bad, blame_known);
            let (expected_bad, expected_good): (Vec<i64>, Vec<i64>) = all.into_iter().partition(|o| bad.contains(o));
            prop_assert_eq!(given_up, expected_bad);
            prop_assert_eq!(committed, expected_good);
        }

        #[test]
        fn halves_cover_the_interval_without_overlap(size in 2_i64..50) {
            let whole = work(&(0..size).collect::<Vec<_>>());
            let [left, right] = whole.halves().unwrap();
            prop_assert_eq!(left.interval.from, whole.interval.from);
            prop_assert_eq!(left.interval.to, right.interval.from);
            prop_assert_eq!(right.interval.to, whole.interval.to);
            prop_assert_eq!(left.batch.len() + right.batch.len(), whole.batch.len());
        }
    }
}

//! How far a task has read, and where it starts.
//!
//! Invariants:
//! * what a batch covers is an [`Interval`]; a [`Cursor`] only moves over an interval that begins where the last one
//!   ended; so nothing is read twice and a hole is always seen;
//! * where a task starts is decided by [`decide_start`], a pure function of recorded facts; every outcome has a name,
//!   and none is silent;
//! * progress is stored in the same transaction as the outputs, under the topic's *id*: a topic that was deleted and
//!   made anew is another topic.

use crate::domain::records::Progress;

/// A stretch of a partition, half-open: `(from, to]` in terms of *next offsets*: the records at offsets
/// `from .. to`, of which `records` exist.
///
/// | cursor's next | interval       | records | meaning                                                            |
/// |---------------|----------------|---------|--------------------------------------------------------------------|
/// | 10            | from 10, to 13 | 3       | read without a hole                                                |
/// | 10            | from 10, to 15 | 3       | 2 offsets hold no record: transaction markers or compacted records |
/// | 10            | from 10, to 11 | 0       | only a transaction marker                                          |
/// | 10            | from 9, to 13  | any     | overlap: an error, a record would count twice                      |
/// | 10            | from 12, to 13 | any     | jump: an error, records would be skipped unread                    |
/// | 10            | from 10, to 9  | any     | backwards: an error                                                |
/// | 10            | from 10, to 12 | 3       | more records than offsets: an error                                |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Next offset before the batch.
    pub from: i64,
    /// Next offset after the batch.
    pub to: i64,
    /// Records in between.
    pub records: usize,
}

/// An interval that does not continue where the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Records would be processed twice.
    #[error("offset {from} was read again after {next}")]
    Overlap {
        /// Where the cursor stands.
        next: i64,
        /// Where the interval begins.
        from: i64,
    },
    /// Records would be skipped without having been read.
    #[error("reading jumped from offset {next} to {from}")]
    Jump {
        /// Where the cursor stands.
        next: i64,
        /// Where the interval begins.
        from: i64,
    },
    /// The interval is none.
    #[error("{records} records do not fit between the offsets {from} and {to}")]
    Malformed {
        /// Begin.
        from: i64,
        /// End.
        to: i64,
        /// Records.
        records: usize,
    },
}

/// Where a task stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    next: i64,
}

impl Cursor {
    /// A cursor before the record at `next`.
    #[must_use]
    pub fn new(next: i64) -> Self {
        Self { next }
    }

    /// Offset of the next record.
    #[must_use]
    pub fn next(self) -> i64 {
        self.next
    }

    /// Moves over an interval and returns how many offsets in it held no record.
    ///
    /// # Errors
    /// When the interval does not begin at the cursor or is none: see the truth table of [`Interval`].
    pub fn advance(&mut self, interval: Interval) -> Result<u64, CursorError> {
        let Interval { from, to, records } = interval;
        if from < self.next {
            return Err(CursorError::Overlap { next: self.next, from });
        }
        if from > self.next {
            return Err(CursorError::Jump { next: self.next, from });
        }
        let holes = u64::try_from(to - from).ok().and_then(|offsets| offsets.checked_sub(records as u64));
        let holes = holes.ok_or(CursorError::Malformed { from, to, records })?;
        self.next = to;
        Ok(holes)
    }
}

/// What is known of one partition when its task starts.
#[derive(Debug, Clone, Copy)]
pub struct StartFacts<'a> {
    /// The committed progress record, if there is one.
    pub progress: Option<&'a Progress>,
    /// The topic's present id.
    pub topic_id: &'a str,
    /// The topic's present partition count.
    pub partitions: i32,
    /// The count that the topology declares; none for outsiders' topics, which may grow.
    pub declared: Option<i32>,
    /// First offset that can still be read.
    pub log_start: i64,
    /// One past the last record; taken after the progress record was read.
    pub log_end: i64,
    /// Offset that the consumer group has committed: only for its lag tools and for what it tells.
    pub group_offset: Option<i64>,
}

/// Where a task starts in one partition, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartDecision {
    /// Continue after the committed progress.
    FromProgress {
        /// Offset of the first record to read.
        next: i64,
        /// How the group's offset compares with it.
        group: GroupOffset,
    },
    /// No progress was ever committed: the whole topic is read.
    FromBeginning {
        /// First offset that can be read; above 0 when records expired before the stage ever ran.
        start: i64,
    },
    /// The task must not run.
    Stop(Stop),
}

/// How the consumer group's offset compares with the progress record, which alone counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupOffset {
    /// Equal.
    Same,
    /// It expired or was deleted.
    Missing,
    /// Somebody reset it; the way to really move a stage is `hokusai topology reset`.
    Different(i64),
}

/// Why a task stays stopped until somebody acts. Each is an outcome of its own in health and log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The topic was deleted and made anew.
    #[error(
        "TOPIC_RECREATED: {topic} has the id {now}, progress was committed for {was}; help: offsets of the old topic mean nothing in the new one: reset the stage to read the new one from its beginning"
    )]
    TopicRecreated {
        /// Topic.
        topic: String,
        /// Id in the progress record.
        was: String,
        /// Id now.
        now: String,
    },
    /// A keyed topic has another partition count than declared.
    #[error(
        "PARTITIONS_CHANGED: {topic} has {found} partitions, the topology declares {declared}; help: keys would move between partitions, so nothing more is processed: choose the --partitions or --topology that the topic was made with; if it was altered, start over with a new --prefix (`hokusai topology migrate`, which will move a topic to another count, is not in this version)"
    )]
    PartitionsChanged {
        /// Topic.
        topic: String,
        /// Count in the cluster.
        found: i32,
        /// Count in the topology.
        declared: i32,
    },
    /// The next record was deleted before it was read.
    #[error(
        "OFFSET_EXPIRED: {topic}-{partition} begins at offset {log_start}, the next record to read was {next}; help: {lost} offsets expired unread: restore them or reset the stage to accept the loss"
    )]
    OffsetExpired {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset that should be read next.
        next: i64,
        /// First offset there is.
        log_start: i64,
        /// How many offsets are gone.
        lost: i64,
    },
    /// The log ends before the committed progress.
    #[error(
        "LOG_TRUNCATED: {topic}-{partition} ends at offset {log_end}, progress was committed up to {next}; help: the broker lost acknowledged records (power loss without fsync?): restore them or reset the stage"
    )]
    LogTruncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Committed progress.
        next: i64,
        /// End of the log.
        log_end: i64,
    },
    /// The group has offsets but the progress records are gone.
    #[error(
        "PROGRESS_LOST: {topic}-{partition} was read up to offset {group_offset}, but no progress record exists; help: the changelog was deleted: restore it, or delete the group's offsets to start from the beginning"
    )]
    ProgressLost {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset of the group.
        group_offset: i64,
    },
    /// The stage cannot write what it has to, whatever is tried: a time mark, its progress, a dead letter.
    #[error("CANNOT_WRITE: {what}; help: no record is at fault and none is lost: {help}")]
    CannotWrite {
        /// What could not be written, and why.
        what: String,
        /// The way out.
        help: String,
    },
    /// A stage does not fit the topology.
    #[error("MISCONFIGURED: {what}; help: {help}")]
    Misconfigured {
        /// What does not fit.
        what: String,
        /// The way out.
        help: String,
    },
    /// A stage refuses to go on.
    #[error("HALTED: {what}; help: {help}")]
    Halted {
        /// What it found.
        what: String,
        /// The way out.
        help: String,
    },
}

impl Stop {
    /// Whether the stop concerns every partition of the stage.
    #[must_use]
    pub fn whole_stage(&self) -> bool {
        matches!(self, Self::TopicRecreated { .. } | Self::PartitionsChanged { .. } | Self::Misconfigured { .. })
    }

    /// The outcome's name, for metrics and health.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TopicRecreated { .. } => "TOPIC_RECREATED",
            Self::PartitionsChanged { .. } => "PARTITIONS_CHANGED",
            Self::OffsetExpired { .. } => "OFFSET_EXPIRED",
            Self::LogTruncated { .. } => "LOG_TRUNCATED",
            Self::ProgressLost { .. } => "PROGRESS_LOST",
            Self::CannotWrite { .. } => "CANNOT_WRITE",
            Self::Misconfigured { .. } => "MISCONFIGURED",
            Self::Halted { .. } => "HALTED",
        }
    }
}

/// Decides where a task starts in a partition.
///
/// | partitions as declared | progress | topic id | group offset | next vs. log          | decision                    |
/// |------------------------|----------|----------|--------------|-----------------------|-----------------------------|
/// | no                     | any      | any      | any          | any                   | stop: `PARTITIONS_CHANGED`  |
/// | yes                    | none     |          | none         |                       | from the beginning          |
/// | yes                    | none     |          | present      |                       | stop: `PROGRESS_LOST`       |
/// | yes                    | present  | another  | any          | any                   | stop: `TOPIC_RECREATED`     |
/// | yes                    | present  | same     | any          | before its start      | stop: `OFFSET_EXPIRED`      |
/// | yes                    | present  | same     | any          | beyond its end        | stop: `LOG_TRUNCATED`       |
/// | yes                    | present  | same     | any          | inside                | from progress               |
#[must_use]
pub fn decide_start(topic: &str, partition: i32, facts: &StartFacts<'_>) -> StartDecision {
    let topic = topic.to_owned();
    if let Some(declared) = facts.declared.filter(|d| *d != facts.partitions) {
        return StartDecision::Stop(Stop::PartitionsChanged { topic, found: facts.partitions, declared });
    }
    let Some(progress) = facts.progress else {
        return match facts.group_offset {
            Some(group_offset) => StartDecision::Stop(Stop::ProgressLost { topic, partition, group_offset }),
            None => StartDecision::FromBeginning { start: facts.log_start },
        };
    };
    if progress.topic_id != facts.topic_id {
        let (was, now) = (progress.topic_id.clone(), facts.topic_id.to_owned());
        return StartDecision::Stop(Stop::TopicRecreated { topic, was, now });
    }
    let next = progress.next_offset;
    if next < facts.log_start {
        let (log_start, lost) = (facts.log_start, facts.log_start - next);
        return StartDecision::Stop(Stop::OffsetExpired { topic, partition, next, log_start, lost });
    }
    if next > facts.log_end {
        return StartDecision::Stop(Stop::LogTruncated { topic, partition, next, log_end: facts.log_end });
    }
    let group = match facts.group_offset {
        None => GroupOffset::Missing,
        Some(offset) if offset == next => GroupOffset::Same,
        Some(offset) => GroupOffset::Different(offset),
    };
    StartDecision::FromProgress { next, group }
}

/// Namespace of state keys in a changelog.
const STATE: &[u8] = b"s/";
/// Namespace of progress records in a changelog.
const PROGRESS: &[u8] = b"progress/";

/// What a changelog record is about.
#[derive(Debug, PartialEq, Eq)]
pub enum ChangelogKey<'k> {
    /// A change of state under this key.
    State(&'k [u8]),
    /// A progress record.
    Progress,
    /// Neither: written by a newer version or by somebody else.
    Unknown,
}

impl<'k> ChangelogKey<'k> {
    /// Reads a key of a changelog.
    #[must_use]
    pub fn parse(key: &'k [u8]) -> Self {
        match key.strip_prefix(STATE) {
            Some(state) => Self::State(state),
            None if key.starts_with(PROGRESS) => Self::Progress,
            None => Self::Unknown,
        }
    }
}

/// Changelog key of a state entry.
#[must_use]
pub fn state_key(key: &[u8]) -> Vec<u8> {
    [STATE, key].concat()
}

/// Changelog key of the progress in one partition.
#[must_use]
pub fn changelog_progress_key(topic: &str, partition: i32) -> Vec<u8> {
    [PROGRESS, format!("{topic}/{partition}").as_bytes()].concat()
}

/// Key in `hokusai.progress` of a stateless task's progress in one partition.
#[must_use]
pub fn shared_progress_key(stage: &str, topic: &str, partition: i32) -> Vec<u8> {
    format!("{stage}/{topic}/{partition}").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress(next_offset: i64) -> Progress {
        Progress { stage: "toy".into(), topic: "in".into(), topic_id: "a".into(), partition: 0, next_offset }
    }

    fn facts(progress: Option<&Progress>) -> StartFacts<'_> {
        StartFacts {
            progress,
            topic_id: "a",
            partitions: 2,
            declared: Some(2),
            log_start: 5,
            log_end: 20,
            group_offset: progress.map(|p| p.next_offset),
        }
    }

    fn stop(facts: &StartFacts<'_>) -> &'static str {
        match decide_start("in", 0, facts) {
            StartDecision::Stop(stop) => stop.name(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_task_continues_after_its_committed_progress() {
        let p = progress(12);
        let expected = StartDecision::FromProgress { next: 12, group: GroupOffset::Same };
        assert_eq!(decide_start("in", 0, &facts(Some(&p))), expected);
    }

    #[test]
    fn lost_or_reset_group_offsets_change_nothing() {
        let p = progress(12);
        for (group_offset, group) in [(None, GroupOffset::Missing), (Some(3), GroupOffset::Different(3))] {
            let decision = decide_start("in", 0, &StartFacts { group_offset, ..facts(Some(&p)) });
            assert_eq!(decision, StartDecision::FromProgress { next: 12, group });
        }
    }

    #[test]
    fn the_whole_topic_is_read_only_when_nothing_was_ever_committed() {
        assert_eq!(decide_start("in", 0, &facts(None)), StartDecision::FromBeginning { start: 5 });
        assert_eq!(stop(&StartFacts { group_offset: Some(9), ..facts(None) }), "PROGRESS_LOST");
    }

    #[test]
    fn a_recreated_topic_stops_the_task() {
        let p = progress(12);
        assert_eq!(stop(&StartFacts { topic_id: "b", ..facts(Some(&p)) }), "TOPIC_RECREATED");
    }

    #[test]
    fn a_position_outside_of_the_log_stops_the_task() {
        for (next, name) in [(4, "OFFSET_EXPIRED"), (21, "LOG_TRUNCATED")] {
            assert_eq!(stop(&facts(Some(&progress(next)))), name);
        }
        for next in [5, 20] {
            let p = progress(next);
            assert!(matches!(decide_start("in", 0, &facts(Some(&p))), StartDecision::FromProgress { .. }));
        }
    }

    #[test]
    fn a_changed_partition_count_stops_a_keyed_input_before_anything_else() {
        let p = progress(12);
        assert_eq!(stop(&StartFacts { partitions: 3, topic_id: "b", ..facts(Some(&p)) }), "PARTITIONS_CHANGED");
        let outsiders = StartFacts { partitions: 3, declared: None, ..facts(Some(&p)) };
        assert!(matches!(decide_start("in", 0, &outsiders), StartDecision::FromProgress { .. }));
    }

    #[test]
    fn the_cursor_follows_the_truth_table() {
        let at = |from, to, records| Cursor::new(10).advance(Interval { from, to, records });
        assert_eq!(at(10, 13, 3), Ok(0));
        assert_eq!(at(10, 15, 3), Ok(2));
        assert_eq!(at(10, 11, 0), Ok(1));
        assert!(matches!(at(9, 13, 3), Err(CursorError::Overlap { .. })));
        assert!(matches!(at(12, 13, 1), Err(CursorError::Jump { .. })));
        assert!(matches!(at(10, 9, 0), Err(CursorError::Malformed { .. })));
        assert!(matches!(at(10, 12, 3), Err(CursorError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn however_a_partition_is_cut_the_cursor_accounts_for_every_offset(cuts in prop::collection::vec((0_usize..9, 0_i64..5), 0..40)) {
            let mut cursor = Cursor::new(0);
            let (mut records, mut holes) = (0_u64, 0_u64);
            for (n, gap) in cuts {
                let from = cursor.next();
                let to = from + i64::try_from(n).unwrap() + gap;
                holes += cursor.advance(Interval { from, to, records: n }).unwrap();
                records += n as u64;
            }
            prop_assert_eq!(cursor.next(), i64::try_from(records + holes).unwrap());
        }

        #[test]
        fn state_keys_never_collide_with_progress_keys(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let logged = state_key(&key);
            prop_assert_eq!(ChangelogKey::parse(&logged), ChangelogKey::State(&key));
            let logged = changelog_progress_key("in", 3);
            prop_assert_eq!(ChangelogKey::parse(&logged), ChangelogKey::Progress);
        }
    }
}

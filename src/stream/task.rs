//! A task: one stage on one partition number of its inputs, on a thread of its own.
//!
//! ```text
//!  attach ──► fence the predecessor ──► open local state, read the changelog from there to its end
//!        ──► decide where to start ──► seek, resume ───────────────────────────────────────────────┐
//!                                                                                                  │
//!     ┌──────────────────────────── wait for records, marks or a command ◄─────────────────────────┤
//!     │                                            │                                               │
//!  drained: parked with state and producer    a transaction ───────────────────────────────────────┘
//! ```
//!
//! The changelog's end is taken after `init_transactions`: from then on no predecessor can write to it.
//!
//! A parked task that gets the same inputs back goes on without a restore. That is safe without asking anybody: any
//! other owner in between has fenced our producer in its own `init_transactions`, so our next transaction cannot
//! commit, and the task then starts anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::broadcast::Broadcast;
use super::client::End;
use super::control::{Attachment, Command, Control, Ended, InputFacts, Report, ReportKind};
use super::health::{TaskId, TaskState};
use super::metrics::TaskMetrics;
use super::producer::{ErrorClass, ProduceError, TxnProducer};
use super::progress::{
    Cursor, StartDecision, StartFacts, Stop, changelog_progress_key, decide_start, shared_progress_key,
};
use super::recovery::{self, ProgressByInput, Recovered};
use super::replay::Replay;
use super::runtime::{ProgressIn, Shared, StagePlan};
use super::stage::{Checkpoint, Place, Stage, State};
use crate::domain::topics;

/// One input partition while the task runs.
pub(super) struct Input {
    pub facts: InputFacts,
    /// Offset of the next record to take from the queue.
    pub read: i64,
    /// What is committed.
    pub committed: Cursor,
    /// The consumer has reported the partition's end and nothing came since.
    pub at_end: bool,
    /// How the first record after a seek is judged.
    pub arrival: Arrival,
}

/// A hole before the first record after a seek is believed only when a second seek shows it too: should the client
/// ever start from another offset than the one sought, records would be skipped without a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing has come yet.
    Open,
    /// A record beyond a hole has come, once.
    Doubted(i64),
    /// Reading goes on from record to record.
    Settled,
}

impl Arrival {
    /// Judges a record: true when it is the next one, false when the seek is to be repeated.
    pub fn judge(&mut self, expected: i64, offset: i64) -> bool {
        let believed = *self == Self::Settled || offset == expected || *self == Self::Doubted(offset);
        *self = if believed { Self::Settled } else { Self::Doubted(offset) };
        believed
    }
}

/// When marks were written and what has happened since.
#[derive(Default)]
pub(super) struct Marks {
    pub last: Option<Instant>,
    pub advanced: bool,
    pub told_at_end: bool,
    pub high_time: i64,
}

pub(super) struct Task<'r, S: Stage> {
    pub shared: &'r Shared,
    pub plan: &'r StagePlan,
    pub id: TaskId,
    pub control: &'r Control,
    pub stage: S,
    pub state: S::State,
    pub producer: TxnProducer,
    pub inputs: Vec<Input>,
    pub attachment: Option<Attachment>,
    pub replay: Replay,
    pub broadcasts: Vec<(Arc<Broadcast>, u64)>,
    /// Catch broadcast inputs up before each batch, until the next commit.
    pub insist_on_broadcast: bool,
    pub partitions: Arc<BTreeMap<String, i32>>,
    pub metrics: TaskMetrics,
    pub marks: Marks,
    /// Progress as it stands in the changelog.
    pub progress: ProgressByInput,
    /// The changelog's end as the restore found it.
    pub log_end: i64,
    /// Where the state is on this machine.
    pub place: Option<Place>,
    /// Bytes of the changelog since the last snapshot.
    pub unsaved: u64,
    pub next_input: usize,
    pub aborts_in_a_row: u32,
    pub unreadable_broadcasts: Vec<crate::domain::records::DeadLetter>,
    pub full_names: BTreeMap<&'static str, String>,
}

/// Runs a task until it ends; blocks.
pub(crate) fn run<S: Stage>(
    shared: &Shared,
    plan: &StagePlan,
    id: &TaskId,
    incarnation: u64,
    control: &Control,
    stage: S,
    reports: &Sender<Report>,
) -> Ended {
    let report = |kind| drop(reports.send(Report { task: id.clone(), incarnation, kind }));
    let attachment = loop {
        match control.take() {
            Some(Command::Attach(attachment)) => break attachment,
            Some(Command::Drain | Command::Stop) => return Ended::Asked,
            None => control.signal.wait(Duration::from_secs(1)),
        }
    };
    let mut task = match start(shared, plan, id, control, stage, attachment) {
        Ok(task) => task,
        Err(ended) => return ended,
    };
    loop {
        match control.take() {
            Some(Command::Stop) => {
                task.save();
                return Ended::Asked;
            }
            Some(Command::Drain) => {
                crate::failpoint!("revoke.drain");
                task.attachment = None;
                shared.health.set(id, TaskState::Parked);
                report(ReportKind::Drained);
            }
            Some(Command::Attach(attachment)) => {
                if let Err(ended) = task.attach(attachment) {
                    return ended;
                }
            }
            None => {}
        }
        if task.attachment.is_none() {
            control.signal.wait(Duration::from_secs(1));
            continue;
        }
        match task.transaction() {
            Ok(true) => {}
            Ok(false) => {
                control.signal.wait(task.idle_time());
                task.producer.serve();
            }
            Err(ended) => return ended,
        }
    }
}

fn start<'r, S: Stage>(
    shared: &'r Shared,
    plan: &'r StagePlan,
    id: &TaskId,
    control: &'r Control,
    stage: S,
    attachment: Attachment,
) -> Result<Task<'r, S>, Ended> {
    let begun = Instant::now();
    let urgent = || control.is_urgent();
    let failed = |error: &dyn std::fmt::Display| Ended::Failed(error.to_string());
    let name = format!(
        "{}-{}",
        shared.cluster.group(plan.name),
        id.to_string().replacen(plan.name, "", 1).trim_start_matches('-')
    );
    let log = match &plan.progress {
        ProgressIn::Changelog(topic) => Some(shared.cluster.topic(topic)),
        ProgressIn::Shared => None,
    };
    let producer = TxnProducer::create(&shared.cluster, &name, &shared.settings.transaction, log);
    let producer = producer.map_err(|e| failed(&e))?;
    producer.init(&urgent).map_err(|e| ended(&e))?;
    let Recovered { state, progress, log_end, read, place } =
        recovery::recover(shared, plan, id, &attachment.inputs, &stage, &urgent)?;
    let inputs = decide(shared, &attachment, &progress)?;
    let broadcasts: Vec<_> =
        plan.broadcast.iter().filter_map(|t| shared.broadcasts.get(t)).map(|b| (Arc::clone(b), 0)).collect();
    for (broadcast, _) in &broadcasts {
        broadcast.catch_up(shared.settings.catch_up_limit, &urgent).map_err(|e| failed(&e))?;
    }
    let names: Vec<String> = inputs.iter().map(|i| i.facts.topic.clone()).collect();
    let metrics = TaskMetrics::new(plan.name, id.partition, &names);
    metrics.restored(begun.elapsed());
    metrics.state(state.size());
    let mut task = Task {
        shared,
        plan,
        id: id.clone(),
        control,
        stage,
        state,
        producer,
        inputs,
        attachment: None,
        replay: Replay::default(),
        broadcasts,
        insist_on_broadcast: false,
        partitions: shared.partition_counts(),
        metrics,
        marks: Marks::default(),
        progress,
        log_end,
        place,
        unsaved: read,
        next_input: 0,
        aborts_in_a_row: 0,
        unreadable_broadcasts: Vec::new(),
        full_names: BTreeMap::new(),
    };
    task.attach(attachment)?;
    tracing::info!(task = %id, took_ms = begun.elapsed().as_millis(), "task runs");
    Ok(task)
}

/// What an error of the producer means for the task as a whole.
pub(super) fn ended(error: &ProduceError) -> Ended {
    match error.class {
        ErrorClass::Fenced => Ended::Fenced,
        _ => Ended::Failed(error.to_string()),
    }
}

/// Decides where each input starts; the ends of the log are taken now, after the progress was read.
fn decide(shared: &Shared, attachment: &Attachment, progress: &ProgressByInput) -> Result<Vec<Input>, Ended> {
    let failed = |error: &dyn std::fmt::Display| Ended::Failed(error.to_string());
    let places: Vec<_> = attachment.inputs.iter().map(|i| (i.topic.clone(), i.partition)).collect();
    let full: Vec<_> = attachment.inputs.iter().map(|i| (i.full.clone(), i.partition)).collect();
    let starts = shared.admin.offsets(&places, End::Start).map_err(|e| failed(&e))?;
    let ends = shared.admin.offsets(&places, End::HighWatermark).map_err(|e| failed(&e))?;
    let group = attachment.handle.committed(&full).map_err(|e| failed(&e))?;
    let mut inputs = Vec::with_capacity(places.len());
    for (index, facts) in attachment.inputs.iter().enumerate() {
        let start_facts = StartFacts {
            progress: progress.get(&(facts.topic.clone(), facts.partition)),
            topic_id: &facts.topic_id,
            partitions: facts.partitions,
            declared: facts.declared,
            log_start: starts.get(index).copied().unwrap_or(0),
            log_end: ends.get(index).copied().unwrap_or(0),
            group_offset: group.get(index).copied().flatten(),
        };
        let decision = decide_start(&facts.topic, facts.partition, &start_facts);
        let next = match decision {
            StartDecision::Stop(stop) => return Err(Ended::Stopped(stop)),
            StartDecision::FromProgress { next, group } => {
                tracing::debug!(topic = %facts.topic, partition = facts.partition, next, ?group, "from progress");
                next
            }
            StartDecision::FromBeginning { start } => {
                tracing::info!(topic = %facts.topic, partition = facts.partition, start, "no progress: from the beginning");
                start
            }
        };
        inputs.push(Input {
            facts: facts.clone(),
            read: next,
            committed: Cursor::new(next),
            at_end: false,
            arrival: Arrival::Open,
        });
    }
    Ok(inputs)
}

impl<S: Stage> Task<'_, S> {
    /// Takes the inputs (back) and starts to read where the task stands.
    fn attach(&mut self, mut attachment: Attachment) -> Result<(), Ended> {
        for ((input, facts), queue) in self.inputs.iter_mut().zip(&attachment.inputs).zip(&mut attachment.queues) {
            if input.facts.topic_id != facts.topic_id {
                let (was, now) = (input.facts.topic_id.clone(), facts.topic_id.clone());
                return Err(Ended::Stopped(Stop::TopicRecreated { topic: facts.topic.clone(), was, now }));
            }
            input.facts = facts.clone();
            (input.at_end, input.arrival) = (false, Arrival::Open);
            let signal = Arc::clone(&self.control.signal);
            queue.set_nonempty_callback(move || signal.raise());
            let started = attachment.handle.start(&facts.full, facts.partition, input.read);
            started.map_err(|e| Ended::Failed(format!("{}-{}: {e}", facts.topic, facts.partition)))?;
            // Also what an earlier life has committed is purged, though nothing new may come for long.
            self.shared.positions.note(self.plan.name, &facts.topic, facts.partition, input.committed.next());
        }
        self.partitions = self.shared.partition_counts();
        self.attachment = Some(attachment);
        self.shared.health.set(&self.id, TaskState::Running);
        Ok(())
    }

    /// As of when the committed state is.
    pub(super) fn now(&self) -> Checkpoint {
        let next_offset = self.log_end.max(self.producer.log_end());
        Checkpoint { next_offset, progress: self.progress.values().cloned().collect() }
    }

    /// At a clean end the state goes to disk, so that the next start reads little of the changelog.
    fn save(&mut self) {
        if !S::State::STATELESS
            && let Err(error) = self.state.checkpoint(&self.now())
        {
            tracing::warn!(task = %self.id, %error, "the state was not written at the end");
            return;
        }
        if self.unsaved > 0 {
            self.snapshot();
        }
    }

    /// So much of the changelog has come since the last snapshot that another one is worth it.
    pub(super) fn wants_snapshot(&self) -> bool {
        let (Some(snapshots), Some(place)) = (&self.shared.snapshots, &self.place) else { return false };
        self.unsaved > snapshots.settings.after_bytes && !snapshots.is_busy(&place.folder)
    }

    /// Hands the state on disk over to be sent to the shared store; that one is on its way already changes nothing.
    pub(super) fn snapshot(&mut self) {
        let (Some(snapshots), Some(place), Some(form)) = (&self.shared.snapshots, &self.place, S::State::FORM) else {
            return;
        };
        let take = |to: &std::path::Path| self.state.snapshot(to);
        if snapshots.offer(&self.shared.cluster.prefix, &place.folder, &place.identity, form, take) {
            self.unsaved = 0;
        }
    }

    /// The least pause between two time marks.
    pub(super) fn mark_interval(&self) -> Duration {
        self.plan.mark_interval.unwrap_or(self.shared.settings.mark_interval)
    }

    /// How long the task may sleep when no record comes: until a mark is due, and a second at most, or a twentieth of one while work
    /// goes on beside it.
    fn idle_time(&self) -> Duration {
        let most = if self.stage.works_beside() { Duration::from_millis(50) } else { Duration::from_secs(1) };
        let (true, Some(last)) = (S::MARKS, self.marks.last) else { return most };
        let something_to_tell = self.marks.advanced || !self.marks.told_at_end;
        let pause = if something_to_tell { self.mark_interval() } else { self.shared.settings.idle_mark_interval };
        let left = (last + pause).saturating_duration_since(Instant::now());
        // A mark that is due but waits for the end of the partition comes with the end, which wakes the task.
        if left.is_zero() { most } else { left.min(most) }
    }

    /// Key and partition of the progress record of an input, and the topic it goes to.
    pub(super) fn progress_place(&self, input: &InputFacts) -> (String, i32, Vec<u8>) {
        match &self.plan.progress {
            ProgressIn::Changelog(topic) => {
                let key = changelog_progress_key(&input.topic, input.partition);
                (self.shared.cluster.topic(topic), self.id.partition, key)
            }
            ProgressIn::Shared => {
                let key = shared_progress_key(self.plan.name, &input.topic, input.partition);
                (self.shared.cluster.topic(topics::PROGRESS), self.shared.progress_partition(&key), key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival;

    #[test]
    fn a_hole_right_after_a_seek_must_be_seen_twice() {
        let mut arrival = Arrival::Open;
        assert!(!arrival.judge(10, 15));
        assert!(!arrival.judge(10, 20), "another hole is another doubt");
        assert!(arrival.judge(10, 20));
        assert!(arrival.judge(21, 30), "later holes are markers and compacted records");
    }

    #[test]
    fn the_record_that_was_sought_is_believed_at_once() {
        let mut arrival = Arrival::Open;
        assert!(arrival.judge(10, 10));
        assert!(arrival.judge(11, 13));
    }
}

//! One transaction of a task: outputs, dead letters, state changes, progress and offsets commit together or not at all.
//!
//! A transaction takes batches as long as there are any, at most for the commit interval; it commits as soon as the
//! inputs are drained. So a lone record waits for nobody, and under load the cost of a commit is shared by many.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::control::Ended;
use super::producer::{ErrorClass, ProduceError};
use super::progress::{Cursor, Stop, state_key};
use super::replay::{GivenUp, Work};
use super::runtime::ProgressIn;
use super::stage::{Context, Outputs, Stage, StageError, State, Tick};
use super::task::{Input, Task, ended};
use crate::domain::records::{DeadLetter, Position};

mod sending;

use sending::given_up_letter;

/// Why a transaction did not commit.
enum Failure {
    /// The cause lies in the last batch.
    Blamed(GivenUp),
    /// The cause lies in one of the batches.
    Somewhere(GivenUp),
    /// The cause lies outside: the same again may work.
    Outside(String),
    /// A broadcast fact was missing after the state had been touched.
    Broadcast,
    /// The task cannot go on.
    Ended(Ended),
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        match error.class {
            ErrorClass::Retry | ErrorClass::AbortTransaction => Self::Outside(error.to_string()),
            ErrorClass::DeadLetter => {
                Self::Somewhere(GivenUp { reason: "OUTPUT_REFUSED", detail: error.source.to_string() })
            }
            ErrorClass::Fenced | ErrorClass::Fatal => Self::Ended(ended(&error)),
        }
    }
}

/// An open transaction.
struct Open {
    begun: Instant,
    /// What was owed is done in it: its outputs and state changes go together.
    settled: bool,
    works: Vec<Work>,
    bytes: usize,
    records_out: u64,
    bytes_out: u64,
    /// Bytes of state changes.
    logged: u64,
    dead_letters: u64,
    high_time: i64,
    marked: Option<Tick>,
}

impl<S: Stage> Task<'_, S> {
    /// Runs one transaction; false when there was nothing to do.
    pub(super) fn transaction(&mut self) -> Result<bool, Ended> {
        let first = self.next_work(true)?;
        // What is owed may rest on a fact that came while no record did.
        self.hear_broadcasts();
        let owes = self.stage.owes(&self.state).map_err(|e| Ended::Failed(e.to_string()))?;
        if first.is_none() && !owes && !self.mark_is_due() {
            return Ok(false);
        }
        self.shared.health.busy(&self.id);
        let mut open = Open {
            begun: Instant::now(),
            settled: owes,
            works: Vec::new(),
            bytes: 0,
            records_out: 0,
            bytes_out: 0,
            logged: 0,
            dead_letters: 0,
            high_time: self.marks.high_time,
            marked: None,
        };
        self.producer.begin().map_err(|e| ended(&e))?;
        let filled = self.fill(first, &mut open);
        let filled_at = Instant::now();
        match filled.and_then(|()| self.finish(&mut open)) {
            Ok(cursors) => self.committed(&open, cursors, filled_at)?,
            Err(failure) => self.roll_back(open.works, failure)?,
        }
        Ok(true)
    }

    fn fill(&mut self, first: Option<Work>, open: &mut Open) -> Result<(), Failure> {
        self.settle(open)?;
        let settings = &self.shared.settings;
        let mut next = first;
        while let Some(work) = next {
            let alone = work.alone;
            open.bytes += work.batch.bytes();
            if work.input == 0 {
                let newest = work.batch.iter().map(|m| m.timestamp).max().unwrap_or(0);
                open.high_time = open.high_time.max(newest);
            }
            let step = self.step(&work, open);
            open.works.push(work);
            step?;
            let full = open.begun.elapsed() >= settings.commit_interval || open.bytes >= settings.max_transaction_bytes;
            if alone || full || self.control.is_urgent() {
                break;
            }
            next = self.next_work(false).map_err(Failure::Ended)?;
        }
        Ok(())
    }

    /// Processes one batch and queues what comes out of it.
    fn step(&mut self, work: &Work, open: &mut Open) -> Result<(), Failure> {
        if let Some(given_up) = &work.given_up {
            let letters = work.batch.iter().map(|m| given_up_letter(&work.batch, m.offset, given_up)).collect();
            return self.send_dead_letters(letters, Some(&work.batch), open);
        }
        let wire = std::sync::Arc::clone(&self.shared.wire);
        let mut insist = self.insist_on_broadcast;
        loop {
            self.follow_broadcasts(insist, open)?;
            let mut out = Outputs::new(&wire);
            let context = Context {
                partition: self.id.partition,
                broadcast_is_current: insist || self.broadcasts.is_empty(),
                partitions: &self.partitions,
            };
            match self.stage.process(&context, &mut self.state, &work.batch, &mut out) {
                Ok(()) => {
                    let (records, letters) = out.into_parts();
                    self.send_outputs(&records, open)?;
                    return self.send_dead_letters(letters, Some(&work.batch), open);
                }
                Err(StageError::NeedsBroadcast) if !context.broadcast_is_current => {
                    if !S::State::STATELESS {
                        // Dropping what was settled while its outputs stay would do it twice.
                        if open.settled || !open.works.is_empty() {
                            return Err(Failure::Broadcast);
                        }
                        self.state.abort();
                    }
                    insist = true;
                }
                Err(error) => return Err(blamed(error)),
            }
        }
    }

    /// Lets the stage do what rests on committed state alone.
    fn settle(&mut self, open: &mut Open) -> Result<(), Failure> {
        let wire = std::sync::Arc::clone(&self.shared.wire);
        let mut out = Outputs::new(&wire);
        let context =
            Context { partition: self.id.partition, broadcast_is_current: false, partitions: &self.partitions };
        // No record is at hand that could be to blame.
        self.stage.settle(&context, &mut self.state, &mut out).map_err(|error| match blamed(error) {
            Failure::Blamed(cause) => Failure::Outside(cause.detail),
            failure => failure,
        })?;
        let (records, letters) = out.into_parts();
        open.settled |= !(records.is_empty() && letters.is_empty());
        self.send_outputs(&records, open)?;
        self.send_dead_letters(letters, None, open)
    }

    /// Lets the stage see the changes of its broadcast inputs; with `insist` up to their present ends.
    fn follow_broadcasts(&mut self, insist: bool, open: &mut Open) -> Result<(), Failure> {
        for (broadcast, _) in self.broadcasts.iter().filter(|_| insist) {
            let caught_up = broadcast.catch_up(self.shared.settings.catch_up_limit, &|| self.control.is_late());
            caught_up.map_err(|e| Failure::Outside(e.to_string()))?;
        }
        self.hear_broadcasts();
        let letters = std::mem::take(&mut self.unreadable_broadcasts);
        self.send_dead_letters(letters, None, open)
    }

    /// Lets the stage see what was read of its broadcast inputs since the last time; of unreadable records letters are written later.
    fn hear_broadcasts(&mut self) {
        for (broadcast, seen) in &mut self.broadcasts {
            for fact in broadcast.changes(seen) {
                let folded =
                    self.stage.broadcast(&broadcast.topic, &fact.key, fact.value.as_deref(), &self.shared.wire);
                let Err(error) = folded else { continue };
                tracing::warn!(task = %self.id, topic = %broadcast.topic, offset = fact.offset, %error, "unreadable broadcast record");
                // Every task sees the record; one of them reports it.
                if self.id.partition == 0 {
                    let value = fact.value.as_deref().unwrap_or_default();
                    self.unreadable_broadcasts.push(DeadLetter {
                        stage: self.plan.name.to_owned(),
                        position: Position {
                            topic: broadcast.topic.clone(),
                            partition: fact.partition,
                            offset: fact.offset,
                        },
                        reason: "BROADCAST".to_owned(),
                        detail: error.to_string(),
                        size: i64::try_from(value.len()).unwrap_or(i64::MAX),
                        digest: (self.shared.digest)(value),
                        // The broadcast topic keeps the record.
                        parts: 1,
                        ..DeadLetter::default()
                    });
                }
            }
        }
    }

    fn mark_is_due(&self) -> bool {
        if !S::MARKS || self.attachment.is_none() {
            return false;
        }
        let at_end = self.inputs.first().is_some_and(|i| i.at_end) && self.replay.is_empty();
        match self.marks.last.map(|last| last.elapsed()) {
            None => at_end || self.marks.advanced,
            Some(passed) if passed < self.mark_interval() => false,
            Some(passed) => {
                let long_idle = passed >= self.shared.settings.idle_mark_interval;
                self.marks.advanced || at_end && (!self.marks.told_at_end || long_idle)
            }
        }
    }

    fn mark(&mut self, open: &mut Open) -> Result<(), Failure> {
        self.marks.advanced |= open.works.iter().any(|w| w.input == 0);
        if !self.mark_is_due() {
            return Ok(());
        }
        let Some(lead) = self.inputs.first() else { return Ok(()) };
        let tick = Tick {
            source: self.id.partition,
            sources: lead.facts.partitions,
            high_time: open.high_time,
            at_end: lead.at_end && self.replay.is_empty(),
        };
        let wire = std::sync::Arc::clone(&self.shared.wire);
        let mut out = Outputs::new(&wire);
        let context =
            Context { partition: self.id.partition, broadcast_is_current: false, partitions: &self.partitions };
        // Nothing about a mark is a record's fault, and the same mark again would fail again.
        self.stage
            .mark(&context, &tick, &mut out)
            .map_err(|e| cannot_write(format!("time mark of {}", self.id), &e))?;
        let (records, letters) = out.into_parts();
        self.send_outputs(&records, open)?;
        self.send_dead_letters(letters, None, open)?;
        open.marked = Some(tick);
        Ok(())
    }

    /// Everything after the last batch; returns the cursors that the commit makes true.
    fn finish(&mut self, open: &mut Open) -> Result<Vec<Cursor>, Failure> {
        self.mark(open)?;
        self.log_state(open)?;
        let cursors = self.log_progress(open)?;
        crate::failpoint!("commit.before", self.id.stage);
        self.producer.delivered()?;
        crate::failpoint!("commit.after_produce", self.id.stage);
        let late = || self.control.is_late();
        if late() {
            return Err(Failure::Outside("the deadline of a drain has passed".to_owned()));
        }
        self.send_offsets(&cursors)?;
        crate::failpoint!("commit.after_offsets", self.id.stage);
        self.producer.commit(&late)?;
        crate::failpoint!("commit.after", self.id.stage);
        Ok(cursors)
    }

    fn log_state(&mut self, open: &mut Open) -> Result<(), Failure> {
        let ProgressIn::Changelog(topic) = &self.plan.progress else { return Ok(()) };
        let changes = self.state.changes();
        let limit = self.shared.settings.max_record_bytes;
        let topic = self.shared.cluster.topic(topic);
        for change in changes {
            let size = change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len);
            if size > limit {
                let detail = format!("a state change has {size} bytes, the limit is {limit}");
                return Err(Failure::Somewhere(GivenUp { reason: "STATE_TOO_LARGE", detail }));
            }
            self.send(&topic, self.id.partition, &state_key(&change.key), change.value.as_deref(), open)?;
            open.logged += size as u64;
        }
        Ok(())
    }

    fn log_progress(&self, open: &mut Open) -> Result<Vec<Cursor>, Failure> {
        let mut cursors: Vec<Cursor> = self.inputs.iter().map(|i| i.committed).collect();
        for work in &open.works {
            if let Some(cursor) = cursors.get_mut(work.input) {
                let holes = cursor.advance(work.interval);
                let holes = holes.map_err(|e| Failure::Ended(Ended::Failed(format!("{}: {e}", work.batch.topic()))))?;
                self.metrics.gaps.increment(holes);
            }
        }
        for (input, cursor) in self.inputs.iter().zip(&cursors) {
            if *cursor == input.committed {
                continue;
            }
            let progress = input.facts.progress(self.plan.name, cursor.next());
            let (topic, partition, key) = self.progress_place(&input.facts);
            let value = self.encode(&progress)?;
            self.send(&topic, partition, &key, Some(&value), open)?;
        }
        Ok(cursors)
    }

    /// The group's offsets serve lag tools, and the group's check that we still own the partitions.
    fn send_offsets(&self, cursors: &[Cursor]) -> Result<(), Failure> {
        let Some(attachment) = &self.attachment else {
            return Err(Failure::Outside("the inputs are gone".to_owned()));
        };
        let mut list = TopicPartitionList::with_capacity(self.inputs.len());
        for (input, cursor) in self.inputs.iter().zip(cursors) {
            if *cursor != input.committed {
                let next = Offset::Offset(cursor.next());
                let added = list.add_partition_offset(&input.facts.full, input.facts.partition, next);
                added.map_err(|e| Failure::Outside(e.to_string()))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let group = attachment.handle.consumer().group_metadata();
        let group = group.ok_or_else(|| Failure::Outside("not a member of the group".to_owned()))?;
        Ok(self.producer.send_offsets(&list, &group, &|| self.control.is_late())?)
    }

    fn committed(&mut self, open: &Open, cursors: Vec<Cursor>, filled_at: Instant) -> Result<(), Ended> {
        self.state.commit();
        for (input, cursor) in self.inputs.iter_mut().zip(cursors) {
            if input.committed != cursor {
                input.committed = cursor;
                let Input { facts, .. } = input;
                let (name, next) = (self.plan.name, cursor.next());
                self.progress.insert((facts.topic.clone(), facts.partition), facts.progress(name, next));
                self.shared.positions.note(self.plan.name, &facts.topic, facts.partition, cursor.next());
            }
        }
        self.marks.high_time = open.high_time;
        if let Some(tick) = open.marked {
            self.marks.last = Some(Instant::now());
            (self.marks.advanced, self.marks.told_at_end) = (false, tick.at_end);
        } else if open.works.iter().any(|w| w.input == 0) {
            self.marks.told_at_end = false;
        }
        (self.aborts_in_a_row, self.insist_on_broadcast) = (0, false);
        let metrics = &self.metrics;
        metrics.commit.record(filled_at.elapsed().as_secs_f64());
        metrics.transaction.record(open.begun.elapsed().as_secs_f64());
        metrics.commits.increment(1);
        metrics.records_in.increment(open.works.iter().map(|w| w.batch.len() as u64).sum());
        metrics.bytes_in.increment(open.bytes as u64);
        metrics.records_out.increment(open.records_out);
        metrics.bytes_out.increment(open.bytes_out);
        metrics.dead_letters.increment(open.dead_letters);
        metrics.state(self.state.size());
        self.shared.health.committed(&self.id);
        self.unsaved += open.logged;
        let wants_snapshot = self.wants_snapshot();
        if wants_snapshot || self.state.wants_checkpoint() {
            let now = self.now();
            self.state.checkpoint(&now).map_err(|e| Ended::Failed(e.to_string()))?;
        }
        if wants_snapshot {
            self.snapshot();
        }
        Ok(())
    }

    /// Undoes the transaction and keeps its batches for the next one.
    fn roll_back(&mut self, works: Vec<Work>, failure: Failure) -> Result<(), Ended> {
        self.state.abort();
        if let Failure::Ended(ended) = failure {
            match ended {
                Ended::Fenced => self.metrics.fenced.increment(1),
                // It may stay stopped for long: readers must not wait for its open transaction to time out.
                Ended::Stopped(_) => drop(self.producer.abort(&|| self.control.is_late())),
                Ended::Asked | Ended::Failed(_) => {}
            }
            return Err(ended);
        }
        self.producer.abort(&|| self.control.is_late()).map_err(|e| ended(&e))?;
        self.metrics.aborts.increment(1);
        self.aborts_in_a_row = self.aborts_in_a_row.saturating_add(1);
        match failure {
            Failure::Blamed(cause) => {
                tracing::warn!(task = %self.id, reason = cause.reason, detail = %cause.detail, "a batch cannot be processed");
                self.replay.failed(works, cause);
            }
            Failure::Somewhere(cause) => {
                tracing::warn!(task = %self.id, reason = cause.reason, detail = %cause.detail, "a transaction was refused");
                self.replay.failed_somewhere(works, &cause);
            }
            Failure::Broadcast => {
                self.insist_on_broadcast = true;
                self.replay.aborted(works);
            }
            Failure::Outside(cause) => {
                tracing::info!(task = %self.id, %cause, "transaction aborted, again");
                self.replay.aborted(works);
                let exponent = self.aborts_in_a_row.min(8);
                self.control.pause(Duration::from_millis(5 << exponent));
            }
            Failure::Ended(_) => {}
        }
        Ok(())
    }
}

/// What no retry mends: the stage stops by name instead of trying for ever.
fn cannot_write(what: String, cause: &dyn std::fmt::Display) -> Failure {
    let help = "a defect, or a schema registry without this version's schemas; start the stage again once it is mended";
    Failure::Ended(Ended::Stopped(Stop::CannotWrite { what: format!("{what}: {cause}"), help: help.to_owned() }))
}

/// What an error of a stage means for its transaction.
fn blamed(error: StageError) -> Failure {
    match error {
        // No record is to blame for a disk or an old file: the task starts anew, and waits between its tries.
        error @ (StageError::Disk(_) | StageError::Behind { .. }) => Failure::Ended(Ended::Failed(error.to_string())),
        StageError::Outside(cause) => Failure::Outside(cause),
        StageError::Halt { what, help } => Failure::Ended(Ended::Stopped(Stop::Halted { what, help })),
        error => Failure::Blamed(GivenUp { reason: "STAGE_FAILED", detail: error.to_string() }),
    }
}

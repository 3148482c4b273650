//! What a stage's thread and its tasks say to each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::consumer::{ConsumerHandle, Queue, Signal};
use super::health::TaskId;
use super::progress::Stop;
use crate::domain::records::Progress;

/// One input partition of a task, as it was described when it was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputFacts {
    /// Topic without prefix.
    pub topic: String,
    /// Topic with prefix.
    pub full: String,
    /// Partition number.
    pub partition: i32,
    /// Topic id, hex.
    pub topic_id: String,
    /// Partitions of the topic now.
    pub partitions: i32,
    /// Partitions that the topology declares, for topics that must not change.
    pub declared: Option<i32>,
}

impl InputFacts {
    /// The record of a stage's progress in this partition.
    pub fn progress(&self, stage: &str, next_offset: i64) -> Progress {
        Progress {
            stage: stage.to_owned(),
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            next_offset,
        }
    }
}

/// The right to read the task's inputs, until the next drain.
pub(crate) struct Attachment {
    pub handle: ConsumerHandle,
    /// In the order of the task's inputs.
    pub queues: Vec<Queue>,
    pub inputs: Vec<InputFacts>,
}

/// What a stage's thread tells a task.
pub(crate) enum Command {
    /// Read these.
    Attach(Attachment),
    /// Finish the open transaction, let the inputs go, keep state and producer.
    Drain,
    /// End.
    Stop,
}

/// Why a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    Asked,
    /// A successor has taken its place.
    Fenced,
    /// A named outcome: somebody has to act.
    Stopped(Stop),
    /// It starts anew from what is committed.
    Failed(String),
}

/// What a task tells its stage's thread.
#[derive(Debug)]
pub(crate) struct Report {
    pub task: TaskId,
    /// Tells reports of a task from those of an earlier one of the same id.
    pub incarnation: u64,
    pub kind: ReportKind,
}

#[derive(Debug)]
pub(crate) enum ReportKind {
    Drained,
    Ended(Ended),
}

/// The stage's end of a task.
#[derive(Default)]
pub(crate) struct Control {
    pub signal: Arc<Signal>,
    commands: Mutex<VecDeque<Command>>,
    /// A drain or stop waits: do not begin anything long.
    urgent: AtomicBool,
    /// After this the task must have let go.
    deadline: Mutex<Option<Instant>>,
}

impl Control {
    /// Gives a command; `deadline` for those that end the task's right to its inputs.
    pub fn tell(&self, command: Command, deadline: Option<Instant>) {
        let lets_go = !matches!(command, Command::Attach(_));
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        self.urgent.store(lets_go, Ordering::Release);
        self.signal.raise();
    }

    /// The oldest command.
    pub fn take(&self) -> Option<Command> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// A drain or stop waits.
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire)
    }

    /// The deadline of a drain or stop has passed: nothing may be committed any more.
    pub fn is_late(&self) -> bool {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|d| Instant::now() > d)
    }

    /// Sleeps, but not through a drain or stop.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_urgent() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Records raise the signal too: the loop goes on waiting.
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }
}

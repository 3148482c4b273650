//! The tasks of one stage in one process, and the life of an assignment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::control::{Attachment, Command, Control, Ended, InputFacts, Report, ReportKind};
use super::health::{Health, TaskId, TaskState};
use super::progress::Stop;

/// Starts the thread of a task.
pub(crate) type Spawn = dyn Fn(&TaskId, u64, Arc<Control>, Sender<Report>) -> std::io::Result<JoinHandle<()>> + Send;

/// What a task of an assignment reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub task: TaskId,
    pub inputs: Vec<InputFacts>,
}

/// A task and what is known of it.
struct Slot {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
    incarnation: u64,
    inputs: Vec<InputFacts>,
    state: SlotState,
    restarts: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum SlotState {
    /// It has its inputs.
    Attached,
    /// It was told to let its inputs go.
    Draining,
    /// It has let them go and keeps state and producer.
    Parked,
    /// It ended and is started again then.
    Retrying(Instant),
    /// It stays ended until somebody acts.
    Stopped,
}

/// Makes the attachment of a task: its partitions' queues.
pub(crate) type Attach<'a> = &'a dyn Fn(&[InputFacts]) -> Result<Attachment, String>;

/// The tasks of one stage in one process.
pub(crate) struct Tasks {
    slots: BTreeMap<TaskId, Slot>,
    spawn: Box<Spawn>,
    health: Health,
    reports: (Sender<Report>, Receiver<Report>),
    incarnations: u64,
}

/// Longest pause before a failed task is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

fn pause_after(restarts: u32) -> Duration {
    Duration::from_millis(100 << restarts.min(7)).min(LONGEST_PAUSE)
}

impl Tasks {
    pub fn new(spawn: Box<Spawn>, health: Health) -> Self {
        Self { slots: BTreeMap::new(), spawn, health, reports: std::sync::mpsc::channel(), incarnations: 0 }
    }

    /// Gives a task its inputs: the parked one when it is of the same partitions, else a new one.
    fn attach(&mut self, wanted: &Wanted, attach: Attach<'_>) -> Result<(), String> {
        let attachment = attach(&wanted.inputs)?;
        let parked = self.slots.get_mut(&wanted.task).filter(|slot| slot.state == SlotState::Parked);
        if let Some(slot) = parked {
            slot.inputs.clone_from(&wanted.inputs);
            slot.state = SlotState::Attached;
            slot.control.tell(Command::Attach(attachment), None);
            return Ok(());
        }
        self.incarnations += 1;
        let restarts = self.slots.get(&wanted.task).map_or(0, |slot| slot.restarts);
        let control = Arc::new(Control::default());
        let spawned = (self.spawn)(&wanted.task, self.incarnations, Arc::clone(&control), self.reports.0.clone());
        let thread = spawned.map_err(|e| format!("no thread for the task {}: {e}", wanted.task))?;
        // Said here and not by the thread: a stage that is a member must not look ready before its tasks have begun.
        self.health.set(&wanted.task, TaskState::Restoring);
        control.tell(Command::Attach(attachment), None);
        let slot = Slot {
            control,
            thread: Some(thread),
            incarnation: self.incarnations,
            inputs: wanted.inputs.clone(),
            state: SlotState::Attached,
            restarts,
        };
        self.slots.insert(wanted.task.clone(), slot);
        Ok(())
    }

    /// Reads what the tasks reported, waiting for the first report up to `timeout`; returns a stop of the whole stage.
    pub fn hear(&mut self, timeout: Duration) -> Option<Stop> {
        let mut next = self.reports.1.recv_timeout(timeout).ok();
        let mut stage_stop = None;
        while let Some(report) = next {
            stage_stop = self.note(report).or(stage_stop);
            next = self.reports.1.try_recv().ok();
        }
        stage_stop
    }

    fn note(&mut self, Report { task, incarnation, kind }: Report) -> Option<Stop> {
        let slot = self.slots.get_mut(&task).filter(|slot| slot.incarnation == incarnation)?;
        match kind {
            ReportKind::Drained => slot.state = SlotState::Parked,
            ReportKind::Ended(Ended::Asked) => {
                self.slots.remove(&task);
                self.health.gone(&task);
            }
            ReportKind::Ended(Ended::Stopped(stop)) => {
                tracing::error!(%task, outcome = stop.name(), "{stop}");
                slot.state = SlotState::Stopped;
                self.health.set(&task, TaskState::Stopped(stop.clone()));
                return stop.whole_stage().then_some(stop);
            }
            ReportKind::Ended(end @ (Ended::Fenced | Ended::Failed(_))) => {
                let cause = match end {
                    Ended::Failed(cause) => cause,
                    _ => "another process has taken the task over".to_owned(),
                };
                let pause = pause_after(slot.restarts);
                slot.restarts = slot.restarts.saturating_add(1);
                slot.state = SlotState::Retrying(Instant::now() + pause);
                tracing::warn!(%task, %cause, pause_ms = pause.as_millis(), "task ended and is started again");
                self.health.set(&task, TaskState::Retrying { cause });
            }
        }
        None
    }

    /// Starts failed tasks whose pause is over.
    pub fn restart(&mut self, attach: Attach<'_>) {
        let now = Instant::now();
        let due = |slot: &Slot| matches!(slot.state, SlotState::Retrying(at) if at <= now);
        let wanted: Vec<Wanted> = self
            .slots
            .iter()
            .filter(|(_, slot)| due(slot))
            .map(|(task, slot)| Wanted { task: task.clone(), inputs: slot.inputs.clone() })
            .collect();
        for wanted in wanted {
            if let Err(cause) = self.attach(&wanted, attach) {
                tracing::warn!(task = %wanted.task, %cause, "task cannot be started yet");
                if let Some(slot) = self.slots.get_mut(&wanted.task) {
                    slot.state = SlotState::Retrying(now + LONGEST_PAUSE);
                }
            }
        }
        // A task that ran for a while has recovered.
        let recovered = |id: &TaskId| self.health.has_committed_lately(id);
        for (id, slot) in &mut self.slots {
            if slot.state == SlotState::Attached && slot.restarts > 0 && recovered(id) {
                slot.restarts = 0;
            }
        }
    }

    fn tell_all(&mut self, command: fn() -> Command, deadline: Instant, which: fn(&SlotState) -> bool) {
        for slot in self.slots.values_mut().filter(|slot| which(&slot.state)) {
            slot.state = SlotState::Draining;
            slot.control.tell(command(), Some(deadline));
        }
    }

    /// Waits until no task is draining; those that are late are left behind: a successor fences them.
    fn wait_for_drain(&mut self, deadline: Instant) {
        let draining = |tasks: &Self| tasks.slots.values().any(|slot| slot.state == SlotState::Draining);
        while draining(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.hear(left);
        }
        let late = |slot: &Slot| slot.state == SlotState::Draining;
        let left_behind: Vec<TaskId> =
            self.slots.iter().filter(|(_, slot)| late(slot)).map(|(task, _)| task.clone()).collect();
        for task in left_behind {
            tracing::error!(%task, "task did not let go in time and is left behind");
            if let Some(mut slot) = self.slots.remove(&task) {
                slot.control.tell(Command::Stop, Some(Instant::now()));
                drop(slot.thread.take());
            }
            self.health.gone(&task);
        }
    }

    /// Ends tasks and forgets them.
    fn end(&mut self, which: impl Fn(&TaskId) -> bool) {
        let ids: Vec<TaskId> = self.slots.keys().filter(|id| which(id)).cloned().collect();
        for id in ids {
            if let Some(mut slot) = self.slots.remove(&id) {
                slot.control.tell(Command::Stop, Some(Instant::now()));
                if let Some(thread) = slot.thread.take()
                    && thread.join().is_err()
                {
                    tracing::error!(task = %id, "the task's thread ended with a panic");
                }
                self.health.gone(&id);
            }
        }
    }
}

/// The member owns nothing; tasks of the last assignment may be parked.
pub(crate) struct Complete;
/// The member owns partitions and its tasks read them.
pub(crate) struct Consuming;
/// The partitions were revoked and the tasks finish.
pub(crate) struct Draining {
    deadline: Instant,
}

/// An assignment's life, as a typestate: what is not allowed does not compile.
///
/// ```text
///              assigned                          revoked                         every task let go,
///  Complete ─────────────► Consuming ──────────────────────────► Draining ─── or the deadline passed ───► Complete
///     │   parked tasks of the same partitions      each task ends its transaction:
///     │   go on, others end, new ones start        commits it or aborts it, keeps
///     │                                            state and producer, and parks
///     └─► ended: every task ends
/// ```
///
/// There is ONE deadline. It is set when the partitions are revoked, far below `max.poll.interval.ms`, and covers the
/// commit or abort, the waiting and the giving back. A task that misses it is left behind: it checks the deadline
/// before every step of a commit, its group generation is over, and its successor fences its producer, so it can commit
/// nothing any more. The group is never kept waiting for a slow task.
pub(crate) struct Assignment<S> {
    pub tasks: Tasks,
    state: S,
}

impl Assignment<Complete> {
    pub fn new(tasks: Tasks) -> Self {
        Self { tasks, state: Complete }
    }

    /// New partitions: parked tasks of the same partitions go on, other parked tasks end, new tasks start.
    pub fn assigned(mut self, wanted: &[Wanted], attach: Attach<'_>) -> Result<Assignment<Consuming>, (Self, String)> {
        self.tasks.end(|id| !wanted.iter().any(|w| w.task == *id));
        for wanted in wanted {
            if let Err(cause) = self.tasks.attach(wanted, attach) {
                return Err((self, cause));
            }
        }
        Ok(Assignment { tasks: self.tasks, state: Consuming })
    }

    /// Ends every task.
    pub fn end(mut self) -> Tasks {
        self.tasks.end(|_| true);
        self.tasks
    }
}

impl Assignment<Consuming> {
    /// The partitions are revoked: every task lets go before the deadline.
    pub fn revoked(mut self, limit: Duration) -> Assignment<Draining> {
        let deadline = Instant::now() + limit;
        self.tasks.tell_all(|| Command::Drain, deadline, |state| *state == SlotState::Attached);
        Assignment { tasks: self.tasks, state: Draining { deadline } }
    }
}

impl Assignment<Draining> {
    /// Waits for the tasks, at most until the deadline.
    pub fn drained(mut self) -> Assignment<Complete> {
        let Draining { deadline } = self.state;
        self.tasks.wait_for_drain(deadline);
        // Failed and stopped tasks have no state worth keeping.
        let parked: Vec<TaskId> = self
            .tasks
            .slots
            .iter()
            .filter(|(_, slot)| slot.state == SlotState::Parked)
            .map(|(id, _)| id.clone())
            .collect();
        self.tasks.end(|id| !parked.contains(id));
        Assignment { tasks: self.tasks, state: Complete }
    }
}

/// Where the stage is in an assignment's life, between two events.
pub(crate) enum Phase {
    Complete(Assignment<Complete>),
    Consuming(Assignment<Consuming>),
}

impl Phase {
    pub fn tasks(&mut self) -> &mut Tasks {
        match self {
            Self::Complete(assignment) => &mut assignment.tasks,
            Self::Consuming(assignment) => &mut assignment.tasks,
        }
    }

    /// Lets go of everything that is owned.
    pub fn release(self, limit: Duration) -> Assignment<Complete> {
        match self {
            Self::Complete(assignment) => assignment,
            Self::Consuming(assignment) => assignment.revoked(limit).drained(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::{Cluster, FetchBounds};
    use crate::stream::consumer::GroupConsumer;
    use crate::stream::health::StageState;

    #[test]
    fn a_member_is_not_ready_while_the_thread_of_its_task_has_not_begun() {
        let health = Health::default();
        let sleeping: Box<Spawn> = Box::new(|_, _, _, _| std::thread::Builder::new().spawn(|| {}));
        let nowhere = Cluster::new("127.0.0.1:1", "");
        let consumer = GroupConsumer::join(&nowhere, "toy", &["in".to_owned()], None, &FetchBounds::default());
        let consumer = consumer.unwrap();
        let attach = |inputs: &[InputFacts]| {
            Ok(Attachment { handle: consumer.handle(), queues: Vec::new(), inputs: inputs.to_vec() })
        };
        let wanted = Wanted { task: TaskId { stage: "toy", topic: None, partition: 0 }, inputs: Vec::new() };
        let idle = Assignment::new(Tasks::new(sleeping, health.clone()));
        let consuming = idle.assigned(std::slice::from_ref(&wanted), &attach);
        health.stage("toy", StageState::Member);
        assert!(consuming.is_ok() && !health.is_ready());
        health.set(&wanted.task, TaskState::Running);
        assert!(health.is_ready());
    }
}

//! What `/health` and `/ready` read: the state of every task of the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::progress::Stop;

/// Which task: a stage on one partition number, or on one partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Stage.
    pub stage: &'static str,
    /// Topic without prefix, for stages whose tasks read one topic each.
    pub topic: Option<String>,
    /// Partition number.
    pub partition: i32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "{}-{topic}-{}", self.stage, self.partition),
            None => write!(f, "{}-{}", self.stage, self.partition),
        }
    }
}

/// Where a task is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Fences its predecessor, reads its changelog and decides where to start.
    Restoring,
    /// Processes records, or waits for some.
    Running,
    /// Its partition was revoked; it waits for the next assignment.
    Parked,
    /// It failed and is started again after a pause.
    Retrying {
        /// Why.
        cause: String,
    },
    /// It does not run until somebody acts: a named outcome.
    Stopped(Stop),
}

/// Status of one task at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// Where it is in its life.
    pub state: TaskState,
    /// Since when it has had work without committing any; `None` while it is idle.
    pub busy_for: Option<Duration>,
    /// Since its last commit; `None` before the first.
    pub since_commit: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    state: TaskState,
    since: Instant,
    busy_since: Option<Instant>,
    committed: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: BTreeMap<TaskId, Entry>,
    /// Stages without a task yet or that cannot run at all.
    stages: BTreeMap<&'static str, StageState>,
}

/// What a stage as a whole is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageState {
    /// It has not been given partitions yet.
    Joining,
    /// It is a member of its group; it may have no partition when there are more workers than partitions.
    Member,
    /// It cannot work for now and tries again.
    Retrying {
        /// Why.
        cause: String,
    },
    /// It does not run until somebody acts.
    Stopped(Stop),
    /// It ended with the process.
    Ended,
}

/// A task that neither commits nor is idle for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Handle on the state of all tasks of a process.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stage(&self, stage: &'static str, state: StageState) {
        self.lock().stages.insert(stage, state);
    }

    pub(crate) fn set(&self, task: &TaskId, state: TaskState) {
        let mut inner = self.lock();
        let now = Instant::now();
        let committed = inner.tasks.get(task).and_then(|e| e.committed);
        inner.tasks.insert(task.clone(), Entry { state, since: now, busy_since: None, committed });
        let stopped = inner.tasks.values().filter(|e| matches!(e.state, TaskState::Stopped(_))).count();
        drop(inner);
        metrics::gauge!(super::metrics::STOPPED).set(f64::from(u32::try_from(stopped).unwrap_or(u32::MAX)));
    }

    pub(crate) fn busy(&self, task: &TaskId) {
        if let Some(entry) = self.lock().tasks.get_mut(task) {
            entry.busy_since.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn committed(&self, task: &TaskId) {
        if let Some(entry) = self.lock().tasks.get_mut(task) {
            (entry.busy_since, entry.committed) = (None, Some(Instant::now()));
        }
    }

    /// The task has committed since it was set to its present state, at least ten seconds ago.
    pub(crate) fn has_committed_lately(&self, task: &TaskId) -> bool {
        self.lock().tasks.get(task).is_some_and(|entry| {
            entry.since.elapsed() > Duration::from_secs(10) && entry.committed.is_some_and(|at| at > entry.since)
        })
    }

    pub(crate) fn gone(&self, task: &TaskId) {
        self.lock().tasks.remove(task);
    }

    /// Status of every task that this process owns.
    #[must_use]
    pub fn tasks(&self) -> BTreeMap<TaskId, TaskStatus> {
        let status = |entry: &Entry| TaskStatus {
            state: entry.state.clone(),
            busy_for: entry.busy_since.map(|t| t.elapsed()),
            since_commit: entry.committed.map(|t| t.elapsed()),
        };
        self.lock().tasks.iter().map(|(id, entry)| (id.clone(), status(entry))).collect()
    }

    /// State of every stage of this process.
    #[must_use]
    pub fn stages(&self) -> BTreeMap<&'static str, StageState> {
        self.lock().stages.clone()
    }

    /// Every stage is a member of its group and none of its tasks is still restoring.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = self.lock();
        !inner.stages.is_empty()
            && inner.stages.values().all(|s| *s == StageState::Member)
            && inner.tasks.values().all(|e| e.state == TaskState::Running)
    }

    /// What is wrong, one line each; empty when healthy. A task that retries or restores is not wrong by itself,
    /// only when it does so for longer than [`STUCK_AFTER`].
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let inner = self.lock();
        let mut problems = Vec::new();
        for (stage, state) in &inner.stages {
            match state {
                StageState::Stopped(stop) => problems.push(format!("{stage}: {stop}")),
                StageState::Retrying { cause } => problems.push(format!("{stage}: {cause}")),
                StageState::Joining | StageState::Member | StageState::Ended => {}
            }
        }
        for (id, entry) in &inner.tasks {
            let stuck = entry.busy_since.is_some_and(|t| t.elapsed() > STUCK_AFTER);
            match &entry.state {
                TaskState::Stopped(stop) => problems.push(format!("{id}: {stop}")),
                TaskState::Retrying { cause } if entry.since.elapsed() > STUCK_AFTER => {
                    problems.push(format!("{id}: retrying: {cause}"));
                }
                TaskState::Running if stuck => {
                    problems.push(format!("{id}: STUCK: no commit for {} s", STUCK_AFTER.as_secs()));
                }
                _ => {}
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(partition: i32) -> TaskId {
        TaskId { stage: "toy", topic: None, partition }
    }

    #[test]
    fn a_process_is_ready_when_all_stages_are_members_and_no_task_restores() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.stage("toy", StageState::Joining);
        assert!(!health.is_ready());
        health.stage("toy", StageState::Member);
        health.set(&task(0), TaskState::Restoring);
        assert!(!health.is_ready());
        health.set(&task(0), TaskState::Running);
        assert!(health.is_ready() && health.problems().is_empty());
    }

    #[test]
    fn a_stopped_task_is_named_with_its_way_out_until_it_is_gone() {
        let health = Health::default();
        health.stage("toy", StageState::Member);
        let stop = Stop::OffsetExpired { topic: "in".into(), partition: 3, next: 1, log_start: 5, lost: 4 };
        health.set(&task(3), TaskState::Stopped(stop));
        let problems = health.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("toy-3: OFFSET_EXPIRED: in-3") && problems[0].contains("help:"), "{problems:?}");
        health.gone(&task(3));
        assert!(health.problems().is_empty());
    }
}

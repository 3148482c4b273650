//! One stage in one process: joins the group, follows its rebalances, keeps the tasks running, watches the topics.
//!
//! Nothing here is on the path of a record: tasks read their partitions' queues themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::client::{Description, End};
use super::consumer::{GroupConsumer, GroupEvent};
use super::control::{Attachment, InputFacts};
use super::health::{StageState, TaskId};
use super::progress::Stop;
use super::runtime::{Shared, StagePlan};
use super::tasks::{Assignment, Phase, Spawn, Tasks, Wanted};

/// How long one service of the group takes; bounds the reaction to a shutdown.
const SERVE: Duration = Duration::from_millis(250);

/// Why a membership of the group ended.
enum Left {
    Shutdown,
    Stopped(Stop),
    Failed(String),
}

impl Left {
    /// What the stage is from then on.
    fn state(&self) -> StageState {
        match self {
            Self::Shutdown => StageState::Ended,
            Self::Stopped(stop) => StageState::Stopped(stop.clone()),
            Self::Failed(cause) => StageState::Retrying { cause: cause.clone() },
        }
    }
}

pub(crate) struct Supervisor {
    pub shared: Arc<Shared>,
    pub plan: Arc<StagePlan>,
    pub spawn: Box<dyn Fn() -> Box<Spawn> + Send>,
    pub shutdown: Arc<AtomicBool>,
}

impl Supervisor {
    /// Runs the stage until shutdown; blocks.
    pub fn run(&self) {
        let (stage, health) = (self.plan.name, &self.shared.health);
        let mut pause = Duration::from_millis(100);
        while !self.is_over() {
            health.stage(stage, StageState::Joining);
            let joined = Instant::now();
            let left = self.membership();
            health.stage(stage, left.state());
            match left {
                Left::Shutdown => break,
                Left::Stopped(stop) => {
                    tracing::error!(stage, outcome = stop.name(), "stage stopped: {stop}");
                    while !self.is_over() {
                        std::thread::sleep(SERVE);
                    }
                }
                Left::Failed(cause) => {
                    if joined.elapsed() > Duration::from_secs(60) {
                        pause = Duration::from_millis(100);
                    }
                    tracing::warn!(stage, %cause, pause_ms = pause.as_millis(), "stage left its group and joins again");
                    self.sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
        health.stage(stage, StageState::Ended);
    }

    fn is_over(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One membership: from joining the group to leaving it.
    fn membership(&self) -> Left {
        let described = match self.examine() {
            Ok(described) => described,
            Err(left) => return left,
        };
        let settings = &self.shared.settings;
        let full: Vec<String> = self.plan.keyed.iter().map(|input| self.shared.cluster.topic(&input.topic)).collect();
        let instance = settings.instance.as_deref();
        let joined = GroupConsumer::join(&self.shared.cluster, self.plan.name, &full, instance, &settings.fetch);
        let consumer = match joined {
            Ok(consumer) => consumer,
            Err(error) => return Left::Failed(error.to_string()),
        };
        let tasks = Tasks::new((self.spawn)(), self.shared.health.clone());
        let mut phase = Phase::Complete(Assignment::new(tasks));
        let left = self.follow(&consumer, &mut phase, described);
        // Said before the tasks end: a member without tasks would look ready, and leaving takes its time.
        self.shared.health.stage(self.plan.name, left.state());
        // Shutdown, failure and stop take the same way out as a rebalance: drain, commit or abort, let go.
        phase.release(settings.drain_limit).end();
        if let Err(error) = consumer.let_go() {
            tracing::debug!(%error, "unassign on leaving");
        }
        left
    }

    /// Looks at the stage's topics before any record is read.
    fn examine(&self) -> Result<Vec<Description>, Left> {
        let names: Vec<&str> = self.plan.topics().collect();
        let described = self.shared.admin.describe(&names).map_err(|e| Left::Failed(e.to_string()))?;
        for (name, description) in names.iter().zip(&described) {
            if description.id.is_none() {
                return Err(Left::Failed(self.shared.admin.no_topic(name).to_string()));
            }
            let declared = self.plan.declared(name);
            if let Some(declared) = declared.filter(|d| *d != description.partitions) {
                let (topic, found) = ((*name).to_owned(), description.partitions);
                return Err(Left::Stopped(Stop::PartitionsChanged { topic, found, declared }));
            }
            self.shared.note_partitions(name, description.partitions);
        }
        Ok(described)
    }

    /// Acts on what the group and the tasks say until the membership ends.
    fn follow(&self, consumer: &GroupConsumer, phase: &mut Phase, mut described: Vec<Description>) -> Left {
        let settings = &self.shared.settings;
        let mut examined = Instant::now();
        while !self.is_over() {
            match consumer.serve(SERVE) {
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Left::Failed(error.to_string()),
                Err(error) => tracing::debug!(stage = self.plan.name, %error, "the group goes on"),
                Ok(()) => {}
            }
            while let Some(event) = consumer.event() {
                if let Err(left) = self.act(consumer, phase, event, &mut described) {
                    return left;
                }
                examined = Instant::now();
            }
            if let Some(stop) = phase.tasks().hear(Duration::ZERO) {
                return Left::Stopped(stop);
            }
            if let Phase::Consuming(assignment) = phase {
                assignment.tasks.restart(&|inputs| attachment(consumer, inputs));
            }
            if examined.elapsed() >= settings.check_interval {
                examined = Instant::now();
                match self.examine() {
                    Ok(now) => {
                        if let Some(stop) = recreated(&described, &now, &self.shared) {
                            return Left::Stopped(stop);
                        }
                    }
                    Err(Left::Failed(cause)) => tracing::debug!(stage = self.plan.name, %cause, "topics not examined"),
                    Err(left) => return left,
                }
            }
        }
        Left::Shutdown
    }

    fn act(
        &self,
        consumer: &GroupConsumer,
        phase: &mut Phase,
        event: GroupEvent,
        described: &mut Vec<Description>,
    ) -> Result<(), Left> {
        let settings = &self.shared.settings;
        let empty = || Phase::Complete(Assignment::new(Tasks::new((self.spawn)(), self.shared.health.clone())));
        let failed = |error: KafkaError| Left::Failed(error.to_string());
        match event {
            GroupEvent::Revoked => {
                tracing::debug!(stage = self.plan.name, "partitions revoked");
                let complete = std::mem::replace(phase, empty()).release(settings.drain_limit);
                *phase = Phase::Complete(complete);
                consumer.let_go().map_err(failed)
            }
            GroupEvent::Assigned(partitions) => {
                let now = self.examine()?;
                if let Some(stop) = recreated(described, &now, &self.shared) {
                    return Err(Left::Stopped(stop));
                }
                *described = now;
                let wanted = self.wanted(&partitions, described)?;
                tracing::info!(stage = self.plan.name, tasks = wanted.len(), "partitions assigned");
                let complete = std::mem::replace(phase, empty()).release(settings.drain_limit);
                let places: Vec<(String, i32)> =
                    partitions.iter().map(|(full, p)| (self.shared.cluster.plain(full).to_owned(), *p)).collect();
                let starts = self.shared.admin.offsets(&places, End::Start);
                let starts = starts.map_err(|e| Left::Failed(e.to_string()))?;
                consumer.take(&partitions, &starts).map_err(failed)?;
                match complete.assigned(&wanted, &|inputs| attachment(consumer, inputs)) {
                    Ok(consuming) => *phase = Phase::Consuming(consuming),
                    Err((complete, cause)) => {
                        *phase = Phase::Complete(complete);
                        return Err(Left::Failed(cause));
                    }
                }
                self.shared.health.stage(self.plan.name, StageState::Member);
                Ok(())
            }
        }
    }

    /// The tasks of an assignment: one per partition number with that partition of every input, or one per partition.
    fn wanted(&self, partitions: &[(String, i32)], described: &[Description]) -> Result<Vec<Wanted>, Left> {
        let facts = |topic: &str, partition: i32| {
            let full = self.shared.cluster.topic(topic);
            let description = described.iter().find(|d| d.name == full);
            InputFacts {
                topic: topic.to_owned(),
                partition,
                topic_id: description.and_then(|d| d.id.clone()).unwrap_or_default(),
                partitions: description.map_or(0, |d| d.partitions),
                declared: self.plan.declared(topic),
                full,
            }
        };
        let stage = self.plan.name;
        let plain = |full: &str| self.shared.cluster.plain(full).to_owned();
        if self.plan.task_per_topic {
            let task = |(full, partition): &(String, i32)| {
                let topic = plain(full);
                let inputs = vec![facts(&topic, *partition)];
                Wanted { task: TaskId { stage, topic: Some(topic), partition: *partition }, inputs }
            };
            return Ok(partitions.iter().map(task).collect());
        }
        let mut numbers: Vec<i32> = partitions.iter().map(|(_, partition)| *partition).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut wanted = Vec::with_capacity(numbers.len());
        for partition in numbers {
            let owned = |topic: &str| partitions.iter().any(|(full, p)| *p == partition && plain(full) == topic);
            if let Some(missing) = self.plan.keyed.iter().find(|input| !owned(&input.topic)) {
                let what = format!("{stage} was given partition {partition} without that of {}", missing.topic);
                let help = "do all members of the group run the same version and topology?".to_owned();
                return Err(Left::Stopped(Stop::Misconfigured { what, help }));
            }
            let inputs = self.plan.keyed.iter().map(|input| facts(&input.topic, partition)).collect();
            wanted.push(Wanted { task: TaskId { stage, topic: None, partition }, inputs });
        }
        Ok(wanted)
    }
}

fn attachment(consumer: &GroupConsumer, inputs: &[InputFacts]) -> Result<Attachment, String> {
    let places: Vec<(&str, i32)> = inputs.iter().map(|i| (i.full.as_str(), i.partition)).collect();
    let queues = consumer.queues(&places).map_err(|e| e.to_string())?;
    Ok(Attachment { handle: consumer.handle(), queues, inputs: inputs.to_vec() })
}

/// A topic that has another id than before was deleted and made anew.
fn recreated(before: &[Description], now: &[Description], shared: &Shared) -> Option<Stop> {
    before.iter().zip(now).find_map(|(was, is)| {
        let (old, new) = (was.id.clone()?, is.id.clone()?);
        let topic = shared.cluster.plain(&is.name).to_owned();
        (old != new).then_some(Stop::TopicRecreated { topic, was: old, now: new })
    })
}

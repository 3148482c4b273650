//! Runs stages on a Kafka cluster: configuration, wiring, start and end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::broadcast::Broadcast;
use super::client::{Admin, ClientError, Cluster, FetchBounds, TransactionTimes};
use super::control::{Ended, Report, ReportKind};
use super::health::{Health, StageState};
use super::partitioner::partition_of;
use super::purge::{Kept, Positions, Purger};
use super::retention::Watch;
use super::snapshot::{SnapshotSettings, Snapshots};
use super::stage::{Stage, State};
use super::supervisor::Supervisor;
use super::task;
use super::tasks::Spawn;
use crate::codec::wire::Wire;
use crate::domain::records::DeadLetter;
use crate::domain::topics;
use crate::topology::{StageSpec, Topology};

/// Keyed digest of a record that is put aside.
pub type Digest = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// Completes a dead letter with its record (key and value), sealed: one letter, or several when the record is large.
pub type Aside = Arc<dyn Fn(DeadLetter, Option<&[u8]>, Option<&[u8]>) -> Vec<DeadLetter> + Send + Sync>;

/// Times and limits of the runtime.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Under load a transaction commits at the latest after this; an idle one commits at once.
    pub commit_interval: Duration,
    /// Records of one batch.
    pub max_batch_records: usize,
    /// Bytes of one batch; one record may exceed it.
    pub max_batch_bytes: usize,
    /// Input bytes of one transaction: they are kept in memory until it commits.
    pub max_transaction_bytes: usize,
    /// Bytes of one output record, key and value; a larger one makes its input record a dead letter.
    pub max_record_bytes: usize,
    /// Time marks while something advances, unless the topology says otherwise for the stage.
    pub mark_interval: Duration,
    /// Time marks while idle.
    pub idle_mark_interval: Duration,
    /// How long a revoked partition may take to be drained; far below `max.poll.interval.ms`.
    pub drain_limit: Duration,
    /// How often the topics' ids and partition counts are looked at.
    pub check_interval: Duration,
    /// How often topics are purged behind their readers.
    pub purge_interval: Duration,
    /// How long a task waits for a broadcast topic to be read to its end.
    pub catch_up_limit: Duration,
    /// Transaction timeout.
    pub transaction: TransactionTimes,
    /// Prefetch of each assigned partition.
    pub fetch: FetchBounds,
    /// Static membership: with a name that stays the same over restarts, a restart does not wait for the session of the
    /// killed process to expire. Two processes must not share it.
    pub instance: Option<String>,
    /// Folder of this machine where tasks keep committed state; without one it is in memory only, and every start reads
    /// the whole changelog.
    pub state_folder: Option<PathBuf>,
    /// Bytes of memory that a task takes for state that is not on disk yet, and for caches.
    pub state_memory: usize,
    /// State of a partition that has moved away is removed from this machine when nothing was written to it for so long.
    pub idle_state_kept: Duration,
    /// Snapshots of state in the shared store; without one a machine that is new to a partition reads its changelog.
    pub snapshots: Option<SnapshotSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            max_batch_records: 10_000,
            max_batch_bytes: 4 << 20,
            max_transaction_bytes: 16 << 20,
            max_record_bytes: 1_000_000,
            mark_interval: Duration::from_secs(1),
            idle_mark_interval: Duration::from_secs(30),
            drain_limit: Duration::from_secs(10),
            check_interval: Duration::from_secs(5),
            purge_interval: Duration::from_secs(60),
            catch_up_limit: Duration::from_secs(30),
            transaction: TransactionTimes::default(),
            fetch: FetchBounds::default(),
            instance: None,
            state_folder: None,
            state_memory: 16 << 20,
            idle_state_kept: Duration::from_secs(7 * 24 * 3600),
            snapshots: None,
        }
    }
}

/// What the runtime needs.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// Where.
    pub cluster: Cluster,
    /// What flows where.
    pub topology: Arc<Topology>,
    /// Record encoding.
    pub wire: Arc<Wire>,
    /// Keyed digest for dead letters.
    pub digest: Digest,
    /// What keeps the records of dead letters.
    pub aside: Aside,
    /// How far readers outside of the runtime are, by stage: what they have not kept is not purged.
    pub kept: BTreeMap<String, Kept>,
    /// Times and limits.
    pub settings: Settings,
}

impl fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeConfig").field("cluster", &self.cluster.brokers).finish_non_exhaustive()
    }
}

/// Why the runtime could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The cluster cannot be used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A stage does not fit the topology.
    #[error("the stage {stage} cannot run: {what}; help: compare it with `hokusai topology`")]
    Plan {
        /// Stage.
        stage: &'static str,
        /// What does not fit.
        what: String,
    },
    /// A thread could not be started or died.
    #[error("a thread of the runtime failed: {0}; help: check the limits of the process")]
    Thread(String),
}

/// Where a stage keeps its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProgressIn {
    /// With its state, in this topic.
    Changelog(String),
    /// In `hokusai.progress`.
    Shared,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyedInput {
    pub topic: String,
}

/// A stage as the runtime sees it: cut out of the topology.
#[derive(Debug, Clone)]
pub(crate) struct StagePlan {
    pub name: &'static str,
    /// Lead first.
    pub keyed: Vec<KeyedInput>,
    pub broadcast: Vec<String>,
    pub outputs: Vec<String>,
    pub progress: ProgressIn,
    /// Each (topic, partition) is a task of its own: stateless stages over several topics.
    pub task_per_topic: bool,
    /// Instead of the settings' pause between time marks.
    pub mark_interval: Option<Duration>,
    /// Partition counts that must not change.
    declared: BTreeMap<String, i32>,
}

impl StagePlan {
    fn new<S: Stage>(name: &'static str, topology: &Topology) -> Result<Self, RuntimeError> {
        let wrong = |what: String| RuntimeError::Plan { stage: name, what };
        let spec: &StageSpec = topology.stage(name).map_err(|e| wrong(e.to_string()))?;
        let progress = match (&spec.changelog, S::State::STATELESS) {
            (Some(topic), false) => ProgressIn::Changelog(topic.clone()),
            (None, true) => ProgressIn::Shared,
            (Some(_), true) => {
                return Err(wrong("the topology gives it a state key, but it keeps no state".to_owned()));
            }
            (None, false) => return Err(wrong("it keeps state, but the topology gives it no state key".to_owned())),
        };
        if spec.inputs.is_empty() {
            return Err(wrong("it has no input".to_owned()));
        }
        let keyed: Vec<KeyedInput> = spec.inputs.iter().map(|t| KeyedInput { topic: t.clone() }).collect();
        let mut outputs = spec.outputs.clone();
        outputs.push(topics::DEAD_LETTERS.to_owned());
        match &progress {
            ProgressIn::Changelog(topic) => outputs.push(topic.clone()),
            ProgressIn::Shared => outputs.push(topics::PROGRESS.to_owned()),
        }
        let named = spec.inputs.iter().chain(&outputs);
        let fixed = named.filter_map(|name| topology.topic(name)).filter(|topic| !topic.is_outsiders());
        let declared = fixed.map(|topic| (topic.name.clone(), topic.partitions)).collect();
        let task_per_topic = progress == ProgressIn::Shared && keyed.len() > 1;
        let mark_interval = spec.settings.mark_interval;
        let broadcast = spec.broadcast.clone();
        Ok(Self { name, keyed, broadcast, outputs, progress, task_per_topic, mark_interval, declared })
    }

    /// Every topic the stage reads or writes, keyed inputs first.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let keyed = self.keyed.iter().map(|input| input.topic.as_str());
        keyed.chain(self.broadcast.iter().chain(&self.outputs).map(String::as_str))
    }

    /// The partition count that a topic must have; none for outsiders' topics.
    pub fn declared(&self, topic: &str) -> Option<i32> {
        self.declared.get(topic).copied()
    }
}

/// What all stages of a process share.
pub(crate) struct Shared {
    pub cluster: Cluster,
    pub admin: Arc<Admin>,
    pub wire: Arc<Wire>,
    pub digest: Digest,
    pub aside: Aside,
    pub settings: Settings,
    pub health: Health,
    pub broadcasts: BTreeMap<String, Arc<Broadcast>>,
    pub positions: Arc<Positions>,
    pub snapshots: Option<Snapshots>,
    partitions: RwLock<Arc<BTreeMap<String, i32>>>,
}

impl Shared {
    /// Partition counts of all topics: declared, or found where the topic may grow.
    pub fn partition_counts(&self) -> Arc<BTreeMap<String, i32>> {
        Arc::clone(&self.partitions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the partition count that a topic has.
    pub fn note_partitions(&self, topic: &str, found: i32) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        if partitions.get(topic) != Some(&found) {
            Arc::make_mut(&mut partitions).insert(topic.to_owned(), found);
        }
    }

    /// Partition of `hokusai.progress` that holds a key.
    pub fn progress_partition(&self, key: &[u8]) -> i32 {
        partition_of(key, self.partition_counts().get(topics::PROGRESS).copied().unwrap_or(1))
    }
}

type MakeSpawn = Box<dyn Fn(Arc<Shared>, Arc<StagePlan>) -> Box<Spawn> + Send>;

/// Runs stages; see [`Runtime::run`].
pub struct Runtime {
    config: RuntimeConfig,
    health: Health,
    stages: Vec<(Arc<StagePlan>, MakeSpawn)>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.stages.iter().map(|(plan, _)| plan.name).collect();
        f.debug_struct("Runtime").field("stages", &names).finish_non_exhaustive()
    }
}

/// Stack of a task's thread: expression evaluation recurses.
const TASK_STACK: usize = 8 << 20;

impl Runtime {
    /// A runtime without stages.
    #[must_use]
    pub fn new(config: RuntimeConfig) -> Self {
        Self { config, health: Health::default(), stages: Vec::new() }
    }

    /// The state of all tasks, also while it runs.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Adds a stage; the factory is called once per task, on the task's thread.
    ///
    /// # Errors
    /// When the stage does not fit the topology.
    pub fn stage<S: Stage>(&mut self, factory: impl Fn() -> S + Send + Sync + 'static) -> Result<(), RuntimeError> {
        let plan = StagePlan::new::<S>(factory().name(), &self.config.topology)?;
        self.health.stage(plan.name, StageState::Joining);
        let factory = Arc::new(factory);
        let make = move |shared: Arc<Shared>, plan: Arc<StagePlan>| -> Box<Spawn> {
            let factory = Arc::clone(&factory);
            Box::new(move |id, incarnation, control, reports| {
                let (shared, plan, factory, id) =
                    (Arc::clone(&shared), Arc::clone(&plan), Arc::clone(&factory), id.clone());
                let builder = std::thread::Builder::new().name(id.to_string()).stack_size(TASK_STACK);
                builder.spawn(move || {
                    let run = || task::run(&shared, &plan, &id, incarnation, &control, factory(), &reports);
                    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                    let ended = ended.unwrap_or_else(|_| Ended::Failed("the task panicked".to_owned()));
                    let _ = reports.send(Report { task: id, incarnation, kind: ReportKind::Ended(ended) });
                })
            })
        };
        self.stages.push((Arc::new(plan), Box::new(make)));
        Ok(())
    }

    /// Runs all stages until `shutdown`, then drains: open transactions are finished and the groups are left.
    ///
    /// # Errors
    /// When the cluster's settings are refused or a thread cannot be started. A broker that is away is no error: the
    /// stages wait for it, and health says so.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RuntimeError> {
        super::metrics::describe();
        let admin = Arc::new(self.config.cluster.admin()?);
        let mut broadcasts = BTreeMap::new();
        for topic in self.stages.iter().flat_map(|(plan, _)| &plan.broadcast) {
            let new = || Arc::new(Broadcast::new(Arc::clone(&admin), topic));
            broadcasts.entry(topic.clone()).or_insert_with(new);
        }
        let snapshots = self.config.settings.snapshots.clone().map(Snapshots::start).transpose();
        let snapshots = snapshots.map_err(|e| RuntimeError::Thread(e.to_string()))?;
        let shared = Arc::new(Shared {
            cluster: self.config.cluster,
            admin,
            wire: self.config.wire,
            digest: self.config.digest,
            aside: self.config.aside,
            settings: self.config.settings,
            health: self.health,
            broadcasts,
            positions: Arc::default(),
            snapshots,
            partitions: RwLock::new(Arc::new(self.config.topology.partition_counts())),
        });
        let over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for broadcast in shared.broadcasts.values() {
            let (broadcast, over) = (Arc::clone(broadcast), Arc::clone(&over));
            threads.push(thread(format!("broadcast-{}", broadcast.topic), move || read_broadcast(&broadcast, &over))?);
        }
        let (admin, positions) = (Arc::clone(&shared.admin), Arc::clone(&shared.positions));
        let watch = Watch::new(Arc::clone(&admin), Arc::clone(&shared.wire), &self.config.topology);
        let (kept, interval) = (self.config.kept, shared.settings.purge_interval);
        let purger = Purger::new(admin, positions, kept, watch, &self.config.topology, interval);
        let purger_over = Arc::clone(&over);
        threads.push(thread("purger".to_owned(), move || purger.run(&|| purger_over.load(Ordering::Acquire)))?);
        for (plan, make) in self.stages {
            let (shared, for_spawn) = (Arc::clone(&shared), (Arc::clone(&shared), Arc::clone(&plan)));
            let spawn = Box::new(move || make(Arc::clone(&for_spawn.0), Arc::clone(&for_spawn.1)));
            let name = format!("stage-{}", plan.name);
            let supervisor = Supervisor { shared, plan, spawn, shutdown: Arc::clone(&over) };
            threads.push(thread(name, move || supervisor.run())?);
        }
        let (folder, kept) = (shared.settings.state_folder.clone(), shared.settings.idle_state_kept);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = forget_idle_state(folder, kept) => {}
        }
        over.store(true, Ordering::Release);
        let joined = tokio::task::spawn_blocking(move || {
            let failed = threads.into_iter().filter_map(|t| t.join().err()).count();
            if let Some(snapshots) = &shared.snapshots {
                snapshots.finish();
            }
            // Clients close here, not on an async worker.
            drop(shared);
            failed
        });
        match joined.await {
            Ok(0) => Ok(()),
            Ok(failed) => Err(RuntimeError::Thread(format!("{failed} threads ended with a panic"))),
            Err(error) => Err(RuntimeError::Thread(error.to_string())),
        }
    }
}

/// Once an hour, and not at the start, when the tasks have not taken their folders yet. Never ends.
async fn forget_idle_state(folder: Option<PathBuf>, kept: Duration) {
    loop {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let (Some(folder), Some(before)) = (folder.clone(), std::time::SystemTime::now().checked_sub(kept)) else {
            continue;
        };
        let swept = tokio::task::spawn_blocking(move || super::runs::manifest::forget_idle(&folder, before));
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "state of partitions that have moved away stays for now");
        }
    }
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, RuntimeError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(|e| RuntimeError::Thread(e.to_string()))
}

fn read_broadcast(broadcast: &Broadcast, over: &AtomicBool) {
    let is_over = || over.load(Ordering::Acquire);
    let mut pause = Duration::from_millis(100);
    while !is_over() {
        let started = std::time::Instant::now();
        if let Err(cause) = broadcast.read(&is_over) {
            tracing::warn!(topic = %broadcast.topic, %cause, "the broadcast reader starts again");
            if started.elapsed() > Duration::from_secs(60) {
                pause = Duration::from_millis(100);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

//! Wires every stage: the whole data path on one screen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::attest::trust::LiveTrust;
use crate::codec::aside;
use crate::domain::contract::Spec;
use crate::domain::keys::{LiveKeys, SealingKey};
use crate::installation::Installation;
use crate::ops::evaluator::Evaluator;
use crate::ops::filters::StoreFilters;
use crate::ops::health::Probe;
use crate::ops::log_keeper::{self, LogKeeper};
use crate::ops::profile::Profiler;
use crate::ops::trainer::Trainer;
use crate::ops::{rotation, secrets};
use crate::stages::attesting::Attesting;
use crate::stages::attribution::Attribution;
use crate::stages::attribution::work::Desk;
use crate::stages::dedup::Dedup;
use crate::stages::evaluation::{Evaluation, EvaluationConfig};
use crate::stages::intake::contract::Compiler;
use crate::stages::intake::{Intake, Limits};
use crate::stages::keying::Keying;
use crate::stages::receipts::{Receipts, ReceiptsConfig};
use crate::stages::registry::Registry;
use crate::stages::training::rows::Limits as TrainingLimits;
use crate::stages::training::work::Shop;
use crate::stages::training::{Training, TrainingConfig};
use crate::stages::trials::Trials;
use crate::stages::warehouse::tables::Table;
use crate::stages::warehouse::{self, Thresholds, Warehouse, WarehouseConfig};
use crate::store::{Store, StoreOptions};
use crate::stream::Kept;
use crate::stream::health::Health;
use crate::stream::runtime::{Runtime, RuntimeConfig, Settings as StreamSettings};
use crate::stream::snapshot::SnapshotSettings;

/// Every stage that is built, in the order of the path.
pub const STAGES: &[&str] = &[
    "keying",
    "registry",
    "intake",
    "dedup",
    "receipts",
    "attesting",
    "training",
    "trials",
    "evaluation",
    "attribution",
    "warehouse",
];

/// Tenant of a prefix: one topic prefix, one key ring, one store path.
#[must_use]
pub fn tenant(prefix: &str) -> &str {
    let name = prefix.trim_end_matches(['.', '-', '_']);
    if name.is_empty() { "default" } else { name }
}

/// What a pipeline is made of.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// Brokers, topology, store …
    pub installation: Installation,
    /// Stages to run; empty for all that are built.
    pub stages: Vec<String>,
    /// Folder of the key ring and the trust file.
    pub keys: PathBuf,
    /// Longest time between commits under load.
    pub commit_interval: Duration,
    /// Instead of the topology's contribution timeout.
    pub contribution_timeout: Option<Duration>,
    /// How often intake marks the time while idle.
    pub idle_mark: Duration,
    /// Longest time between table commits, instead of the topology's.
    pub table_commit: Option<Duration>,
    /// Bytes of memory that each task takes for state that is not on disk yet.
    pub state_memory: usize,
    /// Bytes of changelog after which a task puts its state into the shared store.
    pub snapshot_after: u64,
    /// Name in the consumer groups that survives restarts.
    pub instance: Option<String>,
    /// Where flame graphs of trainings and evaluations go; none are made without it.
    pub profile: Option<PathBuf>,
}

/// The stages of this process.
pub struct Pipeline {
    runtime: Runtime,
    /// Its offsets live in Delta commits, not in Kafka transactions: no stage of the runtime.
    warehouse: Option<Warehouse>,
    /// Where the key ring is, whose it is, and the handle that stages have on it.
    keys: (PathBuf, String, LiveKeys),
    /// The handle that stages have on the trust file in the same folder.
    trust: LiveTrust,
}

impl Pipeline {
    /// Wires the stages; nothing runs yet.
    ///
    /// # Errors
    /// An unknown stage, keys that cannot be used, or a topology that does not fit a stage.
    pub fn new(config: &PipelineConfig) -> anyhow::Result<Self> {
        let selected = select(&config.stages)?;
        let runs = |name: &str| selected.contains(&name);
        let tenant = tenant(&config.installation.prefix);
        let keys = LiveKeys::from(secrets::load_or_create_key_ring(&config.keys, tenant)?);
        let trust = LiveTrust::from(secrets::load_or_create_trust(&config.keys)?);
        let mut runtime = Runtime::new(runtime_config(config, &keys));
        if runs("keying") {
            let (keys, trust) = (keys.clone(), trust.clone());
            runtime.stage(move || Keying::new(keys.clone()).with_trust(trust.clone()))?;
        }
        if runs("registry") {
            let trust = trust.clone();
            runtime.stage(move || Registry::new(trust.clone(), Box::new(usable)))?;
        }
        if runs("intake") {
            let keys = keys.clone();
            let filters = StoreFilters::new(&config.installation.store)?;
            runtime
                .stage(move || Intake::new(keys.clone(), Limits::default()).with_filters(Box::new(filters.clone())))?;
        }
        if runs("dedup") {
            runtime.stage(Dedup::new)?;
        }
        if runs("receipts") {
            let receipts = receipts_config(config)?;
            runtime.stage(move || Receipts::new(receipts.clone()))?;
        }
        if runs("attesting") {
            let keeper = log_keeper(config, tenant)?;
            let tenant = tenant.to_owned();
            runtime.stage(move || Attesting::new(&tenant, Box::new(keeper.clone())))?;
        }
        let profiler = config.profile.clone().map(Profiler::new).transpose().context("--profile")?;
        let shop = if runs("training") || runs("trials") { Some(shop(config, profiler.clone())?) } else { None };
        if let Some(shop) = shop.clone().filter(|_| runs("training")) {
            let key = secrets::stage_key(&config.keys, "training")?;
            let training = TrainingConfig { shop, trust: trust.clone(), key };
            runtime.stage(move || Training::new(training.clone()))?;
        }
        if let Some(shop) = shop.filter(|_| runs("trials")) {
            runtime.stage(move || Trials::new(shop.clone()))?;
        }
        if runs("evaluation") {
            let evaluation = evaluation_config(config, (&keys, &trust), profiler)?;
            runtime.stage(move || Evaluation::new(evaluation.clone()))?;
        }
        if runs("attribution") {
            let desk = desk(config, &keys)?;
            runtime.stage(move || Attribution::new(desk.clone()))?;
        }
        let warehouse = if runs("warehouse") {
            Some(Warehouse::new(warehouse_config(config, &keys, runtime.health())?))
        } else {
            None
        };
        Ok(Self { runtime, warehouse, keys: (config.keys.clone(), tenant.to_owned(), keys), trust })
    }

    /// What `/health` and `/ready` ask.
    #[must_use]
    pub fn probe(&self) -> Arc<dyn Probe> {
        Arc::new(self.runtime.health())
    }

    /// Runs every stage until `stop`, then lets each finish what it has begun.
    ///
    /// # Errors
    /// What made a stage end for good.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let tables = async {
            match self.warehouse {
                Some(warehouse) => warehouse.run(stop.clone()).await.map_err(anyhow::Error::from),
                None => Ok(()),
            }
        };
        let (dir, tenant, keys) = self.keys;
        let end = stop.child_token();
        let following = tokio::spawn(rotation::follow(dir, tenant, keys, self.trust, end.clone()));
        let stages = async { self.runtime.run(stop.clone()).await.map_err(anyhow::Error::from) };
        let ran = tokio::try_join!(stages, tables).map(drop);
        end.cancel();
        following.await?;
        ran
    }
}

fn select(names: &[String]) -> anyhow::Result<Vec<&'static str>> {
    let find = |name: &String| {
        STAGES.iter().copied().find(|stage| stage == name).ok_or_else(|| {
            anyhow::anyhow!("there is no stage {name}\nhelp: the stages that are built are {}", STAGES.join(", "))
        })
    };
    if names.is_empty() { Ok(STAGES.to_vec()) } else { names.iter().map(find).collect() }
}

/// Whether intake could check rows against a contract: its SQL compiles.
pub(crate) fn usable(spec: &Spec) -> Result<(), String> {
    Compiler::new().compile(spec.clone()).map(drop).map_err(|e| e.to_string())
}

fn runtime_config(config: &PipelineConfig, keys: &LiveKeys) -> RuntimeConfig {
    // A dead letter has no model: the digest key is the ring's own for unreadable records.
    let digest = keys.ring().dead_letter_key();
    let operator = keys.clone();
    RuntimeConfig {
        cluster: config.installation.cluster(),
        topology: Arc::clone(&config.installation.topology),
        wire: Arc::clone(&config.installation.wire),
        digest: Arc::new(move |bytes: &[u8]| data_encoding::HEXLOWER.encode(&digest.digest(&[bytes]))),
        aside: Arc::new(move |letter, key, value| aside::seal(letter, &operator.ring(), key, value)),
        kept: kept(&config.installation),
        settings: StreamSettings {
            commit_interval: config.commit_interval,
            idle_mark_interval: config.idle_mark,
            instance: config.instance.clone(),
            state_folder: Some(config.installation.state_folder()),
            state_memory: config.state_memory,
            snapshots: snapshots(config),
            ..StreamSettings::default()
        },
    }
}

/// The warehouse's positions stand in its tables; what its group's offsets say can be moved from outside.
fn kept(installation: &Installation) -> BTreeMap<String, Kept> {
    let root = installation.store.clone();
    let kept: Kept = Arc::new(move |topic| {
        let root = root.clone();
        Box::pin(async move {
            warehouse::kept(&root, Table::Contributions, &topic).await.map_err(|error| error.to_string())
        })
    });
    BTreeMap::from([("warehouse".to_owned(), kept)])
}

/// Snapshots go to a store that another machine can reach; in the data folder they would only double the state.
fn snapshots(config: &PipelineConfig) -> Option<SnapshotSettings> {
    let Installation { store, data, .. } = &config.installation;
    let options = StoreOptions::from_environment();
    let opened = Store::at(store, &options).ok()?;
    if opened.folder().is_some_and(|folder| folder.starts_with(data)) {
        return None;
    }
    Some(SnapshotSettings { after_bytes: config.snapshot_after, ..SnapshotSettings::new(store, options) })
}

/// Where the log's keys and tree heads are. Keys are made where there are none, as the key ring is; once the log has begun, others
/// than its own stop the stage.
fn log_keeper(config: &PipelineConfig, tenant: &str) -> anyhow::Result<LogKeeper> {
    log_keeper::load_or_create_log_keys(&config.keys, tenant)?;
    Ok(LogKeeper::new(&config.keys, tenant, &config.installation.store)?)
}

fn receipts_config(config: &PipelineConfig) -> anyhow::Result<ReceiptsConfig> {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let declared = &config.installation.topology.stage("receipts")?.settings;
    let mut receipts = ReceiptsConfig::default();
    if let Some(timeout) = config.contribution_timeout.or(declared.contribution_timeout) {
        receipts.contribution_timeout_ms = milliseconds(timeout);
    }
    if let Some(kept) = declared.closed_ids_kept {
        receipts.closed_retention_ms = milliseconds(kept);
    }
    if let Some(most) = declared.max_open_contributions {
        receipts.max_open = i64::try_from(most)?;
    }
    Ok(receipts)
}

/// What training runs and trials of this process work with: one of them learns at a time.
fn shop(config: &PipelineConfig, profiler: Option<Profiler>) -> anyhow::Result<Shop> {
    let installation = &config.installation;
    let declared = &installation.topology.stage("training")?.settings;
    let mut limits = TrainingLimits::default();
    if let Some(rows) = declared.training_rows {
        limits.rows = usize::try_from(rows)?;
    }
    if let Some(bytes) = declared.training_bytes {
        limits.bytes = usize::try_from(bytes)?;
    }
    if let Some(budget) = declared.training_budget {
        limits.budget = budget;
    }
    if let Some(threads) = declared.training_threads {
        limits.threads = usize::try_from(threads)?;
    }
    let store = Store::at(&installation.store, &StoreOptions::from_environment())?;
    Ok(Shop {
        outside: Arc::new(Trainer::new(installation.cluster(), store, profiler)),
        limits,
        wire: installation.wire.as_ref().clone(),
        bench: Arc::default(),
        larder: Arc::default(),
    })
}

/// Only machines with the private part of the evaluation key can run a stage that opens sealed benchmarks.
fn evaluation_key(config: &PipelineConfig, stage: &str) -> anyhow::Result<Arc<SealingKey>> {
    let key = secrets::evaluation_key(&config.keys, tenant(&config.installation.prefix)).with_context(|| {
        format!(
            "the stage {stage} opens sealed benchmarks; a machine without that key runs the other stages (--stages)"
        )
    })?;
    Ok(Arc::new(key))
}

/// What attributions of this process work with: one game is played at a time, within the limits of training.
fn desk(config: &PipelineConfig, keys: &LiveKeys) -> anyhow::Result<Desk> {
    let Shop { outside, limits, wire, .. } = shop(config, None)?;
    let store = Store::at(&config.installation.store, &StoreOptions::from_environment())?;
    Ok(Desk {
        trainer: outside,
        blobs: Arc::new(Evaluator::new(store, None)),
        key: evaluation_key(config, "attribution")?,
        keys: keys.clone(),
        wire,
        limits,
        bench: Arc::default(),
    })
}

fn evaluation_config(
    config: &PipelineConfig,
    (keys, trust): (&LiveKeys, &LiveTrust),
    profiler: Option<Profiler>,
) -> anyhow::Result<EvaluationConfig> {
    let installation = &config.installation;
    let threads = installation.topology.stage("training")?.settings.training_threads;
    let store = Store::at(&installation.store, &StoreOptions::from_environment())?;
    Ok(EvaluationConfig {
        outside: Arc::new(Evaluator::new(store, profiler)),
        evaluation_key: evaluation_key(config, "evaluation")?,
        keys: keys.clone(),
        trust: trust.clone(),
        key: secrets::stage_key(&config.keys, "evaluation")?,
        threads: usize::try_from(threads.unwrap_or(1))?,
        bench: Arc::default(),
    })
}

fn warehouse_config(config: &PipelineConfig, keys: &LiveKeys, health: Health) -> anyhow::Result<WarehouseConfig> {
    let declared = &config.installation.topology.stage("warehouse")?.settings;
    let mut thresholds = Thresholds::default();
    if let Some(age) = config.table_commit.or(declared.table_interval) {
        thresholds.age = age;
    }
    if let Some(rows) = declared.table_rows {
        thresholds.rows = usize::try_from(rows)?;
    }
    if let Some(bytes) = declared.table_bytes {
        thresholds.bytes = usize::try_from(bytes)?;
    }
    Ok(WarehouseConfig {
        cluster: config.installation.cluster(),
        store: config.installation.store.clone(),
        wire: config.installation.wire.as_ref().clone(),
        keys: keys.clone(),
        thresholds,
        instance: config.instance.clone(),
        health,
    })
}

/// Registers the schemas of every topic, when a schema registry is configured. Blocks on the network.
///
/// # Errors
/// When the registry refuses a schema or does not answer.
pub fn register_schemas(installation: &Installation) -> anyhow::Result<()> {
    let named: Vec<(String, &str)> =
        installation.topology.schemas().map(|(topic, schema)| (installation.topic(topic), schema)).collect();
    installation.wire.register(named.iter().map(|(topic, schema)| (topic.as_str(), *schema)))?;
    Ok(())
}

/// Waits until everything takes work; false when `stop` came first.
pub async fn until_ready(probe: &dyn Probe, stop: &CancellationToken) -> bool {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            _ = looks.tick() => if probe.ready() { return true },
        }
    }
}

//! Wires every stage: the whole data path on one screen.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::common::Settings;
use crate::codec::aside;
use crate::domain::contract::Spec;
use crate::domain::keys::LiveKeys;
use crate::ops::health::Probe;
use crate::ops::log_keeper::{self, LogKeeper};
use crate::ops::{rotation, secrets};
use crate::stages::attesting::Attesting;
use crate::stages::dedup::Dedup;
use crate::stages::intake::contract::Compiler;
use crate::stages::intake::{Intake, Limits};
use crate::stages::keying::Keying;
use crate::stages::receipts::{Receipts, ReceiptsConfig};
use crate::stages::registry::Registry;
use crate::stages::warehouse::{Thresholds, Warehouse, WarehouseConfig};
use crate::stream::health::Health;
use crate::stream::runtime::{Runtime, RuntimeConfig, Settings as StreamSettings};

/// Every stage that is built, in the order of the path.
pub const STAGES: &[&str] = &["keying", "registry", "intake", "dedup", "receipts", "attesting", "warehouse"];

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
    pub settings: Settings,
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
    /// Name in the consumer groups that survives restarts.
    pub instance: Option<String>,
}

/// The stages of this process.
pub struct Pipeline {
    runtime: Runtime,
    /// Its offsets live in Delta commits, not in Kafka transactions: no stage of the runtime.
    warehouse: Option<Warehouse>,
    /// Where the key ring is, whose it is, and the handle that stages have on it.
    keys: (PathBuf, String, LiveKeys),
}

impl Pipeline {
    /// Wires the stages; nothing runs yet.
    ///
    /// # Errors
    /// An unknown stage, keys that cannot be used, or a topology that does not fit a stage.
    pub fn new(config: &PipelineConfig) -> anyhow::Result<Self> {
        let selected = select(&config.stages)?;
        let runs = |name: &str| selected.contains(&name);
        let tenant = tenant(&config.settings.prefix);
        let keys = LiveKeys::from(secrets::load_or_create_key_ring(&config.keys, tenant)?);
        let mut runtime = Runtime::new(runtime_config(config, &keys));
        if runs("keying") {
            let keys = keys.clone();
            runtime.stage(move || Keying::new(keys.clone()))?;
        }
        if runs("registry") {
            let trust = secrets::load_or_create_trust(&config.keys)?;
            runtime.stage(move || Registry::new(trust.clone(), Box::new(usable)))?;
        }
        if runs("intake") {
            let keys = keys.clone();
            runtime.stage(move || Intake::new(keys.clone(), Limits::default()))?;
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
        let warehouse = if runs("warehouse") {
            Some(Warehouse::new(warehouse_config(config, &keys, runtime.health())?))
        } else {
            None
        };
        Ok(Self { runtime, warehouse, keys: (config.keys.clone(), tenant.to_owned(), keys) })
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
        let following = tokio::spawn(rotation::follow(dir, tenant, keys, end.clone()));
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
fn usable(spec: &Spec) -> Result<(), String> {
    Compiler::new().compile(spec.clone()).map(drop).map_err(|e| e.to_string())
}

fn runtime_config(config: &PipelineConfig, keys: &LiveKeys) -> RuntimeConfig {
    // A dead letter has no model: the digest key is the ring's own for unreadable records.
    let digest = keys.ring().dead_letter_key();
    let operator = keys.clone();
    RuntimeConfig {
        cluster: config.settings.cluster(),
        topology: Arc::clone(&config.settings.topology),
        wire: Arc::clone(&config.settings.wire),
        digest: Arc::new(move |bytes: &[u8]| data_encoding::HEXLOWER.encode(&digest.digest(&[bytes]))),
        aside: Arc::new(move |letter, key, value| aside::seal(letter, &operator.ring(), key, value)),
        settings: StreamSettings {
            commit_interval: config.commit_interval,
            idle_mark_interval: config.idle_mark,
            instance: config.instance.clone(),
            state_folder: Some(state_folder(&config.settings)),
            state_memory: config.state_memory,
            ..StreamSettings::default()
        },
    }
}

/// Where the tasks of this machine keep committed state.
#[must_use]
pub fn state_folder(settings: &Settings) -> PathBuf {
    settings.data.join("state")
}

/// Where the log's keys and tree heads are. Keys are made where there are none, as the key ring is; once the log has begun, others
/// than its own stop the stage.
fn log_keeper(config: &PipelineConfig, tenant: &str) -> anyhow::Result<LogKeeper> {
    log_keeper::load_or_create_log_keys(&config.keys, tenant)?;
    Ok(LogKeeper::new(&config.keys, tenant, &config.settings.store)?)
}

fn receipts_config(config: &PipelineConfig) -> anyhow::Result<ReceiptsConfig> {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let declared = &config.settings.topology.stage("receipts")?.settings;
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

fn warehouse_config(config: &PipelineConfig, keys: &LiveKeys, health: Health) -> anyhow::Result<WarehouseConfig> {
    let declared = &config.settings.topology.stage("warehouse")?.settings;
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
        cluster: config.settings.cluster(),
        store: config.settings.store.clone(),
        wire: config.settings.wire.as_ref().clone(),
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
pub fn register_schemas(settings: &Settings) -> anyhow::Result<()> {
    let named: Vec<(String, &str)> =
        settings.topology.schemas().map(|(topic, schema)| (settings.topic(topic), schema)).collect();
    settings.wire.register(named.iter().map(|(topic, schema)| (topic.as_str(), *schema)))?;
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

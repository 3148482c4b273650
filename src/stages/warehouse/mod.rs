//! Public topics as Delta tables.
//!
//! | table | topic | one row per |
//! |---|---|---|
//! | `contributions` | `contributions` | chunk as it was sent: header, sizes, keyed digest, position; never the payload |
//! | `rows` | `contributions.accepted` | first-seen row, with the columns of its contract ([`columns`]) |
//! | `refusals` | `contributions.refused` | refused row (or chunk) |
//! | `receipts` | `receipts` | receipt |
//! | `dead_letters` | `dead-letters` | record that could not be read |
//! | `audit` | `audit` | decision |
//! | `model_revisions` | `models` | state that a model has had |
//! | `run_states` | `training.runs` | state that a training run has told |
//! | `trial_results` | `training.jobs` | trial and rung of a search |
//! | `evaluation_records` | `evaluations` | what may be told of an evaluation |
//!
//! Invariants:
//! * the positions of a table stand in its Delta commits and nowhere else ([`store`]): a table always holds exactly the
//!   records below its positions, whatever dies when; group offsets serve lag tools only;
//! * a table is committed at 64 k rows, 32 MB or 5 s, whichever comes first ([`Thresholds`]);
//! * there is one writer per table and process; workers that share a table commit under Delta's optimistic concurrency,
//!   and a partition that another worker has taken over is never written again ([`writer`]);
//! * a table whose topic was made anew, or whose next record is gone, stops by name while the others go on ([`lane`]).

pub mod columns;
pub mod decode;
pub mod error;
mod exclusive;
mod lane;
pub mod maintenance;
mod records;
mod run;
mod s3;
pub mod store;
pub mod tables;
pub mod writer;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use error::WarehouseError;
pub use lane::Thresholds;

use crate::codec::wire::Wire;
use crate::domain::keys::LiveKeys;
use crate::stream::client::{Cluster, Description};
use crate::stream::health::{Health, StageState};

/// What the warehouse works with.
#[derive(Debug, Clone)]
pub struct WarehouseConfig {
    /// Brokers, prefix and pass-through settings.
    pub cluster: Cluster,
    /// Root of the store: an absolute folder or a URL; tables are under `tables/NAME`.
    pub store: String,
    /// Decodes records.
    pub wire: Wire,
    /// Makes the keyed digests of chunks.
    pub keys: LiveKeys,
    /// When a table is committed.
    pub thresholds: Thresholds,
    /// Static membership of the group, if wanted.
    pub instance: Option<String>,
    /// Where the state of each partition is told.
    pub health: Health,
}

/// The stage `warehouse`.
#[derive(Debug)]
pub struct Warehouse {
    config: WarehouseConfig,
}

impl Warehouse {
    /// A warehouse that does nothing yet.
    #[must_use]
    pub fn new(config: WarehouseConfig) -> Self {
        Self { config }
    }

    /// Reads and commits until `shutdown`, then commits what it holds. Needs a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// [`WarehouseError::Store`] for a store that cannot be; everything else is retried or stops one table by name.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WarehouseError> {
        let config = self.config;
        // Found out before the thread starts: the one error that no waiting mends.
        store::Store::open(&config.store)?;
        let runtime = tokio::runtime::Handle::current();
        let (done, wait) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("warehouse".to_owned()).spawn(move || {
            supervise(&config, &runtime, &shutdown);
            let _ = done.send(());
        });
        thread.map_err(|e| WarehouseError::Thread { detail: e.to_string() })?;
        wait.await.map_err(|_| WarehouseError::Thread { detail: "it ended before it was asked to".to_owned() })
    }
}

/// How far the table of a topic holds it, by partition, as its newest Delta commit says: nothing when there is no such table, or when
/// it holds an earlier topic of the same name.
///
/// # Errors
/// When the store cannot be read.
pub async fn kept(root: &str, table: tables::Table, topic: &Description) -> Result<BTreeMap<i32, i64>, WarehouseError> {
    let Some(delta) = store::Store::open(root)?.load(table).await? else { return Ok(BTreeMap::new()) };
    let state = delta.snapshot().map_err(|e| WarehouseError::delta(table, "read", e))?;
    let holds = state.metadata().configuration().get(store::TOPIC_ID);
    if holds.is_none() || holds != topic.id.as_ref() {
        return Ok(BTreeMap::new());
    }
    store::positions(table, &delta.log_store(), delta.version().unwrap_or(0), &topic.name).await
}

/// Joins the group, again and again if that cannot be done yet.
fn supervise(config: &WarehouseConfig, runtime: &tokio::runtime::Handle, shutdown: &CancellationToken) {
    const PAUSE: Duration = Duration::from_secs(2);
    while !shutdown.is_cancelled() {
        match run::Reader::join(config.clone(), runtime.clone()) {
            Ok(reader) => return reader.run(shutdown),
            Err(error) => {
                tracing::warn!(%error, "warehouse: the group cannot be joined; trying again");
                config.health.stage(run::STAGE, StageState::Retrying { cause: error.to_string() });
                let _ = runtime.block_on(tokio::time::timeout(PAUSE, shutdown.cancelled()));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod tests;

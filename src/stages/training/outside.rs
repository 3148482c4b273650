//! What a training run needs from outside its log: the topics' ends, their records again from the start, and the store.

use std::any::Any;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::records::{Artefact, TopicEnd};
use crate::ml::declare::Declaration;
use crate::ml::derivation::{Derivation, MAX_TABLES};
use crate::sealing::filter::MatchFilter;
use crate::stages::beside::{Refusal, Trouble};

/// Called with every value of a topic, tombstones left out.
pub type Each<'a> = dyn FnMut(&[u8]) -> Result<(), Trouble> + 'a;

/// Brokers and store, as a run's own thread sees them: every call may wait.
pub trait Outside: Send + Sync {
    /// Last stable offsets of every partition of `receipts`, taken first, and then of `contributions.accepted`; sorted. So every
    /// receipt that counts has its rows below the ends.
    ///
    /// # Errors
    /// Brokers out of reach.
    fn ends(&self) -> Result<Vec<TopicEnd>, Trouble>;

    /// The committed values of a topic below these ends.
    ///
    /// # Errors
    /// Brokers out of reach, records that are gone, and what `each` returns.
    fn read(&self, topic: &str, ends: &[TopicEnd], each: &mut Each<'_>) -> Result<(), Trouble>;

    /// The match filter of a sealed benchmark.
    ///
    /// # Errors
    /// The store is out of reach, or the filter is not there or damaged.
    fn filter(&self, filter: &Artefact) -> Result<MatchFilter, Trouble>;

    /// The canonical form of a reference table that has this digest; whether it does is checked by whoever uses it.
    ///
    /// # Errors
    /// The store is out of reach, or does not have it.
    fn reference(&self, digest: &str) -> Result<bytes::Bytes, Trouble>;

    /// Puts an artefact into the store; it is durable when this returns.
    ///
    /// # Errors
    /// The store is out of reach.
    fn keep(&self, artefact: Bytes) -> Result<(), Trouble>;

    /// A blob of the store of at most `most` bytes, checked against its digest.
    ///
    /// # Errors
    /// The store is out of reach, or the blob is not there, larger or damaged (`ARTEFACT_MISSING`).
    fn fetch(&self, blob: &Artefact, most: u64) -> Result<Bytes, Trouble>;

    /// Keeps a run's newest checkpoint.
    ///
    /// # Errors
    /// The store is out of reach.
    fn checkpoint(&self, run_id: &str, bytes: Vec<u8>) -> Result<(), Trouble>;

    /// A run's newest checkpoint, whole; none when there is none.
    ///
    /// # Errors
    /// The store is out of reach.
    fn checkpointed(&self, run_id: &str) -> Result<Option<Vec<u8>>, Trouble>;

    /// Removes a run's checkpoint.
    ///
    /// # Errors
    /// The store is out of reach.
    fn forget(&self, run_id: &str) -> Result<(), Trouble>;

    /// Publishes how the rows of the dataset of this digest are found; the first way stays.
    ///
    /// # Errors
    /// The store is out of reach.
    fn publish(&self, model: &str, digest: &str, way: &WayBack) -> Result<(), Trouble>;

    /// How the rows of a published dataset of the model are found; none when there is none.
    ///
    /// # Errors
    /// The store is out of reach, or what it has is damaged.
    fn published(&self, model: &str, digest: &str) -> Result<Option<WayBack>, Trouble>;

    /// Called on the thread of a step that learns, when it begins; what it gives is dropped when the step ends. For whoever wants to
    /// see where its time goes.
    fn watch(&self, _step: &str) -> Option<Box<dyn Any>> {
        None
    }
}

/// Fetches the reference tables that a declaration names.
///
/// # Errors
/// The store is out of reach, or does not have one of them, or others bytes under its digest.
pub fn fill(outside: &dyn Outside, declared: &mut Declaration) -> Result<(), Trouble> {
    if declared.derivation.is_empty() {
        return Ok(());
    }
    let mut all = 0;
    for table in &mut declared.derivation.tables {
        let bytes = outside.reference(&table.digest)?;
        if !Derivation::fill(table, &bytes) {
            let detail = format!(
                "the store has other bytes for the reference table `{}`; help: apply the model again, then ask anew",
                table.name
            );
            return Err(Refusal::new("REFERENCE_DAMAGED", detail).into());
        }
        all += bytes.len();
        if all > MAX_TABLES {
            let detail = format!("the reference tables have more than {MAX_TABLES} bytes; help: keep what models need");
            return Err(Refusal::new("REFERENCE_TOO_LARGE", detail).into());
        }
    }
    Ok(())
}

/// How the rows of a dataset are found again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WayBack {
    /// They stand below these ends,
    pub ends: Vec<TopicEnd>,
    /// and not in the benchmarks of these match filters.
    #[serde(default)]
    pub sealed: Vec<Artefact>,
}

//! What evaluations reach for: blobs of the store, and a place for full records. Called from a scoring thread, which may wait.

use std::any::Any;

use bytes::Bytes;
use tokio::runtime::Builder;

use crate::domain::records::Artefact;
use crate::ops::blobs::{self, BlobError};
use crate::ops::profile::Profiler;
use crate::stages::beside::{Refusal, Trouble};
use crate::stages::evaluation::outside::Outside;
use crate::store::{Store, StoreError};

/// The store of an installation.
#[derive(Debug, Clone)]
pub struct Evaluator {
    store: Store,
    profiler: Option<Profiler>,
}

impl Evaluator {
    /// The evaluator of an installation; evaluations are profiled by a profiler. Nothing is asked yet.
    #[must_use]
    pub fn new(store: Store, profiler: Option<Profiler>) -> Self {
        Self { store, profiler }
    }
}

fn passing(error: impl std::fmt::Display) -> Trouble {
    Trouble::Passing(error.to_string())
}

impl Outside for Evaluator {
    fn blob(&self, artefact: &Artefact, most: u64, code: &'static str) -> Result<Bytes, Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
        blobs::fetch(&self.store, &runtime, &artefact.digest, most).map_err(|error| match error {
            BlobError::Passing(cause) => Trouble::Passing(cause),
            BlobError::Missing(why) => {
                let help = "help: restore it from a backup of the store";
                Refusal::new(code, format!("the blob {}: {why}; {help}", artefact.digest)).into()
            }
        })
    }

    fn keep(&self, evaluation_id: &str, sealed: Vec<u8>) -> Result<(), Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
        let kept: Result<_, StoreError> =
            runtime.block_on(self.store.create(&record_path(evaluation_id), sealed.into()));
        kept.map(drop).map_err(passing)
    }

    fn watch(&self, evaluation_id: &str) -> Option<Box<dyn Any>> {
        Some(Box::new(self.profiler.as_ref()?.begin("evaluation", evaluation_id)?))
    }
}

/// Where the full record of an evaluation is kept, encrypted.
#[must_use]
pub fn record_path(evaluation_id: &str) -> String {
    format!("evaluations/{evaluation_id}.sealed")
}

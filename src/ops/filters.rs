//! Match filters of sealed benchmarks, from the shared store, each in memory once however many tasks use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::{Builder, Runtime};

use crate::domain::records::Artefact;
use crate::ops::blobs::{self, BlobError};
use crate::sealing::filter::{MAX_BYTES, MatchFilter};
use crate::stages::intake::contamination::FilterSource;
use crate::store::{Digest, Store, StoreOptions};
use crate::stream::stage::StageError;

/// A handle on the store; clones share what is in memory.
#[derive(Debug, Clone)]
pub struct StoreFilters(Arc<Shelf>);

/// Filters are asked for from a task's own thread, so the shelf brings along what runs its requests.
#[derive(Debug)]
struct Shelf {
    store: Store,
    runtime: Option<Runtime>,
    held: Mutex<HashMap<Digest, Weak<MatchFilter>>>,
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // Dropping a runtime waits, which async code must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl StoreFilters {
    /// Filters in a store. Nothing is read yet.
    ///
    /// # Errors
    /// A location that makes no sense, or no thread for requests.
    pub fn new(store: &str) -> anyhow::Result<Self> {
        let store = Store::at(store, &StoreOptions::from_environment())?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self(Arc::new(Shelf { store, runtime: Some(runtime), held: Mutex::default() })))
    }
}

/// Reads the match filter of a sealed benchmark from a store.
///
/// # Errors
/// [`BlobError`]; its text names the filter.
pub fn fetch(store: &Store, runtime: &Runtime, artefact: &Artefact) -> Result<MatchFilter, BlobError> {
    let missing = |what: String| {
        BlobError::Missing(format!("the match filter {} of a sealed benchmark: {what}", artefact.digest))
    };
    let bytes = blobs::fetch(store, runtime, &artefact.digest, MAX_BYTES).map_err(|error| match error {
        BlobError::Missing(what) => missing(what),
        passing @ BlobError::Passing(_) => passing,
    })?;
    MatchFilter::parse(bytes).map_err(|error| missing(error.to_string()))
}

impl FilterSource for StoreFilters {
    fn filter(&self, artefact: &Artefact) -> Result<Arc<MatchFilter>, StageError> {
        let missing = |what: String| StageError::Halt {
            what: format!("FILTER_MISSING: {what}"),
            help: "restore the blob in the store, or retire the benchmark (`hokusai benchmark retire`)".to_owned(),
        };
        let digest: Option<Digest> = artefact.digest.parse().ok();
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = digest.and_then(|digest| held.get(&digest)).and_then(Weak::upgrade) {
            return Ok(filter);
        }
        let Some(runtime) = &self.0.runtime else { return Err(StageError::Outside("the store is closed".to_owned())) };
        let filter = Arc::new(fetch(&self.0.store, runtime, artefact).map_err(|error| match error {
            BlobError::Passing(cause) => StageError::Outside(cause),
            BlobError::Missing(what) => missing(what),
        })?);
        held.retain(|_, filter| filter.strong_count() > 0);
        if let Some(digest) = digest {
            held.insert(digest, Arc::downgrade(&filter));
        }
        Ok(filter)
    }
}

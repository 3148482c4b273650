//! Sealed benchmarks as intake knows them: by keyed hashes of features, never by a row or a label.
//!
//! A model's rows are compared with every benchmark of it that is not retired. Which these were stands in the manifest by the
//! digests of their filters, so that a chunk's outcome is a function of what is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attest::benchmark::millionths;
use crate::domain::records::{Artefact, Benchmark};
use crate::sealing::filter::MatchFilter;
use crate::stream::stage::StageError;

/// Where match filters come from.
pub trait FilterSource: Send {
    /// The filter of a digest.
    ///
    /// # Errors
    /// [`StageError::Outside`] when the same again may work, [`StageError::Halt`] when it is gone or damaged: rows that cannot be
    /// compared are not let through.
    fn filter(&self, artefact: &Artefact) -> Result<Arc<MatchFilter>, StageError>;
}

struct Entry {
    artefact: Artefact,
    collision_ppm: i64,
    filter: Option<Arc<MatchFilter>>,
}

/// The benchmarks in force: the fold of the broadcast topic. Filters are fetched when a chunk of their model comes.
#[derive(Default)]
pub(super) struct Benchmarks {
    source: Option<Box<dyn FilterSource>>,
    /// By model, then by key.
    models: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl std::fmt::Debug for Benchmarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known: Vec<&String> = self.models.values().flat_map(BTreeMap::keys).collect();
        f.debug_struct("Benchmarks").field("known", &known).finish_non_exhaustive()
    }
}

/// What the rows of a chunk are compared with.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub filters: Vec<Arc<MatchFilter>>,
    /// Hex, sorted.
    pub digests: Vec<String>,
    pub collision_ppm: i64,
}

impl Benchmarks {
    pub(super) fn read_from(&mut self, source: Box<dyn FilterSource>) {
        self.source = Some(source);
    }

    /// Takes the latest record of a key.
    pub(super) fn fold(&mut self, key: &str, benchmark: Option<Benchmark>) {
        self.models.values_mut().for_each(|of_model| {
            of_model.remove(key);
        });
        self.models.retain(|_, of_model| !of_model.is_empty());
        let Some(benchmark) = benchmark.filter(|benchmark| !benchmark.retired) else { return };
        let rate = millionths(&benchmark.collision_rate).and_then(|ppm| i64::try_from(ppm).ok()).unwrap_or(0);
        let entry = Entry { artefact: benchmark.match_filter, collision_ppm: rate, filter: None };
        self.models.entry(benchmark.model).or_default().insert(key.to_owned(), entry);
    }

    /// What rows for a model are compared with.
    pub(super) fn of(&mut self, model: &str) -> Result<Compared, StageError> {
        let mut compared = Compared::default();
        let Some(of_model) = self.models.get_mut(model) else { return Ok(compared) };
        for entry in of_model.values_mut() {
            let filter = match (&entry.filter, &self.source) {
                (Some(filter), _) => Arc::clone(filter),
                (None, Some(source)) => source.filter(&entry.artefact)?,
                (None, None) => return Err(without_source()),
            };
            entry.filter = Some(Arc::clone(&filter));
            compared.filters.push(filter);
            compared.digests.push(entry.artefact.digest.clone());
            compared.collision_ppm = compared.collision_ppm.max(entry.collision_ppm);
        }
        compared.digests.sort_unstable();
        compared.digests.dedup();
        Ok(compared)
    }
}

fn without_source() -> StageError {
    StageError::Halt {
        what: "FILTER_MISSING: a benchmark is sealed and intake was given no place to read match filters from"
            .to_owned(),
        help: "run it with the --store that the benchmark was sealed into".to_owned(),
    }
}

//! Scoring one attempt on a thread of its own, so that the task goes on polling. What it found stays here until the task has committed
//! it; a worker that lost the attempt stops before the next blob.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::kept;
use super::outside::Outside;
use super::plan::Case;
use super::score::{Blobs, Scored, score};
use crate::attest::evaluation::salt;
use crate::domain::keys::{LiveKeys, SealingKey};
use crate::ml::artefact;
use crate::sealing::vault;
use crate::stages::beside::{Beside, Refusal, persist};

/// What every attempt of a process shares.
#[derive(Clone)]
pub struct Shop {
    /// The store.
    pub outside: Arc<dyn Outside>,
    /// Opens sealed rows.
    pub key: Arc<SealingKey>,
    /// The tenant's keys: salts of rows and of what is withheld.
    pub keys: LiveKeys,
    /// Threads for what is resampled.
    pub threads: usize,
    /// One attempt is scored at a time.
    pub bench: Arc<Mutex<()>>,
}

/// What came of an attempt.
pub type Found = Result<Box<Scored>, Refusal>;

/// An attempt that is being scored.
pub struct Work {
    /// Its evaluation.
    pub evaluation_id: String,
    beside: Beside<Found>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Begins to score an attempt, after so many acceptances of its benchmark.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn begin(shop: &Shop, case: Case, acceptances: u64) -> std::io::Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let evaluation_id = case.evaluation_id.clone();
        let (shop, stop) = (shop.clone(), Arc::clone(&cancelled));
        let beside = Beside::begin("hokusai-score", move || {
            let _alone = shop.bench.lock().unwrap_or_else(PoisonError::into_inner);
            let _watched = shop.outside.watch(&case.evaluation_id);
            make(&shop, &case, acceptances, &stop)
        })?;
        Ok(Self { evaluation_id, beside, cancelled })
    }

    /// What it found, once it has.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let died = "the thread that scored ended without a result; the log says why";
        self.beside.found(|| Err(Refusal::new("SCORING_DIED", died)))
    }
}

fn make(shop: &Shop, case: &Case, acceptances: u64, stop: &AtomicBool) -> Option<Found> {
    match made(shop, case, acceptances, stop) {
        Ok(scored) => Some(Ok(Box::new(scored))),
        Err(refusal) => refusal.map(Err),
    }
}

fn made(shop: &Shop, case: &Case, acceptances: u64, stop: &AtomicBool) -> Result<Scored, Option<Refusal>> {
    let id = case.evaluation_id.as_str();
    let most = artefact::MAX_BYTES as u64;
    let (is_stopped, what) = (|| stop.load(Ordering::Relaxed), format!("evaluation {id}"));
    let blob = |artefact, most, code| persist(&is_stopped, &what, || shop.outside.blob(artefact, most, code));
    let blobs = Blobs {
        rows: blob(&case.benchmark.sealed_rows, vault::MAX_BLOB, "BENCHMARK_MISSING")?,
        baseline: blob(&case.attempt.baseline, most, "BASELINE_MISSING")?,
        candidate: blob(&case.attempt.candidate, most, "CANDIDATE_MISSING")?,
    };
    crate::failpoint!("evaluation.scoring");
    let ring = shop.keys.ring();
    let scored = score(case, &blobs, (&shop.key, ring.tree_key()), acceptances, shop.threads).map_err(Some)?;
    drop(blobs);
    let salt = salt(ring.tree_key(), id);
    let kept = kept::seal(shop.key.public(), id, &salt, &scored.record).map_err(Some)?;
    persist(&is_stopped, &what, || shop.outside.keep(id, kept.clone()))?;
    Ok(scored)
}

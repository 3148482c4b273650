//! A step of a run on a thread of its own, so that the task goes on polling: taking the topics' ends, or reading and learning.
//!
//! What it found stays here until the task has committed it. A worker that lost the run stops at its next record or iteration.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::admission::Open;
use super::learn::{Made, learn};
use super::outside::{Outside, Refusal, Trouble};
use super::rows::{Limits, Wanted, read};
use crate::codec::wire::Wire;
use crate::domain::contract::Spec;
use crate::domain::records::TopicEnd;
use crate::ml::declare::declaration;
use crate::ml::{Control, Progress};

/// Progress is told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Pause before what is out of reach is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Rows that a benchmark holds are never learned from, so what is below the same ends depends on the benchmarks in force.
const DATASET_CHANGED: &str = "the rows below the published ends have another digest now: a benchmark that holds some of them may have \
    been sealed or retired since; help: leave as_of out to train on the rows that are free now, or compare with a run made since";

/// What every run of a process shares.
#[derive(Clone)]
pub struct Shop {
    /// Brokers and store.
    pub outside: Arc<dyn Outside>,
    /// Limits of a run.
    pub limits: Limits,
    /// Decodes records.
    pub wire: Wire,
    /// One run learns at a time.
    pub bench: Arc<Mutex<()>>,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The topics' ends: the dataset is fixed.
    Ends(Vec<TopicEnd>),
    /// The model; it is in the store.
    Model(Box<Made>),
    /// There will be none.
    Refused(Refusal),
}

#[derive(Default)]
struct Slate {
    found: Mutex<Option<Found>>,
    /// Iterations done, and at most: the upper and the lower half.
    progress: AtomicU64,
    cancelled: AtomicBool,
}

/// A step that is under way.
pub struct Work {
    /// Its run.
    pub run_id: String,
    /// Whether the dataset was fixed when it began.
    pub fixed: bool,
    slate: Arc<Slate>,
    thread: Option<JoinHandle<()>>,
    told: (u64, Instant),
}

impl Drop for Work {
    fn drop(&mut self) {
        self.slate.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Begins the next step of a run.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn begin(shop: &Shop, open: Open) -> std::io::Result<Self> {
        let slate = Arc::new(Slate::default());
        let (run_id, fixed) = (open.run.run_id.clone(), is_fixed(&open));
        let (shop, own) = (shop.clone(), Arc::clone(&slate));
        let thread = std::thread::Builder::new().name("hokusai-train".to_owned()).spawn(move || {
            let found = if fixed { make(&shop, &open, &own) } else { fix(&shop, &open, &own) };
            *own.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        })?;
        Ok(Self { run_id, fixed, slate, thread: Some(thread), told: (0, Instant::now()) })
    }

    /// What it found, once it has.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let found = self.slate.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if found.is_none() && is_over {
            // Looked at again: it may have ended in between.
            let found = self.slate.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let died =
                || Refusal::new("LEARNER_DIED", "the thread that learned ended without a result; the log says why");
            return Some(found.unwrap_or_else(|| Found::Refused(died())));
        }
        found
    }

    /// Iterations done and at most, if they are worth telling.
    #[must_use]
    pub fn news(&self) -> Option<(i32, i32)> {
        let progress = self.slate.progress.load(Ordering::Relaxed);
        let is_due = progress != self.told.0 && self.told.1.elapsed() >= TELL_EVERY;
        let half = |bits: u64| i32::try_from(bits & 0xFFFF_FFFF).unwrap_or(i32::MAX);
        is_due.then(|| (half(progress >> 32), half(progress)))
    }

    /// The news were told.
    pub fn told(&mut self) {
        self.told = (self.slate.progress.load(Ordering::Relaxed), Instant::now());
    }
}

/// Whether the run's dataset is fixed.
#[must_use]
pub fn is_fixed(open: &Open) -> bool {
    !open.run.offsets.is_empty()
}

/// Tries until it succeeds, fails for good, or is cancelled (then nothing was found).
fn persist<T>(
    slate: &Slate,
    open: &Open,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Option<Refusal>> {
    loop {
        if slate.is_cancelled() {
            return Err(None);
        }
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Trouble::Final(refusal)) => return Err(Some(refusal)),
            Err(Trouble::Cancelled) => return Err(None),
            Err(Trouble::Passing(cause)) => {
                tracing::warn!(run = %open.run.run_id, %cause, "a training run waits, and tries again");
                std::thread::sleep(AGAIN);
            }
        }
    }
}

fn told(done: Result<Found, Option<Refusal>>) -> Option<Found> {
    match done {
        Ok(found) => Some(found),
        Err(refusal) => refusal.map(Found::Refused),
    }
}

fn fix(shop: &Shop, open: &Open, slate: &Slate) -> Option<Found> {
    told(persist(slate, open, || {
        match &open.as_of {
        None => shop.outside.ends().map(Found::Ends),
        Some(digest) => match shop.outside.published(&open.run.model, digest)? {
            Some(ends) => Ok(Found::Ends(ends)),
            None => Err(Refusal::new(
                "UNKNOWN_DATASET",
                "no dataset of that digest is published for the model; help: take the dataset digest of a run that is finished",
            )
            .into()),
        },
    }
    }))
}

fn make(shop: &Shop, open: &Open, slate: &Slate) -> Option<Found> {
    let _alone = shop.bench.lock().unwrap_or_else(PoisonError::into_inner);
    told(made(shop, open, slate))
}

fn made(shop: &Shop, open: &Open, slate: &Slate) -> Result<Found, Option<Refusal>> {
    let refused = |code, detail: String| Some(Refusal::new(code, detail));
    let spec = Spec::from_canonical_json(&open.spec).map_err(|e| refused("BAD_CONTRACT", e.to_string()))?;
    let declared = declaration(&spec).map_err(|e| refused("NOTHING_TO_LEARN", e.to_string()))?;
    let one = |filter| persist(slate, open, || shop.outside.filter(filter));
    let sealed = open.sealed.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let rows = persist(slate, open, || {
        let stopped = || slate.is_cancelled();
        let run = &open.run;
        let wanted = Wanted { model: &run.model, declared: &declared, ends: &run.offsets, sealed: &sealed };
        read(&*shop.outside, &shop.wire, wanted, shop.limits, &stopped)
    })?;
    let run_id = open.run.run_id.as_str();
    let checkpoint = persist(slate, open, || shop.outside.checkpointed(run_id))?;
    let mut following = Following { shop, run_id, slate, kept: Instant::now() };
    let made = learn(open, &declared, rows, shop.limits.threads, checkpoint.as_deref(), &mut following);
    let Some(made) = made.map_err(Some)? else { return Err(None) };
    if open.as_of.as_ref().is_some_and(|digest| *digest != made.dataset.digest) {
        return Err(refused("DATASET_CHANGED", DATASET_CHANGED.to_owned()));
    }
    persist(slate, open, || shop.outside.publish(&open.run.model, &made.dataset.digest, &open.run.offsets))?;
    persist(slate, open, || shop.outside.keep(made.artefact.clone()))?;
    persist(slate, open, || shop.outside.forget(run_id))?;
    Ok(Found::Model(Box::new(Made { artefact: Vec::new(), size: made.artefact.len(), ..made })))
}

/// Follows a run: tells how far it is, keeps checkpoints, stops it once it is cancelled.
struct Following<'a> {
    shop: &'a Shop,
    run_id: &'a str,
    slate: &'a Slate,
    kept: Instant,
}

impl Control for Following<'_> {
    fn after(&mut self, progress: Progress, checkpoint: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        crate::failpoint!("training.learning");
        self.slate.progress.store(u64::from(progress.iteration) << 32 | u64::from(progress.of), Ordering::Relaxed);
        if self.slate.is_cancelled() {
            return ControlFlow::Break(());
        }
        if self.kept.elapsed() >= self.shop.limits.checkpoint_every {
            let bytes = checkpoint();
            // Without one only time is lost.
            if let Err(trouble) = self.shop.outside.checkpoint(self.run_id, bytes) {
                tracing::warn!(run = self.run_id, ?trouble, "no checkpoint was kept");
            }
            self.kept = Instant::now();
        }
        ControlFlow::Continue(())
    }
}

impl Slate {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

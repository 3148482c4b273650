//! A step of a run on a thread of its own, so that the task goes on polling.
//!
//! What it found stays here until the task has committed it. A worker that lost the run stops at its next record or iteration.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::admission::Open;
use super::larder::Larder;
use super::outside::Outside;
use super::rows::Limits;
use crate::codec::wire::Wire;
use crate::ml::{Control, Progress};
use crate::stages::beside::{self, Beside, Refusal, Trouble};

/// Progress is told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(1);

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
    /// Rows that trials share.
    pub larder: Arc<Larder>,
}

/// What is done next for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Taking the topics' ends.
    Fix,
    /// Reading the rows that a search's trials will learn from.
    Survey,
    /// Writing what an external trainer needs.
    Prepare,
    /// Looking at an external trainer's answer, after so many others.
    Import(u32),
    /// Reading and learning.
    Learn,
}

impl Step {
    /// The next step of a run, unless it waits for trials or for an external trainer.
    #[must_use]
    pub fn of(open: &Open) -> Self {
        if let Some(external) = open.external.as_ref().filter(|_| !open.run.offsets.is_empty()) {
            return if external.job.is_none() { Self::Prepare } else { Self::Import(external.looked) };
        }
        match &open.searching {
            _ if open.run.offsets.is_empty() => Self::Fix,
            Some(searching) if searching.winner.is_none() => Self::Survey,
            _ => Self::Learn,
        }
    }
}

/// How far a step is, and whether anybody still wants it.
#[derive(Debug, Default)]
pub struct Pace {
    /// Iterations done, and at most: the upper and the lower half.
    progress: AtomicU64,
    cancelled: AtomicBool,
    abandoned: AtomicBool,
}

impl Pace {
    /// Whether the step has to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A step that is under way; `F` is what it finds.
pub struct Work<F> {
    /// Under what its run stands in the state.
    pub key: Vec<u8>,
    /// Which step.
    pub step: Step,
    beside: Beside<F>,
    pace: Arc<Pace>,
    told: (u64, Instant),
}

impl<F> Drop for Work<F> {
    fn drop(&mut self) {
        self.pace.cancelled.store(true, Ordering::Relaxed);
    }
}

impl<F: Clone + From<Refusal> + Send + 'static> Work<F> {
    /// Begins a step; `checkpoint` is the name under which it keeps its checkpoints.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn begin(
        (key, step): (Vec<u8>, Step),
        shop: &Shop,
        checkpoint: String,
        work: impl FnOnce(&Shop, &Pace) -> Option<F> + Send + 'static,
    ) -> std::io::Result<Self> {
        let pace = Arc::<Pace>::default();
        let (shop, own_pace) = (shop.clone(), Arc::clone(&pace));
        let beside = Beside::begin("hokusai-train", move || {
            let watched = match step {
                Step::Learn => shop.outside.watch(&checkpoint),
                Step::Survey => shop.outside.watch(&format!("{checkpoint}-survey")),
                Step::Prepare => shop.outside.watch(&format!("{checkpoint}-job")),
                Step::Import(answer) => shop.outside.watch(&format!("{checkpoint}-answer-{answer}")),
                Step::Fix => None,
            };
            let found = work(&shop, &own_pace);
            drop(watched);
            if own_pace.abandoned.load(Ordering::Relaxed)
                && let Err(trouble) = shop.outside.forget(&checkpoint)
            {
                tracing::warn!(checkpoint, ?trouble, "the checkpoint of a cancelled run stays in the store");
            }
            found
        })?;
        Ok(Self { key, step, beside, pace, told: (0, Instant::now()) })
    }

    /// What it found, once it has.
    #[must_use]
    pub fn found(&self) -> Option<F> {
        let died = "the thread that learned ended without a result; the log says why";
        self.beside.found(|| Refusal::new("LEARNER_DIED", died).into())
    }

    /// Iterations done and at most, if they are worth telling.
    #[must_use]
    pub fn news(&self) -> Option<(i32, i32)> {
        let progress = self.pace.progress.load(Ordering::Relaxed);
        let is_due = progress != self.told.0 && self.told.1.elapsed() >= TELL_EVERY;
        let half = |bits: u64| i32::try_from(bits & 0xFFFF_FFFF).unwrap_or(i32::MAX);
        is_due.then(|| (half(progress >> 32), half(progress)))
    }

    /// The news were told.
    pub fn told(&mut self) {
        self.told = (self.pace.progress.load(Ordering::Relaxed), Instant::now());
    }

    /// Its run is over: the step stops, and nobody will go on from its checkpoint.
    pub fn abandon(self) {
        self.pace.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Tries until it succeeds, fails for good, or is cancelled (then nothing was found).
///
/// # Errors
/// Why it failed; none when it was cancelled.
pub fn persist<T>(
    pace: &Pace,
    run_id: &str,
    attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Option<Refusal>> {
    beside::persist(&|| pace.is_cancelled(), &format_args!("training run {run_id}"), attempt)
}

/// Follows a learner: tells how far it is, keeps checkpoints, stops it once it is cancelled.
pub struct Following<'a> {
    shop: &'a Shop,
    checkpoint: &'a str,
    pace: &'a Pace,
    kept: Instant,
}

impl<'a> Following<'a> {
    /// Follows a learner whose checkpoints have this name.
    #[must_use]
    pub fn new(shop: &'a Shop, checkpoint: &'a str, pace: &'a Pace) -> Self {
        Self { shop, checkpoint, pace, kept: Instant::now() }
    }
}

impl Control for Following<'_> {
    fn after(&mut self, progress: Progress, checkpoint: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        crate::failpoint!("training.learning");
        self.pace.progress.store(u64::from(progress.iteration) << 32 | u64::from(progress.of), Ordering::Relaxed);
        if self.pace.is_cancelled() {
            return ControlFlow::Break(());
        }
        if self.kept.elapsed() >= self.shop.limits.checkpoint_every {
            // Without one only time is lost.
            if let Err(trouble) = self.shop.outside.checkpoint(self.checkpoint, checkpoint()) {
                tracing::warn!(checkpoint = self.checkpoint, ?trouble, "no checkpoint was kept");
            }
            self.kept = Instant::now();
        }
        ControlFlow::Continue(())
    }
}

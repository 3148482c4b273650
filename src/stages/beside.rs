//! Long work beside a task: on a thread of its own, so that the task goes on polling, with tries until brokers and store answer.
//!
//! What the work found stays here until the task has committed it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::records::Position;

/// Pause before what is out of reach is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why there is no result, told to whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason code.
    pub code: &'static str,
    /// What is wrong and the way out.
    pub detail: String,
}

impl Refusal {
    /// A refusal; control characters and all beyond 1,000 characters are left out.
    #[must_use]
    pub fn new(code: &'static str, detail: impl std::fmt::Display) -> Self {
        let detail = detail.to_string().replace("\nhelp:", "; help:");
        Self { code, detail: detail.chars().filter(|c| !c.is_control()).take(1_000).collect() }
    }

    /// There is no result because the record at this place took the request back.
    #[must_use]
    pub fn cancelled(by: &Position) -> Self {
        Self::new("CANCELLED", format!("as asked for by the record {by}"))
    }
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The same again may work: brokers or store out of reach.
    Passing(String),
    /// It will not.
    Final(Refusal),
    /// The work was taken away from this worker.
    Cancelled,
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Final(refusal)
    }
}

/// Tries until it succeeds, fails for good, or is cancelled (then nothing was found). `what` names the work in the log.
///
/// # Errors
/// Why it failed; none when it was cancelled.
pub fn persist<T>(
    is_cancelled: &dyn Fn() -> bool,
    what: &dyn std::fmt::Display,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Option<Refusal>> {
    loop {
        if is_cancelled() {
            return Err(None);
        }
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Trouble::Final(refusal)) => return Err(Some(refusal)),
            Err(Trouble::Cancelled) => return Err(None),
            Err(Trouble::Passing(cause)) => {
                tracing::warn!(%cause, "{what} waits, and tries again");
                std::thread::sleep(AGAIN);
            }
        }
    }
}

/// Work that is under way; `F` is what it finds.
#[derive(Debug)]
pub struct Beside<F> {
    found: Arc<Mutex<Option<F>>>,
    thread: JoinHandle<()>,
}

impl<F: Clone + Send + 'static> Beside<F> {
    /// Begins the work on a thread of this name; it finds nothing when it was cancelled.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn begin(name: &str, work: impl FnOnce() -> Option<F> + Send + 'static) -> std::io::Result<Self> {
        let found = Arc::<Mutex<Option<F>>>::default();
        let own = Arc::clone(&found);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let came = work();
            *own.lock().unwrap_or_else(PoisonError::into_inner) = came;
        })?;
        Ok(Self { found, thread })
    }

    /// What it found, once it has; `died` when its thread ended without a result: it panicked, and the log says why.
    #[must_use]
    pub fn found(&self, died: impl FnOnce() -> F) -> Option<F> {
        // Asked first: a result that comes in between is seen.
        let is_over = self.thread.is_finished();
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.or_else(|| is_over.then(died))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    fn found(work: &Beside<u8>) -> u8 {
        let begun = Instant::now();
        loop {
            match work.found(|| 255) {
                Some(found) => return found,
                None => assert!(begun.elapsed() < Duration::from_secs(60), "it never ends"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn work_is_asked_as_often_as_one_likes_and_one_that_panics_is_told_to_have_died() {
        let (go, wait) = mpsc::channel::<()>();
        let work = Beside::begin("works", move || wait.recv().ok().map(|()| 7)).unwrap();
        assert_eq!(work.found(|| 255), None);
        go.send(()).unwrap();
        assert_eq!([found(&work), found(&work)], [7, 7]);
        assert_eq!(found(&Beside::begin("dies", || panic!("on purpose")).unwrap()), 255);
    }

    #[test]
    fn what_passes_is_tried_again_until_it_succeeds_fails_or_nobody_wants_it() {
        let again = || Trouble::Passing("out of reach".to_owned());
        let mut answers = vec![Ok(3), Err(again())];
        assert_eq!(persist(&|| false, &"a test", || answers.pop().unwrap()), Ok(3));
        let refusal = Refusal::new("NO", "never");
        assert_eq!(persist::<u8>(&|| false, &"a test", || Err(refusal.clone().into())), Err(Some(refusal.clone())));
        assert_eq!(persist::<u8>(&|| true, &"a test", || unreachable!()), Err(None));
        assert_eq!(persist::<u8>(&|| false, &"a test", || Err(Trouble::Cancelled)), Err(None));
    }
}

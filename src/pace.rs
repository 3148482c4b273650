//! How often a log line may repeat: what anybody can cause from outside must not fill a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through per pause and counts the others.
#[derive(Debug)]
pub(crate) struct Pace {
    pause: Duration,
    /// When the last line went through, and how many were held back since.
    last: Mutex<(Option<Instant>, u64)>,
}

impl Pace {
    /// One line per `pause`.
    pub(crate) const fn new(pause: Duration) -> Self {
        Self { pause, last: Mutex::new((None, 0)) }
    }

    /// Whether the line may go out now: how many were held back before it.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.is_some_and(|at| now.saturating_duration_since(at) < self.pause) {
            last.1 = last.1.saturating_add(1);
            return None;
        }
        last.0 = Some(now);
        Some(std::mem::take(&mut last.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_goes_through_per_pause_and_tells_how_many_did_not() {
        let (pace, start) = (Pace::new(Duration::from_secs(1)), Instant::now());
        let at = |ms| pace.admit_at(start + Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(1), at(999), at(1_000), at(1_001), at(5_000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}

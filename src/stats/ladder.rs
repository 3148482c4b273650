//! The Ladder: a leaderboard that cannot be climbed by trying (Blum & Hardt, "The Ladder: a reliable leaderboard for machine
//! learning competitions", 2015, §3).
//!
//! A score is released only when it beats the best one so far by a step, and then rounded to the step. What is released
//! over any number of attempts tells little about the sealed rows.

use super::exact::{Moments, Overflow};
use super::fixed::MICRO;
use crate::math;

/// The Ladder with a fixed step, on losses in millionths (of a metric where more is better: 1 − value, or −value).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    step: i64,
    best: Option<i64>,
}

impl Ladder {
    /// A ladder whose rungs are `step` millionths apart; `None` unless it is positive.
    #[must_use]
    pub fn new(step: i64) -> Option<Self> {
        (step > 0).then_some(Self { step, best: None })
    }

    /// The ladder that has released `best` before.
    #[must_use]
    pub fn resumed(step: i64, best: Option<i64>) -> Option<Self> {
        Self::new(step).map(|ladder| Self { best, ..ladder })
    }

    /// What is released after an attempt with this loss: the loss rounded to the step (half to even) if it is more than a step
    /// below the best release, else the best release again.
    pub fn release(&mut self, loss: i64) -> i64 {
        let released = match self.best {
            Some(best) if i128::from(loss) >= i128::from(best) - i128::from(self.step) => best,
            _ => round_to(loss, self.step),
        };
        self.best = Some(released);
        released
    }

    /// The best release so far.
    #[must_use]
    pub fn best(&self) -> Option<i64> {
        self.best
    }
}

/// The Ladder without a step to choose (§4 of the paper): an attempt must beat the best one by the standard error of their
/// difference, and releases are rounded to one row in n. It keeps the best attempt's losses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterFreeLadder {
    best: Option<(Vec<i64>, i128)>,
}

impl ParameterFreeLadder {
    /// What is released after an attempt with these per-row losses in millionths: a sum over the rows, in whole units. The rows are
    /// the same, and in the same order, in every attempt.
    ///
    /// # Errors
    /// [`Overflow`] if a sum does not fit.
    pub fn release(&mut self, losses: &[i64]) -> Result<i128, Overflow> {
        let own = Moments::of(losses.iter().map(|loss| i128::from(*loss)))?;
        if let Some((best, released)) = &self.best {
            let differences = losses.iter().zip(best).map(|(own, best)| i128::from(*own) - i128::from(*best));
            let deviation = math::sqrt(Moments::of(differences)?.variance());
            // Means and standard error, all times the rows.
            let bound = (*released * i128::from(MICRO)) as f64 - deviation * math::sqrt(losses.len() as f64);
            if best.len() != losses.len() || own.sum() as f64 >= bound {
                return Ok(*released);
            }
        }
        let micro = i128::from(MICRO);
        let (whole, rest) = (own.sum().div_euclid(micro), own.sum().rem_euclid(micro));
        let up = 2 * rest > micro || (2 * rest == micro && whole % 2 != 0);
        let released = whole + i128::from(up);
        self.best = Some((losses.to_vec(), released));
        Ok(released)
    }
}

fn round_to(value: i64, step: i64) -> i64 {
    let (rung, rest) = (value.div_euclid(step), value.rem_euclid(step));
    let up = i128::from(rest) * 2 > i128::from(step) || (i128::from(rest) * 2 == i128::from(step) && rung % 2 != 0);
    (rung + i64::from(up)).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Derived by hand from Algorithm 1 of the paper, with η = 0.01.
    #[test]
    fn a_release_moves_only_past_a_whole_step() {
        let mut ladder = Ladder::new(10_000).unwrap();
        let losses = [400_000, 391_000, 390_000, 389_999, 395_000, 379_000, 100_000];
        let released: Vec<i64> = losses.iter().map(|loss| ladder.release(*loss)).collect();
        assert_eq!(released, [400_000, 400_000, 400_000, 390_000, 390_000, 380_000, 100_000]);
        assert_eq!(Ladder::new(0), None);
        assert_eq!(
            (round_to(15_000, 10_000), round_to(25_000, 10_000), round_to(-15_000, 10_000)),
            (20_000, 20_000, -20_000)
        );
    }

    proptest! {
        #[test]
        fn releases_never_get_worse_and_change_at_most_once_per_step(losses in prop::collection::vec(0_i64..1_000_000, 1..200)) {
            let mut ladder = Ladder::new(10_000).unwrap();
            let mut last = None;
            let mut changes = 0;
            for loss in losses {
                let released = ladder.release(loss);
                prop_assert!(last.is_none_or(|last| released <= last));
                prop_assert!((released - loss).abs() <= 5_000 || Some(released) == last);
                changes += i32::from(Some(released) != last);
                last = Some(released);
            }
            prop_assert!(changes <= 101);
        }
    }
}

//! Trials: which hyperparameters are tried, and which go on. Pure functions of the recipe and of results, so that any worker
//! derives the same list and the same survivors.
//!
//! Budgets are counted in rows × iterations, never in seconds. Successive halving (Jamieson & Talwalkar 2016) is synchronous: a rung is
//! closed when all of its trials are in, however late; ties go to the lower trial number.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::math;
use crate::ml::random::{Purpose, uniform};
use crate::ml::{LearnError, Learner, within};

/// Most trials of a search.
pub const MAX_TRIALS: u32 = 10_000;

/// What a hyperparameter may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Range {
    /// Uniform on [low, high].
    Uniform(f64, f64),
    /// Uniform in the logarithm on [low, high], both positive.
    Log(f64, f64),
    /// A whole number in low..=high.
    Whole(i64, i64),
    /// A whole number in low..=high, uniform in the logarithm.
    LogWhole(i64, i64),
    /// One of these.
    Choice(Vec<Value>),
}

/// A search as a request declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Ranges by hyperparameter, in the order of their names.
    pub space: std::collections::BTreeMap<String, Range>,
    /// Trials of the first rung.
    pub trials: u32,
    /// Of each rung, one in `keep_one_in` goes on; absent means that every trial gets the whole budget at once.
    #[serde(default)]
    pub keep_one_in: Option<u32>,
    /// Iterations of a trial in the last rung: trees, or steps.
    pub iterations: u32,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number; 0 is the request's parameters as they are.
    pub trial: u32,
    /// Complete parameters, but for the iterations, which the rung sets.
    pub parameters: Map<String, Value>,
}

/// A trial's validation loss at the end of a rung; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its number.
    pub trial: u32,
    /// Validation loss; `None` for a trial that failed, which never goes on.
    pub loss: Option<f64>,
}

/// What comes after the outcomes of a rung.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Some of its trials are still out.
    Wait,
    /// These go on with this many iterations.
    Rung {
        /// Trial numbers, ascending.
        trials: Vec<u32>,
        /// Iterations of each.
        iterations: u32,
    },
    /// The search is over; the winner, if any trial succeeded.
    Done(Option<u32>),
}

impl Search {
    /// Checks the search against its learner: every corner of the space must be parameters that the learner takes.
    ///
    /// # Errors
    /// An unknown hyperparameter, an empty or inverted range, too many trials.
    pub fn check(&self, learner: &dyn Learner, fixed: &Map<String, Value>) -> Result<(), LearnError> {
        within("search.trials", self.trials.into(), 1.0, MAX_TRIALS.into())?;
        within("search.iterations", self.iterations.into(), 1.0, 20_000.0)?;
        within("search.keep_one_in", self.keep_one_in.unwrap_or(2).into(), 2.0, 16.0)?;
        for (name, range) in &self.space {
            if name == "iterations" {
                return Err(wrong(name, "the rungs set it"));
            }
            for value in range.corners(name)? {
                let mut parameters = fixed.clone();
                parameters.insert(name.clone(), value);
                learner.parameters(&parameters)?;
            }
        }
        Ok(())
    }

    /// The trials of the first rung.
    #[must_use]
    pub fn trials(&self, fixed: &Map<String, Value>, seed: u64) -> Vec<Trial> {
        let one = |trial| {
            let mut parameters = fixed.clone();
            for (dimension, (name, range)) in self.space.iter().enumerate().filter(|_| trial > 0) {
                let draw = uniform(seed, Purpose::Trials, trial, dimension as u64);
                parameters.insert(name.clone(), range.at(draw));
            }
            Trial { trial, parameters }
        };
        (0..self.trials).map(one).collect()
    }

    /// Rungs, at least one.
    #[must_use]
    pub fn rungs(&self) -> u32 {
        let Some(keep) = self.keep_one_in else { return 1 };
        let (mut rungs, mut left) = (1, self.trials);
        // A rung has as many iterations as its successor, divided by `keep_one_in`, and at least one.
        while left > keep && self.iterations / keep.saturating_pow(rungs) > 0 {
            left = left.div_ceil(keep);
            rungs += 1;
        }
        rungs
    }

    /// Trials of this rung at most: those that fail go no further.
    #[must_use]
    pub fn width(&self, rung: u32) -> u32 {
        let keep = self.keep_one_in.unwrap_or(2);
        (0..rung).fold(self.trials, |left, _| left.div_ceil(keep))
    }

    /// Iterations of all trials of all rungs at most, and once more those of the winner.
    #[must_use]
    pub fn planned(&self) -> u64 {
        let rung = |rung| u64::from(self.width(rung)) * u64::from(self.iterations(rung));
        (0..self.rungs()).map(rung).sum::<u64>() + u64::from(self.iterations)
    }

    /// Iterations of a trial in this rung (0 is the first); the last has all of them.
    #[must_use]
    pub fn iterations(&self, rung: u32) -> u32 {
        let keep = u64::from(self.keep_one_in.unwrap_or(2));
        let later = self.rungs().saturating_sub(1 + rung);
        (u64::from(self.iterations) / keep.saturating_pow(later)).max(1) as u32
    }

    /// What follows on `rung`, whose trials were `trials`, once these outcomes are in, in any order.
    #[must_use]
    pub fn next(&self, rung: u32, trials: &[u32], outcomes: &[Outcome]) -> Next {
        let mut known = std::collections::BTreeMap::new();
        for outcome in outcomes {
            known.entry(outcome.trial).or_insert(outcome.loss); // the first, should one come twice
        }
        let mut ranked = Vec::with_capacity(trials.len());
        for &trial in trials {
            match known.get(&trial) {
                None => return Next::Wait,
                Some(loss) => ranked.extend(loss.filter(|loss| !loss.is_nan()).map(|loss| (loss, trial))),
            }
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let keep = self.keep_one_in.unwrap_or(2) as usize;
        if rung + 1 >= self.rungs() || ranked.is_empty() {
            return Next::Done(ranked.first().map(|&(_, trial)| trial));
        }
        let mut trials: Vec<u32> = ranked.iter().take(trials.len().div_ceil(keep)).map(|&(_, trial)| trial).collect();
        trials.sort_unstable();
        Next::Rung { trials, iterations: self.iterations(rung + 1) }
    }
}

fn wrong(name: &str, problem: &str) -> LearnError {
    LearnError::Parameter { name: format!("search.space.{name}"), problem: problem.to_owned() }
}

impl Range {
    fn corners(&self, name: &str) -> Result<Vec<Value>, LearnError> {
        let ends = |low: f64, high: f64, positive: bool| {
            let fine = low.is_finite() && high.is_finite() && low <= high && (!positive || low > 0.0);
            if fine {
                Ok(())
            } else {
                Err(wrong(name, "low and high are finite, low at most high, positive for a logarithm"))
            }
        };
        match self {
            Self::Uniform(low, high) => ends(*low, *high, false)?,
            Self::Log(low, high) => ends(*low, *high, true)?,
            Self::Whole(low, high) => ends(*low as f64, *high as f64, false)?,
            Self::LogWhole(low, high) => ends(*low as f64, *high as f64, true)?,
            Self::Choice(values) if values.is_empty() => return Err(wrong(name, "no choices")),
            Self::Choice(values) if values.len() > 256 => return Err(wrong(name, "more than 256 choices")),
            Self::Choice(values) => return Ok(values.clone()),
        }
        Ok(vec![self.at(0.0), self.at(1.0)])
    }

    /// The value at `draw` in [0, 1].
    fn at(&self, draw: f64) -> Value {
        let between = |low: f64, high: f64| low + draw * (high - low);
        let log = |low: f64, high: f64| math::exp(between(math::ln(low), math::ln(high))).clamp(low, high);
        match self {
            Self::Uniform(low, high) => Value::from(between(*low, *high).clamp(*low, *high)),
            Self::Log(low, high) => Value::from(log(*low, *high)),
            Self::Whole(low, high) => Value::from((between(*low as f64, *high as f64 + 1.0).floor() as i64).min(*high)),
            Self::LogWhole(low, high) => Value::from((log(*low as f64, *high as f64 + 1.0).floor() as i64).min(*high)),
            Self::Choice(values) => {
                let at = (draw * values.len() as f64) as usize;
                values.get(at.min(values.len().saturating_sub(1))).cloned().unwrap_or(Value::Null)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ml::boost::Trees;

    fn search(trials: u32, keep_one_in: Option<u32>) -> Search {
        let space = serde_json::json!({
            "learning_rate": {"log": [0.01, 0.3]},
            "leaves": {"log_whole": [4, 128]},
            "growth": {"choice": ["leaf", "depth"]},
            "column_sample": {"uniform": [0.5, 1.0]},
            "max_depth": {"whole": [3, 12]},
        });
        Search { space: serde_json::from_value(space).unwrap(), trials, keep_one_in, iterations: 90 }
    }

    #[test]
    fn the_same_recipe_gives_the_same_trials_and_more_trials_change_none() {
        let fixed = Map::new();
        let few = search(5, None).trials(&fixed, 7);
        assert_eq!(search(50, None).trials(&fixed, 7)[..5], few);
        assert_ne!(search(5, None).trials(&fixed, 8), few);
        assert!(few[0].parameters.is_empty(), "trial 0 is the request as it is");
    }

    #[test]
    fn every_trial_is_parameters_that_the_learner_takes() {
        let search = search(200, Some(3));
        search.check(&Trees, &Map::new()).unwrap();
        for trial in search.trials(&Map::new(), 1) {
            Trees.parameters(&trial.parameters).unwrap();
        }
    }

    #[test]
    fn a_search_that_its_learner_would_refuse_is_refused_before_the_first_trial() {
        for (name, range) in [
            ("learning_rate", serde_json::json!({"uniform": [0.1, 7.0]})),
            ("learning_rat", serde_json::json!({"uniform": [0.1, 0.2]})),
            ("lambda", serde_json::json!({"log": [0.0, 1.0]})),
            ("lambda", serde_json::json!({"uniform": [2.0, 1.0]})),
            ("growth", serde_json::json!({"choice": []})),
            ("iterations", serde_json::json!({"whole": [1, 2]})),
        ] {
            let space = [(name.to_owned(), serde_json::from_value(range).unwrap())].into();
            let search = Search { space, trials: 3, keep_one_in: None, iterations: 10 };
            assert!(search.check(&Trees, &Map::new()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_rung_closes_only_when_all_are_in_and_the_order_of_arrival_does_not_matter() {
        let search = search(9, Some(3));
        assert_eq!((search.rungs(), search.iterations(0), search.iterations(1)), (2, 30, 90));
        let trials: Vec<u32> = (0..9).collect();
        let loss = [0.5, 0.4, 0.4, 0.9, 0.4, 0.4, 0.7, f64::NAN, 0.6];
        let mut outcomes: Vec<Outcome> =
            trials.iter().map(|&trial| Outcome { trial, loss: Some(loss[trial as usize]) }).collect();
        assert_eq!(search.next(0, &trials, &outcomes[..8]), Next::Wait);
        let expected = Next::Rung { trials: vec![1, 2, 4], iterations: 90 };
        assert_eq!(search.next(0, &trials, &outcomes), expected);
        outcomes.reverse();
        assert_eq!(search.next(0, &trials, &outcomes), expected, "ties go to the lower number");
        assert_eq!(search.next(1, &[1, 2, 4], &outcomes), Next::Done(Some(1)));
    }

    #[test]
    fn what_a_search_costs_is_known_before_it_begins() {
        let halving = search(9, Some(3));
        assert_eq!((halving.width(0), halving.width(1), halving.planned()), (9, 3, 9 * 30 + 3 * 90 + 90));
        assert_eq!(search(5, None).planned(), 5 * 90 + 90);
        let many = Search { iterations: 4, ..search(1_000, Some(16)) };
        assert_eq!((many.rungs(), many.iterations(0)), (1, 4), "no rung has less than one iteration");
    }

    #[test]
    fn a_search_whose_trials_all_failed_has_no_winner() {
        let search = search(2, None);
        let outcomes = [0, 1].map(|trial| Outcome { trial, loss: None });
        assert_eq!(search.next(0, &[0, 1], &outcomes), Next::Done(None));
    }
}

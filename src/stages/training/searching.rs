//! A run's search: pure functions of the request and of its trials' results, so that whoever folds `training.jobs` finds the same
//! winner.
//!
//! A rung is synchronous: it is closed when all of its trials are in, in whatever order. The winner is learned again by the run itself,
//! as if its parameters had been asked for: the same rows, fold and seed give what the trial had, and nothing of a trial needs to be kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::admission::{listed, refuse};
use crate::codec::json::parse_strict;
use crate::domain::limits::MAX_NESTING;
use crate::domain::records::{NamedValue, TrialResult};
use crate::ml::Learner;
use crate::ml::search::{Next, Outcome, Search};
use crate::stages::beside::Refusal;

/// Most trials of a run's search.
pub const MAX_TRIALS: u32 = 1_000;
/// Longest search, as JSON, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// Most parameters that a search varies.
const MAX_SPACE: usize = 32;

/// A search that is under way, as it stands in the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searching {
    /// What was asked for, as JSON.
    pub declared: String,
    /// The request's own complete parameters, as JSON: those of trial 0.
    pub fixed: String,
    /// Iterations of all trials and of the winner at most.
    pub planned: u64,
    /// Those of the trials that are in.
    pub spent: u64,
    /// The present rung, from 0.
    pub rung: u32,
    /// Its trials, ascending; empty before the first rung.
    pub trials: Vec<u32>,
    /// What came of them, in the order of arrival.
    pub heard: Vec<Heard>,
    /// Who won, once the search is over.
    pub winner: Option<u32>,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its number.
    pub trial: u32,
    /// Its loss as text, so that no reading and writing changes it; none when it failed.
    pub loss: Option<String>,
    /// Why it failed.
    pub reason: String,
}

/// What follows on a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follows {
    /// Nobody waits for it.
    Nothing,
    /// The rung is still open.
    Wait,
    /// Another rung begins.
    Rung,
    /// The search is over, with a winner.
    Won(u32),
    /// The search is over, without one.
    Failed(Refusal),
}

/// A search as a request asks for it; `given` are the request's own parameters, which must not set what the rungs do, and `fixed` all.
///
/// # Errors
/// Why it cannot be.
pub fn begin(
    text: &str,
    learner: &dyn Learner,
    given: &Map<String, Value>,
    fixed: &Value,
    seed: i64,
) -> Result<Searching, Refusal> {
    let bad = |problem: &dyn std::fmt::Display| Refusal::new("BAD_SEARCH", problem);
    if text.len() > MAX_BYTES {
        return Err(bad(&format_args!("a search has at most {MAX_BYTES} bytes")));
    }
    let value = parse_strict(text.as_bytes(), MAX_NESTING).map_err(|e| bad(&e))?;
    let search: Search = serde_json::from_value(value).map_err(|e| bad(&e))?;
    if given.contains_key("iterations") {
        return Err(bad(&"the search sets the iterations; help: leave params.iterations out"));
    }
    if search.trials > MAX_TRIALS || search.space.is_empty() || search.space.len() > MAX_SPACE {
        return Err(bad(&format_args!("a search has 1 to {MAX_TRIALS} trials over 1 to {MAX_SPACE} parameters")));
    }
    if search.space.contains_key("validation") || fixed.get("validation").and_then(Value::as_f64) == Some(0.0) {
        return Err(bad(&"trials are judged by one validation fold; help: params.validation between 0 and 1"));
    }
    let own = fixed.as_object().cloned().unwrap_or_default();
    search.check(learner, &own).map_err(|e| bad(&e))?;
    let declared = serde_json::to_string(&search).map_err(|e| bad(&e))?;
    let searching = Searching { declared, fixed: fixed.to_string(), planned: search.planned(), ..Searching::default() };
    let all: Vec<u32> = (0..search.trials).collect();
    // A corner of the space may be fine, and two of them together not. Rungs between the first and the last differ in iterations alone.
    for rung in [0, search.rungs() - 1] {
        parameters(&searching, learner, seed, rung, &all).map_err(|refusal| bad(&refusal.detail))?;
    }
    Ok(searching)
}

/// Complete parameters of these trials in a rung: as the learner takes them, and as they are listed.
///
/// # Errors
/// The learner would not take them.
pub fn parameters(
    searching: &Searching,
    learner: &dyn Learner,
    seed: i64,
    rung: u32,
    trials: &[u32],
) -> Result<Vec<(Value, Vec<NamedValue>)>, Refusal> {
    let damaged = |e: serde_json::Error| Refusal::new("BAD_SEARCH", e);
    let search: Search = serde_json::from_str(&searching.declared).map_err(damaged)?;
    let fixed: Map<String, Value> = serde_json::from_str(&searching.fixed).map_err(damaged)?;
    let all = search.trials(&fixed, seed.cast_unsigned());
    let one = |number: &u32| {
        let trial = all.get(*number as usize).ok_or_else(|| Refusal::new("BAD_SEARCH", "no such trial"))?;
        let mut parameters = trial.parameters.clone();
        parameters.insert("iterations".to_owned(), search.iterations(rung).into());
        let complete = learner.parameters(&parameters).or_else(|e| refuse(e.code(), e))?;
        let named = listed(&complete)?;
        Ok((complete, named))
    };
    trials.iter().map(one).collect()
}

impl Searching {
    /// The first rung begins.
    ///
    /// # Errors
    /// The search is damaged.
    pub fn start(&mut self) -> Result<(), Refusal> {
        let search = self.search()?;
        (self.rung, self.trials, self.heard) = (0, (0..search.trials).collect(), Vec::new());
        Ok(())
    }

    fn search(&self) -> Result<Search, Refusal> {
        serde_json::from_str(&self.declared).map_err(|e| Refusal::new("BAD_SEARCH", e))
    }

    /// Trials of the present rung that are not in.
    #[must_use]
    pub fn out(&self) -> Vec<u32> {
        let is_in = |trial: &u32| self.heard.iter().any(|heard| heard.trial == *trial);
        self.trials.iter().copied().filter(|trial| !is_in(trial)).collect()
    }

    /// Takes a result in.
    ///
    /// # Errors
    /// The search is damaged.
    pub fn hear(&mut self, result: &TrialResult) -> Result<Follows, Refusal> {
        let number = u32::try_from(result.number).unwrap_or(u32::MAX);
        if self.winner.is_some() || i64::from(result.rung) != i64::from(self.rung) || !self.out().contains(&number) {
            return Ok(Follows::Nothing);
        }
        let search = self.search()?;
        self.spent += u64::from(search.iterations(self.rung));
        self.heard.push(Heard { trial: number, loss: result.loss.clone(), reason: result.reason.clone() });
        let loss = |heard: &Heard| heard.loss.as_ref().and_then(|loss| loss.parse::<f64>().ok());
        let outcomes: Vec<Outcome> =
            self.heard.iter().map(|heard| Outcome { trial: heard.trial, loss: loss(heard) }).collect();
        Ok(match search.next(self.rung, &self.trials, &outcomes) {
            Next::Wait => Follows::Wait,
            Next::Rung { trials, .. } => {
                (self.rung, self.trials, self.heard) = (self.rung + 1, trials, Vec::new());
                Follows::Rung
            }
            Next::Done(Some(winner)) => {
                self.winner = Some(winner);
                Follows::Won(winner)
            }
            Next::Done(None) => Follows::Failed(self.failed()),
        })
    }

    /// Why nobody won: what the lowest trial said, for all.
    fn failed(&self) -> Refusal {
        let lowest = self.heard.iter().min_by_key(|heard| heard.trial);
        let (trial, reason) = lowest.map_or((0, ""), |heard| (heard.trial, heard.reason.as_str()));
        let detail = format!(
            "none of the {} trials of rung {} gave a loss, trial {trial}: {reason}; help: the view trials says why",
            self.trials.len(),
            self.rung
        );
        Refusal::new("SEARCH_FAILED", detail)
    }
}

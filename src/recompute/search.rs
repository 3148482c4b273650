//! A search played again: all trials of all rungs, one after the other.
//!
//! The recipe binds what was searched for, not who won, so without this an evaluator could have taken any model of the learner for the
//! winner.

use std::ops::ControlFlow;

use serde_json::Value;

use super::{Mismatch, With, recomputed};
use crate::domain::records::TrialResult;
use crate::ml::{Control, Progress, Task, learner};
use crate::stages::beside::Refusal;
use crate::stages::training::admission::Open;
use crate::stages::training::learn::{Prepared, Way, fit};
use crate::stages::training::searching::{Follows, Searching, parameters};

/// Shows that the run's parameters won its search; says how many trials that took. Nothing is said of a run without a search.
///
/// # Errors
/// Other parameters won (16), or none.
pub fn recompute(open: &Open, rows: &Prepared, task: &Task, with: &With<'_>) -> Result<Option<u64>, Mismatch> {
    let Some(searching) = open.searching.clone() else { return Ok(None) };
    let wrong = |refusal: Refusal| recomputed(format!("the search: {}: {}", refusal.code, refusal.detail));
    let (winner, won, trials) = play(open, searching, rows, task, with).map_err(wrong)?;
    let said: Value = serde_json::from_str(&open.parameters).map_err(|e| recomputed(e.to_string()))?;
    let differ: Vec<String> = won
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| said.get(name) != Some(value))
        .map(|(name, value)| format!("{name} {value} instead of {}", said.get(name).unwrap_or(&Value::Null)))
        .collect();
    if said != won {
        return Err(recomputed(format!("the search is won by trial {winner}: {}", differ.join(", "))));
    }
    Ok(Some(trials))
}

/// The winner, its complete parameters, and how many trials there were.
fn play(
    open: &Open,
    mut searching: Searching,
    rows: &Prepared,
    task: &Task,
    with: &With<'_>,
) -> Result<(u32, Value, u64), Refusal> {
    let algorithm = open.run.algorithm.as_str();
    let learner = learner(algorithm).map_err(|e| Refusal::new(e.code(), e))?;
    let damaged = || Refusal::new("BAD_SEARCH", "it does not come to an end");
    searching.start()?;
    let mut count = 0;
    loop {
        let (rung, numbers) = (searching.rung, searching.trials.clone());
        let trials = parameters(&searching, learner, open.run.seed, rung, &numbers)?;
        let mut follows = Follows::Nothing;
        for (number, (parameters, _)) in numbers.into_iter().zip(trials) {
            let seed = open.run.seed.cast_unsigned();
            let way = Way { algorithm, parameters: &parameters, seed, threads: with.threads };
            let mut telling = Telling { with, before: searching.spent, of: searching.planned };
            let loss = match fit(rows, task, &way, (&open.run.run_id, None), &mut telling) {
                Ok(None) => return Err(Refusal::new("INTERRUPTED", "a trial was interrupted")),
                Ok(Some(fitted)) => fitted.loss(),
                Err(refusal) => Err(refusal),
            };
            let (loss, reason) = match loss {
                Ok(loss) => (Some(loss), String::new()),
                Err(refusal) => (None, refusal.code.to_owned()),
            };
            let (number, rung) = (number.cast_signed(), rung.cast_signed());
            follows = searching.hear(&TrialResult { number, rung, loss, reason, ..TrialResult::default() })?;
            count += 1;
        }
        match follows {
            Follows::Rung => {}
            Follows::Won(winner) => {
                let won = parameters(&searching, learner, open.run.seed, searching.rung, &[winner])?;
                let (won, _) = won.into_iter().next().ok_or_else(damaged)?;
                return Ok((winner, won, count));
            }
            Follows::Failed(refusal) => return Err(refusal),
            Follows::Nothing | Follows::Wait => return Err(damaged()),
        }
    }
}

/// Tells how far the search has come, in iterations of all its trials.
struct Telling<'a, 'b> {
    with: &'a With<'b>,
    before: u64,
    of: u64,
}

impl Control for Telling<'_, '_> {
    fn after(&mut self, progress: Progress, _: &dyn Fn() -> Vec<u8>) -> ControlFlow<()> {
        (self.with.tell)("level 3: search", self.before + u64::from(progress.iteration), self.of);
        ControlFlow::Continue(())
    }
}

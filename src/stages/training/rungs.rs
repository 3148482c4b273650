//! A search's trials in the log: sent to `training.trials`, taken back, and their results taken in.

use super::admission::Open;
use super::searching::{self, Follows};
use super::{OPEN, WAITING, encode, ended, find, moved, send};
use crate::domain::records::{TrainingRun, TrainingTrial, TrialResult};
use crate::domain::topics;
use crate::ml::learner;
use crate::stages::beside::Refusal;
use crate::stream::stage::{Destination, Outputs, StageError};
use crate::stream::state::KeyValue;

/// Takes in what came of a trial, and does what follows.
pub(super) fn heard(
    state: &mut KeyValue,
    run_id: &str,
    result: &TrialResult,
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    let Some((key, mut open)) = find(state, run_id)?.filter(|(key, _)| key.first() == Some(&WAITING)) else {
        return Ok(());
    };
    let Some(searching) = &mut open.searching else { return Ok(()) };
    let follows = searching.hear(result).map_err(damaged)?;
    (open.run.iteration, open.run.iterations) = open.progress((0, 0));
    let key = match follows {
        Follows::Nothing => return Ok(()),
        Follows::Wait => key,
        Follows::Rung => {
            issue(&open, false, out)?;
            key
        }
        Follows::Won(winner) => {
            won(&mut open, winner)?;
            state.delete(key.clone())?;
            moved(&key, OPEN)
        }
        Follows::Failed(refusal) => {
            send(&ended(open.run, TrainingRun::FAILED, &refusal), out)?;
            return state.delete(key);
        }
    };
    send(&open.run, out)?;
    state.put(key, encode(&open)?)
}

/// From here on the run is one that asked for the winner's parameters.
fn won(open: &mut Open, winner: u32) -> Result<(), StageError> {
    let Some(searching) = &open.searching else { return Ok(()) };
    let learner = learner(&open.run.algorithm).map_err(|e| damaged(Refusal::new(e.code(), e)))?;
    let found = searching::parameters(searching, learner, open.run.seed, searching.rung, &[winner]).map_err(damaged)?;
    if let Some((complete, named)) = found.into_iter().next() {
        (open.parameters, open.run.params) = (complete.to_string(), named);
    }
    open.run.trial = i32::try_from(winner).ok();
    Ok(())
}

/// Sends the trials of the present rung that are not in, or takes them back.
pub(super) fn issue(open: &Open, cancel: bool, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let Some(searching) = &open.searching else { return Ok(()) };
    let run = &open.run;
    let learner = learner(&run.algorithm).map_err(|e| damaged(Refusal::new(e.code(), e)))?;
    let trials = searching.out();
    let parameters = searching::parameters(searching, learner, run.seed, searching.rung, &trials).map_err(damaged)?;
    for (number, (_, parameters)) in trials.into_iter().zip(parameters) {
        let mark = TrainingTrial {
            run_id: run.run_id.clone(),
            position: run.position.clone(),
            number: i32::try_from(number).unwrap_or(i32::MAX),
            rung: i32::try_from(searching.rung).unwrap_or(i32::MAX),
            cancel,
            ..TrainingTrial::default()
        };
        let trial = match cancel {
            true => mark,
            false => TrainingTrial {
                model: run.model.clone(),
                contract_digest: run.contract_digest.clone(),
                dataset_digest: run.dataset.as_ref().map(|dataset| dataset.digest.clone()).unwrap_or_default(),
                offsets: run.offsets.clone(),
                sealed: open.sealed.clone(),
                algorithm: run.algorithm.clone(),
                parameters,
                seed: run.seed,
                ..mark
            },
        };
        let key = format!("{}/{number}", run.run_id);
        out.send(topics::TRAINING_TRIALS, Destination::ByKey, key.as_bytes(), &trial)?;
    }
    Ok(())
}

/// What was admitted does not hold any more.
pub(super) fn damaged(refusal: Refusal) -> StageError {
    StageError::State { what: "a training run's search".to_owned(), detail: refusal.detail }
}

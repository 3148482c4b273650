//! Trials: computes single trials of searches; workers share them through the group.
//!
//! ```text
//!  transaction n    training.trials ──► into the state, or out of it when the run was cancelled
//!  beside the task  rows below the run's ends (read once per process and search) ──► learner ──► loss on the validation fold
//!  transaction m    what came of it ──► training.jobs, under the run
//! ```
//!
//! A trial's result is a function of its record alone: rows, columns, parameters, seed and fold stand in it by digest or value.
//! Invariants: each trial that is not taken back has one result; a trial that kills its workers has one too, a refusal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::wire::Wire;
use crate::domain::records::{TrainingJob, TrainingTrial, TrialResult};
use crate::domain::topics;
use crate::stages::beside::Refusal;
use crate::stages::entry;
use crate::stages::models::KnownModels;
use crate::stages::training::MAX_BEGUN;
use crate::stages::training::steps::{self, Judged};
use crate::stages::training::work::{Pace, Shop, Step, Work};
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// Format version of entries in the state.
const VERSION: u8 = 1;
/// Open trials, by the offset of their record.
const OPEN: u8 = b'o';
/// The offsets of open trials, by run, number and rung.
const NAMED: u8 = b'n';
/// Specifications that open trials need, by contract digest: a trial begins on committed state alone, before any broadcast is read.
const SPEC: u8 = b's';
/// Specifications that are looked at in one go.
const MAX_SPECS: usize = 1_000;

/// A trial that has no result yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    trial: TrainingTrial,
    /// How often a worker began it.
    begun: u32,
}

/// The stage: see the module.
pub struct Trials {
    shop: Shop,
    models: KnownModels,
    work: Option<Work<Judged>>,
}

impl std::fmt::Debug for Trials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trials").field("limits", &self.shop.limits).finish_non_exhaustive()
    }
}

impl Trials {
    /// The stage.
    #[must_use]
    pub fn new(shop: Shop) -> Self {
        Self { shop, models: KnownModels::default(), work: None }
    }

    /// The specification of a trial's contract.
    fn spec(&self, trial: &TrainingTrial) -> Option<&str> {
        let contracts = &self.models.get(&trial.model)?.contracts;
        Some(&contracts.iter().find(|contract| contract.digest == trial.contract_digest)?.spec)
    }

    fn trial(
        &self,
        context: &Context<'_>,
        state: &mut KeyValue,
        offset: i64,
        trial: TrainingTrial,
    ) -> Result<(), StageError> {
        let name = name_of(&trial);
        if trial.cancel {
            return match state.get(&name)? {
                Some(key) => close(state, key, name),
                None => Ok(()),
            };
        }
        let known = spec_key(&trial);
        if state.get(&known)?.is_none() {
            match self.spec(&trial) {
                Some(spec) => state.put(known, spec.as_bytes().to_vec())?,
                None if !context.broadcast_is_current => return Err(StageError::NeedsBroadcast),
                // It will be refused.
                None => {}
            }
        }
        let mut key = vec![OPEN];
        key.extend_from_slice(&offset.to_be_bytes());
        state.put(name, key.clone())?;
        state.put(key, encode(&Open { trial, begun: 0 })?)
    }

    /// The trial that is worked on, else the oldest.
    fn current(&self, state: &KeyValue) -> Result<Option<(Vec<u8>, Open)>, StageError> {
        if let Some(work) = &self.work
            && let Some(value) = state.get(&work.key)?
        {
            return Ok(Some((work.key.clone(), decode(&value)?)));
        }
        let oldest = state.scan_prefix(&[OPEN], 1)?.into_iter().next();
        oldest.map(|(key, value)| Ok((key.to_vec(), decode(&value)?))).transpose()
    }

    fn begin(&mut self, state: &KeyValue, key: Vec<u8>, trial: TrainingTrial) -> Result<(), StageError> {
        let spec = state.get(&spec_key(&trial))?.and_then(|spec| String::from_utf8(spec.to_vec()).ok());
        let checkpoint = steps::checkpoint_of(&trial);
        let work = move |shop: &Shop, pace: &Pace| match spec {
            Some(spec) => steps::of_trial(&trial, &spec, shop, pace),
            None => Some(Refusal::new("UNKNOWN_MODEL", "the model or its contract is not there any more").into()),
        };
        let begun = Work::begin((key, Step::Learn), &self.shop, checkpoint, work);
        self.work = Some(begun.map_err(|e| StageError::Outside(e.to_string()))?);
        Ok(())
    }
}

impl Stage for Trials {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "trials"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        self.models.fold(topic, key, value, wire)
    }

    fn owes(&self, state: &KeyValue) -> Result<bool, StageError> {
        self.shop.larder.tidy();
        let Some((key, _)) = self.current(state)? else { return Ok(self.work.is_some()) };
        Ok(self.work.as_ref().filter(|work| work.key == key).is_none_or(|work| work.found().is_some()))
    }

    fn works_beside(&self) -> bool {
        self.work.is_some()
    }

    fn settle(
        &mut self,
        _context: &Context<'_>,
        state: &mut KeyValue,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let current = self.current(state)?;
        // A trial that is not there any more was taken back, or its result is told already.
        let is_over = |work: &mut Work<Judged>| current.as_ref().is_none_or(|(key, _)| *key != work.key);
        if let Some(work) = self.work.take_if(is_over) {
            work.abandon();
        }
        let Some((key, mut open)) = current else { return Ok(()) };
        let found = match &self.work {
            Some(work) => work.found(),
            None if open.begun >= MAX_BEGUN => {
                let text = format!("workers began it {MAX_BEGUN} times and none came to the end");
                Some(Refusal::new("GIVEN_UP", text).into())
            }
            None => {
                open.begun += 1;
                state.put(key.clone(), encode(&open)?)?;
                return self.begin(state, key, open.trial);
            }
        };
        let Some(found) = found else { return Ok(()) };
        close(state, key.into(), name_of(&open.trial))?;
        metrics::counter!("hokusai_training_trials_total").increment(1);
        tell(open.trial, found, out)
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            match message.value.map(|value| out.wire().decode::<TrainingTrial>(value)) {
                Some(Ok(trial)) => self.trial(context, state, message.offset, trial)?,
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => out.dead_letter(batch, &message, "TRIAL_UNREADABLE", error.to_string()),
                None => out.dead_letter(batch, &message, "TRIAL_UNREADABLE", "no value".to_owned()),
            }
        }
        Ok(())
    }
}

/// A trial is open no more; with the last one go the specifications.
fn close(state: &mut KeyValue, key: Bytes, name: Vec<u8>) -> Result<(), StageError> {
    state.delete(key)?;
    state.delete(name)?;
    if state.scan_prefix(&[OPEN], 1)?.is_empty() {
        for (key, _) in state.scan_prefix(&[SPEC], MAX_SPECS)? {
            state.delete(key)?;
        }
    }
    Ok(())
}

/// Tells the run what came of a trial.
fn tell(trial: TrainingTrial, found: Judged, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let TrainingTrial { run_id, position, number, rung, model, algorithm, parameters, seed, .. } = trial;
    let result = TrialResult { number, rung, model, algorithm, parameters, seed, ..TrialResult::default() };
    let result = match found {
        Judged::Loss(loss, metrics, iterations) => TrialResult { loss: Some(loss), metrics, iterations, ..result },
        Judged::Refused(refusal) => TrialResult { reason: refusal.code.to_owned(), detail: refusal.detail, ..result },
    };
    let job = TrainingJob { run_id, position, trial: Some(result), ..TrainingJob::default() };
    out.send(topics::TRAINING_JOBS, Destination::ByKey, job.run_id.as_bytes(), &job)
}

fn spec_key(trial: &TrainingTrial) -> Vec<u8> {
    [&[SPEC], trial.contract_digest.as_bytes()].concat()
}

fn name_of(trial: &TrainingTrial) -> Vec<u8> {
    let mut name = vec![NAMED];
    name.extend_from_slice(format!("{}/{}/{}", trial.run_id, trial.number, trial.rung).as_bytes());
    name
}

fn encode(open: &Open) -> Result<Vec<u8>, StageError> {
    entry::encode(VERSION, &"a trial", open)
}

fn decode(bytes: &[u8]) -> Result<Open, StageError> {
    entry::decode(VERSION, &"a trial", bytes)
}

//! Answers of external trainers in the log: taken in, looked at one after the other, told.
//!
//! A job waits until an answer can be used: the first such one counts, in the order of `training.jobs`, and what comes later meets a
//! run that is over. What cannot be used is told in the run's record, and the run goes on waiting.

use serde::{Deserialize, Serialize};

use super::admission::Open;
use super::{OPEN, WAITING, encode, ended, find, moved, send};
use crate::domain::records::{Artefact, Dataset, Position, TrainingAnswer, TrainingRun};
use crate::stages::beside::Refusal;
use crate::stream::stage::{Outputs, StageError};
use crate::stream::state::KeyValue;

/// Most answers of a run that nobody has looked at; one more is told to be too many.
pub const MAX_ANSWERS: usize = 16;

/// What an external trainer has to do with a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// What the trainer needs, once it is in the store.
    pub job: Option<Artefact>,
    /// Answers that nobody has looked at, in the order that counts.
    pub answers: Vec<Answered>,
    /// Answers that were looked at.
    pub looked: u32,
}

/// An answer and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Where it stands.
    pub position: Position,
    /// The model.
    pub artefact: Option<Artefact>,
    /// Rows with scores of the trainer's own runtime.
    pub conformance: Option<Artefact>,
    /// Why there will be no model.
    pub error: Option<String>,
}

impl Answered {
    fn called(&self) -> String {
        let Position { topic, partition, offset } = &self.position;
        match &self.artefact {
            Some(artefact) => {
                format!("the answer at {topic}/{partition}/{offset} with the artefact {}", artefact.digest)
            }
            None => format!("the answer at {topic}/{partition}/{offset}"),
        }
    }
}

impl External {
    /// The artefact that is looked at.
    #[must_use]
    pub fn artefact(&self) -> Option<&Artefact> {
        self.answers.first().and_then(|answer| answer.artefact.as_ref())
    }
}

/// Takes in an answer; one to a run that does not wait for any changes nothing.
pub(super) fn answered(
    state: &mut KeyValue,
    run_id: &str,
    position: Position,
    answer: TrainingAnswer,
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    let Some((key, mut open)) = find(state, run_id)? else { return Ok(()) };
    let Some(external) = &mut open.external else { return Ok(()) };
    let TrainingAnswer { artefact, conformance, error, .. } = answer;
    let answered = Answered { position, artefact, conformance, error };
    if external.answers.len() >= MAX_ANSWERS {
        let help = "help: send it again when they were looked at";
        let text = format!("{}: {MAX_ANSWERS} others are before it; {help}", answered.called());
        tell(&mut open, &Refusal::new("TOO_MANY_ANSWERS", text));
        send(&open.run, out)?;
        return state.put(key, encode(&open)?);
    }
    external.answers.push(answered);
    match key.first() {
        Some(&WAITING) => proceed(state, &key, open, out),
        _ => state.put(key, encode(&open)?),
    }
}

/// The job is in the store: it is told, and waits.
pub(super) fn offered(
    state: &mut KeyValue,
    key: &[u8],
    mut open: Open,
    (dataset, job): (Dataset, Artefact),
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    open.run.dataset = Some(dataset);
    open.run.status = TrainingRun::WAITING.to_owned();
    open.run.job = Some(job.clone());
    if let Some(external) = &mut open.external {
        external.job = Some(job);
    }
    send(&open.run, out)?;
    proceed(state, key, open, out)
}

/// The answer that was looked at cannot be used: it is told, and the run waits for another one.
pub(super) fn unusable(
    state: &mut KeyValue,
    key: &[u8],
    mut open: Open,
    refusal: &Refusal,
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    if let Some(external) = &mut open.external {
        external.looked = external.looked.saturating_add(1);
        open.run.iteration = i32::try_from(external.looked).unwrap_or(i32::MAX);
        let called = if external.answers.is_empty() { String::new() } else { external.answers.remove(0).called() };
        tell(&mut open, &Refusal::new(refusal.code, format!("{called} cannot be used: {}", refusal.detail)));
    }
    send(&open.run, out)?;
    proceed(state, key, open, out)
}

fn tell(open: &mut Open, refusal: &Refusal) {
    (open.run.reason, open.run.detail) = (refusal.code.to_owned(), refusal.detail.clone());
}

/// Goes on with the next answer: a model is looked at beside the task, an error ends the run. Without one the run waits.
fn proceed(state: &mut KeyValue, key: &[u8], mut open: Open, out: &mut Outputs<'_>) -> Result<(), StageError> {
    state.delete(key.to_vec())?;
    open.begun = 0;
    let next = open.external.as_ref().and_then(|external| external.answers.first());
    match next.map(|answer| answer.error.as_ref()) {
        None => state.put(moved(key, WAITING), encode(&open)?),
        Some(None) => state.put(moved(key, OPEN), encode(&open)?),
        Some(Some(error)) => {
            let refusal = Refusal::new("EXTERNAL_FAILED", format!("the external trainer says: {error}"));
            send(&ended(open.run, TrainingRun::FAILED, &refusal), out)
        }
    }
}

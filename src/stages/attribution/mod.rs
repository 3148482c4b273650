//! Attribution: credits the contributors of an accepted improvement, by a declared game over small trainings.
//!
//! ```text
//!  transaction n    evaluations: accepted ──► into the state
//!  transaction m    once the model lists the candidate: everything that the game rests on is fixed in the state
//!  beside the task  rows with owners, sealed rows ──► players ──► coalitions' models ──► values, errors, shares
//!  transaction k    attributions · its statement into attestations.requests
//! ```
//!
//! Invariants:
//! * an accepted evaluation is attributed once; what was fixed makes the same bytes, whoever plays;
//! * values are integers over one denominator and add up to the game's; what of delta lies outside the game is nobody's;
//! * nothing of a sealed row is told but the metric on all rows of the game;
//! * it decides nothing: a failed or unpayable attribution leaves the acceptance as it is.

pub mod case;
pub mod outcome;
mod play;
pub mod report;
pub mod rows;
mod screen;
#[cfg(test)]
mod tests;
pub mod work;

use serde::{Deserialize, Serialize};

use self::case::{Case, candidate, case};
use self::work::{Desk, Found, Work};
use crate::attest::attribution::Attribution as Statement;
use crate::attest::statement::{Predicate, Statement as Signed, StatementError, Subject, statement_hash};
use crate::codec::wire::Wire;
use crate::domain::records::{AttestationRequest, Attribution as Record, Evaluation};
use crate::domain::topics;
use crate::stages::beside::Refusal;
use crate::stages::entry;
use crate::stages::models::KnownModels;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// Attributions of one partition that wait or are played at the same time.
pub const MAX_OPEN: usize = 256;
/// How often workers may begin a game before it is given up: it may be what kills them.
pub const MAX_BEGUN: u32 = 20;

/// Format version of entries in the state.
const VERSION: u8 = 1;
/// Open attributions, by the offset of their evaluation.
const OPEN: u8 = b'o';
/// Known evaluations, by id.
const KNOWN: u8 = b'k';

/// What stands in the state of an open attribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Open {
    /// The model does not list the candidate yet.
    Waiting(Box<Evaluation>),
    /// It is played.
    Fixed(Box<Case>),
}

/// The stage: see the module.
pub struct Attribution {
    desk: Desk,
    models: KnownModels,
    /// Something may have come that waiting attributions need.
    is_news: bool,
    work: Option<Work>,
}

impl std::fmt::Debug for Attribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attribution").field("limits", &self.desk.limits).finish_non_exhaustive()
    }
}

fn compute(error: impl std::fmt::Display) -> StageError {
    StageError::Compute { what: "an attribution's statement".to_owned(), detail: error.to_string() }
}

impl Attribution {
    /// The stage.
    #[must_use]
    pub fn new(desk: Desk) -> Self {
        Self { desk, models: KnownModels::default(), is_news: true, work: None }
    }

    /// The attribution that is worked on or, if there is none, the first one that can be.
    fn current(&self, state: &KeyValue) -> Result<Option<(Vec<u8>, Open)>, StageError> {
        if let Some(work) = &self.work
            && let Some(value) = state.get(&work.key)?
        {
            return Ok(Some((work.key.clone(), decode(&value)?)));
        }
        if !self.is_news {
            return Ok(None);
        }
        for (key, value) in state.scan_prefix(&[OPEN], MAX_OPEN)? {
            let open = decode(&value)?;
            let can_begin = match &open {
                Open::Fixed(_) => true,
                Open::Waiting(said) => {
                    self.models.get(&said.model).is_some_and(|model| candidate(model, said).is_some())
                }
            };
            if can_begin {
                return Ok(Some((key.to_vec(), open)));
            }
        }
        Ok(None)
    }

    fn begin(
        &mut self,
        state: &mut KeyValue,
        key: Vec<u8>,
        mut case: Case,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        if case.begun >= MAX_BEGUN {
            let text =
                format!("workers began to play {MAX_BEGUN} times and none came to the end; help: look at their logs");
            return self.conclude(state, key, &case, Err(Refusal::new("GIVEN_UP", text)), out);
        }
        case.begun += 1;
        state.put(key.clone(), encode(&Open::Fixed(Box::new(case.clone())))?)?;
        self.work = Some(Work::begin(&self.desk, key, case).map_err(|e| StageError::Outside(e.to_string()))?);
        Ok(())
    }

    /// Tells what came of a game, all of it in one transaction.
    fn conclude(
        &mut self,
        state: &mut KeyValue,
        key: Vec<u8>,
        case: &Case,
        found: Found,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let record = match found {
            Ok(played) => {
                let ring = self.desk.keys.ring();
                // The newest pseudonym: receipts of another epoch have another one.
                let pseudonym = |name: &str| ring.pseudonyms(name, i64::MAX).into_iter().next().unwrap_or_default();
                let told = report::statement(case, &played, &pseudonym).map_err(compute)?;
                let mut record = report::told(case, &played, told.game_digest.clone());
                let statement = signed(case, told).map_err(compute)?;
                record.statement = data_encoding::HEXLOWER.encode(&statement_hash(&statement));
                let predicate_type = Statement::TYPE.to_owned();
                let request = AttestationRequest { predicate_type, statement, acknowledge: None };
                out.send(topics::ATTESTATION_REQUESTS, Destination::Partition(0), topics::LOG_KEY, &request)?;
                record
            }
            Err(refusal) => report::failed(report::begun(case), &refusal),
        };
        send(&record, out)?;
        self.is_news = true;
        state.delete(key)
    }
}

/// The statement's bytes; its subject is the candidate's artefact.
fn signed(case: &Case, told: Statement) -> Result<Vec<u8>, StatementError> {
    let name = format!("{} attribution {}", case.evaluation.model, case.evaluation.evaluation_id);
    let digest = data_encoding::HEXLOWER.decode(case.candidate.digest.as_bytes()).unwrap_or_default();
    let predicate = Predicate::Attribution(Box::new(told));
    Signed { subject: Subject::new(name, "sha256", &digest), predicate }.payload()
}

fn send(record: &Record, out: &mut Outputs<'_>) -> Result<(), StageError> {
    metrics::counter!("hokusai_attributions_total", "status" => record.status.clone()).increment(1);
    out.send(topics::ATTRIBUTIONS, Destination::ByKey, record.evaluation_id.as_bytes(), record)
}

fn encode(open: &Open) -> Result<Vec<u8>, StageError> {
    entry::encode(VERSION, &"an attribution", open)
}

fn decode(bytes: &[u8]) -> Result<Open, StageError> {
    entry::decode(VERSION, &"an attribution", bytes)
}

fn refused_early(said: &Evaluation, refusal: &Refusal) -> Record {
    let Evaluation { evaluation_id, model, benchmark, metric, candidate, baseline, .. } = said.clone();
    report::failed(
        Record { evaluation_id, model, benchmark, metric, candidate, baseline, ..Record::default() },
        refusal,
    )
}

impl Stage for Attribution {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "attribution"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        self.is_news = true;
        self.models.fold(topic, key, value, wire)
    }

    fn owes(&self, state: &KeyValue) -> Result<bool, StageError> {
        let Some((key, _)) = self.current(state)? else { return Ok(self.work.is_some() || self.is_news) };
        let own = self.work.as_ref().filter(|work| work.key == key);
        Ok(own.is_none_or(|work| work.found().is_some()))
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
        let Some((key, open)) = self.current(state)? else {
            (self.work, self.is_news) = (None, false);
            return Ok(());
        };
        let found = self.work.as_ref().filter(|work| work.key == key).map(Work::found);
        match (open, found) {
            (Open::Fixed(case), Some(Some(found))) => {
                self.conclude(state, key, &case, found, out)?;
                self.work = None;
                Ok(())
            }
            (_, Some(None)) => Ok(()),
            (Open::Fixed(case), None) => self.begin(state, key, *case, out),
            (Open::Waiting(said), _) => {
                let model = self.models.get(&said.model);
                let fixed = model.and_then(|model| Some(case(model, candidate(model, &said)?, &said)));
                match fixed {
                    Some(Ok(case)) => self.begin(state, key, case, out),
                    Some(Err(refusal)) => {
                        send(&refused_early(&said, &refusal), out)?;
                        state.delete(key)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn process(
        &mut self,
        _context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            let said = match message.value.map(|value| out.wire().decode::<Evaluation>(value)) {
                Some(Ok(said)) => said,
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => {
                    out.dead_letter(batch, &message, "EVALUATION_UNREADABLE", error.to_string());
                    continue;
                }
                None => continue,
            };
            let known = [&[KNOWN], said.evaluation_id.as_bytes()].concat();
            if said.status != Evaluation::ACCEPTED || state.get(&known)?.is_some() {
                continue;
            }
            state.put(known, vec![VERSION])?;
            if state.scan_prefix(&[OPEN], MAX_OPEN)?.len() >= MAX_OPEN {
                let refusal = Refusal::new("BUSY", format!("{MAX_OPEN} attributions wait already"));
                send(&refused_early(&said, &refusal), out)?;
                continue;
            }
            let key = [&[OPEN][..], &message.offset.to_be_bytes()].concat();
            state.put(key, encode(&Open::Waiting(Box::new(said)))?)?;
            self.is_news = true;
        }
        Ok(())
    }
}

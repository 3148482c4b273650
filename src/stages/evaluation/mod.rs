//! Evaluation: counts attempts, lays each down before it is scored, scores it on the sealed rows, and tells what may be told.
//!
//! ```text
//!  transaction n    request ──► attempt t of its family: α_t is spent ──► preregistration into attestations.requests; parked
//!  (attesting)      statement under a durable tree head ──► acknowledgement into evaluation.requests, under the same key
//!  transaction m    acknowledgement ──► released, once every earlier attempt of the family is over
//!  beside the task  sealed rows, both models ──► scores, paired tests, decision ──► full record, encrypted, into the store
//!  transaction k    evaluations · registry.events · the outcome's statement · the outcome into evaluation.requests
//!
//!  cancellation     of an attempt that is not being scored: the transaction that reads it ends it, and tells its outcome like any other
//! ```
//!
//! Invariants:
//! * an attempt is counted when its request is read, and stays counted however it ends;
//! * nothing is scored before the acknowledgement of exactly its own preregistration, nor out of the family's order;
//! * who is attempt t, who is refused and what is scored when follow from the order of `evaluation.requests` alone: the end of an
//!   attempt is a record there too, its outcome or its cancellation;
//! * of an attempt that is not accepted nothing is told but its number, its level, reason codes and the Ladder's score; the full
//!   record is bound by a salted digest and kept for the benchmark's owner;
//! * acceptance promotes nothing.

pub mod columns;
pub mod kept;
pub mod ledger;
pub mod outside;
pub mod plan;
pub mod report;
pub mod samples;
pub mod score;
#[cfg(test)]
pub(crate) mod tests;
pub mod work;

use std::sync::{Arc, Mutex};

use ed25519_dalek::SigningKey;

use self::ledger::{Due, FamilyId, Ledger, Noted, family_id, oldest};
use self::outside::Outside;
use self::plan::{Case, facts};
use self::score::Scored;
use self::work::{Found, Shop, Work};
use crate::attest::checkpoint::Checkpoint;
use crate::attest::dsse::key_id;
use crate::attest::evaluation::{Preregistration, salt, withheld};
use crate::attest::statement::{StatementError, leaf_of, statement_hash};
use crate::attest::trust::LiveTrust;
use crate::codec::wire::Wire;
use crate::domain::keys::{LiveKeys, SealingKey};
use crate::domain::records::{
    AttestationRequest, Evaluation as Record, EvaluationAcknowledgement, EvaluationAttempt, EvaluationOutcome,
    EvaluationRequest, Position,
};
use crate::domain::topics;
use crate::stages::beside::Refusal;
use crate::stages::models::KnownModels;
use crate::stages::registry::result::{self, EvaluationResult, Found as Finding, StageResult};
use crate::stats::attempts::{End, Progress, Refusal as Uncounted, Step};
use crate::stats::fixed::micro_string;
use crate::stats::ladder::Ladder;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// How often workers may begin to score an attempt before it is given up: it may be what kills them.
pub const MAX_BEGUN: u32 = 20;

/// The stage: see the module.
pub struct Evaluation {
    shop: Shop,
    trust: LiveTrust,
    key: SigningKey,
    models: KnownModels,
    work: Option<Work>,
}

impl std::fmt::Debug for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evaluation").field("threads", &self.shop.threads).finish_non_exhaustive()
    }
}

/// What all tasks of a process share.
#[derive(Clone)]
pub struct EvaluationConfig {
    /// The store.
    pub outside: Arc<dyn Outside>,
    /// Opens sealed rows.
    pub evaluation_key: Arc<SealingKey>,
    /// The tenant's keys.
    pub keys: LiveKeys,
    /// Whom the registry trusts: events are stamped with its serial.
    pub trust: LiveTrust,
    /// The stage's own key.
    pub key: SigningKey,
    /// Threads for what is resampled.
    pub threads: usize,
    /// One attempt of the process is scored at a time.
    pub bench: Arc<Mutex<()>>,
}

fn compute(error: impl std::fmt::Display) -> StageError {
    StageError::Compute { what: "an evaluation's statement".to_owned(), detail: error.to_string() }
}

/// Why a record of the topic is set aside.
struct Aside(&'static str, String);

impl Evaluation {
    /// The stage.
    #[must_use]
    pub fn new(config: EvaluationConfig) -> Self {
        let EvaluationConfig { outside, evaluation_key, keys, trust, key, threads, bench } = config;
        let shop = Shop { outside, key: evaluation_key, keys, threads, bench };
        Self { shop, trust, key, models: KnownModels::default(), work: None }
    }

    fn record(
        &self,
        context: &Context<'_>,
        ledger: &mut Ledger<'_>,
        (offset, key): (i64, Option<&[u8]>),
        request: EvaluationRequest,
        out: &mut Outputs<'_>,
    ) -> Result<Result<(), Aside>, StageError> {
        let EvaluationRequest { family, evaluation_id, attempt, acknowledgement, outcome, cancel } = request;
        let Some(id) = family_id(&family).filter(|_| key.is_none_or(|key| key == family.as_bytes())) else {
            return Ok(Err(Aside("REQUEST_MISKEYED", "its key is no attempts family, or another one".to_owned())));
        };
        let steps = match (attempt, acknowledgement, outcome, cancel) {
            (Some(attempt), None, None, None) => {
                return self.request(context, ledger, (&id, family), evaluation_id, attempt, out).map(Ok);
            }
            (None, Some(acknowledgement), None, None) => match released(ledger, &evaluation_id, &acknowledgement)? {
                Ok(Some(noted)) => ledger.fold(&id, noted)?,
                Ok(None) => Vec::new(),
                Err(detail) => return Ok(Err(Aside("ACKNOWLEDGEMENT_REFUSED", detail))),
            },
            (None, None, Some(EvaluationOutcome { attempt, status }), None) => {
                let attempt = u64::try_from(attempt).unwrap_or(0);
                ledger.fold(&id, Noted::Ended { attempt, status })?
            }
            (None, None, None, Some(by)) => match self.cancel(ledger, (&id, &family), &evaluation_id, &by, out)? {
                Ok(steps) => steps,
                Err(detail) => return Ok(Err(Aside("CANCELLATION_REFUSED", detail))),
            },
            _ => return Ok(Err(Aside("REQUEST_UNREADABLE", "exactly one of its four forms is due".to_owned()))),
        };
        release(ledger, &id, offset, &steps)?;
        Ok(Ok(()))
    }

    fn request(
        &self,
        context: &Context<'_>,
        ledger: &mut Ledger<'_>,
        (id, family): (&FamilyId, String),
        evaluation_id: String,
        attempt: EvaluationAttempt,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        // The same recipe on the same benchmark is the earlier evaluation: its result stands under the same id.
        if ledger.knows(&evaluation_id)? {
            return Ok(());
        }
        // A retirement that was committed before counts: it must be known here.
        if !context.broadcast_is_current {
            return Err(StageError::NeedsBroadcast);
        }
        let mut case = Case {
            family,
            number: 0,
            evaluation_id,
            attempt,
            benchmark: crate::domain::records::Benchmark::default(),
            spec: String::new(),
            metric: String::new(),
            minimum_effect: 0,
            preregistration: String::new(),
            preregistered: String::new(),
        };
        let model = self.models.get(&case.attempt.model);
        let (benchmark, spec, plan) = match facts(&case.attempt, &case.family, model) {
            Ok(facts) => facts,
            Err(refusal) => return uncounted(&case, refusal.code, refusal.detail, out),
        };
        (case.benchmark, case.spec, case.metric) =
            (benchmark, spec, plan.declared.name(&plan.declared.primary).to_owned());
        case.minimum_effect = plan.declared.minimum_effect;
        let key = case.benchmark.key();
        if case.benchmark.retired && !ledger.family(id)?.is_retired(&key) {
            ledger.fold(id, Noted::Retired { benchmark: key.clone() })?;
        }
        let (request_id, recipe) = (case.attempt.request_id.clone(), case.attempt.recipe_digest.clone());
        let steps = ledger.fold(id, Noted::Requested { request_id, recipe, benchmark: key })?;
        match steps.first() {
            Some(Step::Preregister(number)) => case.number = *number,
            Some(Step::Refuse(refusal)) => return uncounted(&case, refusal.code(), way_out(*refusal), out),
            _ => {
                let detail = "the request's id was used for another evaluation; help: send it under a new id";
                return uncounted(&case, "REQUEST_REPEATED", detail, out);
            }
        }
        let statement = case.preregister(&plan).map_err(compute)?;
        case.preregistration = data_encoding::HEXLOWER.encode(&leaf_of(&statement));
        case.preregistered = data_encoding::HEXLOWER.encode(&statement_hash(&statement));
        attest(Preregistration::TYPE, statement, Some(case.evaluation_id.clone()), out)?;
        metrics::counter!("hokusai_evaluation_attempts_total").increment(1);
        ledger.open(&case)
    }

    /// Takes back an attempt that is not being scored: it is over, and what came of it is told. What is being scored is seen to its
    /// end, because its result may be known already.
    fn cancel(
        &self,
        ledger: &mut Ledger<'_>,
        (id, family): (&FamilyId, &str),
        evaluation_id: &str,
        by: &Position,
        out: &mut Outputs<'_>,
    ) -> Result<Result<Vec<Step>, String>, StageError> {
        let case = match unfinished(ledger, evaluation_id)? {
            Ok(Some(case)) if case.family == family => case,
            Ok(Some(_)) => return Ok(Err("the evaluation is of another attempts family".to_owned())),
            Ok(None) => return Ok(Ok(Vec::new())),
            Err(detail) => return Ok(Err(detail)),
        };
        let steps = ledger.fold(id, Noted::Cancelled { request_id: case.attempt.request_id.clone() })?;
        let progress = ledger.family(id)?.get(case.number).map(|own| own.progress);
        if progress == Some(Progress::Over(End::Cancelled)) {
            self.tell(&case, unscored(&case, Record::CANCELLED, &Refusal::cancelled(by)), None, out)?;
            ledger.forget(evaluation_id)?;
        }
        Ok(Ok(steps))
    }

    /// Tells what came of a scoring, all of it in one transaction.
    fn conclude(
        &self,
        ledger: &mut Ledger<'_>,
        (key, due): (&[u8], &Due),
        case: &Case,
        found: Found,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let record = match &found {
            Ok(scored) => {
                let ladder_score = climb(ledger, &case.benchmark.key(), &case.metric, scored)?;
                Record { ladder_score, ..report::told(report::counted(case), scored) }
            }
            Err(refusal) => unscored(case, Record::FAILED, refusal),
        };
        let outcome = EvaluationOutcome { attempt: record.attempt, status: record.status.clone() };
        let ended = EvaluationRequest {
            family: case.family.clone(),
            evaluation_id: case.evaluation_id.clone(),
            outcome: Some(outcome),
            ..EvaluationRequest::default()
        };
        out.send(topics::EVALUATION_REQUESTS, Destination::ByKey, case.family.as_bytes(), &ended)?;
        self.tell(case, record, found.as_deref().ok(), out)?;
        crate::failpoint!("evaluation.concluding");
        ledger.close(key, &due.evaluation_id)
    }

    /// Tells the outcome of an attempt to the registry, to the log of attestations and to whoever reads evaluations.
    fn tell(
        &self,
        case: &Case,
        mut record: Record,
        scored: Option<&Scored>,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let statement = self.outcome(case, &record, scored).map_err(compute)?;
        record.statement = data_encoding::HEXLOWER.encode(&statement_hash(&statement));
        self.register(case, &record, out)?;
        attest(crate::attest::evaluation::Outcome::TYPE, statement, None, out)?;
        metrics::counter!("hokusai_evaluations_total", "status" => record.status.clone()).increment(1);
        send(&record, out)
    }

    fn outcome(&self, case: &Case, record: &Record, scored: Option<&Scored>) -> Result<Vec<u8>, StatementError> {
        let bound = match scored {
            Some(scored) if !scored.accepted => {
                let salt = salt(self.shop.keys.ring().tree_key(), &case.evaluation_id);
                Some(withheld(&salt, &scored.record.to_canonical()?))
            }
            _ => None,
        };
        case.conclude(&key_id(&self.key.verifying_key()), |outcome| {
            outcome.status.clone_from(&record.status);
            outcome.reasons.clone_from(&record.reasons);
            outcome.record = scored.filter(|scored| scored.accepted).map(|scored| scored.record.clone());
            outcome.withheld = bound;
        })
    }

    fn register(&self, case: &Case, record: &Record, out: &mut Outputs<'_>) -> Result<(), StageError> {
        let found = EvaluationResult {
            evaluation_id: record.evaluation_id.clone(),
            candidate: record.candidate.clone(),
            baseline: record.baseline.clone(),
            benchmark: record.benchmark.clone(),
            status: record.status.clone(),
            reasons: record.reasons.clone(),
            metric: record.metric.clone(),
            delta: record.delta.clone(),
            lower: record.lower.clone(),
            statement: Some(record.statement.clone()),
        };
        let model = record.model.clone();
        let result = StageResult { model, found: Finding::Evaluation(Box::new(found)) };
        let event = result::event(&result, case.attempt.position.clone(), self.trust.now().serial(), &self.key)
            .map_err(|e| StageError::Compute { what: "an evaluation's result".to_owned(), detail: e.to_string() })?;
        out.send(topics::REGISTRY_EVENTS, Destination::ByKey, record.model.as_bytes(), &event)
    }
}

/// Moves the benchmark's Ladder by a scored attempt, and says its score in the metric's unit. Without a minimum effect there is no
/// rung, and nothing is told.
fn climb(
    ledger: &mut Ledger<'_>,
    benchmark: &str,
    metric: &str,
    scored: &Scored,
) -> Result<Option<String>, StageError> {
    let best = ledger.ladder(benchmark, metric)?;
    let Some(mut ladder) = Ladder::resumed(scored.step, best) else { return Ok(None) };
    let released = scored.loss.map(|loss| ladder.release(loss)).or(best);
    if let Some(released) = released.filter(|released| Some(*released) != best) {
        ledger.put_ladder(benchmark, metric, released)?;
    }
    let value = |loss: i64| if scored.higher_is_better { -i128::from(loss) } else { i128::from(loss) };
    Ok(released.map(|loss| micro_string(value(loss))))
}

/// The case of an attempt that is not over; none of one that is.
fn unfinished(ledger: &Ledger<'_>, evaluation_id: &str) -> Result<Result<Option<Case>, String>, StageError> {
    let case = ledger.case(evaluation_id)?;
    if case.is_none() && !ledger.knows(evaluation_id)? {
        return Ok(Err("no attempt of that evaluation was counted".to_owned()));
    }
    Ok(Ok(case))
}

/// An acknowledgement releases its own preregistration and no other; one of an attempt that is over releases nothing.
fn released(
    ledger: &Ledger<'_>,
    evaluation_id: &str,
    said: &EvaluationAcknowledgement,
) -> Result<Result<Option<Noted>, String>, StageError> {
    let case = match unfinished(ledger, evaluation_id)? {
        Ok(Some(case)) => case,
        Ok(None) => return Ok(Ok(None)),
        Err(detail) => return Ok(Err(detail)),
    };
    let (Ok(leaf_index), true) = (u64::try_from(said.index), said.leaf == case.preregistration) else {
        return Ok(Err("it is of another leaf than the attempt's preregistration".to_owned()));
    };
    match Checkpoint::parse(said.checkpoint.as_bytes()) {
        Ok((head, _)) if head.size > leaf_index => {
            Ok(Ok(Some(Noted::Acknowledged { attempt: case.number, leaf_index })))
        }
        _ => Ok(Err("its tree head cannot be read, or does not cover the leaf".to_owned())),
    }
}

/// Puts what may be scored now into the state.
fn release(ledger: &mut Ledger<'_>, id: &FamilyId, offset: i64, steps: &[Step]) -> Result<(), StageError> {
    for step in steps {
        let Step::Score(number) = step else { continue };
        let family = ledger.family(id)?;
        let Some(attempt) = family.get(*number) else { continue };
        let (model, benchmark) = attempt.request.benchmark.rsplit_once('/').unwrap_or_default();
        let due = Due {
            evaluation_id: Record::id(model, benchmark, &attempt.request.recipe),
            acceptances: family.acceptances(&attempt.request.benchmark),
            begun: 0,
        };
        ledger.put_due(Ledger::due_at(offset), &due)?;
    }
    Ok(())
}

fn way_out(refusal: Uncounted) -> &'static str {
    match refusal {
        Uncounted::Retired => {
            "the benchmark takes no further attempts: it was retired, or has had its acceptances; help: seal new rows"
        }
        Uncounted::Exhausted => {
            "the attempts family has had all its attempts; help: seal rows that overlap with none of it"
        }
        Uncounted::TooManyOpen => "too many attempts of the family wait already; help: send it again later",
    }
}

/// The record of an attempt that has no score: it has spent its level all the same.
fn unscored(case: &Case, status: &str, refusal: &Refusal) -> Record {
    Record {
        status: status.to_owned(),
        reasons: vec![refusal.code.to_owned()],
        detail: refusal.detail.clone(),
        ..report::counted(case)
    }
}

/// Answers a request that is no attempt: it has spent nothing.
fn uncounted(case: &Case, code: &str, detail: impl Into<String>, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let record = Record {
        attempt: 0,
        alpha: "0".to_owned(),
        status: Record::REFUSED.to_owned(),
        reasons: vec![code.to_owned()],
        detail: detail.into(),
        ..report::counted(case)
    };
    send(&record, out)
}

fn send(record: &Record, out: &mut Outputs<'_>) -> Result<(), StageError> {
    out.send(topics::EVALUATIONS, Destination::ByKey, record.evaluation_id.as_bytes(), record)
}

fn attest(
    predicate_type: &str,
    statement: Vec<u8>,
    acknowledge: Option<String>,
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    let request = AttestationRequest { predicate_type: predicate_type.to_owned(), statement, acknowledge };
    out.send(topics::ATTESTATION_REQUESTS, Destination::Partition(0), topics::LOG_KEY, &request)
}

impl Stage for Evaluation {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "evaluation"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        self.models.fold(topic, key, value, wire)
    }

    fn owes(&self, state: &KeyValue) -> Result<bool, StageError> {
        let Some((_, due)) = oldest(state)? else { return Ok(self.work.is_some()) };
        let own = self.work.as_ref().filter(|work| work.evaluation_id == due.evaluation_id);
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
        let Some((key, mut due)) = oldest(state)? else {
            self.work = None;
            return Ok(());
        };
        let mut ledger = Ledger::new(state);
        let Some(case) = ledger.case(&due.evaluation_id)? else {
            return Err(StageError::State {
                what: "evaluation's attempts".to_owned(),
                detail: "one that is to be scored is not there".to_owned(),
            });
        };
        if let Some(work) = self.work.as_ref().filter(|work| work.evaluation_id == due.evaluation_id) {
            return match work.found() {
                Some(found) => self.conclude(&mut ledger, (&key, &due), &case, found, out),
                None => Ok(()),
            };
        }
        self.work = None;
        if due.begun >= MAX_BEGUN {
            let text =
                format!("workers began to score {MAX_BEGUN} times and none came to the end; help: look at their logs");
            return self.conclude(&mut ledger, (&key, &due), &case, Err(Refusal::new("GIVEN_UP", text)), out);
        }
        due.begun += 1;
        ledger.put_due(key, &due)?;
        let begun = Work::begin(&self.shop, case, due.acceptances).map_err(|e| StageError::Outside(e.to_string()))?;
        self.work = Some(begun);
        Ok(())
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let mut ledger = Ledger::new(state);
        for message in batch.iter() {
            let request = match message.value.map(|value| out.wire().decode::<EvaluationRequest>(value)) {
                Some(Ok(request)) => request,
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => {
                    out.dead_letter(batch, &message, "REQUEST_UNREADABLE", error.to_string());
                    continue;
                }
                None => {
                    out.dead_letter(batch, &message, "REQUEST_UNREADABLE", "no value".to_owned());
                    continue;
                }
            };
            if let Err(Aside(reason, detail)) =
                self.record(context, &mut ledger, (message.offset, message.key), request, out)?
            {
                out.dead_letter(batch, &message, reason, detail);
            }
        }
        Ok(())
    }
}

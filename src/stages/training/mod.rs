//! Training: admits requests, fixes their dataset, learns, and tells the registry.
//!
//! ```text
//!  transaction n    job ──► refused: training.runs ── or admitted: into the state
//!  beside the task  ends of receipts and contributions.accepted
//!  transaction n+1  ends into the state and into training.runs: the dataset is fixed
//!  beside the task  rows below the ends ──► canonical order ──► learner ──► artefact, durable in the store
//!  transaction m    training.runs: finished · registry.events: the run's version, signed with the stage's own key
//!                   · evaluation.requests: the version as a candidate, if a benchmark was named
//!
//!  with a search    before the learner: the trials of a rung ──► training.trials, their results ──► training.jobs, rung by rung;
//!                   then the winner's parameters are learned as if they had been asked for
//!  external         before the learner: beside the task a job, durable in the store ──► training.runs: waiting; an answer ──► training.jobs;
//!                   beside the task its model is read and measured ──► transaction m, or the run goes on waiting
//!  cancellation     a job like others: the transaction that reads it ends the run, unless it has ended before; of a finished run it
//!                   takes the evaluation back: evaluation.requests
//! ```
//!
//! Invariants:
//! * a second request with the id of a first changes nothing: the first one's run stands;
//! * a dataset is fixed once, in the transaction that says so; whoever goes on with the run reads the same rows, and so makes the
//!   same bytes;
//! * a result is in the store before the transaction that names it begins, and is told exactly once;
//! * long work never keeps the task from polling; runs of a partition are worked off in the order of their requests, but for those
//!   that wait for trials or for an external trainer: they hold nobody up.

pub mod admission;
pub mod answers;
pub mod evaluate;
pub mod import;
pub mod job;
pub mod larder;
pub mod learn;
pub mod outside;
pub mod rows;
mod rungs;
pub mod searching;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod warm;
pub mod work;

use ed25519_dalek::SigningKey;

use crate::stages::beside::Refusal;
use admission::{Open, admit, requested};
use learn::Made;
use rungs::{damaged, heard, issue};
use steps::Found;
use work::{Shop, Step, Work};

use crate::attest::trust::LiveTrust;
use crate::codec::wire::Wire;
use crate::domain::records::{
    Artefact, Lineage, NamedValue, Position, TrainingJob, TrainingRefusal, TrainingRequest, TrainingRun,
};
use crate::domain::topics;
use crate::stages::entry;
use crate::stages::models::KnownModels;
use crate::stages::registry::command::{Origin, Registration};
use crate::stages::registry::result::{self, Found as Finding, RunResult, StageResult};
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// Media type of the platform's own artefacts.
pub const MEDIA_TYPE: &str = "application/vnd.hokusai.model";
/// Runs of one partition that wait or learn at the same time.
pub const MAX_OPEN: usize = 256;
/// How often workers may begin to learn a run before it is given up: it may be what kills them.
pub const MAX_BEGUN: u32 = 20;

/// Format version of entries in the state.
const VERSION: u8 = 1;
/// Open runs that something is to be done for here, by the offset of their job.
const OPEN: u8 = b'o';
/// Open runs that wait for their trials or for an external trainer, by the same.
const WAITING: u8 = b'w';
/// Known runs, by id: the offset of their job.
const KNOWN: u8 = b'r';
/// Evaluations that finished runs asked for, by the run's id: a cancellation takes them back, once.
const ASKED: u8 = b'e';
/// What entries of that kind are called in errors.
const EVALUATION: &str = "a run's evaluation";

/// The stage: see the module.
pub struct Training {
    shop: Shop,
    trust: LiveTrust,
    key: SigningKey,
    models: KnownModels,
    work: Option<Work<Found>>,
}

impl std::fmt::Debug for Training {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Training").field("limits", &self.shop.limits).finish_non_exhaustive()
    }
}

/// What all tasks of a process share.
#[derive(Clone)]
pub struct TrainingConfig {
    /// What it works with.
    pub shop: Shop,
    /// Whom the registry trusts: events are stamped with its serial.
    pub trust: LiveTrust,
    /// The stage's own key.
    pub key: SigningKey,
}

impl Training {
    /// The stage.
    #[must_use]
    pub fn new(config: TrainingConfig) -> Self {
        let TrainingConfig { shop, trust, key } = config;
        Self { shop, trust, key, models: KnownModels::default(), work: None }
    }

    fn job(
        &self,
        context: &Context<'_>,
        state: &mut KeyValue,
        offset: i64,
        job: TrainingJob,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let TrainingJob { run_id, position, request, refusal, cancel, trial, answer, requested_at } = job;
        if cancel {
            return cancelled(state, &run_id, position, out);
        }
        if let Some(result) = trial {
            return heard(state, &run_id, &result, out);
        }
        if let Some(answer) = answer {
            return answers::answered(state, &run_id, position, answer, out);
        }
        let known = of_run(KNOWN, &run_id);
        if state.get(&known)?.is_some() {
            return Ok(());
        }
        let admitted = match (request, refusal) {
            (Some(request), _) => {
                self.admit(context, state, requested(&run_id, (&position, requested_at), &request), &request)?
            }
            (None, Some(refusal)) => Err(TrainingRun { requested_at, ..refused_in_form(run_id, position, refusal) }),
            (None, None) => return Ok(()),
        };
        match admitted {
            Ok(open) => state.put(key_of(OPEN, offset), encode(&open)?)?,
            Err(run) => send(&run, out)?,
        }
        state.put(known, key_of(VERSION, offset))
    }

    fn admit(
        &self,
        context: &Context<'_>,
        state: &KeyValue,
        run: TrainingRun,
        request: &TrainingRequest,
    ) -> Result<Result<Box<Open>, TrainingRun>, StageError> {
        let open = |prefix| Ok::<_, StageError>(state.scan_prefix(&[prefix], MAX_OPEN)?.len());
        let admitted = match open(OPEN)? + open(WAITING)? {
            MAX_OPEN.. => Err(Refusal::new(
                "BUSY",
                format!("{MAX_OPEN} runs wait already; help: send it again later, under a new id"),
            )),
            _ => admit(run.clone(), request, self.models.get(&request.model)),
        };
        match admitted {
            Ok(open) => Ok(Ok(Box::new(open))),
            // The model, its version or its contract may just have come.
            Err(refusal) if refusal.code != "BUSY" && !context.broadcast_is_current => Err(StageError::NeedsBroadcast),
            Err(refusal) => Ok(Err(ended(run, TrainingRun::REFUSED, &refusal))),
        }
    }

    /// Puts what a step found into the log.
    fn take(
        &self,
        state: &mut KeyValue,
        key: &[u8],
        mut open: Open,
        found: Found,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        match found {
            Found::Ends(ends) => {
                open.run.offsets = ends;
                send(&open.run, out)?;
                state.put(key.to_vec(), encode(&open)?)
            }
            Found::Surveyed(dataset) => {
                open.run.dataset = Some(dataset);
                open.run.status = TrainingRun::RUNNING.to_owned();
                (open.run.iteration, open.run.iterations) = open.progress((0, 0));
                open.begun = 0;
                if let Some(searching) = &mut open.searching {
                    searching.start().map_err(damaged)?;
                }
                issue(&open, false, out)?;
                send(&open.run, out)?;
                state.delete(key.to_vec())?;
                state.put(moved(key, WAITING), encode(&open)?)
            }
            Found::Job(dataset, job) => answers::offered(state, key, open, (dataset, job), out),
            Found::Refused(refusal) if matches!(Step::of(&open), Step::Import(_)) => {
                answers::unusable(state, key, open, &refusal, out)
            }
            Found::Refused(refusal) => {
                send(&ended(open.run, TrainingRun::FAILED, &refusal), out)?;
                state.delete(key.to_vec())
            }
            Found::Model(made) => {
                let wanted = open.evaluation.clone();
                let mut run = finished(open, &made);
                self.register(&run, &made, out)?;
                if let Some(asked) = wanted.and_then(|wanted| evaluate::request(&wanted, &run, &made)) {
                    out.send(topics::EVALUATION_REQUESTS, Destination::ByKey, asked.family.as_bytes(), &asked)?;
                    run.evaluation_id = Some(asked.evaluation_id.clone());
                    let asked = evaluate::Asked { family: asked.family, evaluation_id: asked.evaluation_id };
                    state.put(of_run(ASKED, &run.run_id), entry::encode(VERSION, &EVALUATION, &asked)?)?;
                }
                send(&run, out)?;
                metrics::counter!("hokusai_training_runs_total").increment(1);
                crate::failpoint!("training.finishing");
                state.delete(key.to_vec())
            }
        }
    }

    fn register(&self, run: &TrainingRun, made: &Made, out: &mut Outputs<'_>) -> Result<(), StageError> {
        let Some(artefact) = run.artefact.clone() else { return Ok(()) };
        let lineage = Lineage {
            parent: run.base_version.clone(),
            dataset: Some(made.dataset.clone()),
            run_id: Some(run.run_id.clone()),
            recipe_digest: Some(made.recipe_digest.clone()),
            benchmark: run.benchmark.clone(),
            ..Lineage::default()
        };
        let mut params = run.params.clone();
        params.push(NamedValue { name: "algorithm".to_owned(), value: run.algorithm.clone() });
        params.push(NamedValue { name: "seed".to_owned(), value: run.seed.to_string() });
        params.extend(made.answer.clone().map(|value| NamedValue { name: "answer".to_owned(), value }));
        params.extend(run.trial.map(|trial| NamedValue { name: "trial".to_owned(), value: trial.to_string() }));
        let registration = Registration {
            origin: Origin::Trained,
            artefact,
            contract_digest: Some(run.contract_digest.clone()),
            features: made.features.clone(),
            lineage,
            params,
            metrics: made.metrics.clone(),
            tags: run.tags.clone(),
        };
        let found = Finding::Run(Box::new(RunResult { run_id: run.run_id.clone(), registration }));
        let result = StageResult { model: run.model.clone(), found };
        let event = result::event(&result, run.position.clone(), self.trust.now().serial(), &self.key)
            .map_err(|e| StageError::Compute { what: "a run's result".to_owned(), detail: e.to_string() })?;
        out.send(topics::REGISTRY_EVENTS, Destination::ByKey, run.model.as_bytes(), &event)
    }

    /// The run that is worked on or, if there is none, the one whose request came first.
    fn current(&self, state: &KeyValue) -> Result<Option<(Vec<u8>, Open)>, StageError> {
        if let Some(work) = &self.work
            && let Some(value) = state.get(&work.key)?
        {
            return Ok(Some((work.key.clone(), decode(&value)?)));
        }
        let oldest = state.scan_prefix(&[OPEN], 1)?.into_iter().next();
        oldest.map(|(key, value)| Ok((key.to_vec(), decode(&value)?))).transpose()
    }

    /// The step under way, if it is the next one of this run.
    fn works_on(&self, key: &[u8], open: &Open) -> Option<&Work<Found>> {
        self.work.as_ref().filter(|work| work.key == key && work.step == Step::of(open))
    }

    /// Begins the next step of a run.
    fn begin(&mut self, key: Vec<u8>, open: Open) -> Result<(), StageError> {
        let (step, checkpoint) = (Step::of(&open), open.run.run_id.clone());
        let work = move |shop: &Shop, pace: &work::Pace| steps::of_run(step, &open, shop, pace);
        let begun = Work::begin((key, step), &self.shop, checkpoint, work);
        self.work = Some(begun.map_err(|e| StageError::Outside(e.to_string()))?);
        Ok(())
    }
}

impl Stage for Training {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "training"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        self.models.fold(topic, key, value, wire)
    }

    fn owes(&self, state: &KeyValue) -> Result<bool, StageError> {
        self.shop.larder.tidy();
        let Some((key, open)) = self.current(state)? else { return Ok(self.work.is_some()) };
        Ok(match self.works_on(&key, &open) {
            None => true,
            Some(work) => work.found().is_some() || work.news().is_some(),
        })
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
        // A run that is not there any more is over: cancelled, or told already. One that waits has no checkpoint.
        let is_over = |work: &mut Work<Found>| current.as_ref().is_none_or(|(key, _)| *key != work.key);
        if let Some(work) = self.work.take_if(is_over) {
            work.abandon();
        }
        let Some((key, mut open)) = current else { return Ok(()) };
        let Some(work) = self.works_on(&key, &open) else {
            self.work = None;
            if open.begun >= MAX_BEGUN {
                let text = format!(
                    "workers began to learn {MAX_BEGUN} times and none came to the end; help: look at their logs"
                );
                return self.take(state, &key, open, Found::Refused(Refusal::new("GIVEN_UP", text)), out);
            }
            if Step::of(&open) != Step::Fix {
                open.begun += 1;
                state.put(key.clone(), encode(&open)?)?;
            }
            return self.begin(key, open);
        };
        if let Some(found) = work.found() {
            return self.take(state, &key, open, found, out);
        }
        if let Some(news) = work.news() {
            open.run.status = TrainingRun::RUNNING.to_owned();
            (open.run.iteration, open.run.iterations) = open.progress(news);
            send(&open.run, out)?;
            self.work.iter_mut().for_each(Work::told);
        }
        Ok(())
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            match message.value.map(|value| out.wire().decode::<TrainingJob>(value)) {
                Some(Ok(job)) => self.job(context, state, message.offset, job, out)?,
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => out.dead_letter(batch, &message, "JOB_UNREADABLE", error.to_string()),
                None => out.dead_letter(batch, &message, "JOB_UNREADABLE", "no value".to_owned()),
            }
        }
        Ok(())
    }
}

fn key_of(prefix: u8, offset: i64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The key of what is kept by a run's id.
fn of_run(prefix: u8, run_id: &str) -> Vec<u8> {
    [&[prefix], run_id.as_bytes()].concat()
}

/// The key of the same run under another prefix.
fn moved(key: &[u8], prefix: u8) -> Vec<u8> {
    std::iter::once(prefix).chain(key.iter().skip(1).copied()).collect()
}

/// A run that is not over, by its id.
fn find(state: &KeyValue, run_id: &str) -> Result<Option<(Vec<u8>, Open)>, StageError> {
    let Some(known) = state.get(&of_run(KNOWN, run_id))? else { return Ok(None) };
    for prefix in [OPEN, WAITING] {
        if known.len() > 1 {
            let key = moved(&known, prefix);
            if let Some(value) = state.get(&key)? {
                return Ok(Some((key, decode(&value)?)));
            }
            continue;
        }
        // Entries of earlier versions do not say where.
        for (key, value) in state.scan_prefix(&[prefix], MAX_OPEN)? {
            let open = decode(&value)?;
            if open.run.run_id == run_id {
                return Ok(Some((key.to_vec(), open)));
            }
        }
    }
    Ok(None)
}

/// Ends a run, if it is not over: whoever works on it finds it gone. Of one that is, the evaluation is taken back.
fn cancelled(state: &mut KeyValue, run_id: &str, by: Position, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let Some((key, open)) = find(state, run_id)? else { return taken_back(state, run_id, by, out) };
    if key.first() == Some(&WAITING) {
        issue(&open, true, out)?;
    }
    send(&ended(open.run, TrainingRun::CANCELLED, &Refusal::cancelled(&by)), out)?;
    state.delete(key)
}

/// Takes back the evaluation that a finished run asked for. The run stays finished, and it is sent once: it says all there is to say.
fn taken_back(state: &mut KeyValue, run_id: &str, by: Position, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let key = of_run(ASKED, run_id);
    let Some(bytes) = state.get(&key)? else { return Ok(()) };
    let asked: evaluate::Asked = entry::decode(VERSION, &EVALUATION, &bytes)?;
    let request = asked.cancel(by);
    out.send(topics::EVALUATION_REQUESTS, Destination::ByKey, request.family.as_bytes(), &request)?;
    state.delete(key)
}

fn send(run: &TrainingRun, out: &mut Outputs<'_>) -> Result<(), StageError> {
    out.send(topics::TRAINING_RUNS, Destination::ByKey, run.run_id.as_bytes(), run)
}

fn ended(run: TrainingRun, status: &str, refusal: &Refusal) -> TrainingRun {
    TrainingRun { status: status.to_owned(), reason: refusal.code.to_owned(), detail: refusal.detail.clone(), ..run }
}

fn refused_in_form(run_id: String, position: Position, refusal: TrainingRefusal) -> TrainingRun {
    let TrainingRefusal { request_id, model, code, detail } = refusal;
    let status = TrainingRun::REFUSED.to_owned();
    TrainingRun { run_id, request_id, model, status, position, reason: code, detail, ..TrainingRun::default() }
}

fn finished(open: Open, made: &Made) -> TrainingRun {
    let size = i64::try_from(made.size).unwrap_or(i64::MAX);
    let (iteration, iterations) = open.progress((made.iterations, made.iterations));
    let run = open.run;
    TrainingRun {
        status: TrainingRun::FINISHED.to_owned(),
        dataset: Some(made.dataset.clone()),
        recipe_digest: Some(made.recipe_digest.clone()),
        iteration,
        iterations: iterations.max(run.iterations),
        artefact: Some(Artefact { digest: made.digest.clone(), size, media_type: MEDIA_TYPE.to_owned() }),
        metrics: made.metrics.clone(),
        reason: String::new(),
        detail: String::new(),
        ..run
    }
}

fn encode(open: &Open) -> Result<Vec<u8>, StageError> {
    entry::encode(VERSION, &"a training run", open)
}

fn decode(bytes: &[u8]) -> Result<Open, StageError> {
    entry::decode(VERSION, &"a training run", bytes)
}

//! The steps of a run and of a trial, each on a thread that may wait: see [`Work`](super::work::Work).

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::admission::Open;
use super::import::import;
use super::job::job;
use super::learn::{Made, Prepared, Way, fit, learn, prepare};
use super::outside::{WayBack, fill};
use super::rows::{Wanted, read};
use super::warm;
use super::work::{Following, Pace, Shop, Step, persist};
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Dataset as Named, Metric, TopicEnd, TrainingTrial};
use crate::ml::declare::{Declaration, declaration};
use crate::stages::beside::Refusal;

/// Rows that a benchmark holds are never learned from, so what is below the same ends depends on the benchmarks in force.
const DATASET_CHANGED: &str = "the rows below the published ends have another digest now: a benchmark that holds some of them may have \
    been sealed or retired since; help: leave as_of out to train on the rows that are free now, or compare with a run made since";

/// What a step of a run gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The topics' ends: the dataset is fixed.
    Ends(Vec<TopicEnd>),
    /// The dataset that trials learn from; it is published.
    Surveyed(Named),
    /// The dataset, and what an external trainer needs; it is in the store.
    Job(Named, Artefact),
    /// The model; it is in the store.
    Model(Box<Made>),
    /// There will be none.
    Refused(Refusal),
}

impl From<Refusal> for Found {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a trial gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Loss on the validation fold, metrics there, iterations that the learner kept.
    Loss(String, Vec<Metric>, i32),
    /// Nothing can be said of these parameters.
    Refused(Refusal),
}

impl From<Refusal> for Judged {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn told<F: From<Refusal>>(done: Result<F, Option<Refusal>>) -> Option<F> {
    match done {
        Ok(found) => Some(found),
        Err(refusal) => refusal.map(F::from),
    }
}

/// Does a run's step; none when it was cancelled.
#[must_use]
pub fn of_run(step: Step, open: &Open, shop: &Shop, pace: &Pace) -> Option<Found> {
    if step == Step::Fix {
        return fix(shop, open, pace);
    }
    let _alone = shop.bench.lock().unwrap_or_else(PoisonError::into_inner);
    told(match step {
        Step::Survey => survey(shop, open, pace),
        Step::Prepare => offered(shop, open, pace),
        Step::Import(_) => import(shop, open, pace).map(|made| Found::Model(Box::new(made))),
        Step::Fix | Step::Learn => made(shop, open, pace),
    })
}

fn fix(shop: &Shop, open: &Open, pace: &Pace) -> Option<Found> {
    told(persist(pace, &open.run.run_id, || {
        let Some(digest) = &open.as_of else { return shop.outside.ends().map(Found::Ends) };
        match shop.outside.published(&open.run.model, digest)? {
            Some(way) => Ok(Found::Ends(way.ends)),
            None => Err(Refusal::new(
                "UNKNOWN_DATASET",
                "no dataset of that digest is published for the model; help: take the dataset digest of a run that is finished",
            )
            .into()),
        }
    }))
}

/// Which rows.
struct Source<'a> {
    run_id: &'a str,
    model: &'a str,
    spec: &'a str,
    ends: &'a [TopicEnd],
    sealed: &'a [Artefact],
    /// What the rows are encoded for, unless they are encoded anew.
    warm: Option<&'a Artefact>,
}

impl Source<'_> {
    fn of(open: &Open) -> Source<'_> {
        let run = &open.run;
        Source {
            run_id: &run.run_id,
            model: &run.model,
            spec: &open.spec,
            ends: &run.offsets,
            sealed: &open.sealed,
            warm: open.warm.as_ref(),
        }
    }

    /// The same for the same rows in the same columns.
    fn key(&self) -> [u8; 32] {
        let sealed: Vec<&str> = self.sealed.iter().map(|filter| filter.digest.as_str()).collect();
        Sha256::digest(format!("{:?}", (self.model, self.spec, self.ends, sealed, self.warm.map(|w| &w.digest)))).into()
    }

    /// Reads and encodes the rows, or takes them from the larder, where they are left for others if `shared`.
    fn rows(&self, shop: &Shop, pace: &Pace, shared: bool) -> Result<(Declaration, Arc<Prepared>), Option<Refusal>> {
        let refused = |code, detail: String| Some(Refusal::new(code, detail));
        let spec = Spec::from_canonical_json(self.spec).map_err(|e| refused("BAD_CONTRACT", e.to_string()))?;
        let mut declared = declaration(&spec).map_err(|e| refused("NOTHING_TO_LEARN", e.to_string()))?;
        let key = self.key();
        if let Some(rows) = shop.larder.get(&key) {
            return Ok((declared, rows));
        }
        let one = |filter| persist(pace, self.run_id, || shop.outside.filter(filter));
        let sealed = self.sealed.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        let rows = persist(pace, self.run_id, || {
            let (model, ends) = (self.model, self.ends);
            let wanted = Wanted { model, declared: &declared, ends, sealed: &sealed, owner: None };
            read(&*shop.outside, &shop.wire, wanted, shop.limits, &|| pace.is_cancelled())
        })?;
        persist(pace, self.run_id, || fill(&*shop.outside, &mut declared))?;
        let fetch = |artefact| persist(pace, self.run_id, || shop.outside.fetch(artefact, warm::MOST));
        let from = self.warm.map(fetch).transpose()?;
        let from = from.map(|bytes| warm::read(&bytes, &declared.task)).transpose().map_err(Some)?;
        let rows = Arc::new(prepare(&declared, rows, from).map_err(Some)?);
        if shared {
            shop.larder.put(key, Arc::clone(&rows));
        }
        Ok((declared, rows))
    }
}

/// The dataset of a run is what it has to be, and published.
fn publish(shop: &Shop, open: &Open, dataset: &Named, pace: &Pace) -> Result<(), Option<Refusal>> {
    let wanted = open.run.dataset.as_ref().map(|dataset| &dataset.digest).or(open.as_of.as_ref());
    if wanted.is_some_and(|digest| *digest != dataset.digest) {
        return Err(Some(Refusal::new("DATASET_CHANGED", DATASET_CHANGED)));
    }
    let run = &open.run;
    let way = WayBack { ends: run.offsets.clone(), sealed: open.sealed.clone() };
    persist(pace, &run.run_id, || shop.outside.publish(&run.model, &dataset.digest, &way))
}

/// Reads the rows that trials will learn from, and says what the search costs.
fn survey(shop: &Shop, open: &Open, pace: &Pace) -> Result<Found, Option<Refusal>> {
    let (_, rows) = Source::of(open).rows(shop, pace, true)?;
    let iterations = open.searching.as_ref().map_or(0, |searching| searching.planned);
    let cost = u64::try_from(rows.named.rows).unwrap_or(u64::MAX).saturating_mul(iterations);
    let limit = open.budget.map_or(shop.limits.budget, |budget| budget.cast_unsigned().min(shop.limits.budget));
    if cost > limit {
        let detail = format!(
            "{} rows × {iterations} iterations of all trials are more than {limit}; help: fewer trials or iterations",
            rows.named.rows
        );
        return Err(Some(Refusal::new("BUDGET_EXCEEDED", detail)));
    }
    publish(shop, open, &rows.named, pace)?;
    Ok(Found::Surveyed(rows.named.clone()))
}

/// Puts what an external trainer needs into the store.
fn offered(shop: &Shop, open: &Open, pace: &Pace) -> Result<Found, Option<Refusal>> {
    let (declared, rows) = Source::of(open).rows(shop, pace, false)?;
    publish(shop, open, &rows.named, pace)?;
    let job = job(open, &declared, &rows).map_err(Some)?;
    for blob in job.blobs.into_iter().chain([job.description]) {
        let blob = Bytes::from(blob);
        persist(pace, &open.run.run_id, || shop.outside.keep(blob.clone()))?;
    }
    crate::failpoint!("training.offering");
    Ok(Found::Job(rows.named.clone(), job.named))
}

fn made(shop: &Shop, open: &Open, pace: &Pace) -> Result<Found, Option<Refusal>> {
    let (declared, rows) = Source::of(open).rows(shop, pace, false)?;
    publish(shop, open, &rows.named, pace)?;
    let run_id = open.run.run_id.as_str();
    let checkpoint = persist(pace, run_id, || shop.outside.checkpointed(run_id))?;
    let mut following = Following::new(shop, run_id, pace);
    let made = learn(open, &declared, &rows, shop.limits.threads, checkpoint.as_deref(), &mut following);
    let Some(made) = made.map_err(Some)? else { return Err(None) };
    let artefact = Bytes::from(made.artefact);
    persist(pace, run_id, || shop.outside.keep(artefact.clone()))?;
    persist(pace, run_id, || shop.outside.forget(run_id))?;
    Ok(Found::Model(Box::new(Made { artefact: Vec::new(), size: artefact.len(), ..made })))
}

/// Name of a trial's checkpoints.
#[must_use]
pub fn checkpoint_of(trial: &TrainingTrial) -> String {
    format!("{}-{}-{}", trial.run_id, trial.number, trial.rung)
}

/// Computes a trial under the contract's specification; none when it was cancelled.
#[must_use]
pub fn of_trial(trial: &TrainingTrial, spec: &str, shop: &Shop, pace: &Pace) -> Option<Judged> {
    let _alone = shop.bench.lock().unwrap_or_else(PoisonError::into_inner);
    told(judged(trial, spec, shop, pace))
}

fn judged(trial: &TrainingTrial, spec: &str, shop: &Shop, pace: &Pace) -> Result<Judged, Option<Refusal>> {
    let refused = |code, detail: &str| Some(Refusal::new(code, detail));
    let TrainingTrial { run_id, model, offsets, sealed, .. } = trial;
    let source = Source { run_id, model, spec, ends: offsets, sealed, warm: None };
    let (declared, rows) = source.rows(shop, pace, true)?;
    if rows.named.digest != trial.dataset_digest {
        return Err(refused("DATASET_CHANGED", "this worker finds other rows than the run's"));
    }
    let value = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| refused("BAD_PARAMETER", "no JSON"));
    let pairs = trial.parameters.iter().map(|pair| Ok((pair.name.clone(), value(&pair.value)?)));
    let parameters = Value::Object(pairs.collect::<Result<Map<_, _>, Option<Refusal>>>()?);
    let way = Way {
        algorithm: &trial.algorithm,
        parameters: &parameters,
        seed: trial.seed.cast_unsigned(),
        threads: shop.limits.threads,
    };
    let name = checkpoint_of(trial);
    let checkpoint = persist(pace, run_id, || shop.outside.checkpointed(&name))?;
    let mut following = Following::new(shop, &name, pace);
    let fitted = fit(&rows, &declared.task, &way, (run_id, checkpoint.as_deref()), &mut following);
    let Some(fitted) = fitted.map_err(Some)? else { return Err(None) };
    persist(pace, run_id, || shop.outside.forget(&name))?;
    let loss = fitted.loss().map_err(Some)?;
    Ok(Judged::Loss(loss, fitted.metrics, i32::try_from(fitted.learned.iterations).unwrap_or(i32::MAX)))
}

//! The evaluation that a run asks for: fixed when the run is admitted, sent in the transaction that tells its result.
//!
//! Whoever cancels a run that is finished takes that evaluation back; whether it still can be is decided where attempts are counted.
//!
//! The baseline is `base_version` if the request names one, else the version in production, else the newest version that is not
//! archived when the run is admitted. Without any there is nothing to be better than, and the request is refused.

use serde::{Deserialize, Serialize};

use super::learn::Made;
use crate::domain::contract::Spec;
use crate::domain::records::{
    Artefact, Benchmark, Evaluation, EvaluationAttempt, EvaluationRequest, Model, ModelVersion, Position, TrainingRun,
    benchmark::parts,
};
use crate::stages::beside::Refusal;
use crate::stages::evaluation::plan::plan;

/// What an evaluation is fixed to before the run has learned anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Benchmark, `NAME@VERSION`.
    pub benchmark: String,
    /// Its attempts family.
    pub family: String,
    /// The baseline's version.
    pub baseline_version: String,
    /// The baseline's artefact.
    pub baseline: Artefact,
}

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// The evaluation on a benchmark (`NAME@VERSION`, or `NAME` for its newest version in force).
///
/// # Errors
/// No such benchmark, a retired one, one that does not fit the contract, or no baseline.
pub fn wanted(model: &Model, name: &str, base_version: Option<&str>, spec: &Spec) -> Result<Wanted, Refusal> {
    let benchmark = benchmark(model, name)?;
    plan(spec, benchmark)?;
    let Some(baseline) = baseline(model, base_version) else {
        let help = "help: train a first version without a benchmark, or name one with base_version";
        return refuse(
            "NO_BASELINE",
            format!("the model has no version that the candidate could be compared with; {help}"),
        );
    };
    Ok(Wanted {
        benchmark: benchmark.benchmark.clone(),
        family: benchmark.family.clone(),
        baseline_version: baseline.version.clone(),
        baseline: baseline.artefact.clone(),
    })
}

fn benchmark<'m>(model: &'m Model, name: &str) -> Result<&'m Benchmark, Refusal> {
    let unknown = || refuse("UNKNOWN_BENCHMARK", "the model has no such benchmark; help: `hokusai benchmark list`");
    let found = if parts(name).is_some() {
        model.benchmarks.iter().find(|known| known.benchmark == name)
    } else {
        let of_name = || model.benchmarks.iter().filter(|known| known.parts().0 == name);
        let in_force = of_name().filter(|known| !known.retired).max_by_key(|known| known.parts().1);
        in_force.or_else(|| of_name().max_by_key(|known| known.parts().1))
    };
    match found {
        None => unknown(),
        Some(retired) if retired.retired => {
            let text = format!("{} is retired and takes no further attempts; help: seal new rows", retired.benchmark);
            refuse("BENCHMARK_RETIRED", text)
        }
        Some(found) => Ok(found),
    }
}

fn baseline<'m>(model: &'m Model, base_version: Option<&str>) -> Option<&'m ModelVersion> {
    let newest = || model.versions.iter().rev().find(|version| version.stage != "archived");
    match base_version {
        Some(version) => model.version(version),
        None => newest(),
    }
}

/// What a finished run asks for.
#[must_use]
pub fn request(wanted: &Wanted, run: &TrainingRun, made: &Made) -> Option<EvaluationRequest> {
    let evaluation_id = Evaluation::id(&run.model, &wanted.benchmark, &made.recipe_digest);
    let attempt = EvaluationAttempt {
        request_id: run.request_id.clone(),
        position: run.position.clone(),
        run_id: run.run_id.clone(),
        model: run.model.clone(),
        benchmark: wanted.benchmark.clone(),
        contract_digest: run.contract_digest.clone(),
        candidate: run.artefact.clone()?,
        baseline: wanted.baseline.clone(),
        baseline_version: wanted.baseline_version.clone(),
        recipe_digest: made.recipe_digest.clone(),
        dataset: Some(made.dataset.clone()),
        requested_at: run.requested_at,
    };
    let family = wanted.family.clone();
    Some(EvaluationRequest { family, evaluation_id, attempt: Some(attempt), ..EvaluationRequest::default() })
}

/// The evaluation that a finished run asked for: kept until somebody takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its attempts family.
    pub family: String,
    /// The evaluation.
    pub evaluation_id: String,
}

impl Asked {
    /// What takes it back, because the record at this place asks for that.
    #[must_use]
    pub fn cancel(self, by: Position) -> EvaluationRequest {
        let Self { family, evaluation_id } = self;
        EvaluationRequest { family, evaluation_id, cancel: Some(by), ..EvaluationRequest::default() }
    }
}

//! Whether a request is admitted: a pure function of the request and the model as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::answers::External;
use super::evaluate;
use super::searching::{self, Searching};
use super::warm;
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Model, NamedValue, Position, TrainingRequest, TrainingRun};
use crate::ml::declare::declaration;
use crate::ml::{Learner, learner};
use crate::stages::beside::Refusal;

/// Name of the learner that is none: somebody else's program takes the rows from a job and answers with a model.
pub const EXTERNAL: &str = "external";
/// What a version says of itself beside its parameters: names that none of these may have.
const RESERVED: [&str; 4] = ["algorithm", "answer", "seed", "trial"];
/// Most of the rows that only judge.
const MAX_VALIDATION: f64 = 0.9;
/// Learner of a request that names none.
pub const DEFAULT_ALGORITHM: &str = "trees";
/// Share of the rows that only judges, unless `params.validation` says otherwise: a run tells how good its model is.
pub const DEFAULT_VALIDATION: f64 = 0.1;
/// Longest value of a parameter that a version keeps, in bytes.
const MAX_VALUE: usize = 1_024;

/// A run that is admitted and not over: what stands in the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Its record, as it was published last.
    pub run: TrainingRun,
    /// The learner's complete parameters as JSON text: numbers keep their form, however often a worker changes.
    pub parameters: String,
    /// Most rows times iterations.
    pub budget: Option<i64>,
    /// Published dataset to learn from.
    pub as_of: Option<String>,
    /// The model's specification at admission, canonical JSON.
    pub spec: String,
    /// The evaluation that it asks for when it is finished.
    #[serde(default)]
    pub evaluation: Option<evaluate::Wanted>,
    /// Match filters of the model's sealed benchmarks at admission: their rows are not learned from.
    pub sealed: Vec<Artefact>,
    /// How often a worker began to learn.
    pub begun: u32,
    /// Its search over parameters, if it has one.
    #[serde(default)]
    pub searching: Option<Searching>,
    /// What an external trainer has to do with it, if one does.
    #[serde(default)]
    pub external: Option<External>,
    /// The artefact that its trees go on from.
    #[serde(default)]
    pub warm: Option<Artefact>,
}

impl Open {
    /// Iterations done and at most, as they are told: those of the trials count too.
    #[must_use]
    pub fn progress(&self, (iteration, iterations): (i32, i32)) -> (i32, i32) {
        let Some(searching) = &self.searching else { return (iteration, iterations) };
        let told = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
        (told(searching.spent).saturating_add(iteration), told(searching.planned))
    }
}

/// The run of a request: it follows from the request's id alone, so that a second request with the id meets the first.
#[must_use]
pub fn run_id(request_id: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"hokusai run\0");
    hasher.update(request_id);
    let hash: [u8; 32] = hasher.finalize().into();
    data_encoding::HEXLOWER.encode(hash.first_chunk::<16>().map_or(&hash[..], |half| half))
}

pub(super) fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// The run of a request, as far as it is known from the request alone.
#[must_use]
pub fn requested(run_id: &str, (position, at): (&Position, i64), request: &TrainingRequest) -> TrainingRun {
    TrainingRun {
        requested_at: at,
        run_id: run_id.to_owned(),
        request_id: request.request_id.clone(),
        model: request.model.clone(),
        position: position.clone(),
        algorithm: request.algorithm.clone().unwrap_or_else(|| DEFAULT_ALGORITHM.to_owned()),
        params: request.params.clone(),
        seed: request.seed.unwrap_or(0),
        base_version: request.base_version.clone(),
        tags: request.tags.clone(),
        group: request.group.clone(),
        ..TrainingRun::default()
    }
}

/// Admits a request.
///
/// # Errors
/// Why not.
pub fn admit(run: TrainingRun, request: &TrainingRequest, model: Option<&Model>) -> Result<Open, Refusal> {
    let Some(model) = model else {
        return refuse("UNKNOWN_MODEL", "there is no such model; help: `hokusai model apply` declares one");
    };
    not_yet(request)?;
    let (parameters, searching) = way(request, &run)?;
    let base_version = base(model, request.base_version.as_deref())?;
    let warm = warm::wanted(request, &run.algorithm, model, base_version.as_deref())?;
    let parameters = warm::joined(parameters, warm.as_ref().map(|artefact| artefact.digest.as_str()));
    let params = listed(&parameters)?;
    if let Some(digest) = &request.as_of
        && !crate::stages::registry::version::is_sha256(digest)
    {
        return refuse("UNKNOWN_DATASET", "as_of is the digest of a published dataset: 64 lower-case hex digits");
    }
    let contract = model.contracts.iter().find(|c| c.digest == model.contract_digest);
    let Some(contract) = contract else {
        return refuse("UNKNOWN_MODEL", "the model has no contract in force");
    };
    let spec = Spec::from_canonical_json(&contract.spec).or_else(|e| refuse("BAD_CONTRACT", e))?;
    declaration(&spec).or_else(|e| refuse("NOTHING_TO_LEARN", e))?;
    let evaluation = match &request.benchmark {
        Some(name) => Some(evaluate::wanted(model, name, base_version.as_deref(), &spec)?),
        None => None,
    };
    let external = (run.algorithm == EXTERNAL).then(External::default);
    let run = TrainingRun {
        status: TrainingRun::ADMITTED.to_owned(),
        params,
        search: searching.as_ref().map(|searching| searching.declared.clone()),
        base_version: evaluation.as_ref().map(|wanted| wanted.baseline_version.clone()).or(base_version),
        benchmark: evaluation.as_ref().map(|wanted| wanted.benchmark.clone()),
        contract_digest: contract.digest.clone(),
        ..run
    };
    let in_force = model.benchmarks.iter().filter(|benchmark| !benchmark.retired);
    Ok(Open {
        run,
        parameters: parameters.to_string(),
        budget: request.budget,
        as_of: request.as_of.clone(),
        spec: contract.spec.clone(),
        evaluation,
        sealed: in_force.map(|benchmark| benchmark.match_filter.clone()).collect(),
        begun: 0,
        searching,
        external,
        warm,
    })
}

/// Complete parameters, and the search over them.
fn way(request: &TrainingRequest, run: &TrainingRun) -> Result<(Value, Option<Searching>), Refusal> {
    if run.algorithm == EXTERNAL {
        if request.search.is_some() {
            return refuse(
                "BAD_SEARCH",
                "an external trainer searches by itself; help: leave search out, or put it into params",
            );
        }
        return Ok((foreign(&request.params)?, None));
    }
    let learner = learner(&run.algorithm).or_else(|e| refuse(e.code(), e))?;
    let (given, parameters) = complete(learner, &request.params)?;
    let begin = |text| searching::begin(text, learner, &given, &parameters, run.seed);
    let searching = request.search.as_deref().map(begin).transpose()?;
    Ok((parameters, searching))
}

/// Parameters of an external trainer: handed on as they are, but for the share of rows that only judge.
fn foreign(given: &[NamedValue]) -> Result<Value, Refusal> {
    let mut given = params(given)?;
    if let Some(name) = RESERVED.iter().find(|name| given.contains_key(**name)) {
        return refuse(
            "BAD_PARAMETER",
            format!("parameter {name}: a version says this of itself; help: take another name"),
        );
    }
    let validation = given.entry("validation").or_insert_with(|| DEFAULT_VALIDATION.into());
    if !validation.as_f64().is_some_and(|share| (0.0..=MAX_VALIDATION).contains(&share)) {
        return refuse("BAD_PARAMETER", format!("parameter validation: a number from 0 to {MAX_VALIDATION}"));
    }
    Ok(Value::Object(given))
}

/// What the request's form knows and this version does not do is refused by name.
fn not_yet(request: &TrainingRequest) -> Result<(), Refusal> {
    match request.algorithm.as_deref() {
        Some(name @ "lightgbm") => refuse(
            "NOT_IMPLEMENTED",
            format!("the learner {name} is not implemented in this version; help: trees, linear or external"),
        ),
        _ => Ok(()),
    }
}

/// What a request gives, and the complete parameters that follow from it.
///
/// # Errors
/// Parameters that the learner does not take.
pub fn complete(learner: &dyn Learner, given: &[NamedValue]) -> Result<(Map<String, Value>, Value), Refusal> {
    let mut given = params(given)?;
    given.entry("validation").or_insert_with(|| DEFAULT_VALIDATION.into());
    let parameters = learner.parameters(&given).or_else(|e| refuse(e.code(), e))?;
    Ok((given, parameters))
}

fn params(pairs: &[NamedValue]) -> Result<Map<String, Value>, Refusal> {
    let value = |pair: &NamedValue| match serde_json::from_str(&pair.value) {
        Ok(value) => Ok((pair.name.clone(), value)),
        Err(_) => refuse("BAD_PARAMETER", "the value of a parameter is no JSON"),
    };
    pairs.iter().map(value).collect()
}

/// Complete parameters as a version keeps them.
pub(super) fn listed(parameters: &Value) -> Result<Vec<NamedValue>, Refusal> {
    let mut list: Vec<NamedValue> = parameters
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| NamedValue { name: name.clone(), value: value.to_string() })
        .collect();
    list.sort_unstable();
    if list.iter().any(|pair| pair.value.len() > MAX_VALUE) {
        return refuse("BAD_PARAMETER", format!("the value of a parameter is longer than {MAX_VALUE} bytes"));
    }
    Ok(list)
}

/// The version compared with: the named one, else the one in production.
fn base(model: &Model, named: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(name) = named else { return Ok(model.head("production").map(|v| v.version.clone())) };
    match model.resolve(name) {
        Some(version) => Ok(Some(version.version.clone())),
        None => refuse("UNKNOWN_VERSION", "the model has no such base_version; help: `hokusai model show` lists them"),
    }
}

//! What an attribution rests on, fixed once: the accepted evaluation and what the model's lineage says of both versions.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Benchmark, Evaluation, Model, ModelVersion};
use crate::ml::declare::{Declaration, declaration};
use crate::stages::beside::Refusal;
use crate::stages::training::admission::EXTERNAL;
use crate::stages::training::warm;

/// An attribution that is under way: what stands in the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The evaluation that accepted.
    pub evaluation: Evaluation,
    /// The seal.
    pub benchmark: Benchmark,
    /// Contract of the candidate, canonical JSON.
    pub spec: String,
    /// Its digest.
    pub contract_digest: String,
    /// The candidate's learner.
    pub algorithm: String,
    /// Its complete parameters as JSON text, sorted by name.
    pub parameters: String,
    /// Its seed.
    pub seed: i64,
    /// The candidate.
    pub candidate: Artefact,
    /// Rows that it was trained on, by their digest.
    pub dataset: String,
    /// The baseline.
    pub baseline: Artefact,
    /// Rows that it was trained on, by their digest.
    pub base_dataset: String,
    /// Whether learner, parameters and encoding are the baseline's too.
    pub same_recipe: bool,
    /// Whether the baseline is still what the candidate would replace.
    pub baseline_is_head: bool,
    /// How often a worker began.
    pub begun: u32,
}

fn refuse<T>(code: &'static str, detail: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

/// How a version was made, as it says itself.
struct Recipe<'m> {
    algorithm: &'m str,
    seed: i64,
    parameters: Map<String, Value>,
    dataset: &'m str,
    declared: Declaration,
}

/// The candidate of an evaluation, once its model lists it.
#[must_use]
pub fn candidate<'m>(model: &'m Model, evaluation: &Evaluation) -> Option<&'m ModelVersion> {
    let of_run = |version: &&ModelVersion| version.lineage.run_id.as_deref() == Some(evaluation.run_id.as_str());
    model.versions.iter().filter(of_run).find(|version| version.artefact.digest == evaluation.candidate)
}

/// What an accepted evaluation is attributed by.
///
/// # Errors
/// What the lineage does not say, or what it says that cannot be attributed.
pub fn case(model: &Model, candidate: &ModelVersion, evaluation: &Evaluation) -> Result<Case, Refusal> {
    let Some(benchmark) = model.benchmarks.iter().find(|known| known.benchmark == evaluation.benchmark) else {
        return refuse("UNKNOWN_BENCHMARK", "the model has no such benchmark");
    };
    let own = recipe(model, candidate, "the candidate", "NO_RECIPE")?;
    if own.algorithm == EXTERNAL {
        let text = "the candidate was learned by an external trainer: its recipe cannot be played on other rows";
        return refuse("NO_RECIPE", text);
    }
    let Some(base) = model.version(&evaluation.baseline_version) else {
        return refuse("UNKNOWN_VERSION", "the model does not list the baseline's version");
    };
    let other = recipe(model, base, "the baseline", "NO_BASE_ROWS")?;
    let same_recipe =
        own.algorithm == other.algorithm && own.parameters == other.parameters && own.declared == other.declared;
    let contract = contract(model, &candidate.contract_digest)?;
    Ok(Case {
        evaluation: evaluation.clone(),
        benchmark: benchmark.clone(),
        spec: contract.to_owned(),
        contract_digest: candidate.contract_digest.clone(),
        algorithm: own.algorithm.to_owned(),
        parameters: Value::Object(own.parameters).to_string(),
        seed: own.seed,
        candidate: candidate.artefact.clone(),
        dataset: own.dataset.to_owned(),
        baseline: base.artefact.clone(),
        base_dataset: other.dataset.to_owned(),
        same_recipe,
        baseline_is_head: is_head(model, base, candidate),
        begun: 0,
    })
}

/// Nothing else was promoted over the baseline. Its own successor does not make it stale.
fn is_head(model: &Model, baseline: &ModelVersion, candidate: &ModelVersion) -> bool {
    model.head("production").is_none_or(|head| [&baseline.version, &candidate.version].contains(&&head.version))
}

fn contract<'m>(model: &'m Model, digest: &str) -> Result<&'m str, Refusal> {
    match model.contracts.iter().find(|contract| contract.digest == digest) {
        Some(contract) => Ok(&contract.spec),
        None => refuse("UNKNOWN_CONTRACT", "the model never had the contract that the version was trained under"),
    }
}

fn recipe<'m>(
    model: &'m Model,
    version: &'m ModelVersion,
    who: &str,
    code: &'static str,
) -> Result<Recipe<'m>, Refusal> {
    let unknown = || {
        Refusal::new(
            code,
            format!("{who} {} was not trained here: nothing says from which rows, or how", version.version),
        )
    };
    let (mut algorithm, mut seed, mut parameters) = (None, None, Map::new());
    for pair in &version.params {
        match pair.name.as_str() {
            "algorithm" => algorithm = Some(pair.value.as_str()),
            "seed" => seed = pair.value.parse().ok(),
            "trial" | "answer" => {}
            warm::PARAMETER => {
                let text = "went on from an earlier one: its recipe cannot be played on other rows";
                return refuse(code, format!("{who} {} {text}", version.version));
            }
            _ => {
                let value: Value = serde_json::from_str(&pair.value).map_err(|_| unknown())?;
                parameters.insert(pair.name.clone(), value);
            }
        }
    }
    let dataset = version.lineage.dataset.as_ref().map(|dataset| dataset.digest.as_str());
    let (Some(algorithm), Some(seed), Some(dataset)) = (algorithm, seed, dataset) else { return Err(unknown()) };
    let spec = Spec::from_canonical_json(contract(model, &version.contract_digest)?);
    let declared = declaration(&spec.or_else(|e| refuse("BAD_CONTRACT", e))?).or_else(|e| refuse("BAD_CONTRACT", e))?;
    Ok(Recipe { algorithm, seed, parameters, dataset, declared })
}

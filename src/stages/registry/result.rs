//! Results of the platform's own stages, as events of the registry: what a training run made, what an evaluation found.
//!
//! A result is no request: it names no revision and never goes stale. It is signed with the key of the stage that found
//! it, which may say nothing else, and counts once by its own id. Payloads are canonical JSON of another type than
//! commands, so that a signature of one is none of the other:
//! `{"evaluation_id":…,"model":…,"result":"evaluation",…}`, `{"model":…,"registration":{…},"result":"run","run_id":…}`.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::{CommandError, Registration, payload, take_text, without_nulls};
use crate::attest::dsse::Envelope;
use crate::attest::trust::Role;
use crate::domain::limits::MAX_ID;
use crate::domain::records::{Position, RegistryEvent, VersionEvaluation};

/// Payload type of results: part of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.hokusai.result+json";

/// What a finished training run made: it becomes a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// The run.
    pub run_id: String,
    /// The version; its origin is `trained`, its lineage names the run.
    pub registration: Registration,
}

/// What an evaluation found. What a refused attempt must not tell is left out by who evaluates, and refused here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationResult {
    /// The evaluation.
    pub evaluation_id: String,
    /// SHA-256 of the candidate's artefact, hex.
    pub candidate: String,
    /// SHA-256 of the baseline's artefact, hex.
    pub baseline: String,
    /// Benchmark.
    pub benchmark: String,
    /// `accepted`, `refused`, `failed` or `cancelled`.
    pub status: String,
    /// Reason codes, sorted.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Primary metric.
    pub metric: String,
    /// Candidate less baseline, decimal string; only when accepted.
    #[serde(default)]
    pub delta: Option<String>,
    /// Lower bound of delta; only when accepted.
    #[serde(default)]
    pub lower: Option<String>,
    /// SHA-256 of the signed statement, hex; none when there is none.
    #[serde(default)]
    pub statement: Option<String>,
}

impl EvaluationResult {
    /// As it stands beside the candidate's version.
    #[must_use]
    pub fn record(self) -> VersionEvaluation {
        VersionEvaluation {
            evaluation_id: self.evaluation_id,
            benchmark: self.benchmark,
            baseline: self.baseline,
            status: self.status,
            reasons: self.reasons,
            metric: self.metric,
            delta: self.delta,
            lower: self.lower,
            statement: self.statement.unwrap_or_default(),
        }
    }
}

/// What a stage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A training run is finished.
    Run(Box<RunResult>),
    /// An evaluation is finished.
    Evaluation(Box<EvaluationResult>),
}

impl Found {
    /// The result's name, as it stands in the payload.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Evaluation(_) => "evaluation",
        }
    }

    /// The role that signing it needs.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Run(_) => Role::RunResult,
            Self::Evaluation(_) => Role::EvaluationResult,
        }
    }

    /// What it counts by, once: the id of the run or evaluation behind its kind.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Run(run) => format!("run/{}", run.run_id),
            Self::Evaluation(evaluation) => format!("evaluation/{}", evaluation.evaluation_id),
        }
    }
}

/// A result as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageResult {
    /// Model that it is about.
    pub model: String,
    /// What was found.
    pub found: Found,
}

/// Signs a result: the event that the stage writes to `registry.events`, keyed by the model. `position` is that of the
/// request behind it in an outsiders' topic, `trust` the serial of the trust file in force.
///
/// # Errors
/// When it has no JSON form.
pub fn event(
    result: &StageResult,
    position: Position,
    trust: i64,
    signer: &SigningKey,
) -> Result<RegistryEvent, serde_json::Error> {
    let mut fields = match &result.found {
        Found::Run(run) => serde_json::to_value(run)?,
        Found::Evaluation(evaluation) => serde_json::to_value(evaluation)?,
    };
    if let Value::Object(fields) = &mut fields {
        fields.insert("model".to_owned(), result.model.clone().into());
        fields.insert("result".to_owned(), result.found.name().into());
    }
    let payload = serde_json_canonicalizer::to_vec(&without_nulls(fields))?;
    let envelope = Envelope::sign(PAYLOAD_TYPE, payload, signer).to_json();
    let (model, kind) = (result.model.clone(), RegistryEvent::RESULT.to_owned());
    Ok(RegistryEvent { model, kind, envelope, position, intake_key: None, trust })
}

/// Reads the result of an envelope. The signature is not looked at.
///
/// # Errors
/// [`CommandError`]; texts repeat no byte of the payload.
pub fn read(envelope: &Envelope) -> Result<StageResult, CommandError> {
    let mut fields = payload(envelope, PAYLOAD_TYPE)?;
    let model = take_text(&mut fields, "model", MAX_ID)?;
    let name = take_text(&mut fields, "result", MAX_ID)?;
    let wrong = |_| CommandError::Json("its fields are not those of its kind of result".to_owned());
    let fields = Value::Object(fields);
    let found = match name.as_str() {
        "run" => Found::Run(serde_json::from_value(fields).map_err(wrong)?),
        "evaluation" => Found::Evaluation(serde_json::from_value(fields).map_err(wrong)?),
        _ => return Err(CommandError::Json("it is none that this version knows: run, evaluation".to_owned())),
    };
    Ok(StageResult { model, found })
}

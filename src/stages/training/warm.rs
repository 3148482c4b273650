//! Warm start: trees that go on from those of an earlier version instead of from nothing.
//!
//! The earlier version's digest stands among the parameters, so it is in the recipe, and whoever reads a version sees it. Rows are encoded as that
//! version encodes them: its trees ask for its categories. A contract that has changed its features since cannot go on from it.

use serde_json::Value;

use super::admission::refuse;
use crate::domain::records::{Artefact, Model as Registered, TrainingRequest};
use crate::ml::Task;
use crate::ml::artefact::MAX_BYTES;
use crate::ml::encoding::{Declared, Encode, Encoding, Feature, Kind};
use crate::ml::model::{Model, Predictor};
use crate::stages::beside::Refusal;

/// Name of the parameter that holds the digest.
pub const PARAMETER: &str = "warm_start";
/// Reason code.
pub const UNUSABLE: &str = "WARM_START_UNUSABLE";

/// The artefact that a request goes on from; none when it starts from scratch.
///
/// # Errors
/// What is asked for cannot go on from anything, or there is nothing.
pub fn wanted(
    request: &TrainingRequest,
    algorithm: &str,
    model: &Registered,
    base: Option<&str>,
) -> Result<Option<Artefact>, Refusal> {
    if request.warm_start != Some(true) {
        return Ok(None);
    }
    if algorithm != "trees" {
        let help = "leave warm_start out: a linear model has one minimum, and an external trainer starts as it likes";
        return refuse(UNUSABLE, format!("only trees go on from a version; help: {help}"));
    }
    if request.search.is_some() {
        return refuse(UNUSABLE, "the trials of a search start from scratch; help: leave search out, or warm_start");
    }
    let Some(version) = base.and_then(|base| model.version(base)) else {
        let help = "name base_version: no version is in production";
        return refuse(UNUSABLE, format!("there is no version to go on from; help: {help}"));
    };
    Ok(Some(version.artefact.clone()))
}

/// The learner's own parameters, and the digest that it goes on from.
#[must_use]
pub fn split(parameters: &Value) -> (Value, Option<String>) {
    let mut own = parameters.clone();
    let digest = own.as_object_mut().and_then(|own| own.remove(PARAMETER));
    (own, digest.as_ref().and_then(Value::as_str).map(str::to_owned))
}

/// The complete parameters of a run that goes on from an artefact.
#[must_use]
pub fn joined(mut parameters: Value, from: Option<&str>) -> Value {
    if let (Some(own), Some(digest)) = (parameters.as_object_mut(), from) {
        own.insert(PARAMETER.to_owned(), digest.into());
    }
    parameters
}

/// Reads the model to go on from.
///
/// # Errors
/// It is no model of trees for the task.
pub fn read(bytes: &[u8], task: &Task) -> Result<Model, Refusal> {
    let model = Model::from_bytes(bytes).or_else(|e| refuse(UNUSABLE, format!("the base version: {e}")))?;
    match &model.predictor {
        Predictor::Trees(_) if model.task == *task => Ok(model),
        Predictor::Trees(_) => refuse(UNUSABLE, "the base version predicts something else than the contract's label"),
        _ => {
            refuse(UNUSABLE, "the base version is no model of trees of the platform's own; help: leave warm_start out")
        }
    }
}

/// Most bytes of an artefact to go on from.
pub const MOST: u64 = MAX_BYTES as u64;

/// How the model encodes a declared column, if it still does as declared.
///
/// # Errors
/// It does not.
pub fn part(known: &Encoding, declared: &Declared) -> Result<Encoding, Refusal> {
    let own: Vec<Feature> = known.features.iter().filter(|f| f.column == declared.column).cloned().collect();
    let kinds: Vec<&Kind> = own.iter().map(|feature| &feature.kind).collect();
    let fits = match &declared.encode {
        Encode::Number => matches!(kinds[..], [Kind::Number]),
        Encode::Category | Encode::Categories(_) => matches!(kinds[..], [Kind::Category(_)]),
        Encode::Time(parts) => {
            kinds.iter().copied().eq(&parts.iter().map(|part| Kind::Time(*part)).collect::<Vec<_>>())
        }
    };
    if fits { Ok(Encoding { features: own, derivation: known.derivation.clone() }) } else { changed() }
}

/// The encoding of all columns is the model's.
///
/// # Errors
/// It is not.
pub fn whole(known: &Encoding, made: &Encoding) -> Result<(), Refusal> {
    if known == made { Ok(()) } else { changed() }
}

fn changed<T>() -> Result<T, Refusal> {
    let help = "leave warm_start out";
    refuse(UNUSABLE, format!("the base version takes other features than the contract declares now; help: {help}"))
}

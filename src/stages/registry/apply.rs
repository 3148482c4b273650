//! A contract for a model: a new one, or the one in force with another intake key.

use super::fold::{ContractCheck, Denial, deny};
use crate::domain::contract::Spec;
use crate::domain::records::{IntakeKey, Model, ModelContract};

/// Contracts that a model keeps.
pub const MAX_CONTRACTS: usize = 64;

/// Bytes that the contracts of a model may have together: its record must fit into one message.
pub const MAX_CONTRACT_BYTES: usize = 840 * 1024;

/// Gives a model the contract of a specification; none when that is in force already and there is no other key to publish.
pub(super) fn apply(
    current: Option<&Model>,
    name: &str,
    spec: &str,
    check: &ContractCheck,
    key: Option<&IntakeKey>,
) -> Result<Option<(Model, String)>, Denial> {
    let revision = current.map_or(0, |model| model.revision);
    let spec = Spec::from_canonical_json(spec).or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
    if spec.name != name {
        return deny("INVALID_SPEC", "the specification is of another model than the command");
    }
    // Defaults that are written out are taken out: one contract has one digest.
    let text = spec.canonical_json().or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
    let digest = spec.contract_digest().or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
    check(&spec).or_else(|e| deny("INVALID_SPEC", e))?;
    if let Some(model) = current.filter(|model| model.contract_digest == digest) {
        return Ok(published(model, key));
    }
    let told = format!("contract {digest}");
    let mut model = changed(current, name, ModelContract { digest, revision: revision + 1, spec: text })?;
    model.intake_key = key.cloned().or(model.intake_key);
    Ok(Some((model, told)))
}

/// The contract in force applied again: the model changes only when the platform has another intake key to publish.
fn published(current: &Model, key: Option<&IntakeKey>) -> Option<(Model, String)> {
    if key.is_none() || current.intake_key.as_ref() == key {
        return None;
    }
    let mut model = current.clone();
    model.revision += 1;
    model.intake_key = key.cloned();
    Some((model, "intake key published".to_owned()))
}

fn changed(current: Option<&Model>, name: &str, contract: ModelContract) -> Result<Model, Denial> {
    let mut model = current.cloned().unwrap_or_else(|| Model { model: name.to_owned(), ..Model::default() });
    model.contracts.retain(|c| c.digest != contract.digest);
    model.revision = contract.revision;
    model.contract_digest.clone_from(&contract.digest);
    model.contracts.push(contract);
    let bytes: usize = model.contracts.iter().map(|c| c.spec.len() + c.digest.len() + 16).sum();
    if model.contracts.len() > MAX_CONTRACTS || bytes > MAX_CONTRACT_BYTES {
        return deny(
            "MODEL_FULL",
            format!(
                "a model keeps at most {MAX_CONTRACTS} contracts of {MAX_CONTRACT_BYTES} bytes together; help: declare a new model"
            ),
        );
    }
    Ok(model)
}

//! The fold: a model and one event give a decision. Pure, so that `models` can be rebuilt byte for byte.

use super::command::{self, Apply};
use crate::attest::dsse::Envelope;
use crate::attest::trust::{Role, Trust};
use crate::domain::contract::Spec;
use crate::domain::records::{Audit, IntakeKey, Model, ModelContract, RegistryEvent};

/// Contracts that a model keeps.
pub const MAX_CONTRACTS: usize = 64;

/// Bytes that the contracts of a model may have together: its record must fit into one message.
pub const MAX_CONTRACT_BYTES: usize = 840 * 1024;

/// Ids of folded commands that a model keeps.
const MAX_COMMANDS: usize = 256;

/// Characters of a denial's text: what is wrong with a specification may take long to tell.
const MAX_TEXT: usize = 2_000;

/// Checks what a specification alone cannot tell (compiles its SQL): none when the contract can be used.
pub type ContractCheck = dyn Fn(&Spec) -> Result<(), String> + Send;

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The model, if the event changed it.
    pub model: Option<Model>,
    /// Who asked for what, and the answer.
    pub audit: Audit,
}

/// Why a command is denied: a stable code and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denial {
    code: &'static str,
    text: String,
}

fn deny<T>(code: &'static str, text: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { code, text: text.into().chars().take(MAX_TEXT).collect() })
}

/// What the fold knows besides the model.
pub struct Rules<'a> {
    /// Whom to trust with what.
    pub trust: &'a Trust,
    /// See [`ContractCheck`].
    pub check: &'a ContractCheck,
}

impl Rules<'_> {
    /// Decides on an event at an offset of the model's partition.
    #[must_use]
    pub fn decide(&self, current: Option<&Model>, event: &RegistryEvent, offset: i64) -> Decision {
        let mut request = Request::default();
        let outcome = self.fold(current, event, offset, &mut request);
        let about = |text: String| match &request.command_id {
            Some(id) => format!("{text} (command {id})"),
            None => text,
        };
        let (model, allowed, reason) = match outcome {
            Ok(Some(model)) => {
                let reason = format!("revision {}", model.revision);
                (Some(model), true, about(reason))
            }
            Ok(None) => (None, true, about("the contract is in force already".to_owned())),
            Err(denial) => (None, false, format!("{}: {}", denial.code, about(denial.text))),
        };
        let audit = Audit {
            actor: request.actor.unwrap_or_else(|| "unverified".to_owned()),
            action: Role::ModelApply.name().to_owned(),
            resource: format!("model/{}", event.model),
            allowed,
            reason,
            position: Some(event.position.clone()),
        };
        Decision { model, audit }
    }

    fn fold(
        &self,
        current: Option<&Model>,
        event: &RegistryEvent,
        offset: i64,
        request: &mut Request,
    ) -> Result<Option<Model>, Denial> {
        if event.kind != "command" {
            return deny("UNKNOWN_KIND", "an event of a kind that this version does not know");
        }
        let envelope = Envelope::from_json(event.envelope.as_bytes()).or_else(|e| deny("MALFORMED", e.to_string()))?;
        let command = command::read(&envelope);
        request.command_id = command.as_ref().ok().map(|c| c.command_id.clone());
        self.authorise(&envelope, request)?;
        let command = command.or_else(|e| deny("MALFORMED", e.to_string()))?;
        if command.model != event.model {
            return deny("WRONG_MODEL", "the command is about another model than the event that carries it");
        }
        if command.expires_offset.is_some_and(|last| offset > last) {
            return deny("EXPIRED", "the command came after the offset at which it expires");
        }
        self.apply(current, command, event.intake_key.as_ref())
    }

    fn authorise(&self, envelope: &Envelope, request: &mut Request) -> Result<(), Denial> {
        let Some((keyid, key)) = self.trust.signer(envelope) else {
            let known = envelope.signatures.iter().any(|s| self.trust.knows(&s.keyid));
            return if envelope.signatures.is_empty() {
                deny("UNSIGNED", "the command bears no signature")
            } else if known {
                deny("BAD_SIGNATURE", "the signature is not one of the key that it names over this payload")
            } else {
                deny(
                    "UNKNOWN_KEY",
                    "no signature of a trusted key; help: add the key to the trust file of the registry",
                )
            };
        };
        request.actor = Some(keyid.to_owned());
        if key.roles.contains(&Role::ModelApply) {
            return Ok(());
        }
        deny("OUT_OF_ROLE", format!("key {:?} does not hold the role {}", key.name, Role::ModelApply.name()))
    }

    fn apply(&self, current: Option<&Model>, command: Apply, key: Option<&IntakeKey>) -> Result<Option<Model>, Denial> {
        let revision = current.map_or(0, |model| model.revision);
        if current.is_some_and(|model| model.commands.contains(&command.command_id)) {
            return deny("REPEATED", "the command was carried out before");
        }
        if command.expected_revision != revision {
            let expected = command.expected_revision;
            return deny(
                "STALE_REVISION",
                format!("the model is at revision {revision}, the command expects {expected}"),
            );
        }
        let spec = Spec::from_canonical_json(&command.spec).or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
        if spec.name != command.model {
            return deny("INVALID_SPEC", "the specification is of another model than the command");
        }
        // Defaults that are written out are taken out: one contract has one digest.
        let text = spec.canonical_json().or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
        let digest = spec.contract_digest().or_else(|e| deny("INVALID_SPEC", e.to_string()))?;
        (self.check)(&spec).or_else(|e| deny("INVALID_SPEC", e))?;
        if let Some(model) = current.filter(|model| model.contract_digest == digest) {
            return Ok(published(model, command.command_id, key));
        }
        let contract = ModelContract { digest, revision: revision + 1, spec: text };
        let mut model = changed(current, command, contract)?;
        model.intake_key = key.cloned().or(model.intake_key);
        Ok(Some(model))
    }
}

/// The contract in force applied again: the model changes only when the platform has another intake key to publish.
fn published(current: &Model, command_id: String, key: Option<&IntakeKey>) -> Option<Model> {
    if key.is_none() || current.intake_key.as_ref() == key {
        return None;
    }
    let mut model = current.clone();
    model.revision += 1;
    model.intake_key = key.cloned();
    remember(&mut model, command_id);
    Some(model)
}

fn changed(current: Option<&Model>, command: Apply, contract: ModelContract) -> Result<Model, Denial> {
    let mut model = current.cloned().unwrap_or_else(|| Model {
        model: command.model,
        revision: 0,
        contract_digest: String::new(),
        contracts: Vec::new(),
        commands: Vec::new(),
        intake_key: None,
    });
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
    remember(&mut model, command.command_id);
    Ok(model)
}

fn remember(model: &mut Model, command_id: String) {
    model.commands.push(command_id);
    let surplus = model.commands.len().saturating_sub(MAX_COMMANDS);
    model.commands.drain(..surplus);
}

/// What could be read of who asks for what.
#[derive(Debug, Default)]
struct Request {
    actor: Option<String>,
    command_id: Option<String>,
}

//! The registry: folds `registry.events` into `models`. The log decides; `models` can be rebuilt from it byte for byte.
//!
//! Invariants:
//! * a Kafka record does not carry its producer's principal, so a command counts by its signature alone: an Ed25519 key of
//!   the trust file that holds the role;
//! * compare-and-set: a command names the revision that its sender saw, and changes that revision only;
//! * every decision is audited, allowed or denied, with a stable code; no secret and no payload stands in an audit record;
//! * a model's record is bounded: past the bound a command is denied by name.

pub mod command;
pub mod fold;
#[cfg(test)]
mod tests;

pub use fold::ContractCheck;
use fold::Rules;

use crate::attest::trust::Trust;
use crate::domain::records::{Model, RegistryEvent};
use crate::domain::topics;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// Format version of a model in the state.
const VERSION: u8 = 1;

/// The stage: see the module.
pub struct Registry {
    trust: Trust,
    check: Box<ContractCheck>,
}

impl Registry {
    /// The stage, with whom to trust and how to check that a contract can be used.
    #[must_use]
    pub fn new(trust: Trust, check: Box<ContractCheck>) -> Self {
        Self { trust, check }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Stage for Registry {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "registry"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn process(
        &mut self,
        _context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let rules = Rules { trust: &self.trust, check: &*self.check };
        for message in batch.iter() {
            let event = match message.value.map(|value| out.wire().decode::<RegistryEvent>(value)) {
                Some(Ok(event)) => event,
                Some(Err(error)) if error.is_retriable() => return Err(error.into()),
                Some(Err(error)) => {
                    out.dead_letter(batch, &message, "EVENT_UNREADABLE", error.to_string());
                    continue;
                }
                None => {
                    out.dead_letter(batch, &message, "EVENT_UNREADABLE", "no value".to_owned());
                    continue;
                }
            };
            let current = state.get(event.model.as_bytes())?.map(|bytes| decode(&event.model, &bytes)).transpose()?;
            let decision = rules.decide(current.as_ref(), &event, message.offset);
            let actor = decision.audit.actor.clone();
            out.send(topics::AUDIT, Destination::ByKey, actor.as_bytes(), &decision.audit)?;
            if let Some(model) = decision.model {
                state.put(event.model.clone().into_bytes(), encode(&model)?)?;
                out.send(topics::MODELS, Destination::ByKey, event.model.as_bytes(), &model)?;
            }
        }
        Ok(())
    }
}

fn encode(model: &Model) -> Result<Vec<u8>, StageError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, model).map_err(|e| damaged(&model.model, e.to_string()))?;
    Ok(bytes)
}

fn decode(name: &str, bytes: &[u8]) -> Result<Model, StageError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|e| damaged(name, e.to_string())),
        Some((version, _)) => Err(damaged(name, format!("format version {version}, this program reads {VERSION}"))),
        None => Err(damaged(name, "empty".to_owned())),
    }
}

fn damaged(name: &str, detail: String) -> StageError {
    StageError::State { what: format!("model {name:?}"), detail }
}

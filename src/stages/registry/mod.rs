//! The registry: folds `registry.events` into `models` and, for sealed benchmarks, `benchmarks`. The log decides; `models` can
//! be rebuilt from it byte for byte, and holds every benchmark's record too.
//!
//! Invariants:
//! * a Kafka record does not carry its producer's principal, so a command counts by its signature alone: an Ed25519 key of
//!   the trust file that holds the role;
//! * compare-and-set: a command names the revision that its sender saw, and changes that revision only;
//! * results of the platform's stages (runs, evaluations) come as events of the same log, signed with the stages' own keys;
//! * which keys and policies count for an event says the serial of the trust file that the event was stamped with: what was
//!   once decided is decided the same again, whatever the file has become. A partition never goes back behind a serial that
//!   it has seen, so that a revoked key cannot come back with an old stamp;
//! * every decision is audited, allowed or denied, with a stable code; no secret and no payload stands in an audit record;
//! * a model's record is bounded: past the bound a command is denied by name.

mod apply;
pub mod benchmark;
pub mod command;
pub mod fold;
pub mod lifecycle;
pub mod policy;
pub mod refold;
pub mod result;
mod statement;
#[cfg(test)]
mod tests;
pub mod version;

pub use fold::ContractCheck;
use fold::{Place, Rules};

use crate::attest::trust::{LiveTrust, Trust};
use crate::domain::records::{Model, RegistryEvent};
use crate::domain::topics;
use crate::stages::entry;
use crate::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

/// Format version of a model in the state.
const VERSION: u8 = 1;

/// Where a task keeps the highest serial of the trust file that its partition has seen: no model's name begins so.
const SERIAL: &[u8] = b"\0trust";

/// All attestation requests are one log.
const LOG: &[u8] = b"log";

/// The stage: see the module.
pub struct Registry {
    trust: LiveTrust,
    check: Box<ContractCheck>,
}

impl Registry {
    /// The stage, with whom to trust and how to check that a contract can be used.
    #[must_use]
    pub fn new(trust: impl Into<LiveTrust>, check: Box<ContractCheck>) -> Self {
        Self { trust: trust.into(), check }
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
        let trust = self.trust.now();
        let rules = Rules { trust: &trust, check: &*self.check };
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
            let serial = serial(state, &trust, event.trust)?;
            let decision = rules.decide(current.as_ref(), &event, Place { offset: message.offset, serial });
            let actor = decision.audit.actor.clone();
            out.send(topics::AUDIT, Destination::ByKey, actor.as_bytes(), &decision.audit)?;
            if let Some(model) = decision.model {
                state.put(event.model.clone().into_bytes(), encode(&model)?)?;
                out.send(topics::MODELS, Destination::ByKey, event.model.as_bytes(), &model)?;
            }
            if let Some(benchmark) = decision.benchmark {
                out.send(topics::BENCHMARKS, Destination::ByKey, benchmark.key().as_bytes(), &benchmark)?;
            }
            if let Some(request) = decision.attest {
                out.send(topics::ATTESTATION_REQUESTS, Destination::Partition(0), LOG, &request)?;
            }
        }
        Ok(())
    }
}

/// The serial that counts for an event: the one it was stamped with, or a later one that its partition has seen.
fn serial(state: &mut KeyValue, trust: &Trust, stamped: i64) -> Result<i64, StageError> {
    let seen = state.get(SERIAL)?.and_then(|bytes| Some(i64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
    let serial = counting(stamped, seen);
    behind(serial, trust)?;
    if seen != Some(serial) {
        state.put(SERIAL.to_vec(), serial.to_be_bytes().to_vec())?;
    }
    Ok(serial)
}

/// The later one of the serial that an event was stamped with and the one that its partition has seen; 1 before all.
fn counting(stamped: i64, seen: Option<i64>) -> i64 {
    stamped.max(seen.unwrap_or(1)).max(1)
}

/// Whether the trust file knows of a serial.
fn behind(serial: i64, trust: &Trust) -> Result<(), StageError> {
    if serial <= trust.serial() {
        return Ok(());
    }
    Err(StageError::Behind {
        what: format!("an event was put in order under serial {serial} of the trust file"),
        help: format!("the trust file here is of serial {}; give this machine the present one", trust.serial()),
    })
}

fn encode(model: &Model) -> Result<Vec<u8>, StageError> {
    entry::encode(VERSION, &format_args!("model {:?}", model.model), model)
}

fn decode(name: &str, bytes: &[u8]) -> Result<Model, StageError> {
    entry::decode(VERSION, &format_args!("model {name:?}"), bytes)
}

//! Receipts: joins intake's manifests with dedup's verdicts and closes each contribution, once.
//!
//! Invariants:
//! * exactly one receipt per contribution id; it is for the content that came first in `contributions.manifests`;
//! * received = accepted + Σ refused; numbers that do not add up are an error that names the contribution;
//! * a receipt does not depend on how the two inputs interleave, nor on batch borders ([`account`]);
//! * time is the clock of the marks; the machine's clock is never read;
//! * a contribution that waits keeps one header and one small entry per chunk, so that a chunk costs the changelog
//!   the same in a contribution of two as in one of a million;
//! * rows of what was not admitted are released in every shard that holds some.

pub mod account;
pub mod close;
pub mod codec;
pub mod model;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use account::{Desk, check_manifest, check_verdict};
use model::Unusable;
use store::Store;

use crate::codec::wire::Wire;
use crate::domain::contract::Spec;
use crate::domain::quality::QualityReference;
use crate::domain::records::{Manifest, ManifestEvent, Mark, Model, QualitySums, Verdict};
use crate::domain::topics;
use crate::stream::stage::{Batch, Context, Message, Outputs, Stage, StageError};
use crate::stream::state::KeyValue;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Settings of the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptsConfig {
    /// A contribution whose chunks are not all there so long after the last one's append time is incomplete.
    pub contribution_timeout_ms: i64,
    /// How long the id of a closed contribution stays known.
    pub closed_retention_ms: i64,
    /// Contributions per task that may wait for chunks at the same time.
    pub max_open: i64,
}

impl Default for ReceiptsConfig {
    fn default() -> Self {
        Self { contribution_timeout_ms: DAY_MS, closed_retention_ms: 400 * DAY_MS, max_open: 100_000 }
    }
}

/// What a contract says that a contribution is measured against.
#[derive(Debug)]
pub struct Reference {
    /// References of the quality score.
    pub quality: QualityReference,
    leaks: Vec<String>,
}

impl Reference {
    /// A column that the contract says tells the answer came along.
    #[must_use]
    pub fn leaks(&self, sums: &QualitySums) -> bool {
        sums.columns.iter().any(|c| self.leaks.contains(&c.column))
    }
}

/// Contracts by digest: content-addressed, so that it does not matter when one was learnt.
pub type References = HashMap<String, Reference>;

/// The stage: see the module.
#[derive(Debug, Default)]
pub struct Receipts {
    config: ReceiptsConfig,
    references: References,
}

impl Receipts {
    /// The stage with its settings.
    #[must_use]
    pub fn new(config: ReceiptsConfig) -> Self {
        Self { config, references: References::new() }
    }
}

/// A record that was read and makes sense.
enum Event {
    Manifest(Box<Manifest>),
    Mark(Mark),
    Verdict(Verdict),
}

impl Stage for Receipts {
    type State = KeyValue;

    fn name(&self) -> &'static str {
        "receipts"
    }

    fn state(&self) -> KeyValue {
        KeyValue::default()
    }

    fn broadcast(&mut self, topic: &str, _key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        let (topics::MODELS, Some(value)) = (topic, value) else { return Ok(()) };
        for contract in wire.decode::<Model>(value)?.contracts {
            if self.references.contains_key(&contract.digest) {
                continue;
            }
            let spec = Spec::from_canonical_json(&contract.spec).map_err(|error| StageError::Compute {
                what: format!("contract {}", contract.digest),
                detail: error.to_string(),
            })?;
            let leaks = spec.leakage.iter().map(|l| l.column.clone()).collect();
            self.references.insert(contract.digest, Reference { quality: QualityReference::new(&spec), leaks });
        }
        Ok(())
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut KeyValue,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        // Everything is read, and the contracts looked up, before anything changes: a retry finds the state untouched.
        let mut events = Vec::with_capacity(batch.len());
        for message in batch.iter() {
            match read(batch.topic(), &message, out.wire()) {
                Ok(event) => events.push((message.timestamp, event)),
                Err(Unusable::Unreadable(error)) if error.is_retriable() => return Err(error.into()),
                Err(unusable) => out.dead_letter(batch, &message, unusable.code(), unusable.to_string()),
            }
        }
        let unknown = events.iter().any(|(_, event)| self.lacks_contract(event));
        if unknown && !context.broadcast_is_current {
            return Err(StageError::NeedsBroadcast);
        }
        let mut desk = Desk { config: &self.config, references: &self.references, store: Store(state), context, out };
        for (appended, event) in &events {
            match event {
                Event::Manifest(manifest) => desk.manifest(manifest)?,
                Event::Mark(mark) => desk.mark(mark, *appended)?,
                Event::Verdict(verdict) => desk.verdict(verdict)?,
            }
        }
        Ok(())
    }
}

impl Receipts {
    fn lacks_contract(&self, event: &Event) -> bool {
        let Event::Manifest(manifest) = event else { return false };
        let digest = &manifest.id.contract_digest;
        !digest.is_empty() && !self.references.contains_key(digest)
    }
}

impl Unusable {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Empty(_) => "ACCOUNT_UNREADABLE",
            Self::Inconsistent { .. } => "ACCOUNT_INCONSISTENT",
        }
    }
}

fn read(topic: &str, message: &Message<'_>, wire: &Wire) -> Result<Event, Unusable> {
    let value = message.value.ok_or(Unusable::Empty("no value"))?;
    if topic == topics::VERDICTS {
        let verdict = wire.decode::<Verdict>(value)?;
        check_verdict(&verdict)?;
        return Ok(Event::Verdict(verdict));
    }
    match wire.decode::<ManifestEvent>(value)? {
        ManifestEvent { manifest: Some(manifest), mark: None } => {
            check_manifest(&manifest)?;
            Ok(Event::Manifest(Box::new(manifest)))
        }
        ManifestEvent { manifest: None, mark: Some(mark) } => Ok(Event::Mark(mark)),
        ManifestEvent { .. } => Err(Unusable::Empty("neither a manifest nor a mark, or both")),
    }
}

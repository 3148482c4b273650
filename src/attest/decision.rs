//! The predicate of the registry's decisions: a version that came into being, or into a stage.

use serde::{Deserialize, Serialize};

/// A decision of the model registry. The subject is the version's artefact, named `MODEL@VERSION`.
///
/// It holds what a stranger can recompute from the commands: digests, numbers, stages, the rule; no offset of an internal
/// topic, no time, no fraction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RegistryDecision {
    /// `register`, `promote`, `rollback` or `archive`.
    pub action: String,
    /// The signed command or result that was carried out.
    pub command: SignedCommand,
    /// Stage that the version left; left out when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_stage: Option<String>,
    /// Model.
    pub model: String,
    /// Version that it replaced in the stage; left out when the stage was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<NamedArtefact>,
    /// Revision of the model that the decision made.
    pub revision: i64,
    /// Rule of the policy that let it through, with what it rests on.
    pub rule: String,
    /// Stage that the version came into.
    pub stage: String,
    /// The version.
    pub version: String,
}

impl RegistryDecision {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/registry/v1";
}

/// A signed command, by what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SignedCommand {
    /// Its id.
    pub id: String,
    /// SHA-256 of the signed payload, hex.
    pub payload_digest: String,
    /// Id of the key that signed it.
    pub signer: String,
}

/// A version and its artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedArtefact {
    /// SHA-256 of the artefact, hex.
    pub digest: String,
    /// The version.
    pub version: String,
}

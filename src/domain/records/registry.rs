//! Commands on models, their order, and the fold of them.

use serde::{Deserialize, Serialize};

use super::{Position, Record};

/// A signed command as it travels on `model.commands`: a DSSE envelope (JSON is the usual form there).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Model that the command is about, for routing; the signed payload counts.
    pub model: String,
    /// DSSE envelope, JSON text.
    pub envelope: String,
}
record!(Command, "command");

/// An entry of `registry.events`, in the order that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEvent {
    /// Model.
    pub model: String,
    /// `command` (more kinds come with training and evaluation).
    pub kind: String,
    /// DSSE envelope, JSON text.
    pub envelope: String,
    /// Where the command stands in the outsiders' topic.
    pub position: Position,
    /// The platform's intake key when the event was put in order: a recorded fact, so that the fold depends on no key ring.
    pub intake_key: Option<IntakeKey>,
}
record!(RegistryEvent, "registry_event");

/// Public key that contributions are sealed to (X25519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeKey {
    /// Id of the key, for example `i1`.
    pub id: String,
    /// The public key, 64 hex digits.
    pub public: String,
}

/// A contract that a model has or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelContract {
    /// SHA-256 of the canonical JSON of the contract, hex.
    pub digest: String,
    /// Revision of the model that brought it.
    pub revision: i64,
    /// The model's specification, canonical JSON (RFC 8785).
    pub spec: String,
}

/// The fold of a model's registry events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the model.
    pub model: String,
    /// Number of commands that changed it.
    pub revision: i64,
    /// Digest of the contract in force.
    pub contract_digest: String,
    /// Every contract it had, oldest first; the last one is in force.
    pub contracts: Vec<ModelContract>,
    /// Command ids that were folded in, so that a repeated command is refused; oldest first, bounded.
    pub commands: Vec<String>,
    /// What contributions to the model are sealed to; none before the platform published a key.
    #[serde(default)]
    pub intake_key: Option<IntakeKey>,
}
record!(Model, "model");

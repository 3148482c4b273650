//! Records of the model registry: its events, its fold, and the audit.

use serde::{Deserialize, Serialize};

use super::{Benchmark, Position, Record};

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
    /// [`RegistryEvent::COMMAND`] or [`RegistryEvent::RESULT`].
    pub kind: String,
    /// DSSE envelope, JSON text.
    pub envelope: String,
    /// Where the command, or the request behind the result, stands in an outsiders' topic.
    pub position: Position,
    /// The platform's intake key when the event was put in order: a recorded fact, so that the fold depends on no key ring.
    pub intake_key: Option<IntakeKey>,
    /// Serial of the trust file in force when the event was put in order: a recorded fact, so that the fold depends on no
    /// moment at which a file was exchanged. 0 before there were serials.
    #[serde(default)]
    pub trust: i64,
}
record!(RegistryEvent, "registry_event");

impl RegistryEvent {
    /// A signed command of an outsider.
    pub const COMMAND: &'static str = "command";
    /// What a stage of the platform found, signed with the stage's own key.
    pub const RESULT: &'static str = "result";
}

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the model.
    pub model: String,
    /// Number of events that changed it.
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
    /// Its versions, in the order in which they were registered.
    #[serde(default)]
    pub versions: Vec<ModelVersion>,
    /// Movable names of versions, sorted by name.
    #[serde(default)]
    pub aliases: Vec<ModelAlias>,
    /// Tags, sorted by name.
    #[serde(default)]
    pub tags: Vec<NamedValue>,
    /// The newest transitions of versions between stages, oldest first; all of them stand in the log.
    #[serde(default)]
    pub transitions: Vec<Transition>,
    /// Its sealed benchmarks, in the order in which they were sealed.
    #[serde(default)]
    pub benchmarks: Vec<Benchmark>,
}
record!(Model, "model");

impl Model {
    /// The version of this name (`1.2.0`).
    #[must_use]
    pub fn version(&self, version: &str) -> Option<&ModelVersion> {
        self.versions.iter().find(|v| v.version == version)
    }

    /// The version that stands in a stage which holds one version at most (`staging`, `production`).
    #[must_use]
    pub fn head(&self, stage: &str) -> Option<&ModelVersion> {
        self.versions.iter().find(|v| v.stage == stage)
    }

    /// The version that an alias, a stage with one version, or a semantic version names.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<&ModelVersion> {
        let alias = self.aliases.iter().find(|a| a.name == name).map(|a| a.version.as_str());
        let staged = || ["staging", "production"].contains(&name).then(|| self.head(name)).flatten();
        self.version(alias.unwrap_or(name)).or_else(staged)
    }
}

/// A name with its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A blob that is named by its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// SHA-256 of the blob, hex.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Media type, such as `application/octet-stream`.
    pub media_type: String,
}

/// Rows that a version was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// RFC 6962 root of the rows in canonical order, hex.
    pub digest: String,
    /// Rows.
    pub rows: i64,
    /// Contributions that they come from.
    pub contributions: i64,
    /// Root over the contributions' receipts, hex; empty when it is not known.
    pub contributions_root: String,
}

/// Where a version comes from; what is not known is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Version that it was made from or is to be compared with.
    #[serde(default)]
    pub parent: Option<String>,
    /// Rows that it was trained on.
    #[serde(default)]
    pub dataset: Option<Dataset>,
    /// Training run.
    #[serde(default)]
    pub run_id: Option<String>,
    /// Digest of the training recipe, hex.
    #[serde(default)]
    pub recipe_digest: Option<String>,
    /// Benchmark that it was made for.
    #[serde(default)]
    pub benchmark: Option<String>,
    /// Who contributed it.
    #[serde(default)]
    pub contributor: Option<String>,
}

/// A metric of a model on a set of rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Name of the metric.
    pub name: String,
    /// Value as a decimal string.
    pub value: String,
    /// Rows that it was computed on.
    pub rows: i64,
}

/// An evaluation of a version against a baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEvaluation {
    /// Evaluation.
    pub evaluation_id: String,
    /// Benchmark.
    pub benchmark: String,
    /// SHA-256 of the baseline's artefact, hex.
    pub baseline: String,
    /// `accepted`, `refused`, `failed` or `cancelled`.
    pub status: String,
    /// Reason codes, sorted.
    pub reasons: Vec<String>,
    /// Primary metric.
    pub metric: String,
    /// Candidate less baseline, decimal string; only when accepted.
    pub delta: Option<String>,
    /// Lower bound of delta; only when accepted.
    pub lower: Option<String>,
    /// SHA-256 of the signed statement, hex; empty when there is none.
    pub statement: String,
}

/// A version of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Semantic version, given by the registry.
    pub version: String,
    /// `dev`, `staging`, `production` or `archived`.
    pub stage: String,
    /// Stages that it has been in, in the order of the path to production.
    pub stages: Vec<String>,
    /// `trained`, `imported` or `contributed`.
    pub origin: String,
    /// Revision of the model that brought it.
    pub revision: i64,
    /// The model as bytes.
    pub artefact: Artefact,
    /// Contract whose columns it reads.
    pub contract_digest: String,
    /// Digest over its feature columns and label with their types, hex.
    pub features_digest: String,
    /// Feature columns, when they are not all of the contract's.
    pub features: Vec<String>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// Parameters, sorted by name.
    pub params: Vec<NamedValue>,
    /// Metrics that were handed in with it, sorted by name.
    pub metrics: Vec<Metric>,
    /// Tags, sorted by name.
    pub tags: Vec<NamedValue>,
    /// Evaluations, in log order.
    pub evaluations: Vec<VersionEvaluation>,
    /// Id of the key that signed the registration.
    pub signer: String,
    /// Command or result that registered it.
    pub command_id: String,
}

/// A movable name of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelAlias {
    /// The alias.
    pub name: String,
    /// The version.
    pub version: String,
}

/// A version that came into a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Revision of the model: the transition's id.
    pub revision: i64,
    /// Stage that it came into.
    pub stage: String,
    /// The version.
    pub version: String,
    /// Version that it replaced there.
    pub from_version: Option<String>,
    /// `register`, `promote`, `rollback` or `archive`.
    pub action: String,
    /// Rule of the policy that let it through.
    pub rule: String,
    /// Id of the key that signed it.
    pub signer: String,
    /// Command that asked for it.
    pub command_id: String,
}

/// Who did what to which resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Key id of the actor, or what is known of it.
    pub actor: String,
    /// What was asked.
    pub action: String,
    /// On what.
    pub resource: String,
    /// Allowed or denied.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// Where it was asked.
    pub position: Option<Position>,
    /// Id of the signed command, or of the result, if it could be read.
    #[serde(default)]
    pub command_id: Option<String>,
    /// Revision of the model after the decision; none when it is about no model.
    #[serde(default)]
    pub revision: Option<i64>,
}
record!(Audit, "audit");

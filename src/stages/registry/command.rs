//! Commands on models: the signed payload, how it is built, and how it is read.
//!
//! A payload is canonical JSON (RFC 8785), and only the canonical bytes are accepted, so that one command has one form:
//! `{"command":"promote","command_id":…,"expected_revision":7,"expires_offset":…,"model":…,"stage":"production","version":"1.2.0"}`.
//! `expires_offset` stands where a command is to die with its offset in `registry.events`. Instead of the revision that
//! its sender saw, a promotion or rollback may name the transition that brought the present version into the stage
//! (`expected_transition`, 0 for an empty stage): then nothing but another transition of that stage makes it stale. The id
//! follows from the content: the same request on top of the same revision is the same command, however often it is sent.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::benchmark::{Retirement, Seal};
use super::version::Stage;
use crate::attest::dsse::{DsseError, Envelope};
use crate::attest::trust::Role;
use crate::codec::json::parse_strict;
use crate::domain::contract::{Spec, SpecError};
use crate::domain::limits::{MAX_ID, MAX_NESTING};
use crate::domain::records::{Artefact, Lineage, Metric, NamedValue};

/// Payload type of commands: part of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.hokusai.command+json";

/// Longest command id, in bytes.
pub const MAX_COMMAND_ID: usize = 128;

/// Longest text that explains something, in bytes.
pub const MAX_REASON: usize = 1_000;

/// A command that was built and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Id of the command; its audit record names it.
    pub command_id: String,
    /// DSSE envelope, JSON text: the value for `model.commands`.
    pub envelope: String,
}

/// What the sender saw of the model: the command holds on top of that only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Revision of the model, 0 for a new one.
    Revision(i64),
    /// Transition that brought the present version into the stage which the command is about; 0 for an empty stage.
    Transition(i64),
}

/// A version to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// How it came to be.
    pub origin: Origin,
    /// The model as bytes.
    pub artefact: Artefact,
    /// Contract whose columns it reads; the one in force when none is named.
    #[serde(default)]
    pub contract_digest: Option<String>,
    /// Feature columns; all of the contract's when none is named.
    #[serde(default)]
    pub features: Vec<String>,
    /// Where it comes from.
    #[serde(default)]
    pub lineage: Lineage,
    /// Parameters.
    #[serde(default)]
    pub params: Vec<NamedValue>,
    /// Metrics.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<NamedValue>,
}

/// How a version came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By a training run of the platform: only the stage `training` says so.
    Trained,
    /// Made elsewhere.
    Imported,
    /// Made elsewhere by a contributor, from a version of the model.
    Contributed,
}

impl Origin {
    /// The origin as records name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::Imported => "imported",
            Self::Contributed => "contributed",
        }
    }
}

/// What a promotion asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// The version.
    pub version: String,
    /// `staging` or `production`.
    pub stage: Stage,
    /// Why it is to pass although the policy does not let it through: needs a role of its own.
    #[serde(default, rename = "override")]
    pub waiver: Option<String>,
}

/// What a rollback asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// A version that was in the stage before.
    pub version: String,
    /// `staging` or `production`.
    pub stage: Stage,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a change of an alias asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasChange {
    /// The alias.
    pub alias: String,
    /// Version that it is to name; none removes it.
    #[serde(default)]
    pub version: Option<String>,
}

/// What a change of a tag asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagChange {
    /// The tag.
    pub tag: String,
    /// Its value; none removes it.
    #[serde(default)]
    pub value: Option<String>,
    /// Version that it is for; the model itself when none is named.
    #[serde(default)]
    pub version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyFields {
    spec: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveFields {
    version: String,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Declare the model, or give it a new contract: the specification, canonical JSON.
    Apply(String),
    /// Register a version.
    Register(Box<Registration>),
    /// Bring a version into a stage.
    Promote(Promotion),
    /// Bring a version back into a stage.
    Rollback(Rollback),
    /// Retire this version for good.
    Archive(String),
    /// Set, move or remove an alias.
    Alias(AliasChange),
    /// Set or remove a tag.
    Tag(TagChange),
    /// Enter a sealed benchmark.
    Seal(Box<Seal>),
    /// Retire a benchmark.
    Retire(Retirement),
}

impl Action {
    /// The command's name, as it stands in the payload.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Register(_) => "register",
            Self::Promote(_) => "promote",
            Self::Rollback(_) => "rollback",
            Self::Archive(_) => "archive",
            Self::Alias(_) => "alias",
            Self::Tag(_) => "tag",
            Self::Seal(_) => "seal",
            Self::Retire(_) => "retire",
        }
    }

    /// The role that it needs, as audit records name it.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Apply(_) => Role::ModelApply,
            Self::Register(_) => Role::ModelRegister,
            Self::Promote(_) => Role::ModelPromote,
            Self::Rollback(_) => Role::ModelRollback,
            Self::Archive(_) => Role::ModelArchive,
            Self::Alias(_) => Role::ModelAlias,
            Self::Tag(_) => Role::ModelTag,
            Self::Seal(_) => Role::BenchmarkSeal,
            Self::Retire(_) => Role::BenchmarkRetire,
        }
    }

    /// Stage that it is about, if it is about one.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::Promote(promotion) => Some(promotion.stage),
            Self::Rollback(rollback) => Some(rollback.stage),
            _ => None,
        }
    }

    fn fields(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Apply(spec) => serde_json::to_value(ApplyFields { spec: serde_json::from_str(spec)? }),
            Self::Register(registration) => serde_json::to_value(registration),
            Self::Promote(promotion) => serde_json::to_value(promotion),
            Self::Rollback(rollback) => serde_json::to_value(rollback),
            Self::Archive(version) => serde_json::to_value(ArchiveFields { version: version.clone() }),
            Self::Alias(alias) => serde_json::to_value(alias),
            Self::Tag(tag) => serde_json::to_value(tag),
            Self::Seal(seal) => serde_json::to_value(seal),
            Self::Retire(retirement) => serde_json::to_value(retirement),
        }
    }

    fn read(name: &str, fields: Value) -> Result<Self, CommandError> {
        fn of<T: serde::de::DeserializeOwned>(name: &str, fields: Value) -> Result<T, CommandError> {
            // The text of serde's error may repeat a value.
            serde_json::from_value(fields)
                .map_err(|_| CommandError::Json(format!("its fields are not those of `{name}`")))
        }
        Ok(match name {
            "apply" => {
                let ApplyFields { spec } = of(name, fields)?;
                Self::Apply(serde_json_canonicalizer::to_string(&spec).map_err(|_| CommandError::NotCanonical)?)
            }
            "register" => Self::Register(of(name, fields)?),
            "promote" => Self::Promote(of(name, fields)?),
            "rollback" => Self::Rollback(of(name, fields)?),
            "archive" => Self::Archive(of::<ArchiveFields>(name, fields)?.version),
            "alias" => Self::Alias(of(name, fields)?),
            "tag" => Self::Tag(of(name, fields)?),
            "seal" => Self::Seal(of(name, fields)?),
            "retire" => Self::Retire(of(name, fields)?),
            _ => return Err(CommandError::Unknown),
        })
    }
}

/// A command as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Id of the command.
    pub command_id: String,
    /// Model that it is about.
    pub model: String,
    /// What the sender saw.
    pub expected: Expected,
    /// The command is void beyond this offset of `registry.events`.
    pub expires_offset: Option<i64>,
    /// What it asks for.
    pub action: Action,
}

/// Why a payload is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Another payload type.
    #[error("the payload is of another type than {0}")]
    Type(&'static str),
    /// Not JSON, or not the fields of a command.
    #[error("the payload is no command: {0}")]
    Json(String),
    /// JSON, but not its canonical form.
    #[error("the payload is not canonical JSON (RFC 8785)")]
    NotCanonical,
    /// A command of a newer version.
    #[error(
        "it is none that this version knows: apply, register, promote, rollback, archive, alias, tag, seal, retire"
    )]
    Unknown,
    /// A name that is empty or too long.
    #[error("the {0} is empty or longer than {1} bytes")]
    Name(&'static str, usize),
}

/// Builds and signs the command that gives a model the contract of `spec`. `expected_revision` is the model's present
/// revision, 0 for a new model.
///
/// # Errors
/// When the specification has no canonical form.
pub fn build_apply(spec: &Spec, expected_revision: i64, signer: &SigningKey) -> Result<Signed, SpecError> {
    let text = spec.canonical_json()?;
    let command_id = apply_id(&spec.name, expected_revision, &text);
    let command = Command {
        command_id,
        model: spec.name.clone(),
        expected: Expected::Revision(expected_revision),
        expires_offset: None,
        action: Action::Apply(text),
    };
    sign(&command, signer).map_err(|e| SpecError::at("", e.to_string(), "numbers must be finite"))
}

/// Builds and signs any other command. Its id follows from model, expectation and action.
///
/// # Errors
/// When it has no JSON form.
pub fn build(
    model: &str,
    expected: Expected,
    expires_offset: Option<i64>,
    action: Action,
    signer: &SigningKey,
) -> Result<Signed, serde_json::Error> {
    let content = serde_json_canonicalizer::to_string(&without_nulls(action.fields()?))?;
    let seen = match expected {
        Expected::Revision(revision) => format!("revision {revision}"),
        Expected::Transition(transition) => format!("transition {transition}"),
    };
    let command_id = hashed("hokusai/command/v1\0", &[action.name(), model, &seen, &content]);
    let command = Command { command_id, model: model.to_owned(), expected, expires_offset, action };
    sign(&command, signer)
}

/// Signs a command as it stands.
///
/// # Errors
/// When it has no JSON form.
pub fn sign(command: &Command, signer: &SigningKey) -> Result<Signed, serde_json::Error> {
    let mut fields = match command.action.fields()? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.insert("command".to_owned(), command.action.name().into());
    fields.insert("command_id".to_owned(), command.command_id.clone().into());
    match command.expected {
        Expected::Revision(revision) => fields.insert("expected_revision".to_owned(), revision.into()),
        Expected::Transition(transition) => fields.insert("expected_transition".to_owned(), transition.into()),
    };
    if let Some(offset) = command.expires_offset {
        fields.insert("expires_offset".to_owned(), offset.into());
    }
    fields.insert("model".to_owned(), command.model.clone().into());
    let payload = serde_json_canonicalizer::to_vec(&without_nulls(Value::Object(fields)))?;
    let envelope = Envelope::sign(PAYLOAD_TYPE, payload, signer).to_json();
    Ok(Signed { command_id: command.command_id.clone(), envelope })
}

/// What is none does not stand in a payload. Arrays keep their length.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn apply_id(model: &str, expected_revision: i64, spec: &str) -> String {
    hashed("hokusai/command/apply/v1\0", &[model, &expected_revision.to_string(), spec])
}

fn hashed(domain: &str, parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(domain.as_bytes());
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    data_encoding::HEXLOWER.encode(hash.first_chunk::<16>().map_or(&hash[..], |half| &half[..]))
}

/// The payload of an envelope of a type, as canonical JSON; nothing is verified.
pub(super) fn payload(envelope: &Envelope, payload_type: &'static str) -> Result<Map<String, Value>, CommandError> {
    if envelope.payload_type != payload_type {
        return Err(CommandError::Type(payload_type));
    }
    let json = parse_strict(&envelope.payload, MAX_NESTING).map_err(CommandError::Json)?;
    if serde_json_canonicalizer::to_vec(&json).ok().as_deref() != Some(&envelope.payload) {
        return Err(CommandError::NotCanonical);
    }
    match json {
        Value::Object(fields) => Ok(fields),
        _ => Err(CommandError::Json("it is no object".to_owned())),
    }
}

/// Takes a text out of a payload.
pub(super) fn take_text(
    fields: &mut Map<String, Value>,
    name: &'static str,
    most: usize,
) -> Result<String, CommandError> {
    match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= most => Ok(text),
        Some(Value::String(_)) => Err(CommandError::Name(name, most)),
        _ => Err(CommandError::Json(format!("its {name} is no text"))),
    }
}

fn take_number(fields: &mut Map<String, Value>, name: &str) -> Result<Option<i64>, CommandError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => {
            value.as_i64().map(Some).ok_or_else(|| CommandError::Json(format!("its {name} is no 64-bit integer")))
        }
    }
}

/// Reads the command of an envelope. The signature is not looked at.
///
/// # Errors
/// [`CommandError`]; texts repeat no byte of the payload.
pub fn read(envelope: &Envelope) -> Result<Command, CommandError> {
    let mut fields = payload(envelope, PAYLOAD_TYPE)?;
    let name = match fields.remove("command") {
        Some(Value::String(name)) => name,
        _ => return Err(CommandError::Unknown),
    };
    let command_id = take_text(&mut fields, "command_id", MAX_COMMAND_ID)?;
    let model = take_text(&mut fields, "model", MAX_ID)?;
    let expires_offset = take_number(&mut fields, "expires_offset")?;
    let revision = take_number(&mut fields, "expected_revision")?;
    let transition = take_number(&mut fields, "expected_transition")?;
    let action = Action::read(&name, Value::Object(fields))?;
    let expected = match (revision, transition) {
        (Some(revision), None) => Expected::Revision(revision),
        (None, Some(transition)) if action.stage().is_some() => Expected::Transition(transition),
        (None, Some(_)) => {
            return Err(CommandError::Json("only promote and rollback name an expected_transition".to_owned()));
        }
        _ => {
            return Err(CommandError::Json("it names one of expected_revision and expected_transition".to_owned()));
        }
    };
    Ok(Command { command_id, model, expected, expires_offset, action })
}

/// Reads a bare envelope or a `Command` record's envelope far enough to route it: the model that its payload names.
///
/// # Errors
/// Why it cannot be routed.
pub fn model_of(envelope: &str) -> Result<String, Unroutable> {
    let envelope = Envelope::from_json(envelope.as_bytes())?;
    let json = parse_strict(&envelope.payload, MAX_NESTING).map_err(Unroutable::Payload)?;
    match json.get("model").and_then(serde_json::Value::as_str) {
        Some(model) if !model.is_empty() && model.len() <= MAX_ID => Ok(model.to_owned()),
        _ => Err(Unroutable::Payload(format!("it names no model (a text of 1 to {MAX_ID} bytes)"))),
    }
}

/// Why a command cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// Not an envelope.
    #[error(transparent)]
    Envelope(#[from] DsseError),
    /// The payload names no model.
    #[error("the payload cannot be read: {0}")]
    Payload(String),
}

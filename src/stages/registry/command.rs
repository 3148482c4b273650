//! Commands on models: the signed payload, how it is built, and how it is read.
//!
//! A payload is canonical JSON (RFC 8785), and only the canonical bytes are accepted, so that one command has one form:
//! `{"command":"apply","command_id":…,"expected_revision":…,"model":…,"spec":{…}}`, and `expires_offset` where a command
//! is to die with its offset in `registry.events`. The id follows from the content: the same specification on top of the
//! same revision is the same command, however often it is sent.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attest::dsse::{DsseError, Envelope};
use crate::codec::json::parse_strict;
use crate::domain::contract::{Spec, SpecError};
use crate::domain::limits::{MAX_ID, MAX_NESTING};

/// Payload type of commands: part of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.hokusai.command+json";

/// Longest command id, in bytes.
const MAX_COMMAND_ID: usize = 128;

/// A command that was built and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Id of the command; the reason of its audit record names it.
    pub command_id: String,
    /// DSSE envelope, JSON text: the value for `model.commands`.
    pub envelope: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    command: String,
    command_id: String,
    expected_revision: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_offset: Option<i64>,
    model: String,
    spec: serde_json::Value,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// Id of the command.
    pub command_id: String,
    /// Model to be declared or changed.
    pub model: String,
    /// Revision that the sender saw.
    pub expected_revision: i64,
    /// The command is void beyond this offset of `registry.events`.
    pub expires_offset: Option<i64>,
    /// The specification, canonical JSON.
    pub spec: String,
}

/// Why a payload is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Another payload type.
    #[error("the payload is of another type than {PAYLOAD_TYPE}")]
    Type,
    /// Not JSON, or not the fields of a command.
    #[error("the payload is no command: {0}")]
    Json(String),
    /// JSON, but not its canonical form.
    #[error("the payload is not canonical JSON (RFC 8785)")]
    NotCanonical,
    /// A command of a newer version.
    #[error("the command is none that this version knows; it knows `apply`")]
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
    let no_form = |e: &dyn std::fmt::Display| SpecError::at("", e.to_string(), "numbers must be finite");
    let command_id = command_id(&spec.name, expected_revision, &text);
    let payload = Payload {
        command: "apply".to_owned(),
        command_id: command_id.clone(),
        expected_revision,
        expires_offset: None,
        model: spec.name.clone(),
        spec: serde_json::from_str(&text).map_err(|e| no_form(&e))?,
    };
    let payload = serde_json_canonicalizer::to_vec(&payload).map_err(|e| no_form(&e))?;
    Ok(Signed { command_id, envelope: Envelope::sign(PAYLOAD_TYPE, payload, signer).to_json() })
}

fn command_id(model: &str, expected_revision: i64, spec: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"hokusai/command/apply/v1\0");
    for part in [model, &expected_revision.to_string(), spec] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    data_encoding::HEXLOWER.encode(hash.first_chunk::<16>().map_or(&hash[..], |half| &half[..]))
}

/// Reads the command of an envelope. The signature is not looked at.
///
/// # Errors
/// [`CommandError`]; texts repeat no byte of the payload.
pub fn read(envelope: &Envelope) -> Result<Apply, CommandError> {
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(CommandError::Type);
    }
    let json = parse_strict(&envelope.payload, MAX_NESTING).map_err(CommandError::Json)?;
    if serde_json_canonicalizer::to_vec(&json).ok().as_deref() != Some(&envelope.payload) {
        return Err(CommandError::NotCanonical);
    }
    if json.get("command").and_then(serde_json::Value::as_str) != Some("apply") {
        return Err(CommandError::Unknown);
    }
    let shape = "its fields are command, command_id, expected_revision, model, spec and, if it expires, expires_offset";
    let payload: Payload = serde_json::from_value(json).map_err(|_| CommandError::Json(shape.to_owned()))?;
    let named = |what, text: &str, most| {
        if text.is_empty() || text.len() > most { Err(CommandError::Name(what, most)) } else { Ok(()) }
    };
    named("command_id", &payload.command_id, MAX_COMMAND_ID)?;
    named("model", &payload.model, MAX_ID)?;
    let spec = serde_json_canonicalizer::to_string(&payload.spec).map_err(|_| CommandError::NotCanonical)?;
    Ok(Apply {
        command_id: payload.command_id,
        model: payload.model,
        expected_revision: payload.expected_revision,
        expires_offset: payload.expires_offset,
        spec,
    })
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

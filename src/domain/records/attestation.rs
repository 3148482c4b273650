//! Statements on their way into the log, and in it.

use serde::{Deserialize, Serialize};

use super::Record;

/// A statement to be signed and logged, on `attestations.requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationRequest {
    /// Type of the statement's predicate.
    pub predicate_type: String,
    /// The in-toto statement, canonical JSON (RFC 8785): these bytes are signed.
    #[serde(with = "apache_avro::serde::bytes")]
    pub statement: Vec<u8>,
    /// Evaluation id to be acknowledged once the statement is covered by a signed tree head.
    pub acknowledge: Option<String>,
}
record!(AttestationRequest, "attestation_request");

/// A signed statement, on `attestations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Leaf hash, hex: also the record's key.
    pub leaf: String,
    /// Index in the log.
    pub index: i64,
    /// DSSE envelope, JSON; the payload is the statement's canonical bytes.
    #[serde(with = "apache_avro::serde::bytes")]
    pub envelope: Vec<u8>,
}
record!(Attestation, "attestation");

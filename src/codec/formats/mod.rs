//! Payload documents of outsiders → Arrow, against the columns of a contract.
//!
//! Invariants:
//! * limits are checked before memory is taken: bytes on the wire, rows, decoded bytes, nesting. What a document
//!   *declares* (lengths, counts, sizes) is checked against the bytes that are there before a decoder sees it, so a
//!   few bytes never become gigabytes;
//! * a value that is not of its column's type refuses its row, the rest of the document goes on; a document that is
//!   no document of its format is refused as a whole;
//! * the same rows give the same batch in every format (CSV knows no difference between an empty text and null);
//! * no error, expectation or shape repeats a value.

mod arrow;
mod avro;
mod cell;
mod columns;
mod csv;
mod json;
mod pages;
mod parquet;
mod rows;

use std::fmt;
use std::str::FromStr;

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use sha2::{Digest, Sha256};

pub use self::cell::text_shape;
pub(super) use self::csv::Splitter;
use super::guard;
use crate::domain::limits;
use crate::domain::reason::Reason;

/// Format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// An array of objects, or objects one after the other (one per line).
    Json,
    /// RFC 4180 with a header, UTF-8.
    Csv,
    /// Parquet: uncompressed, Snappy, Zstandard or LZ4_RAW.
    Parquet,
    /// Arrow IPC, stream or file.
    Arrow,
    /// Avro object container file: uncompressed, deflate or snappy.
    Avro,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Json, Self::Csv, Self::Parquet, Self::Arrow, Self::Avro];

    /// Name as in a contribution's `format`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Avro => "avro",
        }
    }

    /// Reason code of a document that is not of this format.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Json => Reason::ParseJson,
            Self::Csv => Reason::ParseCsv,
            Self::Parquet => Reason::ParseParquet,
            Self::Arrow => Reason::ParseArrow,
            Self::Avro => Reason::ParseAvro,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a format; help: the formats are json, csv, parquet, arrow, avro")]
pub struct UnknownFormat;

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or(UnknownFormat)
    }
}

/// What a document may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the document.
    pub wire_bytes: usize,
    /// Bytes of its decoded columns.
    pub decoded_bytes: usize,
    /// Rows.
    pub rows: usize,
    /// Nesting of arrays and objects.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wire_bytes: limits::MAX_CHUNK_WIRE,
            decoded_bytes: limits::MAX_CHUNK_DECODED,
            rows: limits::MAX_CHUNK_ROWS,
            depth: limits::MAX_NESTING,
        }
    }
}

/// What identifies the cells of a row that did not fit: a running SHA-256 over their columns and texts, so that two refused rows
/// are told apart by more than what could be read. It is not keyed: it goes into a keyed digest and nowhere else.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfit([u8; 32]);

impl Unfit {
    fn add(&mut self, column: usize, text: &str) {
        let hasher = Sha256::new().chain_update(self.0).chain_update((column as u64).to_be_bytes());
        self.0 = hasher.chain_update(text.as_bytes()).finalize().into();
    }

    /// The hash; all zero when every cell fitted.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unfit(redacted)")
    }
}

/// A row that does not fit the contract's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowReject {
    /// Number of the row in the document, from 0.
    pub row: u32,
    /// TYPE_MISMATCH, or PARSE_CSV for a row with another number of fields than its header.
    pub reason: Reason,
    /// First column that does not fit, in the contract's order; empty when it is about the row.
    pub column: String,
    /// What was expected.
    pub expected: String,
    /// Shape of what was found.
    pub shape: String,
    /// The cells of the row that did not fit.
    pub unfit: Unfit,
}

/// The rows of a document.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows that fit, in the document's order: the contract's columns in its order; missing ones are null.
    pub batch: RecordBatch,
    /// Number of each row of the batch in the document, from 0.
    pub rows: Vec<u32>,
    /// Rows in the document.
    pub received: usize,
    /// The rows that do not fit, in the document's order.
    pub rejects: Vec<RowReject>,
    /// Their cells that fit, one row per reject; the others are null.
    pub rejected: RecordBatch,
    /// Columns that the contract does not name, in the document's order, at most 256, names cut at 256 characters.
    pub extra_columns: Vec<String>,
    /// Columns of the contract that the document does not have, in the contract's order.
    pub missing_columns: Vec<String>,
}

/// Why a document is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is no document of its format.
    #[error("not a {format} document: {detail}")]
    Parse {
        /// The format.
        format: Format,
        /// What is wrong, without any value.
        detail: String,
    },
    /// It is beyond a limit.
    #[error("{what} beyond the limit of {limit}; help: send smaller chunks")]
    TooLarge {
        /// What is beyond it.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The contract has a column of a type that no format is decoded to: a defect of the caller.
    #[error("column {column} has the type {found}, which is none of the contract's types")]
    Target {
        /// Column.
        column: String,
        /// Its type.
        found: String,
    },
}

impl FormatError {
    /// Reason code of the refusal.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Parse { format, .. } => format.reason(),
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Target { .. } => Reason::ParseFormat,
        }
    }

    fn parse(format: Format, detail: impl Into<String>) -> Self {
        Self::Parse { format, detail: detail.into() }
    }
}

/// Decodes a document against the columns of a contract: Utf8, Int64, Float64, Boolean, Date32 and
/// Timestamp(µs, UTC), all nullable.
///
/// # Errors
/// When the document is none of its format or beyond a limit.
pub fn decode(format: Format, document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    if document.len() > limits.wire_bytes {
        return Err(FormatError::TooLarge { what: "bytes of the document are", limit: limits.wire_bytes });
    }
    for field in target.fields() {
        if !is_target(field.data_type()) {
            return Err(FormatError::Target { column: field.name().clone(), found: field.data_type().to_string() });
        }
    }
    match format {
        Format::Json => json::decode(document, target, limits),
        Format::Csv => csv::decode(document, target, limits),
        Format::Parquet => guarded(format, || parquet::decode(document, target, limits)),
        Format::Arrow => guarded(format, || arrow::decode(document, target, limits)),
        Format::Avro => guarded(format, || avro::decode(document, target, limits)),
    }
}

/// See [`guard`]: an outsider's document refuses itself, whatever the decoder makes of it.
fn guarded(format: Format, decode: impl FnOnce() -> Result<Decoded, FormatError>) -> Result<Decoded, FormatError> {
    guard::guarded(decode).unwrap_or_else(|| Err(FormatError::parse(format, "the decoder gave up on it")))
}

fn is_target(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::Int64 | DataType::Float64 | DataType::Boolean | DataType::Date32 => true,
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => matches!(zone.as_ref(), "UTC" | "+00:00"),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! The canonical bytes of a row, and its keyed hashes.
//!
//! Two rows are the same row if and only if their canonical bytes are equal, whatever the order of the
//! columns, the width of an integer, the batch they came in, or the Unicode form of a text. This is the
//! whole encoding, so that an outsider can recompute it (`‖` concatenates, all integers are big-endian):
//!
//! ```text
//! row      := 01 ‖ names ‖ value of each feature column, in the order of their names ‖ tail
//! names    := SHA-256("hk/columns/v1" 00 ‖ for each feature column: u32(len name) ‖ name)[..16]
//! tail     := 00                                                  a row without a label column
//!           | 01 ‖ u32(len label name) ‖ label name ‖ value       a row with one
//! value    := 00                                                  null, of any type
//!           | 01 ‖ u8                                             boolean, 0 or 1
//!           | 02 ‖ i64                                            integer of any width that fits in i64
//!           | 03 ‖ u64                                            integer above that
//!           | 04 ‖ IEEE 754 binary64                              float; float16 and float32 widened
//!           | 05 ‖ u32(len) ‖ UTF-8 in NFC                        text
//!           | 06 ‖ u32(len) ‖ bytes                               binary
//!           | 07 ‖ i64                                            date, days since 1970-01-01
//!           | 08 ‖ i128                                           timestamp, µs since 1970-01-01T00:00Z
//!           | 09 ‖ i64                                            time of day, ns
//!           | 0a ‖ i128 ‖ i8                                      decimal: unscaled value and scale,
//!                                                                 with no trailing zero (zero is 0, 0)
//! ```
//!
//! Names are in NFC and ordered by their UTF-8 bytes. −0 is 0, every NaN is `7ff8000000000000`, and what is
//! finer than a microsecond in a timestamp is cut towards the past. A timestamp without a zone counts as UTC.
//! Fields need no separator: a tag tells the length of what follows, or its length is written.
//!
//! Ids and ingest columns are left out by the caller. The hashes share their work:
//!
//! ```text
//! hash of the features = HMAC-SHA-256(K, "hk/row/v1" 00 ‖ 01 ‖ names ‖ values ‖ 00)[..16]
//! hash of the row      = HMAC-SHA-256(K, "hk/row/v1" 00 ‖ row)[..16]
//! ```
//!
//! Without a label column the two are equal. K is the model's dedup key (`domain::keys`).

mod cells;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

use self::cells::{check_type, put_bytes, reader};
use crate::domain::keys::MacKey;

const VERSION: u8 = 1;
const NO_LABEL: u8 = 0;
const LABEL: u8 = 1;

/// Why rows have no canonical bytes. A fault of the contract or of the program, never of one row.
#[derive(Debug, Error)]
pub enum CanonicalError {
    /// Two columns have one name.
    #[error(
        "column `{0}` occurs twice (names are compared in Unicode's NFC form)\nhelp: rename one of them in the contract"
    )]
    Duplicate(String),
    /// The label is not among the columns.
    #[error("the label column `{0}` is not among the columns, or is one of the excluded ones")]
    NoLabel(String),
    /// The type has no canonical bytes.
    #[error(
        "column `{column}` has type {found}, which has no canonical bytes\nhelp: declare it as a boolean, number, text, binary, date, time or timestamp"
    )]
    Type {
        /// Name of the column.
        column: String,
        /// Its Arrow type.
        found: DataType,
    },
    /// The batch has other columns than the encoder was made for.
    #[error("a batch has {found:?} where the schema has column `{expected}` at position {position}")]
    Columns {
        /// Position of the column, from 0.
        position: usize,
        /// Name in the schema.
        expected: String,
        /// Name in the batch, if it has so many columns.
        found: Option<String>,
    },
    /// A value is longer than a 32-bit length can say.
    #[error("a value of {0} bytes is longer than 4 GiB")]
    TooLong(usize),
    /// Arrow could not convert a column.
    #[error("a column cannot be read: {0}")]
    Arrow(#[from] ArrowError),
}

/// Turns batches of one schema into canonical rows.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    /// (position, name in the schema) of the feature columns, in canonical order.
    features: Vec<(usize, String)>,
    label: Option<(usize, String)>,
    /// Version and digest of the names.
    head: [u8; 17],
    /// What stands before the label's value, or the whole tail.
    tail: Vec<u8>,
}

impl RowEncoder {
    /// An encoder for batches of `schema` that leaves the columns in `exclude` out and ends with `label`.
    ///
    /// # Errors
    /// [`CanonicalError`] if names are not unique, the label is missing, or a type has no canonical bytes.
    pub fn new(schema: &Schema, exclude: &[&str], label: Option<&str>) -> Result<Self, CanonicalError> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (position, field) in schema.fields().iter().enumerate() {
            if exclude.contains(&field.name().as_str()) {
                continue;
            }
            check_type(field.name(), field.data_type())?;
            columns.push((field.name().nfc().collect::<String>(), position, field.name().clone()));
        }
        columns.sort();
        if let Some(pair) = columns.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CanonicalError::Duplicate(pair[0].0.clone()));
        }
        let (labels, features): (Vec<_>, Vec<_>) =
            columns.into_iter().partition(|(_, _, name)| Some(name.as_str()) == label);
        let (tail, label) = match (label, labels.into_iter().next()) {
            (Some(name), None) => return Err(CanonicalError::NoLabel(name.to_owned())),
            (_, None) => (vec![NO_LABEL], None),
            (_, Some((name, position, raw))) => {
                let mut tail = vec![LABEL];
                put_bytes(&mut tail, name.as_bytes())?;
                (tail, Some((position, raw)))
            }
        };
        let mut names = b"hk/columns/v1\0".to_vec();
        for (name, ..) in &features {
            put_bytes(&mut names, name.as_bytes())?;
        }
        let mut head = [VERSION; 17];
        head[1..].copy_from_slice(&Sha256::digest(names)[..16]);
        Ok(Self {
            features: features.into_iter().map(|(_, position, raw)| (position, raw)).collect(),
            label,
            head,
            tail,
        })
    }

    /// The canonical bytes of every row of `batch`.
    ///
    /// # Errors
    /// [`CanonicalError::Columns`] if the batch has other columns; types may differ from batch to batch.
    pub fn encode(&self, batch: &RecordBatch) -> Result<CanonicalRows, CanonicalError> {
        let features = self.features.iter().map(|column| reader(batch, column)).collect::<Result<Vec<_>, _>>()?;
        let label = self.label.as_ref().map(|column| reader(batch, column)).transpose()?;
        let rows = batch.num_rows();
        let mut out = CanonicalRows {
            bytes: Vec::with_capacity(rows * (self.head.len() + self.tail.len() + 14 * (features.len() + 1))),
            ends: Vec::with_capacity(rows),
            labelled: label.is_some(),
        };
        for row in 0..rows {
            out.bytes.extend_from_slice(&self.head);
            for column in &features {
                column.put(row, &mut out.bytes)?;
            }
            let features_end = out.bytes.len();
            out.bytes.extend_from_slice(&self.tail);
            if let Some(column) = &label {
                column.put(row, &mut out.bytes)?;
            }
            out.ends.push((features_end, out.bytes.len()));
        }
        Ok(out)
    }
}

/// Canonical bytes of the rows of one batch, in one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalRows {
    bytes: Vec<u8>,
    /// For each row the end of its features and of the whole row.
    ends: Vec<(usize, usize)>,
    labelled: bool,
}

/// Keyed hashes of the rows of one batch, 128 bits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowHashes {
    /// Hash of each row with its label: the identity that deduplication uses.
    pub rows: Vec<[u8; 16]>,
    /// Hash of each row without its label: the shard key, label conflicts and contamination.
    pub features: Vec<[u8; 16]>,
}

impl CanonicalRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The canonical bytes of each row, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |(_, end)| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }

    /// Hashes every row, with and without its label.
    pub fn hash(&self, key: &MacKey) -> RowHashes {
        let mut out = RowHashes { rows: Vec::with_capacity(self.len()), features: Vec::with_capacity(self.len()) };
        let mut start = 0;
        for &(features_end, end) in &self.ends {
            let mut state = key.start();
            state.update(&self.bytes[start..features_end]);
            let features = {
                let mut state = state.clone();
                state.update(&[NO_LABEL]);
                state.finish128()
            };
            out.features.push(features);
            out.rows.push(if self.labelled {
                state.update(&self.bytes[features_end..end]);
                state.finish128()
            } else {
                features
            });
            start = end;
        }
        out
    }
}

#[cfg(test)]
mod tests;

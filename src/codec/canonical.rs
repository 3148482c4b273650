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

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    Float64Array, Int64Array, LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};
use thiserror::Error;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::domain::keys::MacKey;

const VERSION: u8 = 1;
const NO_LABEL: u8 = 0;
const LABEL: u8 = 1;
const NAN: u64 = 0x7ff8_0000_0000_0000;

/// Tags of the values, as in the module documentation.
mod tag {
    pub const NULL: u8 = 0;
    pub const BOOL: u8 = 1;
    pub const INT: u8 = 2;
    pub const BIG_UINT: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const TEXT: u8 = 5;
    pub const BINARY: u8 = 6;
    pub const DATE: u8 = 7;
    pub const TIMESTAMP: u8 = 8;
    pub const TIME: u8 = 9;
    pub const DECIMAL: u8 = 10;
}

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

/// One column, with the type decided once per batch.
enum Reader {
    Null,
    Bool(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float(Float64Array),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedBinary(FixedSizeBinaryArray),
    /// Ticks to be divided, for a date.
    Date {
        days: Int64Array,
        per_day: i64,
    },
    /// Ticks times `multiply`, then divided, give microseconds.
    Timestamp {
        ticks: Int64Array,
        multiply: i128,
        divide: i128,
    },
    Time {
        ticks: Int64Array,
        multiply: i64,
    },
    Decimal {
        values: Decimal128Array,
        scale: i8,
    },
}

fn check_type(column: &str, found: &DataType) -> Result<(), CanonicalError> {
    use DataType::*;
    let inner = if let Dictionary(_, values) = found { values } else { found };
    let known = inner.is_integer()
        || inner.is_floating()
        || matches!(
            inner,
            Null | Boolean
                | Utf8
                | LargeUtf8
                | Utf8View
                | Binary
                | LargeBinary
                | BinaryView
                | FixedSizeBinary(_)
                | Date32
                | Date64
        )
        || matches!(inner, Timestamp(..) | Time32(_) | Time64(_) | Decimal32(..) | Decimal64(..) | Decimal128(..));
    if known { Ok(()) } else { Err(CanonicalError::Type { column: column.to_owned(), found: found.clone() }) }
}

fn reader(batch: &RecordBatch, (position, name): &(usize, String)) -> Result<Reader, CanonicalError> {
    let schema = batch.schema_ref();
    let found = schema.fields().get(*position).map(|field| field.name());
    if found != Some(name) {
        return Err(CanonicalError::Columns { position: *position, expected: name.clone(), found: found.cloned() });
    }
    let mut array = batch.column(*position).clone();
    check_type(name, array.data_type())?;
    if let DataType::Dictionary(_, values) = array.data_type() {
        array = cast(&array, &values.clone())?;
    }
    Reader::new(&array)
}

impl Reader {
    fn new(array: &ArrayRef) -> Result<Self, CanonicalError> {
        use DataType::*;
        let ticks = || -> Result<Int64Array, ArrowError> {
            let wide = match array.data_type() {
                Date32 | Time32(_) => cast(&cast(array, &Int32)?, &Int64)?,
                _ => cast(array, &Int64)?,
            };
            Ok(wide.as_primitive::<Int64Type>().clone())
        };
        Ok(match array.data_type() {
            Boolean => Self::Bool(array.as_boolean().clone()),
            UInt64 => Self::UInt(array.as_primitive::<UInt64Type>().clone()),
            Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 => {
                Self::Int(cast(array, &Int64)?.as_primitive::<Int64Type>().clone())
            }
            Float16 | Float32 | Float64 => Self::Float(cast(array, &Float64)?.as_primitive::<Float64Type>().clone()),
            Utf8 => Self::Text(array.as_string().clone()),
            LargeUtf8 => Self::LargeText(array.as_string().clone()),
            Utf8View => Self::TextView(array.as_string_view().clone()),
            Binary => Self::Binary(array.as_binary().clone()),
            LargeBinary => Self::LargeBinary(array.as_binary().clone()),
            BinaryView => Self::BinaryView(array.as_binary_view().clone()),
            FixedSizeBinary(_) => Self::FixedBinary(array.as_fixed_size_binary().clone()),
            Date32 => Self::Date { days: ticks()?, per_day: 1 },
            Date64 => Self::Date { days: ticks()?, per_day: 86_400_000 },
            Timestamp(unit, _) => {
                let (multiply, divide) = match unit {
                    TimeUnit::Second => (1_000_000, 1),
                    TimeUnit::Millisecond => (1_000, 1),
                    TimeUnit::Microsecond => (1, 1),
                    TimeUnit::Nanosecond => (1, 1_000),
                };
                Self::Timestamp { ticks: ticks()?, multiply, divide }
            }
            Time32(unit) | Time64(unit) => {
                let multiply = match unit {
                    TimeUnit::Second => 1_000_000_000,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                Self::Time { ticks: ticks()?, multiply }
            }
            Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) => Self::Decimal {
                values: cast(array, &Decimal128(38, *scale))?.as_primitive::<Decimal128Type>().clone(),
                scale: *scale,
            },
            // `check_type` has let nothing else pass but the null type.
            _ => Self::Null,
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(array) => array.is_null(row),
            Self::Int(array)
            | Self::Date { days: array, .. }
            | Self::Timestamp { ticks: array, .. }
            | Self::Time { ticks: array, .. } => array.is_null(row),
            Self::UInt(array) => array.is_null(row),
            Self::Float(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::LargeText(array) => array.is_null(row),
            Self::TextView(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::LargeBinary(array) => array.is_null(row),
            Self::BinaryView(array) => array.is_null(row),
            Self::FixedBinary(array) => array.is_null(row),
            Self::Decimal { values, .. } => values.is_null(row),
        }
    }

    /// Appends the value at `row`.
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
        if self.is_null(row) {
            out.push(tag::NULL);
            return Ok(());
        }
        match self {
            Self::Null => out.push(tag::NULL),
            Self::Bool(array) => out.extend_from_slice(&[tag::BOOL, u8::from(array.value(row))]),
            Self::Int(array) => put8(out, tag::INT, array.value(row).to_be_bytes()),
            Self::UInt(array) => match i64::try_from(array.value(row)) {
                Ok(value) => put8(out, tag::INT, value.to_be_bytes()),
                Err(_) => put8(out, tag::BIG_UINT, array.value(row).to_be_bytes()),
            },
            Self::Float(array) => put8(out, tag::FLOAT, float_bits(array.value(row)).to_be_bytes()),
            Self::Text(array) => put_text(out, array.value(row))?,
            Self::LargeText(array) => put_text(out, array.value(row))?,
            Self::TextView(array) => put_text(out, array.value(row))?,
            Self::Binary(array) => put_binary(out, array.value(row))?,
            Self::LargeBinary(array) => put_binary(out, array.value(row))?,
            Self::BinaryView(array) => put_binary(out, array.value(row))?,
            Self::FixedBinary(array) => put_binary(out, array.value(row))?,
            Self::Date { days, per_day } => put8(out, tag::DATE, days.value(row).div_euclid(*per_day).to_be_bytes()),
            Self::Timestamp { ticks, multiply, divide } => {
                let micros = (i128::from(ticks.value(row)) * multiply).div_euclid(*divide);
                out.push(tag::TIMESTAMP);
                out.extend_from_slice(&micros.to_be_bytes());
            }
            // A valid time of day is below 86,400 s; what Arrow lets through beyond it must not panic.
            Self::Time { ticks, multiply } => {
                put8(out, tag::TIME, ticks.value(row).wrapping_mul(*multiply).to_be_bytes())
            }
            Self::Decimal { values, scale } => {
                let (value, scale) = shortest_decimal(values.value(row), *scale);
                out.push(tag::DECIMAL);
                out.extend_from_slice(&value.to_be_bytes());
                out.extend_from_slice(&scale.to_be_bytes());
            }
        }
        Ok(())
    }
}

fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        NAN
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

fn shortest_decimal(mut value: i128, mut scale: i8) -> (i128, i8) {
    if value == 0 {
        return (0, 0);
    }
    while value % 10 == 0 && scale > i8::MIN {
        value /= 10;
        scale -= 1;
    }
    (value, scale)
}

#[inline]
fn put8(out: &mut Vec<u8>, tag: u8, value: [u8; 8]) {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&value);
    out.extend_from_slice(&bytes);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), CanonicalError> {
    let length = u32::try_from(bytes.len()).map_err(|_| CanonicalError::TooLong(bytes.len()))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), CanonicalError> {
    out.push(tag::BINARY);
    put_bytes(out, bytes)
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), CanonicalError> {
    out.push(tag::TEXT);
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return put_bytes(out, text.as_bytes());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    for character in text.nfc() {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    let length = out.len() - at - 4;
    let length = u32::try_from(length).map_err(|_| CanonicalError::TooLong(length))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;

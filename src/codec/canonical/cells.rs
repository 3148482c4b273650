//! Single values → their canonical bytes, as in the documentation of the module above.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    Float64Array, Int64Array, LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::CanonicalError;

const NAN: u64 = 0x7ff8_0000_0000_0000;

/// Tags of the values.
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

/// One column, with the type decided once per batch.
pub(super) enum Reader {
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

pub(super) fn check_type(column: &str, found: &DataType) -> Result<(), CanonicalError> {
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

pub(super) fn reader(batch: &RecordBatch, (position, name): &(usize, String)) -> Result<Reader, CanonicalError> {
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
    #[inline]
    pub(super) fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
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

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), CanonicalError> {
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

//! Columns as a columnar document has them → columns of the contract. Same types are kept as they come; others are
//! cast, and a cell that has a value but gets none refuses its row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ::arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int64Array, RecordBatch, RecordBatchOptions,
    TimestampMicrosecondArray, new_null_array,
};
use ::arrow::compute::{CastOptions, cast_with_options, concat_batches};
use ::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use ::arrow::error::ArrowError;
use ::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::cell::{self, Cell, expected};
use super::rows::{Extra, Split, without_rejects};
use super::{Decoded, Format, FormatError, Limits, RowReject, Unfit};
use crate::domain::reason::Reason;

/// Collects the batches of a document, bounded, and turns them into the contract's columns.
pub(super) struct Columns<'t> {
    format: Format,
    target: &'t SchemaRef,
    limits: &'t Limits,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    rejects: Vec<RowReject>,
    extra: Vec<String>,
    missing: Vec<String>,
}

impl<'t> Columns<'t> {
    /// `names` are the document's columns in its order.
    pub(super) fn new<'n>(
        format: Format,
        target: &'t SchemaRef,
        limits: &'t Limits,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<Self, FormatError> {
        let (mut extra, mut found) = (Extra::default(), HashSet::new());
        for (number, name) in (1..).zip(names) {
            if !found.insert(name) {
                return Err(FormatError::parse(format, format!("column {number} has the name of another")));
            }
            if target.column_with_name(name).is_none() {
                extra.add(name);
            }
        }
        let missing = target.fields().iter().filter(|f| !found.contains(f.name().as_str())).map(|f| f.name().clone());
        let missing = missing.collect();
        let (batches, rejects) = (Vec::new(), Vec::new());
        Ok(Self { format, target, limits, batches, rows: 0, bytes: 0, rejects, extra: extra.into_names(), missing })
    }

    /// Counts rows and bytes that a batch would take, before it is converted.
    fn admit(&mut self, batch: &RecordBatch) -> Result<(), FormatError> {
        self.rows = self.rows.saturating_add(batch.num_rows());
        if self.rows > self.limits.rows {
            return Err(FormatError::TooLarge { what: "rows are", limit: self.limits.rows });
        }
        let width = batch.num_rows().saturating_mul(9 * self.target.fields().len());
        let texts = self.target.fields().iter().filter(|field| field.data_type() == &DataType::Utf8);
        let texts = texts.filter_map(|field| batch.column_by_name(field.name())).map(|c| text_bytes(c));
        self.bytes = texts.fold(self.bytes.saturating_add(width), usize::saturating_add);
        if self.bytes > self.limits.decoded_bytes {
            return Err(FormatError::TooLarge { what: "decoded bytes are", limit: self.limits.decoded_bytes });
        }
        Ok(())
    }

    /// Adds rows; the columns are looked up by name.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), FormatError> {
        let first = self.rows;
        self.admit(batch)?;
        // Row of the batch → its reject.
        let mut refused: HashMap<usize, usize> = HashMap::new();
        let mut arrays = Vec::with_capacity(self.target.fields().len());
        for (column, field) in self.target.fields().iter().enumerate() {
            let Some(source) = batch.column_by_name(field.name()) else {
                arrays.push(new_null_array(field.data_type(), batch.num_rows()));
                continue;
            };
            let converted = convert(source, field.data_type()).map_err(|_| self.broken())?;
            if converted.null_count() > source.logical_null_count() {
                for row in (0..batch.num_rows()).filter(|row| converted.is_null(*row)) {
                    let shape = shape(source, row);
                    if shape == "null" {
                        continue;
                    }
                    let number = *refused.entry(row).or_insert(self.rejects.len());
                    if number == self.rejects.len() {
                        self.rejects.push(RowReject {
                            row: u32::try_from(first + row).unwrap_or(u32::MAX),
                            reason: Reason::TypeMismatch,
                            column: field.name().clone(),
                            expected: expected(field.data_type()).to_owned(),
                            shape,
                            unfit: Unfit::default(),
                        });
                    }
                    if let Some(reject) = self.rejects.get_mut(number) {
                        reject.unfit.add(column, &text(source, row));
                    }
                }
            }
            arrays.push(converted);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let built = RecordBatch::try_new_with_options(Arc::clone(self.target), arrays, &options);
        self.batches.push(built.map_err(|_| self.broken())?);
        Ok(())
    }

    fn broken(&self) -> FormatError {
        FormatError::parse(self.format, "a column cannot be read as its own schema declares it")
    }

    pub(super) fn finish(mut self) -> Result<Decoded, FormatError> {
        self.rejects.sort_by_key(|reject| reject.row);
        let whole = match self.batches.len() {
            1 => self.batches.pop().ok_or_else(|| self.broken())?,
            _ => concat_batches(self.target, &self.batches).map_err(|_| self.broken())?,
        };
        let Split { batch, rows, rejected } = without_rejects(whole, &self.rejects).map_err(|_| self.broken())?;
        Ok(Decoded {
            batch,
            rows,
            received: self.rows,
            rejects: self.rejects,
            rejected,
            extra_columns: self.extra,
            missing_columns: self.missing,
        })
    }
}

/// Bytes that the texts of a column take when each row has its own copy: dictionaries and views may name one long
/// text many times.
pub(super) fn text_bytes(column: &dyn Array) -> usize {
    let span = |first: i64, last: i64| usize::try_from(last - first).unwrap_or(0);
    match column.data_type() {
        DataType::Utf8 | DataType::Binary => {
            let array = column.to_data();
            let offsets = array.buffers().first().map(|b| b.typed_data::<i32>()).unwrap_or_default();
            let (from, to) = (array.offset(), array.offset() + array.len());
            match (offsets.get(from), offsets.get(to)) {
                (Some(first), Some(last)) => span(i64::from(*first), i64::from(*last)),
                _ => 0,
            }
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let array = column.to_data();
            let offsets = array.buffers().first().map(|b| b.typed_data::<i64>()).unwrap_or_default();
            let (from, to) = (array.offset(), array.offset() + array.len());
            match (offsets.get(from), offsets.get(to)) {
                (Some(first), Some(last)) => span(*first, *last),
                _ => 0,
            }
        }
        DataType::Utf8View => view_bytes(column.as_string_view().views()),
        DataType::BinaryView => view_bytes(column.as_binary_view().views()),
        DataType::FixedSizeBinary(width) => column.len().saturating_mul(usize::try_from(*width).unwrap_or(0)),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let values = dictionary.values();
            if values.is_empty() {
                return 0;
            }
            let lengths: Vec<usize> = (0..values.len()).map(|i| text_bytes(&values.slice(i, 1))).collect();
            let used = dictionary.normalized_keys();
            used.into_iter().map(|key| lengths.get(key).copied().unwrap_or(0)).fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

fn view_bytes(views: &[u128]) -> usize {
    // The lowest 32 bits of a view are its length.
    views.iter().map(|view| usize::try_from(view & 0xFFFF_FFFF).unwrap_or(0)).fold(0, usize::saturating_add)
}

/// A column in a target type; cells that do not fit are null.
fn convert(source: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    use DataType::{Boolean, Date32, Date64, Decimal128, Decimal256, Dictionary, Float64, Int64, Timestamp, Utf8};
    let nothing = || new_null_array(target, source.len());
    if let Dictionary(_, values) = source.data_type() {
        return if is_text(values) || values.is_primitive() {
            convert(&cast(source, values)?, target)
        } else {
            Ok(nothing())
        };
    }
    let number = |t: &DataType| t.is_integer() || t.is_floating() || matches!(t, Decimal128(..) | Decimal256(..));
    Ok(match (source.data_type(), target) {
        (DataType::Null, _) => nothing(),
        (Float64, Float64) => finite(source),
        (found, wanted) if found == wanted => Arc::clone(source),
        (found, Utf8) if is_text(found) => cast(source, &Utf8)?,
        (found, Int64) if found.is_integer() => cast(source, &Int64)?,
        (found, Int64) if number(found) => map::<Float64Type, Int64Type>(&cast(source, &Float64)?, cell::whole),
        (found, Float64) if number(found) => finite(&cast(source, &Float64)?),
        (Date64, Date32) => days(&cast(source, &Timestamp(TimeUnit::Millisecond, None))?)?,
        (Timestamp(..), Date32) => days(source)?,
        (Date32 | Date64, Timestamp(unit, zone)) => zoned(&cast(source, &Timestamp(*unit, None))?, zone.as_ref())?,
        (Timestamp(..), Timestamp(_, zone)) => zoned(source, zone.as_ref())?,
        (found, Date32) if is_text(found) => {
            let texts = cast(source, &Utf8)?;
            Arc::new(texts.as_string::<i32>().iter().map(|text| text.and_then(cell::date)).collect::<Date32Array>())
        }
        (found, Timestamp(_, zone)) if is_text(found) => {
            let texts = cast(source, &Utf8)?;
            let micros = texts.as_string::<i32>().iter().map(|text| text.and_then(cell::timestamp));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
        }
        (_, Boolean) => nothing(),
        _ => nothing(),
    })
}

fn is_text(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// A cast in which a value that does not fit becomes null.
fn cast(source: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(source, target, &CastOptions { safe: true, ..CastOptions::default() })
}

fn map<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    source: &ArrayRef,
    f: impl Fn(A::Native) -> Option<B::Native>,
) -> ArrayRef {
    let values = source.as_primitive::<A>().iter().map(|value| value.and_then(&f));
    Arc::new(values.collect::<::arrow::array::PrimitiveArray<B>>())
}

fn finite(source: &ArrayRef) -> ArrayRef {
    let floats: &Float64Array = source.as_primitive();
    if floats.iter().flatten().all(f64::is_finite) {
        return Arc::clone(source);
    }
    map::<Float64Type, Float64Type>(source, |value| value.is_finite().then_some(value))
}

fn days(instants: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(map::<TimestampMicrosecondType, Date32Type>(&zoned(instants, None)?, cell::midnight))
}

/// Instants in microseconds. Instants of any zone count from the same moment, and those without a zone count as UTC:
/// only the unit changes, the zone is a label.
fn zoned(instants: &ArrayRef, label: Option<&Arc<str>>) -> Result<ArrayRef, ArrowError> {
    let own = match instants.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = cast(instants, &DataType::Timestamp(TimeUnit::Microsecond, own))?;
    Ok(Arc::new(micros.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(label.cloned())))
}

/// The value of a cell of any type; bytes that are not UTF-8 in hexadecimal.
fn text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options);
    formatter.and_then(|f| f.value(row).try_to_string()).unwrap_or_default()
}

/// Shape of a cell of any type.
fn shape(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) || column.data_type() == &DataType::Null {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            // A key whose value is null is no value.
            match (dictionary.values().is_empty(), dictionary.normalized_keys().get(row)) {
                (false, Some(key)) => shape(dictionary.values(), *key),
                _ => "null".to_owned(),
            }
        }
        found if is_text(found) => match cast(&column.slice(row, 1), &DataType::Utf8) {
            Ok(text) if text.is_valid(0) => cell::text_shape(text.as_string::<i32>().value(0)),
            _ => "bytes that are not UTF-8".to_owned(),
        },
        found if found.is_integer() => match cast(&column.slice(row, 1), &DataType::Int64) {
            Ok(value) if value.is_valid(0) => Cell::Int(Int64Array::from(value.to_data()).value(0)).shape(),
            _ => "integer, beyond 64 bits".to_owned(),
        },
        found if found.is_floating() => match cast(&column.slice(row, 1), &DataType::Float64) {
            Ok(value) => cell::float_shape(value.as_primitive::<Float64Type>().value(0)).to_owned(),
            Err(_) => "number".to_owned(),
        },
        DataType::Boolean => "boolean".to_owned(),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "decimal".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time of day".to_owned(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "array".to_owned(),
        DataType::Struct(_) | DataType::Map(..) => "object".to_owned(),
        _ => "another type".to_owned(),
    }
}

//! A row as canonical JSON: the leaf of a benchmark's tree.
//!
//! A row is an object of the contract's columns as they leave intake: integers within ±(2^53 − 1) as numbers, beyond as
//! decimal strings; fractions always as decimal strings, the shortest that reads back; dates as days and timestamps as
//! microseconds since 1970-01-01 UTC; null as null.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use serde_json::{Map, Value};

/// Largest integer that every JSON reader reads alike.
const EXACT: i64 = (1 << 53) - 1;

/// A cell as it stands in a leaf.
///
/// # Errors
/// A column of a type that no contract has.
pub fn cell(column: &ArrayRef, row: usize) -> Result<Value, ArrowError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::Int64 => integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::from(fraction(column.as_primitive::<Float64Type>().value(row))),
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::Date32 => integer(i64::from(column.as_primitive::<Date32Type>().value(row))),
        DataType::Timestamp(..) => integer(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        other => return Err(ArrowError::SchemaError(format!("a contract has no column of type {other}"))),
    })
}

fn integer(value: i64) -> Value {
    if (-EXACT..=EXACT).contains(&value) { Value::from(value) } else { Value::from(value.to_string()) }
}

/// Adding zero turns −0 into 0.
fn fraction(value: f64) -> String {
    (value + 0.0).to_string()
}

/// Rows from their JSON objects, the other way round: what [`row_json`] writes of them is what they were made from, or they are
/// refused when it is compared.
///
/// # Errors
/// A cell that is none of its column's type; the text repeats no value.
pub fn batch_of(schema: &SchemaRef, rows: &[Map<String, Value>]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let cells = rows.iter().map(|row| row.get(field.name()).unwrap_or(&Value::Null));
        let column = column_of(field.data_type(), cells);
        column.ok_or_else(|| ArrowError::ParseError(format!("a cell of column {} is of another type", field.name())))
    });
    RecordBatch::try_new(SchemaRef::clone(schema), columns.collect::<Result<Vec<_>, _>>()?)
}

fn column_of<'v>(kind: &DataType, cells: impl Iterator<Item = &'v Value>) -> Option<ArrayRef> {
    fn all<'v, T, A: FromIterator<Option<T>> + Array + 'static>(
        cells: impl Iterator<Item = &'v Value>,
        of: impl Fn(&'v Value) -> Option<T>,
    ) -> Option<ArrayRef> {
        let cell = |cell: &'v Value| if cell.is_null() { Some(None) } else { of(cell).map(Some) };
        Some(Arc::new(cells.map(cell).collect::<Option<A>>()?))
    }
    let whole = |cell: &Value| cell.as_i64().or_else(|| cell.as_str()?.parse().ok());
    match kind {
        DataType::Utf8 => all::<_, StringArray>(cells, Value::as_str),
        DataType::Int64 => all::<_, Int64Array>(cells, whole),
        DataType::Float64 => all::<_, Float64Array>(cells, |cell| cell.as_str()?.parse().ok()),
        DataType::Boolean => all::<_, BooleanArray>(cells, Value::as_bool),
        DataType::Date32 => all::<_, Date32Array>(cells, |cell| i32::try_from(whole(cell)?).ok()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let cell = |cell: &Value| if cell.is_null() { Some(None) } else { whole(cell).map(Some) };
            let times = cells.map(cell).collect::<Option<TimestampMicrosecondArray>>()?;
            Some(Arc::new(times.with_timezone_opt(zone.clone())))
        }
        _ => None,
    }
}

/// Canonical JSON (RFC 8785) of a cell.
///
/// # Errors
/// As [`cell`].
pub fn cell_json(column: &ArrayRef, row: usize) -> Result<Vec<u8>, ArrowError> {
    canonical(&cell(column, row)?)
}

/// Canonical JSON (RFC 8785) of a row.
///
/// # Errors
/// As [`cell`].
pub fn row_json(batch: &RecordBatch, row: usize) -> Result<Vec<u8>, ArrowError> {
    let mut object = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        object.insert(field.name().clone(), cell(column, row)?);
    }
    canonical(&Value::Object(object))
}

fn canonical(value: &Value) -> Result<Vec<u8>, ArrowError> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| ArrowError::JsonError(error.to_string()))
}

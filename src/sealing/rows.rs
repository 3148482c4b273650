//! A row as canonical JSON: the leaf of a benchmark's tree.
//!
//! A row is an object of the contract's columns as they leave intake: integers within ±(2^53 − 1) as numbers, beyond as
//! decimal strings; fractions always as decimal strings, the shortest that reads back; dates as days and timestamps as
//! microseconds since 1970-01-01 UTC; null as null.

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
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

/// Rows from their JSON objects, the other way round: what [`RowWriter`] writes of them is what they were made from, or they are
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

/// Writes rows of a schema as canonical JSON (RFC 8785): the order of the keys and their text are found once.
#[derive(Debug)]
pub struct RowWriter {
    /// Places of the columns in the order of their keys, each with what stands before its cell.
    columns: Vec<(usize, Vec<u8>)>,
    row: Vec<u8>,
}

impl RowWriter {
    /// For batches of this schema.
    ///
    /// # Errors
    /// A name that JSON cannot hold.
    pub fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let mut names: Vec<(usize, &String)> = schema.fields().iter().map(|field| field.name()).enumerate().collect();
        // RFC 8785, section 3.2.3: by UTF-16 code units.
        names.sort_by(|(_, a), (_, b)| a.encode_utf16().cmp(b.encode_utf16()));
        let mut columns = Vec::with_capacity(names.len());
        for (place, name) in names {
            let mut before = vec![if columns.is_empty() { b'{' } else { b',' }];
            text(&mut before, name)?;
            before.push(b':');
            columns.push((place, before));
        }
        Ok(Self { columns, row: Vec::new() })
    }

    /// The row of a batch, until the next one is written.
    ///
    /// # Errors
    /// As [`cell`], and for a batch with fewer columns.
    pub fn write(&mut self, batch: &RecordBatch, row: usize) -> Result<&[u8], ArrowError> {
        self.row.clear();
        for (place, before) in &self.columns {
            self.row.extend_from_slice(before);
            let column = batch.columns().get(*place);
            let column = column.ok_or_else(|| ArrowError::SchemaError("a batch has fewer columns".to_owned()))?;
            write_cell(&mut self.row, column, row)?;
        }
        if self.columns.is_empty() {
            self.row.push(b'{');
        }
        self.row.push(b'}');
        Ok(&self.row)
    }
}

/// Appends a cell as [`cell`] gives it.
fn write_cell(out: &mut Vec<u8>, column: &ArrayRef, row: usize) -> Result<(), ArrowError> {
    if column.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match column.data_type() {
        DataType::Utf8 => return text(out, column.as_string::<i32>().value(row)),
        // Digits, a sign and a point need no escape.
        DataType::Float64 => write!(out, "\"{}\"", column.as_primitive::<Float64Type>().value(row) + 0.0)?,
        DataType::Int64 => whole(out, column.as_primitive::<Int64Type>().value(row))?,
        DataType::Date32 => whole(out, i64::from(column.as_primitive::<Date32Type>().value(row)))?,
        DataType::Timestamp(..) => whole(out, column.as_primitive::<TimestampMicrosecondType>().value(row))?,
        _ => out.extend(canonical(&cell(column, row)?)?),
    }
    Ok(())
}

fn whole(out: &mut Vec<u8>, value: i64) -> std::io::Result<()> {
    if (-EXACT..=EXACT).contains(&value) { write!(out, "{value}") } else { write!(out, "\"{value}\"") }
}

/// A text as JSON has it: serde's escapes are those of RFC 8785, section 3.2.2.2.
fn text(out: &mut Vec<u8>, value: &str) -> Result<(), ArrowError> {
    serde_json::to_writer(out, value).map_err(|error| ArrowError::JsonError(error.to_string()))
}

fn canonical(value: &Value) -> Result<Vec<u8>, ArrowError> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| ArrowError::JsonError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_written_as_a_canonicaliser_writes_its_object(
            texts in prop::collection::vec(prop::option::of(any::<String>()), 1..6),
            wholes in prop::collection::vec(prop::option::of(any::<i64>()), 6),
            fractions in prop::collection::vec(prop::option::of(any::<f64>().prop_filter("finite", |x| x.is_finite())), 6),
            names in prop::collection::hash_set(any::<String>(), 5),
        ) {
            let rows = texts.len();
            let columns: [ArrayRef; 5] = [
                Arc::new(StringArray::from(texts)),
                Arc::new(Int64Array::from(wholes[..rows].to_vec())),
                Arc::new(Float64Array::from(fractions[..rows].to_vec())),
                Arc::new(BooleanArray::from(wholes[..rows].iter().map(|x| x.map(|x| x > 0)).collect::<Vec<_>>())),
                Arc::new(TimestampMicrosecondArray::from(wholes[..rows].to_vec())),
            ];
            let batch = RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(n, c)| (n, c, true)));
            let batch = batch.unwrap();
            let mut writer = RowWriter::new(batch.schema_ref()).unwrap();
            for row in 0..rows {
                let cells = batch.schema_ref().fields().iter().zip(batch.columns());
                let object: Map<_, _> = cells.map(|(f, c)| (f.name().clone(), cell(c, row).unwrap())).collect();
                let wanted = canonical(&Value::Object(object)).unwrap();
                prop_assert_eq!(writer.write(&batch, row).unwrap(), &wanted[..]);
            }
        }
    }
}

//! Reference tables: their canonical form, which their digest is taken of.
//!
//! One line per row, canonical JSON (RFC 8785) in the form of [`RowWriter`]: an object of the columns. Lines are sorted, so the order of
//! a file's rows and its format do not show. The types of the columns stand in the contract.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field as ArrowField, Float64Type, Schema, SchemaRef};
use serde_json::{Map, Value};

use super::Fault;
use crate::codec::formats::{self, Format, Limits};
use crate::ml::derivation::{Field, MAX_TABLE, Table};
use crate::rowsql::arrow_type;
use crate::sealing::rows::{RowWriter, batch_of};

/// Most rows of a reference table.
pub const MAX_ROWS: usize = 100_000;
/// Largest file of a reference table in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// Arrow schema of columns.
pub(super) fn schema(columns: &[Field]) -> SchemaRef {
    let fields = columns.iter().map(|column| ArrowField::new(&column.name, arrow_type(column.kind), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn bad<T>(table: &str, problem: impl Into<String>, help: &str) -> Result<T, Fault> {
    Err(Fault {
        select: format!("the reference table `{table}`"),
        problem: problem.into(),
        help: help.to_owned(),
        row: None,
    })
}

/// The canonical form of a file's rows.
///
/// # Errors
/// What is wrong with the file: the text names rows and columns, and repeats no value.
pub fn canonical(table: &str, columns: &[Field], format: Format, document: &[u8]) -> Result<Vec<u8>, Fault> {
    // One row more than may be, so that it is told how many may.
    let bytes = usize::try_from(MAX_FILE).unwrap_or(usize::MAX);
    let limits = Limits { wire_bytes: bytes, decoded_bytes: 4 * bytes, rows: MAX_ROWS + 1, ..Limits::default() };
    let decoded = match formats::decode(format, document, &schema(columns), &limits) {
        Ok(decoded) => decoded,
        Err(error) => return bad(table, format!("cannot be read: {error}"), "correct the file"),
    };
    if !decoded.missing_columns.is_empty() {
        let missing = decoded.missing_columns.join(", ");
        return bad(table, format!("has no column {missing}"), "its `columns` name what the file has");
    }
    if let Some(reject) = decoded.rejects.first() {
        let problem = format!(
            "row {}: column {}: expected {}, found {}",
            u64::from(reject.row) + 1,
            reject.column,
            reject.expected,
            reject.shape
        );
        return bad(table, problem, "correct the file");
    }
    if decoded.batch.num_rows() > MAX_ROWS {
        return bad(table, format!("has more than {MAX_ROWS} rows"), "keep the rows that models need");
    }
    for column in decoded.batch.columns() {
        let numbers = column.as_primitive_opt::<Float64Type>();
        if numbers.is_some_and(|numbers| numbers.iter().flatten().any(|number| !number.is_finite())) {
            return bad(table, "has a number that is not finite", "leave the cell empty");
        }
    }
    lines(table, &decoded.batch)
}

fn lines(table: &str, batch: &RecordBatch) -> Result<Vec<u8>, Fault> {
    let (mut lines, mut bytes) = (Vec::with_capacity(batch.num_rows()), 0);
    let Ok(mut writer) = RowWriter::new(batch.schema_ref()) else {
        return bad(table, "has a column whose name cannot be written as JSON", "rename it");
    };
    for row in 0..batch.num_rows() {
        let Ok(line) = writer.write(batch, row) else {
            return bad(table, format!("row {}: cannot be written as JSON", row + 1), "correct the file");
        };
        bytes += line.len() + 1;
        if bytes > MAX_TABLE {
            let help = "keep the rows and columns that models need: artefacts hold the table";
            return bad(table, format!("has more than {MAX_TABLE} bytes in its canonical form"), help);
        }
        lines.push(line.to_vec());
    }
    lines.sort_unstable();
    let mut all = Vec::with_capacity(bytes);
    for line in lines {
        all.extend(line);
        all.push(b'\n');
    }
    Ok(all)
}

/// The rows of a table that was fetched.
///
/// # Errors
/// Bytes that are not its canonical form.
pub(super) fn read(table: &Table) -> Result<RecordBatch, Fault> {
    let damaged =
        |problem: &str| bad(&table.name, problem, "apply the model again with its file, or restore the store");
    if data_encoding::HEXLOWER.encode(&crate::ml::artefact::digest(&table.bytes)) != table.digest {
        return damaged("has other bytes than its digest says");
    }
    let mut rows = Vec::new();
    for line in table.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(row) = serde_json::from_slice::<Map<String, Value>>(line) else { return damaged("is damaged") };
        rows.push(row);
        if rows.len() > MAX_ROWS {
            return damaged("has too many rows");
        }
    }
    let Ok(batch) = batch_of(&schema(&table.columns), &rows) else { return damaged("has a cell of another type") };
    // One form only: what is not in it was not written by this program.
    match lines(&table.name, &batch)? == *table.bytes {
        true => Ok(batch),
        false => damaged("is not in canonical form"),
    }
}

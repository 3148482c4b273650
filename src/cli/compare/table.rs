//! The columns of a CSV or Parquet file as labels, scores and strata.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::ending;
use crate::cli::exit::{Failure, Outcome};
use crate::stats::exact::MAX_ROWS;
use crate::stats::fixed::parse_decimal;
use crate::stats::rows::{Frame, PairedRows, Task};

/// Most strata of a file.
const MAX_STRATA: usize = 1_000;

/// Names of the columns.
pub(super) struct Columns<'a> {
    pub label: &'a str,
    pub baseline: &'a [String],
    pub candidate: &'a [String],
    pub stratum: Option<&'a str>,
}

impl Columns<'_> {
    fn names(&self) -> Vec<&str> {
        let scores = self.baseline.iter().chain(self.candidate).map(String::as_str);
        std::iter::once(self.label).chain(scores).chain(self.stratum).collect()
    }
}

#[derive(Default)]
struct Gathered {
    rows: usize,
    labels: Vec<i64>,
    baseline: Vec<i64>,
    candidate: Vec<i64>,
    strata: Vec<u32>,
    levels: BTreeMap<String, u32>,
}

/// Reads the rows, and the names of the strata by their number.
pub(super) fn read(file: &Path, columns: &Columns<'_>, frame: Frame) -> Outcome<(PairedRows, Vec<String>)> {
    let mut gathered = Gathered::default();
    let mut take = |batch: RecordBatch| gathered.take(&batch, columns, frame).map_err(|text| refused(file, &text));
    match ending(file).as_str() {
        "csv" => csv(file, &mut take)?,
        "parquet" => parquet(file, columns, &mut take)?,
        _ => return Err(Failure::Usage(format!("{}: help: a file that ends in .csv or .parquet", file.display()))),
    }
    // Strata are numbered by name, not by which came first.
    let renumbered: BTreeMap<u32, u32> = gathered.levels.values().copied().zip(0..).collect();
    let strata = gathered.strata.iter().map(|own| renumbered.get(own).copied().unwrap_or(0)).collect();
    let names = gathered.levels.into_keys().collect();
    let rows =
        PairedRows::with_extras(frame, gathered.labels, gathered.baseline, gathered.candidate, Vec::new(), strata);
    rows.map(|rows| (rows, names)).map_err(|error| refused(file, &error.to_string()))
}

fn refused(file: &Path, text: &str) -> Failure {
    Failure::Refused(format!("{}: {text}", file.display()))
}

fn failed(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::because(format!("{}: {error}", file.display()))
}

fn csv(file: &Path, take: &mut dyn FnMut(RecordBatch) -> Outcome<()>) -> Outcome<()> {
    let mut input = File::open(file).map_err(|error| failed(file, error))?;
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (header, _) = format.infer_schema(&mut input, Some(0)).map_err(|error| failed(file, error))?;
    input.seek(SeekFrom::Start(0)).map_err(|error| failed(file, error))?;
    let text = |field: &Arc<Field>| Field::new(field.name(), DataType::Utf8, true);
    let schema = Arc::new(Schema::new(header.fields().iter().map(text).collect::<Vec<_>>()));
    let reader = arrow::csv::ReaderBuilder::new(schema).with_header(true).build(input);
    for batch in reader.map_err(|error| failed(file, error))? {
        take(batch.map_err(|error| failed(file, error))?)?;
    }
    Ok(())
}

fn parquet(file: &Path, columns: &Columns<'_>, take: &mut dyn FnMut(RecordBatch) -> Outcome<()>) -> Outcome<()> {
    let input = File::open(file).map_err(|error| failed(file, error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(input).map_err(|error| failed(file, error))?;
    let wanted = columns.names();
    let chosen =
        builder.schema().fields().iter().enumerate().filter(|(_, field)| wanted.contains(&field.name().as_str()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), chosen.map(|(at, _)| at).collect::<Vec<_>>());
    let reader = builder.with_projection(mask).build().map_err(|error| failed(file, error))?;
    for batch in reader {
        take(batch.map_err(|error| failed(file, error))?)?;
    }
    Ok(())
}

impl Gathered {
    fn take(&mut self, batch: &RecordBatch, columns: &Columns<'_>, frame: Frame) -> Result<(), String> {
        let first = self.rows;
        self.rows += batch.num_rows();
        if self.rows > MAX_ROWS {
            return Err(format!("more than {MAX_ROWS} rows; help: compare a sample"));
        }
        let label_unit = if frame.task == Task::Regression { frame.unit } else { 1 };
        let labels = text(batch, columns.label)?;
        for row in 0..batch.num_rows() {
            self.labels.push(number(&labels, columns.label, first, row, label_unit)?);
        }
        scores(batch, columns.baseline, first, frame.unit, &mut self.baseline)?;
        scores(batch, columns.candidate, first, frame.unit, &mut self.candidate)?;
        let Some(name) = columns.stratum else {
            self.strata.resize(self.rows, 0);
            return Ok(());
        };
        let levels = text(batch, name)?;
        for row in 0..batch.num_rows() {
            let level = if levels.is_null(row) { "" } else { levels.value(row) };
            let next = self.levels.len() as u32;
            if !self.levels.contains_key(level) {
                self.levels.insert(level.to_owned(), next);
            }
            self.strata.push(self.levels.get(level).copied().unwrap_or(next));
        }
        if self.levels.len() > MAX_STRATA {
            return Err(format!("column {name:?} has more than {MAX_STRATA} values; help: strata are few and large"));
        }
        Ok(())
    }
}

fn scores(batch: &RecordBatch, names: &[String], first: usize, unit: i64, into: &mut Vec<i64>) -> Result<(), String> {
    let columns = names.iter().map(|name| text(batch, name)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        for (column, name) in columns.iter().zip(names) {
            into.push(number(column, name, first, row, unit)?);
        }
    }
    Ok(())
}

/// A column as text: numbers print as their shortest decimal, which is what scores are quantised from.
fn text(batch: &RecordBatch, name: &str) -> Result<StringArray, String> {
    let column: &ArrayRef = batch.column_by_name(name).ok_or_else(|| {
        let known: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).take(20).collect();
        format!("no column {name:?}; help: it has {}", known.join(", "))
    })?;
    let text =
        cast(column, &DataType::Utf8).map_err(|_| format!("column {name:?} is no column of numbers or texts"))?;
    text.as_any().downcast_ref::<StringArray>().cloned().ok_or_else(|| format!("column {name:?} is no text"))
}

fn number(column: &StringArray, name: &str, first: usize, row: usize, unit: i64) -> Result<i64, String> {
    let line = first + row + 1;
    if column.is_null(row) {
        return Err(format!("row {line}, column {name:?}: no value; help: both models must score every row"));
    }
    match column.value(row).trim() {
        "true" => Ok(unit),
        "false" => Ok(0),
        value if unit == 1 => value.parse().map_err(|_| format!("row {line}, column {name:?}: a label is 0, 1, 2, …")),
        value => parse_decimal(value, unit).map_err(|error| format!("row {line}, column {name:?}: {error}")),
    }
}

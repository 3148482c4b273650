//! Conformance rows: encoded features, and what the exporter's own runtime made of them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};

use super::import::ImportError;
use crate::codec::formats::{Format, Limits, decode};
use crate::ml::Task;
use crate::ml::encoding::{Encoding, Feature};

/// Fewest rows.
pub const MIN_ROWS: usize = 32;
/// Most rows.
pub const MAX_ROWS: usize = 65_536;
/// How far a prediction may lie from the given one: absolutely, and relatively where that is larger than 1.
pub const TOLERANCE: f64 = 1e-5;
/// Largest file in bytes.
pub const MAX_FILE: usize = 64 << 20;

/// Rows and their predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Conformance {
    /// Encoded features in the encoding's order; NaN is missing.
    pub columns: Vec<Vec<f32>>,
    /// Predictions, row-major: the chance of the second class, of every class, or the number.
    pub expected: Vec<f64>,
}

impl Conformance {
    /// Reads CSV with a header: the features by name (empty where missing), and `prediction` (the number, or the chance of the second of
    /// two classes) or `p_CLASS` of every class.
    ///
    /// # Errors
    /// No such document, columns that are not there, cells that are no numbers.
    pub fn from_csv(bytes: &[u8], encoding: &Encoding, task: &Task) -> Result<Self, ImportError> {
        Self::read(Format::Csv, bytes, encoding, task)
    }

    /// Reads a document of another format with the same columns.
    ///
    /// # Errors
    /// See [`Conformance::from_csv`].
    pub fn read(format: Format, bytes: &[u8], encoding: &Encoding, task: &Task) -> Result<Self, ImportError> {
        let names: Vec<String> = encoding.features.iter().map(Feature::name).collect();
        let predicted = predicted(task);
        if let Some(both) = predicted.iter().flatten().find(|name| names.contains(name)) {
            return Err(ImportError::Rows(format!("a feature is called {both}, as the column of predictions is")));
        }
        let all = names.iter().chain(predicted.iter().flatten());
        let fields: Vec<Field> = all.map(|name| Field::new(name, DataType::Float64, true)).collect();
        let limits = Limits { wire_bytes: MAX_FILE, decoded_bytes: 4 * MAX_FILE, rows: MAX_ROWS, depth: 4 };
        let decoded = decode(format, bytes, &Arc::new(Schema::new(fields)), &limits);
        let decoded = decoded.map_err(|error| ImportError::Rows(error.to_string()))?;
        if let Some(reject) = decoded.rejects.first() {
            let (row, column) = (u64::from(reject.row) + 1, &reject.column);
            return Err(ImportError::Rows(format!("row {row}: {column}: a number is wanted, found {}", reject.shape)));
        }
        let there = |name: &String| !decoded.missing_columns.contains(name);
        if let Some(missing) = names.iter().find(|name| !there(name)) {
            return Err(ImportError::Rows(format!(
                "there is no column {missing}\nhelp: every feature is one, by its name"
            )));
        }
        let Some(predicted) = predicted.iter().find(|own| own.iter().all(there)) else {
            let ways: Vec<String> = predicted.iter().map(|own| own.join(", ")).collect();
            return Err(ImportError::Rows(format!(
                "there is no prediction\nhelp: the columns {} are wanted",
                ways.join(", or ")
            )));
        };
        let columns = names
            .iter()
            .map(|name| numbers(&decoded.batch, name))
            .map(|own| own.map(single))
            .collect::<Result<_, _>>()?;
        let values: Vec<Vec<f64>> =
            predicted.iter().map(|name| numbers(&decoded.batch, name)).collect::<Result<_, _>>()?;
        let expected = (0..decoded.batch.num_rows()).flat_map(|row| values.iter().map(move |own| own[row])).collect();
        Ok(Self { columns, expected })
    }
}

fn single(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

/// The ways in which predictions may be written: names of columns.
fn predicted(task: &Task) -> Vec<Vec<String>> {
    let chance = |class: &String| format!("p_{class}");
    match task {
        Task::Number => vec![vec!["prediction".to_owned()]],
        Task::Classes(classes) if classes.len() == 2 => vec![vec!["prediction".to_owned()], vec![chance(&classes[1])]],
        Task::Classes(classes) => vec![classes.iter().map(chance).collect()],
    }
}

fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<f64>, ImportError> {
    let column = batch.column_by_name(name).and_then(|own| own.as_primitive_opt::<Float64Type>());
    let column = column.ok_or_else(|| ImportError::Rows(format!("there is no column {name}")))?;
    Ok((0..column.len()).map(|row| if column.is_null(row) { f64::NAN } else { column.value(row) }).collect())
}

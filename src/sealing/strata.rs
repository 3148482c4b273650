//! Strata of the rows that are to be sealed: levels of a column, too small ones merged.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;

use super::SealingError;
use super::rows::cell;
use crate::domain::contract::{LogicalType, Spec};
use crate::stats::strata::{Frozen, Level, OTHER, freeze};

/// Levels that a column may have.
const MAX_LEVELS: usize = 256;

/// A level that fewer rows have is merged without being named: its name could tell whose row it is.
pub const NAMED: u64 = 10;

/// What strata are frozen for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Columns; each makes strata of its own.
    pub columns: Vec<String>,
    /// Margin by which no stratum may get worse.
    pub margin: f64,
    /// Planned standard deviation of a row's paired difference.
    pub deviation: f64,
}

/// Frozen strata as a seal lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strata {
    /// `COLUMN=LEVEL`, sorted.
    pub strata: Vec<String>,
    /// Levels merged into `COLUMN=other`, sorted; the rarest are not named.
    pub merged: Vec<String>,
    /// Merged levels that are not named.
    pub unnamed: usize,
}

/// Freezes the strata of rows; `classes` is each row's class, empty where the label is a number.
///
/// # Errors
/// [`SealingError::Strata`] for a column that makes none.
pub fn strata(rows: &[RecordBatch], spec: &Spec, classes: &[u32], wanted: &Wanted) -> Result<Strata, SealingError> {
    let mut all = Strata::default();
    for column in &wanted.columns {
        let refused = |why: String| SealingError::Strata { column: column.clone(), why };
        suitable(spec, column).map_err(|why| refused(why.to_owned()))?;
        let levels = levels(rows, column, classes).map_err(refused)?;
        let rare: Vec<String> = levels.iter().filter(|level| level.rows < NAMED).map(|l| l.name.clone()).collect();
        let Some(Frozen { strata, merged }) = freeze(levels, wanted.deviation, wanted.margin) else {
            let why = "even all rows together are too few for the margin, which needs a standard error of at most 1/2.5 of it";
            return Err(refused(why.to_owned()));
        };
        all.strata.extend(strata.into_iter().map(|stratum| format!("{column}={}", stratum.name)));
        let named = merged.iter().filter(|level| !rare.contains(level));
        all.merged.extend(named.map(|level| format!("{column}={level}")));
        all.unnamed += merged.iter().filter(|level| rare.contains(level)).count();
    }
    all.strata.sort_unstable();
    all.merged.sort_unstable();
    all.strata.dedup();
    all.merged.dedup();
    Ok(all)
}

fn suitable(spec: &Spec, column: &str) -> Result<(), &'static str> {
    let Some(property) = spec.property(column) else { return Err("the contract names no such column") };
    if spec.label.as_deref() == Some(column) {
        return Err("it is the label");
    }
    if !matches!(property.logical_type, LogicalType::String | LogicalType::Integer | LogicalType::Boolean) {
        return Err("its values are no levels; it takes a string, an integer or a boolean");
    }
    Ok(())
}

fn levels(rows: &[RecordBatch], name: &str, classes: &[u32]) -> Result<Vec<Level>, String> {
    let count = classes.iter().max().map_or(0, |most| *most as usize + 1);
    let mut levels: BTreeMap<String, Level> = BTreeMap::new();
    let mut classes = classes.iter();
    for batch in rows {
        let column = batch.column_by_name(name).ok_or("no such column")?;
        for row in 0..column.len() {
            let level = level_of(column, row).map_err(|error| error.to_string())?;
            let fresh = || Level { name: level.clone(), rows: 0, classes: vec![0; count] };
            let entry = levels.entry(level.clone()).or_insert_with(fresh);
            entry.rows += 1;
            if let Some(class) = classes.next().and_then(|class| entry.classes.get_mut(*class as usize)) {
                *class += 1;
            }
        }
        if levels.len() > MAX_LEVELS {
            return Err(format!("it has more than {MAX_LEVELS} values"));
        }
    }
    Ok(levels.into_values().collect())
}

/// Name of the level that a cell is; null is a level of its own, and so is an empty text.
///
/// # Errors
/// A column of a type that no contract has.
pub fn level_of(column: &ArrayRef, row: usize) -> Result<String, arrow::error::ArrowError> {
    if column.is_null(row) {
        return Ok("null".to_owned());
    }
    Ok(match (column.data_type(), cell(column, row)?) {
        (DataType::Utf8, serde_json::Value::String(text)) => {
            text.chars().filter(|c| !c.is_control()).take(64).collect()
        }
        (_, value) => value.to_string(),
    })
}

/// The stratum that a level of a column counts to in the strata of a record; none when the column makes no strata.
#[must_use]
pub fn stratum_of<'s>(strata: &'s [String], column: &str, level: &str) -> Option<&'s str> {
    let find = |level: &str| strata.iter().find(|stratum| **stratum == format!("{column}={level}"));
    find(level).or_else(|| find(OTHER)).map(String::as_str)
}

//! Checks of a contract over whole batches: the first failure of every row, in the contract's order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;
use regex::Regex;

use super::contract::CompiledContract;
use super::shape;
use crate::domain::reason::Reason;

/// How much later than its record's append time a timestamp may be.
const FUTURE_MILLIS: i64 = 5 * 60 * 1_000;

/// One check of a contract.
#[derive(Debug)]
pub(super) struct Check {
    pub reason: Reason,
    /// Position of the column; none for a rule over several.
    pub column: Option<usize>,
    /// Name of the rule.
    pub rule: String,
    pub expected: String,
    pub test: Test,
}

/// What violates a check.
#[derive(Debug)]
pub(super) enum Test {
    /// A null cell.
    Null { column: usize },
    /// NaN or an infinity.
    NotFinite { column: usize },
    /// The expression is true.
    Expression(Arc<dyn PhysicalExpr>),
    /// The expression is true; for numbers the bound tells how far off a value is.
    Bound { violated: Arc<dyn PhysicalExpr>, bound: Option<f64> },
    /// A text with fewer or more characters.
    Length { column: usize, least: u32, most: u32 },
    /// A text without a match.
    Mismatch { column: usize, regex: Regex },
    /// A timestamp later than the record that brought it.
    Future { column: usize },
}

/// Number of the first check that a row failed, from 1; 0 for none.
pub(super) type Failures = Vec<u32>;

impl CompiledContract {
    /// The first failed check of every row; `appended` is the append time of the record, in milliseconds.
    pub(super) fn first_failures(&self, batch: &RecordBatch, appended: i64) -> Failures {
        let mut first = vec![0; batch.num_rows()];
        for (number, check) in (1..).zip(self.checks()) {
            let Some(violated) = check.test.violations(batch, appended) else { continue };
            for row in violated.set_indices() {
                if let Some(slot @ 0) = first.get_mut(row) {
                    *slot = number;
                }
            }
        }
        first
    }

    /// The check of a number that [`CompiledContract::first_failures`] gave.
    pub(super) fn check(&self, number: u32) -> Option<&Check> {
        self.checks().get((number as usize).checked_sub(1)?)
    }
}

impl Test {
    /// Rows that violate the check; none when no row does.
    fn violations(&self, batch: &RecordBatch, appended: i64) -> Option<BooleanBuffer> {
        let violated = match self {
            Self::Null { column } => !batch.columns().get(*column)?.nulls()?.inner(),
            Self::NotFinite { column } => {
                let numbers = batch.columns().get(*column)?.as_primitive_opt::<Float64Type>()?;
                let values = numbers.values();
                if values.iter().all(|v| v.is_finite()) {
                    return None;
                }
                valid(BooleanBuffer::collect_bool(values.len(), |i| !values[i].is_finite()), numbers)
            }
            Self::Expression(violated) | Self::Bound { violated, .. } => evaluate(violated, batch),
            Self::Length { column, least, most } => {
                let texts = batch.columns().get(*column)?.as_string_opt::<i32>()?;
                let (least, most) = (*least as usize, *most as usize);
                // A character has 1 to 4 bytes: most texts are decided without counting characters.
                let surely_inside = least.saturating_mul(4)..=most;
                let outside = |text: &str| {
                    !surely_inside.contains(&text.len()) && !(least..=most).contains(&text.chars().count())
                };
                valid(BooleanBuffer::collect_bool(texts.len(), |i| outside(texts.value(i))), texts)
            }
            Self::Mismatch { column, regex } => {
                let texts = batch.columns().get(*column)?.as_string_opt::<i32>()?;
                valid(BooleanBuffer::collect_bool(texts.len(), |i| !regex.is_match(texts.value(i))), texts)
            }
            Self::Future { column } => {
                let times = batch.columns().get(*column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
                let latest = appended.saturating_add(FUTURE_MILLIS).saturating_mul(1_000);
                let values = times.values();
                valid(BooleanBuffer::collect_bool(values.len(), |i| values[i] > latest), times)
            }
        };
        (violated.count_set_bits() > 0).then_some(violated)
    }

    /// Shape of the value at `row` that violated the check.
    pub(super) fn shape(&self, column: Option<&ArrayRef>, row: usize) -> String {
        let Some(column) = column else { return "false, or cannot be computed".to_owned() };
        match self {
            Self::Bound { bound: Some(bound), .. } => shape::beyond(column, row, *bound),
            _ => shape::of(column, row),
        }
    }
}

/// A null cell violates nothing but its own check.
fn valid(violated: BooleanBuffer, column: &dyn Array) -> BooleanBuffer {
    match column.nulls() {
        Some(nulls) => &violated & nulls.inner(),
        None => violated,
    }
}

/// Rows for which the expression is true. An expression that fails on the batch (a division by zero, a cast) is
/// evaluated row by row, so that only the rows that it fails on count as violations, whatever stands beside them.
fn evaluate(violated: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> BooleanBuffer {
    match mask(violated, batch) {
        Some(mask) => mask,
        None => BooleanBuffer::collect_bool(batch.num_rows(), |row| {
            mask(violated, &batch.slice(row, 1)).is_none_or(|mask| mask.value(0))
        }),
    }
}

fn mask(violated: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Option<BooleanBuffer> {
    let array = violated.evaluate(batch).ok()?.into_array(batch.num_rows()).ok()?;
    if array.data_type() == &DataType::Null {
        return Some(BooleanBuffer::new_unset(batch.num_rows()));
    }
    let mask: &BooleanArray = array.as_boolean_opt()?;
    Some(valid(mask.values().clone(), mask))
}

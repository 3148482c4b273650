//! Functions of SQL that give the same bits on every machine: those of the pinned library in place of the platform's.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::math;

/// A function of one number and its name in SQL.
type Named = (&'static str, fn(f64) -> f64);

/// Names of these functions, which rules do not know.
pub(crate) const PINNED: [&str; 6] = ["ln", "log10", "log2", "exp", "power", "pow"];
/// Functions of the common list that have a platform's variant with a second argument.
const ROUNDED: [Named; 2] = [("round", f64::round), ("trunc", f64::trunc)];

/// Them all.
pub(crate) fn all() -> Vec<ScalarUDF> {
    let one: [Named; 5] =
        [("ln", math::ln), ("log10", math::log10), ("log2", math::log2), ("exp", math::exp), ("sqrt", math::sqrt)];
    let unary = one.into_iter().chain(ROUNDED).map(|(name, function)| made(name, 1, move |x| function(x[0])));
    unary.chain(["power", "pow"].map(|name| made(name, 2, |x| math::pow(x[0], x[1])))).collect()
}

fn made(name: &str, arguments: usize, function: impl Fn([f64; 2]) -> f64 + Send + Sync + 'static) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| -> Result<ColumnarValue, DataFusionError> {
        let rows = values.iter().map(|value| match value {
            ColumnarValue::Array(array) => Some(array.len()),
            ColumnarValue::Scalar(_) => None,
        });
        let rows = rows.flatten().next();
        let arrays = values.iter().map(|value| value.clone().into_array(rows.unwrap_or(1)));
        let arrays = arrays.collect::<Result<Vec<ArrayRef>, _>>()?;
        let cells = |row: usize| {
            let mut both = [0.0; 2];
            for (cell, array) in both.iter_mut().zip(&arrays) {
                let column = array.as_primitive_opt::<Float64Type>()?;
                *cell = arrow::array::Array::is_valid(column, row).then(|| column.value(row))?;
            }
            Some(function(both))
        };
        let made: Float64Array = (0..rows.unwrap_or(1)).map(cells).collect();
        Ok(match rows {
            Some(_) => ColumnarValue::Array(Arc::new(made)),
            None => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
        })
    };
    create_udf(name, vec![DataType::Float64; arguments], DataType::Float64, Volatility::Immutable, Arc::new(call))
}

//! One SQL expression, one number per row: checked when it is declared, then computed over Arrow batches.
//!
//! The result depends on the row alone and is the same on every machine, whatever the order of rows and the size of batches:
//! * every number is a DOUBLE: integer columns and literals are turned into one, so `1/2` is a half and nothing wraps around;
//! * the four operations are IEEE 754's; `ln`, `log2`, `log10`, `exp` and `power` are the `libm` crate's, under their SQL names;
//! * functions come from a fixed list, casts lead to DOUBLE, DATE and TIMESTAMP alone, patterns are literals;
//! * there is no subquery, aggregate, window, parameter or variable.
//!
//! What an expression is not is a safeguard against its result: NULL, NaN and infinity are for the caller to refuse.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionConfig;

use super::allowed::{self as limits, Refusal, check_pattern, each_node, is_plain, name, refuse};
use super::pinned;

/// Functions that an expression may call.
const FUNCTIONS: &[&str] = &[
    "abs",
    "ceil",
    "character_length",
    "coalesce",
    "contains",
    "date_part",
    "date_trunc",
    "ends_with",
    "exp",
    "floor",
    "greatest",
    "least",
    "ln",
    "log10",
    "log2",
    "lower",
    "nullif",
    "power",
    "round",
    "signum",
    "sqrt",
    "starts_with",
    "trunc",
    "upper",
];
/// Those whose result is an integer.
const COUNTING: &[&str] = &["character_length", "date_part"];

/// Plans expressions.
pub struct Expressions {
    session: SessionState,
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expressions").finish_non_exhaustive()
    }
}

impl Default for Expressions {
    fn default() -> Self {
        Self::new()
    }
}

/// An expression that gives one number per row.
#[derive(Debug, Clone)]
pub struct RowExpression {
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
}

/// Why an expression could not be computed. The text repeats no value: what is computed on may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A column that it reads is not there, or of another type.
    #[error("a column that it reads is not there, or of another type")]
    Column,
    /// A cast of a value that has none, a time out of range.
    #[error("a cast or a function has no result on a row")]
    Row,
}

impl Expressions {
    /// A planner with the functions of the list.
    #[must_use]
    pub fn new() -> Self {
        // Names stand in expressions as they stand in the contract; SQL would fold them to lower case.
        let mut config = SessionConfig::new().set_usize("datafusion.sql_parser.recursion_limit", limits::MAX_NESTING);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let mut session = SessionStateBuilder::new().with_config(config).with_default_features().build();
        for own in pinned::all() {
            // Over DataFusion's of the same name.
            let registered = datafusion::execution::FunctionRegistry::register_udf(&mut session, Arc::new(own));
            debug_assert!(registered.is_ok());
        }
        Self { session }
    }

    /// Plans an expression over these columns.
    ///
    /// # Errors
    /// What it is not, and the way out.
    pub fn number(&self, text: &str, columns: &[(String, DataType)]) -> Result<RowExpression, Refusal> {
        let names = || columns.iter().take(20).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let help = || format!("write one SQL expression over {}", names());
        limits::check_text(text).or_else(|own| refuse(own.problem, "write it flatter, or split the metric"))?;
        let schema = |wanted: &dyn Fn(&str) -> bool| {
            let fields = columns.iter().filter(|(name, _)| wanted(name));
            Schema::new(fields.map(|(name, kind)| Field::new(name, taken(kind), true)).collect::<Vec<_>>())
        };
        let whole = DFSchema::try_from(schema(&|_| true)).or_else(|e| refuse(e.strip_backtrace(), help()))?;
        let expr = self.session.create_logical_expr(text, &whole).or_else(|e| match limits::too_deep(&e) {
            Some(own) => refuse(own.problem, "write it flatter, or split the metric"),
            None => refuse(e.strip_backtrace(), help()),
        })?;
        each_node(&expr, &mut 0, "split the metric", check_node)?;
        let own = {
            let read = expr.column_refs();
            schema(&|name| read.iter().any(|column| column.name == name))
        };
        let expr = doubled(expr).and_then(limits::executable).or_else(|e| refuse(e.strip_backtrace(), help()))?;
        let planned = DFSchema::try_from(own.clone()).and_then(|own| self.session.create_physical_expr(expr, &own));
        let help = "compare values of one type; a boolean counts with CASE WHEN … THEN 1 ELSE 0 END";
        let physical = planned.or_else(|e| refuse(e.strip_backtrace(), help))?;
        match physical.data_type(&own) {
            Ok(DataType::Float64) => Ok(RowExpression { schema: Arc::new(own), physical }),
            Ok(other) => refuse(format!("is {other}, not a number"), help),
            Err(error) => refuse(error.strip_backtrace(), help),
        }
    }
}

/// The type as which a column is read.
fn taken(kind: &DataType) -> DataType {
    if kind.is_integer() { DataType::Float64 } else { kind.clone() }
}

impl RowExpression {
    /// Names of the columns that it reads.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    /// Its value on each row; null where it has none. `column` gives the columns that it reads, each of so many rows.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn evaluate(
        &self,
        rows: usize,
        mut column: impl FnMut(&str) -> Option<ArrayRef>,
    ) -> Result<Float64Array, Failure> {
        let cells = self.schema.fields().iter().map(|field| {
            let own = column(field.name())?;
            let fits = taken(own.data_type()) == *field.data_type();
            fits.then(|| cast(&own, field.data_type()).ok()).flatten()
        });
        let cells = cells.collect::<Option<Vec<_>>>().ok_or(Failure::Column)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), cells, &options);
        let found = self.physical.evaluate(&batch.map_err(|_| Failure::Column)?);
        let found = found.and_then(|value| value.into_array(rows)).map_err(|_| Failure::Row)?;
        found.as_primitive_opt::<Float64Type>().filter(|own| own.len() == rows).cloned().ok_or(Failure::Row)
    }
}

/// The expression with every integer as a DOUBLE.
fn doubled(expr: Expr) -> Result<Expr, DataFusionError> {
    let double = |value: f64| Transformed::yes(Expr::Literal(ScalarValue::Float64(Some(value)), None));
    let done = expr.transform_up(|node| {
        Ok(match node {
            Expr::Literal(ScalarValue::Int64(Some(value)), _) => double(value as f64),
            Expr::Literal(ScalarValue::UInt64(Some(value)), _) => double(value as f64),
            Expr::ScalarFunction(call) if COUNTING.contains(&call.func.name()) => {
                let call = Box::new(Expr::ScalarFunction(call));
                Transformed::yes(Expr::Cast(datafusion::logical_expr::Cast::new(call, DataType::Float64)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(done.data)
}

fn check_node(node: &Expr) -> Result<(), Refusal> {
    match node {
        Expr::BinaryExpr(binary) => check_operator(binary.op),
        Expr::Like(like) => check_pattern(&like.pattern),
        Expr::Case(case) if case.else_expr.is_none() => {
            refuse("has a CASE without ELSE, which is NULL where no WHEN holds", "write what it is worth then: ELSE 0")
        }
        Expr::Cast(cast) => check_cast(cast.field.data_type()),
        Expr::TryCast(cast) => check_cast(cast.field.data_type()),
        Expr::ScalarFunction(call) => check_call(call.func.name(), call.args.len()),
        plain if is_plain(plain) => Ok(()),
        other => refuse(format!("has {}", name(other)), "it is one value of each row, over that row's columns"),
    }
}

fn check_operator(operator: Operator) -> Result<(), Refusal> {
    use Operator::{
        And, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or,
        Plus,
    };
    match operator {
        And | Divide | Eq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | Lt | LtEq | Minus | Modulo | Multiply
        | NotEq | Or | Plus => Ok(()),
        other => refuse(
            format!("has the operator `{other}`"),
            "these are allowed: + - * / % = <> < <= > >=, AND, OR, NOT, BETWEEN, IN, LIKE, IS NULL, IS DISTINCT FROM",
        ),
    }
}

fn check_cast(kind: &DataType) -> Result<(), Refusal> {
    match kind {
        DataType::Float64 | DataType::Date32 | DataType::Timestamp(..) => Ok(()),
        other => refuse(
            format!("casts to {other}"),
            "numbers are DOUBLE here: leave the cast out, or write floor(x) or round(x); DATE and TIMESTAMP are allowed",
        ),
    }
}

fn check_call(name: &str, arguments: usize) -> Result<(), Refusal> {
    if !FUNCTIONS.contains(&name) {
        return refuse(
            format!("calls `{name}`, which a metric may not"),
            format!("these are allowed: {}", FUNCTIONS.join(", ")),
        );
    }
    if matches!(name, "round" | "trunc") && arguments != 1 {
        return refuse(format!("calls `{name}` with {arguments} arguments"), "it has one here: round(x * 100) / 100");
    }
    Ok(())
}

//! A contract, compiled: the Arrow schema of its rows and every check as a kernel over whole batches.
//!
//! Ranges, enumerations and rules over several columns are DataFusion expressions, planned once per contract;
//! patterns are regular expressions of bounded size. Everything that cannot be compiled is refused here, with the
//! path (and, from YAML, the line) of the culprit, when a model is applied and not when the first row comes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::types::{Date32Type, TimestampMicrosecondType};
use arrow::compute::kernels::cast_utils::{Parser, string_to_timestamp_nanos};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionConfig;
use regex::RegexBuilder;

use super::checks::{Check, Test};
use super::protect::declared_type;
use super::sql;
use crate::codec::canonical::RowEncoder;
use crate::domain::contract::{LogicalType, Property, Scalar, Spec, SpecError};
use crate::domain::reason::Reason;
use crate::ml::MAX_LABEL;
use crate::ml::derivation::Derivation;
use crate::rowsql::measure::Measures;
use crate::rowsql::{UTC, allowed, arrow_type, features};

/// Compiled size of one pattern.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Compiles contracts; made once, it plans expressions.
pub struct Compiler {
    session: SessionState,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new()
    }
}

/// A contract that batches can be checked against.
#[derive(Debug)]
pub struct CompiledContract {
    spec: Spec,
    digest: String,
    schema: SchemaRef,
    checks: Vec<Check>,
    encoder: RowEncoder,
}

impl Compiler {
    /// A compiler with DataFusion's functions.
    #[must_use]
    pub fn new() -> Self {
        // Names stand in expressions as they stand in the contract; SQL would fold them to lower case.
        let mut config = SessionConfig::new().set_usize("datafusion.sql_parser.recursion_limit", allowed::MAX_NESTING);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        Self { session: SessionStateBuilder::new().with_config(config).with_default_features().build() }
    }

    /// Reads and compiles a YAML document: what `model apply` does before it signs.
    ///
    /// # Errors
    /// [`SpecError`] with file, line, path, and the way out.
    pub fn compile_yaml(&self, text: &str, file: &str) -> Result<CompiledContract, SpecError> {
        let spec = Spec::parse_yaml(text, file)?;
        self.compile(spec).map_err(|error| error.located(text, file))
    }

    /// Compiles a contract.
    ///
    /// # Errors
    /// [`SpecError`] with the path of what cannot be compiled.
    pub fn compile(&self, spec: Spec) -> Result<CompiledContract, SpecError> {
        let digest = spec.contract_digest()?;
        let schema = Arc::new(arrow_schema(&spec));
        let planner = Planner::new(&self.session, &schema)?;
        let mut checks = Vec::new();
        for (column, property) in spec.properties().iter().enumerate() {
            let path = format!("schema[0].properties[{column}].logicalTypeOptions");
            column_checks(&planner, column, property, &path, &mut checks)?;
            declared_type(property, &format!("schema[0].properties[{column}].pii.type"))?;
        }
        for (i, rule) in spec.rules().iter().enumerate() {
            let violated = planner.rule(&rule.expression, &format!("schema[0].quality[{i}].expression"))?;
            let expected = rule.description.clone().unwrap_or_else(|| rule.expression.clone());
            checks.push(Check {
                reason: Reason::CrossField,
                column: None,
                rule: rule.name.clone(),
                expected,
                test: Test::Expression(violated),
            });
        }
        Measures::compile(&spec)?;
        check_sql(&spec)?;
        let label = spec.label.as_ref().and_then(|label| schema.index_of(label).ok());
        if let Some(column) = label {
            let test = Test::Null { column };
            checks.push(Check {
                reason: Reason::LabelMissing,
                column: Some(column),
                rule: "label".to_owned(),
                expected: "a label".to_owned(),
                test,
            });
            let bounds =
                spec.properties().get(column).map_or(Ok(Vec::new()), |own| label_bounds(&planner, column, own));
            checks.extend(bounds?);
        }
        checks.iter_mut().for_each(|check| shorten(&mut check.expected));
        // The first failure in the order of the reasons is the reason; the sort keeps the order of the columns.
        checks.sort_by_key(|check| check.reason);
        let exclude: Vec<&str> = spec.exclude_from_identity.iter().map(String::as_str).collect();
        let encoder = RowEncoder::new(&schema, &exclude, spec.label.as_deref())
            .map_err(|error| SpecError::at("schema[0].properties", error.to_string(), "change the column"))?;
        Ok(CompiledContract { spec, digest, schema, checks, encoder })
    }
}

impl CompiledContract {
    /// The specification.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// SHA-256 of the specification's canonical JSON, hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Arrow schema of the rows, in the order of the contract; every column may be null.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The checks, in the order in which the first failure is the reason.
    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Canonical bytes of rows.
    pub(super) fn encoder(&self) -> &RowEncoder {
        &self.encoder
    }

    /// Name of a column by position.
    pub(super) fn column_name(&self, column: usize) -> &str {
        self.schema.fields().get(column).map_or("", |field| field.name())
    }
}

/// What `learning` declares as SQL is planned, as it will be when it runs.
fn check_sql(spec: &Spec) -> Result<(), SpecError> {
    let derivation = Derivation::of(spec);
    features::check(&derivation).map_err(|(place, fault)| {
        let path = match place.checked_sub(derivation.selects.len()) {
            None => format!("learning.sql[{place}].select"),
            Some(place) => format!("learning.steps[{place}].select"),
        };
        SpecError::at(path, fault.problem, fault.help)
    })
}

fn arrow_schema(spec: &Spec) -> Schema {
    let field = |p: &Property| Field::new(&p.name, arrow_type(p.logical_type), true);
    Schema::new(spec.properties().iter().map(field).collect::<Vec<_>>())
}

/// A number to be learned is one that learners sum exactly: a single one beyond would end every training run of the model.
fn label_bounds(planner: &Planner<'_>, column: usize, property: &Property) -> Result<Vec<Check>, SpecError> {
    // Whole numbers are classes, or have bounds of their own.
    if property.logical_type != LogicalType::Number {
        return Ok(Vec::new());
    }
    let name = || Expr::Column(Column::from_name(&property.name));
    let mut checks = Vec::new();
    for (reason, bound) in [(Reason::RangeLow, -MAX_LABEL), (Reason::RangeHigh, MAX_LABEL)] {
        let literal = Expr::Literal(ScalarValue::Float64(Some(bound)), None);
        let violated = if bound < 0.0 { name().lt(literal) } else { name().gt(literal) };
        let expected = format!("a label from {:e} to {MAX_LABEL:e}", -MAX_LABEL);
        let test = Test::Bound { violated: planner.physical(violated, "label")?, bound: Some(bound) };
        checks.push(Check { reason, column: Some(column), rule: "label".to_owned(), expected, test });
    }
    Ok(checks)
}

fn column_checks(
    planner: &Planner<'_>,
    column: usize,
    property: &Property,
    path: &str,
    checks: &mut Vec<Check>,
) -> Result<(), SpecError> {
    let options = &property.logical_type_options;
    let mut add = |reason, rule: &str, expected: String, test| {
        checks.push(Check { reason, column: Some(column), rule: rule.to_owned(), expected, test });
    };
    if property.logical_type == LogicalType::Number {
        add(Reason::TypeMismatch, "number", "a finite number".to_owned(), Test::NotFinite { column });
    }
    if property.required {
        add(Reason::NullRequired, "required", "a value".to_owned(), Test::Null { column });
    }
    let name = || Expr::Column(Column::from_name(&property.name));
    for (bound, value) in options.bounds() {
        let literal = Expr::Literal(literal(property, value, &format!("{path}.{bound}"))?, None);
        let (reason, expected, violated) = match bound {
            "minimum" => (Reason::RangeLow, format!("at least {value}"), name().lt(literal)),
            "exclusiveMinimum" => (Reason::RangeLow, format!("above {value}"), name().lt_eq(literal)),
            "maximum" => (Reason::RangeHigh, format!("at most {value}"), name().gt(literal)),
            _ => (Reason::RangeHigh, format!("below {value}"), name().gt_eq(literal)),
        };
        let bound_value = value.as_f64();
        add(reason, bound, expected, Test::Bound { violated: planner.physical(violated, path)?, bound: bound_value });
    }
    if !options.values.is_empty() {
        let literals = options.values.iter().map(|v| literal(property, v, path).map(|l| Expr::Literal(l, None)));
        let violated = name().in_list(literals.collect::<Result<Vec<_>, _>>()?, true);
        let expected = expected_values(&options.values);
        add(Reason::EnumUnknown, "enum", expected, Test::Expression(planner.physical(violated, path)?));
    }
    if options.min_length.is_some() || options.max_length.is_some() {
        let (least, most) = (options.min_length.unwrap_or(0), options.max_length.unwrap_or(u32::MAX));
        let expected = match options.max_length {
            Some(most) => format!("{least} to {most} characters"),
            None => format!("at least {least} characters"),
        };
        add(Reason::Pattern, "length", expected, Test::Length { column, least, most });
    }
    if let Some(pattern) = &options.pattern {
        let regex = RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
            let problem = format!("is no regular expression: {}", last_line(&error.to_string()));
            SpecError::at(
                format!("{path}.pattern"),
                problem,
                "see the syntax of the crate `regex`; a compiled pattern has at most 1 MiB",
            )
        })?;
        add(Reason::Pattern, "pattern", format!("a match of {pattern}"), Test::Mismatch { column, regex });
    }
    if property.logical_type == LogicalType::Timestamp && !options.allow_future {
        add(
            Reason::TsFuture,
            "not in the future",
            "no later than 5 minutes after the record".to_owned(),
            Test::Future { column },
        );
    }
    Ok(())
}

/// What was expected stands in every refusal: a chunk of refused rows must not multiply a long text.
fn shorten(text: &mut String) {
    const MOST: usize = 200;
    if let Some((end, _)) = text.char_indices().nth(MOST) {
        text.truncate(end);
        text.push('…');
    }
}

/// The values of an enumeration, as far as a reader takes them in.
fn expected_values(values: &[Scalar]) -> String {
    const MOST: usize = 10;
    let shown: Vec<_> = values.iter().take(MOST).map(ToString::to_string).collect();
    match values.len().checked_sub(MOST) {
        None | Some(0) => format!("one of {}", shown.join(", ")),
        Some(more) => format!("one of {} and {more} more", shown.join(", ")),
    }
}

/// The `regex` crate draws the pattern over several lines; its last line says what is wrong.
fn last_line(text: &str) -> &str {
    text.lines().last().map_or("", |line| line.trim_start_matches("error: "))
}

fn literal(property: &Property, value: &Scalar, path: &str) -> Result<ScalarValue, SpecError> {
    let value_of = match (property.logical_type, value) {
        (LogicalType::Integer, value) => value.as_i64().map(|v| ScalarValue::Int64(Some(v))),
        (LogicalType::Number, value) => value.as_f64().map(|v| ScalarValue::Float64(Some(v))),
        (LogicalType::String, Scalar::Text(text)) => Some(ScalarValue::Utf8(Some(text.clone()))),
        (LogicalType::Date, Scalar::Text(text)) => Date32Type::parse(text).map(|v| ScalarValue::Date32(Some(v))),
        (LogicalType::Timestamp, Scalar::Text(text)) => {
            let micros = string_to_timestamp_nanos(text).map(|nanos| nanos.div_euclid(1_000)).ok();
            micros
                .or_else(|| TimestampMicrosecondType::parse(text))
                .map(|v| ScalarValue::TimestampMicrosecond(Some(v), Some(UTC.into())))
        }
        _ => None,
    };
    let help = "write ISO 8601: '2024-12-31' for a date, '2024-12-31T23:00:00Z' for a timestamp";
    value_of.ok_or_else(|| {
        SpecError::at(path, format!("does not fit a column of type {}", property.logical_type.name()), help)
    })
}

/// Plans expressions over the columns of one contract.
struct Planner<'a> {
    session: &'a SessionState,
    schema: DFSchema,
    names: HashSet<String>,
}

impl<'a> Planner<'a> {
    fn new(session: &'a SessionState, schema: &Schema) -> Result<Self, SpecError> {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let schema = DFSchema::try_from(schema.clone())
            .map_err(|error| SpecError::at("schema[0].properties", error.strip_backtrace(), "change the column"))?;
        Ok(Self { session, schema, names })
    }

    fn physical(&self, expr: Expr, path: &str) -> Result<Arc<dyn PhysicalExpr>, SpecError> {
        let help = "compare values of one type; cast with `CAST(x AS …)` where types differ";
        self.session
            .create_physical_expr(expr, &self.schema)
            .map_err(|e| SpecError::at(path, e.strip_backtrace(), help))
    }

    /// An expression that is true where the rule is violated: false there, not null.
    fn rule(&self, text: &str, path: &str) -> Result<Arc<dyn PhysicalExpr>, SpecError> {
        let help = format!("write one SQL boolean expression over the columns {}", self.some_names());
        let refused = |refusal: allowed::Refusal| SpecError::at(path, refusal.problem, refusal.help);
        allowed::check_text(text).map_err(refused)?;
        let rule =
            self.session.create_logical_expr(text, &self.schema).map_err(|error| match allowed::too_deep(&error) {
                Some(refusal) => refused(refusal),
                None => SpecError::at(path, error.strip_backtrace(), help),
            })?;
        sql::check(&rule).map_err(refused)?;
        let rule =
            allowed::executable(rule).map_err(|e| SpecError::at(path, e.strip_backtrace(), "write it with CASE"))?;
        let physical = self.physical(rule.clone(), path)?;
        match physical.data_type(self.schema.as_arrow()) {
            Ok(DataType::Boolean) => self.physical(Expr::Not(Box::new(rule)), path),
            Ok(other) => {
                Err(SpecError::at(path, format!("is {other}, not true or false"), "compare it with something"))
            }
            Err(error) => Err(SpecError::at(path, error.strip_backtrace(), "compare values of one type")),
        }
    }

    fn some_names(&self) -> String {
        let mut names: Vec<_> = self.names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.truncate(20);
        names.join(", ")
    }
}

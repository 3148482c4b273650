//! A DataFusion context that plans SELECTs and runs them over rows piece by piece.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field as ArrowField, Int64Type, Schema, SchemaRef};
use datafusion::common::config::Dialect;
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use super::guard::{self, For};
use super::{Fault, ROW, SHARE, fault, fault_at, table};
use crate::domain::contract::LogicalType;
use crate::domain::contract::sql::ROWS;
use crate::ml::derivation::{Derivation, Field, Select};
use crate::rowsql::allowed::{MAX_NESTING, Refusal, check_text, too_deep};
use crate::rowsql::{arrow_type, pinned};

/// Rows of a piece; of few rows in tests, so that they see borders.
const PIECE: usize = if cfg!(test) { 64 } else { 65_536 };
/// Memory of a piece's joins and aggregates in bytes.
const MEMORY: usize = 512 << 20;
/// Most rows of reference tables that one row may meet in the joins of a SELECT, before their further conditions: a bound on the work of
/// a piece that no clock has to watch.
const MAX_MATCHES: usize = 1_024;

fn input_schema(select: &Select, purpose: For) -> SchemaRef {
    let mut fields: Vec<ArrowField> =
        select.reads.iter().map(|read| ArrowField::new(&read.name, arrow_type(read.kind), true)).collect();
    if purpose == For::Step {
        fields.push(ArrowField::new(SHARE, DataType::Float64, false));
    }
    fields.push(ArrowField::new(ROW, DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// The columns that a SELECT sees of a piece, in the types of the contract.
fn input(select: &Select, purpose: For, batch: &RecordBatch, keys: &[u64]) -> Result<RecordBatch, Fault> {
    let mut columns = Vec::with_capacity(select.reads.len() + 2);
    for Field { name, kind } in &select.reads {
        let Some(column) = batch.column_by_name(name) else {
            return Err(fault(
                select,
                format!("reads the column {name}, which the rows do not have"),
                "add it to the rows",
            ));
        };
        let unfit =
            |_| fault(select, format!("reads the column {name} as {}", kind.name()), "the rows have another type");
        columns.push(cast(column, &arrow_type(*kind)).map_err(unfit)?);
    }
    if purpose == For::Step {
        columns.push(Arc::new(keys.iter().map(|key| Some(share(*key))).collect::<Float64Array>()) as ArrayRef);
    }
    let rows = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows)));
    let unfit = |_| fault(select, "reads columns of different lengths", "this is a defect");
    RecordBatch::try_new(input_schema(select, purpose), columns).map_err(unfit)
}

/// A row's number from 0 up to 1 (53 bits of its key through SplitMix64's finaliser, so that it is independent of folds).
fn share(key: u64) -> f64 {
    let mut mixed = key ^ 0x9E37_79B9_7F4A_7C15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A context that knows the reference tables, and `rows` piece by piece.
pub(super) struct Session<'a> {
    context: SessionContext,
    derivation: &'a Derivation,
}

impl<'a> Session<'a> {
    /// Without `filled` the tables are empty: for planning.
    pub(super) fn new(derivation: &'a Derivation, filled: bool) -> Result<Self, Fault> {
        let wrong =
            |problem: String| Fault { select: "SQL".to_owned(), problem, help: "see the log".to_owned(), row: None };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(|e| wrong(e.strip_backtrace()))?;
        // Names stand in SQL as they stand in the contract; one partition has one order.
        let mut config = SessionConfig::new()
            .with_target_partitions(1)
            .set_usize("datafusion.sql_parser.recursion_limit", MAX_NESTING)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let state =
            SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let context = SessionContext::new_with_state(state);
        pinned::all().into_iter().for_each(|function| context.register_udf(function));
        for known in &derivation.tables {
            let rows = match filled {
                true => table::read(known)?,
                false => RecordBatch::new_empty(table::schema(&known.columns)),
            };
            register(&context, &known.name, rows).map_err(|e| wrong(e.strip_backtrace()))?;
        }
        Ok(Self { context, derivation })
    }

    /// A SELECT over these rows, with the hidden number beside (of a step: alone).
    async fn plan(&self, select: &Select, purpose: For, rows: RecordBatch) -> Result<LogicalPlan, Fault> {
        let refused = |refusal: Refusal| fault(select, refusal.problem, refusal.help);
        check_text(&select.text).map_err(refused)?;
        let unread = |error: DataFusionError| match too_deep(&error) {
            Some(refusal) => refused(refusal),
            None => fault(select, format!("cannot be planned: {}", first_line(&error)), "write one SELECT … FROM rows"),
        };
        register(&self.context, ROWS, rows).map_err(unread)?;
        let state = self.context.state();
        let statement = state.sql_to_statement(&select.text, &Dialect::Generic).map_err(unread)?;
        let plan = state.statement_to_plan(statement).await.map_err(unread)?;
        let below = guard::check(&plan, purpose, &self.derivation.tables).map_err(refused)?;
        let LogicalPlan::Projection(top) = &plan else {
            return Err(fault(select, "is no SELECT", "write one SELECT … FROM rows"));
        };
        let number = below.schema().iter().find(|(_, field)| field.name() == ROW);
        let Some((qualifier, _)) = number else {
            return Err(fault(select, "does not read `rows`", "write SELECT … FROM rows"));
        };
        let number = Expr::Column(Column::new(qualifier.cloned(), ROW));
        let own = if purpose == For::Feature { top.expr.clone() } else { Vec::new() };
        let columns = own.into_iter().chain([number]);
        let plan = LogicalPlanBuilder::from(below.clone()).project(columns).and_then(LogicalPlanBuilder::build);
        let plan = state.optimize(&plan.map_err(unread)?).map_err(unread)?;
        guard::check_planned(&plan).map_err(refused)?;
        if purpose == For::Feature {
            fits(select, &plan)?;
        }
        Ok(plan)
    }

    /// Plans a SELECT without rows, and refuses it when a row may meet too many rows of the tables.
    pub(super) async fn admit(&self, select: &Select, purpose: For) -> Result<(), Fault> {
        let plan = self.plan(select, purpose, RecordBatch::new_empty(input_schema(select, purpose))).await?;
        let mut matches = 1_usize;
        for (table, keys) in guard::joined(&plan) {
            let failed = |_| fault(select, "joins a table whose keys cannot be computed", "look at what it joins on");
            matches = matches.saturating_mul(self.most_of_a_key(table, keys).await.map_err(failed)?.max(1));
        }
        if matches > MAX_MATCHES {
            let problem = format!("lets a row meet {matches} rows of reference tables, and {MAX_MATCHES} are allowed");
            return Err(fault(select, problem, "join on more columns with `=`, or a SELECT … GROUP BY of the table"));
        }
        Ok(())
    }

    /// How many rows of a table have the most frequent key. Rows without a key meet none.
    async fn most_of_a_key(&self, table: LogicalPlan, keys: Vec<Expr>) -> Result<usize, DataFusionError> {
        let known = keys.iter().cloned().map(Expr::is_not_null).reduce(Expr::and);
        let named = keys.into_iter().enumerate().map(|(place, key)| key.alias(format!("key{place}")));
        let counted = LogicalPlanBuilder::from(table)
            .filter(known.unwrap_or_else(|| lit(true)))?
            .aggregate(named, [count(lit(1)).alias("rows")])?
            .aggregate(Vec::<Expr>::new(), [max(ident("rows"))])?
            .build()?;
        let state = self.context.state();
        let physical = state.create_physical_plan(&counted).await?;
        let found = datafusion::physical_plan::collect(physical, self.context.task_ctx()).await?;
        let most =
            found.iter().find_map(|batch| batch.columns().first()?.as_primitive_opt::<Int64Type>()?.iter().next()?);
        Ok(usize::try_from(most.unwrap_or(0)).unwrap_or(usize::MAX))
    }

    /// What a SELECT gives for a piece of rows. A value that cannot be computed is looked for, so that the fault names its row.
    async fn piece(
        &self,
        select: &Select,
        purpose: For,
        piece: &RecordBatch,
        keys: &[u64],
    ) -> Result<Vec<RecordBatch>, Fault> {
        let of = async |first: usize, rows: usize| {
            let keys = keys.get(first..first + rows).unwrap_or_default();
            let rows = input(select, purpose, &piece.slice(first, rows), keys)?;
            let count = rows.num_rows();
            self.run(select, self.plan(select, purpose, rows).await?, count).await
        };
        let mut failed = match of(0, piece.num_rows()).await {
            Err(fault) if fault.row.is_some() => fault,
            done => return done,
        };
        let (mut first, mut rows) = (0, piece.num_rows());
        while rows > 1 {
            let half = rows / 2;
            match of(first, half).await {
                Err(fault) if fault.row.is_some() => (failed, rows) = (fault, half),
                _ => (first, rows) = (first + half, rows - half),
            }
        }
        Err(failed.after(first))
    }

    /// Numbers of the rows that came out, and the columns, as they came. A fault that some row is at has a place.
    async fn run(&self, select: &Select, plan: LogicalPlan, rows: usize) -> Result<Vec<RecordBatch>, Fault> {
        // The text of an error may hold a value, and rows may be sealed.
        let failed = |error: DataFusionError| match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => {
                fault(select, format!("needs more than {MEMORY} bytes"), "join smaller tables")
            }
            DataFusionError::ArrowError(error, _) if matches!(**error, arrow::error::ArrowError::DivideByZero) => {
                fault_at(0, select, "divides by zero", "write `nullif(x, 0)` for the divisor")
            }
            _ => fault_at(
                0,
                select,
                "fails on a row: a value cannot be cast or computed",
                "use TRY_CAST, CASE or nullif",
            ),
        };
        let physical = self.context.state().create_physical_plan(&plan).await.map_err(failed)?;
        let mut stream =
            datafusion::physical_plan::execute_stream(physical, self.context.task_ctx()).map_err(failed)?;
        let (mut batches, mut count) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(failed)?;
            count += batch.num_rows();
            batches.push(batch);
            // More cannot be right; which row comes twice is told by those that are here.
            if count > rows {
                break;
            }
        }
        Ok(batches)
    }

    /// The columns that a SELECT adds to the rows of a batch.
    pub(super) async fn added(&self, select: &Select, batch: &RecordBatch) -> Result<Vec<ArrayRef>, Fault> {
        self.admit(select, For::Feature).await?;
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); select.columns.len()];
        for first in (0..batch.num_rows()).step_by(PIECE) {
            let piece = batch.slice(first, PIECE.min(batch.num_rows() - first));
            let rows = piece.num_rows();
            let found = self.piece(select, For::Feature, &piece, &[]).await.map_err(|own| own.after(first))?;
            let order = order(select, &found, rows).map_err(|own| own.after(first))?;
            for (place, (field, pieces)) in select.columns.iter().zip(&mut pieces).enumerate() {
                let unfit = |_| fault(select, format!("gives the column {} as another type", field.name), "cast it");
                let parts: Vec<&dyn Array> = found.iter().map(|part| part.column(place).as_ref()).collect();
                let whole = concat(&parts).and_then(|whole| take(&whole, &order, None)).map_err(unfit)?;
                pieces.push(cast(&whole, &arrow_type(field.kind)).map_err(unfit)?);
            }
        }
        let whole = |(field, pieces): (&Field, Vec<ArrayRef>)| match pieces.is_empty() {
            true => Ok(arrow::array::new_empty_array(&arrow_type(field.kind))),
            false => concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())
                .map_err(|_| fault(select, "gives too many values", "this is a defect")),
        };
        select.columns.iter().zip(pieces).map(whole).collect()
    }

    /// Which rows a step lets through.
    pub(super) async fn kept(&self, step: &Select, batch: &RecordBatch, keys: &[u64]) -> Result<BooleanArray, Fault> {
        self.admit(step, For::Step).await?;
        let mut all = vec![false; batch.num_rows()];
        for first in (0..batch.num_rows()).step_by(PIECE) {
            let piece = batch.slice(first, PIECE.min(batch.num_rows() - first));
            let rows = piece.num_rows();
            let keys = keys.get(first..first + rows).unwrap_or_default();
            let found = self.piece(step, For::Step, &piece, keys).await.map_err(|own| own.after(first))?;
            for number in numbers(step, &found)? {
                match all.get_mut(first + number) {
                    Some(kept) if !*kept => *kept = true,
                    _ => return Err(twice(step, first + number)),
                }
            }
        }
        Ok(all.into())
    }
}

fn register(context: &SessionContext, name: &str, rows: RecordBatch) -> Result<(), DataFusionError> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
    context.deregister_table(name)?;
    context.register_table(name, Arc::new(table)).map(drop)
}

fn first_line(error: &DataFusionError) -> String {
    error.strip_backtrace().lines().next().unwrap_or_default().chars().take(300).collect()
}

/// Whether a plan gives the declared columns, in their order and types, before the hidden number. Types are those that were made out:
/// of a CASE the one that all its results fit into.
fn fits(select: &Select, plan: &LogicalPlan) -> Result<(), Fault> {
    let fields = plan.schema().fields();
    let fields = fields.get(..fields.len().saturating_sub(1)).unwrap_or_default();
    let found: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let said: Vec<&str> = select.columns.iter().map(|field| field.name.as_str()).collect();
    if found != said {
        let problem = format!("gives the columns {}, and {} are declared", found.join(", "), said.join(", "));
        return Err(fault(select, problem, "name each with AS, in the order of `columns`"));
    }
    for (field, declared) in fields.iter().zip(&select.columns) {
        if !is(field.data_type(), declared.kind) {
            let problem = format!("gives {} as {}, not as {}", declared.name, field.data_type(), declared.kind.name());
            return Err(fault(select, problem, "cast it in SQL, or declare the other type"));
        }
    }
    Ok(())
}

fn is(found: &DataType, wanted: LogicalType) -> bool {
    match wanted {
        LogicalType::String => matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        LogicalType::Integer => found.is_integer() && *found != DataType::UInt64,
        LogicalType::Number => found.is_numeric(),
        LogicalType::Boolean => *found == DataType::Boolean,
        LogicalType::Date => *found == DataType::Date32,
        LogicalType::Timestamp => matches!(found, DataType::Timestamp(..)),
    }
}

/// The numbers of the rows that came out.
fn numbers(select: &Select, found: &[RecordBatch]) -> Result<Vec<usize>, Fault> {
    let mut all = Vec::new();
    for batch in found {
        let column = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
        let Some(column) = column else { return Err(fault(select, "lost the number of its rows", "this is a defect")) };
        all.extend(column.iter().map(|number| number.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)));
    }
    Ok(all)
}

/// Where the result of each row stands: each has one.
fn order(select: &Select, found: &[RecordBatch], rows: usize) -> Result<UInt32Array, Fault> {
    let mut places = vec![u32::MAX; rows];
    for (place, number) in (0_u32..).zip(numbers(select, found)?) {
        match places.get_mut(number) {
            Some(own) if *own == u32::MAX => *own = place,
            _ => return Err(twice(select, number)),
        }
    }
    match places.iter().position(|place| *place == u32::MAX) {
        Some(lost) => {
            let help = "write LEFT JOIN, which keeps rows that the table does not know";
            Err(fault_at(lost, select, "loses a row", help))
        }
        None => Ok(places.into()),
    }
}

fn twice(select: &Select, row: usize) -> Fault {
    let help = "join on what is unique in the table, or aggregate it: LEFT JOIN (SELECT …, max(x) FROM t GROUP BY …)";
    fault_at(row, select, "gives a row more than once", help)
}

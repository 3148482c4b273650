//! SQL before learning and scoring: columns that are added to rows, and steps that say which training rows are learned from.
//!
//! One engine for all who need it: training, the sealed rows of an evaluation, attribution, `predict`, and whoever recomputes. What it may
//! be asked is in [`guard`]: a row's result follows from the row and the reference tables alone, so rows go through in pieces of bounded
//! size, and neither pieces nor threads show in a single bit.
//!
//! ```text
//! batch ──► piece of rows + `_row` ──► SELECT, `_row` beside it ──► back in the order of `_row`, each once ──► batch with the columns
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`guard`] | which SELECTs may run |
//! | [`table`] | reference tables and their canonical form |

mod guard;
pub mod table;
#[cfg(test)]
mod tests;

use std::future::Future;
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

use self::guard::For;
use crate::domain::contract::LogicalType;
use crate::domain::contract::sql::ROWS;
use crate::ml::derivation::{Derivation, Field, Select};
use crate::rowsql::allowed::{MAX_NESTING, Refusal, check_text, too_deep};
use crate::rowsql::{arrow_type, pinned};

/// The hidden number of a row in its piece.
const ROW: &str = "_row";
/// What a step may read besides columns: a number from 0 up to 1 that belongs to the row, the same in every run.
pub const SHARE: &str = "_share";
/// Rows of a piece; of few rows in tests, so that they see borders.
const PIECE: usize = if cfg!(test) { 64 } else { 65_536 };
/// Memory of a piece's joins and aggregates in bytes.
const MEMORY: usize = 512 << 20;
/// Most rows of reference tables that one row may meet in the joins of a SELECT, before their further conditions: a bound on the work of
/// a piece that no clock has to watch.
const MAX_MATCHES: usize = 1_024;

/// Why SQL gives no columns. Its text repeats no value of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{select} {problem}{}; help: {help}", row.map(|row| format!(" (row {})", row.saturating_add(1))).unwrap_or_default())]
pub struct Fault {
    /// Which SELECT or table.
    pub select: String,
    /// What is wrong.
    pub problem: String,
    /// The way out.
    pub help: String,
    /// Place of a row at which it is so, from 0; none when it is not about one row.
    pub row: Option<usize>,
}

impl Fault {
    /// The fault of rows whose places may not be told, such as sealed ones.
    #[must_use]
    pub fn without_place(self) -> Self {
        Self { row: None, ..self }
    }

    /// The fault of a piece, as that of the whole in which this many rows are before it.
    #[must_use]
    pub fn after(self, rows: usize) -> Self {
        Self { row: self.row.map(|row| row.saturating_add(rows)), ..self }
    }
}

fn fault(select: &Select, problem: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { select: format!("the SQL `{}`", select.name), problem: problem.into(), help: help.into(), row: None }
}

/// A fault of the row at this place.
fn fault_at(row: usize, select: &Select, problem: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { row: Some(row), ..fault(select, problem, help) }
}

/// Whether all of it may run and gives the declared columns; needs no row and no reference table's content.
///
/// # Errors
/// The position among SELECTs and then steps of the first that may not, and why.
pub fn check(derivation: &Derivation) -> Result<(), (usize, Fault)> {
    checked(derivation, false)
}

/// As [`check`], with the reference tables at hand: whether their rows may be joined too.
///
/// # Errors
/// As [`check`].
pub fn check_filled(derivation: &Derivation) -> Result<(), (usize, Fault)> {
    checked(derivation, true)
}

fn checked(derivation: &Derivation, filled: bool) -> Result<(), (usize, Fault)> {
    if derivation.is_empty() {
        return Ok(());
    }
    let all = selects(derivation);
    apart(async {
        let session = Session::new(derivation, filled).map_err(|e| (0, e))?;
        for (place, (select, purpose)) in all.iter().enumerate() {
            session.admit(select, *purpose).await.map_err(|e| (place, e))?;
        }
        Ok(())
    })
}

fn selects(derivation: &Derivation) -> Vec<(&Select, For)> {
    let selects = derivation.selects.iter().map(|select| (select, For::Feature));
    selects.chain(derivation.steps.iter().map(|select| (select, For::Step))).collect()
}

/// The batch with the columns that SQL adds. Takes it, so that whoever goes on column by column holds the only one.
///
/// # Errors
/// A column that it reads is missing, a row is lost or comes twice, SQL that may not run, or that fails.
pub fn derive(derivation: &Derivation, batch: RecordBatch) -> Result<RecordBatch, Fault> {
    if derivation.selects.is_empty() {
        return Ok(batch);
    }
    apart(async {
        let session = Session::new(derivation, true)?;
        let mut fields: Vec<Arc<ArrowField>> = batch.schema_ref().fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        for select in &derivation.selects {
            let added = session.added(select, &batch).await?;
            for (field, column) in select.columns.iter().zip(added) {
                // A column of that name in the rows is not the one that is declared.
                if let Some(place) = fields.iter().position(|known| *known.name() == field.name) {
                    fields.remove(place);
                    columns.remove(place);
                }
                fields.push(Arc::new(ArrowField::new(&field.name, arrow_type(field.kind), true)));
                columns.push(column);
            }
        }
        let unfit = |_| Fault {
            select: "the SQL".to_owned(),
            problem: "gives columns of another length".to_owned(),
            help: "this is a defect".to_owned(),
            row: None,
        };
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unfit)
    })
}

/// Which training rows a step lets through; `keys` are theirs, in their order.
///
/// # Errors
/// As [`derive`]; a row may be lost here, but not come twice.
pub fn kept(derivation: &Derivation, step: &Select, batch: &RecordBatch, keys: &[u64]) -> Result<BooleanArray, Fault> {
    apart(async { Session::new(derivation, true)?.kept(step, batch, keys).await })
}

/// Runs on a thread of its own: the caller may be in a runtime, or in none.
fn apart<T: Send, E: Send + Unavailable>(work: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.map_err(|_| E::unavailable())?.block_on(work)
        };
        let thread = std::thread::Builder::new().name("hokusai-sql".to_owned()).spawn_scoped(scope, run);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            _ => Err(E::unavailable()),
        }
    })
}

/// An error that says that the engine did not come to an end.
trait Unavailable {
    fn unavailable() -> Self;
}

impl Unavailable for Fault {
    fn unavailable() -> Self {
        Self {
            select: "SQL".to_owned(),
            problem: "could not be run: the system gives no thread, or the engine ended".to_owned(),
            help: "see the log".to_owned(),
            row: None,
        }
    }
}

impl Unavailable for (usize, Fault) {
    fn unavailable() -> Self {
        (0, Fault::unavailable())
    }
}

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
struct Session<'a> {
    context: SessionContext,
    derivation: &'a Derivation,
}

impl<'a> Session<'a> {
    /// Without `filled` the tables are empty: for planning.
    fn new(derivation: &'a Derivation, filled: bool) -> Result<Self, Fault> {
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
    async fn admit(&self, select: &Select, purpose: For) -> Result<(), Fault> {
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
    async fn added(&self, select: &Select, batch: &RecordBatch) -> Result<Vec<ArrayRef>, Fault> {
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
    async fn kept(&self, step: &Select, batch: &RecordBatch, keys: &[u64]) -> Result<BooleanArray, Fault> {
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

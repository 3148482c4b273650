//! The session: tables at their newest versions, views, limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::datasource::MemTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{Expr, SessionConfig, SessionContext, ident};
use deltalake_core::DeltaTable;
use tokio::sync::Mutex;

use super::error::SqlError;
use super::guard;
use crate::stages::warehouse::error::WarehouseError;
use crate::stages::warehouse::maintenance::RETENTION;
use crate::stages::warehouse::store::{self, Store};
use crate::stages::warehouse::tables::Table;

/// Name of the view of positions.
pub const POSITIONS: &str = "table_positions";

/// Views by name, in the order in which they build on each other; the SQL begins with a comment that says what it is.
pub const VIEWS: [(&str, &str); 13] = [
    ("receipt_refused", include_str!("views/receipt_refused.sql")),
    ("receipt_pii", include_str!("views/receipt_pii.sql")),
    ("receipt_quality", include_str!("views/receipt_quality.sql")),
    ("receipt_chunks", include_str!("views/receipt_chunks.sql")),
    ("admitted_rows", include_str!("views/admitted_rows.sql")),
    ("models", include_str!("views/models.sql")),
    ("model_versions", include_str!("views/model_versions.sql")),
    ("model_evaluations", include_str!("views/model_evaluations.sql")),
    ("runs", include_str!("views/runs.sql")),
    ("trials", include_str!("views/trials.sql")),
    ("evaluations", include_str!("views/evaluations.sql")),
    ("leaderboard", include_str!("views/leaderboard.sql")),
    ("attribution_shares", include_str!("views/attribution_shares.sql")),
];

/// What a query may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory of sorts, joins and aggregations before they spill, in bytes.
    pub memory: usize,
    /// Disk that they may spill to, in bytes.
    pub spill: u64,
    /// Folder of the spill files; the system's temporary folder when none is given. Rows there hold tokens, no plaintext.
    pub spill_folder: Option<PathBuf>,
    /// Longest time of a query: well below the time after which vacuum deletes the files of an old version.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 256 << 20, spill: 4 << 30, spill_folder: None, time: RETENTION / 2 }
    }
}

/// A table or view, for listings.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Name in SQL.
    pub name: String,
    /// What it is.
    pub comment: String,
    /// Columns as they are now.
    pub schema: SchemaRef,
}

/// A read-only SQL session over a store.
pub struct Session {
    store: Store,
    prefix: String,
    limits: Limits,
    context: SessionContext,
    /// Tables as they were loaded last: the next load reads only what came since.
    loaded: Mutex<BTreeMap<Table, DeltaTable>>,
}

impl Session {
    /// Opens a session; `prefix` is that of the topics.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Store, prefix: &str, limits: Limits) -> Result<Self, SqlError> {
        let (context, loaded) = (context(&limits)?, Mutex::default());
        let session = Self { store, prefix: prefix.to_owned(), limits, context, loaded };
        session.refresh().await?;
        Ok(session)
    }

    /// What queries may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn newest(&self, table: Table) -> Result<Option<DeltaTable>, WarehouseError> {
        let mut loaded = self.loaded.lock().await;
        if let Some(delta) = loaded.get_mut(&table)
            // A table that was moved away and made anew is another one: load it as such.
            && delta.update_incremental(None).await.is_ok()
        {
            return Ok(Some(delta.clone()));
        }
        let delta = self.store.load(table).await?;
        match &delta {
            Some(delta) => loaded.insert(table, delta.clone()),
            None => loaded.remove(&table),
        };
        Ok(delta)
    }

    /// How far the newest version of a table holds the partitions of its topic.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn positions(&self, table: Table) -> Result<BTreeMap<i32, i64>, SqlError> {
        match self.newest(table).await? {
            Some(delta) => Ok(self.positions_in(table, &delta).await?),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Kafka's id of the topic that a table holds, if it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn topic_id(&self, table: Table) -> Result<Option<String>, SqlError> {
        let Some(delta) = self.newest(table).await? else { return Ok(None) };
        let state = delta.snapshot().map_err(|e| WarehouseError::delta(table, "read", e))?;
        Ok(state.metadata().configuration().get(store::TOPIC_ID).cloned())
    }

    /// Turns to the newest version of every table; queries that run go on reading theirs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn refresh(&self) -> Result<(), SqlError> {
        let mut positions = Vec::new();
        for table in Table::ALL {
            let provider: Arc<dyn TableProvider> = match self.newest(table).await? {
                None => Arc::new(EmptyTable::new(table.schema())),
                Some(delta) => {
                    let found = self.positions_in(table, &delta).await?;
                    positions.extend(found.into_iter().map(|(partition, next)| Position { table, partition, next }));
                    let provider = delta.table_provider().with_session(Arc::new(self.context.state())).await?;
                    self.completed(table, provider)?
                }
            };
            self.context.deregister_table(table.name())?;
            self.context.register_table(table.name(), provider)?;
        }
        self.context.deregister_table(POSITIONS)?;
        self.context.register_table(POSITIONS, Arc::new(positions_table(&positions)?))?;
        for (name, sql) in VIEWS {
            let plan = self.context.state().create_logical_plan(sql).await?;
            self.context.deregister_table(name)?;
            let view = datafusion::datasource::ViewTable::new(plan, Some(sql.to_owned()));
            self.context.register_table(name, Arc::new(view))?;
        }
        Ok(())
    }

    /// A table that an earlier version of the program made gets its newest columns with the next commit that has rows,
    /// which may never come: until then they are null, so that a view that names one does not fail, and all SQL with it.
    fn completed(&self, table: Table, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>, SqlError> {
        let (has, wanted) = (provider.schema(), table.schema());
        let mut columns: Vec<Expr> = has.fields().iter().map(|field| ident(field.name())).collect();
        for field in wanted.fields().iter().filter(|field| has.index_of(field.name()).is_err()) {
            let comment = FieldMetadata::from(field.metadata());
            let null = Expr::Literal(ScalarValue::try_new_null(field.data_type())?, Some(comment));
            columns.push(null.alias(field.name()));
        }
        if columns.len() == has.fields().len() {
            return Ok(provider);
        }
        Ok(self.context.read_table(provider)?.select(columns)?.into_view())
    }

    async fn positions_in(&self, table: Table, delta: &DeltaTable) -> Result<BTreeMap<i32, i64>, WarehouseError> {
        let topic = format!("{}{}", self.prefix, table.topic());
        store::positions(table, &delta.log_store(), delta.version().unwrap_or(0), &topic).await
    }

    /// Starts a query; its rows come as they are made.
    ///
    /// # Errors
    /// [`SqlError`]: not a query, not allowed, unknown names.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, SqlError> {
        let statement = guard::read_only(sql)?;
        let plan = self.context.state().statement_to_plan(statement).await?;
        guard::options().verify_plan(&plan)?;
        Ok(self.context.execute_logical_plan(plan).await?.execute_stream().await?)
    }

    /// Tables, then views.
    ///
    /// # Errors
    /// A defect.
    pub async fn relations(&self) -> Result<Vec<Relation>, SqlError> {
        let tables = Table::ALL.map(|table| (table.name(), table.comment().to_owned()));
        let positions = (POSITIONS, "How far each table holds each partition of its topic (next_offset)".to_owned());
        let views = VIEWS.map(|(name, sql)| (name, view_comment(sql)));
        let mut relations = Vec::new();
        for (name, comment) in tables.into_iter().chain([positions]).chain(views) {
            let provider = self.context.table_provider(name).await?;
            relations.push(Relation { name: name.to_owned(), comment, schema: provider.schema() });
        }
        Ok(relations)
    }
}

fn view_comment(sql: &str) -> String {
    sql.lines().next().unwrap_or_default().trim_start_matches("-- ").trim_end_matches('.').to_owned()
}

fn context(limits: &Limits) -> Result<SessionContext, SqlError> {
    let mode = match &limits.spill_folder {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(limits.spill);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let config = SessionConfig::new()
        .with_information_schema(true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

struct Position {
    table: Table,
    partition: i32,
    next: i64,
}

fn positions_table(positions: &[Position]) -> Result<MemTable, SqlError> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("table", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("next_offset", DataType::Int64, false),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(StringArray::from_iter_values(positions.iter().map(|p| p.table.name()))),
            Arc::new(StringArray::from_iter_values(positions.iter().map(|p| p.table.topic()))),
            Arc::new(Int32Array::from_iter_values(positions.iter().map(|p| p.partition))),
            Arc::new(Int64Array::from_iter_values(positions.iter().map(|p| p.next))),
        ],
    )?;
    Ok(MemTable::try_new(schema, vec![vec![batch]])?)
}

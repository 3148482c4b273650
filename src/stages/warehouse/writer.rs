//! One table's writer: files, new columns and positions go into ONE Delta commit.
//!
//! ```text
//! batches ─► place columns ──► Parquet files (fsync) ──► Delta commit: add files + new columns + txn per partition
//!                                                             │ (fsync)
//!                                          positions known ◄──┘ then group offsets, for lag tools only
//! ```
//!
//! Invariants:
//! * a commit moves a partition's position from exactly the offset that the snapshot it is based on holds. The Delta
//!   library refuses a *concurrent* commit with the same application id, but accepts an older `txn` version on a newer
//!   snapshot: whenever the table has moved by a commit that is not this writer's, the positions are read again from
//!   that very snapshot before the next commit, and a difference is [`WarehouseError::Fenced`];
//! * after a failed commit nothing is assumed: the partitions are taken over again, and read from the positions that
//!   the table then holds;
//! * on a folder store the files are on disk (fsync) before the log entry that names them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, Add, MetadataExt, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::get_num_idx_cols_and_stats_columns;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::columns::{Placement, place};
use super::error::WarehouseError;
use super::store::{self, Store, TOPIC_ID, application_id};
use super::tables::Table;

/// Rows that are encoded at a time.
const PORTION: usize = 8_192;

/// What a commit brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Version of the table.
    pub version: u64,
    /// Rows added.
    pub rows: usize,
    /// Positions that the table holds now, by partition (only those that moved).
    pub positions: BTreeMap<i32, i64>,
}

/// Writes one table; there is one per table and process.
pub struct TableWriter {
    table: Table,
    topic: String,
    store: Store,
    log: LogStoreRef,
    /// The snapshot that the next commit is based on.
    state: DeltaTableState,
    /// Partitions that this process owns.
    owned: BTreeSet<i32>,
    /// Their positions as the loaded snapshot holds them.
    committed: BTreeMap<i32, i64>,
    /// The snapshot moved by commits of others: positions must be read again before the next commit.
    moved: bool,
}

impl TableWriter {
    /// Opens or makes the table. `topic` with prefix; `topic_id` as the brokers give it, if they do.
    ///
    /// # Errors
    /// [`WarehouseError::TopicRecreated`] when the table holds records of a topic that is gone.
    pub async fn open(
        store: &Store,
        table: Table,
        topic: &str,
        topic_id: Option<&str>,
    ) -> Result<Self, WarehouseError> {
        let delta = store.load_or_create(table, topic, topic_id).await?;
        let state = delta.snapshot().map_err(|e| WarehouseError::delta(table, "read", e))?.clone();
        check_topic(table, topic, topic_id, &state)?;
        let (state, log) = with_topic_id(table, topic_id, delta, state).await?;
        Ok(Self {
            table,
            topic: topic.to_owned(),
            store: store.clone(),
            log,
            state,
            owned: BTreeSet::new(),
            committed: BTreeMap::new(),
            moved: false,
        })
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// Topic with prefix.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Version of the table that the writer stands on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state.version()
    }

    /// Position of an owned partition in the table; none when nothing of it was read yet.
    #[must_use]
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.committed.get(&partition).copied()
    }

    /// Takes partitions over: loads the newest version and returns their positions in it.
    ///
    /// # Errors
    /// [`WarehouseError::Delta`].
    pub async fn take_over(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, WarehouseError> {
        self.refresh().await?;
        let all = self.positions().await?;
        let taken: BTreeMap<i32, i64> = all.into_iter().filter(|(p, _)| partitions.contains(p)).collect();
        self.owned.extend(partitions);
        self.committed.extend(taken.iter().map(|(p, next)| (*p, *next)));
        Ok(taken)
    }

    /// Gives partitions up; what was buffered of them must have been committed or reset before.
    pub fn give_up(&mut self, partitions: &[i32]) {
        self.owned.retain(|partition| !partitions.contains(partition));
        self.committed.retain(|partition, _| !partitions.contains(partition));
    }

    /// Commits batches together with the positions up to which the partitions were read. `note` goes into the
    /// commit's metadata.
    ///
    /// # Errors
    /// [`WarehouseError::Fenced`] when another worker has moved one of the positions. After an error it is not known
    /// whether the commit took place: the partitions must be taken over again.
    pub async fn commit(
        &mut self,
        batches: &[RecordBatch],
        reached: &BTreeMap<i32, i64>,
        note: Option<serde_json::Value>,
    ) -> Result<Option<Committed>, WarehouseError> {
        let moves: BTreeMap<i32, i64> =
            reached.iter().filter(|(p, next)| self.position(**p) != Some(**next)).map(|(p, n)| (*p, *n)).collect();
        if moves.is_empty() {
            return Ok(None);
        }
        // A concurrent change of the columns makes the commit fail; placed again on the newer table, it succeeds.
        let mut attempt = 0;
        let version = loop {
            self.check_positions().await?;
            match self.try_commit(batches, &moves, note.clone()).await {
                Ok(version) => break version,
                Err(error) if attempt < 3 && is_conflict(&error) => {
                    attempt += 1;
                    tracing::info!(table = self.table.name(), attempt, %error, "table changed meanwhile, trying again");
                    self.refresh().await?;
                }
                Err(error) => return Err(error),
            }
        };
        self.committed.extend(moves.iter().map(|(p, next)| (*p, *next)));
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok(Some(Committed { version, rows, positions: moves }))
    }

    /// Loads the newest version.
    async fn refresh(&mut self) -> Result<(), WarehouseError> {
        let before = self.state.version();
        let updated = self.state.update(self.log.as_ref(), None).await;
        updated.map_err(|e| self.fail("read", e))?;
        self.moved |= self.state.version() != before;
        Ok(())
    }

    async fn positions(&self) -> Result<BTreeMap<i32, i64>, WarehouseError> {
        store::positions(self.table, &self.log, self.state.version(), &self.topic).await
    }

    /// The positions that the next commits start from must be those of the snapshot that they are based on.
    async fn check_positions(&mut self) -> Result<(), WarehouseError> {
        if !self.moved {
            return Ok(());
        }
        let found = self.positions().await?;
        for partition in &self.owned {
            let (expected, found) = (self.position(*partition), found.get(partition).copied());
            if expected != found {
                return Err(WarehouseError::Fenced {
                    table: self.table.name(),
                    topic: self.topic.clone(),
                    partition: *partition,
                    expected: expected.unwrap_or(-1),
                    found: found.unwrap_or(-1),
                });
            }
        }
        self.moved = false;
        Ok(())
    }

    async fn try_commit(
        &mut self,
        batches: &[RecordBatch],
        moves: &BTreeMap<i32, i64>,
        note: Option<serde_json::Value>,
    ) -> Result<u64, WarehouseError> {
        let base = self.state.version();
        let (adds, evolved) = self.write_files(batches).await?;
        let mut actions = Vec::with_capacity(adds.len() + 1);
        if let Some(schema) = evolved {
            let columns = store::kernel_schema(self.table, &schema)?;
            let metadata = MetadataExt::with_schema(self.state.metadata().clone(), &columns);
            let metadata = metadata.map_err(|e| self.fail("given columns", e.into()))?;
            actions.push(Action::Metadata(metadata));
        }
        actions.extend(adds.into_iter().map(Action::Add));
        let transactions =
            moves.iter().map(|(p, next)| Transaction::new(application_id(&self.topic, *p), *next)).collect();
        let mut metadata = vec![("isBlindAppend".to_owned(), serde_json::Value::Bool(true))];
        metadata.extend(note.map(|note| ("hokusai".to_owned(), note)));
        let properties = CommitProperties::default()
            .with_application_transactions(transactions)
            .with_metadata(metadata)
            // The library would list the whole log at every commit; maintenance does it now and then.
            .with_cleanup_expired_logs(Some(false));
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&self.state as &dyn TableReference), self.log.clone(), operation)
            .await
            .map_err(|e| self.fail("committed", e))?;
        self.sync_log(done.version).await?;
        self.moved |= done.version != base + 1;
        self.state = done.snapshot();
        Ok(done.version)
    }

    /// Writes the batches as one Parquet file; returns the grown schema when they bring columns.
    async fn write_files(&self, batches: &[RecordBatch]) -> Result<(Vec<Add>, Option<Schema>), WarehouseError> {
        if batches.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut schema: Schema = self
            .state
            .schema()
            .as_ref()
            .try_into_arrow()
            .map_err(|e| WarehouseError::arrow(self.table, "its schema", e))?;
        let mut grown = false;
        let mut placed: Vec<(&[RecordBatch], Vec<usize>)> = Vec::new();
        for run in batches.chunk_by(|a, b| a.schema_ref() == b.schema_ref()) {
            let Some(first) = run.first() else { continue };
            let Placement { schema: wider, targets, grown: more } = place(&schema, first.schema_ref());
            (schema, grown) = (wider, grown || more);
            placed.push((run, targets));
        }
        let schema = Arc::new(schema);
        let (indexed, columns) = get_num_idx_cols_and_stats_columns(Some(self.state.table_config()), HashMap::new());
        let config =
            WriterConfig::new(Arc::clone(&schema), Vec::new(), Some(properties()), None, None, indexed, columns);
        let mut writer = DeltaWriter::new(self.log.object_store(None), config);
        for (run, targets) in placed {
            for part in portions(run) {
                let batch = spread(self.table, &joined(self.table, part)?, &targets, &schema)?;
                writer.write(&batch).await.map_err(|e| self.fail("written", e))?;
            }
        }
        let adds = writer.close().await.map_err(|e| self.fail("written", e))?;
        self.sync_files(&adds).await?;
        Ok((adds, grown.then(|| schema.as_ref().clone())))
    }

    async fn sync_files(&self, adds: &[Add]) -> Result<(), WarehouseError> {
        let Some(folder) = self.store.folder(self.table) else { return Ok(()) };
        let mut paths: Vec<_> = adds.iter().map(|add| folder.join(&add.path)).collect();
        paths.push(folder);
        self.sync(paths).await
    }

    async fn sync_log(&self, version: u64) -> Result<(), WarehouseError> {
        let Some(folder) = self.store.folder(self.table) else { return Ok(()) };
        let log = folder.join("_delta_log");
        self.sync(vec![log.join(format!("{version:020}.json")), log]).await
    }

    async fn sync(&self, paths: Vec<std::path::PathBuf>) -> Result<(), WarehouseError> {
        let synced = tokio::task::spawn_blocking(move || {
            paths.iter().try_for_each(|path| std::fs::File::open(path).and_then(|file| file.sync_all()))
        });
        let io = |source: std::io::Error| self.fail("made durable", DeltaTableError::Io { source });
        synced.await.map_err(|e| io(std::io::Error::other(e)))?.map_err(io)
    }

    fn fail(&self, what: &'static str, source: DeltaTableError) -> WarehouseError {
        WarehouseError::delta(self.table, what, source)
    }
}

/// Compares Kafka's topic id with the table's.
fn check_topic(
    table: Table,
    topic: &str,
    topic_id: Option<&str>,
    state: &DeltaTableState,
) -> Result<(), WarehouseError> {
    let expected = state.metadata().configuration().get(TOPIC_ID);
    match (expected, topic_id) {
        (Some(expected), Some(found)) if expected != found => Err(WarehouseError::TopicRecreated {
            table: table.name(),
            topic: topic.to_owned(),
            expected: expected.clone(),
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Writes the topic id down when the table has none yet.
async fn with_topic_id(
    table: Table,
    topic_id: Option<&str>,
    delta: DeltaTable,
    state: DeltaTableState,
) -> Result<(DeltaTableState, LogStoreRef), WarehouseError> {
    let log = delta.log_store();
    let Some(id) = topic_id.filter(|_| !state.metadata().configuration().contains_key(TOPIC_ID)) else {
        return Ok((state, log));
    };
    let fail = |e| WarehouseError::delta(table, "given its topic id", e);
    let properties = HashMap::from([(TOPIC_ID.to_owned(), id.to_owned())]);
    let set = delta.set_tbl_properties().with_properties(properties).with_raise_if_not_exists(false);
    let delta = set.await.map_err(fail)?;
    Ok((delta.snapshot().map_err(fail)?.clone(), log))
}

fn is_conflict(error: &WarehouseError) -> bool {
    matches!(error, WarehouseError::Delta { source, .. } if matches!(source.as_ref(),
        DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_)))
}

/// zstd at its fastest level: a quarter smaller than snappy at the same CPU on rows with digests and tokens.
pub(super) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        .set_created_by(concat!("hokusai ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// Cuts a run of batches into portions of about [`PORTION`] rows: Parquet encodes long columns far cheaper than short
/// ones, and a copy of everything at once would double the memory.
fn portions(run: &[RecordBatch]) -> Vec<&[RecordBatch]> {
    let mut portions = Vec::new();
    let (mut from, mut rows) = (0, 0);
    for (at, batch) in run.iter().enumerate() {
        rows += batch.num_rows();
        if rows >= PORTION || at + 1 == run.len() {
            portions.extend(run.get(from..=at));
            (from, rows) = (at + 1, 0);
        }
    }
    portions
}

fn joined(table: Table, part: &[RecordBatch]) -> Result<RecordBatch, WarehouseError> {
    let fail = |e: arrow::error::ArrowError| WarehouseError::arrow(table, "a batch", e);
    match part {
        [one] => Ok(one.clone()),
        [first, ..] => concat_batches(first.schema_ref(), part).map_err(fail),
        [] => Ok(RecordBatch::new_empty(table.schema())),
    }
}

/// Puts a batch's columns to their places in the table; the other columns are null.
fn spread(
    table: Table,
    batch: &RecordBatch,
    targets: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch, WarehouseError> {
    let fail = |e: arrow::error::ArrowError| WarehouseError::arrow(table, "a column", e);
    let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
    for (array, target) in batch.columns().iter().zip(targets) {
        let wanted = schema.field(*target).data_type();
        let array = if array.data_type() == wanted { Arc::clone(array) } else { cast(array, wanted).map_err(fail)? };
        if let Some(slot) = columns.get_mut(*target) {
            *slot = Some(array);
        }
    }
    let rows = batch.num_rows();
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(array, field)| array.unwrap_or_else(|| new_null_array(field.data_type(), rows)))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(fail)
}

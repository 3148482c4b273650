//! The tables in the shared store ([`crate::store`]): a folder, or an S3 bucket.
//!
//! A commit is a file that is made unless it exists: on S3 a conditional write, so that workers that share nothing but
//! the store cannot both be first.
//!
//! Each table is a Delta table under `tables/NAME`. How far each topic partition has been read stands in the table
//! itself, as `txn` actions (application id = topic with prefix, `-`, partition; version = next offset), and nowhere
//! else: a reader of the table always knows exactly which records it holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, Schema};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::{Action, StructType};
use deltalake_core::logstore::object_store::ObjectStoreExt;
use deltalake_core::logstore::object_store::path::Path;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use deltalake_core::protocol::SaveMode;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;

use super::error::WarehouseError;
use super::s3;
use super::tables::Table;
use crate::store as shared;

/// Table property: the topic that the table holds, with prefix.
pub const TOPIC: &str = "hokusai.topic";
/// Table property: Kafka's id of that topic; another id means that the topic was made anew.
pub const TOPIC_ID: &str = "hokusai.topicId";
/// Table property: version of this layout.
pub const FORMAT: &str = "hokusai.format";
/// The layout that this version writes.
pub const FORMAT_VERSION: &str = "1";

/// Root of the tables.
#[derive(Debug, Clone)]
pub struct Store {
    root: Url,
}

impl Store {
    /// Opens a store by folder or URL; asks it nothing. Nothing is created before the first table is.
    ///
    /// # Errors
    /// [`WarehouseError::Store`] for a location that cannot be used.
    pub fn open(root: &str) -> Result<Self, WarehouseError> {
        s3::register();
        let shared = shared::Store::at(root, &shared::StoreOptions::from_environment())?;
        Ok(Self { root: shared.url().clone() })
    }

    /// Where a table lies.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn url(&self, table: Table) -> Result<Url, WarehouseError> {
        let join = self.root.join(&format!("tables/{}/", table.name()));
        join.map_err(|e| WarehouseError::Location { store: self.root.to_string(), detail: e.to_string() })
    }

    /// The table's folder when the store is a folder of this machine.
    #[must_use]
    pub fn folder(&self, table: Table) -> Option<PathBuf> {
        self.url(table).ok()?.to_file_path().ok()
    }

    /// Opens a table at its newest version; none when it was not made yet.
    ///
    /// # Errors
    /// [`WarehouseError::Delta`], or [`WarehouseError::Format`] for a table of a newer version.
    pub async fn load(&self, table: Table) -> Result<Option<DeltaTable>, WarehouseError> {
        if self.folder(table).is_some_and(|folder| !folder.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        let fail = |source| WarehouseError::delta(table, "opened", source);
        let builder = DeltaTableBuilder::from_url(self.url(table)?).map_err(fail)?;
        match builder.load().await {
            Ok(delta) => check_format(table, &delta).map(|()| Some(delta)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(source) => Err(fail(source)),
        }
    }

    /// Opens a table, and makes it when there is none. Several workers may do so at once.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn load_or_create(
        &self,
        table: Table,
        topic: &str,
        topic_id: Option<&str>,
    ) -> Result<DeltaTable, WarehouseError> {
        if let Some(delta) = self.load(table).await? {
            return Ok(delta);
        }
        self.create(table, &table.schema(), topic, topic_id).await
    }

    /// Makes a table with these columns of its own, unless another worker is first.
    pub(super) async fn create(
        &self,
        table: Table,
        schema: &Schema,
        topic: &str,
        topic_id: Option<&str>,
    ) -> Result<DeltaTable, WarehouseError> {
        let fail = |source| WarehouseError::delta(table, "made", source);
        if let Some(folder) = self.folder(table) {
            std::fs::create_dir_all(&folder)
                .map_err(|e| WarehouseError::Location { store: folder.display().to_string(), detail: e.to_string() })?;
        }
        let empty = DeltaTableBuilder::from_url(self.url(table)?).and_then(DeltaTableBuilder::build).map_err(fail)?;
        let columns_with_statistics = statistics_columns(schema);
        let properties = [
            (FORMAT, Some(FORMAT_VERSION)),
            (TOPIC, Some(topic)),
            (TOPIC_ID, topic_id),
            ("delta.dataSkippingStatsColumns", Some(columns_with_statistics.as_str())),
            ("delta.checkpointInterval", Some("50")),
            ("delta.logRetentionDuration", Some("interval 7 days")),
            ("delta.deletedFileRetentionDuration", Some("interval 1 days")),
        ];
        let columns = kernel_schema(table, schema)?;
        let made = empty
            .create()
            .with_table_name(table.name())
            .with_comment(table.comment())
            .with_columns(columns.fields().cloned())
            .with_configuration(properties)
            .with_raise_if_key_not_exists(false)
            .with_save_mode(SaveMode::Ignore)
            .await;
        match made {
            Ok(delta) => check_format(table, &delta).map(|()| delta),
            // Another worker was first.
            Err(first) => self.load(table).await?.ok_or_else(|| fail(first)),
        }
    }
}

/// Columns of which a file's least and greatest values are noted: our own scalars. Not the contracts' columns: the
/// library notes decimals as floating-point numbers, and a query for an exact value would skip the file that has it.
fn statistics_columns(schema: &Schema) -> String {
    let scalars = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    scalars.map(|field| field.name().as_str()).collect::<Vec<_>>().join(",")
}

/// A schema as Delta keeps it.
pub(super) fn kernel_schema(table: Table, schema: &Schema) -> Result<StructType, WarehouseError> {
    schema.try_into_kernel().map_err(|e: arrow::error::ArrowError| WarehouseError::arrow(table, "its schema", e))
}

fn check_format(table: Table, delta: &DeltaTable) -> Result<(), WarehouseError> {
    let state = delta.snapshot().map_err(|e| WarehouseError::delta(table, "read", e))?;
    match state.metadata().configuration().get(FORMAT).map(String::as_str) {
        Some(FORMAT_VERSION) => Ok(()),
        found => Err(WarehouseError::Format {
            table: table.name(),
            found: found.unwrap_or("none").to_owned(),
            supported: FORMAT_VERSION,
        }),
    }
}

/// Application id of a topic partition in the tables; `topic` with prefix.
#[must_use]
pub fn application_id(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Next offsets by partition of `topic` (with prefix), as the given version of the table holds them.
///
/// # Errors
/// [`WarehouseError::Delta`].
pub async fn positions(
    table: Table,
    log: &LogStoreRef,
    version: u64,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, WarehouseError> {
    let fail = |source| WarehouseError::delta(table, "asked for its positions", source);
    let checkpoint = newest_checkpoint(log, version).await.map_err(fail)?;
    let mut positions = BTreeMap::new();
    let mut keep = |id: &str, next: i64| {
        let partition = id.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
        if let Some(partition) = partition.and_then(|p| p.parse().ok()) {
            positions.insert(partition, next);
        }
    };
    if let Some(at) = checkpoint {
        for (id, next) in checkpoint_transactions(log, at).await.map_err(fail)? {
            keep(&id, next);
        }
    }
    for at in checkpoint.map_or(0, |at| at + 1)..=version {
        let Some(bytes) = log.read_commit_entry(at).await.map_err(fail)? else {
            return Err(fail(DeltaTableError::InvalidVersion(at)));
        };
        for action in get_actions(at, &bytes).map_err(fail)? {
            if let Action::Txn(txn) = action {
                keep(&txn.app_id, txn.version);
            }
        }
    }
    Ok(positions)
}

fn checkpoint_path(version: u64) -> Path {
    Path::from_iter(["_delta_log", &format!("{version:020}.checkpoint.parquet")])
}

async fn newest_checkpoint(log: &LogStoreRef, newest: u64) -> Result<Option<u64>, DeltaTableError> {
    let store = log.object_store(None);
    let entries: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await?;
    let version = |path: &Path| path.filename()?.strip_suffix(".checkpoint.parquet")?.parse::<u64>().ok();
    Ok(entries.iter().filter_map(|entry| version(&entry.location)).filter(|at| *at <= newest).max())
}

async fn checkpoint_transactions(log: &LogStoreRef, version: u64) -> Result<Vec<(String, i64)>, DeltaTableError> {
    let bytes = log.object_store(None).get(&checkpoint_path(version)).await?.bytes().await?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    let reader = builder.with_projection(mask).build()?;
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch?;
        let Some(txn) = batch.column_by_name("txn").and_then(|c| c.as_struct_opt()) else { continue };
        let ids = txn.column_by_name("appId").and_then(|c| c.as_string_opt::<i32>());
        let versions = txn.column_by_name("version").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(ids), Some(versions)) = (ids, versions) else { continue };
        for at in (0..txn.len()).filter(|at| txn.is_valid(*at) && ids.is_valid(*at) && versions.is_valid(*at)) {
            found.push((ids.value(at).to_owned(), versions.value(at)));
        }
    }
    Ok(found)
}

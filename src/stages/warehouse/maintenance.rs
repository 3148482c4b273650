//! Keeps tables readable for years: small files become large ones, files that no reader can need any more go away.
//!
//! * *Compaction* merges small files in tiers (1, 8 and 64 MiB), each once it holds [`SMALL_FILES`]: a row is
//!   rewritten a few times in its life, not at every round. It removes files from the newest version only; they stay on
//!   disk, and queries that began on an earlier version go on reading them.
//! * *Vacuum* deletes files that no version of the last [`RETENTION`] names, and orphans of failed commits that are as
//!   old. A query reads one version and is ended by `hokusai sql` well before that.
//! * *Log clean-up* drops commit files that a checkpoint has replaced, after the table's `logRetentionDuration`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use deltalake_core::delta_datafusion::create_session_state_with_spill_config;
use deltalake_core::operations::vacuum::VacuumMode;
use deltalake_core::protocol::checkpoints::cleanup_metadata;
use deltalake_core::{DeltaTable, DeltaTableError};

use super::error::WarehouseError;
use super::exclusive::exclusive;
use super::store::Store;
use super::tables::Table;

/// Files below a tier's size that are merged.
pub const SMALL_FILES: usize = 16;

/// How long a file stays after no version names it; longer than any query may take.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Sizes up to which files are merged, smallest first.
const TIERS: [u64; 3] = [1 << 20, 8 << 20, 64 << 20];

/// Memory of one compaction before it spills, and disk it may spill to.
const MEMORY: usize = 128 << 20;
const SPILL: u64 = 2 << 30;

/// What a round of maintenance did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Small files merged.
    pub merged: u64,
    /// Files that they were merged into.
    pub into: u64,
    /// Files deleted.
    pub deleted: usize,
}

/// Merges small files, tier by tier.
///
/// # Errors
/// [`WarehouseError::Delta`]; a conflict with another worker's compaction is none.
pub async fn compact(store: &Store, table: Table) -> Result<Maintained, WarehouseError> {
    let mut done = Maintained::default();
    for tier in TIERS {
        let Some(delta) = store.load(table).await? else { return Ok(done) };
        let Some(target) = due(&delta, tier).map_err(|e| WarehouseError::delta(table, "read", e))? else { continue };
        let Some((merged, into)) = merge(table, &delta, target).await? else { return Ok(done) };
        done.merged += merged;
        done.into += into;
    }
    Ok(done)
}

/// Merges the small files of a version of the table; how many, and into how many. None when another worker has merged one of
/// them meanwhile: then nothing is changed.
pub(super) async fn merge(
    table: Table,
    delta: &DeltaTable,
    target: NonZeroU64,
) -> Result<Option<(u64, u64)>, WarehouseError> {
    let fail = |source| WarehouseError::delta(table, "compacted", source);
    let session = Arc::new(create_session_state_with_spill_config(Some(MEMORY), Some(SPILL)));
    let optimize = exclusive(delta)
        .await
        .map_err(fail)?
        .optimize()
        .with_target_size(target)
        .with_max_concurrent_tasks(1)
        .with_writer_properties(super::writer::properties())
        .with_session_state(session);
    match optimize.await {
        Ok((_, metrics)) => Ok(Some((metrics.num_files_removed, metrics.num_files_added))),
        Err(DeltaTableError::Transaction { .. }) => Ok(None),
        Err(source) => Err(fail(source)),
    }
}

fn due(delta: &DeltaTable, tier: u64) -> Result<Option<NonZeroU64>, DeltaTableError> {
    let files = delta.snapshot()?.log_data();
    let small = files.iter().filter(|file| u64::try_from(file.size()).is_ok_and(|size| size < tier)).count();
    Ok(if small >= SMALL_FILES { NonZeroU64::new(tier) } else { None })
}

/// Deletes what no reader can need any more.
///
/// # Errors
/// [`WarehouseError::Delta`].
pub async fn vacuum(store: &Store, table: Table) -> Result<Maintained, WarehouseError> {
    let Some(delta) = store.load(table).await? else { return Ok(Maintained::default()) };
    let fail = |source| WarehouseError::delta(table, "vacuumed", source);
    let retention = chrono::Duration::from_std(RETENTION).unwrap_or(chrono::Duration::days(1));
    let (delta, metrics) =
        delta.vacuum().with_retention_period(retention).with_mode(VacuumMode::Full).await.map_err(fail)?;
    cleanup_metadata(&delta, None).await.map_err(fail)?;
    Ok(Maintained { deleted: metrics.files_deleted.len(), ..Maintained::default() })
}

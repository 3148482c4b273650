//! A table's log for compactions: of two that remove the same file, one is refused.
//!
//! The Delta library takes removals without data change for no conflict, as the reference implementation does: it would let two workers
//! merge the same files at once, and every row of them would stand in the table twice. So the entry of a compaction is looked at once
//! more before it is written: if any version since the one that it read has removed one of its files, it is not. The entry is made
//! unless its version exists, so nothing comes between the look and the write.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::kernel::Action;
use deltalake_core::kernel::transaction::{CommitConflictError, TransactionError};
use deltalake_core::logstore::object_store::ObjectStore;
use deltalake_core::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, get_actions};
use deltalake_core::{DeltaTable, DeltaTableError};
use uuid::Uuid;

/// The log of a table, from the version on that was read.
struct Exclusive {
    log: LogStoreRef,
    read: u64,
}

/// The table as it stands there, with a log that refuses to remove what somebody else has removed.
///
/// # Errors
/// When its version cannot be loaded again.
pub async fn exclusive(delta: &DeltaTable) -> Result<DeltaTable, DeltaTableError> {
    let read = delta.version().ok_or(DeltaTableError::NotInitialized)?;
    let mut table = DeltaTable::new(Arc::new(Exclusive { log: delta.log_store(), read }));
    table.load_version(read).await?;
    Ok(table)
}

/// Paths of the files that an entry of the log removes.
fn removed(version: u64, entry: &Bytes) -> Result<BTreeSet<String>, DeltaTableError> {
    let actions = get_actions(version, entry)?.into_iter();
    Ok(actions
        .filter_map(|action| if let Action::Remove(remove) = action { Some(remove.path) } else { None })
        .collect())
}

impl Exclusive {
    /// Whether a version between the one that was read and `version` has removed one of the files.
    async fn is_taken(&self, files: &BTreeSet<String>, version: u64) -> Result<bool, DeltaTableError> {
        for between in self.read + 1..version {
            let entry = self.log.read_commit_entry(between).await?;
            let entry = entry.ok_or(DeltaTableError::InvalidVersion(between))?;
            if !removed(between, &entry)?.is_disjoint(files) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn failed(error: DeltaTableError) -> TransactionError {
    TransactionError::LogStoreError {
        msg: "the versions before it could not be read".to_owned(),
        source: Box::new(error),
    }
}

#[async_trait::async_trait]
impl LogStore for Exclusive {
    /// The name of the log beneath: by it the library knows that entries come as bytes.
    fn name(&self) -> String {
        self.log.name()
    }

    async fn read_commit_entry(&self, version: u64) -> Result<Option<Bytes>, DeltaTableError> {
        self.log.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: u64,
        entry: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        // Logs that commit by renaming hide what they commit; those of folders and S3 do not.
        let CommitOrBytes::LogBytes(bytes) = &entry else {
            return Err(failed(DeltaTableError::generic("the log commits by renaming")));
        };
        let files = removed(version, bytes).map_err(failed)?;
        if self.is_taken(&files, version).await.map_err(failed)? {
            return Err(CommitConflictError::ConcurrentDeleteDelete.into());
        }
        self.log.write_commit_entry(version, entry, operation).await
    }

    async fn abort_commit_entry(
        &self,
        version: u64,
        entry: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        self.log.abort_commit_entry(version, entry, operation).await
    }

    async fn get_latest_version(&self, start: u64) -> Result<u64, DeltaTableError> {
        self.log.get_latest_version(start).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.log.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.log.root_object_store(operation)
    }

    fn config(&self) -> &LogStoreConfig {
        self.log.config()
    }
}

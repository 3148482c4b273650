//! Committed entries on disk: one B-tree (redb), replaced page by page in durable transactions.
//!
//! A checkpoint writes what changed and what it is as of in one transaction, so a process may die at any moment: the file
//! holds the entries as of one checkpoint. Every page is checked when the file is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use super::Sum;
use crate::domain::records::Progress;
use crate::stream::runs::manifest::Folder;
use crate::stream::runs::{DiskError, Identity};
use crate::stream::stage::{Checkpoint, Place};

/// Format version of the file.
pub const FORMAT: u16 = 1;
/// Name of the file.
pub const FILE: &str = "entries.redb";
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const STATE: &str = "state";

/// What stands in the file beside the entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format: u16,
    stage: String,
    topic_id: String,
    partition: i32,
    next_offset: i64,
    progress: Vec<Progress>,
    /// Number of entries, and the sum of their hashes (high and low half).
    entries: u64,
    sum: (u64, u64),
}

/// The file, open.
pub struct Table {
    // The reader ends before the database.
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    shelf: Arc<Shelf>,
    path: PathBuf,
    identity: Identity,
    disk: u64,
    /// Offset of the last checkpoint.
    at: Option<i64>,
}

/// The database and the lock of its folder: a copy that is being made outlives the table.
struct Shelf {
    // It ends before the lock is given back.
    database: Database,
    _folder: Folder,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Errors of redb, with the file's name.
fn at<T, E: Into<redb::Error>>(path: &std::path::Path, result: Result<T, E>) -> Result<T, DiskError> {
    result.map_err(|error| match error.into() {
        redb::Error::Io(source) => DiskError::Io { path: path.to_owned(), source },
        redb::Error::Corrupted(detail) => DiskError::Damaged { path: path.to_owned(), detail },
        other => DiskError::Io { path: path.to_owned(), source: std::io::Error::other(other.to_string()) },
    })
}

/// Changes of a checkpoint: values, and none for entries that are gone.
pub type Changes = BTreeMap<Bytes, Option<Bytes>>;

impl Table {
    /// Opens what the folder holds of this identity, with the sum of its entries; empty when that is nothing, or not whole.
    ///
    /// # Errors
    /// [`DiskError::Newer`], [`DiskError::Locked`], or that the folder cannot be used.
    pub fn open(place: &Place) -> Result<(Self, Option<(Checkpoint, Sum)>), DiskError> {
        let folder = Folder::open(&place.folder)?;
        folder.sweep(&BTreeSet::from([FILE.to_owned()]))?;
        let path = folder.path().join(FILE);
        let found = if place.fresh || !path.exists() { Ok(None) } else { existing(&path, place) };
        let found = match found {
            Err(error @ DiskError::Newer { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "local state is not used");
                None
            }
            Ok(found) => found,
        };
        let (database, about) = match found {
            Some((database, about)) => (database, Some(about)),
            None => (create(&path, place)?, None),
        };
        let entries = read(&path, &database)?;
        let opened = about.map(|about| {
            let sum = Sum { entries: about.entries, sum: (u128::from(about.sum.0) << 64) | u128::from(about.sum.1) };
            (Checkpoint { next_offset: about.next_offset, progress: about.progress }, sum)
        });
        let disk = size(&path);
        let at = opened.as_ref().map(|(checkpoint, _): &(Checkpoint, Sum)| checkpoint.next_offset);
        let shelf = Arc::new(Shelf { database, _folder: folder });
        Ok((Self { entries, shelf, path, identity: place.identity.clone(), disk, at }, opened))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the disk fails, as everywhere here.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        let found = at(&self.path, self.entries.get(key))?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Entries in a range of keys, in key order.
    ///
    /// # Errors
    /// See [`Table::get`].
    pub fn range(
        &self,
        from: &[u8],
        to: &Bound<Bytes>,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), DiskError>> + use<'_>, DiskError> {
        let range = (Bound::Included(from), to.as_ref().map(Bytes::as_ref));
        let range = at(&self.path, self.entries.range::<&[u8]>(range))?;
        Ok(range.map(|entry| {
            let (key, value) = at(&self.path, entry)?;
            Ok((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
        }))
    }

    /// Writes changes; the file is then as of `checkpoint`, with entries that add up to `sum`.
    ///
    /// # Errors
    /// See [`Table::get`]; the file is then as before.
    pub fn write(&mut self, changes: &Changes, checkpoint: &Checkpoint, sum: Sum) -> Result<(), DiskError> {
        let about = about(&self.identity, checkpoint, sum);
        store(&self.path, &self.shelf.database, changes, &about)?;
        crate::failpoint!("state.after_manifest");
        self.entries = read(&self.path, &self.shelf.database)?;
        self.disk = size(&self.path);
        self.at = Some(checkpoint.next_offset);
        Ok(())
    }

    /// Offset of the changelog that the file is as of; none before the first checkpoint.
    pub fn as_of(&self) -> Option<i64> {
        self.at.filter(|at| *at > 0)
    }

    /// What copies the file as it is now into another one, whatever is written meanwhile.
    ///
    /// # Errors
    /// See [`Table::get`].
    pub fn copy_to(
        &self,
        to: &std::path::Path,
    ) -> Result<impl FnOnce() -> Result<(), DiskError> + Send + use<>, DiskError> {
        let (from, to) = (self.path.clone(), to.to_owned());
        let transaction = at(&from, self.shelf.database.begin_read())?;
        let shelf = Arc::clone(&self.shelf);
        Ok(move || {
            let copied = copy(&from, &transaction, &to);
            drop(transaction);
            drop(shelf);
            copied
        })
    }

    /// Bytes on disk.
    pub fn disk(&self) -> u64 {
        self.disk
    }
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn about(identity: &Identity, checkpoint: &Checkpoint, sum: Sum) -> About {
    let low = u64::try_from(sum.sum & u128::from(u64::MAX)).unwrap_or(0);
    About {
        format: FORMAT,
        stage: identity.stage.clone(),
        topic_id: identity.topic_id.clone(),
        partition: identity.partition,
        next_offset: checkpoint.next_offset,
        progress: checkpoint.progress.clone(),
        entries: sum.entries,
        sum: (u64::try_from(sum.sum >> 64).unwrap_or(0), low),
    }
}

fn builder(place: &Place) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(place.memory / 2).set_check_integrity_on_open(true);
    builder
}

/// The file that is there, if it is of this identity.
fn existing(path: &std::path::Path, place: &Place) -> Result<Option<(Database, About)>, DiskError> {
    let database = at(path, builder(place).open(path))?;
    let transaction = at(path, database.begin_read())?;
    let table = match transaction.open_table(ABOUT) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        table => at(path, table)?,
    };
    let Some(text) = at(path, table.get(STATE))? else { return Ok(None) };
    let damaged = |e: serde_json::Error| DiskError::Damaged { path: path.to_owned(), detail: e.to_string() };
    // The version comes first: a newer one may have other fields.
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let Version { format } = serde_json::from_slice(text.value()).map_err(damaged)?;
    if format > u64::from(FORMAT) {
        return Err(DiskError::Newer { path: path.to_owned(), found: format, known: FORMAT.into() });
    }
    let about: About = serde_json::from_slice(text.value()).map_err(damaged)?;
    let Identity { stage, topic_id, partition } = &place.identity;
    let ours = about.stage == *stage && about.topic_id == *topic_id && about.partition == *partition;
    drop((text, table, transaction));
    // Before the first checkpoint there is nothing worth keeping.
    Ok((ours && about.next_offset > 0).then_some((database, about)))
}

fn create(path: &std::path::Path, place: &Place) -> Result<Database, DiskError> {
    if path.exists() {
        std::fs::remove_file(path).map_err(|source| DiskError::Io { path: path.to_owned(), source })?;
    }
    let database = at(path, builder(place).create(path))?;
    let about = about(&place.identity, &Checkpoint::default(), Sum::default());
    store(path, &database, &Changes::new(), &about)?;
    Ok(database)
}

fn store(path: &std::path::Path, database: &Database, changes: &Changes, about: &About) -> Result<(), DiskError> {
    let mut transaction = at(path, database.begin_write())?;
    // After a kill the file is usable at once, whatever its size.
    transaction.set_quick_repair(true);
    {
        let mut entries = at(path, transaction.open_table(ENTRIES))?;
        for (key, value) in changes {
            match value {
                Some(value) => at(path, entries.insert(key.as_ref(), value.as_ref()))?,
                None => at(path, entries.remove(key.as_ref()))?,
            };
        }
        let mut table = at(path, transaction.open_table(ABOUT))?;
        let text = serde_json::to_vec(about).map_err(std::io::Error::from);
        let text = text.map_err(|source| DiskError::Io { path: path.to_owned(), source })?;
        at(path, table.insert(STATE, text.as_slice()))?;
    }
    at(path, transaction.commit())
}

/// Copies the entries that a transaction sees, in steps that fit into memory, and what they are as of last.
fn copy(from: &std::path::Path, transaction: &ReadTransaction, to: &std::path::Path) -> Result<(), DiskError> {
    const STEP: usize = 4 << 20;
    let copy = at(to, Database::builder().set_cache_size(2 * STEP).create(to))?;
    let entries = at(from, transaction.open_table(ENTRIES))?;
    let mut range = at(from, entries.range::<&[u8]>(..))?.peekable();
    loop {
        let writing = at(to, copy.begin_write())?;
        {
            let (mut table, mut step) = (at(to, writing.open_table(ENTRIES))?, 0);
            while step < STEP
                && let Some(entry) = range.next()
            {
                let (key, value) = at(from, entry)?;
                step += key.value().len() + value.value().len();
                at(to, table.insert(key.value(), value.value()))?;
            }
            if range.peek().is_none() {
                let about = at(from, at(from, transaction.open_table(ABOUT))?.get(STATE))?;
                let mut table = at(to, writing.open_table(ABOUT))?;
                if let Some(about) = about {
                    at(to, table.insert(STATE, about.value()))?;
                }
            }
        }
        at(to, writing.commit())?;
        if range.peek().is_none() {
            return Ok(());
        }
    }
}

fn read(path: &std::path::Path, database: &Database) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, DiskError> {
    let transaction = at(path, database.begin_read())?;
    at(path, transaction.open_table(ENTRIES))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Replaces a file by one of the next format version.
    pub fn write_newer(path: &std::path::Path) {
        std::fs::remove_file(path).unwrap();
        let database = Database::create(path).unwrap();
        let transaction = database.begin_write().unwrap();
        let text = format!("{{\"format\":{},\"what\":\"we do not know\"}}", FORMAT + 1);
        transaction.open_table(ABOUT).unwrap().insert(STATE, text.as_bytes()).unwrap();
        transaction.commit().unwrap();
    }
}

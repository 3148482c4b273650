//! Sorted runs on disk: exact maps from fixed-width keys to fixed-width values, larger than memory.
//!
//! ```text
//!  newest keys, in the owner's memory ──flush──► level 0 ── 4 runs merge ──► level 1 ── 4 runs merge ──► level 2 …
//!                                                   │ behind a binary fuse filter each: a new key touches no disk
//!  look-up: newest run first; the first record of a key stands
//! ```
//!
//! Invariants:
//! * the runs hold committed state only: they are a cache of a changelog up to an offset, named by {topic id, changelog
//!   offset, format version}; whatever does not match in full is made anew from the changelog;
//! * what the [`manifest`] names is complete and synced; a file that it does not name is swept away at the next start.
//!   So a process may die between any two steps: the folder holds the old state or the new one;
//! * filters only ever stand in front of an exact run: they spare reads and decide nothing;
//! * memory is bounded: 2.3 bytes of filter and 0.06 of fence pointers per key of 32 bytes, a block at a time else.
//!
//! | module | what |
//! |---|---|
//! | `file` | one run: blocks with checksums, fence pointers, filters |
//! | `filter` | the filter and its bytes |
//! | `merge` | several runs into one, on a thread of its own |
//! | `tiers` | the runs of one map, newest last, and which of them merge |
//! | [`manifest`] | which runs make up a state; the folder, its lock and its sweep |
//! | [`store`] | several maps that are flushed together |

use std::path::{Path, PathBuf};

mod file;
mod filter;
pub mod manifest;
mod merge;
pub mod store;
#[cfg(test)]
mod tests;
mod tiers;

/// Format version of runs and manifests.
pub const FORMAT: u16 = 1;

/// A map: fixed widths, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Name of the map, at most 16 lower-case letters: part of its files' names.
    pub name: &'static str,
    /// Width of a key; its first 8 bytes are what filters and fence pointers know of it.
    pub key: usize,
    /// Width of a value.
    pub value: usize,
}

impl Shape {
    /// Width of a record.
    #[must_use]
    pub const fn record(self) -> usize {
        self.key + self.value
    }
}

/// Takes a record, key and value; false ends a search.
pub type Visit<'a, E> = dyn FnMut(&[u8], &[u8]) -> Result<bool, E> + 'a;

/// Whose state a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Stage.
    pub stage: String,
    /// Kafka's id of the changelog topic, hex.
    pub topic_id: String,
    /// Partition of the changelog.
    pub partition: i32,
}

/// Why state on this machine's disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Reading or writing failed.
    #[error("{path}: {source}; help: is there space on the disk of --data, and may hokusai write there?")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process uses the folder.
    #[error(
        "{path} is in use by another task; help: one that is being handed over lets go by itself, else give each worker a --data of its own"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// What stands in the file is not what was written: it is made anew from the changelog.
    #[error("{path} is damaged ({detail}); help: nothing to do, the state is made anew from its changelog")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a newer version.
    #[error(
        "{path} has the format version {found}, this program reads up to {known}; help: run the version that wrote it, or delete its folder: the state is made anew from its changelog"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that this program reads.
        known: u64,
    },
}

impl DiskError {
    fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }
}

/// Names the file in an error of the system.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, DiskError>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::Io { path: path.to_owned(), source })
    }
}

/// The first 8 bytes of a key, as a number in key order.
fn head(key: &[u8]) -> u64 {
    if let Some(head) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    key.iter().zip(&mut head).for_each(|(from, to)| *to = *from);
    u64::from_be_bytes(head)
}

/// Syncs a folder: what was made, renamed and removed in it stays so.
pub(super) fn sync_folder(folder: &Path) -> Result<(), DiskError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).at(folder)
}

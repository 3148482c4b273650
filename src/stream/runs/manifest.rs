//! A task's folder: its lock, the manifest that names what is in it, and the sweep of what is not.
//!
//! The manifest is one line of JSON and, on a second line, the CRC-32C of the first in hex. It is replaced by a rename,
//! so it names the old state or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{At, DiskError, FORMAT, Identity, sync_folder};
use crate::domain::records::Progress;

/// Name of the manifest.
pub const NAME: &str = "MANIFEST";
const NEXT: &str = "MANIFEST.new";
const LOCK: &str = "LOCK";

/// What a folder holds: the state as of an offset of the changelog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version.
    pub format: u16,
    /// Stage.
    pub stage: String,
    /// Kafka's id of the changelog topic, hex.
    pub topic_id: String,
    /// Partition of the changelog.
    pub partition: i32,
    /// Offset of the first record of the changelog that is not in the state.
    pub next_offset: i64,
    /// The stage's progress at that offset.
    pub progress: Vec<Progress>,
    /// Numbers that the state keeps, by name.
    pub numbers: BTreeMap<String, u64>,
    /// The runs, of each map the oldest first.
    pub runs: Vec<RunName>,
}

/// A run of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunName {
    /// Its map.
    pub map: String,
    /// How often its records were merged.
    pub level: u8,
    /// Its file in the folder.
    pub file: String,
}

impl Manifest {
    /// The manifest of an empty state.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self {
            format: FORMAT,
            stage: identity.stage.clone(),
            topic_id: identity.topic_id.clone(),
            partition: identity.partition,
            next_offset: 0,
            progress: Vec::new(),
            numbers: BTreeMap::new(),
            runs: Vec::new(),
        }
    }

    fn is_of(&self, identity: &Identity) -> bool {
        self.stage == identity.stage && self.topic_id == identity.topic_id && self.partition == identity.partition
    }
}

fn with_checksum(line: &str) -> String {
    format!("{line}\n{:08x}\n", crc32c::crc32c(line.as_bytes()))
}

/// The manifest in a folder.
///
/// # Errors
/// [`DiskError::Newer`], [`DiskError::Damaged`], or that it cannot be read.
pub fn read(folder: &Path) -> Result<Option<Manifest>, DiskError> {
    let path = folder.join(NAME);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.at(&path)?,
    };
    let damaged = |detail: &str| DiskError::damaged(&path, detail);
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("no text"))?;
    let line = text.split('\n').next().unwrap_or_default();
    if text != with_checksum(line) {
        return Err(damaged("checksum"));
    }
    // The version comes first: a newer one may have other fields.
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let Version { format } = serde_json::from_str(line).map_err(|e| damaged(&e.to_string()))?;
    if format > u64::from(FORMAT) {
        return Err(DiskError::Newer { path, found: format, known: FORMAT.into() });
    }
    serde_json::from_str(line).map(Some).map_err(|e| damaged(&e.to_string()))
}

/// What a task keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The stage, behind the prefix of its tenant.
    pub stage: String,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Looks at every task's folder under the root of all states; opens and locks nothing.
///
/// # Errors
/// [`DiskError::Newer`], or that a folder cannot be read.
pub fn kept(root: &Path) -> Result<Vec<Kept>, DiskError> {
    let mut kept = Vec::new();
    for (stage, folder) in folders(root)? {
        for (_, task) in folders(&folder)? {
            if let Err(error @ DiskError::Newer { .. }) = read(&task) {
                return Err(error);
            }
            let files = std::fs::read_dir(&task).at(&task)?;
            // A merge may remove a file meanwhile.
            let bytes = files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum();
            kept.push(Kept { stage: stage.clone(), bytes });
        }
    }
    Ok(kept)
}

/// Empties the folders of tasks that no task of any process uses and that nothing was written to since a moment: their partitions
/// have moved away. The changelogs have it all. Returns the bytes that are free now.
///
/// # Errors
/// That a folder cannot be read, or a file not be removed.
pub fn forget_idle(root: &Path, before: std::time::SystemTime) -> Result<u64, DiskError> {
    let mut freed = 0;
    for (_, stage) in folders(root)? {
        for (_, task) in folders(&stage)? {
            let Ok(folder) = Folder::open(&task) else { continue };
            let (mut bytes, mut idle) = (0, true);
            for file in std::fs::read_dir(&task).at(&task)?.filter_map(Result::ok) {
                let Ok(about) = file.metadata() else { continue };
                let is_lock = file.file_name() == LOCK;
                bytes += if about.is_file() && !is_lock { about.len() } else { 0 };
                idle &= is_lock || about.modified().is_ok_and(|modified| modified < before);
            }
            if idle && bytes > 0 {
                // The manifest goes first: what is left after a kill is no state and is swept by whoever comes.
                let manifest = task.join(NAME);
                if manifest.exists() {
                    std::fs::remove_file(&manifest).at(&manifest)?;
                }
                folder.sweep(&BTreeSet::new())?;
                // What a snapshot that was interrupted has left.
                for (_, left) in folders(&task)? {
                    std::fs::remove_dir_all(&left).at(&left)?;
                }
                tracing::info!(folder = %task.display(), bytes, "state of a partition that has moved away is gone");
                freed += bytes;
            }
        }
    }
    Ok(freed)
}

fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, DiskError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// A task's folder while the task uses it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held until this is dropped.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and takes its lock.
    ///
    /// # Errors
    /// [`DiskError::Locked`], or that it cannot be written.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        std::fs::create_dir_all(path).at(path)?;
        let lock = path.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&lock).at(&lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(source).at(&lock),
        }
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest, if it is of this identity; what is damaged or another's is as good as nothing.
    ///
    /// # Errors
    /// [`DiskError::Newer`], or that it cannot be read.
    pub fn manifest(&self, identity: &Identity) -> Result<Option<Manifest>, DiskError> {
        match read(&self.path) {
            Ok(found) => Ok(found.filter(|manifest| manifest.is_of(identity))),
            Err(error @ DiskError::Damaged { .. }) => {
                tracing::warn!(%error, "local state is not used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces the manifest: from now on the folder holds what it names.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn write(&self, manifest: &Manifest) -> Result<(), DiskError> {
        let (next, path) = (self.path.join(NEXT), self.path.join(NAME));
        let line = serde_json::to_string(manifest).map_err(std::io::Error::from).at(&path)?;
        let mut file = File::create(&next).at(&next)?;
        file.write_all(with_checksum(&line).as_bytes()).at(&next)?;
        file.sync_all().at(&next)?;
        std::fs::rename(&next, &path).at(&path)?;
        sync_folder(&self.path)
    }

    /// Removes every file that is not in `keep`.
    ///
    /// # Errors
    /// That the folder cannot be read, or a file not be removed.
    pub fn sweep(&self, keep: &BTreeSet<String>) -> Result<(), DiskError> {
        for entry in std::fs::read_dir(&self.path).at(&self.path)? {
            let entry = entry.at(&self.path)?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| matches!(name, NAME | LOCK) || keep.contains(name));
            if !ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                std::fs::remove_file(entry.path()).at(&entry.path())?;
            }
        }
        Ok(())
    }
}

//! The one seam between the broker and its disk.
//!
//! Invariants:
//! - every file the broker relies on is written through a [`LogFile`], which knows how many of its bytes and
//!   whether its directory entries are known to be on the disk;
//! - a folder belongs to one process, which holds a lock on it for its whole life;
//! - [`Disk::drop_unsynced`] does to a folder what power loss may do: every byte that was not forced to the
//!   disk is gone, and so is every file whose directory entry was not. Tests use it to prove the rest, inside a
//!   process and, at the fail points `power.before_sync` and `power.after_sync` of debug builds, for a whole one:
//!   nothing is written and no fsync returns from that moment on, so nothing can be acknowledged after it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use super::error::BrokerError;
use super::lock;

/// The newest layout of the data folder this program reads and the one it writes.
const FORMAT: u32 = 1;

/// The data folder of one broker.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    tracked: Mutex<HashMap<PathBuf, Arc<Durability>>>,
    _lock: File,
    #[cfg(debug_assertions)]
    power: std::sync::RwLock<()>,
}

/// Held while bytes or directory entries change; a power loss waits for it and never gives it back. Empty in release builds.
struct Powered<'d> {
    #[cfg(debug_assertions)]
    _guard: Option<std::sync::RwLockReadGuard<'d, ()>>,
    _disk: std::marker::PhantomData<&'d Disk>,
}

/// How much of a file would survive power loss.
#[derive(Debug, Default)]
struct Durability {
    synced: AtomicU64,
    linked: AtomicBool,
}

impl Disk {
    /// Takes possession of a folder, creating it when it is missing.
    pub(crate) fn open(root: &Path) -> Result<Self, BrokerError> {
        fs::create_dir_all(root).map_err(BrokerError::io(root))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(BrokerError::io(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => BrokerError::Locked { path: root.into() },
            fs::TryLockError::Error(source) => BrokerError::Io { path: lock_path, source },
        })?;
        let disk = Self {
            root: root.into(),
            tracked: Mutex::default(),
            _lock: lock,
            #[cfg(debug_assertions)]
            power: std::sync::RwLock::default(),
        };
        disk.check_format()?;
        Ok(disk)
    }

    fn check_format(&self) -> Result<(), BrokerError> {
        let path = self.root.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let found = text.trim().parse().map_err(|_| BrokerError::Damaged {
                    path: path.clone(),
                    at: 0,
                    rule: "the format file holds one number".into(),
                })?;
                if found > FORMAT {
                    return Err(BrokerError::NewerFormat { path: self.root.clone(), found, known: FORMAT });
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.replace(&path, format!("{FORMAT}\n").as_bytes()).map_err(BrokerError::io(&path))
            }
            Err(source) => Err(BrokerError::Io { path, source }),
        }
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn powered(&self) -> Powered<'_> {
        Powered {
            #[cfg(debug_assertions)]
            _guard: self.power.read().ok(),
            _disk: std::marker::PhantomData,
        }
    }

    /// A fail point at which the machine loses its power, as far as this folder can tell.
    #[cfg(debug_assertions)]
    fn power_may_fail(&self, point: &str) {
        if crate::failpoint::reached(point, None) {
            // Never given back: whoever writes or syncs from now on waits until the process is gone.
            let _dark = self.power.write();
            if let Err(error) = self.drop_unsynced() {
                tracing::error!(%error, "unsynced bytes could not be dropped");
            }
            std::process::abort();
        }
    }

    /// Creates an empty file to append to; its folders are created as needed.
    pub(crate) fn create(self: &Arc<Self>, path: &Path) -> io::Result<LogFile> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let _powered = self.powered();
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        let durability = Arc::new(Durability::default());
        lock(&self.tracked).insert(path.into(), Arc::clone(&durability));
        Ok(LogFile {
            disk: Arc::clone(self),
            path: path.into(),
            handle: Mutex::new(Some(Arc::new(file))),
            len: AtomicU64::new(0),
            durability,
        })
    }

    /// Opens a file found at start; what is found there is taken as being on the disk.
    pub(crate) fn open_existing(self: &Arc<Self>, path: &Path) -> io::Result<LogFile> {
        let len = fs::metadata(path)?.len();
        let durability = Arc::new(Durability { synced: AtomicU64::new(len), linked: AtomicBool::new(true) });
        lock(&self.tracked).insert(path.into(), Arc::clone(&durability));
        Ok(LogFile {
            disk: Arc::clone(self),
            path: path.into(),
            handle: Mutex::new(None),
            len: AtomicU64::new(len),
            durability,
        })
    }

    /// Writes a small file so that readers see the old or the new content, never a part.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let _powered = self.powered();
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&temporary, path)?;
        self.sync_parents(path)
    }

    /// Forces the directory entries that lead to `path` to the disk.
    fn sync_parents(&self, path: &Path) -> io::Result<()> {
        for folder in path.ancestors().skip(1) {
            File::open(folder)?.sync_all()?;
            if folder == self.root {
                break;
            }
        }
        Ok(())
    }

    /// Removes a file; a missing one is fine.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let _powered = self.powered();
        lock(&self.tracked).remove(path);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a folder and everything below it; a missing one is fine.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let _powered = self.powered();
        lock(&self.tracked).retain(|file, _| !file.starts_with(path));
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Plays power loss: whatever was not forced to the disk is gone.
    pub(crate) fn drop_unsynced(&self) -> io::Result<()> {
        for (path, durability) in lock(&self.tracked).iter() {
            if !durability.linked.load(SeqCst) {
                let _ = fs::remove_file(path);
            } else if let Ok(file) = OpenOptions::new().write(true).open(path) {
                let synced = durability.synced.load(SeqCst);
                if file.metadata()?.len() > synced {
                    file.set_len(synced)?;
                }
            }
        }
        Ok(())
    }
}

/// An append-only file that knows how much of it is on the disk.
///
/// The descriptor is opened when it is needed and can be given back with [`LogFile::park`], so that a
/// thousand closed segments do not hold a thousand descriptors.
#[derive(Debug)]
pub(crate) struct LogFile {
    disk: Arc<Disk>,
    path: PathBuf,
    handle: Mutex<Option<Arc<File>>>,
    len: AtomicU64,
    durability: Arc<Durability>,
}

impl LogFile {
    /// The descriptor, which goes on showing this file when another one takes its place.
    pub(crate) fn file(&self) -> io::Result<Arc<File>> {
        let mut handle = lock(&self.handle);
        if let Some(file) = &*handle {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(&self.path)?);
        *handle = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Gives the descriptor back until it is needed again.
    pub(crate) fn park(&self) {
        *lock(&self.handle) = None;
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(SeqCst)
    }

    /// Appends all of `bytes` or nothing; returns where they start. One writer at a time.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        let file = self.file()?;
        let _powered = self.disk.powered();
        let at = self.len();
        if let Err(error) = file.write_all_at(bytes, at) {
            let _ = file.set_len(at);
            return Err(error);
        }
        self.len.store(at + bytes.len() as u64, SeqCst);
        Ok(at)
    }

    /// Cuts the file back to `len` bytes and forces that to the disk.
    pub(crate) fn truncate(&self, len: u64) -> io::Result<()> {
        let file = self.file()?;
        let _powered = self.disk.powered();
        file.set_len(len)?;
        file.sync_all()?;
        self.len.store(len, SeqCst);
        self.durability.synced.store(len, SeqCst);
        Ok(())
    }

    /// Forces what an earlier process may have left in memory to the disk.
    pub(crate) fn secure(&self) -> io::Result<()> {
        self.file()?.sync_data()?;
        self.disk.sync_parents(&self.path)
    }

    /// Forces everything written before the call to the disk, the way to the file included.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let len = self.len();
        let linked = self.durability.linked.load(SeqCst);
        if linked && self.durability.synced.load(SeqCst) >= len {
            return Ok(());
        }
        #[cfg(debug_assertions)]
        self.disk.power_may_fail("power.before_sync");
        let powered = self.disk.powered();
        self.file()?.sync_data()?;
        if !linked {
            self.disk.sync_parents(&self.path)?;
            self.durability.linked.store(true, SeqCst);
        }
        self.durability.synced.fetch_max(len, SeqCst);
        drop(powered);
        #[cfg(debug_assertions)]
        self.disk.power_may_fail("power.after_sync");
        Ok(())
    }

    /// Takes the place of the file at `path`, which readers see whole before and after. Sync first.
    pub(crate) fn rename(mut self, path: &Path) -> io::Result<Self> {
        let disk = Arc::clone(&self.disk);
        let _powered = disk.powered();
        fs::rename(&self.path, path)?;
        self.disk.sync_parents(path)?;
        let mut tracked = lock(&self.disk.tracked);
        tracked.remove(&self.path);
        tracked.insert(path.into(), Arc::clone(&self.durability));
        drop(tracked);
        self.path = path.into();
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_of_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Disk::open(folder.path()).unwrap();
        assert!(matches!(Disk::open(folder.path()), Err(BrokerError::Locked { .. })));
        drop(first);
        Disk::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_of_a_later_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), "2\n").unwrap();
        assert!(matches!(Disk::open(folder.path()), Err(BrokerError::NewerFormat { found: 2, known: 1, .. })));
    }

    #[test]
    fn power_loss_takes_unsynced_bytes_and_unlinked_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(folder.path()).unwrap());
        let kept = disk.create(&folder.path().join("a/kept.log")).unwrap();
        kept.append(b"synced").unwrap();
        kept.sync().unwrap();
        kept.append(b" not").unwrap();
        let lost = disk.create(&folder.path().join("a/lost.log")).unwrap();
        lost.append(b"never synced").unwrap();
        disk.drop_unsynced().unwrap();
        assert_eq!(fs::read(kept.path()).unwrap(), b"synced");
        assert!(!lost.path().exists());
    }
}

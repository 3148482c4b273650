//! Keys and signed tree heads of the log, on disk.
//!
//! | file | holds |
//! |---|---|
//! | `KEYS/attester-TENANT.pem`, `KEYS/log-TENANT.pem` | the keys in force |
//! | `KEYS/attester-TENANT-N.pem`, `KEYS/log-TENANT-N.pem` | the keys before |
//! | `KEYS/log-TENANT.checkpoint` | the newest tree head that this machine signed |
//! | `STORE/attestations/TENANT/SIZE.checkpoint` | the newest tree heads that any machine signed |
//!
//! A tree head is synced beside the key first, then created in the store under its size: creating never replaces an object, so
//! that of two tree heads of one size the second is refused, whichever machine it comes from.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tokio::runtime::{Builder, Runtime};

use super::secrets::{self, SecretsError};
use crate::attest::checkpoint::Checkpoint;
use crate::attest::note;
use crate::stages::attesting::keeper::{Keeper, KeeperError, LogKeys};
use crate::store::{Store, StoreError, StoreOptions};

/// Ending of the files in the store.
const ENDING: &str = ".checkpoint";

/// Most tree heads that are looked through: older ones go once a newer one is published.
const MOST_STORED: usize = 10_000;

/// Where keys and tree heads are.
#[derive(Debug, Clone)]
pub struct LogKeeper {
    keys: PathBuf,
    tenant: String,
    shelf: Arc<Shelf>,
}

/// The tree heads in the store. A keeper is asked from a task's own thread, so it brings along what runs its requests.
#[derive(Debug)]
struct Shelf {
    store: Store,
    folder: String,
    runtime: Option<Runtime>,
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // Dropping a runtime waits, which async code must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shelf {
    fn ask<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, KeeperError> {
        let Some(runtime) = &self.runtime else {
            return Err(KeeperError::Unavailable("the store is closed".to_owned()));
        };
        runtime.block_on(answer).map_err(|error| KeeperError::Unavailable(error.to_string()))
    }

    fn path(&self, size: u64) -> String {
        format!("{}/{size:020}{ENDING}", self.folder)
    }

    /// The sizes of the tree heads, rising.
    fn sizes(&self) -> Result<Vec<u64>, KeeperError> {
        let found = self.ask(self.store.list(&self.folder, MOST_STORED))?;
        let size = |path: &str| path.rsplit('/').next()?.strip_suffix(ENDING)?.parse().ok();
        let mut sizes: Vec<u64> = found.iter().filter_map(|entry| size(&entry.path)).collect();
        sizes.sort_unstable();
        Ok(sizes)
    }

    fn get(&self, size: u64) -> Result<Option<String>, KeeperError> {
        let found = self.ask(self.store.get(&self.path(size), note::MAX_BYTES as u64))?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl LogKeeper {
    /// A keeper for a tenant. Nothing is read or made yet.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] for a store that cannot be used.
    pub fn new(keys: &Path, tenant: &str, store: &str) -> Result<Self, KeeperError> {
        let refused = |what: String| KeeperError::Refused { what, help: "look at --store".to_owned() };
        let store = Store::at(store, &StoreOptions::from_environment()).map_err(|e| refused(e.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| refused(e.to_string()))?;
        let shelf = Shelf { store, folder: format!("attestations/{tenant}"), runtime: Some(runtime) };
        Ok(Self { keys: keys.to_owned(), tenant: tenant.to_owned(), shelf: Arc::new(shelf) })
    }

    fn local(&self) -> PathBuf {
        self.keys.join(format!("log-{}{ENDING}", self.tenant))
    }

    fn keep_local(&self, size: u64, text: &str) -> Result<(), KeeperError> {
        let path = self.local();
        if let Some(kept) = read(&path).map_err(|e| unavailable(&path, &e))? {
            let kept_size = Checkpoint::parse(kept.as_bytes()).map(|(head, _)| head.size).unwrap_or(u64::MAX);
            if kept == text {
                return Ok(());
            }
            if kept_size >= size {
                return Err(self.contradiction(size, &kept, text, &path.display().to_string()));
            }
        }
        replace(&path, text).map_err(|e| unavailable(&path, &e))
    }

    fn keep_stored(&self, size: u64, text: &str) -> Result<(), KeeperError> {
        let path = self.shelf.path(size);
        if self.shelf.ask(self.shelf.store.create(&path, text.to_owned().into()))? {
            return Ok(());
        }
        match self.shelf.get(size)? {
            Some(kept) if kept == text => Ok(()),
            kept => Err(self.contradiction(size, &kept.unwrap_or_default(), text, &path)),
        }
    }

    /// The one that was kept is signed and may have been seen; the other one must never be.
    fn contradiction(&self, size: u64, kept: &str, refused: &str, place: &str) -> KeeperError {
        let unsigned = refused.split("\n\n").next().unwrap_or_default();
        let text = serde_json::json!({"outcome": "LOG_FORKED", "signed": kept, "refused": unsigned});
        let evidence = self.evidence(&text.to_string()).unwrap_or_else(|error| error.to_string());
        KeeperError::Refused {
            what: format!("LOG_FORKED: a tree head of {size} leaves contradicts {place}; evidence: {evidence}"),
            help: "two logs were grown under one key: find out which one the topics hold, and begin a new log with new keys"
                .to_owned(),
        }
    }
}

impl Keeper for LogKeeper {
    fn keys(&self) -> Result<LogKeys, KeeperError> {
        load_log_keys(&self.keys, &self.tenant).map_err(|error| KeeperError::Refused {
            what: format!("LOG_KEY_MISSING: {error}"),
            help: "`hokusai keys create` makes the keys of a new log; a log that has begun goes on under its own: copy them".to_owned(),
        })
    }

    fn newest(&self) -> Result<Vec<String>, KeeperError> {
        let local = self.local();
        let mut notes = Vec::from_iter(read(&local).map_err(|e| unavailable(&local, &e))?);
        if let Some(size) = self.shelf.sizes()?.pop() {
            notes.extend(self.shelf.get(size)?);
        }
        Ok(notes)
    }

    fn keep(&self, size: u64, superseded: u64, note: &str) -> Result<(), KeeperError> {
        crate::failpoint!("attesting.before_keeping");
        self.keep_local(size, note)?;
        crate::failpoint!("attesting.after_local");
        self.keep_stored(size, note)?;
        crate::failpoint!("attesting.after_store");
        // What is older than the last published one is proven by it.
        for size in self.shelf.sizes().unwrap_or_default().into_iter().filter(|size| *size < superseded) {
            if let Err(error) = self.shelf.ask(self.shelf.store.delete(&self.shelf.path(size))) {
                tracing::debug!(size, %error, "an old tree head stays");
            }
        }
        Ok(())
    }

    fn evidence(&self, text: &str) -> Result<String, KeeperError> {
        let path = self.keys.join(format!("log-{}.evidence.json", self.tenant));
        replace(&path, text).map_err(|e| unavailable(&path, &e))?;
        Ok(path.display().to_string())
    }
}

fn unavailable(path: &Path, error: &io::Error) -> KeeperError {
    KeeperError::Unavailable(format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(note::MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes a file beside its place, durably; returns where.
fn aside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
    let aside = path.with_extension(format!("{random:016x}.tmp"));
    let mut file = File::create_new(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(aside)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::rename(aside(path, text)?, path)?;
    sync_folder(path)
}

/// The keys of a tenant's log, which must be there.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_log_keys(dir: &Path, tenant: &str) -> Result<LogKeys, SecretsError> {
    let key = |role: &str| secrets::load_signing_key(&key_file(dir, role, tenant, None)?);
    let (attester, log) = (key("attester")?, key("log")?);
    let mut earlier = Vec::new();
    for role in ["attester", "log"] {
        for number in 1.. {
            let path = key_file(dir, role, tenant, Some(number))?;
            if !path.exists() {
                break;
            }
            earlier.push(secrets::load_signing_key(&path)?);
        }
    }
    Ok(LogKeys { attester, log, earlier })
}

/// The keys of a tenant's log, made from the system's randomness if there are none.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_or_create_log_keys(dir: &Path, tenant: &str) -> Result<LogKeys, SecretsError> {
    for role in ["attester", "log"] {
        secrets::load_or_create_signing_key(dir, &format!("{role}-{tenant}"))?;
    }
    load_log_keys(dir, tenant)
}

/// Puts a new key in force: the one before keeps signing in its successor. Returns the new key.
///
/// # Errors
/// [`SecretsError`]; without a key in force there is nothing to rotate.
pub fn rotate_log_key(dir: &Path, tenant: &str, role: &str) -> Result<SigningKey, SecretsError> {
    let current = key_file(dir, role, tenant, None)?;
    secrets::load_signing_key(&current)?;
    let mut number = 1;
    let mut earlier = key_file(dir, role, tenant, Some(number))?;
    while earlier.exists() {
        number += 1;
        earlier = key_file(dir, role, tenant, Some(number))?;
    }
    // The old key has both names for a moment; the new one then replaces it whole.
    fs::hard_link(&current, &earlier).map_err(secrets::io_error("link", &earlier))?;
    secrets::replace_signing_key(&current)
}

fn key_file(dir: &Path, role: &str, tenant: &str, number: Option<u32>) -> Result<PathBuf, SecretsError> {
    let name = match number {
        Some(number) => format!("{role}-{tenant}-{number}"),
        None => format!("{role}-{tenant}"),
    };
    secrets::key_path(dir, &name, "pem")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn head(size: u64, root: u8) -> String {
        let key = SigningKey::from_bytes(&[4; 32]);
        Checkpoint { origin: "hokusai/t/00".to_owned(), size, root: [root; 32] }.sign(&key).unwrap().to_string()
    }

    fn keeper() -> (tempfile::TempDir, LogKeeper) {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        load_or_create_log_keys(&keys, "acme").unwrap();
        let store = folder.path().join("store");
        let keeper = LogKeeper::new(&keys, "acme", store.to_str().unwrap()).unwrap();
        (folder, keeper)
    }

    #[test]
    fn a_tree_head_is_kept_in_both_places_and_the_same_once_more_is_the_same() {
        let (_folder, keeper) = keeper();
        assert_eq!(keeper.newest(), Ok(Vec::new()));
        for _ in 0..2 {
            keeper.keep(5, 0, &head(5, 1)).unwrap();
            assert_eq!(keeper.newest(), Ok(vec![head(5, 1); 2]));
        }
        keeper.keep(9, 5, &head(9, 2)).unwrap();
        keeper.keep(12, 9, &head(12, 3)).unwrap();
        assert_eq!(keeper.newest(), Ok(vec![head(12, 3); 2]));
        assert_eq!(keeper.shelf.sizes().unwrap().len(), 2, "the last published one stays beside the newest");
    }

    #[test]
    fn a_second_tree_head_of_one_size_is_refused_on_this_machine_and_on_any_other() {
        let (folder, keeper) = keeper();
        keeper.keep(5, 0, &head(5, 1)).unwrap();
        assert!(matches!(keeper.keep(5, 0, &head(5, 2)), Err(KeeperError::Refused { .. })));
        assert!(matches!(keeper.keep(4, 0, &head(4, 2)), Err(KeeperError::Refused { .. })), "a shorter log");
        let other = folder.path().join("other");
        load_or_create_log_keys(&other, "acme").unwrap();
        let other = LogKeeper { keys: other, ..keeper };
        assert!(matches!(other.keep(5, 0, &head(5, 2)), Err(KeeperError::Refused { .. })));
        let evidence = fs::read_to_string(other.keys.join("log-acme.evidence.json")).unwrap();
        assert!(evidence.contains("LOG_FORKED") && evidence.contains("hokusai/t/00"), "{evidence}");
        assert!(!evidence.contains(head(5, 2).lines().last().unwrap()), "the second signature is shown to nobody");
    }

    #[test]
    fn a_rotated_key_stays_at_hand_and_only_its_owner_can_read_it() {
        let (_folder, keeper) = keeper();
        let before = keeper.keys().unwrap();
        for role in ["attester", "log", "attester"] {
            rotate_log_key(&keeper.keys, "acme", role).unwrap();
        }
        let after = keeper.keys().unwrap();
        assert_eq!(after.earlier.len(), 3);
        assert!(after.attester != before.attester && after.log != before.log);
        assert!([&before.attester, &before.log].iter().all(|key| after.earlier.contains(key)));
        for file in fs::read_dir(&keeper.keys).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        }
    }
}

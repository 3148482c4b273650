//! Key files under `DATA/keys/`: created once, readable by their owner only.
//!
//! Invariants: a secret is never written where others can read it, not even for a moment; a file appears
//! whole or not at all, and survives a power cut once the call has returned; of two processes that create the
//! same file at once, both end with the same keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::attest::contributor::ContributorKey;
use crate::attest::trust::TrustError;
use crate::domain::keys::{KeyError, KeyRing, MAX_TEXT};

/// Why a key file could not be used. Never holds a secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Others than the owner may read the file or directory.
    #[error(
        "{path} is open to others than its owner (mode {mode:04o})\nhelp: chmod {wanted:04o} {path}, and replace the keys if somebody may have read them"
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        wanted: u32,
    },
    /// It is not a regular file (or not a directory), or too large to be a key file.
    #[error("{path} is not a key file: {why}")]
    NotAKeyFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// The keys in the file cannot be used.
    #[error("{path}: {source}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: KeyError,
    },
    /// The file belongs to another tenant.
    #[error("{path} holds the keys of tenant `{found}`, not of `{wanted}`\nhelp: restore the right file")]
    Tenant {
        /// The file.
        path: PathBuf,
        /// Tenant in the file.
        found: String,
        /// Tenant asked for.
        wanted: String,
    },
    /// The file holds no Ed25519 private key in PKCS#8 PEM.
    #[error(
        "{path} holds no Ed25519 private key (PKCS#8 PEM)\nhelp: make one with `openssl genpkey -algorithm ed25519`"
    )]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// The trust file cannot be used.
    #[error("{path}: {source}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// A name with characters that have no place in a file's name.
    #[error("`{0}` cannot name a key file\nhelp: use 1 to 64 of a-z, 0-9, `-` and `_`")]
    Name(String),
    /// There is no key ring.
    #[error("there is no key ring {path}\nhelp: `hokusai keys create` makes one; name another folder with --keys")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

mod evaluation;
mod trust;

pub use evaluation::{evaluation_key, evaluation_public_key, load_evaluation_key};
pub use trust::{DEVELOPMENT_KEY, SIGNING_STAGES, load_or_create_trust, load_trust, save_trust, stage_key, trust_path};

type Result<T> = std::result::Result<T, SecretsError>;

/// The key ring of `tenant` in `dir`, made from the system's randomness if there is none.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_or_create_key_ring(dir: &Path, tenant: &str) -> Result<KeyRing> {
    let path = ring_path(dir, tenant)?;
    let text = load_or_create(dir, &path, || {
        let ring = KeyRing::generate(tenant).map_err(|source| SecretsError::Keys { path: path.clone(), source })?;
        Ok(ring.to_json())
    })?;
    let ring = parse_key_ring(&path, tenant, &text)?;
    if !ring.is_completed() {
        return Ok(ring);
    }
    // An older file lacks some keys. Of several processes that complete it at once, the first one's keys count.
    change_key_ring(dir, tenant, |_| Ok(())).map(|(ring, ())| ring)
}

/// The key ring of `tenant` in `dir`, which must be there.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_key_ring(dir: &Path, tenant: &str) -> Result<KeyRing> {
    let path = ring_path(dir, tenant)?;
    match read_secret(&path)? {
        Some(_) => load_or_create_key_ring(dir, tenant),
        None => Err(SecretsError::Missing { path }),
    }
}

/// Reads the key ring of `tenant` in `dir`, makes a change to it and stores it, alone among all processes.
///
/// # Errors
/// [`SecretsError`]; what `change` refuses is reported as the file's fault, and the file stays as it was.
pub fn change_key_ring<T>(
    dir: &Path,
    tenant: &str,
    change: impl FnOnce(&mut KeyRing) -> std::result::Result<T, KeyError>,
) -> Result<(KeyRing, T)> {
    let path = ring_path(dir, tenant)?;
    // Held until the folder is closed at the end of this function.
    let missing = || SecretsError::Missing { path: path.clone() };
    let folder = File::open(dir).map_err(|_| missing())?;
    folder.lock().map_err(io_error("lock", dir))?;
    let text = read_secret(&path)?.ok_or_else(missing)?;
    let mut ring = parse_key_ring(&path, tenant, &text)?;
    let done = change(&mut ring).map_err(|source| SecretsError::Keys { path: path.clone(), source })?;
    let stored = ring.to_json();
    if *stored != *text {
        let temporary = write_temporary(&path, stored.as_bytes())?;
        fs::rename(&temporary, &path).map_err(io_error("replace", &path))?;
        sync_dir(dir)?;
    }
    Ok((ring, done))
}

/// The file of a tenant's key ring.
///
/// # Errors
/// [`SecretsError::Name`] for a tenant that cannot name a file.
pub fn ring_path(dir: &Path, tenant: &str) -> Result<PathBuf> {
    key_path(dir, &format!("tenant-{tenant}"), "json")
}

fn parse_key_ring(path: &Path, tenant: &str, text: &str) -> Result<KeyRing> {
    let ring = KeyRing::from_json(text).map_err(|source| SecretsError::Keys { path: path.to_owned(), source })?;
    if ring.tenant() != tenant {
        let (path, found) = (path.to_owned(), ring.tenant().to_owned());
        return Err(SecretsError::Tenant { path, found, wanted: tenant.to_owned() });
    }
    Ok(ring)
}

/// The Ed25519 signing key `name` in `dir` (PKCS#8 PEM), made from the system's randomness if there is none.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_or_create_signing_key(dir: &Path, name: &str) -> Result<SigningKey> {
    let path = key_path(dir, name, "pem")?;
    let text = load_or_create(dir, &path, || new_signing_key(&path))?;
    parse_signing_key(&path, &text)
}

/// Replaces a signing key by a new one from the system's randomness, whole and durably.
///
/// # Errors
/// [`SecretsError`]; the old key then still stands.
pub fn replace_signing_key(path: &Path) -> Result<SigningKey> {
    let text = new_signing_key(path)?;
    let temporary = write_temporary(path, text.as_bytes())?;
    fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    path.parent().map_or(Ok(()), sync_dir)?;
    parse_signing_key(path, &text)
}

fn new_signing_key(path: &Path) -> Result<Zeroizing<String>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| SecretsError::Keys {
        path: path.to_owned(),
        source: KeyError::Randomness(error.to_string()),
    })?;
    SigningKey::from_bytes(&seed).to_pkcs8_pem(LineEnding::LF).map_err(|_| SecretsError::Pem { path: path.to_owned() })
}

/// Reads an Ed25519 private key (PKCS#8 PEM) that already exists, wherever it is.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_signing_key(path: &Path) -> Result<SigningKey> {
    match read_secret(path)? {
        Some(text) => parse_signing_key(path, &text),
        None => Err(io_error("read", path)(io::ErrorKind::NotFound.into())),
    }
}

/// Reads a contributor's own key: an Ed25519 private key (PKCS#8 PEM), or a wallet's as 64 hex digits.
///
/// # Errors
/// [`SecretsError`] names the file, the fault and the way out.
pub fn load_contributor_key(path: &Path) -> Result<ContributorKey> {
    let text = read_secret(path)?.ok_or_else(|| io_error("read", path)(io::ErrorKind::NotFound.into()))?;
    if text.contains("-----BEGIN") {
        return parse_signing_key(path, &text).map(ContributorKey::Ed25519);
    }
    ContributorKey::wallet(&text).ok_or_else(|| SecretsError::NotAKeyFile {
        path: path.to_owned(),
        why: "neither an Ed25519 key (PKCS#8 PEM) nor 64 hex digits of a secp256k1 key",
    })
}

fn parse_signing_key(path: &Path, text: &str) -> Result<SigningKey> {
    SigningKey::from_pkcs8_pem(text).map_err(|_| SecretsError::Pem { path: path.to_owned() })
}

pub(super) fn key_path(dir: &Path, name: &str, extension: &str) -> Result<PathBuf> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if name.is_empty() || name.len() > 96 || !name.bytes().all(plain) {
        return Err(SecretsError::Name(name.to_owned()));
    }
    Ok(dir.join(format!("{name}.{extension}")))
}

fn load_or_create(
    dir: &Path,
    path: &Path,
    make: impl FnOnce() -> Result<Zeroizing<String>>,
) -> Result<Zeroizing<String>> {
    prepare_dir(dir)?;
    if let Some(text) = read_secret(path)? {
        return Ok(text);
    }
    let temporary = write_temporary(path, make()?.as_bytes())?;
    // A link, unlike a rename, never replaces what another process has just created and may already use.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(io_error("remove", &temporary))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("create", path)(error)),
        _ => sync_dir(dir)?,
    }
    read_secret(path)?.ok_or_else(|| io_error("read", path)(io::ErrorKind::NotFound.into()))
}

fn prepare_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    let metadata = fs::metadata(dir).map_err(io_error("inspect", dir))?;
    refuse_exposed(dir, &metadata, 0o700)
}

fn refuse_exposed(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<()> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretsError::Exposed { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// The text of a key file, or `None` if it does not exist. The permissions are those of the opened file, so
/// that nobody can exchange it between the check and the reading.
fn read_secret(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("open", path))?,
    };
    let metadata = file.metadata().map_err(io_error("inspect", path))?;
    if !metadata.is_file() {
        return Err(SecretsError::NotAKeyFile { path: path.to_owned(), why: "it is not a regular file" });
    }
    refuse_exposed(path, &metadata, 0o600)?;
    if metadata.len() > MAX_TEXT as u64 {
        return Err(SecretsError::NotAKeyFile { path: path.to_owned(), why: "it is larger than 256 KiB" });
    }
    // Reserved in one piece: a buffer that grows would leave copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
    file.take(MAX_TEXT as u64).read_to_string(&mut text).map_err(io_error("read", path))?;
    Ok(Some(text))
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let random = getrandom::u64().map_err(|error| SecretsError::Keys {
        path: path.to_owned(),
        source: KeyError::Randomness(error.to_string()),
    })?;
    let temporary = path.with_extension(format!("{random:016x}.tmp"));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &temporary))?;
    Ok(temporary)
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretsError {
    let path = path.to_owned();
    move |source| SecretsError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::trust::Trust;

    fn keys_dir() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data").join("keys");
        (root, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_only_their_owner_can_read_them() {
        let (_root, dir) = keys_dir();
        let made = load_or_create_key_ring(&dir, "acme").unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("tenant-acme.json")), 0o600);
        assert_eq!(*load_or_create_key_ring(&dir, "acme").unwrap().to_json(), *made.to_json());
        let key = load_or_create_signing_key(&dir, "operator").unwrap();
        assert_eq!(mode(&dir.join("operator.pem")), 0o600);
        assert_eq!(load_signing_key(&dir.join("operator.pem")).unwrap(), key);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no temporary file stays behind");
    }

    #[test]
    fn keys_that_others_can_read_are_refused_with_the_way_out() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        let path = dir.join("tenant-acme.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create_key_ring(&dir, "acme").unwrap_err();
        assert!(error.to_string().contains("help: chmod 0600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(load_or_create_key_ring(&dir, "acme"), Err(SecretsError::Exposed { wanted: 0o700, .. })));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_damaged_file_is_never_replaced_by_new_keys() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        let path = dir.join("tenant-acme.json");
        fs::write(&path, "{").unwrap();
        assert!(matches!(load_or_create_key_ring(&dir, "acme"), Err(SecretsError::Keys { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"{");
    }

    #[test]
    fn a_file_of_another_tenant_is_refused() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        fs::copy(dir.join("tenant-acme.json"), dir.join("tenant-other.json")).unwrap();
        assert!(matches!(load_or_create_key_ring(&dir, "other"), Err(SecretsError::Tenant { .. })));
        assert!(matches!(load_or_create_key_ring(&dir, "../x"), Err(SecretsError::Name(_))));
    }

    #[test]
    fn of_many_creators_at_once_all_end_with_the_same_keys() {
        let (_root, dir) = keys_dir();
        let rings: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create_key_ring(&dir, "acme").unwrap().to_json().to_string()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(rings.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_file_of_the_first_version_is_completed_once_whoever_reads_it_first() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        let path = ring_path(&dir, "acme").unwrap();
        let hex = |digit: &str| digit.repeat(64);
        let first = format!(
            r#"{{"version":1,"tenant":"acme","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
            hex("1"),
            hex("2"),
            hex("3")
        );
        fs::write(&path, first).unwrap();
        let keys: Vec<String> = std::thread::scope(|scope| {
            let read = || load_or_create_key_ring(&dir, "acme").unwrap().intake_key().public().hex();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(fs::read_to_string(&path).unwrap().contains(&hex("2")), "the old keys stay");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_refused_change_leaves_the_file_as_it_was() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        let before = fs::read(ring_path(&dir, "acme").unwrap()).unwrap();
        change_key_ring(&dir, "acme", |ring| ring.rotate().map(drop).and_then(|()| ring.destroy("k2"))).unwrap_err();
        assert_eq!(fs::read(ring_path(&dir, "acme").unwrap()).unwrap(), before);
    }

    #[test]
    fn a_trust_file_is_written_and_read_back() {
        let (_root, dir) = keys_dir();
        let key = load_or_create_signing_key(&dir, "operator").unwrap();
        let trust = Trust::development(&key.verifying_key());
        let path = dir.join("trust.json");
        save_trust(&path, &trust).unwrap();
        save_trust(&path, &trust).unwrap();
        assert_eq!(load_trust(&path).unwrap(), trust);
        fs::write(&path, "{}").unwrap();
        assert!(matches!(load_trust(&path), Err(SecretsError::Trust { .. })));
    }

    #[test]
    fn a_rotated_ring_replaces_the_stored_one() {
        let (_root, dir) = keys_dir();
        load_or_create_key_ring(&dir, "acme").unwrap();
        let (ring, id) = change_key_ring(&dir, "acme", |ring| ring.rotate().map(str::to_owned)).unwrap();
        assert_eq!((ring.token_key().id(), id.as_str()), ("k2", "k2"));
        assert_eq!(load_or_create_key_ring(&dir, "acme").unwrap().token_key().id(), "k2");
        assert_eq!(mode(&dir.join("tenant-acme.json")), 0o600);
    }
}

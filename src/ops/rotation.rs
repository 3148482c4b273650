//! Follows the key file and the trust file, so that running stages take up a rotation or revocation without a restart.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::secrets;
use crate::attest::trust::LiveTrust;
use crate::domain::keys::{KeyRing, LiveKeys, TokenKey};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of the file from another without reading it: it is replaced, never written in place.
type Stamp = (u64, i64, i64);

/// Puts the ring of `tenant` in `dir` in force whenever its file was exchanged, until `stop`. A file that cannot be used leaves
/// the ring in force that was, and says so. The same for the trust file in `dir`.
pub async fn follow(dir: PathBuf, tenant: String, keys: LiveKeys, trust: LiveTrust, stop: CancellationToken) {
    let Ok(path) = secrets::ring_path(&dir, &tenant) else { return };
    let trust_path = secrets::trust_path(&dir);
    let (mut seen, mut trust_seen) = (None, None);
    loop {
        let now = stamp(&path);
        if now != seen {
            seen = now;
            take_up(&dir, &tenant, &keys).await;
        }
        let now = stamp(&trust_path);
        if now != trust_seen {
            trust_seen = now;
            trust_up(&trust_path, &trust).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

async fn take_up(dir: &Path, tenant: &str, keys: &LiveKeys) {
    let (folder, name) = (dir.to_owned(), tenant.to_owned());
    match tokio::task::spawn_blocking(move || secrets::load_key_ring(&folder, &name)).await {
        Ok(Ok(ring)) if ids(&ring) == ids(&keys.ring()) => {}
        Ok(Ok(ring)) => {
            let (token, intake) = (ring.token_key().id(), ring.intake_key().public().id());
            tracing::info!(token, intake, "the key ring was changed: its keys are in force from the next batch on");
            keys.exchange(ring);
        }
        Ok(Err(error)) => tracing::error!(%error, "the key ring cannot be read: the keys in force stay"),
        Err(error) => tracing::error!(%error, "the key ring was not read"),
    }
}

/// Takes up the trust file. Its serial only grows: an older file would undo a revocation.
async fn trust_up(path: &Path, trust: &LiveTrust) {
    let file = path.to_owned();
    match tokio::task::spawn_blocking(move || secrets::load_trust(&file)).await {
        Ok(Ok(read)) if read == *trust.now() => {}
        Ok(Ok(read)) if read.serial() <= trust.now().serial() => {
            tracing::error!(
                read = read.serial(),
                in_force = trust.now().serial(),
                "the trust file was changed without raising its serial: the one in force stays; help: `hokusai keys trust` changes it"
            );
        }
        Ok(Ok(read)) => {
            tracing::info!(serial = read.serial(), "the trust file was changed: it is in force from the next batch on");
            trust.exchange(read);
        }
        Ok(Err(error)) => tracing::error!(%error, "the trust file cannot be read: what is in force stays"),
        Err(error) => tracing::error!(%error, "the trust file was not read"),
    }
}

/// What a change of the ring changes. Secrets of an id never change.
fn ids(ring: &KeyRing) -> (Vec<&str>, Option<i64>, Vec<&str>) {
    let pairs = ring.intake_keys().iter().chain(ring.operator_keys());
    let window = ring.dual_write().map(|(_, until)| until);
    (ring.token_keys().map(TokenKey::id).collect(), window, pairs.map(|pair| pair.public().id()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rotation_of_the_file_comes_into_force_and_a_damaged_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let keys = LiveKeys::from(secrets::load_or_create_key_ring(&dir, "t").unwrap());
        let before = keys.ring();
        take_up(&dir, "t", &keys).await;
        assert!(std::sync::Arc::ptr_eq(&before, &keys.ring()), "nothing changed: nothing is made anew");
        let path = secrets::ring_path(&dir, "t").unwrap();
        let old = stamp(&path);
        secrets::change_key_ring(&dir, "t", |ring| ring.rotate().map(drop)).unwrap();
        assert_ne!(stamp(&path), old);
        take_up(&dir, "t", &keys).await;
        assert_eq!(keys.ring().token_key().id(), "k2");
        std::fs::write(&path, "{").unwrap();
        take_up(&dir, "t", &keys).await;
        assert_eq!(keys.ring().token_key().id(), "k2");
    }
}

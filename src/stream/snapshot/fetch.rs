//! Brings the newest snapshot that can be used into a task's empty folder.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{TryStreamExt, stream};

use super::manifest::{self, File, Manifest, Name};
use super::upload::MOST_OBJECTS;
use super::{SnapshotError, SnapshotSettings, runtime};
use crate::store::Store;
use crate::stream::runs::manifest::Folder;
use crate::stream::runs::{DiskError, sync_folder};
use crate::stream::stage::Place;

/// Snapshots that are tried before the changelog is read.
const TRIES: usize = 4;
/// Files that are fetched side by side.
const FILES_AT_ONCE: usize = 2;
/// End of the name of a file that is not whole yet.
const UNFINISHED: &str = "fetched";

/// What a task needs.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Stage with its tenant's prefix.
    pub stage: String,
    /// Whose state, and where to.
    pub place: &'a Place,
    /// Form of the state's files and its version.
    pub form: (&'static str, u16),
    /// First offset that the changelog holds.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

/// Fetches a snapshot into the task's folder, where [`crate::stream::stage::State::open`] finds it; the offset that it is as of. None
/// when there is none that can be used: each one that is not taken is named in the log.
#[must_use]
pub fn fetch(settings: &SnapshotSettings, wanted: &Wanted<'_>, urgent: &dyn Fn() -> bool) -> Option<i64> {
    let begun = Instant::now();
    let (stage, partition) = (&wanted.stage, wanted.place.identity.partition);
    let fetched = runtime().map_err(|source| io(&wanted.place.folder, source).into()).and_then(|runtime| {
        let store = Store::at(&settings.store, &settings.options)?;
        runtime.block_on(newest(&store, wanted, urgent))
    });
    match fetched {
        Ok(Some((next_offset, bytes))) => {
            metrics::counter!(crate::stream::metrics::SNAPSHOTS_FETCHED).increment(1);
            let took_ms = begun.elapsed().as_millis();
            tracing::info!(%stage, partition, offset = next_offset, bytes, took_ms, "state fetched from a snapshot");
            Some(next_offset)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%stage, partition, %error, "no snapshot can be fetched; the changelog is read");
            None
        }
    }
}

async fn newest(
    store: &Store,
    wanted: &Wanted<'_>,
    urgent: &dyn Fn() -> bool,
) -> Result<Option<(i64, u64)>, SnapshotError> {
    let folder = manifest::folder(&wanted.stage, wanted.place.identity.partition);
    let entries = store.list(&folder, MOST_OBJECTS).await?;
    let mut names: Vec<Name> = entries.iter().filter_map(|entry| Name::parse(&folder, &entry.path)).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.next_offset));
    let of_another = |name: &Name| name.topic_id != wanted.place.identity.topic_id;
    for name in names.iter().filter(|name| of_another(name)) {
        tracing::info!(snapshot = %name.path, "snapshot is not used: it is of another changelog topic");
    }
    names.retain(|name| !of_another(name));
    for name in names.iter().take(TRIES) {
        match one(store, &folder, name, wanted, urgent).await {
            Ok(bytes) => return Ok(Some((name.next_offset, bytes))),
            Err(SnapshotError::Interrupted) => return Err(SnapshotError::Interrupted),
            Err(error) => {
                metrics::counter!(crate::stream::metrics::SNAPSHOTS_REFUSED).increment(1);
                tracing::warn!(snapshot = %name.path, %error, "snapshot is not used");
            }
        }
    }
    Ok(None)
}

async fn one(
    store: &Store,
    folder: &str,
    name: &Name,
    wanted: &Wanted<'_>,
    urgent: &dyn Fn() -> bool,
) -> Result<u64, SnapshotError> {
    let Wanted { place, form, start, end, .. } = wanted;
    if !(*start..=*end).contains(&name.next_offset) {
        return Err(SnapshotError::Outside { offset: name.next_offset, start: *start, end: *end });
    }
    let bytes = store.get(&name.path, manifest::MOST_BYTES).await?;
    let bytes = bytes.ok_or_else(|| SnapshotError::Damaged("it is gone".to_owned()))?;
    let manifest = Manifest::decode(&bytes, name)?;
    manifest.check(&place.identity, *form)?;
    let own = Folder::open(&place.folder)?;
    own.sweep(&std::collections::BTreeSet::new())?;
    let needed = manifest.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    let free = free(own.path())?;
    if needed > free {
        return Err(SnapshotError::NoSpace { needed, free });
    }
    // While one waits for its disk, another is read.
    let downloads = stream::iter(manifest.files.iter().map(Ok))
        .try_for_each_concurrent(FILES_AT_ONCE, |file| download(store, folder, file, own.path()));
    let fetched = tokio::select! {
        fetched = downloads => fetched,
        () = until(urgent) => Err(SnapshotError::Interrupted),
    };
    if let Err(error) = fetched {
        own.sweep(&std::collections::BTreeSet::new())?;
        return Err(error);
    }
    // Only now does anything have its name; the file that names the others is the last.
    for file in &manifest.files {
        let path = own.path().join(&file.name);
        std::fs::rename(unfinished(own.path(), file), &path).map_err(|source| io(&path, source))?;
        crate::failpoint!("snapshot.installing");
    }
    sync_folder(own.path())?;
    Ok(needed)
}

fn unfinished(folder: &Path, file: &File) -> std::path::PathBuf {
    folder.join(format!("{}.{UNFINISHED}", file.name))
}

async fn download(store: &Store, folder: &str, file: &File, to: &Path) -> Result<(), SnapshotError> {
    let digest = file.digest().ok_or_else(|| SnapshotError::Damaged("a digest".to_owned()))?;
    let got = store.blobs_under(folder).get_to_file(digest, file.size, &unfinished(to, file)).await?;
    if got == file.size { Ok(()) } else { Err(SnapshotError::Damaged(format!("{} has {got} bytes", file.name))) }
}

async fn until(urgent: &dyn Fn() -> bool) {
    while !urgent() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free(folder: &Path) -> Result<u64, DiskError> {
    let stat = rustix::fs::statvfs(folder).map_err(|e| io(folder, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn io(path: &Path, source: std::io::Error) -> DiskError {
    DiskError::Io { path: path.to_owned(), source }
}

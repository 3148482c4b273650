//! Sends a snapshot, and removes those that nothing needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::manifest::{self, File, Manifest, Name};
use super::{Job, SnapshotError, SnapshotSettings};
use crate::store::{Digest, Store};
use crate::stream::runs::DiskError;

/// Manifests and blobs of one task that a listing takes.
pub(super) const MOST_OBJECTS: usize = 100_000;
/// Snapshots of the present changelog that stay, whatever their age: the newest, and one in case that is damaged.
const KEPT: usize = 2;

/// A file that was sent: runs are links, so the same file has the same inode in every snapshot.
type Inode = (u64, u64, u64, i64, i64);

/// Files that the newest snapshot of a folder names.
pub(super) type Sent = BTreeMap<Inode, (Digest, u64)>;

/// What was done.
pub(super) struct Told {
    pub next_offset: i64,
    pub files: usize,
    pub bytes: u64,
    pub sent: u64,
}

pub(super) fn upload(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    settings: &SnapshotSettings,
    job: Job,
    known: &mut Sent,
) -> Result<Told, SnapshotError> {
    runtime.block_on(async {
        let folder = manifest::folder(&job.stage, job.identity.partition);
        let blobs = store.blobs_under(&folder);
        let (mut files, mut now, mut sent) = (Vec::new(), Sent::new(), 0);
        for name in &job.snapshot.files {
            let path = job.staged.join(name);
            let inode = inode(&path)?;
            let (digest, size) = match known.get(&inode) {
                // Another owner of the partition may have collected it meanwhile.
                Some((digest, size)) if blobs.stored(*digest).await?.is_some_and(|found| found.size == *size) => {
                    (*digest, *size)
                }
                _ => {
                    let (digest, size) = blobs.put_file(&path).await?;
                    sent += size;
                    (digest, size)
                }
            };
            now.insert(inode, (digest, size));
            files.push(File { name: name.clone(), size, digest: digest.to_string() });
        }
        crate::failpoint!("snapshot.after_blobs");
        let manifest = Manifest {
            format: manifest::FORMAT,
            stage: job.identity.stage.clone(),
            topic_id: job.identity.topic_id.clone(),
            partition: job.identity.partition,
            next_offset: job.snapshot.next_offset,
            form: job.form.0.to_owned(),
            form_version: job.form.1,
            files,
        };
        let bytes = manifest.encode().map_err(|e| SnapshotError::Damaged(e.to_string()))?;
        store.put(&manifest.path(&folder), bytes.into()).await?;
        crate::failpoint!("snapshot.after_manifest");
        *known = now;
        if let Err(error) = collect(store, &folder, &job.identity.topic_id, settings).await {
            tracing::warn!(%folder, %error, "old snapshots stay for now");
        }
        let bytes = manifest.files.iter().map(|file| file.size).sum();
        Ok(Told { next_offset: manifest.next_offset, files: manifest.files.len(), bytes, sent })
    })
}

fn inode(path: &Path) -> Result<Inode, DiskError> {
    let found = std::fs::metadata(path).map_err(|source| DiskError::Io { path: path.to_owned(), source })?;
    Ok((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Removes snapshots of this task beyond the newest of the changelog, and then blobs that no snapshot names, both after the grace.
async fn collect(
    store: &Store,
    folder: &str,
    topic_id: &str,
    settings: &SnapshotSettings,
) -> Result<(), SnapshotError> {
    let before = SystemTime::now().checked_sub(settings.grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let entries = store.list(folder, MOST_OBJECTS).await?;
    let mut named: Vec<(Name, SystemTime)> =
        entries.into_iter().filter_map(|entry| Some((Name::parse(folder, &entry.path)?, entry.modified))).collect();
    // The newest of the present changelog first.
    named.sort_by_key(|(name, _)| (name.topic_id != topic_id, std::cmp::Reverse(name.next_offset)));
    let mut keep = BTreeSet::new();
    for (place, (name, modified)) in named.iter().enumerate() {
        let needed = place < KEPT && name.topic_id == topic_id;
        if !needed && *modified < before {
            store.delete(&name.path).await?;
            continue;
        }
        // One that cannot be read may name anything: then no blob goes.
        let bytes = store.get(&name.path, manifest::MOST_BYTES).await?.unwrap_or_default();
        keep.extend(Manifest::decode(&bytes, name)?.files.iter().filter_map(File::digest));
    }
    let done = store.blobs_under(folder).collect(|digest| keep.contains(&digest), settings.grace, MOST_OBJECTS).await?;
    if done.removed > 0 {
        tracing::debug!(%folder, removed = done.removed, bytes = done.bytes, "blobs of old snapshots are gone");
    }
    Ok(())
}

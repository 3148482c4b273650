//! Snapshots of state in the shared store: a machine that is new to a partition need not read the whole changelog.
//!
//! ```text
//!  task's thread ── checkpoint on disk ── links or copies of its files ──┐
//!                                                                        ▼
//!  one thread of the process:    blobs that the store does not have ── manifest ── old ones collected
//!
//!  snapshots/STAGE/PARTITION/TOPIC-ID/OFFSET-vFORMAT.json     what a snapshot is made of
//!  snapshots/STAGE/PARTITION/sha256/ab/…                      its files, named by their content
//! ```
//!
//! Invariants:
//! * the changelog is the truth: a snapshot only saves reading it. Whatever of it does not match in full (name, digests,
//!   form, an offset that the changelog does not hold, the sums that the changelog logs) is refused with a line in the
//!   log, and the next one or the changelog is taken;
//! * it holds committed state only, because checkpoints do;
//! * its manifest is written after all that it names, and nothing that a manifest names is collected. A process may die between any
//!   two steps;
//! * runs never change, so what an earlier snapshot of the task brought is not sent again;
//! * a task never waits for it: while one is on its way, the next is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::runs::{DiskError, Identity};
use super::stage::Snapshot;
use crate::store::{Store, StoreError, StoreOptions};

mod fetch;
mod manifest;
#[cfg(test)]
mod tests;
mod upload;

pub use fetch::{Wanted, fetch};

/// Folder of a task's folder where the files of a snapshot wait.
const STAGING: &str = "snapshot";

/// When snapshots are made and how long they stay.
#[derive(Debug, Clone)]
pub struct SnapshotSettings {
    /// The shared store.
    pub store: String,
    /// How it is reached.
    pub options: StoreOptions,
    /// Bytes of changelog since the last one after which a task makes one.
    pub after_bytes: u64,
    /// Snapshots and blobs that nothing needs are removed when they are older than this.
    pub grace: Duration,
    /// At the end of the process what is on its way is waited for, at most this long.
    pub end_limit: Duration,
}

impl SnapshotSettings {
    /// The usual pace, for a store.
    #[must_use]
    pub fn new(store: &str, options: StoreOptions) -> Self {
        let (grace, end_limit) = (Duration::from_secs(24 * 3600), Duration::from_secs(10));
        Self { store: store.to_owned(), options, after_bytes: 64 << 20, grace, end_limit }
    }
}

/// Why a snapshot was not made, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("its manifest is damaged: {0}")]
    Damaged(String),
    #[error("it belongs to another state: {0}")]
    Foreign(String),
    #[error("it was written by a newer version: {what} {found}, this program reads up to {known}")]
    Newer { what: &'static str, found: u64, known: u64 },
    #[error("the changelog holds the offsets {start} to {end}, not {offset}")]
    Outside { offset: i64, start: i64, end: i64 },
    #[error("it needs {needed} bytes of disk and {free} are free")]
    NoSpace { needed: u64, free: u64 },
    #[error("interrupted")]
    Interrupted,
}

/// A snapshot on its way from a task's folder to the store.
struct Job {
    /// Stage with its tenant's prefix.
    stage: String,
    identity: Identity,
    form: (&'static str, u16),
    staged: PathBuf,
    snapshot: Snapshot,
}

/// The thread that sends snapshots, and what it has to do.
pub struct Snapshots {
    /// Where to, and how often.
    pub settings: SnapshotSettings,
    jobs: Mutex<Option<Sender<Job>>>,
    /// Staging folders of the jobs that wait or are on their way.
    busy: Arc<(Mutex<BTreeSet<PathBuf>>, Condvar)>,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Starts the thread; it ends by itself after [`Snapshots::finish`].
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: SnapshotSettings) -> std::io::Result<Self> {
        let (send, receive) = channel();
        let busy = Arc::<(Mutex<BTreeSet<PathBuf>>, Condvar)>::default();
        let (own, theirs) = (settings.clone(), Arc::clone(&busy));
        std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || work(&own, &receive, &theirs))?;
        Ok(Self { settings, jobs: Mutex::new(Some(send)), busy })
    }

    /// Takes the files of a state as they are now and puts them below `prefix` and the stage's name; false when an earlier snapshot of the folder is still on its way.
    pub fn offer(
        &self,
        prefix: &str,
        folder: &Path,
        identity: &Identity,
        form: (&'static str, u16),
        take: impl FnOnce(&Path) -> Result<Option<Snapshot>, super::stage::StageError>,
    ) -> bool {
        let staged = folder.join(STAGING);
        if !self.busy.0.lock().unwrap_or_else(PoisonError::into_inner).insert(staged.clone()) {
            return false;
        }
        let taken = empty(&staged).map_err(super::stage::StageError::from).and_then(|()| take(&staged));
        let job = match taken {
            Ok(Some(snapshot)) => {
                let stage = format!("{prefix}{}", identity.stage);
                Some(Job { stage, identity: identity.clone(), form, staged: staged.clone(), snapshot })
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(stage = %identity.stage, partition = identity.partition, %error, "no snapshot was taken");
                None
            }
        };
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let taken = jobs.zip(job).is_some_and(|(jobs, job)| complete(jobs, job, &self.busy));
        if !taken {
            done(&self.busy, &staged);
        }
        taken
    }

    /// An earlier snapshot of the folder is still on its way.
    #[must_use]
    pub fn is_busy(&self, folder: &Path) -> bool {
        self.busy.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&folder.join(STAGING))
    }

    /// Waits for what is on its way, at most [`SnapshotSettings::end_limit`]; nothing is taken any more.
    pub fn finish(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let end = Instant::now() + self.settings.end_limit;
        let mut busy = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(left_out = busy.len(), "snapshots were not sent in time; the changelog has it all");
                return;
            }
            busy = self.busy.1.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sends a job on; before that, on a thread of its own, makes what is not there yet. At once: it keeps the state's folder locked, and
/// must not wait behind what is sent to a slow store.
fn complete(jobs: Sender<Job>, mut job: Job, busy: &Arc<(Mutex<BTreeSet<PathBuf>>, Condvar)>) -> bool {
    let Some(rest) = job.snapshot.rest.take() else { return jobs.send(job).is_ok() };
    let busy = Arc::clone(busy);
    let copy = move || {
        let staged = job.staged.clone();
        let made = rest().inspect_err(|error| tracing::warn!(%error, "no snapshot was taken"));
        if made.is_err() || jobs.send(job).is_err() {
            done(&busy, &staged);
        }
    };
    std::thread::Builder::new().name("snapshot-copy".to_owned()).spawn(copy).is_ok()
}

fn empty(folder: &Path) -> Result<(), DiskError> {
    let io = |source| DiskError::Io { path: folder.to_owned(), source };
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    std::fs::create_dir_all(folder).map_err(io)
}

fn done(busy: &(Mutex<BTreeSet<PathBuf>>, Condvar), staged: &Path) {
    let _ = std::fs::remove_dir_all(staged);
    busy.0.lock().unwrap_or_else(PoisonError::into_inner).remove(staged);
    busy.1.notify_all();
}

/// A runtime of its own for connections that live as long as a thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Sends one snapshot after the other.
fn work(settings: &SnapshotSettings, jobs: &Receiver<Job>, busy: &(Mutex<BTreeSet<PathBuf>>, Condvar)) {
    let opened = runtime()
        .map_err(|e| e.to_string())
        .and_then(|runtime| Ok((runtime, Store::at(&settings.store, &settings.options).map_err(|e| e.to_string())?)));
    let (runtime, store) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, "no snapshots are sent");
            return;
        }
    };
    let mut sent = BTreeMap::new();
    loop {
        let job = match jobs.recv_timeout(Duration::from_secs(60)) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let staged = job.staged.clone();
        let (stage, partition, begun) = (job.stage.clone(), job.identity.partition, Instant::now());
        let known = sent.entry(staged.clone()).or_default();
        match upload::upload(&runtime, &store, settings, job, known) {
            Ok(told) => {
                metrics::counter!(super::metrics::SNAPSHOTS_SENT).increment(1);
                metrics::counter!(super::metrics::SNAPSHOT_BYTES_SENT).increment(told.sent);
                tracing::info!(
                    %stage, partition, offset = told.next_offset, files = told.files, bytes = told.bytes, sent = told.sent,
                    took_ms = begun.elapsed().as_millis(), "snapshot in the shared store"
                );
            }
            Err(error) => {
                metrics::counter!(super::metrics::SNAPSHOTS_FAILED).increment(1);
                tracing::warn!(%stage, partition, %error, "the snapshot was not sent; the next one is tried");
            }
        }
        done(busy, &staged);
    }
}

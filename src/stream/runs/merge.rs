//! Several runs into one, on a thread of its own: the runs are immutable, so nobody has to wait for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::file::{Run, RunReader, RunWriter};
use super::{At, DiskError, Identity, Shape};

/// How many records pass between two looks at whether the merge is still wanted.
const LOOK: u32 = 1 << 14;

/// Merges runs, oldest first; of records with the same key the newest run's stays. None when it was called off.
pub(super) fn merge(
    runs: &[Arc<Run>],
    to: &Path,
    shape: Shape,
    identity: &Identity,
    offset: i64,
    off: &AtomicBool,
) -> Result<Option<Run>, DiskError> {
    let mut readers: Vec<RunReader<'_>> = runs.iter().map(|run| RunReader::new(run)).collect();
    readers.iter_mut().try_for_each(RunReader::fill)?;
    let mut writer = RunWriter::create(to, shape)?;
    let mut least = vec![0; shape.record()];
    let mut until_look = 0;
    while take_least(&mut readers, shape.key, &mut least)? {
        writer.push(&least)?;
        if until_look == 0 {
            if off.load(Ordering::Relaxed) {
                return Ok(None);
            }
            until_look = LOOK;
        }
        until_look -= 1;
    }
    writer.finish(identity, offset).map(Some)
}

/// Copies the record with the least key, the newest of several, and goes past all of them.
fn take_least(readers: &mut [RunReader<'_>], key: usize, least: &mut [u8]) -> Result<bool, DiskError> {
    let mut found = false;
    for reader in &*readers {
        let Some(record) = reader.peek() else { continue };
        // Readers come oldest first: an equal key of a later one is newer.
        if !found || record.get(..key) <= least.get(..key) {
            least.copy_from_slice(record);
            found = true;
        }
    }
    if found {
        for reader in readers.iter_mut() {
            if reader.peek().is_some_and(|record| record.get(..key) == least.get(..key)) {
                reader.advance()?;
            }
        }
    }
    Ok(found)
}

/// A merge on its way.
#[derive(Debug)]
pub(super) struct Merge {
    /// The runs that it replaces.
    pub runs: Vec<Arc<Run>>,
    /// Level of the run that it makes.
    pub level: u8,
    thread: Option<JoinHandle<Result<Option<Run>, DiskError>>>,
    off: Arc<AtomicBool>,
}

impl Merge {
    /// Begins.
    pub fn start(
        runs: Vec<Arc<Run>>,
        level: u8,
        to: PathBuf,
        shape: Shape,
        identity: Identity,
        offset: i64,
    ) -> Result<Self, DiskError> {
        let off = Arc::new(AtomicBool::new(false));
        let (inputs, flag, folder) = (runs.clone(), Arc::clone(&off), to.clone());
        let work = move || merge(&inputs, &to, shape, &identity, offset, &flag);
        let thread = std::thread::Builder::new().name(format!("merge-{}", shape.name)).spawn(work).at(&folder)?;
        Ok(Self { runs, level, thread: Some(thread), off })
    }

    /// It has ended: [`Merge::wait`] does not wait.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end; none when it was called off.
    pub fn wait(&mut self) -> Result<Option<Run>, DiskError> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the merge panicked")).at(Path::new("a merge")))
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        self.off.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! The broker's own memory: topics, committed offsets, transactions, producer ids.
//!
//! It is a map from [`Key`] to JSON, kept as an append-only log of changes. Invariants:
//! - one [`Meta::write`] is one frame (length, CRC-32C, JSON): after a crash either all of its changes are there
//!   or none;
//! - frames become durable in the order they were written, so a later durable frame implies every earlier one;
//! - a torn last frame is cut off at start;
//! - a log that has outgrown its content is replaced by a snapshot under the next number; the old file is
//!   removed only after the new one and its directory entry are on the disk.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use super::disk::{Disk, LogFile};
use super::error::BrokerError;
use super::flusher::Flush;
use super::lock;

/// What a piece of the broker's memory is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Key {
    /// The cluster's id.
    Cluster,
    /// The next producer id that may be handed out.
    NextProducerId,
    /// A topic by name.
    Topic(String),
    /// Where a partition's log starts, by topic id and number, once records were deleted.
    LogStart(String, i32),
    /// A consumer group's last generation.
    Group(String),
    /// A committed offset: group, topic, partition.
    Offset(String, String, i32),
    /// A transactional id.
    Transaction(String),
}

/// A change: a value, or `None` to forget the key.
pub(crate) type Change = (Key, Option<Box<RawValue>>);

/// A change that stores `value` under `key`.
pub(crate) fn put(key: Key, value: &impl Serialize) -> Change {
    (key, to_raw_value(value).ok())
}

/// A change that forgets `key`.
pub(crate) fn forget(key: Key) -> Change {
    (key, None)
}

const FRAME_HEADER: usize = 8;
const SNAPSHOT_AT_LEAST: u64 = 4 << 20;
const SNAPSHOT_FRAME: usize = 1 << 20;

/// The durable map.
pub(crate) struct Meta {
    disk: Arc<Disk>,
    folder: PathBuf,
    marked: AtomicBool,
    state: Mutex<State>,
}

struct State {
    number: u64,
    file: Arc<LogFile>,
    content: BTreeMap<Key, Box<RawValue>>,
    snapshot_at: u64,
}

impl Meta {
    /// Reads the newest log, cutting off a torn tail.
    pub(crate) fn open(disk: &Arc<Disk>) -> Result<Self, BrokerError> {
        let folder = disk.root().join("meta");
        std::fs::create_dir_all(&folder).map_err(BrokerError::io(&folder))?;
        let mut numbers = numbered_logs(&folder).map_err(BrokerError::io(&folder))?;
        numbers.sort_unstable();
        let (number, file, content) = match numbers.pop() {
            Some(number) => {
                let path = log_path(&folder, number);
                let (file, content) = read_log(disk, &path)?;
                for old in numbers {
                    let path = log_path(&folder, old);
                    disk.remove(&path).map_err(BrokerError::io(&path))?;
                }
                (number, file, content)
            }
            None => {
                let path = log_path(&folder, 1);
                let file = disk.create(&path).map_err(BrokerError::io(&path))?;
                file.sync().map_err(BrokerError::io(&path))?;
                (1, file, BTreeMap::new())
            }
        };
        let snapshot_at = SNAPSHOT_AT_LEAST.max(file.len() * 2);
        let state = Mutex::new(State { number, file: Arc::new(file), content, snapshot_at });
        Ok(Self { disk: Arc::clone(disk), folder, marked: AtomicBool::new(false), state })
    }

    /// Writes all changes as one. They are durable after the next flush.
    pub(crate) fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let payload = serde_json::to_vec(&changes)?;
        let mut state = lock(&self.state);
        state.file.append(&frame(&payload))?;
        apply(&mut state.content, changes);
        if state.file.len() >= state.snapshot_at {
            self.snapshot(&mut state)?;
        }
        Ok(())
    }

    /// Every value whose key is accepted by `select`, decoded.
    pub(crate) fn read<K, V: DeserializeOwned>(
        &self,
        select: impl Fn(&Key) -> Option<K>,
    ) -> Result<Vec<(K, V)>, BrokerError> {
        let state = lock(&self.state);
        let mut found = Vec::new();
        for (key, value) in &state.content {
            if let Some(selected) = select(key) {
                let value = serde_json::from_str(value.get()).map_err(|error| BrokerError::Damaged {
                    path: state.file.path().into(),
                    at: 0,
                    rule: format!("{key:?}: {error}"),
                })?;
                found.push((selected, value));
            }
        }
        Ok(found)
    }

    fn snapshot(&self, state: &mut State) -> io::Result<()> {
        let number = state.number + 1;
        let path = log_path(&self.folder, number);
        let file = self.disk.create(&path.with_extension("tmp"))?;
        let mut payload = b"[".to_vec();
        for entry in &state.content {
            if payload.len() > 1 {
                payload.push(b',');
            }
            serde_json::to_writer(&mut payload, &entry)?;
            if payload.len() >= SNAPSHOT_FRAME {
                payload.push(b']');
                file.append(&frame(&payload))?;
                payload.truncate(1);
            }
        }
        payload.push(b']');
        file.append(&frame(&payload))?;
        file.sync()?;
        let old = std::mem::replace(&mut state.file, Arc::new(file.rename(&path)?));
        state.number = number;
        state.snapshot_at = SNAPSHOT_AT_LEAST.max(state.file.len() * 2);
        self.disk.remove(old.path())
    }
}

impl Flush for Meta {
    fn marked(&self) -> &AtomicBool {
        &self.marked
    }

    fn flush(&self) -> io::Result<()> {
        let file = Arc::clone(&lock(&self.state).file);
        file.sync()
    }
}

fn log_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

fn numbered_logs(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The payload of the first frame of `bytes`, if it is whole.
fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_be_bytes(bytes.get(4..FRAME_HEADER)?.try_into().ok()?);
    let payload = bytes.get(FRAME_HEADER..FRAME_HEADER.checked_add(length)?)?;
    (crc32c::crc32c(payload) == crc).then_some(payload)
}

fn apply(content: &mut BTreeMap<Key, Box<RawValue>>, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(content.insert(key, value)),
            None => drop(content.remove(&key)),
        }
    }
}

fn read_log(disk: &Arc<Disk>, path: &Path) -> Result<(LogFile, BTreeMap<Key, Box<RawValue>>), BrokerError> {
    let file = disk.open_existing(path).map_err(BrokerError::io(path))?;
    let bytes = std::fs::read(path).map_err(BrokerError::io(path))?;
    let (mut at, mut content) = (0, BTreeMap::new());
    while let Some(payload) = first_frame(&bytes[at..]) {
        let changes: Vec<Change> = serde_json::from_slice(payload).map_err(|error| BrokerError::Damaged {
            path: path.into(),
            at: at as u64,
            rule: format!("a frame is a list of changes ({error})"),
        })?;
        apply(&mut content, changes);
        at += FRAME_HEADER + payload.len();
    }
    if at < bytes.len() {
        tracing::warn!(path = %path.display(), at, dropped = bytes.len() - at, "cut a torn tail off the metadata log");
        file.truncate(at as u64).map_err(BrokerError::io(path))?;
    }
    file.secure().map_err(BrokerError::io(path))?;
    Ok((file, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Key {
        Key::Topic(name.into())
    }

    fn values(meta: &Meta) -> Vec<(String, u32)> {
        meta.read(|key| if let Key::Topic(name) = key { Some(name.clone()) } else { None }).unwrap()
    }

    #[test]
    fn a_tail_torn_at_any_byte_loses_the_last_write_whole_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(folder.path()).unwrap());
        let meta = Meta::open(&disk).unwrap();
        meta.write(vec![put(topic("a"), &1)]).unwrap();
        let before = lock(&meta.state).file.len();
        meta.write(vec![put(topic("a"), &2), put(topic("b"), &3)]).unwrap();
        let path = lock(&meta.state).file.path().to_owned();
        let whole = std::fs::read(&path).unwrap();
        for cut in before..whole.len() as u64 {
            std::fs::write(&path, &whole[..cut as usize]).unwrap();
            assert_eq!(values(&Meta::open(&disk).unwrap()), [("a".into(), 1)], "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(values(&Meta::open(&disk).unwrap()), [("a".into(), 2), ("b".into(), 3)]);
    }

    #[test]
    fn a_snapshot_keeps_the_content_and_forgets_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(folder.path()).unwrap());
        let meta = Meta::open(&disk).unwrap();
        lock(&meta.state).snapshot_at = 10_000;
        for round in 0..5_000 {
            meta.write(vec![put(topic("a"), &round), put(topic("b"), &round)]).unwrap();
        }
        meta.write(vec![forget(topic("b"))]).unwrap();
        assert!(lock(&meta.state).number > 1);
        assert_eq!(values(&Meta::open(&disk).unwrap()), [("a".into(), 4_999)]);
    }
}

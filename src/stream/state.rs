//! Small keyed state of a task, in three layers: the open transaction's changes, what is committed and not on disk yet,
//! and the table on disk. A read sees them in this order, and the first that knows a key has the last word.
//!
//! Invariants:
//! * only [`State::commit`] moves the open transaction's changes into the committed entries, and only
//!   [`State::checkpoint`] those into the table: the disk holds committed state only;
//! * [`State::changes`] lists the latest value of each changed key in key order, so that the changelog does not
//!   depend on how often or in which order a key was written;
//! * every transaction also logs how many entries there are and what their hashes add up to. Whoever restores from a
//!   local table and a compacted changelog proves with it that nothing is missing: a deletion whose tombstone was
//!   compacted away while this machine was off shows, and the state is made anew;
//! * memory is bounded once there is a place on disk; size is kept as entries change, never counted.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::Bound;

use bytes::Bytes;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::runs::DiskError;
use super::stage::{Change, Checkpoint, Place, Snapshot, StageError, State, StateSize};

mod table;
#[cfg(test)]
mod tests;

use table::Table;

/// What an entry in memory costs besides its bytes: two fat pointers and a share of a tree node.
const ENTRY_OVERHEAD: u64 = 96;

/// Key of the sum in the changelog. No stage's key begins with a byte that is none of UTF-8.
const SUM: &[u8] = b"\xffsum";
/// Format version of the sum.
const SUM_VERSION: u8 = 1;

/// How many entries there are, and what their hashes add up to, in whatever order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    entries: u64,
    sum: u128,
}

impl Sum {
    /// The sum of one entry.
    fn of(key: &[u8], value: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(&(key.len() as u64).to_be_bytes());
        hasher.write(key);
        hasher.write(value);
        Self { entries: 1, sum: hasher.finish128().as_u128() }
    }

    fn add(self, other: Self) -> Self {
        Self { entries: self.entries.wrapping_add(other.entries), sum: self.sum.wrapping_add(other.sum) }
    }

    fn without(self, other: Self) -> Self {
        Self { entries: self.entries.wrapping_sub(other.entries), sum: self.sum.wrapping_sub(other.sum) }
    }

    fn encode(self) -> Bytes {
        let mut bytes = vec![SUM_VERSION];
        bytes.extend_from_slice(&self.entries.to_be_bytes());
        bytes.extend_from_slice(&self.sum.to_be_bytes());
        Bytes::from(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (entries, sum) = bytes.strip_prefix(&[SUM_VERSION])?.split_first_chunk::<8>()?;
        Some(Self { entries: u64::from_be_bytes(*entries), sum: u128::from_be_bytes(*sum.as_array()?) })
    }
}

/// A change of the open transaction.
#[derive(Debug)]
struct Pending {
    value: Option<Bytes>,
    /// The sum of the committed entry that it replaces.
    before: Sum,
}

/// Ordered key-value state.
#[derive(Debug, Default)]
pub struct KeyValue {
    pending: BTreeMap<Bytes, Pending>,
    /// Committed entries that are not in the table; none for one that is no more, but may stand there.
    committed: table::Changes,
    table: Option<Table>,
    /// Of all committed entries.
    sum: Sum,
    /// As the changelog has it, while it is restored.
    logged: Option<Sum>,
    bytes: u64,
    memory: u64,
}

fn cost(key: &[u8], value: Option<&Bytes>) -> u64 {
    (key.len() + value.map_or(0, Bytes::len)) as u64 + ENTRY_OVERHEAD
}

/// The first key after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Bound<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Bound::Excluded(Bytes::from(end));
        }
        end.pop();
    }
    Bound::Unbounded
}

type Layer<'a> = std::iter::Peekable<Box<dyn Iterator<Item = Result<(Bytes, Option<Bytes>), DiskError>> + 'a>>;

fn layer<'a>(entries: impl Iterator<Item = Result<(Bytes, Option<Bytes>), DiskError>> + 'a) -> Layer<'a> {
    (Box::new(entries) as Box<dyn Iterator<Item = _>>).peekable()
}

/// Both layers in key order; of a key in both the newer layer's entry.
fn overlay<'a>(mut newer: Layer<'a>, mut older: Layer<'a>) -> Layer<'a> {
    layer(std::iter::from_fn(move || {
        let order = match (newer.peek(), older.peek()) {
            (Some(Ok((new, _))), Some(Ok((old, _)))) => new.cmp(old),
            (None | Some(Ok(_)), Some(Err(_))) | (None, _) => std::cmp::Ordering::Greater,
            (Some(_), _) => std::cmp::Ordering::Less,
        };
        if order == std::cmp::Ordering::Equal {
            older.next();
        }
        if order == std::cmp::Ordering::Greater { older.next() } else { newer.next() }
    }))
}

impl KeyValue {
    /// Empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key, as the open transaction sees it.
    ///
    /// # Errors
    /// When the disk fails, as everywhere here.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StageError> {
        match self.pending.get(key) {
            Some(changed) => Ok(changed.value.clone()),
            None => self.get_committed(key),
        }
    }

    fn get_committed(&self, key: &[u8]) -> Result<Option<Bytes>, StageError> {
        match (self.committed.get(key), &self.table) {
            (Some(known), _) => Ok(known.clone()),
            (None, Some(table)) => Ok(table.get(key)?),
            (None, None) => Ok(None),
        }
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), StageError> {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.value = value;
            return Ok(());
        }
        let before = self.get_committed(&key)?.map_or(Sum::default(), |before| Sum::of(&key, &before));
        self.pending.insert(key, Pending { value, before });
        Ok(())
    }

    /// Sets a key in the open transaction.
    ///
    /// # Errors
    /// See [`KeyValue::get`].
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), StageError> {
        self.set(key.into(), Some(value.into()))
    }

    /// Removes a key in the open transaction.
    ///
    /// # Errors
    /// See [`KeyValue::get`].
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<(), StageError> {
        let key = key.into();
        self.set(key.clone(), None)?;
        // What was never committed leaves no trace in the changelog.
        if self.pending.get(&key).is_some_and(|pending| pending.before == Sum::default()) {
            self.pending.remove(&key);
        }
        Ok(())
    }

    /// The first `most` entries whose key begins with `prefix`, in key order, as the open transaction sees them.
    ///
    /// # Errors
    /// See [`KeyValue::get`].
    pub fn scan_prefix(&self, prefix: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, StageError> {
        let range = (Bound::Included(Bytes::copy_from_slice(prefix)), prefix_end(prefix));
        let mut entries = layer(self.committed.range(range.clone()).map(|(k, v)| Ok((k.clone(), v.clone()))));
        if let Some(table) = &self.table {
            let stored = table.range(prefix, &range.1)?.map(|entry| entry.map(|(key, value)| (key, Some(value))));
            entries = overlay(entries, layer(stored));
        }
        let changed = self.pending.range(range).map(|(key, pending)| Ok((key.clone(), pending.value.clone())));
        let seen = overlay(layer(changed), entries);
        let present = seen.filter_map(|entry| match entry {
            Ok((key, value)) => value.map(|value| Ok((key, value))),
            Err(error) => Some(Err(error.into())),
        });
        present.take(most).collect()
    }

    /// Makes a change part of the committed entries; `before` is the sum of what it replaces.
    fn apply(&mut self, key: Bytes, value: Option<Bytes>, before: Sum) {
        self.sum = self.sum.without(before);
        if let Some(value) = &value {
            self.sum = self.sum.add(Sum::of(&key, value));
        }
        let length = key.len() as u64;
        let old = if value.is_none() && self.table.is_none() {
            self.committed.remove(&key)
        } else {
            self.bytes += cost(&key, value.as_ref());
            self.committed.insert(key, value)
        };
        if let Some(old) = old {
            let freed = length + old.map_or(0, |old| old.len() as u64) + ENTRY_OVERHEAD;
            self.bytes = self.bytes.saturating_sub(freed);
        }
    }
}

impl State for KeyValue {
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError> {
        if key == SUM {
            let wrong = || StageError::State {
                what: "the sum of all entries".to_owned(),
                detail: format!("this program reads format version {SUM_VERSION}"),
            };
            self.logged = value.map(|value| Sum::decode(value).ok_or_else(wrong)).transpose()?;
            return Ok(());
        }
        let before = self.get_committed(key)?.map_or(Sum::default(), |before| Sum::of(key, &before));
        self.apply(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice), before);
        Ok(())
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut sum = self.sum;
        let mut changes = Vec::with_capacity(self.pending.len() + 1);
        for (key, Pending { value, before }) in &self.pending {
            sum = sum.without(*before);
            if let Some(value) = value {
                sum = sum.add(Sum::of(key, value));
            }
            changes.push(Change { key: key.clone(), value: value.clone() });
        }
        if !changes.is_empty() {
            changes.push(Change { key: Bytes::from_static(SUM), value: Some(sum.encode()) });
        }
        changes
    }

    fn commit(&mut self) {
        for (key, Pending { value, before }) in std::mem::take(&mut self.pending) {
            self.apply(key, value, before);
        }
    }

    fn abort(&mut self) {
        self.pending.clear();
    }

    fn size(&self) -> StateSize {
        let disk = self.table.as_ref().map_or(0, Table::disk);
        // The table's cache fills with what is read.
        let bytes = self.bytes + disk.min(self.memory / 2);
        StateSize { entries: self.sum.entries, bytes, disk }
    }

    fn open(&mut self, place: &Place) -> Result<Option<Checkpoint>, StageError> {
        let (table, opened) = Table::open(place)?;
        (self.table, self.memory) = (Some(table), place.memory as u64);
        Ok(opened.map(|(checkpoint, sum)| {
            self.sum = sum;
            checkpoint
        }))
    }

    fn restored(&mut self) -> Result<(), StageError> {
        match self.logged.take() {
            Some(logged) if logged != self.sum => Err(StageError::State {
                what: "the entries".to_owned(),
                detail: format!("{} entries were restored, {} were logged", self.sum.entries, logged.entries),
            }),
            _ => Ok(()),
        }
    }

    const FORM: Option<(&'static str, u16)> = Some(("entries", table::FORMAT));

    fn snapshot(&self, to: &std::path::Path) -> Result<Option<Snapshot>, StageError> {
        let Some((table, next_offset)) = self.table.as_ref().and_then(|table| Some((table, table.as_of()?))) else {
            return Ok(None);
        };
        let rest = table.copy_to(&to.join(table::FILE))?;
        Ok(Some(Snapshot { next_offset, files: vec![table::FILE.to_owned()], rest: Some(Box::new(rest)) }))
    }

    fn wants_checkpoint(&self) -> bool {
        // An eighth, because writing them stops the task: some ten microseconds per entry.
        self.table.is_some() && self.bytes >= self.memory / 8
    }

    fn checkpoint(&mut self, at: &Checkpoint) -> Result<(), StageError> {
        if let Some(table) = &mut self.table {
            table.write(&self.committed, at, self.sum)?;
            self.committed.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}

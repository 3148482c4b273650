//! A sorted key-value state in memory: committed entries, and what the transaction at hand changes on top.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::stream::stage::{Change, StageError, State, StateSize};

/// See the module.
#[derive(Debug, Default)]
pub struct KeyValue {
    committed: BTreeMap<Bytes, Bytes>,
    pending: BTreeMap<Bytes, Option<Bytes>>,
    bytes: u64,
}

impl KeyValue {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        match self.pending.get(key) {
            Some(value) => value.as_ref(),
            None => self.committed.get(key),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.pending.insert(key.into(), Some(value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        if self.committed.contains_key(&key) {
            self.pending.insert(key, None);
        } else {
            self.pending.remove(&key);
        }
    }

    /// The entries whose keys begin with a prefix, sorted by key.
    pub fn scan_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let from = || (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        let mut committed =
            self.committed.range::<[u8], _>(from()).take_while(|(k, _)| k.starts_with(prefix)).peekable();
        let mut pending = self.pending.range::<[u8], _>(from()).take_while(|(k, _)| k.starts_with(prefix)).peekable();
        std::iter::from_fn(move || {
            loop {
                let pending_first = match (committed.peek(), pending.peek()) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some((c, _)), Some((p, _))) => p <= c,
                };
                if !pending_first {
                    return committed.next();
                }
                let (key, value) = pending.next()?;
                committed.next_if(|(k, _)| *k == key);
                if let Some(value) = value {
                    return Some((key, value));
                }
            }
        })
    }
}

impl State for KeyValue {
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError> {
        self.pending.insert(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        self.commit();
        Ok(())
    }

    fn changes(&mut self) -> Vec<Change> {
        self.pending.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect()
    }

    fn commit(&mut self) {
        for (key, value) in std::mem::take(&mut self.pending) {
            let length = key.len() as u64;
            let new = value.as_ref().map_or(0, |v| v.len() as u64 + length);
            let old = match value {
                Some(value) => self.committed.insert(key, value),
                None => self.committed.remove(&key),
            };
            self.bytes = self.bytes + new - old.map_or(0, |v| v.len() as u64 + length);
        }
    }

    fn abort(&mut self) {
        self.pending.clear();
    }

    fn size(&self) -> StateSize {
        StateSize { entries: self.committed.len() as u64, bytes: self.bytes }
    }
}

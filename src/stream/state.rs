//! Small keyed state of a task: committed entries in order, and the open transaction's changes laid over them.
//!
//! Invariants:
//! * reads see the open transaction's changes; only [`State::commit`] moves them into the committed entries;
//! * [`State::changes`] lists the latest value of each changed key in key order, so that the changelog does not
//!   depend on how often or in which order a key was written;
//! * size is kept as entries change, never counted.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::stage::{Change, StageError, State, StateSize};

/// What an entry costs besides its bytes: two fat pointers and a share of a tree node.
const ENTRY_OVERHEAD: u64 = 96;

/// Ordered key-value state in memory.
#[derive(Debug, Default)]
pub struct KeyValue {
    committed: BTreeMap<Bytes, Bytes>,
    pending: BTreeMap<Bytes, Option<Bytes>>,
    bytes: u64,
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ENTRY_OVERHEAD
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

impl KeyValue {
    /// Empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key, as the open transaction sees it.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        match self.pending.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.committed.get(key),
        }
    }

    /// Sets a key in the open transaction.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.pending.insert(key.into(), Some(value.into()));
    }

    /// Removes a key in the open transaction.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        if self.committed.contains_key(&key) {
            self.pending.insert(key, None);
        } else {
            self.pending.remove(&key);
        }
    }

    /// Entries whose key begins with `prefix`, in key order, as the open transaction sees them.
    pub fn scan_prefix(&self, prefix: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let range = (Bound::Included(Bytes::copy_from_slice(prefix)), prefix_end(prefix));
        let mut committed = self.committed.range(range.clone()).peekable();
        let mut pending = self.pending.range(range).peekable();
        std::iter::from_fn(move || {
            loop {
                let (overlay_first, same) = match (committed.peek(), pending.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => (false, false),
                    (None, Some(_)) => (true, false),
                    (Some((old, _)), Some((new, _))) => (new <= old, new == old),
                };
                if same {
                    committed.next();
                }
                if !overlay_first {
                    return committed.next();
                }
                if let Some((key, Some(value))) = pending.next() {
                    return Some((key, value));
                }
            }
        })
    }

    fn apply(&mut self, key: Bytes, value: Option<Bytes>) {
        let old = match value {
            Some(value) => {
                self.bytes += cost(&key, &value);
                let length = key.len();
                self.committed.insert(key, value).map(|old| (length, old))
            }
            None => self.committed.remove(&key).map(|old| (key.len(), old)),
        };
        if let Some((key_length, old)) = old {
            let freed = (key_length + old.len()) as u64 + ENTRY_OVERHEAD;
            self.bytes = self.bytes.saturating_sub(freed);
        }
    }
}

impl State for KeyValue {
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError> {
        self.apply(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        Ok(())
    }

    fn changes(&mut self) -> Vec<Change> {
        self.pending.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect()
    }

    fn commit(&mut self) {
        for (key, value) in std::mem::take(&mut self.pending) {
            self.apply(key, value);
        }
    }

    fn abort(&mut self) {
        self.pending.clear();
    }

    fn size(&self) -> StateSize {
        StateSize { entries: self.committed.len() as u64, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(Vec<u8>, Vec<u8>),
        Delete(Vec<u8>),
        Commit,
        Abort,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..4);
        let value = prop::collection::vec(any::<u8>(), 0..4);
        prop::collection::vec(
            prop_oneof![
                6 => (key(), value).prop_map(|(k, v)| Step::Put(k, v)),
                3 => key().prop_map(Step::Delete),
                1 => Just(Step::Commit),
                1 => Just(Step::Abort),
            ],
            0..60,
        )
    }

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn view(state: &KeyValue, prefix: &[u8]) -> Model {
        let mut last: Option<Bytes> = None;
        state
            .scan_prefix(prefix)
            .map(|(k, v)| {
                assert!(last.replace(k.clone()).is_none_or(|l| l < *k), "scan is ordered");
                (k.to_vec(), v.to_vec())
            })
            .collect()
    }

    proptest! {
        #[test]
        fn state_behaves_like_a_map_with_transactions_and_its_changelog_restores_it(steps in steps(), prefix in prop::collection::vec(prop_oneof![Just(0_u8), Just(255)], 0..3)) {
            let (mut state, mut committed, mut open) = (KeyValue::new(), Model::new(), Model::new());
            let mut restored = KeyValue::new();
            for step in steps {
                match step {
                    Step::Put(k, v) => { open.insert(k.clone(), v.clone()); state.put(k, v); }
                    Step::Delete(k) => { open.remove(&k); state.delete(k); }
                    Step::Commit => {
                        for change in state.changes() {
                            restored.restore(&change.key, change.value.as_deref()).unwrap();
                        }
                        state.commit();
                        committed = open.clone();
                    }
                    Step::Abort => { state.abort(); open = committed.clone(); }
                }
                prop_assert_eq!(view(&state, b""), open.clone());
                let wanted: Model = open.iter().filter(|(k, _)| k.starts_with(&prefix)).map(|(k, v)| (k.clone(), v.clone())).collect();
                prop_assert_eq!(view(&state, &prefix), wanted);
                for (k, v) in &open {
                    prop_assert_eq!(state.get(k).map(|b| b.to_vec()), Some(v.clone()));
                }
            }
            prop_assert_eq!(view(&restored, b""), committed.clone());
            state.abort();
            prop_assert_eq!(restored.size(), state.size());
            let bytes: u64 = committed.iter().map(|(k, v)| cost(k, v)).sum();
            prop_assert_eq!(state.size(), StateSize { entries: committed.len() as u64, bytes });
        }
    }
}

//! The rows that came last, in memory: features of a row → who owns it. Older ones stand in sorted runs ([`super::state`]).
//!
//! One probe answers both questions that deduplication asks: has this row been here (same features, same label
//! tag), and have its features been here with another label. All rows with the same features meet in one shard,
//! because the shard is derived from the features; so one map keyed by the feature hash holds both.
//!
//! Keys are outputs of a keyed HMAC, uniform and out of an attacker's choice: the map takes eight of their bytes as
//! the hash. The low half is taken, because the shard number is a function of the high half.
//!
//! Layout: 32 bytes per row (16 features, 8 label tag, 4 owner, 4 row) and one control byte. Further labels of the
//! same features are rare and stand in a map of their own, ordered, so that a flood of labels costs a row no more.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Who owns a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Eight bytes of the row's own hash: tells rows with the same features and another label apart.
    pub tag: u64,
    /// Number of the owner (a chunk of a contribution).
    pub owner: u32,
    /// Row in the owner's chunk.
    pub row: u32,
}

/// The identity of a row in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// Hash of the row without its label.
    pub features: u128,
    /// Eight bytes of the hash of the whole row.
    pub tag: u64,
}

impl RowKey {
    /// From the two hashes that intake computed.
    #[must_use]
    pub fn new(row_hash: u128, feature_hash: u128) -> Self {
        Self { features: feature_hash, tag: low_half(row_hash) }
    }

    /// The key as bytes, in key order.
    #[must_use]
    pub fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let (features, tag) = (self.features.to_be_bytes(), self.tag.to_be_bytes());
        features.iter().chain(&tag).zip(&mut bytes).for_each(|(from, to)| *to = *from);
        bytes
    }
}

fn low_half(hash: u128) -> u64 {
    u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default()
}

/// Takes the low half of a key that is a keyed hash already.
#[derive(Debug, Default)]
pub struct Uniform(u64);

impl Hasher for Uniform {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = low_half(key);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map whose keys are keyed hashes.
pub type HashedMap<V> = HashMap<u128, V, BuildHasherDefault<Uniform>>;

/// Rows and their owners.
#[derive(Debug, Default)]
pub struct RowIndex {
    first: HashedMap<Entry>,
    more: HashedMap<BTreeMap<u64, Entry>>,
    rows: u64,
}

impl RowIndex {
    /// Visits the row of `key`, if it is here, then the other labels of its features, until `visit` returns false; returns
    /// whether it may go on.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn search<E>(&self, key: RowKey, visit: &mut dyn FnMut(Entry) -> Result<bool, E>) -> Result<bool, E> {
        let Some(first) = self.first.get(&key.features) else { return Ok(true) };
        let more = if self.more.is_empty() { None } else { self.more.get(&key.features) };
        let exact = if first.tag == key.tag { Some(first) } else { more.and_then(|labels| labels.get(&key.tag)) };
        let others = std::iter::once(first).chain(more.into_iter().flat_map(BTreeMap::values));
        for entry in exact.into_iter().chain(others.filter(|entry| entry.tag != key.tag)) {
            if !visit(*entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives a row to an owner; the owner before it is forgotten.
    pub fn put(&mut self, features: u128, entry: Entry) {
        match self.first.entry(features) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(entry);
                self.rows += 1;
            }
            std::collections::hash_map::Entry::Occupied(mut slot) if slot.get().tag == entry.tag => {
                slot.insert(entry);
            }
            std::collections::hash_map::Entry::Occupied(_) => {
                let earlier = self.more.entry(features).or_default().insert(entry.tag, entry);
                self.rows += u64::from(earlier.is_none());
            }
        }
    }

    /// Every row, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (RowKey, Entry)> {
        let row = |features: &u128, entry: &Entry| (RowKey { features: *features, tag: entry.tag }, *entry);
        self.first
            .iter()
            .map(move |(f, e)| row(f, e))
            .chain(self.more.iter().flat_map(move |(f, labels)| labels.values().map(move |e| row(f, e))))
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// No row at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Forgets every row and keeps the room for up to `rows` of them.
    pub fn clear(&mut self, rows: usize) {
        self.first.clear();
        self.first.shrink_to(rows);
        self.more = HashedMap::default();
        self.rows = 0;
    }

    /// Bytes that the maps hold, by their capacity (seven of eight buckets are usable).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let buckets = |capacity: usize, bucket: usize| capacity as u64 * 8 / 7 * (bucket as u64 + 1);
        // A tree node is half full or better.
        let labels: usize = self.more.values().map(|labels| labels.len() * 2 * size_of::<(u64, Entry)>()).sum();
        buckets(self.first.capacity(), size_of::<(u128, Entry)>())
            + buckets(self.more.capacity(), size_of::<(u128, BTreeMap<u64, Entry>)>())
            + labels as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u64, owner: u32) -> Entry {
        Entry { tag, owner, row: 0 }
    }

    #[test]
    fn a_row_costs_32_bytes_and_one_control_byte() {
        assert_eq!(size_of::<(u128, Entry)>(), 32);
    }

    #[test]
    fn every_label_of_the_same_features_is_found_and_the_latest_owner_stands() {
        let mut index = RowIndex::default();
        for (tag, owner) in [(1, 1), (2, 2), (3, 3), (2, 9), (1, 8)] {
            index.put(7, entry(tag, owner));
        }
        let visited = |features, tag| {
            let mut found = Vec::new();
            let visit = &mut |e: Entry| -> Result<bool, ()> {
                found.push((e.tag, e.owner));
                Ok(true)
            };
            assert_eq!(index.search(RowKey { features, tag }, visit), Ok(true));
            found
        };
        assert_eq!(visited(7, 2), [(2, 9), (1, 8), (3, 3)], "the row itself comes first");
        assert_eq!(visited(7, 5), [(1, 8), (2, 9), (3, 3)]);
        assert_eq!(visited(8, 1), []);
        assert_eq!(index.len(), 3);
        assert_eq!(index.iter().count(), 3);
    }
}

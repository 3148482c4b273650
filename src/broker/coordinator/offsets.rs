//! Committed offsets of one group, those of open transactions included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::meta::{Change, Key, forget, put};

/// Topic and partition.
pub(crate) type Place = (String, i32);

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    /// Milliseconds of the clock.
    pub at: i64,
}

/// The offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: BTreeMap<Place, Committed>,
    /// By producer id: offsets that count once its transaction commits.
    pending: BTreeMap<i64, BTreeMap<Place, Committed>>,
}

/// What is known of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    Committed(Committed),
    /// An open transaction may change it.
    Unstable,
    Nothing,
}

impl Offsets {
    /// Stores offsets that count at once.
    pub(crate) fn commit(&mut self, offsets: impl IntoIterator<Item = (Place, Committed)>) {
        self.committed.extend(offsets);
    }

    /// Stores offsets of an open transaction.
    pub(crate) fn hold(&mut self, producer_id: i64, offsets: impl IntoIterator<Item = (Place, Committed)>) {
        self.pending.entry(producer_id).or_default().extend(offsets);
    }

    /// Ends a producer's transaction.
    pub(crate) fn settle(&mut self, producer_id: i64, commit: bool) {
        if let Some(pending) = self.pending.remove(&producer_id)
            && commit
        {
            self.committed.extend(pending);
        }
    }

    /// Looks up one partition.
    pub(crate) fn get(&self, place: &Place, require_stable: bool) -> Known {
        if require_stable && self.pending.values().any(|pending| pending.contains_key(place)) {
            return Known::Unstable;
        }
        self.committed.get(place).map_or(Known::Nothing, |committed| Known::Committed(committed.clone()))
    }

    /// Every partition with an offset, committed or pending.
    pub(crate) fn places(&self) -> Vec<Place> {
        let pending = self.pending.values().flat_map(BTreeMap::keys);
        let mut places: Vec<_> = self.committed.keys().chain(pending).cloned().collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    /// Whether an open transaction holds offsets of this group.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Forgets the partitions that `gone` names; returns the changes to store.
    pub(crate) fn forget(&mut self, group: &str, mut gone: impl FnMut(&Place, &Committed) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        self.committed.retain(|place, committed| {
            let gone = gone(place, committed);
            if gone {
                changes.push(forget(key(group, place)));
            }
            !gone
        });
        changes
    }
}

/// Where an offset is stored.
pub(crate) fn key(group: &str, (topic, partition): &Place) -> Key {
    Key::Offset(group.into(), topic.clone(), *partition)
}

/// The changes that store offsets.
pub(crate) fn stored<'a>(group: &str, offsets: impl IntoIterator<Item = (&'a Place, &'a Committed)>) -> Vec<Change> {
    offsets.into_iter().map(|(place, committed)| put(key(group, place), committed)).collect()
}

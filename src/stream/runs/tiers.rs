//! The runs of one map, oldest first, and which of them are merged.

use std::sync::Arc;

use super::file::Run;
use super::{DiskError, Shape, Visit};

/// Runs of one level that are merged into one of the next: a record is rewritten log₄(keys ÷ keys per flush) times, and a
/// new key asks at most three filters per level.
pub(super) const FAN: usize = 4;

/// Runs of level 0 at which whoever flushes waits for the merge: bounds the filters that a look-up asks.
pub(super) const BACKLOG: usize = 4 * FAN;

/// A run and how often its records were merged.
#[derive(Debug, Clone)]
pub(super) struct Tier {
    pub level: u8,
    pub run: Arc<Run>,
}

/// The runs of one map.
#[derive(Debug)]
pub(super) struct Tiers {
    pub shape: Shape,
    /// Oldest first; levels never ascend.
    pub tiers: Vec<Tier>,
}

impl Tiers {
    pub fn new(shape: Shape) -> Self {
        Self { shape, tiers: Vec::new() }
    }

    /// [`Run::search`] in every run, newest first: of records with the same key only the first visited counts.
    pub fn search<E: From<DiskError>>(&self, key: &[u8], prefix: usize, visit: &mut Visit<'_, E>) -> Result<(), E> {
        for tier in self.tiers.iter().rev() {
            if !tier.run.search(key, prefix, visit)? {
                break;
            }
        }
        Ok(())
    }

    /// The lowest level that is full, and its runs, oldest first.
    pub fn due(&self) -> Option<(u8, Vec<Arc<Run>>)> {
        let mut levels: Vec<u8> = self.tiers.iter().map(|tier| tier.level).collect();
        levels.dedup();
        let of = |level: u8| -> Vec<Arc<Run>> {
            self.tiers.iter().filter(|t| t.level == level).map(|t| Arc::clone(&t.run)).collect()
        };
        levels.into_iter().rev().map(|level| (level, of(level))).find(|(_, runs)| runs.len() >= FAN)
    }

    /// Runs of level 0.
    pub fn backlog(&self) -> usize {
        self.tiers.iter().filter(|tier| tier.level == 0).count()
    }

    /// Puts the merged run in the place of those that it was made of.
    pub fn replace(&mut self, merged: &[Arc<Run>], level: u8, run: Run) {
        let is_merged = |tier: &Tier| merged.iter().any(|run| Arc::ptr_eq(run, &tier.run));
        let Some(first) = self.tiers.iter().position(is_merged) else { return };
        self.tiers.retain(|tier| !is_merged(tier));
        self.tiers.insert(first, Tier { level, run: Arc::new(run) });
    }
}

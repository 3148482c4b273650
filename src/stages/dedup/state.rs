//! State of one shard: rows with their owners, and the verdicts given.
//!
//! Committed state and what the transaction at hand adds are kept apart; a look-up sees both. Committing logs the
//! additions as sorted runs ([`super::run`]) under ever new keys, so that compaction never removes one.
//!
//! Where the rows live is this module's own affair: the stage asks [`DedupState::look_up`] and says
//! [`DedupState::accept`], whether the index is a map in memory or runs on disk behind filters.

use bytes::Bytes;

use super::index::{Entry, HashedMap, RowIndex, RowKey};
use super::owners::{OwnerFacts, Owners, PartVerdict, Relation};
use super::run::Run;
use crate::stream::stage::{Change, StageError, State, StateSize};

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who owns the row, unless nobody does; with the row's number in the owner's chunk.
    pub owner: Option<(u32, u32)>,
    /// Its features stand in the shard with another label.
    pub other_label: bool,
}

/// What the transaction at hand adds.
#[derive(Debug, Default)]
struct Pending {
    rows: RowIndex,
    owners: Vec<OwnerFacts>,
    by_ident: HashedMap<u32>,
    verdicts: std::collections::BTreeMap<(u32, u32), PartVerdict>,
    released: std::collections::BTreeSet<u32>,
}

/// State of one shard.
#[derive(Debug, Default)]
pub struct DedupState {
    rows: RowIndex,
    owners: Owners,
    next_run: u64,
    /// Runs that [`State::changes`] handed out in this transaction.
    logged: u64,
    pending: Pending,
}

impl DedupState {
    /// The number of a chunk, if it was seen.
    #[must_use]
    pub fn owner(&self, facts: &OwnerFacts) -> Option<u32> {
        self.owners.number(facts.ident).or_else(|| self.pending.by_ident.get(&facts.ident).copied())
    }

    /// The number of a chunk; a new one when it was not seen.
    ///
    /// # Errors
    /// When four billion chunks are known already.
    pub fn intern(&mut self, facts: &OwnerFacts) -> Result<u32, StageError> {
        if let Some(known) = self.owner(facts) {
            return Ok(known);
        }
        let number = u32::try_from(self.pending.owners.len())
            .ok()
            .and_then(|new| self.owners.next().checked_add(new))
            .filter(|number| *number < u32::MAX)
            .ok_or_else(|| StageError::Limit {
                what: "the number of chunks in one shard".to_owned(),
                limit: u64::from(u32::MAX),
                help: "use more partitions of contributions.screened (`topology migrate`)".to_owned(),
            })?;
        self.pending.owners.push(*facts);
        self.pending.by_ident.insert(facts.ident, number);
        Ok(number)
    }

    /// The verdict on a part that was given before.
    #[must_use]
    pub fn verdict(&self, owner: u32, part: u32) -> Option<PartVerdict> {
        self.pending.verdicts.get(&(owner, part)).copied().or_else(|| self.owners.verdict(owner, part))
    }

    /// Remembers a verdict.
    pub fn set_verdict(&mut self, owner: u32, part: u32, verdict: PartVerdict) {
        self.pending.verdicts.insert((owner, part), verdict);
    }

    /// The exact chunk gives its rows up; nothing happens when it has none here.
    pub fn release(&mut self, ident: u128) {
        let known = self.owners.number(ident).or_else(|| self.pending.by_ident.get(&ident).copied());
        if let Some(owner) = known.filter(|owner| !self.is_released(*owner)) {
            self.pending.released.insert(owner);
        }
    }

    fn is_released(&self, owner: u32) -> bool {
        self.owners.is_released(owner) || (!self.pending.released.is_empty() && self.pending.released.contains(&owner))
    }

    /// What is known of a row. Rows of released owners belong to nobody.
    #[must_use]
    pub fn look_up(&self, key: RowKey) -> Known {
        let mut known = Known { owner: None, other_label: false };
        let mut met = false;
        for (entry, committed) in self
            .pending
            .rows
            .find(key.features)
            .map(|e| (e, false))
            .chain(self.rows.find(key.features).map(|e| (e, true)))
        {
            if entry.tag != key.tag {
                known.other_label |=
                    !self.is_superseded(key.features, entry, committed) && !self.is_released(entry.owner);
            } else if !met {
                met = true;
                known.owner = (!self.is_released(entry.owner)).then_some((entry.owner, entry.row));
            }
        }
        known
    }

    /// A committed entry that the transaction at hand gives to another owner.
    fn is_superseded(&self, features: u128, entry: &Entry, committed: bool) -> bool {
        committed && !self.pending.rows.is_empty() && self.pending.rows.find(features).any(|e| e.tag == entry.tag)
    }

    /// Gives a row to a chunk.
    pub fn accept(&mut self, key: RowKey, owner: u32, row: u32) {
        self.pending.rows.put(key.features, Entry { tag: key.tag, owner, row });
    }

    /// How an earlier owner relates to a chunk.
    #[must_use]
    pub fn relation(&self, earlier: u32, facts: &OwnerFacts) -> Option<Relation> {
        if let Some(relation) = self.owners.relation(earlier, facts) {
            return Some(relation);
        }
        let owner = self.pending.owners.get(earlier.checked_sub(self.owners.next())? as usize)?;
        Some(if owner.batch == facts.batch {
            Relation::SameContribution(owner.chunk)
        } else if owner.contributor == facts.contributor {
            Relation::SameContributor
        } else {
            Relation::Other
        })
    }

    fn pending_run(&self) -> Run {
        let mut rows: Vec<_> = self.pending.rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        Run {
            first_owner: self.owners.next(),
            owners: self.pending.owners.clone(),
            verdicts: self.pending.verdicts.iter().map(|(k, v)| (*k, *v)).collect(),
            released: self.pending.released.iter().copied().collect(),
            rows,
        }
    }

    fn fold(&mut self, run: Run) {
        for owner in &run.owners {
            self.owners.add(owner);
        }
        for (key, verdict) in run.verdicts {
            self.owners.set_verdict(key, verdict);
        }
        for owner in run.released {
            self.owners.release(owner);
        }
        self.rows.reserve(run.rows.len());
        for (key, entry) in run.rows {
            self.rows.put(key.features, entry);
        }
    }
}

const RUN_KEY: u8 = b'r';

impl State for DedupState {
    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StageError> {
        let damaged = |detail: String| StageError::State { what: "a run of seen rows".to_owned(), detail };
        let number = match key.split_first() {
            Some((&RUN_KEY, rest)) => <[u8; 8]>::try_from(rest).map(u64::from_be_bytes).ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| damaged("a key that is no run number".to_owned()))?;
        if number != self.next_run {
            return Err(damaged(format!("run {} expected, run {number} found", self.next_run)));
        }
        let value = value.ok_or_else(|| damaged(format!("run {number} was deleted")))?;
        let run = Run::decode(value).map_err(|detail| damaged(format!("run {number}: {detail}")))?;
        if !run.owners.is_empty() && run.first_owner != self.owners.next() {
            return Err(damaged(format!("run {number} numbers its owners from {}", run.first_owner)));
        }
        self.fold(run);
        self.next_run += 1;
        Ok(())
    }

    fn changes(&mut self) -> Vec<Change> {
        let runs = self.pending_run().split();
        self.logged = runs.len() as u64;
        let change = |(i, run): (u64, Run)| {
            let mut key = vec![RUN_KEY];
            key.extend_from_slice(&(self.next_run + i).to_be_bytes());
            Change { key: Bytes::from(key), value: Some(Bytes::from(run.encode())) }
        };
        (0..).zip(runs).map(change).collect()
    }

    fn commit(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        pending.owners.iter().for_each(|owner| {
            self.owners.add(owner);
        });
        pending.verdicts.into_iter().for_each(|(key, verdict)| self.owners.set_verdict(key, verdict));
        pending.released.into_iter().for_each(|owner| self.owners.release(owner));
        pending.rows.iter().for_each(|(key, entry)| self.rows.put(key.features, entry));
        self.next_run += std::mem::take(&mut self.logged);
    }

    fn abort(&mut self) {
        self.pending = Pending::default();
        self.logged = 0;
    }

    fn size(&self) -> StateSize {
        StateSize { entries: self.rows.len(), bytes: self.rows.bytes() + self.owners.bytes() }
    }
}

//! State of one shard: rows with their owners, and the verdicts given.
//!
//! What the transaction at hand adds, what is committed and not on disk yet, and the sorted runs on disk are three layers; a
//! look-up sees them in this order, and the first one that knows a key has the last word. Committing logs the additions as
//! sorted runs ([`super::run`]) under ever new keys, so that compaction of the changelog never removes one; the memory
//! goes to disk ([`super::disk`]) when it is full.
//!
//! Where the rows live is this module's own affair: the stage asks [`DedupState::look_up`] and says
//! [`DedupState::accept`]. Without a place on disk everything stays in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::disk;
use super::index::{Entry, HashedMap, RowIndex, RowKey};
use super::owners::{Owner, OwnerFacts, Owners, PartVerdict, Relation};
use super::run::Run;
use crate::stream::runs::store::RunStore;
use crate::stream::stage::{Change, Checkpoint, Place, Snapshot, StageError, State, StateSize};

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who owns the row, unless nobody does; with the row's number in the owner's chunk.
    pub owner: Option<(u32, u32)>,
    /// Its features stand in the shard with another label; told of rows that nobody owns.
    pub other_label: bool,
}

/// What the transaction at hand adds.
#[derive(Debug, Default)]
struct Pending {
    rows: RowIndex,
    owners: Vec<OwnerFacts>,
    by_ident: HashedMap<u32>,
    verdicts: BTreeMap<(u32, u32), PartVerdict>,
    /// Owners that gave their rows up.
    released: BTreeMap<u32, Owner>,
}

/// State of one shard.
#[derive(Debug, Default)]
pub struct DedupState {
    rows: RowIndex,
    owners: Owners,
    next_owner: u32,
    next_run: u64,
    /// Runs that [`State::changes`] handed out in this transaction.
    logged: u64,
    pending: Pending,
    cache: OwnerCache,
    runs: Option<RunStore>,
    memory: usize,
}

/// Owners that were read from disk, by number.
type OwnerCache = std::collections::HashMap<u32, Owner>;

/// Owners in the cache, 64 bytes each.
const CACHED_OWNERS: usize = 1 << 16;

/// Numbers in the manifest.
const NEXT_OWNER: &str = "next_owner";
const NEXT_RUN: &str = "next_run";

/// Rows that a map of at most so many bytes holds without growing: 33 bytes per bucket, seven of eight buckets.
fn rows_within(bytes: usize) -> usize {
    let buckets = (bytes / 33).max(16);
    (1 << buckets.ilog2()) / 8 * 7
}

impl DedupState {
    fn number(&self, ident: u128) -> Result<Option<u32>, StageError> {
        let in_memory = self.pending.by_ident.get(&ident).or_else(|| self.owners.numbers.get(&ident)).copied();
        match (in_memory, &self.runs) {
            (None, Some(runs)) => Ok(disk::number(runs, ident)?),
            (known, _) => Ok(known),
        }
    }

    /// The number of a chunk, if it was seen.
    ///
    /// # Errors
    /// When the disk fails, as everywhere here.
    pub fn owner(&self, facts: &OwnerFacts) -> Result<Option<u32>, StageError> {
        self.number(facts.ident)
    }

    /// The number of a chunk; a new one when it was not seen.
    ///
    /// # Errors
    /// When four billion chunks are known already.
    pub fn intern(&mut self, facts: &OwnerFacts) -> Result<u32, StageError> {
        if let Some(known) = self.owner(facts)? {
            return Ok(known);
        }
        let number = u32::try_from(self.pending.owners.len())
            .ok()
            .and_then(|new| self.next_owner.checked_add(new))
            .filter(|number| *number < u32::MAX)
            .ok_or_else(|| StageError::Limit {
                what: "the number of chunks in one shard".to_owned(),
                limit: u64::from(u32::MAX),
                help: "use more partitions of contributions.screened under a new --prefix".to_owned(),
            })?;
        self.pending.owners.push(*facts);
        self.pending.by_ident.insert(facts.ident, number);
        Ok(number)
    }

    /// The verdict on a part that was given before.
    ///
    /// # Errors
    /// See [`DedupState::owner`].
    pub fn verdict(&self, owner: u32, part: u32) -> Result<Option<PartVerdict>, StageError> {
        let key = (owner, part);
        let in_memory = self.pending.verdicts.get(&key).or_else(|| self.owners.verdicts.get(&key)).copied();
        match (in_memory, &self.runs) {
            (None, Some(runs)) => Ok(disk::verdict(runs, owner, part)?),
            (known, _) => Ok(known),
        }
    }

    /// Remembers a verdict.
    pub fn set_verdict(&mut self, owner: u32, part: u32, verdict: PartVerdict) {
        self.pending.verdicts.insert((owner, part), verdict);
    }

    /// The exact chunk gives its rows up; nothing happens when it has none here.
    ///
    /// # Errors
    /// See [`DedupState::owner`].
    pub fn release(&mut self, ident: u128) -> Result<(), StageError> {
        let Some(number) = self.number(ident)? else { return Ok(()) };
        if let Some(owner) = self.find(number)?.filter(|owner| !owner.released) {
            self.pending.released.insert(number, Owner { released: true, ..owner });
        }
        Ok(())
    }

    /// What is known of an owner, as the transaction at hand sees it.
    fn find(&mut self, number: u32) -> Result<Option<Owner>, StageError> {
        let Self { pending, owners, cache, runs, next_owner, .. } = self;
        find_owner(pending, *next_owner, owners, cache, runs.as_ref(), number)
    }

    /// What is known of a row. Rows of released owners belong to nobody.
    ///
    /// # Errors
    /// See [`DedupState::owner`].
    pub fn look_up(&mut self, key: RowKey) -> Result<Known, StageError> {
        let Self { pending, rows, owners, cache, runs, next_owner, .. } = self;
        let (mut search, runs) = (Search::new(key), runs.as_ref());
        let visit = &mut |entry: Entry| -> Result<bool, StageError> {
            let owner = find_owner(pending, *next_owner, owners, cache, runs, entry.owner)?;
            Ok(search.goes_on_after(entry, owner.is_none_or(|owner| owner.released)))
        };
        if pending.rows.search(key, visit)?
            && rows.search(key, visit)?
            && let Some(runs) = runs
        {
            disk::search(runs, key, visit)?;
        }
        Ok(search.known)
    }

    /// Gives a row to a chunk.
    pub fn accept(&mut self, key: RowKey, owner: u32, row: u32) {
        self.pending.rows.put(key.features, Entry { tag: key.tag, owner, row });
    }

    /// How an earlier owner relates to a chunk.
    ///
    /// # Errors
    /// See [`DedupState::owner`].
    pub fn relation(&mut self, earlier: u32, facts: &OwnerFacts) -> Result<Option<Relation>, StageError> {
        Ok(self.find(earlier)?.map(|owner| owner.relation(facts)))
    }

    fn pending_run(&self) -> Run {
        let mut rows: Vec<_> = self.pending.rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        Run {
            first_owner: self.next_owner,
            owners: self.pending.owners.clone(),
            verdicts: self.pending.verdicts.iter().map(|(k, v)| (*k, *v)).collect(),
            released: self.pending.released.keys().copied().collect(),
            rows,
        }
    }

    fn add_owners(&mut self, new: &[OwnerFacts]) {
        for facts in new {
            self.owners.add(self.next_owner, facts);
            self.next_owner = self.next_owner.saturating_add(1);
        }
    }

    fn set_owner(&mut self, number: u32, owner: Owner) {
        self.owners.table.insert(number, owner);
        self.cache.remove(&number);
    }

    /// Rows that memory holds before they go to disk.
    fn most_rows(&self) -> usize {
        rows_within(self.memory / 4 * 3)
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.most_rows() as u64 || self.owners.bytes() >= self.memory as u64 / 4
    }

    /// The runs on disk, for measurements.
    pub fn runs_mut(&mut self) -> Option<&mut RunStore> {
        self.runs.as_mut()
    }
}

fn find_owner(
    pending: &Pending,
    first_pending: u32,
    owners: &Owners,
    cache: &mut OwnerCache,
    runs: Option<&RunStore>,
    number: u32,
) -> Result<Option<Owner>, StageError> {
    if let Some(released) = pending.released.get(&number) {
        return Ok(Some(*released));
    }
    if let Some(new) = number.checked_sub(first_pending) {
        return Ok(pending.owners.get(new as usize).map(Owner::new));
    }
    if let Some(known) = owners.table.get(&number).or_else(|| cache.get(&number)) {
        return Ok(Some(*known));
    }
    let Some(runs) = runs else { return Ok(None) };
    let found = disk::owner(runs, number)?;
    if let Some(owner) = found {
        if cache.len() >= CACHED_OWNERS {
            cache.clear();
        }
        cache.insert(number, owner);
    }
    Ok(found)
}

/// A look-up on its way through the layers, the newest first.
struct Search {
    key: RowKey,
    known: Known,
    /// The row was met: older layers say nothing of it any more.
    met: bool,
    /// Other labels whose newest owner gave them up.
    given_up: BTreeSet<u64>,
}

impl Search {
    fn new(key: RowKey) -> Self {
        Self { key, known: Known { owner: None, other_label: false }, met: false, given_up: BTreeSet::new() }
    }

    /// Takes an entry into account; false when nothing more can change what is known.
    fn goes_on_after(&mut self, entry: Entry, released: bool) -> bool {
        if entry.tag == self.key.tag {
            if !self.met && !released {
                self.known = Known { owner: Some((entry.owner, entry.row)), other_label: false };
                return false;
            }
            self.met = true;
        } else if released {
            self.given_up.insert(entry.tag);
        } else if !self.given_up.contains(&entry.tag) {
            self.known.other_label = true;
        }
        !(self.met && self.known.other_label)
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
        if !run.owners.is_empty() && run.first_owner != self.next_owner {
            return Err(damaged(format!("run {number} numbers its owners from {}", run.first_owner)));
        }
        self.add_owners(&run.owners);
        self.owners.verdicts.extend(run.verdicts);
        for number in run.released {
            let owner = self.find(number)?.ok_or_else(|| damaged(format!("no owner {number} to release")))?;
            self.set_owner(number, Owner { released: true, ..owner });
        }
        run.rows.into_iter().for_each(|(key, entry)| self.rows.put(key.features, entry));
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
        self.add_owners(&pending.owners);
        self.owners.verdicts.extend(pending.verdicts);
        pending.released.into_iter().for_each(|(number, owner)| self.set_owner(number, owner));
        pending.rows.iter().for_each(|(key, entry)| self.rows.put(key.features, entry));
        self.next_run += std::mem::take(&mut self.logged);
    }

    fn abort(&mut self) {
        self.pending = Pending::default();
        self.logged = 0;
    }

    fn size(&self) -> StateSize {
        let (rows, memory, disk) =
            self.runs.as_ref().map_or((0, 0, 0), |runs| (disk::rows(runs), runs.memory(), runs.disk()));
        let bytes = self.rows.bytes() + self.owners.bytes() + 64 * self.cache.len() as u64 + memory;
        StateSize { entries: rows + self.rows.len(), bytes, disk }
    }

    fn open(&mut self, place: &Place) -> Result<Option<Checkpoint>, StageError> {
        let runs = RunStore::open(place, &disk::SHAPES)?;
        self.next_owner = u32::try_from(runs.number(NEXT_OWNER)).unwrap_or(u32::MAX);
        self.next_run = runs.number(NEXT_RUN);
        self.memory = place.memory;
        let checkpoint = runs.checkpoint();
        self.runs = Some(runs);
        Ok(checkpoint)
    }

    const FORM: Option<(&'static str, u16)> = Some(("runs", crate::stream::runs::FORMAT));

    fn snapshot(&self, to: &std::path::Path) -> Result<Option<Snapshot>, StageError> {
        let Some((runs, at)) = self.runs.as_ref().and_then(|runs| Some((runs, runs.checkpoint()?))) else {
            return Ok(None);
        };
        Ok(Some(Snapshot { next_offset: at.next_offset, files: runs.link(to)?, rest: None }))
    }

    fn wants_checkpoint(&self) -> bool {
        self.runs.as_ref().is_some_and(|runs| self.is_full() || runs.is_due())
    }

    fn checkpoint(&mut self, at: &Checkpoint) -> Result<(), StageError> {
        let (full, most_rows) = (self.is_full(), self.most_rows());
        let Some(runs) = &mut self.runs else { return Ok(()) };
        if !full && runs.is_due() {
            return Ok(runs.tend()?);
        }
        let numbers =
            BTreeMap::from([(NEXT_OWNER.to_owned(), u64::from(self.next_owner)), (NEXT_RUN.to_owned(), self.next_run)]);
        runs.flush(&disk::batches(&self.rows, &self.owners), at, numbers)?;
        self.rows.clear(most_rows);
        self.owners = Owners::default();
        Ok(())
    }
}

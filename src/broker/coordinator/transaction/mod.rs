//! Transactions: one record per transactional id, and the two-step end that makes them atomic.
//!
//! ```text
//!  Empty ──► Ongoing ──► PrepareCommit ──► CompleteCommit ──► Ongoing …
//!              │                               ▲ markers and offsets written
//!              └───────► PrepareAbort ───► CompleteAbort
//! ```
//! Invariants:
//! - the records of a transaction are on the disk before its decision is written, and the decision is on the disk
//!   before the first marker is written: nobody reads a record whose commit power loss could take back;
//! - a decision found without its end at start is carried out; records of a producer whose transaction is not
//!   known to be open any more are aborted, so that no partition is held back for ever;
//! - a marker that the disk may have lost is known from its transaction's record until it is durable, and written again at
//!   start: what was committed is committed in every partition;
//! - offsets are on the disk before they are acknowledged: a producer that only commits offsets has nothing else there;
//! - appends of a transaction happen under its lock, so none can slip in behind its marker.

mod reconcile;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::error::ResponseError as E;
use tokio::sync::Notify;

use self::record::Marker;
pub(crate) use self::record::{Phase, Producer, Transaction};
use super::groups::{Groups, Sender};
use super::offsets::{Committed, Place, stored};
use super::producer_id::ProducerIds;
use crate::broker::config::Limits;
use crate::broker::error::BrokerError;
use crate::broker::flusher::{Flusher, Ticket};
use crate::broker::log::partition::AppendError;
use crate::broker::meta::{Change, Key, Meta, forget, put};
use crate::broker::topics::Topics;
use crate::broker::{lock, now_ms};

/// An epoch at which a producer gets a new id instead of the next epoch.
const LAST_EPOCH: i16 = i16::MAX - 1;

type Handle = Arc<Mutex<Transaction>>;

/// The coordinator of all transactions.
pub(crate) struct Transactions {
    known: Mutex<HashMap<String, Handle>>,
    meta: Arc<Meta>,
    flusher: Arc<Flusher>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    ids: ProducerIds,
    limits: Limits,
    began: Notify,
}

/// What InitProducerId has to do next.
enum Init {
    Done(Producer, Ticket),
    NeedsId,
    EndFirst(Ticket),
}

impl Transactions {
    /// Reads transactions back and carries out what was decided.
    pub(crate) fn open(
        meta: &Arc<Meta>,
        flusher: &Arc<Flusher>,
        topics: &Arc<Topics>,
        groups: &Arc<Groups>,
        limits: &Limits,
    ) -> Result<Self, BrokerError> {
        let records = meta.read(|key| if let Key::Transaction(id) = key { Some(id.clone()) } else { None })?;
        let known = records.into_iter().map(|(id, transaction)| (id, Arc::new(Mutex::new(transaction)))).collect();
        let transactions = Self {
            known: Mutex::new(known),
            meta: Arc::clone(meta),
            flusher: Arc::clone(flusher),
            topics: Arc::clone(topics),
            groups: Arc::clone(groups),
            ids: ProducerIds::open(meta, flusher)?,
            limits: limits.clone(),
            began: Notify::new(),
        };
        transactions.reconcile();
        Ok(transactions)
    }

    fn all(&self) -> Vec<(String, Handle)> {
        let mut all: Vec<_> = lock(&self.known).iter().map(|(id, handle)| (id.clone(), Arc::clone(handle))).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Every transactional id with its transaction, ordered by id.
    pub(crate) fn list(&self) -> Vec<(String, Transaction)> {
        self.all().into_iter().map(|(id, handle)| (id, lock(&handle).clone())).collect()
    }

    /// One transaction.
    pub(crate) fn describe(&self, id: &str) -> Option<Transaction> {
        self.find(id).ok().map(|handle| lock(&handle).clone())
    }

    fn find(&self, id: &str) -> Result<Handle, E> {
        lock(&self.known).get(id).map(Arc::clone).ok_or(E::InvalidProducerIdMapping)
    }

    fn store(&self, id: &str, transaction: &Transaction) -> Result<Ticket, E> {
        self.write(vec![put(Key::Transaction(id.into()), transaction)])
    }

    fn write(&self, changes: Vec<Change>) -> Result<Ticket, E> {
        self.meta.write(changes).map_err(|error| {
            tracing::error!(%error, "the metadata log cannot be written");
            E::CoordinatorNotAvailable
        })?;
        Ok(self.flusher.mark(&self.meta))
    }

    async fn durable(&self, ticket: Ticket) -> Result<(), E> {
        self.flusher.wait(ticket).await.map_err(|_| E::CoordinatorNotAvailable)
    }

    // ---- InitProducerId

    /// A producer id without a transactional id.
    pub(crate) async fn init_idempotent(&self) -> Result<Producer, E> {
        let id = self.ids.next().await.map_err(|_| E::CoordinatorNotAvailable)?;
        Ok(Producer { id, epoch: 0 })
    }

    /// The id and the next epoch of a transactional producer. Its predecessor is fenced and its open transaction aborted.
    pub(crate) async fn init(
        &self,
        id: &str,
        timeout_ms: i64,
        expected: Option<Producer>,
        fenced: E,
    ) -> Result<Producer, E> {
        if id.is_empty() {
            return Err(E::InvalidRequest);
        }
        if timeout_ms <= 0 || timeout_ms > self.limits.max_transaction_timeout.as_millis() as i64 {
            return Err(E::InvalidTransactionTimeout);
        }
        let handle = self.find_or_create(id)?;
        let (mut expected, mut spare) = (expected, None);
        loop {
            let step = self.init_step(id, &handle, timeout_ms, expected, &mut spare, fenced)?;
            match step {
                Init::Done(producer, ticket) => {
                    self.durable(ticket).await?;
                    return Ok(producer);
                }
                Init::NeedsId => spare = Some(self.ids.next().await.map_err(|_| E::CoordinatorNotAvailable)?),
                Init::EndFirst(ticket) => {
                    self.durable(ticket).await?;
                    self.carry_out(id, &mut lock(&handle), false)?;
                    expected = None;
                }
            }
        }
    }

    fn find_or_create(&self, id: &str) -> Result<Handle, E> {
        let mut known = lock(&self.known);
        if let Some(handle) = known.get(id) {
            return Ok(Arc::clone(handle));
        }
        if known.len() >= self.limits.transactional_ids {
            tracing::warn!(
                limit = self.limits.transactional_ids,
                "a further transactional id is refused; help: raise the limit"
            );
            return Err(E::PolicyViolation);
        }
        let handle = Arc::new(Mutex::new(Transaction::new()));
        known.insert(id.into(), Arc::clone(&handle));
        Ok(handle)
    }

    fn init_step(
        &self,
        id: &str,
        handle: &Handle,
        timeout_ms: i64,
        expected: Option<Producer>,
        spare: &mut Option<i64>,
        fenced: E,
    ) -> Result<Init, E> {
        let mut transaction = lock(handle);
        let now = now_ms();
        if let Some(expected) = expected
            && transaction.epoch >= 0
            && transaction.producer_id == expected.id
            && expected.epoch == transaction.previous_epoch
            && !transaction.phase.is_deciding()
        {
            // The same request again: its answer was lost.
            return Ok(Init::Done(transaction.producer(), self.store(id, &transaction)?));
        }
        if let Some(expected) = expected
            && transaction.epoch >= 0
            && expected != transaction.producer()
        {
            return Err(fenced);
        }
        match transaction.phase {
            Phase::PrepareCommit | Phase::PrepareAbort => return Ok(Init::EndFirst(self.flusher.mark(&self.meta))),
            Phase::Ongoing => {
                transaction.epoch += 1;
                transaction.phase = Phase::PrepareAbort;
                transaction.updated_at = now;
                return Ok(Init::EndFirst(self.store(id, &transaction)?));
            }
            Phase::Empty | Phase::CompleteCommit | Phase::CompleteAbort => {}
        }
        if transaction.producer_id < 0 || transaction.epoch >= LAST_EPOCH {
            let Some(fresh) = spare.take() else { return Ok(Init::NeedsId) };
            transaction.producer_id = fresh;
            transaction.epoch = -1;
        }
        transaction.previous_epoch = transaction.epoch;
        transaction.epoch += 1;
        transaction.timeout_ms = timeout_ms;
        transaction.phase = Phase::Empty;
        transaction.updated_at = now;
        Ok(Init::Done(transaction.producer(), self.store(id, &transaction)?))
    }

    // ---- inside a transaction

    /// Adds partitions that exist to the transaction, beginning it if needed.
    pub(crate) fn add_partitions(&self, id: &str, producer: Producer, places: Vec<Place>, fenced: E) -> Result<(), E> {
        let handle = self.find(id)?;
        let mut transaction = lock(&handle);
        transaction.check(producer, fenced)?;
        if transaction.phase.is_deciding() {
            return Err(E::ConcurrentTransactions);
        }
        if transaction.phase == Phase::Ongoing && places.iter().all(|place| transaction.partitions.contains(place)) {
            return Ok(());
        }
        self.begin(&mut transaction);
        transaction.partitions.extend(places);
        self.store(id, &transaction).map(drop)
    }

    fn begin(&self, transaction: &mut Transaction) {
        self.forget_durable_markers(transaction);
        let begins = transaction.phase != Phase::Ongoing;
        transaction.begin_if_idle(now_ms());
        if begins {
            self.began.notify_one();
        }
    }

    /// Adds a consumer group whose offsets the transaction will commit.
    pub(crate) fn add_group(&self, id: &str, producer: Producer, group: &str, fenced: E) -> Result<(), E> {
        let handle = self.find(id)?;
        let mut transaction = lock(&handle);
        transaction.check(producer, fenced)?;
        if transaction.phase.is_deciding() {
            return Err(E::ConcurrentTransactions);
        }
        self.begin(&mut transaction);
        if transaction.groups.insert(group.into()) {
            let _ = self.store(id, &transaction)?;
        }
        Ok(())
    }

    /// Commits offsets as part of the transaction. When it returns, they are on the disk.
    pub(crate) async fn commit_offsets(
        &self,
        id: &str,
        producer: Producer,
        sender: Sender<'_>,
        offsets: Vec<(Place, Committed)>,
    ) -> Result<(), E> {
        let held = self.hold_offsets(id, producer, sender, offsets)?;
        self.durable(held).await
    }

    fn hold_offsets(
        &self,
        id: &str,
        producer: Producer,
        sender: Sender<'_>,
        offsets: Vec<(Place, Committed)>,
    ) -> Result<Ticket, E> {
        let handle = self.find(id)?;
        let mut transaction = lock(&handle);
        transaction.check(producer, E::InvalidProducerEpoch)?;
        if transaction.phase != Phase::Ongoing || !transaction.groups.contains(sender.group) {
            return Err(E::InvalidTxnState);
        }
        self.groups.hold(sender, producer.id, &offsets)?;
        let held = transaction.offsets.entry(sender.group.into()).or_default();
        for (place, committed) in offsets {
            held.retain(|(other, _)| *other != place);
            held.push((place, committed));
        }
        self.store(id, &transaction)
    }

    /// Runs `append` if the partition is part of the producer's open transaction, which stays open meanwhile.
    pub(crate) fn append<T>(
        &self,
        id: &str,
        producer: Producer,
        place: &Place,
        append: impl FnOnce() -> (T, Option<Ticket>),
    ) -> Result<T, E> {
        let handle = self.find(id)?;
        let mut transaction = lock(&handle);
        transaction.check(producer, E::InvalidProducerEpoch)?;
        if transaction.phase != Phase::Ongoing || !transaction.partitions.contains(place) {
            return Err(E::InvalidTxnState);
        }
        let (result, ticket) = append();
        transaction.appended = transaction.appended.max(ticket);
        Ok(result)
    }

    // ---- the end

    /// Commits or aborts. When it returns, the decision is on the disk and carried out.
    pub(crate) async fn end(&self, id: &str, producer: Producer, commit: bool, fenced: E) -> Result<(), E> {
        let handle = self.find(id)?;
        let appended = lock(&handle).appended;
        if let Some(ticket) = appended.filter(|ticket| !self.flusher.is_done(*ticket)) {
            self.durable(ticket).await?;
        }
        let Some(ticket) = self.decide(id, &mut lock(&handle), producer, commit, fenced)? else { return Ok(()) };
        self.durable(ticket).await?;
        self.carry_out(id, &mut lock(&handle), false)
    }

    /// Writes the decision; `None` when it was made and carried out before.
    fn decide(
        &self,
        id: &str,
        transaction: &mut Transaction,
        producer: Producer,
        commit: bool,
        fenced: E,
    ) -> Result<Option<Ticket>, E> {
        transaction.check(producer, fenced)?;
        match (transaction.phase, commit) {
            (Phase::Ongoing, _) => {
                transaction.phase = if commit { Phase::PrepareCommit } else { Phase::PrepareAbort };
                transaction.updated_at = now_ms();
                self.store(id, transaction).map(Some)
            }
            (Phase::CompleteCommit, true) | (Phase::CompleteAbort, false) => Ok(None),
            // Decided, but its end is still under way or has failed: carry it out.
            (Phase::PrepareCommit, true) | (Phase::PrepareAbort, false) => Ok(Some(self.flusher.mark(&self.meta))),
            _ => Err(E::InvalidTxnState),
        }
    }

    /// Carries a durable decision out: markers, offsets, and the record of its completion.
    fn carry_out(&self, id: &str, transaction: &mut Transaction, after_crash: bool) -> Result<(), E> {
        let commit = match transaction.phase {
            Phase::PrepareCommit => true,
            Phase::PrepareAbort => false,
            _ => return Ok(()),
        };
        self.forget_durable_markers(transaction);
        // A partition is taken off the list with its marker: if this fails half-way, the next try goes on from there.
        while let Some((topic, index)) = transaction.partitions.first().cloned() {
            self.write_marker(transaction, &topic, index, commit, after_crash)?;
            transaction.partitions.remove(&(topic, index));
        }
        let done = Transaction {
            phase: if commit { Phase::CompleteCommit } else { Phase::CompleteAbort },
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
            appended: None,
            ..transaction.clone()
        };
        let mut changes = vec![put(Key::Transaction(id.into()), &done)];
        if commit {
            for (group, offsets) in &transaction.offsets {
                changes.extend(stored(group, offsets.iter().map(|(place, committed)| (place, committed))));
            }
        }
        let _ = self.write(changes)?;
        for group in transaction.offsets.keys() {
            self.groups.settle(group, transaction.producer_id, commit);
        }
        *transaction = done;
        Ok(())
    }

    fn forget_durable_markers(&self, transaction: &mut Transaction) {
        if transaction.marked.is_some_and(|ticket| self.flusher.is_done(ticket)) {
            transaction.markers.clear();
            transaction.marked = None;
        }
    }

    fn write_marker(
        &self,
        transaction: &mut Transaction,
        topic: &str,
        index: i32,
        commit: bool,
        after_crash: bool,
    ) -> Result<(), E> {
        let Some(partition) = self.topics.partition(topic, index) else { return Ok(()) };
        if after_crash && !partition.with_producers(|producers| producers.is_open(transaction.producer_id)) {
            return Ok(());
        }
        match partition.append_marker(transaction.producer_id, transaction.epoch, commit) {
            Ok((offset, ticket)) => {
                let (producer_id, epoch) = (transaction.producer_id, transaction.epoch);
                let place = (topic.to_owned(), index);
                transaction.markers.push(Marker { place, offset, producer_id, epoch, commit });
                transaction.marked = transaction.marked.max(Some(ticket));
                Ok(())
            }
            Err(AppendError::Deleted) => Ok(()),
            Err(error) => {
                tracing::error!(%error, topic, partition = index, "a transaction marker cannot be written");
                Err(E::CoordinatorNotAvailable)
            }
        }
    }

    // ---- time

    /// Aborts transactions whose time is up; sleeps while none is open.
    pub(crate) async fn run_timeouts(&self) {
        loop {
            let now = now_ms();
            let mut next: Option<i64> = None;
            for (id, handle) in self.all() {
                let deadline = lock(&handle).deadline();
                match deadline {
                    Some(deadline) if deadline <= now => self.abort_expired(&id, &handle).await,
                    Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                    None => {}
                }
            }
            match next {
                // Looking again at most once a second keeps a busy broker from scanning for every transaction.
                Some(next) => {
                    tokio::time::sleep(Duration::from_millis((next - now).clamp(1, 1_000) as u64)).await;
                }
                None => self.began.notified().await,
            }
        }
    }

    async fn abort_expired(&self, id: &str, handle: &Handle) {
        let ticket = {
            let mut transaction = lock(handle);
            if transaction.deadline().is_none_or(|deadline| deadline > now_ms()) {
                return;
            }
            tracing::info!(transactional_id = id, "aborting a transaction that ran longer than its timeout");
            transaction.epoch = transaction.epoch.saturating_add(1);
            transaction.phase = Phase::PrepareAbort;
            transaction.updated_at = now_ms();
            self.store(id, &transaction)
        };
        let ended = match ticket {
            Ok(ticket) => self.durable(ticket).await.and_then(|()| self.carry_out(id, &mut lock(handle), false)),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(transactional_id = id, ?error, "an expired transaction cannot be aborted");
        }
    }

    /// Forgets transactional ids that nobody has used for long.
    pub(crate) fn expire(&self, now: i64) {
        let horizon = now - self.limits.transactional_id_expiry.as_millis() as i64;
        let mut changes = Vec::new();
        lock(&self.known).retain(|id, handle| {
            let transaction = lock(handle);
            let idle = matches!(transaction.phase, Phase::Empty | Phase::CompleteCommit | Phase::CompleteAbort);
            let gone = idle && transaction.producer_id >= 0 && transaction.updated_at < horizon;
            if gone {
                changes.push(forget(Key::Transaction(id.clone())));
            }
            !gone
        });
        if !changes.is_empty() {
            let _ = self.write(changes);
        }
    }
}

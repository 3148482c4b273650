//! All consumer groups: their timers, their storage, and the waiting that [`Group`] leaves to its caller.
//!
//! Locks are taken in the order transaction, group, metadata log, and never held across a wait. A group's timer
//! runs only while the group has members.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use tokio::sync::{Notify, oneshot};

use super::group::{Group, JoinAttempt, Joined, Phase, Synced};
use super::offsets::{Committed, Known, Place, stored};
use crate::broker::config::Limits;
use crate::broker::error::BrokerError;
use crate::broker::flusher::{Flusher, Ticket};
use crate::broker::meta::{Key, Meta, forget, put};
use crate::broker::{lock, now_ms};

/// A group with what the coordinator keeps beside it.
struct Handle {
    inner: Mutex<Inner>,
    wake: Notify,
}

struct Inner {
    group: Group,
    /// The flush that covers the last stored form.
    stored: Option<Ticket>,
    timer_runs: bool,
}

/// Who sends a request in the name of a group's member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub group: &'a str,
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
}

/// A group as DescribeGroups tells it.
#[derive(Debug)]
pub(crate) struct Described {
    pub phase: Phase,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups tells it.
#[derive(Debug)]
pub(crate) struct DescribedMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// The coordinator of all groups.
pub(crate) struct Groups {
    groups: Mutex<HashMap<String, Arc<Handle>>>,
    meta: Arc<Meta>,
    flusher: Arc<Flusher>,
    limits: Limits,
}

impl Groups {
    /// Reads groups and offsets back; members get a session timeout to show up again.
    pub(crate) fn open(meta: &Arc<Meta>, flusher: &Arc<Flusher>, limits: &Limits) -> Result<Self, BrokerError> {
        let now = now_ms();
        let mut groups: HashMap<String, Group> = HashMap::new();
        let records = meta.read(|key| if let Key::Group(id) = key { Some(id.clone()) } else { None })?;
        for (id, group) in records {
            let group: Group = group;
            groups.insert(id.clone(), group.revived(&id, now));
        }
        let offsets = meta.read(|key| match key {
            Key::Offset(group, topic, partition) => Some((group.clone(), (topic.clone(), *partition))),
            _ => None,
        })?;
        for ((id, place), committed) in offsets {
            groups.entry(id.clone()).or_insert_with(|| Group::new(&id, now)).offsets.commit([(place, committed)]);
        }
        let groups = groups.into_iter().map(|(id, group)| (id, Arc::new(Handle::new(group)))).collect();
        Ok(Self {
            groups: Mutex::new(groups),
            meta: Arc::clone(meta),
            flusher: Arc::clone(flusher),
            limits: limits.clone(),
        })
    }

    /// Starts the timers of groups that came back with members. Call it inside the runtime.
    pub(crate) fn start_timers(&self) {
        for handle in self.handles() {
            let mut inner = lock(&handle.inner);
            self.after_change(&handle, &mut inner);
        }
    }

    fn handles(&self) -> Vec<Arc<Handle>> {
        lock(&self.groups).values().map(Arc::clone).collect()
    }

    fn find(&self, id: &str) -> Option<Arc<Handle>> {
        lock(&self.groups).get(id).map(Arc::clone)
    }

    fn find_or_create(&self, id: &str) -> Result<Arc<Handle>, E> {
        if id.is_empty() {
            return Err(E::InvalidGroupId);
        }
        let mut groups = lock(&self.groups);
        if let Some(handle) = groups.get(id) {
            return Ok(Arc::clone(handle));
        }
        if groups.len() >= self.limits.groups {
            tracing::warn!(
                limit = self.limits.groups,
                "a further consumer group is refused; help: delete groups or raise the limit"
            );
            return Err(E::PolicyViolation);
        }
        let handle = Arc::new(Handle::new(Group::new(id, now_ms())));
        groups.insert(id.into(), Arc::clone(&handle));
        Ok(handle)
    }

    /// Stores the group if it changed and sees to its timer.
    fn after_change(&self, handle: &Arc<Handle>, inner: &mut Inner) {
        if std::mem::take(&mut inner.group.changed) {
            let change = put(Key::Group(inner.group.id.clone()), &inner.group);
            match self.meta.write(vec![change]) {
                Ok(()) => inner.stored = Some(self.flusher.mark(&self.meta)),
                Err(error) => tracing::error!(%error, group = inner.group.id, "a group cannot be stored"),
            }
        }
        if inner.timer_runs {
            handle.wake.notify_one();
        } else if inner.group.next_deadline().is_some() {
            inner.timer_runs = true;
            let (meta, flusher) = (Arc::clone(&self.meta), Arc::clone(&self.flusher));
            tokio::spawn(run_timer(Arc::clone(handle), meta, flusher));
        }
    }

    /// A member joins; the answer comes when the rebalance lets it.
    pub(crate) async fn join(&self, group: &str, attempt: JoinAttempt) -> Joined {
        let allowed =
            self.limits.min_session_timeout.as_millis() as i64..=self.limits.max_session_timeout.as_millis() as i64;
        let member_id = attempt.member_id.clone();
        if !allowed.contains(&attempt.session_timeout_ms) {
            return Joined::failed(E::InvalidSessionTimeout, &member_id);
        }
        let handle = match (self.find(group), member_id.is_empty()) {
            (Some(handle), _) => handle,
            (None, false) => return Joined::failed(E::UnknownMemberId, &member_id),
            (None, true) => match self.find_or_create(group) {
                Ok(handle) => handle,
                Err(error) => return Joined::failed(error, &member_id),
            },
        };
        let prefix = attempt.instance_id.as_deref().unwrap_or(&attempt.client_id);
        let Ok(fresh_id) = crate::broker::topics::TopicId::random().map(|id| format!("{prefix}-{id}")) else {
            return Joined::failed(E::CoordinatorNotAvailable, &member_id);
        };
        let (receiver, stored) = {
            let mut inner = lock(&handle.inner);
            let receiver = inner.group.join(attempt, fresh_id, self.limits.group_members, now_ms());
            self.after_change(&handle, &mut inner);
            (receiver, inner.stored)
        };
        let joined = receiver.await.unwrap_or_else(|_| Joined::failed(E::CoordinatorNotAvailable, &member_id));
        match self.durable(stored).await {
            Ok(()) => joined,
            Err(error) => Joined::failed(error, &member_id),
        }
    }

    async fn durable(&self, ticket: Option<Ticket>) -> Result<(), E> {
        match ticket {
            Some(ticket) => self.flusher.wait(ticket).await.map_err(|_| E::CoordinatorNotAvailable),
            None => Ok(()),
        }
    }

    /// A member asks for its assignment.
    pub(crate) async fn sync(
        &self,
        sender: Sender<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
    ) -> Result<Synced, E> {
        let handle = self.find(sender.group).ok_or(E::UnknownMemberId)?;
        let receiver: oneshot::Receiver<_> = {
            let mut inner = lock(&handle.inner);
            let group = &mut inner.group;
            let receiver =
                group.sync(sender.member_id, sender.instance_id, sender.generation, protocol, assignments, now_ms());
            self.after_change(&handle, &mut inner);
            receiver
        };
        let synced = receiver.await.unwrap_or(Err(E::CoordinatorNotAvailable))?;
        let stored = lock(&handle.inner).stored;
        self.durable(stored).await?;
        Ok(synced)
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&self, sender: Sender<'_>) -> Result<(), E> {
        let handle = self.find(sender.group).ok_or(E::UnknownMemberId)?;
        lock(&handle.inner).group.heartbeat(sender.member_id, sender.instance_id, sender.generation, now_ms())
    }

    /// A member leaves.
    pub(crate) fn leave(&self, group: &str, member_id: &str, instance_id: Option<&str>) -> Result<(), E> {
        let handle = self.find(group).ok_or(E::UnknownMemberId)?;
        let mut inner = lock(&handle.inner);
        let result = inner.group.leave(member_id, instance_id, now_ms());
        self.after_change(&handle, &mut inner);
        result
    }

    /// Commits offsets; they are on the disk when it returns.
    pub(crate) async fn commit(&self, sender: Sender<'_>, offsets: Vec<(Place, Committed)>) -> Result<(), E> {
        let handle = match self.find(sender.group) {
            Some(handle) => handle,
            None if sender.generation < 0 => self.find_or_create(sender.group)?,
            None => return Err(E::IllegalGeneration),
        };
        let ticket = {
            let mut inner = lock(&handle.inner);
            let group = &mut inner.group;
            group.check_commit(sender.member_id, sender.instance_id, sender.generation, false)?;
            group.touch(sender.member_id, now_ms());
            let changes = stored(sender.group, offsets.iter().map(|(place, committed)| (place, committed)));
            self.meta.write(changes).map_err(|_| E::CoordinatorNotAvailable)?;
            group.offsets.commit(offsets);
            self.flusher.mark(&self.meta)
        };
        self.durable(Some(ticket)).await
    }

    /// Holds offsets that count once the producer's transaction commits.
    pub(crate) fn hold(&self, sender: Sender<'_>, producer_id: i64, offsets: &[(Place, Committed)]) -> Result<(), E> {
        let handle = match self.find(sender.group) {
            Some(handle) => handle,
            None if sender.generation < 0 => self.find_or_create(sender.group)?,
            None => return Err(E::IllegalGeneration),
        };
        let mut inner = lock(&handle.inner);
        inner.group.check_commit(sender.member_id, sender.instance_id, sender.generation, true)?;
        inner.group.offsets.hold(producer_id, offsets.iter().cloned());
        Ok(())
    }

    /// Puts the offsets of a transaction found open at start back.
    pub(crate) fn restore_held(&self, group: &str, producer_id: i64, offsets: &[(Place, Committed)]) {
        if let Ok(handle) = self.find_or_create(group) {
            lock(&handle.inner).group.offsets.hold(producer_id, offsets.iter().cloned());
        }
    }

    /// Ends a producer's transaction for one group.
    pub(crate) fn settle(&self, group: &str, producer_id: i64, commit: bool) {
        if let Some(handle) = self.find(group) {
            lock(&handle.inner).group.offsets.settle(producer_id, commit);
        }
    }

    /// The committed offsets of the places asked for, or of all.
    pub(crate) fn fetch(&self, group: &str, places: Option<Vec<Place>>, require_stable: bool) -> Vec<(Place, Known)> {
        let Some(handle) = self.find(group) else {
            return places.unwrap_or_default().into_iter().map(|place| (place, Known::Nothing)).collect();
        };
        let inner = lock(&handle.inner);
        let offsets = &inner.group.offsets;
        let places = places.unwrap_or_else(|| offsets.places());
        places.into_iter().map(|place| (place.clone(), offsets.get(&place, require_stable))).collect()
    }

    /// A group as it is; `None` when it does not exist.
    pub(crate) fn describe(&self, group: &str) -> Option<Described> {
        let handle = self.find(group)?;
        let inner = lock(&handle.inner);
        let group = &inner.group;
        let members = group.members.iter().map(|(id, member)| DescribedMember {
            id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscription: if group.phase == Phase::Stable {
                member.subscription(group.protocol.as_deref())
            } else {
                Bytes::new()
            },
            assignment: member.assignment.clone(),
        });
        Some(Described {
            phase: group.phase,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: group.protocol.clone().filter(|_| group.phase == Phase::Stable).unwrap_or_default(),
            members: members.collect(),
        })
    }

    #[cfg(test)]
    pub(crate) fn generation(&self, group: &str) -> Option<i32> {
        self.find(group).map(|handle| lock(&handle.inner).group.generation)
    }

    /// Id, protocol type and state of every group, ordered by id.
    pub(crate) fn list(&self) -> Vec<(String, String, Phase)> {
        let mut list: Vec<_> = self
            .handles()
            .iter()
            .map(|handle| {
                let inner = lock(&handle.inner);
                (inner.group.id.clone(), inner.group.protocol_type.clone().unwrap_or_default(), inner.group.phase)
            })
            .collect();
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// Deletes a group without members.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), E> {
        let ticket = {
            let mut groups = lock(&self.groups);
            let handle = groups.get(id).map(Arc::clone).ok_or(E::GroupIdNotFound)?;
            let mut inner = lock(&handle.inner);
            if inner.group.phase != Phase::Empty || inner.group.offsets.has_pending() {
                return Err(E::NonEmptyGroup);
            }
            let mut changes = inner.group.offsets.forget(id, |_, _| true);
            changes.push(forget(Key::Group(id.into())));
            self.meta.write(changes).map_err(|_| E::CoordinatorNotAvailable)?;
            inner.group.kill();
            groups.remove(id);
            self.flusher.mark(&self.meta)
        };
        self.durable(Some(ticket)).await
    }

    /// Deletes offsets of a group; those of topics its members are subscribed to are kept.
    pub(crate) async fn delete_offsets(&self, id: &str, places: Vec<Place>) -> Result<BTreeMap<Place, Option<E>>, E> {
        let handle = self.find(id).ok_or(E::GroupIdNotFound)?;
        let mut results = BTreeMap::new();
        let ticket = {
            let mut inner = lock(&handle.inner);
            let group = &mut inner.group;
            if group.phase == Phase::Dead {
                return Err(E::GroupIdNotFound);
            }
            let is_consumer = group.protocol_type.as_deref() == Some("consumer");
            if group.phase != Phase::Empty && !is_consumer {
                return Err(E::NonEmptyGroup);
            }
            let subscribed = group.subscribed_topics();
            for place in places {
                let error = subscribed.contains(&place.0).then_some(E::GroupSubscribedToTopic);
                results.insert(place, error);
            }
            let changes = group.offsets.forget(id, |place, _| results.get(place) == Some(&None));
            self.meta.write(changes).map_err(|_| E::CoordinatorNotAvailable)?;
            self.flusher.mark(&self.meta)
        };
        self.durable(Some(ticket)).await?;
        Ok(results)
    }

    /// Forgets the offsets of a deleted topic.
    pub(crate) fn forget_topic(&self, topic: &str) {
        for handle in self.handles() {
            let mut inner = lock(&handle.inner);
            let id = inner.group.id.clone();
            let changes = inner.group.offsets.forget(&id, |place, _| place.0 == topic);
            if !changes.is_empty() && self.meta.write(changes).is_ok() {
                let _ = self.flusher.mark(&self.meta);
            }
        }
    }

    /// Forgets offsets of groups that have been empty for longer than their retention, and empty groups.
    pub(crate) fn expire(&self, now: i64) {
        let horizon = now - self.limits.offsets_retention.as_millis() as i64;
        let mut groups = lock(&self.groups);
        groups.retain(|id, handle| {
            let mut inner = lock(&handle.inner);
            let group = &mut inner.group;
            if group.phase != Phase::Empty || group.emptied_at >= horizon {
                return true;
            }
            let mut changes = group.offsets.forget(id, |_, committed| committed.at < horizon);
            let gone = group.is_disposable();
            if gone {
                changes.push(forget(Key::Group(id.clone())));
                group.kill();
            }
            if !changes.is_empty() && self.meta.write(changes).is_ok() {
                let _ = self.flusher.mark(&self.meta);
            }
            !gone
        });
    }
}

impl Handle {
    fn new(group: Group) -> Self {
        Self { inner: Mutex::new(Inner { group, stored: None, timer_runs: false }), wake: Notify::new() }
    }
}

/// Ticks a group at its deadlines; ends when it has none.
async fn run_timer(handle: Arc<Handle>, meta: Arc<Meta>, flusher: Arc<Flusher>) {
    loop {
        let wait = {
            let mut inner = lock(&handle.inner);
            let now = now_ms();
            inner.group.tick(now);
            if std::mem::take(&mut inner.group.changed) {
                let change = put(Key::Group(inner.group.id.clone()), &inner.group);
                if meta.write(vec![change]).is_ok() {
                    inner.stored = Some(flusher.mark(&meta));
                }
            }
            match inner.group.next_deadline() {
                Some(deadline) if inner.group.phase != Phase::Dead => {
                    Duration::from_millis((deadline - now).max(1) as u64)
                }
                _ => {
                    inner.timer_runs = false;
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = handle.wake.notified() => {}
        }
    }
}

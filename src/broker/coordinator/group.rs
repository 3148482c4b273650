//! One consumer group: the state machine of the classic rebalance protocol, without clock, network or disk.
//!
//! ```text
//!            join                  all joined, or time is up            leader syncs
//!  Empty ──────────► PreparingRebalance ──────────────► CompletingRebalance ──────────► Stable
//!    ▲                  ▲  join, leave, expiry in any later state  │                      │
//!    └── no member left ┴──────────────────────────────────────────┴──────────────────────┘
//! ```
//! Rules and error codes are those of Apache Kafka's `GroupMetadataManager` for classic groups. Times are
//! milliseconds handed in by the caller; answers that have to wait are channels kept with the member.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::offsets::Offsets;

/// A group's state, by the name Kafka gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// The answer to a join.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub error: Option<E>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub member_id: String,
    pub skip_assignment: bool,
    /// Member id, instance id and subscription; for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    pub(crate) fn failed(error: E, member_id: &str) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.into(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// The answer to a sync: the assignment, with the protocol it was made under.
#[derive(Debug, Clone)]
pub(crate) struct Synced {
    pub assignment: Bytes,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
}

type SyncAnswer = Result<Synced, E>;

/// A member as it asks to join.
#[derive(Debug, Clone)]
pub(crate) struct JoinAttempt {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocol_type: String,
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a member without id must come back with the one it is given.
    pub require_known_id: bool,
    /// Whether the client can be told to keep the present assignment.
    pub can_skip_assignment: bool,
}

/// One member.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    session_timeout_ms: i64,
    rebalance_timeout_ms: i64,
    #[serde(with = "subscriptions")]
    protocols: Vec<(String, Bytes)>,
    #[serde(with = "hex")]
    pub assignment: Bytes,
    #[serde(skip)]
    expires_at: i64,
    #[serde(skip)]
    joining: Option<oneshot::Sender<Joined>>,
    #[serde(skip)]
    syncing: Option<oneshot::Sender<SyncAnswer>>,
}

impl Member {
    /// Its subscription under one protocol.
    pub(crate) fn subscription(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    fn renew(&mut self, now: i64) {
        self.expires_at = now + self.session_timeout_ms;
    }
}

/// A consumer group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    #[serde(skip)]
    pub id: String,
    #[serde(skip, default = "empty_phase")]
    pub phase: Phase,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    #[serde(skip)]
    static_members: HashMap<String, String>,
    /// Ids given to members that have not come back with them yet, with their expiry.
    #[serde(skip)]
    announced: HashMap<String, i64>,
    #[serde(skip)]
    deadline: Option<i64>,
    #[serde(skip)]
    pub offsets: Offsets,
    /// When the last member left, in milliseconds of the clock.
    pub emptied_at: i64,
    /// Set when the stored form has changed.
    #[serde(skip)]
    pub changed: bool,
}

fn empty_phase() -> Phase {
    Phase::Empty
}

impl Group {
    pub(crate) fn new(id: &str, now: i64) -> Self {
        Self {
            id: id.into(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            announced: HashMap::new(),
            deadline: None,
            offsets: Offsets::default(),
            emptied_at: now,
            changed: false,
        }
    }

    /// A stored group at start: its members have a session timeout to show up again.
    pub(crate) fn revived(mut self, id: &str, now: i64) -> Self {
        self.id = id.into();
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
        for (member_id, member) in &mut self.members {
            member.renew(now);
            if let Some(instance) = &member.instance_id {
                self.static_members.insert(instance.clone(), member_id.clone());
            }
        }
        self
    }

    /// Whether nothing would be lost with it.
    pub(crate) fn is_disposable(&self) -> bool {
        self.phase == Phase::Empty && self.announced.is_empty() && self.offsets.is_empty()
    }

    // ---- joining

    /// A member asks to join. `fresh_id` is used if it has to be given an id. The answer may come later.
    pub(crate) fn join(
        &mut self,
        attempt: JoinAttempt,
        fresh_id: String,
        max_members: usize,
        now: i64,
    ) -> oneshot::Receiver<Joined> {
        let (sender, receiver) = oneshot::channel();
        if let Err(error) = self.try_join(attempt, fresh_id, max_members, now, sender) {
            let (sender, receiver) = oneshot::channel();
            let _ = sender.send(*error);
            return receiver;
        }
        receiver
    }

    fn try_join(
        &mut self,
        attempt: JoinAttempt,
        fresh_id: String,
        max_members: usize,
        now: i64,
        sender: oneshot::Sender<Joined>,
    ) -> Result<(), Box<Joined>> {
        let failed = |error| Err(Box::new(Joined::failed(error, &attempt.member_id)));
        if self.phase == Phase::Dead {
            return failed(E::CoordinatorNotAvailable);
        }
        if !self.accepts(&attempt) {
            return failed(E::InconsistentGroupProtocol);
        }
        if attempt.member_id.is_empty() {
            return self.join_without_id(attempt, fresh_id, max_members, now, sender);
        }
        if self.announced.remove(&attempt.member_id).is_some() {
            if self.members.len() >= max_members {
                return failed(E::GroupMaxSizeReached);
            }
            let id = attempt.member_id.clone();
            self.add(id, attempt, now, sender);
            return Ok(());
        }
        if let Err(error) = self.identify(&attempt.member_id, attempt.instance_id.as_deref()) {
            return failed(error);
        }
        self.rejoin(attempt, now, sender)
    }

    fn join_without_id(
        &mut self,
        attempt: JoinAttempt,
        fresh_id: String,
        max_members: usize,
        now: i64,
        sender: oneshot::Sender<Joined>,
    ) -> Result<(), Box<Joined>> {
        let known = attempt.instance_id.as_ref().and_then(|instance| self.static_members.get(instance).cloned());
        if let Some(old_id) = known {
            self.replace_static(&old_id, fresh_id, attempt, now, sender);
            return Ok(());
        }
        if self.members.len() >= max_members {
            return Err(Box::new(Joined::failed(E::GroupMaxSizeReached, "")));
        }
        if attempt.instance_id.is_none() && attempt.require_known_id {
            self.announced.insert(fresh_id.clone(), now + attempt.session_timeout_ms);
            return Err(Box::new(Joined::failed(E::MemberIdRequired, &fresh_id)));
        }
        self.add(fresh_id, attempt, now, sender);
        Ok(())
    }

    /// A member that is known joins again.
    fn rejoin(&mut self, attempt: JoinAttempt, now: i64, sender: oneshot::Sender<Joined>) -> Result<(), Box<Joined>> {
        let id = attempt.member_id.clone();
        let unchanged = self.members.get(&id).is_some_and(|member| member.protocols == attempt.protocols);
        let is_leader = self.leader.as_deref() == Some(&id);
        match self.phase {
            Phase::CompletingRebalance if unchanged => {
                // It has not heard the answer to its join: give it again.
                self.update(&id, attempt, now, None);
                let _ = sender.send(self.joined(&id));
            }
            Phase::Stable if unchanged && !is_leader => {
                self.update(&id, attempt, now, None);
                let _ = sender.send(self.joined(&id));
            }
            Phase::PreparingRebalance | Phase::CompletingRebalance | Phase::Stable => {
                self.update(&id, attempt, now, Some(sender));
                self.prepare_rebalance(now);
            }
            Phase::Empty | Phase::Dead => return Err(Box::new(Joined::failed(E::UnknownMemberId, &id))),
        }
        Ok(())
    }

    fn accepts(&self, attempt: &JoinAttempt) -> bool {
        if attempt.protocols.is_empty() || attempt.protocol_type.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let mut others =
            self.members.iter().filter(|(id, _)| **id != attempt.member_id).map(|(_, member)| member).peekable();
        if others.peek().is_none() {
            return true;
        }
        let others: Vec<_> = others.collect();
        self.protocol_type.as_deref() == Some(&attempt.protocol_type)
            && attempt
                .protocols
                .iter()
                .any(|(name, _)| others.iter().all(|member| member.protocols.iter().any(|(other, _)| other == name)))
    }

    fn add(&mut self, id: String, attempt: JoinAttempt, now: i64, sender: oneshot::Sender<Joined>) {
        if self.members.is_empty() {
            self.protocol_type = Some(attempt.protocol_type);
        }
        if let Some(instance) = &attempt.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        let mut member = Member {
            instance_id: attempt.instance_id,
            client_id: attempt.client_id,
            client_host: attempt.client_host,
            session_timeout_ms: attempt.session_timeout_ms,
            rebalance_timeout_ms: attempt.rebalance_timeout_ms,
            protocols: attempt.protocols,
            assignment: Bytes::new(),
            expires_at: 0,
            joining: Some(sender),
            syncing: None,
        };
        member.renew(now);
        self.members.insert(id, member);
        self.prepare_rebalance(now);
    }

    fn update(&mut self, id: &str, attempt: JoinAttempt, now: i64, sender: Option<oneshot::Sender<Joined>>) {
        if let Some(member) = self.members.get_mut(id) {
            member.protocols = attempt.protocols;
            member.session_timeout_ms = attempt.session_timeout_ms;
            member.rebalance_timeout_ms = attempt.rebalance_timeout_ms;
            member.client_id = attempt.client_id;
            member.client_host = attempt.client_host;
            member.renew(now);
            if sender.is_some() {
                member.joining = sender;
            }
        }
    }

    /// A static member comes back under a new id; the old id is fenced.
    fn replace_static(
        &mut self,
        old_id: &str,
        new_id: String,
        attempt: JoinAttempt,
        now: i64,
        sender: oneshot::Sender<Joined>,
    ) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        if let Some(joining) = member.joining.take() {
            let _ = joining.send(Joined::failed(E::FencedInstanceId, old_id));
        }
        if let Some(syncing) = member.syncing.take() {
            let _ = syncing.send(Err(E::FencedInstanceId));
        }
        if let Some(instance) = &attempt.instance_id {
            self.static_members.insert(instance.clone(), new_id.clone());
        }
        let was_leader = self.leader.as_deref() == Some(old_id);
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        let can_skip = attempt.can_skip_assignment;
        self.members.insert(new_id.clone(), member);
        self.update(&new_id, attempt, now, None);
        self.changed = true;
        if self.phase == Phase::Stable && self.protocol == self.select_protocol() {
            let mut joined = self.joined(&new_id);
            if was_leader && can_skip {
                joined.skip_assignment = true;
            } else if was_leader {
                // An older client would compute an assignment nobody asks for: let it be a follower.
                joined.leader = old_id.into();
                joined.members.clear();
            }
            let _ = sender.send(joined);
            return;
        }
        if let Some(member) = self.members.get_mut(&new_id) {
            member.joining = Some(sender);
        }
        self.prepare_rebalance(now);
    }

    // ---- the rebalance

    fn prepare_rebalance(&mut self, now: i64) {
        if self.phase == Phase::CompletingRebalance {
            for member in self.members.values_mut() {
                if let Some(syncing) = member.syncing.take() {
                    let _ = syncing.send(Err(E::RebalanceInProgress));
                }
            }
        }
        if self.phase != Phase::PreparingRebalance {
            self.phase = Phase::PreparingRebalance;
            let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
            self.deadline = Some(now + longest);
        }
        self.complete_join_if_all(now);
    }

    fn complete_join_if_all(&mut self, now: i64) {
        if self.phase == Phase::PreparingRebalance
            && self.announced.is_empty()
            && self.members.values().all(|member| member.joining.is_some())
        {
            self.complete_join(now);
        }
    }

    /// Starts the next generation with those who have joined.
    fn complete_join(&mut self, now: i64) {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        let only_absent_static =
            self.members.values().all(|member| member.joining.is_none() && member.instance_id.is_some());
        if !self.members.is_empty() && only_absent_static {
            self.deadline = Some(now + longest);
            return;
        }
        let missing: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.remove(&id);
        }
        self.generation += 1;
        self.changed = true;
        self.deadline = None;
        if self.members.is_empty() {
            self.become_empty(now);
            return;
        }
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let first = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
            self.leader = first.or_else(|| self.members.keys().next().cloned());
        }
        self.protocol = self.select_protocol();
        self.phase = Phase::CompletingRebalance;
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        self.deadline = Some(now + longest);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.renew(now);
                if let Some(joining) = member.joining.take() {
                    let _ = joining.send(joined);
                }
            }
        }
    }

    fn become_empty(&mut self, now: i64) {
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.deadline = None;
        self.emptied_at = now;
        self.changed = true;
    }

    /// The protocol all members support that most of them prefer.
    fn select_protocol(&self) -> Option<String> {
        let common =
            |name: &str| self.members.values().all(|member| member.protocols.iter().any(|(other, _)| other == name));
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in self.members.values() {
            if let Some((vote, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                match votes.iter_mut().find(|(name, _)| name == vote) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((vote, 1)),
                }
            }
        }
        let best = votes.iter().map(|(_, count)| *count).max()?;
        votes.iter().find(|(_, count)| *count == best).map(|(name, _)| (*name).to_owned())
    }

    fn joined(&self, id: &str) -> Joined {
        let is_leader = self.leader.as_deref() == Some(id);
        let members = match is_leader {
            true => self
                .members
                .iter()
                .map(|(id, member)| {
                    (id.clone(), member.instance_id.clone(), member.subscription(self.protocol.as_deref()))
                })
                .collect(),
            false => Vec::new(),
        };
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.into(),
            skip_assignment: false,
            members,
        }
    }

    // ---- syncing

    /// A member asks for its assignment; the leader brings all of them.
    pub(crate) fn sync(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        now: i64,
    ) -> oneshot::Receiver<SyncAnswer> {
        let (sender, receiver) = oneshot::channel();
        if let Err(error) = self.check_sync(member_id, instance_id, generation, protocol) {
            let _ = sender.send(Err(error));
            return receiver;
        }
        let is_leader = self.leader.as_deref() == Some(member_id);
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
            member.syncing = Some(sender);
        }
        if self.phase == Phase::CompletingRebalance && is_leader {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
            }
            for (id, assignment) in assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
            self.deadline = None;
            self.changed = true;
        }
        if self.phase == Phase::Stable {
            self.answer_syncs();
        }
        receiver
    }

    fn check_sync(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        protocol: (Option<&str>, Option<&str>),
    ) -> Result<(), E> {
        if self.phase == Phase::Dead {
            return Err(E::CoordinatorNotAvailable);
        }
        self.identify(member_id, instance_id)?;
        if generation != self.generation {
            return Err(E::IllegalGeneration);
        }
        let differs =
            |given: Option<&str>, ours: &Option<String>| given.is_some_and(|given| ours.as_deref() != Some(given));
        if differs(protocol.0, &self.protocol_type) || differs(protocol.1, &self.protocol) {
            return Err(E::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => Err(E::UnknownMemberId),
            Phase::PreparingRebalance => Err(E::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn answer_syncs(&mut self) {
        for member in self.members.values_mut() {
            if let Some(syncing) = member.syncing.take() {
                let _ = syncing.send(Ok(Synced {
                    assignment: member.assignment.clone(),
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                }));
            }
        }
    }

    // ---- staying and leaving

    /// Whether the member is one of the group, and the one that carries its instance id.
    pub(crate) fn identify(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), E> {
        if let Some(instance) = instance_id {
            return match self.static_members.get(instance) {
                None => Err(E::UnknownMemberId),
                Some(current) if current != member_id => Err(E::FencedInstanceId),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(E::UnknownMemberId) }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), E> {
        if self.phase == Phase::Dead {
            return Err(E::CoordinatorNotAvailable);
        }
        self.identify(member_id, instance_id)?;
        if generation != self.generation {
            return Err(E::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
        match self.phase {
            Phase::PreparingRebalance => Err(E::RebalanceInProgress),
            Phase::Empty => Err(E::UnknownMemberId),
            _ => Ok(()),
        }
    }

    /// A member leaves.
    pub(crate) fn leave(&mut self, member_id: &str, instance_id: Option<&str>, now: i64) -> Result<(), E> {
        if self.phase == Phase::Dead {
            return Err(E::CoordinatorNotAvailable);
        }
        if instance_id.is_none() && self.announced.remove(member_id).is_some() {
            self.complete_join_if_all(now);
            return Ok(());
        }
        let id = match (member_id, instance_id) {
            ("", Some(instance)) => self.static_members.get(instance).cloned().ok_or(E::UnknownMemberId)?,
            _ => {
                self.identify(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.drop_member(&id, now);
        Ok(())
    }

    fn drop_member(&mut self, id: &str, now: i64) {
        self.remove(id);
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => self.prepare_rebalance(now),
            Phase::PreparingRebalance => self.complete_join_if_all(now),
            Phase::Empty | Phase::Dead => {}
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(mut member) = self.members.remove(id) {
            if let Some(joining) = member.joining.take() {
                let _ = joining.send(Joined::failed(E::UnknownMemberId, id));
            }
            if let Some(syncing) = member.syncing.take() {
                let _ = syncing.send(Err(E::UnknownMemberId));
            }
            if let Some(instance) = &member.instance_id {
                self.static_members.remove(instance);
            }
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Whether offsets may be committed by whoever sends these.
    pub(crate) fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        in_transaction: bool,
    ) -> Result<(), E> {
        if self.phase == Phase::Dead {
            return Err(E::CoordinatorNotAvailable);
        }
        if generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.identify(member_id, instance_id)?;
            if generation != self.generation {
                return Err(E::IllegalGeneration);
            }
        } else if !in_transaction && self.phase != Phase::Empty {
            return Err(E::UnknownMemberId);
        }
        if !in_transaction && self.phase == Phase::CompletingRebalance {
            return Err(E::RebalanceInProgress);
        }
        Ok(())
    }

    /// Counts a commit as a sign of life.
    pub(crate) fn touch(&mut self, member_id: &str, now: i64) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew(now);
        }
    }

    // ---- time

    /// When [`Group::tick`] has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<i64> {
        let sessions = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.syncing.is_none())
            .map(|member| member.expires_at);
        sessions.chain(self.announced.values().copied()).chain(self.deadline).min()
    }

    /// Expires members and ends phases whose time is up.
    pub(crate) fn tick(&mut self, now: i64) {
        let announced = self.announced.len();
        self.announced.retain(|_, expires_at| *expires_at > now);
        if self.announced.len() < announced {
            self.complete_join_if_all(now);
        }
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.syncing.is_none() && member.expires_at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            tracing::info!(group = self.id, member = id, "a member's session expired");
            self.drop_member(&id, now);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            match self.phase {
                Phase::PreparingRebalance => {
                    self.announced.clear();
                    self.complete_join(now);
                }
                Phase::CompletingRebalance => {
                    let silent: Vec<String> = self
                        .members
                        .iter()
                        .filter(|(_, member)| member.syncing.is_none())
                        .map(|(id, _)| id.clone())
                        .collect();
                    self.deadline = None;
                    for id in silent {
                        self.remove(&id);
                    }
                    self.prepare_rebalance(now);
                }
                _ => self.deadline = None,
            }
        }
    }

    /// Topics that the members' subscriptions name, as far as they are consumers'.
    pub(crate) fn subscribed_topics(&self) -> Vec<String> {
        let subscriptions = self.members.values().map(|member| member.subscription(self.protocol.as_deref()));
        subscriptions.filter_map(|bytes| subscription_topics(&bytes)).flatten().collect()
    }

    /// Ends the group; nobody may use it any more.
    pub(crate) fn kill(&mut self) {
        self.phase = Phase::Dead;
    }
}

/// The topics of a `ConsumerProtocolSubscription`: version, then an array of strings.
fn subscription_topics(bytes: &[u8]) -> Option<Vec<String>> {
    let mut rest = bytes.get(2..)?;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let count = i32::from_be_bytes(take(4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = i16::from_be_bytes(take(2)?.try_into().ok()?);
        topics.push(String::from_utf8_lossy(take(usize::try_from(length).ok()?)?).into_owned());
    }
    Some(topics)
}

/// Bytes as hexadecimal text in the metadata log.
mod hex {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn encode(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn decode(text: &str) -> Option<Bytes> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<u8>>>()
            .map(Bytes::from)
    }

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

mod subscriptions {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(protocols: &[(String, Bytes)], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = protocols.iter().map(|(name, bytes)| (name, super::hex::encode(bytes))).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Bytes)>, D::Error> {
        let texts = Vec::<(String, String)>::deserialize(deserializer)?;
        let decoded = texts.into_iter().map(|(name, text)| super::hex::decode(&text).map(|bytes| (name, bytes)));
        decoded.collect::<Option<_>>().ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

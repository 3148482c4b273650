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

mod join;
mod member;
mod rebalance;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use serde::{Deserialize, Serialize};

use super::offsets::Offsets;
use member::{Member, subscription_topics};

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

    /// Whether this is a member of the present generation.
    pub(crate) fn check_member(&self, member_id: &str, instance_id: Option<&str>, generation: i32) -> Result<(), E> {
        if self.phase == Phase::Dead {
            return Err(E::CoordinatorNotAvailable);
        }
        self.identify(member_id, instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(E::IllegalGeneration) }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), E> {
        self.check_member(member_id, instance_id, generation)?;
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

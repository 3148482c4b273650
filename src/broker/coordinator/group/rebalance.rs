//! The rebalance: from the first join to the last assignment, and the deadlines on the way.

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use tokio::sync::oneshot;

use super::{Group, Joined, Phase, SyncAnswer, Synced};

impl Group {
    pub(super) fn prepare_rebalance(&mut self, now: i64) {
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

    pub(super) fn complete_join_if_all(&mut self, now: i64) {
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
    pub(super) fn select_protocol(&self) -> Option<String> {
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

    pub(super) fn joined(&self, id: &str) -> Joined {
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
        self.check_member(member_id, instance_id, generation)?;
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
}

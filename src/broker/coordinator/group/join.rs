//! Joining a group.

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use tokio::sync::oneshot;

use super::{Group, JoinAttempt, Joined, Member, Phase};

impl Group {
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
        if self.members.len() + self.announced.len() >= max_members {
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
}

//! JoinGroup: which members get in, under which id, and what that means for the group.

use std::sync::Arc;

use super::config::GroupLimits;
use super::error::GroupError;
use super::member::Member;
use super::state::{Group, GroupTimer, State};
use super::types::{Effects, JoinRefused, JoinRequest, MemberId, Now, Reply, Then, Waiter};

impl Group {
    /// Lets a member in, or says why not. The answer may come at once, or when the others have joined.
    pub(super) fn join(
        &mut self,
        request: &JoinRequest,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        let result = if self.state == State::Dead {
            Err(GroupError::CoordinatorNotAvailable)
        } else if !self.has_room_for(request, limits) {
            self.turn_away(&state_id(&request.member_id), limits, now, out);
            Err(GroupError::GroupMaxSizeReached)
        } else if !self.supports(request) {
            Err(GroupError::InconsistentGroupProtocol)
        } else if request.member_id.is_empty() {
            self.join_new(request, waiter, limits, now, out)
        } else {
            self.join_known(request, waiter, limits, now, out)
        };
        if let Err(error) = result {
            let member_id = if error == GroupError::MemberIdRequired {
                request.fresh_member_id.to_string()
            } else {
                request.member_id.clone()
            };
            out.replies.push(Reply::Join(waiter, Err(JoinRefused { error, member_id })));
        }
    }

    /// `group.max.size` counts the members; while a rebalance is prepared, those that have joined, so that a group
    /// above a lowered limit shrinks to it. Ids that no member has joined with yet have the same limit of their own.
    fn has_room_for(&self, request: &JoinRequest, limits: &GroupLimits) -> bool {
        let returns =
            request.group_instance_id.as_deref().is_some_and(|i| self.members.instance(i).is_some());
        if !returns && request.member_id.is_empty() && self.pending_members.len() >= limits.max_size {
            return false;
        }
        let holder = request.group_instance_id.as_deref().and_then(|i| self.members.instance(i));
        let own = holder.map_or(&*request.member_id, |id| id);
        if self.members.metadata_bytes_with(own, &request.protocols) > limits.group_metadata_max_bytes {
            return false;
        }
        let member = self.members.get(&request.member_id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|m| m.awaiting_join.is_some())
                    || self.members.awaiting_join() < limits.max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || returns || self.members.len() < limits.max_size
            }
        }
    }

    fn turn_away(&mut self, id: &MemberId, limits: &GroupLimits, now: Now, out: &mut Effects) {
        self.remove_pending_member(id);
        if self.members.get(id).is_some() {
            self.remove_member(id, out);
            self.after_removal(limits, now, out);
        }
    }

    /// Whether the group can go on with this member in it.
    fn supports(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&*request.protocol_type)
            && self.members.share_one_of(&request.protocols)
    }

    fn join_new(
        &mut self,
        request: &JoinRequest,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) -> Result<(), GroupError> {
        let id = request.fresh_member_id.clone();
        match &request.group_instance_id {
            Some(instance) => match self.members.instance(instance).cloned() {
                Some(previous) => self.replace_static(request, &previous, waiter, limits, now, out),
                None => self.add(id, request, waiter, limits, now, out),
            },
            None if request.require_known_member_id => {
                self.timers.set(GroupTimer::Pending(id.clone()), now.after(request.session_timeout_ms));
                self.pending_members.insert(id);
                return Err(GroupError::MemberIdRequired);
            }
            None => self.add(id, request, waiter, limits, now, out),
        }
        Ok(())
    }

    fn join_known(
        &mut self,
        request: &JoinRequest,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) -> Result<(), GroupError> {
        let id = state_id(&request.member_id);
        if self.pending_members.contains(&id) {
            if request.group_instance_id.is_some() {
                // Only dynamic members get their id in advance.
                return Err(GroupError::UnknownMemberId);
            }
            self.remove_pending_member(&id);
            self.add(id, request, waiter, limits, now, out);
            return Ok(());
        }
        self.members.check(&id, request.group_instance_id.as_deref())?;
        let unchanged = self.members.get(&id).is_some_and(|m| m.protocols == request.protocols);
        match self.state {
            State::PreparingRebalance => self.rejoin(&id, request, waiter, limits, now, out),
            // It has not seen the answer to the JoinGroup before, or has started again with the same metadata.
            State::CompletingRebalance if unchanged => self.answer_current(&id, waiter, now, out),
            // The leader asks for a rebalance this way, for example when its topics have grown.
            State::Stable if unchanged && !self.is_leader(&id) => self.answer_current(&id, waiter, now, out),
            State::CompletingRebalance | State::Stable => self.rejoin(&id, request, waiter, limits, now, out),
            State::Empty | State::Dead => return Err(GroupError::UnknownMemberId),
        }
        Ok(())
    }

    fn answer_current(&mut self, id: &MemberId, waiter: Waiter, now: Now, out: &mut Effects) {
        self.arm_session(id, now);
        out.replies.push(Reply::Join(waiter, Ok(self.joined(id))));
    }

    fn add(
        &mut self,
        id: MemberId,
        request: &JoinRequest,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
            self.leader = Some(id.clone());
        }
        self.members.insert(Member::new(id.clone(), request));
        self.members.park_join(&id, waiter);
        self.arm_session(&id, now);
        if let Some(initial) = &mut self.initial_delay {
            initial.newcomer = true;
        }
        self.rebalance(limits, now, out);
    }

    fn rejoin(
        &mut self,
        id: &MemberId,
        request: &JoinRequest,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        self.members.update(id, request);
        self.park_join(id, waiter, out);
        self.rebalance(limits, now, out);
    }

    /// Parks a JoinGroup. The one it replaces is answered, so that its connection goes on.
    fn park_join(&mut self, id: &MemberId, waiter: Waiter, out: &mut Effects) {
        if let Some(former) = self.members.park_join(id, waiter) {
            let error = GroupError::RebalanceInProgress;
            out.replies.push(Reply::Join(former, Err(JoinRefused { error, member_id: id.to_string() })));
        }
    }

    /// A static member comes back under a new id and takes its place again (KIP-345). Its former self is fenced.
    fn replace_static(
        &mut self,
        request: &JoinRequest,
        previous: &MemberId,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        let id = request.fresh_member_id.clone();
        let leader_before = self.leader.clone();
        self.fence(previous, out);
        self.rename_member(previous, &id);
        self.members.update(&id, request);
        self.arm_session(&id, now);
        if self.state != State::Stable || self.members.select_protocol() != self.protocol {
            // In CompletingRebalance the leader may already be assigning to the former id: that assignment is void.
            self.park_join(&id, waiter, out);
            return self.rebalance(limits, now, out);
        }
        let mut joined = self.joined(&id);
        if request.supports_skip_assignment {
            joined.skip_assignment = self.is_leader(&id);
        } else {
            // A client that cannot be told to skip the assignment must not think that it leads.
            joined.leader = leader_before.as_deref().unwrap_or_default().to_owned();
            joined.members.clear();
        }
        let record = self.metadata_record(Some(self.metadata(|id| self.assignment_of(id))));
        self.recorded = true;
        out.appends.push(self.append(record, Then::ReplaceStatic { waiter, joined }));
    }

    pub(super) fn assignment_of(&self, id: &str) -> bytes::Bytes {
        self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default()
    }

    /// Answers whatever the former holder of an instance id has parked.
    pub(super) fn fence(&mut self, id: &MemberId, out: &mut Effects) {
        let error = GroupError::FencedInstanceId;
        if let Some(former) = self.members.take_join(id) {
            out.replies.push(Reply::Join(former, Err(JoinRefused { error, member_id: id.to_string() })));
        }
        if let Some(former) = self.members.take_sync(id) {
            out.replies.push(Reply::Sync(former, Err(error)));
        }
    }

    /// The return of a static member could not be written. Its former self is fenced already, so the place is given up
    /// and all members called in: the next assignment is a record of its own.
    pub(super) fn return_failed(&mut self, id: &MemberId, limits: &GroupLimits, now: Now, out: &mut Effects) {
        if self.members.get(id).is_some() {
            self.remove_member(id, out);
            self.after_removal(limits, now, out);
        }
    }

    /// Puts a member under another id, wherever it is named.
    pub(super) fn rename_member(&mut self, from: &MemberId, to: &MemberId) {
        self.members.rename(from, to);
        self.timers.cancel(&GroupTimer::Session(from.clone()));
        if self.pending_sync.remove(from) {
            self.pending_sync.insert(to.clone());
        }
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
    }

    /// The connection behind a parked JoinGroup is gone. A member that was never answered cannot come back to its
    /// place, so it is taken out; the others may return within their session.
    pub(super) fn abandon_join(
        &mut self,
        id: &str,
        waiter: Waiter,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        let Some(member) = self.members.get(id) else { return };
        if member.awaiting_join == Some(waiter) && member.is_new && !member.is_static() {
            let id = member.id.clone();
            self.remove_member(&id, out);
            self.after_removal(limits, now, out);
        }
    }
}

fn state_id(text: &str) -> MemberId {
    Arc::from(text)
}

//! SyncGroup: the leader's assignment goes to the log, and from there to the members.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::config::GroupLimits;
use super::error::GroupError;
use super::state::{Group, GroupTimer, State};
use super::types::{Effects, MemberId, Now, Reply, SyncRequest, Synced, Then, Waiter};

impl Group {
    /// Asks for the assignment of the current generation; the leader brings it. Parked until it is durable.
    pub(super) fn sync(&mut self, request: SyncRequest, waiter: Waiter, now: Now, out: &mut Effects) {
        let id = match self.check_sync(&request) {
            Ok(id) => id,
            Err(error) => return out.replies.push(Reply::Sync(waiter, Err(error))),
        };
        self.drop_pending_sync(&id);
        if self.state == State::Stable {
            self.arm_session(&id, now);
            return out.replies.push(Reply::Sync(waiter, Ok(self.synced(&id))));
        }
        if let Some(former) = self.members.park_sync(&id, waiter) {
            out.replies.push(Reply::Sync(former, Err(GroupError::RebalanceInProgress)));
        }
        if self.is_leader(&id) && self.assigning != Some(self.generation) {
            self.record_assignment(request.assignments, out);
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<MemberId, GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.members.check(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        // Version 5 and up says which protocol it has in mind (KIP-559).
        let differs = |given: &Option<String>, own: &Option<String>| given.is_some() && given != own;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => {
                self.members.get(&request.member_id).map(|m| m.id.clone()).ok_or(GroupError::UnknownMemberId)
            }
        }
    }

    /// Members that the leader left out get nothing; its assignments to others than members are dropped.
    fn record_assignment(&mut self, given: Vec<(String, Bytes)>, out: &mut Effects) {
        let mut assignments: BTreeMap<MemberId, Bytes> =
            self.members.ids().into_iter().map(|id| (id, Bytes::new())).collect();
        for (id, assignment) in given {
            if let Some(place) = assignments.get_mut(&*id) {
                *place = assignment;
            }
        }
        let value = self.metadata(|id| assignments.get(id).cloned().unwrap_or_default());
        self.assigning = Some(self.generation);
        self.recorded = true;
        let then = Then::Assign { generation: self.generation, assignments };
        out.appends.push(self.append(self.metadata_record(Some(value)), then));
    }

    /// The assignment is durable. It counts unless a rebalance has started meanwhile.
    pub(super) fn assigned(
        &mut self,
        generation: i32,
        assignments: BTreeMap<MemberId, Bytes>,
        now: Now,
        out: &mut Effects,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        self.assigning = None;
        self.move_to(State::Stable, now);
        for (id, assignment) in assignments {
            self.members.set_assignment(&id, assignment);
        }
        for id in self.members.ids() {
            if let Some(waiter) = self.members.take_sync(&id) {
                self.arm_session(&id, now);
                out.replies.push(Reply::Sync(waiter, Ok(self.synced(&id))));
            }
        }
    }

    /// The assignment could not be written: no member gets it, and the members are called in again.
    pub(super) fn assign_failed(
        &mut self,
        generation: i32,
        error: GroupError,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        self.assigning = None;
        self.answer_syncs(error, now, out);
        self.prepare_rebalance(limits, now, out);
    }

    fn synced(&self, id: &MemberId) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self.assignment_of(id),
        }
    }

    /// One of the group's deadlines has come.
    pub(super) fn timer(&mut self, timer: GroupTimer, limits: &GroupLimits, now: Now, out: &mut Effects) {
        match timer {
            GroupTimer::Join => self.join_timer(limits, now, out),
            GroupTimer::Sync => self.sync_timer(limits, now, out),
            GroupTimer::Session(id) => {
                if self.members.get(&id).is_some_and(|m| !m.cannot_expire()) {
                    self.remove_member(&id, out);
                    self.after_removal(limits, now, out);
                }
            }
            GroupTimer::Pending(id) => {
                self.remove_pending_member(&id);
                self.maybe_complete_join(now, out);
            }
        }
    }
}

//! Heartbeat and LeaveGroup.

use super::config::GroupLimits;
use super::error::GroupError;
use super::state::{Group, State};
use super::types::{Effects, LeavingMember, LeftMember, MemberId, MemberIdentity, Now};

impl Group {
    /// A sign of life. The error tells the member what to do next.
    pub(super) fn heartbeat(&mut self, who: &MemberIdentity, now: Now) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let id = self.check_member(who)?;
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => {
                self.arm_session(&id, now);
                Err(GroupError::RebalanceInProgress)
            }
            // The member has joined and may wait for its assignment: nothing for it to do.
            State::CompletingRebalance | State::Stable => {
                self.arm_session(&id, now);
                Ok(())
            }
        }
    }

    /// Whether this is a member, in the current generation.
    pub(super) fn check_member(&self, who: &MemberIdentity) -> Result<MemberId, GroupError> {
        self.members.check(&who.member_id, who.group_instance_id.as_deref())?;
        if who.generation_id != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.members.get(&who.member_id).map(|m| m.id.clone()).ok_or(GroupError::UnknownMemberId)
    }

    /// Lets members go; the others are called in once for all of them.
    pub(super) fn leave(
        &mut self,
        leaving: Vec<LeavingMember>,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) -> Result<Vec<LeftMember>, GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut left = Vec::with_capacity(leaving.len());
        let mut fewer = false;
        for member in leaving {
            let result = self.leave_one(&member, out);
            fewer |= result.is_ok();
            left.push(LeftMember { member, result });
        }
        if fewer {
            self.after_removal(limits, now, out);
        }
        Ok(left)
    }

    fn leave_one(&mut self, leaving: &LeavingMember, out: &mut Effects) -> Result<(), GroupError> {
        let id: MemberId = match &leaving.group_instance_id {
            // An administrator removes a static member by the name it knows.
            Some(instance) if leaving.member_id.is_empty() => {
                self.members.instance(instance).cloned().ok_or(GroupError::UnknownMemberId)?
            }
            _ => MemberId::from(&*leaving.member_id),
        };
        if leaving.group_instance_id.is_none() && self.pending_members.contains(&id) {
            self.remove_pending_member(&id);
            return Ok(());
        }
        self.members.check(&id, leaving.group_instance_id.as_deref())?;
        self.remove_member(&id, out);
        Ok(())
    }
}

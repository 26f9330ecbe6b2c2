//! From one generation to the next: which members the group waits for, how long, and which one leads.

use super::config::GroupLimits;
use super::error::GroupError;
use super::state::{Group, GroupTimer, InitialDelay, State};
use super::types::{Effects, Joined, MemberId, Now, Reply, Then};

impl Group {
    /// Starts a rebalance unless one is being prepared, which then may be complete.
    pub(super) fn rebalance(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(limits, now, out)
            }
            State::PreparingRebalance => self.maybe_complete_join(now, out),
            State::Dead => {}
        }
    }

    /// Calls the members in.
    pub(super) fn prepare_rebalance(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        if self.state == State::CompletingRebalance {
            self.answer_syncs(GroupError::RebalanceInProgress, now, out);
        }
        self.timers.cancel(&GroupTimer::Sync);
        let first = self.state == State::Empty;
        self.move_to(State::PreparingRebalance, now);
        let timeout_ms = self.members.rebalance_timeout_ms();
        if !first {
            self.timers.set(GroupTimer::Join, now.after(timeout_ms));
            return self.maybe_complete_join(now, out);
        }
        let delay_ms = limits.initial_rebalance_delay_ms;
        if delay_ms <= 0 {
            return self.complete_join(now, out);
        }
        let remaining_ms = timeout_ms.saturating_sub(delay_ms).max(0);
        self.initial_delay = Some(InitialDelay { remaining_ms, newcomer: false });
        self.timers.set(GroupTimer::Join, now.after(delay_ms));
    }

    /// Completes the join phase if all members have joined.
    pub(super) fn maybe_complete_join(&mut self, now: Now, out: &mut Effects) {
        let all_in = self.members.awaiting_join() == self.members.len() && self.pending_members.is_empty();
        if self.state == State::PreparingRebalance && self.initial_delay.is_none() && all_in {
            self.complete_join(now, out);
        }
    }

    /// The time for joining is up, or the first rebalance has waited once more.
    pub(super) fn join_timer(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        if self.state != State::PreparingRebalance {
            return;
        }
        if let Some(initial) = &mut self.initial_delay
            && initial.newcomer
            && initial.remaining_ms > 0
        {
            let delay_ms = limits.initial_rebalance_delay_ms.min(initial.remaining_ms);
            initial.newcomer = false;
            initial.remaining_ms -= delay_ms;
            self.timers.set(GroupTimer::Join, now.after(delay_ms));
            return;
        }
        self.complete_join(now, out);
    }

    /// Members that have not asked for their assignment in time are out.
    pub(super) fn sync_timer(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(&id, out);
        }
        self.prepare_rebalance(limits, now, out);
    }

    fn complete_join(&mut self, now: Now, out: &mut Effects) {
        self.timers.cancel(&GroupTimer::Join);
        self.initial_delay = None;
        let late = |m: &&super::member::Member| m.awaiting_join.is_none() && !m.is_static();
        let late: Vec<MemberId> = self.members.iter().filter(late).map(|m| m.id.clone()).collect();
        for id in late {
            self.remove_member(&id, out);
        }
        if self.members.is_empty() {
            return self.become_empty(now, out);
        }
        if !self.elect_leader() {
            // Static members alone are left and none has come back: their sessions decide, not this timer.
            self.timers.set(GroupTimer::Join, now.after(self.members.rebalance_timeout_ms()));
            return;
        }
        self.start_generation(now, out);
    }

    /// A leader that has not joined again cannot assign: a member that has becomes the leader. False when none has.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &str| self.members.get(id).is_some_and(|m| m.awaiting_join.is_some());
        if self.leader.as_deref().is_some_and(joined) {
            return true;
        }
        let Some(leader) = self.members.iter().find(|m| m.awaiting_join.is_some()).map(|m| m.id.clone())
        else {
            return false;
        };
        self.leader = Some(leader);
        true
    }

    fn become_empty(&mut self, now: Now, out: &mut Effects) {
        self.next_generation();
        self.protocol = None;
        self.leader = None;
        self.pending_sync.clear();
        self.subscribed = self.find_subscribed();
        self.move_to(State::Empty, now);
        if self.recorded || !self.offsets.is_vacant() {
            self.recorded = true;
            let record = self.metadata_record(Some(self.metadata(|_| bytes::Bytes::new())));
            out.appends.push(self.append(record, Then::Emptied));
        }
    }

    fn start_generation(&mut self, now: Now, out: &mut Effects) {
        self.next_generation();
        // Every member was checked to share a protocol with all others when it joined.
        self.protocol = self.members.select_protocol();
        self.subscribed = self.find_subscribed();
        self.move_to(State::CompletingRebalance, now);
        let timeout_ms = self.members.rebalance_timeout_ms();
        for id in self.members.ids() {
            self.members.mark_known(&id);
            self.arm_session(&id, now);
            self.pending_sync.insert(id.clone());
            if let Some(waiter) = self.members.take_join(&id) {
                out.replies.push(Reply::Join(waiter, Ok(self.joined(&id))));
            }
        }
        self.timers.set(GroupTimer::Sync, now.after(timeout_ms));
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_sync.clear();
    }

    /// The answer to a member that is in the current generation.
    pub(super) fn joined(&self, id: &MemberId) -> Joined {
        let members = match &self.protocol {
            Some(protocol) if self.is_leader(id) => self.members.for_leader(protocol),
            _ => Vec::new(),
        };
        Joined {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: id.clone(),
            members,
        }
    }

    /// Answers the members that wait for an assignment that will not come.
    pub(super) fn answer_syncs(&mut self, error: GroupError, now: Now, out: &mut Effects) {
        for id in self.members.ids() {
            self.members.set_assignment(&id, bytes::Bytes::new());
            if let Some(waiter) = self.members.take_sync(&id) {
                self.arm_session(&id, now);
                out.replies.push(Reply::Sync(waiter, Err(error)));
            }
        }
    }
}

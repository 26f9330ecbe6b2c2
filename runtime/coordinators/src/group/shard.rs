//! The groups of one partition of `__consumer_offsets`. Pure, like the groups in it: it finds or makes the group, lets
//! it decide, and keeps the order of deadlines over all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::commit::first;
use super::config::GroupLimits;
use super::error::GroupError;
use super::state::{Group, State};
use super::types::{
    CommitRequest, Effects, FetchRequest, FetchedTopics, GroupDescription, GroupId, GroupListing,
    JoinRefused, JoinRequest, LeavingMember, LeftMember, MemberIdentity, Now, Reply, SyncRequest, Then,
    TopicPartition, Waiter,
};
use crate::timer::TimerQueue;

/// How many groups the broker has, over all shards.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupCount(Arc<AtomicUsize>);

impl GroupCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The groups of a partition.
#[derive(Debug)]
pub(super) struct Shard {
    groups: HashMap<GroupId, Group>,
    /// By producer id: the groups that its open transaction has offsets of. A group is named until the transaction
    /// ends, even if it has let its offsets go.
    // Invariant: every group with pending offsets is named.
    in_transaction: HashMap<i64, HashSet<GroupId>>,
    // Invariant: for each group with a deadline, its earliest.
    timers: TimerQueue<GroupId>,
    /// When a group may have something to let go, on the wall clock (ms).
    // Invariant: for each group that waits for this, its earliest.
    expiries: TimerQueue<GroupId>,
    limits: GroupLimits,
    // Invariant: the groups of this shard are counted in.
    count: GroupCount,
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.count.0.fetch_sub(self.groups.len(), Ordering::Relaxed);
    }
}

impl Shard {
    pub(super) fn new(limits: GroupLimits, count: GroupCount) -> Shard {
        let (groups, in_transaction) = (HashMap::new(), HashMap::new());
        let (timers, expiries) = (TimerQueue::default(), TimerQueue::default());
        Shard { groups, in_transaction, timers, expiries, limits, count }
    }

    pub(super) fn get(&self, group: &str) -> Option<&Group> {
        self.groups.get(group)
    }

    pub(super) fn get_mut(&mut self, group: &str) -> Option<&mut Group> {
        self.groups.get_mut(group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// The first `limit` groups whose ids come after `after`, in order.
    pub(super) fn page(&self, after: &str, limit: usize) -> impl Iterator<Item = &Group> {
        let mut ids: Vec<&GroupId> = self.groups.keys().filter(|id| &***id > after).collect();
        if ids.len() > limit {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.groups.get(id))
    }

    /// The group that a record names, made if need be: the log is right, whatever the limits say.
    pub(super) fn replayed(&mut self, group: &GroupId, now: Now) -> &mut Group {
        self.groups.entry(group.clone()).or_insert_with(|| {
            self.count.0.fetch_add(1, Ordering::Relaxed);
            Group::new(group.clone(), now)
        })
    }

    /// The whole log has been replayed: time starts to run.
    pub(super) fn resume(&mut self, now: Now) {
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            self.visit(&id, |group, _, _| group.resume(now));
        }
    }

    /// Lets a group act, then looks after its deadline and whether it is still needed.
    fn visit<R>(
        &mut self,
        id: &str,
        act: impl FnOnce(&mut Group, &GroupLimits, &mut Effects) -> R,
    ) -> Option<(R, Effects)> {
        let group = self.groups.get_mut(id)?;
        let mut out = Effects::default();
        let result = act(group, &self.limits, &mut out);
        let id = group.id.clone();
        if group.is_vacant() {
            self.remove(&id);
            return Some((result, out));
        }
        let expiry_ms = group.expiry_ms(&self.limits).map(|ms| u64::try_from(ms).unwrap_or(0));
        self.timers.set_or_cancel(&id, group.timers.next_ms());
        self.expiries.set_or_cancel(&id, expiry_ms);
        Some((result, out))
    }

    fn remove(&mut self, id: &GroupId) {
        self.timers.cancel(id);
        self.expiries.cancel(id);
        if self.groups.remove(id).is_some() {
            self.count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Makes the group if it is not there and the broker has room for it.
    fn ensure(&mut self, id: &GroupId, now: Now) -> Result<(), GroupError> {
        if self.groups.contains_key(id) {
            return Ok(());
        }
        if id.len() > self.limits.name_max_bytes {
            return Err(GroupError::InvalidGroupId);
        }
        // Shards count at the same time, so the limit may be passed by as many groups as there are shards.
        if self.count.get() >= self.limits.max_groups {
            return Err(GroupError::GroupMaxSizeReached);
        }
        self.replayed(id, now);
        Ok(())
    }

    /// JoinGroup. The answer is among the replies, now or later.
    pub(super) fn join(
        &mut self,
        id: &GroupId,
        mut request: JoinRequest,
        waiter: Waiter,
        now: Now,
    ) -> Effects {
        let outcome = self.check_join(id, &request, now).map(|()| {
            // A protocol counts once for a member, however often it lists it.
            let mut seen = HashSet::new();
            request.protocols.retain(|protocol| seen.insert(protocol.name.clone()));
            self.visit(id, |group, limits, out| group.join(&request, waiter, limits, now, out))
                .map(|(_, out)| out)
        });
        let error = match outcome {
            Ok(Some(effects)) => return effects,
            Ok(None) => GroupError::UnknownMemberId,
            Err(error) => error,
        };
        let refused = JoinRefused { error, member_id: request.member_id.clone() };
        Effects { replies: vec![Reply::Join(waiter, Err(refused))], appends: vec![] }
    }

    fn check_join(&mut self, id: &GroupId, request: &JoinRequest, now: Now) -> Result<(), GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let session_ms = request.session_timeout_ms;
        if session_ms < self.limits.min_session_timeout_ms || session_ms > self.limits.max_session_timeout_ms
        {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let instance = request.group_instance_id.as_deref().unwrap_or_default();
        let names = [&*request.client_id, &*request.client_host, &*request.protocol_type, instance];
        let protocols = request.protocols.iter();
        let named = names.into_iter().chain(protocols.clone().map(|p| &*p.name));
        let too_long = named.into_iter().any(|name| name.len() > self.limits.name_max_bytes);
        let metadata: usize = protocols.map(|p| p.metadata.len()).sum();
        if too_long
            || request.protocols.len() > self.limits.member_protocols_max
            || metadata > self.limits.member_metadata_max_bytes
        {
            return Err(GroupError::InvalidRequest);
        }
        // A member that knows its id has been in the group: if that is gone, so is the member.
        if request.member_id.is_empty() { self.ensure(id, now) } else { Ok(()) }
    }

    /// SyncGroup. The answer is among the replies, now or later.
    pub(super) fn sync(&mut self, id: &str, request: SyncRequest, waiter: Waiter, now: Now) -> Effects {
        if id.is_empty() {
            let reply = Reply::Sync(waiter, Err(GroupError::InvalidGroupId));
            return Effects { replies: vec![reply], appends: vec![] };
        }
        match self.visit(id, |group, _, out| group.sync(request, waiter, now, out)) {
            Some((_, effects)) => effects,
            None => {
                let reply = Reply::Sync(waiter, Err(GroupError::UnknownMemberId));
                Effects { replies: vec![reply], appends: vec![] }
            }
        }
    }

    /// Heartbeat.
    pub(super) fn heartbeat(&mut self, id: &str, who: &MemberIdentity, now: Now) -> Result<(), GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let beat = self.visit(id, |group, _, _| group.heartbeat(who, now));
        beat.map_or(Err(GroupError::UnknownMemberId), |(result, _)| result)
    }

    /// LeaveGroup.
    pub(super) fn leave(
        &mut self,
        id: &str,
        leaving: Vec<LeavingMember>,
        now: Now,
    ) -> (Result<Vec<LeftMember>, GroupError>, Effects) {
        if id.is_empty() {
            return (Err(GroupError::InvalidGroupId), Effects::default());
        }
        if !self.groups.contains_key(id) {
            let unknown = |member| LeftMember { member, result: Err(GroupError::UnknownMemberId) };
            return (Ok(leaving.into_iter().map(unknown).collect()), Effects::default());
        }
        self.visit(id, |group, limits, out| group.leave(leaving, limits, now, out))
            .unwrap_or_else(|| (Err(GroupError::UnknownMemberId), Effects::default()))
    }

    /// The connection behind a parked JoinGroup is gone.
    pub(super) fn abandon_join(&mut self, id: &str, member: &str, waiter: Waiter, now: Now) -> Effects {
        self.visit(id, |group, limits, out| group.abandon_join(member, waiter, limits, now, out))
            .map_or_else(Effects::default, |(_, effects)| effects)
    }

    /// OffsetCommit. Offsets with an `Ok` are durable once the effects' appends are.
    pub(super) fn commit(
        &mut self,
        id: &GroupId,
        request: CommitRequest,
        now: Now,
    ) -> (Result<Vec<Result<(), GroupError>>, GroupError>, Effects) {
        if !self.groups.contains_key(id) {
            let refused = if request.who.generation_id < 0 {
                self.ensure(id, now).err()
            } else if request.knows_group_id_not_found {
                Some(GroupError::GroupIdNotFound)
            } else {
                Some(GroupError::IllegalGeneration)
            };
            if let Some(error) = refused {
                return (Err(error), Effects::default());
            }
        }
        self.visit(id, |group, limits, out| group.commit(request, limits, now, out))
            .unwrap_or_else(|| (Err(GroupError::GroupIdNotFound), Effects::default()))
    }

    /// A group has durable offsets of a producer's open transaction.
    pub(super) fn joined_transaction(&mut self, producer_id: i64, id: &GroupId) {
        self.in_transaction.entry(producer_id).or_default().insert(id.clone());
    }

    /// The marker of a producer's transaction is durable: what it committed counts now, or never.
    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        for id in self.in_transaction.remove(&producer_id).unwrap_or_default() {
            // A group that had nothing but these offsets goes with them.
            self.visit(&id, |group, _, _| group.offsets.end_transaction(producer_id, commit));
        }
    }

    #[cfg(test)]
    pub(super) fn check_expiries(&self) {
        for group in self.groups() {
            group.offsets.check_ages();
            let expect = group.expiry_ms(&self.limits).map(|ms| u64::try_from(ms).unwrap_or(0));
            assert_eq!(self.expiries.get(&group.id), expect, "{} is looked at in time, not before", group.id);
        }
    }

    #[cfg(test)]
    pub(super) fn check_transactions(&self) {
        for group in self.groups() {
            for producer_id in group.offsets.pending().keys() {
                let named = self.in_transaction.get(producer_id);
                assert!(named.is_some_and(|groups| groups.contains(&group.id)), "{producer_id} {}", group.id);
            }
        }
    }

    /// OffsetFetch. A group that is not there has committed nothing: that is no error.
    pub(super) fn fetch(&self, id: &GroupId, request: &FetchRequest, now: Now) -> FetchedTopics {
        match self.groups.get(id) {
            Some(group) => group.fetch(request),
            None => Group::new(id.clone(), now).fetch(request),
        }
    }

    /// OffsetDelete.
    pub(super) fn delete_offsets(
        &mut self,
        id: &str,
        partitions: &[TopicPartition],
    ) -> (Result<Vec<Result<(), GroupError>>, GroupError>, Effects) {
        self.visit(id, |group, _, out| group.delete_offsets(partitions, out))
            .unwrap_or_else(|| (Err(GroupError::GroupIdNotFound), Effects::default()))
    }

    /// DeleteGroups, one group.
    pub(super) fn delete(&mut self, id: &str, now: Now) -> (Result<(), GroupError>, Effects) {
        self.visit(id, |group, _, out| group.delete(now, out))
            .unwrap_or_else(|| (Err(GroupError::GroupIdNotFound), Effects::default()))
    }

    /// DescribeGroups, one group.
    pub(super) fn describe(&self, id: &str) -> Option<GroupDescription> {
        self.groups.get(id).filter(|group| group.state != State::Dead).map(Group::describe)
    }

    /// ListGroups.
    pub(super) fn list(&self) -> Vec<GroupListing> {
        self.groups().filter(|group| group.state != State::Dead).map(Group::listing).collect()
    }

    /// A topic is gone, and so is what groups have committed for it.
    pub(super) fn topic_deleted(&mut self, topic: &Arc<str>) -> Effects {
        self.each(|group, _, out| group.topic_deleted(topic, out))
    }

    /// Deletes expired offsets. Looks only at groups that may have some.
    pub(super) fn expire(&mut self, now: Now) -> Effects {
        let now_ms = u64::try_from(now.wall_ms).unwrap_or(0);
        let due = std::iter::from_fn(|| self.expiries.pop_due(now_ms)).collect();
        self.all_of(due, |group, limits, out| group.expire(limits, now, out))
    }

    /// The records of all groups' state once more, for the end of the log, and the first offset of the log that is needed
    /// besides them: that of a rebalance in progress, an open transaction, or a record that is not durable yet.
    /// `on_their_way`: groups with a record of their members that is not durable yet.
    pub(super) fn snapshot(&mut self, on_their_way: &HashSet<GroupId>) -> (Effects, Option<i64>) {
        let mut needed = None;
        let effects = self.each(|group, limits, out| {
            let of_group = group.snapshot(on_their_way.contains(&group.id), limits, out);
            needed = first(needed, of_group);
        });
        (effects, needed)
    }

    fn each(&mut self, act: impl FnMut(&mut Group, &GroupLimits, &mut Effects)) -> Effects {
        self.all_of(self.groups.keys().cloned().collect(), act)
    }

    fn all_of(
        &mut self,
        ids: Vec<GroupId>,
        mut act: impl FnMut(&mut Group, &GroupLimits, &mut Effects),
    ) -> Effects {
        let mut all = Effects::default();
        for id in ids {
            if let Some(((), out)) = self.visit(&id, &mut act) {
                all.replies.extend(out.replies);
                all.appends.extend(out.appends);
            }
        }
        all
    }

    /// The earliest deadline of all groups.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    /// Lets the next group whose deadline has come act on it; `None` when there is none.
    pub(super) fn fire(&mut self, now: Now) -> Option<Effects> {
        let id = self.timers.pop_due(now.mono_ms)?;
        let fired = self.visit(&id, |group, limits, out| {
            while let Some(timer) = group.timers.pop_due(now.mono_ms) {
                group.timer(timer, limits, now, out);
            }
        });
        Some(fired.map_or_else(Effects::default, |(_, effects)| effects))
    }

    /// An append is durable from `base_offset` on, or has failed.
    pub(super) fn landed(
        &mut self,
        id: &GroupId,
        then: Then,
        result: Result<i64, GroupError>,
        now: Now,
    ) -> Effects {
        if let (Then::Pending { producer_id, .. }, Ok(_)) = (&then, &result) {
            self.joined_transaction(*producer_id, id);
        }
        let landed = self.visit(id, |group, limits, out| group.landed(then, result, limits, now, out));
        match landed {
            Some((true, effects)) => {
                self.remove(id);
                effects
            }
            Some((false, effects)) => effects,
            None => Effects::default(),
        }
    }
}

impl Group {
    /// Goes on after an append. True when the group is gone.
    fn landed(
        &mut self,
        then: Then,
        result: Result<i64, GroupError>,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) -> bool {
        if let (true, Ok(base_offset)) = (then.is_of_members(), result) {
            self.members_recorded_at = Some(base_offset);
        }
        match (then, result) {
            (Then::Assign { generation, assignments }, Ok(_)) => {
                self.assigned(generation, assignments, now, out)
            }
            (Then::Assign { generation, .. }, Err(error)) => {
                self.assign_failed(generation, error, limits, now, out)
            }
            (Then::ReplaceStatic { waiter, joined }, Ok(_)) => {
                out.replies.push(Reply::Join(waiter, Ok(joined)))
            }
            (Then::ReplaceStatic { waiter, joined }, Err(error)) => {
                self.return_failed(&joined.member_id, limits, now, out);
                out.replies.push(Reply::Join(waiter, Err(JoinRefused { error, member_id: String::new() })));
            }
            // The record before it stays in force after a restart: its members are not heard of and time out again.
            (Then::Emptied, Ok(_) | Err(_)) => {}
            (Then::Offsets(changes), result) => {
                if result.is_err()
                    && self.state == State::Dead
                    && changes.iter().any(|(_, value)| value.is_none())
                {
                    // An offset of a group that is being deleted is still in the log, and so is the group.
                    self.state = State::Empty;
                }
                self.offsets_landed(changes, result.ok());
            }
            (Then::Pending { producer_id, changes }, result) => {
                self.pending_landed(producer_id, changes, result.ok());
            }
            // Of the shard, which does it.
            (Then::EndTransaction { .. }, _) => {}
            // Of another attempt, which failed in part: the group lives, or is being deleted anew.
            (Then::Delete { attempt }, _) if self.state != State::Dead || self.deletions != attempt => {}
            (Then::Delete { .. }, Ok(_)) => return true,
            (Then::Delete { .. }, Err(_)) => self.state = State::Empty,
        }
        false
    }
}

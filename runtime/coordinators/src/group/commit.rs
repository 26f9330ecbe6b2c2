//! OffsetCommit, OffsetFetch, OffsetDelete and expiry, as far as a group decides them.

use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;

use super::config::{
    DELETE_RECORDS_PER_APPEND, GroupLimits, PIPELINE_GROUP_PREFIX, SNAPSHOT_TEXT_BYTES_PER_APPEND,
};
use super::error::GroupError;
use super::offsets::{CommittedOffset, ExpiryStart};
use super::state::{CONSUMER_PROTOCOL_TYPE, Group, State};
use super::types::{
    Append, CommitRequest, Effects, FetchRequest, FetchedOffset, FetchedTopics, GroupRecord, MemberIdentity,
    Now, Then, TopicPartition,
};
use pelton_partitions::producer_id::ProducerIdentity;

/// Longest text of an offset that a record of Kafka's format can hold, in bytes.
const RECORD_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// The smaller of two offsets that may be there.
pub(super) fn first(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).min()
}

impl Group {
    /// Checks that the client may commit: a member of the current generation, or any client while the group has no
    /// members.
    pub(super) fn check_commit(&self, who: &MemberIdentity) -> Result<(), GroupError> {
        match self.state {
            State::Dead => return Err(GroupError::CoordinatorNotAvailable),
            State::Empty if who.generation_id < 0 => return Ok(()),
            State::Empty | State::PreparingRebalance | State::CompletingRebalance | State::Stable => {}
        }
        self.check_member(who)?;
        // The member has lost what it commits, or is about to learn what it has. While the rebalance is still being
        // prepared it may, so that its work is not done twice.
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Sends offsets to the log. One result per offset, in order: `Ok` is on its way and in `out`.
    pub(super) fn commit(
        &mut self,
        request: CommitRequest,
        limits: &GroupLimits,
        now: Now,
        out: &mut Effects,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match request.transaction {
            None => self.check_commit(&request.who)?,
            Some(_) => self.check_transactional(&request.who)?,
        }
        if let Some(id) = self.members.get(&request.who.member_id).map(|m| m.id.clone()) {
            self.arm_session(&id, now);
        }
        let expire_timestamp_ms = request.retention_ms.map(|ms| now.wall_ms.saturating_add(ms));
        let text_max = limits.offset_metadata_max_bytes.min(RECORD_STRING_BYTES_MAX);
        let mut results = Vec::with_capacity(request.offsets.len());
        let mut changes = Vec::with_capacity(request.offsets.len());
        for commit in request.offsets {
            if commit.metadata.len() > text_max {
                results.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            let value = CommittedOffset {
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                metadata: commit.metadata,
                commit_timestamp_ms: now.wall_ms,
                expire_timestamp_ms,
                record_offset: 0,
            };
            results.push(Ok(()));
            changes.push((commit.at, Some(value)));
        }
        if !changes.is_empty() {
            out.appends.push(match request.transaction {
                Some(_) if Mutant::OffsetsAtOnce.is_on() => self.offsets_append(changes),
                None => self.offsets_append(changes),
                Some(producer) => self.pending_append(producer, changes),
            });
        }
        Ok(results)
    }

    /// Checks that the client may commit within a transaction: one that names a member must be it, whatever the group
    /// is doing (KIP-447); clients from before that say nothing.
    fn check_transactional(&self, who: &MemberIdentity) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let anonymous = who.member_id.is_empty() && who.group_instance_id.is_none();
        let unchecked = Mutant::GenerationUnchecked.is_on();
        if anonymous && who.generation_id < 0 || unchecked {
            Ok(())
        } else {
            self.check_member(who).map(drop)
        }
    }

    fn pending_append(
        &mut self,
        producer: ProducerIdentity,
        changes: Vec<(TopicPartition, Option<CommittedOffset>)>,
    ) -> Append {
        let Append { group, records, .. } = self.offsets_append(changes.clone());
        let changes = changes.into_iter().filter_map(|(at, value)| Some((at, value?))).collect();
        let then = Then::Pending { producer_id: producer.id, changes };
        Append { group, transaction: Some(producer), records, then }
    }

    /// The records of a transaction at `base_offset` and after are durable; with `None` they have failed.
    pub(super) fn pending_landed(
        &mut self,
        producer_id: i64,
        changes: Vec<(TopicPartition, CommittedOffset)>,
        base_offset: Option<i64>,
    ) {
        for (index, (at, value)) in (0_i64..).zip(changes) {
            self.offsets.ended(&at);
            if let Some(base) = base_offset {
                let value = CommittedOffset { record_offset: base.saturating_add(index), ..value };
                self.offsets.apply_pending(producer_id, at, value);
            }
        }
    }

    fn offsets_append(&mut self, changes: Vec<(TopicPartition, Option<CommittedOffset>)>) -> Append {
        let records = changes
            .iter()
            .map(|(at, value)| {
                self.offsets.started(at);
                GroupRecord::Offset { group: self.id.clone(), at: at.clone(), value: value.clone() }
            })
            .collect();
        Append { group: self.id.clone(), transaction: None, records, then: Then::Offsets(changes) }
    }

    /// The records at `base_offset` and after are durable; with `None` they have failed and change nothing.
    pub(super) fn offsets_landed(
        &mut self,
        changes: Vec<(TopicPartition, Option<CommittedOffset>)>,
        base_offset: Option<i64>,
    ) {
        for (index, (at, value)) in (0_i64..).zip(changes) {
            self.offsets.ended(&at);
            if let Some(base) = base_offset {
                let value = value.map(|v| CommittedOffset { record_offset: base.saturating_add(index), ..v });
                self.offsets.apply(at, value);
            }
        }
    }

    /// The committed offsets that are durable.
    pub(super) fn fetch(&self, request: &FetchRequest) -> FetchedTopics {
        let one = |at: &TopicPartition| FetchedOffset {
            partition: at.partition,
            result: if request.require_stable && self.offsets.is_unstable(at) {
                Err(GroupError::UnstableOffsetCommit)
            } else {
                Ok(self.offsets.get(at).cloned())
            },
        };
        let Some(topics) = &request.topics else {
            let mut all: FetchedTopics = Vec::new();
            for (at, _) in self.offsets.iter() {
                match all.last_mut() {
                    Some((topic, offsets)) if *topic == at.topic => offsets.push(one(at)),
                    _ => all.push((at.topic.clone(), vec![one(at)])),
                }
            }
            return all;
        };
        topics
            .iter()
            .map(|(topic, partitions)| {
                let at =
                    |partition: &i32| one(&TopicPartition { topic: topic.clone(), partition: *partition });
                (topic.clone(), partitions.iter().map(at).collect())
            })
            .collect()
    }

    /// Deletes offsets of topics that no member reads. One result per partition, in order.
    pub(super) fn delete_offsets(
        &mut self,
        partitions: &[TopicPartition],
        out: &mut Effects,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        match self.state {
            State::Dead => return Err(GroupError::GroupIdNotFound),
            State::Empty => {}
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                if self.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL_TYPE) {
                    return Err(GroupError::NonEmptyGroup);
                }
            }
        }
        let subscribed = |at: &TopicPartition| self.may_be_subscribed(&at.topic);
        let result = |at| if subscribed(at) { Err(GroupError::GroupSubscribedToTopic) } else { Ok(()) };
        let results = partitions.iter().map(result).collect();
        let mut gone: Vec<_> = partitions
            .iter()
            .filter(|at| !subscribed(at) && self.offsets.may_be_logged(at))
            .cloned()
            .collect();
        gone.sort();
        gone.dedup();
        self.forget(gone, out);
        Ok(results)
    }

    /// Deletes the offsets of a topic that is gone.
    pub(super) fn topic_deleted(&mut self, topic: &Arc<str>, out: &mut Effects) {
        if self.state != State::Dead {
            let gone = self.offsets.of_topic(topic);
            self.forget(gone, out);
        }
    }

    /// Appends the records of this group's state once more. Those of a rebalance in progress or an open transaction stay
    /// where they are in the log: returns the offset of the first. `members_on_their_way`: a record of the members is not
    /// durable yet.
    pub(super) fn snapshot(
        &mut self,
        members_on_their_way: bool,
        limits: &GroupLimits,
        out: &mut Effects,
    ) -> Option<i64> {
        let mut needed = self.offsets.first_pending().filter(|_| !Mutant::SnapshotForgetsPending.is_on());
        if self.recorded && matches!(self.state, State::Empty | State::Stable) && !members_on_their_way {
            let record = self.metadata_record(Some(self.metadata(|id| self.assignment_of(id))));
            out.appends.push(self.append(record, Then::Emptied));
        } else {
            needed = first(needed, self.members_recorded_at);
        }
        // A record now would take the place of one on its way, or of one whose transaction commits later.
        let open = self.offsets.open();
        let stays = |at: &TopicPartition| open.contains(at) && !Mutant::SnapshotOvertakes.is_on();
        let (open, settled): (Vec<_>, Vec<_>) = self.offsets.iter().partition(|(at, _)| stays(at));
        needed = first(needed, open.iter().map(|(_, value)| value.record_offset).min());
        let settled: Vec<_> =
            settled.into_iter().map(|(at, value)| (at.clone(), Some(value.clone()))).collect();
        // Their texts are bounded too, so that a few of the longest fit into a batch.
        let longest = limits.offset_metadata_max_bytes.max(1);
        let per_append = (SNAPSHOT_TEXT_BYTES_PER_APPEND / longest).clamp(1, DELETE_RECORDS_PER_APPEND);
        for chunk in settled.chunks(per_append) {
            out.appends.push(self.offsets_append(chunk.to_vec()));
        }
        needed
    }

    fn forget(&mut self, gone: Vec<TopicPartition>, out: &mut Effects) {
        for chunk in gone.chunks(DELETE_RECORDS_PER_APPEND) {
            let changes = chunk.iter().map(|at| (at.clone(), None)).collect();
            out.appends.push(self.offsets_append(changes));
        }
    }

    /// Deletes an empty group with all it has committed.
    pub(super) fn delete(&mut self, now: Now, out: &mut Effects) -> Result<(), GroupError> {
        match self.state {
            State::Dead => return Err(GroupError::GroupIdNotFound),
            State::Empty => {}
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                return Err(GroupError::NonEmptyGroup);
            }
        }
        for id in std::mem::take(&mut self.pending_members) {
            self.remove_pending_member(&id);
        }
        let gone = self.offsets.may_be_logged_all();
        self.forget(gone, out);
        self.bury(now, out);
        Ok(())
    }

    /// When the group may have something to let go, at the earliest; `None` if there is nothing to wait for.
    pub(super) fn expiry_ms(&self, limits: &GroupLimits) -> Option<i64> {
        if self.state == State::Dead || self.id.starts_with(PIPELINE_GROUP_PREFIX) {
            return None;
        }
        if self.is_unused() {
            return Some(self.state_since_ms);
        }
        self.offsets.first_expiry_ms(limits.offsets_retention_ms)
    }

    /// Nothing in it, and a record in the log that would bring it back.
    fn is_unused(&self) -> bool {
        let no_members = self.members.is_empty() && self.pending_members.is_empty();
        self.state == State::Empty && self.recorded && no_members && self.offsets.is_vacant()
    }

    /// Deletes offsets that were not used for `offsets.retention.minutes`, and the group itself when it has none left.
    pub(super) fn expire(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        // A pipeline commits when it has something to do. One that is paused, or whose input is quiet, must go on where
        // it stopped all the same.
        if self.id.starts_with(PIPELINE_GROUP_PREFIX) {
            return;
        }
        let consumer = self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE);
        let start = match (self.state, &self.protocol_type) {
            (State::Dead, _) => return,
            (_, None) => ExpiryStart::Commit,
            (State::Empty, Some(_)) => ExpiryStart::Since(self.state_since_ms),
            // The group has members: only offsets of topics that none subscribes to may go, and only if subscriptions
            // are known.
            (State::Stable, Some(_)) if consumer && self.subscribed.is_some() => ExpiryStart::Commit,
            (State::PreparingRebalance | State::CompletingRebalance | State::Stable, Some(_)) => return,
        };
        let spared = |topic: &str| self.protocol_type.is_some() && self.may_be_subscribed(topic);
        let gone = self.offsets.expired(start, limits.offsets_retention_ms, now.wall_ms, spared);
        self.forget(gone, out);
        if self.is_unused() {
            self.bury(now, out);
        }
    }

    fn bury(&mut self, now: Now, out: &mut Effects) {
        self.move_to(State::Dead, now);
        self.deletions = self.deletions.wrapping_add(1);
        let then = Then::Delete { attempt: self.deletions };
        out.appends.push(self.append(self.metadata_record(None), then));
    }
}

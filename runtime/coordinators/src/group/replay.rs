//! From the records of a partition back to its groups. What this gives is the coordinator's state; there is no other.

use std::sync::Arc;

use bytes::Bytes;
use pelton_commitlog::mutant::Mutant;

use super::member::Member;
use super::members::Members;
use super::records::{self, GroupMetadata, Key, MemberMetadata, RecordError};
use super::shard::Shard;
use super::state::{Group, State};
use super::store::Stored;
use super::types::{GroupId, MemberId, Now, Protocol, TopicPartition};

/// Why a record of the log cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the group has two members of one id, or one instance id")]
    TwoMembers,
}

impl Shard {
    /// Takes over one record. After an error the shard is not what its log says.
    pub(super) fn replay(&mut self, stored: Stored, now: Now) -> Result<(), ReplayError> {
        match stored {
            Stored::Record { offset, producer_id, key, value } => match records::decode_key(key)? {
                Key::Offset { group, at } => {
                    self.replay_offset(&group, at, value, offset, producer_id, now)?
                }
                Key::Group(group) => self.replay_group(&group, value, offset, now)?,
                // Groups of the newer protocol and share groups, in a log that another broker wrote: none of ours.
                Key::Other(version) => {
                    tracing::warn!(
                        version,
                        "left out a record of `__consumer_offsets` whose key has an unknown version"
                    );
                }
            },
            Stored::Marker { producer_id, commit } => self.end_transaction(producer_id, commit),
        }
        Ok(())
    }

    fn replay_offset(
        &mut self,
        group: &GroupId,
        at: TopicPartition,
        value: Option<Bytes>,
        record_offset: i64,
        producer_id: Option<i64>,
        now: Now,
    ) -> Result<(), ReplayError> {
        let value = value.map(|v| records::decode_offset(v, record_offset)).transpose()?;
        if value.is_none() && self.get(group).is_none() {
            return Ok(());
        }
        match (producer_id, value) {
            (Some(producer_id), Some(value)) if !Mutant::PendingCountsAtReplay.is_on() => {
                self.replayed(group, now).offsets.apply_pending(producer_id, at, value);
                self.joined_transaction(producer_id, group);
            }
            (_, value) => self.replayed(group, now).offsets.apply(at, value),
        }
        Ok(())
    }

    fn replay_group(
        &mut self,
        group: &GroupId,
        value: Option<Bytes>,
        record_offset: i64,
        now: Now,
    ) -> Result<(), ReplayError> {
        let Some(value) = value.map(records::decode_group).transpose()? else {
            if let Some(group) = self.get_mut(group) {
                group.forget_members(now);
            }
            return Ok(());
        };
        let members = restore_members(&value)?;
        let group = self.replayed(group, now);
        group.restore(value, members, now);
        group.members_recorded_at = Some(record_offset);
        Ok(())
    }
}

impl Group {
    /// What a tombstone leaves: nothing but offsets.
    fn forget_members(&mut self, now: Now) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Group { offsets, ..Group::new(self.id.clone(), now) };
    }

    fn restore(&mut self, value: GroupMetadata, members: Members, now: Now) {
        let offsets = std::mem::take(&mut self.offsets);
        let first = || members.iter().next().map(|m| m.id.clone());
        let leader =
            value.leader.as_deref().and_then(|id| members.get(id)).map(|m| m.id.clone()).or_else(first);
        *self = Group {
            state: if members.is_empty() { State::Empty } else { State::Stable },
            state_since_ms: if value.state_since_ms >= 0 { value.state_since_ms } else { now.wall_ms },
            generation: value.generation,
            protocol_type: Some(value.protocol_type).filter(|t| !t.is_empty()),
            protocol: value.protocol,
            leader,
            members,
            recorded: true,
            offsets,
            ..Group::new(self.id.clone(), now)
        };
        self.subscribed = self.find_subscribed();
    }

    /// The members have as long as a session to be heard of again.
    pub(super) fn resume(&mut self, now: Now) {
        for id in self.members.ids() {
            self.arm_session(&id, now);
        }
    }
}

fn restore_members(value: &GroupMetadata) -> Result<Members, ReplayError> {
    let mut members = Members::default();
    for member in &value.members {
        let taken = |instance: &str| members.instance(instance).is_some();
        if members.get(&member.member_id).is_some() || member.group_instance_id.as_deref().is_some_and(taken)
        {
            return Err(ReplayError::TwoMembers);
        }
        members.insert(restore_member(member, value.protocol.as_deref().unwrap_or_default()));
    }
    Ok(members)
}

fn restore_member(member: &MemberMetadata, protocol: &str) -> Member {
    Member {
        id: MemberId::from(&*member.member_id),
        group_instance_id: member.group_instance_id.as_deref().map(Arc::from),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        protocols: vec![Protocol { name: protocol.to_owned(), metadata: member.subscription.clone() }],
        assignment: member.assignment.clone(),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}

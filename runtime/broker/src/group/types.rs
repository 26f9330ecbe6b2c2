//! What goes into the group state machine and what comes out: plain values, without versions of the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::offsets::CommittedOffset;
use super::records::GroupMetadata;
use crate::producer_id::ProducerIdentity;

/// Name of a consumer group.
pub(crate) type GroupId = Arc<str>;

/// Name that the coordinator gave to a member.
pub(crate) type MemberId = Arc<str>;

/// The generation of a request that comes from outside of any generation.
pub(crate) const NO_GENERATION: i32 = -1;

/// Both clocks at one moment. Time-outs go by `mono_ms`, so that a jump of the wall clock expires no session;
/// what is written to the log goes by `wall_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: i64,
    /// Milliseconds of a clock that never jumps.
    pub(crate) mono_ms: u64,
}

impl Now {
    /// The moment `ms` milliseconds later, on the clock of time-outs.
    pub(crate) fn after(self, ms: i32) -> u64 {
        self.mono_ms.saturating_add(u64::try_from(ms).unwrap_or(0))
    }
}

/// Names a request whose answer is parked in the state machine. Unique within a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Waiter(pub(crate) u64);

/// A way of assigning partitions that a member can follow, with what it wants the leader to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// Empty for a member that was never given an id.
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<Protocol>,
    /// Version 4 and up: a new dynamic member is told its id first and joins with it (KIP-394).
    pub(crate) require_known_member_id: bool,
    /// Version 9 and up: a returning static leader can be told not to assign (KIP-814).
    pub(crate) supports_skip_assignment: bool,
    /// The id to give when one must be given.
    pub(crate) fresh_member_id: MemberId,
}

/// The answer to JoinGroup of a member that is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation_id: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: MemberId,
    /// Everybody, for the leader; empty for the others.
    pub(crate) members: Vec<JoinedMember>,
}

/// What the leader learns of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: MemberId,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

/// A refused JoinGroup, with the member id the client shall go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: GroupError,
    pub(crate) member_id: String,
}

pub(crate) type JoinResult = Result<Joined, JoinRefused>;

/// SyncGroup.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) generation_id: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    /// From the leader: what each member gets.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) assignment: Bytes,
}

pub(crate) type SyncResult = Result<Synced, GroupError>;

/// Who says something as a member: Heartbeat, and the head of OffsetCommit.
#[derive(Clone, Debug)]
pub(crate) struct MemberIdentity {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) generation_id: i32,
}

/// One member of a LeaveGroup. An empty member id with an instance id removes whoever is that instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeavingMember {
    pub(crate) member_id: String,
    pub(crate) group_instance_id: Option<String>,
}

/// What became of one member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftMember {
    pub(crate) member: LeavingMember,
    pub(crate) result: Result<(), GroupError>,
}

/// One partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

/// One offset of an OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetToCommit {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    /// −1 when the client does not know it.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub(crate) struct CommitRequest {
    pub(crate) who: MemberIdentity,
    /// Versions 2 to 4: keep the offsets so long whatever the broker's setting says.
    pub(crate) retention_ms: Option<i64>,
    /// Version 9 and up: a missing group is told as such, not as a wrong generation.
    pub(crate) knows_group_id_not_found: bool,
    /// Part of this producer's open transaction: the offsets count once it is committed.
    pub(crate) transaction: Option<ProducerIdentity>,
    pub(crate) offsets: Vec<OffsetToCommit>,
}

/// One offset of an answer to OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchedOffset {
    pub(crate) partition: i32,
    /// `Ok(None)` when nothing is committed.
    pub(crate) result: Result<Option<CommittedOffset>, GroupError>,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug)]
pub(crate) struct FetchRequest {
    /// `None` asks for everything the group has committed.
    pub(crate) topics: Option<Vec<(Arc<str>, Vec<i32>)>>,
    /// Offsets of open transactions are an error instead of being looked through (KIP-447).
    pub(crate) require_stable: bool,
}

pub(crate) type FetchedTopics = Vec<(Arc<str>, Vec<FetchedOffset>)>;

/// DescribeGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupDescription {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<MemberDescription>,
}

/// DescribeGroups of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberDescription {
    pub(crate) member_id: MemberId,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// ListGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupListing {
    pub(crate) group_id: GroupId,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

/// What a step of the state machine wants done.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Parked requests to answer now.
    pub(crate) replies: Vec<Reply>,
    /// Records to append, in order.
    pub(crate) appends: Vec<Append>,
}

/// The answer to a parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Join(Waiter, JoinResult),
    Sync(Waiter, SyncResult),
}

/// Records that belong together, and what to do once they are durable.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) group: GroupId,
    /// Whose transaction the records are part of.
    pub(crate) transaction: Option<ProducerIdentity>,
    pub(crate) records: Vec<GroupRecord>,
    pub(crate) then: Then,
}

/// One record of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupRecord {
    /// A group's members; `None` deletes the group.
    Metadata { group: GroupId, value: Option<GroupMetadata> },
    /// A committed offset; `None` deletes it.
    Offset { group: GroupId, at: TopicPartition, value: Option<CommittedOffset> },
}

/// How a group goes on when an append is durable, or has failed.
#[derive(Debug)]
pub(crate) enum Then {
    /// Hand out the leader's assignment of a generation.
    Assign { generation: i32, assignments: BTreeMap<MemberId, Bytes> },
    /// Answer a static member that came back under a new id.
    ReplaceStatic { waiter: Waiter, joined: Joined },
    /// The group has no members any more; nothing waits for the record.
    Emptied,
    /// Keep the offsets until the producer's transaction ends.
    Pending { producer_id: i64, changes: Vec<(TopicPartition, CommittedOffset)> },
    /// The producer's transaction has ended, in all groups of the shard.
    EndTransaction { producer_id: i64, commit: bool },
    /// Let reads see the offsets, or forget those without a value.
    Offsets(Vec<(TopicPartition, Option<CommittedOffset>)>),
    /// The group is gone, unless this attempt has failed in part.
    Delete { attempt: u32 },
}

impl Then {
    /// Whether the append says who the members of its group are.
    pub(crate) fn is_of_members(&self) -> bool {
        match self {
            Then::Assign { .. } | Then::ReplaceStatic { .. } | Then::Emptied | Then::Delete { .. } => true,
            Then::Pending { .. } | Then::EndTransaction { .. } | Then::Offsets(_) => false,
        }
    }
}

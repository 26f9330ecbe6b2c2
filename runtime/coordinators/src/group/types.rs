//! The inputs and outputs of the group state machine: plain values, without versions of the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::offsets::CommittedOffset;
use super::records::GroupMetadata;
use pelton_partitions::producer_id::ProducerIdentity;

/// Name of a consumer group.
pub type GroupId = Arc<str>;

/// Name that the coordinator gave to a member.
pub type MemberId = Arc<str>;

/// The generation of a request that comes from outside of any generation.
pub const NO_GENERATION: i32 = -1;

/// Both clocks at one moment. Time-outs go by `mono_ms`, so that a jump of the wall clock expires no session;
/// what is written to the log goes by `wall_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never jumps.
    pub mono_ms: u64,
}

impl Now {
    /// The moment `ms` milliseconds later, on the clock of time-outs.
    pub fn after(self, ms: i32) -> u64 {
        self.mono_ms.saturating_add(u64::try_from(ms).unwrap_or(0))
    }
}

/// Names a request whose answer is parked in the state machine. Unique within a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// A way of assigning partitions that a member can follow, with what it wants the leader to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty for a member that was never given an id.
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    /// Version 4 and up: a new dynamic member is told its id first and joins with it (KIP-394).
    pub require_known_member_id: bool,
    /// Version 9 and up: a returning static leader can be told not to assign (KIP-814).
    pub supports_skip_assignment: bool,
    /// The id to give when one must be given.
    pub fresh_member_id: MemberId,
}

/// The answer to JoinGroup of a member that is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation_id: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: MemberId,
    /// All members, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

/// A member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: MemberId,
    pub group_instance_id: Option<String>,
    pub metadata: Bytes,
}

/// A refused JoinGroup, with the member id the client shall go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub error: GroupError,
    pub member_id: String,
}

pub type JoinResult = Result<Joined, JoinRefused>;

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub generation_id: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

pub type SyncResult = Result<Synced, GroupError>;

/// A member as it names itself: Heartbeat, and the head of OffsetCommit.
#[derive(Clone, Debug)]
pub struct MemberIdentity {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub generation_id: i32,
}

/// One member of a LeaveGroup. An empty member id with an instance id removes the member that is that instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// What became of one member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    pub member: LeavingMember,
    pub result: Result<(), GroupError>,
}

/// One partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// One offset of an OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    pub at: TopicPartition,
    pub offset: i64,
    /// −1 when the client does not know it.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub who: MemberIdentity,
    /// Versions 2 to 4: keep the offsets so long whatever the broker's setting says.
    pub retention_ms: Option<i64>,
    /// Version 9 and up: a missing group is answered as such, not as a wrong generation.
    pub knows_group_id_not_found: bool,
    /// Part of this producer's open transaction: the offsets count once it is committed.
    pub transaction: Option<ProducerIdentity>,
    pub offsets: Vec<OffsetToCommit>,
}

/// One offset of an answer to OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    /// `Ok(None)` when nothing is committed.
    pub result: Result<Option<CommittedOffset>, GroupError>,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// `None` asks for everything the group has committed.
    pub topics: Option<Vec<(Arc<str>, Vec<i32>)>>,
    /// Offsets of open transactions are an error instead of being looked through (KIP-447).
    pub require_stable: bool,
}

pub type FetchedTopics = Vec<(Arc<str>, Vec<FetchedOffset>)>;

/// DescribeGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<MemberDescription>,
}

/// DescribeGroups of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: MemberId,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// ListGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    pub group_id: GroupId,
    pub protocol_type: String,
    pub state: &'static str,
}

/// The replies and appends of one step of the state machine.
#[derive(Debug, Default)]
pub struct Effects {
    /// Parked requests to answer now.
    pub replies: Vec<Reply>,
    /// Records to append, in order.
    pub appends: Vec<Append>,
}

/// The answer to a parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Join(Waiter, JoinResult),
    Sync(Waiter, SyncResult),
}

/// Records that belong together, and what to do once they are durable.
#[derive(Debug)]
pub struct Append {
    pub group: GroupId,
    /// Whose transaction the records are part of.
    pub transaction: Option<ProducerIdentity>,
    pub records: Vec<GroupRecord>,
    pub then: Then,
}

/// One record of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A group's members; `None` deletes the group.
    Metadata { group: GroupId, value: Option<GroupMetadata> },
    /// A committed offset; `None` deletes it.
    Offset { group: GroupId, at: TopicPartition, value: Option<CommittedOffset> },
}

/// How a group goes on when an append is durable, or has failed.
#[derive(Debug)]
pub enum Then {
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
    /// Whether the append changes the members of its group.
    pub fn is_of_members(&self) -> bool {
        match self {
            Then::Assign { .. } | Then::ReplaceStatic { .. } | Then::Emptied | Then::Delete { .. } => true,
            Then::Pending { .. } | Then::EndTransaction { .. } | Then::Offsets(_) => false,
        }
    }
}

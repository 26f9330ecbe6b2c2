//! Requests to the owner of a shard, and their answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::error::GroupError;
use super::super::service::{GroupSummary, OffsetsPage};
use super::super::types::{
    CommitRequest, FetchRequest, FetchedTopics, GroupDescription, GroupId, GroupListing, JoinRefused,
    JoinRequest, JoinResult, LeavingMember, LeftMember, MemberIdentity, SyncRequest, SyncResult,
    TopicPartition, Waiter,
};
use pelton_partitions::partition::TxnMarker;

pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, GroupError>>;

/// A request to the owner of a shard.
pub(in crate::group) enum Message {
    Join {
        group: GroupId,
        request: Box<JoinRequest>,
        waiter: Waiter,
        reply: oneshot::Sender<JoinResult>,
    },
    AbandonJoin {
        group: GroupId,
        member_id: String,
        waiter: Waiter,
    },
    Sync {
        group: GroupId,
        request: SyncRequest,
        waiter: Waiter,
        reply: oneshot::Sender<SyncResult>,
    },
    Heartbeat {
        group: GroupId,
        who: MemberIdentity,
        reply: ReplyTo<()>,
    },
    Leave {
        group: GroupId,
        leaving: Vec<LeavingMember>,
        reply: ReplyTo<Vec<LeftMember>>,
    },
    Commit {
        group: GroupId,
        request: Box<CommitRequest>,
        placed: Option<Placed>,
        reply: ReplyTo<Vec<Result<(), GroupError>>>,
    },
    /// Answered when the marker has its place in the log.
    EndTransaction {
        marker: TxnMarker,
        applied: ReplyTo<()>,
        reply: ReplyTo<()>,
    },
    Fetch {
        group: GroupId,
        request: FetchRequest,
        reply: ReplyTo<FetchedTopics>,
    },
    DeleteOffsets {
        group: GroupId,
        partitions: Vec<TopicPartition>,
        reply: ReplyTo<Vec<Result<(), GroupError>>>,
    },
    Delete {
        group: GroupId,
        reply: ReplyTo<()>,
    },
    Describe {
        group: GroupId,
        reply: ReplyTo<Option<GroupDescription>>,
    },
    List {
        reply: ReplyTo<Vec<GroupListing>>,
    },
    Summaries {
        after: GroupId,
        limit: usize,
        reply: ReplyTo<Vec<GroupSummary>>,
    },
    /// Offsets of groups after this one, as many as are copied in one go.
    Committed {
        after: GroupId,
        offsets_max: usize,
        reply: ReplyTo<OffsetsPage>,
    },
    TopicDeleted {
        topic: Arc<str>,
        reply: ReplyTo<()>,
    },
    /// Looks whether its log has grown so much that a snapshot is due. `over` is dropped when that has come to an end.
    SnapshotWhenDue {
        over: oneshot::Sender<()>,
    },
    Stop,
}

/// Called when all records of a request have their place in the log, or with an error: then some may have theirs.
pub(in crate::group) type Placed = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// The client may have hung up: then the answer is dropped.
pub(super) fn answer<T>(to: oneshot::Sender<T>, value: T) {
    drop(to.send(value));
}

pub(super) fn refuse(request: Message, error: GroupError) {
    match request {
        Message::Join { request, reply, .. } => {
            answer(reply, Err(JoinRefused { error, member_id: request.member_id.clone() }));
        }
        Message::AbandonJoin { .. } | Message::SnapshotWhenDue { .. } | Message::Stop => {}
        Message::Sync { reply, .. } => answer(reply, Err(error)),
        Message::Heartbeat { reply, .. }
        | Message::EndTransaction { reply, .. }
        | Message::Delete { reply, .. }
        | Message::TopicDeleted { reply, .. } => {
            answer(reply, Err(error));
        }
        Message::Leave { reply, .. } => answer(reply, Err(error)),
        Message::Commit { reply, .. } | Message::DeleteOffsets { reply, .. } => answer(reply, Err(error)),
        Message::Fetch { reply, .. } => answer(reply, Err(error)),
        Message::Describe { reply, .. } => answer(reply, Err(error)),
        Message::List { reply } => answer(reply, Err(error)),
        Message::Summaries { reply, .. } => answer(reply, Err(error)),
        Message::Committed { reply, .. } => answer(reply, Err(error)),
    }
}

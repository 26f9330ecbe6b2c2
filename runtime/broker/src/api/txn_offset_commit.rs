//! TxnOffsetCommit: stores offsets of a group as part of a transaction. They count once the transaction is committed.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::txn_offset_commit::{
    TxnOffsetCommitRequestTopic, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use pelton_wire::message::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use super::support::txn_error::or_close;
use crate::group::error::{GroupError, code_of};
use crate::group::types::{CommitRequest, MemberIdentity, OffsetToCommit, TopicPartition};
use crate::producer_id::ProducerIdentity;
use crate::txn::error::TxnError;
use crate::txn::state::Protocol;

/// First version of the newer protocol (KIP-890).
const EPOCH_PER_TRANSACTION_SINCE: i16 = 5;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> Reply<TxnOffsetCommitResponse> {
    let (parts, version, from) = (Arc::clone(parts), cx.version, Some(cx.origin()));
    cx.later_or_close(async move {
        let TxnOffsetCommitRequest { topics, .. } = request;
        let mut offsets = Vec::new();
        let mut response: Vec<_> =
            topics.into_iter().map(|topic| check(&parts, topic, &mut offsets)).collect();
        let who = MemberIdentity {
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            generation_id: request.generation_id,
        };
        let commit = CommitRequest {
            who,
            retention_ms: None,
            knows_group_id_not_found: false,
            transaction: None,
            offsets,
        };
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let newer = version >= EPOCH_PER_TRANSACTION_SINCE;
        let protocol = if newer { Protocol::EpochPerTransaction } else { Protocol::Classic };
        let (id, group) = (&request.transactional_id, &request.group_id);
        let outcome = match parts.pipelines.unless_running(group, GroupError::UnknownMemberId) {
            Ok(()) if group.is_empty() => Ok(Err(GroupError::InvalidGroupId)),
            Ok(()) => parts.transactions.commit_offsets(id, group, commit, producer, protocol, from).await,
            Err(in_use) => Ok(Err(in_use)),
        };
        let codes: Box<dyn Iterator<Item = ErrorCode>> = match outcome {
            Ok(Ok(results)) => Box::new(results.into_iter().map(|result| code_of(&result))),
            Ok(Err(error)) => Box::new(std::iter::repeat(error.code())),
            Err(error) => Box::new(std::iter::repeat(refusal(or_close(error)?, newer))),
        };
        let open = response.iter_mut().flat_map(|topic| &mut topic.partitions);
        for (slot, code) in open.filter(|slot| slot.error_code.is_ok()).zip(codes) {
            slot.error_code = code;
        }
        Ok(TxnOffsetCommitResponse { topics: response, ..Default::default() })
    })
}

/// This API's errors are the group coordinator's: INVALID_PRODUCER_EPOCH for a fenced producer.
fn refusal(error: TxnError, newer: bool) -> ErrorCode {
    match error {
        TxnError::NotAdded if newer => ErrorCode::TRANSACTION_ABORTABLE,
        // Of the two retriable codes, the one that every client knows here.
        TxnError::Elsewhere => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        other => other.code_before_fenced(),
    }
}

/// Collects the offsets of partitions that exist; the others have their error already.
fn check(
    parts: &TransactionParts,
    wanted: TxnOffsetCommitRequestTopic,
    offsets: &mut Vec<OffsetToCommit>,
) -> TxnOffsetCommitResponseTopic {
    let topic = parts.topics.get(&wanted.name);
    let name: Arc<str> = wanted.name.as_str().into();
    let partitions = wanted.partitions.into_iter().map(|partition| {
        let partition_index = partition.partition_index;
        let exists = topic.as_ref().is_some_and(|topic| topic.has_partition(partition_index));
        let error_code = if exists {
            offsets.push(OffsetToCommit {
                at: TopicPartition { topic: Arc::clone(&name), partition: partition_index },
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.unwrap_or_default(),
            });
            ErrorCode::NONE
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        TxnOffsetCommitResponsePartition { partition_index, error_code }
    });
    let partitions = partitions.collect();
    TxnOffsetCommitResponseTopic { name: wanted.name, partitions }
}

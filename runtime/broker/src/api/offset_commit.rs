//! OffsetCommit: stores committed offsets of a group. Answered when they are durable.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::offset_commit::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use pelton_wire::message::{OffsetCommitRequest, OffsetCommitResponse};

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::error::GroupError;
use crate::group::types::{CommitRequest, MemberIdentity, OffsetToCommit, TopicPartition};

/// First version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 10;
/// First version whose clients know GROUP_ID_NOT_FOUND.
const GROUP_ID_NOT_FOUND_SINCE: i16 = 9;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: OffsetCommitRequest,
) -> Reply<OffsetCommitResponse> {
    let (parts, version) = (Arc::clone(parts), cx.version);
    cx.later(async move {
        let OffsetCommitRequest { group_id, topics, .. } = request;
        let who = MemberIdentity {
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            generation_id: request.generation_id_or_member_epoch,
        };
        // One slot per partition in the order of the request; unknown partitions get their error here.
        let mut offsets = Vec::new();
        let mut response: Vec<_> =
            topics.into_iter().map(|topic| check(&parts, topic, version, &mut offsets)).collect();
        let commit = CommitRequest {
            who,
            retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
            knows_group_id_not_found: version >= GROUP_ID_NOT_FOUND_SINCE,
            transaction: None,
            offsets,
        };
        let outcome = match parts.pipelines.unless_running(&group_id, GroupError::UnknownMemberId) {
            Ok(()) => parts.groups.commit(&group_id, commit).await,
            Err(in_use) => Err(in_use),
        };
        settle(&mut response, outcome);
        OffsetCommitResponse { topics: response, ..Default::default() }
    })
}

/// Collects the offsets of partitions that exist; the others have their error already.
fn check(
    parts: &GroupParts,
    wanted: OffsetCommitRequestTopic,
    version: i16,
    offsets: &mut Vec<OffsetToCommit>,
) -> OffsetCommitResponseTopic {
    let by_id = version >= TOPIC_IDS_SINCE;
    let topic = if by_id { parts.topics.by_id(wanted.topic_id) } else { parts.topics.get(&wanted.name) };
    let missing = if by_id && topic.is_none() {
        ErrorCode::UNKNOWN_TOPIC_ID
    } else {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    };
    let name: Option<Arc<str>> = topic.as_ref().map(|topic| Arc::from(&*topic.name));
    let one = |partition: OffsetCommitRequestPartition| {
        let partition_index = partition.partition_index;
        let exists = topic.as_ref().is_some_and(|topic| topic.has_partition(partition_index));
        let error_code = match &name {
            Some(name) if exists => {
                let at = TopicPartition { topic: Arc::clone(name), partition: partition_index };
                offsets.push(OffsetToCommit {
                    at,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.unwrap_or_default(),
                });
                ErrorCode::NONE
            }
            _ => missing,
        };
        OffsetCommitResponsePartition { partition_index, error_code }
    };
    let partitions = wanted.partitions.into_iter().map(one).collect();
    OffsetCommitResponseTopic { name: wanted.name, topic_id: wanted.topic_id, partitions }
}

/// Puts the results into the slots.
fn settle(
    response: &mut [OffsetCommitResponseTopic],
    outcome: Result<Vec<Result<(), GroupError>>, GroupError>,
) {
    let open =
        response.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|slot| slot.error_code.is_ok());
    match outcome {
        Ok(results) => {
            for (slot, result) in open.zip(results) {
                slot.error_code = crate::group::error::code_of(&result);
            }
        }
        Err(error) => open.for_each(|slot| slot.error_code = error.code()),
    }
}

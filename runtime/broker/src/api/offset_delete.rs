//! OffsetDelete: deletes committed offsets of topics that no member subscribes to.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use pelton_wire::message::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::context::RequestContext;
use super::reply::Reply;
use crate::admin::Admin;
use crate::group::error::{GroupError, code_of};
use crate::group::types::TopicPartition;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    if request.group_id.is_empty() {
        let error_code = GroupError::InvalidGroupId.code();
        return Reply::ready(OffsetDeleteResponse { error_code, ..Default::default() });
    }
    let admin = Arc::clone(admin);
    cx.later(async move {
        let mut wanted = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let known = admin.topic(&topic.name);
            let name: Arc<str> = Arc::from(&*topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let partition_index = partition.partition_index;
                let exists = known.as_ref().is_some_and(|topic| topic.has_partition(partition_index));
                let error_code = if exists { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
                if exists {
                    wanted.push(TopicPartition { topic: Arc::clone(&name), partition: partition_index });
                }
                OffsetDeleteResponsePartition { partition_index, error_code }
            });
            let partitions = partitions.collect();
            topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
        }
        match admin.delete_offsets(&request.group_id, wanted).await {
            Ok(results) => {
                let open = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                for (slot, result) in open.filter(|slot| slot.error_code.is_ok()).zip(results) {
                    slot.error_code = code_of(&result);
                }
                OffsetDeleteResponse { topics, ..Default::default() }
            }
            Err(error) => OffsetDeleteResponse { error_code: error.code(), ..Default::default() },
        }
    })
}

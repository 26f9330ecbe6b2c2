//! DeleteRecords: moves the start of logs forward.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use pelton_wire::message::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::error_map;
use crate::broker::Broker;
use crate::reply::{Reply, RequestContext};
use crate::topics::Topic;

/// Kafka's value for "up to the high watermark".
const HIGH_WATERMARK: i64 = -1;

pub(crate) fn handle(cx: &RequestContext, request: DeleteRecordsRequest) -> Reply<DeleteRecordsResponse> {
    let broker = Arc::clone(&cx.broker);
    Reply::in_order(async move {
        let mut topics = Vec::with_capacity(request.topics.len());
        for wanted in request.topics {
            let topic = broker.topics.get(&wanted.name);
            let mut partitions = Vec::with_capacity(wanted.partitions.len());
            for partition in wanted.partitions {
                let low = delete(&broker, topic.as_deref(), &partition).await;
                partitions.push(result(partition.partition_index, low));
            }
            topics.push(DeleteRecordsTopicResult { name: wanted.name, partitions });
        }
        DeleteRecordsResponse { topics, ..Default::default() }
    })
}

/// The start of the log afterwards.
async fn delete(
    broker: &Broker,
    topic: Option<&Topic>,
    wanted: &DeleteRecordsPartition,
) -> Result<i64, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    if topic.is_internal() {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let partition = topic.partition(wanted.partition_index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    // Compaction's promise, the newest record of each key, would be broken.
    if !topic.config.delete {
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    let end = partition.high_watermark();
    let before = if wanted.offset == HIGH_WATERMARK { end } else { wanted.offset };
    if !(0..=end).contains(&before) {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    let partition = Arc::clone(partition);
    let deleted = broker.blocking(move || partition.delete_records(before)).await;
    deleted.map_err(|error| error_map::change(&error))
}

fn result(partition_index: i32, low: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    match low {
        Ok(low_watermark) => {
            DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: ErrorCode::NONE }
        }
        Err(error_code) => DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code },
    }
}

//! DeleteRecords: moves the start of logs forward.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use pelton_wire::message::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map;
use crate::admin::Admin;

/// Kafka's value for "up to the high watermark".
const HIGH_WATERMARK: i64 = -1;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: DeleteRecordsRequest,
) -> Reply<DeleteRecordsResponse> {
    let admin = Arc::clone(admin);
    cx.in_order(async move {
        let mut topics = Vec::with_capacity(request.topics.len());
        for wanted in request.topics {
            let mut partitions = Vec::with_capacity(wanted.partitions.len());
            for DeleteRecordsPartition { partition_index, offset, .. } in wanted.partitions {
                let before = Some(offset).filter(|offset| *offset != HIGH_WATERMARK);
                let low = admin.delete_records(&wanted.name, partition_index, before).await;
                partitions
                    .push(result(partition_index, low.map_err(|error| error_map::delete_records(&error))));
            }
            topics.push(DeleteRecordsTopicResult { name: wanted.name, partitions });
        }
        DeleteRecordsResponse { topics, ..Default::default() }
    })
}

fn result(partition_index: i32, low: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    match low {
        Ok(low_watermark) => {
            DeleteRecordsPartitionResult { partition_index, low_watermark, error_code: ErrorCode::NONE }
        }
        Err(error_code) => DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code },
    }
}

//! WriteTxnMarkers: on one broker only an administrator sends it, to end a hanging transaction that its coordinator has
//! forgotten.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
};
use pelton_wire::message::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use super::support::error_map;
use crate::group::store::OFFSETS_TOPIC;
use crate::partition::{InternalAppendError, TxnMarker};
use crate::producer_id::ProducerIdentity;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> Reply<WriteTxnMarkersResponse> {
    let parts = Arc::clone(parts);
    cx.later(async move {
        let mut markers = Vec::with_capacity(request.markers.len());
        for marker in request.markers {
            markers.push(write(&parts, marker).await);
        }
        WriteTxnMarkersResponse { markers }
    })
}

async fn write(parts: &TransactionParts, marker: WritableTxnMarker) -> WritableTxnMarkerResult {
    let producer = ProducerIdentity { id: marker.producer_id, epoch: marker.producer_epoch };
    let coordinator_epoch = Some(marker.coordinator_epoch);
    let end = TxnMarker { producer, commit: marker.transaction_result, coordinator_epoch };
    let is_known = parts.topics.producer_id_was_given(producer.id);
    let mut topics = Vec::with_capacity(marker.topics.len());
    for topic in marker.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            let error_code = if !is_known {
                ErrorCode::INVALID_PRODUCER_ID_MAPPING
            } else if topic.name == OFFSETS_TOPIC {
                in_group(parts, partition_index, end).await
            } else {
                in_partition(parts, &topic.name, partition_index, end).await
            };
            partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
        }
        topics.push(WritableTxnMarkerTopicResult { name: topic.name, partitions });
    }
    WritableTxnMarkerResult { producer_id: marker.producer_id, topics }
}

async fn in_group(parts: &TransactionParts, partition: i32, marker: TxnMarker) -> ErrorCode {
    match parts.groups.end_transaction(partition, marker).await {
        Ok(applied) => match applied.await {
            Ok(Ok(())) => ErrorCode::NONE,
            Ok(Err(error)) => error.code(),
            Err(_) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        },
        Err(error) => error.code(),
    }
}

async fn in_partition(parts: &TransactionParts, topic: &str, partition: i32, marker: TxnMarker) -> ErrorCode {
    let found = match parts.topics.partition(topic, partition) {
        Ok(found) => found,
        Err(not_here) => return not_here.code(),
    };
    match found.append_marker(marker, parts.clock.now_ms()) {
        Ok(append) => append.durable().await.map_or(ErrorCode::KAFKA_STORAGE_ERROR, |_| ErrorCode::NONE),
        Err(InternalAppendError::Append(error)) => error_map::partition_append(&error),
        Err(InternalAppendError::Build(_)) => ErrorCode::INVALID_REQUEST,
    }
}

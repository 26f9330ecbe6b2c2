//! WriteTxnMarkers (key 27): writes the markers that end transactions; from coordinator to partition leaders.

use crate::error_code::ErrorCode;

messages! {
    api WriteTxnMarkers: WriteTxnMarkersRequest => WriteTxnMarkersResponse;

    /// The markers.
    pub struct WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker>,
    }

    /// The marker that ends one transaction.
    pub struct WritableTxnMarker {
        producer_id: i64,
        producer_epoch: i16,
        transaction_result: bool,
        topics: Vec<WritableTxnMarkerTopic>,
        coordinator_epoch: i32,
        transaction_version: i8 [2.., ignorable],
    }

    /// Partitions of one topic.
    pub struct WritableTxnMarkerTopic {
        name: String,
        partition_indexes: Vec<i32>,
    }

    /// The result for each.
    pub struct WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult>,
    }

    /// Results for one marker.
    pub struct WritableTxnMarkerResult {
        producer_id: i64,
        topics: Vec<WritableTxnMarkerTopicResult>,
    }

    /// Results for one topic.
    pub struct WritableTxnMarkerTopicResult {
        name: String,
        partitions: Vec<WritableTxnMarkerPartitionResult>,
    }

    /// Result for one partition.
    pub struct WritableTxnMarkerPartitionResult {
        partition_index: i32,
        error_code: ErrorCode,
    }
}

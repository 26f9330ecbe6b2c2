//! OffsetDelete (key 47): forgets offsets of a group.

use crate::error_code::ErrorCode;

messages! {
    api OffsetDelete: OffsetDeleteRequest => OffsetDeleteResponse;

    /// The group and its partitions.
    pub struct OffsetDeleteRequest {
        group_id: String,
        topics: Vec<OffsetDeleteRequestTopic>,
    }

    /// Partitions of one topic.
    pub struct OffsetDeleteRequestTopic {
        name: String,
        partitions: Vec<OffsetDeleteRequestPartition>,
    }

    /// A partition whose offset is forgotten.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32,
    }

    /// The result for each.
    pub struct OffsetDeleteResponse {
        error_code: ErrorCode,
        throttle_time_ms: i32,
        topics: Vec<OffsetDeleteResponseTopic>,
    }

    /// Results for one topic.
    pub struct OffsetDeleteResponseTopic {
        name: String,
        partitions: Vec<OffsetDeleteResponsePartition>,
    }

    /// Result for one partition.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32,
        error_code: ErrorCode,
    }
}

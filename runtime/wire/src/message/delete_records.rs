//! DeleteRecords (key 21): moves the start of logs forward.

use crate::error_code::ErrorCode;

messages! {
    api DeleteRecords: DeleteRecordsRequest => DeleteRecordsResponse;

    /// The new starts (-1: the high watermark).
    pub struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic>,
        timeout_ms: i32,
    }

    /// Partitions of one topic.
    pub struct DeleteRecordsTopic {
        name: String,
        partitions: Vec<DeleteRecordsPartition>,
    }

    /// The new start of one partition.
    pub struct DeleteRecordsPartition {
        partition_index: i32,
        offset: i64,
    }

    /// The log starts afterwards.
    pub struct DeleteRecordsResponse {
        throttle_time_ms: i32,
        topics: Vec<DeleteRecordsTopicResult>,
    }

    /// Results for one topic.
    pub struct DeleteRecordsTopicResult {
        name: String,
        partitions: Vec<DeleteRecordsPartitionResult>,
    }

    /// Result for one partition.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32,
        low_watermark: i64,
        error_code: ErrorCode,
    }
}

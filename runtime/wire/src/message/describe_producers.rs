//! DescribeProducers (key 61): producers that partitions remember.

use crate::error_code::ErrorCode;

messages! {
    api DescribeProducers: DescribeProducersRequest => DescribeProducersResponse;

    /// The partitions that are asked about.
    pub struct DescribeProducersRequest {
        topics: Vec<TopicRequest>,
    }

    /// Partitions of one topic.
    pub struct TopicRequest {
        name: String,
        partition_indexes: Vec<i32>,
    }

    /// Their producers.
    pub struct DescribeProducersResponse {
        throttle_time_ms: i32,
        topics: Vec<TopicResponse>,
    }

    /// Results for one topic.
    pub struct TopicResponse {
        name: String,
        partitions: Vec<PartitionResponse>,
    }

    /// Producers of one partition.
    pub struct PartitionResponse {
        partition_index: i32,
        error_code: ErrorCode,
        error_message: Option<String>,
        active_producers: Vec<ProducerState>,
    }

    /// What is remembered of one producer.
    pub struct ProducerState {
        producer_id: i64,
        producer_epoch: i32,
        last_sequence: i32 = -1,
        last_timestamp: i64 = -1,
        coordinator_epoch: i32,
        current_txn_start_offset: i64 = -1,
    }
}

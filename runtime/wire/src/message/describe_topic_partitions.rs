//! DescribeTopicPartitions (key 75): topics and partitions in pages.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api DescribeTopicPartitions: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;

    /// Topics (none: all), the size of a page, where it starts.
    pub struct DescribeTopicPartitionsRequest {
        topics: Vec<TopicRequest>,
        response_partition_limit: i32 = 2000,
        cursor: Option<Cursor>,
    }

    /// One topic.
    pub struct TopicRequest {
        name: String,
    }

    /// Where a page starts.
    pub struct Cursor {
        topic_name: String,
        partition_index: i32,
    }

    /// A page, and where the next one starts.
    pub struct DescribeTopicPartitionsResponse {
        throttle_time_ms: i32,
        topics: Vec<DescribeTopicPartitionsResponseTopic>,
        next_cursor: Option<Cursor>,
    }

    /// One topic.
    pub struct DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode,
        name: Option<String> = Some(Default::default()),
        topic_id: Uuid,
        is_internal: bool,
        partitions: Vec<DescribeTopicPartitionsResponsePartition>,
        topic_authorized_operations: i32 = i32::MIN,
    }

    /// Leader and replicas of one partition.
    pub struct DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        eligible_leader_replicas: Option<Vec<i32>>,
        last_known_elr: Option<Vec<i32>>,
        offline_replicas: Vec<i32>,
    }
}

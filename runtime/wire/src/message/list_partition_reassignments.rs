//! ListPartitionReassignments (key 46): which partitions are being moved to other brokers.

use crate::error_code::ErrorCode;

messages! {
    api ListPartitionReassignments: ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse;

    /// The partitions: null means all.
    pub struct ListPartitionReassignmentsRequest {
        timeout_ms: i32 = 60000,
        topics: Option<Vec<ListPartitionReassignmentsTopics>>,
    }

    /// Partitions of one topic.
    pub struct ListPartitionReassignmentsTopics {
        name: String,
        partition_indexes: Vec<i32>,
    }

    /// The partitions that are being moved.
    pub struct ListPartitionReassignmentsResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        topics: Vec<OngoingTopicReassignment>,
    }

    /// Partitions of one topic.
    pub struct OngoingTopicReassignment {
        name: String,
        partitions: Vec<OngoingPartitionReassignment>,
    }

    /// One partition.
    pub struct OngoingPartitionReassignment {
        partition_index: i32,
        replicas: Vec<i32>,
        adding_replicas: Vec<i32>,
        removing_replicas: Vec<i32>,
    }
}

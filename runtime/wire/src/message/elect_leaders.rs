//! ElectLeaders (key 43): has leaders elected.

use crate::error_code::ErrorCode;

messages! {
    api ElectLeaders: ElectLeadersRequest => ElectLeadersResponse;

    /// The partitions: null means all.
    pub struct ElectLeadersRequest {
        election_type: i8 [1..],
        topic_partitions: Option<Vec<TopicPartitions>> = Some(Default::default()),
        timeout_ms: i32 = 60000,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        topic: String,
        partitions: Vec<i32>,
    }

    /// The result for each.
    pub struct ElectLeadersResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode [1..],
        replica_election_results: Vec<ReplicaElectionResult>,
    }

    /// Results for one topic.
    pub struct ReplicaElectionResult {
        topic: String,
        partition_result: Vec<PartitionResult>,
    }

    /// Result for one partition.
    pub struct PartitionResult {
        partition_id: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
    }
}

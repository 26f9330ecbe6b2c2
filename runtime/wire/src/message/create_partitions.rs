//! CreatePartitions (key 37): adds partitions to topics.

use crate::error_code::ErrorCode;

messages! {
    api CreatePartitions: CreatePartitionsRequest => CreatePartitionsResponse;

    /// The new totals.
    pub struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic>,
        timeout_ms: i32,
        validate_only: bool,
    }

    /// The new total of one topic.
    pub struct CreatePartitionsTopic {
        name: String,
        count: i32,
        assignments: Option<Vec<CreatePartitionsAssignment>> = Some(Default::default()),
    }

    /// Which brokers hold one of the new partitions.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32>,
    }

    /// The result for each topic.
    pub struct CreatePartitionsResponse {
        throttle_time_ms: i32,
        results: Vec<CreatePartitionsTopicResult>,
    }

    /// The result for one topic.
    pub struct CreatePartitionsTopicResult {
        name: String,
        error_code: ErrorCode,
        error_message: Option<String>,
    }
}

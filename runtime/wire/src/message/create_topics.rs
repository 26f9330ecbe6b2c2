//! CreateTopics (key 19): creates topics.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api CreateTopics: CreateTopicsRequest => CreateTopicsResponse;

    /// The topics, and how long to wait for them.
    pub struct CreateTopicsRequest {
        topics: Vec<CreatableTopic>,
        timeout_ms: i32 = 60000,
        validate_only: bool,
    }

    /// One topic; -1 partitions or replicas means the broker's default.
    pub struct CreatableTopic {
        name: String,
        num_partitions: i32,
        replication_factor: i16,
        assignments: Vec<CreatableReplicaAssignment>,
        configs: Vec<CreatableTopicConfig>,
    }

    /// Which brokers hold one partition.
    pub struct CreatableReplicaAssignment {
        partition_index: i32,
        broker_ids: Vec<i32>,
    }

    /// A setting that differs from the default.
    pub struct CreatableTopicConfig {
        name: String,
        value: Option<String> = Some(Default::default()),
    }

    /// The result for each.
    pub struct CreateTopicsResponse {
        throttle_time_ms: i32,
        topics: Vec<CreatableTopicResult>,
    }

    /// The result for one topic.
    pub struct CreatableTopicResult {
        name: String,
        topic_id: Uuid [7.., ignorable],
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        num_partitions: i32 [5.., ignorable] = -1,
        replication_factor: i16 [5.., ignorable] = -1,
        configs: Option<Vec<CreatableTopicConfigs>> [5.., ignorable] = Some(Default::default()),
        topic_config_error_code: ErrorCode [5.., tag 0, ignorable],
    }

    /// A setting of the new topic.
    pub struct CreatableTopicConfigs {
        name: String,
        value: Option<String> = Some(Default::default()),
        read_only: bool,
        config_source: i8 = -1,
        is_sensitive: bool,
    }
}

//! Metadata (key 3): brokers, topics, and who leads which partition.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api Metadata: MetadataRequest => MetadataResponse;

    /// The topics that are asked about: null means all, and so does an empty list in version 0.
    pub struct MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [null 1..] = Some(Default::default()),
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic by name or, from version 10 on, by id.
    pub struct MetadataRequestTopic {
        topic_id: Uuid [10.., ignorable],
        name: Option<String> [null 10..] = Some(Default::default()),
    }

    /// The cluster as this broker sees it.
    pub struct MetadataResponse {
        throttle_time_ms: i32 [3.., ignorable],
        brokers: Vec<MetadataResponseBroker>,
        cluster_id: Option<String> [2.., ignorable],
        controller_id: i32 [1.., ignorable] = -1,
        topics: Vec<MetadataResponseTopic>,
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error_code: ErrorCode [13.., ignorable],
    }

    /// Where a broker can be reached.
    pub struct MetadataResponseBroker {
        node_id: i32,
        host: String,
        port: i32,
        rack: Option<String> [1.., ignorable],
    }

    /// One topic.
    pub struct MetadataResponseTopic {
        error_code: ErrorCode,
        name: Option<String> [null 12..] = Some(Default::default()),
        topic_id: Uuid [10.., ignorable],
        is_internal: bool [1.., ignorable],
        partitions: Vec<MetadataResponsePartition>,
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }

    /// Leader and replicas of one partition.
    pub struct MetadataResponsePartition {
        error_code: ErrorCode,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 [7.., ignorable] = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        offline_replicas: Vec<i32> [5.., ignorable],
    }
}

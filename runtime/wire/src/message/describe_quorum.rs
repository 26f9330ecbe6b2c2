//! DescribeQuorum (key 55): who votes on the metadata of the cluster, and how far each voter is.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api DescribeQuorum: DescribeQuorumRequest => DescribeQuorumResponse;

    /// The partitions of the metadata log.
    pub struct DescribeQuorumRequest {
        topics: Vec<TopicData>,
    }

    /// Partitions of one topic.
    pub struct TopicData {
        topic_name: String,
        partitions: Vec<PartitionData>,
    }

    /// One partition.
    pub struct PartitionData {
        partition_index: i32,
    }

    /// The quorums, and where their nodes are.
    pub struct DescribeQuorumResponse {
        error_code: ErrorCode,
        error_message: Option<String> [2.., ignorable] = Some(Default::default()),
        topics: Vec<TopicQuorum>,
        nodes: Vec<Node> [2.., ignorable],
    }

    /// Partitions of one topic.
    pub struct TopicQuorum {
        topic_name: String,
        partitions: Vec<PartitionQuorum>,
    }

    /// The quorum of one partition.
    pub struct PartitionQuorum {
        partition_index: i32,
        error_code: ErrorCode,
        error_message: Option<String> [2.., ignorable] = Some(Default::default()),
        leader_id: i32,
        leader_epoch: i32,
        high_watermark: i64,
        current_voters: Vec<ReplicaState>,
        observers: Vec<ReplicaState>,
    }

    /// How far one node is.
    pub struct ReplicaState {
        replica_id: i32,
        replica_directory_id: Uuid [2.., ignorable],
        log_end_offset: i64,
        last_fetch_timestamp: i64 [1.., ignorable] = -1,
        last_caught_up_timestamp: i64 [1.., ignorable] = -1,
    }

    /// One node.
    pub struct Node {
        node_id: i32,
        listeners: Vec<Listener>,
    }

    /// Where a node listens.
    pub struct Listener {
        name: String,
        host: String,
        port: u16,
    }
}

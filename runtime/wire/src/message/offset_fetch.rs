//! OffsetFetch (key 9): reads how far a group has read.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api OffsetFetch: OffsetFetchRequest => OffsetFetchResponse;

    /// One group up to version 7, many from version 8 on.
    pub struct OffsetFetchRequest {
        group_id: String [..=7],
        topics: Option<Vec<OffsetFetchRequestTopic>> [..=7, null 2..] = Some(Default::default()),
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }

    /// Partitions of one topic (up to version 7).
    pub struct OffsetFetchRequestTopic {
        name: String,
        partition_indexes: Vec<i32>,
    }

    /// What is asked about one group (from version 8 on): null topics means all.
    pub struct OffsetFetchRequestGroup {
        group_id: String,
        member_id: Option<String> [9.., ignorable],
        member_epoch: i32 [9.., ignorable] = -1,
        topics: Option<Vec<OffsetFetchRequestTopics>> = Some(Default::default()),
    }

    /// Partitions of one topic (from version 8 on).
    pub struct OffsetFetchRequestTopics {
        name: String [..=9, ignorable],
        topic_id: Uuid [10.., ignorable],
        partition_indexes: Vec<i32>,
    }

    /// The offsets, -1 where there is none.
    pub struct OffsetFetchResponse {
        throttle_time_ms: i32 [3.., ignorable],
        topics: Vec<OffsetFetchResponseTopic> [..=7],
        error_code: ErrorCode [2..=7, ignorable],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// Results for one topic (up to version 7).
    pub struct OffsetFetchResponseTopic {
        name: String,
        partitions: Vec<OffsetFetchResponsePartition>,
    }

    /// Offset of one partition (up to version 7).
    pub struct OffsetFetchResponsePartition {
        partition_index: i32,
        committed_offset: i64,
        committed_leader_epoch: i32 [5.., ignorable] = -1,
        metadata: Option<String> = Some(Default::default()),
        error_code: ErrorCode,
    }

    /// Results for one group (from version 8 on).
    pub struct OffsetFetchResponseGroup {
        group_id: String,
        topics: Vec<OffsetFetchResponseTopics>,
        error_code: ErrorCode,
    }

    /// Results for one topic (from version 8 on).
    pub struct OffsetFetchResponseTopics {
        name: String [..=9, ignorable],
        topic_id: Uuid [10.., ignorable],
        partitions: Vec<OffsetFetchResponsePartitions>,
    }

    /// Offset of one partition (from version 8 on).
    pub struct OffsetFetchResponsePartitions {
        partition_index: i32,
        committed_offset: i64,
        committed_leader_epoch: i32 = -1,
        metadata: Option<String> = Some(Default::default()),
        error_code: ErrorCode,
    }
}

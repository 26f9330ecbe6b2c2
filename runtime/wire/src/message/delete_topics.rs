//! DeleteTopics (key 20): deletes topics.

use uuid::Uuid;

use crate::error_code::ErrorCode;

messages! {
    api DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse;

    /// Names up to version 5, names or ids from version 6 on.
    pub struct DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<String> [..=5, ignorable],
        timeout_ms: i32,
    }

    /// A topic by name or by id.
    pub struct DeleteTopicState {
        name: Option<String>,
        topic_id: Uuid,
    }

    /// The result for each.
    pub struct DeleteTopicsResponse {
        throttle_time_ms: i32,
        responses: Vec<DeletableTopicResult>,
    }

    /// The result for one topic.
    pub struct DeletableTopicResult {
        name: Option<String> [null 6..] = Some(Default::default()),
        topic_id: Uuid [6.., ignorable],
        error_code: ErrorCode,
        error_message: Option<String> [5.., ignorable],
    }
}

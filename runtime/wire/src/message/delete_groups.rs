//! DeleteGroups (key 42): deletes groups that have no members.

use crate::error_code::ErrorCode;

messages! {
    api DeleteGroups: DeleteGroupsRequest => DeleteGroupsResponse;

    /// The groups.
    pub struct DeleteGroupsRequest {
        groups_names: Vec<String>,
    }

    /// The result for each.
    pub struct DeleteGroupsResponse {
        throttle_time_ms: i32,
        results: Vec<DeletableGroupResult>,
    }

    /// The result for one group.
    pub struct DeletableGroupResult {
        group_id: String,
        error_code: ErrorCode,
    }
}

//! ListGroups (key 16): which groups there are.

use crate::error_code::ErrorCode;

messages! {
    api ListGroups: ListGroupsRequest => ListGroupsResponse;

    /// Filters, each of them empty for everything.
    pub struct ListGroupsRequest {
        states_filter: Vec<String> [4..],
        types_filter: Vec<String> [5..],
    }

    /// The groups that match.
    pub struct ListGroupsResponse {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: ErrorCode,
        groups: Vec<ListedGroup>,
    }

    /// One group.
    pub struct ListedGroup {
        group_id: String,
        protocol_type: String,
        group_state: String [4.., ignorable],
        group_type: String [5.., ignorable],
    }
}

//! DescribeGroups (key 15): state and members of groups.

use bytes::Bytes;

use crate::error_code::ErrorCode;

messages! {
    api DescribeGroups: DescribeGroupsRequest => DescribeGroupsResponse;

    /// The groups that are asked about.
    pub struct DescribeGroupsRequest {
        groups: Vec<String>,
        include_authorized_operations: bool [3..],
    }

    /// State and members of each.
    pub struct DescribeGroupsResponse {
        throttle_time_ms: i32 [1.., ignorable],
        groups: Vec<DescribedGroup>,
    }

    /// One group.
    pub struct DescribedGroup {
        error_code: ErrorCode,
        error_message: Option<String> [6..],
        group_id: String,
        group_state: String,
        protocol_type: String,
        protocol_data: String,
        members: Vec<DescribedGroupMember>,
        authorized_operations: i32 [3..] = i32::MIN,
    }

    /// One of its members.
    pub struct DescribedGroupMember {
        member_id: String,
        group_instance_id: Option<String> [4.., ignorable],
        client_id: String,
        client_host: String,
        member_metadata: Bytes,
        member_assignment: Bytes,
    }
}

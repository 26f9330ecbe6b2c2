//! LeaveGroup (key 13): takes members out of a group.

use crate::error_code::ErrorCode;

messages! {
    api LeaveGroup: LeaveGroupRequest => LeaveGroupResponse;

    /// One member up to version 2, many from version 3 on.
    pub struct LeaveGroupRequest {
        group_id: String,
        member_id: String [..=2],
        members: Vec<MemberIdentity> [3..],
    }

    /// A member that leaves (from version 3 on).
    pub struct MemberIdentity {
        member_id: String,
        group_instance_id: Option<String>,
        reason: Option<String> [5.., ignorable],
    }

    /// Whether each left.
    pub struct LeaveGroupResponse {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: ErrorCode,
        members: Vec<MemberResponse> [3..],
    }

    /// The result for one member.
    pub struct MemberResponse {
        member_id: String,
        group_instance_id: Option<String> = Some(Default::default()),
        error_code: ErrorCode,
    }
}

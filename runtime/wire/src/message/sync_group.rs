//! SyncGroup (key 14): brings the assignment from the leader to the members.

use bytes::Bytes;

use crate::error_code::ErrorCode;

messages! {
    api SyncGroup: SyncGroupRequest => SyncGroupResponse;

    /// The assignments, from the leader; none from the others.
    pub struct SyncGroupRequest {
        group_id: String,
        generation_id: i32,
        member_id: String,
        group_instance_id: Option<String> [3..],
        protocol_type: Option<String> [5.., ignorable],
        protocol_name: Option<String> [5.., ignorable],
        assignments: Vec<SyncGroupRequestAssignment>,
    }

    /// What one member gets.
    pub struct SyncGroupRequestAssignment {
        member_id: String,
        assignment: Bytes,
    }

    /// The assignment of the asking member.
    pub struct SyncGroupResponse {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: ErrorCode,
        protocol_type: Option<String> [5.., ignorable],
        protocol_name: Option<String> [5.., ignorable],
        assignment: Bytes,
    }
}

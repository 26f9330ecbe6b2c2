//! Heartbeat (key 12): tells the coordinator that a member lives.

use crate::error_code::ErrorCode;

messages! {
    api Heartbeat: HeartbeatRequest => HeartbeatResponse;

    /// The member that is alive.
    pub struct HeartbeatRequest {
        group_id: String,
        generation_id: i32,
        member_id: String,
        group_instance_id: Option<String> [3..],
    }

    /// Whether it is still a member of a settled generation.
    pub struct HeartbeatResponse {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: ErrorCode,
    }
}

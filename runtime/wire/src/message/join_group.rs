//! JoinGroup (key 11): makes a member part of the next generation of its group.

use bytes::Bytes;

use crate::error_code::ErrorCode;

messages! {
    api JoinGroup: JoinGroupRequest => JoinGroupResponse;

    /// The member, its time-outs and its protocols.
    pub struct JoinGroupRequest {
        group_id: String,
        session_timeout_ms: i32,
        rebalance_timeout_ms: i32 [1.., ignorable] = -1,
        member_id: String,
        group_instance_id: Option<String> [5..],
        protocol_type: String,
        protocols: Vec<JoinGroupRequestProtocol>,
        reason: Option<String> [8.., ignorable],
    }

    /// An assignor the member can use, with what it needs to know.
    pub struct JoinGroupRequestProtocol {
        name: String,
        metadata: Bytes,
    }

    /// The generation; for the leader also the subscriptions of all members.
    pub struct JoinGroupResponse {
        throttle_time_ms: i32 [2.., ignorable],
        error_code: ErrorCode,
        generation_id: i32 = -1,
        protocol_type: Option<String> [7.., ignorable],
        protocol_name: Option<String> [null 7..] = Some(Default::default()),
        leader: String,
        skip_assignment: bool [9..],
        member_id: String,
        members: Vec<JoinGroupResponseMember>,
    }

    /// A member, for the leader.
    pub struct JoinGroupResponseMember {
        member_id: String,
        group_instance_id: Option<String> [5.., ignorable],
        metadata: Bytes,
    }
}

//! Heartbeat: a member is alive, and learns whether it must join again.

use pelton_wire::message::{HeartbeatRequest, HeartbeatResponse};

use crate::group::error::code_of;
use crate::group::types::MemberIdentity;
use crate::reply::{Reply, RequestContext};

pub(crate) fn handle(cx: &RequestContext, request: HeartbeatRequest) -> Reply<HeartbeatResponse> {
    let groups = cx.broker.groups.clone();
    Reply::later(async move {
        let who = MemberIdentity {
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            generation_id: request.generation_id,
        };
        let result = groups.heartbeat(&request.group_id, who).await;
        HeartbeatResponse { error_code: code_of(&result), ..Default::default() }
    })
}

//! Heartbeat: keeps a member's session alive, and tells the member when it must rejoin.

use std::sync::Arc;

use pelton_wire::message::{HeartbeatRequest, HeartbeatResponse};

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::error::code_of;
use crate::group::types::MemberIdentity;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: HeartbeatRequest,
) -> Reply<HeartbeatResponse> {
    let groups = parts.groups.clone();
    cx.later(async move {
        let who = MemberIdentity {
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            generation_id: request.generation_id,
        };
        let result = groups.heartbeat(&request.group_id, who).await;
        HeartbeatResponse { error_code: code_of(&result), ..Default::default() }
    })
}

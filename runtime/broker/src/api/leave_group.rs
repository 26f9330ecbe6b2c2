//! LeaveGroup: removes members at once, without waiting for their session timeouts.

use std::sync::Arc;

use pelton_wire::message::leave_group::MemberResponse;
use pelton_wire::message::{LeaveGroupRequest, LeaveGroupResponse};

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::error::code_of;
use crate::group::types::{LeavingMember, LeftMember};

/// First version that names many members, static ones too.
const BATCHED_SINCE: i16 = 3;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: LeaveGroupRequest,
) -> Reply<LeaveGroupResponse> {
    let (groups, version) = (parts.groups.clone(), cx.version);
    cx.later(async move {
        let leaving = if version >= BATCHED_SINCE {
            let members = request.members.into_iter();
            members
                .map(|m| LeavingMember { member_id: m.member_id, group_instance_id: m.group_instance_id })
                .collect()
        } else {
            vec![LeavingMember { member_id: request.member_id, group_instance_id: None }]
        };
        match groups.leave(&request.group_id, leaving).await {
            Ok(left) if version >= BATCHED_SINCE => {
                LeaveGroupResponse { members: left.into_iter().map(member).collect(), ..Default::default() }
            }
            Ok(left) => {
                let error_code = left.first().map(|one| code_of(&one.result)).unwrap_or_default();
                LeaveGroupResponse { error_code, ..Default::default() }
            }
            Err(error) => LeaveGroupResponse { error_code: error.code(), ..Default::default() },
        }
    })
}

fn member(left: LeftMember) -> MemberResponse {
    MemberResponse {
        error_code: code_of(&left.result),
        member_id: left.member.member_id,
        group_instance_id: left.member.group_instance_id,
    }
}

//! SyncGroup: the leader sends the assignment, each member gets its part.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{SyncGroupRequest, SyncGroupResponse};

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::types::SyncRequest;

/// First version in which a member names protocol type and name (KIP-559).
const PROTOCOL_SINCE: i16 = 5;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: SyncGroupRequest,
) -> Reply<SyncGroupResponse> {
    let unnamed = request.protocol_type.is_none() || request.protocol_name.is_none();
    if cx.version >= PROTOCOL_SINCE && unnamed {
        let error_code = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
        return Reply::ready(SyncGroupResponse { error_code, ..Default::default() });
    }
    let groups = parts.groups.clone();
    cx.later(async move {
        let group = request.group_id;
        let sync = SyncRequest {
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            generation_id: request.generation_id,
            protocol_type: request.protocol_type,
            protocol_name: request.protocol_name,
            assignments: request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect(),
        };
        match groups.sync(&group, sync).await {
            Ok(synced) => SyncGroupResponse {
                protocol_type: synced.protocol_type,
                protocol_name: synced.protocol_name,
                assignment: synced.assignment,
                ..Default::default()
            },
            Err(error) => SyncGroupResponse { error_code: error.code(), ..Default::default() },
        }
    })
}

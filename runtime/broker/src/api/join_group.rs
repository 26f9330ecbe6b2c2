//! JoinGroup: a member joins the next generation and waits for it.

use std::sync::Arc;

use pelton_wire::message::join_group::JoinGroupResponseMember;
use pelton_wire::message::{JoinGroupRequest, JoinGroupResponse};
use uuid::Uuid;

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use super::support::pipeline_group::no_members;
use crate::group::types::{
    JoinRefused, JoinRequest, JoinResult, Joined, JoinedMember, NO_GENERATION, Protocol,
};

/// Before this version the session timeout is the rebalance timeout too.
const REBALANCE_TIMEOUT_SINCE: i16 = 1;
/// First version in which a dynamic member is told its id before it joins (KIP-394).
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
/// First version in which the response's protocol name may be null.
const NULL_PROTOCOL_SINCE: i16 = 7;
/// First version in which a leader can be told not to assign (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: JoinGroupRequest,
) -> Reply<JoinGroupResponse> {
    let (groups, version) = (parts.groups.clone(), cx.version);
    let (group, join) = convert(cx, request);
    if let Err(error) = no_members(&group, &join.client_id) {
        return Reply::ready(respond(version, Err(JoinRefused { error, member_id: join.member_id })));
    }
    cx.later(async move { respond(version, groups.join(&group, join).await) })
}

fn convert(cx: &RequestContext, request: JoinGroupRequest) -> (String, JoinRequest) {
    let client_id = cx.client_id.clone().unwrap_or_default();
    // Kafka's form of a member id: the group instance id or client id, then a unique part.
    let prefix = request.group_instance_id.as_deref().unwrap_or(&client_id);
    let fresh_member_id = Arc::from(format!("{prefix}-{}", Uuid::new_v4()));
    let rebalance_timeout_ms = if cx.version < REBALANCE_TIMEOUT_SINCE {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    };
    let protocols = request.protocols.into_iter();
    let join = JoinRequest {
        require_known_member_id: cx.version >= MEMBER_ID_REQUIRED_SINCE
            && request.member_id.is_empty()
            && request.group_instance_id.is_none(),
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        client_id,
        client_host: format!("/{}", cx.connection.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type,
        protocols: protocols.map(|p| Protocol { name: p.name, metadata: p.metadata }).collect(),
        supports_skip_assignment: cx.version >= SKIP_ASSIGNMENT_SINCE,
        fresh_member_id,
    };
    (request.group_id, join)
}

fn respond(version: i16, result: JoinResult) -> JoinGroupResponse {
    let protocol_name = |name: Option<String>| {
        if version < NULL_PROTOCOL_SINCE { Some(name.unwrap_or_default()) } else { name }
    };
    match result {
        Ok(Joined {
            generation_id,
            protocol_type,
            protocol_name: name,
            leader,
            skip_assignment,
            member_id,
            members,
        }) => JoinGroupResponse {
            generation_id,
            protocol_type,
            protocol_name: protocol_name(name),
            leader,
            // Only asked for by versions that have the field.
            skip_assignment,
            member_id: member_id.to_string(),
            members: members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(JoinRefused { error, member_id }) => JoinGroupResponse {
            error_code: error.code(),
            generation_id: NO_GENERATION,
            protocol_name: protocol_name(None),
            member_id,
            ..Default::default()
        },
    }
}

fn member(member: JoinedMember) -> JoinGroupResponseMember {
    JoinGroupResponseMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.group_instance_id,
        metadata: member.metadata,
    }
}

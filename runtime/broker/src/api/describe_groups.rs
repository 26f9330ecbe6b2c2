//! DescribeGroups: the state of groups, their members, and each member's assignment.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_groups::{DescribedGroup, DescribedGroupMember};
use pelton_wire::message::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::once::each_once;
use crate::access::Resource;
use crate::admin::Admin;
use crate::group::error::GroupError;
use crate::group::types::{GroupDescription, MemberDescription};

/// First version with GROUP_ID_NOT_FOUND; before, a missing group is one in state Dead.
const GROUP_ID_NOT_FOUND_SINCE: i16 = 6;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: DescribeGroupsRequest,
) -> Reply<DescribeGroupsResponse> {
    let (admin, version) = (Arc::clone(admin), cx.version);
    let asked = request.include_authorized_operations;
    let allowed = cx.connection.principal.authorized(asked, Resource::Group);
    cx.later(async move {
        let asked = each_once(request.groups, String::clone);
        let mut groups = Vec::with_capacity(asked.len());
        for group_id in asked {
            let described = admin.describe_group(&group_id).await;
            groups.push(DescribedGroup {
                authorized_operations: allowed,
                ..respond(group_id, described, version)
            });
        }
        DescribeGroupsResponse { groups, ..Default::default() }
    })
}

fn respond(
    group_id: String,
    described: Result<Option<GroupDescription>, GroupError>,
    version: i16,
) -> DescribedGroup {
    match described {
        Ok(Some(group)) => DescribedGroup {
            group_id,
            group_state: group.state.to_owned(),
            protocol_type: group.protocol_type,
            protocol_data: group.protocol,
            members: group.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Ok(None) if version >= GROUP_ID_NOT_FOUND_SINCE => DescribedGroup {
            error_code: ErrorCode::GROUP_ID_NOT_FOUND,
            error_message: Some(format!("there is no group `{group_id}`")),
            group_id,
            group_state: "Dead".to_owned(),
            ..Default::default()
        },
        Ok(None) => DescribedGroup { group_id, group_state: "Dead".to_owned(), ..Default::default() },
        Err(error) => DescribedGroup {
            error_code: error.code(),
            error_message: (version >= GROUP_ID_NOT_FOUND_SINCE).then(|| error.to_string()),
            group_id,
            ..Default::default()
        },
    }
}

fn member(member: MemberDescription) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    }
}

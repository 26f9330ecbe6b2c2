//! ListGroups: all groups, filtered by state and type.

use std::sync::Arc;

use pelton_wire::message::list_groups::ListedGroup;
use pelton_wire::message::{ListGroupsRequest, ListGroupsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use crate::admin::Admin;

/// Kafka's group type of the classic protocol, which every group has.
const CLASSIC: &str = "classic";

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: ListGroupsRequest,
) -> Reply<ListGroupsResponse> {
    let admin = Arc::clone(admin);
    cx.later(async move {
        let wanted = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
        };
        match admin.list_groups().await {
            Ok(groups) => ListGroupsResponse {
                groups: groups
                    .into_iter()
                    .filter(|g| {
                        wanted(&request.states_filter, g.state) && wanted(&request.types_filter, CLASSIC)
                    })
                    .map(|group| ListedGroup {
                        group_id: group.group_id.to_string(),
                        protocol_type: group.protocol_type,
                        group_state: group.state.to_owned(),
                        group_type: CLASSIC.to_owned(),
                    })
                    .collect(),
                ..Default::default()
            },
            Err(error) => ListGroupsResponse { error_code: error.code(), ..Default::default() },
        }
    })
}

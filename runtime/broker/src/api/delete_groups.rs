//! DeleteGroups: deletes groups without members, and what they have committed.

use std::sync::Arc;

use pelton_wire::message::delete_groups::DeletableGroupResult;
use pelton_wire::message::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use crate::admin::Admin;
use crate::group::error::code_of;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: DeleteGroupsRequest,
) -> Reply<DeleteGroupsResponse> {
    let admin = Arc::clone(admin);
    cx.later(async move {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let error_code = code_of(&admin.delete_group(&group_id).await);
            results.push(DeletableGroupResult { group_id, error_code });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    })
}

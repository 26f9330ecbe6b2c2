//! DeleteGroups: deletes groups without members, and what they have committed.

use std::sync::Arc;

use pelton_wire::message::delete_groups::DeletableGroupResult;
use pelton_wire::message::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::error::{GroupError, code_of};

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: DeleteGroupsRequest,
) -> Reply<DeleteGroupsResponse> {
    let parts = Arc::clone(parts);
    cx.later(async move {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let outcome = match parts.pipelines.unless_running(&group_id, GroupError::NonEmptyGroup) {
                Ok(()) => parts.groups.delete(&group_id).await,
                in_use => in_use,
            };
            let error_code = code_of(&outcome);
            results.push(DeletableGroupResult { group_id, error_code });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    })
}

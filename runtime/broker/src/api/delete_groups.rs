//! DeleteGroups: deletes groups without members, and what they have committed.

use std::sync::Arc;

use pelton_wire::message::delete_groups::DeletableGroupResult;
use pelton_wire::message::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::pipeline_group::unless_running;
use crate::group::error::{GroupError, code_of};
use crate::reply::{Reply, RequestContext};

pub(crate) fn handle(cx: &RequestContext, request: DeleteGroupsRequest) -> Reply<DeleteGroupsResponse> {
    let broker = Arc::clone(&cx.broker);
    Reply::later(async move {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let outcome = match unless_running(&broker, &group_id, GroupError::NonEmptyGroup) {
                Ok(()) => broker.groups.delete(&group_id).await,
                in_use => in_use,
            };
            let error_code = code_of(&outcome);
            results.push(DeletableGroupResult { group_id, error_code });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    })
}

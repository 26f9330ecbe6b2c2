//! The groups of pipelines, `pelton.<pipeline>`, which no client can join.

use crate::group::config::PIPELINE_GROUP_PREFIX;
use crate::group::error::GroupError;

/// Refuses members, whose commits would overwrite the pipeline's. Also if no such pipeline is deployed: it may be
/// deployed later.
pub(in crate::api) fn no_members(group: &str, client_id: &str) -> Result<(), GroupError> {
    if !group.starts_with(PIPELINE_GROUP_PREFIX) {
        return Ok(());
    }
    tracing::warn!(
        group,
        client_id,
        "a client cannot join: groups that begin with `{PIPELINE_GROUP_PREFIX}` belong to pipelines; give it another group.id"
    );
    Err(GroupError::InvalidGroupId)
}

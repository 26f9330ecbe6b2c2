//! The groups of pipelines, `pelton.<pipeline>`. A pipeline has no members, but commits to its group as long as it runs: to
//! clients that is a group that is in use. While it does not run, its offsets may be moved and deleted like any others.

use crate::api::parts::PipelinesSlot;
use crate::group::config::PIPELINE_GROUP_PREFIX;
use crate::group::error::GroupError;

impl PipelinesSlot {
    /// Refuses what a group in use refuses, with `in_use`, if the group is that of a pipeline that runs.
    pub(crate) fn unless_running(&self, group: &str, in_use: GroupError) -> Result<(), GroupError> {
        let Some(pipeline) = group.strip_prefix(PIPELINE_GROUP_PREFIX) else { return Ok(()) };
        match self.supervisor.get() {
            Some(supervisor) if supervisor.runs(pipeline) => Err(in_use),
            Some(_) => Ok(()),
            None if self.expected => Err(GroupError::CoordinatorLoadInProgress),
            None => Ok(()),
        }
    }
}

/// Refuses members: their commits and the pipeline's would undo each other. Also where no such pipeline is deployed,
/// because tomorrow there may be one.
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

//! Pipelines as clients and operators meet them: what runs them, and the groups `pelton.<pipeline>`. A pipeline has no members,
//! but commits to its group as long as it runs: to clients that is a group in use. While it does not run, its offsets may be
//! moved and deleted like any others.

use std::sync::{Arc, OnceLock};

use super::Admin;
use crate::group::config::PIPELINE_GROUP_PREFIX;
use crate::group::error::GroupError;
use crate::processor::Supervisor;

/// Where the pipelines are, once they have been started. A cheap clone.
#[derive(Clone, Default)]
pub(crate) struct PipelinesSlot {
    /// Something runs plugins here.
    pub(crate) expected: bool,
    pub(crate) supervisor: Arc<OnceLock<Arc<Supervisor>>>,
}

/// Nothing can be deployed here, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server runs no pipelines")]
pub(crate) struct NoPipelines;

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

impl Admin {
    /// Plugins and pipelines: what is deployed, and every change of it.
    pub(crate) fn pipelines(&self) -> Result<&Arc<Supervisor>, NoPipelines> {
        self.pipelines.supervisor.get().ok_or(NoPipelines)
    }
}

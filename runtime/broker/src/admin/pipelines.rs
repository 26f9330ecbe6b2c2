//! Pipelines: the supervisor, and the groups `pelton.<pipeline>`. The group of a pipeline has no members, but the
//! pipeline commits to it while it runs, so clients are told that the group is in use. While the pipeline does not run,
//! its offsets can be moved and deleted like those of any group without members: unless it keeps state, which is what the
//! records before its offsets have made.

use std::sync::{Arc, OnceLock};

use super::Admin;
use crate::group::config::PIPELINE_GROUP_PREFIX;
use crate::group::error::GroupError;
use pelton_pipelines::supervisor::Supervisor;

/// The supervisor of pipelines, once it has been started. A cheap clone.
#[derive(Clone, Default)]
pub(crate) struct PipelinesSlot {
    /// This broker runs plugins.
    pub(crate) expected: bool,
    pub(crate) supervisor: Arc<OnceLock<Arc<Supervisor>>>,
}

/// This broker runs no plugins, or has not started them yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server runs no pipelines")]
pub(crate) struct NoPipelines;

impl PipelinesSlot {
    /// Refuses with `in_use` if the group is that of a running pipeline, and if it is that of one that keeps state.
    pub(crate) fn unless_running(&self, group: &str, in_use: GroupError) -> Result<(), GroupError> {
        let Some(pipeline) = group.strip_prefix(PIPELINE_GROUP_PREFIX) else { return Ok(()) };
        match self.supervisor.get() {
            Some(supervisor) if supervisor.runs(pipeline) => Err(in_use),
            Some(supervisor) if supervisor.keeps_state(pipeline) => Err(GroupError::KeepsState),
            Some(_) => Ok(()),
            None if self.expected => Err(GroupError::CoordinatorLoadInProgress),
            None => Ok(()),
        }
    }
}

impl Admin {
    /// The supervisor: every operation on plugins and pipelines.
    pub(crate) fn pipelines(&self) -> Result<&Arc<Supervisor>, NoPipelines> {
        self.pipelines.supervisor.get().ok_or(NoPipelines)
    }
}

//! What pipelines there are, and what they do.

use super::{Inner, PipelineDescription, Supervisor};
use crate::limits::PipelineLimits;
use crate::status::PipelineState;

impl Supervisor {
    /// All pipelines, by name.
    pub fn pipelines(&self) -> Vec<PipelineDescription> {
        let inner = self.inner.lock();
        inner.deployments.live().filter_map(|(name, _, _)| self.describe(&inner, name)).collect()
    }

    /// One pipeline.
    pub fn pipeline(&self, name: &str) -> Option<PipelineDescription> {
        self.describe(&self.inner.lock(), name)
    }

    /// Whether its driver may still commit to its group. True until the driver has ended, whatever was asked for.
    pub fn runs(&self, name: &str) -> bool {
        let state = self.inner.lock().runners.get(name).map(|runner| runner.board().state());
        match state {
            Some(PipelineState::Starting | PipelineState::Running | PipelineState::Retrying) => true,
            Some(PipelineState::Paused | PipelineState::Failed) | None => false,
        }
    }

    fn describe(&self, inner: &Inner, name: &str) -> Option<PipelineDescription> {
        let (_, live, revision) = inner.deployments.live().find(|(known, _, _)| *known == name)?;
        Some(PipelineDescription {
            name: name.to_owned(),
            revision: live.revision,
            deployed_at_ms: revision.deployed_at_ms,
            group: self.spec.io.group(name),
            plugins: revision.plugins.clone(),
            limits: Some(inner.deployments.limits(name)).filter(|said| *said != PipelineLimits::default()),
            status: inner.runners.get(name)?.board().snapshot(),
        })
    }

    /// Whether a pipeline of that name is deployed.
    pub fn is_deployed(&self, name: &str) -> bool {
        self.inner.lock().runners.contains_key(name)
    }
}

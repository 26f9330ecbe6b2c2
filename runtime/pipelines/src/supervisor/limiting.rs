//! Limits that are changed while a pipeline runs.

use std::sync::Arc;

use super::{Supervisor, to_its_end};
use crate::compiler::Patience;
use crate::limits::PipelineLimits;
use crate::refusal::DeployError;

impl Supervisor {
    /// Says what holds for a pipeline from now on: `said`, and what was said before unless `reset`. CPU and log lines hold at once;
    /// limits of plugins at the next commit, where its drivers begin again with new instances. What holds then.
    ///
    /// # Errors
    /// There is none of that name, a value is outside its range, a plugin does not start with it, or the change could not be
    /// stored.
    pub async fn limit(
        self: &Arc<Self>,
        name: &str,
        said: PipelineLimits,
        reset: bool,
    ) -> Result<PipelineLimits, DeployError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        to_its_end(async move { this.limit_now(&name, said, reset).await }).await
    }

    async fn limit_now(
        &self,
        name: &str,
        said: PipelineLimits,
        reset: bool,
    ) -> Result<PipelineLimits, DeployError> {
        said.check().map_err(DeployError::Limits)?;
        let _change = self.changes.lock().await;
        let (before, limits, paused, record) = {
            let deployments = &self.inner.lock().deployments;
            let live = deployments.pipeline(name).and_then(|history| history.live);
            let live = live.ok_or_else(|| DeployError::UnknownPipeline(name.to_owned()))?;
            let before = deployments.limits(name);
            let limits = if reset { said } else { said.or(before) };
            (before, limits, live.paused, deployments.set_limits(name, &limits))
        };
        let Some(record) = record else { return Ok(limits) };
        let is_of_plugins = limits.of_plugins() != before.of_plugins();
        // Plugins that do not start with them stop no pipeline that runs.
        if is_of_plugins && let Some((manifest, plugins)) = self.live(name) {
            let mut checked = self.checked(&manifest, &plugins, Patience::Bounded).await?;
            checked.topology.limit(&limits.of_plugins());
            self.try_start(&checked).await?;
        }
        self.store(vec![record]).await?;
        if let Some(runner) = self.inner.lock().runners.get(name) {
            runner.board().limit(&limits);
        }
        if is_of_plugins && !paused {
            self.halt(name).await;
            self.run(name, paused, Patience::Bounded).await;
        }
        Ok(limits)
    }
}

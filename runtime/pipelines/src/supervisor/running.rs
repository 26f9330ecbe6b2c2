//! Starting and stopping the threads of pipelines. Called by the holder of `changes`.

use std::sync::Arc;

use super::Supervisor;
use crate::compiler::Patience;
use crate::logs::PipelineLog;
use crate::runner::{Runner, RunnerSpec};
use crate::status::PipelineState;

impl Supervisor {
    /// Starts the live revision of a pipeline, or lists it as paused or failed.
    pub(super) async fn run(&self, name: &str, paused: bool, patience: Patience) {
        let Some((manifest, plugins)) = self.live(name) else { return };
        let checked = match self.checked(&manifest, &plugins, patience).await {
            // Topics may have grown since it was deployed, or be others.
            Ok(checked) => match self.check_stored(&checked.topology) {
                Ok(()) => self.ensure_repartitions(&checked.topology).await.map(|()| checked),
                Err(refused) => Err(refused),
            },
            refused => refused,
        };
        let before = self.inner.lock().runners.get(name).map(|runner| Arc::clone(runner.board()));
        let before = before.as_deref();
        let log = PipelineLog::new(name, Arc::clone(&self.spec.logs));
        let seen = (Arc::clone(&self.spec.clock), log);
        let limits = self.inner.lock().deployments.limits(name);
        let checked = checked.map(|mut checked| {
            checked.topology.limit(&limits.of_plugins());
            checked
        });
        let runner = match checked {
            Ok(checked) if paused => {
                let topology = Some(Arc::new(checked.topology));
                Runner::idle(seen, topology, PipelineState::Paused, None, before)
            }
            Ok(checked) => {
                let spec = RunnerSpec {
                    name: name.to_owned(),
                    topology: Arc::new(checked.topology),
                    threads: checked.manifest.threads,
                    guarantee: checked.manifest.guarantee,
                    commit: checked.manifest.commit,
                    factory: Arc::clone(&self.spec.factory),
                    io: Arc::clone(&self.spec.io),
                    clock: Arc::clone(&self.spec.clock),
                    stores: Arc::clone(&self.spec.stores),
                    globals: Arc::clone(&self.spec.globals),
                };
                Runner::start(spec, seen.1, before)
            }
            Err(error) => {
                tracing::error!(pipeline = name, %error, "the pipeline does not start");
                let reason = Some(error.to_string());
                Runner::idle(seen, None, PipelineState::Failed, reason, before)
            }
        };
        runner.board().limit(&limits);
        let mut inner = self.inner.lock();
        if inner.stopping {
            runner.signal();
        }
        inner.runners.insert(name.to_owned(), runner);
    }

    /// Stops a driver and waits for its last commit. Until something takes its place, what is known of it can be seen.
    pub(super) async fn halt(&self, name: &str) {
        let thread = self.inner.lock().runners.get_mut(name).and_then(Runner::halt);
        let Some(thread) = thread else { return };
        let stopped = tokio::task::spawn_blocking(move || thread.join().is_ok());
        // A driver ends at the latest after one call of its plugin (bounded by its deadline) and one commit. Calls of plugins
        // that act on the outside have a grace before, and their requests are ended behind it (`driver/workers.rs`).
        if !stopped.await.unwrap_or(false) {
            tracing::error!(
                pipeline = name,
                "the driver's thread panicked; what it had not committed is read again"
            );
        }
    }
}

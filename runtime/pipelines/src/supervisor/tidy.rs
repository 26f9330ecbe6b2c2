//! Keeps `__pelton_deployments` about as small as what it says: components that nobody can deploy or roll back to are deleted,
//! and a log that has grown to more than twice of its state is written anew, before what it said until then is let go.

use std::sync::Arc;

use crate::run_blocking;
use bytes::Bytes;
use pelton_streams::Digest;

use super::Supervisor;
use crate::deployments::{StoredComponent, TOPIC};
use crate::refusal::DeploymentLogError;

/// A log is written anew when it is so many times as large as what it says.
const GROWTH: u64 = 2;

impl Supervisor {
    /// Called by the holder of `changes`, after a change. The change stands, whatever becomes of this.
    pub(super) async fn tidy(&self) {
        if let Err(error) = self.try_tidy().await {
            tracing::warn!(%error, "topic `{TOPIC}` could not be made smaller; the next deployment tries again");
        }
    }

    async fn try_tidy(&self) -> Result<(), DeploymentLogError> {
        let (unused, records) = {
            let inner = self.inner.lock();
            let unused = inner.deployments.unused(|digest| inner.wanted.contains_key(digest));
            let records = unused.iter().flat_map(|digest| inner.deployments.remove(digest)).collect();
            (unused, records)
        };
        self.store(records).await?;
        self.forget_compiled(unused).await;
        let said = self.inner.lock().deployments.bytes();
        if self.spec.log.bytes() > self.spec.snapshot_min_bytes.max(said.saturating_mul(GROWTH)) {
            self.write_snapshot().await?;
        }
        Ok(())
    }

    async fn forget_compiled(&self, unused: Vec<Digest>) {
        let factory = Arc::clone(&self.spec.factory);
        run_blocking(move || unused.iter().for_each(|digest| factory.forget(digest))).await;
    }

    /// Writes everything once more, and lets go what was before it once that is durable. A crash leaves one of the two, or
    /// both, and they say the same.
    async fn write_snapshot(&self) -> Result<(), DeploymentLogError> {
        let Some((components, records)) = self.inner.lock().deployments.snapshot() else {
            tracing::warn!("topic `{TOPIC}` has records of a newer version, so it is not made smaller");
            return Ok(());
        };
        let mut first = None;
        for stored in components {
            let component = self.read(&stored).await?;
            let records = self.inner.lock().deployments.rewrite(&stored, &component);
            let offset = self.store(records).await?;
            first = first.or(offset);
        }
        let offset = self.store(records).await?;
        let Some(first) = first.or(offset) else { return Ok(()) };
        let log = Arc::clone(&self.spec.log);
        run_blocking(move || log.forget_before(first)).await
    }

    /// The bytes of a component, as they are in the log.
    pub(super) async fn read(&self, stored: &StoredComponent) -> Result<Bytes, DeploymentLogError> {
        let (log, stored) = (Arc::clone(&self.spec.log), stored.clone());
        run_blocking(move || log.component(&stored).map(Bytes::from)).await
    }
}

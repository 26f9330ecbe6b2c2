//! Components: taking them, and which of them may run.

use std::sync::Arc;

use bytes::Bytes;
use pelton_streams::Digest;

use super::{PluginSummary, Pushed, Supervisor, to_its_end};
use crate::allowed::{NotAllowed, read_signature};
use crate::compiler::Patience;
use crate::deployments::{PluginRecord, chunks};
use crate::refusal::DeployError;
use crate::run_blocking;

/// What a component is pushed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// From now on its name means it.
    Use,
    /// A replay, a shadow or a dry run: it is known by its digest, and its name means what it meant.
    Trial,
}

impl Supervisor {
    /// Takes a component without a signature.
    ///
    /// # Errors
    /// As [`Supervisor::push_signed`].
    pub async fn push(self: &Arc<Self>, component: Bytes) -> Result<Pushed, DeployError> {
        self.push_signed(component, None, Purpose::Use).await
    }

    /// Takes a component, with the text of its .minisig file: checks it, and keeps it durably under its digest.
    ///
    /// # Errors
    /// It is no component that the server can run, or may run.
    pub async fn push_signed(
        self: &Arc<Self>,
        component: Bytes,
        signature: Option<String>,
        purpose: Purpose,
    ) -> Result<Pushed, DeployError> {
        let this = Arc::clone(self);
        to_its_end(async move { this.take(component, signature, purpose).await }).await
    }

    async fn take(
        &self,
        component: Bytes,
        signature: Option<String>,
        purpose: Purpose,
    ) -> Result<Pushed, DeployError> {
        let bytes = component.clone();
        let digest = tokio::task::spawn_blocking(move || crate::digest_of(&bytes)).await;
        let digest = digest.map_err(|_| DeployError::Stopping)?;
        let _wanted = self.want(digest);
        self.check_allowed(digest, &component, signature.as_deref()).await?;
        // Before the lock of changes is taken: no other change waits for a compilation.
        let loaded = self.compiler.load(digest, component.clone(), Patience::Bounded).await;
        // After a failure, too: components of earlier pushes that no pipeline uses are unloaded.
        self.unload_unused();
        let info = loaded?;
        let _change = self.changes.lock().await;
        let manifest = info.manifest.as_ref();
        let record = PluginRecord {
            bytes: component.len() as u64,
            chunks: chunks(component.len()),
            pushed_at_ms: self.spec.clock.now_ms(),
            name: manifest.map(|manifest| manifest.name.clone()),
            version: manifest.map(|manifest| manifest.version.clone()),
            world: info.world.to_string(),
            signature,
            trial: purpose == Purpose::Trial,
            deployed: false,
        };
        let mut pushed = Pushed {
            digest: digest.to_string(),
            name: record.name.clone(),
            version: record.version.clone(),
            world: record.world.clone(),
            new: true,
        };
        let records = {
            let deployments = &self.inner.lock().deployments;
            pushed.new = deployments.component(&digest.hex()).is_none();
            deployments.push(&digest, &record, &component)
        };
        self.store(records).await?;
        self.tidy().await;
        Ok(pushed)
    }

    /// All plugins.
    pub fn plugins(&self) -> Vec<PluginSummary> {
        let inner = self.inner.lock();
        let summary = |(digest, record): (&String, &PluginRecord)| PluginSummary {
            digest: format!("sha256:{digest}"),
            name: record.name.clone(),
            version: record.version.clone(),
            world: record.world.clone(),
            bytes: record.bytes,
            pushed_at_ms: record.pushed_at_ms,
        };
        inner.deployments.plugins().iter().map(summary).collect()
    }

    /// Whether a component may run, by the signature that comes with it or else the one that is kept.
    pub(super) async fn check_allowed(
        &self,
        digest: Digest,
        component: &Bytes,
        signature: Option<&str>,
    ) -> Result<(), DeployError> {
        let kept = || self.inner.lock().deployments.plugins().get(&digest.hex())?.signature.clone();
        let not_allowed = |why: NotAllowed| DeployError::NotAllowed { plugin: digest.to_string(), why };
        // What cannot be read is refused, whatever the server runs now.
        signature.map_or(Ok(()), |text| read_signature(text).map(drop)).map_err(not_allowed)?;
        let (allowed, component) = (self.spec.allowed.clone(), component.clone());
        let signature = signature.map(str::to_owned).or_else(kept);
        let check = move || allowed.check(&digest, &component, signature.as_deref());
        run_blocking(check).await.map_err(not_allowed)
    }
}

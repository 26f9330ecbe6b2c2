//! Routers: pipelines that the broker deploys for topics with a partitioner of their own. Users see and pause them as others,
//! and change them by the settings of the topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::Manifest;

use super::{Deleted, Deployed, Supervisor};
use crate::compiler::Patience;
use crate::refusal::DeployError;

/// What the names of routers begin with, and those of no other pipelines.
pub const ROUTER_PREFIX: &str = "partitioner.";

pub(super) fn is_router(name: &str) -> bool {
    name.starts_with(ROUTER_PREFIX)
}

/// A user's manifest is none of a router.
pub(super) fn refuse_router(text: &str) -> Result<(), DeployError> {
    let manifest = Manifest::parse(text)?;
    if manifest.is_router() || is_router(&manifest.name) {
        return Err(DeployError::Router(manifest.name));
    }
    Ok(())
}

impl Supervisor {
    /// The manifest that is deployed under a name.
    pub fn manifest(&self, name: &str) -> Option<String> {
        Some(self.live(name)?.0)
    }

    /// The names of the routers that are deployed.
    pub fn routers(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let live = inner.deployments.live().map(|(name, _, _)| name);
        live.filter(|name| is_router(name)).map(str::to_owned).collect()
    }

    /// Whether the plugin of a router that is not there yet is known, fits and takes its configuration.
    ///
    /// # Errors
    /// What does not fit.
    pub async fn check_router(&self, manifest: &str) -> Result<(), DeployError> {
        let checked = self.checked(manifest, &BTreeMap::new(), Patience::Bounded).await?;
        self.try_start(&checked).await
    }

    /// Takes the manifest of a router live.
    ///
    /// # Errors
    /// As [`Supervisor::deploy`].
    pub async fn deploy_router(self: &Arc<Self>, manifest: &str) -> Result<Deployed, DeployError> {
        self.deploy_any(manifest, &BTreeMap::new(), None).await
    }

    /// Takes a router away, with its offsets.
    ///
    /// # Errors
    /// As [`Supervisor::delete`].
    pub async fn delete_router(self: &Arc<Self>, name: &str) -> Result<Deleted, DeployError> {
        self.delete_any(name, true).await
    }
}

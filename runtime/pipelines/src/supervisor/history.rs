//! What was deployed under a name, and going back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use serde::Serialize;

use super::routing::is_router;
use super::{Checked, Deployed, Supervisor, given};
use crate::deployments::Revision;
use crate::deployments::history::{KeptRevision, RevisionChanges, Rollback, changes_from};
use crate::refusal::DeployError;

/// The kept revisions of a pipeline, as HTTP shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub name: String,
    /// The one that runs, or would if it were not paused.
    pub live: u64,
    pub paused: bool,
    /// The newest first.
    pub revisions: Vec<KeptRevision>,
}

impl Supervisor {
    /// The kept revisions of a pipeline that is deployed.
    pub fn history(&self, name: &str) -> Option<Kept> {
        let inner = self.inner.lock();
        let history = inner.deployments.pipeline(name)?;
        let live = history.live?;
        let (name, revisions) = (name.to_owned(), history.kept());
        Some(Kept { name, live: live.revision, paused: live.paused, revisions })
    }

    /// One of them whole, with its manifest.
    pub fn revision(&self, name: &str, revision: u64) -> Option<Revision> {
        let inner = self.inner.lock();
        inner.deployments.pipeline(name)?.revisions.get(&revision).cloned()
    }

    /// Takes the manifest and the components of a kept revision live again, as a new revision: `to`, or else the one before the
    /// live one. It is checked as any other deployment, and goes on where the live one stops.
    ///
    /// # Errors
    /// There is no such revision, or what does not fit by now. Nothing was changed.
    pub async fn rollback(
        self: &Arc<Self>,
        name: &str,
        to: Option<u64>,
        dry_run: bool,
    ) -> Result<Deployed, DeployError> {
        if is_router(name) {
            return Err(DeployError::Router(name.to_owned()));
        }
        let (back, revision) = self.target(name, to)?;
        let plugins = given(&revision);
        if dry_run {
            let checked = self.check(&revision.manifest, &plugins).await?;
            return Ok(Deployed { rolled_back_to: Some(back.to), ..checked });
        }
        self.deploy_any(&revision.manifest, &plugins, Some(back)).await
    }

    fn target(&self, name: &str, to: Option<u64>) -> Result<(Rollback, Revision), DeployError> {
        let inner = self.inner.lock();
        let unknown = || DeployError::UnknownPipeline(name.to_owned());
        let history = inner.deployments.pipeline(name).ok_or_else(unknown)?;
        let back = history.rollback(to).ok_or_else(unknown)?;
        let back = back.map_err(|why| DeployError::NoRollback { pipeline: name.to_owned(), why })?;
        let revision = history.revisions.get(&back.to).cloned().ok_or_else(unknown)?;
        Ok((back, revision))
    }

    /// Whether what a rollback goes back from is live still. Called by the holder of `changes`.
    pub(super) fn check_rollback(&self, name: &str, back: Option<Rollback>) -> Result<(), DeployError> {
        let Some(Rollback { from, .. }) = back else { return Ok(()) };
        let live = self.inner.lock().deployments.pipeline(name).and_then(|history| history.live);
        match live {
            Some(live) if live.revision == from => Ok(()),
            _ if Mutant::RollbackUnchecked.is_on() => Ok(()),
            _ => Err(DeployError::Overtaken { pipeline: name.to_owned(), revision: from }),
        }
    }

    /// What a deployment changes about what is live; none if nothing is.
    pub(super) fn changes_of(&self, manifest: &str, checked: &Checked) -> Option<RevisionChanges> {
        let inner = self.inner.lock();
        let name = &checked.manifest.name;
        let (_, _, live) = inner.deployments.live().find(|(known, _, _)| known == name)?;
        let plugins: &BTreeMap<String, String> = &checked.plugins;
        Some(changes_from(live, manifest, plugins))
    }
}

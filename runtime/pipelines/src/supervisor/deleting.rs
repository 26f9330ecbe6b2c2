//! Taking pipelines away. Their stores go with them, which their changelogs would make again; what is in topics goes only if
//! somebody asks for that: changelogs, topics between the parts of the pipeline, and the offsets of its group, all of them or
//! none, since offsets without what was kept at them, or the other way round, would be wrong results later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pelton_streams::topology::graph::changelog_topic;
use pelton_streams::topology::repartition_topic;
use serde::Serialize;

use super::routing::is_router;
use super::{Supervisor, to_its_end};
use crate::refusal::{DeployError, DeploymentLogError};
use crate::run_blocking;

/// What a store's name has behind that of its node.
const STORE_SUFFIXES: [&str; 9] =
    ["", "-members", "-table", "-history", "-waiting", "-left", "-right", "-results", "-subscriptions"];
/// What the name of a topic between parts of the pipeline has behind that of its node.
const BETWEEN_SUFFIXES: [&str; 5] = ["", "-left", "-right", "-answers", "-subscriptions"];

/// What `delete` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Topics of the pipeline's own that stay, with its offsets: a pipeline of its name goes on with them.
    pub kept: Vec<String>,
    /// Those that are gone, and its offsets with them.
    pub deleted: Vec<String>,
    pub group: String,
}

impl Supervisor {
    /// Takes a pipeline away, and with `own_topics` its own topics and the offsets of its group. The topics that its sinks
    /// write stay. One that was taken away before can have its own topics deleted later.
    ///
    /// # Errors
    /// There is none of that name, it routes a topic, or the deletion could not be stored.
    pub async fn delete(self: &Arc<Self>, name: &str, own_topics: bool) -> Result<Deleted, DeployError> {
        if is_router(name) {
            return Err(DeployError::Router(name.to_owned()));
        }
        self.delete_any(name, own_topics).await
    }

    pub(super) async fn delete_any(
        self: &Arc<Self>,
        name: &str,
        own_topics: bool,
    ) -> Result<Deleted, DeployError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        to_its_end(async move { this.take_away(&name, own_topics).await }).await
    }

    async fn take_away(&self, name: &str, own_topics: bool) -> Result<Deleted, DeployError> {
        let _change = self.changes.lock().await;
        let (records, has_state) = {
            let deployments = &self.inner.lock().deployments;
            let has_state = deployments.stores(name).is_some() || deployments.between(name).is_some();
            (deployments.delete(name), own_topics && has_state)
        };
        if records.is_none() && !has_state {
            return Err(DeployError::UnknownPipeline(name.to_owned()));
        }
        self.store(records.unwrap_or_default()).await?;
        self.halt(name).await;
        self.stop_shadow(name).await;
        self.inner.lock().runners.remove(name);
        self.keep_copies().await;
        let (stores, pipeline) = (Arc::clone(&self.spec.stores), name.to_owned());
        if let Err(error) = run_blocking(move || stores.remove_all(&pipeline)).await {
            tracing::warn!(pipeline = name, %error, "the stores of a deleted pipeline stay on disk until the next start");
        }
        let topics = self.own_topics(name);
        let group = self.spec.io.group(name);
        let deleted = if own_topics {
            self.forget(name, &topics).await?;
            Deleted { kept: Vec::new(), deleted: topics, group }
        } else {
            Deleted { kept: topics, deleted: Vec::new(), group }
        };
        self.unload_unused();
        self.tidy().await;
        Ok(deleted)
    }

    /// What an interrupted deletion has left of a pipeline is deleted before one of its name begins: a topic of its own that is
    /// missing says that there was one.
    pub(super) async fn finish_forgetting(&self, name: &str) -> Result<(), DeployError> {
        let is_interrupted = {
            let inner = self.inner.lock();
            let is_live = inner.deployments.live().any(|(live, _, _)| live == name);
            let is_missing = |topic: &str| !self.spec.io.topic_exists(topic);
            let stores = inner.deployments.stores(name).into_iter().flatten();
            let between = inner.deployments.between(name).into_iter().flatten();
            let mut lost = stores.filter(|(store, _)| is_missing(&changelog_topic(name, store)));
            !is_live && (lost.next().is_some() || between.into_iter().any(|topic| is_missing(topic)))
        };
        if is_interrupted { self.forget(name, &self.own_topics(name)).await } else { Ok(()) }
    }

    /// Deletes a pipeline's own topics and its offsets, and forgets what it kept once they are gone.
    async fn forget(&self, name: &str, topics: &[String]) -> Result<(), DeployError> {
        let gone = self.spec.io.forget(name, topics).await;
        gone.map_err(|error| DeployError::Log(DeploymentLogError(error.to_string())))?;
        let forgotten = self.inner.lock().deployments.forget_stores(name);
        self.store(forgotten).await?;
        Ok(())
    }

    /// The topics of a pipeline's own that exist.
    fn own_topics(&self, name: &str) -> Vec<String> {
        let inner = self.inner.lock();
        let nothing = BTreeMap::new();
        let stores = inner.deployments.stores(name).unwrap_or(&nothing);
        let mut topics: BTreeSet<String> = stores.keys().map(|store| changelog_topic(name, store)).collect();
        topics.extend(inner.deployments.between(name).into_iter().flatten().cloned());
        // A version that did not note them has made these.
        for store in stores.keys() {
            let nodes = STORE_SUFFIXES.iter().filter_map(|suffix| store.strip_suffix(suffix));
            for node in nodes {
                let between = BETWEEN_SUFFIXES.map(|side| format!("{node}{side}"));
                topics.extend(between.iter().map(|between| repartition_topic(name, between)));
            }
        }
        topics.retain(|topic| self.spec.io.topic_exists(topic));
        topics.into_iter().collect()
    }

    /// What a crash between a deletion and the end of its work has left on disk.
    pub(super) async fn remove_leftovers(&self) {
        let live: Vec<String> =
            self.inner.lock().deployments.live().map(|(name, _, _)| name.to_owned()).collect();
        let stores = Arc::clone(&self.spec.stores);
        let remove = move || {
            let live: Vec<&str> = live.iter().map(String::as_str).collect();
            stores.remove_others(&live)
        };
        if let Err(error) = run_blocking(remove).await {
            tracing::warn!(%error, "stores of pipelines that were deleted stay on disk until the next start");
        }
    }
}

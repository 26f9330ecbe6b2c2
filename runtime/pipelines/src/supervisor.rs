//! Starts and stops drivers so that what runs is what the deployments say. Every change is a record first: it is
//! appended, durable, and only then acted upon, so that a crash leaves what a replay gives.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use pelton_streams::state::MemoryBudget;
use pelton_streams::topology::OutputTopic;
use pelton_streams::{Digest, LoadError, Manifest, PluginFactory, PluginInfo, Topology};

use super::allowed::AllowList;
use super::compiler::{CompileError, CompileLimits, Compiler, Patience};
use super::deployments::history::Rollback;
use super::deployments::{DeploymentRecord, Deployments, Replay, Revision, StoredComponent};
use super::globals::Globals;
use super::io::IoFactory;
use super::logs::PipelineLogs;
use super::readers::Offsets;
use super::refusal::{DeployError, DeploymentLogError, EnsureTopicError};
use super::replay::ALL_MEMORY_MAX;
use super::runner::Runner;
use super::status::PipelineState;
use super::stores::TaskStores;
use crate::Clock;
use crate::run_blocking;

/// Whether the topic is there in the end.
pub type Ensuring<'a> = Pin<Box<dyn Future<Output = Result<(), EnsureTopicError>> + Send + 'a>>;

/// The offsets of what was appended.
pub type Appending<'a> = Pin<Box<dyn Future<Output = Result<Vec<i64>, DeploymentLogError>> + Send + 'a>>;

/// Is handed a record's offset, key and value.
pub type EachRecord<'a> = dyn FnMut(i64, &[u8], Option<&[u8]>) + 'a;

/// Where deployments are kept: a partition of the broker.
pub trait DeploymentLog: Send + Sync {
    /// Appends records and returns their offsets when they are durable.
    fn append(&self, records: Vec<DeploymentRecord>) -> Appending<'_>;
    /// Everything from the start, in order. Called once, before anything else. Blocking.
    fn replay(&self, each: &mut EachRecord<'_>) -> Result<(), DeploymentLogError>;
    /// The bytes of a component. The caller checks them against the digest. Blocking.
    fn component(&self, stored: &StoredComponent) -> Result<Vec<u8>, DeploymentLogError>;
    /// The size of the log.
    fn bytes(&self) -> u64;
    /// Lets go everything before an offset. Blocking.
    fn forget_before(&self, offset: i64) -> Result<(), DeploymentLogError>;
    /// Whether a topic is there, or could be created with the broker's defaults.
    fn check_topic(&self, topic: &str) -> Result<(), EnsureTopicError>;
    /// Creates a topic with the broker's defaults if it is missing. Durable when it returns.
    fn ensure_topic<'a>(&'a self, topic: &'a str) -> Ensuring<'a>;
    /// Creates the changelog of a store if it is missing: a compacted topic of the server's own, with so many partitions.
    fn ensure_changelog<'a>(&'a self, topic: &'a str, partitions: u32) -> Ensuring<'a>;
    /// Creates a topic between two parts of a pipeline if it is missing: one of the server's own, with so many partitions,
    /// from which nothing goes by time or size.
    fn ensure_repartition<'a>(&'a self, topic: &'a str, partitions: u32) -> Ensuring<'a>;
}

/// What a supervisor is made of.
pub struct SupervisorSpec {
    pub factory: Arc<dyn PluginFactory>,
    pub log: Arc<dyn DeploymentLog>,
    pub io: Arc<dyn IoFactory>,
    pub clock: Arc<dyn Clock>,
    /// What pipelines say, until it is kept.
    pub logs: Arc<PipelineLogs>,
    /// Where tasks keep their stores.
    pub stores: Arc<dyn TaskStores>,
    /// The copies of topics that pipelines read as global tables.
    pub globals: Arc<dyn Globals>,
    /// Pipelines that may be deployed at once.
    pub max_pipelines: u32,
    /// `pelton.snapshot.min.bytes`: a smaller log is never written anew.
    pub snapshot_min_bytes: u64,
    pub compile: CompileLimits,
    /// Which components it runs.
    pub allowed: AllowList,
}

/// The one owner of deployments and drivers. Changes are made one at a time, and may take as long as a plugin's
/// deadline; compiling comes before a change, and holds up none. Looking waits for neither.
pub struct Supervisor {
    spec: SupervisorSpec,
    compiler: Compiler,
    /// Held for a whole change.
    changes: tokio::sync::Mutex<()>,
    /// Held for a whole replay, by its thread, and while a shadow begins: one at a time.
    replays: Arc<tokio::sync::Mutex<()>>,
    /// The replay that is under way, or was the last one.
    replaying: Mutex<Option<Replaying>>,
    /// What all replays and shadows have of memory.
    replay_memory: Arc<MemoryBudget>,
    /// By pipeline.
    shadows: Mutex<BTreeMap<String, Shadowed>>,
    /// Never held across an await. Only the holder of `changes` changes it.
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    deployments: Deployments,
    runners: BTreeMap<String, Runner>,
    /// Components that a change under way wants loaded, and how many do.
    wanted: BTreeMap<Digest, usize>,
    /// Nothing is started any more.
    stopping: bool,
}

/// A manifest that was checked against everything it names. Its plugins stay loaded as long as this exists.
struct Checked {
    manifest: Manifest,
    topology: Topology,
    plugins: BTreeMap<String, String>,
    /// It is what this revision was.
    rolled_back_to: Option<u64>,
    wanted: Vec<Wanted>,
}

/// Keeps a component loaded between its compilation and the record that says who uses it.
struct Wanted {
    inner: Arc<Mutex<Inner>>,
    digest: Digest,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let wanted = &mut self.inner.lock().wanted;
        match wanted.get_mut(&self.digest) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(wanted.remove(&self.digest)),
        }
    }
}

impl Supervisor {
    /// Replays the deployments. What they say is started by [`Supervisor::run_all`].
    pub async fn start(spec: SupervisorSpec) -> Result<Arc<Supervisor>, DeploymentLogError> {
        let log = Arc::clone(&spec.log);
        let deployments = run_blocking(move || {
            let mut replay = Replay::default();
            log.replay(&mut |offset, key, value| replay.take(offset, key, value))?;
            Ok::<Deployments, DeploymentLogError>(replay.finish()?)
        });
        let deployments = deployments.await?;
        let inner = Arc::new(Mutex::new(Inner { deployments, ..Inner::default() }));
        let compiler = Compiler::new(Arc::clone(&spec.factory), spec.compile);
        let supervisor = Arc::new(Supervisor {
            spec,
            compiler,
            changes: tokio::sync::Mutex::default(),
            replays: Arc::default(),
            replaying: Mutex::default(),
            replay_memory: MemoryBudget::new(ALL_MEMORY_MAX),
            shadows: Mutex::default(),
            inner,
        });
        let change = supervisor.changes.lock().await;
        supervisor.tidy().await;
        supervisor.remove_leftovers().await;
        drop(change);
        Ok(supervisor)
    }

    /// Starts what is deployed. A pipeline that cannot start is listed as failed; the broker starts all the same.
    pub async fn run_all(&self) {
        let _change = self.changes.lock().await;
        let live: Vec<(String, bool)> = {
            let inner = self.inner.lock();
            inner.deployments.live().map(|(name, live, _)| (name.to_owned(), live.paused)).collect()
        };
        for (name, paused) in live {
            self.run(&name, paused, Patience::Endless).await;
        }
    }

    /// Checks a manifest against the plugins and topics it names.
    ///
    /// # Errors
    /// What [`Supervisor::deploy`] would say.
    pub async fn check(
        &self,
        manifest: &str,
        plugins: &BTreeMap<String, Digest>,
    ) -> Result<Deployed, DeployError> {
        routing::refuse_router(manifest)?;
        let checked = self.checked(manifest, plugins, Patience::Bounded).await?;
        self.check_sources(&checked)?;
        self.try_start(&checked).await?;
        self.check_outputs(&checked)?;
        self.check_tables(&checked.manifest)?;
        self.check_globals(&checked.topology)?;
        let stores = self.check_stores(&checked.topology)?;
        self.check_missed(&checked.topology).await?;
        let name = checked.manifest.name.clone();
        let group = self.spec.io.group(&name);
        Ok(Deployed {
            name,
            revision: None,
            rolled_back_to: None,
            changes: self.changes_of(manifest, &checked),
            state: None,
            repartitions: repartitions_of(&checked.topology),
            warnings: self.warnings(&checked.manifest, checked.topology).await,
            plugins: checked.plugins,
            stores,
            group,
        })
    }

    /// Takes a manifest live. A pipeline of that name that runs is stopped at a commit, and the new revision goes on
    /// where it stopped.
    ///
    /// # Errors
    /// What does not fit. Nothing was changed.
    pub async fn deploy(
        self: &Arc<Self>,
        manifest: &str,
        plugins: &BTreeMap<String, Digest>,
    ) -> Result<Deployed, DeployError> {
        routing::refuse_router(manifest)?;
        self.deploy_any(manifest, plugins, None).await
    }

    async fn deploy_any(
        self: &Arc<Self>,
        manifest: &str,
        plugins: &BTreeMap<String, Digest>,
        back: Option<Rollback>,
    ) -> Result<Deployed, DeployError> {
        let (this, manifest, plugins) = (Arc::clone(self), manifest.to_owned(), plugins.clone());
        to_its_end(async move { this.take_live(&manifest, &plugins, back).await }).await
    }

    async fn take_live(
        &self,
        manifest: &str,
        plugins: &BTreeMap<String, Digest>,
        back: Option<Rollback>,
    ) -> Result<Deployed, DeployError> {
        let mut checked = self.checked(manifest, plugins, Patience::Bounded).await?;
        checked.rolled_back_to = back.map(|back| back.to);
        self.check_sources(&checked)?;
        self.try_start(&checked).await?;
        let change = self.changes.lock().await;
        let name = checked.manifest.name.clone();
        {
            let deployments = &self.inner.lock().deployments;
            let max = self.spec.max_pipelines;
            // Routers come with their topics, which are bounded.
            let counted = deployments.live().filter(|(name, _, _)| !routing::is_router(name)).count();
            let is_new = deployments.pipeline(&name).is_none() && !routing::is_router(&name);
            if is_new && counted >= max as usize {
                return Err(DeployError::TooMany(max));
            }
        }
        self.check_rollback(&name, back)?;
        self.finish_forgetting(&name).await?;
        let changes = self.changes_of(manifest, &checked);
        // All of them first, so that one that cannot be made leaves none behind.
        self.check_outputs(&checked)?;
        self.check_tables(&checked.manifest)?;
        self.check_globals(&checked.topology)?;
        let stores = self.check_stores(&checked.topology)?;
        self.ensure_outputs(&checked).await?;
        // Before it runs, so that what it would read first is looked at.
        let warnings = self.warnings(&checked.manifest, checked.topology.clone()).await;
        let number = self.store_revision(manifest, &checked).await?;
        self.halt(&name).await;
        self.keep_copies().await;
        self.run(&name, false, Patience::Bounded).await;
        self.unload_unused();
        drop(checked.wanted);
        self.tidy().await;
        drop(change);
        let (group, state) = (self.spec.io.group(&name), self.started(&name).await);
        Ok(Deployed {
            name,
            revision: Some(number),
            rolled_back_to: checked.rolled_back_to,
            changes,
            state,
            repartitions: repartitions_of(&checked.topology),
            warnings,
            plugins: checked.plugins,
            stores,
            group,
        })
    }

    /// Creates the topics that a deployment writes to.
    async fn ensure_outputs(&self, checked: &Checked) -> Result<(), DeployError> {
        self.ensure_repartitions(&checked.topology).await?;
        for output in &checked.topology.outputs {
            if let Some(sub) = output.changelog_of {
                self.ensure_changelog(&checked.topology, &output.topic, sub).await?;
                continue;
            }
            if output.repartition.is_some() {
                continue;
            }
            let made = self.spec.log.ensure_topic(&output.topic).await;
            made.map_err(|error| DeployError::OutputTopic { topic: output.topic.clone(), error })?;
        }
        Ok(())
    }

    /// Takes a revision live, and says what its stores are. Its number. Where a store goes or comes back, the revision before has
    /// ended: what it has committed says what the store has.
    async fn store_revision(&self, manifest: &str, checked: &Checked) -> Result<u64, DeployError> {
        let name = &checked.manifest.name;
        if !self.moves_stores(&checked.topology) {
            return self.store_revision_at(manifest, checked, &Offsets::new()).await;
        }
        self.halt(name).await;
        let stored = match self.check_missed(&checked.topology).await {
            Ok(committed) => self.store_revision_at(manifest, checked, &committed).await,
            Err(refused) => Err(refused),
        };
        if stored.is_err() {
            let live = self.inner.lock().deployments.pipeline(name).and_then(|history| history.live);
            self.run(name, live.is_some_and(|live| live.paused), Patience::Bounded).await;
        }
        stored
    }

    async fn store_revision_at(
        &self,
        manifest: &str,
        checked: &Checked,
        committed: &Offsets,
    ) -> Result<u64, DeployError> {
        let name = &checked.manifest.name;
        let (plugins, deployed_at_ms) = (checked.plugins.clone(), self.spec.clock.now_ms());
        let (manifest, rolled_back_to) = (manifest.to_owned(), checked.rolled_back_to);
        let revision = Revision { manifest, plugins, deployed_at_ms, rolled_back_to };
        let kept = stores_of(&checked.topology);
        let (number, records) = {
            let deployments = &self.inner.lock().deployments;
            let (number, live) = deployments.deploy(name, &revision);
            let left = deployments.leave_stores(name, |store| kept.contains_key(store), committed);
            // What is kept is known before anything of the revision is.
            let kept = deployments.keep_stores(name, kept.clone());
            let topics = checked.topology.repartitions().map(|(_, topic)| topic);
            let between = deployments.keep_between(name, topics);
            (number, kept.into_iter().chain(between).chain(left).chain(live).collect())
        };
        self.store(records).await?;
        Ok(number)
    }

    /// Stops a pipeline at a commit, or starts it where it stopped. Also how a failed one is tried again. What it is
    /// doing a moment later.
    ///
    /// # Errors
    /// There is none of that name, its plugins are not compiled, or the change could not be stored.
    pub async fn set_paused(
        self: &Arc<Self>,
        name: &str,
        paused: bool,
    ) -> Result<Option<PipelineState>, DeployError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        to_its_end(async move { this.pause_or_resume(&name, paused).await }).await
    }

    async fn pause_or_resume(&self, name: &str, paused: bool) -> Result<Option<PipelineState>, DeployError> {
        // Only a pipeline whose plugins could not be compiled before has something to compile now.
        let _ready = if paused { None } else { self.compiled(name).await? };
        let change = self.changes.lock().await;
        let records = self.inner.lock().deployments.set_paused(name, paused);
        let records = records.ok_or_else(|| DeployError::UnknownPipeline(name.to_owned()))?;
        self.store(records).await?;
        self.halt(name).await;
        self.run(name, paused, Patience::Bounded).await;
        drop(change);
        Ok(self.started(name).await)
    }

    /// The state of a pipeline that was started, which mostly takes less than [`START_PATIENCE`].
    async fn started(&self, name: &str) -> Option<PipelineState> {
        let board = self.inner.lock().runners.get(name).map(|runner| Arc::clone(runner.board()))?;
        Some(board.started(START_PATIENCE).await)
    }

    /// Stops every driver at a commit: part of a graceful stop of the broker.
    pub async fn stop(&self) {
        // All of them at once, and before a change that waits for one of them is over.
        {
            let mut inner = self.inner.lock();
            inner.stopping = true;
            inner.runners.values().for_each(Runner::signal);
        }
        // Nothing that runs beside them begins any more.
        self.stop_replay().await;
        self.stop_shadows().await;
        let _change = self.changes.lock().await;
        let names: Vec<String> = self.inner.lock().runners.keys().cloned().collect();
        for name in names {
            self.halt(&name).await;
        }
    }

    /// Appends records, and applies them once they are durable. The offset of the first one.
    async fn store(&self, records: Vec<DeploymentRecord>) -> Result<Option<i64>, DeploymentLogError> {
        if records.is_empty() {
            return Ok(None);
        }
        let offsets = self.spec.log.append(records.clone()).await?;
        let first = offsets.first().copied();
        let mut inner = self.inner.lock();
        for (offset, (key, value)) in offsets.into_iter().zip(records) {
            if let Err(error) = inner.deployments.apply(offset, key.as_bytes(), value.as_deref()) {
                tracing::error!(%error, "a deployment that was just written cannot be read");
            }
        }
        Ok(first)
    }

    async fn checked(
        &self,
        text: &str,
        given: &BTreeMap<String, Digest>,
        patience: Patience,
    ) -> Result<Checked, DeployError> {
        self.checked_manifest(Manifest::parse(text)?, given, patience).await
    }

    async fn checked_manifest(
        &self,
        manifest: Manifest,
        given: &BTreeMap<String, Digest>,
        patience: Patience,
    ) -> Result<Checked, DeployError> {
        let mut wanted = Vec::new();
        let mut plugins = BTreeMap::new();
        let mut infos = BTreeMap::new();
        for (node, named) in manifest.plugins() {
            let digest = resolve(&self.inner.lock().deployments, (&node, named), given)?;
            wanted.push(self.want(digest));
            infos.insert(node.clone(), self.load(&node, &digest, patience).await?);
            plugins.insert(node, digest.to_string());
        }
        let topology = Topology::link_over(&manifest, &infos, &|topic| self.spec.io.partitions(topic))?;
        Ok(Checked { manifest, topology, plugins, rolled_back_to: None, wanted })
    }

    /// Compiles the plugins of the deployed revision of a pipeline. Only a compilation that did not end is an error
    /// here: whatever else is wrong with them is the pipeline's failure when it starts.
    async fn compiled(&self, name: &str) -> Result<Option<Checked>, DeployError> {
        let Some((manifest, plugins)) = self.live(name) else { return Ok(None) };
        match self.checked(&manifest, &plugins, Patience::Bounded).await {
            Err(DeployError::Compile(error)) if !matches!(error, CompileError::Refused(_)) => {
                Err(error.into())
            }
            checked => Ok(checked.ok()),
        }
    }

    /// The manifest that is deployed under a name, and its plugins.
    fn live(&self, name: &str) -> Option<(String, BTreeMap<String, Digest>)> {
        let inner = self.inner.lock();
        let (_, _, revision) = inner.deployments.live().find(|(known, _, _)| *known == name)?;
        Some((revision.manifest.clone(), given(revision)))
    }

    fn want(&self, digest: Digest) -> Wanted {
        *self.inner.lock().wanted.entry(digest).or_insert(0) += 1;
        Wanted { inner: Arc::clone(&self.inner), digest }
    }

    /// A deployment whose source topic does not exist is refused; a pipeline that runs waits for a deleted topic.
    fn check_sources(&self, checked: &Checked) -> Result<(), DeployError> {
        let mut sources = checked.topology.sources.iter().filter(|source| source.repartition.is_none());
        match sources.find(|source| !self.spec.io.topic_exists(&source.topic)) {
            Some(source) => Err(DeployError::NoSourceTopic(source.topic.clone())),
            None => Ok(()),
        }
    }

    fn check_outputs(&self, checked: &Checked) -> Result<(), DeployError> {
        let own = |output: &&OutputTopic| output.changelog_of.is_some() || output.repartition.is_some();
        for output in checked.topology.outputs.iter().filter(|output| !own(output)) {
            let fits = self.spec.log.check_topic(&output.topic);
            fits.map_err(|error| DeployError::OutputTopic { topic: output.topic.clone(), error })?;
        }
        Ok(())
    }

    async fn load(&self, node: &str, digest: &Digest, patience: Patience) -> Result<PluginInfo, DeployError> {
        let component = loop {
            let find = || self.inner.lock().deployments.component(&digest.hex());
            let unknown = || DeployError::UnknownPlugin { node: node.to_owned(), plugin: digest.to_string() };
            let stored = find().ok_or_else(unknown)?;
            match self.read(&stored).await {
                Ok(component) => break component,
                // A snapshot has moved it meanwhile.
                Err(_) if find().as_ref() != Some(&stored) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let bytes = component.clone();
        let actual = run_blocking(move || crate::digest_of(&bytes)).await;
        if actual != *digest {
            return Err(CompileError::from(LoadError::DigestMismatch { expected: *digest, actual }).into());
        }
        if !Mutant::AllowListSkipped.is_on() {
            self.check_allowed(actual, &component, None).await?;
        }
        Ok(self.compiler.load(actual, component, patience).await?)
    }

    /// Forgets compiled code that no pipeline runs. It is in the cache on disk if it is wanted again.
    fn unload_unused(&self) {
        let inner = self.inner.lock();
        let used: BTreeSet<&String> =
            inner.deployments.live().flat_map(|(_, _, revision)| revision.plugins.values()).collect();
        for digest in self.spec.factory.loaded() {
            if !inner.wanted.contains_key(&digest) && !used.contains(&digest.to_string()) {
                self.spec.factory.unload(&digest);
            }
        }
    }
}

mod answers;
mod asking;
mod deleting;
mod following;
mod history;
mod lasting;
mod letters;
mod limiting;
mod looking;
mod naming;
mod placing;
mod pushing;
mod replaying;
mod routing;
mod running;
mod shadowing;
mod starting;
mod stores;
mod tables;
mod tidy;
mod waiting;
mod warnings;

pub use answers::{Deployed, PipelineDescription, PluginSummary, Pushed, Repartition};
pub use asking::{
    AskedOffset, StateAskError, StateFound, StateRows, StateTableDescription, StateTablePartition,
    StateTableStore, StoreMetrics, WindowsAnswer,
};
pub use deleting::Deleted;
pub use following::FollowedState;
pub use history::Kept;
pub use lasting::Unanswered;
use lasting::to_its_end;
pub use letters::LetterTopics;
use naming::{given, repartitions_of, resolve};
pub use placing::Placer;
pub use pushing::Purpose;
use replaying::Replaying;
pub use replaying::{ReplayReport, ReplayRequest};
pub use routing::ROUTER_PREFIX;
use shadowing::Shadowed;
pub use shadowing::{ShadowDescription, ShadowOf};
use stores::stores_of;
pub use stores::{StoreChange, StoreFate};

/// How long a change waits for a pipeline that it has started, before it says that the pipeline is starting.
const START_PATIENCE: Duration = Duration::from_millis(100);

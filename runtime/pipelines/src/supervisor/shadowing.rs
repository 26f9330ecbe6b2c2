//! Shadows: a revision that is not live runs beside the live one on what comes in, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pelton_streams::manifest::values::Start;
use pelton_streams::{Digest, Manifest, Topology};
use serde::Serialize;

use super::{Checked, ReplayRequest, Supervisor, Wanted};
use crate::io::{IoError, IoFactory};
use crate::readers::Offsets;
use crate::refusal::{DeployError, ReplayError};
use crate::replay::{Ranges, ReplayRange, SHADOWS_MAX, Shadow, ShadowReport};
use crate::run_blocking;

/// How long the start of a shadow waits for its plugins, which are loaded until then.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A shadow, and what it is of.
pub(super) struct Shadowed {
    shadow: Shadow,
    about: ShadowOf,
    /// Its plugins stay loaded.
    _wanted: Vec<Wanted>,
}

/// What a shadow is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShadowOf {
    pub name: String,
    /// The revision that was live when it began: it runs once more.
    pub revision: u64,
    pub plugins_before: BTreeMap<String, String>,
    pub plugins_after: BTreeMap<String, String>,
    /// What its user may not expect.
    pub notes: Vec<String>,
}

/// What a shadow has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShadowDescription {
    #[serde(flatten)]
    pub of: ShadowOf,
    #[serde(flatten)]
    pub report: ShadowReport,
}

impl Shadowed {
    fn describe(&self) -> ShadowDescription {
        ShadowDescription { of: self.about.clone(), report: self.shadow.report() }
    }
}

impl Supervisor {
    /// Runs a manifest beside the live revision of its pipeline, from where that is now, in place of another shadow of it. It
    /// writes nothing, and ends with the server. `from`: where it begins instead, tables apart.
    ///
    /// # Errors
    /// What does not fit, or that there are [`SHADOWS_MAX`].
    pub async fn start_shadow(
        &self,
        manifest: &str,
        plugins: &BTreeMap<String, Digest>,
        from: Option<Start>,
    ) -> Result<ShadowOf, ReplayError> {
        let _turn = self.replays.lock().await;
        let name = Manifest::parse(manifest).map_err(DeployError::from)?.name;
        {
            let shadows = self.shadows.lock();
            if shadows.len() >= SHADOWS_MAX && !shadows.contains_key(&name) {
                return Err(ReplayError::TooManyShadows);
            }
        }
        let request = ReplayRequest {
            from: Start::Earliest,
            to: Start::Latest,
            manifest: Some(manifest.to_owned()),
            plugins: plugins.clone(),
        };
        let (revision, before, after) = self.both(&name, &request).await?;
        let committed = self.spec.io.committed(&name).await?;
        let topologies = [&before, &after].map(|checked| Arc::new(checked.topology.clone()));
        let (io, read) = (Arc::clone(&self.spec.io), topologies.clone());
        let ranges = Arc::new(run_blocking(move || from_committed(&*io, &read, &committed, from)).await?);
        let [first, second] = topologies;
        let notes = self.notes(&first, &second, false);
        let specs = [(first, &before), (second, &after)]
            .map(|(topology, checked)| self.replay_spec(topology, checked, &ranges));
        // The one before it goes first.
        self.stop_shadow(&name).await;
        let shadow = Shadow::start(specs, &self.spec.clock);
        let shadow =
            shadow.map_err(|error| ReplayError::Failed(format!("its thread does not start: {error}")))?;
        let about = ShadowOf {
            name: name.clone(),
            revision,
            plugins_before: before.plugins.clone(),
            plugins_after: after.plugins.clone(),
            notes,
        };
        let boards = shadow.boards();
        self.keep_shadow(shadow, &about, [before, after])?;
        for board in boards {
            board.started(START_PATIENCE).await;
        }
        Ok(about)
    }

    /// Lists a shadow that has begun, unless its pipeline was taken away meanwhile, or the server stops: then it ends.
    fn keep_shadow(
        &self,
        shadow: Shadow,
        about: &ShadowOf,
        checked: [Checked; 2],
    ) -> Result<(), ReplayError> {
        // Who stops the server, or deletes the pipeline, says so under this lock before it looks for shadows.
        let inner = self.inner.lock();
        if inner.stopping {
            return Err(DeployError::Stopping.into());
        }
        if !inner.deployments.live().any(|(live, _, _)| live == about.name) {
            return Err(DeployError::UnknownPipeline(about.name.clone()).into());
        }
        let wanted = checked.into_iter().flat_map(|checked| checked.wanted).collect();
        let shadowed = Shadowed { shadow, about: about.clone(), _wanted: wanted };
        let before = self.shadows.lock().insert(about.name.clone(), shadowed);
        drop(inner);
        // What keeps plugins loaded takes the lock when it goes.
        drop(before);
        Ok(())
    }

    /// Ends all of them, and waits for their threads. None begins any more.
    pub(super) async fn stop_shadows(&self) {
        let mut all = std::mem::take(&mut *self.shadows.lock());
        let threads: Vec<_> = all.values_mut().flat_map(|shadowed| shadowed.shadow.halt()).collect();
        run_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }

    /// What the shadow of a pipeline has come to by now.
    pub fn shadow(&self, name: &str) -> Option<ShadowDescription> {
        Some(self.shadows.lock().get(name)?.describe())
    }

    /// Ends the shadow of a pipeline: what it has come to.
    pub async fn stop_shadow(&self, name: &str) -> Option<ShadowDescription> {
        let mut shadowed = self.shadows.lock().remove(name)?;
        let threads = shadowed.shadow.halt();
        // A panic in a driver is caught there.
        run_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        Some(shadowed.describe())
    }
}

/// Every partition from what is committed on, or from where its source begins; tables from their start.
fn from_committed(
    io: &dyn IoFactory,
    topologies: &[Arc<Topology>; 2],
    committed: &Offsets,
    from: Option<Start>,
) -> Result<Ranges, IoError> {
    let sources = topologies.iter().flat_map(|topology| &topology.sources);
    let mut ranges = Ranges::new();
    let mut tables: BTreeSet<&str> = BTreeSet::new();
    for source in sources.clone().filter(|source| source.table.is_some()) {
        tables.insert(&source.topic);
    }
    for source in sources.filter(|source| source.repartition.is_none()) {
        let topic = &source.topic;
        if ranges.contains_key(topic) {
            continue;
        }
        let count = i32::try_from(io.partitions(topic).unwrap_or(0)).unwrap_or(i32::MAX);
        let mut partitions = Vec::new();
        for partition in 0..count {
            let no_partition = || IoError::NoPartition { topic: topic.clone(), partition };
            let found = io.replay_partition(topic, partition).ok_or_else(no_partition)?;
            let at = committed.get(topic).and_then(|partitions| partitions.get(&partition)).copied();
            let start = match (from, at) {
                _ if tables.contains(topic.as_str()) => Start::Earliest,
                (Some(from), _) => from,
                (None, Some(offset)) => Start::Offset(offset),
                (None, None) => source.start,
            };
            let range =
                ReplayRange { topic: topic.clone(), partition, from: found.resolve(start)?, to: i64::MAX };
            partitions.push((range, found));
        }
        ranges.insert(topic.clone(), partitions);
    }
    Ok(ranges)
}

//! Replays of a range by the live revision and by another one, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pelton_streams::manifest::operator::GlobalOf;
use pelton_streams::manifest::values::Start;
use pelton_streams::{Digest, Topology};
use serde::Serialize;

use super::routing::is_router;
use super::{Checked, Supervisor};
use crate::compiler::Patience;
use crate::io::{IoError, IoFactory, StopSignal};
use crate::refusal::{DeployError, ReplayError};
use crate::replay::{Difference, Ending, Ranges, ReplayRange, ReplaySpec, RunReport, TIME_MAX_MS, compare};

/// What is replayed, and what the live revision is compared with.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    /// In each partition that is read, but for those of tables, which are read from their start.
    pub from: Start,
    /// Behind the last record.
    pub to: Start,
    /// Another manifest than the live one.
    pub manifest: Option<String>,
    /// Other components, by node.
    pub plugins: BTreeMap<String, Digest>,
}

/// What a replay has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    pub name: String,
    /// The live revision.
    pub revision: u64,
    pub ranges: Vec<ReplayRange>,
    pub plugins_before: BTreeMap<String, String>,
    pub plugins_after: BTreeMap<String, String>,
    /// Of the live revision.
    pub before: RunReport,
    /// Of the other one.
    pub after: RunReport,
    /// Both have come to their end, have read all of the range, and have the same records in the same order.
    pub identical: bool,
    pub difference: Difference,
    /// What its user may not expect.
    pub notes: Vec<String>,
}

/// A replay that is under way, or has ended.
pub(super) struct Replaying {
    asked: Arc<StopSignal>,
    thread: JoinHandle<()>,
}

/// Ends a replay when nobody waits for it any more.
struct Asker(Arc<StopSignal>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What two runs have come to.
type Both = (RunReport, RunReport, Difference);

impl Supervisor {
    /// Runs the live revision and another one over a range, and compares what comes out. Nothing is written.
    ///
    /// # Errors
    /// What does not fit, or that another replay is under way.
    pub async fn replay(&self, name: &str, request: ReplayRequest) -> Result<ReplayReport, ReplayError> {
        let turn = Arc::clone(&self.replays).try_lock_owned().map_err(|_| ReplayError::Busy)?;
        let (revision, before, after) = self.both(name, &request).await?;
        let io = Arc::clone(&self.spec.io);
        let (from, to) = (request.from, request.to);
        let topologies = [&before, &after].map(|checked| Arc::new(checked.topology.clone()));
        let read = topologies.clone();
        let ranges = crate::run_blocking(move || ranges(&*io, &read, from, to)).await?;
        let shown: Vec<ReplayRange> = ranges.values().flatten().map(|(range, _)| range.clone()).collect();
        let [first, second] = topologies;
        let notes = self.notes(&first, &second, true);
        let ranges = Arc::new(ranges);
        let specs = [(first, &before), (second, &after)];
        let [first, second] = specs.map(|(topology, checked)| self.replay_spec(topology, checked, &ranges));
        let plugins = [before.plugins, after.plugins];
        // The turn and what keeps the plugins loaded are the thread's: it goes on for a while after who asked is gone.
        let held = (turn, before.wanted, after.wanted);
        let ending = |asked| Ending { asked, at: Instant::now() + Duration::from_millis(TIME_MAX_MS) };
        let (told, asker) = self.begin_replay(move |asked| {
            let done = compare(&first, &second, &ending(asked));
            drop(held);
            done
        })?;
        let done = told.await.map_err(|_| ReplayError::Failed("it ended early".to_owned()))?;
        drop(asker);
        let (first, second, difference) = done;
        let is_whole = |run: &RunReport| run.failure.is_none() && run.deleted_unread == 0;
        let identical = is_whole(&first) && is_whole(&second) && difference.topics.is_empty();
        let [plugins_before, plugins_after] = plugins;
        Ok(ReplayReport {
            name: name.to_owned(),
            revision,
            ranges: shown,
            plugins_before,
            plugins_after,
            before: first,
            after: second,
            identical,
            difference,
            notes,
        })
    }

    /// Has a thread do it. It ends early when what comes back is dropped, or the server stops.
    fn begin_replay(
        &self,
        work: impl FnOnce(Arc<StopSignal>) -> Both + Send + 'static,
    ) -> Result<(tokio::sync::oneshot::Receiver<Both>, Asker), ReplayError> {
        let asked = Arc::new(StopSignal::default());
        let (tell, told) = tokio::sync::oneshot::channel();
        let signal = Arc::clone(&asked);
        // Who asked may have gone meanwhile.
        let work = move || drop(tell.send(work(signal)));
        {
            // Who stops the server finds it here, or has said so before.
            let mut replaying = self.replaying.lock();
            // Not of the runtime's pool: a runtime that shuts down waits for those.
            let thread = std::thread::Builder::new().name("replay".to_owned()).spawn(work);
            let thread =
                thread.map_err(|error| ReplayError::Failed(format!("its thread does not start: {error}")))?;
            *replaying = Some(Replaying { asked: Arc::clone(&asked), thread });
        }
        if self.inner.lock().stopping {
            asked.set();
        }
        Ok((told, Asker(asked)))
    }

    /// Ends the replay that is under way, if there is one, and waits for its thread. None begins any more.
    pub(super) async fn stop_replay(&self) {
        let Some(Replaying { asked, thread }) = self.replaying.lock().take() else { return };
        asked.set();
        crate::run_blocking(move || drop(thread.join())).await;
    }

    /// The live revision and the one that it is compared with, checked.
    pub(super) async fn both(
        &self,
        name: &str,
        request: &ReplayRequest,
    ) -> Result<(u64, Checked, Checked), ReplayError> {
        if is_router(name) {
            return Err(DeployError::Router(name.to_owned()).into());
        }
        let unknown = || DeployError::UnknownPipeline(name.to_owned());
        let (manifest, live) = self.live(name).ok_or_else(unknown)?;
        let revision = self.history(name).ok_or_else(unknown)?.live;
        let before = self.checked(&manifest, &live, Patience::Bounded).await?;
        if request.manifest.is_none()
            && let Some(node) = request.plugins.keys().find(|node| !live.contains_key(*node))
        {
            let nodes = live.keys().cloned().collect();
            return Err(ReplayError::UnknownNode { node: node.clone(), nodes });
        }
        let mut plugins = if request.manifest.is_some() { BTreeMap::new() } else { live };
        plugins.extend(request.plugins.clone());
        let text = request.manifest.as_ref().unwrap_or(&manifest);
        let after = self.checked(text, &plugins, Patience::Bounded).await?;
        if after.manifest.name != name {
            return Err(ReplayError::OtherName { name: after.manifest.name, live: name.to_owned() });
        }
        [&before, &after].iter().try_for_each(|checked| acts_outside(&checked.topology))?;
        self.check_sources(&before)?;
        self.check_sources(&after)?;
        self.check_copies(&after.topology)?;
        self.try_start(&after).await?;
        Ok((revision, before, after))
    }

    /// Whether the global tables of a revision that is not live can be read: copies are kept for what is deployed.
    fn check_copies(&self, topology: &Topology) -> Result<(), ReplayError> {
        self.check_globals(topology)?;
        let copied = self.copied_topics();
        for global in &topology.globals {
            if let GlobalOf::Topic(topic) = &global.of
                && !copied.contains(topic)
            {
                return Err(ReplayError::NoCopy { table: global.id.clone(), topic: topic.clone() });
            }
        }
        Ok(())
    }

    pub(super) fn replay_spec(
        &self,
        topology: Arc<Topology>,
        checked: &Checked,
        ranges: &Arc<Ranges>,
    ) -> ReplaySpec {
        let partitions = topology.outputs.iter().map(|output| {
            let own =
                output.repartition.or_else(|| Some(self.partitions_of(&topology, output.changelog_of?).0));
            own.or_else(|| self.spec.io.partitions(&output.topic)).unwrap_or(1)
        });
        ReplaySpec {
            partitions: partitions.collect(),
            topology: Arc::clone(&topology),
            commit: checked.manifest.commit,
            factory: Arc::clone(&self.spec.factory),
            globals: Arc::clone(&self.spec.globals),
            ranges: Arc::clone(ranges),
            memory: Arc::clone(&self.replay_memory),
        }
    }

    /// What is not as in the live pipeline; `timeless`: there is no time but that of the records.
    pub(super) fn notes(&self, before: &Topology, after: &Topology, timeless: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if [before, after].iter().any(|topology| topology.stores().next().is_some()) {
            notes.push(
                "what nodes keep begins with nothing in both runs, not with what the live pipeline has"
                    .to_owned(),
            );
        }
        if [before, after].iter().any(|topology| !topology.globals.is_empty()) {
            notes.push(
                "global tables are read as they are when records are: another time they may have other rows"
                    .to_owned(),
            );
        }
        let has_timers = |topology: &&Topology| topology.nodes.iter().any(|node| node.has_timers);
        if timeless && [before, after].iter().any(has_timers) {
            notes.push(
                "the time of day is that of the newest record that was read; timers on the clock that are due later than the last \
                 record do not fire"
                    .to_owned(),
            );
        }
        notes
    }
}

/// Whether a topology has nodes that do something for each record which is no record: it would be done once more.
fn acts_outside(topology: &Topology) -> Result<(), ReplayError> {
    let node = topology.nodes.iter().find(|node| node.consumer.is_some());
    node.map_or(Ok(()), |node| Err(ReplayError::ActsOutside { node: node.id.clone() }))
}

/// What is read of each topic that a user writes.
fn ranges(
    io: &dyn IoFactory,
    topologies: &[Arc<Topology>; 2],
    from: Start,
    to: Start,
) -> Result<Ranges, IoError> {
    let sources = topologies.iter().flat_map(|topology| &topology.sources);
    let read: BTreeSet<(&str, bool)> = sources
        .filter(|source| source.repartition.is_none())
        .map(|source| (source.topic.as_str(), source.table.is_some()))
        .collect();
    let mut ranges = Ranges::new();
    // One that is read as a table by either is read from its start.
    for (topic, is_table) in read {
        let count = i32::try_from(io.partitions(topic).unwrap_or(0)).unwrap_or(i32::MAX);
        let mut partitions = Vec::new();
        for partition in 0..count {
            let no_partition = || IoError::NoPartition { topic: topic.to_owned(), partition };
            let found = io.replay_partition(topic, partition).ok_or_else(no_partition)?;
            let start = found.resolve(if is_table { Start::Earliest } else { from })?;
            // An offset is one of the records that are joined with the table.
            let end = match to {
                Start::Offset(_) | Start::Earliest if is_table => Start::Latest,
                to => to,
            };
            let end = found.resolve(end)?.max(start);
            let topic = topic.to_owned();
            partitions.push((ReplayRange { topic, partition, from: start, to: end }, found));
        }
        ranges.insert(topic.to_owned(), partitions);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use pelton_streams::{Manifest, PluginInfo, World};

    use super::*;

    fn topology(world: World, end: &str) -> Topology {
        let text = format!(
            "name = 'p'\n[[source]]\nid = 's'\ntopic = 't'\n[[node]]\nid = 'n'\nfrom = 's'\nplugin = 'x'\n{end}"
        );
        let info = PluginInfo { digest: Digest::new([1; 32]), world, manifest: None, bytes: 1 };
        let infos = BTreeMap::from([("n".to_owned(), info)]);
        Topology::link(&Manifest::parse(&text).unwrap(), &infos).unwrap()
    }

    /// It would call a webhook for every record of the range.
    #[test]
    fn what_acts_on_the_outside_is_refused_by_name() {
        let consumes = topology(World::Consumer, "");
        let refused = acts_outside(&consumes).unwrap_err();
        assert!(matches!(&refused, ReplayError::ActsOutside { node } if node == "n"), "{refused}");
        let writes = topology(World::Transform, "[[sink]]\nfrom = 'n'\ntopic = 'out'\n");
        assert!(acts_outside(&writes).is_ok());
    }
}

//! What a deployment does that its user may not expect.

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_streams::manifest::Manifest;
use pelton_streams::operator::EventTime;
use pelton_streams::topology::OutputTopic;
use pelton_streams::values::{Start, epoch_text};
use pelton_streams::{BatchIn, Topology};
use pelton_wire::record::Columns;

use super::Supervisor;
use crate::io::{Change, Input, IoError, IoFactory, PipelineIo};
use crate::run_blocking;

/// Partitions of a source of which the first records are looked at.
const LOOKED_AT_MAX: usize = 16;

impl Supervisor {
    /// Results have the time of the records that they are made of, and a topic deletes what is older than its retention.
    pub(super) async fn warnings(&self, manifest: &Manifest, topology: Topology) -> Vec<String> {
        let topology = Arc::new(topology);
        let mut io = self.spec.io.open(&topology, 0, manifest.guarantee, Arc::default());
        let (of, factory) = (Arc::clone(&topology), Arc::clone(&self.spec.io));
        let oldest = run_blocking(move || oldest(&of, &mut *io, &*factory)).await;
        let mut warnings = self.idle_threads(manifest, &topology).into_iter().collect::<Vec<String>>();
        warnings.extend(self.rows_that_go(&topology));
        warnings.extend(self.left_unread(&topology).await);
        warnings.extend(self.letters_that_go(&topology));
        let Some((time, topic)) = oldest.ok().flatten() else { return warnings };
        let now_ms = self.spec.clock.now_ms();
        let is_sink = |output: &&OutputTopic| {
            !output.dead_letter && output.changelog_of.is_none() && output.repartition.is_none()
        };
        for output in topology.outputs.iter().filter(is_sink) {
            let Some(kept_ms) = self.spec.io.retention_ms(&output.topic) else { continue };
            if time.saturating_add(kept_ms) < now_ms {
                let sink = &output.topic;
                warnings.push(format!(
                    "records of topic {topic} are of {}, and so are results of them, which topic {sink} deletes: it keeps what is \
                     not older than {kept_ms} ms by its time; `pelton topic alter {sink} --config retention.ms=-1` keeps all",
                    epoch_text(time)
                ));
            }
        }
        warnings
    }

    /// What waits in a topic of the pipeline's own, which no node reads any more.
    async fn left_unread(&self, topology: &Topology) -> Vec<String> {
        let is_read = |topic: &String| topology.sources.iter().any(|source| source.topic == *topic);
        let topics: Vec<String> = {
            let inner = self.inner.lock();
            let between = inner.deployments.between(&topology.name).into_iter().flatten();
            between.filter(|topic| !is_read(topic)).cloned().collect()
        };
        if topics.is_empty() {
            return Vec::new();
        }
        let Ok(committed) = self.spec.io.committed(&topology.name).await else { return Vec::new() };
        let warning = |topic: &String| {
            let offsets = committed.get(topic);
            let done = |partition: usize| {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                offsets.and_then(|offsets| offsets.get(&partition)).copied().unwrap_or(0)
            };
            let ends = self.spec.io.readable_ends(topic);
            let unread: i64 = ends.iter().enumerate().map(|(at, end)| (end - done(at)).max(0)).sum();
            (unread > 0).then(|| {
                format!(
                    "topic {topic} has up to {unread} records that were not read, and no node reads it any more: they wait there \
                     until a node of that name comes back"
                )
            })
        };
        topics.iter().filter_map(warning).collect()
    }

    /// The last record of a key is a row of a table as long as it is there.
    fn rows_that_go(&self, topology: &Topology) -> Vec<String> {
        let tables = topology.sources.iter().filter(|source| source.table.is_some());
        let kept =
            tables.filter_map(|source| Some((&source.topic, self.spec.io.retention_ms(&source.topic)?)));
        let text = |(topic, kept_ms): (&String, i64)| {
            format!(
                "topic {topic} is read as a table, and deletes records that are older than {kept_ms} ms, also the last one of a key: \
                 a pipeline that begins later lacks those rows; `pelton topic alter {topic} --config cleanup.policy=compact` keeps \
                 the last record of each key"
            )
        };
        kept.map(text).collect()
    }

    /// Letters have the keys of their records.
    fn letters_that_go(&self, topology: &Topology) -> Vec<String> {
        let letters = topology.outputs.iter().filter(|output| output.dead_letter);
        let compacted = letters.filter(|output| self.spec.io.is_compacted(&output.topic));
        let topics: BTreeSet<&String> = compacted.map(|output| &output.topic).collect();
        let text = |topic: &String| {
            format!(
                "dead letters go to topic {topic}, which is compacted: of the letters of a key the last one alone stays, and the others \
                 cannot be put back; `pelton topic alter {topic} --config cleanup.policy=delete` keeps all of them for their time"
            )
        };
        topics.into_iter().map(text).collect()
    }

    /// A task is run by one thread.
    fn idle_threads(&self, manifest: &Manifest, topology: &Topology) -> Option<String> {
        let subs = 0..topology.sub_topologies.len();
        let tasks: u32 = subs.map(|sub| self.partitions_of(topology, sub).0).sum();
        let threads = manifest.threads;
        (threads > tasks.max(1)).then(|| {
            format!(
                "threads = {threads}, but the pipeline has {tasks} tasks, one for each partition that it reads (of topics that \
                 meet in a node, for those of one number together): the other threads have nothing to do"
            )
        })
    }
}

/// The earliest time among the records that are read first, and the topic that has it; none if there are none.
fn oldest(
    topology: &Topology,
    io: &mut dyn PipelineIo,
    factory: &dyn IoFactory,
) -> Result<Option<(i64, String)>, IoError> {
    let mut oldest: Option<(i64, String)> = None;
    let mut records = Columns::new();
    for change in io.changes()? {
        let Change::Assigned { source, partitions } = change else { continue };
        let spec = &topology.sources[source];
        for partition in partitions.take(LOOKED_AT_MAX) {
            let input = Input { source, partition };
            records.clear();
            io.fill(input, io.position(input, spec.start)?.offset, &mut records)?;
            // What has been read before is mostly as what comes.
            if records.offsets().is_empty()
                && let Some(stored) = factory.replay_partition(&spec.topic, partition)
            {
                let (first, end) = (stored.resolve(Start::Earliest)?, stored.resolve(Start::Latest)?);
                stored.fill(first, end, &mut records)?;
            }
            let batch = BatchIn::new(&spec.topic, partition.unsigned_abs(), &records);
            let stamped = spec.time.clone().map(|time| EventTime::new(time).stamp(batch));
            let times = match &stamped {
                None => records.timestamps(),
                Some(stamped) => stamped.as_batch().timestamps,
            };
            // Records without a time have none to be deleted by.
            for time in times.iter().copied().filter(|time| *time >= 0) {
                if oldest.as_ref().is_none_or(|(known, _)| time < *known) {
                    oldest = Some((time, spec.topic.clone()));
                }
            }
        }
    }
    Ok(oldest)
}

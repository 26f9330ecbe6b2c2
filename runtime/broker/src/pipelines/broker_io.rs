//! What a driver has outside of itself, over the broker's own partitions and coordinators: [`source`] reads,
//! [`outputs`] writes, [`committer`] commits.

use std::ops::Range;
use std::sync::Arc;

use pelton_streams::Topology;
use pelton_streams::manifest::Guarantee;
use tokio::runtime::Handle;

use self::outputs::Staging;
use self::placing::Placing;
use self::replayed::StoredPartition;
use crate::clock::Clock;
use crate::group::Groups;
use crate::group::config::PIPELINE_GROUP_PREFIX;
use crate::group::error::GroupError;
use crate::group::types::FetchRequest;
use crate::partition::{Isolation, Partition, PartitionAppendError};
use crate::topic_config::TopicConfig;
use crate::topics::{Topic, Topics};
use crate::txn::Transactions;
use crate::txn::embedded::EmbeddedError;
use pelton_partitions::intake::places_of;
use pelton_pipelines::io::{
    Change, Committed, Forgetting, Input, IoError, IoFactory, PipelineIo, ReplayPartition, StopSignal,
};
use pelton_pipelines::readers::Offsets;

mod changelogs;
pub(in crate::pipelines) mod committer;
pub(in crate::pipelines) mod outputs;
mod placing;
mod replayed;
mod source;

pub(crate) use self::source::{ReadFault, read_committed};

pub(crate) struct BrokerIoFactory {
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Handle,
    /// Of topics without settings of their own.
    pub(crate) topic_defaults: TopicConfig,
}

impl IoFactory for BrokerIoFactory {
    fn open(
        &self,
        of: &Arc<Topology>,
        lane: u32,
        guarantee: Guarantee,
        stop: Arc<StopSignal>,
    ) -> Box<dyn PipelineIo> {
        Box::new(BrokerIo {
            transactional_id: transactional_id_of(&of.name, lane),
            group: group_of(&of.name),
            topology: Arc::clone(of),
            guarantee,
            staging: Staging::default(),
            known: Known::none(of),
            placing: of.is_router().then(Placing::default),
            open: false,
            transactions: self.transactions.clone(),
            topics: Arc::clone(&self.topics),
            groups: self.groups.clone(),
            clock: Arc::clone(&self.clock),
            runtime: self.runtime.clone(),
            stop,
        })
    }

    fn fence(&self, pipeline: &str, lanes: Range<u32>) -> Result<(), IoError> {
        self.runtime.block_on(async {
            for lane in lanes {
                let id = transactional_id_of(pipeline, lane);
                self.transactions.fence_embedded(&id).await.map_err(embedded)?;
            }
            Ok(())
        })
    }

    fn group(&self, pipeline: &str) -> String {
        group_of(pipeline)
    }

    fn committed<'a>(&'a self, pipeline: &'a str) -> Committed<'a> {
        Box::pin(async move {
            let all = FetchRequest { topics: None, require_stable: false };
            let fetched = match self.groups.fetch(&group_of(pipeline), all).await {
                Ok(fetched) => fetched,
                Err(GroupError::GroupIdNotFound) => return Ok(Offsets::new()),
                Err(error) => return Err(unavailable(&error)),
            };
            let mut offsets = Offsets::new();
            for (topic, partitions) in fetched {
                for found in partitions {
                    if let Some(committed) = found.result.map_err(|error| unavailable(&error))? {
                        let of_topic = offsets.entry(topic.to_string()).or_default();
                        of_topic.insert(found.partition, committed.offset);
                    }
                }
            }
            Ok(offsets)
        })
    }

    fn topic_exists(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some()
    }

    fn partitions(&self, topic: &str) -> Option<u32> {
        Some(self.topics.get(topic)?.partition_count.unsigned_abs())
    }

    fn readable_ends(&self, topic: &str) -> Vec<i64> {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        topic.local.iter().map(|partition| partition.readable_end(Isolation::ReadCommitted)).collect()
    }

    fn retention_ms(&self, topic: &str) -> Option<i64> {
        let found = self.topics.get(topic);
        let config = found.as_ref().map_or(&self.topic_defaults, |topic| &topic.config);
        // A topic that has records by the time of writing keeps old ones as long as others.
        config.retention_ms.filter(|_| config.delete && !config.log_append_time)
    }

    fn is_compacted(&self, topic: &str) -> bool {
        let found = self.topics.get(topic);
        found.as_ref().map_or(&self.topic_defaults, |topic| &topic.config).compact
    }

    fn replay_partition(&self, topic: &str, partition: i32) -> Option<Box<dyn ReplayPartition>> {
        let found = self.topics.partition(topic, partition).ok()?;
        Some(Box::new(StoredPartition::new(topic, found)))
    }

    fn forget<'a>(&'a self, pipeline: &'a str, topics: &'a [String]) -> Forgetting<'a> {
        Box::pin(async move {
            let failed = |what: &str, error: &dyn std::fmt::Display| {
                IoError::Unavailable(format!("delete {what}: {error}"))
            };
            for topic in topics {
                let Some(found) = self.topics.get(topic) else { continue };
                self.topics.delete(found.id).await.map_err(|error| failed(topic, &error))?;
            }
            // The position in its dead letters stays, as the letters do: a pipeline of its name puts none back twice.
            let group = group_of(pipeline);
            match self.groups.delete(&group).await {
                Ok(()) | Err(GroupError::GroupIdNotFound) => Ok(()),
                Err(error) => Err(failed(&format!("the offsets of group {group}"), &error)),
            }
        })
    }
}

/// The group that has a pipeline's position in its dead letters, which is the transactional id of who puts them back as well.
/// No pipeline has such a name.
pub(crate) fn redrive_group_of(pipeline: &str) -> String {
    format!("{}{REDRIVE_SUFFIX}", group_of(pipeline))
}

/// See [`redrive_group_of`].
pub(crate) const REDRIVE_SUFFIX: &str = "@redrive";

fn group_of(pipeline: &str) -> String {
    format!("{PIPELINE_GROUP_PREFIX}{pipeline}")
}

struct BrokerIo {
    group: String,
    /// Of the lane.
    transactional_id: String,
    topology: Arc<Topology>,
    guarantee: Guarantee,
    /// What was written and not appended. Its producer is the driver's own under exactly-once, once it has begun.
    staging: Staging,
    known: Known,
    /// Where records have come to lie, if this is a router.
    placing: Option<Placing>,
    /// Whether there is a transaction with outputs in it.
    open: bool,
    transactions: Transactions,
    topics: Arc<Topics>,
    groups: Groups,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    stop: Arc<StopSignal>,
}

impl BrokerIo {
    fn input(&self, Input { source, partition }: Input) -> Result<(&Arc<Topic>, &Arc<Partition>), IoError> {
        let topic = self.known.sources.get(source).and_then(Option::as_ref);
        let found = topic.and_then(|topic| Some((topic, topic.partition(partition).ok()?)));
        found.ok_or_else(|| self.no_partition(Input { source, partition }))
    }

    fn no_partition(&self, Input { source, partition }: Input) -> IoError {
        IoError::NoPartition { topic: self.topology.sources[source].topic.clone(), partition }
    }
}

/// The topics of a pipeline as they were looked up, so that nothing is looked up by name while records pass.
struct Known {
    /// [`Topics::changes`] when they were.
    at: Option<u64>,
    sources: Vec<Option<Arc<Topic>>>,
    outputs: Vec<Option<Arc<Topic>>>,
    /// What takes the records of each output, where that is another topic: the intake of one with a partitioner of its own.
    intakes: Vec<Option<Arc<Topic>>>,
    /// Where a router notes what it has done.
    places: Option<Arc<Topic>>,
}

impl Known {
    fn none(of: &Topology) -> Known {
        let nothing = |count: usize| vec![None; count];
        let outputs = of.outputs.len();
        Known {
            at: None,
            sources: nothing(of.sources.len()),
            outputs: nothing(outputs),
            intakes: nothing(outputs),
            places: None,
        }
    }

    /// Looks all topics up again, if any topic has changed.
    fn update(&mut self, of: &Topology, topics: &Topics) -> Result<Vec<Change>, IoError> {
        let at = topics.changes();
        let mut changes = Vec::new();
        if self.at == Some(at) {
            return Ok(changes);
        }
        for (output, (spec, known)) in of.outputs.iter().zip(&mut self.outputs).enumerate() {
            let topic = || spec.topic.clone();
            let found = topics.get(&spec.topic).ok_or_else(|| IoError::NoOutput { topic: topic() })?;
            if known.as_ref().is_some_and(|known| known.id != found.id) {
                return Err(IoError::OutputRenewed { topic: topic() });
            }
            let partitions = u32::try_from(found.partition_count).unwrap_or(0);
            changes.push(Change::Output { output, partitions });
            if !of.is_router() {
                let gone = |_| IoError::NoOutput { topic: topic() };
                self.intakes[output] = topics.intake(&found).map_err(gone)?;
            } else if !spec.dead_letter {
                let name = places_of(found.id);
                let places = topics.get(&name).ok_or(IoError::NoOutput { topic: name })?;
                self.places = Some(places);
            }
            *known = Some(found);
        }
        for (source, (spec, known)) in of.sources.iter().zip(&mut self.sources).enumerate() {
            let found = topics.get(&spec.topic);
            if known.as_ref().is_some_and(|known| found.as_ref().is_none_or(|found| found.id != known.id)) {
                *known = None;
                changes.push(Change::Revoked { source });
            }
            let count = |topic: Option<&Arc<Topic>>| topic.map_or(0, |topic| topic.partition_count);
            let partitions = count(known.as_ref())..count(found.as_ref());
            if !partitions.is_empty() {
                changes.push(Change::Assigned { source, partitions });
            }
            *known = found;
        }
        self.at = Some(at);
        Ok(changes)
    }
}

/// The transactional id of a lane: the name of the group, and for others than the first one their number, behind a character
/// that no pipeline has in its name.
fn transactional_id_of(pipeline: &str, lane: u32) -> String {
    let group = group_of(pipeline);
    if lane == 0 { group } else { format!("{group}#{lane}") }
}

/// A fenced driver, a full disk or a coordinator that is not ready: a new driver begins at what is committed.
fn embedded(error: EmbeddedError) -> IoError {
    match error {
        EmbeddedError::Append { at, error: PartitionAppendError::Gone } => {
            IoError::NoOutput { topic: at.topic.as_ref().to_owned() }
        }
        error => IoError::Unavailable(error.to_string()),
    }
}

fn unavailable(error: &GroupError) -> IoError {
    IoError::Unavailable(format!("the group coordinator answered: {error}"))
}

#[cfg(test)]
mod tests;

//! `__pelton_deployments` as a partition of this broker.

use std::collections::HashMap;
use std::sync::Arc;

use super::deployments::{BadRecord, DeploymentRecord, StoredComponent, TOPIC};
use super::refusal::{DeploymentLogError, EnsureTopicError};
use super::supervisor::{Appending, DeploymentLog, EachRecord, Ensuring};
use crate::clock::Clock;
use crate::partition::{InternalRecord, Partition, ReplayError, Replayed};
use crate::topic_config::Overrides;
use crate::topics::{NewTopic, TopicError, Topics};

/// One batch holds at most so many bytes of records, below `max.message.bytes`.
const BATCH_BYTES: usize = 512 << 10;

/// See the module.
pub(crate) struct BrokerDeploymentLog {
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    /// Of topics that are created for a pipeline.
    default_partitions: i32,
}

impl BrokerDeploymentLog {
    pub(crate) fn new(
        topics: Arc<Topics>,
        clock: Arc<dyn Clock>,
        default_partitions: i32,
    ) -> BrokerDeploymentLog {
        BrokerDeploymentLog { topics, clock, default_partitions }
    }

    fn partition(&self) -> Option<Arc<Partition>> {
        self.topics.partition(TOPIC, 0).ok()
    }

    async fn create(&self, new: NewTopic) -> Result<(), EnsureTopicError> {
        if self.topics.get(&new.name).is_some() {
            return Ok(());
        }
        is_there(self.topics.create(new, self.clock.now_ms()).await.map(drop))
    }

    /// A topic with the broker's defaults.
    fn plain(&self, name: &str) -> NewTopic {
        NewTopic { name: name.to_owned(), partitions: self.default_partitions, overrides: Overrides::new() }
    }

    async fn append_all(&self, records: Vec<DeploymentRecord>) -> Result<Vec<i64>, DeploymentLogError> {
        let settings = [("cleanup.policy", "compact")];
        let overrides = settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let own = NewTopic { name: TOPIC.to_owned(), partitions: 1, overrides };
        let created = self.create(own).await;
        created.map_err(|error| DeploymentLogError(format!("create topic `{TOPIC}`: {error}")))?;
        let partition =
            self.partition().ok_or_else(|| DeploymentLogError(format!("there is no `{TOPIC}`")))?;
        let failed = |error: &dyn std::error::Error| DeploymentLogError(format!("write `{TOPIC}`: {error}"));
        let mut appended = Vec::new();
        for batch in batches(records) {
            let append = partition.append_records(&batch, self.clock.now_ms());
            appended.push((append.map_err(|error| failed(&error))?, batch.len()));
        }
        let mut offsets = Vec::new();
        for (append, records) in appended {
            let base = append.durable().await.map_err(|error| failed(&error))?;
            offsets.extend((base..).take(records));
        }
        Ok(offsets)
    }
}

impl DeploymentLog for BrokerDeploymentLog {
    fn append(&self, records: Vec<DeploymentRecord>) -> Appending<'_> {
        Box::pin(self.append_all(records))
    }

    fn replay(&self, each: &mut EachRecord<'_>) -> Result<(), DeploymentLogError> {
        let Some(partition) = self.partition() else { return Ok(()) };
        // The newest record of a key wins, so only those are handed on: a compacted read, in the order of the last writes.
        let mut newest: HashMap<Vec<u8>, i64> = HashMap::new();
        let unreadable = |error: ReplayError| DeploymentLogError(format!("read `{TOPIC}`: {error}"));
        let mut note = |met: Replayed<'_>| {
            if let Replayed::Record { offset, key: Some(key), .. } = met {
                newest.insert(key.to_vec(), offset);
            }
        };
        partition.replay(0, &mut note).map_err(unreadable)?;
        let apply = |met: Replayed<'_>| {
            if let Replayed::Record { offset, key: Some(key), value, .. } = met
                && newest.get(key) == Some(&offset)
            {
                each(offset, key, value);
            }
        };
        partition.replay(0, apply).map(drop).map_err(unreadable)
    }

    fn component(&self, stored: &StoredComponent) -> Result<Vec<u8>, DeploymentLogError> {
        let partition =
            self.partition().ok_or_else(|| DeploymentLogError(format!("there is no `{TOPIC}`")))?;
        stored.assemble(|range, each| {
            let each = |met: Replayed<'_>| {
                if let Replayed::Record { offset, value: Some(value), .. } = met {
                    each(offset, value);
                }
            };
            let read = partition.replay_until(range.start, range.end, each);
            read.map(drop).map_err(|error| DeploymentLogError(format!("read `{TOPIC}`: {error}")))
        })
    }

    fn check_topic(&self, topic: &str) -> Result<(), EnsureTopicError> {
        is_there(self.topics.check_new(&self.plain(topic)))
    }

    fn ensure_topic<'a>(&'a self, topic: &'a str) -> Ensuring<'a> {
        Box::pin(self.create(self.plain(topic)))
    }
}

/// What creating a topic that may be there comes to.
fn is_there(created: Result<(), TopicError>) -> Result<(), EnsureTopicError> {
    let Err(error) = created else { return Ok(()) };
    let text = error.to_string();
    match error {
        TopicError::Exists(_) => Ok(()),
        TopicError::Name(_)
        | TopicError::Config(_)
        | TopicError::PartitionCount { .. }
        | TopicError::TooManyPartitions { .. } => Err(EnsureTopicError::Refused(text)),
        TopicError::Unknown(_) | TopicError::Create(_) | TopicError::Write(_) | TopicError::Stopping => {
            Err(EnsureTopicError::Failed(text))
        }
    }
}

impl From<BadRecord> for DeploymentLogError {
    fn from(error: BadRecord) -> DeploymentLogError {
        DeploymentLogError(error.to_string())
    }
}

/// Parts records into batches, in order.
fn batches(records: Vec<DeploymentRecord>) -> Vec<Vec<InternalRecord>> {
    let mut batches: Vec<Vec<InternalRecord>> = Vec::new();
    let mut bytes = 0;
    for (key, value) in records {
        let size = key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
        if batches.is_empty() || bytes + size > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(open) = batches.last_mut() {
            open.push(InternalRecord { key: Some(key.into_bytes().into()), value });
        }
    }
    batches
}

//! `__pelton_deployments` as a partition of this broker.

use std::sync::Arc;

use crate::clock::Clock;
use crate::partition::{InternalRecord, Partition, ReplayError, Replayed};
use crate::topic_config::Overrides;
use crate::topics::{NewTopic, TopicError, Topics};
use pelton_pipelines::deployments::{DeploymentRecord, StoredComponent, TOPIC};
use pelton_pipelines::refusal::{DeploymentLogError, EnsureTopicError};
use pelton_pipelines::supervisor::{Appending, DeploymentLog, EachRecord, Ensuring};

/// One batch holds at most so many bytes of records, below `max.message.bytes`.
const BATCH_BYTES: usize = 512 << 10;

/// Files go as a whole: with these what a snapshot takes the place of goes soon.
const SEGMENT_BYTES: (&str, &str) = ("segment.bytes", "16777216");

/// What an entry of a store, or a record between two parts of a pipeline, may have at the most. What is kept of a key grows
/// with what a user's records say.
const OWN_RECORD_BYTES: (&str, &str) = ("max.message.bytes", "67108864");

/// As Kafka Streams has them: what was read is deleted by who read it, and nothing else is.
const REPARTITION: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("segment.bytes", "52428800"),
    ("message.timestamp.type", "CreateTime"),
    OWN_RECORD_BYTES,
];

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

    /// A topic of the server's own.
    async fn ensure_own(
        &self,
        topic: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<(), EnsureTopicError> {
        let overrides =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let made = self.topics.ensure_internal(topic, partitions, overrides, self.clock.now_ms()).await;
        is_there(made.map(drop))
    }

    /// The partition, with the settings that it needs.
    async fn ensure(&self) -> Result<Arc<Partition>, DeploymentLogError> {
        let failed = |error: TopicError| DeploymentLogError(format!("create topic `{TOPIC}`: {error}"));
        let settings = [("cleanup.policy", "compact"), (SEGMENT_BYTES.0, SEGMENT_BYTES.1)];
        let overrides = settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut topic =
            self.topics.ensure_internal(TOPIC, 1, overrides, self.clock.now_ms()).await.map_err(failed)?;
        if !topic.overrides.contains_key(SEGMENT_BYTES.0) {
            // Created by an earlier version.
            let with = |overrides: &Overrides| {
                let mut overrides = overrides.clone();
                overrides.insert(SEGMENT_BYTES.0.to_owned(), SEGMENT_BYTES.1.to_owned());
                Ok(overrides)
            };
            topic = self.topics.configure(TOPIC, with).await.map_err(failed)?;
        }
        let partition = topic.partition(0).ok().map(Arc::clone);
        partition.ok_or_else(|| DeploymentLogError(format!("there is no `{TOPIC}`")))
    }

    async fn append_all(&self, records: Vec<DeploymentRecord>) -> Result<Vec<i64>, DeploymentLogError> {
        let partition = self.ensure().await?;
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
        let each = |met: Replayed<'_>| {
            if let Replayed::Record { offset, key: Some(key), value, .. } = met {
                each(offset, key, value);
            }
        };
        let unreadable = |error: ReplayError| DeploymentLogError(format!("read `{TOPIC}`: {error}"));
        partition.replay(0, each).map(drop).map_err(unreadable)
    }

    fn bytes(&self) -> u64 {
        self.partition().map_or(0, |partition| partition.reader().size_bytes())
    }

    fn forget_before(&self, offset: i64) -> Result<(), DeploymentLogError> {
        let Some(partition) = self.partition() else { return Ok(()) };
        let deleted = partition.delete_before(offset, self.clock.now_ms());
        deleted.map_err(|error| DeploymentLogError(format!("delete records of `{TOPIC}`: {error}")))
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

    fn ensure_changelog<'a>(&'a self, topic: &'a str, partitions: u32) -> Ensuring<'a> {
        Box::pin(async move {
            self.ensure_own(topic, partitions, &[("cleanup.policy", "compact"), OWN_RECORD_BYTES]).await
        })
    }

    fn ensure_repartition<'a>(&'a self, topic: &'a str, partitions: u32) -> Ensuring<'a> {
        Box::pin(async move { self.ensure_own(topic, partitions, &REPARTITION).await })
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

//! The admin service: topics, their settings and records, groups, pipelines, tables. Kafka's admin APIs and HTTP both
//! call it, so each operation has one implementation and one set of refusals.

pub(crate) mod configs;
mod groups;
pub(crate) mod intake;
pub(crate) mod pipelines;
pub(crate) mod tables;

use std::sync::Arc;

use pelton_commitlog::ChangeError;
use pelton_pipelines::refusal::DeployError;
use uuid::Uuid;

use self::configs::ConfigChange;
use self::pipelines::{NoPipelines, PipelinesSlot};
use self::tables::TablesSlot;

use crate::blocking::run_blocking;
use crate::clock::Clock;
use crate::config::Config;
use crate::group::service::Groups;
use crate::partition::Partition;
use crate::routers::manifest_of;
use crate::topic_config::{self, Effective, Overrides, TopicConfig};
use crate::topics::{NameError, NewTopic, NotHere, Topic, TopicError, Topics, name};

pub(crate) struct Admin {
    topics: Arc<Topics>,
    groups: Groups,
    pipelines: PipelinesSlot,
    tables: TablesSlot,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
}

/// A topic that was created or, with `validate_only`, could be.
pub(crate) struct CreatedTopic {
    /// Nil with `validate_only`.
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) overrides: Overrides,
}

/// How a request names a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TopicRef<'a> {
    Name(&'a str),
    Id(Uuid),
}

/// Why a topic was not found, or a change of it was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("there is no topic with the id {0}")]
    UnknownId(Uuid),
    #[error("`{0}` is a topic of the broker's own")]
    Internal(String),
    /// Its partitioner, or what that is told.
    #[error("the topic's partitioner: {0}")]
    Partitioner(Box<DeployError>),
    #[error("the topic's partitioner: {0}")]
    NoPipelines(#[from] NoPipelines),
    #[error("`delete.topic.enable` is false")]
    DeletionDisabled,
}

/// Why records were not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteRecordsError {
    #[error(transparent)]
    NotHere(#[from] NotHere),
    #[error("it is a topic of the broker's own")]
    Internal,
    /// Deleting records of a compacted topic would lose the newest record of a key.
    #[error("the topic's `cleanup.policy` has no `delete`")]
    Compacted,
    #[error("the offset {offset} is not between 0 and the high watermark, {high_watermark}")]
    OutOfRange { offset: i64, high_watermark: i64 },
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Admin {
    pub(crate) fn new(
        topics: Arc<Topics>,
        groups: Groups,
        pipelines: PipelinesSlot,
        tables: TablesSlot,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
    ) -> Admin {
        Admin { topics, groups, pipelines, tables, clock, config }
    }

    /// The node id of this broker, the only replica of every partition.
    pub(crate) fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// The most partitions that there may be.
    pub(crate) fn max_partitions(&self) -> u32 {
        self.config.max_partitions
    }

    /// A topic by its name.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.get(name)
    }

    /// A topic as a request names it.
    pub(crate) fn find_topic(&self, wanted: TopicRef<'_>) -> Result<Arc<Topic>, AdminError> {
        match wanted {
            TopicRef::Name(name) => {
                self.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()).into())
            }
            TopicRef::Id(id) => self.topics.by_id(id).ok_or(AdminError::UnknownId(id)),
        }
    }

    /// A partition that this broker leads.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, NotHere> {
        self.topics.partition(topic, index)
    }

    /// Every topic, by name.
    pub(crate) fn list_topics(&self) -> Vec<Arc<Topic>> {
        self.topics.list()
    }

    /// Creates a topic, with `num.partitions` partitions if the caller names no number. The topic is durable when this
    /// returns.
    pub(crate) async fn create_topic(
        &self,
        name: String,
        partitions: Option<i32>,
        overrides: Overrides,
        validate_only: bool,
    ) -> Result<CreatedTopic, AdminError> {
        if name::is_internal(&name) {
            return Err(TopicError::from(NameError::Internal(name)).into());
        }
        let partitions = partitions.unwrap_or(self.config.num_partitions);
        let new = NewTopic { name, partitions, overrides: overrides.clone() };
        self.topics.check_new(&new)?;
        self.check_partitioner((&new.name, partitions), &new.overrides).await?;
        let id =
            if validate_only { Uuid::nil() } else { self.topics.create(new, self.clock.now_ms()).await?.id };
        Ok(CreatedTopic { id, partitions, overrides })
    }

    /// Creates a topic that a client asked for in Metadata, if `auto.create.topics.enable` allows it.
    pub(crate) async fn create_for_client(&self, name: &str) -> Result<Option<Arc<Topic>>, TopicError> {
        if !self.creates_for_clients() || name::is_internal(name) {
            return Ok(None);
        }
        let partitions = self.config.num_partitions;
        let new = NewTopic { name: name.to_owned(), partitions, overrides: Overrides::new() };
        match self.topics.create(new, self.clock.now_ms()).await {
            Ok(topic) => Ok(Some(topic)),
            // Another request created the topic first.
            Err(TopicError::Exists(name)) => Ok(self.topics.get(&name)),
            Err(error) => Err(error),
        }
    }

    /// Whether Metadata creates topics (`auto.create.topics.enable`).
    pub(crate) fn creates_for_clients(&self) -> bool {
        self.config.auto_create_topics_enable
    }

    /// Every setting of a topic that has these of its own, by name.
    pub(crate) fn settings<'a>(&'a self, overrides: &'a Overrides) -> impl Iterator<Item = Effective<'a>> {
        topic_config::effective(&self.config.topic_defaults, overrides)
    }

    /// Checks that a topic may grow to `count` partitions, and returns how many it has.
    pub(crate) fn check_partitions(&self, topic: &str, count: i32) -> Result<i32, AdminError> {
        let (topic, have) = self.topics.check_growth(topic, count)?;
        not_internal(&topic)?;
        Ok(have)
    }

    /// Adds partitions until the topic has `count`.
    pub(crate) async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), AdminError> {
        self.check_partitions(topic, count)?;
        self.topics.grow(topic, count).await?;
        Ok(())
    }

    /// Changes a topic's own settings.
    pub(crate) async fn alter_topic(
        &self,
        topic: &str,
        change: ConfigChange,
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let topic = self.find_topic(TopicRef::Name(topic))?;
        not_internal(&topic)?;
        let after = change.clone().apply(&topic.overrides, self.topic_default()).map_err(TopicError::from)?;
        TopicConfig::check_overrides(&after).map_err(TopicError::from)?;
        TopicConfig::check_change(&topic.overrides, &after).map_err(TopicError::from)?;
        let changes_partitioner = self.topics.resolve(&after).partitioner != topic.config.partitioner;
        if changes_partitioner {
            self.check_partitioner((&topic.name, topic.partition_count), &after).await?;
        }
        if validate_only {
            return Ok(());
        }
        let default = self.topic_default();
        self.topics.configure(&topic.name, move |own| change.apply(own, default)).await?;
        Ok(())
    }

    /// Whether the partitioner that a topic is to have is known, and takes its configuration.
    async fn check_partitioner(
        &self,
        (topic, partitions): (&str, i32),
        overrides: &Overrides,
    ) -> Result<(), AdminError> {
        let Some(partitioner) = self.topics.resolve(overrides).partitioner else { return Ok(()) };
        let manifest = manifest_of((topic, Uuid::nil(), partitions), &partitioner);
        let checked = self.pipelines()?.check_router(&manifest).await;
        checked.map_err(|error| AdminError::Partitioner(Box::new(error)))
    }

    /// The value of a setting that the topic does not override.
    fn topic_default(&self) -> impl Fn(&str) -> Option<String> + Send + use<> {
        let defaults = self.config.topic_defaults.clone();
        move |name| {
            let built_in = topic_config::by_name(name).map(|setting| setting.default.to_owned());
            defaults.get(name).cloned().or(built_in)
        }
    }

    /// Deletes a topic and the offsets that groups have committed for it.
    pub(crate) async fn delete_topic(&self, wanted: TopicRef<'_>) -> Result<Arc<Topic>, AdminError> {
        if !self.config.delete_topic_enable {
            return Err(AdminError::DeletionDisabled);
        }
        let topic = self.find_topic(wanted)?;
        not_internal(&topic)?;
        let topic = self.topics.delete(topic.id).await?;
        if let Err(error) = self.groups.topic_deleted(&topic.name).await {
            let name = &topic.name;
            tracing::warn!(topic = name, %error, "committed offsets of a deleted topic stay until they expire");
        }
        Ok(topic)
    }

    /// Deletes the records of a partition below an offset, or below the high watermark; returns the new log start
    /// offset.
    pub(crate) async fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: Option<i64>,
    ) -> Result<i64, DeleteRecordsError> {
        let topic = self.topics.get(topic).ok_or(NotHere::UnknownTopic)?;
        if topic.is_internal() {
            return Err(DeleteRecordsError::Internal);
        }
        let partition = topic.partition(partition)?;
        if !topic.config.delete {
            return Err(DeleteRecordsError::Compacted);
        }
        let high_watermark = partition.high_watermark();
        let offset = before.unwrap_or(high_watermark);
        if !(0..=high_watermark).contains(&offset) {
            return Err(DeleteRecordsError::OutOfRange { offset, high_watermark });
        }
        let partition = Arc::clone(partition);
        Ok(run_blocking(move || partition.delete_records(offset)).await?)
    }
}

fn not_internal(topic: &Topic) -> Result<(), AdminError> {
    if topic.is_internal() { Err(AdminError::Internal(topic.name.clone())) } else { Ok(()) }
}

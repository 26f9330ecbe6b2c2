//! The topic catalogue: which topics there are, their settings and partitions. What is true is what a replay of
//! `__cluster_metadata-0` says; this is its image in memory, plus the open partitions.
//!
//! Look-ups take a short read lock. Changes go one at a time through [`Topics::change`], each in a task of its own, so
//! that a client that hangs up in the middle leaves nothing half done.

mod lookup;
pub mod metadata_log;
pub mod name;
pub mod producer_ids;
pub mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use uuid::Uuid;

pub use self::lookup::NotHere;
pub use self::metadata_log::METADATA_TOPIC;
use self::metadata_log::{MetadataLog, MetadataWriteError};
pub use self::name::NameError;
use self::record::{Change, TopicFacts};
use crate::intake::{self, intake_of, places_of};
use crate::partition::{Intake, OpenPartitions, Partition, PartitionCreateError};
use crate::same_journal::SameJournal;
use crate::setting::ConfigError;
use crate::topic_config::{Overrides, TopicConfig};

/// A topic as it is at one moment; a change makes a new one.
#[derive(Debug)]
pub struct Topic {
    pub name: String,
    /// Its id, which a topic created later under the same name does not share.
    pub id: Uuid,
    /// When it was created (ms).
    pub created_ms: i64,
    /// What its settings come to.
    pub config: Arc<TopicConfig>,
    /// The settings that were set for it.
    pub overrides: Overrides,
    /// How many partitions it has.
    pub partition_count: i32,
    /// Those of them that this broker leads, by rising number: on one broker all.
    pub local: Vec<Arc<Partition>>,
}

impl Topic {
    /// True for the broker's own topics, which clients cannot write.
    pub fn is_internal(&self) -> bool {
        name::is_internal(&self.name)
    }

    /// A partition by number.
    ///
    /// # Errors
    /// There is no such partition, or this broker does not lead it.
    pub fn partition(&self, index: i32) -> Result<&Arc<Partition>, NotHere> {
        if !self.has_partition(index) {
            return Err(NotHere::UnknownPartition);
        }
        let at = self.local.binary_search_by_key(&index, |partition| partition.index());
        at.map(|at| &self.local[at]).map_err(|_| NotHere::NotLeader)
    }

    /// Whether it has a partition of this number, whichever broker leads it.
    pub fn has_partition(&self, index: i32) -> bool {
        (0..self.partition_count).contains(&index)
    }

    /// Whether what clients write to it is taken by its intake. A topic has one from its creation on, or never.
    pub fn has_intake(&self) -> bool {
        self.config.partitioner.is_some()
    }

    fn count(&self) -> usize {
        usize::try_from(self.partition_count).unwrap_or(0)
    }

    fn facts(&self) -> TopicFacts {
        TopicFacts {
            id: self.id,
            name: self.name.clone(),
            partitions: self.partition_count,
            created_ms: self.created_ms,
            overrides: self.overrides.clone(),
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    /// How many partitions, at least 1.
    pub partitions: i32,
    /// Settings that differ from the broker's defaults.
    pub overrides: Overrides,
}

/// Why a topic was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("topic `{0}` already exists")]
    Exists(String),
    #[error("there is no topic `{0}`")]
    Unknown(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("a topic cannot have {asked} partitions: write a number of at least {least}")]
    PartitionCount {
        /// The value that was asked for.
        asked: i32,
        /// The least that is possible: 1, or one more than there are.
        least: i32,
    },
    #[error("{asked} more partitions would make {total}, `pelton.max.partitions` is {max}")]
    TooManyPartitions {
        /// New partitions.
        asked: i32,
        /// Partitions there would be.
        total: usize,
        max: u32,
    },
    /// The disk did not take it.
    #[error("the partitions could not be created: {0}")]
    Create(#[from] PartitionCreateError),
    /// The metadata log did not take it.
    #[error(transparent)]
    Write(#[from] MetadataWriteError),
    #[error("the broker is stopping")]
    Stopping,
}

#[derive(Debug, Default)]
struct Index {
    names: HashMap<String, Arc<Topic>>,
    ids: HashMap<Uuid, Arc<Topic>>,
    /// Names with `.` as `_`.
    collisions: HashMap<String, String>,
    partitions: usize,
}

impl Index {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.partitions += topic.count();
        self.collisions.insert(name::collision_key(&topic.name), topic.name.clone());
        self.ids.insert(topic.id, Arc::clone(&topic));
        if let Some(before) = self.names.insert(topic.name.clone(), topic) {
            self.partitions -= before.count();
        }
    }

    fn remove(&mut self, topic: &Topic) {
        self.collisions.remove(&name::collision_key(&topic.name));
        self.ids.remove(&topic.id);
        if self.names.remove(&topic.name).is_some() {
            self.partitions -= topic.count();
        }
    }
}

pub struct Topics {
    index: RwLock<Index>,
    /// How often the index has changed.
    changes: AtomicU64,
    metadata: tokio::sync::Mutex<MetadataLog>,
    /// `__cluster_metadata-0`, for its offsets: reading them takes no lock.
    metadata_partition: Arc<Partition>,
    partitions: OpenPartitions,
    defaults: Overrides,
    max_partitions: u32,
    new_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// The first producer id that was never given out.
    producer_ids_end: AtomicI64,
}

impl Topics {
    pub fn new(
        metadata: MetadataLog,
        partitions: OpenPartitions,
        defaults: Overrides,
        max_partitions: u32,
        new_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    ) -> Self {
        let metadata_partition = Arc::clone(metadata.partition());
        let producer_ids_end = AtomicI64::new(metadata.next_producer_id());
        let (index, metadata) = (RwLock::default(), tokio::sync::Mutex::new(metadata));
        Topics {
            index,
            changes: AtomicU64::new(0),
            metadata,
            metadata_partition,
            partitions,
            defaults,
            max_partitions,
            new_id,
            producer_ids_end,
        }
    }

    /// Takes in a topic whose partitions were found on disk, by rising number.
    pub fn adopt(&self, facts: TopicFacts, local: Vec<Arc<Partition>>) {
        let topic = self.topic(facts, local);
        self.change_index(|index| index.insert(topic));
    }

    /// How often topics were created, changed or deleted: a caller that keeps topics looks them up again when this has
    /// changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write());
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The effective settings of a topic.
    pub fn resolve(&self, overrides: &Overrides) -> TopicConfig {
        TopicConfig::resolve(&self.defaults, overrides)
    }

    fn topic(&self, facts: TopicFacts, local: Vec<Arc<Partition>>) -> Arc<Topic> {
        if intake::owner_of(&facts.name).is_some() {
            let intake = local.iter().find_map(|partition| partition.intake().cloned());
            let intake = intake.unwrap_or_else(|| Arc::new(Intake::default()));
            local.iter().for_each(|partition| partition.join(&intake));
        }
        let config = Arc::new(self.resolve(&facts.overrides));
        let TopicFacts { id, name, created_ms, overrides, partitions: partition_count } = facts;
        Arc::new(Topic { name, id, created_ms, config, overrides, partition_count, local })
    }

    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.index.read().names.get(name).cloned()
    }

    /// The topic that takes what clients write to `topic`, if that is not the topic itself.
    ///
    /// # Errors
    /// It is not there: the topic has been deleted.
    pub fn intake(&self, topic: &Topic) -> Result<Option<Arc<Topic>>, NotHere> {
        if !topic.has_intake() {
            return Ok(None);
        }
        self.get(&intake_of(topic.id)).map(Some).ok_or(NotHere::UnknownTopic)
    }

    /// The topic that takes what clients write to the topic of this name: that one, or its intake.
    pub fn written_to(&self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.get(name)?;
        Some(self.intake(&topic).ok()?.unwrap_or(topic))
    }

    /// The name by which clients know a topic that they write to: an intake has that of its topic.
    pub fn known_as(&self, name: &str) -> Option<String> {
        let owner = intake::owner_of(name)?;
        Some(self.by_id(owner)?.name.clone())
    }

    /// The topic of this id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.index.read().ids.get(&id).cloned()
    }

    /// A partition that this broker leads.
    ///
    /// # Errors
    /// There is no such topic or partition, or this broker does not lead it.
    pub fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, NotHere> {
        self.get(topic).ok_or(NotHere::UnknownTopic)?.partition(index).cloned()
    }

    /// All topics, by name.
    pub fn list(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.index.read().names.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// For code that relies on the order of appends to several of these partitions.
    pub fn same_journal(&self) -> SameJournal {
        // `OpenPartitions` has made them all, in one log directory.
        SameJournal::known()
    }

    /// The log that the catalogue is kept in.
    pub fn metadata_partition(&self) -> &Partition {
        &self.metadata_partition
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.index.read().partitions
    }

    /// Checks whether a topic could be created now, without creating it.
    ///
    /// # Errors
    /// What [`Topics::create`] would say.
    pub fn check_new(&self, new: &NewTopic) -> Result<(), TopicError> {
        name::check(&new.name)?;
        TopicConfig::check_overrides(&new.overrides)?;
        if new.partitions < 1 {
            return Err(TopicError::PartitionCount { asked: new.partitions, least: 1 });
        }
        let index = self.index.read();
        if index.names.contains_key(&new.name) {
            return Err(TopicError::Exists(new.name.clone()));
        }
        if let Some(other) = index.collisions.get(&name::collision_key(&new.name)) {
            return Err(NameError::Collides(other.clone()).into());
        }
        // The intake has as many, and places are in one.
        let has_intake = self.resolve(&new.overrides).partitioner.is_some();
        let all =
            if has_intake { new.partitions.saturating_mul(2).saturating_add(1) } else { new.partitions };
        self.check_room(&index, all)
    }

    fn check_room(&self, index: &Index, asked: i32) -> Result<(), TopicError> {
        let total = index.partitions.saturating_add(usize::try_from(asked).unwrap_or(0));
        if total > self.max_partitions as usize {
            return Err(TopicError::TooManyPartitions { asked, total, max: self.max_partitions });
        }
        Ok(())
    }

    /// Creates a topic. When this returns it is durable and can be written to.
    ///
    /// # Errors
    /// The name, a setting or the count is refused, the topic already exists, or the storage failed.
    pub async fn create(self: &Arc<Self>, new: NewTopic, now_ms: i64) -> Result<Arc<Topic>, TopicError> {
        let this = Arc::clone(self);
        to_the_end(async move {
            let mut metadata = this.metadata.lock().await;
            this.check_new(&new)?;
            let facts = TopicFacts {
                id: (this.new_id)(),
                name: new.name,
                partitions: new.partitions,
                created_ms: now_ms,
                overrides: new.overrides,
            };
            if this.resolve(&facts.overrides).partitioner.is_none() {
                return this.record_with_new(&mut metadata, facts, &[]).await;
            }
            // First, so that there is no topic without its intake. One that is left by a crash is removed by whoever routes.
            let intake = TopicFacts {
                id: (this.new_id)(),
                name: intake_of(facts.id),
                overrides: intake::intake_settings(),
                ..facts.clone()
            };
            let intake = this.record_with_new(&mut metadata, intake, &[]).await?;
            let created = this.record_with_new(&mut metadata, facts, &[]).await;
            if created.is_err() {
                this.remove(&mut metadata, &intake).await?;
            }
            created
        })
        .await
    }

    /// The broker's own topic of this name, created if it is not there.
    ///
    /// # Errors
    /// It cannot be created.
    pub async fn ensure_internal(
        self: &Arc<Self>,
        name: &str,
        partitions: i32,
        overrides: Overrides,
        now_ms: i64,
    ) -> Result<Arc<Topic>, TopicError> {
        loop {
            if let Some(topic) = self.get(name) {
                return Ok(topic);
            }
            let new = NewTopic { name: name.to_owned(), partitions, overrides: overrides.clone() };
            match self.create(new, now_ms).await {
                // Another request created it first; it is missing again only if it was deleted meanwhile.
                Err(TopicError::Exists(_)) => {}
                made => return made,
            }
        }
    }

    /// Adds partitions until the topic has `count`.
    ///
    /// # Errors
    /// There is no such topic, it has that many already, or the storage failed.
    pub async fn grow(self: &Arc<Self>, name: &str, count: i32) -> Result<Arc<Topic>, TopicError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move {
            let mut metadata = this.metadata.lock().await;
            let (topic, _) = this.check_growth(&name, count)?;
            // First, so that what a client knows of has its place there.
            if let Ok(Some(intake)) = this.intake(&topic)
                && intake.partition_count < count
            {
                let facts = TopicFacts { partitions: count, ..intake.facts() };
                this.record_with_new(&mut metadata, facts, &intake.local).await?;
            }
            let facts = TopicFacts { partitions: count, ..topic.facts() };
            this.record_with_new(&mut metadata, facts, &topic.local).await
        })
        .await
    }

    /// Checks whether a topic could have `count` partitions; the topic, and how many it has.
    ///
    /// # Errors
    /// What [`Topics::grow`] would say.
    pub fn check_growth(&self, name: &str, count: i32) -> Result<(Arc<Topic>, i32), TopicError> {
        let index = self.index.read();
        let topic = index.names.get(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let have = topic.partition_count;
        if count <= have {
            return Err(TopicError::PartitionCount { asked: count, least: have.saturating_add(1) });
        }
        let more = count - have;
        self.check_room(&index, if topic.has_intake() { more.saturating_mul(2) } else { more })?;
        Ok((Arc::clone(topic), have))
    }

    /// Replaces the settings of a topic that differ from the broker's defaults.
    ///
    /// # Errors
    /// There is no such topic, a setting is refused, or the storage failed.
    pub async fn configure(
        self: &Arc<Self>,
        name: &str,
        change: impl FnOnce(&Overrides) -> Result<Overrides, ConfigError> + Send + 'static,
    ) -> Result<Arc<Topic>, TopicError> {
        let (this, name) = (Arc::clone(self), name.to_owned());
        to_the_end(async move {
            let mut metadata = this.metadata.lock().await;
            let topic = this.get(&name).ok_or(TopicError::Unknown(name))?;
            let overrides = change(&topic.overrides)?;
            TopicConfig::check_overrides(&overrides)?;
            TopicConfig::check_change(&topic.overrides, &overrides)?;
            let facts = TopicFacts { overrides, ..topic.facts() };
            let topic = this.record(&mut metadata, facts, topic.local.clone()).await?;
            topic.local.iter().for_each(|partition| partition.configure(&topic.config));
            Ok(topic)
        })
        .await
    }

    /// Deletes a topic. Look-ups miss it as soon as the deletion is appended; when this returns, it is durable.
    ///
    /// # Errors
    /// There is no topic of this id, or the storage failed.
    pub async fn delete(self: &Arc<Self>, id: Uuid) -> Result<Arc<Topic>, TopicError> {
        let this = Arc::clone(self);
        to_the_end(async move {
            let mut metadata = this.metadata.lock().await;
            let topic = this.by_id(id).ok_or_else(|| TopicError::Unknown(id.to_string()))?;
            let beside = [intake_of(id), places_of(id)].map(|name| this.get(&name));
            this.remove(&mut metadata, &topic).await?;
            for beside in beside.into_iter().flatten() {
                this.remove(&mut metadata, &beside).await?;
            }
            Ok(topic)
        })
        .await
    }

    /// Deletes a topic beside one that is not there.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn delete_orphan(self: &Arc<Self>, id: Uuid) -> Result<(), TopicError> {
        let this = Arc::clone(self);
        to_the_end(async move {
            // A creation that is under way has this lock until both are there.
            let mut metadata = this.metadata.lock().await;
            let orphan = this.by_id(id).filter(|orphan| {
                intake::beside(&orphan.name).is_some_and(|owner| this.by_id(owner).is_none())
            });
            match orphan {
                Some(orphan) => this.remove(&mut metadata, &orphan).await,
                None => Ok(()),
            }
        })
        .await
    }

    async fn remove(&self, metadata: &mut MetadataLog, topic: &Arc<Topic>) -> Result<(), TopicError> {
        metadata.write(&[Change::TopicGone(topic.id)]).await?;
        self.change_index(|index| index.remove(topic));
        // Durably gone: a file that cannot be removed now is removed at the next start.
        self.partitions.delete(&topic.local).await;
        Ok(())
    }

    /// Reserves `count` producer ids that were never given out; the first of them.
    pub async fn reserve_producer_ids(self: &Arc<Self>, count: i64) -> Result<i64, TopicError> {
        let this = Arc::clone(self);
        to_the_end(async move {
            let mut metadata = this.metadata.lock().await;
            let first = this.producer_ids_end.load(Ordering::Acquire);
            let end = first.saturating_add(count);
            // Durable before one of them is handed out, so that no crash hands one out twice.
            metadata.write(&[Change::ProducerIds(end)]).await?;
            this.producer_ids_end.fetch_max(end, Ordering::AcqRel);
            Ok(first)
        })
        .await
    }

    /// Whether a producer can have this id: one that was never handed out may be given to another producer later, whose
    /// records would be taken for copies of what this one wrote.
    pub fn producer_id_was_given(&self, id: i64) -> bool {
        id < self.producer_ids_end.load(Ordering::Acquire)
    }

    /// A log or a transaction has this producer id, which this catalogue may not have handed out: the data is of a
    /// version that did not ask, or from elsewhere. No other producer gets it.
    pub fn producer_id_is_used(&self, id: i64) {
        /// An id above this was made up: taking it for used would leave too few.
        const PLAUSIBLE_MAX: i64 = 1 << 62;
        if id < PLAUSIBLE_MAX {
            self.producer_ids_end.fetch_max(id.saturating_add(1), Ordering::AcqRel);
        }
    }

    /// Closes every log in order. Blocking; nothing can be written afterwards.
    pub fn close(&self) {
        for topic in self.list() {
            topic.local.iter().for_each(|partition| partition.close());
        }
        self.metadata.blocking_lock().partition().close();
    }

    /// Creates the partitions that a topic should have besides `existing`, and records it. All or nothing: partitions
    /// of a topic that was not recorded would keep its name from being used again.
    async fn record_with_new(
        &self,
        metadata: &mut MetadataLog,
        facts: TopicFacts,
        existing: &[Arc<Partition>],
    ) -> Result<Arc<Topic>, TopicError> {
        let config = self.resolve(&facts.overrides);
        let from = i32::try_from(existing.len()).unwrap_or(i32::MAX);
        let new = self.partitions.create(facts.id, &facts.name, from..facts.partitions, &config).await?;
        let all = existing.iter().chain(&new).cloned().collect();
        let recorded = self.record(metadata, facts, all).await;
        if recorded.is_err() {
            self.partitions.delete(&new).await;
        }
        recorded
    }

    /// Writes a topic's facts down and shows it as it now is.
    async fn record(
        &self,
        metadata: &mut MetadataLog,
        facts: TopicFacts,
        local: Vec<Arc<Partition>>,
    ) -> Result<Arc<Topic>, TopicError> {
        metadata.write(&[Change::Topic(facts.clone())]).await?;
        let topic = self.topic(facts, local);
        self.change_index(|index| index.insert(Arc::clone(&topic)));
        Ok(topic)
    }
}

/// Runs a change in a task of its own: it goes on when the caller, a connection, goes away.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, TopicError>> + Send + 'static,
) -> Result<T, TopicError> {
    tokio::spawn(change).await.unwrap_or(Err(TopicError::Stopping))
}

#[cfg(test)]
pub(crate) mod tests;

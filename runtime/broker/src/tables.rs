//! What tables need of this broker: its partitions, and the log of what is deployed for their definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pelton_pipelines::refusal::DefineTableError;
use pelton_pipelines::supervisor::{FollowedState, Supervisor};
use pelton_streams::state_tables::StateRow;
use pelton_streams::tables::TableDefinition;
use pelton_tables::source::{
    At, Bounds, DefinitionError, Definitions, Keeping, News, ReadError, ReadTo, Source, Told, TopicId,
    TopicNow, Wake,
};
use pelton_tables::{Kept, OnBegin, OnRow};
use pelton_wire::record::Columns;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use crate::partition::delayed::{ReadyList, Watch};
use crate::partition::{Isolation, Partition};
use crate::pipelines::{ReadFault, read_committed};
use crate::topics::Topics;

/// How often partitions are looked at that have records which are not synced yet: nobody tells when they are.
const UNSYNCED_LOOK: Duration = Duration::from_millis(50);

/// The broker's topics, as tables read them.
pub(crate) struct BrokerTopics {
    topics: Arc<Topics>,
    runtime: Handle,
}

impl BrokerTopics {
    pub(crate) fn new(topics: Arc<Topics>, runtime: Handle) -> BrokerTopics {
        BrokerTopics { topics, runtime }
    }

    fn partition(&self, at: &At) -> Result<Arc<Partition>, ReadError> {
        let topic = self.topics.by_id(Uuid::from_bytes(at.topic_id));
        let index = i32::try_from(at.partition).ok();
        let found = topic.zip(index).and_then(|(topic, index)| topic.partition(index).ok().cloned());
        found.ok_or_else(|| ReadError::Gone { topic: at.topic.clone() })
    }
}

/// One past the last offset that is committed and that no crash takes back. A topic that is not synced for its
/// producers is read when it is synced, later than by its consumers: a store that had more than its log would never
/// find out.
fn readable(partition: &Partition) -> i64 {
    partition.readable_end(Isolation::ReadCommitted).min(partition.flushed_offset())
}

impl Source for BrokerTopics {
    fn changes(&self) -> u64 {
        self.topics.changes()
    }

    fn topic(&self, name: &str) -> Option<TopicNow> {
        let topic = self.topics.get(name)?;
        let id: TopicId = *topic.id.as_bytes();
        let only_compacts = topic.config.compact && !topic.config.delete;
        let delete_retention_ms = topic.config.compaction.delete_retention_ms;
        let partitions = u32::try_from(topic.partition_count).unwrap_or(0);
        Some(TopicNow { id, partitions, only_compacts, delete_retention_ms })
    }

    fn bounds(&self, at: &At) -> Result<Bounds, ReadError> {
        let partition = self.partition(at)?;
        let readable = readable(&partition);
        let offsets = partition.offsets();
        Ok(Bounds { start: offsets.log_start, readable, end: offsets.log_end })
    }

    fn read(&self, at: &At, offset: i64, records: &mut Columns) -> Result<ReadTo, ReadError> {
        let partition = self.partition(at)?;
        let readable = readable(&partition);
        let (topic, number) = (|| at.topic.clone(), at.partition);
        match read_committed(&partition, offset, readable, false, records) {
            Ok(next_offset) => Ok(ReadTo { next_offset, readable }),
            Err(ReadFault::Deleted) => Err(ReadError::Deleted { topic: topic(), partition: number, offset }),
            Err(ReadFault::BadBatch { offset, reason }) => {
                Err(ReadError::BadBatch { topic: topic(), partition: number, offset, reason })
            }
            // If the topic has been deleted meanwhile, that is why.
            Err(ReadFault::Unreadable(error)) => self
                .partition(at)
                .and_then(|_| Err(ReadError::Unavailable(format!("read {} [{number}]: {error}", at.topic)))),
        }
    }

    fn news(self: Arc<Self>) -> Box<dyn News> {
        Box::new(BrokerNews {
            source: self,
            list: Arc::default(),
            watched: BTreeMap::new(),
            unsynced: BTreeSet::new(),
        })
    }
}

/// The partitions that a thread of the tables waits for. Each is watched for as long as its store is open, so a wait costs
/// what has happened.
struct BrokerNews {
    source: Arc<BrokerTopics>,
    list: Arc<ReadyList>,
    watched: BTreeMap<u32, Vec<Watched>>,
    /// Those that have records which are not synced yet.
    unsynced: BTreeSet<u32>,
}

/// A partition, and how it tells of news.
type Watched = (Arc<Partition>, Arc<Watch>);

impl BrokerNews {
    /// The numbers that are listed. Records that come later list them again.
    fn take(&self) -> Vec<u32> {
        let mut ready = self.list.take();
        ready.sort_unstable();
        ready.dedup();
        for (_, watch) in ready.iter().filter_map(|number| self.watched.get(number)).flatten() {
            watch.taken();
        }
        ready
    }
}

impl News for BrokerNews {
    fn watch(&mut self, number: u32, at: &At) {
        // One that has gone is no news: its topic has changed.
        let Ok(found) = self.source.partition(at) else { return };
        let watch = Watch::new(&self.list, number);
        found.watch(&watch);
        self.watched.entry(number).or_default().push((found, watch));
        self.unsynced.insert(number);
    }

    fn forget(&mut self, number: u32) {
        let watched = self.watched.remove(&number).unwrap_or_default();
        watched.iter().for_each(|(_, watch)| watch.finish());
        self.unsynced.remove(&number);
    }

    fn wait(&mut self, wake: &Wake, timeout_ms: u64) -> Told {
        let mut patience = Duration::from_millis(timeout_ms);
        if !self.unsynced.is_empty() {
            patience = patience.min(UNSYNCED_LOOK);
        }
        let mut ready = self.take();
        let mut is_over = false;
        if ready.is_empty() && !patience.is_zero() {
            let (list, runtime) = (Arc::clone(&self.list), self.source.runtime.clone());
            is_over = runtime.block_on(async {
                tokio::select! {
                    () = list.changed() => false,
                    () = wake.called() => false,
                    () = tokio::time::sleep(patience) => true,
                }
            });
            ready = self.take();
        }
        ready.extend(std::mem::take(&mut self.unsynced));
        for number in &ready {
            let partitions = self.watched.get(number).into_iter().flatten();
            let has_unsynced =
                |(found, _): &Watched| found.readable_end(Isolation::ReadCommitted) > found.flushed_offset();
            if partitions.into_iter().any(has_unsynced) {
                self.unsynced.insert(*number);
            }
        }
        Told { idle: is_over && ready.is_empty(), ready }
    }
}

impl Drop for BrokerNews {
    fn drop(&mut self) {
        self.watched.values().flatten().for_each(|(_, watch)| watch.finish());
    }
}

/// A table that a pipeline keeps, to be followed.
pub(crate) struct PipelineTable(pub(crate) FollowedState);

impl Kept for PipelineTable {
    fn changelog(&self) -> &str {
        self.0.changelog()
    }

    fn closing(&self) -> watch::Receiver<u64> {
        self.0.closing()
    }

    fn rows(&self, begin: &mut OnBegin<'_>, row: &mut OnRow<'_>) -> Result<(), String> {
        let begin = &mut |inputs, next| begin(inputs, next).is_ok();
        let row = &mut |shown| row(shown).is_ok();
        self.0.rows(begin, row).map_err(|error| error.to_string())
    }

    fn change(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<StateRow>, String> {
        self.0.change(key, value).map_err(|error| error.to_string())
    }
}

/// Definitions of tables, among what is deployed.
pub(crate) struct DeployedTables(pub(crate) Arc<Supervisor>);

impl Definitions for DeployedTables {
    fn all(&self) -> Vec<(String, TableDefinition)> {
        self.0.tables()
    }

    fn copied(&self) -> BTreeSet<String> {
        self.0.copied_topics()
    }

    fn set<'a>(&'a self, name: &'a str, definition: Option<&'a TableDefinition>) -> Keeping<'a> {
        Box::pin(async move {
            let kept = self.0.define_table(name, definition).await;
            kept.map_err(|error| match error {
                DefineTableError::Taken(pipeline) => DefinitionError::Taken(pipeline),
                DefineTableError::Read(pipeline) => DefinitionError::Read(pipeline),
                DefineTableError::Log(error) => DefinitionError::Log(error.to_string()),
            })
        })
    }
}

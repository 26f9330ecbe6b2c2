//! Topics and definitions in memory, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pelton_streams::tables::TableDefinition;
use pelton_wire::record::{
    BatchBuilder, BatchMut, BatchOptions, BatchView, Columns, DecompressLimit, Select,
};

use crate::source::{
    At, Bounds, Definitions, Keeping, News, ReadError, ReadTo, Source, Told, TopicId, TopicNow, Wake,
};

/// Key and value, or nothing at that offset: a marker, or what was aborted.
pub type Slot = Option<(Option<Vec<u8>>, Option<Vec<u8>>)>;

/// One partition.
#[derive(Debug, Default, Clone)]
struct Log {
    start: i64,
    slots: Vec<Slot>,
    /// What can be read ends here.
    readable: i64,
    damaged: bool,
}

#[derive(Debug, Clone)]
struct Topic {
    now: TopicNow,
    partitions: Vec<Log>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    changes: u64,
    made: u8,
}

/// Topics in memory.
#[derive(Default)]
pub struct MemoryTopics {
    state: Mutex<State>,
    changed: Condvar,
}

/// Records that one read gives at most.
const READ_RECORDS: i64 = 7;

impl MemoryTopics {
    pub fn new() -> Arc<MemoryTopics> {
        Arc::default()
    }

    /// Creates a compacted topic, in place of the one that has its name.
    pub fn create(&self, name: &str, partitions: u32, delete_retention_ms: i64) -> TopicId {
        let mut state = self.state.lock();
        state.made += 1;
        state.changes += 1;
        let now = TopicNow { id: [state.made; 16], partitions, only_compacts: true, delete_retention_ms };
        let topic = Topic { now, partitions: vec![Log::default(); partitions as usize] };
        state.topics.insert(name.to_owned(), topic);
        now.id
    }

    pub fn delete(&self, name: &str) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.topics.remove(name);
    }

    /// Adds partitions.
    pub fn grow(&self, name: &str, partitions: u32) {
        let mut state = self.state.lock();
        state.changes += 1;
        let topic = state.topics.get_mut(name).expect("the topic is there");
        topic.now.partitions = partitions;
        topic.partitions.resize(partitions as usize, Log::default());
    }

    fn with<T>(&self, name: &str, partition: u32, work: impl FnOnce(&mut Log) -> T) -> T {
        let mut state = self.state.lock();
        let topic = state.topics.get_mut(name).expect("the topic is there");
        let done = work(&mut topic.partitions[partition as usize]);
        self.changed.notify_all();
        done
    }

    /// Appends slots, and lets them be read. The offset behind them.
    pub fn append(&self, name: &str, partition: u32, slots: impl IntoIterator<Item = Slot>) -> i64 {
        self.with(name, partition, |log| {
            log.slots.extend(slots);
            log.readable = log.slots.len() as i64;
            log.readable
        })
    }

    /// Appends a record. The offset behind it.
    pub fn put(&self, name: &str, partition: u32, key: &str, value: Option<&str>) -> i64 {
        let bytes = |text: &str| text.as_bytes().to_vec();
        self.append(name, partition, [Some((Some(bytes(key)), value.map(bytes)))])
    }

    /// What the log has from its start, up to an offset, as a replay of it gives.
    pub fn replay(&self, name: &str, partition: u32, end: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.with(name, partition, |log| {
            let mut rows = BTreeMap::new();
            for (key, value) in log.slots.iter().take(end as usize).flatten() {
                match (key, value) {
                    (Some(key), Some(value)) => drop(rows.insert(key.clone(), value.clone())),
                    (Some(key), None) => drop(rows.remove(key)),
                    (None, _) => {}
                }
            }
            rows
        })
    }

    /// Deletes everything before an offset.
    pub fn delete_before(&self, name: &str, partition: u32, offset: i64) {
        self.with(name, partition, |log| log.start = offset);
    }

    /// Loses everything from an offset on, as a machine does that loses its disk's cache.
    pub fn lose_from(&self, name: &str, partition: u32, offset: i64) {
        self.with(name, partition, |log| {
            log.slots.truncate(offset as usize);
            log.readable = offset;
        });
    }

    /// Whether what is stored can be read.
    pub fn damage(&self, name: &str, partition: u32, damaged: bool) {
        self.with(name, partition, |log| log.damaged = damaged);
    }

    fn look<T>(&self, at: &At, look: impl FnOnce(&Log) -> T) -> Result<T, ReadError> {
        let state = self.state.lock();
        let topic = state.topics.get(&at.topic).filter(|topic| topic.now.id == at.topic_id);
        let log = topic.and_then(|topic| topic.partitions.get(at.partition as usize));
        log.map(look).ok_or_else(|| ReadError::Gone { topic: at.topic.clone() })
    }
}

/// Adds the record of an offset.
fn add(records: &mut Columns, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(offset, key, value, &[]).expect("the record makes a batch");
    let mut batch = builder.finish().expect("the record makes a batch").to_vec();
    BatchMut::new(&mut batch).expect("it was just built").set_place(offset, 0);
    let view = BatchView::check(&batch).expect("it was just built");
    let select = Select { from_offset: offset, headers: false };
    records.append(&view, select, DecompressLimit::STORED).expect("it fits");
}

impl Source for MemoryTopics {
    fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    fn topic(&self, name: &str) -> Option<TopicNow> {
        self.state.lock().topics.get(name).map(|topic| topic.now)
    }

    fn bounds(&self, at: &At) -> Result<Bounds, ReadError> {
        self.look(at, |log| Bounds { start: log.start, readable: log.readable, end: log.slots.len() as i64 })
    }

    fn read(&self, at: &At, offset: i64, records: &mut Columns) -> Result<ReadTo, ReadError> {
        let (topic, partition) = (at.topic.clone(), at.partition);
        self.look(at, |log| {
            if log.damaged {
                return Err(ReadError::BadBatch { topic, partition, offset, reason: "damaged".to_owned() });
            }
            if offset < log.start {
                return Err(ReadError::Deleted { topic, partition, offset });
            }
            let end = log.readable.min(offset.saturating_add(READ_RECORDS));
            for at in offset..end {
                if let Some(Some((key, value))) = log.slots.get(at as usize) {
                    add(records, at, key.as_deref(), value.as_deref());
                }
            }
            Ok(ReadTo { next_offset: end.max(offset), readable: log.readable })
        })?
    }

    fn news(self: Arc<Self>) -> Box<dyn News> {
        Box::new(MemoryNews { topics: self, watched: Vec::new() })
    }
}

struct MemoryNews {
    topics: Arc<MemoryTopics>,
    /// With the end that was told of.
    watched: Vec<(u32, At, i64)>,
}

impl MemoryNews {
    fn ready(&mut self) -> Vec<u32> {
        let mut ready = Vec::new();
        for (number, at, told) in &mut self.watched {
            let readable = self.topics.look(at, |log| log.readable).unwrap_or(*told);
            if readable != *told {
                *told = readable;
                ready.push(*number);
            }
        }
        ready
    }
}

impl News for MemoryNews {
    fn watch(&mut self, number: u32, at: &At) {
        let readable = self.topics.look(at, |log| log.readable).unwrap_or(0);
        self.watched.push((number, at.clone(), readable));
    }

    fn forget(&mut self, number: u32) {
        self.watched.retain(|(watched, ..)| *watched != number);
    }

    fn wait(&mut self, _wake: &Wake, timeout_ms: u64) -> Told {
        let mut ready = self.ready();
        if ready.is_empty() && timeout_ms > 0 {
            {
                // Short: nobody wakes it for what it is told.
                let mut state = self.topics.state.lock();
                self.topics.changed.wait_for(&mut state, Duration::from_millis(timeout_ms.min(5)));
            }
            ready = self.ready();
        }
        Told { idle: ready.is_empty(), ready }
    }
}

/// Definitions in memory.
#[derive(Default)]
pub struct MemoryDefinitions(Mutex<BTreeMap<String, TableDefinition>>);

impl MemoryDefinitions {
    pub fn new() -> Arc<MemoryDefinitions> {
        Arc::default()
    }
}

impl Definitions for MemoryDefinitions {
    fn all(&self) -> Vec<(String, TableDefinition)> {
        self.0.lock().iter().map(|(name, definition)| (name.clone(), definition.clone())).collect()
    }

    fn copied(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn set<'a>(&'a self, name: &'a str, definition: Option<&'a TableDefinition>) -> Keeping<'a> {
        match definition {
            Some(definition) => drop(self.0.lock().insert(name.to_owned(), definition.clone())),
            None => drop(self.0.lock().remove(name)),
        }
        Box::pin(async { Ok(()) })
    }
}

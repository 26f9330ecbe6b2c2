//! What others see of tables and their stores while their owners work on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use pelton_streams::state::{StateError, StateReader};
use pelton_streams::tables::{Counts, Mark, TableDefinition};
use serde::Serialize;
use tokio::sync::watch;

use crate::source::{TopicId, TopicNow};

/// A store of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoreId {
    /// Of all partitions.
    Global,
    /// Of one.
    Partition(u32),
}

impl StoreId {
    /// The name of its directory.
    pub(crate) fn name(self) -> String {
        match self {
            StoreId::Global => "global".to_owned(),
            StoreId::Partition(partition) => partition.to_string(),
        }
    }
}

/// What a store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreState {
    /// Its topic is not there, or it is not open yet.
    Waiting,
    /// It reads what its topic had when it was opened.
    Restoring,
    /// It has had all of its topic, and is kept fresh.
    Live,
}

impl StoreState {
    pub const ALL: [StoreState; 3] = [StoreState::Waiting, StoreState::Restoring, StoreState::Live];

    pub fn name(self) -> &'static str {
        match self {
            StoreState::Waiting => "waiting",
            StoreState::Restoring => "restoring",
            StoreState::Live => "live",
        }
    }
}

/// How far a partition was read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PartitionStatus {
    pub partition: u32,
    /// The last offset that the store reflects; -1 for none.
    pub offset: i64,
    /// The last offset that can be read now.
    pub end: i64,
    /// Offsets between the two.
    pub behind: i64,
    /// Part of what was there when the store was opened that it has read since then, from 0 to 1.
    pub restored: f64,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreStatus {
    pub store: String,
    pub state: StoreState,
    /// Bytes of its rows; on disk, or in memory where that is all there is.
    pub bytes: u64,
    /// Its rows, about.
    pub keys: u64,
    /// Why it does not go on. It tries again by itself.
    pub failure: Option<String>,
    /// Why it was made again, if it was since the server started.
    pub rebuilt: Option<String>,
    pub partitions: Vec<PartitionStatus>,
}

/// Since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records with a key and a value that were read.
    pub puts: u64,
    /// Records with a key and no value that were read.
    pub tombstones: u64,
    /// Records without a key, which are of no row.
    pub null_keys: u64,
    /// Stores that were made again.
    pub rebuilds: u64,
}

/// A table as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableDescription {
    pub name: String,
    #[serde(flatten)]
    pub definition: TableDefinition,
    /// The least that any of its stores is doing.
    pub state: StoreState,
    pub stores: Vec<StoreStatus>,
    pub totals: Totals,
}

/// A partition as its owner last saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartNow {
    pub(crate) next: i64,
    pub(crate) readable: i64,
    /// Where the store was when it was opened, and where it had to get to.
    pub(crate) begin: i64,
    pub(crate) target: i64,
}

impl PartNow {
    fn status(self, partition: u32) -> PartitionStatus {
        let (done, all) = (self.next - self.begin, self.target - self.begin);
        PartitionStatus {
            partition,
            offset: self.next - 1,
            end: self.readable.max(self.next) - 1,
            behind: (self.readable - self.next).max(0),
            restored: if all <= 0 { 1.0 } else { (done as f64 / all as f64).clamp(0.0, 1.0) },
        }
    }
}

#[derive(Default)]
struct Inner {
    live: Option<Arc<dyn StateReader>>,
    opened: Option<Arc<dyn StateReader>>,
    failure: Option<String>,
    rebuilt: Option<String>,
    parts: BTreeMap<u32, PartNow>,
    /// The topic that it was opened for.
    topic_id: TopicId,
}

/// A store as others see it. Its owner alone changes it, but for [`Store::report`].
pub(crate) struct Store {
    pub(crate) id: StoreId,
    inner: Mutex<Inner>,
    /// Moves when a reader that was handed out is to be dropped.
    generation: AtomicU64,
    damaged: AtomicBool,
}

impl Store {
    pub(crate) fn new(id: StoreId) -> Arc<Store> {
        Arc::new(Store {
            id,
            inner: Mutex::default(),
            generation: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
        })
    }

    /// It is open, and is being restored.
    pub(crate) fn opened(
        &self,
        topic_id: TopicId,
        reader: Arc<dyn StateReader>,
        parts: BTreeMap<u32, PartNow>,
    ) {
        let mut inner = self.inner.lock();
        let rebuilt = inner.rebuilt.take();
        *inner = Inner { opened: Some(reader), parts, topic_id, rebuilt, ..Inner::default() };
    }

    /// It has had all that its topic had when it was opened: from now on it is read.
    pub(crate) fn live(&self) {
        let mut inner = self.inner.lock();
        inner.live = inner.opened.clone();
    }

    pub(crate) fn read_to(&self, marks: &BTreeMap<u32, Mark>, readable: &BTreeMap<u32, i64>) {
        let mut inner = self.inner.lock();
        for (partition, part) in &mut inner.parts {
            if let Some(mark) = marks.get(partition) {
                part.next = mark.next_offset;
            }
            if let Some(readable) = readable.get(partition) {
                part.readable = *readable;
            }
        }
    }

    /// It is about to be closed: nobody may begin to read it, and who reads it should end.
    pub(crate) fn withdraw(&self) {
        let mut inner = self.inner.lock();
        (inner.live, inner.opened) = (None, None);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn failed(&self, reason: Option<String>) {
        self.inner.lock().failure = reason;
    }

    pub(crate) fn rebuilt(&self, reason: String) {
        self.inner.lock().rebuilt = Some(reason);
    }

    /// A reader has met damage: its owner makes the store again.
    pub(crate) fn report(&self, error: &StateError) {
        if matches!(error, StateError::Corrupt(_)) {
            self.damaged.store(true, Ordering::Release);
        }
    }

    pub(crate) fn take_damage(&self) -> bool {
        self.damaged.swap(false, Ordering::AcqRel)
    }

    /// For readers, if it is live; and the generation, by which they learn that they should end.
    pub(crate) fn reader(&self) -> Option<(Arc<dyn StateReader>, u64)> {
        let inner = self.inner.lock();
        Some((Arc::clone(inner.live.as_ref()?), self.generation.load(Ordering::Acquire)))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The offset that is read next of a partition, if the store is live.
    pub(crate) fn next(&self, partition: u32) -> Option<i64> {
        let inner = self.inner.lock();
        inner.live.as_ref()?;
        inner.parts.get(&partition).map(|part| part.next)
    }

    /// The same, if the store is of this topic and not of one that had its name.
    pub(crate) fn next_of(&self, topic_id: TopicId, partition: u32) -> Option<i64> {
        let is_of_it = self.inner.lock().topic_id == topic_id;
        self.next(partition).filter(|_| is_of_it)
    }

    pub(crate) fn status(&self) -> StoreStatus {
        let (state, reader, mut status) = {
            let inner = self.inner.lock();
            let state = match (&inner.live, &inner.opened) {
                (Some(_), _) => StoreState::Live,
                (None, Some(_)) => StoreState::Restoring,
                (None, None) => StoreState::Waiting,
            };
            let status = StoreStatus {
                store: self.id.name(),
                state,
                bytes: 0,
                keys: 0,
                failure: inner.failure.clone(),
                rebuilt: inner.rebuilt.clone(),
                partitions: inner.parts.iter().map(|(partition, part)| part.status(*partition)).collect(),
            };
            (state, inner.opened.clone(), status)
        };
        debug_assert_eq!(reader.is_some(), state != StoreState::Waiting, "what is open can be measured");
        if let Some(Ok(size)) = reader.map(|reader| reader.size()) {
            // One key for each partition is none of a row.
            let marks = status.partitions.len() as u64;
            (status.bytes, status.keys) = (size.bytes, size.keys.saturating_sub(marks));
        }
        status
    }
}

#[derive(Default)]
struct Counters {
    puts: AtomicU64,
    tombstones: AtomicU64,
    null_keys: AtomicU64,
    rebuilds: AtomicU64,
}

/// Whether somebody should still follow or wait for something, and why not.
#[derive(Debug)]
pub(crate) struct Life(watch::Sender<Option<&'static str>>);

impl Default for Life {
    fn default() -> Life {
        Life(watch::Sender::new(None))
    }
}

impl Life {
    pub(crate) fn end(&self, why: &'static str) {
        self.0.send_replace(Some(why));
    }

    pub(crate) fn ended(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// Returns when nobody should any more.
    pub(crate) async fn until_ended(&self) -> &'static str {
        let mut life = self.0.subscribe();
        let ended = life.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match ended {
            Some(why) => why,
            // Not while `self` is there.
            None => std::future::pending().await,
        }
    }
}

/// A table as others see it.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) definition: TableDefinition,
    stores: RwLock<BTreeMap<StoreId, Arc<Store>>>,
    /// With [`Source::changes`](crate::source::Source::changes) of that moment.
    topic: RwLock<(u64, Option<TopicNow>)>,
    counters: Counters,
    /// Moves with everything that somebody may wait for.
    moved: watch::Sender<u64>,
    /// Ends when it is deleted, or the server is stopping.
    pub(crate) life: Arc<Life>,
}

impl Table {
    pub(crate) fn new(name: String, definition: TableDefinition) -> Arc<Table> {
        Arc::new(Table {
            name,
            definition,
            stores: RwLock::default(),
            topic: RwLock::default(),
            counters: Counters::default(),
            moved: watch::Sender::new(0),
            life: Arc::default(),
        })
    }

    /// Adds a store, or gives the one that is there.
    pub(crate) fn add(&self, id: StoreId) -> Arc<Store> {
        Arc::clone(self.stores.write().entry(id).or_insert_with(|| Store::new(id)))
    }

    pub(crate) fn remove(&self, id: StoreId) {
        self.stores.write().remove(&id);
        self.moved();
    }

    pub(crate) fn store(&self, id: StoreId) -> Option<Arc<Store>> {
        self.stores.read().get(&id).cloned()
    }

    pub(crate) fn stores(&self) -> Vec<Arc<Store>> {
        self.stores.read().values().cloned().collect()
    }

    pub(crate) fn topic(&self) -> Option<TopicNow> {
        self.topic.read().1
    }

    /// The topic as it was at a moment. Of the threads that say so, one may be late: the latest moment counts.
    pub(crate) fn set_topic(&self, at: u64, topic: Option<TopicNow>) {
        {
            let mut known = self.topic.write();
            if at < known.0 {
                return;
            }
            *known = (at, topic);
        }
        self.moved();
    }

    pub(crate) fn moved(&self) {
        self.moved.send_modify(|moved| *moved = moved.wrapping_add(1));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn end(&self, why: &'static str) {
        self.life.end(why);
        self.moved();
    }

    pub(crate) fn ended(&self) -> Option<&'static str> {
        self.life.ended()
    }

    pub(crate) fn count(&self, counts: Counts) {
        self.counters.puts.fetch_add(counts.puts, Ordering::Relaxed);
        self.counters.tombstones.fetch_add(counts.tombstones, Ordering::Relaxed);
        self.counters.null_keys.fetch_add(counts.null_keys, Ordering::Relaxed);
    }

    pub(crate) fn count_rebuild(&self) {
        self.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn describe(&self) -> TableDescription {
        let stores: Vec<StoreStatus> = self.stores().iter().map(|store| store.status()).collect();
        let expected = self.topic().map_or(0, |topic| match self.definition.scope {
            pelton_streams::tables::Scope::Global => 1,
            pelton_streams::tables::Scope::Partitioned => topic.partitions as usize,
        });
        let any = |state| stores.iter().any(|store| store.state == state);
        let state = if stores.is_empty() || stores.len() < expected || any(StoreState::Waiting) {
            StoreState::Waiting
        } else if any(StoreState::Restoring) {
            StoreState::Restoring
        } else {
            StoreState::Live
        };
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableDescription {
            name: self.name.clone(),
            definition: self.definition.clone(),
            state,
            stores,
            totals: Totals {
                puts: total(&self.counters.puts),
                tombstones: total(&self.counters.tombstones),
                null_keys: total(&self.counters.null_keys),
                rebuilds: total(&self.counters.rebuilds),
            },
        }
    }
}

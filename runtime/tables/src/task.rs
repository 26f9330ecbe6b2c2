//! One store and its owner's work on it: open it, bring it to where its topic is, keep it there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pelton_streams::state::{
    MemoryBudget, MemoryState, StateBackend, StateError, StateFactory, StoreSpec, late_restore,
};
use pelton_streams::tables::{
    Chunk, LogState, Mark, Opening, Rebuild, STORE_NAME, StoreKind, marks_of, opening,
};
use pelton_wire::mutant::Mutant;
use pelton_wire::record::Columns;

use crate::source::{At, ReadError, Source, TopicNow};
use crate::store::{PartNow, Store, Table};

/// Memory of changes that a thread has read before it hands them to a store: restoring takes chunks of this size.
pub const CHUNK_BYTES: usize = 8 << 20;
/// Smaller chunks of a restore are written as any change; files of their own would be too many.
const INGEST_BYTES: usize = 1 << 20;
/// How long a store that failed waits before it tries again: doubled each time, up to the second.
const BACKOFF_MS: i64 = 500;
const BACKOFF_MAX_MS: i64 = 30_000;
/// A store without news says this often that it still has everything, so that it is trusted after a restart: a part of
/// `delete.retention.ms`, within these bounds.
const STAMP_PART: i64 = 4;
const STAMP_MIN_MS: i64 = 60_000;
const STAMP_MAX_MS: i64 = 6 * 3_600_000;

/// What the owner's thread lends to the task that it works on.
pub(crate) struct Cx<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) factory: Option<&'a dyn StateFactory>,
    pub(crate) records: &'a mut Columns,
    pub(crate) chunk: &'a mut Chunk,
    pub(crate) now_ms: i64,
    pub(crate) flush_interval_ms: i64,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("a bug of the server: {0}")]
    Bug(String),
}

struct Open {
    backend: Box<dyn StateBackend>,
    marks: BTreeMap<u32, Mark>,
    /// Where each partition has to get to before the store is live.
    targets: BTreeMap<u32, i64>,
    /// When the store last had all of each, when it was opened.
    old_ms: BTreeMap<u32, i64>,
    live: bool,
    /// The store does not say how far it has read every partition.
    unmarked: bool,
    unflushed_since_ms: Option<i64>,
    stamped_ms: i64,
}

/// See the module. One thread owns it.
pub(crate) struct StoreTask {
    table: Arc<Table>,
    store: Arc<Store>,
    topic: TopicNow,
    parts: Vec<At>,
    dir: PathBuf,
    open: Option<Open>,
    /// The store is to be made again before it is opened, and why.
    wipe: Option<String>,
    retry_at_ms: i64,
    backoff_ms: i64,
    memory: Arc<MemoryBudget>,
}

impl StoreTask {
    pub(crate) fn new(
        table: Arc<Table>,
        store: Arc<Store>,
        topic: TopicNow,
        partitions: impl Iterator<Item = u32>,
        dir: PathBuf,
        memory: Arc<MemoryBudget>,
    ) -> StoreTask {
        let name = &table.definition.topic;
        let at = |partition| At { topic: name.clone(), topic_id: topic.id, partition };
        let parts = partitions.map(at).collect();
        StoreTask {
            table,
            store,
            topic,
            parts,
            dir,
            open: None,
            wipe: None,
            retry_at_ms: 0,
            backoff_ms: 0,
            memory,
        }
    }

    /// The topic as it is now. Whether it is still that of this store, with as many partitions as the store has.
    pub(crate) fn fits(&mut self, topic: &TopicNow, partitions: usize) -> bool {
        let fits = self.topic.id == topic.id && self.parts.len() == partitions;
        if fits {
            self.topic = *topic;
        }
        fits
    }

    /// The partitions that it reads.
    pub(crate) fn parts(&self) -> &[At] {
        &self.parts
    }

    /// Does the next piece of work. Whether there may be more of it.
    pub(crate) fn step(&mut self, cx: &mut Cx<'_>) -> bool {
        if cx.now_ms < self.retry_at_ms {
            return false;
        }
        cx.chunk.clear();
        match self.try_step(cx) {
            Ok(busy) => {
                if self.backoff_ms != 0 && self.open.is_some() {
                    (self.backoff_ms, self.retry_at_ms) = (0, 0);
                    self.store.failed(None);
                }
                busy
            }
            Err(trouble) => {
                self.fail(&trouble, cx.now_ms);
                false
            }
        }
    }

    /// A step panicked: what the store has is what was applied.
    pub(crate) fn panicked(&mut self, text: String, now_ms: i64) {
        self.fail(&Trouble::Bug(text), now_ms);
    }

    fn fail(&mut self, trouble: &Trouble, now_ms: i64) {
        self.backoff_ms = (self.backoff_ms * 2).clamp(BACKOFF_MS, BACKOFF_MAX_MS);
        self.retry_at_ms = now_ms.saturating_add(self.backoff_ms);
        match trouble {
            // What was read before is right; it is served until the topic can be read again.
            Trouble::Read(ReadError::BadBatch { .. } | ReadError::Unavailable(_)) => {}
            // Its owner hears of the topic's end next.
            Trouble::Read(ReadError::Gone { .. }) => self.withdraw(),
            Trouble::Read(ReadError::Deleted { .. }) | Trouble::State(StateError::Corrupt(_)) => {
                self.withdraw();
                self.wipe = Some(trouble.to_string());
                // At once, unless it has just been made again.
                if self.backoff_ms == BACKOFF_MS {
                    self.retry_at_ms = now_ms;
                }
            }
            // A database that refused a batch may refuse all others until it is opened again.
            Trouble::State(StateError::Full(_) | StateError::Storage(_)) | Trouble::Bug(_) => self.withdraw(),
            // It reads all of its topic again then.
            Trouble::State(StateError::Memory { .. }) => {
                self.withdraw();
                self.retry_at_ms = now_ms.saturating_add(BACKOFF_MAX_MS);
            }
        }
        let (table, store) = (&self.table.name, self.store.id.name());
        tracing::warn!(table, store, error = %trouble, "the store of a table waits and tries again");
        self.store.failed(Some(trouble.to_string()));
        self.table.moved();
    }

    fn withdraw(&mut self) {
        self.store.withdraw();
        self.open = None;
        self.table.moved();
    }

    fn try_step(&mut self, cx: &mut Cx<'_>) -> Result<bool, Trouble> {
        if self.store.take_damage() {
            return Err(StateError::Corrupt("a reader has found damage".to_owned()).into());
        }
        if self.open.is_none() {
            self.try_open(cx)?;
            return Ok(true);
        }
        if let Some(why) = self.restored_too_slowly(cx.now_ms) {
            self.withdraw();
            self.rebuild(why)?;
            return Ok(true);
        }
        let Some(open) = &mut self.open else { return Ok(true) };
        let mut marks = open.marks.clone();
        let mut readable = BTreeMap::new();
        let caught_up = read(&self.parts, &mut marks, &mut readable, open.live, cx)?;
        let moved = marks.iter().any(|(partition, mark)| {
            open.marks.get(partition).is_none_or(|before| before.next_offset != mark.next_offset)
        });
        let stamp_ms = (self.topic.delete_retention_ms / STAMP_PART).clamp(STAMP_MIN_MS, STAMP_MAX_MS);
        let stamp = caught_up && cx.now_ms.saturating_sub(open.stamped_ms) >= stamp_ms;
        if moved || stamp || open.unmarked {
            let (counts, bytes) = (cx.chunk.counts(), cx.chunk.bytes());
            let batch = cx.chunk.finish(&marks);
            if open.live || bytes < INGEST_BYTES {
                open.backend.apply(batch)?;
            } else {
                open.backend.restore(batch)?;
            }
            self.table.count(counts);
            (open.marks, open.unmarked) = (marks, false);
            open.unflushed_since_ms.get_or_insert(cx.now_ms);
            if caught_up {
                open.stamped_ms = cx.now_ms;
            }
        }
        self.store.read_to(&open.marks, &readable);
        if !open.live && open.targets.iter().all(|(p, target)| open.marks[p].next_offset >= *target) {
            // What was restored is not read again after a crash.
            open.backend.flush()?;
            (open.live, open.unflushed_since_ms) = (true, None);
            self.store.live();
            tracing::info!(
                table = self.table.name,
                store = self.store.id.name(),
                "the store of a table is live"
            );
            self.table.moved();
        }
        if moved {
            self.table.moved();
        }
        if open
            .unflushed_since_ms
            .is_some_and(|since| cx.now_ms.saturating_sub(since) >= cx.flush_interval_ms)
        {
            open.backend.flush()?;
            open.unflushed_since_ms = None;
        }
        Ok(moved)
    }

    /// Opens the store and decides whether it can be trusted. If not, the next call finds an empty one.
    fn try_open(&mut self, cx: &mut Cx<'_>) -> Result<(), Trouble> {
        let backend = self.backend(cx)?;
        let found = marks_of(&*backend.reader().view()?)?;
        let (mut marks, mut targets, mut parts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for at in &self.parts {
            let bounds = cx.source.bounds(at)?;
            let log = LogState {
                topic_id: self.topic.id,
                start: bounds.start,
                end: bounds.end,
                delete_retention_ms: self.topic.delete_retention_ms,
            };
            let mark = match opening(at.partition, found.get(&at.partition).copied(), &log, cx.now_ms) {
                Opening::Begin => {
                    Mark { topic_id: self.topic.id, next_offset: bounds.start, as_of_ms: cx.now_ms }
                }
                Opening::Resume(mark) => mark,
                Opening::Rebuild(why) => return self.rebuild(why),
            };
            let (next, readable) = (mark.next_offset, bounds.readable);
            marks.insert(at.partition, mark);
            targets.insert(at.partition, readable);
            parts.insert(at.partition, PartNow { next, readable, begin: next, target: readable });
        }
        let stamped_ms = marks.values().map(|mark| mark.as_of_ms).min().unwrap_or(cx.now_ms);
        self.store.opened(self.topic.id, backend.reader(), parts);
        if Mutant::LiveTooEarly.is_on() {
            self.store.live();
        }
        let unmarked = marks.keys().any(|partition| !found.contains_key(partition));
        let old_ms = marks.iter().map(|(partition, mark)| (*partition, mark.as_of_ms)).collect();
        let (live, unflushed_since_ms) = (false, None);
        self.open =
            Some(Open { backend, marks, targets, old_ms, live, unmarked, unflushed_since_ms, stamped_ms });
        self.table.moved();
        Ok(())
    }

    /// Whether it may have missed that rows were deleted while it is being restored.
    fn restored_too_slowly(&self, now_ms: i64) -> Option<Rebuild> {
        let open = self.open.as_ref().filter(|open| !open.live)?;
        let retention_ms = self.topic.delete_retention_ms;
        let behind = open.targets.iter().filter(|(p, target)| open.marks[p].next_offset < **target);
        let mut late = behind.filter_map(|(partition, _)| {
            let behind_ms = late_restore(*open.old_ms.get(partition)?, retention_ms, now_ms)?;
            Some(Rebuild::Slow { partition: *partition, behind_ms, retention_ms })
        });
        late.next()
    }

    fn rebuild(&mut self, why: Rebuild) -> Result<(), Trouble> {
        self.wipe = Some(why.to_string());
        Ok(())
    }

    fn backend(&mut self, cx: &Cx<'_>) -> Result<Box<dyn StateBackend>, StateError> {
        let wiped = self.wipe.clone();
        let backend: Box<dyn StateBackend> = match (self.table.definition.store, cx.factory) {
            (StoreKind::Memory, _) => Box::new(MemoryState::within(1, &self.memory)),
            (StoreKind::Rocksdb, None) => {
                return Err(StateError::Storage("this server has no RocksDB".to_owned()));
            }
            (StoreKind::Rocksdb, Some(factory)) => {
                if wiped.is_some() {
                    factory.remove(&self.dir)?;
                }
                let (name, kind) = (STORE_NAME.to_owned(), StoreKind::Rocksdb);
                factory.open(&self.dir, &[StoreSpec { name, ordered: true, kind }])?
            }
        };
        if let Some(why) = wiped {
            self.wipe = None;
            tracing::warn!(
                table = self.table.name,
                store = self.store.id.name(),
                reason = why,
                "the store of a table is made again from its topic"
            );
            self.table.count_rebuild();
            self.store.rebuilt(why);
        }
        Ok(backend)
    }

    /// Closes the store in order: the next start goes on where it was, and trusts it.
    pub(crate) fn close(mut self, source: &dyn Source, now_ms: i64) {
        self.store.withdraw();
        if let Some(open) = self.open.take()
            && let Err(error) = finish(open, &self.parts, source, now_ms)
        {
            let (table, store) = (&self.table.name, self.store.id.name());
            tracing::warn!(table, store, %error, "the store of a table was not closed in order; it goes on from its last flush");
        }
        self.table.moved();
    }
}

/// Reads on until there is no more, or enough for one batch. Whether every partition was read to its end.
fn read(
    parts: &[At],
    marks: &mut BTreeMap<u32, Mark>,
    readable: &mut BTreeMap<u32, i64>,
    live: bool,
    cx: &mut Cx<'_>,
) -> Result<bool, ReadError> {
    let mut caught_up = true;
    for at in parts {
        let Some(mark) = marks.get_mut(&at.partition) else { continue };
        loop {
            if cx.chunk.bytes() >= CHUNK_BYTES {
                return Ok(false);
            }
            cx.records.clear();
            let read = cx.source.read(at, mark.next_offset, cx.records)?;
            cx.chunk.take(cx.records);
            mark.next_offset = read.next_offset;
            readable.insert(at.partition, read.readable);
            if read.next_offset >= read.readable {
                mark.as_of_ms = cx.now_ms;
                break;
            }
            // The other partitions of a live store have news, too.
            if live {
                caught_up = false;
                break;
            }
        }
    }
    Ok(caught_up)
}

fn finish(mut open: Open, parts: &[At], source: &dyn Source, now_ms: i64) -> Result<(), StateError> {
    for at in parts {
        if let (Some(mark), Ok(bounds)) = (open.marks.get_mut(&at.partition), source.bounds(at))
            && mark.next_offset >= bounds.readable
        {
            mark.as_of_ms = now_ms;
        }
    }
    open.backend.apply(Chunk::default().finish(&open.marks))?;
    open.backend.flush()
}

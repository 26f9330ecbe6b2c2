//! The state of a task: named stores of keys and values, and the changes that an open transaction has made to them.
//!
//! Three layers, looked at in this order. *Changed* entries were written since the stores last took them over; only
//! they are ever written back, sorted by key, in one batch together with the position in the changelog that they
//! reflect. *Clean* entries are a bounded cache of what the stores hold. The *backend* is what survives: RocksDB, or
//! a map in memory. A backend may be behind the changelog, never ahead of it, because it takes over only what a
//! committed transaction wrote.
//!
//! Within a step a [`Savepoint`] undoes what a failed range of records has written, and nothing else.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod budget;
mod memory;
mod mixed;
mod restored;
mod store;
mod task_state;
#[cfg(test)]
mod tests;

pub use budget::{MemoryBudget, MemoryShare};
pub use memory::MemoryState;
pub use mixed::MixedState;
pub use restored::{Restored, late_restore};
pub use task_state::{Savepoint, StateLimits, TaskState};

/// A key or a value.
pub type Blob = Arc<[u8]>;

/// A store of a task: its index in the list of stores that the task was made with.
pub type StoreIndex = usize;

/// What a store is called and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name: unique in the pipeline, and part of the name of its changelog topic.
    pub name: String,
    /// Ranges of it are read, so its changed keys are kept in order as well.
    pub ordered: bool,
    /// Where its entries are.
    pub kind: StoreKind,
}

/// Where the entries of a store are. Either way a topic is what survives, so one can become the other and keeps what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// On disk, in RocksDB: a start reads what came since.
    #[default]
    Rocksdb,
    /// In memory: a start reads the whole topic.
    Memory,
}

impl StoreKind {
    /// The names that users write.
    pub const NAMES: [&str; 2] = ["rocksdb", "memory"];

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<StoreKind> {
        match name {
            "rocksdb" => Some(StoreKind::Rocksdb),
            "memory" => Some(StoreKind::Memory),
            _ => None,
        }
    }
}

/// Why the state of a task cannot be read or written. The task stops; the log has everything that is needed to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The disk has no room. It is tried again once there is.
    #[error("the state directory is full: {0}")]
    Full(String),
    /// What is on disk is damaged. The store is made again from its changelog.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The disk failed in another way.
    #[error("the store cannot be used: {0}")]
    Storage(String),
    /// It is kept in memory, of which there is not enough. It is tried again, since others may give back theirs.
    #[error(
        "the stores in memory would take more than {limit} bytes together (`pelton.state.memory.max.bytes`); raise it, or keep \
         this one on disk, with the store `rocksdb`"
    )]
    Memory {
        /// What all of them may take.
        limit: u64,
    },
}

/// How far along its changelog a store is. It is kept inside the store, so that both change together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// The id of the changelog topic: a topic made again under the same name is another one.
    pub topic_id: [u8; 16],
    /// The offset up to which (exclusive) the changelog's records are in the store; 0 for nothing.
    pub offset: i64,
    /// When the store had all that the changelog had (ms since the epoch). Away for longer than the topic's
    /// `delete.retention.ms`, it may have missed tombstones that compaction has removed since.
    pub caught_up_ms: i64,
}

/// What the stores of a task reflect, by store.
pub type Position = Vec<ChangelogPosition>;

/// The changes of one store, each key once, in the order of keys. No value deletes the key.
pub type Changes = Vec<(Blob, Option<Blob>)>;

/// What a backend takes over at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateBatch {
    /// Changes by store.
    pub changes: Vec<Changes>,
    /// What the stores reflect once the changes are in.
    pub position: Position,
}

/// Where a range of keys starts and ends, in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The first key, inclusive.
    pub from: &'a [u8],
    /// The end, exclusive; none for all that follow.
    pub to: Option<&'a [u8]>,
    /// From the last key to the first.
    pub reverse: bool,
}

impl<'a> KeyRange<'a> {
    /// All keys.
    pub const ALL: KeyRange<'static> = KeyRange { from: &[], to: None, reverse: false };

    /// All keys that begin with `prefix`; `end` is [`prefix_end`] of it.
    pub fn prefix(prefix: &'a [u8], end: Option<&'a [u8]>) -> KeyRange<'a> {
        KeyRange { from: prefix, to: end, reverse: false }
    }

    /// Whether the range holds a key.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from && self.to.is_none_or(|to| key < to)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.to.is_some_and(|to| to <= self.from)
    }
}

/// The first key behind all that begin with `prefix`; none if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Shown each key and value of a range, until it says that it has enough.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// What readers of a store are given: everything up to one position, and nothing else, for as long as they hold it.
pub trait StateView {
    /// What the view reflects.
    fn position(&self) -> &Position;

    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError>;

    /// Shows the keys of a range in order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError>;
}

/// What the stores of a task take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Bytes of keys and values: on disk, or in memory where that is all there is.
    pub bytes: u64,
    /// Keys, about: what is overwritten or deleted may count until it is compacted away.
    pub keys: u64,
}

/// Makes views for readers on other threads.
pub trait StateReader: Send + Sync {
    /// All that the stores have taken over by now. May hold up the writer: for readers who take what they need and
    /// drop it.
    ///
    /// # Errors
    /// The store cannot be read.
    fn view(&self) -> Result<Box<dyn StateView + '_>, StateError>;

    /// The same, for readers who hold it for long: no writer waits, and it costs memory or disk for what is overwritten
    /// meanwhile.
    ///
    /// # Errors
    /// The store cannot be read.
    fn pinned(&self) -> Result<Box<dyn StateView + '_>, StateError>;

    /// What the stores take together.
    ///
    /// # Errors
    /// A store cannot be read.
    fn size(&self) -> Result<StateSize, StateError>;

    /// What one of them takes.
    ///
    /// # Errors
    /// The store cannot be read.
    fn store_size(&self, store: StoreIndex) -> Result<StateSize, StateError>;
}

/// Makes the stores of tasks where they survive. One for the process, with a bound on the memory of all of them.
pub trait StateFactory: Send + Sync {
    /// Opens the stores in a directory, and makes what is not there.
    ///
    /// # Errors
    /// The directory cannot be used, what is in it is damaged, or somebody else has it open.
    fn open(&self, dir: &Path, stores: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError>;

    /// Removes the stores in a directory that nobody has open, and the directory. None is there: that is fine.
    ///
    /// # Errors
    /// Something of them may still be there.
    fn remove(&self, dir: &Path) -> Result<(), StateError>;

    /// The names of the directories in a directory; none if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self, dir: &Path) -> Result<Vec<String>, StateError>;

    /// Memory that all open stores take now: blocks that were read, and what is not written to disk yet.
    fn memory_bytes(&self) -> u64;
}

/// The stores of one task where they survive. One owner writes; readers have a [`StateReader`].
pub trait StateBackend: Send {
    /// What the stores reflect: the position of the last batch that they took over, or of the last restored chunk.
    fn position(&self) -> &Position;

    /// The values of keys that are sorted and distinct, in their order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError>;

    /// Shows the keys of a range in order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError>;

    /// Takes over a batch, whole or not at all.
    ///
    /// # Errors
    /// Nothing was taken over.
    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError>;

    /// Takes over a chunk of a topic that is being restored: as [`StateBackend::apply`], for many changes at once.
    ///
    /// # Errors
    /// Nothing was taken over.
    fn restore(&mut self, batch: StateBatch) -> Result<(), StateError> {
        self.apply(batch)
    }

    /// Takes over a chunk of the changelog of one store, sorted, with which it is at this position: as
    /// [`StateBackend::restore`], without an allocation for each change where that can be.
    ///
    /// # Errors
    /// Nothing was taken over.
    fn restore_store(
        &mut self,
        store: StoreIndex,
        chunk: &Restored,
        position: ChangelogPosition,
    ) -> Result<(), StateError> {
        let mut positions = self.position().clone();
        let mut changes: Vec<Changes> = vec![Vec::new(); positions.len()];
        positions[store] = position;
        changes[store] = chunk.to_changes();
        self.restore(StateBatch { changes, position: positions })
    }

    /// Makes what was taken over survive a crash. What did not is restored from the changelog.
    ///
    /// # Errors
    /// The disk did not take it.
    fn flush(&mut self) -> Result<(), StateError>;

    /// For readers.
    fn reader(&self) -> Arc<dyn StateReader>;
}

//! All stores of one task.

use std::sync::Arc;

use pelton_wire::mutant::Mutant;

use super::store::Store;
use super::{
    Blob, Changes, KeyRange, Position, StateBackend, StateBatch, StateError, StateReader, StoreIndex,
    StoreSpec, Visit,
};

/// Memory of one task's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Bytes of clean entries that are kept per store.
    pub cache_bytes: u64,
    /// Bytes of changed entries over all stores past which the transaction should end early and the backend take over.
    pub changed_bytes: usize,
}

impl Default for StateLimits {
    /// 16 MiB of clean entries; 32 MiB of changed ones, which is half of Kafka's `statestore.uncommitted.max.bytes`.
    fn default() -> StateLimits {
        StateLimits { cache_bytes: 16 << 20, changed_bytes: 32 << 20 }
    }
}

/// A moment within a step to which the state can go back.
#[derive(Debug)]
#[must_use = "a savepoint is rolled back or released"]
pub struct Savepoint(Vec<usize>);

/// See the module of [`super`]. One thread owns it.
pub struct TaskState {
    backend: Box<dyn StateBackend>,
    stores: Vec<Store>,
    limits: StateLimits,
    /// Savepoints that are neither rolled back nor released.
    savepoints: usize,
    /// What the backend is taking over.
    on_its_way: Option<Vec<Changes>>,
    /// Writes since somebody asked.
    written: usize,
}

impl TaskState {
    /// The state of a task whose stores are in `backend`, in the order of `specs`.
    pub fn new(backend: Box<dyn StateBackend>, specs: &[StoreSpec], limits: StateLimits) -> TaskState {
        let stores = specs.iter().enumerate();
        let stores =
            stores.map(|(index, spec)| Store::new(index, spec.ordered, limits.cache_bytes)).collect();
        TaskState { backend, stores, limits, savepoints: 0, on_its_way: None, written: 0 }
    }

    /// What the backend reflects.
    pub fn position(&self) -> &Position {
        self.backend.position()
    }

    /// For readers: they see what the backend has taken over.
    pub fn reader(&self) -> Arc<dyn StateReader> {
        self.backend.reader()
    }

    /// Gets ready to be asked for these keys: one call of the backend for all that are in no cache.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn prefetch<'k>(
        &mut self,
        store: StoreIndex,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<(), StateError> {
        self.stores[store].prefetch(&*self.backend, keys)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&mut self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError> {
        self.stores[store].get(&*self.backend, key)
    }

    /// Writes a value in the open transaction; no value deletes the key.
    pub fn put(&mut self, store: StoreIndex, key: &[u8], value: Option<Blob>) {
        self.written += 1;
        self.stores[store].put(key, value, self.savepoints > 0);
    }

    /// How many writes there were since this was asked last, whether or not they were undone.
    pub fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Shows the keys of a range in order, as they are now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn range(
        &self,
        store: StoreIndex,
        range: KeyRange<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StateError> {
        self.stores[store].range(&*self.backend, range, visit)
    }

    /// A moment to which [`TaskState::roll_back`] returns.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoints += 1;
        Savepoint(self.stores.iter().map(Store::undo_len).collect())
    }

    /// Undoes all writes since the savepoint.
    pub fn roll_back(&mut self, savepoint: Savepoint) {
        for (store, len) in self.stores.iter_mut().zip(&savepoint.0) {
            store.undo_to(*len);
        }
        self.release(savepoint);
    }

    /// Keeps all writes since the savepoint.
    pub fn release(&mut self, Savepoint(_): Savepoint) {
        self.savepoints -= 1;
        if self.savepoints == 0 {
            self.stores.iter_mut().for_each(Store::forget_undo);
        }
    }

    /// Bytes of changed entries; past [`StateLimits::changed_bytes`] the transaction should end.
    pub fn changed_bytes(&self) -> usize {
        self.stores.iter().map(Store::changed_bytes).sum()
    }

    /// Whether more is changed than there should be.
    pub fn is_over_limit(&self) -> bool {
        self.changed_bytes() > self.limits.changed_bytes
    }

    /// Whether the open transaction has written something: it ends before the backend takes over what was written.
    pub fn is_open(&self) -> bool {
        self.stores.iter().any(Store::is_open)
    }

    /// Ends the open transaction: what it wrote, by store, each key once. These are its changelog records.
    pub fn end_transaction(&mut self) -> Vec<Changes> {
        self.stores.iter_mut().map(Store::end_transaction).collect()
    }

    /// What the backend has to take over to reflect `position`, that of the transaction that has just ended. At most one such
    /// batch is on its way; `None` while one is. The transaction must be committed before [`TaskState::apply`]; a later one
    /// must not have written anything.
    pub fn take_changes(&mut self, position: Position) -> Option<StateBatch> {
        debug_assert!(
            !self.is_open() || Mutant::OpenTakenOver.is_on(),
            "the backend takes over what is committed, and nothing else"
        );
        if self.on_its_way.is_some() {
            return None;
        }
        let changes: Vec<_> = self.stores.iter().map(Store::changes).collect();
        self.on_its_way = Some(changes.clone());
        Some(StateBatch { changes, position })
    }

    /// Has the backend take over a batch of [`TaskState::take_changes`]. After an error everything is as before, and the same
    /// changes are part of the next batch.
    ///
    /// # Errors
    /// The backend did not take it over.
    pub fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        let changes = self.on_its_way.take().unwrap_or_default();
        self.backend.apply(batch)?;
        for (store, changes) in self.stores.iter_mut().zip(&changes) {
            store.taken_over(changes);
        }
        Ok(())
    }

    /// Makes what the backend has taken over survive a crash.
    ///
    /// # Errors
    /// The disk did not take it.
    pub fn flush(&mut self) -> Result<(), StateError> {
        self.backend.flush()
    }
}

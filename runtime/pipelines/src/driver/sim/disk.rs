//! Stores on the disk of a world: what was not flushed is gone when the process crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::state::{
    Blob, ChangelogPosition, KeyRange, MemoryState, Position as StorePosition, StateBackend, StateBatch,
    StateError, StateReader, StoreIndex, StoreSpec, Visit,
};
use pelton_streams::task::TaskId;

use super::{Content, Shared};
use crate::stores::TaskStores;

/// A store on the disk of the world.
struct DiskState {
    memory: MemoryState,
    world: Shared,
    task: TaskId,
}

impl Drop for DiskState {
    fn drop(&mut self) {
        self.world.lock().opened.remove(&self.task);
    }
}

impl StateBackend for DiskState {
    fn position(&self) -> &StorePosition {
        self.memory.position()
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        self.memory.multi_get(store, keys)
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.memory.range(store, range, visit)
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        {
            let mut world = self.world.lock();
            world.store_fails()?;
            let content = world.stores.get_mut(&self.task).unwrap();
            for (store, changes) in content.stores.iter_mut().zip(&batch.changes) {
                for (key, value) in changes {
                    match value {
                        Some(value) => store.insert(key.clone(), value.clone()),
                        None => store.remove(key),
                    };
                }
            }
            content.position.clone_from(&batch.position);
        }
        self.memory.apply(batch)
    }

    fn flush(&mut self) -> Result<(), StateError> {
        let mut world = self.world.lock();
        world.flushes += 1;
        let content = world.stores[&self.task].clone();
        world.flushed.insert(self.task, content);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.memory.reader()
    }
}

/// Stores on the disk of the world.
pub struct Disk(pub Shared);

impl TaskStores for Disk {
    fn open(&self, _: &str, task: TaskId, specs: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError> {
        let empty = Content {
            stores: vec![BTreeMap::new(); specs.len()],
            position: vec![ChangelogPosition::default(); specs.len()],
        };
        let content = self.0.lock().stores.entry(task).or_insert(empty).clone();
        let mut memory = MemoryState::new(specs.len());
        let all =
            |store: BTreeMap<Blob, Blob>| store.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let changes = content.stores.into_iter().map(all).collect();
        memory.apply(StateBatch { changes, position: content.position })?;
        assert!(self.0.lock().opened.insert(task), "two drivers run {task:?}");
        Ok(Box::new(DiskState { memory, world: Arc::clone(&self.0), task }))
    }

    fn remove(&self, _: &str, task: TaskId) -> Result<(), StateError> {
        let mut world = self.0.lock();
        world.stores.remove(&task);
        world.flushed.remove(&task);
        world.removed += 1;
        Ok(())
    }

    fn remove_all(&self, _: &str) -> Result<(), StateError> {
        unreachable!("it is not deleted")
    }

    fn remove_others(&self, _: &[&str]) -> Result<(), StateError> {
        unreachable!("nothing starts anew")
    }

    fn flush_interval_ms(&self) -> i64 {
        300_000
    }
}

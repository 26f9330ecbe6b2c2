//! Where the tasks of pipelines keep their stores.

use std::path::PathBuf;
use std::sync::Arc;

use pelton_streams::state::{
    MemoryBudget, MemoryState, MixedState, StateBackend, StateError, StateFactory, StoreKind, StoreSpec,
};
use pelton_streams::task::TaskId;

/// Opens and removes the stores of tasks. A store is no more than what its changelog says: it may be behind it, or gone.
pub trait TaskStores: Send + Sync {
    /// The stores of a task, in the order of `stores`; those that are not there are made. Nobody else has them open.
    ///
    /// # Errors
    /// They cannot be opened, or are damaged.
    fn open(
        &self,
        pipeline: &str,
        task: TaskId,
        stores: &[StoreSpec],
    ) -> Result<Box<dyn StateBackend>, StateError>;

    /// Removes the stores of a task, which nobody has open. They are made again from their changelogs.
    ///
    /// # Errors
    /// Something of them may still be there.
    fn remove(&self, pipeline: &str, task: TaskId) -> Result<(), StateError>;

    /// Removes the stores of all tasks of a pipeline, which nobody has open.
    ///
    /// # Errors
    /// Something of them may still be there.
    fn remove_all(&self, pipeline: &str) -> Result<(), StateError>;

    /// Removes the stores of all pipelines but these, which nobody has open.
    ///
    /// # Errors
    /// Something of them may still be there.
    fn remove_others(&self, pipelines: &[&str]) -> Result<(), StateError>;

    /// How often what was taken over is made to survive a crash, in milliseconds. What was not is restored.
    fn flush_interval_ms(&self) -> i64;
}

/// Stores where their specs say: on disk in a directory for each task, below one for each pipeline, or in memory. What is on
/// disk of a store that is in memory now goes.
pub struct DirStores {
    pub factory: Arc<dyn StateFactory>,
    pub dir: PathBuf,
    /// Of the stores in memory.
    pub memory: Arc<MemoryBudget>,
    pub flush_interval_ms: i64,
}

impl DirStores {
    fn dir_of(&self, pipeline: &str, task: TaskId) -> PathBuf {
        self.dir.join(pipeline).join(format!("{}-{}", task.sub_topology, task.partition))
    }
}

impl TaskStores for DirStores {
    fn open(
        &self,
        pipeline: &str,
        task: TaskId,
        stores: &[StoreSpec],
    ) -> Result<Box<dyn StateBackend>, StateError> {
        let dir = self.dir_of(pipeline, task);
        let on_disk: Vec<StoreSpec> =
            stores.iter().filter(|store| store.kind == StoreKind::Rocksdb).cloned().collect();
        let in_memory = stores.len() - on_disk.len();
        if in_memory == 0 {
            return self.factory.open(&dir, stores);
        }
        let memory = MemoryState::within(in_memory, &self.memory);
        if on_disk.is_empty() {
            self.factory.remove(&dir)?;
            return Ok(Box::new(memory));
        }
        Ok(Box::new(MixedState::new(stores, self.factory.open(&dir, &on_disk)?, memory)))
    }

    fn remove(&self, pipeline: &str, task: TaskId) -> Result<(), StateError> {
        self.factory.remove(&self.dir_of(pipeline, task))
    }

    fn remove_all(&self, pipeline: &str) -> Result<(), StateError> {
        self.factory.remove(&self.dir.join(pipeline))
    }

    fn remove_others(&self, pipelines: &[&str]) -> Result<(), StateError> {
        // No pipeline is called like what begins so: tables are there.
        let is_of_none = |name: &String| !name.starts_with('@') && !pipelines.contains(&name.as_str());
        let mut others = self.factory.list(&self.dir)?.into_iter().filter(is_of_none);
        others.try_for_each(|name| self.factory.remove(&self.dir.join(name)))
    }

    fn flush_interval_ms(&self) -> i64 {
        self.flush_interval_ms
    }
}

/// Stores in memory, whatever their specs say: each start of a task makes them again from their changelogs.
#[derive(Debug, Clone)]
pub struct MemoryStores {
    pub memory: Arc<MemoryBudget>,
}

impl Default for MemoryStores {
    /// As much memory as there is.
    fn default() -> MemoryStores {
        MemoryStores { memory: MemoryBudget::new(u64::MAX) }
    }
}

impl TaskStores for MemoryStores {
    fn open(&self, _: &str, _: TaskId, stores: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError> {
        Ok(Box::new(MemoryState::within(stores.len(), &self.memory)))
    }

    fn remove(&self, _: &str, _: TaskId) -> Result<(), StateError> {
        Ok(())
    }

    fn remove_all(&self, _: &str) -> Result<(), StateError> {
        Ok(())
    }

    fn remove_others(&self, _: &[&str]) -> Result<(), StateError> {
        Ok(())
    }

    fn flush_interval_ms(&self) -> i64 {
        i64::MAX
    }
}

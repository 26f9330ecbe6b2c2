//! Where the tasks of pipelines keep their stores.

use pelton_streams::state::{MemoryState, StateBackend, StateError, StoreSpec};
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
}

/// Stores in memory: each start of a task makes them again from their changelogs.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStores;

impl TaskStores for MemoryStores {
    fn open(&self, _: &str, _: TaskId, stores: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError> {
        Ok(Box::new(MemoryState::new(stores.len())))
    }

    fn remove(&self, _: &str, _: TaskId) -> Result<(), StateError> {
        Ok(())
    }
}

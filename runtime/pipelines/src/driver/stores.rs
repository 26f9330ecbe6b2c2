//! The stores of a driver's tasks while they run: they take over what is committed, and are flushed. `restore` brings them to
//! where they are then.
//!
//! Changes go into the changelogs with the outputs and offsets of a commit; the stores take them over only when the commit is
//! durable, with the end of the changelogs as their position. So a store holds what a prefix of its changelog says, whatever
//! crashes when: it is never ahead.

use pelton_commitlog::mutant::Mutant;
use pelton_streams::state::{Position, StateBatch, StateError, StateLimits};
use pelton_streams::task::TaskId;
use pelton_streams::topology::{StoreUse, SubTopology};

use super::{Driver, DriverError, DriverTask, TaskPosition};
use crate::readers::{Offsets, StateReaders};

/// Clean entries that all stores of a pipeline keep in memory.
const CACHE_BYTES: u64 = 256 << 20;
/// Changed entries of all stores of a pipeline past which they take over what is committed, as Kafka's
/// `statestore.uncommitted.max.bytes` of a thread.
const CHANGED_BYTES: usize = 64 << 20;
/// How often stores take over what is committed, unless too much is changed.
const TAKE_OVER_MS: i64 = 1_000;
/// How often stores that have nothing to take over say that they have all there is.
const CAUGHT_UP_MS: i64 = 300_000;

/// When stores did what they do from time to time.
pub(super) struct StoreTimes {
    took_over_ms: i64,
    flushed_ms: i64,
}

impl StoreTimes {
    pub(super) fn new(now_ms: i64) -> StoreTimes {
        StoreTimes { took_over_ms: now_ms, flushed_ms: now_ms }
    }
}

/// The ends of the transactions of all tasks' stores.
#[derive(Default)]
pub(super) struct EndedTransactions {
    /// Changelogs were written.
    pub(super) wrote: bool,
    /// What is to be taken over once the commit is durable.
    pub(super) take_over: Vec<(TaskId, StateBatch)>,
}

impl Driver<'_> {
    /// Has every task's changes of this transaction written into its changelogs.
    pub(super) fn end_store_transactions(&mut self) -> Result<EndedTransactions, DriverError> {
        let now_ms = self.now_ms();
        let wrote = self.stores_are_open();
        let mut ended = Vec::new();
        for task in &mut self.tasks {
            let id = task.task.id();
            let failed = |error| DriverError::State { task: id, error };
            task.task.end_transaction(&mut *self.io).map_err(failed)?;
            if task.task.stores().is_some() {
                ended.push(id);
            }
        }
        if ended.is_empty() {
            return Ok(EndedTransactions::default());
        }
        self.io.flush()?;
        let due = now_ms.saturating_sub(self.store_times.took_over_ms) >= TAKE_OVER_MS;
        let take_over = if due || self.stores_are_full() { self.take_changes(ended)? } else { Vec::new() };
        Ok(EndedTransactions { wrote, take_over })
    }

    /// What the stores of tasks have to take over to be at the ends of their changelogs.
    fn take_changes(&mut self, tasks: Vec<TaskId>) -> Result<Vec<(TaskId, StateBatch)>, DriverError> {
        self.store_times.took_over_ms = self.now_ms();
        let mut batches = Vec::new();
        for id in tasks {
            let position = self.changelog_position(id)?;
            let Some(task) = self.tasks.iter_mut().find(|task| task.task.id() == id) else { continue };
            let batch = task.task.stores().and_then(|stores| stores.take_changes(position));
            let Some(batch) = batch else { continue };
            task.tell(self.gates.readers(), &batch.position);
            batches.push((id, batch));
        }
        Ok(batches)
    }

    /// Tells readers of a task's stores what those reflect, if all that was read is in them: it may have changed nothing.
    pub(super) fn tell_readers(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        let Some(stores) = task.task.stores().filter(|stores| stores.changed_bytes() == 0) else { return };
        let position = stores.position().clone();
        if task.tell(self.gates.readers(), &position) {
            self.gates.readers().moved();
        }
    }

    /// Everything is committed: stores take over what they have not. One that has nothing to take over says from time to time,
    /// and at the `end`, that it has all there is: it was not away.
    pub(super) fn catch_up_stores(&mut self, end: bool) -> Result<(), DriverError> {
        let all = end || self.now_ms().saturating_sub(self.store_times.took_over_ms) >= CAUGHT_UP_MS;
        (0..self.tasks.len()).for_each(|index| self.tell_readers(index));
        let behind = self.tasks.iter_mut().filter_map(|task| {
            let id = task.task.id();
            task.task.stores().filter(|stores| all || stores.changed_bytes() > 0).map(|_| id)
        });
        let behind: Vec<TaskId> = behind.collect();
        if behind.is_empty() {
            return Ok(());
        }
        let batches = self.take_changes(behind)?;
        self.take_over(batches)
    }

    /// Where the changelogs of a task end now: nobody else writes to them.
    fn changelog_position(&self, id: TaskId) -> Result<Position, DriverError> {
        let graph = self.spec.topology.sub_topologies[id.sub_topology].graph.as_ref();
        let stores = graph.map(|graph| &graph.stores[..]).unwrap_or_default();
        let now_ms = self.now_ms();
        let position = |store: &StoreUse| {
            let ends = self.io.changelog(store.changelog, id.partition)?;
            Ok(ends.position(ends.end, now_ms))
        };
        stores.iter().map(position).collect()
    }

    /// The commit is durable: stores take over what it has changed.
    pub(super) fn take_over(&mut self, batches: Vec<(TaskId, StateBatch)>) -> Result<(), DriverError> {
        for (id, batch) in batches {
            let task = self.tasks.iter_mut().find(|task| task.task.id() == id);
            let Some(stores) = task.and_then(|task| task.task.stores()) else { continue };
            stores.apply(batch).map_err(|error| DriverError::State { task: id, error })?;
            self.gates.readers().moved();
        }
        Ok(())
    }

    /// Flushes stores if that is due, or `now`.
    pub(super) fn flush_stores(&mut self, now: bool) -> Result<(), DriverError> {
        let now_ms = self.now_ms();
        let interval_ms = self.spec.stores.flush_interval_ms();
        if !now && now_ms.saturating_sub(self.store_times.flushed_ms) < interval_ms {
            return Ok(());
        }
        self.store_times.flushed_ms = now_ms;
        for task in &mut self.tasks {
            let id = task.task.id();
            if let Some(stores) = task.task.stores() {
                stores.flush().map_err(|error| DriverError::State { task: id, error })?;
            }
        }
        Ok(())
    }

    /// Stores were written since their last transaction ended.
    pub(super) fn stores_are_open(&mut self) -> bool {
        self.tasks.iter_mut().filter_map(|task| task.task.stores()).any(|stores| stores.is_open())
    }

    /// More is changed than should be: the transaction must end.
    pub(super) fn stores_are_full(&mut self) -> bool {
        let stores = self.tasks.iter_mut().filter_map(|task| task.task.stores());
        let changed = stores.map(|stores| (stores.changed_bytes(), stores.is_over_limit()));
        let (bytes, over) =
            changed.fold((0, false), |(bytes, any), (more, over)| (bytes + more, any || over));
        over || bytes > CHANGED_BYTES
    }

    /// Memory of one task's stores: all of the driver's share what there is.
    pub(super) fn state_limits(&self) -> StateLimits {
        let topology = &self.spec.topology;
        let stores_of = |sub: &SubTopology| {
            let stores = sub.graph.as_ref().map_or(0, |graph| graph.stores.len() as u64);
            let partitions = sub.sources.iter().map(|source| self.sources[*source]).max().unwrap_or(0);
            stores * u64::from(partitions)
        };
        let stores: u64 = topology.sub_topologies.iter().map(stores_of).sum();
        let limits = StateLimits::default();
        StateLimits { cache_bytes: limits.cache_bytes.min(CACHE_BYTES / stores.max(1)), ..limits }
    }

    /// Stores that are damaged are removed: the next driver makes them again. They are closed before.
    pub(super) fn remove_damaged(&mut self, error: &DriverError) {
        let DriverError::State { task, error: StateError::Corrupt(_) } = error else { return };
        self.gates.close_all();
        self.tasks.clear();
        if Mutant::DamagedKept.is_on() {
            return;
        }
        if let Err(error) = self.spec.stores.remove(&self.spec.topology.name, *task) {
            self.say(
                pelton_streams::log::LogLevel::Error,
                &format!("a damaged store cannot be removed: {error}"),
            );
        }
    }
}

impl DriverTask {
    /// Up to which offset of each input all that was read has been done.
    fn reflected(&mut self) -> Vec<i64> {
        // A store that cannot be read is found out by the next step.
        if !self.task.is_behind().unwrap_or(true) {
            return self.inputs.iter().map(|input| input.next_offset).collect();
        }
        let (told, _) = &self.told;
        // Of a task that begins behind nobody knows which record that is of.
        if told.len() == self.inputs.len() { told.clone() } else { vec![0; self.inputs.len()] }
    }

    /// Tells readers which offsets the stores reflect at this position: all that was read, unless a part of the last record waits.
    /// Whether that is news.
    fn tell(&mut self, readers: &StateReaders, position: &Position) -> bool {
        let offsets = self.reflected();
        let (told, at) = &self.told;
        if offsets == *told && at == position {
            return false;
        }
        let mut inputs = Offsets::new();
        for (TaskPosition { topic, input, .. }, offset) in self.inputs.iter().zip(&offsets) {
            inputs.entry(topic.clone()).or_default().insert(input.partition, *offset);
        }
        self.told = (offsets, position.clone());
        readers.reflect(self.task.id(), position, inputs);
        true
    }
}

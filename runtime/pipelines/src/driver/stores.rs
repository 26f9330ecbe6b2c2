//! The stores of a driver's tasks: brought up to the end of their changelogs before the task runs, taken over what is
//! committed, and flushed.
//!
//! Changes go into the changelogs with the outputs and offsets of a commit; the stores take them over only when the commit is
//! durable, with the end of the changelogs as their position. So a store holds what a prefix of its changelog says, whatever
//! crashes when: it is never ahead. A driver that begins restores the rest, up to the end that the changelog has once the
//! earlier driver's transaction is decided, and then goes on at the committed offsets, which were committed with it.

use std::collections::BTreeMap;

use pelton_commitlog::mutant::Mutant;
use pelton_streams::BatchIn;
use pelton_streams::state::{
    Blob, ChangelogPosition, Changes, MemoryState, Position, StateBackend, StateBatch, StateError,
    StateLimits,
};
use pelton_streams::task::TaskId;
use pelton_streams::topology::{Graph, StoreUse, SubTopology};
use pelton_wire::record::Columns;

use super::{Driver, DriverError, DriverTask, TaskPosition};
use crate::io::ChangelogEnds;
use crate::readers::{Offsets, OpenGates};
use crate::status::StoreStatus;

/// Clean entries that all stores of a pipeline keep in memory.
const CACHE_BYTES: u64 = 256 << 20;
/// Changed entries of all stores of a pipeline past which they take over what is committed, as Kafka's
/// `statestore.uncommitted.max.bytes` of a thread.
const CHANGED_BYTES: usize = 64 << 20;
/// Memory of changes that are restored at once.
const CHUNK_BYTES: usize = 32 << 20;
/// What a change costs besides its bytes: two reference counts, and its place in the map.
const CHANGE_BYTES: usize = 96;
/// Chunks of fewer keys are written as a transaction is: they are not worth a file of their own.
const SMALL_CHUNK: usize = 10_000;
/// How long a wait for the changelog's end to become readable takes before the stop signal is looked at again.
const WAIT_MS: u64 = 100;
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

/// The changes of a changelog's records, the last one of each key.
#[derive(Default)]
struct Chunk {
    changes: BTreeMap<Blob, Option<Blob>>,
    bytes: usize,
}

impl Chunk {
    fn take(&mut self, records: &Columns) {
        for record in BatchIn::new("", 0, records).records() {
            // Every change has a key.
            let Some(key) = record.key else { continue };
            self.bytes += key.len() + record.value.map_or(0, <[u8]>::len) + CHANGE_BYTES;
            self.changes.insert(Blob::from(key), record.value.map(Blob::from));
        }
    }
}

impl Driver<'_> {
    /// The stores of a task as its changelogs have them.
    pub(super) fn open_stores(
        &mut self,
        id: TaskId,
        graph: &Graph,
    ) -> Result<Box<dyn StateBackend>, DriverError> {
        let specs = graph.store_specs();
        if specs.is_empty() {
            return Ok(Box::new(MemoryState::new(0)));
        }
        let failed = |error| DriverError::State { task: id, error };
        let open = || self.spec.stores.open(&self.spec.topology.name, id, &specs).map_err(failed);
        let mut backend = open()?;
        let ends = graph.stores.iter().map(|store| self.io.changelog(store.changelog, id.partition));
        let ends = ends.collect::<Result<Vec<ChangelogEnds>, _>>()?;
        let now_ms = self.now_ms();
        let stale = graph.stores.iter().zip(backend.position()).zip(&ends);
        let stale =
            stale.filter_map(|((store, position), ends)| Some((store, why_useless(position, ends, now_ms)?)));
        let stale = stale.filter(|_| !Mutant::RestoreSkipped.is_on());
        if let Some((store, why)) = stale.map(|(store, why)| (store.spec.name.clone(), why)).next() {
            let partition = id.partition;
            self.say(
                pelton_streams::log::LogLevel::Warn,
                &format!("store {store}, partition {partition}: {why}; it is made again from its changelog"),
            );
            drop(backend);
            self.spec.stores.remove(&self.spec.topology.name, id).map_err(failed)?;
            backend = open()?;
        }
        for (index, (store, ends)) in graph.stores.iter().zip(&ends).enumerate() {
            if Mutant::RestoreSkipped.is_on() {
                continue;
            }
            self.restore(id, (index, store), *ends, &mut *backend)?;
        }
        Ok(backend)
    }

    /// Brings one store up to the end of its changelog.
    fn restore(
        &mut self,
        task: TaskId,
        (index, store): (usize, &StoreUse),
        ends: ChangelogEnds,
        backend: &mut dyn StateBackend,
    ) -> Result<(), DriverError> {
        let partition = task.partition;
        let found = backend.position()[index];
        let from = found.offset.max(ends.start);
        // Until the store has all there is, it is as old as it was when it last had that, or as its first record.
        let old_ms = if found.offset == 0 { self.now_ms() } else { found.caught_up_ms };
        let (mut next, mut restored) = (from, 0);
        let (mut chunk, mut records) = (Chunk::default(), Columns::new());
        while next < ends.end {
            if self.spec.stop.is_set() {
                return Err(DriverError::Stopped);
            }
            records.clear();
            let filled = self.io.fill_changelog(store.changelog, partition, next, &mut records)?;
            if filled.next_offset == next && Mutant::RestoreEndsEarly.is_on() {
                break;
            }
            if filled.next_offset == next {
                // Its last records are decided, and not durable yet.
                self.io.wait_changelog(store.changelog, partition, next, WAIT_MS);
                continue;
            }
            chunk.take(&records);
            restored += records.len() as u64;
            next = filled.next_offset;
            if chunk.bytes >= CHUNK_BYTES || next >= ends.end {
                let is_fresh = next >= ends.end || Mutant::HalfRestoreFresh.is_on();
                let caught_up_ms = if is_fresh { self.now_ms() } else { old_ms };
                let position = ends.position(next, caught_up_ms);
                take_chunk(backend, index, std::mem::take(&mut chunk), position)
                    .map_err(|error| DriverError::State { task, error })?;
            }
            self.show_store(
                store,
                partition,
                StoreStatus {
                    restoring: next < ends.end,
                    restored,
                    next,
                    end: ends.end,
                    ..StoreStatus::default()
                },
            );
        }
        let done = StoreStatus { restoring: false, restored, next, end: ends.end, ..StoreStatus::default() };
        self.show_store(store, partition, done);
        Ok(())
    }

    fn show_store(&self, store: &StoreUse, partition: i32, status: StoreStatus) {
        let changelog = self.spec.topology.outputs[store.changelog].topic.clone();
        self.spec.board.set_store(StoreStatus {
            store: store.spec.name.clone(),
            partition,
            changelog,
            ..status
        });
    }

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
            task.tell(&self.gates, &batch.position);
            batches.push((id, batch));
        }
        Ok(batches)
    }

    /// Tells readers of a task's stores what those reflect, if all that was read is in them: it may have changed nothing.
    pub(super) fn tell_readers(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        let Some(stores) = task.task.stores().filter(|stores| stores.changed_bytes() == 0) else { return };
        let position = stores.position().clone();
        if task.tell(&self.gates, &position) {
            self.gates.0.moved();
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
            self.gates.0.moved();
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
        self.gates.0.close_all();
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
    /// Tells readers which offsets the stores reflect at this position: all that was read. Whether that is news.
    fn tell(&mut self, gates: &OpenGates, position: &Position) -> bool {
        let offsets = self.inputs.iter().map(|input| input.next_offset);
        let (told, at) = &self.told;
        if offsets.clone().eq(told.iter().copied()) && at == position {
            return false;
        }
        self.told = (offsets.collect(), position.clone());
        let mut inputs = Offsets::new();
        for TaskPosition { topic, input, next_offset, .. } in &self.inputs {
            inputs.entry(topic.clone()).or_default().insert(input.partition, *next_offset);
        }
        gates.0.reflect(self.task.id(), position, inputs);
        true
    }
}

/// Why what a store has is of no use; none if the rest of the changelog brings it up to its end.
fn why_useless(position: &ChangelogPosition, ends: &ChangelogEnds, now_ms: i64) -> Option<String> {
    let ChangelogPosition { topic_id, offset, caught_up_ms } = *position;
    if offset == 0 {
        return None;
    }
    if topic_id != ends.topic_id && !Mutant::OtherChangelogTrusted.is_on() {
        return Some("its changelog was created again".to_owned());
    }
    if offset > ends.end {
        return Some(format!("it is at offset {offset} of its changelog, which ends at {}", ends.end));
    }
    if offset < ends.start {
        return Some(format!("it is at offset {offset} of its changelog, which starts at {}", ends.start));
    }
    let away_ms = now_ms.saturating_sub(caught_up_ms);
    if away_ms > ends.delete_retention_ms && !Mutant::AbsenceIgnored.is_on() {
        let kept = ends.delete_retention_ms;
        return Some(format!(
            "it was away for {away_ms} ms, and the changelog keeps what says that a key is deleted for {kept} ms"
        ));
    }
    None
}

fn take_chunk(
    backend: &mut dyn StateBackend,
    store: usize,
    chunk: Chunk,
    position: ChangelogPosition,
) -> Result<(), StateError> {
    let is_small = chunk.changes.len() < SMALL_CHUNK;
    let mut positions = backend.position().clone();
    let mut changes: Vec<Changes> = vec![Vec::new(); positions.len()];
    positions[store] = position;
    changes[store] = chunk.changes.into_iter().collect();
    let batch = StateBatch { changes, position: positions };
    if is_small { backend.apply(batch) } else { backend.restore(batch) }
}

//! Brings the stores of a task up to the end of their changelogs before it runs.
//!
//! A driver that begins restores what a store does not have, up to the end that the changelog has once the earlier driver's
//! transaction is decided, and then goes on at the committed offsets, which were committed with it. A store that cannot be
//! brought there is removed and made again.
//!
//! Changes are read into chunks. What fits into one is taken over by the driver itself; of a longer restore one thread reads
//! and another one sorts and takes over, so there are two chunks at the most. Other lanes go on meanwhile.
//!
//! A changelog keeps what says that a key is deleted for `delete.retention.ms`. A reader that takes longer than that from a
//! key's last value to its deletion may never see the deletion: so a store that was not at the end for longer is not trusted,
//! when it is opened or while it is restored.

use std::sync::mpsc::{channel, sync_channel};

use pelton_commitlog::mutant::Mutant;
use pelton_streams::BatchIn;
use pelton_streams::log::LogLevel;
use pelton_streams::state::{
    ChangelogPosition, MemoryState, Restored, StateBackend, StateError, StoreSpec, late_restore,
};
use pelton_streams::task::TaskId;
use pelton_streams::topology::{Graph, StoreUse};
use pelton_wire::record::Columns;

use super::{Driver, DriverError};
use crate::io::ChangelogEnds;
use crate::status::StoreStatus;

/// Memory of changes that are restored at once.
const CHUNK_BYTES: usize = 32 << 20;
/// How long a wait for the changelog's end to become readable takes before the stop signal is looked at again.
const WAIT_MS: u64 = 100;

/// One store that is being restored.
struct Restore<'t> {
    task: TaskId,
    index: usize,
    store: &'t StoreUse,
    ends: ChangelogEnds,
    /// Where the changelog is read next.
    next: i64,
    /// Changes that were read.
    restored: u64,
    /// Until the store has all there is, it is as old as it was when it last had that, or as its first record.
    old_ms: i64,
    records: Columns,
}

impl Restore<'_> {
    fn is_read(&self) -> bool {
        self.next >= self.ends.end
    }

    /// Where the store is with what was read.
    fn position(&self, now_ms: i64) -> ChangelogPosition {
        let is_fresh = self.is_read() || Mutant::HalfRestoreFresh.is_on();
        self.ends.position(self.next, if is_fresh { now_ms } else { self.old_ms })
    }

    fn status(&self, restoring: bool) -> StoreStatus {
        let (restored, next, end) = (self.restored, self.next, self.ends.end);
        StoreStatus { restoring, restored, next, end, ..StoreStatus::default() }
    }

    /// For how long it was not at the end of its changelog, if that is too long.
    fn too_slow(&self, now_ms: i64) -> Option<i64> {
        late_restore(self.old_ms, self.ends.delete_retention_ms, now_ms)
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
        loop {
            let mut backend = self.open_those_that_fit(id, graph, &specs)?;
            let Some((store, why)) = self.restore_all(id, graph, &mut *backend)? else { return Ok(backend) };
            drop(backend);
            self.make_again(id, &store, &why)?;
        }
    }

    /// The stores of a task; if one of them is of no use, all of them are empty.
    fn open_those_that_fit(
        &mut self,
        id: TaskId,
        graph: &Graph,
        specs: &[StoreSpec],
    ) -> Result<Box<dyn StateBackend>, DriverError> {
        let failed = |error| DriverError::State { task: id, error };
        let backend = self.spec.stores.open(&self.spec.topology.name, id, specs).map_err(failed)?;
        let now_ms = self.now_ms();
        let mut useless = None;
        for (store, position) in graph.stores.iter().zip(backend.position()) {
            let ends = self.io.changelog(store.changelog, id.partition)?;
            let why = why_useless(position, &ends, now_ms).filter(|_| !Mutant::RestoreSkipped.is_on());
            useless = useless.or(why.map(|why| (store.spec.name.clone(), why)));
        }
        let Some((store, why)) = useless else { return Ok(backend) };
        drop(backend);
        self.make_again(id, &store, &why)?;
        self.spec.stores.open(&self.spec.topology.name, id, specs).map_err(failed)
    }

    /// Removes the stores of a task, which are not open.
    fn make_again(&self, id: TaskId, store: &str, why: &str) -> Result<(), DriverError> {
        let partition = id.partition;
        let text =
            format!("store {store}, partition {partition}: {why}; it is made again from its changelog");
        self.say(LogLevel::Warn, &text);
        let removed = self.spec.stores.remove(&self.spec.topology.name, id);
        removed.map_err(|error| DriverError::State { task: id, error })
    }

    /// Brings all stores of a task up to the ends of their changelogs; which one must be made again, and why, if that took too
    /// long.
    fn restore_all(
        &mut self,
        task: TaskId,
        graph: &Graph,
        backend: &mut dyn StateBackend,
    ) -> Result<Option<(String, String)>, DriverError> {
        for (index, store) in graph.stores.iter().enumerate() {
            if Mutant::RestoreSkipped.is_on() {
                continue;
            }
            let (ends, now_ms) = (self.io.changelog(store.changelog, task.partition)?, self.now_ms());
            let found = backend.position()[index];
            let old_ms = if found.offset == 0 { now_ms } else { found.caught_up_ms };
            let next = found.offset.max(ends.start);
            let records = Columns::new();
            let mut restore = Restore { task, index, store, ends, next, restored: 0, old_ms, records };
            if let Some(took_ms) = self.restore(&mut restore, backend)? {
                let kept_ms = ends.delete_retention_ms;
                let why = format!(
                    "it was behind its changelog for {took_ms} ms, and that keeps what says that a key is deleted for {kept_ms} ms"
                );
                return Ok(Some((store.spec.name.clone(), why)));
            }
            self.show_store(store, task.partition, restore.status(false));
        }
        Ok(None)
    }

    /// Brings one store up to the end of its changelog; how long that took, if it was too long.
    fn restore(
        &mut self,
        restore: &mut Restore<'_>,
        backend: &mut dyn StateBackend,
    ) -> Result<Option<i64>, DriverError> {
        if restore.is_read() {
            return Ok(None);
        }
        let (task, index) = (restore.task, restore.index);
        let failed = |error| DriverError::State { task, error };
        let mut chunk = Restored::default();
        self.fill_chunk(restore, &mut chunk)?;
        if restore.is_read() {
            let now_ms = self.now_ms();
            if let Some(took_ms) = restore.too_slow(now_ms) {
                return Ok(Some(took_ms));
            }
            chunk.sort();
            backend.restore_store(index, &chunk, restore.position(now_ms)).map_err(failed)?;
            return Ok(None);
        }
        std::thread::scope(|scope| {
            let (filled, to_take) = sync_channel::<(Restored, ChangelogPosition)>(0);
            let (taken, empty) = channel();
            let take = move || -> Result<(), StateError> {
                for (mut chunk, position) in to_take {
                    chunk.sort();
                    backend.restore_store(index, &chunk, position)?;
                    chunk.clear();
                    if taken.send(chunk).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let thread = std::thread::Builder::new().name("restore".to_owned()).spawn_scoped(scope, take);
            let thread = thread.map_err(|error| {
                failed(StateError::Storage(format!("a thread for the restore does not start: {error}")))
            })?;
            let mut slow;
            loop {
                let now_ms = self.now_ms();
                slow = restore.too_slow(now_ms);
                // It ends early if it fails, and says why below.
                if slow.is_some()
                    || filled.send((chunk, restore.position(now_ms))).is_err()
                    || restore.is_read()
                {
                    break;
                }
                chunk = empty.try_recv().unwrap_or_default();
                self.fill_chunk(restore, &mut chunk)?;
            }
            drop(filled);
            let ended = match thread.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            ended.map_err(failed)?;
            Ok(slow)
        })
    }

    /// Reads until a chunk is full, or there is no more.
    fn fill_chunk(&mut self, restore: &mut Restore<'_>, chunk: &mut Restored) -> Result<(), DriverError> {
        let (changelog, partition) = (restore.store.changelog, restore.task.partition);
        while !restore.is_read() && chunk.memory() < CHUNK_BYTES {
            if self.spec.stop.is_set() {
                return Err(DriverError::Stopped);
            }
            let Restore { records, next, .. } = restore;
            records.clear();
            let filled = self.io.fill_changelog(changelog, partition, *next, records)?;
            if filled.next_offset == *next && Mutant::RestoreEndsEarly.is_on() {
                restore.next = restore.ends.end;
                return Ok(());
            }
            if filled.next_offset == *next {
                // Its last records are decided, and not durable yet.
                self.io.wait_changelog(changelog, partition, *next, WAIT_MS);
                continue;
            }
            for record in BatchIn::new("", 0, records).records() {
                // Every change has a key.
                let Some(key) = record.key else { continue };
                if !chunk.push(key, record.value) {
                    let error = StateError::Storage(format!("a change of {} bytes is too large", key.len()));
                    return Err(DriverError::State { task: restore.task, error });
                }
            }
            restore.restored += restore.records.len() as u64;
            restore.next = filled.next_offset;
            self.show_store(restore.store, partition, restore.status(!restore.is_read()));
        }
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

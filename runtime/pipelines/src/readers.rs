//! The stores of a running pipeline for readers on other threads: what its tasks have taken over of what is committed, and
//! which offsets of their inputs that reflects.
//!
//! A store is read between its owner's batches, and each batch has its place in the changelog inside. The owner notes which
//! input offsets belong to a place before it applies the batch, so what a reader sees is exactly what the records up to the
//! offsets it is told make. A reader is in the gate of its task while it reads: the owner that closes the stores waits for it,
//! so that nobody has a database open that is about to be opened again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use pelton_commitlog::mutant::Mutant;
use pelton_streams::state::{Position, StateError, StateReader, StateSize, StateView};
use pelton_streams::task::TaskId;
use tokio::sync::watch;

/// Places of a changelog whose offsets are remembered: that of a view that was just made, and of the batches after it.
const REMEMBERED: usize = 8;
/// How often a view is made again that is older than all of them.
const TRIES: usize = 16;

/// The offsets behind the last records that a store reflects: by topic and partition.
pub type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// See the module. One for each start of a pipeline.
pub struct StateReaders {
    tasks: RwLock<BTreeMap<TaskId, Arc<Gate>>>,
    /// Moves with everything that somebody may wait for.
    moved: watch::Sender<u64>,
    /// Moves before stores are closed: who reads for long ends then.
    closing: watch::Sender<u64>,
}

/// One task's stores.
struct Gate {
    /// None once they are closed.
    reader: RwLock<Option<Arc<dyn StateReader>>>,
    reflected: Mutex<VecDeque<Reflected>>,
}

/// What a place of the changelogs reflects.
struct Reflected {
    /// The offset of each store's changelog.
    place: Vec<i64>,
    inputs: Offsets,
}

fn place_of(position: &Position) -> Vec<i64> {
    position.iter().map(|one| one.offset).collect()
}

impl Default for StateReaders {
    fn default() -> StateReaders {
        let moves = || watch::Sender::new(0);
        StateReaders { tasks: RwLock::default(), moved: moves(), closing: moves() }
    }
}

impl StateReaders {
    /// A task's stores are open.
    pub(crate) fn open(&self, task: TaskId, reader: Arc<dyn StateReader>) {
        let gate = Gate { reader: RwLock::new(Some(reader)), reflected: Mutex::default() };
        self.tasks.write().insert(task, Arc::new(gate));
    }

    /// Stores at this place of their changelogs reflect these offsets of their inputs.
    pub(crate) fn reflect(&self, task: TaskId, position: &Position, inputs: Offsets) {
        let Some(gate) = self.gate(task) else { return };
        let mut reflected = gate.reflected.lock();
        let place = place_of(position);
        match reflected.back_mut().filter(|last| last.place == place) {
            Some(last) => last.inputs = inputs,
            None => {
                if reflected.len() == REMEMBERED {
                    reflected.pop_front();
                }
                reflected.push_back(Reflected { place, inputs });
            }
        }
    }

    /// The stores may be further now.
    pub(crate) fn moved(&self) {
        self.moved.send_modify(|moved| *moved = moved.wrapping_add(1));
    }

    /// A task's stores are about to be closed. Returns when nobody reads them.
    pub(crate) fn close(&self, task: TaskId) {
        let gate = self.tasks.write().remove(&task);
        if let Some(gate) = gate {
            if !Mutant::SlowReaderWaitedFor.is_on() {
                self.closing.send_modify(|closing| *closing = closing.wrapping_add(1));
            }
            *gate.reader.write() = None;
        }
        self.moved();
    }

    /// Tells when the stores are further, are opened or closed.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Tells before stores are closed.
    pub(crate) fn closing(&self) -> watch::Receiver<u64> {
        self.closing.subscribe()
    }

    fn gate(&self, task: TaskId) -> Option<Arc<Gate>> {
        self.tasks.read().get(&task).cloned()
    }

    /// Whether a task's stores can be read.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn has(&self, task: TaskId) -> bool {
        self.tasks.read().contains_key(&task)
    }

    /// Has `read` look at a task's stores, and the offsets that they reflect; none if they are not open. The owner of the
    /// stores can be held up meanwhile.
    pub(crate) fn read<T>(
        &self,
        task: TaskId,
        read: impl FnOnce(&dyn StateView, &Offsets) -> Result<T, StateError>,
    ) -> Option<Result<T, StateError>> {
        self.read_as(task, false, read)
    }

    /// The same for who reads for long: the owner is not held up, unless it closes the stores. Whoever reads ends soon once
    /// [`StateReaders::closing`] moves.
    pub(crate) fn read_for_long<T>(
        &self,
        task: TaskId,
        read: impl FnOnce(&dyn StateView, &Offsets) -> Result<T, StateError>,
    ) -> Option<Result<T, StateError>> {
        self.read_as(task, true, read)
    }

    fn read_as<T>(
        &self,
        task: TaskId,
        for_long: bool,
        read: impl FnOnce(&dyn StateView, &Offsets) -> Result<T, StateError>,
    ) -> Option<Result<T, StateError>> {
        let gate = self.gate(task)?;
        let reader = gate.reader.read();
        let reader = reader.as_ref()?;
        for _ in 0..TRIES {
            let view = match if for_long { reader.pinned() } else { reader.view() } {
                Ok(view) => view,
                Err(error) => return Some(Err(error)),
            };
            let place = place_of(view.position());
            let inputs = {
                let reflected = gate.reflected.lock();
                let found = reflected.iter().rev().find(|one| one.place == place);
                found.map(|one| one.inputs.clone())
            };
            if let Some(inputs) = inputs {
                return Some(read(&*view, &inputs));
            }
        }
        Some(Err(StateError::Storage("the store goes on faster than it can be read".to_owned())))
    }

    /// What a store of a task takes; none if it is not open.
    pub(crate) fn size(&self, task: TaskId, store: usize) -> Option<StateSize> {
        let gate = self.gate(task)?;
        let reader = gate.reader.read();
        reader.as_ref()?.store_size(store).ok()
    }
}

impl StateReaders {
    /// What a store takes in each task of a sub-topology that is open.
    pub fn sizes(&self, sub_topology: usize, store: usize) -> Vec<StateSize> {
        let mut tasks: Vec<TaskId> = self.tasks.read().keys().copied().collect();
        tasks.retain(|task| task.sub_topology == sub_topology);
        tasks.into_iter().filter_map(|task| self.size(task, store)).collect()
    }
}

/// The gates that one driver has opened, which are closed when it ends, however it does.
pub(crate) struct OpenGates {
    readers: Arc<StateReaders>,
    tasks: Vec<TaskId>,
}

impl OpenGates {
    pub(crate) fn new(readers: Arc<StateReaders>) -> OpenGates {
        OpenGates { readers, tasks: Vec::new() }
    }

    pub(crate) fn readers(&self) -> &StateReaders {
        &self.readers
    }

    /// A task's stores are open.
    pub(crate) fn open(&mut self, task: TaskId, reader: Arc<dyn StateReader>) {
        self.readers.open(task, reader);
        self.tasks.push(task);
    }

    /// A task's stores are about to be closed. Returns when nobody reads them.
    pub(crate) fn close(&mut self, task: TaskId) {
        self.readers.close(task);
        self.tasks.retain(|open| *open != task);
    }

    /// All of them are.
    pub(crate) fn close_all(&mut self) {
        std::mem::take(&mut self.tasks).into_iter().for_each(|task| self.readers.close(task));
    }
}

impl Drop for OpenGates {
    fn drop(&mut self) {
        self.close_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use pelton_streams::state::{Blob, ChangelogPosition, MemoryState, StateBackend, StateBatch};

    use super::*;

    const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

    fn at(offset: i64) -> Position {
        vec![ChangelogPosition { offset, ..ChangelogPosition::default() }]
    }

    fn inputs(offset: i64) -> Offsets {
        BTreeMap::from([("in".to_owned(), BTreeMap::from([(0, offset)]))])
    }

    fn batch(offset: i64) -> StateBatch {
        let value = Some(Blob::from(&offset.to_be_bytes()[..]));
        StateBatch { changes: vec![vec![(Blob::from(&b"k"[..]), value)]], position: at(offset) }
    }

    fn seen(readers: &StateReaders) -> Option<(Option<i64>, Offsets)> {
        let read = |view: &dyn StateView, inputs: &Offsets| {
            let value = view.get(0, b"k")?;
            let number = value.map(|value| i64::from_be_bytes(*value.first_chunk().unwrap()));
            Ok((number, inputs.clone()))
        };
        readers.read(TASK, read).map(|read| read.unwrap())
    }

    #[test]
    fn a_reader_is_told_what_it_sees() {
        let readers = StateReaders::default();
        let mut stores = MemoryState::new(1);
        assert_eq!(seen(&readers), None, "it is not open");
        readers.open(TASK, stores.reader());
        readers.reflect(TASK, &at(0), inputs(3));
        assert_eq!(seen(&readers), Some((None, inputs(3))));
        // Records that change nothing.
        readers.reflect(TASK, &at(0), inputs(4));
        assert_eq!(seen(&readers), Some((None, inputs(4))));
        for offset in 1..20 {
            readers.reflect(TASK, &at(offset), inputs(offset * 10));
            let before = (offset > 1).then_some(offset - 1);
            let of_before = before.map_or(inputs(4), |before| inputs(before * 10));
            assert_eq!(seen(&readers), Some((before, of_before)), "noted, and not applied");
            stores.apply(batch(offset)).unwrap();
            assert_eq!(seen(&readers), Some((Some(offset), inputs(offset * 10))));
        }
        readers.close(TASK);
        assert_eq!(seen(&readers), None);
    }

    #[test]
    fn who_closes_waits_for_who_reads() {
        let readers = Arc::new(StateReaders::default());
        let stores = MemoryState::new(1);
        readers.open(TASK, stores.reader());
        readers.reflect(TASK, &at(0), inputs(0));
        let closed = Arc::new(AtomicBool::new(false));
        let close = {
            let (readers, closed) = (Arc::clone(&readers), Arc::clone(&closed));
            move || {
                readers.close(TASK);
                closed.store(true, Ordering::Release);
            }
        };
        let read = readers.read(TASK, |_, _| {
            let closer = std::thread::spawn(close);
            while readers.has(TASK) {
                std::thread::yield_now();
            }
            (0..1_000).for_each(|_| std::thread::yield_now());
            assert!(!closed.load(Ordering::Acquire), "it is closed while it is read");
            Ok(closer)
        });
        read.unwrap().unwrap().join().unwrap();
        assert!(closed.load(Ordering::Acquire) && seen(&readers).is_none());
    }

    #[test]
    fn who_reads_for_long_is_told_before_stores_are_closed() {
        let readers = StateReaders::default();
        let stores = MemoryState::new(1);
        readers.open(TASK, stores.reader());
        readers.reflect(TASK, &at(0), inputs(0));
        let closing = readers.closing();
        let ended = std::thread::scope(|scope| {
            let read = readers.read_for_long(TASK, |_, _| {
                let closer = scope.spawn(|| readers.close(TASK));
                while !closing.has_changed().unwrap() {
                    std::thread::yield_now();
                }
                Ok(closer)
            });
            read.unwrap().unwrap().join()
        });
        ended.unwrap();
        assert!(seen(&readers).is_none());
    }
}

//! The stores of one task, some on disk and some in memory.
//!
//! What they take over at once becomes visible at once: a reader is given both parts between two batches, or waits for the
//! batch. A crash leaves what is on disk, and the rest is restored, so the parts need not survive together.

use std::sync::{Arc, PoisonError, RwLock};

use super::{
    Blob, ChangelogPosition, KeyRange, MemoryState, Position, Restored, StateBackend, StateBatch, StateError,
    StateReader, StateSize, StateView, StoreIndex, StoreKind, StoreSpec, Visit,
};

/// Where a store is, and its number there.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: StoreKind,
    index: StoreIndex,
}

/// See the module. One owner writes.
pub struct MixedState {
    disk: Box<dyn StateBackend>,
    memory: MemoryState,
    position: Position,
    shared: Arc<Shared>,
}

struct Shared {
    places: Vec<Place>,
    disk: Arc<dyn StateReader>,
    memory: Arc<dyn StateReader>,
    /// Held to write while a batch is taken over.
    between: RwLock<()>,
}

impl MixedState {
    /// Stores of these kinds, which are in `disk` and `memory` in their order.
    pub fn new(specs: &[StoreSpec], disk: Box<dyn StateBackend>, memory: MemoryState) -> MixedState {
        let mut counts = [0, 0];
        let place = |spec: &StoreSpec| {
            let count = &mut counts[usize::from(spec.kind == StoreKind::Memory)];
            *count += 1;
            Place { kind: spec.kind, index: *count - 1 }
        };
        let places: Vec<Place> = specs.iter().map(place).collect();
        let position = merge(&places, disk.position(), memory.position());
        let (between, of) = (RwLock::new(()), (disk.reader(), memory.reader()));
        let shared = Arc::new(Shared { places, disk: of.0, memory: of.1, between });
        MixedState { disk, memory, position, shared }
    }

    fn at(&self, store: StoreIndex) -> (&dyn StateBackend, StoreIndex) {
        let Place { kind, index } = self.shared.places[store];
        match kind {
            StoreKind::Rocksdb => (&*self.disk, index),
            StoreKind::Memory => (&self.memory, index),
        }
    }

    /// Has each part take over its own. The one in memory refuses before anything is done.
    fn take(
        &mut self,
        batch: StateBatch,
        disk: impl FnOnce(&mut dyn StateBackend, StateBatch) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let StateBatch { changes, position } = batch;
        let (mut on_disk, mut in_memory) = (StateBatch::default(), StateBatch::default());
        for ((place, changes), at) in self.shared.places.iter().zip(changes).zip(&position) {
            let part = if place.kind == StoreKind::Memory { &mut in_memory } else { &mut on_disk };
            part.changes.push(changes);
            part.position.push(*at);
        }
        self.memory.make_room(&in_memory.changes)?;
        let _between = self.shared.between.write().unwrap_or_else(PoisonError::into_inner);
        if on_disk.position != *self.disk.position() || on_disk.changes.iter().any(|one| !one.is_empty()) {
            disk(&mut *self.disk, on_disk)?;
        }
        self.memory.apply(in_memory)?;
        self.position = position;
        Ok(())
    }
}

/// The positions of both parts, in the order of the stores.
fn merge(places: &[Place], disk: &Position, memory: &Position) -> Position {
    let of = |place: &Place| match place.kind {
        StoreKind::Rocksdb => disk[place.index],
        StoreKind::Memory => memory[place.index],
    };
    places.iter().map(of).collect()
}

impl StateBackend for MixedState {
    fn position(&self) -> &Position {
        &self.position
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        let (backend, store) = self.at(store);
        backend.multi_get(store, keys)
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let (backend, store) = self.at(store);
        backend.range(store, range, visit)
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        self.take(batch, |disk, batch| disk.apply(batch))
    }

    fn restore(&mut self, batch: StateBatch) -> Result<(), StateError> {
        self.take(batch, |disk, batch| disk.restore(batch))
    }

    fn restore_store(
        &mut self,
        store: StoreIndex,
        chunk: &Restored,
        position: ChangelogPosition,
    ) -> Result<(), StateError> {
        let Place { kind, index } = self.shared.places[store];
        let _between = self.shared.between.write().unwrap_or_else(PoisonError::into_inner);
        match kind {
            StoreKind::Rocksdb => self.disk.restore_store(index, chunk, position)?,
            StoreKind::Memory => self.memory.restore_store(index, chunk, position)?,
        }
        self.position[store] = position;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.disk.flush()
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.shared.clone()
    }
}

impl Shared {
    fn views(&self, pinned: bool) -> Result<Box<dyn StateView + '_>, StateError> {
        let _between = self.between.read().unwrap_or_else(PoisonError::into_inner);
        let (disk, memory) = if pinned {
            (self.disk.pinned()?, self.memory.pinned()?)
        } else {
            (self.disk.view()?, self.memory.view()?)
        };
        let position = merge(&self.places, disk.position(), memory.position());
        Ok(Box::new(View { places: &self.places, disk, memory, position }))
    }
}

impl StateReader for Shared {
    fn view(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        self.views(false)
    }

    fn pinned(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        self.views(true)
    }

    fn size(&self) -> Result<StateSize, StateError> {
        let (disk, memory) = (self.disk.size()?, self.memory.size()?);
        Ok(StateSize { bytes: disk.bytes + memory.bytes, keys: disk.keys + memory.keys })
    }

    fn store_size(&self, store: StoreIndex) -> Result<StateSize, StateError> {
        let Place { kind, index } = self.places[store];
        match kind {
            StoreKind::Rocksdb => self.disk.store_size(index),
            StoreKind::Memory => self.memory.store_size(index),
        }
    }
}

struct View<'a> {
    places: &'a [Place],
    disk: Box<dyn StateView + 'a>,
    memory: Box<dyn StateView + 'a>,
    position: Position,
}

impl View<'_> {
    fn at(&self, store: StoreIndex) -> (&dyn StateView, StoreIndex) {
        let Place { kind, index } = self.places[store];
        match kind {
            StoreKind::Rocksdb => (&*self.disk, index),
            StoreKind::Memory => (&*self.memory, index),
        }
    }
}

impl StateView for View<'_> {
    fn position(&self) -> &Position {
        &self.position
    }

    fn get(&self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError> {
        let (view, store) = self.at(store);
        view.get(store, key)
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let (view, store) = self.at(store);
        view.range(store, range, visit)
    }
}

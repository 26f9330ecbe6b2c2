//! Stores in memory: for state that fits, and as the model that other backends are compared with.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::budget::{MemoryBudget, MemoryShare};
use super::{
    Blob, ChangelogPosition, Changes, KeyRange, Position, StateBackend, StateBatch, StateError, StateReader,
    StateSize, StateView, StoreIndex, Visit,
};

/// Memory that an entry takes besides its bytes: two reference counts, and its place in the map.
const ENTRY_BYTES: u64 = 96;

/// Stores that end with the process. Its changelog is what survives.
pub struct MemoryState {
    stores: Arc<Shared>,
    position: Position,
    /// Of a budget, if there is one.
    share: Option<MemoryShare>,
}

struct Shared(RwLock<Content>);

#[derive(Default)]
struct Content {
    /// Copied when something is written while a reader has it pinned.
    stores: Vec<Arc<BTreeMap<Blob, Blob>>>,
    /// Of keys and values, by store.
    bytes: Vec<u64>,
    position: Position,
}

impl Shared {
    /// A writer that panicked has taken over a whole store or nothing of it: what is there can be read.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryState {
    /// `count` empty stores, within a budget.
    pub fn within(count: usize, budget: &Arc<MemoryBudget>) -> MemoryState {
        MemoryState { share: Some(MemoryShare::of(budget)), ..MemoryState::new(count) }
    }

    /// `count` empty stores.
    pub fn new(count: usize) -> MemoryState {
        let position = vec![ChangelogPosition::default(); count];
        let stores = (0..count).map(|_| Arc::default()).collect();
        let content = Content { stores, bytes: vec![0; count], position: position.clone() };
        MemoryState { stores: Arc::new(Shared(RwLock::new(content))), position, share: None }
    }

    /// Takes what these changes need of the budget: as if all of them were new, or exactly if that is too much.
    pub(super) fn make_room(&mut self, changes: &[Changes]) -> Result<(), StateError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        let content = self.stores.read();
        let has = content.memory();
        let all = changes.iter().flatten().map(|(key, value)| cost(key, value.as_ref())).sum();
        match share.set(has.saturating_add(all)) {
            Err(StateError::Memory { .. }) => share.set(content.memory_with(changes)),
            done => done,
        }
    }
}

/// What an entry takes. A deletion takes nothing.
fn cost(key: &Blob, value: Option<&Blob>) -> u64 {
    value.map_or(0, |value| (key.len() + value.len()) as u64 + ENTRY_BYTES)
}

impl Content {
    /// What all entries take.
    fn memory(&self) -> u64 {
        let entries: u64 = self.stores.iter().map(|store| store.len() as u64).sum();
        self.bytes.iter().sum::<u64>() + entries * ENTRY_BYTES
    }

    /// The same once these changes are in. Each key is there once.
    fn memory_with(&self, changes: &[Changes]) -> u64 {
        let (mut added, mut removed) = (self.memory(), 0);
        for (store, changes) in self.stores.iter().zip(changes) {
            for (key, value) in changes {
                added += cost(key, value.as_ref());
                removed += cost(key, store.get(key));
            }
        }
        added.saturating_sub(removed)
    }
}

impl StateBackend for MemoryState {
    fn position(&self) -> &Position {
        &self.position
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        let content = self.stores.read();
        Ok(keys.iter().map(|key| content.stores[store].get(*key).cloned()).collect())
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        visit_range(&self.stores.read().stores[store], range, visit);
        Ok(())
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        self.make_room(&batch.changes)?;
        let mut content = self.stores.0.write().unwrap_or_else(PoisonError::into_inner);
        let Content { stores, bytes, .. } = &mut *content;
        for ((store, bytes), changes) in stores.iter_mut().zip(bytes).zip(batch.changes) {
            let store = Arc::make_mut(store);
            for (key, value) in changes {
                let key_bytes = key.len();
                let added = value.as_ref().map_or(0, |value| key_bytes + value.len());
                let before = match value {
                    Some(value) => store.insert(key, value),
                    None => store.remove(&key),
                };
                let removed = before.map_or(0, |before| key_bytes + before.len());
                *bytes = (*bytes + added as u64).saturating_sub(removed as u64);
            }
        }
        content.position.clone_from(&batch.position);
        let memory = content.memory();
        drop(content);
        self.position = batch.position;
        // There was room for more than this.
        self.share.as_mut().map_or(Ok(()), |share| share.set(memory))
    }

    fn flush(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.stores.clone()
    }
}

impl StateReader for Shared {
    fn view(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        Ok(Box::new(View(self.read())))
    }

    fn pinned(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        let content = self.read();
        let (stores, position) = (content.stores.clone(), content.position.clone());
        Ok(Box::new(Pinned { stores, position }))
    }

    fn size(&self) -> Result<StateSize, StateError> {
        let content = self.read();
        let keys = content.stores.iter().map(|store| store.len() as u64).sum();
        Ok(StateSize { bytes: content.bytes.iter().sum(), keys })
    }

    fn store_size(&self, store: StoreIndex) -> Result<StateSize, StateError> {
        let content = self.read();
        Ok(StateSize { bytes: content.bytes[store], keys: content.stores[store].len() as u64 })
    }
}

/// Shares the stores until they are written.
struct Pinned {
    stores: Vec<Arc<BTreeMap<Blob, Blob>>>,
    position: Position,
}

impl StateView for Pinned {
    fn position(&self) -> &Position {
        &self.position
    }

    fn get(&self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError> {
        Ok(self.stores[store].get(key).cloned())
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        visit_range(&self.stores[store], range, visit);
        Ok(())
    }
}

/// Holds writers up while it lives, so readers take what they need and drop it.
struct View<'a>(RwLockReadGuard<'a, Content>);

impl StateView for View<'_> {
    fn position(&self) -> &Position {
        &self.0.position
    }

    fn get(&self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError> {
        Ok(self.0.stores[store].get(key).cloned())
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        visit_range(&self.0.stores[store], range, visit);
        Ok(())
    }
}

fn visit_range(store: &BTreeMap<Blob, Blob>, range: KeyRange<'_>, visit: &mut Visit<'_>) {
    if range.is_empty() {
        return;
    }
    let to = range.to.map_or(Bound::Unbounded, Bound::Excluded);
    let mut entries = store.range::<[u8], _>((Bound::Included(range.from), to));
    loop {
        let next = if range.reverse { entries.next_back() } else { entries.next() };
        match next {
            Some((key, value)) if visit(key, value) == ControlFlow::Continue(()) => {}
            _ => return,
        }
    }
}

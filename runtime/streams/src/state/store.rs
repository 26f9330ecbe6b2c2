//! One store of a task in front of its backend: what was changed, what is cached, and how to go back.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use foldhash::fast::RandomState;
use pelton_wire::mutant::Mutant;
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};

use super::{Blob, Changes, KeyRange, StateBackend, StateError, StoreIndex, Visit};

/// Memory that an entry costs besides its bytes: two reference counts, the places in the maps.
const ENTRY_BYTES: usize = 96;

/// Clean entries by their bytes.
#[derive(Clone)]
struct Weight;

impl Weighter<Blob, Option<Blob>> for Weight {
    fn weight(&self, key: &Blob, value: &Option<Blob>) -> u64 {
        cost(key, value.as_ref()) as u64
    }
}

fn cost(key: &Blob, value: Option<&Blob>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + ENTRY_BYTES
}

/// A value that the backend does not have yet.
struct Changed {
    value: Option<Blob>,
    /// It was written by the transaction that is open.
    open: bool,
}

/// How an entry was before a write.
enum Before {
    /// Not among the changed ones: the backend has it.
    Unchanged,
    Changed {
        value: Option<Blob>,
        open: bool,
    },
}

/// See the module.
pub(super) struct Store {
    index: StoreIndex,
    changed: HashMap<Blob, Changed, RandomState>,
    /// The keys of `changed` in order, where ranges are read.
    ordered: Option<BTreeSet<Blob>>,
    clean: Cache<Blob, Option<Blob>, Weight, RandomState>,
    /// Keys that the open transaction has written, each once, in the order of their first write.
    open: Vec<Blob>,
    /// What writes since the oldest savepoint have replaced, oldest first.
    undo: Vec<(Blob, Before)>,
    changed_bytes: usize,
}

impl Store {
    pub(super) fn new(index: StoreIndex, ordered: bool, cache_bytes: u64) -> Store {
        // Entries are small: the cache sizes its tables by this and grows them as needed.
        let items = usize::try_from(cache_bytes / 256).unwrap_or(usize::MAX).min(1 << 20);
        Store {
            index,
            changed: HashMap::default(),
            ordered: ordered.then(BTreeSet::new),
            clean: Cache::with(
                items,
                cache_bytes,
                Weight,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            open: Vec::new(),
            undo: Vec::new(),
            changed_bytes: 0,
        }
    }

    /// Bytes of entries that the backend has not taken over.
    pub(super) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Whether the open transaction has written something.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Gets the values of keys that are asked for next, those that are in no cache with one call of the backend.
    pub(super) fn prefetch<'k>(
        &mut self,
        backend: &dyn StateBackend,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<(), StateError> {
        let known = |key: &&[u8]| self.changed.contains_key(*key) || self.clean.peek(*key).is_some();
        let mut missing: Vec<&[u8]> = keys.filter(|key| !known(key)).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let values = backend.multi_get(self.index, &missing)?;
        for (key, value) in missing.into_iter().zip(values) {
            self.clean.insert(Blob::from(key), value);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, backend: &dyn StateBackend, key: &[u8]) -> Result<Option<Blob>, StateError> {
        if let Some(changed) = self.changed.get(key) {
            return Ok(changed.value.clone());
        }
        if let Some(clean) = self.clean.get(key) {
            return Ok(clean.clone());
        }
        let value = backend.multi_get(self.index, &[key])?.pop().flatten();
        self.clean.insert(Blob::from(key), value.clone());
        Ok(value)
    }

    /// Writes a value, or deletes the key. With `undoable` a savepoint can take it back.
    pub(super) fn put(&mut self, key: &[u8], value: Option<Blob>, undoable: bool) {
        let (key, before) = match self.changed.get_key_value(key) {
            Some((key, Changed { value, open })) => {
                (Blob::clone(key), Before::Changed { value: value.clone(), open: *open })
            }
            None => (Blob::from(key), Before::Unchanged),
        };
        if !matches!(before, Before::Changed { open: true, .. }) {
            self.open.push(Blob::clone(&key));
        }
        if undoable {
            self.undo.push((Blob::clone(&key), before));
        }
        self.set(key, Changed { value, open: true });
    }

    fn set(&mut self, key: Blob, new: Changed) {
        self.changed_bytes += cost(&key, new.value.as_ref());
        match self.changed.get_mut(&key) {
            Some(entry) => {
                self.changed_bytes -= cost(&key, entry.value.as_ref());
                *entry = new;
            }
            None => {
                // Not clean any more: what the cache says of it is old.
                self.clean.remove(&key);
                if let Some(ordered) = &mut self.ordered {
                    ordered.insert(Blob::clone(&key));
                }
                self.changed.insert(key, new);
            }
        }
    }

    /// How many writes could be undone.
    pub(super) fn undo_len(&self) -> usize {
        self.undo.len()
    }

    /// Undoes all writes but the first `len`.
    pub(super) fn undo_to(&mut self, len: usize) {
        while self.undo.len() > len && !Mutant::UndoForgotten.is_on() {
            let Some((key, before)) = self.undo.pop() else { return };
            match before {
                Before::Changed { value, open } => {
                    self.set(Blob::clone(&key), Changed { value, open });
                    if !open {
                        self.forget_open(&key);
                    }
                }
                Before::Unchanged => {
                    self.remove(&key);
                    self.forget_open(&key);
                }
            }
        }
    }

    /// The write that made the key part of the open transaction is undone. It is the last one of all that did.
    fn forget_open(&mut self, key: &Blob) {
        let last = self.open.pop();
        debug_assert_eq!(last.as_ref(), Some(key), "writes are undone in the reverse of their order");
    }

    fn remove(&mut self, key: &Blob) {
        if let Some(entry) = self.changed.remove(key) {
            self.changed_bytes -= cost(key, entry.value.as_ref());
        }
        if let Some(ordered) = &mut self.ordered {
            ordered.remove(key);
        }
    }

    /// No write of before can be undone any more.
    pub(super) fn forget_undo(&mut self) {
        self.undo.clear();
    }

    /// What the open transaction has written, each key once with its last value: the changelog records of its commit. The
    /// next transaction begins.
    pub(super) fn end_transaction(&mut self) -> Changes {
        let mut written = Vec::with_capacity(self.open.len());
        for key in self.open.drain(..) {
            if let Some(entry) = self.changed.get_mut(&key) {
                entry.open = false;
                written.push((key, entry.value.clone()));
            }
        }
        written
    }

    /// All that the backend has not taken over, in the order of keys. It stays here until [`Store::taken_over`].
    pub(super) fn changes(&self) -> Changes {
        let mut changes: Changes =
            self.changed.iter().map(|(key, entry)| (Blob::clone(key), entry.value.clone())).collect();
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        changes
    }

    /// The backend has these changes. Those that were not written again since are clean now.
    pub(super) fn taken_over(&mut self, changes: &Changes) {
        for (key, value) in changes {
            let same = |entry: &Changed| {
                let is_newer = entry.open || !same_blob(entry.value.as_ref(), value.as_ref());
                !is_newer || Mutant::NewerTakenOver.is_on()
            };
            if self.changed.get(key).is_some_and(same) {
                self.remove(key);
                self.clean.insert(Blob::clone(key), value.clone());
            }
        }
    }

    /// Shows the keys of a range in order, as they are now.
    pub(super) fn range(
        &self,
        backend: &dyn StateBackend,
        range: KeyRange<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StateError> {
        if range.is_empty() {
            return Ok(());
        }
        // Most who ask want the first ones only.
        let mut changed = self.changed_within(range).peekable();
        let comes_before = |a: &[u8], b: &[u8]| if range.reverse { a > b } else { a < b };
        let mut enough = false;
        backend.range(self.index, range, &mut |key, value| {
            while let Some(next) = changed.next_if(|next| comes_before(next, key)) {
                if self.show(next, visit).is_break() {
                    enough = true;
                    return ControlFlow::Break(());
                }
            }
            let shown = match changed.next_if(|next| ***next == *key) {
                Some(same) => self.show(same, visit),
                None => visit(key, value),
            };
            enough = shown.is_break();
            shown
        })?;
        while !enough && let Some(next) = changed.next() {
            enough = self.show(next, visit).is_break();
        }
        Ok(())
    }

    /// The changed keys of a range, in its order.
    fn changed_within<'s>(&'s self, range: KeyRange<'_>) -> Box<dyn Iterator<Item = &'s Blob> + 's> {
        let Some(ordered) = &self.ordered else {
            let mut keys: Vec<_> = self.changed.keys().filter(|key| range.contains(key)).collect();
            keys.sort_unstable();
            return if range.reverse { Box::new(keys.into_iter().rev()) } else { Box::new(keys.into_iter()) };
        };
        let to = range.to.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let keys = ordered.range::<[u8], _>((std::ops::Bound::Included(range.from), to));
        if range.reverse { Box::new(keys.rev()) } else { Box::new(keys) }
    }

    fn show(&self, key: &Blob, visit: &mut Visit<'_>) -> ControlFlow<()> {
        match self.changed.get(key).and_then(|entry| entry.value.as_ref()) {
            Some(value) => visit(key, value),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Whether two values are the same write, not only the same bytes.
fn same_blob(a: Option<&Blob>, b: Option<&Blob>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Blob::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

//! Stores in memory, for plugins with state.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{RunError, TestRecord, batch, expand};
use crate::bindings::Column;
use crate::config::Config;
use crate::state::{ExportedState, StateTransform};
use crate::stores::{Bounds, Entries, Host, Range, Windows, column, strings};

/// Entries that a server gives at once.
const MAX_ENTRIES: u32 = 10_000;

/// A plugin with state, and its stores, which stay from batch to batch. A batch that fails leaves them as they were.
pub struct StateRun<T> {
    plugin: ExportedState<T>,
    configured: Result<(), String>,
    stores: Kept,
}

/// All stores.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub(super) entries: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
    pub(super) windows: BTreeMap<String, WindowStore>,
}

#[derive(Clone)]
pub(super) struct WindowStore {
    retention_ms: i64,
    time: i64,
    windows: BTreeMap<(Vec<u8>, i64), Vec<u8>>,
}

impl<T: StateTransform> StateRun<T> {
    /// A plugin with these settings, without stores.
    pub fn new(config: &[(&str, &str)]) -> StateRun<T> {
        let plugin = ExportedState::<T>::default();
        let pairs = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let configured = plugin.with(|plugin| plugin.configure(&Config::new(pairs.collect())));
        StateRun { plugin, configured, stores: Kept::default() }
    }

    /// With an empty store of entries.
    #[must_use]
    pub fn with_store(mut self, name: &str) -> StateRun<T> {
        self.stores.entries.insert(name.to_owned(), BTreeMap::new());
        self
    }

    /// With an empty store of windows.
    #[must_use]
    pub fn with_windows(mut self, name: &str, retention_ms: i64) -> StateRun<T> {
        self.stores.windows.insert(name.to_owned(), WindowStore::new(retention_ms));
        self
    }

    /// Gives the records as one batch of the topic `test`, partition 0, from offset 0.
    ///
    /// # Errors
    /// How the plugin failed.
    ///
    /// # Panics
    /// If the answer, or a use of a store, breaks a rule of the contract that a server would refuse.
    pub fn give(&mut self, records: &[TestRecord]) -> Result<Vec<TestRecord>, RunError> {
        self.configured.clone().map_err(RunError::Configure)?;
        let (batch, before) = (batch(records), self.stores.clone());
        let processed = self.plugin.process(&batch, &mut self.stores);
        match processed {
            Ok(output) => Ok(expand(&batch, &output)),
            Err(failure) => {
                self.stores = before;
                Err(failure.into())
            }
        }
    }

    /// The value of a key.
    pub fn entry(&self, store: &str, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.stores.entries.get(store)?.get(key.as_ref()).map(Vec::as_slice)
    }

    /// How many entries or windows a store has.
    pub fn len_of(&self, store: &str) -> usize {
        let entries = self.stores.entries.get(store).map(BTreeMap::len);
        entries.or(self.stores.windows.get(store).map(|store| store.windows.len())).unwrap_or(0)
    }
}

impl WindowStore {
    pub(super) fn new(retention_ms: i64) -> WindowStore {
        WindowStore { retention_ms, time: -1, windows: BTreeMap::new() }
    }

    fn is_kept(&self, start: i64) -> bool {
        start + self.retention_ms > self.time
    }
}

impl Kept {
    fn entries(&mut self, store: &str) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        self.entries
            .get_mut(store)
            .unwrap_or_else(|| panic!("the node is not given a store `{store}` of entries"))
    }

    fn windows(&mut self, store: &str) -> &mut WindowStore {
        self.windows
            .get_mut(store)
            .unwrap_or_else(|| panic!("the node is not given a store `{store}` of windows"))
    }
}

impl Host for Kept {
    fn get(&mut self, store: &str, keys: &Column) -> Column {
        let entries = self.entries(store);
        column(strings(keys).map(|key| entries.get(&key.expect("no key is null")).map(Vec::as_slice)))
    }

    fn put(&mut self, store: &str, keys: &Column, values: &Column) {
        let entries = self.entries(store);
        for (key, value) in strings(keys).zip(strings(values)) {
            let key = key.expect("no key is null");
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
    }

    fn range(&mut self, store: &str, range: &Range<'_>) -> Entries {
        let entries = self.entries(store);
        let (from, to, prefix) = match range.bounds {
            Bounds::Between(start, end) => (start, end, &[][..]),
            Bounds::Prefix(prefix) => (prefix, None, prefix),
        };
        if to.is_some_and(|to| to <= from) {
            return Entries::default();
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let found = entries.range::<[u8], _>((Bound::Included(from), to));
        let found =
            found.filter(|(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.clone(), value.clone()));
        let mut entries: Vec<_> = found.collect();
        if range.reverse {
            entries.reverse();
        }
        let limit = range.limit.min(MAX_ENTRIES) as usize;
        let more = entries.len() > limit;
        entries.truncate(limit);
        Entries { entries, more }
    }

    fn delete_range(&mut self, store: &str, start: &[u8], end: Option<&[u8]>, limit: u32) -> bool {
        let range = end.map_or_else(|| Range::from(start), |end| Range::between(start, end));
        let found = self.range(store, &range.first(limit));
        let entries = self.entries(store);
        found.entries.iter().for_each(|(key, _)| drop(entries.remove(key)));
        found.more
    }

    fn get_windows(&mut self, store: &str, keys: &Column, starts: &[i64]) -> Column {
        let store = self.windows(store);
        let value = |(key, start): (Option<Vec<u8>>, &i64)| {
            let value = store.windows.get(&(key.expect("no key is null"), *start));
            value.filter(|_| store.is_kept(*start)).map(Vec::as_slice)
        };
        column(strings(keys).zip(starts).map(value))
    }

    fn put_windows(&mut self, store: &str, keys: &Column, starts: &[i64], values: &Column) {
        let store = self.windows(store);
        for ((key, start), value) in strings(keys).zip(starts).zip(strings(values)) {
            assert!(*start >= 0, "{start} is no time for a window");
            store.time = store.time.max(*start);
            if !store.is_kept(*start) {
                continue;
            }
            let place = (key.expect("no key is null"), *start);
            match value {
                Some(value) => store.windows.insert(place, value),
                None => store.windows.remove(&place),
            };
        }
        let (kept, time) = (store.retention_ms, store.time);
        store.windows.retain(|(_, start), _| start + kept > time);
    }

    fn windows_of(
        &mut self,
        store: &str,
        key: &[u8],
        (first, last): (i64, i64),
        reverse: bool,
        limit: u32,
    ) -> Windows {
        let store = self.windows(store);
        if first > last {
            return Windows::default();
        }
        let range = (key.to_vec(), first)..=(key.to_vec(), last);
        let found = store.windows.range(range).map(|((_, start), value)| (*start, value.clone()));
        let mut windows: Vec<_> = found.collect();
        if reverse {
            windows.reverse();
        }
        let limit = limit.min(MAX_ENTRIES) as usize;
        let more = windows.len() > limit;
        windows.truncate(limit);
        Windows { windows, more }
    }
}

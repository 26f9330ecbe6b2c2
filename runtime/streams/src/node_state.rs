//! What a plugin with state is given: the stores of its node, for one call.
//!
//! A plugin names a store, and keys and values are bytes of its own. What a call writes goes into the overlay of the task,
//! behind the savepoint of the range of records that the call is part of: it is undone when the call fails, when it rejects a
//! record, when a later node fails, when a topic refuses what is emitted, and when the transaction is aborted. Reads see what
//! the call has written before.
//!
//! Each function takes many keys, since crossing the border of a plugin costs more than a look-up. All are bounded: by
//! [`MAX_KEYS`] and [`MAX_READ_BYTES`] for what one of them answers, by [`MAX_ENTRIES`] and [`MAX_PAGE_BYTES`] for ranges,
//! which say whether there is more, and by `limits.state` for what one call writes. A function that is asked for something
//! that cannot be refuses with a text, upon which the plugin traps ([`Refused`]); a disk that fails is noted, and stops the
//! task whatever the plugin makes of it ([`NodeState::end`]).
//!
//! A store of entries has the plugin's keys as they are, so readers find them. A store of windows is laid out in [`windows`].

use std::ops::ControlFlow;

use crate::answer::SlicesOut;
use crate::batch::{Blob as Bytes, NULL, SlicesIn};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::manifest::stores::NodeStoreSpec;
use crate::operator::TimerDomain;
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState, prefix_end};

pub mod timers;
pub mod whole;
pub mod windows;

use timers::Timers;
use windows::Windows;

/// Keys of one function call.
pub const MAX_KEYS: usize = 100_000;
/// Bytes of the values that one look-up of keys answers.
pub const MAX_READ_BYTES: usize = 16 << 20;
/// Entries that one range answers, or deletes.
pub const MAX_ENTRIES: u32 = 10_000;
/// Bytes after which a range ends: it answers at least one entry.
pub const MAX_PAGE_BYTES: usize = 4 << 20;

/// Why a function refuses what it is asked: the plugin has a bug, or its pipeline does not give it what it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Byte strings that a plugin gives: see `column` in `sdk/wit`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ColumnIn<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Where each string is.
    pub fields: SlicesIn<'a>,
}

/// Byte strings that a plugin is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnOut {
    /// The bytes.
    pub data: Vec<u8>,
    /// Where each string is.
    pub fields: SlicesOut,
}

/// Entries of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntriesOut {
    /// Their keys.
    pub keys: ColumnOut,
    /// Their values.
    pub values: ColumnOut,
    /// There are more in the range.
    pub more: bool,
}

/// Windows of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsOut {
    /// When each begins.
    pub starts: Vec<i64>,
    /// Their values.
    pub values: ColumnOut,
    /// There are more within the time that was asked for.
    pub more: bool,
}

impl<'a> ColumnIn<'a> {
    /// Every string, `None` for null.
    ///
    /// # Errors
    /// One lies outside of the bytes, or there are too many.
    pub fn all(self, name: &str) -> Result<Vec<Option<&'a [u8]>>, Refused> {
        let SlicesIn { offsets, lengths } = self.fields;
        if offsets.len() != lengths.len() {
            let (offsets, lengths) = (offsets.len(), lengths.len());
            return Err(Refused(format!("`{name}` has {offsets} offsets and {lengths} lengths")));
        }
        if offsets.len() > MAX_KEYS {
            let count = offsets.len();
            return Err(Refused(format!("`{name}` has {count} entries, and may have {MAX_KEYS} at once")));
        }
        let blob = Bytes { input: self.data, extra: &[] };
        let field = |(i, (&offset, &length)): (usize, (&u32, &u32))| {
            if length == NULL {
                return Ok(None);
            }
            blob.get(offset, length).map(Some).ok_or_else(|| {
                let len = self.data.len();
                Refused(format!(
                    "{name}[{i}] is {length} bytes at {offset}, which is not within its {len} bytes"
                ))
            })
        };
        offsets.iter().zip(lengths).enumerate().map(field).collect()
    }

    /// Every string, none of which is null.
    ///
    /// # Errors
    /// As [`ColumnIn::all`], or one is null.
    pub fn keys(self, name: &str) -> Result<Vec<&'a [u8]>, Refused> {
        let all = self.all(name)?;
        let found =
            |(i, key): (usize, Option<&'a [u8]>)| key.ok_or_else(|| Refused(format!("{name}[{i}] is null")));
        all.into_iter().enumerate().map(found).collect()
    }
}

impl ColumnOut {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.offsets.is_empty()
    }

    /// Appends a string; `None` for null. All together have less than 4 GiB.
    pub fn push(&mut self, field: Option<&[u8]>) {
        self.fields.offsets.push(self.data.len() as u32);
        self.fields.lengths.push(field.map_or(NULL, |field| field.len() as u32));
        self.data.extend_from_slice(field.unwrap_or_default());
    }

    /// The same as what a plugin gives.
    pub fn as_in(&self) -> ColumnIn<'_> {
        let SlicesOut { offsets, lengths } = &self.fields;
        ColumnIn { data: &self.data, fields: SlicesIn { offsets, lengths } }
    }

    /// A string that was pushed.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let (offset, length) = (*self.fields.offsets.get(i)?, *self.fields.lengths.get(i)?);
        let field = Bytes { input: &self.data, extra: &[] };
        if length == NULL { None } else { field.get(offset, length) }
    }

    fn answer(&mut self, value: Option<&Blob>) -> Result<(), Refused> {
        self.push(value.map(|value| &**value));
        if self.data.len() > MAX_READ_BYTES {
            let what = format!("it asks for more than {MAX_READ_BYTES} bytes at once: ask for fewer keys");
            return Err(Refused(what));
        }
        Ok(())
    }
}

/// A store by its name, as a plugin calls it.
#[derive(Debug)]
struct NodeStore {
    name: String,
    index: StoreIndex,
    windows: Option<Windows>,
}

/// The stores of one node of a task, and what is known of them.
#[derive(Debug, Default)]
pub struct NodeStores {
    named: Vec<NodeStore>,
    timers: Option<Timers>,
}

impl NodeStores {
    /// `stores` are their places among those of the task, in the order of the specs; behind them that of timers, if the node has
    /// timers.
    pub fn new(specs: &[NodeStoreSpec], stores: &[StoreIndex]) -> NodeStores {
        let timers = stores.get(specs.len()).copied().map(Timers::new);
        let store = |(spec, &index): (&NodeStoreSpec, &StoreIndex)| NodeStore {
            name: spec.name.clone(),
            index,
            windows: spec.retention_ms.map(|retention_ms| Windows::new(index, retention_ms)),
        };
        NodeStores { named: specs.iter().zip(stores).map(store).collect(), timers }
    }

    /// Its timers, if it has any.
    pub fn timers(&mut self) -> Option<&mut Timers> {
        self.timers.as_mut()
    }

    /// The stores were rolled back: what is known of them says nothing any more.
    pub fn reset(&mut self) {
        self.timers.iter_mut().for_each(Timers::reset);
        self.named.iter_mut().filter_map(|store| store.windows.as_mut()).for_each(Windows::reset);
    }

    /// Forgets about `budget` windows that nobody will be shown any more. Whether there may be more.
    ///
    /// # Errors
    /// A store cannot be read.
    pub fn forget(&mut self, state: &mut TaskState, budget: usize) -> Result<bool, StateError> {
        let mut more = false;
        for windows in self.named.iter_mut().filter_map(|store| store.windows.as_mut()) {
            more |= windows.forget(state, budget)?;
        }
        Ok(more)
    }

    /// Whether anything of them is forgotten with time.
    pub fn has_windows(&self) -> bool {
        self.named.iter().any(|store| store.windows.is_some())
    }
}

/// The stores of a node, lent to a plugin for one call. Whoever lends them has a savepoint to go back to.
pub struct NodeState {
    task: Box<TaskState>,
    stores: Box<NodeStores>,
    /// What the call may write.
    limit_bytes: u64,
    written: u64,
    failure: Option<StateError>,
    /// The clock of the machine when the call began.
    clock_ms: i64,
}

impl std::fmt::Debug for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeState").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl NodeState {
    /// For one call, which may write so many bytes.
    pub fn new(task: Box<TaskState>, stores: Box<NodeStores>, limit_bytes: u64) -> NodeState {
        NodeState { task, stores, limit_bytes, written: 0, failure: None, clock_ms: 0 }
    }

    /// The same at a time of the clock.
    #[must_use]
    pub fn at(self, clock_ms: i64) -> NodeState {
        NodeState { clock_ms, ..self }
    }

    /// The clock of the machine, as it was when the call began, in milliseconds since 1970-01-01 UTC.
    pub fn clock_ms(&self) -> i64 {
        self.clock_ms
    }

    /// The call has ended: gives back what it was made of, and why a store could not be used, if one could not.
    pub fn end(self) -> (Box<TaskState>, Box<NodeStores>, Result<(), StateError>) {
        (self.task, self.stores, self.failure.map_or(Ok(()), Err))
    }

    fn store(&self, name: &str) -> Result<usize, Refused> {
        let found = self.stores.named.iter().position(|store| store.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.stores.named.iter().map(|store| &*store.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { format!("`{}`", known.join("`, `")) };
            let name = crate::log::clip(name, 100);
            Refused(format!(
                "it uses the store `{name}`, which its node is not given (it has {known}): add it to `stores` in pipeline.toml"
            ))
        })
    }

    /// A store of entries.
    fn entries(&self, name: &str) -> Result<StoreIndex, Refused> {
        let NodeStore { index, windows, .. } = &self.stores.named[self.store(name)?];
        match windows {
            None => Ok(*index),
            Some(_) => Err(Refused(format!(
                "the store `{name}` has windows, which are found by key and start together"
            ))),
        }
    }

    /// Runs a function of a store of windows. A second failure of a store says nothing new.
    fn with_windows<T>(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Windows, &mut TaskState, &mut Budget<'_>) -> Result<T, Failed>,
    ) -> Result<T, Refused> {
        let at = self.store(name)?;
        let NodeState { task, stores, limit_bytes, written, failure, .. } = self;
        let Some(windows) = &mut stores.named[at].windows else {
            return Err(Refused(format!(
                "the store `{name}` has entries without windows, which are found by key alone"
            )));
        };
        let mut budget = Budget { limit_bytes: *limit_bytes, written };
        run(windows, task, &mut budget).map_err(|failed| failed.refused(failure))
    }

    fn with_timers(
        &mut self,
        run: impl FnOnce(&mut Timers, &mut TaskState, &mut Budget<'_>) -> Result<(), Failed>,
    ) -> Result<(), Refused> {
        let NodeState { task, stores, limit_bytes, written, failure, .. } = self;
        let Some(timers) = &mut stores.timers else {
            return Err(Refused("it sets a timer, and its node has none".to_owned()));
        };
        let mut budget = Budget { limit_bytes: *limit_bytes, written };
        run(timers, task, &mut budget).map_err(|failed| failed.refused(failure))
    }

    /// Sets timers of a domain, or moves those that are set already.
    ///
    /// # Errors
    /// As [`NodeState::put`].
    pub fn set_timers(
        &mut self,
        domain: TimerDomain,
        names: ColumnIn<'_>,
        at: &[i64],
    ) -> Result<(), Refused> {
        let names = names.keys("names")?;
        same_length("at", at.len(), names.len())?;
        self.with_timers(|timers, task, budget| timers.set(task, domain, &names, at, budget))
    }

    /// Takes timers away, those that are set.
    ///
    /// # Errors
    /// As [`NodeState::put`].
    pub fn cancel_timers(&mut self, domain: TimerDomain, names: ColumnIn<'_>) -> Result<(), Refused> {
        let names = names.keys("names")?;
        self.with_timers(|timers, task, budget| timers.cancel(task, domain, &names, budget))
    }

    /// The value of each key, in order; null for none.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn get(&mut self, store: &str, keys: ColumnIn<'_>) -> Result<ColumnOut, Refused> {
        let index = self.entries(store)?;
        let keys = keys.keys("keys")?;
        let NodeState { task, failure, .. } = self;
        let answer = || {
            task.prefetch(index, keys.iter().copied())?;
            let mut out = ColumnOut::default();
            for key in keys {
                out.answer(task.get(index, key)?.as_ref())?;
            }
            Ok(out)
        };
        answer().map_err(|failed: Failed| failed.refused(failure))
    }

    /// Sets each key to its value, in order; null deletes the key.
    ///
    /// # Errors
    /// It cannot be written. What was written before the entry that it fails at stays until the call is undone.
    pub fn put(&mut self, store: &str, keys: ColumnIn<'_>, values: ColumnIn<'_>) -> Result<(), Refused> {
        let index = self.entries(store)?;
        let (keys, values) = (keys.keys("keys")?, values.all("values")?);
        same_length("values", values.len(), keys.len())?;
        let NodeState { task, limit_bytes, written, .. } = self;
        let mut budget = Budget { limit_bytes: *limit_bytes, written };
        for (key, value) in keys.into_iter().zip(values) {
            budget.take(key, value)?;
            task.put(index, key, value.map(Blob::from));
        }
        Ok(())
    }

    /// The first `limit` entries from `from` (inclusive) to `to` (exclusive; none: all that follow), in the order of keys, or
    /// the last ones from the end.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn range(
        &mut self,
        store: &str,
        (from, to): (&[u8], Option<&[u8]>),
        reverse: bool,
        limit: u32,
    ) -> Result<EntriesOut, Refused> {
        let index = self.entries(store)?;
        let limit = limit.min(MAX_ENTRIES) as usize;
        let mut out = EntriesOut::default();
        let found = self.task.range(index, KeyRange { from, to, reverse }, &mut |key, value| {
            let bytes = out.keys.data.len() + out.values.data.len();
            if out.keys.len() == limit || bytes >= MAX_PAGE_BYTES {
                out.more = true;
                return ControlFlow::Break(());
            }
            out.keys.push(Some(key));
            out.values.push(Some(value));
            ControlFlow::Continue(())
        });
        match found {
            Ok(()) => Ok(out),
            Err(error) => Err(Failed::State(error).refused(&mut self.failure)),
        }
    }

    /// The same for the keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`NodeState::range`].
    pub fn prefix(
        &mut self,
        store: &str,
        prefix: &[u8],
        reverse: bool,
        limit: u32,
    ) -> Result<EntriesOut, Refused> {
        let end = prefix_end(prefix);
        self.range(store, (prefix, end.as_deref()), reverse, limit)
    }

    /// Deletes the first `limit` entries of a range. Whether there are more.
    ///
    /// # Errors
    /// As [`NodeState::range`] and [`NodeState::put`].
    pub fn delete_range(
        &mut self,
        store: &str,
        range: (&[u8], Option<&[u8]>),
        limit: u32,
    ) -> Result<bool, Refused> {
        let index = self.entries(store)?;
        let found = self.range(store, range, false, limit)?;
        let NodeState { task, limit_bytes, written, .. } = self;
        let mut budget = Budget { limit_bytes: *limit_bytes, written };
        for key in (0..found.keys.len()).filter_map(|i| found.keys.get(i)) {
            budget.take(key, None)?;
            task.put(index, key, None);
        }
        Ok(found.more)
    }

    /// The value of the window of each key that begins at each start; null for none, and for one that is forgotten.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn get_windows(
        &mut self,
        store: &str,
        keys: ColumnIn<'_>,
        starts: &[i64],
    ) -> Result<ColumnOut, Refused> {
        let keys = keys.keys("keys")?;
        same_length("starts", starts.len(), keys.len())?;
        self.with_windows(store, |windows, task, _| windows.get(task, &keys, starts))
    }

    /// Sets each window of a key to its value, in order; null deletes it. One that would be forgotten already is not kept.
    ///
    /// # Errors
    /// As [`NodeState::put`].
    pub fn put_windows(
        &mut self,
        store: &str,
        keys: ColumnIn<'_>,
        starts: &[i64],
        values: ColumnIn<'_>,
    ) -> Result<(), Refused> {
        let (keys, values) = (keys.keys("keys")?, values.all("values")?);
        same_length("starts", starts.len(), keys.len())?;
        same_length("values", values.len(), keys.len())?;
        self.with_windows(store, |windows, task, budget| windows.put(task, &keys, starts, &values, budget))
    }

    /// The first `limit` windows of a key that begin from `first` to `last`, both inclusive, in the order of time, or the last
    /// ones from the end.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub fn windows_of(
        &mut self,
        store: &str,
        key: &[u8],
        (first, last): (i64, i64),
        reverse: bool,
        limit: u32,
    ) -> Result<WindowsOut, Refused> {
        let limit = limit.min(MAX_ENTRIES) as usize;
        self.with_windows(store, |windows, task, _| windows.of(task, key, (first, last), reverse, limit))
    }
}

/// Why a function gives no answer.
enum Failed {
    Refused(Refused),
    State(StateError),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        Failed::Refused(refused)
    }
}

impl From<StateError> for Failed {
    fn from(error: StateError) -> Failed {
        Failed::State(error)
    }
}

impl Failed {
    /// What the plugin is told. That a store cannot be used is noted.
    fn refused(self, failure: &mut Option<StateError>) -> Refused {
        match self {
            Failed::Refused(refused) => refused,
            Failed::State(error) => Refused(failure.get_or_insert(error).to_string()),
        }
    }
}

/// What a call may still write.
struct Budget<'b> {
    limit_bytes: u64,
    written: &'b mut u64,
}

impl Budget<'_> {
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Refused> {
        *self.written += (key.len() + value.map_or(0, <[u8]>::len)) as u64 + ENTRY_OVERHEAD_BYTES;
        if *self.written > self.limit_bytes {
            let limit = self.limit_bytes;
            return Err(Refused(format!(
                "it writes more than {limit} bytes to its stores in one call (limits.state)"
            )));
        }
        Ok(())
    }
}

fn same_length(name: &str, has: usize, wanted: usize) -> Result<(), Refused> {
    if has == wanted {
        return Ok(());
    }
    Err(Refused(format!("`{name}` has {has} entries, but should have {wanted}, one for each key")))
}

#[cfg(test)]
mod tests;

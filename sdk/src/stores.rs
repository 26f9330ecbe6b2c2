//! The stores of a node, as a plugin in Rust works with them.

use std::collections::HashMap;

use crate::batch::NULL;
use crate::bindings::{Column, Slices};

/// Keys that are asked for, or written, with one call of the host.
const CHUNK: usize = 50_000;

/// What a plugin's stores are asked: the server, or a map in tests.
#[doc(hidden)]
pub trait Host {
    fn get(&mut self, store: &str, keys: &Column) -> Column;
    fn put(&mut self, store: &str, keys: &Column, values: &Column);
    fn range(&mut self, store: &str, range: &Range<'_>) -> Entries;
    fn delete_range(&mut self, store: &str, start: &[u8], end: Option<&[u8]>, limit: u32) -> bool;
    fn get_windows(&mut self, store: &str, keys: &Column, starts: &[i64]) -> Column;
    fn put_windows(&mut self, store: &str, keys: &Column, starts: &[i64], values: &Column);
    fn windows_of(
        &mut self,
        store: &str,
        key: &[u8],
        times: (i64, i64),
        reverse: bool,
        limit: u32,
    ) -> Windows;
}

/// Which entries of a store are wanted: all of them, until it is narrowed.
///
/// ```
/// # use pelton_sdk::Range;
/// let latest = Range::prefix(b"user-7/").last(10);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    pub(crate) bounds: Bounds<'a>,
    pub(crate) reverse: bool,
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bounds<'a> {
    Between(&'a [u8], Option<&'a [u8]>),
    Prefix(&'a [u8]),
}

impl<'a> Range<'a> {
    /// All entries.
    pub fn all() -> Range<'a> {
        Range { bounds: Bounds::Between(&[], None), reverse: false, limit: u32::MAX }
    }

    /// Those whose keys begin with `prefix`.
    pub fn prefix(prefix: &'a [u8]) -> Range<'a> {
        Range { bounds: Bounds::Prefix(prefix), ..Range::all() }
    }

    /// From a key (inclusive) to another one (exclusive).
    pub fn between(start: &'a [u8], end: &'a [u8]) -> Range<'a> {
        Range { bounds: Bounds::Between(start, Some(end)), ..Range::all() }
    }

    /// From a key on.
    pub fn from(start: &'a [u8]) -> Range<'a> {
        Range { bounds: Bounds::Between(start, None), ..Range::all() }
    }

    /// The first so many of them.
    #[must_use]
    pub fn first(self, limit: u32) -> Range<'a> {
        Range { reverse: false, limit, ..self }
    }

    /// The last so many of them, last key first.
    #[must_use]
    pub fn last(self, limit: u32) -> Range<'a> {
        Range { reverse: true, limit, ..self }
    }
}

/// Entries of a range, in the order that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Key and value of each.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// There are more in the range: a server gives at most 10,000, and about 4 MiB.
    pub more: bool,
}

/// Windows of a key, in the order that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// Start and value of each.
    pub windows: Vec<(i64, Vec<u8>)>,
    /// As in [`Entries`].
    pub more: bool,
}

/// What `record` is going to read, so that all of a batch is asked for with one call of the server.
#[derive(Debug, Default)]
pub struct Reads(Vec<(String, Vec<Vec<u8>>)>);

impl Reads {
    /// This key of a store.
    pub fn key(&mut self, store: &str, key: impl AsRef<[u8]>) {
        let key = key.as_ref().to_vec();
        match self.0.iter_mut().find(|(name, _)| name == store) {
            Some((_, keys)) => keys.push(key),
            None => self.0.push((store.to_owned(), vec![key])),
        }
    }
}

/// The stores of the node, for one call. Values are remembered while the call lasts, and what is written goes to the server at its
/// end, so the border is crossed a few times for a batch and not for each record. What a call that fails has written is dropped.
///
/// A store that the node is not given, or one of the other kind, traps the call.
pub struct Stores<'h> {
    host: &'h mut dyn Host,
    stores: Vec<(String, Known)>,
}

/// What is known of one store.
#[derive(Default)]
struct Known {
    entries: HashMap<Vec<u8>, Entry>,
    /// Keys that were written, in the order of their first write.
    written: Vec<Vec<u8>>,
    /// Windows that were written, in order.
    windows: Vec<(Vec<u8>, i64, Option<Vec<u8>>)>,
}

struct Entry {
    value: Option<Vec<u8>>,
    written: bool,
}

impl<'h> Stores<'h> {
    #[doc(hidden)]
    pub fn new(host: &'h mut dyn Host) -> Stores<'h> {
        Stores { host, stores: Vec::new() }
    }

    /// Where what is known of a store is.
    fn place(&mut self, store: &str) -> usize {
        match self.stores.iter().position(|(name, _)| name == store) {
            Some(place) => place,
            None => {
                self.stores.push((store.to_owned(), Known::default()));
                self.stores.len() - 1
            }
        }
    }

    /// The value of a key; `None` if there is none.
    pub fn get(&mut self, store: &str, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        let (key, place) = (key.as_ref(), self.place(store));
        if !self.stores[place].1.entries.contains_key(key) {
            self.load(place, &[key.to_vec()]);
        }
        self.stores[place].1.entries.get(key)?.value.as_deref()
    }

    /// Sets a key to a value.
    pub fn put(&mut self, store: &str, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.write(store, key.as_ref(), Some(value.into()));
    }

    /// Deletes a key.
    pub fn delete(&mut self, store: &str, key: impl AsRef<[u8]>) {
        self.write(store, key.as_ref(), None);
    }

    fn write(&mut self, store: &str, key: &[u8], value: Option<Vec<u8>>) {
        let place = self.place(store);
        let Known { entries, written, .. } = &mut self.stores[place].1;
        match entries.get_mut(key) {
            Some(entry) => {
                entry.value = value;
                if !std::mem::replace(&mut entry.written, true) {
                    written.push(key.to_vec());
                }
            }
            None => {
                entries.insert(key.to_vec(), Entry { value, written: true });
                written.push(key.to_vec());
            }
        }
    }

    /// Asks for all of these at once.
    pub fn read_ahead(&mut self, reads: Reads) {
        for (store, mut keys) in reads.0 {
            let place = self.place(&store);
            let known = &self.stores[place].1.entries;
            keys.retain(|key| !known.contains_key(key));
            keys.sort_unstable();
            keys.dedup();
            keys.chunks(CHUNK).for_each(|keys| self.load(place, keys));
        }
    }

    fn load(&mut self, place: usize, keys: &[Vec<u8>]) {
        let (name, known) = &mut self.stores[place];
        let values = self.host.get(name, &column(keys.iter().map(|key| Some(&key[..]))));
        for (key, value) in keys.iter().zip(strings(&values)) {
            known.entries.insert(key.clone(), Entry { value, written: false });
        }
    }

    /// The entries of a range.
    pub fn range(&mut self, store: &str, range: &Range<'_>) -> Entries {
        let place = self.place(store);
        self.flush_one(place);
        self.host.range(store, range)
    }

    /// Deletes from `start` (inclusive) to `end` (exclusive; none: all that follow), at most `limit` entries and 10,000. Whether there
    /// are more.
    pub fn delete_range(&mut self, store: &str, start: &[u8], end: Option<&[u8]>, limit: u32) -> bool {
        let place = self.place(store);
        self.flush_one(place);
        self.stores[place].1.entries.clear();
        self.host.delete_range(store, start, end, limit)
    }

    /// The value of the window of a key that begins at `start`; `None` if there is none.
    pub fn window(&mut self, store: &str, key: impl AsRef<[u8]>, start: i64) -> Option<Vec<u8>> {
        self.windows(store, &[(key.as_ref(), start)]).pop().flatten()
    }

    /// The value of each of these windows, in order.
    pub fn windows(&mut self, store: &str, windows: &[(&[u8], i64)]) -> Vec<Option<Vec<u8>>> {
        let place = self.place(store);
        self.flush_one(place);
        let mut values = Vec::with_capacity(windows.len());
        for windows in windows.chunks(CHUNK) {
            let starts: Vec<i64> = windows.iter().map(|(_, start)| *start).collect();
            let keys = column(windows.iter().map(|(key, _)| Some(*key)));
            values.extend(strings(&self.host.get_windows(store, &keys, &starts)));
        }
        values
    }

    /// Sets a window of a key to a value. One that would be forgotten already is not kept.
    pub fn put_window(&mut self, store: &str, key: impl AsRef<[u8]>, start: i64, value: impl Into<Vec<u8>>) {
        let place = self.place(store);
        self.stores[place].1.windows.push((key.as_ref().to_vec(), start, Some(value.into())));
    }

    /// Deletes a window of a key.
    pub fn delete_window(&mut self, store: &str, key: impl AsRef<[u8]>, start: i64) {
        let place = self.place(store);
        self.stores[place].1.windows.push((key.as_ref().to_vec(), start, None));
    }

    /// The first `limit` windows of a key that begin from `first` to `last`, both inclusive.
    pub fn windows_of(
        &mut self,
        store: &str,
        key: impl AsRef<[u8]>,
        first: i64,
        last: i64,
        limit: u32,
    ) -> Windows {
        let place = self.place(store);
        self.flush_one(place);
        self.host.windows_of(store, key.as_ref(), (first, last), false, limit)
    }

    /// The last `limit` of them, last start first.
    pub fn last_windows_of(
        &mut self,
        store: &str,
        key: impl AsRef<[u8]>,
        first: i64,
        last: i64,
        limit: u32,
    ) -> Windows {
        let place = self.place(store);
        self.flush_one(place);
        self.host.windows_of(store, key.as_ref(), (first, last), true, limit)
    }

    /// Gives the server what was written. Done at the end of each call that succeeds.
    pub fn flush(&mut self) {
        (0..self.stores.len()).for_each(|place| self.flush_one(place));
    }

    fn flush_one(&mut self, place: usize) {
        let (name, Known { entries, written, windows }) = &mut self.stores[place];
        for keys in std::mem::take(written).chunks(CHUNK) {
            for key in keys {
                if let Some(entry) = entries.get_mut(key) {
                    entry.written = false;
                }
            }
            let value = |key: &Vec<u8>| entries.get(key).and_then(|entry| entry.value.as_deref());
            let values = column(keys.iter().map(value));
            self.host.put(name, &column(keys.iter().map(|key| Some(&key[..]))), &values);
        }
        for windows in std::mem::take(windows).chunks(CHUNK) {
            let starts: Vec<i64> = windows.iter().map(|(_, start, _)| *start).collect();
            let keys = column(windows.iter().map(|(key, ..)| Some(&key[..])));
            let values = column(windows.iter().map(|(.., value)| value.as_deref()));
            self.host.put_windows(name, &keys, &starts, &values);
        }
    }
}

/// Byte strings as they cross the border.
pub(crate) fn column<'a>(fields: impl Iterator<Item = Option<&'a [u8]>>) -> Column {
    let mut column = Column { data: Vec::new(), fields: Slices { offsets: Vec::new(), lengths: Vec::new() } };
    for field in fields {
        column.fields.offsets.push(column.data.len() as u32);
        column.fields.lengths.push(field.map_or(NULL, |field| field.len() as u32));
        column.data.extend_from_slice(field.unwrap_or_default());
    }
    column
}

/// Every string of a column; `None` for null.
pub(crate) fn strings(column: &Column) -> impl Iterator<Item = Option<Vec<u8>>> {
    let Slices { offsets, lengths } = &column.fields;
    offsets.iter().zip(lengths).map(|(&offset, &length)| {
        let start = offset as usize;
        (length != NULL).then(|| column.data[start..start + length as usize].to_vec())
    })
}

/// The server.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub struct Server;

#[cfg(target_arch = "wasm32")]
impl Host for Server {
    fn get(&mut self, store: &str, keys: &Column) -> Column {
        imported::get(store, keys)
    }

    fn put(&mut self, store: &str, keys: &Column, values: &Column) {
        imported::put(store, keys, values);
    }

    fn range(&mut self, store: &str, range: &Range<'_>) -> Entries {
        let found = match range.bounds {
            Bounds::Between(start, end) => imported::range(store, start, end, range.reverse, range.limit),
            Bounds::Prefix(prefix) => imported::prefix(store, prefix, range.reverse, range.limit),
        };
        let values = strings(&found.values).map(Option::unwrap_or_default);
        let entries = strings(&found.keys).map(Option::unwrap_or_default).zip(values);
        Entries { entries: entries.collect(), more: found.more }
    }

    fn delete_range(&mut self, store: &str, start: &[u8], end: Option<&[u8]>, limit: u32) -> bool {
        imported::delete_range(store, start, end, limit)
    }

    fn get_windows(&mut self, store: &str, keys: &Column, starts: &[i64]) -> Column {
        imported::get_windows(store, keys, starts)
    }

    fn put_windows(&mut self, store: &str, keys: &Column, starts: &[i64], values: &Column) {
        imported::put_windows(store, keys, starts, values);
    }

    fn windows_of(
        &mut self,
        store: &str,
        key: &[u8],
        times: (i64, i64),
        reverse: bool,
        limit: u32,
    ) -> Windows {
        let found = imported::windows_of(store, key, times.0, times.1, reverse, limit);
        let values = strings(&found.values).map(Option::unwrap_or_default);
        Windows { windows: found.starts.iter().copied().zip(values).collect(), more: found.more }
    }
}

#[cfg(target_arch = "wasm32")]
use crate::bindings::with_state::pelton::plugin::state as imported;

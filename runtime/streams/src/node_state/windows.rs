//! Windows that a plugin keeps: values by key and by the time at which a window begins.
//!
//! The time of a store is the latest start that was put into it. It is kept in the store, and it is a function of what was
//! put, in its order, whatever the batches in which records came. A window is there as long as `start + retention` is later
//! than that; what is put behind it is not kept. The retention can be changed: entries say nothing of it.
//!
//! ```text
//! 00                    version(1) time(8)
//! 10 key* start(8)      value
//! 11 end(8) key         start(8)
//! ```
//!
//! The windows of a key lie together, so that a stretch of time is one range. That they are forgotten is found by time, in the
//! last kind of entry: one for each key and stretch of time (`start` to `end`, an eighth of the retention), not for each
//! window. No range tombstones: see the module of operators.

use std::ops::ControlFlow;

use super::{Budget, ColumnOut, Failed, MAX_PAGE_BYTES, Refused, WindowsOut};
use crate::operator::MAX_TIMESTAMP;
use crate::operator::key::{push_escaped, push_i64, read_escaped, read_i64, sortable, tag};
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState};

const TIME: [u8; 1] = [tag::META];
const VERSION: u8 = 1;
/// Nothing was put yet.
const NO_TIME: i64 = -1;
/// The shortest stretch of time that is forgotten at once, in milliseconds.
const MIN_STRETCH_MS: i64 = 1_000;

/// A key, the start of a window and its value.
pub(super) type KeptWindow = (Vec<u8>, i64, Vec<u8>);

/// A store of windows. See the module.
#[derive(Debug)]
pub struct Windows {
    store: StoreIndex,
    retention_ms: i64,
    /// What the store has; none before it was read.
    time: Option<i64>,
}

impl Windows {
    pub(super) fn new(store: StoreIndex, retention_ms: i64) -> Windows {
        Windows { store, retention_ms, time: None }
    }

    pub(super) fn reset(&mut self) {
        self.time = None;
    }

    fn damaged(&self, what: &str) -> StateError {
        StateError::Corrupt(format!("{what} of store {} has an unknown layout", self.store))
    }

    fn time(&mut self, state: &mut TaskState) -> Result<i64, StateError> {
        if let Some(time) = self.time {
            return Ok(time);
        }
        let time = match state.get(self.store, &TIME)? {
            None => NO_TIME,
            Some(blob) => match &*blob {
                [VERSION, time @ ..] if time.len() == 8 => read_i64(time).map_or(NO_TIME, |(time, _)| time),
                _ => return Err(self.damaged("the time")),
            },
        };
        self.time = Some(time);
        Ok(time)
    }

    /// No window that begins before this is there.
    fn first(&mut self, state: &mut TaskState) -> Result<i64, StateError> {
        Ok((self.time(state)? - self.retention_ms + 1).max(0))
    }

    pub(super) fn get(
        &mut self,
        state: &mut TaskState,
        keys: &[&[u8]],
        starts: &[i64],
    ) -> Result<ColumnOut, Failed> {
        let first = self.first(state)?;
        let places: Vec<Vec<u8>> = keys.iter().zip(starts).map(|(key, start)| place(key, *start)).collect();
        state.prefetch(self.store, places.iter().map(Vec::as_slice))?;
        let mut out = ColumnOut::default();
        for (place, start) in places.iter().zip(starts) {
            let value = if *start < first { None } else { state.get(self.store, place)? };
            out.answer(value.as_ref())?;
        }
        Ok(out)
    }

    pub(super) fn put(
        &mut self,
        state: &mut TaskState,
        keys: &[&[u8]],
        starts: &[i64],
        values: &[Option<&[u8]>],
        budget: &mut Budget<'_>,
    ) -> Result<(), Failed> {
        let before = self.time(state)?;
        for (i, ((key, start), value)) in keys.iter().zip(starts).zip(values).enumerate() {
            if !(0..=MAX_TIMESTAMP).contains(start) {
                return Err(Refused(format!("starts[{i}] is {start}, which is no time for a window")).into());
            }
            let time = self.time(state)?.max(*start);
            self.time = Some(time);
            if start + self.retention_ms <= time {
                continue;
            }
            let place = place(key, *start);
            budget.take(&place, *value)?;
            state.put(self.store, &place, value.map(Blob::from));
            if value.is_some() {
                self.note(state, key, *start, budget)?;
            }
        }
        let after = self.time(state)?;
        if after != before {
            let mut bytes = vec![VERSION];
            push_i64(&mut bytes, after);
            state.put(self.store, &TIME, Some(Blob::from(bytes)));
        }
        Ok(())
    }

    /// Notes when a window of a key is forgotten.
    fn note(
        &self,
        state: &mut TaskState,
        key: &[u8],
        start: i64,
        budget: &mut Budget<'_>,
    ) -> Result<(), Failed> {
        let stretch_ms = (self.retention_ms / 8).max(MIN_STRETCH_MS);
        let from = start - start % stretch_ms;
        let until = until_place(from + stretch_ms, key);
        if state.get(self.store, &until)?.is_none() {
            budget.take(&until, None)?;
            state.put(self.store, &until, Some(Blob::from(sortable(from))));
        }
        Ok(())
    }

    pub(super) fn of(
        &mut self,
        state: &mut TaskState,
        key: &[u8],
        (first, last): (i64, i64),
        reverse: bool,
        limit: usize,
    ) -> Result<WindowsOut, Failed> {
        let first = self.first(state)?.max(first);
        let mut out = WindowsOut::default();
        if first > last {
            return Ok(out);
        }
        let (from, to) = (place(key, first), place(key, last.min(MAX_TIMESTAMP) + 1));
        let mut is_damaged = false;
        state.range(self.store, KeyRange { from: &from, to: Some(&to), reverse }, &mut |place, value| {
            if out.starts.len() == limit || out.values.data.len() >= MAX_PAGE_BYTES {
                out.more = true;
                return ControlFlow::Break(());
            }
            let Some(start) = start_of(place) else {
                is_damaged = true;
                return ControlFlow::Break(());
            };
            out.starts.push(start);
            out.values.push(Some(value));
            ControlFlow::Continue(())
        })?;
        if is_damaged { Err(self.damaged("a window").into()) } else { Ok(out) }
    }

    /// All that are not forgotten: the key, the start and the value of each.
    pub(super) fn all(&mut self, state: &mut TaskState) -> Result<Vec<KeptWindow>, StateError> {
        let first = self.first(state)?;
        let (from, to) = ([tag::PLUGIN_WINDOW], [tag::PLUGIN_WINDOW + 1]);
        let (mut found, mut is_damaged) = (Vec::new(), false);
        state.range(
            self.store,
            KeyRange { from: &from, to: Some(&to), reverse: false },
            &mut |place, value| {
                match read_place(place) {
                    Some((key, start)) if start >= first => found.push((key, start, value.to_vec())),
                    Some(_) => {}
                    None => is_damaged = true,
                }
                ControlFlow::Continue(())
            },
        )?;
        if is_damaged { Err(self.damaged("a window")) } else { Ok(found) }
    }

    /// Forgets about `budget` windows whose time is over. Whether there may be more.
    pub(super) fn forget(&mut self, state: &mut TaskState, budget: usize) -> Result<bool, StateError> {
        let over = self.time(state)? - self.retention_ms;
        if over < 0 {
            return Ok(false);
        }
        let (from, to) = ([tag::PLUGIN_UNTIL], until_place(over + 1, &[]));
        let range = KeyRange { from: &from, to: Some(&to), reverse: false };
        let (stretches, mut more) = read(state, self.store, range, budget)?;
        let mut left = budget;
        for (until, start) in stretches {
            let stretch = read_i64(&until[1..]).zip(read_i64(&start));
            let Some(((end, key), (start, _))) = stretch else {
                return Err(self.damaged("the end of a window"));
            };
            let (from, to) = (place(key, start), place(key, end));
            let range = KeyRange { from: &from, to: Some(&to), reverse: false };
            let (windows, is_cut) = read(state, self.store, range, left)?;
            left -= windows.len();
            for (window, _) in windows {
                state.put(self.store, &window, None);
            }
            if is_cut {
                more = true;
                break;
            }
            state.put(self.store, &until, None);
        }
        Ok(more)
    }
}

type Entry = (Box<[u8]>, Box<[u8]>);

/// The first `limit` entries of a range, and whether there are more.
fn read(
    state: &TaskState,
    store: StoreIndex,
    range: KeyRange<'_>,
    limit: usize,
) -> Result<(Vec<Entry>, bool), StateError> {
    let (mut found, mut more): (Vec<Entry>, bool) = (Vec::new(), false);
    state.range(store, range, &mut |key, value| {
        if found.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        found.push((key.into(), value.into()));
        ControlFlow::Continue(())
    })?;
    Ok((found, more))
}

fn place(key: &[u8], start: i64) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 11);
    place.push(tag::PLUGIN_WINDOW);
    push_escaped(&mut place, key);
    push_i64(&mut place, start);
    place
}

fn until_place(end: i64, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 9);
    place.push(tag::PLUGIN_UNTIL);
    push_i64(&mut place, end);
    place.extend_from_slice(key);
    place
}

/// The key and the start of a window.
fn read_place(place: &[u8]) -> Option<(Vec<u8>, i64)> {
    let (key, rest) = read_escaped(place.get(1..)?)?;
    Some((key.into_owned(), read_i64(rest)?.0))
}

fn start_of(place: &[u8]) -> Option<i64> {
    let (_, rest) = read_escaped(place.get(1..)?)?;
    Some(read_i64(rest)?.0)
}

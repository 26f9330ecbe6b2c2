//! Many entries of an operator's store in one order, for readers: page by page, over the stores of several tasks.
//!
//! A store whose keys are those of records is read in the order of keys; windows of fixed places in the order of their
//! starts, then keys; sliding windows and sessions first those that are open, then closed ones that are kept, both in
//! the order of keys, ends and starts. What the operator has decided to forget is not there.

use std::ops::{ControlFlow, RangeInclusive};

use super::key::{push_escaped, push_i64, read_escaped, read_i64, sortable, tag};
use super::time_window::read_window;
use super::view::{FoundWindow, LOOKED_AT_MAX, alive, first_start, forgotten_at, stream_time, unreadable};
use super::windows::{Closing, WindowSpec};
use super::{Window, WindowKind, envelope};
use crate::batch::NO_TIMESTAMP;
use crate::state::{KeyRange, StateError, StateView, StoreIndex};
use crate::tables::RowRange;

/// How a store is laid out.
#[derive(Debug, Clone, Copy)]
pub enum Layout<'s> {
    /// Keys of records, with what the operator keeps of each.
    Keys,
    /// Keys and values of a plugin.
    Entries,
    /// Windows.
    Windows(&'s WindowSpec, &'s Closing),
}

/// Which entries are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of these keys.
    pub keys: RowRange,
    /// Windows that begin within this time.
    pub starts: RangeInclusive<i64>,
    /// Those behind the last one of the page before.
    pub behind: Option<Vec<u8>>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { keys: RowRange::default(), starts: 0..=i64::MAX, behind: None }
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Its place in the order of all entries.
    pub order: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// The window.
    pub window: Option<Window>,
    /// The time of the latest row in it.
    pub timestamp: i64,
    /// What is stored of it.
    pub state: Vec<u8>,
}

/// A part of what a store has.
#[derive(Debug, Default)]
pub struct Part {
    /// Entries in their order.
    pub entries: Vec<Scanned>,
    /// Up to where the store was read, if it was not read to its end.
    pub up_to: Option<Vec<u8>>,
    looked_at: usize,
    bytes: usize,
}

/// The first entries that are wanted: about `limit`, and about `bytes` of them, at least one if there is one.
///
/// # Errors
/// The store cannot be read.
pub fn part(
    view: &dyn StateView,
    store: StoreIndex,
    layout: Layout<'_>,
    wanted: &Wanted,
    (limit, bytes): (usize, usize),
) -> Result<Part, StateError> {
    let mut part = Part::default();
    let limits = Limits { limit, bytes };
    match layout {
        Layout::Keys => keys(view, store, wanted, limits, &mut part, envelope::decode)?,
        Layout::Entries => keys(view, store, wanted, limits, &mut part, |value| Some((NO_TIMESTAMP, value)))?,
        Layout::Windows(spec, closing) => {
            let Some(now) = stream_time(view, store)? else { return Ok(part) };
            let windows = Windows { view, store, spec, closing, wanted, limits, now };
            match *spec {
                WindowSpec::Hopping { size_ms, .. } => windows.hopping(size_ms, &mut part)?,
                WindowSpec::Sliding { .. } | WindowSpec::Session { .. } => {
                    windows.open(&mut part)?;
                    if part.up_to.is_none() {
                        windows.closed(&mut part)?;
                    }
                }
            }
        }
    }
    Ok(part)
}

#[derive(Clone, Copy)]
struct Limits {
    limit: usize,
    bytes: usize,
}

impl Part {
    fn push(&mut self, entry: Scanned) {
        self.bytes += entry.key.len() + entry.state.len();
        self.entries.push(entry);
    }

    /// An entry of the store was dealt with, the last one up to `order`. Whether there should be more.
    fn next(&mut self, limits: Limits, order: impl FnOnce() -> Vec<u8>) -> ControlFlow<()> {
        self.looked_at += 1;
        let full = self.entries.len() >= limits.limit || self.bytes >= limits.bytes;
        if full || self.looked_at >= LOOKED_AT_MAX {
            self.up_to = Some(order());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Shows entries of a range until one of them has an unknown layout, or there are enough.
fn visit(
    view: &dyn StateView,
    store: StoreIndex,
    (from, to): (&[u8], Option<&[u8]>),
    mut each: impl FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>>,
) -> Result<(), StateError> {
    let mut is_damaged = false;
    view.range(store, KeyRange { from, to, reverse: false }, &mut |key, stored| {
        each(key, stored).unwrap_or_else(|| {
            is_damaged = true;
            ControlFlow::Break(())
        })
    })?;
    if is_damaged { Err(unreadable(store)) } else { Ok(()) }
}

fn behind(place: &[u8]) -> Vec<u8> {
    [place, &[0]].concat()
}

fn keys(
    view: &dyn StateView,
    store: StoreIndex,
    wanted: &Wanted,
    limits: Limits,
    part: &mut Part,
    read: impl for<'s> Fn(&'s [u8]) -> Option<(i64, &'s [u8])>,
) -> Result<(), StateError> {
    let keys = wanted.behind.as_ref().map_or_else(|| wanted.keys.clone(), |key| wanted.keys.behind(key));
    visit(view, store, (&keys.from, keys.to.as_deref()), |key, stored| {
        let (timestamp, state) = read(stored)?;
        let (order, key, state) = (key.to_vec(), key.to_vec(), state.to_vec());
        part.push(Scanned { order: order.clone(), key, window: None, timestamp, state });
        Some(part.next(limits, || order))
    })
}

struct Windows<'a> {
    view: &'a dyn StateView,
    store: StoreIndex,
    spec: &'a WindowSpec,
    closing: &'a Closing,
    wanted: &'a Wanted,
    limits: Limits,
    /// The store's stream time.
    now: i64,
}

impl Windows<'_> {
    /// The first place of a tag that is wanted: `from`, or behind the page before.
    fn first(&self, from: Vec<u8>) -> Vec<u8> {
        match &self.wanted.behind {
            Some(place) => from.max(behind(place)),
            None => from,
        }
    }

    fn hopping(&self, size_ms: i64, part: &mut Part) -> Result<(), StateError> {
        let first = first_start(size_ms, self.closing, self.now).max(*self.wanted.starts.start());
        let last = self.now.min(*self.wanted.starts.end());
        if first > last {
            return Ok(());
        }
        let place = |start| [&[tag::WINDOW][..], &sortable(start)].concat();
        let (from, to) = (self.first(place(first)), place(last + 1));
        visit(self.view, self.store, (&from, Some(&to)), |place, stored| {
            let (start, key) = read_window(place)?;
            let (timestamp, state) = envelope::decode(stored)?;
            if self.wanted.keys.contains(key) {
                let window = Some(Window { kind: WindowKind::Time, start, end: start + size_ms });
                let (order, key, state) = (place.to_vec(), key.to_vec(), state.to_vec());
                part.push(Scanned { order, key, window, timestamp, state });
            }
            Some(part.next(self.limits, || place.to_vec()))
        })
    }

    /// Whether a window is wanted that is not one of a fixed place.
    fn wants(&self, found: &FoundWindow) -> bool {
        let is_kept = forgotten_at(&found.window, self.spec, self.closing) > self.now;
        is_kept && self.wanted.starts.contains(&found.window.start)
    }

    fn open(&self, part: &mut Part) -> Result<(), StateError> {
        let place = |key: &[u8]| [&[tag::LIVE][..], key].concat();
        // A page may end between two windows of a key.
        let before = self.wanted.behind.as_deref().and_then(|place| place.split_first());
        let from = match before {
            Some((&tag::LIVE, rest)) => read_escaped(rest).map(|(key, _)| place(&key)),
            Some(_) => return Ok(()),
            None => None,
        };
        let from = from.map_or_else(
            || place(&self.wanted.keys.from),
            |behind| behind.max(place(&self.wanted.keys.from)),
        );
        let to = self.wanted.keys.to.as_deref().map_or_else(|| vec![tag::LIVE + 1], place);
        visit(self.view, self.store, (&from, Some(&to)), |place, stored| {
            let key = place.strip_prefix(&[tag::LIVE])?;
            let mut windows = alive(stored, self.spec)?;
            windows.sort_by_key(|found| (found.window.end, found.window.start));
            for found in windows.into_iter().filter(|found| self.wants(found)) {
                let order = order_of(tag::LIVE, key, &found.window);
                if self.wanted.behind.as_ref().is_none_or(|behind| order > *behind) {
                    part.push(scanned(order, key.to_vec(), found));
                }
            }
            // Behind every window of the key.
            let end = Window { kind: WindowKind::Session, start: i64::MAX, end: i64::MAX };
            Some(part.next(self.limits, || order_of(tag::LIVE, key, &end)))
        })
    }

    fn closed(&self, part: &mut Part) -> Result<(), StateError> {
        let place = |key: &[u8]| {
            let mut place = vec![tag::CLOSED];
            push_escaped(&mut place, key);
            place
        };
        let from = self.first(place(&self.wanted.keys.from));
        let to = self.wanted.keys.to.as_deref().map_or_else(|| vec![tag::CLOSED + 1], place);
        let kind = match self.spec {
            WindowSpec::Session { .. } => WindowKind::Session,
            WindowSpec::Sliding { .. } | WindowSpec::Hopping { .. } => WindowKind::Sliding,
        };
        if from >= to {
            return Ok(());
        }
        visit(self.view, self.store, (&from, Some(&to)), |place, stored| {
            let (key, rest) = read_escaped(place.get(1..)?)?;
            let (end, rest) = read_i64(rest)?;
            let (start, _) = read_i64(rest)?;
            let (timestamp, state) = envelope::decode(stored)?;
            let state = bytes::Bytes::copy_from_slice(state);
            let found = FoundWindow { window: Window { kind, start, end }, timestamp, state };
            if self.wants(&found) {
                part.push(scanned(place.to_vec(), key.into_owned(), found));
            }
            Some(part.next(self.limits, || place.to_vec()))
        })
    }
}

/// Where a hopping window of a store begins, and of which key it is; none for another entry.
pub(crate) fn hopping_place(place: &[u8]) -> Option<(i64, &[u8])> {
    if place.first() == Some(&tag::WINDOW) { read_window(place) } else { None }
}

fn order_of(tag: u8, key: &[u8], window: &Window) -> Vec<u8> {
    let mut order = vec![tag];
    push_escaped(&mut order, key);
    push_i64(&mut order, window.end);
    push_i64(&mut order, window.start);
    order
}

fn scanned(order: Vec<u8>, key: Vec<u8>, found: FoundWindow) -> Scanned {
    let FoundWindow { window, timestamp, state } = found;
    Scanned { order, key, window: Some(window), timestamp, state: state.to_vec() }
}

//! What readers find in the stores of operators: from a [`StateView`], without an operator.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;

use super::key::{push_escaped, push_i64, read_i64, sortable, tag};
use super::live::push_live;
use super::windows::{Closing, WindowSpec};
use super::{Window, WindowKind, envelope, meta, session, sliding};
use crate::state::{KeyRange, StateError, StateView, StoreIndex};

/// Places in a store that are looked at for one answer, whatever of them is wanted.
pub const LOOKED_AT_MAX: usize = 50_000;

/// A value of a table or of an aggregate without windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The time of the latest row in it.
    pub timestamp: i64,
    /// The value of a table; the state of an aggregate, whose [`result`](super::aggregate::Aggregator::result)
    /// readers want.
    pub value: Bytes,
}

/// A window of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundWindow {
    /// Its bounds.
    pub window: Window,
    /// The time of the latest row in it.
    pub timestamp: i64,
    /// Its state.
    pub state: Bytes,
}

pub(crate) fn unreadable(store: StoreIndex) -> StateError {
    StateError::Corrupt(format!("an entry of store {store} has an unknown layout"))
}

/// What a table or an aggregate without windows has for a key.
///
/// # Errors
/// The store cannot be read.
pub fn get(view: &dyn StateView, store: StoreIndex, key: &[u8]) -> Result<Option<Found>, StateError> {
    let Some(blob) = view.get(store, key)? else { return Ok(None) };
    let (timestamp, value) = envelope::decode(&blob).ok_or_else(|| unreadable(store))?;
    Ok(Some(Found { timestamp, value: Bytes::copy_from_slice(value) }))
}

/// Windows of a key, in the order of their starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsFound {
    /// The windows.
    pub windows: Vec<FoundWindow>,
    /// Those that begin then or later were not looked at, if there may be some.
    pub next: Option<i64>,
}

/// The first `limit` windows of a key that begin within a time, in their order, those that are open among them. What the
/// operator has decided to forget is not there, whether or not it is still in the store. There may be fewer of them and more
/// behind: a reader does not look at more than [`LOOKED_AT_MAX`] places.
///
/// # Errors
/// The store cannot be read.
pub fn windows(
    view: &dyn StateView,
    store: StoreIndex,
    (spec, closing): (&WindowSpec, &Closing),
    key: &[u8],
    starts: RangeInclusive<i64>,
    limit: usize,
) -> Result<WindowsFound, StateError> {
    let Some(stream_time) = stream_time(view, store)? else { return Ok(WindowsFound::default()) };
    if let WindowSpec::Hopping { size_ms, advance_ms } = *spec {
        let first = first_start(size_ms, closing, stream_time);
        let (from, to) = (first.max(*starts.start()), stream_time.min(*starts.end()));
        if from > to {
            return Ok(WindowsFound::default());
        }
        return hopping(view, store, (size_ms, advance_ms), key, from..=to, limit);
    }
    let is_shown = |one: &FoundWindow| {
        starts.contains(&one.window.start) && forgotten_at(&one.window, spec, closing) > stream_time
    };
    let mut found = closed(view, store, (spec, &starts), key, limit, &is_shown)?;
    if found.next.is_some() {
        return Ok(found);
    }
    let mut place = Vec::new();
    push_live(&mut place, key);
    if let Some(blob) = view.get(store, &place)? {
        let open = alive(&blob, spec).ok_or_else(|| unreadable(store))?;
        found.windows.extend(open.into_iter().filter(is_shown));
    }
    found.windows.sort_by_key(|one| (one.window.start, one.window.end));
    found.next = found.windows.get(limit).map(|behind| behind.window.start);
    found.windows.truncate(limit);
    Ok(found)
}

/// The stream time of a store with windows; none if no row has come yet.
pub(super) fn stream_time(view: &dyn StateView, store: StoreIndex) -> Result<Option<i64>, StateError> {
    let Some(meta) = view.get(store, meta::META_KEY)? else { return Ok(None) };
    meta::stream_time(&meta).map(Some).ok_or_else(|| unreadable(store))
}

/// Where the first hopping window begins that is not forgotten.
pub(super) fn first_start(size_ms: i64, closing: &Closing, stream_time: i64) -> i64 {
    (stream_time - size_ms - closing.kept_ms() + 1).max(0)
}

/// The windows in the entry of what is alive of a key; none if this version does not know the layout.
pub(super) fn alive(blob: &[u8], spec: &WindowSpec) -> Option<Vec<FoundWindow>> {
    // Behind the version and the moment at which it is due.
    let body = blob.get(9..)?;
    match *spec {
        WindowSpec::Session { .. } => session::found(body),
        WindowSpec::Sliding { size_ms } => sliding::found(body, size_ms),
        WindowSpec::Hopping { .. } => None,
    }
}

/// The stream time from which on a sliding window or a session is forgotten.
pub(super) fn forgotten_at(window: &Window, spec: &WindowSpec, closing: &Closing) -> i64 {
    let gap = if let WindowSpec::Session { gap_ms } = spec { *gap_ms } else { 0 };
    window.end + gap + closing.kept_ms() + 1
}

fn hopping(
    view: &dyn StateView,
    store: StoreIndex,
    (size_ms, advance_ms): (i64, i64),
    key: &[u8],
    starts: RangeInclusive<i64>,
    limit: usize,
) -> Result<WindowsFound, StateError> {
    let mut found = WindowsFound::default();
    let mut place = Vec::new();
    let first = (starts.start() + advance_ms - 1) / advance_ms * advance_ms;
    let all = (0..).map(|count| first + count * advance_ms).take_while(|start| start <= starts.end());
    for (looked_at, start) in all.enumerate() {
        if found.windows.len() == limit || looked_at == LOOKED_AT_MAX {
            found.next = Some(start);
            break;
        }
        place.clear();
        place.push(tag::WINDOW);
        push_i64(&mut place, start);
        place.extend_from_slice(key);
        if let Some(blob) = view.get(store, &place)? {
            let (timestamp, state) = envelope::decode(&blob).ok_or_else(|| unreadable(store))?;
            let window = Window { kind: WindowKind::Time, start, end: start + size_ms };
            found.windows.push(FoundWindow { window, timestamp, state: Bytes::copy_from_slice(state) });
        }
    }
    Ok(found)
}

/// The closed windows of a key that are kept. Those of one key begin in the order in which they end: sessions do not overlap,
/// and sliding windows have one length.
fn closed(
    view: &dyn StateView,
    store: StoreIndex,
    (spec, starts): (&WindowSpec, &RangeInclusive<i64>),
    key: &[u8],
    limit: usize,
    is_shown: &dyn Fn(&FoundWindow) -> bool,
) -> Result<WindowsFound, StateError> {
    // When the first window that is wanted may end: a sliding window of the first moments is the only one that is shorter.
    let (kind, first_end) = match *spec {
        WindowSpec::Sliding { size_ms } if *starts.start() > 0 => {
            (WindowKind::Sliding, starts.start().saturating_add(size_ms))
        }
        WindowSpec::Sliding { .. } | WindowSpec::Hopping { .. } => (WindowKind::Sliding, *starts.start()),
        WindowSpec::Session { .. } => (WindowKind::Session, *starts.start()),
    };
    let mut of_key = vec![tag::CLOSED];
    push_escaped(&mut of_key, key);
    let from = [&of_key[..], &sortable(first_end)].concat();
    let to = [&of_key[..], &sortable(i64::MAX)].concat();
    let (mut found, mut looked_at, mut is_damaged) = (WindowsFound::default(), 0, false);
    view.range(store, KeyRange { from: &from, to: Some(&to), reverse: false }, &mut |place, stored| {
        let one = || {
            let (end, rest) = read_i64(place.get(of_key.len()..)?)?;
            let (start, _) = read_i64(rest)?;
            let (timestamp, state) = envelope::decode(stored)?;
            let window = Window { kind, start, end };
            Some(FoundWindow { window, timestamp, state: Bytes::copy_from_slice(state) })
        };
        let Some(one) = one() else {
            is_damaged = true;
            return ControlFlow::Break(());
        };
        if one.window.start > *starts.end() {
            return ControlFlow::Break(());
        }
        if found.windows.len() == limit || looked_at == LOOKED_AT_MAX {
            found.next = Some(one.window.start);
            return ControlFlow::Break(());
        }
        looked_at += 1;
        if is_shown(&one) {
            found.windows.push(one);
        }
        ControlFlow::Continue(())
    })?;
    if is_damaged { Err(unreadable(store)) } else { Ok(found) }
}

//! What readers find in the stores of operators: from a [`StateView`], without an operator.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;

use super::key::{push_escaped, push_i64, read_i64, sortable, tag};
use super::live::push_live;
use super::windows::{Closing, WindowSpec};
use super::{Window, WindowKind, envelope, meta, session, sliding};
use crate::state::{KeyRange, StateError, StateView, StoreIndex};

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

/// The windows of a key that begin within a time, in their order, those that are open among them. What the operator
/// has decided to forget is not there, whether or not it is still in the store.
///
/// # Errors
/// The store cannot be read.
pub fn windows(
    view: &dyn StateView,
    store: StoreIndex,
    spec: &WindowSpec,
    closing: &Closing,
    key: &[u8],
    starts: RangeInclusive<i64>,
) -> Result<Vec<FoundWindow>, StateError> {
    let Some(stream_time) = stream_time(view, store)? else { return Ok(Vec::new()) };
    let mut found = match *spec {
        WindowSpec::Hopping { size_ms, advance_ms } => {
            let first = first_start(size_ms, closing, stream_time);
            let (from, to) = (first.max(*starts.start()), stream_time.min(*starts.end()));
            return hopping(view, store, (size_ms, advance_ms), key, from..=to);
        }
        WindowSpec::Sliding { .. } | WindowSpec::Session { .. } => closed(view, store, spec, key)?,
    };
    let mut place = Vec::new();
    push_live(&mut place, key);
    if let Some(blob) = view.get(store, &place)? {
        found.extend(alive(&blob, spec).ok_or_else(|| unreadable(store))?);
    }
    let is_shown = |one: &FoundWindow| forgotten_at(&one.window, spec, closing) > stream_time;
    found.retain(|one| starts.contains(&one.window.start) && is_shown(one));
    found.sort_by_key(|one| (one.window.start, one.window.end));
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
) -> Result<Vec<FoundWindow>, StateError> {
    let mut found = Vec::new();
    let mut place = Vec::new();
    let mut start = (starts.start() + advance_ms - 1) / advance_ms * advance_ms;
    while start <= *starts.end() {
        place.clear();
        place.push(tag::WINDOW);
        push_i64(&mut place, start);
        place.extend_from_slice(key);
        if let Some(blob) = view.get(store, &place)? {
            let (timestamp, state) = envelope::decode(&blob).ok_or_else(|| unreadable(store))?;
            let window = Window { kind: WindowKind::Time, start, end: start + size_ms };
            found.push(FoundWindow { window, timestamp, state: Bytes::copy_from_slice(state) });
        }
        start += advance_ms;
    }
    Ok(found)
}

/// The closed windows of a key that are kept.
fn closed(
    view: &dyn StateView,
    store: StoreIndex,
    spec: &WindowSpec,
    key: &[u8],
) -> Result<Vec<FoundWindow>, StateError> {
    let kind =
        if matches!(spec, WindowSpec::Session { .. }) { WindowKind::Session } else { WindowKind::Sliding };
    let mut from = vec![tag::CLOSED];
    push_escaped(&mut from, key);
    let to = [&from[..], &sortable(i64::MAX)].concat();
    let mut found = Some(Vec::new());
    view.range(store, KeyRange { from: &from, to: Some(&to), reverse: false }, &mut |place, stored| {
        let one = || {
            let (end, rest) = read_i64(place.get(from.len()..)?)?;
            let (start, _) = read_i64(rest)?;
            let (timestamp, state) = envelope::decode(stored)?;
            let window = Window { kind, start, end };
            Some(FoundWindow { window, timestamp, state: Bytes::copy_from_slice(state) })
        };
        match (one(), &mut found) {
            (Some(one), Some(found)) => found.push(one),
            _ => found = None,
        }
        if found.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    found.ok_or_else(|| unreadable(store))
}

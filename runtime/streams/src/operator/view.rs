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

fn unreadable(store: StoreIndex) -> StateError {
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
    let stream_time = match view.get(store, meta::META_KEY)? {
        None => return Ok(Vec::new()),
        Some(meta) => meta::stream_time(&meta).ok_or_else(|| unreadable(store))?,
    };
    let mut found = match *spec {
        WindowSpec::Hopping { size_ms, advance_ms } => {
            let first = stream_time - size_ms - closing.kept_ms() + 1;
            let (from, to) = (first.max(*starts.start()).max(0), stream_time.min(*starts.end()));
            return hopping(view, store, (size_ms, advance_ms), key, from..=to);
        }
        WindowSpec::Sliding { .. } | WindowSpec::Session { .. } => closed(view, store, spec, key)?,
    };
    let mut place = Vec::new();
    push_live(&mut place, key);
    if let Some(blob) = view.get(store, &place)? {
        // Behind the version and the moment at which it is due.
        let body = blob.get(9..).ok_or_else(|| unreadable(store))?;
        let alive = match *spec {
            WindowSpec::Session { .. } => session::found(body),
            WindowSpec::Sliding { size_ms } => sliding::found(body, size_ms),
            WindowSpec::Hopping { .. } => None,
        };
        found.extend(alive.ok_or_else(|| unreadable(store))?);
    }
    let kept_from = |window: &Window| {
        let gap = if let WindowSpec::Session { gap_ms } = spec { *gap_ms } else { 0 };
        window.end + gap + closing.kept_ms() + 1
    };
    found.retain(|one| starts.contains(&one.window.start) && kept_from(&one.window) > stream_time);
    found.sort_by_key(|one| (one.window.start, one.window.end));
    Ok(found)
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

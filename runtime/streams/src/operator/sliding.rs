//! Sliding windows: for each row the window that ends with it, and the one that begins behind it if there are rows in
//! it.
//!
//! Store: what is alive of a key is its windows in their order (`live`):
//!
//! ```text
//! start(8) latest(8) final(1) length(4) state
//! ```
//!
//! `latest` is the time of the window's latest row. A window that a new row needs has the same rows as one that is
//! there already, but for the new row: so no row is stored by itself. (With rows at a < t - size <= p < t, the window
//! behind `a` has p in it and all that the window of t has; and the window with the latest start that is not behind t
//! has no rows before t that the one behind t lacks.)
//!
//! A row that is late for some of its windows still counts for the others, and may be what a later window needs. So
//! windows stay for a while after they have closed: *final*, which is never sent again, and going on as what others
//! are made of. Where Kafka Streams drops such a row from windows that it does not find, it counts here.
//!
//! No window begins before 1970: rows before the first size are all in the window that begins then.

use std::ops::Range;

use bytes::Bytes;

use super::aggregate::{Aggregator, Group, Item};
use super::by_key::result_bytes;
use super::context::each_row;
use super::key::{push_escaped, push_i64};
use super::live::{self, ClosedWindow, Due, Live, push_live};
use super::meta::Meta;
use super::view::FoundWindow;
use super::windows::{Closing, Emit, LATE, Late};
use super::{Change, Context, Operator, OperatorError, Row, Window, WindowKind};
use crate::state::StoreIndex;

/// Keys that are looked at together when their windows may close.
const CHUNK: usize = 1_024;

/// See the module.
pub struct SlidingWindows {
    store: StoreIndex,
    size_ms: i64,
    closing: Closing,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    meta: Meta,
    due: Due,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    place: Vec<u8>,
    entry: Vec<u8>,
    /// States that this row has made.
    made: Vec<u8>,
    cells: [Vec<u8>; 2],
    result: Vec<u8>,
}

/// Where the bytes of a state are.
#[derive(Debug, Clone)]
enum State {
    /// In the entry of the store.
    Stored(Range<usize>),
    /// Made by this row.
    Made(Range<usize>),
}

#[derive(Debug, Clone)]
struct Sliding {
    start: i64,
    latest: i64,
    is_final: bool,
    state: State,
    /// This row has made or changed it.
    changed: bool,
    /// The state of before, if it was there.
    was: Option<State>,
}

/// The windows of a key, and the bytes of their states.
struct Windows<'b> {
    all: Vec<Sliding>,
    body: &'b [u8],
}

impl Windows<'_> {
    fn bytes<'s>(&'s self, made: &'s [u8], state: &State) -> &'s [u8] {
        match state {
            State::Stored(range) => &self.body[range.clone()],
            State::Made(range) => &made[range.clone()],
        }
    }

    fn has(&self, start: i64) -> bool {
        self.all.binary_search_by_key(&start, |window| window.start).is_ok()
    }

    fn insert(&mut self, window: Sliding) {
        let place = self.all.partition_point(|other| other.start < window.start);
        self.all.insert(place, window);
    }
}

impl SlidingWindows {
    /// Windows that were checked ([`super::WindowSpec::check`]). `tells_old`: results say what was before, for tables
    /// downstream.
    pub fn new(
        store: StoreIndex,
        size_ms: i64,
        closing: Closing,
        aggregator: Box<dyn Aggregator>,
        tells_old: bool,
    ) -> SlidingWindows {
        let (meta, due) = (Meta::new(store), Due::new(store));
        let scratch = Scratch::default();
        SlidingWindows { store, size_ms, closing, aggregator, tells_old, meta, due, scratch }
    }

    /// The stream time at which the window closes that begins here.
    fn closes_at(&self, start: i64) -> i64 {
        start + self.size_ms + self.closing.grace_ms + 1
    }

    /// The stream time from which on no window can be made of it.
    fn useless_at(&self, start: i64) -> i64 {
        self.closes_at(start) + self.size_ms + 1
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.timed(row) else { return Ok(()) };
        if self.meta.observe(row.timestamp).is_some() && self.closing.emit == Emit::OnClose {
            self.close(cx)?;
        }
        if self.closes_at(row.timestamp) <= self.meta.stream_time() {
            cx.counts.late += 1;
            cx.counts.late_windows += 1;
            if self.closing.late == Late::Emit {
                cx.emit(LATE, row.clone());
            }
            return Ok(());
        }
        let mut place = std::mem::take(&mut self.scratch.place);
        push_live(&mut place, &key);
        let live = Live::read(cx, self.store, &place)?;
        let mut windows = self.read(&live, &place)?;
        self.finish(&mut windows, &key, cx, &mut Vec::new())?;
        let item = Item { key: &key, value, timestamp: row.timestamp, origin: None };
        self.scratch.made.clear();
        self.add(&mut windows, item, cx)?;
        let changed = windows.all.iter().filter(|window| window.changed);
        let missed = changed.clone().filter(|window| window.is_final && window.start <= row.timestamp);
        cx.counts.late_windows += missed.count() as u64;
        if self.closing.emit == Emit::OnUpdate {
            for window in changed.filter(|window| !window.is_final) {
                let change = match (&window.was, self.tells_old) {
                    (_, false) => Change::Unknown,
                    (None, true) => Change::Was(None),
                    (Some(was), true) => {
                        let was = windows.bytes(&self.scratch.made, was);
                        Change::Was(result_bytes(&mut *self.aggregator, &key, was, &mut self.scratch.result)?)
                    }
                };
                let state = windows.bytes(&self.scratch.made, &window.state);
                let value = result_bytes(&mut *self.aggregator, &key, state, &mut self.scratch.result)?;
                cx.emit_result(key.clone(), Some(self.window(window.start)), value, window.latest, change);
            }
        }
        self.write(&windows, &live, &place, false, cx);
        self.scratch.place = place;
        Ok(())
    }

    fn window(&self, start: i64) -> Window {
        Window { kind: WindowKind::Sliding, start, end: start + self.size_ms }
    }

    fn read<'l>(&self, live: &'l Live, place: &[u8]) -> Result<Windows<'l>, OperatorError> {
        let body = live.body();
        let all = read_windows(body).ok_or_else(|| OperatorError::damaged(self.store, place))?;
        Ok(Windows { all, body })
    }

    /// Windows that have closed are final, and those that no other is made of any more go. Appends to `closed` what
    /// has closed.
    fn finish(
        &mut self,
        windows: &mut Windows<'_>,
        key: &[u8],
        cx: &mut Context<'_>,
        closed: &mut Vec<ClosedWindow>,
    ) -> Result<(), OperatorError> {
        let now = self.meta.stream_time();
        let Windows { all, body } = windows;
        for window in all.iter_mut().filter(|window| !window.is_final && self.closes_at(window.start) <= now)
        {
            window.is_final = true;
            let State::Stored(state) = &window.state else { continue };
            let Sliding { start, latest, .. } = *window;
            let (end, state) = (start + self.size_ms, body[state.clone()].to_vec());
            let window = ClosedWindow { end, start, key: key.to_vec(), timestamp: latest, state };
            if self.closing.is_kept() {
                live::keep(cx, self.store, &window, end + self.closing.kept_ms() + 1);
            }
            closed.push(window);
        }
        let useless = all.partition_point(|window| self.useless_at(window.start) <= now);
        for window in all.drain(..useless) {
            self.forget(key, window.start, cx)?;
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8], start: i64, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.aggregator.has_members() {
            push_cell(&mut self.scratch.cells[0], key, start);
            self.aggregator.forget(cx, &self.scratch.cells[0])?;
        }
        Ok(())
    }

    /// Puts a row into the windows that it belongs to, and makes those that it needs.
    fn add(
        &mut self,
        windows: &mut Windows<'_>,
        item: Item<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let (time, size) = (item.timestamp, self.size_ms);
        let first = (time - size).max(0);
        let not_behind = windows.all.partition_point(|window| window.start <= time);
        let behind = not_behind.checked_sub(1).map(|i| windows.all[i].clone());
        let before_first = windows.all.partition_point(|window| window.start < first).checked_sub(1);
        let like_first = before_first.map(|i| windows.all[i].clone()).filter(|window| window.latest >= first);
        let previous = windows.all.iter().map(|window| window.latest).filter(|latest| *latest < time).max();
        // The window behind the row: all that the last window which is not behind it has later than it.
        if let Some(source) = behind.filter(|source| source.latest > time)
            && !windows.has(time + 1)
        {
            self.copy_cell(item.key, source.start, time + 1, cx)?;
            windows.insert(self.made(time + 1, source.latest, source.state));
        }
        for index in 0..windows.all.len() {
            let Sliding { start, latest, .. } = windows.all[index];
            if start > time || start + size < time {
                continue;
            }
            let before = windows.all[index].state.clone();
            let state = self.put(windows, start, Some(&before), item, cx)?;
            let window = &mut windows.all[index];
            (window.state, window.latest) = (state, latest.max(time));
            (window.changed, window.was) = (true, Some(before));
        }
        // The window that ends with the row.
        if !windows.has(first) {
            let source = like_first.filter(|_| time >= size);
            if let Some(source) = &source {
                self.copy_cell(item.key, source.start, first, cx)?;
            }
            let state = self.put(windows, first, source.as_ref().map(|source| &source.state), item, cx)?;
            windows.insert(self.made(first, time, state));
        }
        // The window behind the row before, which had none in it until now.
        if let Some(start) = previous.map(|previous| previous + 1)
            && start + size >= time
            && !windows.has(start)
        {
            let state = self.put(windows, start, None, item, cx)?;
            windows.insert(self.made(start, time, state));
        }
        Ok(())
    }

    fn made(&self, start: i64, latest: i64, state: State) -> Sliding {
        let is_final = self.closes_at(start) <= self.meta.stream_time();
        Sliding { start, latest, is_final, state, changed: true, was: None }
    }

    fn copy_cell(
        &mut self,
        key: &[u8],
        from: i64,
        to: i64,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        if !self.aggregator.has_members() {
            return Ok(());
        }
        let [a, b] = &mut self.scratch.cells;
        push_cell(a, key, from);
        push_cell(b, key, to);
        self.aggregator.copy(cx, a, b)
    }

    /// The state of a window with a row in it.
    fn put(
        &mut self,
        windows: &Windows<'_>,
        start: i64,
        before: Option<&State>,
        item: Item<'_>,
        cx: &mut Context<'_>,
    ) -> Result<State, OperatorError> {
        let cell = &mut self.scratch.cells[0];
        if self.aggregator.has_members() {
            push_cell(cell, item.key, start);
        }
        let mut out = std::mem::take(&mut self.scratch.result);
        out.clear();
        let state = before.map(|before| windows.bytes(&self.scratch.made, before));
        self.aggregator.add(cx, Group { cell, state }, item, &mut out)?;
        let from = self.scratch.made.len();
        self.scratch.made.extend_from_slice(&out);
        self.scratch.result = out;
        Ok(State::Made(from..self.scratch.made.len()))
    }

    /// When the key has to be looked at next.
    fn next_look(&self, windows: &Windows<'_>) -> Option<i64> {
        let useless = self.useless_at(windows.all.last()?.start);
        if self.closing.emit == Emit::OnUpdate {
            return Some(useless);
        }
        let open = windows.all.iter().find(|window| !window.is_final);
        Some(open.map_or(useless, |window| self.closes_at(window.start)))
    }

    /// Writes what is alive. `looked`: because it was due.
    fn write(
        &mut self,
        windows: &Windows<'_>,
        live: &Live,
        place: &[u8],
        looked: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(next) = self.next_look(windows) else {
            live.remove(cx, &mut self.due, place);
            return;
        };
        let entry = &mut self.scratch.entry;
        Live::begin(entry);
        for window in &windows.all {
            let state = windows.bytes(&self.scratch.made, &window.state);
            entry.extend_from_slice(&window.start.to_be_bytes());
            entry.extend_from_slice(&window.latest.to_be_bytes());
            entry.push(u8::from(window.is_final));
            // A record has less than 2 GiB.
            entry.extend_from_slice(&(state.len() as u32).to_be_bytes());
            entry.extend_from_slice(state);
        }
        if looked {
            live.write_at(cx, &mut self.due, place, entry, next);
        } else {
            live.write(cx, &mut self.due, place, entry, next);
        }
    }

    /// Looks at up to `limit` keys that are due. Appends to `closed` what has closed; whether there may be more.
    fn look(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        closed: &mut Vec<ClosedWindow>,
    ) -> Result<bool, OperatorError> {
        let keys = self.due.keys(cx, self.meta.stream_time(), limit)?;
        let mut place = Vec::new();
        for key in &keys {
            push_live(&mut place, key);
            let live = Live::read(cx, self.store, &place)?;
            let mut windows = self.read(&live, &place)?;
            self.finish(&mut windows, key, cx, closed)?;
            self.write(&windows, &live, &place, true, cx);
        }
        Ok(keys.len() == limit)
    }

    /// Emits what has closed, in the order of windows and keys.
    fn close(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let mut closed = Vec::new();
        while self.look(cx, CHUNK, &mut closed)? {}
        closed.sort_unstable_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
        for window in closed {
            let result = &mut self.scratch.result;
            let value = result_bytes(&mut *self.aggregator, &window.key, &window.state, result)?;
            let change = if self.tells_old { Change::Was(None) } else { Change::Unknown };
            let key = Bytes::from(window.key);
            cx.emit_result(key, Some(self.window(window.start)), value, window.timestamp, change);
        }
        Ok(())
    }
}

impl Operator for SlidingWindows {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        live::prefetch(cx, self.store, rows)
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        each_row(rows, cx, |row, cx| self.row(row, cx))?;
        self.meta.save(cx);
        Ok(())
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        let more = live::forget(cx, self.store, self.meta.stream_time(), budget)?;
        if self.closing.emit == Emit::OnClose {
            return Ok(more);
        }
        Ok(self.look(cx, budget, &mut Vec::new())? || more)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.due.reset();
    }
}

fn read_windows(body: &[u8]) -> Option<Vec<Sliding>> {
    let mut windows = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let (head, rest) = body[at..].split_first_chunk::<21>()?;
        let start = i64::from_be_bytes(*head.first_chunk()?);
        let latest = i64::from_be_bytes(*head[8..].first_chunk()?);
        let len = u32::from_be_bytes(*head[17..].first_chunk()?) as usize;
        rest.get(..len)?;
        let state = at + 21..at + 21 + len;
        at = state.end;
        let is_final = head[16] != 0;
        let state = State::Stored(state);
        windows.push(Sliding { start, latest, is_final, state, changed: false, was: None });
    }
    Some(windows)
}

fn push_cell(cell: &mut Vec<u8>, key: &[u8], start: i64) {
    cell.clear();
    push_escaped(cell, key);
    push_i64(cell, start);
}

/// The open windows of a key, for readers.
pub(super) fn found(body: &[u8], size_ms: i64) -> Option<Vec<FoundWindow>> {
    let found = |window: Sliding| {
        let State::Stored(state) = window.state else { return None };
        let bounds = Window { kind: WindowKind::Sliding, start: window.start, end: window.start + size_ms };
        let state = Bytes::copy_from_slice(&body[state]);
        Some(FoundWindow { window: bounds, timestamp: window.latest, state })
    };
    let open = read_windows(body)?.into_iter().filter(|window| !window.is_final);
    open.map(found).collect()
}

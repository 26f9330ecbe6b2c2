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

use super::aggregate::{Aggregator, Group, Item, Plan, Way};
use super::backlog::{self, Backlog, Paced};
use super::by_key::result_bytes;
use super::key::{push_escaped, push_i64};
use super::live::{self, ClosedWindow, Live, OfPacked, Packed, push_live};
use super::view::FoundWindow;
use super::windows::{Closing, Emit, LATE, Late};
use super::{Change, Context, Operator, OperatorError, Row, Window, WindowKind};
use crate::state::StoreIndex;

/// See the module.
pub struct SlidingWindows {
    size_ms: i64,
    packed: Packed,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    backlog: Backlog,
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
        let (packed, backlog) = (Packed::new(store, closing), Backlog::new(store));
        SlidingWindows { size_ms, packed, aggregator, tells_old, backlog, scratch: Scratch::default() }
    }

    /// The stream time at which the window closes that begins here.
    fn closes_at(&self, start: i64) -> i64 {
        start + self.size_ms + self.packed.closing.grace_ms + 1
    }

    /// The stream time from which on no window can be made of it.
    fn useless_at(&self, start: i64) -> i64 {
        self.closes_at(start) + self.size_ms + 1
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.timed(row) else { return Ok(()) };
        if self.closes_at(row.timestamp) <= self.packed.meta.stream_time() {
            cx.counts.late += 1;
            cx.counts.late_windows += 1;
            if self.packed.closing.late == Late::Emit {
                cx.emit(LATE, row.clone());
            }
            return Ok(());
        }
        let mut place = std::mem::take(&mut self.scratch.place);
        push_live(&mut place, &key);
        let live = Live::read(cx, self.packed.store, &place)?;
        let mut windows = self.read(&live, &place)?;
        self.finish(&mut windows, &key, cx, &mut Vec::new())?;
        let item = Item { key: &key, value, timestamp: row.timestamp, origin: None };
        self.scratch.made.clear();
        self.add(&mut windows, (item, value), cx)?;
        let changed = windows.all.iter().filter(|window| window.changed);
        let missed = changed.clone().filter(|window| window.is_final && window.start <= row.timestamp);
        cx.counts.late_windows += missed.count() as u64;
        if self.packed.closing.emit == Emit::OnUpdate {
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
        let all = read_windows(body).ok_or_else(|| OperatorError::damaged(self.packed.store, place))?;
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
        let now = self.packed.meta.stream_time();
        let Windows { all, body } = windows;
        for window in all.iter_mut().filter(|window| !window.is_final && self.closes_at(window.start) <= now)
        {
            window.is_final = true;
            let State::Stored(state) = &window.state else { continue };
            let Sliding { start, latest, .. } = *window;
            let (end, state) = (start + self.size_ms, body[state.clone()].to_vec());
            let window = ClosedWindow { end, start, key: key.to_vec(), timestamp: latest, state };
            if self.packed.closing.is_kept() {
                live::keep(cx, self.packed.store, &window, end + self.packed.closing.kept_ms() + 1);
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
        (item, value): (Item<'_>, &Bytes),
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let (time, size) = (item.timestamp, self.size_ms);
        let first = (time - size).max(0);
        let not_behind = windows.all.partition_point(|window| window.start <= time);
        let behind = not_behind.checked_sub(1).map(|i| windows.all[i].clone());
        let before_first = windows.all.partition_point(|window| window.start < first).checked_sub(1);
        let like_first = before_first.map(|i| windows.all[i].clone()).filter(|window| window.latest >= first);
        let previous = windows.all.iter().map(|window| window.latest).filter(|latest| *latest < time).max();
        let like_first = like_first.filter(|_| time >= size);
        let alone = previous.map(|previous| previous + 1).filter(|start| start + size >= time);
        if self.aggregator.plans() {
            let made = [(first, like_first.as_ref().map(|source| &source.state))];
            let made = made.into_iter().chain(alone.map(|start| (start, None)));
            let plan = plan(windows, size, made, item, value);
            self.aggregator.prepare(cx, plan)?;
        }
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
            if let Some(source) = &like_first {
                self.copy_cell(item.key, source.start, first, cx)?;
            }
            let state =
                self.put(windows, first, like_first.as_ref().map(|source| &source.state), item, cx)?;
            windows.insert(self.made(first, time, state));
        }
        // The window behind the row before, which had none in it until now.
        if let Some(start) = alone
            && !windows.has(start)
        {
            let state = self.put(windows, start, None, item, cx)?;
            windows.insert(self.made(start, time, state));
        }
        Ok(())
    }

    fn made(&self, start: i64, latest: i64, state: State) -> Sliding {
        let is_final = self.closes_at(start) <= self.packed.meta.stream_time();
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
        if self.packed.closing.emit == Emit::OnUpdate {
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
            live.remove(cx, &mut self.packed.due, place);
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
            live.write_at(cx, &mut self.packed.due, place, entry, next);
        } else {
            live.write(cx, &mut self.packed.due, place, entry, next);
        }
    }
}

impl Operator for SlidingWindows {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        live::prefetch(cx, self.packed.store, rows)
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        backlog::process(self, input, rows, cx)
    }

    fn is_behind(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        Ok(self.backlog.is_waiting(cx.state)?)
    }

    fn go_on(&mut self, cx: &mut Context<'_>, leave_out: bool) -> Result<(), OperatorError> {
        backlog::go_on(self, leave_out, cx)
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        live::maintain(self, cx, budget)
    }

    fn reset(&mut self) {
        self.packed.reset();
        self.backlog.reset();
    }
}

impl Paced for SlidingWindows {
    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.packed.meta.load(cx)
    }

    fn save(&mut self, cx: &mut Context<'_>) {
        self.packed.meta.save(cx);
    }

    fn close_before(
        &mut self,
        _: usize,
        row: &Row,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError> {
        live::close_before(self, row, again, cx)
    }

    fn enter(&mut self, _: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.row(row, cx)
    }
}

impl OfPacked for SlidingWindows {
    fn packed(&mut self) -> &mut Packed {
        &mut self.packed
    }

    fn look_at(
        &mut self,
        key: &[u8],
        closed: &mut Vec<ClosedWindow>,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let mut place = std::mem::take(&mut self.scratch.place);
        push_live(&mut place, key);
        let live = Live::read(cx, self.packed.store, &place)?;
        let mut windows = self.read(&live, &place)?;
        self.finish(&mut windows, key, cx, closed)?;
        self.write(&windows, &live, &place, true, cx);
        self.scratch.place = place;
        Ok(())
    }

    fn emit_closed(&mut self, window: ClosedWindow, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let result = &mut self.scratch.result;
        let value = result_bytes(&mut *self.aggregator, &window.key, &window.state, result)?;
        let change = if self.tells_old { Change::Was(None) } else { Change::Unknown };
        let key = Bytes::from(window.key);
        cx.emit_result(key, Some(self.window(window.start)), value, window.timestamp, change);
        Ok(())
    }
}

/// What one row will be folded into: the windows that are there, and those that it makes, each with what it begins as.
fn plan<'s>(
    windows: &Windows<'_>,
    size: i64,
    made: impl Iterator<Item = (i64, Option<&'s State>)>,
    item: Item<'_>,
    value: &Bytes,
) -> Plan {
    let (mut plan, time) = (Plan::default(), item.timestamp);
    let key = Bytes::copy_from_slice(item.key);
    let there = windows.all.iter().filter(|window| window.start <= time && window.start + size >= time);
    let there = there.map(|window| Some(&window.state));
    let made = made.filter(|(start, _)| !windows.has(*start)).map(|(_, state)| state);
    for state in there.chain(made) {
        // Nothing was made by the row yet.
        let group = plan.group(state.map(|state| windows.bytes(&[], state)));
        plan.step((group, Way::In), 0, (key.clone(), value.clone(), time));
    }
    plan
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

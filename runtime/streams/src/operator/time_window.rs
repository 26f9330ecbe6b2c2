//! Tumbling and hopping windows: their places are known, so a window is found by its start, and windows close in the
//! order of their keys in the store.
//!
//! Store: `01 start(8) key`; the envelope with the highest timestamp in the window, and the state. Stream time is in
//! the store as well, and tells which windows were closed by the last row: a mark is needed to emit each of them once only
//! where not all of them go out at once (`backlog`).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use pelton_wire::mutant::Mutant;

use super::aggregate::{Aggregator, Group, Item, Plan, Way};
use super::backlog::{self, Backlog, CLOSED_BYTES_AT_ONCE, Paced};
use super::by_key::{Scratch, result_bytes};
use super::envelope::{self, Stored};
use super::key::{push_escaped, push_i64, read_i64, sortable, tag, tagged};
use super::meta::Meta;
use super::windows::{Closing, Emit, LATE, Late, MAX_TIMESTAMP};
use super::{Change, Context, Operator, OperatorError, Row, Window, WindowKind};
use crate::state::{KeyRange, StoreIndex};

/// Windows that are read at once when they close.
const CHUNK: usize = 1_024;

/// See the module.
pub struct TimeWindows {
    store: StoreIndex,
    size_ms: i64,
    advance_ms: i64,
    closing: Closing,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    meta: Meta,
    backlog: Backlog,
    /// Before this place nothing is left that was to be forgotten.
    forgotten: Vec<u8>,
    key: Vec<u8>,
    scratch: Scratch,
}

/// The place, in the order of windows, before which all that has closed is out.
const CURSOR: [u8; 1] = [tag::BACKLOG];

impl TimeWindows {
    /// Windows that were checked ([`super::WindowSpec::check`]). `tells_old`: results say what was before, for tables
    /// downstream.
    pub fn new(
        store: StoreIndex,
        (size_ms, advance_ms): (i64, i64),
        closing: Closing,
        aggregator: Box<dyn Aggregator>,
        tells_old: bool,
    ) -> TimeWindows {
        let (key, scratch) = (Vec::new(), Scratch::default());
        let (meta, backlog) = (Meta::new(store), Backlog::new(store));
        let forgotten = Vec::new();
        TimeWindows {
            store,
            size_ms,
            advance_ms,
            closing,
            aggregator,
            tells_old,
            meta,
            backlog,
            forgotten,
            key,
            scratch,
        }
    }

    /// Where the first window begins that has this time in it. None begins before 1970.
    fn first_start(&self, timestamp: i64) -> i64 {
        (timestamp - self.size_ms + self.advance_ms).max(0) / self.advance_ms * self.advance_ms
    }

    fn window(&self, start: i64) -> Window {
        Window { kind: WindowKind::Time, start, end: start + self.size_ms }
    }

    /// A window that begins here is closed at a stream time of more than this before it.
    fn last_closed_start(&self, stream_time: i64) -> i64 {
        let late_ms = i64::from(Mutant::WindowClosesLate.is_on());
        stream_time - self.size_ms - self.closing.grace_ms - late_ms
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.timed(row) else { return Ok(()) };
        let closed = self.last_closed_start(self.meta.stream_time());
        let mut start = self.first_start(row.timestamp);
        let (mut missed, mut entered) = (0, false);
        while start <= row.timestamp {
            if start <= closed {
                missed += 1;
            } else {
                entered = true;
                let item = Item { key: &key, value, timestamp: row.timestamp, origin: None };
                self.update(start, item, &key, cx)?;
            }
            start += self.advance_ms;
        }
        cx.counts.late_windows += missed;
        if !entered {
            cx.counts.late += 1;
            if self.closing.late == Late::Emit {
                cx.emit(LATE, row.clone());
            }
        }
        Ok(())
    }

    /// What rows will be folded into which windows: those that are open when each of them comes.
    fn plan(&mut self, rows: &[Row], cx: &mut Context<'_>) -> Result<Plan, OperatorError> {
        let (mut plan, mut groups) = (Plan::default(), HashMap::<Vec<u8>, usize, RandomState>::default());
        let mut now = self.meta.stream_time();
        let has_time = |row: &&Row| (0..=MAX_TIMESTAMP).contains(&row.timestamp);
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| has_time(row)) {
            let (Some(key), Some(value)) = (row.full_key(), &row.value) else { continue };
            now = now.max(row.timestamp);
            let closed = self.last_closed_start(now);
            let mut start = self.first_start(row.timestamp);
            while start <= row.timestamp {
                if start > closed {
                    push_window(&mut self.key, start, &key);
                    let group = match groups.get(&self.key) {
                        Some(group) => *group,
                        None => {
                            let stored = cx.get(self.store, &self.key)?.map(Stored::read);
                            let stored = match stored {
                                Some(None) => return Err(OperatorError::damaged(self.store, &self.key)),
                                stored => stored.flatten(),
                            };
                            let group = plan.group(stored.as_ref().map(Stored::value));
                            groups.insert(self.key.clone(), group);
                            group
                        }
                    };
                    plan.step((group, Way::In), index, (key.clone(), value.clone(), row.timestamp));
                }
                start += self.advance_ms;
            }
        }
        Ok(plan)
    }

    fn update(
        &mut self,
        start: i64,
        item: Item<'_>,
        key: &bytes::Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        push_window(&mut self.key, start, key);
        let before = match cx.get(self.store, &self.key)? {
            None => None,
            Some(blob) => {
                Some(Stored::read(blob).ok_or_else(|| OperatorError::damaged(self.store, &self.key))?)
            }
        };
        let Scratch { cell, stored, result } = &mut self.scratch;
        if self.aggregator.has_members() {
            push_cell(cell, start, key);
        }
        let timestamp = before.as_ref().map_or(item.timestamp, |before| before.timestamp.max(item.timestamp));
        let group = Group { cell, state: before.as_ref().map(Stored::value) };
        envelope::begin(stored, timestamp);
        self.aggregator.add(cx, group, item, stored)?;
        cx.put(self.store, &self.key, stored);
        if self.closing.emit == Emit::OnClose {
            return Ok(());
        }
        let change = match (self.tells_old, &before) {
            (false, _) => Change::Unknown,
            (true, None) => Change::Was(None),
            (true, Some(before)) => {
                Change::Was(result_bytes(&mut *self.aggregator, key, before.value(), result)?)
            }
        };
        let now = result_bytes(&mut *self.aggregator, key, &stored[envelope::HEADER..], result)?;
        cx.emit_result(key.clone(), Some(self.window(start)), now, timestamp, change);
        Ok(())
    }

    /// Where the first window begins that was open at the stream time of before and is closed now, if there may be one.
    fn first_to_close(&self, before: i64) -> Option<i64> {
        let next = i64::from(!Mutant::FinalTwice.is_on());
        let first = (self.last_closed_start(before) + next).max(0);
        let last = self.last_closed_start(self.meta.stream_time());
        // Windows begin only at multiples of the advance, so most rows close none.
        ((first + self.advance_ms - 1) / self.advance_ms * self.advance_ms <= last).then_some(first)
    }

    /// Emits what is closed now from a place on. Where to go on, if that was not all.
    fn close(&mut self, mut from: Vec<u8>, cx: &mut Context<'_>) -> Result<Option<Vec<u8>>, OperatorError> {
        let to = window_end(self.last_closed_start(self.meta.stream_time()));
        loop {
            let range = KeyRange { from: &from, to: Some(&to), reverse: false };
            let (entries, more) = cx.scan_within(self.store, range, (CHUNK, CLOSED_BYTES_AT_ONCE))?;
            for (stored_key, stored) in &entries {
                if !cx.closing.is_left() {
                    return Ok(Some(stored_key.to_vec()));
                }
                cx.closing.spend(stored_key.len() + stored.len());
                let unreadable = || OperatorError::damaged(self.store, stored_key);
                let (start, key) = read_window(stored_key).ok_or_else(unreadable)?;
                let (timestamp, state) = envelope::decode(stored).ok_or_else(unreadable)?;
                let value = result_bytes(&mut *self.aggregator, key, state, &mut self.scratch.result)?;
                let change = if self.tells_old { Change::Was(None) } else { Change::Unknown };
                let row_key = bytes::Bytes::copy_from_slice(key);
                cx.emit_result(row_key, Some(self.window(start)), value, timestamp, change);
                if !self.closing.is_kept() {
                    self.forget(start, key, stored_key, cx)?;
                }
            }
            let Some((last_key, _)) = entries.last().filter(|_| more) else { return Ok(None) };
            from = [&**last_key, &[0]].concat();
        }
    }

    fn forget(
        &mut self,
        start: i64,
        key: &[u8],
        stored_key: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        cx.delete(self.store, stored_key);
        if self.aggregator.has_members() && !Mutant::MembersKept.is_on() {
            push_cell(&mut self.scratch.cell, start, key);
            self.aggregator.forget(cx, &self.scratch.cell)?;
        }
        Ok(())
    }
}

impl Operator for TimeWindows {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let (mut keys, mut ends) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|row| (0..=MAX_TIMESTAMP).contains(&row.timestamp)) {
            let Some(key) = row.key.as_deref().filter(|_| row.window.is_none()) else { continue };
            let mut start = self.first_start(row.timestamp);
            while start <= row.timestamp {
                keys.push(tag::WINDOW);
                push_i64(&mut keys, start);
                keys.extend_from_slice(key);
                ends.push(keys.len());
                start += self.advance_ms;
            }
        }
        let mut from = 0;
        let keys = ends.iter().map(|end| &keys[std::mem::replace(&mut from, *end)..*end]);
        Ok(cx.state.prefetch(self.store, keys)?)
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        if self.aggregator.plans() {
            let plan = self.plan(rows, cx)?;
            self.aggregator.prepare(cx, plan)?;
        }
        backlog::process(self, input, rows, cx)
    }

    fn is_behind(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        Ok(self.backlog.is_waiting(cx.state)?)
    }

    fn go_on(&mut self, cx: &mut Context<'_>, leave_out: bool) -> Result<(), OperatorError> {
        backlog::go_on(self, leave_out, cx)
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        if self.closing.emit == Emit::OnClose && !self.closing.is_kept() {
            return Ok(false);
        }
        let last = self.meta.stream_time() - self.size_ms - self.closing.kept_ms();
        let first = self.meta.cleaned(0);
        if first > last || budget == 0 {
            return Ok(first <= last);
        }
        let mut from = Vec::new();
        push_window(&mut from, first, &[]);
        // Windows that begin together may be many: those that are gone take time to pass.
        let from = from.max(std::mem::take(&mut self.forgotten));
        let to = window_end(last);
        let (entries, more) =
            cx.scan(self.store, KeyRange { from: &from, to: Some(&to), reverse: false }, budget)?;
        self.forgotten = entries.last().map_or(from, |(place, _)| [&**place, &[0]].concat());
        let mut cleaned = last + 1;
        for (stored_key, _) in &entries {
            let (start, key) =
                read_window(stored_key).ok_or_else(|| OperatorError::damaged(self.store, stored_key))?;
            self.forget(start, key, stored_key, cx)?;
            if more {
                cleaned = start;
            }
        }
        self.meta.set_cleaned(0, cleaned);
        self.meta.save(cx);
        Ok(more)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.backlog.reset();
        self.forgotten.clear();
    }
}

impl Paced for TimeWindows {
    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)
    }

    fn save(&mut self, cx: &mut Context<'_>) {
        self.meta.save(cx);
    }

    fn close_before(
        &mut self,
        _: usize,
        row: &Row,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError> {
        if !Context::is_timed(row) {
            return Ok(true);
        }
        let before = self.meta.observe(row.timestamp);
        if self.closing.emit == Emit::OnUpdate {
            return Ok(true);
        }
        let cursor = if again { cx.get(self.store, &CURSOR)? } else { None };
        let first = || before.and_then(|before| self.first_to_close(before));
        let from = match &cursor {
            Some(cursor) => cursor.to_vec(),
            None => match first() {
                Some(first) => [&[tag::WINDOW][..], &sortable(first)].concat(),
                None => return Ok(true),
            },
        };
        let rest = self.close(from, cx)?;
        match &rest {
            Some(place) => cx.put(self.store, &CURSOR, place),
            None if cursor.is_some() => cx.delete(self.store, &CURSOR),
            None => {}
        }
        Ok(rest.is_none())
    }

    fn enter(&mut self, _: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.row(row, cx)
    }
}

fn push_window(out: &mut Vec<u8>, start: i64, key: &[u8]) {
    tagged(out, tag::WINDOW);
    push_i64(out, start);
    out.extend_from_slice(key);
}

/// The first key behind all windows that begin here.
fn window_end(start: i64) -> Vec<u8> {
    [&[tag::WINDOW][..], &sortable(start + 1)].concat()
}

/// Start and key of a window's key in the store.
pub(super) fn read_window(stored_key: &[u8]) -> Option<(i64, &[u8])> {
    read_i64(stored_key.strip_prefix(&[tag::WINDOW])?)
}

fn push_cell(cell: &mut Vec<u8>, start: i64, key: &[u8]) {
    cell.clear();
    push_i64(cell, start);
    push_escaped(cell, key);
}

//! Two streams joined within a window: a left row at t matches right rows from t - before to t + after.
//!
//! A row takes matches until it closes (see the module of operators), whether it is in the store or not. So a pair is
//! joined if the one that came first was open when the other came, and an outer row that has no match is emitted at
//! the moment when it cannot get one any more: once, and never beside a match. A row that comes when it is closed
//! already still finds what is open, and is emitted alone at once if there is nothing: of an outer side no row is
//! lost. It counts as late.
//!
//! The time of a pair is the later one; its headers are those of the left row. Rows that close together are emitted
//! in the order of time, right rows before left ones, then key, then as they came.
//!
//! Store, ordered (segments of time keep the rows of a key near each other, and what expires together as well):
//!
//! ```text
//! 06 side(1) segment(8) key* time(8) n(8)     a row; noted: it has matched
//! 07 side(1) time(8) key* n(8)                a row of an outer side that has not
//! ```

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::backlog::{self, Backlog, Paced};
use super::context::is_time;
use super::joiner::Joiner;
use super::key::{push_escaped, push_i64, push_u64, read_escaped, read_i64, read_u64, tag, tagged};
use super::meta::Meta;
use super::stored_row;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row, RowHeaders};
use crate::state::{KeyRange, StoreIndex};

/// Rows that are read at once.
const CHUNK: usize = 1_024;
/// The shortest segment: fewer would make each look-up ask more of them.
const MIN_SEGMENT_MS: i64 = 1_000;

/// The input for left rows.
pub const LEFT: usize = 0;
/// The input for right rows.
pub const RIGHT: usize = 1;

/// Which rows are emitted without a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// None.
    Inner,
    /// Left ones.
    Left,
    /// All.
    Outer,
}

impl JoinKind {
    /// Whether rows of a side are emitted without a match.
    pub(super) fn is_outer(self, side: usize) -> bool {
        match self {
            JoinKind::Inner => false,
            JoinKind::Left => side == LEFT,
            JoinKind::Outer => true,
        }
    }
}

/// Which rows match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinWindow {
    /// How much earlier than a left row a right one may be.
    pub before_ms: i64,
    /// How much later.
    pub after_ms: i64,
    /// How much later than the last match that it may get a row closes.
    pub grace_ms: i64,
}

/// See the module.
pub struct StreamJoin {
    store: StoreIndex,
    kind: JoinKind,
    window: JoinWindow,
    segment_ms: i64,
    joiner: Box<dyn Joiner>,
    meta: Meta,
    backlog: Backlog,
    /// Of each side, a time before which no row is without a match; none if that is not known.
    first_unmatched: [Option<i64>; 2],
    scratch: Vec<u8>,
}

/// A row of the store.
struct Found {
    place: Box<[u8]>,
    stored: Box<[u8]>,
    time: i64,
    number: u64,
}

/// A row without a match.
struct Unmatched {
    time: i64,
    side: usize,
    key: Vec<u8>,
    number: u64,
}

impl StreamJoin {
    /// A join of this kind. The lengths of the window are at least 0 and at most [`MAX_MS`](super::MAX_MS); right
    /// rows may be before or behind left ones only, not neither: `before_ms + after_ms` may be 0.
    pub fn new(store: StoreIndex, kind: JoinKind, window: JoinWindow, joiner: Box<dyn Joiner>) -> StreamJoin {
        let segment_ms = (window.before_ms + window.after_ms).max(MIN_SEGMENT_MS);
        let (meta, backlog, scratch) = (Meta::new(store), Backlog::new(store), Vec::new());
        let first_unmatched = [None; 2];
        StreamJoin { store, kind, window, segment_ms, joiner, meta, backlog, first_unmatched, scratch }
    }

    /// How much earlier, and how much later, matches of a side's row may be.
    fn reach(&self, side: usize) -> (i64, i64) {
        let JoinWindow { before_ms, after_ms, .. } = self.window;
        if side == LEFT { (before_ms, after_ms) } else { (after_ms, before_ms) }
    }

    /// The stream time at which a row closes.
    fn closes_at(&self, side: usize, time: i64) -> i64 {
        time + self.reach(side).1 + self.window.grace_ms + 1
    }

    fn row(&mut self, side: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let is_outer = self.kind.is_outer(side);
        if row.key.is_none() && row.value.is_some() && is_outer {
            // It matches nothing.
            if cx.has_time(row) {
                self.emit_alone(side, None, row, row.timestamp, cx)?;
            }
            return Ok(());
        }
        let Some((key, _)) = cx.timed(row) else { return Ok(()) };
        let matched = self.join(side, &key, row, cx)?;
        let is_closed = self.closes_at(side, row.timestamp) <= self.meta.stream_time();
        cx.counts.late += u64::from(is_closed);
        if is_closed {
            return if matched || !is_outer {
                Ok(())
            } else {
                self.emit_alone(side, Some(key), row, row.timestamp, cx)
            };
        }
        let number = self.meta.next();
        let mut place = Vec::with_capacity(key.len() + 32);
        self.push_place(&mut place, side, &key, row.timestamp, number);
        self.scratch.clear();
        stored_row::encode(&mut self.scratch, None, row, matched);
        cx.put(self.store, &place, &self.scratch);
        if is_outer && !matched {
            cx.put(self.store, &unmatched_place(side, row.timestamp, &key, number), &[]);
            self.first_unmatched[side] = self.first_unmatched[side].map(|first| first.min(row.timestamp));
        }
        Ok(())
    }

    /// Joins a row with those of the other side that are open. Whether there are any.
    fn join(
        &mut self,
        side: usize,
        key: &Bytes,
        row: &Row,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError> {
        let other = 1 - side;
        let (before, after) = self.reach(side);
        let now = self.meta.stream_time();
        // What is closed is earlier than this.
        let open_from = now - (self.closes_at(other, 0) - 1);
        let from = (row.timestamp - before).max(open_from).max(0);
        // No row is later than stream time.
        let to = (row.timestamp + after).min(now);
        let mut matched = false;
        let mut segment = from / self.segment_ms;
        while segment <= to / self.segment_ms {
            for found in self.find(other, segment, key, (from, to), cx)? {
                matched = true;
                self.emit_pair(side, key, row, &found, cx)?;
                self.note_match(other, key, found, cx);
            }
            segment += 1;
        }
        Ok(matched)
    }

    /// The rows of a key in a segment from one time to another.
    fn find(
        &self,
        side: usize,
        segment: i64,
        key: &[u8],
        (from, to): (i64, i64),
        cx: &Context<'_>,
    ) -> Result<Vec<Found>, OperatorError> {
        let mut start = Vec::with_capacity(key.len() + 24);
        push_rows(&mut start, side, segment);
        push_escaped(&mut start, key);
        let head = start.len();
        let mut end = start.clone();
        push_i64(&mut start, from);
        push_i64(&mut end, to + 1);
        let range = KeyRange { from: &start, to: Some(&end), reverse: false };
        let (entries, _) = cx.scan(self.store, range, usize::MAX)?;
        let read = |(place, stored): super::context::Entry| {
            let (time, rest) = read_i64(&place[head..])?;
            let (number, _) = read_u64(rest)?;
            Some(Found { place, stored, time, number })
        };
        let found: Option<Vec<_>> = entries.into_iter().map(read).collect();
        found.ok_or_else(|| OperatorError::damaged(self.store, &start))
    }

    fn emit_pair(
        &mut self,
        side: usize,
        key: &Bytes,
        row: &Row,
        found: &Found,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let stored = found.stored[..].into();
        let other =
            stored_row::decode(&stored).ok_or_else(|| OperatorError::damaged(self.store, &found.place))?;
        let (left, right) = if side == LEFT { (row, &other) } else { (&other, row) };
        let headers = left.headers.clone();
        let timestamp = row.timestamp.max(found.time);
        self.emit(Some(key.clone()), (left.value.as_ref(), right.value.as_ref()), headers, timestamp, cx)
    }

    fn emit_alone(
        &mut self,
        side: usize,
        key: Option<Bytes>,
        row: &Row,
        timestamp: i64,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        cx.counts.unmatched += 1;
        let value = row.value.as_ref();
        let sides = if side == LEFT { (value, None) } else { (None, value) };
        self.emit(key, sides, row.headers.clone(), timestamp, cx)
    }

    fn emit(
        &mut self,
        key: Option<Bytes>,
        (left, right): (Option<&Bytes>, Option<&Bytes>),
        headers: RowHeaders,
        timestamp: i64,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let value = joined(&mut *self.joiner, &mut self.scratch, key.as_deref(), left, right)?;
        let (window, change) = (None, Change::Unknown);
        cx.emit(RESULTS, Row { sequence: 0, key, value: Some(value), timestamp, headers, window, change });
        Ok(())
    }

    /// A stored row has matched: it is noted once.
    fn note_match(&self, side: usize, key: &[u8], found: Found, cx: &mut Context<'_>) {
        if !self.kind.is_outer(side) || stored_row::is_noted(&found.stored) == Some(true) {
            return;
        }
        let Found { place, mut stored, time, number } = found;
        stored_row::note(&mut stored);
        cx.put(self.store, &place, &stored);
        if !Mutant::MatchedEmittedAlone.is_on() {
            cx.delete(self.store, &unmatched_place(side, time, key, number));
        }
    }

    /// Emits the rows of outer sides that have closed without a match. Whether that is all.
    fn close(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        let mut place = Vec::new();
        loop {
            let (closed, more) = self.closed(cx.closing.rows().min(CHUNK), cx)?;
            for Unmatched { time, side, key, number } in closed {
                if !cx.closing.is_left() {
                    self.first_unmatched = [None; 2];
                    return Ok(false);
                }
                place.clear();
                self.push_place(&mut place, side, &key, time, number);
                let stored = cx.get(self.store, &place)?;
                let row = stored.as_ref().and_then(stored_row::decode);
                let row = row.ok_or_else(|| OperatorError::damaged(self.store, &place))?;
                cx.closing.spend(stored.map_or(0, |stored| stored.len()));
                cx.delete(self.store, &unmatched_place(side, time, &key, number));
                self.emit_alone(side, Some(key.into()), &row, time, cx)?;
                // Closed, it matches nothing any more.
                cx.delete(self.store, &place);
            }
            if !more {
                return Ok(true);
            }
            self.first_unmatched = [None; 2];
            if !cx.closing.is_left() {
                return Ok(false);
            }
        }
    }

    /// The first ones of those rows, in their order, and whether there are more. If there are none, what is known of the first ones
    /// that are open holds when these are out.
    fn closed(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Result<(Vec<Unmatched>, bool), OperatorError> {
        let (mut closed, mut more) = (Vec::new(), false);
        for side in [RIGHT, LEFT] {
            if self.kind.is_outer(side) {
                more |= self.closed_of(side, limit, &mut closed, cx)?;
            }
        }
        // Each side is sorted already, right rows first.
        closed.sort_by_key(|row| row.time);
        more |= closed.len() > limit;
        closed.truncate(limit);
        Ok((closed, more))
    }

    /// Appends the first rows of a side that have closed without a match; whether there are more.
    fn closed_of(
        &mut self,
        side: usize,
        limit: usize,
        closed: &mut Vec<Unmatched>,
        cx: &Context<'_>,
    ) -> Result<bool, OperatorError> {
        let last = self.meta.stream_time() - self.closes_at(side, 0);
        if self.first_unmatched[side].is_some_and(|first| first > last) {
            return Ok(false);
        }
        let range_end = [tag::UNMATCHED, side as u8 + 1];
        let mut from = vec![tag::UNMATCHED, side as u8];
        // What was before is gone, and takes time to pass.
        self.first_unmatched[side].iter().for_each(|first| push_i64(&mut from, *first));
        let range = KeyRange { from: &from, to: Some(&range_end), reverse: false };
        let (entries, _) = cx.scan(self.store, range, limit + 1)?;
        self.first_unmatched[side] = Some(i64::MAX);
        for (count, (place, _)) in entries.into_iter().enumerate() {
            let row = read_unmatched(&place).ok_or_else(|| OperatorError::damaged(self.store, &place))?;
            if row.time > last {
                self.first_unmatched[side] = Some(row.time);
                return Ok(false);
            }
            if count == limit {
                return Ok(true);
            }
            closed.push(row);
        }
        Ok(false)
    }

    fn push_place(&self, out: &mut Vec<u8>, side: usize, key: &[u8], time: i64, number: u64) {
        push_rows(out, side, time / self.segment_ms);
        push_escaped(out, key);
        push_i64(out, time);
        push_u64(out, number);
    }
}

impl Operator for StreamJoin {
    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        backlog::process(self, input, rows, cx)
    }

    fn is_behind(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        Ok(self.backlog.is_waiting(cx.state)?)
    }

    fn go_on(&mut self, cx: &mut Context<'_>, leave_out: bool) -> Result<(), OperatorError> {
        backlog::go_on(self, leave_out, cx)
    }

    /// Deletes segments whose rows are all closed, from the first one that has any.
    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        let mut left = budget;
        for side in [LEFT, RIGHT] {
            let open_from = self.meta.stream_time() - (self.closes_at(side, 0) - 1);
            let (first, end) = (self.meta.cleaned(side), open_from.max(0) / self.segment_ms);
            if first >= end {
                continue;
            }
            if left == 0 {
                self.meta.save(cx);
                return Ok(true);
            }
            let (mut from, mut to) = (Vec::new(), Vec::new());
            push_rows(&mut from, side, first);
            push_rows(&mut to, side, end);
            let (entries, more) =
                cx.scan(self.store, KeyRange { from: &from, to: Some(&to), reverse: false }, left)?;
            for (place, _) in &entries {
                cx.delete(self.store, place);
            }
            left -= entries.len();
            let last = entries.last().filter(|_| more).and_then(|(place, _)| read_i64(&place[2..]));
            self.meta.set_cleaned(side, last.map_or(end, |(segment, _)| segment));
            if more {
                self.meta.save(cx);
                return Ok(true);
            }
        }
        self.meta.save(cx);
        Ok(false)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.backlog.reset();
        self.first_unmatched = [None; 2];
    }
}

impl Paced for StreamJoin {
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
        side: usize,
        row: &Row,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError> {
        let can_stand_alone = row.value.is_some() && self.kind.is_outer(side) && is_time(row.timestamp);
        if !Context::is_timed(row) && !can_stand_alone {
            return Ok(true);
        }
        if self.meta.observe(row.timestamp).is_some() || again { self.close(cx) } else { Ok(true) }
    }

    fn enter(&mut self, side: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.row(side, row, cx)
    }
}

/// What two values become.
pub(super) fn joined(
    joiner: &mut dyn Joiner,
    scratch: &mut Vec<u8>,
    key: Option<&[u8]>,
    left: Option<&Bytes>,
    right: Option<&Bytes>,
) -> Result<Bytes, OperatorError> {
    scratch.clear();
    joiner.join(key, left.map(|value| &value[..]), right.map(|value| &value[..]), scratch)?;
    Ok(Bytes::copy_from_slice(scratch))
}

fn push_rows(out: &mut Vec<u8>, side: usize, segment: i64) {
    tagged(out, tag::ROWS);
    out.push(side as u8);
    push_i64(out, segment);
}

fn unmatched_place(side: usize, time: i64, key: &[u8], number: u64) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 24);
    place.extend_from_slice(&[tag::UNMATCHED, side as u8]);
    push_i64(&mut place, time);
    push_escaped(&mut place, key);
    push_u64(&mut place, number);
    place
}

fn read_unmatched(place: &[u8]) -> Option<Unmatched> {
    let (&[_, side], rest) = place.split_first_chunk::<2>()?;
    let (time, rest) = read_i64(rest)?;
    let (key, rest) = read_escaped(rest)?;
    let (number, _) = read_u64(rest)?;
    Some(Unmatched { time, side: usize::from(side), key: key.into_owned(), number })
}

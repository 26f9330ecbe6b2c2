//! Sessions: rows of a key with no more than a gap between neighbours.
//!
//! Store: what is alive of a key is its open sessions, in their order (`live`):
//!
//! ```text
//! start(8) end(8) number(8) length(4) state
//! ```
//!
//! The number names the cell of members: it stays when a session grows, and when others are merged into it. The time
//! of a result is the end of its session.

use std::ops::Range;

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::aggregate::{Aggregator, Group, Item};
use super::by_key::result_bytes;
use super::context::each_row;
use super::key::{push_escaped, push_u64};
use super::live::{self, ClosedWindow, Due, Live, push_live};
use super::meta::Meta;
use super::view::FoundWindow;
use super::windows::{Closing, Emit, LATE, Late};
use super::{Change, Context, Operator, OperatorError, Row, Window, WindowKind};
use crate::state::StoreIndex;

/// Keys that are looked at together when their sessions may close.
const CHUNK: usize = 1_024;

/// See the module.
pub struct Sessions {
    store: StoreIndex,
    gap_ms: i64,
    closing: Closing,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    meta: Meta,
    due: Due,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    /// The key of an entry of the store.
    place: Vec<u8>,
    entry: Vec<u8>,
    cells: [Vec<u8>; 2],
    states: [Vec<u8>; 2],
    result: Vec<u8>,
}

/// An open session, whose state is a part of its entry.
#[derive(Debug, Clone)]
struct Session {
    start: i64,
    end: i64,
    number: u64,
    state: Range<usize>,
}

impl Session {
    fn window(&self) -> Window {
        Window { kind: WindowKind::Session, start: self.start, end: self.end }
    }
}

impl Sessions {
    /// Sessions that were checked ([`super::WindowSpec::check`]). `tells_old`: results say what was before, for tables
    /// downstream.
    pub fn new(
        store: StoreIndex,
        gap_ms: i64,
        closing: Closing,
        aggregator: Box<dyn Aggregator>,
        tells_old: bool,
    ) -> Sessions {
        let (meta, due) = (Meta::new(store), Due::new(store));
        Sessions { store, gap_ms, closing, aggregator, tells_old, meta, due, scratch: Scratch::default() }
    }

    /// The stream time at which a session closes whose last row has this time.
    fn closes_at(&self, end: i64) -> i64 {
        end + self.gap_ms + self.closing.grace_ms + 1
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.timed(row) else { return Ok(()) };
        if self.meta.observe(row.timestamp).is_some() && self.closing.emit == Emit::OnClose {
            self.close(cx)?;
        }
        let time = row.timestamp;
        let mut place = std::mem::take(&mut self.scratch.place);
        push_live(&mut place, &key);
        let live = Live::read(cx, self.store, &place)?;
        let sessions = self.read(&live, &place)?;
        let closed = sessions.partition_point(|s| self.closes_at(s.end) <= self.meta.stream_time());
        let gap_ms = self.gap_ms - i64::from(Mutant::SessionsApart.is_on());
        let touches = |s: &Session| s.start - gap_ms <= time && time <= s.end + gap_ms;
        let from = (closed..sessions.len()).find(|i| touches(&sessions[*i]));
        let merged = match from {
            Some(from) => from..from + sessions[from..].iter().take_while(|s| touches(s)).count(),
            None if self.closes_at(time) <= self.meta.stream_time() => {
                self.scratch.place = place;
                self.late(row, cx);
                return Ok(());
            }
            None => {
                let at = closed + sessions[closed..].partition_point(|s| s.end < time);
                at..at
            }
        };
        self.retire(&sessions[..closed], &live, &key, cx)?;
        let item = Item { key: &key, value, timestamp: time, origin: None };
        let session = self.fold(&sessions[merged.clone()], live.body(), item, cx)?;
        let new_state = std::mem::take(&mut self.scratch.states[0]);
        if self.closing.emit == Emit::OnUpdate {
            self.emit_update(&key, &sessions[merged.clone()], live.body(), &session, &new_state, cx)?;
        }
        let mut entry = std::mem::take(&mut self.scratch.entry);
        Live::begin(&mut entry);
        let kept = sessions[closed..merged.start].iter().map(|s| (s, &live.body()[s.state.clone()]));
        let behind = sessions[merged.end..].iter().map(|s| (s, &live.body()[s.state.clone()]));
        let mut first_end = i64::MAX;
        for (session, state) in kept.chain([(&session, &new_state[..])]).chain(behind) {
            push_session(&mut entry, session, state);
            first_end = first_end.min(session.end);
        }
        let close = self.closes_at(first_end);
        live.write(cx, &mut self.due, &place, &mut entry, close);
        (self.scratch.entry, self.scratch.states[0], self.scratch.place) = (entry, new_state, place);
        Ok(())
    }

    fn late(&self, row: &Row, cx: &mut Context<'_>) {
        cx.counts.late += 1;
        cx.counts.late_windows += 1;
        if self.closing.late == Late::Emit {
            cx.emit(LATE, row.clone());
        }
    }

    fn read(&self, live: &Live, place: &[u8]) -> Result<Vec<Session>, OperatorError> {
        read_sessions(live.body()).ok_or_else(|| OperatorError::damaged(self.store, place))
    }

    /// The session that a row makes of those that it touches. Its state is `scratch.states[0]`.
    fn fold(
        &mut self,
        touched: &[Session],
        body: &[u8],
        item: Item<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Session, OperatorError> {
        let members = self.aggregator.has_members();
        let Scratch { cells: [into, from], states: [state, other], .. } = &mut self.scratch;
        let number = touched.first().map_or_else(|| self.meta.next(), |session| session.number);
        let mut session = Session { start: item.timestamp, end: item.timestamp, number, state: 0..0 };
        if members {
            push_cell(into, item.key, number);
        }
        state.clear();
        for (index, next) in touched.iter().enumerate() {
            let next_state = &body[next.state.clone()];
            (session.start, session.end) = (session.start.min(next.start), session.end.max(next.end));
            if index == 0 {
                state.extend_from_slice(next_state);
                continue;
            }
            if members {
                push_cell(from, item.key, next.number);
            }
            other.clear();
            let (left, right) =
                (Group { cell: into, state: Some(state) }, Group { cell: from, state: Some(next_state) });
            self.aggregator.merge(cx, item.key, left, right, other)?;
            std::mem::swap(state, other);
        }
        other.clear();
        let group = Group { cell: into, state: (!touched.is_empty()).then_some(&state[..]) };
        self.aggregator.add(cx, group, item, other)?;
        std::mem::swap(state, other);
        Ok(session)
    }

    /// Those that were merged are gone, and a new one is there. One whose bounds stay is updated.
    fn emit_update(
        &mut self,
        key: &Bytes,
        touched: &[Session],
        body: &[u8],
        session: &Session,
        state: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let stays = |s: &Session| (s.start, s.end) == (session.start, session.end);
        let mut before = None;
        for old in touched {
            let was = if self.tells_old {
                result_bytes(&mut *self.aggregator, key, &body[old.state.clone()], &mut self.scratch.result)?
            } else {
                None
            };
            if stays(old) {
                before = was;
            } else {
                let change = if self.tells_old { Change::Was(was) } else { Change::Unknown };
                cx.emit_result(key.clone(), Some(old.window()), None, old.end, change);
            }
        }
        let value = result_bytes(&mut *self.aggregator, key, state, &mut self.scratch.result)?;
        let change = if self.tells_old { Change::Was(before) } else { Change::Unknown };
        cx.emit_result(key.clone(), Some(session.window()), value, session.end, change);
        Ok(())
    }

    /// Sessions are closed and leave what is alive. Readers find them for as long as they are kept.
    fn retire(
        &mut self,
        closed: &[Session],
        live: &Live,
        key: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        for session in closed {
            if self.closing.is_kept() {
                let window = closed_window(session, live, key);
                let forgotten = session.end + self.gap_ms + self.closing.kept_ms() + 1;
                live::keep(cx, self.store, &window, forgotten);
            }
            if self.aggregator.has_members() {
                push_cell(&mut self.scratch.cells[0], key, session.number);
                self.aggregator.forget(cx, &self.scratch.cells[0])?;
            }
        }
        Ok(())
    }

    /// Takes what is closed out of up to `limit` keys that are due. What was taken, and whether there may be more.
    fn take_closed(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        taken: &mut Vec<ClosedWindow>,
    ) -> Result<bool, OperatorError> {
        let keys = self.due.keys(cx, self.meta.stream_time(), limit)?;
        let (mut place, mut entry) = (Vec::new(), Vec::new());
        for key in &keys {
            push_live(&mut place, key);
            let live = Live::read(cx, self.store, &place)?;
            let sessions = self.read(&live, &place)?;
            let closed = sessions.partition_point(|s| self.closes_at(s.end) <= self.meta.stream_time());
            taken.extend(sessions[..closed].iter().map(|session| closed_window(session, &live, key)));
            self.retire(&sessions[..closed], &live, key, cx)?;
            let Some(next) = sessions.get(closed) else {
                live.remove(cx, &mut self.due, &place);
                continue;
            };
            Live::begin(&mut entry);
            for session in &sessions[closed..] {
                push_session(&mut entry, session, &live.body()[session.state.clone()]);
            }
            let close = self.closes_at(next.end);
            live.write_at(cx, &mut self.due, &place, &mut entry, close);
        }
        Ok(keys.len() == limit)
    }

    /// Emits what has closed, in the order of ends, starts and keys.
    fn close(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let mut closed = Vec::new();
        while self.take_closed(cx, CHUNK, &mut closed)? {}
        closed.sort_unstable_by(|a, b| (a.end, a.start, &a.key).cmp(&(b.end, b.start, &b.key)));
        for session in closed {
            let window = Window { kind: WindowKind::Session, start: session.start, end: session.end };
            let result = &mut self.scratch.result;
            let value = result_bytes(&mut *self.aggregator, &session.key, &session.state, result)?;
            let change = if self.tells_old { Change::Was(None) } else { Change::Unknown };
            cx.emit_result(session.key.into(), Some(window), value, session.end, change);
        }
        Ok(())
    }
}

impl Operator for Sessions {
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
        Ok(self.take_closed(cx, budget, &mut Vec::new())? || more)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.due.reset();
    }
}

fn closed_window(session: &Session, live: &Live, key: &[u8]) -> ClosedWindow {
    let Session { start, end, state, .. } = session.clone();
    ClosedWindow { end, start, key: key.to_vec(), timestamp: end, state: live.body()[state].to_vec() }
}

fn push_session(out: &mut Vec<u8>, session: &Session, state: &[u8]) {
    out.extend_from_slice(&session.start.to_be_bytes());
    out.extend_from_slice(&session.end.to_be_bytes());
    push_u64(out, session.number);
    // A record has less than 2 GiB.
    out.extend_from_slice(&(state.len() as u32).to_be_bytes());
    out.extend_from_slice(state);
}

fn read_sessions(body: &[u8]) -> Option<Vec<Session>> {
    let mut sessions = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let (head, rest) = body[at..].split_first_chunk::<28>()?;
        let number = |place: usize| head[place..].first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes));
        let len = u32::from_be_bytes(*head[24..].first_chunk()?) as usize;
        rest.get(..len)?;
        let state = at + 28..at + 28 + len;
        at = state.end;
        sessions.push(Session {
            start: number(0)?,
            end: number(8)?,
            number: number(16)?.cast_unsigned(),
            state,
        });
    }
    Some(sessions)
}

fn push_cell(cell: &mut Vec<u8>, key: &[u8], number: u64) {
    cell.clear();
    push_escaped(cell, key);
    push_u64(cell, number);
}

/// The open sessions of a key, for readers.
pub(super) fn found(body: &[u8]) -> Option<Vec<FoundWindow>> {
    let found = |session: Session| FoundWindow {
        window: session.window(),
        timestamp: session.end,
        state: Bytes::copy_from_slice(&body[session.state]),
    };
    Some(read_sessions(body)?.into_iter().map(found).collect())
}

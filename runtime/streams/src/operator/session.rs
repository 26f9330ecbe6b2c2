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

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::RandomState;
use pelton_wire::mutant::Mutant;

use super::aggregate::{Aggregator, Group, Item, Plan, Way};
use super::backlog::{self, Backlog, Paced};
use super::by_key::result_bytes;
use super::key::{push_escaped, push_u64};
use super::live::{self, ClosedWindow, Live, OfPacked, Packed, push_live};
use super::view::FoundWindow;
use super::windows::{Closing, Emit, LATE, Late};
use super::{Change, Context, Operator, OperatorError, Row, Window, WindowKind};
use crate::state::StoreIndex;

/// See the module.
pub struct Sessions {
    gap_ms: i64,
    packed: Packed,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    backlog: Backlog,
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

/// A session of a plan.
struct Planned {
    start: i64,
    end: i64,
    group: usize,
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
        let (packed, backlog) = (Packed::new(store, closing), Backlog::new(store));
        Sessions { gap_ms, packed, aggregator, tells_old, backlog, scratch: Scratch::default() }
    }

    /// The stream time at which a session closes whose last row has this time.
    fn closes_at(&self, end: i64) -> i64 {
        end + self.gap_ms + self.packed.closing.grace_ms + 1
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.timed(row) else { return Ok(()) };
        let time = row.timestamp;
        let mut place = std::mem::take(&mut self.scratch.place);
        push_live(&mut place, &key);
        let live = Live::read(cx, self.packed.store, &place)?;
        let sessions = self.read(&live, &place)?;
        let closed = sessions.partition_point(|s| self.closes_at(s.end) <= self.packed.meta.stream_time());
        let gap_ms = self.gap_ms - i64::from(Mutant::SessionsApart.is_on());
        let touches = |s: &Session| s.start - gap_ms <= time && time <= s.end + gap_ms;
        let from = (closed..sessions.len()).find(|i| touches(&sessions[*i]));
        let merged = match from {
            Some(from) => from..from + sessions[from..].iter().take_while(|s| touches(s)).count(),
            None if self.closes_at(time) <= self.packed.meta.stream_time() => {
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
        if self.packed.closing.emit == Emit::OnUpdate {
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
        live.write(cx, &mut self.packed.due, &place, &mut entry, close);
        (self.scratch.entry, self.scratch.states[0], self.scratch.place) = (entry, new_state, place);
        Ok(())
    }

    /// What rows will be folded into which sessions, up to the first row of a key that makes several sessions one: what comes of
    /// that only the plugin knows.
    fn plan(&self, rows: &[Row], cx: &mut Context<'_>) -> Result<Plan, OperatorError> {
        let (mut plan, mut keys) =
            (Plan::default(), HashMap::<Bytes, Option<Vec<Planned>>, RandomState>::default());
        let mut now = self.packed.meta.stream_time();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| Context::is_timed(row)) {
            let (Some(key), Some(value)) = (row.full_key(), &row.value) else { continue };
            let time = row.timestamp;
            now = now.max(time);
            let sessions = match keys.entry(key.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Some(self.planned(&key, &mut plan, cx)?)),
            };
            let Some(known) = sessions else { continue };
            known.retain(|session| self.closes_at(session.end) > now);
            let touches = |s: &&mut Planned| s.start - self.gap_ms <= time && time <= s.end + self.gap_ms;
            let mut touched = known.iter_mut().filter(touches);
            let group = match (touched.next(), touched.next()) {
                (Some(_), Some(_)) => {
                    *sessions = None;
                    continue;
                }
                (Some(session), None) => {
                    (session.start, session.end) = (session.start.min(time), session.end.max(time));
                    session.group
                }
                (None, _) if self.closes_at(time) <= now => continue,
                (None, _) => {
                    let group = plan.group(None);
                    known.push(Planned { start: time, end: time, group });
                    group
                }
            };
            plan.step((group, Way::In), index, (key, value.clone(), time));
        }
        Ok(plan)
    }

    /// The sessions of a key as a plan begins.
    fn planned(
        &self,
        key: &[u8],
        plan: &mut Plan,
        cx: &mut Context<'_>,
    ) -> Result<Vec<Planned>, OperatorError> {
        let mut place = Vec::new();
        push_live(&mut place, key);
        let live = Live::read(cx, self.packed.store, &place)?;
        let sessions = self.read(&live, &place)?;
        let planned = |Session { start, end, state, .. }: Session| {
            let group = plan.group(Some(&live.body()[state]));
            Planned { start, end, group }
        };
        Ok(sessions.into_iter().map(planned).collect())
    }

    fn late(&self, row: &Row, cx: &mut Context<'_>) {
        cx.counts.late += 1;
        cx.counts.late_windows += 1;
        if self.packed.closing.late == Late::Emit {
            cx.emit(LATE, row.clone());
        }
    }

    fn read(&self, live: &Live, place: &[u8]) -> Result<Vec<Session>, OperatorError> {
        read_sessions(live.body()).ok_or_else(|| OperatorError::damaged(self.packed.store, place))
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
        let number = touched.first().map_or_else(|| self.packed.meta.next(), |session| session.number);
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
            if self.packed.closing.is_kept() {
                let window = closed_window(session, live, key);
                let forgotten = session.end + self.gap_ms + self.packed.closing.kept_ms() + 1;
                live::keep(cx, self.packed.store, &window, forgotten);
            }
            if self.aggregator.has_members() {
                push_cell(&mut self.scratch.cells[0], key, session.number);
                self.aggregator.forget(cx, &self.scratch.cells[0])?;
            }
        }
        Ok(())
    }
}

impl Operator for Sessions {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        live::prefetch(cx, self.packed.store, rows)
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.aggregator.plans() {
            self.packed.meta.load(cx)?;
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
        live::maintain(self, cx, budget)
    }

    fn reset(&mut self) {
        self.packed.reset();
        self.backlog.reset();
    }
}

impl Paced for Sessions {
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

impl OfPacked for Sessions {
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
        let sessions = self.read(&live, &place)?;
        let open = sessions.partition_point(|s| self.closes_at(s.end) <= self.packed.meta.stream_time());
        closed.extend(sessions[..open].iter().map(|session| closed_window(session, &live, key)));
        self.retire(&sessions[..open], &live, key, cx)?;
        if let Some(next) = sessions.get(open) {
            let mut entry = std::mem::take(&mut self.scratch.entry);
            Live::begin(&mut entry);
            for session in &sessions[open..] {
                push_session(&mut entry, session, &live.body()[session.state.clone()]);
            }
            let close = self.closes_at(next.end);
            live.write_at(cx, &mut self.packed.due, &place, &mut entry, close);
            self.scratch.entry = entry;
        } else {
            live.remove(cx, &mut self.packed.due, &place);
        }
        self.scratch.place = place;
        Ok(())
    }

    fn emit_closed(&mut self, session: ClosedWindow, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let window = Window { kind: WindowKind::Session, start: session.start, end: session.end };
        let result = &mut self.scratch.result;
        let value = result_bytes(&mut *self.aggregator, &session.key, &session.state, result)?;
        let change = if self.tells_old { Change::Was(None) } else { Change::Unknown };
        cx.emit_result(session.key.into(), Some(window), value, session.end, change);
        Ok(())
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

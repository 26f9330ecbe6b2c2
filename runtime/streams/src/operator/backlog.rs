//! Rows that wait until all is out that closes before them.
//!
//! One row may bring stream time so far that millions of windows, sessions or unmatched rows close before it. A call emits a
//! bounded part of them ([`CLOSED_AT_ONCE`], [`CLOSED_BYTES_AT_ONCE`]); the rest comes with passes of the task that follow, which
//! may be of other transactions, in the same order and before anything that comes behind. Where a part ends decides nothing.
//!
//! What holds whenever a call has ended, and so at every commit:
//!
//! 1. Stream time is that of the row which has brought it, from the first part on: rows are late as if all were out.
//! 2. What has closed and is not out is found in the store, in the order in which it goes out: what is out was deleted there, or lies
//!    before a cursor. The stream time and the store say what is left, and nothing else does.
//! 3. There is some of it only while rows wait. The first one that waits is the row which has brought the time: it has had no
//!    other effect yet.
//! 4. While rows wait, each row that comes waits behind them, and the task reads no record ([`Operator::is_behind`]).
//!
//! So a task that begins anew with a store goes on exactly where the transaction has ended, whether or not the offset of the row's
//! record was committed with it: if it was, the row waits in the store; if not, the store is as before the record.
//!
//! A record that has rows wait goes alone ([`OperatorError::Alone`]): only rows which it has triggered itself wait. Its failures are
//! found when it comes, while it is known which record is to blame: the row is tried, and undone, before it waits.
//!
//! ```text
//! 12            where the windows of fixed places begin that are not out
//! 12 n(8)       input(1) time(8) a row that waits: see `stored_row`
//! 13 end(8) start(8) key   envelope and state of a session or sliding window that has closed and is not out
//! ```

use std::ops::ControlFlow;

use super::context::each_row;
use super::envelope;
use super::key::{push_i64, push_u64, read_i64, read_u64, sortable, tag};
use super::live::ClosedWindow;
use super::{Context, Operator, OperatorError, Row, stored_row};
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState};

/// Results of what has closed that an operator emits with one call, or looks at to find them. One row may bring more than that.
pub const CLOSED_AT_ONCE: usize = 10_000;
/// Bytes of them: at least one comes with each call.
pub const CLOSED_BYTES_AT_ONCE: usize = 16 << 20;

/// How much may still be closed with a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosingBudget {
    rows: usize,
    bytes: usize,
}

impl ClosingBudget {
    pub(super) fn of(rows: usize) -> ClosingBudget {
        ClosingBudget { rows, bytes: CLOSED_BYTES_AT_ONCE }
    }

    pub(super) fn is_left(self) -> bool {
        self.rows > 0 && self.bytes > 0
    }

    /// Whether these bytes are more than what is left.
    pub(super) fn is_exceeded_by(self, bytes: usize) -> bool {
        bytes > self.bytes
    }

    /// How many more, as far as their bytes allow.
    pub(super) fn rows(self) -> usize {
        if self.bytes > 0 { self.rows } else { 0 }
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        (self.rows, self.bytes) = (self.rows.saturating_sub(1), self.bytes.saturating_sub(bytes));
    }
}

/// The rows that wait in a store. See the module.
#[derive(Debug)]
pub(crate) struct Backlog {
    store: StoreIndex,
    /// The numbers of those that wait; none before the store was looked at.
    numbers: Option<(u64, u64)>,
}

impl Backlog {
    pub(crate) fn new(store: StoreIndex) -> Backlog {
        Backlog { store, numbers: None }
    }

    pub(crate) fn reset(&mut self) {
        self.numbers = None;
    }

    fn damaged(&self) -> StateError {
        StateError::Corrupt(format!("a row that waits in store {} has an unknown layout", self.store))
    }

    /// The number of the first one, and that behind the last one.
    fn numbers(&mut self, state: &TaskState) -> Result<(u64, u64), StateError> {
        if let Some(numbers) = self.numbers {
            return Ok(numbers);
        }
        let mut ends = [None; 2];
        for (end, reverse) in ends.iter_mut().zip([false, true]) {
            let range = KeyRange { from: &[tag::BACKLOG, 0], to: Some(&[tag::BACKLOG + 1]), reverse };
            state.range(self.store, range, &mut |place, _| {
                *end = Some(read_u64(&place[1..]).map(|(number, _)| number));
                ControlFlow::Break(())
            })?;
        }
        let numbers = match ends {
            [Some(Some(first)), Some(Some(last))] => (first, last + 1),
            [None, None] => (0, 0),
            _ => return Err(self.damaged()),
        };
        Ok(*self.numbers.insert(numbers))
    }

    /// Whether rows wait.
    pub(crate) fn is_waiting(&mut self, state: &TaskState) -> Result<bool, StateError> {
        let (first, end) = self.numbers(state)?;
        Ok(first < end)
    }

    /// A row waits behind all others.
    pub(crate) fn put(&mut self, state: &mut TaskState, input: usize, row: &Row) -> Result<(), StateError> {
        let (first, end) = self.numbers(state)?;
        let mut entry = vec![input as u8];
        push_i64(&mut entry, row.timestamp);
        stored_row::encode(&mut entry, row.full_key().as_deref(), row, false);
        state.put(self.store, &place(end), Some(Blob::from(entry)));
        self.numbers = Some((first, end + 1));
        Ok(())
    }

    /// The first `limit` that wait, each with its input.
    pub(crate) fn first(
        &mut self,
        state: &mut TaskState,
        limit: usize,
    ) -> Result<Vec<(usize, Row)>, StateError> {
        let (first, end) = self.numbers(state)?;
        let mut rows = Vec::new();
        for number in (first..end).take(limit) {
            let entry = state.get(self.store, &place(number))?.ok_or_else(|| self.damaged())?;
            let read = || {
                let (&input, rest) = entry.split_first()?;
                let (timestamp, rest) = read_i64(rest)?;
                let row = stored_row::decode(&Blob::from(rest))?;
                Some((usize::from(input), Row { timestamp, ..row }))
            };
            rows.push(read().ok_or_else(|| self.damaged())?);
        }
        Ok(rows)
    }

    /// The first `count` wait no more.
    pub(crate) fn done(&mut self, state: &mut TaskState, count: usize) -> Result<(), StateError> {
        let (first, end) = self.numbers(state)?;
        let left = end.min(first + count as u64);
        (first..left).for_each(|number| state.put(self.store, &place(number), None));
        self.numbers = Some(if left == end { (0, 0) } else { (left, end) });
        Ok(())
    }
}

fn place(number: u64) -> Vec<u8> {
    let mut place = vec![tag::BACKLOG];
    push_u64(&mut place, number);
    place
}

/// An operator before whose rows something closes.
pub(super) trait Paced: Operator {
    fn backlog(&mut self) -> &mut Backlog;

    /// Reads what it keeps of itself, at the beginning of each call.
    fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError>;

    /// Writes it, at the end of each call.
    fn save(&mut self, cx: &mut Context<'_>);

    /// Moves stream time to a row, and emits what closes by that. False: the budget is spent and there is more. `again`: this is
    /// not the first time that the row comes.
    fn close_before(
        &mut self,
        input: usize,
        row: &Row,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError>;

    /// All else that a row does.
    fn enter(&mut self, input: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError>;
}

/// [`Operator::process`] of such an operator.
pub(super) fn process(
    node: &mut impl Paced,
    input: usize,
    rows: &[Row],
    cx: &mut Context<'_>,
) -> Result<(), OperatorError> {
    node.load(cx)?;
    each_row(rows, cx, |row, cx| {
        if !node.backlog().is_waiting(cx.state)? {
            if node.close_before(input, row, false, cx)? {
                return node.enter(input, row, cx);
            }
            cx.goes_alone()?;
            try_row(node, input, row, cx)?;
        }
        Ok(node.backlog().put(cx.state, input, row)?)
    })?;
    node.save(cx);
    Ok(())
}

/// Finds out whether a row fails, and undoes what it does.
fn try_row(
    node: &mut impl Paced,
    input: usize,
    row: &Row,
    cx: &mut Context<'_>,
) -> Result<(), OperatorError> {
    node.save(cx);
    let (savepoint, counts) = (cx.state.savepoint(), *cx.counts);
    let tried = node.enter(input, row, &mut cx.with_output(&mut Vec::new()));
    cx.state.roll_back(savepoint);
    *cx.counts = counts;
    node.reset();
    node.load(cx)?;
    tried
}

/// [`Operator::go_on`] of such an operator.
pub(super) fn go_on(
    node: &mut impl Paced,
    leave_out: bool,
    cx: &mut Context<'_>,
) -> Result<(), OperatorError> {
    node.load(cx)?;
    while cx.closing.is_left() {
        let Some((input, row)) = node.backlog().first(cx.state, 1)?.pop() else { break };
        if !node.close_before(input, &row, true, cx)? || !cx.closing.is_left() {
            break;
        }
        if !leave_out {
            node.enter(input, &row, cx)?;
        }
        node.backlog().done(cx.state, 1)?;
        cx.closing.spend(0);
    }
    node.save(cx);
    Ok(())
}

/// Sessions and sliding windows that close together, which goes by keys, on their way to being emitted in the order of time. They
/// are in memory if a call can emit them; else they are put down in the store, in that order.
pub(super) struct Spill {
    store: StoreIndex,
    is_used: bool,
}

impl Spill {
    /// `again`: there may be some in the store.
    pub(super) fn new(store: StoreIndex, again: bool, cx: &Context<'_>) -> Result<Spill, OperatorError> {
        let is_used = again && !cx.scan(store, Spill::all(), 1)?.0.is_empty();
        Ok(Spill { store, is_used })
    }

    fn all() -> KeyRange<'static> {
        KeyRange { from: &[tag::CLOSING], to: Some(&[tag::CLOSING + 1]), reverse: false }
    }

    /// Closes what is due: `take` appends what is closed of up to so many keys, and says whether there may be more. What is to be
    /// emitted, in its order; and whether that is all.
    pub(super) fn close(
        &mut self,
        cx: &mut Context<'_>,
        keys_at_once: usize,
        mut take: impl FnMut(&mut Context<'_>, usize, &mut Vec<ClosedWindow>) -> Result<bool, OperatorError>,
    ) -> Result<(Vec<ClosedWindow>, bool), OperatorError> {
        let (mut closed, mut found, mut keys_left) = (Vec::new(), cx.closing, cx.closing.rows());
        loop {
            let keys = keys_at_once.min(keys_left);
            if keys == 0 {
                self.put_down(cx, &mut closed);
                return Ok((closed, false));
            }
            keys_left -= keys;
            let before = closed.len();
            let more = take(cx, keys, &mut closed)?;
            closed[before..].iter().for_each(|window| found.spend(window.bytes()));
            if !found.is_left() {
                self.is_used = true;
                keys_left = 0;
            }
            if !more {
                break;
            }
        }
        if self.is_used {
            self.put_down(cx, &mut closed);
            return self.take_up(cx);
        }
        cx.closing = found;
        closed.sort_unstable_by(|a, b| (a.end, a.start, &a.key).cmp(&(b.end, b.start, &b.key)));
        Ok((closed, true))
    }

    fn put_down(&mut self, cx: &mut Context<'_>, closed: &mut Vec<ClosedWindow>) {
        self.is_used = true;
        for window in closed.drain(..) {
            let mut place = vec![tag::CLOSING];
            push_i64(&mut place, window.end);
            push_i64(&mut place, window.start);
            place.extend_from_slice(&window.key);
            let mut stored = Vec::with_capacity(envelope::HEADER + window.state.len());
            envelope::encode(&mut stored, window.timestamp, &window.state);
            cx.put(self.store, &place, &stored);
        }
    }

    /// The first ones of those in the store, and whether those are all.
    fn take_up(&self, cx: &mut Context<'_>) -> Result<(Vec<ClosedWindow>, bool), OperatorError> {
        let (mut taken, mut left) = (Vec::new(), cx.closing);
        let mut is_damaged = None;
        cx.state.range(self.store, Spill::all(), &mut |place, stored| {
            if !left.is_left() {
                return ControlFlow::Break(());
            }
            let read = || {
                let (end, rest) = read_i64(&place[1..])?;
                let (start, key) = read_i64(rest)?;
                let (timestamp, state) = envelope::decode(stored)?;
                Some(ClosedWindow { end, start, key: key.to_vec(), timestamp, state: state.to_vec() })
            };
            let Some(window) = read() else {
                is_damaged = Some(place.to_vec());
                return ControlFlow::Break(());
            };
            left.spend(window.bytes());
            taken.push(window);
            ControlFlow::Continue(())
        })?;
        if let Some(place) = is_damaged {
            return Err(OperatorError::damaged(self.store, &place));
        }
        for ClosedWindow { end, start, key, .. } in &taken {
            let place = [&[tag::CLOSING][..], &sortable(*end), &sortable(*start), key].concat();
            cx.delete(self.store, &place);
        }
        cx.closing = left;
        let is_all = cx.scan(self.store, Spill::all(), 1)?.0.is_empty();
        Ok((taken, is_all))
    }
}

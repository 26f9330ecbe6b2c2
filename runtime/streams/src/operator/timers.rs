//! Timers: something that happens at a time, of the stream or of the clock. They are in the store, so they survive a
//! restart.
//!
//! A timer has a name, which is its own within its domain: setting it again moves it. Those on stream time fire
//! before the row that brings stream time there, those on wall-clock time at a tick; both in the order of time, then
//! name. One that is set while others fire, for a time that has passed, fires with the next row or tick: no round
//! goes on for ever.
//!
//! Store, ordered: `00` stream time; `0c domain(1) at(8) name`: nothing; `0d domain(1) name`: at(8).

use bytes::Bytes;

use super::context::each_row;
use super::key::{push_i64, read_i64, tag, tagged};
use super::meta::Meta;
use super::windows::MAX_TIMESTAMP;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::{KeyRange, StoreIndex};

/// Whose time a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TimerDomain {
    /// The highest timestamp of the rows so far.
    StreamTime = 0,
    /// The clock of the machine.
    WallClock = 1,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Whose time it waits for.
    pub domain: TimerDomain,
    /// Milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Its name.
    pub name: Bytes,
}

/// What rows and timers do.
pub trait TimerFunction: Send {
    /// A row has come.
    ///
    /// # Errors
    /// The row cannot be processed.
    fn row(
        &mut self,
        row: &Row,
        timers: &mut TimerSetter,
        emit: &mut dyn FnMut(usize, Row),
    ) -> Result<(), OperatorError>;

    /// A timer has fired. What is emitted belongs to the row that moved the time.
    ///
    /// # Errors
    /// It cannot be processed.
    fn fire(
        &mut self,
        timer: &Timer,
        timers: &mut TimerSetter,
        emit: &mut dyn FnMut(usize, Row),
    ) -> Result<(), OperatorError>;
}

/// What a function asks of its timers.
#[derive(Debug, Default)]
pub struct TimerSetter(Vec<(TimerDomain, Bytes, Option<i64>)>);

impl TimerSetter {
    /// Sets a timer, or moves it.
    pub fn set(&mut self, timer: Timer) {
        self.0.push((timer.domain, timer.name, Some(timer.at)));
    }

    /// Takes a timer away, if it is there.
    pub fn cancel(&mut self, domain: TimerDomain, name: Bytes) {
        self.0.push((domain, name, None));
    }
}

/// A node with timers. See the module.
pub struct TimerNode {
    store: StoreIndex,
    function: Box<dyn TimerFunction>,
    meta: Meta,
    /// No timer of the domain is earlier; none if that is not known.
    first: [Option<i64>; 2],
}

impl TimerNode {
    /// With an ordered store for the timers.
    pub fn new(store: StoreIndex, function: Box<dyn TimerFunction>) -> TimerNode {
        TimerNode { store, function, meta: Meta::new(store), first: [None; 2] }
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if (0..=MAX_TIMESTAMP).contains(&row.timestamp) {
            self.meta.observe(row.timestamp);
        }
        self.fire(TimerDomain::StreamTime, self.meta.stream_time(), cx)?;
        let mut setter = TimerSetter::default();
        self.function.row(row, &mut setter, &mut |output, row| emit(cx, output, row))?;
        self.apply(setter, cx)
    }

    /// One round: what is due at the beginning of it.
    fn fire(&mut self, domain: TimerDomain, now: i64, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        for timer in self.take_due(domain, now, cx)? {
            let mut setter = TimerSetter::default();
            self.function.fire(&timer, &mut setter, &mut |output, row| emit(cx, output, row))?;
            self.apply(setter, cx)?;
        }
        Ok(())
    }

    fn take_due(
        &mut self,
        domain: TimerDomain,
        now: i64,
        cx: &mut Context<'_>,
    ) -> Result<Vec<Timer>, OperatorError> {
        let slot = domain as usize;
        if self.first[slot].is_some_and(|first| first > now) {
            return Ok(Vec::new());
        }
        let (from, mut to) = ([tag::TIMER, domain as u8], vec![tag::TIMER, domain as u8]);
        push_i64(&mut to, now.saturating_add(1));
        let (entries, _) =
            cx.scan(self.store, KeyRange { from: &from, to: Some(&to), reverse: false }, usize::MAX)?;
        let mut timers = Vec::new();
        for (place, _) in entries {
            let (at, name) =
                read_i64(&place[2..]).ok_or_else(|| OperatorError::damaged(self.store, &place))?;
            cx.delete(self.store, &place);
            cx.delete(self.store, &name_place(domain, name));
            timers.push(Timer { domain, at, name: Bytes::copy_from_slice(name) });
        }
        let end = [tag::TIMER, domain as u8 + 1];
        let (next, _) = cx.scan(self.store, KeyRange { from: &to, to: Some(&end), reverse: false }, 1)?;
        let next = next.first().and_then(|(place, _)| read_i64(&place[2..]));
        self.first[slot] = Some(next.map_or(i64::MAX, |(at, _)| at));
        Ok(timers)
    }

    fn apply(&mut self, setter: TimerSetter, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        for (domain, name, at) in setter.0 {
            let by_name = name_place(domain, &name);
            if let Some(old) = cx.get(self.store, &by_name)? {
                let old = old.first_chunk().ok_or_else(|| OperatorError::damaged(self.store, &by_name))?;
                cx.delete(self.store, &time_place(domain, i64::from_be_bytes(*old), &name));
            }
            match at {
                Some(at) => {
                    cx.put(self.store, &by_name, &at.to_be_bytes());
                    cx.put(self.store, &time_place(domain, at, &name), &[]);
                    let first = &mut self.first[domain as usize];
                    *first = first.map(|first| first.min(at));
                }
                None => cx.delete(self.store, &by_name),
            }
        }
        Ok(())
    }
}

fn emit(cx: &mut Context<'_>, output: usize, row: Row) {
    cx.emit(output, Row { change: Change::Unknown, ..row });
}

fn time_place(domain: TimerDomain, at: i64, name: &[u8]) -> Vec<u8> {
    let mut place = Vec::new();
    tagged(&mut place, tag::TIMER);
    place.push(domain as u8);
    push_i64(&mut place, at);
    place.extend_from_slice(name);
    place
}

fn name_place(domain: TimerDomain, name: &[u8]) -> Vec<u8> {
    [&[tag::TIMER_NAME, domain as u8], name].concat()
}

impl Operator for TimerNode {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        each_row(rows, cx, |row, cx| self.row(row, cx))?;
        self.meta.save(cx);
        Ok(())
    }

    fn tick(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.fire(TimerDomain::WallClock, cx.now_ms, cx)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.first = [None; 2];
    }
}

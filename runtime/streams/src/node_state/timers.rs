//! Timers of a plugin: something that happens at a time, of the stream or of the clock. They are in a store of the node, so they
//! survive a restart and move with the partition.
//!
//! A timer has a name, which is its own within its domain: setting it again moves it. The stream time of a node is the latest
//! timestamp of the records that it was given, kept in the store.
//!
//! Of a round of timers on stream time (see `task::timers`) as many fire in one pass as one may have. If there are more, the round is
//! *open*, and the record that has brought it waits (`operator::backlog`): what is left of the round are the timers that are due and
//! were not set within it. So a timer that is set meanwhile says in which round that was.
//!
//! ```text
//! 00                        version(1) stream time(8)
//! 0c domain(1) at(8) name   nothing, or the round(8) that was open when it was set
//! 0d domain(1) name         at(8)
//! 12                        the number(8) of the last round that was open, whether it is(1), its time(8)
//! 12 n(8)                   a record that waits
//! ```

use std::ops::ControlFlow;

use pelton_wire::mutant::Mutant;

use super::{Budget, Failed, Refused};
use crate::operator::backlog::Backlog;
use crate::operator::key::{push_i64, push_u64, read_i64, read_u64, tag};
use crate::operator::{CLOSED_BYTES_AT_ONCE, MAX_TIMESTAMP, TimerDomain};
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState};

const TIME: [u8; 1] = [tag::META];
const ROUND: [u8; 1] = [tag::BACKLOG];
const VERSION: u8 = 1;
/// No record has come yet.
const NO_TIME: i64 = -1;

/// A timer that is due: when, and its name.
pub type Due = (i64, Vec<u8>);

/// A round of timers that does not fire in one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Round {
    number: u64,
    is_open: bool,
    /// The stream time up to which its timers are due.
    now: i64,
}

/// The timers of a node. See the module.
#[derive(Debug)]
pub struct Timers {
    store: StoreIndex,
    /// Records that wait for the round that is open.
    pub(crate) backlog: Backlog,
    /// None before the store was looked at.
    round: Option<Round>,
    /// When the first timer of the domain is due; none if that is not known.
    first: [Option<i64>; 2],
    /// Nothing is left of the domain before this: what has fired is gone, and takes time to pass.
    floor: [i64; 2],
    stream_time: Option<i64>,
    /// The stream time behind the records of the call.
    behind_call: i64,
    /// The call has set a timer that may be due before one of its own records.
    was_early: bool,
}

impl Timers {
    pub(super) fn new(store: StoreIndex) -> Timers {
        // Not known until the store is read.
        let first = if Mutant::TimersForgotten.is_on() { Some(i64::MAX) } else { None };
        let (backlog, first, behind_call) = (Backlog::new(store), [first; 2], NO_TIME);
        let (round, stream_time, was_early) = (None, None, false);
        Timers { store, backlog, round, first, floor: [0; 2], stream_time, behind_call, was_early }
    }

    pub(super) fn reset(&mut self) {
        (self.first, self.stream_time, self.round) = ([None; 2], None, None);
        self.floor = [0; 2];
        self.backlog.reset();
    }

    fn round(&mut self, state: &mut TaskState) -> Result<Round, StateError> {
        if let Some(round) = self.round {
            return Ok(round);
        }
        let round = match state.get(self.store, &ROUND)? {
            None => Round::default(),
            Some(blob) => read_round(&blob).ok_or_else(|| self.damaged("the round of timers"))?,
        };
        Ok(*self.round.insert(round))
    }

    fn set_round(&mut self, state: &mut TaskState, round: Round) {
        let mut bytes = Vec::with_capacity(17);
        push_u64(&mut bytes, round.number);
        bytes.push(u8::from(round.is_open));
        push_i64(&mut bytes, round.now);
        state.put(self.store, &ROUND, Some(Blob::from(bytes)));
        self.round = Some(round);
    }

    /// The stream time of the round that has not fired to its end, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(&mut self, state: &mut TaskState) -> Result<Option<i64>, StateError> {
        let round = self.round(state)?;
        Ok(round.is_open.then_some(round.now))
    }

    /// There are more timers due at a time than fire in this pass.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open_round(&mut self, state: &mut TaskState, now: i64) -> Result<(), StateError> {
        let round = self.round(state)?;
        if !round.is_open {
            self.set_round(state, Round { number: round.number + 1, is_open: true, now });
        }
        Ok(())
    }

    /// All of the round that is open have fired, or are firing, if one is.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn end_round(&mut self, state: &mut TaskState) -> Result<(), StateError> {
        let round = self.round(state)?;
        if round.is_open {
            self.set_round(state, Round { is_open: false, ..round });
        }
        Ok(())
    }

    fn damaged(&self, what: &str) -> StateError {
        StateError::Corrupt(format!("{what} of store {} has an unknown layout", self.store))
    }

    /// The latest timestamp of the records so far; -1 for none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn stream_time(&mut self, state: &mut TaskState) -> Result<i64, StateError> {
        if let Some(time) = self.stream_time {
            return Ok(time);
        }
        let time = match state.get(self.store, &TIME)? {
            None => NO_TIME,
            Some(blob) => match blob.split_first() {
                Some((&VERSION, time)) if time.len() == 8 => read_i64(time).map_or(NO_TIME, |(time, _)| time),
                _ => return Err(self.damaged("the stream time")),
            },
        };
        self.stream_time = Some(time);
        Ok(time)
    }

    /// Records up to this time have come.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn observe(&mut self, state: &mut TaskState, time: i64) -> Result<(), StateError> {
        if time > self.stream_time(state)? {
            self.stream_time = Some(time);
            let mut bytes = vec![VERSION];
            push_i64(&mut bytes, time);
            state.put(self.store, &TIME, Some(Blob::from(bytes)));
        }
        Ok(())
    }

    /// A call begins with records up to this time.
    pub fn begin(&mut self, behind_call: i64) {
        (self.behind_call, self.was_early) = (behind_call, false);
    }

    /// Whether the call has set a timer that may be due before one of its own records.
    pub fn was_early(&self) -> bool {
        self.was_early
    }

    /// When the first timer of a domain is due, if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next(&mut self, state: &mut TaskState, domain: TimerDomain) -> Result<Option<i64>, StateError> {
        let slot = domain as usize;
        let first = match self.first[slot] {
            Some(first) => first,
            None => {
                let (due, _) = self.due(state, domain, i64::MAX - 1, 1)?;
                *self.first[slot].insert(due.first().map_or(i64::MAX, |(at, _)| *at))
            }
        };
        Ok((first < i64::MAX).then_some(first))
    }

    /// The first `limit` timers that are due at a time, in the order of time and name, and whether there are more. Of stream time
    /// those are left out that were set within the round which is open.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn due(
        &mut self,
        state: &mut TaskState,
        domain: TimerDomain,
        now: i64,
        limit: usize,
    ) -> Result<(Vec<Due>, bool), StateError> {
        let round = self.round(state)?;
        let round = (round.is_open && domain == TimerDomain::StreamTime).then_some(round.number);
        let (mut from, mut to) = (vec![tag::TIMER, domain as u8], vec![tag::TIMER, domain as u8]);
        push_i64(&mut from, self.floor[domain as usize]);
        push_i64(&mut to, now.saturating_add(1));
        let mut floor = None;
        let (mut found, mut bytes, mut more, mut is_damaged) = (Vec::new(), 0, false, false);
        let range = KeyRange { from: &from, to: Some(&to), reverse: false };
        state.range(self.store, range, &mut |place, set_in| {
            let Some((at, name)) = place.get(2..).and_then(read_i64) else {
                is_damaged = true;
                return ControlFlow::Break(());
            };
            floor.get_or_insert(at);
            if round.is_some() && set_in_round(set_in) == round {
                return ControlFlow::Continue(());
            }
            if found.len() == limit || bytes > CLOSED_BYTES_AT_ONCE {
                more = true;
                return ControlFlow::Break(());
            }
            bytes += name.len();
            found.push((at, name.to_vec()));
            ControlFlow::Continue(())
        })?;
        if is_damaged {
            return Err(self.damaged("a timer"));
        }
        self.floor[domain as usize] = floor.unwrap_or(self.floor[domain as usize]);
        Ok((found, more))
    }

    /// Takes timers that are still set for that time. They are about to fire.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn take(
        &mut self,
        state: &mut TaskState,
        domain: TimerDomain,
        due: &[Due],
    ) -> Result<Vec<Due>, StateError> {
        let mut taken = Vec::with_capacity(due.len());
        for (at, name) in due {
            if self.at(state, domain, name)? == Some(*at) {
                state.put(self.store, &time_place(domain, *at, name), None);
                state.put(self.store, &name_place(domain, name), None);
                taken.push((*at, name.clone()));
            }
        }
        self.first[domain as usize] = None;
        Ok(taken)
    }

    fn at(&self, state: &mut TaskState, domain: TimerDomain, name: &[u8]) -> Result<Option<i64>, StateError> {
        let Some(at) = state.get(self.store, &name_place(domain, name))? else { return Ok(None) };
        read_i64(&at).map(|(at, _)| Some(at)).ok_or_else(|| self.damaged("the time of a timer"))
    }

    pub(super) fn set(
        &mut self,
        state: &mut TaskState,
        domain: TimerDomain,
        names: &[&[u8]],
        at: &[i64],
        budget: &mut Budget<'_>,
    ) -> Result<(), Failed> {
        for (i, (name, at)) in names.iter().zip(at).enumerate() {
            if !(0..=MAX_TIMESTAMP).contains(at) {
                return Err(Refused(format!("at[{i}] is {at}, which is no time for a timer")).into());
            }
            // An entry by time, and one by name.
            budget.take(name, Some(name))?;
            budget.take(&[], None)?;
            self.remove(state, domain, name)?;
            let mut bytes = Vec::with_capacity(8);
            push_i64(&mut bytes, *at);
            state.put(self.store, &name_place(domain, name), Some(Blob::from(bytes)));
            let round = self.round(state)?;
            let is_within = domain == TimerDomain::StreamTime && round.is_open && *at <= round.now;
            let mut set_in = Vec::new();
            if is_within {
                push_u64(&mut set_in, round.number);
            }
            state.put(self.store, &time_place(domain, *at, name), Some(Blob::from(set_in)));
            let first = &mut self.first[domain as usize];
            *first = first.map(|first| first.min(*at));
            let floor = &mut self.floor[domain as usize];
            *floor = (*floor).min(*at);
            self.was_early |= domain == TimerDomain::StreamTime && *at <= self.behind_call;
        }
        Ok(())
    }

    pub(super) fn cancel(
        &mut self,
        state: &mut TaskState,
        domain: TimerDomain,
        names: &[&[u8]],
        budget: &mut Budget<'_>,
    ) -> Result<(), Failed> {
        for name in names {
            budget.take(name, Some(name))?;
            if self.remove(state, domain, name)? {
                state.put(self.store, &name_place(domain, name), None);
            }
        }
        Ok(())
    }

    /// Takes the entry by time away, if there is one. That of the name stays for who writes it.
    fn remove(
        &mut self,
        state: &mut TaskState,
        domain: TimerDomain,
        name: &[u8],
    ) -> Result<bool, StateError> {
        let Some(at) = self.at(state, domain, name)? else { return Ok(false) };
        state.put(self.store, &time_place(domain, at, name), None);
        if self.first[domain as usize] == Some(at) {
            self.first[domain as usize] = None;
        }
        Ok(true)
    }
}

fn read_round(bytes: &[u8]) -> Option<Round> {
    let (number, rest) = read_u64(bytes)?;
    let (&is_open, rest) = rest.split_first()?;
    let (now, rest) = read_i64(rest)?;
    rest.is_empty().then_some(Round { number, is_open: is_open != 0, now })
}

/// The round that was open when a timer was set, if one was.
fn set_in_round(stored: &[u8]) -> Option<u64> {
    read_u64(stored).map(|(number, _)| number)
}

fn time_place(domain: TimerDomain, at: i64, name: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(name.len() + 10);
    place.extend_from_slice(&[tag::TIMER, domain as u8]);
    push_i64(&mut place, at);
    place.extend_from_slice(name);
    place
}

/// What the places by name of a domain begin with. Behind it is the name, and its value is the time.
pub(super) fn names_of(domain: TimerDomain) -> [u8; 2] {
    [tag::TIMER_NAME, domain as u8]
}

fn name_place(domain: TimerDomain, name: &[u8]) -> Vec<u8> {
    [&[tag::TIMER_NAME, domain as u8], name].concat()
}

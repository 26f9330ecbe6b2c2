//! Timers of a plugin: something that happens at a time, of the stream or of the clock. They are in a store of the node, so they
//! survive a restart and move with the partition.
//!
//! A timer has a name, which is its own within its domain: setting it again moves it. The stream time of a node is the latest
//! timestamp of the records that it was given, kept in the store.
//!
//! ```text
//! 00                        version(1) stream time(8)
//! 0c domain(1) at(8) name   nothing
//! 0d domain(1) name         at(8)
//! ```

use std::ops::ControlFlow;

use pelton_wire::mutant::Mutant;

use super::{Budget, Failed, Refused};
use crate::operator::key::{push_i64, read_i64, tag};
use crate::operator::{MAX_TIMESTAMP, TimerDomain};
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState};

const TIME: [u8; 1] = [tag::META];
const VERSION: u8 = 1;
/// No record has come yet.
const NO_TIME: i64 = -1;

/// A timer that is due: when, and its name.
pub type Due = (i64, Vec<u8>);

/// The timers of a node. See the module.
#[derive(Debug)]
pub struct Timers {
    store: StoreIndex,
    /// No timer of the domain is earlier; none if that is not known.
    first: [Option<i64>; 2],
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
        Timers { store, first: [first; 2], stream_time: None, behind_call: NO_TIME, was_early: false }
    }

    pub(super) fn reset(&mut self) {
        (self.first, self.stream_time) = ([None; 2], None);
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
    pub fn next(&mut self, state: &TaskState, domain: TimerDomain) -> Result<Option<i64>, StateError> {
        let slot = domain as usize;
        let first = match self.first[slot] {
            Some(first) => first,
            None => {
                let due = self.due(state, domain, i64::MAX - 1, 1)?;
                *self.first[slot].insert(due.first().map_or(i64::MAX, |(at, _)| *at))
            }
        };
        Ok((first < i64::MAX).then_some(first))
    }

    /// The first `limit` timers that are due at a time, in the order of time and name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn due(
        &self,
        state: &TaskState,
        domain: TimerDomain,
        now: i64,
        limit: usize,
    ) -> Result<Vec<Due>, StateError> {
        let (from, mut to) = ([tag::TIMER, domain as u8], vec![tag::TIMER, domain as u8]);
        push_i64(&mut to, now.saturating_add(1));
        let (mut found, mut is_damaged) = (Vec::new(), false);
        state.range(
            self.store,
            KeyRange { from: &from, to: Some(&to), reverse: false },
            &mut |place, _| {
                if found.len() == limit {
                    return ControlFlow::Break(());
                }
                let Some((at, name)) = place.get(2..).and_then(read_i64) else {
                    is_damaged = true;
                    return ControlFlow::Break(());
                };
                found.push((at, name.to_vec()));
                ControlFlow::Continue(())
            },
        )?;
        if is_damaged { Err(self.damaged("a timer")) } else { Ok(found) }
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
            state.put(self.store, &time_place(domain, *at, name), Some(Blob::from(&[][..])));
            let first = &mut self.first[domain as usize];
            *first = first.map(|first| first.min(*at));
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

fn time_place(domain: TimerDomain, at: i64, name: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(name.len() + 10);
    place.extend_from_slice(&[tag::TIMER, domain as u8]);
    push_i64(&mut place, at);
    place.extend_from_slice(name);
    place
}

fn name_place(domain: TimerDomain, name: &[u8]) -> Vec<u8> {
    [&[tag::TIMER_NAME, domain as u8], name].concat()
}

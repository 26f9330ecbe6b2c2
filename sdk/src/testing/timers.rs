//! Timers in memory, and two clocks.

use std::collections::BTreeMap;

use super::state::{Kept, WindowStore};
use super::{RunError, TestRecord, batch, expand};
use crate::bindings::Column;
use crate::stores::{column, strings};
use crate::timers::{ExportedTimers, Timer, TimerDomain, TimerHost, TimerTransform};

/// A plugin with timers, its stores and its timers. A call that fails leaves them as they were.
pub struct TimerRun<T> {
    plugin: ExportedTimers<T>,
    configured: Result<(), String>,
    stores: Kept,
    timers: Set,
    stream_time: i64,
}

/// All timers that are set, and the clock.
#[derive(Clone, Default)]
struct Set {
    timers: BTreeMap<(TimerDomain, Vec<u8>), i64>,
    clock_ms: i64,
}

impl TimerHost for Set {
    fn set(&mut self, domain: TimerDomain, names: &Column, at: &[i64]) {
        for (name, at) in strings(names).zip(at) {
            assert!(*at >= 0, "{at} is no time for a timer");
            self.timers.insert((domain, name.expect("no name is null")), *at);
        }
    }

    fn cancel(&mut self, domain: TimerDomain, names: &Column) {
        for name in strings(names) {
            self.timers.remove(&(domain, name.expect("no name is null")));
        }
    }

    fn clock(&mut self) -> i64 {
        self.clock_ms
    }
}

impl<T: TimerTransform> TimerRun<T> {
    /// A plugin with these settings, without stores. The clock stands at 0.
    pub fn new(config: &[(&str, &str)]) -> TimerRun<T> {
        let plugin = ExportedTimers::<T>::default();
        let pairs = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let configured = plugin.configure(pairs.collect());
        TimerRun { plugin, configured, stores: Kept::default(), timers: Set::default(), stream_time: -1 }
    }

    /// With an empty store of entries.
    #[must_use]
    pub fn with_store(mut self, name: &str) -> TimerRun<T> {
        self.stores.entries.insert(name.to_owned(), BTreeMap::new());
        self
    }

    /// With an empty store of windows.
    #[must_use]
    pub fn with_windows(mut self, name: &str, retention_ms: i64) -> TimerRun<T> {
        self.stores.windows.insert(name.to_owned(), WindowStore::new(retention_ms));
        self
    }

    /// Gives the records one by one, and has timers on stream time fire before those that bring it there. What comes out, in order.
    ///
    /// # Errors
    /// How the plugin failed, at the first record or timer that fails.
    pub fn give(&mut self, records: &[TestRecord]) -> Result<Vec<TestRecord>, RunError> {
        self.configured.clone().map_err(RunError::Configure)?;
        let mut all = Vec::new();
        for record in records {
            self.stream_time = self.stream_time.max(record.timestamp);
            all.extend(self.fire(TimerDomain::StreamTime, self.stream_time)?);
            let batch = batch(std::slice::from_ref(record));
            let before = (self.stores.clone(), self.timers.clone());
            match self.plugin.process(&batch, &mut self.stores, &mut self.timers) {
                Ok(output) => all.extend(expand(&batch, &output)),
                Err(failure) => {
                    (self.stores, self.timers) = before;
                    return Err(failure.into());
                }
            }
        }
        Ok(all)
    }

    /// The clock goes on. What comes of timers on it that are due.
    ///
    /// # Errors
    /// As [`TimerRun::give`].
    pub fn tick(&mut self, clock_ms: i64) -> Result<Vec<TestRecord>, RunError> {
        self.configured.clone().map_err(RunError::Configure)?;
        self.timers.clock_ms = clock_ms;
        self.fire(TimerDomain::WallClock, clock_ms)
    }

    /// One round.
    fn fire(&mut self, domain: TimerDomain, now: i64) -> Result<Vec<TestRecord>, RunError> {
        let due = self.timers.timers.iter().filter(|((of, _), at)| *of == domain && **at <= now);
        let mut due: Vec<Timer> =
            due.map(|((_, name), at)| Timer { domain, at: *at, name: name.clone() }).collect();
        due.sort();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let before = (self.stores.clone(), self.timers.clone());
        for timer in &due {
            self.timers.timers.remove(&(domain, timer.name.clone()));
        }
        let names = column(due.iter().map(|timer| Some(&timer.name[..])));
        let at: Vec<i64> = due.iter().map(|timer| timer.at).collect();
        match self.plugin.fire(domain, (&names, &at), &mut self.stores, &mut self.timers) {
            Ok(output) => Ok(expand(&batch(&[]), &output)),
            Err(failure) => {
                (self.stores, self.timers) = before;
                Err(failure.into())
            }
        }
    }

    /// When a timer is due, if it is set.
    pub fn timer(&self, domain: TimerDomain, name: impl AsRef<[u8]>) -> Option<i64> {
        self.timers.timers.get(&(domain, name.as_ref().to_vec())).copied()
    }

    /// The value of a key of a store.
    pub fn entry(&self, store: &str, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.stores.entries.get(store)?.get(key.as_ref()).map(Vec::as_slice)
    }
}

//! Deadlines in one ordered structure: a heartbeat moves an entry, it does not start a sleep of its own.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// At most one deadline per key, found in order of time. Times are milliseconds of a clock that never jumps.
#[derive(Debug)]
pub(crate) struct TimerQueue<K> {
    // Invariant: `by_time` holds exactly the pairs of `at`.
    by_time: BTreeSet<(u64, K)>,
    at: HashMap<K, u64>,
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue { by_time: BTreeSet::new(), at: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> TimerQueue<K> {
    /// Sets the deadline of `key`, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, at_ms: u64) {
        if let Some(before) = self.at.insert(key.clone(), at_ms) {
            if before == at_ms {
                return;
            }
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at_ms, key));
    }

    /// Sets the deadline of `key`, or forgets it.
    pub(crate) fn set_or_cancel(&mut self, key: &K, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.set(key.clone(), at_ms),
            None => self.cancel(key),
        }
    }

    /// Forgets the deadline of `key`, if it had one.
    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The deadline of a key.
    #[cfg(test)]
    pub(crate) fn get(&self, key: &K) -> Option<u64> {
        self.at.get(key).copied()
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key whose deadline is at or before `now_ms`.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_of_time_and_only_when_due() {
        let mut timers = TimerQueue::default();
        timers.set("b", 20);
        timers.set("a", 30);
        timers.set("c", 10);
        timers.set("b", 40);
        timers.cancel(&"c");
        timers.cancel(&"never set");
        assert_eq!(timers.next_ms(), Some(30));
        assert_eq!(timers.pop_due(29), None);
        assert_eq!(timers.pop_due(100), Some("a"));
        assert_eq!(timers.pop_due(100), Some("b"));
        assert_eq!(timers.pop_due(100), None);
        assert_eq!(timers.next_ms(), None);
    }
}

//! What is counted of the calls of a plugin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Upper bounds of the buckets of how long calls took, in microseconds: from a call of one record to the longest deadline.
pub const BOUNDS_US: [u64; 16] =
    [2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000];

/// How a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer, whatever that says.
    Answered,
    /// The plugin did what Wasm forbids, or stopped itself.
    Trapped,
    /// It was not back within its deadline.
    TimedOut,
    /// It wanted more memory or a larger answer than it may have, or had an answer that is none.
    Failed,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct CallReport {
    /// From its begin to its end. A plugin computes all of this time, unless it sends requests.
    pub took: Duration,
    /// Linear memory that the instance has behind it.
    pub memory_bytes: u64,
    /// How it has ended.
    pub end: CallEnd,
}

/// Counts the calls of all instances of one node.
#[derive(Debug, Default)]
pub struct CallMeter {
    records: AtomicU64,
    trapped: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    memory_bytes: AtomicU64,
    took_ns: AtomicU64,
    /// The last one has no bound.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
}

impl CallMeter {
    /// Counts a call that was given so many records.
    pub fn note(&self, records: u64, call: &CallReport) {
        let add = |cell: &AtomicU64, more| cell.fetch_add(more, Ordering::Relaxed);
        add(&self.records, records);
        match call.end {
            CallEnd::Answered => {}
            CallEnd::Trapped => drop(add(&self.trapped, 1)),
            CallEnd::TimedOut => drop(add(&self.timed_out, 1)),
            CallEnd::Failed => drop(add(&self.failed, 1)),
        }
        self.memory_bytes.fetch_max(call.memory_bytes, Ordering::Relaxed);
        add(&self.took_ns, u64::try_from(call.took.as_nanos()).unwrap_or(u64::MAX));
        let us = u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX);
        add(&self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)], 1);
    }

    /// What was counted by now.
    pub fn counts(&self) -> CallCounts {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let buckets: Vec<u64> = self.buckets.iter().map(get).collect();
        CallCounts {
            calls: buckets.iter().sum(),
            records: get(&self.records),
            trapped: get(&self.trapped),
            timed_out: get(&self.timed_out),
            failed: get(&self.failed),
            memory_bytes: get(&self.memory_bytes),
            took_us: get(&self.took_ns) / 1_000,
            buckets,
        }
    }
}

/// What was counted of the calls of a node's plugin since its pipeline started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    /// All calls.
    pub calls: u64,
    /// Records that they were given, each time.
    pub records: u64,
    /// Calls that ended so.
    pub trapped: u64,
    /// Calls that ended so.
    pub timed_out: u64,
    /// Calls that ended so.
    pub failed: u64,
    /// The most linear memory that an instance has had.
    pub memory_bytes: u64,
    /// How long all of them took, in microseconds.
    pub took_us: u64,
    /// Calls by how long they took: up to each of [`BOUNDS_US`], and longer.
    #[serde(skip)]
    pub buckets: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_how_they_end_and_how_long_they_take() {
        let meter = CallMeter::default();
        let call = |us, memory_bytes, end| CallReport { took: Duration::from_micros(us), memory_bytes, end };
        meter.note(10, &call(2, 100, CallEnd::Answered));
        meter.note(5, &call(3, 300, CallEnd::Trapped));
        meter.note(1, &call(20_000_000, 200, CallEnd::TimedOut));
        meter.note(0, &call(0, 0, CallEnd::Failed));
        let counts = meter.counts();
        assert_eq!(
            (counts.calls, counts.records, counts.memory_bytes, counts.took_us),
            (4, 16, 300, 20_000_005)
        );
        assert_eq!((counts.trapped, counts.timed_out, counts.failed), (1, 1, 1));
        assert_eq!((counts.buckets[0], counts.buckets[1], counts.buckets[16]), (2, 1, 1));
    }
}

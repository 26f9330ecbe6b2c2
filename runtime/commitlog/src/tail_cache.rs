//! The newest batches of each log in memory, so that readers at the tail touch no file.
//!
//! One budget is shared by all logs: when it is used up, the logs that have kept something longest give up
//! the older half of what they keep. Nothing is ever lost by that, the files have it all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Memory that a cached batch costs besides its bytes: its entry and the header of its allocation.
const ENTRY_BYTES: usize = 96;
/// Most batches that one read hands out: the lock is held while they are collected, and an append waits for
/// it.
const MAX_BATCHES_PER_READ: usize = 1024;

/// Memory for recent batches, shared by all logs of a process.
pub struct TailBudget {
    limit: usize,
    used: AtomicUsize,
    /// Tails that keep something, in the order in which they will have to give up some.
    tails: Mutex<VecDeque<Weak<Tail>>>,
}

impl TailBudget {
    /// A budget of `limit` bytes; 0 keeps nothing.
    pub fn new(limit: usize) -> Arc<TailBudget> {
        Arc::new(TailBudget { limit, used: AtomicUsize::new(0), tails: Mutex::default() })
    }

    /// Bytes in use now.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn enforce(&self) {
        if self.used_bytes() <= self.limit {
            return;
        }
        let mut tails = self.tails.lock();
        // A sixteenth more than needed, so that not every append of a full cache comes here.
        let target = self.limit - self.limit / 16;
        while self.used_bytes() > target {
            let Some(oldest) = tails.pop_front() else { break };
            let Some(tail) = oldest.upgrade() else { continue };
            if tail.give_up_half() {
                tails.push_back(oldest);
            }
        }
    }
}

/// The tail of one log.
pub(crate) struct Tail {
    budget: Arc<TailBudget>,
    limit: AtomicUsize,
    batches: Mutex<Batches>,
}

#[derive(Default)]
struct Batches {
    queue: VecDeque<TailBatch>,
    bytes: usize,
    registered: bool,
}

struct TailBatch {
    base_offset: i64,
    last_offset: i64,
    bytes: Bytes,
}

/// Batches from memory.
#[derive(Debug, Default)]
pub(crate) struct TailRun {
    pub(crate) batches: Vec<Bytes>,
    /// Base offset of the first batch.
    pub(crate) base_offset: i64,
    /// The offset after the last batch.
    pub(crate) next_offset: i64,
    pub(crate) bytes: u64,
}

impl Tail {
    pub(crate) fn new(budget: Arc<TailBudget>, limit: usize) -> Arc<Tail> {
        Arc::new(Tail { budget, limit: limit.into(), batches: Mutex::default() })
    }

    /// Changes how much this log keeps, from the next batch on.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Adds the batch that was just appended.
    pub(crate) fn push(self: &Arc<Tail>, base_offset: i64, last_offset: i64, bytes: Bytes) {
        let cost = bytes.len() + ENTRY_BYTES;
        let limit = self.limit.load(Ordering::Relaxed);
        if cost > limit.min(self.budget.limit) {
            // The cache must stay one run without holes.
            self.clear();
            return;
        }
        let mut batches = self.batches.lock();
        batches.queue.push_back(TailBatch { base_offset, last_offset, bytes });
        batches.bytes += cost;
        let freed = batches.shrink_to(limit);
        let register = !std::mem::replace(&mut batches.registered, true);
        // Counted under the lock: whoever takes the batch away again must find it counted.
        self.budget.used.fetch_add(cost, Ordering::Relaxed);
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
        drop(batches);
        if register {
            self.budget.tails.lock().push_back(Arc::downgrade(self));
        }
        self.budget.enforce();
    }

    /// Whole batches from the one that holds `from` (or the next, if offsets are missing there), below
    /// `up_to`, at most `budget` bytes; with `first_must` the first whatever its size. `None` if that is not
    /// in memory.
    pub(crate) fn read(&self, from: i64, up_to: i64, budget: u64, first_must: bool) -> Option<TailRun> {
        let batches = self.batches.lock();
        let first = batches.queue.front()?;
        if from < first.base_offset || batches.queue.back()?.last_offset < from {
            return None;
        }
        let start = batches.queue.partition_point(|b| b.last_offset < from);
        let mut run = TailRun { base_offset: from, next_offset: from, ..TailRun::default() };
        for batch in batches.queue.range(start..).take(MAX_BATCHES_PER_READ) {
            let fits =
                run.bytes + batch.bytes.len() as u64 <= budget || (run.batches.is_empty() && first_must);
            if !fits || batch.last_offset >= up_to {
                break;
            }
            if run.batches.is_empty() {
                run.base_offset = batch.base_offset;
            }
            run.bytes += batch.bytes.len() as u64;
            run.next_offset = batch.last_offset + 1;
            run.batches.push(batch.bytes.clone());
        }
        Some(run)
    }

    /// Forgets everything, when the end of the log is cut.
    pub(crate) fn clear(&self) {
        let freed = self.batches.lock().shrink_to(0);
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Forgets all batches that begin below `offset`: the log has them otherwise now.
    pub(crate) fn forget_below(&self, offset: i64) {
        let mut batches = self.batches.lock();
        let mut freed = 0;
        while let Some(batch) = batches.queue.pop_front_if(|batch| batch.base_offset < offset) {
            freed += batch.bytes.len() + ENTRY_BYTES;
        }
        batches.bytes -= freed;
        drop(batches);
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
    }

    /// True if the batch that holds `from` is here.
    pub(crate) fn covers(&self, from: i64) -> bool {
        let batches = self.batches.lock();
        let (Some(first), Some(last)) = (batches.queue.front(), batches.queue.back()) else { return false };
        (first.base_offset..=last.last_offset).contains(&from)
    }

    /// True if something is left.
    fn give_up_half(&self) -> bool {
        let mut batches = self.batches.lock();
        let half = batches.bytes / 2;
        let freed = batches.shrink_to(half);
        // What cannot shrink further is given up whole, or this would never end.
        let freed = if freed == 0 { batches.shrink_to(0) } else { freed };
        let left = !batches.queue.is_empty();
        batches.registered = left;
        drop(batches);
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
        left
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Batches {
    /// Drops the oldest until at most `limit` bytes are left, and says how much that was.
    fn shrink_to(&mut self, limit: usize) -> usize {
        let before = self.bytes;
        while self.bytes > limit {
            let Some(batch) = self.queue.pop_front() else { break };
            self.bytes -= batch.bytes.len() + ENTRY_BYTES;
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        before - self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(budget: &Arc<TailBudget>, limit: usize, batches: i64, len: usize) -> Arc<Tail> {
        let tail = Tail::new(budget.clone(), limit);
        for n in 0..batches {
            tail.push(n * 10, n * 10 + 9, Bytes::from(vec![n as u8; len]));
        }
        tail
    }

    #[test]
    fn reads_start_in_the_batch_that_holds_the_offset() {
        let tail = filled(&TailBudget::new(1 << 20), 1 << 20, 10, 100);
        // from, up to, budget, first must come → first base, next, batches
        let cases = [
            (0, 100, 1000, true, Some((0, 100, 10))),
            (5, 100, 1000, true, Some((0, 100, 10))),
            (10, 100, 299, true, Some((10, 30, 2))),
            (10, 100, 300, true, Some((10, 40, 3))),
            (10, 39, 1000, true, Some((10, 30, 2))),
            (10, 40, 1000, true, Some((10, 40, 3))),
            (99, 100, 1, true, Some((90, 100, 1))),
            (99, 100, 1, false, Some((99, 99, 0))),
            (50, 50, 1000, true, Some((50, 50, 0))),
            (100, 200, 1000, true, None),
            (-1, 200, 1000, true, None),
        ];
        for (from, up_to, budget, first_must, expect) in cases {
            let run = tail.read(from, up_to, budget, first_must);
            let seen = run.as_ref().map(|r| (r.base_offset, r.next_offset, r.batches.len()));
            assert_eq!(seen, expect, "read {from}..{up_to} of {budget} bytes");
            if let Some(run) = run {
                assert_eq!(run.bytes, run.batches.iter().map(|b| b.len() as u64).sum::<u64>());
            }
        }
    }

    #[test]
    fn one_log_keeps_no_more_than_its_limit() {
        let budget = TailBudget::new(1 << 20);
        let tail = filled(&budget, 1000, 100, 104);
        assert_eq!(budget.used_bytes(), 1000);
        assert!(tail.read(950, 1000, 1 << 20, true).is_some());
        assert!(tail.read(949, 1000, 1 << 20, true).is_none());
        tail.push(1000, 1000, Bytes::from(vec![0; 2000]));
        assert!(
            tail.read(1000, 2000, 1 << 20, true).is_none(),
            "too large to keep, so nothing before it is kept"
        );
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_is_forgotten_is_given_back() {
        let budget = TailBudget::new(1 << 20);
        let tail = filled(&budget, 1 << 20, 10, 104);
        tail.forget_below(45);
        assert!(!tail.covers(49) && tail.covers(50));
        assert_eq!(budget.used_bytes(), 5 * 200);
        tail.forget_below(1000);
        assert_eq!((budget.used_bytes(), tail.covers(99)), (0, false));
        tail.push(100, 109, Bytes::from(vec![0; 104]));
        assert!(tail.covers(100));
    }

    #[test]
    fn all_logs_keep_no_more_than_the_budget() {
        let budget = TailBudget::new(10_000);
        let tails: Vec<_> = (0..50).map(|_| filled(&budget, 4000, 20, 104)).collect();
        assert!(budget.used_bytes() <= 10_000);
        assert!(budget.used_bytes() > 5_000);
        let last = tails.last().unwrap();
        assert!(last.read(199, 1000, 1 << 20, true).is_some(), "the newest is kept");
        assert!(tails[0].read(199, 1000, 1 << 20, true).is_none(), "the oldest is not");
        drop(tails);
        assert_eq!(budget.used_bytes(), 0);
    }
}

//! Offsets that several logs take from one sequence, so that they say in which order the logs' batches were appended.
//!
//! Nothing of it is stored. A log that takes an offset above its end has a batch without records in between
//! ([`hole_batch`](pelton_wire::record::hole_batch)), so on disk its offsets follow each other as those of any log, and after a
//! start the sequence goes on behind the largest end of its logs.

use std::sync::atomic::{AtomicI64, Ordering};

/// Where the next batch of one of these logs goes.
#[derive(Debug)]
pub struct OffsetSequence {
    next: AtomicI64,
}

impl OffsetSequence {
    /// For logs of which none ends behind `next`.
    pub fn starting_at(next: i64) -> OffsetSequence {
        OffsetSequence { next: AtomicI64::new(next) }
    }

    /// Every batch that is appended from now on has its records at or above this offset. What is below is appended already,
    /// or is being appended by whoever holds its log.
    pub fn next(&self) -> i64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Goes on at `next` at least: a log that ends there joins.
    pub fn at_least(&self, next: i64) {
        self.next.fetch_max(next, Ordering::SeqCst);
    }

    /// Takes `count` offsets for a log that ends at `log_end`; the first of them. It is not below that end, which may lie behind
    /// the sequence: markers of transactions take no offsets from it.
    pub(crate) fn take(&self, log_end: i64, count: i64) -> i64 {
        let after = |next: i64| next.max(log_end).saturating_add(count);
        let before = self.next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |next| Some(after(next)));
        // The closure always gives a value.
        before.unwrap_or(log_end).max(log_end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testkit::{Rig, at, batch, read_all, small};

    #[test]
    fn offsets_rise_over_all_logs_and_over_the_end_of_each() {
        let sequence = OffsetSequence::starting_at(10);
        assert_eq!(sequence.take(4, 3), 10);
        assert_eq!(sequence.take(4, 1), 13);
        assert_eq!(sequence.take(20, 2), 20, "a marker has moved the log's end beyond the sequence");
        assert_eq!(sequence.next(), 22);
        sequence.at_least(5);
        assert_eq!(sequence.next(), 22);
        sequence.at_least(30);
        assert_eq!(sequence.take(0, i64::MAX), 30, "there is nothing behind the last offset");
        assert_eq!(sequence.next(), i64::MAX);
    }

    #[test]
    fn a_hole_of_any_size_fits_the_files() {
        let rig = Rig::new(small());
        let mut log = rig.create();
        let sequence = Arc::new(OffsetSequence::starting_at(0));
        log.share_offsets(sequence.clone());
        log.append(batch(1, 10, 1000), at(1000)).unwrap();
        let far = 3 * i64::from(i32::MAX);
        sequence.at_least(far);
        assert_eq!(log.append(batch(1, 10, 1000), at(1000)).unwrap().base_offset, far);
        let bases = read_all(&log.reader());
        assert_eq!((bases.first(), bases.last()), (Some(&0), Some(&far)));
        assert_eq!(rig.reopen(log).offsets().log_end, far + 1);
    }
}

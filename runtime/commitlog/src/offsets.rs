//! The offsets that describe a log, kept apart from the start although one node makes some of them equal.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::mutant::Mutant;

/// The offsets of a log at one moment.
///
/// `log_start <= high_watermark <= log_end` and `last_stable <= high_watermark`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset that may be read.
    pub log_start: i64,
    /// Up to here (exclusive) a `read_committed` consumer may read: the first offset of a transaction whose
    /// outcome is not final, or the high watermark; never below the log start.
    pub last_stable: i64,
    /// Up to here (exclusive) consumers may read.
    pub high_watermark: i64,
    /// The offset that the next record gets.
    pub log_end: i64,
}

/// The same, written by the log and read by anybody without a lock.
#[derive(Debug)]
pub(crate) struct SharedOffsets {
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    log_end: AtomicI64,
    /// `i64::MAX`: no transaction is open.
    first_unstable: AtomicI64,
}

impl SharedOffsets {
    pub(crate) fn new(log_start: i64, high_watermark: i64, log_end: i64) -> SharedOffsets {
        SharedOffsets {
            log_start: log_start.into(),
            high_watermark: high_watermark.into(),
            log_end: log_end.into(),
            first_unstable: i64::MAX.into(),
        }
    }

    pub(crate) fn load(&self) -> LogOffsets {
        // The writer moves the end before the high watermark and that before the start, so loading in this
        // order they cannot cross.
        let log_start = self.log_start.load(Ordering::Acquire);
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        let last_stable = self.last_stable_at(high_watermark);
        let log_end = self.log_end.load(Ordering::Acquire);
        LogOffsets { log_start, last_stable, high_watermark, log_end }
    }

    /// The last stable offset under a high watermark that the log may not have been told of yet.
    pub(crate) fn last_stable_at(&self, high_watermark: i64) -> i64 {
        // The writer notes an open transaction before the high watermark passes it, so this is loaded after the high
        // watermark, or a reader could see past the transaction. Deleted records cannot hold the last stable offset back.
        let log_start =
            if Mutant::StableBelowStart.is_on() { 0 } else { self.log_start.load(Ordering::Acquire) };
        self.first_unstable.load(Ordering::Acquire).max(log_start).min(high_watermark)
    }

    pub(crate) fn set_log_start(&self, offset: i64) {
        self.log_start.store(offset, Ordering::Release);
    }

    pub(crate) fn set_high_watermark(&self, offset: i64) {
        self.high_watermark.store(offset, Ordering::Release);
    }

    pub(crate) fn set_log_end(&self, offset: i64) {
        self.log_end.store(offset, Ordering::Release);
    }

    pub(crate) fn set_first_unstable(&self, offset: Option<i64>) {
        self.first_unstable.store(offset.unwrap_or(i64::MAX), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stable_offset_is_bounded_by_both() {
        let offsets = SharedOffsets::new(1, 5, 9);
        assert_eq!(
            offsets.load(),
            LogOffsets { log_start: 1, last_stable: 5, high_watermark: 5, log_end: 9 }
        );
        for (unstable, high_watermark, expect) in
            [(Some(3), 5, 3), (Some(7), 5, 5), (Some(7), 8, 7), (None, 8, 8)]
        {
            offsets.set_first_unstable(unstable);
            offsets.set_high_watermark(high_watermark);
            assert_eq!(offsets.load().last_stable, expect);
            assert_eq!(offsets.last_stable_at(high_watermark), expect);
        }
        // The log starts behind the first record of an open transaction.
        offsets.set_first_unstable(Some(3));
        offsets.set_log_start(6);
        assert_eq!((offsets.load().last_stable, offsets.last_stable_at(8)), (6, 6));
        assert_eq!(
            offsets.last_stable_at(5),
            5,
            "the start has moved since the high watermark was looked at"
        );
    }
}

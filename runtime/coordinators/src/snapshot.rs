//! When a coordinator writes a snapshot: its whole state once more, after which the records before it may go. That is
//! what compaction would leave of its log, and costs the state once for each time that the log doubles.

/// The size of a coordinator's partition, as far as it matters here.
#[derive(Debug, Default)]
pub(crate) struct SnapshotGauge {
    /// Bytes of the log once the last snapshot had its effect.
    after_last: u64,
    /// The next size is the one after a snapshot.
    fresh: bool,
}

impl SnapshotGauge {
    /// Whether a log of `size` bytes has grown enough: to more than `least`, and to twice of what the last one left.
    pub(crate) fn is_due(&mut self, size: u64, least: u64) -> bool {
        if std::mem::take(&mut self.fresh) {
            self.after_last = size;
        }
        size > least.max(self.after_last.saturating_mul(2))
    }

    /// A snapshot is written, and the records before it are deleted.
    pub(crate) fn taken(&mut self) {
        self.fresh = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_state_is_not_written_again_and_again() {
        let mut gauge = SnapshotGauge::default();
        let mut check = |size, expect, taken: bool| {
            assert_eq!(gauge.is_due(size, 100), expect, "{size}");
            if taken {
                gauge.taken();
            }
        };
        check(100, false, false);
        check(101, true, true);
        // It left 80, then 90 after the next one.
        check(80, false, false);
        check(150, false, false);
        check(161, true, true);
        check(90, false, false);
        check(180, false, false);
        check(181, true, false);
    }
}

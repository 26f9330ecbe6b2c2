//! Which segments may go: a pure decision. The active segment is never among them.

use crate::config::LogConfig;

/// What the decision needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Offset of the first record of the next segment.
    pub(crate) end_offset: i64,
    pub(crate) bytes: u64,
    /// Largest record timestamp, or the time of the last write where records have none, ms.
    pub(crate) largest_timestamp: i64,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// `retention.ms`.
    Time,
    /// `retention.bytes`.
    Size,
    /// Every record is below the log start offset.
    LogStart,
}

/// Reasons of the segments to delete, oldest first. They are a prefix of `finished`, the log's segments
/// without the active one.
pub(crate) fn expired(
    finished: &[SegmentFacts],
    active_bytes: u64,
    config: &LogConfig,
    log_start: i64,
    high_watermark: i64,
    now_ms: i64,
) -> Vec<DeleteReason> {
    let mut left: u64 = active_bytes + finished.iter().map(|s| s.bytes).sum::<u64>();
    let mut reasons = Vec::new();
    for segment in finished {
        left -= segment.bytes;
        let too_old = |ms| now_ms.saturating_sub(segment.largest_timestamp) > ms;
        let reason = if segment.end_offset <= log_start {
            DeleteReason::LogStart
        } else if segment.end_offset > high_watermark {
            // Not yet readable by everybody: what is not final is not deleted.
            break;
        } else if config.retention_ms.is_some_and(too_old) {
            DeleteReason::Time
        } else if config.retention_bytes.is_some_and(|keep| left >= keep) {
            DeleteReason::Size
        } else {
            break;
        };
        reasons.push(reason);
    }
    reasons
}

/// Whether the active segment is to be finished so that it can expire: it has records, all of them too old.
pub(crate) fn finish_active(active: &SegmentFacts, config: &LogConfig, now_ms: i64) -> bool {
    let too_old = |ms| now_ms.saturating_sub(active.largest_timestamp) > ms;
    active.bytes > 0 && config.retention_ms.is_some_and(too_old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeleteReason::{LogStart, Size, Time};

    /// Segments of 10 offsets and 100 bytes each, with these largest timestamps.
    fn segments(timestamps: &[i64]) -> Vec<SegmentFacts> {
        let facts = |(n, t): (usize, &i64)| SegmentFacts {
            end_offset: (n as i64 + 1) * 10,
            bytes: 100,
            largest_timestamp: *t,
        };
        timestamps.iter().enumerate().map(facts).collect()
    }

    #[test]
    fn a_prefix_expires() {
        type Case =
            (&'static str, &'static [i64], Option<i64>, Option<u64>, i64, i64, &'static [DeleteReason]);
        let cases: &[Case] = &[
            ("nothing set", &[1, 2], None, None, 0, 99, &[]),
            ("by time", &[1, 50, 950], Some(100), None, 0, 99, &[Time, Time]),
            ("exactly as old is kept", &[900, 950], Some(100), None, 0, 99, &[]),
            ("a young one keeps the old ones after it", &[1, 950, 1], Some(100), None, 0, 99, &[Time]),
            ("a future timestamp pins", &[5000, 1], Some(100), None, 0, 99, &[]),
            ("by size", &[1, 2, 3], None, Some(150), 0, 99, &[Size, Size]),
            ("by size, exactly", &[1, 2, 3], None, Some(250), 0, 99, &[Size]),
            ("size 0 leaves the active one", &[1, 2, 3], None, Some(0), 0, 99, &[Size, Size, Size]),
            ("time or size", &[1, 950, 951], Some(100), Some(150), 0, 99, &[Time, Size]),
            ("below the log start", &[950, 951], Some(100), None, 10, 99, &[LogStart]),
            ("part of a segment below the log start", &[950, 951], Some(100), None, 19, 99, &[LogStart]),
            ("bounded by the high watermark", &[1, 2, 3], Some(100), None, 0, 20, &[Time, Time]),
        ];
        for (name, timestamps, retention_ms, retention_bytes, log_start, high_watermark, expect) in cases {
            let config = LogConfig {
                retention_ms: *retention_ms,
                retention_bytes: *retention_bytes,
                ..LogConfig::default()
            };
            let found = expired(&segments(timestamps), 50, &config, *log_start, *high_watermark, 1000);
            assert_eq!(found, *expect, "{name}");
        }
    }

    #[test]
    fn an_old_active_segment_is_finished_first() {
        let config = LogConfig { retention_ms: Some(100), ..LogConfig::default() };
        let [old, young] =
            [800, 950].map(|t| SegmentFacts { end_offset: 10, bytes: 1, largest_timestamp: t });
        assert!(finish_active(&old, &config, 1000));
        assert!(!finish_active(&young, &config, 1000));
        assert!(!finish_active(&SegmentFacts { bytes: 0, ..old }, &config, 1000), "nothing in it");
        assert!(!finish_active(&old, &LogConfig { retention_ms: None, ..config }, 1000));
    }
}

//! Which part of a log is cleaned, when it is worth it, and which segments become one: pure decisions, Kafka's.

use std::ops::Range;

/// How a topic is compacted. Field names are Kafka's topic keys with `_` for `.`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compaction {
    /// `min.cleanable.dirty.ratio`: a log is cleaned once more than this part of it is dirty.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: a segment with a younger record is not cleaned.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: a log with an older dirty record is cleaned whatever the ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: so long a tombstone stays after the clean that saw it first.
    pub delete_retention_ms: i64,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// What a clean of a log would read, and whether it is worth it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dirt {
    /// Bytes of the segments that were cleaned before.
    pub clean_bytes: u64,
    /// Bytes of the segments that were not, and can be now.
    pub dirty_bytes: u64,
    /// The first offset that was not cleaned yet.
    pub first_dirty: i64,
    /// The end (exclusive) of what can be cleaned now.
    pub end: i64,
    /// A dirty record is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Dirt {
    /// The dirty part of what a clean would read, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether a clean is due.
    pub fn is_due(&self, compaction: &Compaction) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > compaction.min_cleanable_dirty_ratio)
    }
}

/// What the decisions need of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base_offset: i64,
    pub(crate) bytes: u64,
    /// All of it is in its file, and no start replays anything of it.
    pub(crate) is_settled: bool,
    /// Largest record timestamp, or the time of the last write where records have none, ms. Asked for with a minimal lag only.
    pub(crate) largest_timestamp: i64,
    /// Timestamp of the first batch, ms. Asked for with a maximal lag only.
    pub(crate) first_timestamp: Option<i64>,
}

/// Looks at the segments of a log, the active one last. `last_stable`: nothing at or above is cleaned.
pub(crate) fn look(
    segments: &[SegmentFacts],
    first_dirty: i64,
    last_stable: i64,
    compaction: &Compaction,
    now_ms: i64,
) -> Dirt {
    let is_young = |segment: &SegmentFacts, next: &SegmentFacts| {
        let dirty = next.base_offset > first_dirty;
        let limit = now_ms.saturating_sub(compaction.min_compaction_lag_ms);
        compaction.min_compaction_lag_ms > 0 && dirty && segment.largest_timestamp > limit
    };
    let cleanable = segments
        .windows(2)
        .take_while(|pair| {
            pair[0].is_settled && pair[1].base_offset <= last_stable && !is_young(&pair[0], &pair[1])
        })
        .count();
    let end = segments.get(cleanable).map_or(0, |segment| segment.base_offset);
    let mut dirt = Dirt { first_dirty, end, ..Dirt::default() };
    let overdue = now_ms.saturating_sub(compaction.max_compaction_lag_ms.max(0));
    for pair in segments[..=cleanable.min(segments.len().saturating_sub(1))].windows(2) {
        if pair[1].base_offset <= first_dirty {
            dirt.clean_bytes += pair[0].bytes;
        } else {
            dirt.dirty_bytes += pair[0].bytes;
            dirt.is_overdue |= pair[0].first_timestamp.is_some_and(|first| first < overdue);
        }
    }
    dirt
}

/// Sizes of a segment that is to be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) base_offset: i64,
    /// Base offset of the segment behind it.
    pub(crate) next_base: i64,
    pub(crate) bytes: u64,
    pub(crate) offset_index_bytes: u64,
    pub(crate) time_index_bytes: u64,
}

/// Which of these segments become one: neighbours that fit together by what they were before the clean.
pub(crate) fn groups(segments: &[Sizes], segment_bytes: u64, index_bytes: u64) -> Vec<Range<usize>> {
    const MAX_RELATIVE: i64 = i32::MAX as i64;
    let mut groups = Vec::new();
    let mut from = 0;
    while from < segments.len() {
        let first = segments[from];
        let (mut bytes, mut offsets, mut times) =
            (first.bytes, first.offset_index_bytes, first.time_index_bytes);
        let mut to = from + 1;
        while let Some(next) = segments.get(to) {
            bytes += next.bytes;
            offsets += next.offset_index_bytes;
            times += next.time_index_bytes;
            let fits = bytes <= segment_bytes && offsets <= index_bytes && times <= index_bytes;
            if !fits || next.next_base - first.base_offset > MAX_RELATIVE {
                break;
            }
            to += 1;
        }
        groups.push(from..to);
        from = to;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base_offset: i64, bytes: u64) -> SegmentFacts {
        SegmentFacts {
            base_offset,
            bytes,
            is_settled: true,
            largest_timestamp: base_offset,
            first_timestamp: None,
        }
    }

    const ALL: i64 = i64::MAX;

    #[test]
    fn what_is_settled_and_stable_below_the_active_segment_is_cleaned() {
        let log = [segment(0, 10), segment(10, 20), segment(20, 40), segment(30, 80)];
        let look = |segments: &[SegmentFacts], first_dirty, stable| {
            let dirt = super::look(segments, first_dirty, stable, &Compaction::default(), 1_000);
            (dirt.clean_bytes, dirt.dirty_bytes, dirt.end)
        };
        assert_eq!(look(&log, 0, ALL), (0, 70, 30), "never the active segment");
        assert_eq!(look(&log, 10, ALL), (10, 60, 30));
        assert_eq!(look(&log, 15, ALL), (10, 60, 30), "a segment that is dirty in part is dirty");
        assert_eq!(look(&log, 30, ALL), (70, 0, 30));
        assert_eq!(look(&log, 0, 29), (0, 30, 20), "never past the last stable offset");
        assert_eq!(look(&log, 0, 9), (0, 0, 0));
        let mut unsettled = log;
        unsettled[1].is_settled = false;
        assert_eq!(look(&unsettled, 0, ALL), (0, 10, 10));
        assert_eq!(look(&log[..1], 0, ALL), (0, 0, 0));
    }

    #[test]
    fn lags_and_the_ratio_decide() {
        let log = [segment(0, 10), segment(10, 30), segment(20, 40)];
        let mut compaction = Compaction { min_compaction_lag_ms: 100, ..Compaction::default() };
        assert_eq!(super::look(&log, 0, ALL, &compaction, 109).end, 10);
        assert_eq!(super::look(&log, 0, ALL, &compaction, 110).end, 20);
        assert_eq!(super::look(&log, 10, ALL, &compaction, 50).end, 10, "what is clean has no lag");
        compaction = Compaction { min_cleanable_dirty_ratio: 0.75, ..Compaction::default() };
        let dirt = super::look(&log, 10, ALL, &compaction, 0);
        assert_eq!((dirt.ratio(), dirt.is_due(&compaction)), (0.75, false), "more than the ratio");
        assert!(dirt.is_due(&Compaction { min_cleanable_dirty_ratio: 0.7, ..compaction }));
        let mut old = log;
        old[1].first_timestamp = Some(99);
        let lag = |max_compaction_lag_ms| Compaction { max_compaction_lag_ms, ..compaction };
        assert!(super::look(&old, 10, ALL, &lag(100), 200).is_due(&compaction));
        assert!(!super::look(&old, 10, ALL, &lag(101), 200).is_due(&compaction));
        assert!(!super::look(&old, 20, ALL, &lag(100), 200).is_due(&compaction), "nothing is dirty");
        assert_eq!(Dirt::default().ratio(), 0.0);
    }

    #[test]
    fn small_neighbours_become_one() {
        let sizes = |all: &[(u64, u64)]| -> Vec<Sizes> {
            (0..)
                .zip(all)
                .map(|(n, (bytes, index))| Sizes {
                    base_offset: n * 10,
                    next_base: n * 10 + 10,
                    bytes: *bytes,
                    offset_index_bytes: *index,
                    time_index_bytes: 0,
                })
                .collect()
        };
        let small = sizes(&[(40, 8), (60, 0), (1, 0), (0, 0), (100, 0)]);
        assert_eq!(groups(&small, 100, 1000), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&small, 1000, 7), [0..1, 1..5], "one that is too large by itself stays alone");
        assert!(groups(&[], 100, 100).is_empty());
        let far = |base_offset, next_base| Sizes { base_offset, next_base, ..small[3] };
        let wide =
            [far(0, 10), far(10, i64::from(i32::MAX)), far(i64::from(i32::MAX), i64::from(i32::MAX) + 1)];
        assert_eq!(groups(&wide, 100, 100), [0..2, 2..3], "offsets are relative to the first");
    }
}

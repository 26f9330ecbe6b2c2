//! How far a group is behind.

/// The records between the committed offset and the end of the partition, as Kafka's tools count them. `end` is the
/// high watermark, or the last stable offset for readers of committed records.
///
/// A committed offset beyond the end (the topic was created anew) is no lag, and no offset that a client may have
/// committed, however odd, overflows.
pub fn lag(committed: i64, end: i64) -> i64 {
    end.saturating_sub(committed).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_is_left_to_read() {
        for (committed, end, expect) in [
            (0, 10, 10),
            (10, 10, 0),
            (11, 10, 0),
            (i64::MIN, i64::MAX, i64::MAX),
            (i64::MAX, i64::MIN, 0),
            (i64::MIN, 10, i64::MAX),
        ] {
            assert_eq!(lag(committed, end), expect, "{committed} {end}");
        }
    }
}

//! How far a group is behind.

/// The records between what is committed and the end of the partition. `None` when nothing is committed.
///
/// `log_start` is the first offset kept, `end` the high watermark (or the last stable offset, for a reader of committed
/// records). What retention has deleted before it was read counts as lag no more; a committed offset beyond the end
/// (the topic was created anew) is no lag.
pub(crate) fn lag(committed: Option<i64>, log_start: i64, end: i64) -> Option<i64> {
    let from = committed?.max(log_start);
    Some(end.saturating_sub(from).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_is_left_to_read() {
        let check = |committed, log_start, end, expect| {
            assert_eq!(lag(committed, log_start, end), expect, "{committed:?} {log_start} {end}");
        };
        check(None, 0, 10, None);
        check(Some(0), 0, 10, Some(10));
        check(Some(10), 0, 10, Some(0));
        check(Some(4), 6, 10, Some(4));
        check(Some(11), 0, 10, Some(0));
        check(Some(i64::MIN), i64::MIN, i64::MAX, Some(i64::MAX));
        check(Some(-1), 0, 10, Some(10));
    }
}

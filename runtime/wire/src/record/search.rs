//! Looking for timestamps inside a batch, for ListOffsets.

use super::compression::DecompressLimit;
use super::header::{NO_TIMESTAMP, TimestampType};
use super::records::RecordError;
use super::view::BatchView;

/// A record, as ListOffsets answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp (ms).
    pub timestamp: i64,
}

/// The first record at or after `start_offset` whose timestamp is at least `timestamp` (ms). A batch whose largest
/// timestamp is smaller is not unpacked.
pub fn first_at_or_after(
    view: &BatchView<'_>,
    timestamp: i64,
    start_offset: i64,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<Option<TimestampedOffset>, RecordError> {
    if view.header().max_timestamp < timestamp {
        return Ok(None);
    }
    find(view, scratch, limit, |found| found.timestamp >= timestamp && found.offset >= start_offset)
}

/// The first record that has the batch's largest timestamp (ListOffsets with timestamp -3), if any record has one.
pub fn offset_of_max_timestamp(
    view: &BatchView<'_>,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<Option<TimestampedOffset>, RecordError> {
    let max = view.header().max_timestamp;
    if max == NO_TIMESTAMP && view.header().timestamp_type() == TimestampType::CreateTime {
        return Ok(None);
    }
    find(view, scratch, limit, |found| found.timestamp == max)
}

fn find(
    view: &BatchView<'_>,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
    wanted: impl Fn(&TimestampedOffset) -> bool,
) -> Result<Option<TimestampedOffset>, RecordError> {
    let mut records = view.records(scratch, limit)?;
    while let Some(raw) = records.next_raw() {
        let raw = raw?;
        let found =
            TimestampedOffset { offset: records.offset_of(&raw), timestamp: records.timestamp_of(&raw) };
        if wanted(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

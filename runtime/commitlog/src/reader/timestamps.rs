//! Looking for offsets by timestamp, for `ListOffsets`.

use pelton_wire::record::{
    BatchHeader, BatchView, DecompressLimit, TimestampedOffset, first_at_or_after, offset_of_max_timestamp,
};

use super::LogReader;
use crate::error::{Fault, ReadError};
use crate::segment::{Found, Segment};
use crate::shared::segment_of;

/// A record that was found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp: i64,
    /// Leader epoch of its batch.
    pub leader_epoch: i32,
}

impl TimestampOffset {
    fn new(found: TimestampedOffset, header: &BatchHeader) -> TimestampOffset {
        let TimestampedOffset { offset, timestamp } = found;
        TimestampOffset { offset, timestamp, leader_epoch: header.partition_leader_epoch }
    }
}

impl LogReader {
    /// The first record below `up_to` with a timestamp of at least `timestamp` ms. The answer is exact:
    /// indexes and headers say where to look, the batch itself is unpacked, within bounds.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        up_to: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let log_start = self.offsets().log_start;
        let segments = self.shared.segments();
        for segment in &segments[segment_of(&segments, log_start)..] {
            if segment.base_offset >= up_to {
                break;
            }
            if let Some(found) = self.in_segment(segment, timestamp, log_start)? {
                return Ok(Some(found).filter(|f| f.offset < up_to));
            }
        }
        Ok(None)
    }

    fn in_segment(
        &self,
        segment: &Segment,
        timestamp: i64,
        log_start: i64,
    ) -> Result<Option<TimestampOffset>, Fault> {
        let io = self.shared.io();
        if segment.largest_timestamp(io)?.timestamp < timestamp {
            return Ok(None);
        }
        let mut from = log_start;
        let mut scratch = Vec::new();
        while let Some(batch) = segment.find_timestamp(io, timestamp, from)? {
            let bytes = segment.read_batch(io, &batch)?;
            let view = view(segment, &batch, &bytes)?;
            let limit = DecompressLimit::STORED;
            let found = first_at_or_after(&view, timestamp, log_start, &mut scratch, limit)
                .map_err(|e| segment.corrupt(batch.position, e.to_string()))?;
            if let Some(found) = found {
                return Ok(Some(TimestampOffset::new(found, &batch.header)));
            }
            // The batch's largest timestamp is one of a record that compaction removed, or that lies below
            // the start.
            from = batch.header.next_offset();
        }
        Ok(None)
    }

    /// A record below `up_to` with the largest timestamp (`ListOffsets` with -3), the first such one.
    pub fn max_timestamp_offset(&self, up_to: i64) -> Result<Option<TimestampOffset>, ReadError> {
        let log_start = self.offsets().log_start;
        let io = self.shared.io();
        let mut best: Option<(&Segment, i64)> = None;
        let segments = self.shared.segments();
        for segment in segments.iter().filter(|s| s.base_offset < up_to) {
            let timestamp = segment.largest_below(io, log_start, up_to)?;
            if timestamp >= 0 && best.is_none_or(|(_, largest)| timestamp > largest) {
                best = Some((segment, timestamp));
            }
        }
        let Some((segment, timestamp)) = best else { return Ok(None) };
        let Some(batch) = segment.find_timestamp(io, timestamp, log_start)? else { return Ok(None) };
        let bytes = segment.read_batch(io, &batch)?;
        let view = view(segment, &batch, &bytes)?;
        let mut scratch = Vec::new();
        let found = offset_of_max_timestamp(&view, &mut scratch, DecompressLimit::STORED)
            .map_err(|e| segment.corrupt(batch.position, e.to_string()))?;
        Ok(found.map(|found| TimestampOffset::new(found, &batch.header)))
    }
}

fn view<'b>(segment: &Segment, batch: &Found, bytes: &'b [u8]) -> Result<BatchView<'b>, Fault> {
    BatchView::check(bytes).map_err(|e| segment.corrupt(batch.position, e.to_string()))
}

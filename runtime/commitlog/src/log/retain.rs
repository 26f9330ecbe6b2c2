//! Dropping the beginning of a log: retention and delete-records.
//!
//! The log start moves first, in memory and through the journal. Files go when the new start is durable, so
//! that a crash never finds a start whose segment is missing: [`Log::removable`] says which may go.

use std::sync::Arc;

use super::{Log, PendingDeletion};
use crate::error::ChangeError;
use crate::retention::{DeleteReason, SegmentFacts, expired, finish_active};
use crate::segment::Segment;
use crate::sink::{DurableListener, Frame, FrameKind, FrameMeta};

/// A segment that has left the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedSegment {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Its size.
    pub bytes: u64,
    /// Why.
    pub reason: DeleteReason,
}

impl Log {
    /// Applies `retention.ms` and `retention.bytes`, as Kafka: by whole segments, oldest first, by the
    /// largest timestamp in each, never above the high watermark, never the active segment. An active segment
    /// of which all is expired is finished first, and then goes like any other. Touches no file: a segment whose timestamps
    /// nobody knows stays ([`LogReader::learn_timestamps`]).
    ///
    /// [`LogReader::learn_timestamps`]: crate::LogReader::learn_timestamps
    pub fn apply_retention(&mut self, now_ms: i64) -> Result<Vec<DeletedSegment>, ChangeError> {
        self.check_change()?;
        let offsets = self.offsets();
        let active = self.facts(&self.active.segment, offsets.log_end);
        let all_final = offsets.high_watermark == offsets.log_end;
        if all_final && finish_active(&active, &self.config, now_ms) {
            self.roll(now_ms)?;
        }
        let segments = self.shared.segments();
        let finished = &segments[..segments.len() - 1];
        let ends = segments[1..].iter().map(|next| next.base_offset);
        let facts: Vec<SegmentFacts> =
            finished.iter().zip(ends).map(|(segment, end)| self.facts(segment, end)).collect();
        let (start, high_watermark) = (offsets.log_start, offsets.high_watermark);
        let reasons = expired(&facts, self.active.position, &self.config, start, high_watermark, now_ms);
        let deleted: Vec<DeletedSegment> = finished
            .iter()
            .zip(&reasons)
            .map(|(s, reason)| DeletedSegment { base_offset: s.base_offset, bytes: s.len(), reason: *reason })
            .collect();
        if !deleted.is_empty() {
            let first_kept = segments[deleted.len()].base_offset;
            self.move_log_start(first_kept.max(start))?;
        }
        Ok(deleted)
    }

    /// Moves the log start to `offset`, at most the high watermark (`DeleteRecords`). Returns the new start;
    /// the listener's [`DurableListener::log_start_durable`] says when it is durable.
    pub fn delete_records_before(&mut self, offset: i64) -> Result<i64, ChangeError> {
        self.check_change()?;
        let now = self.offsets();
        if offset < 0 || offset > now.high_watermark {
            return Err(ChangeError::OffsetOutOfRange { offset, low: 0, high: now.high_watermark });
        }
        if offset > now.log_start {
            self.move_log_start(offset)?;
        }
        Ok(self.offsets().log_start)
    }

    fn facts(&self, segment: &Segment, end_offset: i64) -> SegmentFacts {
        let largest_timestamp = match segment.known_largest() {
            None => i64::MAX,
            Some(largest) if largest.timestamp >= 0 => largest.timestamp,
            // Without a record timestamp the time of the last write has to do.
            Some(_) => segment.written_ms(),
        };
        SegmentFacts { end_offset, bytes: segment.len(), largest_timestamp }
    }

    fn move_log_start(&mut self, log_start: i64) -> Result<(), ChangeError> {
        let segments = self.shared.segments();
        // The active segment stays, even if it lies below the start as a whole.
        let kept = segments[1..].partition_point(|s| s.base_offset <= log_start);
        self.shared.offsets.set_log_start(log_start);
        if kept > 0 {
            self.shared.set_segments(segments[kept..].to_vec());
            self.pending_deletion
                .extend(segments[..kept].iter().map(|s| PendingDeletion { log_start, segment: s.clone() }));
        }
        let epochs_changed = self.shared.epochs.write().truncate_from_start(log_start);
        if epochs_changed && let Err(failure) = self.write_epochs() {
            // The file is a help for recovery, which also cuts it at the log start.
            tracing::warn!(partition = %self.shared.id, %failure, "leader epochs not written");
        }
        self.submit_log_start(log_start)
    }

    fn submit_log_start(&self, log_start: i64) -> Result<(), ChangeError> {
        let meta = FrameMeta {
            kind: FrameKind::LogStart,
            topic_id: self.shared.id.topic_id,
            partition: self.shared.id.partition,
            base_offset: log_start,
            last_offset: log_start - 1,
            segment_base: 0,
            position: 0,
            leader_epoch: -1,
        };
        let listener: Arc<dyn DurableListener> = self.starts.clone();
        self.sink.submit(Frame::change(meta, listener))?;
        Ok(())
    }
}

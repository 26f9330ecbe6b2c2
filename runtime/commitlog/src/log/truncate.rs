//! Cutting the end of a log.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Log;
use super::removal::remove_segment;
use crate::error::{ChangeError, IoContext, StorageFailure};
use crate::id::LogEnd;
use crate::rebuild::{Rebuild, rebuild_tail};
use crate::segment::SegmentFile;
use crate::shared::segment_of;
use crate::sink::{DurableListener, Frame, FrameKind, FrameMeta, SyncLater};
use crate::storage::{File, OpenMode};

impl Log {
    /// Cuts the log so that it ends at `offset`, or before the batch that holds it. Returns the new end. The
    /// high watermark is lowered if it lies above.
    ///
    /// Unlike an append this waits until the journal is durable: the place that is cut is written anew by the
    /// next append, and a crash must not find new bytes where the journal still speaks of the old ones.
    pub fn truncate_to(&mut self, offset: i64, now_ms: i64) -> Result<i64, ChangeError> {
        self.check_change()?;
        let offsets = self.offsets();
        if offset < offsets.log_start || offset > offsets.log_end {
            let (low, high) = (offsets.log_start, offsets.log_end);
            return Err(ChangeError::OffsetOutOfRange { offset, low, high });
        }
        if offset == offsets.log_end {
            return Ok(offset);
        }
        if self.swapping.is_some_and(|end| offset < end) {
            return Err(ChangeError::Swapping);
        }
        let mut end = self.place_of(offset)?;
        // The start may lie in the middle of the batch that goes.
        end.offset = end.offset.max(offsets.log_start);
        self.submit_truncate(end)?;
        let result = self.cut(end, now_ms);
        if let Err(ChangeError::Storage(failure)) = &result {
            // The journal says that the log is shorter than the files: only recovery puts that right.
            self.latch(failure.clone());
        }
        result.map(|()| end.offset)
    }

    /// Where the log ends if everything from `offset` on goes.
    fn place_of(&self, offset: i64) -> Result<LogEnd, ChangeError> {
        let segments = self.shared.segments();
        let segment = &segments[segment_of(&segments, offset)];
        Ok(match segment.find(self.shared.io(), offset)? {
            Some(found) => LogEnd {
                segment_base: segment.base_offset,
                position: found.position,
                offset: found.header.base_offset.min(offset),
            },
            None => LogEnd { segment_base: segment.base_offset, position: segment.len(), offset },
        })
    }

    fn submit_truncate(&self, end: LogEnd) -> Result<(), ChangeError> {
        let waiter = Arc::new(Waiter::default());
        let meta = FrameMeta {
            kind: FrameKind::Truncate,
            topic_id: self.shared.id.topic_id,
            partition: self.shared.id.partition,
            base_offset: end.offset,
            last_offset: end.offset - 1,
            segment_base: end.segment_base,
            position: end.position,
            leader_epoch: -1,
        };
        let listener: Arc<dyn DurableListener> = waiter.clone();
        self.sink.submit(Frame::change(meta, listener))?;
        waiter.wait()?;
        Ok(())
    }

    fn cut(&mut self, end: LogEnd, now_ms: i64) -> Result<(), ChangeError> {
        let segments = self.shared.segments();
        let kept = segment_of(&segments, end.segment_base) + 1;
        let active = segments[kept - 1].clone();
        self.cut_cleaned(end.offset)?;
        // Readers first: from here on nobody is led to what is about to go.
        self.shared.offsets.set_high_watermark(end.offset.min(self.offsets().high_watermark));
        self.shared.offsets.set_log_end(end.offset);
        self.shared.tail.clear();
        active.publish(end.position, now_ms);
        self.shared.set_segments(segments[..kept].to_vec());
        for segment in &segments[kept..] {
            remove_segment(&self.shared, segment);
        }
        self.remove_snapshots(|offset| offset > end.offset);
        let file = match active.held() {
            Some(file) => file,
            None => {
                let file =
                    self.shared.storage.open(active.path(), OpenMode::Write).at("open", active.path())?;
                let len = file.len().at("ask the length of", active.path())?;
                Arc::new(SegmentFile::new(file, len))
            }
        };
        file.cut_to(end.position).at("cut", active.path())?;
        active.begin(file.clone());
        if self.shared.epochs.write().truncate_from_end(end.offset) {
            self.write_epochs()?;
        }
        let rebuilt = rebuild_tail(Rebuild {
            io: self.shared.io(),
            dir: &self.shared.dir,
            segments: &segments[..kept],
            snapshots: &self.snapshots,
            // A newer snapshot would not know of markers that are not final yet.
            trusted: self.offsets().high_watermark,
            log_start: self.offsets().log_start,
            end,
            interval_bytes: self.config.index_interval_bytes,
            producers_max: self.config.producers_max,
            now_ms,
        })?;
        let cut: Arc<dyn File> = file.clone();
        for file in rebuilt.dirty.into_iter().chain([cut]) {
            self.sink.sync_later(SyncLater::File(file));
        }
        self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
        self.active.segment = active;
        self.active.file = file;
        self.active.position = end.position;
        self.active.indexes = Some(rebuilt.indexes);
        self.active.first_timestamp = rebuilt.first_timestamp;
        self.active.must_cut = false;
        self.producers = rebuilt.producers;
        self.snapshots.extend(rebuilt.snapshots);
        self.remove_snapshots(|offset| rebuilt.removed_snapshots.contains(&offset));
        self.producers.high_watermark_moved(self.offsets().high_watermark);
        self.shared.offsets.set_first_unstable(self.producers.first_unstable_offset());
        Ok(())
    }
}

/// Lets one thread wait for one frame.
#[derive(Default)]
struct Waiter {
    outcome: Mutex<Option<Result<(), StorageFailure>>>,
    told: Condvar,
}

impl Waiter {
    fn tell(&self, outcome: Result<(), StorageFailure>) {
        self.outcome.lock().get_or_insert(outcome);
        self.told.notify_all();
    }

    /// The journal answers every frame that it took, so this ends.
    fn wait(&self) -> Result<(), StorageFailure> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => self.told.wait(&mut outcome),
            }
        }
    }
}

impl DurableListener for Waiter {
    fn durable(&self, _end_offset: i64) {
        self.tell(Ok(()));
    }

    fn failed(&self, reason: &StorageFailure) {
        self.tell(Err(reason.clone()));
    }
}

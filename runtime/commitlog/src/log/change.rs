//! Rolling, closing, and the small changes of a log.

use std::sync::Arc;

use super::{Active, Log};
use crate::error::{ChangeError, IoContext, StorageFailure};
use crate::id::LogEnd;
use crate::metadata::remove_if_there;
use crate::names::SEGMENT_FILES;
use crate::names::{FileKind, file_path};
use crate::segment::SegmentFile;
use crate::segment::{IndexBuilder, Segment};
use crate::sink::SyncLater;
use crate::storage::OpenMode;

impl Log {
    /// Finishes the active segment and starts a new one at the log end. Does nothing if the active one is
    /// empty. Nothing is synced: the journal covers the data, the next checkpoint the rest.
    pub fn roll(&mut self, now_ms: i64) -> Result<(), ChangeError> {
        self.check_change()?;
        if self.active.position == 0 {
            return Ok(());
        }
        self.load_active()?;
        let base_offset = self.offsets().log_end;
        // First what can fail: after this the old segment is finished.
        let active = self.start_segment(base_offset, now_ms)?;
        self.finish_indexes();
        let finished = std::mem::replace(&mut self.active, active);
        finished.segment.finish();
        finished.segment.offsets.seal();
        finished.segment.times.seal();
        let mut segments = (*self.shared.segments()).clone();
        segments.push(self.active.segment.clone());
        self.shared.set_segments(segments);
        self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
        self.snapshot();
        Ok(())
    }

    /// An empty segment at `base_offset`, with its file.
    pub(super) fn start_segment(&self, base_offset: i64, now_ms: i64) -> Result<Active, StorageFailure> {
        // A crash may have brought back files of a segment that was cut away and had the same base offset.
        for kind in SEGMENT_FILES {
            remove_if_there(&*self.shared.storage, &file_path(&self.shared.dir, base_offset, kind))?;
        }
        let path = file_path(&self.shared.dir, base_offset, FileKind::Log);
        let file = self.shared.storage.open(&path, OpenMode::Create).at("create", &path)?;
        let file = Arc::new(SegmentFile::new(file, 0));
        let segment = Segment::create(&self.shared.dir, base_offset, &self.shared.files, now_ms);
        segment.begin(file.clone());
        Ok(Active {
            segment: Arc::new(segment),
            file,
            position: 0,
            indexes: Some(IndexBuilder::new(self.config.index_interval_bytes, None)),
            first_timestamp: None,
            created_ms: now_ms,
            must_cut: false,
        })
    }

    /// Writes the last entries of the active segment's indexes, and asks for them to be durable with the next
    /// checkpoint.
    fn finish_indexes(&mut self) {
        let io = self.shared.io();
        let segment = &self.active.segment;
        let Some(builder) = &mut self.active.indexes else { return };
        if let Ok(largest) = segment.largest_timestamp(io) {
            segment.add_time(io, builder.time_entry(segment.base_offset, largest));
        }
        self.write_indexes();
    }

    /// Writes what the active segment's indexes hold back, and asks for it to be durable with the next checkpoint.
    pub(super) fn write_indexes(&self) {
        let io = self.shared.io();
        let segment = &self.active.segment;
        for file in [segment.offsets.flush(io), segment.times.flush(io)] {
            match file {
                Ok(Some(file)) => self.sink.sync_later(SyncLater::File(file)),
                Ok(None) => {}
                // Its entries stay in memory; after a restart the index is rebuilt when somebody misses it.
                Err(failure) => tracing::warn!(partition = %self.shared.id, %failure, "index not written"),
            }
        }
    }

    /// Writes what a clean start relies on, and returns where the log ends. Whoever closes the log directory
    /// makes a checkpoint after this, which syncs it.
    pub fn close(mut self) -> Result<LogEnd, ChangeError> {
        self.check_change()?;
        self.remove_files();
        // Absent: nothing was appended since a start that found it all in order.
        if self.active.indexes.is_some() {
            self.finish_indexes();
        }
        let end = self.end();
        if !self.snapshots.contains(&end.offset) {
            self.snapshot();
        }
        Ok(end)
    }

    /// What is due from time to time: forgets expired producers, snapshots a log that has become idle. Call it
    /// every minute or so, and remove what is [`Log::removable`] then.
    pub fn housekeep(&mut self, now_ms: i64) {
        /// A log is idle after this time without an append, ms.
        const IDLE_MS: i64 = 60_000;
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms);
        self.producers.forget_refused();
        let idle_ms = now_ms.saturating_sub(self.active.segment.written_ms());
        if self.bytes_since_snapshot > 0 && idle_ms >= IDLE_MS && self.latched.is_none() {
            self.snapshot();
        }
    }
}

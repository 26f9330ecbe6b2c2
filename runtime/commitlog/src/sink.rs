//! The seam between one partition's log and the journal of its log directory: what the log tells the
//! journal about every change, and what the journal tells back once the change is durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pelton_wire::record::{CheckedBatch, crc32c};
use uuid::Uuid;

use crate::error::{SinkClosed, StorageFailure};
use crate::segment::SegmentFile;
use crate::storage::File;

/// A byte position in the journal, counted from the first group ever written. It never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// What a frame says. The numbers are the bytes on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// One record batch was appended: `payload` lies at `position` of segment `segment_base`.
    Data = 1,
    /// The log ends at `base_offset` from now on, and segment `segment_base` at `position`; every later
    /// segment is gone. `last_offset` is `base_offset - 1`, `payload` is empty.
    Truncate = 2,
    /// The log starts at `base_offset` from now on (retention or delete-records). `last_offset` is
    /// `base_offset - 1`, `payload` is empty, `segment_base` and `position` are 0.
    LogStart = 3,
    /// The partition is gone; its directory may be. Written by the log directory, not by a `Log`.
    PartitionDelete = 4,
    /// The partition exists from now on; `payload` is the topic's name. Written by the log directory, not by
    /// a `Log`.
    PartitionCreate = 5,
}

impl FrameKind {
    /// The kind behind a byte on disk.
    pub fn from_byte(byte: u8) -> Option<FrameKind> {
        const ALL: [FrameKind; 5] = [
            FrameKind::Data,
            FrameKind::Truncate,
            FrameKind::LogStart,
            FrameKind::PartitionDelete,
            FrameKind::PartitionCreate,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The fixed part of a frame: all that is needed, with the payload, to redo the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// What happened.
    pub kind: FrameKind,
    /// The partition's topic, by its id: a re-created topic of the same name has another one.
    pub topic_id: Uuid,
    /// The partition's number in its topic.
    pub partition: i32,
    /// First offset of the batch, or the new end or start of the log.
    pub base_offset: i64,
    /// Last offset of the batch, or `base_offset - 1`.
    pub last_offset: i64,
    /// Base offset of the segment that was written or cut.
    pub segment_base: i64,
    /// Byte position in that segment's `.log` file.
    pub position: u64,
    /// Leader epoch of the append, -1 where there is none.
    pub leader_epoch: i32,
}

impl FrameMeta {
    /// The value that [`DurableListener::durable`] of this frame gets: one past `last_offset`.
    pub fn end_offset(&self) -> i64 {
        self.last_offset.saturating_add(1)
    }
}

/// Which bound of what may wait for the journal a frame counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameClass {
    /// Records of a client, which had a permit.
    Client,
    /// The broker's own records, and changes that are no append.
    Internal,
}

/// What a frame carries besides its fixed part.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The batch exactly as it was written to the segment, base offset and leader epoch included.
    Batch(CheckedBatch),
    /// Anything else: the name of a created topic, or nothing.
    Other(Bytes),
}

impl Payload {
    /// Nothing.
    pub const EMPTY: Payload = Payload::Other(Bytes::new());

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Payload::Batch(batch) => batch.bytes(),
            Payload::Other(bytes) => bytes,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The CRC-32C of some of the bytes. That of a whole batch follows from the checksum that came with it.
    pub(crate) fn crc32c(&self, part: std::ops::Range<usize>) -> u32 {
        match self {
            Payload::Batch(batch) if part == (0..batch.len()) => batch.crc32c(),
            Payload::Batch(_) | Payload::Other(_) => crc32c(&self.bytes()[part]),
        }
    }
}

/// What the log tells the journal about one change.
pub struct Frame {
    /// The fixed part.
    pub meta: FrameMeta,
    /// What it counts against.
    pub class: FrameClass,
    /// The rest.
    pub payload: Payload,
    /// The segment had this before the journal ([`LogConfig::write_through`]).
    ///
    /// [`LogConfig::write_through`]: crate::LogConfig::write_through
    pub written_through: bool,
    /// The segment file that this change is for. The checkpoint writes and syncs it before the frame's journal space is
    /// reused.
    pub file: Option<Arc<SegmentFile>>,
    /// Who waits for this frame.
    pub listener: Arc<dyn DurableListener>,
}

impl Frame {
    /// A change of a partition that is no append: it has no batch, and dirties no segment.
    pub(crate) fn change(meta: FrameMeta, listener: Arc<dyn DurableListener>) -> Frame {
        let (class, payload) = (FrameClass::Internal, Payload::EMPTY);
        Frame { meta, class, payload, written_through: false, file: None, listener }
    }
}

/// Something that no ack waits for, but that must be durable with the next checkpoint.
pub enum SyncLater {
    /// `fdatasync` of this file (an index or snapshot of a finished segment).
    File(Arc<dyn File>),
    /// `fdatasync` of the file of this name, which is opened for that: small files of which there is one for each partition
    /// would take up descriptors until then. One that is gone by then needs it no more.
    Named(PathBuf),
    /// `fsync` of this directory (a segment was created, renamed or removed in it).
    Dir(Arc<Path>),
}

/// Where a log hands its changes. Implemented by the journal.
///
/// Frames of one partition become durable in the order in which they were submitted.
pub trait FrameSink: Send + Sync {
    /// Takes a frame and returns at once. The listener is called exactly once for each accepted frame, from
    /// another thread or from within this call.
    fn submit(&self, frame: Frame) -> Result<Lsn, SinkClosed>;
    /// True if so many of the broker's own records wait that it should append no more of them now.
    fn is_behind(&self) -> bool {
        false
    }
    /// Adds to what the next checkpoint makes durable. Items handed over before a frame are synced no
    /// later than by the first checkpoint that covers that frame.
    fn sync_later(&self, item: SyncLater);
}

/// Told when appends of one partition are durable. Called by the journal's thread: it must not block.
pub trait DurableListener: Send + Sync {
    /// Every frame of this partition up to the one with this [`FrameMeta::end_offset`] is durable.
    /// Calls come in the order in which the frames were submitted.
    fn durable(&self, end_offset: i64);
    /// The log start offset has durably moved up to `log_start`.
    fn log_start_durable(&self, log_start: i64) {
        let _ = log_start;
    }
    /// The journal failed: nothing that was not yet durable will ever be said to be. Final.
    fn failed(&self, reason: &StorageFailure);
}

/// Sinks for tests of this crate and of its users.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;

    use super::{DurableListener, Frame, FrameMeta, FrameSink, Lsn, SinkClosed, StorageFailure, SyncLater};
    use bytes::Bytes;

    /// A sink for which every frame is durable at once, and in its segment. It can keep the frames for a replay, and be closed.
    #[derive(Default)]
    pub struct InstantSink {
        lsn: AtomicU64,
        state: Mutex<InstantState>,
    }

    #[derive(Default)]
    struct InstantState {
        recording: bool,
        frames: Vec<(FrameMeta, Bytes)>,
        closed: Option<String>,
        behind: bool,
    }

    impl InstantSink {
        /// A sink that remembers every frame it got.
        pub fn recording() -> InstantSink {
            let sink = InstantSink::default();
            sink.state.lock().recording = true;
            sink
        }

        /// The frames since the last call, oldest first.
        pub fn take_frames(&self) -> Vec<(FrameMeta, Bytes)> {
            std::mem::take(&mut self.state.lock().frames)
        }

        /// Says from now on whether it is behind.
        pub fn set_behind(&self, behind: bool) {
            self.state.lock().behind = behind;
        }

        /// Refuses every frame from now on.
        pub fn close(&self, reason: &str) {
            self.state.lock().closed = Some(reason.to_owned());
        }
    }

    impl FrameSink for InstantSink {
        fn submit(&self, frame: Frame) -> Result<Lsn, SinkClosed> {
            {
                let mut state = self.state.lock();
                if let Some(reason) = &state.closed {
                    return Err(SinkClosed { reason: reason.clone() });
                }
                if state.recording {
                    state.frames.push((frame.meta, frame.payload.bytes().clone()));
                }
            }
            if let Some(file) = &frame.file {
                // What a disk refuses here it refuses a checkpoint, which is tested elsewhere.
                file.write_out(u64::MAX).expect("the disk of a test that is not about checkpoints");
                file.note_synced(u64::MAX);
            }
            frame.listener.durable(frame.meta.end_offset());
            Ok(Lsn(self.lsn.fetch_add(frame.payload.len() as u64 + 1, Ordering::Relaxed)))
        }

        fn is_behind(&self) -> bool {
            self.state.lock().behind
        }

        fn sync_later(&self, item: SyncLater) {
            // Nothing here survives a crash, so there is nothing to sync.
            drop(item);
        }
    }

    /// A listener that nobody asks.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct NoListener;

    impl DurableListener for NoListener {
        fn durable(&self, _end_offset: i64) {}
        fn failed(&self, _reason: &StorageFailure) {}
    }
}

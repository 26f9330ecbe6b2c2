//! A journal in memory that makes frames durable when it is told to, and does for the files what a checkpoint
//! does.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pelton_commitlog::storage::{File, OpenMode, SimStorage, Storage};
use pelton_commitlog::{
    DurableListener, Frame, FrameKind, FrameMeta, FrameSink, LogEnd, Lsn, SegmentFile, SinkClosed, SyncLater,
};

#[derive(Default)]
pub(crate) struct LagSink {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: Vec<Kept>,
    durable: usize,
    later: Vec<SyncLater>,
}

struct Kept {
    meta: FrameMeta,
    payload: Bytes,
    file: Option<Arc<SegmentFile>>,
    listener: Arc<dyn DurableListener>,
}

impl LagSink {
    /// Makes all but the newest `keep_back` frames durable.
    pub(crate) fn settle(&self, keep_back: usize) {
        let told: Vec<_> = {
            let mut state = self.state.lock();
            let upto = state.frames.len().saturating_sub(keep_back).max(state.durable);
            let told =
                state.frames[state.durable..upto].iter().map(|f| (f.listener.clone(), f.meta)).collect();
            state.durable = upto;
            told
        };
        for (listener, meta) in told {
            listener.durable(meta.end_offset());
        }
    }

    /// What the journal would replay.
    pub(crate) fn durable_frames(&self) -> Vec<(FrameMeta, Bytes)> {
        let state = self.state.lock();
        state.frames[..state.durable].iter().map(|f| (f.meta, f.payload.clone())).collect()
    }

    /// Syncs what durable frames dirtied, forgets the frames, and says where the log ends and starts by them.
    pub(crate) fn checkpoint(&self, disk: &SimStorage, mut end: LogEnd, mut log_start: i64) -> (LogEnd, i64) {
        let mut state = self.state.lock();
        for item in std::mem::take(&mut state.later) {
            match item {
                SyncLater::File(file) => file.sync_data().unwrap(),
                // They may be gone by now.
                SyncLater::Named(path) if disk.exists(&path).unwrap() => {
                    disk.open(&path, OpenMode::Write).unwrap().sync_data().unwrap();
                }
                SyncLater::Named(_) => {}
                SyncLater::Dir(path) if disk.exists(&path).unwrap() => disk.sync_dir(&path).unwrap(),
                SyncLater::Dir(_) => {}
            }
        }
        let durable = state.durable;
        state.durable = 0;
        for frame in state.frames.drain(..durable) {
            if let Some(file) = &frame.file {
                file.write_out(frame.meta.position + frame.payload.len() as u64).unwrap();
                file.sync_data().unwrap();
            }
            apply(&frame.meta, frame.payload.len(), &mut end, &mut log_start);
        }
        (end, log_start)
    }
}

/// Where the log ends and starts after this frame.
pub(crate) fn apply(meta: &FrameMeta, payload: usize, end: &mut LogEnd, log_start: &mut i64) {
    let FrameMeta { segment_base, position, .. } = *meta;
    match meta.kind {
        FrameKind::Data => {
            *end = LogEnd { segment_base, position: position + payload as u64, offset: meta.end_offset() };
        }
        FrameKind::Truncate => *end = LogEnd { segment_base, position, offset: meta.base_offset },
        FrameKind::LogStart => *log_start = (*log_start).max(meta.base_offset),
        FrameKind::PartitionCreate | FrameKind::PartitionDelete => {}
    }
}

impl FrameSink for LagSink {
    fn submit(&self, frame: Frame) -> Result<Lsn, SinkClosed> {
        let Frame { meta, class: _, payload, written_through: _, file, listener } = frame;
        let payload = payload.bytes().clone();
        let lsn = {
            let mut state = self.state.lock();
            state.frames.push(Kept { meta, payload, file, listener });
            Lsn(state.frames.len() as u64)
        };
        if meta.kind == FrameKind::Truncate {
            // The log waits for it.
            self.settle(0);
        }
        Ok(lsn)
    }

    fn sync_later(&self, item: SyncLater) {
        self.state.lock().later.push(item);
    }
}

/// Makes a directory and its parents durable.
pub(crate) fn sync_dirs(disk: &SimStorage, dir: &Path) {
    for dir in dir.ancestors() {
        disk.sync_dir(dir).unwrap();
    }
}

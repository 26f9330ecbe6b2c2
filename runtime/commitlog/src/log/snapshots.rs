//! Producer snapshots: with every finished segment, every so many bytes, and at a clean stop. Recovery scans
//! the log from one of them on, so they bound how much it has to read.

use std::collections::BTreeSet;

use super::{Log, removal};
use crate::rebuild::write_snapshot;
use crate::sink::SyncLater;

/// A snapshot is due after this much log, in bytes: what recovery reads of a busy partition, about 50 ms of
/// it.
const INTERVAL_BYTES: u64 = 64 << 20;
/// Snapshots between two segments that are kept. Recovery uses one from before the last checkpoint, so the
/// newest alone is not enough.
const KEPT: usize = 3;

impl Log {
    pub(super) fn snapshot_if_due(&mut self) {
        if self.bytes_since_snapshot >= INTERVAL_BYTES {
            self.snapshot();
        }
    }

    /// Writes a snapshot of the state at the log end. A failure costs time at the next recovery and nothing
    /// else.
    pub(super) fn snapshot(&mut self) {
        // Recovery rebuilds indexes from a snapshot on: what comes before it should be in their files.
        self.write_indexes();
        let offset = self.offsets().log_end;
        match write_snapshot(self.shared.io(), &self.shared.dir, offset, &self.producers) {
            Ok(file) => {
                self.sink.sync_later(SyncLater::File(file));
                self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
                self.snapshots.insert(offset);
                self.drop_old_snapshots();
            }
            Err(failure) => {
                tracing::warn!(partition = %self.shared.id, %failure, "producer snapshot not written")
            }
        }
        self.bytes_since_snapshot = 0;
    }

    fn drop_old_snapshots(&mut self) {
        let segments = self.shared.segments();
        let waiting = self.pending_deletion.iter().map(|pending| &pending.segment);
        let bases: BTreeSet<i64> = segments.iter().chain(waiting).map(|s| s.base_offset).collect();
        let is_base = |offset: &i64| bases.contains(offset);
        let between: Vec<i64> = self.snapshots.iter().copied().filter(|o| !is_base(o)).collect();
        let surplus = between.len().saturating_sub(KEPT);
        for offset in &between[..surplus] {
            self.remove_snapshot(*offset);
        }
    }

    /// Removes snapshots that `gone` picks.
    pub(super) fn remove_snapshots(&mut self, gone: impl Fn(i64) -> bool) {
        let offsets: Vec<i64> = self.snapshots.iter().copied().filter(|o| gone(*o)).collect();
        for offset in offsets {
            self.remove_snapshot(offset);
        }
    }

    fn remove_snapshot(&mut self, offset: i64) {
        self.snapshots.remove(&offset);
        removal::remove_snapshot(&self.shared, offset);
    }
}

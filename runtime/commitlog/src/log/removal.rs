//! Removing the files of segments that have left the log. What goes is decided by the log's owner; the removal itself,
//! which may wait for the disk, needs the log no more, so that the owner may append meanwhile.

use std::path::Path;
use std::sync::Arc;

use super::{Log, PendingDeletion};
use crate::error::{IoContext, StorageFailure};
use crate::mutant::Mutant;
use crate::names::SEGMENT_FILES;
use crate::names::{DELETED, FileKind, file_path, with_suffix};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::sink::{FrameSink, SyncLater};
use crate::storage::OpenMode;

/// Files that are not part of the log any more, to be removed by [`Removal::run`].
#[must_use = "what is not run and settled stays on disk until the next start"]
pub struct Removal {
    shared: Arc<Shared>,
    sink: Arc<dyn FrameSink>,
    segments: Vec<PendingDeletion>,
    /// The producer snapshot that is about to be all that is left of the producers before it.
    last_word: Option<i64>,
    /// Producer snapshots that go.
    snapshots: Vec<i64>,
}

/// What became of a [`Removal`], for [`Log::settle`].
#[must_use = "a log removes nothing more until it has this"]
pub struct Removed {
    removal: Removal,
    done: bool,
}

impl Removal {
    /// Removes the files. Waits for the disk; readers that hold one of them go on reading it. Must have ended before
    /// anybody makes the partition's directory anew.
    pub fn run(self) -> Removed {
        let done = match self.sync_last_word() {
            Ok(()) => {
                self.remove();
                true
            }
            Err(failure) => {
                // What is not synced says nothing of the past after a crash, so the past stays for now.
                tracing::warn!(partition = %self.shared.id, %failure, "producer snapshot not synced");
                false
            }
        };
        Removed { removal: self, done }
    }

    fn sync_last_word(&self) -> Result<(), StorageFailure> {
        let Some(offset) = self.last_word else { return Ok(()) };
        let Shared { storage, dir, .. } = &*self.shared;
        let path = file_path(dir, offset, FileKind::Snapshot);
        let file = storage.open(&path, OpenMode::Write).at("open", &path)?;
        file.sync_data().at("sync", &path)?;
        storage.sync_dir(dir).at("sync", dir)
    }

    fn remove(&self) {
        for pending in &self.segments {
            remove_segment(&self.shared, &pending.segment);
        }
        for offset in &self.snapshots {
            remove_snapshot(&self.shared, *offset);
        }
        self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
    }
}

impl Log {
    /// The files that may go now: those of segments below the durable log start. `None`: there are none, or the last
    /// removal is not settled yet.
    pub fn removable(&mut self) -> Option<Removal> {
        if self.removing {
            return None;
        }
        let durable =
            if Mutant::FilesBeforeLogStart.is_on() { i64::MAX } else { self.starts.durable_start() };
        let gone = |pending: &PendingDeletion| pending.log_start <= durable;
        let (segments, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending_deletion).into_iter().partition(gone);
        self.pending_deletion = kept;
        if segments.is_empty() {
            return None;
        }
        // Later ones may wait for another move of the start: the first that is left on disk counts.
        let waiting = self.pending_deletion.first().map(|d| d.segment.base_offset);
        let first_base = waiting.unwrap_or_else(|| self.shared.segments()[0].base_offset);
        let stay = self.snapshots.split_off(&first_base);
        let snapshots = std::mem::replace(&mut self.snapshots, stay).into_iter().collect();
        self.removing = true;
        Some(Removal {
            shared: self.shared.clone(),
            sink: self.sink.clone(),
            segments,
            last_word: self.snapshots.first().copied().filter(|offset| *offset == first_base),
            snapshots,
        })
    }

    /// Takes note of a removal. What was not removed is tried again.
    pub fn settle(&mut self, removed: Removed) {
        self.removing = false;
        if !removed.done {
            self.pending_deletion.splice(..0, removed.removal.segments);
            self.snapshots.extend(removed.removal.snapshots);
        }
    }

    /// Removes what may go now, for an owner that may wait for the disk.
    pub fn remove_files(&mut self) {
        if let Some(removal) = self.removable() {
            self.settle(removal.run());
        }
    }
}

/// Removes the files of a segment that is not part of the log any more. What cannot be removed now is removed by the
/// next start.
pub(super) fn remove_segment(shared: &Shared, segment: &Segment) {
    segment.discard();
    for kind in SEGMENT_FILES {
        let path = file_path(&shared.dir, segment.base_offset, kind);
        if let Err(failure) = remove_by_rename(shared, &path) {
            tracing::warn!(partition = %shared.id, %failure, "file of a deleted segment not removed");
        }
    }
    shared.files.forget(segment.number());
}

fn remove_by_rename(shared: &Shared, path: &Path) -> Result<(), StorageFailure> {
    let storage = &*shared.storage;
    let deleted = with_suffix(path, DELETED);
    match storage.rename(path, &deleted) {
        // An index that never had an entry has no file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result.at("rename", path)?,
    }
    storage.remove_file(&deleted).at("remove", &deleted)
}

/// Removes a producer snapshot. What cannot be removed now is removed by the next start.
pub(super) fn remove_snapshot(shared: &Shared, offset: i64) {
    let path = file_path(&shared.dir, offset, FileKind::Snapshot);
    if let Err(error) = shared.storage.remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "old producer snapshot not removed");
    }
}

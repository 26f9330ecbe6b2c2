//! The partitions of a directory: opening those that are there, creating one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{DeleteError, LogDir, LogDirConfig, OpenDirError, Threads, layout, replay};
use crate::checkpointer::{self, WORKERS_PRESSED};
use crate::config::LogConfig;
use crate::error::{CreateError, IoContext, StorageFailure};
use crate::file_cache::FileCache;
use crate::id::PartitionId;
use crate::journal::slot::PartitionEnd;
use crate::log::Log;
use crate::names::{FileKind, file_path};
use crate::recovery::PartitionRecovery;
use crate::shared::LogContext;
use crate::sink::{DurableListener, FrameKind, FrameSink, SyncLater};
use crate::storage::{NotOpened, OpenMode, Storage};
use crate::tail_cache::TailBudget;

/// Partitions that are opened at a time: it is system calls more than work.
const OPENERS: usize = 4;
/// Files that recovery wrote and that are synced together. Each is a descriptor that is kept open for it, beside the
/// active segment of each partition.
pub(super) const DIRTY_FILES_MAX: usize = 256;

/// A partition that was there when the directory was opened.
pub struct RecoveredPartition {
    /// Which one.
    pub id: PartitionId,
    log: Log,
    listener: Arc<LateListener>,
}

impl RecoveredPartition {
    /// The log, as it was recovered. It has the directory's default settings and no listener yet.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Takes the log over, with its own settings and listener.
    pub fn into_log(mut self, config: LogConfig, listener: Arc<dyn DurableListener>) -> Log {
        // Set once: `self` is gone after this.
        let _ = self.listener.0.set(listener);
        self.log.set_config(config);
        self.log
    }
}

/// The listener of a recovered log: whoever takes the log over. Nothing is appended before that.
#[derive(Default)]
struct LateListener(OnceLock<Arc<dyn DurableListener>>);

impl DurableListener for LateListener {
    fn durable(&self, end_offset: i64) {
        if let Some(listener) = self.0.get() {
            listener.durable(end_offset);
        }
    }

    fn log_start_durable(&self, log_start: i64) {
        if let Some(listener) = self.0.get() {
            listener.log_start_durable(log_start);
        }
    }

    fn failed(&self, reason: &StorageFailure) {
        if let Some(listener) = self.0.get() {
            listener.failed(reason);
        }
    }
}

/// The directories that stand in the way of a partition's name, and must go before the name is used.
pub(super) type Leftovers = HashMap<PathBuf, Leftover>;

/// Why a directory is still there.
pub(super) enum Leftover {
    /// A creation failed.
    Created,
    /// Its removal may be undone by a power cut. Only the next start knows.
    Unsynced,
    /// This partition is durably deleted, and the directory could not be renamed.
    Deleted(Uuid, i32),
}

/// What all logs of a directory share.
pub(super) fn context(
    config: &LogDirConfig,
    storage: &Arc<dyn Storage>,
    sink: Arc<dyn FrameSink>,
) -> LogContext {
    LogContext {
        storage: storage.clone(),
        sink,
        files: Arc::new(FileCache::new(config.limits.open_files)),
        tails: TailBudget::new(config.limits.tail_cache_bytes),
    }
}

/// Opened partitions, and where each one ends.
#[derive(Default)]
pub(super) struct OpenedPartitions {
    pub(super) partitions: Vec<RecoveredPartition>,
    pub(super) ends: Vec<PartitionEnd>,
    pub(super) dirty: Vec<SyncLater>,
    dirty_files: Vec<SyncLater>,
}

impl OpenedPartitions {
    /// Adds what a partition left to sync. Returns files to sync now, once they are many; directories wait for the end.
    fn add_dirty(&mut self, dirty: Vec<SyncLater>) -> Vec<SyncLater> {
        let (files, dirs): (Vec<_>, Vec<_>) =
            dirty.into_iter().partition(|item| matches!(item, SyncLater::File(_)));
        self.dirty.extend(dirs);
        self.dirty_files.extend(files);
        if self.dirty_files.len() < DIRTY_FILES_MAX {
            Vec::new()
        } else {
            std::mem::take(&mut self.dirty_files)
        }
    }
}

/// Finishes the recovery of all partitions. What it wrote is not yet durable.
pub(super) fn open_all(
    recovering: Vec<(PartitionId, PathBuf, PartitionRecovery)>,
    config: &LogDirConfig,
    context: &LogContext,
    clean: bool,
) -> Result<OpenedPartitions, OpenDirError> {
    let jobs: Vec<Mutex<Option<(PartitionId, PartitionRecovery)>>> =
        recovering.into_iter().map(|(id, _, recovery)| Mutex::new(Some((id, recovery)))).collect();
    let openers = if config.threads == Threads::Spawned { OPENERS } else { 1 };
    let next = AtomicUsize::new(0);
    let opened = Mutex::new(OpenedPartitions::default());
    let failure = Mutex::new(None);
    let now_ms = (config.clock)();
    let work = || {
        while failure.lock().is_none()
            && let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let Some((id, recovery)) = job.lock().take() else { continue };
            match open_one(id, recovery, context, clean, now_ms) {
                Ok((partition, end, dirty)) => {
                    let mut opened = opened.lock();
                    opened.partitions.push(partition);
                    opened.ends.push(end);
                    let files = opened.add_dirty(dirty);
                    drop(opened);
                    if let Err(failed) = checkpointer::sync_all(&*context.storage, &[], &files, 1) {
                        failure.lock().get_or_insert(StorageFailure::from(failed).into());
                    }
                }
                Err(error) => drop(failure.lock().get_or_insert(error)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..openers.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => {
            let mut opened = opened.into_inner();
            opened.dirty.append(&mut opened.dirty_files);
            Ok(opened)
        }
    }
}

fn open_one(
    id: PartitionId,
    recovery: PartitionRecovery,
    context: &LogContext,
    clean: bool,
    now_ms: i64,
) -> Result<(RecoveredPartition, PartitionEnd, Vec<SyncLater>), OpenDirError> {
    let listener = Arc::new(LateListener::default());
    let finished = recovery.finish(context, listener.clone(), now_ms);
    let (log, mut report) = finished.map_err(|error| OpenDirError::Partition(id.clone(), error))?;
    if !clean {
        // Cut already, perhaps, but by a start that was killed before it could sync.
        let path = file_path(log.dir(), log.end().segment_base, FileKind::Log);
        let active = context.storage.open(&path, OpenMode::Write).at("open", &path)?;
        report.dirty.push(SyncLater::File(active));
    }
    let end = PartitionEnd {
        topic_id: id.topic_id,
        partition: id.partition,
        topic: id.topic.as_str().into(),
        log_start: report.log_start,
        end: log.end(),
        deleted: false,
        written_through: report.written_through,
    };
    if report.cut_bytes > 0 {
        tracing::info!(partition = %id, bytes = report.cut_bytes, "cut what was never acknowledged");
    }
    if report.kept_bytes > 0 {
        tracing::info!(partition = %id, bytes = report.kept_bytes, "kept what was written and not synced");
    }
    Ok((RecoveredPartition { id, log, listener }, end, report.dirty))
}

/// Makes everything durable that recovery wrote.
pub(super) fn sync(
    config: &LogDirConfig,
    storage: &dyn Storage,
    dirty: &mut Vec<SyncLater>,
    dirs: impl IntoIterator<Item = PathBuf>,
) -> Result<(), StorageFailure> {
    dirty.extend(dirs.into_iter().map(|dir| SyncLater::Dir(dir.into())));
    let workers = if config.threads == Threads::Spawned { WORKERS_PRESSED } else { 1 };
    Ok(checkpointer::sync_all(storage, &[], dirty, workers)?)
}

impl LogDir {
    /// Creates a partition with an empty log. It durably exists once anything that is submitted after it is durable; [`LogDir::flush`] waits for that.
    pub fn create(
        &self,
        id: PartitionId,
        config: LogConfig,
        listener: Arc<dyn DurableListener>,
    ) -> Result<Log, CreateError> {
        let too_long =
            id.topic.is_empty() || id.topic.len() > layout::TOPIC_MAX_BYTES || id.topic.contains(['/', '\0']);
        if too_long || id.partition < 0 {
            return Err(CreateError::Name { topic: id.topic, partition: id.partition });
        }
        let mut leftovers = self.leftovers.lock();
        let dir = self.partition_dir(&id);
        self.clear(&dir, &mut leftovers)?;
        let name = Bytes::copy_from_slice(id.topic.as_bytes());
        let written_through = config.write_through;
        let log = match Log::create(&self.context, &dir, id.clone(), config, listener, (self.clock)()) {
            Err(CreateError::Exists(dir)) => return Err(CreateError::Exists(dir)),
            Err(error) => {
                self.undo_create(dir, &mut leftovers);
                return Err(error);
            }
            Ok(log) => log,
        };
        // After what the log hands over for later, so that the checkpoint that covers this frame covers the directory.
        if let Err(closed) = self.submit(FrameKind::PartitionCreate, &id, name, written_through) {
            drop(log);
            self.undo_create(dir, &mut leftovers);
            return Err(closed.into());
        }
        Ok(log)
    }

    /// Removes what a creation that failed has left. A power cut must not bring it back once another topic has the name.
    fn undo_create(&self, dir: PathBuf, leftovers: &mut Leftovers) {
        leftovers.insert(dir.clone(), Leftover::Created);
        if let Err(error) = self.clear(&dir, leftovers) {
            tracing::warn!(%error, "the directory of a partition that was not created is still there");
        }
    }

    /// Frees the name of a directory that an earlier creation or deletion could not remove.
    fn clear(&self, dir: &Path, leftovers: &mut Leftovers) -> Result<(), CreateError> {
        match leftovers.get(dir) {
            None => return Ok(()),
            Some(Leftover::Unsynced) => return Err(CreateError::Exists(dir.to_owned())),
            Some(Leftover::Deleted(topic_id, partition)) => self.move_deleted(dir, *topic_id, *partition)?,
            Some(Leftover::Created) => {
                match self.storage.remove_dir_all(dir) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.at("remove", dir)?,
                }
                let parent = dir.parent().unwrap_or(&self.root);
                if let Err(error) = self.storage.sync_dir(parent) {
                    if !NotOpened::is_in(&error) {
                        // A sync that works after one that failed proves nothing.
                        leftovers.insert(dir.to_owned(), Leftover::Unsynced);
                    }
                    return Err(StorageFailure::new("sync", parent, error).into());
                }
            }
        }
        leftovers.remove(dir);
        Ok(())
    }

    /// Deletes a partition. When this returns the partition is gone for good; its bytes are removed in the background.
    ///
    /// Its `Log` must have been dropped or closed; its readers keep what they have open.
    ///
    /// # Errors
    /// With [`DeleteError::Directory`] the partition is gone for good, and its directory goes before its name is used again.
    pub fn delete(&self, topic_id: Uuid, partition: i32) -> Result<(), DeleteError> {
        let mut leftovers = self.leftovers.lock();
        let key = (topic_id, partition);
        let find = || match self.journal.tracker.lock().get(&key) {
            Some(end) if !end.deleted => {
                Some(PartitionId { topic_id, topic: end.topic.to_string(), partition })
            }
            _ => None,
        };
        let id = match find() {
            Some(id) => id,
            // Its creation may be on its way to the disk.
            None => {
                self.flush()?;
                find().ok_or(DeleteError::Unknown { topic_id, partition })?
            }
        };
        self.submit(FrameKind::PartitionDelete, &id, Bytes::new(), false)?;
        self.flush()?;
        // Only now: a directory that was renamed is removed at the next start.
        let dir = self.partition_dir(&id);
        self.move_deleted(&dir, topic_id, partition).map_err(|failure| {
            leftovers.insert(dir, Leftover::Deleted(topic_id, partition));
            DeleteError::Directory(failure)
        })
    }

    /// Moves the directory of a partition that is durably deleted out of the way, and has it removed.
    fn move_deleted(&self, dir: &Path, topic_id: Uuid, partition: i32) -> Result<(), StorageFailure> {
        // An earlier attempt may have renamed it and failed all the same.
        if self.storage.exists(dir).at("look for", dir)? {
            let to = replay::mark_deleted(&*self.storage, dir, topic_id)?;
            self.crew.housekeeper.remove_dirs([to]);
        }
        self.sync_dir_later(dir.parent().unwrap_or(&self.root));
        self.journal.tracker.lock().forget(&(topic_id, partition));
        Ok(())
    }
}

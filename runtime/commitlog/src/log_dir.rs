//! A data directory: its lock, its identity, its partitions, its journal. Opening one recovers it; nothing below it is touched by anybody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::checkpointer::{self, Outcome};
use crate::error::{IoContext, SinkClosed, StorageFailure};
use crate::id::PartitionId;
use crate::journal::Journal;
use crate::journal::writer::{FailIfUnwinding, Step, Writer};
use crate::shared::LogContext;
use crate::sink::{DurableListener, Frame, FrameClass, FrameKind, FrameMeta, FrameSink, Payload, SyncLater};
use crate::storage::Storage;

mod config;
mod guard;
mod housekeeper;
pub(crate) mod layout;
mod meta;
mod open;
mod partitions;
mod replay;

pub use crate::error::{CloseError, DeleteError, FailureHook, OpenDirError};
pub use crate::journal::JournalStats;
pub use crate::journal::admission::{AppendPermit, PermitWait};
pub use config::{Clock, LogDirConfig, Threads};
pub use guard::{OPEN_FILES_WANTED, OpenFilesLimit, SpaceWatch, raise_open_files_limit};
pub use layout::METADATA_TOPIC;
pub use meta::{FORMAT_VERSION, Meta};
pub use open::Recovery;
pub use partitions::RecoveredPartition;

use guard::DirLock;
use housekeeper::Crew;
use partitions::Leftovers;

/// An open data directory.
///
/// Dropping it stops it at once, as a crash would: what was not durable fails. [`LogDir::close`] stops it in order.
pub struct LogDir {
    root: PathBuf,
    storage: Arc<dyn Storage>,
    meta: Meta,
    journal: Arc<Journal>,
    crew: Arc<Crew>,
    space: Arc<SpaceWatch>,
    recovery: Recovery,
    context: LogContext,
    clock: Clock,
    running: Mutex<Running>,
    /// One creation or deletion at a time.
    leftovers: Mutex<Leftovers>,
    /// Given back by `close`, when nothing here touches the directory any more, whoever still holds this.
    lock: Mutex<Option<DirLock>>,
}

/// Who does the work.
enum Running {
    Threads {
        writer: JoinHandle<()>,
        checkpointer: JoinHandle<()>,
        housekeeper: JoinHandle<()>,
        remover: JoinHandle<()>,
    },
    /// The owner, by [`LogDir::step`].
    ByHand(Box<Writer>),
    Stopped,
}

impl LogDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The directory that has the partitions of topics, absolute.
    pub fn topics_path(&self) -> PathBuf {
        let dir = layout::topics_dir(&self.root);
        // Without a working directory there is nothing to make it absolute with.
        std::path::absolute(&dir).unwrap_or(dir)
    }

    /// Its identity.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What opening it found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Every partition that durably exists, in no order.
    pub fn partitions(&self) -> Vec<PartitionId> {
        let tracker = self.journal.tracker.lock();
        let id = |end: &crate::journal::slot::PartitionEnd| PartitionId {
            topic_id: end.topic_id,
            topic: end.topic.to_string(),
            partition: end.partition,
        };
        tracker.live().map(id).collect()
    }

    /// The directory of a partition.
    pub fn partition_dir(&self, id: &PartitionId) -> PathBuf {
        layout::partition_dir(&self.root, id)
    }

    /// Calls `done` once everything that was submitted so far is durable; from the journal's thread, so it must not block.
    pub fn barrier(&self, done: impl FnOnce(Result<(), StorageFailure>) + Send + 'static) {
        self.journal.barrier(Box::new(done));
    }

    /// Waits until everything that was submitted so far is durable.
    pub fn flush(&self) -> Result<(), StorageFailure> {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.barrier(move |result| {
            // Nobody listens any more only if this thread is gone.
            let _ = tell.send(result);
        });
        self.step_by_hand()?;
        told.recv().unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Makes all segments durable now, and frees the journal. Not needed in normal running.
    pub fn checkpoint(&self) -> Result<(), StorageFailure> {
        match self.crew.checkpoint(false)? {
            Outcome::Done => Ok(()),
            Outcome::Postponed(failure) => Err(failure),
        }
    }

    /// What the journal has done and holds.
    pub fn journal_stats(&self) -> JournalStats {
        self.journal.stats()
    }

    /// Room for an append of about `bytes` bytes for a client, if there is some now: at
    /// `pelton.journal.pending.max.bytes` that are not durable there is none.
    pub fn try_permit(&self, bytes: u64) -> Result<Option<AppendPermit>, SinkClosed> {
        self.journal.queue.try_permit(bytes)
    }

    /// The same, as soon as there is some, in the order in which it was asked for. A failure of the journal ends it.
    pub fn permit(&self, bytes: u64) -> PermitWait {
        self.journal.queue.permit(bytes)
    }

    /// Free space and the reserve below it.
    pub fn space(&self) -> &SpaceWatch {
        &self.space
    }

    /// Why the directory takes nothing any more, if that is so. Final until it is opened again.
    pub fn failure(&self) -> Option<StorageFailure> {
        self.journal.failure()
    }

    /// Where a `Log` of this directory hands its changes.
    pub fn sink(&self) -> Arc<dyn FrameSink> {
        self.journal.clone()
    }

    /// With [`Threads::ByHand`]: writes one group of what waits, takes a checkpoint if one is due, and does the side jobs.
    /// True if there was something to write. With threads it does nothing.
    pub fn step(&self) -> Result<bool, StorageFailure> {
        let mut running = self.running.lock();
        let Running::ByHand(writer) = &mut *running else { return Ok(false) };
        let step = writer.step(false)?;
        if self.crew.signal.take_due() {
            self.crew.checkpoint(false)?;
        }
        self.crew.housekeeper.step_all();
        Ok(step == Step::Wrote)
    }

    fn step_by_hand(&self) -> Result<(), StorageFailure> {
        while self.step()? {}
        Ok(())
    }

    fn stopped(&self) -> StorageFailure {
        let stopped =
            || StorageFailure::new("write", &self.root, std::io::Error::other("the directory was closed"));
        self.failure().unwrap_or_else(stopped)
    }

    /// Stops in order: takes no more frames, makes what was submitted durable, takes a last checkpoint and marks it
    /// as clean, so that the next start has nothing to recover.
    ///
    /// Close the logs before: what they append afterwards is refused.
    pub fn close(&self) -> Result<(), CloseError> {
        let closed = self.close_in_order();
        drop(self.lock.lock().take());
        closed
    }

    fn close_in_order(&self) -> Result<(), CloseError> {
        self.journal.queue.close("the log directory is closing");
        self.step_by_hand()?;
        self.stop_threads();
        if let Some(failure) = self.failure() {
            return Err(failure.into());
        }
        match self.crew.checkpoint(true)? {
            Outcome::Done => Ok(()),
            Outcome::Postponed(failure) => Err(CloseError::NotClean(failure)),
        }
    }

    /// Stops all threads. Those that wait for disk finish what they do first.
    fn stop_threads(&self) {
        match std::mem::replace(&mut *self.running.lock(), Running::Stopped) {
            Running::Threads { writer, checkpointer, housekeeper, remover } => {
                // The writer first: it may need a checkpoint to get room for its last groups.
                let writer = writer.join();
                self.crew.signal.stop();
                self.crew.housekeeper.stop();
                let rest = [checkpointer, housekeeper, remover].map(JoinHandle::join);
                if writer.is_err() || rest.iter().any(Result::is_err) {
                    tracing::error!("a thread of the log directory panicked");
                }
            }
            // Nothing waits after a close in order; otherwise the latch is set, and this fails what waits.
            Running::ByHand(mut writer) => while matches!(writer.step(false), Ok(Step::Wrote)) {},
            Running::Stopped => {}
        }
    }

    /// Submits a frame that belongs to the directory itself.
    fn submit(
        &self,
        kind: FrameKind,
        id: &PartitionId,
        payload: Bytes,
        written_through: bool,
    ) -> Result<(), SinkClosed> {
        let meta = FrameMeta {
            kind,
            topic_id: id.topic_id,
            partition: id.partition,
            base_offset: 0,
            last_offset: -1,
            segment_base: 0,
            position: 0,
            leader_epoch: -1,
        };
        let class = FrameClass::Internal;
        let (payload, listener) = (Payload::Other(payload), Arc::new(Nobody));
        let frame = Frame { meta, class, payload, written_through, file: None, listener };
        self.journal.submit(frame).map(drop)
    }

    fn sync_dir_later(&self, dir: &Path) {
        self.journal.sync_later(SyncLater::Dir(dir.into()));
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        if matches!(*self.running.lock(), Running::Stopped) {
            return;
        }
        self.journal.abandon();
        self.stop_threads();
    }
}

/// Starts the threads of a directory.
fn start_threads(
    root: &Path,
    journal: &Arc<Journal>,
    crew: &Arc<Crew>,
    interval: std::time::Duration,
) -> Result<Running, StorageFailure> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(work).at("start a thread for", root)
    };
    let writer = Writer::new(journal.clone());
    let writer = spawn("pelton-journal", Box::new(move || writer.run()))?;
    let (j, c) = (journal.clone(), crew.clone());
    let checkpoints = move || {
        let _guard = FailIfUnwinding(j.clone());
        checkpointer::run(&j, &c.signal, interval, || c.checkpoint(false));
    };
    let checkpointer = spawn("pelton-checkpt", Box::new(checkpoints))?;
    let c = crew.clone();
    let housekeeper = spawn("pelton-house", Box::new(move || c.housekeeper.run()))?;
    let c = crew.clone();
    let remover = spawn("pelton-remove", Box::new(move || c.housekeeper.run_removals()))?;
    Ok(Running::Threads { writer, checkpointer, housekeeper, remover })
}

/// The listener of frames whose durability a barrier waits for.
struct Nobody;

impl DurableListener for Nobody {
    fn durable(&self, _end_offset: i64) {}
    fn failed(&self, _reason: &StorageFailure) {}
}

#[cfg(test)]
pub(crate) mod tests;

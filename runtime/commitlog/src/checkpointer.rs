//! Makes segments durable behind the journal, at a pace that does not hold up the journal's own writes, and frees ring space.
//! FORMAT.md, "Order of writes", has the steps and why they come in this order.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{IoContext, StorageFailure};
use crate::journal::Journal;
use crate::journal::slot_file::{Checkpoint, SlotFile, StoreError};
use crate::journal::tracker::DirtyFile;
use crate::mutant::Mutant;
use crate::sink::SyncLater;
use crate::storage::PIECE_BYTES;
use crate::storage::{File, NotOpened, OpenMode, Storage};

/// Calls in flight at a time: more put milliseconds in front of the journal's writes.
const WORKERS_PACED: usize = 2;
/// Calls in flight while producers wait, or soon will.
pub(crate) const WORKERS_PRESSED: usize = 8;
/// How long to wait before another try when a checkpoint was postponed.
const POSTPONED_RETRY: Duration = Duration::from_secs(1);

/// Takes checkpoints. One at a time: it owns the slots.
pub(crate) struct Checkpointer {
    journal: Arc<Journal>,
    storage: Arc<dyn Storage>,
    slots: SlotFile,
    /// More than one call to the disk at a time.
    parallel: bool,
}

/// What a checkpoint came to.
pub(crate) enum Outcome {
    /// Everything that was durable in the journal when it began is durable in the segments.
    Done,
    /// There was no room for the slot's list of partitions, or no descriptor for what must be opened. The checkpoint before
    /// still holds, and the next one does what this one could not.
    Postponed(StorageFailure),
}

impl Checkpointer {
    pub(crate) fn new(
        journal: Arc<Journal>,
        storage: Arc<dyn Storage>,
        slots: SlotFile,
        parallel: bool,
    ) -> Checkpointer {
        Checkpointer { journal, storage, slots, parallel }
    }

    /// Takes one checkpoint; `clean` marks it as the last act of this server. A failure is final and latches the journal.
    pub(crate) fn checkpoint(&mut self, clean: bool) -> Result<Outcome, StorageFailure> {
        let result = self.try_checkpoint(clean);
        if let Err(failure) = &result {
            self.journal.fail(failure);
        }
        result
    }

    fn try_checkpoint(&mut self, clean: bool) -> Result<Outcome, StorageFailure> {
        if let Some(failure) = self.journal.failure() {
            return Err(failure);
        }
        // The snapshot first: what is handed over for later before a frame is then covered with it.
        let snapshot = self.journal.tracker.lock().snapshot();
        let later = self.journal.take_later();
        let workers = match (self.parallel, self.journal.is_pressed()) {
            (false, _) => 1,
            (true, false) => WORKERS_PACED,
            (true, true) => WORKERS_PRESSED,
        };
        if !Mutant::CheckpointBeforeSegments.is_on()
            && let Err(failed) = write_out(&snapshot.files, workers)
                .and_then(|()| sync_all(&*self.storage, &snapshot.files, &later, workers))
        {
            return match failed {
                SyncFailed::NotBegun(failure) => {
                    self.journal.tracker.lock().put_back(snapshot.files);
                    self.journal.put_back_later(later);
                    Ok(Outcome::Postponed(failure))
                }
                SyncFailed::Failed(failure) => Err(failure),
            };
        }
        let checkpoint = Checkpoint {
            epoch: self.journal.epoch,
            point: snapshot.point,
            durable_lsn: self.journal.stats().durable_lsn,
            clean,
            ring_files: self.journal.with_ring(|ring| ring.files()),
            ends: &snapshot.ends,
        };
        match self.slots.store(&checkpoint) {
            Ok(_) => {
                // From here on no start replays what is in these files, and a cleaned segment may take the place of one.
                snapshot.files.iter().for_each(|dirty| dirty.file.note_synced(dirty.to));
                self.journal.checkpoint_done(&snapshot.point);
                Ok(Outcome::Done)
            }
            Err(StoreError::Passing(failure)) => {
                self.journal.tracker.lock().put_back(snapshot.files);
                Ok(Outcome::Postponed(failure))
            }
            Err(StoreError::Failed(failure)) => Err(failure),
        }
    }
}

/// Writes what segments do not have yet. Of what went through the page cache, that which does not fit into one piece is
/// written back piece by piece over all files, so that the syncs that follow are short.
fn write_out(files: &[DirtyFile], workers: usize) -> Result<(), SyncFailed> {
    const PIECE: u64 = PIECE_BYTES as u64;
    in_parallel(files, workers, |dirty| {
        dirty.file.write_out(dirty.to).map_err(|error| {
            let failure = named("write", dirty, error);
            // It was reserved, but a file system may not keep its word. The journal has the bytes until there is room.
            if failure.is_passing() { SyncFailed::NotBegun(failure) } else { SyncFailed::Failed(failure) }
        })
    })?;
    let large = files.iter().filter(|dirty| dirty.to - dirty.from > PIECE && dirty.file.take_cached());
    let pieces: Vec<_> = large
        .flat_map(|dirty| {
            let starts = (dirty.from..dirty.to).step_by(PIECE_BYTES);
            starts.map(move |at| (dirty, at, PIECE.min(dirty.to - at)))
        })
        .collect();
    in_parallel(&pieces, workers, |(dirty, at, len)| {
        dirty
            .file
            .write_back(*at, *len)
            .map_err(|error| SyncFailed::Failed(named("write back", dirty, error)))
    })
}

/// Why something was not synced.
pub(crate) enum SyncFailed {
    /// There was no room or no descriptor for it: nothing is lost, and it may be tried again.
    NotBegun(StorageFailure),
    /// What was to be synced is in an unknown state.
    Failed(StorageFailure),
}

impl From<SyncFailed> for StorageFailure {
    fn from(failed: SyncFailed) -> StorageFailure {
        match failed {
            SyncFailed::NotBegun(failure) | SyncFailed::Failed(failure) => failure,
        }
    }
}

/// Syncs dirty files, then what was handed over for later: each file and directory once.
pub(crate) fn sync_all(
    storage: &dyn Storage,
    files: &[DirtyFile],
    later: &[SyncLater],
    workers: usize,
) -> Result<(), SyncFailed> {
    let all: Vec<Target<'_>> = targets(files, later);
    in_parallel(&all, workers, |target| match target {
        Target::Segment(dirty) => {
            dirty.file.sync_data().map_err(|error| SyncFailed::Failed(named("sync", dirty, error)))
        }
        Target::Other(file) => {
            let path = Path::new("index or metadata file of a partition");
            file.sync_data().at("sync", path).map_err(SyncFailed::Failed)
        }
        Target::Named(path) => sync_named(storage, path),
        Target::Dir(dir) => match storage.sync_dir(dir) {
            // The partition or its topic was deleted meanwhile: the deletion has handed over the parent directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if NotOpened::is_in(&error) => {
                Err(SyncFailed::NotBegun(StorageFailure::new("open", dir, error)))
            }
            synced => synced.at("sync", dir).map_err(SyncFailed::Failed),
        },
    })
}

fn sync_named(storage: &dyn Storage, path: &Path) -> Result<(), SyncFailed> {
    match storage.open(path, OpenMode::Write) {
        Ok(file) => file.sync_data().at("sync", path).map_err(SyncFailed::Failed),
        // The partition was deleted meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SyncFailed::NotBegun(StorageFailure::new("open", path, error))),
    }
}

fn named(action: &'static str, dirty: &DirtyFile, error: io::Error) -> StorageFailure {
    StorageFailure::new(action, &dirty.display_path(), error)
}

enum Target<'a> {
    Segment(&'a DirtyFile),
    /// Handles know their file, not its name.
    Other(&'a dyn File),
    Named(&'a Path),
    Dir(&'a Path),
}

/// Everything to sync, each once: files, then directories, parents first. (A directory that was removed and made again
/// is a new one for its parent only once the parent is synced.)
fn targets<'a>(files: &'a [DirtyFile], later: &'a [SyncLater]) -> Vec<Target<'a>> {
    let (mut dirs, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut seen_files = BTreeSet::new();
    let mut is_new = |address: usize| seen_files.insert(address);
    let mut targets = Vec::with_capacity(files.len() + later.len());
    targets.extend(files.iter().filter(|dirty| is_new(Arc::as_ptr(&dirty.file).addr())).map(Target::Segment));
    for item in later {
        match item {
            SyncLater::File(file) if is_new(Arc::as_ptr(file).addr()) => targets.push(Target::Other(&**file)),
            SyncLater::File(_) => {}
            SyncLater::Named(path) => {
                names.insert(&**path);
            }
            SyncLater::Dir(dir) => {
                dirs.insert(&**dir);
            }
        }
    }
    targets.extend(names.into_iter().map(Target::Named));
    targets.extend(dirs.into_iter().map(Target::Dir));
    targets
}

/// Runs `act` on every item, `workers` at a time. The first failure ends it.
fn in_parallel<T: Sync, E: Send>(
    items: &[T],
    workers: usize,
    act: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        while failure.lock().is_none()
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = act(item) {
                failure.lock().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// Wakes the checkpointer's thread.
#[derive(Default)]
pub(crate) struct CheckpointSignal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    due: bool,
    stop: bool,
}

impl CheckpointSignal {
    pub(crate) fn set_due(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.due, true) {
            self.changed.notify_one();
        }
    }

    /// True if one was asked for since the last call.
    pub(crate) fn take_due(&self) -> bool {
        std::mem::take(&mut self.state.lock().due)
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Sleeps until a checkpoint is due or `interval` is over. False if the thread should end.
    fn wait(&self, interval: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.due && !state.stop {
            self.changed.wait_for(&mut state, interval);
        }
        state.due = false;
        !state.stop
    }
}

/// Takes checkpoints when they are due, at the latest every `interval`, until told to stop or until one fails for good.
pub(crate) fn run(
    journal: &Journal,
    signal: &CheckpointSignal,
    interval: Duration,
    checkpoint: impl Fn() -> Result<Outcome, StorageFailure>,
) {
    let mut wait = interval;
    while signal.wait(wait) {
        if !journal.is_dirty() {
            continue;
        }
        wait = match checkpoint() {
            Ok(Outcome::Done) => interval,
            Ok(Outcome::Postponed(failure)) => {
                tracing::warn!(%failure, "checkpoint postponed");
                POSTPONED_RETRY.min(interval)
            }
            Err(_) => break,
        };
    }
}

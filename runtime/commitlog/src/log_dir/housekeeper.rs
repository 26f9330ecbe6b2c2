//! What a log directory does on the side: grows the ring, watches the free space; and on another thread, removes deleted
//! partitions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::guard::SpaceWatch;
use super::layout;
use crate::checkpointer::{CheckpointSignal, Checkpointer, Outcome};
use crate::error::StorageFailure;
use crate::journal::ring_file::RingFile;
use crate::journal::slot::RING_FILES_MAX;
use crate::journal::{Helpers, Journal};
use crate::storage::Storage;

/// How often the free space is asked for.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait after the ring could not grow.
const GROW_RETRY: Duration = Duration::from_secs(10);
/// The ring has about so many files at its full size: a file is the unit that is freed.
const FILES_AT_MAX: u64 = 16;

/// Does the side jobs of one directory.
pub(crate) struct Housekeeper {
    journal: Arc<Journal>,
    storage: Arc<dyn Storage>,
    root: PathBuf,
    first_file_bytes: u64,
    space: Arc<SpaceWatch>,
    state: Mutex<State>,
    changed: Condvar,
    removals: Mutex<Removals>,
    more_to_remove: Condvar,
}

#[derive(Default)]
struct State {
    grow: bool,
    /// Growing failed or there is no room: not before this.
    grow_after: Option<Instant>,
    /// The ring has its full size.
    full_size: bool,
    stop: bool,
}

/// Directories of deleted partitions that are to be removed. Their number is bounded by that of the partitions.
#[derive(Default)]
struct Removals {
    dirs: Vec<PathBuf>,
    stop: bool,
}

impl Housekeeper {
    pub(crate) fn new(
        journal: Arc<Journal>,
        storage: Arc<dyn Storage>,
        root: &Path,
        first_file_bytes: u64,
        space: Arc<SpaceWatch>,
    ) -> Housekeeper {
        let root = root.to_owned();
        Housekeeper {
            journal,
            storage,
            root,
            first_file_bytes,
            space,
            state: Mutex::default(),
            changed: Condvar::new(),
            removals: Mutex::default(),
            more_to_remove: Condvar::new(),
        }
    }

    pub(crate) fn ask_to_grow(&self) {
        let mut state = self.state.lock();
        if !state.full_size && !std::mem::replace(&mut state.grow, true) {
            self.changed.notify_one();
        }
    }

    /// Has these directories removed.
    pub(crate) fn remove_dirs(&self, dirs: impl IntoIterator<Item = PathBuf>) {
        self.removals.lock().dirs.extend(dirs);
        self.more_to_remove.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
        self.removals.lock().stop = true;
        self.more_to_remove.notify_one();
    }

    /// Removes directories until it is told to stop. A large one takes the disk seconds, and producers may wait for the
    /// ring to grow meanwhile, so this has a thread of its own.
    pub(crate) fn run_removals(&self) {
        loop {
            let dir = {
                let mut removals = self.removals.lock();
                while removals.dirs.is_empty() && !removals.stop {
                    self.more_to_remove.wait(&mut removals);
                }
                if removals.stop {
                    // What is left is found by the next start.
                    return;
                }
                removals.dirs.pop()
            };
            dir.iter().for_each(|dir| self.remove(dir));
        }
    }

    fn remove(&self, dir: &Path) {
        if let Err(error) = self.storage.remove_dir_all(dir) {
            // Not lost: the next start finds it by its name.
            tracing::warn!(%error, "cannot remove `{}`", dir.display());
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn run(&self) {
        loop {
            {
                let mut state = self.state.lock();
                if !state.grow && !state.stop {
                    self.changed.wait_for(&mut state, SPACE_INTERVAL);
                }
                if state.stop {
                    return;
                }
            }
            self.step();
        }
    }

    /// Does what there is to do now, on this thread.
    pub(crate) fn step_all(&self) {
        self.step();
        let dirs = std::mem::take(&mut self.removals.lock().dirs);
        dirs.iter().for_each(|dir| self.remove(dir));
    }

    fn step(&self) {
        self.space.refresh(&*self.storage, &self.root);
        if std::mem::take(&mut self.state.lock().grow) {
            self.grow();
        }
    }

    /// Adds a file to the ring, unless it is as large as it may get or the disk has no room for it.
    fn grow(&self) {
        let now = Instant::now();
        if self.state.lock().grow_after.is_some_and(|after| now < after) {
            return;
        }
        let max = self.journal.settings.max_bytes;
        let (capacity, count, number) =
            self.journal.with_ring(|ring| (ring.capacity(), ring.file_count(), ring.next_number()));
        let Some(len) = next_file_bytes(capacity, count, max, self.first_file_bytes) else {
            self.state.lock().full_size = true;
            return;
        };
        if self.space.free_bytes() < len.saturating_add(self.space.reserve_bytes()) {
            self.state.lock().grow_after = Some(now + GROW_RETRY);
            return;
        }
        match RingFile::create(&*self.storage, &layout::journal_dir(&self.root), number, len) {
            Ok(file) => self.journal.with_ring(|ring| ring.add(Arc::new(file))),
            Err(failure) => {
                // Nothing was promised yet about this file. The ring goes on with what it has.
                tracing::warn!(%failure, "the journal could not grow");
                self.state.lock().grow_after = Some(now + GROW_RETRY);
            }
        }
    }
}

/// Length of the file that makes the ring larger: it doubles, up to files of a sixteenth of its full size. `None` at the full size.
fn next_file_bytes(capacity: u64, count: usize, max: u64, first: u64) -> Option<u64> {
    let largest = (max / FILES_AT_MAX).max(first);
    let len = capacity.clamp(first, largest).min(max.saturating_sub(capacity));
    (len >= first && count < RING_FILES_MAX).then_some(len)
}

/// The threads that work for the journal besides its own.
pub(crate) struct Crew {
    pub(crate) checkpointer: Mutex<Checkpointer>,
    pub(crate) signal: CheckpointSignal,
    pub(crate) housekeeper: Housekeeper,
    /// False: nothing runs by itself, the caller's thread does what is asked for.
    pub(crate) threads: bool,
}

impl Helpers for Crew {
    fn checkpoint_due(&self, urgent: bool) {
        if self.threads || !urgent {
            self.signal.set_due();
        } else if let Err(failure) = self.checkpoint(false) {
            tracing::error!(%failure, "checkpoint failed");
        }
    }

    fn grow(&self) {
        self.housekeeper.ask_to_grow();
        if !self.threads {
            self.housekeeper.step_all();
        }
    }
}

impl Crew {
    pub(crate) fn checkpoint(&self, clean: bool) -> Result<Outcome, StorageFailure> {
        self.checkpointer.lock().checkpoint(clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_doubles_and_then_grows_by_equal_files() {
        const MIB: u64 = 1 << 20;
        let grow_all = |max: u64, first: u64| {
            let mut files = vec![first];
            while let Some(len) = next_file_bytes(files.iter().sum(), files.len(), max, first) {
                files.push(len);
            }
            files.iter().map(|len| len / MIB).collect::<Vec<_>>()
        };
        let files = grow_all(1024 * MIB, 4 * MIB);
        assert_eq!(files[..7], [4, 4, 8, 16, 32, 64, 64]);
        assert_eq!(files.iter().sum::<u64>(), 1024);
        assert!(files.len() <= 24);
        assert_eq!(grow_all(4 * MIB, 4 * MIB), [4]);
        assert_eq!(grow_all(10 * MIB, 4 * MIB), [4, 4], "what is left is too small for a file");
        assert_eq!(grow_all(MIB, 4 * MIB), [4]);
        assert!(grow_all(1 << 40, 4 * MIB).len() < RING_FILES_MAX);
    }
}

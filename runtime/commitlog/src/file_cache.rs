//! Open files of all logs, in a bounded number: what was used least recently is closed first.
//!
//! A partition's active `.log` file does not count: its log holds it. A reader that got a file keeps it open
//! until it drops it, whatever happens here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::names::FileKind;
use crate::storage::File;

/// Names a file for the cache: a segment's number in this process, and which of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileKey {
    pub(crate) segment: u64,
    pub(crate) kind: FileKind,
}

/// Open files of all logs of a process.
pub struct FileCache {
    limit: usize,
    next_segment: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<FileKey, (u64, Arc<dyn File>)>,
    /// Keys by last use; `files` holds the same numbers.
    by_use: BTreeMap<u64, FileKey>,
    uses: u64,
}

impl FileCache {
    /// A cache of at most `limit` files, at least 1.
    pub fn new(limit: usize) -> FileCache {
        FileCache { limit: limit.max(1), next_segment: AtomicU64::new(0), state: Mutex::default() }
    }

    /// Files that are open now.
    pub fn open_files(&self) -> usize {
        self.state.lock().files.len()
    }

    /// A number for a segment that no other segment of this process has.
    pub(crate) fn number_segment(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    /// The open file of this key, opened now if it is not open.
    pub(crate) fn get(
        &self,
        key: FileKey,
        open: impl FnOnce() -> io::Result<Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.state.lock().touch(key) {
            return Ok(file);
        }
        // Opened outside of the lock: a slow disk must not stop readers of other files. Two threads may
        // open the same file; the second handle replaces the first, which lives as long as its user.
        let file = open()?;
        let closed = self.state.lock().insert(key, file.clone(), self.limit);
        drop(closed);
        Ok(file)
    }

    /// Closes the files of a segment that is about to go, or whose files were replaced.
    pub(crate) fn forget(&self, segment: u64) {
        let mut closed = Vec::new();
        let mut state = self.state.lock();
        for kind in
            [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex, FileKind::Snapshot]
        {
            closed.extend(state.remove(FileKey { segment, kind }));
        }
        drop(state);
    }
}

impl State {
    fn touch(&mut self, key: FileKey) -> Option<Arc<dyn File>> {
        self.uses += 1;
        let (last_use, file) = self.files.get_mut(&key)?;
        self.by_use.remove(last_use);
        *last_use = self.uses;
        self.by_use.insert(self.uses, key);
        Some(file.clone())
    }

    /// What had to be closed is returned, so that the caller closes it without the lock.
    fn insert(&mut self, key: FileKey, file: Arc<dyn File>, limit: usize) -> Vec<Arc<dyn File>> {
        let mut closed: Vec<_> = self.remove(key).into_iter().collect();
        self.uses += 1;
        self.files.insert(key, (self.uses, file));
        self.by_use.insert(self.uses, key);
        while self.files.len() > limit {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            closed.extend(self.files.remove(&oldest).map(|(_, file)| file));
        }
        closed
    }

    fn remove(&mut self, key: FileKey) -> Option<Arc<dyn File>> {
        let (last_use, file) = self.files.remove(&key)?;
        self.by_use.remove(&last_use);
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::sim::Call;
    use crate::storage::{OpenMode, SimStorage, Storage};

    #[test]
    fn the_least_recently_used_file_is_closed() {
        let disk = SimStorage::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        disk.open(path, OpenMode::Create).unwrap();
        let cache = FileCache::new(2);
        let key = |segment| FileKey { segment, kind: FileKind::Log };
        let opens_of = |segment| {
            let before = disk.calls(Call::Open);
            cache.get(key(segment), || disk.open(path, OpenMode::Read)).unwrap();
            disk.calls(Call::Open) - before
        };
        let script = [(1, 1), (2, 1), (1, 0), (3, 1), (1, 0), (2, 1), (3, 1), (1, 1)];
        for (step, (segment, opens)) in script.into_iter().enumerate() {
            assert_eq!(opens_of(segment), opens, "step {step}");
            assert!(cache.open_files() <= 2);
        }
        cache.forget(1);
        assert_eq!(cache.open_files(), 1);
        assert_eq!(opens_of(1), 1);
    }

    #[test]
    fn a_failed_open_is_passed_on() {
        let cache = FileCache::new(1);
        let key = FileKey { segment: cache.number_segment(), kind: FileKind::Index };
        let result = cache.get(key, || Err(io::ErrorKind::NotFound.into()));
        assert_eq!(result.err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(cache.open_files(), 0);
    }
}

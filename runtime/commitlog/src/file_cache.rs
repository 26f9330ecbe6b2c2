//! Open files of all logs, in a bounded number: what was used least recently is closed first.
//!
//! A partition's active `.log` file does not count: its log holds it. A reader that got a file keeps it open
//! until it drops it, whatever happens here.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
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
    next_segment: AtomicU64,
    files: Mutex<LruCache<FileKey, Arc<dyn File>>>,
}

impl FileCache {
    /// A cache of at most `limit` files, at least 1.
    pub fn new(limit: usize) -> FileCache {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        // It grows with what is opened: the limit may be all descriptors of the process.
        let mut files = LruCache::unbounded();
        files.resize(limit);
        FileCache { next_segment: AtomicU64::new(0), files: Mutex::new(files) }
    }

    /// Files that are open now.
    pub fn open_files(&self) -> usize {
        self.files.lock().len()
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
        if let Some(file) = self.files.lock().get(&key) {
            return Ok(file.clone());
        }
        // Opened outside of the lock: a slow disk must not stop readers of other files. Two threads may
        // open the same file; the second handle replaces the first, which lives as long as its user.
        let file = open()?;
        // What leaves is closed without the lock.
        let closed = self.files.lock().push(key, file.clone());
        drop(closed);
        Ok(file)
    }

    /// Closes the files of a segment that is about to go, or whose files were replaced.
    pub(crate) fn forget(&self, segment: u64) {
        let mut closed = Vec::new();
        let mut files = self.files.lock();
        for kind in
            [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex, FileKind::Snapshot]
        {
            closed.extend(files.pop(&FileKey { segment, kind }));
        }
        drop(files);
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

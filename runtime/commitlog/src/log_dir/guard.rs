//! What keeps a directory safe from its surroundings: the lock file, the limit on open files, the free-space watch.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::OpenDirError;
use crate::error::{IoContext, StorageFailure};
use crate::storage::{File, OpenMode, Space, Storage};

/// Open files that a server with a few thousand partitions needs; fewer are said at start.
pub const OPEN_FILES_WANTED: u64 = 65_536;

/// Holds the lock of a directory until it is dropped, or the process ends.
pub(crate) struct DirLock {
    _file: Arc<dyn File>,
}

impl DirLock {
    /// Takes the lock. Fails with `Locked` if another process holds it.
    pub(crate) fn take(storage: &dyn Storage, root: &Path) -> Result<DirLock, OpenDirError> {
        let path = root.join("lock");
        let file = storage.open(&path, OpenMode::Create).at("open", &path)?;
        if let Some(fd) = file.fd() {
            match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenDirError::Locked(path)),
                Err(errno) => return Err(StorageFailure::new("lock", &path, errno.into()).into()),
            }
        }
        Ok(DirLock { _file: file })
    }
}

/// The process's limit on open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFilesLimit {
    /// What it was before.
    pub before: u64,
    /// What it is now.
    pub now: u64,
}

/// Raises the soft limit on open files to the hard one, and says if that is little.
pub fn raise_open_files_limit() -> OpenFilesLimit {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, before, "cannot raise the limit on open files");
            before
        }
    };
    if now < OPEN_FILES_WANTED {
        tracing::warn!(
            now,
            wanted = OPEN_FILES_WANTED,
            "few open files are allowed: raise LimitNOFILE in the service's unit, or `ulimit -Hn`"
        );
    }
    OpenFilesLimit { before, now }
}

/// Free space below the directory, asked once an interval.
#[derive(Debug)]
pub struct SpaceWatch {
    free: AtomicU64,
    total: AtomicU64,
    reserve: u64,
}

impl SpaceWatch {
    pub(crate) fn new(reserve: u64) -> SpaceWatch {
        SpaceWatch { free: AtomicU64::new(u64::MAX), total: AtomicU64::new(u64::MAX), reserve }
    }

    /// Asks the file system.
    pub(crate) fn refresh(&self, storage: &dyn Storage, root: &Path) {
        match storage.space(root) {
            Ok(Space { free_bytes: free, total_bytes: total }) => {
                self.total.store(total, Ordering::Relaxed);
                let was_low = self.free.swap(free, Ordering::Relaxed) < self.reserve;
                match (was_low, free < self.reserve) {
                    (false, true) => tracing::warn!(free, reserve = self.reserve, "the disk is nearly full"),
                    (true, false) => tracing::info!(free, "there is room on the disk again"),
                    (false, false) | (true, true) => {}
                }
            }
            Err(error) => tracing::warn!(%error, "cannot ask for the free space of `{}`", root.display()),
        }
    }

    /// Bytes that were free when it was last asked, at most a second ago.
    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Bytes of the whole file system.
    pub fn total_bytes(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes that are kept for coordinators and for deletion (`pelton.disk.free.min`).
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve
    }

    /// True if only coordinators and deletion may still write.
    pub fn is_low(&self) -> bool {
        self.free_bytes() < self.reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{DiskStorage, SimStorage};

    #[test]
    fn two_never_hold_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(&DiskStorage, dir.path()).unwrap();
        let error = DirLock::take(&DiskStorage, dir.path()).err().unwrap();
        assert!(matches!(&error, OpenDirError::Locked(path) if path.ends_with("lock")), "{error}");
        drop(first);
        assert!(DirLock::take(&DiskStorage, dir.path()).is_ok());
    }

    #[test]
    fn the_limit_on_open_files_never_falls() {
        let limit = raise_open_files_limit();
        assert!(limit.now >= limit.before);
        assert_eq!(raise_open_files_limit().before, limit.now);
    }

    #[test]
    fn space_below_the_reserve_is_low() {
        let storage = SimStorage::new();
        let watch = SpaceWatch::new(1000);
        assert!(!watch.is_low(), "before the first question nobody is refused");
        for (capacity, low) in [(5000, false), (999, true), (1000, false)] {
            storage.set_capacity(Some(capacity));
            watch.refresh(&storage, Path::new("/"));
            assert_eq!((watch.is_low(), watch.free_bytes()), (low, capacity));
            assert_eq!(watch.total_bytes(), capacity);
        }
    }
}

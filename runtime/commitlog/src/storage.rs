//! The seam between the log and the disk. Everything the log does to files goes through these two
//! traits, so that a test can lose unsynced bytes, tear writes, fill the disk or fail the n-th call.

mod aligned;
pub mod disk;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

pub(crate) use aligned::AlignedBuf;
pub use disk::DiskStorage;
#[cfg(any(test, feature = "testing"))]
pub use sim::SimStorage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes through the page cache.
    Write,
    /// Created if absent; reads and writes through the page cache.
    Create,
    /// Must exist; `O_DIRECT | O_DSYNC`: a write that returned is durable. Buffers, positions and lengths
    /// are multiples of [`DIRECT_ALIGN`].
    DirectSync,
}

/// Alignment that [`OpenMode::DirectSync`] asks of memory, positions and lengths, in bytes.
pub const DIRECT_ALIGN: usize = 4096;

/// Bytes of one buffered write or write-back: larger ones hold up the journal's own writes on the same disk for
/// milliseconds, smaller ones cost more calls.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// A place that keeps files. Paths are absolute.
pub trait Storage: Send + Sync {
    /// Opens a file. `DirectSync` answers `ErrorKind::Unsupported` where the file system has no direct I/O.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents. Not durable before [`Storage::sync_dir`] of each parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name, whole paths.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// True if the path is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Atomic rename. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this directory durable. The error holds a [`NotOpened`] where nothing was
    /// tried.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How much room the file system of this path has.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub total_bytes: u64,
}

/// Inside of an error: what was to be opened for a call could not be, so the call has changed nothing.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotOpened(pub io::Error);

impl NotOpened {
    /// The same error, with this inside.
    pub fn wrap(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), NotOpened(error))
    }

    fn within(error: &io::Error) -> Option<&io::Error> {
        let inner = error.get_ref()?.downcast_ref::<NotOpened>();
        inner.map(|NotOpened(inner)| inner)
    }

    /// Whether there is one inside.
    pub(crate) fn is_in(error: &io::Error) -> bool {
        NotOpened::within(error).is_some()
    }

    /// The number that the system gave, inside or not.
    pub(crate) fn errno(error: &io::Error) -> Option<i32> {
        NotOpened::within(error).unwrap_or(error).raw_os_error()
    }
}

/// An open file. All calls are positional, so one handle serves a writer and many readers.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length of a file is a call that can fail, not a collection"
)]
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `position`; 0 means end of file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `position`, or fails: an unknown prefix may then be there.
    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync_data(&self) -> io::Result<()>;
    /// Starts and waits for write-back of a range. Not a durability promise: it only spreads the work of a
    /// later `sync_data`.
    fn write_back(&self, position: u64, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends with zeros. What was reserved beyond `len` is given back.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes room on the disk for the bytes up to `position + len` without changing the length of the file, so that a write
    /// there finds it. `ErrorKind::Unsupported` where the file system cannot.
    fn reserve(&self, _position: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Another handle to this very file, whatever its name is by now, whose writes go past the page cache: buffers, positions
    /// and lengths are multiples of [`DIRECT_ALIGN`], and a write is durable after `sync_data`. `ErrorKind::Unsupported`
    /// where there is no direct I/O.
    fn direct(&self) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Starts to read a range into the page cache, unless the middle of it is there already, and does not wait for it: who
    /// reads on finds it there. It may wait to hand the reads to the disk. What a storage cannot do ahead it does when it is
    /// read.
    fn will_need(&self, _position: u64, _len: u64) {}
    /// The descriptor to `sendfile` from, where there is one.
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>>;
}

/// How much is read ahead of a reader that was just given `len` bytes: enough that the disk works while they are used, and
/// little for who takes little of many files.
pub fn ahead_of(len: u64) -> u64 {
    const TIMES: u64 = 4;
    const MAX_BYTES: u64 = 8 << 20;
    (len * TIMES).min(MAX_BYTES)
}

/// Fills `buf` from `position`, or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

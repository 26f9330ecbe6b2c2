//! Whether a range of a file is in the page cache, so that `sendfile` on the runtime's threads never waits for a disk.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that the kernel caches as one unit at least.
const PAGE: u64 = 4096;

/// `cachestat` in the system call table that all architectures share since it came (Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// True when every page of the range is cached. False when one is not, or when the kernel cannot tell.
pub(crate) fn is_resident(file: BorrowedFd<'_>, position: u64, len: u64) -> bool {
    // A kernel that refused once (before 6.5, or a sandbox) will refuse always.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if len == 0 {
        return true;
    }
    if REFUSED.load(Ordering::Relaxed) {
        return false;
    }
    match cached_pages(file, position, len) {
        Some(cached) => {
            let pages = (position + len).div_ceil(PAGE) - position / PAGE;
            cached >= pages
        }
        None => {
            REFUSED.store(true, Ordering::Relaxed);
            false
        }
    }
}

/// Pages of the range that are cached, or `None` when the call is not there.
#[expect(unsafe_code, reason = "no safe wrapper of cachestat exists yet")]
fn cached_pages(file: BorrowedFd<'_>, position: u64, len: u64) -> Option<u64> {
    let range = CachestatRange { off: position, len };
    let mut stat = Cachestat::default();
    // SAFETY: both structs are `repr(C)` with the layout of `include/uapi/linux/mman.h` and live across the call; the
    // kernel reads `range`, writes at most `size_of::<Cachestat>()` bytes to `stat`, and keeps neither pointer. The
    // descriptor is borrowed, so it is open. The last argument, flags, must be 0.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            std::ptr::from_ref(&range),
            std::ptr::from_mut(&mut stat),
            0,
        )
    };
    (result == 0).then_some(stat.nr_cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_just_written_is_resident_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3 * PAGE as usize + 1]).unwrap();
        if cached_pages(file.as_fd(), 0, 1).is_none() {
            assert!(!is_resident(file.as_fd(), 0, 1), "an old kernel cannot tell");
            return;
        }
        assert!(is_resident(file.as_fd(), 0, 3 * PAGE + 1));
        assert!(is_resident(file.as_fd(), PAGE - 1, 2));
        file.set_len(64 * PAGE).unwrap();
        assert!(!is_resident(file.as_fd(), 0, 64 * PAGE));
    }
}

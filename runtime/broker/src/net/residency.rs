//! Whether a range of a file is in the page cache, so that `sendfile` on the runtime's threads never waits for a disk.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::ReadWriteFlags;

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
    // A kernel that refused once (older than 6.5, or a sandbox) always refuses.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if len == 0 {
        return true;
    }
    if !REFUSED.load(Ordering::Relaxed) {
        if let Some(cached) = cached_pages(file, position, len) {
            return cached >= pages(position, len).count() as u64;
        }
        REFUSED.store(true, Ordering::Relaxed);
    }
    reads_without_waiting(file, position, len)
}

/// The positions at which the pages of a range begin.
fn pages(position: u64, len: u64) -> impl Iterator<Item = u64> {
    let (first, end) = (position / PAGE, (position + len).div_ceil(PAGE));
    (first..end).map(|page| page * PAGE)
}

/// Whether a byte of every page of the range can be read without waiting, as the kernel finds when it is asked to give
/// up rather than wait (Linux 4.14; file systems without that say so, and are never resident). Measured: 0.2 ms a MiB,
/// a little less than reading all of it.
pub(crate) fn reads_without_waiting(file: BorrowedFd<'_>, position: u64, len: u64) -> bool {
    pages(position, len).all(|page| {
        let mut byte = [0];
        let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], page, ReadWriteFlags::NOWAIT);
        // 0: behind the end of the file, which `sendfile` finds out at once.
        read.is_ok()
    })
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

    /// A way to ask, and whether it can tell on this kernel.
    type Way = (&'static str, fn(BorrowedFd<'_>, u64, u64) -> bool);

    fn by_cachestat(file: BorrowedFd<'_>, position: u64, len: u64) -> bool {
        cached_pages(file, position, len) == Some(pages(position, len).count() as u64)
    }

    /// The ways that this kernel and file system have. Reading is there wherever Linux is not older than 4.14 and the
    /// file system is one that a log is kept on.
    fn ways(file: BorrowedFd<'_>) -> Vec<Way> {
        let mut ways: Vec<Way> = vec![("reading", reads_without_waiting), ("either", is_resident)];
        if cached_pages(file, 0, 1).is_some() {
            ways.push(("cachestat", by_cachestat));
        }
        ways
    }

    #[test]
    fn a_file_just_written_is_resident() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3 * PAGE as usize + 1]).unwrap();
        for (way, ask) in ways(file.as_fd()) {
            for (position, len) in [(0, 3 * PAGE + 1), (PAGE - 1, 2), (0, 1), (3 * PAGE, 1)] {
                assert!(ask(file.as_fd(), position, len), "{way}: {len} bytes from {position}");
            }
        }
    }

    #[test]
    fn a_cold_page_makes_a_range_cold() {
        // The kernel may cache 2 MiB as one unit: no larger ones, and none across the middle.
        const HALF: u64 = 2 << 20;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 2 * HALF as usize]).unwrap();
        file.sync_all().unwrap();
        // What is asked for is read, and nothing ahead of it.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        let all_warm = || cached_pages(file.as_fd(), 0, HALF).is_none_or(|cached| cached == HALF / PAGE);
        // Those that read last: reading brings pages in.
        for (way, ask) in ways(file.as_fd()).into_iter().rev() {
            let len = std::num::NonZeroU64::new(HALF);
            rustix::fs::fadvise(&file, HALF, len, rustix::fs::Advice::DontNeed).unwrap();
            if cached_pages(file.as_fd(), HALF, HALF).is_some_and(|cached| cached > 0) {
                // A file system that lives in memory: nothing is ever cold.
                return;
            }
            // First, while nobody has read anything since. Asking by reading starts to read a page that is cold, and on a busy
            // machine one may have come before the kernel looks again; all of them do not.
            let end = if way == "cachestat" { HALF + PAGE } else { 2 * HALF };
            assert!(!ask(file.as_fd(), PAGE, end - PAGE), "{way}: from the warm half into the cold one");
            // A machine that is short of memory may have taken pages of the warm half.
            let (before, warm, after) = (all_warm(), ask(file.as_fd(), 0, HALF), all_warm());
            assert!(warm || !(before && after), "{way}: the warm half");
        }
    }

    #[test]
    fn what_has_no_pages_is_not_resident() {
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(!reads_without_waiting(pipe.as_fd(), 0, 1));
    }
}

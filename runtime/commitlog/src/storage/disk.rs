//! The real disk: plain system calls through the page cache, and `O_DIRECT | O_DSYNC` for the journal.

use std::fs;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{File, NotOpened, OpenMode, Space, Storage};

/// Files of the operating system. Stateless, so one value serves every log directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskStorage;

impl Storage for DiskStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::DirectSync => {
                let flags = OFlags::DIRECT | OFlags::DSYNC;
                options.write(true).custom_flags(flags.bits().cast_signed());
            }
        }
        match options.open(path) {
            Ok(file) => Ok(Arc::new(DiskFile { file })),
            Err(error) if mode == OpenMode::DirectSync => Err(without_direct_io(error)),
            Err(error) => Err(error),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path).map_err(NotOpened::wrap)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
    }
}

/// tmpfs and some overlays refuse O_DIRECT at open with EINVAL.
fn without_direct_io(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput => io::Error::new(io::ErrorKind::Unsupported, error),
        _ => error,
    }
}

struct DiskFile {
    file: fs::File,
}

impl File for DiskFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_back(&self, position: u64, len: u64) -> io::Result<()> {
        sync_file_range(&self.file, position, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, position, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            reserved => Ok(reserved?),
        }
    }

    fn direct(&self) -> io::Result<Arc<dyn File>> {
        // By its descriptor, not by its name: another file may have that by now.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::DIRECT.bits().cast_signed();
        let opened = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        match opened {
            Ok(file) => Ok(Arc::new(DiskFile { file })),
            // Without /proc there is no way to ask.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(without_direct_io(error)),
        }
    }

    fn will_need(&self, position: u64, len: u64) {
        let mut byte = [0];
        let middle = &mut [IoSliceMut::new(&mut byte)];
        let is_there = preadv2(&self.file, middle, position + len / 2, ReadWriteFlags::NOWAIT);
        // 0 bytes: the file ends before. Any error: it would have to wait, or cannot tell.
        if is_there.is_err()
            && let Some(len) = NonZeroU64::new(len)
            && let Err(error) = rustix::fs::fadvise(&self.file, position, Some(len), Advice::WillNeed)
        {
            tracing::debug!(%error, "the file system takes no advice");
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Writes back a range and waits for it. No safe wrapper for this call exists in the libraries we use.
#[cfg(target_os = "linux")]
fn sync_file_range(file: &fs::File, position: u64, len: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let position = i64::try_from(position).map_err(out_of_range)?;
    let len = i64::try_from(len).map_err(out_of_range)?;
    let flags =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes integers only, touches no memory of ours, and the descriptor is open for as
    // long as `file` is borrowed.
    #[expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), position, len, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have no such call: the `sync_data` that follows does all the work at once.
#[cfg(not(target_os = "linux"))]
fn sync_file_range(_file: &fs::File, _position: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{DIRECT_ALIGN, read_exact_at};

    #[test]
    fn files_are_written_cut_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage;
        let sub = dir.path().join("a/b");
        storage.create_dir_all(&sub).unwrap();
        let path = sub.join("one");
        assert_eq!(storage.open(&path, OpenMode::Read).err().unwrap().kind(), io::ErrorKind::NotFound);
        let file = storage.open(&path, OpenMode::Create).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.write_back(0, 8).unwrap();
        file.sync_data().unwrap();
        storage.sync_dir(&sub).unwrap();
        let mut buf = [9; 8];
        read_exact_at(&*file, &mut buf, 0).unwrap();
        assert_eq!(&buf, b"\0\0\0hello");
        // Opening to create again keeps what is there.
        assert_eq!(storage.open(&path, OpenMode::Create).unwrap().len().unwrap(), 8);
        file.set_len(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
        assert_eq!(file.read_at(&mut buf, 4).unwrap(), 0);
        let moved = sub.join("two");
        storage.rename(&path, &moved).unwrap();
        assert_eq!(storage.list(&sub).unwrap(), std::slice::from_ref(&moved));
        assert!(!storage.exists(&path).unwrap());
        storage.remove_file(&moved).unwrap();
        storage.remove_dir_all(&sub).unwrap();
        assert!(!storage.exists(&sub).unwrap());
        let space = storage.space(dir.path()).unwrap();
        assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes, "{space:?}");
        assert!(file.fd().is_some());
    }

    #[test]
    fn what_will_be_needed_comes_without_being_read() {
        const LEN: u64 = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let file = DiskStorage.open(&path, OpenMode::Create).unwrap();
        file.write_all_at(&vec![7; LEN as usize], 0).unwrap();
        file.sync_data().unwrap();
        let fd = file.fd().unwrap();
        // What is asked for is read, and nothing ahead of it.
        rustix::fs::fadvise(fd, 0, None, Advice::Random).unwrap();
        rustix::fs::fadvise(fd, 0, None, Advice::DontNeed).unwrap();
        let is_there = |position: u64| {
            let mut byte = [0];
            preadv2(fd, &mut [IoSliceMut::new(&mut byte)], position, ReadWriteFlags::NOWAIT).is_ok()
        };
        // Asking brings the page that is asked for: each is asked for once.
        let mut pages = (0..LEN / DIRECT_ALIGN as u64).map(|page| page * DIRECT_ALIGN as u64);
        if pages.by_ref().take(3).any(is_there) {
            // A file system that lives in memory: nothing is ever cold.
            return;
        }
        file.will_need(0, LEN);
        let came = pages.step_by(2).any(|position| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            is_there(position)
        });
        assert!(came, "it did not come within 10 s");
        // Past the end of the file there is nothing to ask for.
        file.will_need(LEN, LEN);
    }

    #[test]
    fn direct_writes_work_or_are_refused_as_unsupported() {
        #[repr(align(4096))]
        struct Aligned([u8; DIRECT_ALIGN]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        DiskStorage.open(&path, OpenMode::Create).unwrap().write_all_at(&[0; DIRECT_ALIGN * 2], 0).unwrap();
        match DiskStorage.open(&path, OpenMode::DirectSync) {
            Ok(file) => {
                let page = Aligned([7; DIRECT_ALIGN]);
                file.write_all_at(&page.0, DIRECT_ALIGN as u64).unwrap();
                let mut back = Aligned([0; DIRECT_ALIGN]);
                read_exact_at(&*file, &mut back.0, DIRECT_ALIGN as u64).unwrap();
                assert_eq!(back.0, [7; DIRECT_ALIGN]);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
    }

    #[test]
    fn direct_writes_go_to_the_very_file_and_room_is_kept_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("one"), dir.path().join("two"));
        let file = DiskStorage.open(&path, OpenMode::Create).unwrap();
        match file.reserve(0, 1 << 20) {
            Ok(()) => {
                let free = || DiskStorage.space(dir.path()).unwrap().free_bytes;
                let reserved = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap()) * 512;
                assert!(reserved >= 1 << 20 && free() > 0, "{reserved}");
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        assert_eq!(file.len().unwrap(), 0);
        DiskStorage.rename(&path, &moved).unwrap();
        let other = DiskStorage.open(&path, OpenMode::Create).unwrap();
        let mut page = crate::storage::AlignedBuf::zeroed(DIRECT_ALIGN);
        page.as_mut_slice().fill(7);
        match file.direct() {
            Ok(direct) => {
                direct.write_all_at(page.as_slice(), 0).unwrap();
                file.sync_data().unwrap();
                assert_eq!((file.len().unwrap(), other.len().unwrap()), (DIRECT_ALIGN as u64, 0));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        // The same length: what was reserved beyond it goes.
        let len = file.len().unwrap();
        file.set_len(len).unwrap();
        let kept = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&moved).unwrap()) * 512;
        assert!(kept <= 64 << 10, "{kept}");
    }
}

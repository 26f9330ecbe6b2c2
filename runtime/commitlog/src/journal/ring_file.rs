//! One file of the ring: making it, opening it, and writing groups durably, with direct I/O where there is some.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{IoContext, StorageFailure};
use crate::storage::{AlignedBuf, DIRECT_ALIGN, File, OpenMode, PIECE_BYTES, Storage};

/// A file that was zeroed to its full length, to be overwritten in place for ever.
pub(crate) struct RingFile {
    pub(crate) number: u32,
    pub(crate) len: u64,
    pub(crate) file: SyncFile,
}

/// A file of fixed length in which every write is durable before it returns.
pub(crate) struct SyncFile {
    path: PathBuf,
    file: Arc<dyn File>,
    /// False where the file system has no direct I/O: then writes go through the page cache and are synced.
    direct: bool,
}

impl SyncFile {
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> Result<SyncFile, StorageFailure> {
        let (file, direct) = match storage.open(path, OpenMode::DirectSync) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                (storage.open(path, OpenMode::Write).at("open", path)?, false)
            }
            Err(error) => return Err(StorageFailure::new("open", path, error)),
        };
        Ok(SyncFile { path: path.to_owned(), file, direct })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64, StorageFailure> {
        self.file.len().at("ask the length of", &self.path)
    }

    /// Writes `bytes` and returns when they are durable. A failure is final: what is there is unknown.
    pub(crate) fn write(&self, bytes: &[u8], position: u64) -> Result<(), StorageFailure> {
        if self.direct {
            return self.file.write_all_at(bytes, position).at("write", &self.path);
        }
        let mut at = position;
        for piece in bytes.chunks(PIECE_BYTES) {
            self.file.write_all_at(piece, at).at("write", &self.path)?;
            at += piece.len() as u64;
        }
        self.file.sync_data().at("sync", &self.path)
    }

    /// Makes durable what an earlier process, which was killed, may have left on its way to the disk.
    pub(crate) fn sync(&self) -> Result<(), StorageFailure> {
        self.file.sync_data().at("sync", &self.path)
    }

    /// Fills the buffer from `position`; position and length are multiples of [`DIRECT_ALIGN`]. Answers how many bytes there were.
    pub(crate) fn read(&self, buf: &mut AlignedBuf, position: u64) -> Result<usize, StorageFailure> {
        let buf = buf.as_mut_slice();
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], position + done as u64).at("read", &self.path)? {
                0 => break,
                n => done += n,
            }
            if !done.is_multiple_of(DIRECT_ALIGN) {
                // Only the end of the file gives less than a block.
                break;
            }
        }
        Ok(done)
    }
}

impl RingFile {
    pub(crate) fn path(journal_dir: &Path, number: u32) -> PathBuf {
        journal_dir.join(format!("journal-{number}"))
    }

    /// The number of a ring file, from its name.
    pub(crate) fn number_of(path: &Path) -> Option<u32> {
        let digits = path.file_name()?.to_str()?.strip_prefix("journal-")?;
        let number = digits.parse().ok()?;
        (format!("{number}") == digits && number > 0).then_some(number)
    }

    pub(crate) fn open(
        storage: &dyn Storage,
        journal_dir: &Path,
        number: u32,
    ) -> Result<RingFile, StorageFailure> {
        let file = SyncFile::open(storage, &RingFile::path(journal_dir, number))?;
        // A file that was cut to odd bytes is no ring file any more; its whole blocks can still be read.
        let len = file.len()?;
        Ok(RingFile { number, len, file })
    }

    /// Makes a ring file of `len` zeros; durable, name and all, when this returns. Leaves at most a `.new` file behind if it fails.
    pub(crate) fn create(
        storage: &dyn Storage,
        journal_dir: &Path,
        number: u32,
        len: u64,
    ) -> Result<RingFile, StorageFailure> {
        let path = RingFile::path(journal_dir, number);
        let new = path.with_extension("new");
        if let Err(failure) = create_zeroed(storage, &new, len) {
            // It may hold room that others need. What stays is removed by the next start.
            if let Err(error) = storage.remove_file(&new) {
                tracing::warn!(%error, "cannot remove `{}`", new.display());
            }
            return Err(failure);
        }
        storage.rename(&new, &path).at("rename", &new)?;
        storage.sync_dir(journal_dir).at("sync", journal_dir)?;
        RingFile::open(storage, journal_dir, number)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(number: u32, len: u64) -> RingFile {
        let storage = crate::storage::SimStorage::new();
        let path = Path::new("/journal");
        storage.create_dir_all(Path::new("/")).expect("an empty disk takes a directory");
        let file = storage.open(path, OpenMode::Create).expect("an empty disk takes a file");
        RingFile { number, len, file: SyncFile { path: path.to_owned(), file, direct: true } }
    }
}

/// Makes a file of `len` zeros and syncs it, piece by piece so that nobody else waits long for the disk: past the page cache
/// where that goes, since nobody reads zeros. Its name is not yet durable.
pub(crate) fn create_zeroed(storage: &dyn Storage, path: &Path, len: u64) -> Result<(), StorageFailure> {
    let file = storage.open(path, OpenMode::Create).at("create", path)?;
    let zeros = AlignedBuf::zeroed(PIECE_BYTES);
    let direct = file.direct().ok();
    let mut at = 0;
    while at < len {
        let piece =
            &zeros.as_slice()[..usize::try_from(len - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES))];
        match &direct {
            Some(direct) if piece.len().is_multiple_of(DIRECT_ALIGN) => {
                direct.write_all_at(piece, at).at("write", path)?;
            }
            _ => {
                file.write_all_at(piece, at).at("write", path)?;
                file.write_back(at, piece.len() as u64).at("write back", path)?;
            }
        }
        at += piece.len() as u64;
    }
    file.sync_data().at("sync", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimStorage;

    #[test]
    fn a_ring_file_is_whole_or_not_there() {
        let dir = Path::new("/d/journal");
        for cut in 0.. {
            let storage = SimStorage::new();
            storage.create_dir_all(dir).unwrap();
            for parent in ["/", "/d"] {
                storage.sync_dir(Path::new(parent)).unwrap();
            }
            storage.cut_power_at_sync_point(2 + cut);
            let made = RingFile::create(&storage, dir, 1, 1 << 20);
            let done = made.is_ok();
            storage.crash(cut);
            let there = storage.exists(&RingFile::path(dir, 1)).unwrap();
            if there {
                let file = RingFile::open(&storage, dir, 1).unwrap();
                assert_eq!(file.len, 1 << 20);
                assert!(storage.content(file.file.path()).unwrap().iter().all(|b| *b == 0));
            }
            assert!(there || !done, "power cut at sync point {cut}");
            if done {
                break;
            }
        }
    }

    #[test]
    fn without_direct_io_writes_are_synced() {
        let storage = SimStorage::new();
        storage.refuse_direct_io();
        let dir = Path::new("/");
        storage.create_dir_all(dir).unwrap();
        let file = RingFile::create(&storage, dir, 1, 1 << 20).unwrap();
        let mut page = AlignedBuf::zeroed(DIRECT_ALIGN);
        page.as_mut_slice().fill(7);
        file.file.write(page.as_slice(), 8192).unwrap();
        storage.crash(1);
        let file = RingFile::open(&storage, dir, 1).unwrap();
        let mut back = AlignedBuf::zeroed(3 * DIRECT_ALIGN);
        assert_eq!(file.file.read(&mut back, 0).unwrap(), 3 * DIRECT_ALIGN);
        assert!(back.as_slice()[8192..].iter().all(|b| *b == 7));
    }

    #[test]
    fn names_are_read_strictly() {
        for (name, expect) in [
            ("journal-1", Some(1)),
            ("journal-42", Some(42)),
            ("journal-01", None),
            ("journal-0", None),
            ("journal-1.new", None),
            ("journal-", None),
            ("journal--1", None),
            ("checkpoint", None),
        ] {
            assert_eq!(RingFile::number_of(Path::new("/x").join(name).as_path()), expect, "{name}");
        }
    }
}

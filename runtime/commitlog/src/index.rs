//! Sparse indexes of a segment: fixed-size entries in order, appended to a file that nothing waits for.
//!
//! The entries of an active segment are in memory; those of an older one are searched in the file. An index
//! is a hint: it is written without a sync, and what it says is checked against the log by whoever uses it.
//! Files are only appended to; cutting one makes a new file, so after a crash a file holds a good prefix,
//! then zeros at worst.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{IoContext, StorageFailure};
use crate::file_cache::{FileCache, FileKey};
use crate::names::{TEMPORARY, with_suffix};
use crate::storage::{File, OpenMode, Storage, read_exact_at};

mod offset_index;
mod time_index;

pub(crate) use offset_index::OffsetEntry;
pub(crate) use time_index::TimeEntry;

/// Most bytes of an index file that are taken into memory. `segment.index.bytes` is 10 MiB by default;
/// nothing sensible comes near this.
const MAX_LOADED_BYTES: u64 = 256 << 20;

/// Entries that wait in memory for a write, in bytes. After a crash those of them that a snapshot does not
/// cover come from the batches, so this adds nothing to what recovery reads.
const WRITE_BYTES: usize = 4096;

/// An entry of a fixed size, in the order of its file.
pub(crate) trait Entry: Copy + Send + Sync {
    /// Bytes on disk.
    const BYTES: usize;
    /// Writes the bytes.
    fn put(&self, bytes: &mut Vec<u8>);
    /// Reads `BYTES` bytes.
    fn get(bytes: &[u8]) -> Self;
    /// Whether this may come right after `before`.
    fn follows(&self, before: &Self) -> bool;
}

/// One index file of one segment.
pub(crate) struct Index<E> {
    path: PathBuf,
    key: FileKey,
    state: RwLock<State<E>>,
}

enum State<E> {
    /// All entries are here; the first `written` are in the file.
    Memory { entries: Vec<E>, written: usize, file: Option<Arc<dyn File>> },
    /// The file has them.
    File,
}

/// What indexes need to reach their files.
#[derive(Clone, Copy)]
pub(crate) struct IndexIo<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) files: &'a FileCache,
}

impl<E: Entry> Index<E> {
    /// The index of a new segment: empty, its file not yet made.
    pub(crate) fn create(path: PathBuf, key: FileKey) -> Index<E> {
        let state = State::Memory { entries: Vec::new(), written: 0, file: None };
        Index { path, key, state: RwLock::new(state) }
    }

    /// An index whose entries are in its file, if there is one.
    pub(crate) fn open(path: PathBuf, key: FileKey) -> Index<E> {
        Index { path, key, state: RwLock::new(State::File) }
    }

    /// Bytes that the entries have or will have in the file. Only meaningful while they are in memory; 0
    /// otherwise.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match &*self.state.read() {
            State::Memory { entries, .. } => (entries.len() * E::BYTES) as u64,
            State::File => 0,
        }
    }

    /// Bytes of the file, or that it will have.
    pub(crate) fn file_bytes(&self, io: IndexIo<'_>) -> Result<u64, StorageFailure> {
        match self.memory_bytes() {
            0 => self.file(io)?.map_or(Ok(0), |file| file.len().at("ask the length of", &self.path)),
            bytes => Ok(bytes),
        }
    }

    /// The last entry of those for which `holds` is true. It must be true for a prefix.
    pub(crate) fn last_where(
        &self,
        io: IndexIo<'_>,
        holds: impl Fn(&E) -> bool,
    ) -> Result<Option<E>, StorageFailure> {
        if let State::Memory { entries, .. } = &*self.state.read() {
            let count = entries.partition_point(holds);
            return Ok(count.checked_sub(1).map(|last| entries[last]));
        }
        let Some(file) = self.file(io)? else { return Ok(None) };
        let (mut low, mut high) = (0, self.count(&*file)?);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.read(&*file, middle)?;
            if holds(&entry) {
                found = Some(entry);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// The last entry.
    pub(crate) fn last(&self, io: IndexIo<'_>) -> Result<Option<E>, StorageFailure> {
        if let State::Memory { entries, .. } = &*self.state.read() {
            return Ok(entries.last().copied());
        }
        let Some(file) = self.file(io)? else { return Ok(None) };
        match self.count(&*file)?.checked_sub(1) {
            Some(last) => self.read(&*file, last).map(Some),
            None => Ok(None),
        }
    }

    /// Adds an entry, and writes what is not in the file yet once there is enough of it: a write for every
    /// entry would cost as much as that of the batch. A failure leaves the entry in memory and is tried again
    /// with the next one, so the caller may go on: only look-ups after a restart get slower.
    pub(crate) fn push(&self, io: IndexIo<'_>, entry: E) -> Result<(), StorageFailure> {
        let mut state = self.state.write();
        let State::Memory { entries, written, file } = &mut *state else {
            return Err(self.not_in_memory());
        };
        entries.push(entry);
        if (entries.len() - *written) * E::BYTES < WRITE_BYTES {
            return Ok(());
        }
        self.write_out(io, entries, written, file)
    }

    /// Writes what is not in the file yet and returns the file, if there is any entry.
    pub(crate) fn flush(&self, io: IndexIo<'_>) -> Result<Option<Arc<dyn File>>, StorageFailure> {
        let mut state = self.state.write();
        let State::Memory { entries, written, file } = &mut *state else { return Ok(None) };
        if !entries.is_empty() {
            self.write_out(io, entries, written, file)?;
        }
        Ok(file.clone())
    }

    /// Lets go of the entries in memory, once they are all in the file.
    pub(crate) fn seal(&self) {
        let mut state = self.state.write();
        if let State::Memory { entries, written, .. } = &*state
            && entries.len() == *written
        {
            *state = State::File;
        }
    }

    /// Takes the entries of the file into memory: the longest prefix that is in order and passes `valid`.
    pub(crate) fn load(&self, io: IndexIo<'_>, valid: impl Fn(&E) -> bool) -> Result<Vec<E>, StorageFailure> {
        let Some(file) = self.file(io)? else { return Ok(Vec::new()) };
        // What is beyond is damage, and found not to be in order.
        let count = self.count(&*file)?.min(MAX_LOADED_BYTES / E::BYTES as u64);
        let mut bytes = vec![0; count as usize * E::BYTES];
        read_exact_at(&*file, &mut bytes, 0).at("read", &self.path)?;
        let mut entries: Vec<E> = Vec::with_capacity(count as usize);
        for entry in bytes.chunks_exact(E::BYTES).map(E::get) {
            let in_order = entries.last().is_none_or(|before| entry.follows(before));
            if !in_order || !valid(&entry) {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Makes these the entries, in memory and in the file, which is kept if it has exactly their length. They
    /// must be what [`Index::load`] gave, or start with it.
    pub(crate) fn replace_all(&self, io: IndexIo<'_>, entries: Vec<E>) -> Result<(), StorageFailure> {
        let mut state = self.state.write();
        let file = match io.storage.open(&self.path, OpenMode::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StorageFailure::new("open", &self.path, error)),
        };
        let bytes = match &file {
            Some(file) => file.len().at("ask the length of", &self.path)?,
            None => 0,
        };
        let written = entries.len();
        let file =
            if bytes == (written * E::BYTES) as u64 { file } else { Some(self.write_new(io, &entries)?) };
        *state = State::Memory { entries, written, file };
        Ok(())
    }

    fn write_out(
        &self,
        io: IndexIo<'_>,
        entries: &[E],
        written: &mut usize,
        file: &mut Option<Arc<dyn File>>,
    ) -> Result<(), StorageFailure> {
        let target = match file {
            Some(file) => file,
            None => file.insert(io.storage.open(&self.path, OpenMode::Create).at("create", &self.path)?),
        };
        let mut bytes = Vec::with_capacity((entries.len() - *written) * E::BYTES);
        entries[*written..].iter().for_each(|entry| entry.put(&mut bytes));
        target.write_all_at(&bytes, (*written * E::BYTES) as u64).at("write", &self.path)?;
        *written = entries.len();
        Ok(())
    }

    /// Makes these the entries of an index that is not in memory.
    pub(crate) fn rewrite(&self, io: IndexIo<'_>, entries: &[E]) -> Result<Arc<dyn File>, StorageFailure> {
        let mut state = self.state.write();
        let file = self.write_new(io, entries)?;
        *state = State::File;
        Ok(file)
    }

    fn write_new(&self, io: IndexIo<'_>, entries: &[E]) -> Result<Arc<dyn File>, StorageFailure> {
        let temporary = with_suffix(&self.path, TEMPORARY);
        let file = io.storage.open(&temporary, OpenMode::Create).at("create", &temporary)?;
        file.set_len(0).at("cut", &temporary)?;
        let mut bytes = Vec::with_capacity(entries.len() * E::BYTES);
        entries.iter().for_each(|entry| entry.put(&mut bytes));
        file.write_all_at(&bytes, 0).at("write", &temporary)?;
        io.storage.rename(&temporary, &self.path).at("rename", &temporary)?;
        io.files.forget(self.key.segment);
        Ok(file)
    }

    fn file(&self, io: IndexIo<'_>) -> Result<Option<Arc<dyn File>>, StorageFailure> {
        match io.files.get(self.key, || io.storage.open(&self.path, OpenMode::Read)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageFailure::new("open", &self.path, error)),
        }
    }

    fn count(&self, file: &dyn File) -> Result<u64, StorageFailure> {
        Ok(file.len().at("ask the length of", &self.path)? / E::BYTES as u64)
    }

    fn read(&self, file: &dyn File, number: u64) -> Result<E, StorageFailure> {
        // Large enough for every entry type: see the assertions next to them.
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..E::BYTES];
        read_exact_at(file, bytes, number * E::BYTES as u64).at("read", &self.path)?;
        Ok(E::get(bytes))
    }

    fn not_in_memory(&self) -> StorageFailure {
        StorageFailure::new("change", &self.path, io::Error::other("the index belongs to an older segment"))
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::FileKind;
    use crate::storage::SimStorage;

    struct Rig {
        disk: SimStorage,
        files: FileCache,
        index: Index<OffsetEntry>,
    }

    impl Rig {
        fn new() -> Rig {
            let disk = SimStorage::new();
            disk.create_dir_all(Path::new("/d")).unwrap();
            let key = FileKey { segment: 1, kind: FileKind::Index };
            Rig { disk, files: FileCache::new(4), index: Index::create("/d/i.index".into(), key) }
        }

        fn io(&self) -> IndexIo<'_> {
            IndexIo { storage: &self.disk, files: &self.files }
        }

        fn push(&self, n: u32) -> Result<(), StorageFailure> {
            self.hold(n)?;
            self.index.flush(self.io()).map(drop)
        }

        /// Adds an entry without a write of its own.
        fn hold(&self, n: u32) -> Result<(), StorageFailure> {
            self.index.push(self.io(), OffsetEntry { relative_offset: n * 10 + 9, position: n * 100 })
        }

        fn content(&self) -> Vec<u8> {
            self.disk.content(Path::new("/d/i.index")).unwrap()
        }

        fn check_floor(&self, offset: u32, expect: Option<u32>) {
            let found = self.index.last_where(self.io(), |e| e.relative_offset <= offset).unwrap();
            assert_eq!(found.map(|e| e.position), expect, "offset {offset}");
        }
    }

    #[test]
    fn memory_and_file_find_the_same() {
        let rig = Rig::new();
        rig.check_floor(5, None);
        for n in 0..20 {
            rig.push(n).unwrap();
        }
        assert_eq!(rig.content().len(), 20 * 8);
        for sealed in [false, true] {
            for (offset, expect) in
                [(0, None), (8, None), (9, Some(0)), (18, Some(0)), (19, Some(100)), (999, Some(1900))]
            {
                rig.check_floor(offset, expect);
            }
            assert_eq!(rig.index.last(rig.io()).unwrap().map(|e| e.position), Some(1900));
            assert_eq!(rig.index.memory_bytes(), if sealed { 0 } else { 160 });
            rig.index.seal();
        }
        assert!(rig.push(20).is_err());
    }

    #[test]
    fn entries_are_written_together() {
        let rig = Rig::new();
        let together = u32::try_from(WRITE_BYTES / OffsetEntry::BYTES).unwrap();
        for n in 0..together - 1 {
            rig.hold(n).unwrap();
        }
        rig.disk.content(Path::new("/d/i.index")).unwrap_err();
        rig.check_floor(19, Some(100));
        rig.hold(together - 1).unwrap();
        rig.hold(together).unwrap();
        assert_eq!(rig.content().len(), WRITE_BYTES);
        rig.index.seal();
        rig.check_floor(together * 10 + 9, Some(together * 100));
        rig.index.flush(rig.io()).unwrap();
        assert_eq!(rig.content().len(), WRITE_BYTES + OffsetEntry::BYTES);
    }

    #[test]
    fn a_failed_write_is_made_up_for() {
        let rig = Rig::new();
        rig.push(0).unwrap();
        rig.disk.set_capacity(Some(11));
        rig.push(1).unwrap_err();
        rig.index.seal();
        rig.check_floor(19, Some(100));
        rig.disk.set_capacity(None);
        rig.push(2).unwrap();
        assert_eq!(rig.content().len(), 3 * 8);
        rig.index.seal();
        rig.check_floor(29, Some(200));
    }

    #[test]
    fn a_damaged_file_gives_its_good_prefix() {
        let rig = Rig::new();
        for n in 0..9 {
            rig.push(n).unwrap();
        }
        rig.disk.corrupt(Path::new("/d/i.index"), 5 * 8, |bytes| bytes.fill(0)).unwrap();
        assert_eq!(rig.index.load(rig.io(), |_| true).unwrap().len(), 5);
        assert_eq!(rig.index.load(rig.io(), |e| e.position < 300).unwrap().len(), 3);
        let kept = rig.index.load(rig.io(), |e| e.position < 300).unwrap();
        rig.index.replace_all(rig.io(), kept).unwrap();
        assert_eq!(rig.content().len(), 3 * 8);
        rig.push(7).unwrap();
        assert_eq!(rig.content().len(), 4 * 8);
        rig.index.replace_all(rig.io(), rig.index.load(rig.io(), |_| true).unwrap()).unwrap();
        rig.check_floor(999, Some(700));
        rig.check_floor(30, Some(200));
    }
}

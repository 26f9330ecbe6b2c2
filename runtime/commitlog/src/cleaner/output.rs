//! The files of a cleaned segment, before they are part of the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_wire::record::BatchHeader;

use crate::error::{Corruption, Fault, IoContext, StorageFailure};
use crate::index::{Entry, OffsetEntry, TimeEntry};
use crate::metadata::remove_if_there;
use crate::mutant::Mutant;
use crate::names::SEGMENT_FILES;
use crate::names::{CLEANED, FileKind, file_path, with_suffix};
use crate::segment::{IndexBuilder, LargestTimestamp};
use crate::storage::{File, OpenMode, Storage};
use crate::txn_index::AbortedTxn;

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 512 << 10;

/// The name of a file of the cleaned segment at `base`.
pub(crate) fn cleaned_path(dir: &Path, base: i64, kind: FileKind) -> PathBuf {
    with_suffix(&file_path(dir, base, kind), CLEANED)
}

/// Writes a cleaned segment, batch by batch.
pub(crate) struct Output<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    base: i64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// What is not in the file yet, and where it goes.
    buffer: Vec<u8>,
    written: u64,
    builder: IndexBuilder,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    largest: LargestTimestamp,
    aborted: Vec<AbortedTxn>,
}

/// What a cleaned segment is, once its files are durable.
pub(crate) struct Written {
    pub(crate) len: u64,
    pub(crate) largest: LargestTimestamp,
    pub(crate) aborted: Vec<AbortedTxn>,
}

impl<'a> Output<'a> {
    /// Makes the `.log` file of the cleaned segment at `base`.
    pub(crate) fn create(
        storage: &'a dyn Storage,
        dir: &'a Path,
        base: i64,
        index_interval_bytes: u64,
    ) -> Result<Output<'a>, StorageFailure> {
        let path = cleaned_path(dir, base, FileKind::Log);
        let file = create(storage, &path)?;
        Ok(Output {
            storage,
            dir,
            base,
            path,
            file,
            buffer: Vec::new(),
            written: 0,
            builder: IndexBuilder::new(index_interval_bytes, None),
            offsets: Vec::new(),
            times: Vec::new(),
            largest: LargestTimestamp::NONE,
            aborted: Vec::new(),
        })
    }

    /// Adds a batch.
    pub(crate) fn push(&mut self, batch: &[u8]) -> Result<(), Fault> {
        let position = self.written + self.buffer.len() as u64;
        let header = BatchHeader::parse(batch)
            .map_err(|error| Fault::from(Corruption::new(&self.path, position, error.to_string())))?;
        self.largest.add(&header);
        let new = self.builder.add(self.base, position, &header, self.largest);
        self.offsets.extend(new.offset);
        self.times.extend(new.time);
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Adds an entry of the transaction index.
    pub(crate) fn push_aborted(&mut self, aborted: AbortedTxn) {
        self.aborted.push(aborted);
    }

    fn write(&mut self) -> Result<(), StorageFailure> {
        self.file.write_all_at(&self.buffer, self.written).at("write", &self.path)?;
        // Piece by piece, so that the sync in the end is a short one: others wait behind it.
        let len = self.buffer.len() as u64;
        self.file.write_back(self.written, len).at("write back", &self.path)?;
        self.written += len;
        self.buffer.clear();
        Ok(())
    }

    /// Makes all files durable, but for their names. With `has_txn_index` there is a transaction index even if it is empty, to
    /// take the place of an older one.
    ///
    /// All are written before the first of them is synced: a file system with a journal then has to commit once, not once for
    /// each, and others wait behind each commit.
    pub(crate) fn finish(mut self, has_txn_index: bool) -> Result<Written, StorageFailure> {
        self.write()?;
        self.times.extend(self.builder.time_entry(self.base, self.largest));
        let mut files = vec![(self.path.clone(), Arc::clone(&self.file))];
        files.push(self.write_file(FileKind::Index, &encode(&self.offsets))?);
        files.push(self.write_file(FileKind::TimeIndex, &encode(&self.times))?);
        if has_txn_index || !self.aborted.is_empty() {
            let entries: Vec<u8> = self.aborted.iter().flat_map(AbortedTxn::encode).collect();
            files.push(self.write_file(FileKind::TxnIndex, &entries)?);
        }
        if Mutant::CleanedUnsynced.is_on() {
            files.remove(0);
        }
        for (path, file) in files {
            file.sync_data().at("sync", &path)?;
        }
        Ok(Written { len: self.written, largest: self.largest, aborted: self.aborted })
    }

    /// A file beside the segment's, not synced.
    fn write_file(&self, kind: FileKind, content: &[u8]) -> Result<(PathBuf, Arc<dyn File>), StorageFailure> {
        let path = cleaned_path(self.dir, self.base, kind);
        let file = create(self.storage, &path)?;
        file.write_all_at(content, 0).at("write", &path)?;
        file.write_back(0, content.len() as u64).at("write back", &path)?;
        Ok((path, file))
    }
}

fn create(storage: &dyn Storage, path: &Path) -> Result<Arc<dyn File>, StorageFailure> {
    let file = storage.open(path, OpenMode::Create).at("create", path)?;
    // A clean that was interrupted may have left something.
    file.set_len(0).at("cut", path)?;
    Ok(file)
}

fn encode<E: Entry>(entries: &[E]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * E::BYTES);
    entries.iter().for_each(|entry| entry.put(&mut bytes));
    bytes
}

/// Removes the files of a cleaned segment that is not needed.
pub(crate) fn remove_cleaned(storage: &dyn Storage, dir: &Path, base: i64) -> Result<(), StorageFailure> {
    for kind in SEGMENT_FILES {
        remove_if_there(storage, &cleaned_path(dir, base, kind))?;
    }
    Ok(())
}

//! The aborted transactions of a segment. A log without transactions never makes the file.

use std::sync::Arc;

use super::Segment;
use crate::error::{IoContext, StorageFailure};
use crate::index::IndexIo;
use crate::metadata::read_state;
use crate::names::{FileKind, file_path};
use crate::storage::{File, OpenMode};
use crate::txn_index::{AbortedTxn, ENTRY_BYTES, decode_all};

impl Segment {
    /// The aborted transactions whose marker lies here.
    pub(crate) fn aborted(&self, io: IndexIo<'_>) -> Result<Arc<Vec<AbortedTxn>>, StorageFailure> {
        if let Some(aborted) = &*self.aborted.read() {
            return Ok(aborted.clone());
        }
        let bytes = read_state(io.storage, &self.aborted_path())?.unwrap_or_default();
        let aborted = Arc::new(decode_all(&bytes));
        *self.aborted.write() = Some(aborted.clone());
        Ok(aborted)
    }

    /// Makes ready for [`Segment::add_aborted`]: opens the file, and reads what is in it.
    pub(crate) fn prepare_aborted(&self, io: IndexIo<'_>) -> Result<(), StorageFailure> {
        self.aborted(io)?;
        self.open_aborted(io).map(drop)
    }

    fn open_aborted(&self, io: IndexIo<'_>) -> Result<Arc<dyn File>, StorageFailure> {
        let mut open = self.aborted_file.lock();
        if let Some(file) = &*open {
            return Ok(file.clone());
        }
        let path = self.aborted_path();
        Ok(open.insert(io.storage.open(&path, OpenMode::Create).at("create", &path)?).clone())
    }

    /// Adds an entry. The file is returned, and whether this is its first entry, so that a checkpoint makes both durable, the
    /// bytes and the name.
    pub(crate) fn add_aborted(
        &self,
        io: IndexIo<'_>,
        entry: AbortedTxn,
    ) -> Result<(Arc<dyn File>, bool), StorageFailure> {
        let mut aborted = self.aborted(io)?;
        Arc::make_mut(&mut aborted).push(entry);
        let position = (aborted.len() - 1) * ENTRY_BYTES;
        *self.aborted.write() = Some(aborted);
        let file = self.open_aborted(io)?;
        file.write_all_at(&entry.encode(), position as u64).at("write", &self.aborted_path())?;
        Ok((file, position == 0))
    }

    /// Makes these the entries, in memory and in the file. The first `kept` are there already and are not
    /// touched: a crash in between must not cost what a checkpoint made durable. `None` if there is and was
    /// no file.
    pub(crate) fn replace_aborted(
        &self,
        io: IndexIo<'_>,
        entries: Vec<AbortedTxn>,
        kept: usize,
    ) -> Result<Option<Arc<dyn File>>, StorageFailure> {
        let path = self.aborted_path();
        let there = io.storage.exists(&path).at("look for", &path)?;
        let file = if there || !entries.is_empty() {
            let file = io.storage.open(&path, OpenMode::Create).at("create", &path)?;
            let bytes: Vec<u8> = entries[kept..].iter().flat_map(AbortedTxn::encode).collect();
            file.write_all_at(&bytes, (kept * ENTRY_BYTES) as u64).at("write", &path)?;
            file.set_len((entries.len() * ENTRY_BYTES) as u64).at("cut", &path)?;
            Some(file)
        } else {
            None
        };
        *self.aborted.write() = Some(Arc::new(entries));
        Ok(file)
    }

    fn aborted_path(&self) -> std::path::PathBuf {
        let dir = self.path.parent().unwrap_or(&self.path);
        file_path(dir, self.base_offset, FileKind::TxnIndex)
    }
}

//! One segment: a `.log` file of whole batches with its indexes. Everything here can be called by readers
//! while the log appends: the length says how far the file may be looked at.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use pelton_wire::record::{BatchHeader, NO_TIMESTAMP};

use crate::error::{Corruption, Fault, IoContext, StorageFailure};
use crate::file_cache::{FileCache, FileKey};
use crate::index::{Index, IndexIo, OffsetEntry, TimeEntry};
use crate::names::{FileKind, file_path};
use crate::slice::Slice;
use crate::storage::{File, OpenMode, read_exact_at};
use crate::txn_index::AbortedTxn;

mod aborted;
mod file;
mod rebuild;
mod walk;

pub(crate) use file::Pieces;
pub use file::SegmentFile;
pub(crate) use rebuild::IndexBuilder;
pub(crate) use walk::HeaderReader;

/// A look-up in an older segment that had to walk over more than this many bytes and batches, because its
/// index is missing or damaged, has the index built anew. A good index has an entry every 4 KiB, or every
/// second batch if batches are larger.
const REBUILD_AFTER_BYTES: u64 = 64 << 10;
const REBUILD_AFTER_BATCHES: u32 = 16;

/// A batch in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Found {
    /// Position after the batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.total_len() as u64
    }
}

/// A run of whole batches in a segment.
pub(crate) struct Run {
    pub(crate) slices: Vec<Slice>,
    /// Base offset of the first batch.
    pub(crate) base_offset: i64,
    /// The offset after the last batch.
    pub(crate) next_offset: i64,
}

/// What a look for batches in one segment gave.
pub(crate) enum RunResult {
    Run(Run),
    /// No batch at or after the offset here: go on with the next segment.
    PastEnd,
    /// The next batch is beyond the bound, or larger than what is left of the budget.
    Bounded,
}

pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    path: PathBuf,
    key: FileKey,
    /// Bytes of whole batches. Nothing beyond is ever looked at.
    len: AtomicU64,
    /// The file while the segment is the active one, and until all of it is durable; older segments open theirs through the
    /// cache.
    held: RwLock<Option<Arc<SegmentFile>>>,
    /// It is appended to.
    is_active: AtomicBool,
    /// Its names belong to a cleaned segment now: readers that still have this one open and write nothing.
    is_replaced: AtomicBool,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    /// Largest timestamp and the last offset of the batch that has it, once known.
    largest: Mutex<Option<LargestTimestamp>>,
    /// When the last batch came, or when the segment was opened: the broker's clock, ms.
    written_ms: AtomicI64,
    aborted: RwLock<Option<Arc<Vec<AbortedTxn>>>>,
    /// The transaction index, open while aborted transactions are added to it.
    aborted_file: Mutex<Option<Arc<dyn File>>>,
    rebuilding: Mutex<()>,
}

/// The largest timestamp of a segment, [`NO_TIMESTAMP`] if no batch has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargestTimestamp {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

impl LargestTimestamp {
    pub(crate) const NONE: LargestTimestamp = LargestTimestamp { timestamp: NO_TIMESTAMP, offset: -1 };

    pub(crate) fn add(&mut self, header: &BatchHeader) {
        if header.max_timestamp > self.timestamp {
            *self = LargestTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
    }
}

impl Segment {
    /// A segment that starts at `base_offset` and has no batch yet.
    pub(crate) fn create(dir: &Path, base_offset: i64, files: &FileCache, now_ms: i64) -> Segment {
        let number = files.number_segment();
        let key = |kind| FileKey { segment: number, kind };
        Segment {
            offsets: Index::create(file_path(dir, base_offset, FileKind::Index), key(FileKind::Index)),
            times: Index::create(file_path(dir, base_offset, FileKind::TimeIndex), key(FileKind::TimeIndex)),
            largest: Mutex::new(Some(LargestTimestamp::NONE)),
            aborted: RwLock::new(Some(Arc::default())),
            ..Segment::open(dir, base_offset, 0, files, now_ms)
        }
    }

    /// A segment that is on disk with `len` bytes of whole batches.
    pub(crate) fn open(dir: &Path, base_offset: i64, len: u64, files: &FileCache, now_ms: i64) -> Segment {
        let number = files.number_segment();
        let key = |kind| FileKey { segment: number, kind };
        Segment {
            base_offset,
            path: file_path(dir, base_offset, FileKind::Log),
            key: key(FileKind::Log),
            len: len.into(),
            held: RwLock::new(None),
            is_active: AtomicBool::new(false),
            is_replaced: AtomicBool::new(false),
            offsets: Index::open(file_path(dir, base_offset, FileKind::Index), key(FileKind::Index)),
            times: Index::open(file_path(dir, base_offset, FileKind::TimeIndex), key(FileKind::TimeIndex)),
            largest: Mutex::new(None),
            written_ms: now_ms.into(),
            aborted: RwLock::new(None),
            aborted_file: Mutex::default(),
            rebuilding: Mutex::new(()),
        }
    }

    /// The `.log` file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number that the file cache knows the segment by.
    pub(crate) fn number(&self) -> u64 {
        self.key.segment
    }

    /// Bytes of whole batches.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Lets readers see the file up to `len`.
    pub(crate) fn publish(&self, len: u64, now_ms: i64) {
        self.written_ms.store(now_ms, Ordering::Relaxed);
        self.len.store(len, Ordering::Release);
    }

    /// When the last batch came, or when the segment was opened, ms.
    pub(crate) fn written_ms(&self) -> i64 {
        self.written_ms.load(Ordering::Relaxed)
    }

    /// Makes this the active segment, with this file.
    pub(crate) fn begin(&self, file: Arc<SegmentFile>) {
        *self.aborted_file.lock() = None;
        *self.held.write() = Some(file);
        self.is_active.store(true, Ordering::Release);
    }

    /// Nothing is appended any more.
    pub(crate) fn finish(self: &Arc<Segment>) {
        self.is_active.store(false, Ordering::Release);
        *self.aborted_file.lock() = None;
        if let Some(file) = self.held() {
            file.finish(self);
        }
    }

    /// The segment is no part of the log any more, and its files go.
    pub(crate) fn discard(&self) {
        self.is_active.store(false, Ordering::Release);
        *self.aborted_file.lock() = None;
        if let Some(file) = self.held.write().take() {
            file.discard();
        }
    }

    /// A cleaned segment takes its place, and its names. Who reads it goes on with `file`.
    pub(crate) fn replace(&self, file: Arc<dyn File>) {
        self.held.write().get_or_insert_with(|| Arc::new(SegmentFile::new(file, self.len())));
        // Who builds an index now ends first.
        let _building = self.rebuilding.lock();
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Whether a start would find all of its first batch, or of all of them, without the journal.
    pub(crate) fn is_in_checkpoint(&self) -> bool {
        match self.held() {
            Some(file) => file.is_in_checkpoint(),
            None => self.len() > 0,
        }
    }

    /// All of the segment is durable in `file`, which whoever needs it opens by its name from now on.
    pub(crate) fn let_go_of_file(&self, file: &SegmentFile) {
        if !self.is_active.load(Ordering::Acquire) {
            self.held.write().take_if(|held| std::ptr::eq(&raw const **held, file));
        }
    }

    /// The file, if it is the active segment's, or is not all durable yet.
    pub(crate) fn held(&self) -> Option<Arc<SegmentFile>> {
        self.held.read().clone()
    }

    /// The `.log` file, open for reading at least.
    pub(crate) fn file(&self, io: IndexIo<'_>) -> Result<Arc<dyn File>, StorageFailure> {
        match self.held() {
            Some(file) => Ok(file),
            None => self.opened(io),
        }
    }

    fn opened(&self, io: IndexIo<'_>) -> Result<Arc<dyn File>, StorageFailure> {
        io.files.get(self.key, || io.storage.open(&self.path, OpenMode::Read)).at("open", &self.path)
    }

    /// Where the `len` bytes of batches at `position` are.
    fn slices(&self, io: IndexIo<'_>, position: u64, len: u64) -> Result<Vec<Slice>, Fault> {
        let Some(held) = self.held() else {
            return Ok(vec![Slice::File { file: self.opened(io)?, position, len }]);
        };
        let Some(Pieces { file, memory }) = held.pieces(position, len) else {
            return Err(self.corrupt(position, "these bytes have just been cut away"));
        };
        let in_file = file.map(|(file, len)| Slice::File { file, position, len });
        Ok(in_file.into_iter().chain(memory.into_iter().map(Slice::Memory)).collect())
    }

    pub(crate) fn corrupt(&self, position: u64, what: impl Into<String>) -> Fault {
        Corruption::new(&self.path, position, what).into()
    }

    fn relative(&self, offset: i64) -> i64 {
        offset.saturating_sub(self.base_offset)
    }

    /// The first batch that ends at or after `offset`.
    pub(crate) fn find(&self, io: IndexIo<'_>, offset: i64) -> Result<Option<Found>, Fault> {
        let file = self.file(io)?;
        let mut headers = HeaderReader::new(&*file, &self.path, self.len());
        self.find_with(io, &mut headers, offset)
    }

    fn find_with(
        &self,
        io: IndexIo<'_>,
        headers: &mut HeaderReader<'_>,
        offset: i64,
    ) -> Result<Option<Found>, Fault> {
        let relative = self.relative(offset);
        let at_or_before = |e: &OffsetEntry| i64::from(e.relative_offset) <= relative;
        let start = self.checked_entry(io, headers, at_or_before)?.unwrap_or(0);
        let walked = Cell::new(0);
        let found = headers.first_from(start, |found| {
            walked.set(walked.get() + 1);
            found.header.last_offset() >= offset
        })?;
        let reached = found.map_or(headers.end(), |found| found.position);
        let is_sparse = reached - start > REBUILD_AFTER_BYTES && walked.get() > REBUILD_AFTER_BATCHES;
        let is_old = !self.is_active.load(Ordering::Acquire) && !self.is_replaced.load(Ordering::Acquire);
        if is_sparse && is_old {
            self.rebuild_in_place(io);
        }
        Ok(found)
    }

    /// Position of the batch that the last index entry for which `holds` is true points to, if the batch
    /// there is the one that the entry means.
    fn checked_entry(
        &self,
        io: IndexIo<'_>,
        headers: &mut HeaderReader<'_>,
        holds: impl Fn(&OffsetEntry) -> bool,
    ) -> Result<Option<u64>, Fault> {
        let end = headers.end();
        let Some(entry) = self.offsets.last_where(io, |e| u64::from(e.position) < end && holds(e))? else {
            return Ok(None);
        };
        let position = u64::from(entry.position);
        let expected = self.base_offset + i64::from(entry.relative_offset);
        match headers.at(position) {
            Ok(found) if found.header.last_offset() == expected => Ok(Some(position)),
            Ok(_) | Err(Fault::Corrupt(_)) => {
                tracing::warn!(
                    index = %self.offsets.path().display(), position, offset = expected,
                    "index entry does not match the log; walking the segment instead"
                );
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// What a time entry says, if the batch that it means has that timestamp: a crash can leave half an
    /// entry.
    fn checked_time(
        &self,
        io: IndexIo<'_>,
        headers: &mut HeaderReader<'_>,
        entry: Option<TimeEntry>,
    ) -> Result<Option<LargestTimestamp>, Fault> {
        let Some(TimeEntry { timestamp, relative_offset }) = entry else { return Ok(None) };
        let offset = self.base_offset + i64::from(relative_offset);
        let found = self.find_with(io, headers, offset)?;
        let is_true = found.is_some_and(|found| {
            found.header.last_offset() == offset && found.header.max_timestamp == timestamp
        });
        if !is_true {
            tracing::warn!(
                index = %self.times.path().display(), timestamp, offset,
                "time index entry does not match the log; walking the segment instead"
            );
        }
        Ok(is_true.then_some(LargestTimestamp { timestamp, offset }))
    }

    /// Whole batches from the one that ends at or after `from`, below `up_to`, at most `budget` bytes. With
    /// `first_must` the first batch comes whatever its size.
    pub(crate) fn run(
        &self,
        io: IndexIo<'_>,
        from: i64,
        up_to: i64,
        budget: u64,
        first_must: bool,
    ) -> Result<RunResult, Fault> {
        let file = self.file(io)?;
        let mut headers = HeaderReader::new(&*file, &self.path, self.len());
        let Some(first) = self.find_with(io, &mut headers, from)? else { return Ok(RunResult::PastEnd) };
        let too_large = first.header.total_len() as u64 > budget && !first_must;
        if first.header.last_offset() >= up_to || too_large {
            return Ok(RunResult::Bounded);
        }
        let limit = first.position + budget.max(first.header.total_len() as u64);
        let last = self.last_within(io, &mut headers, first, limit, up_to)?;
        Ok(RunResult::Run(Run {
            slices: self.slices(io, first.position, last.end() - first.position)?,
            base_offset: first.header.base_offset,
            next_offset: last.header.next_offset(),
        }))
    }

    /// The last batch, from `first` on, that ends at or before position `limit` and below offset `up_to`.
    fn last_within(
        &self,
        io: IndexIo<'_>,
        headers: &mut HeaderReader<'_>,
        first: Found,
        limit: u64,
        up_to: i64,
    ) -> Result<Found, Fault> {
        // The index says how far the run reaches, but for less than one interval at its end. If the batch of
        // the last entry does not fit, the one of the entry before it does, because it ends before the other
        // starts.
        let relative = self.relative(up_to);
        let mut below = limit;
        for _ in 0..2 {
            let inside =
                |e: &OffsetEntry| u64::from(e.position) < below && i64::from(e.relative_offset) < relative;
            let Some(position) = self.checked_entry(io, headers, inside)? else { break };
            if position <= first.position {
                break;
            }
            let found = headers.at(position)?;
            if found.end() <= limit {
                return headers.last_before(found, limit, up_to);
            }
            below = position;
        }
        headers.last_before(first, limit, up_to)
    }

    /// The bytes of one batch.
    pub(crate) fn read_batch(&self, io: IndexIo<'_>, found: &Found) -> Result<Vec<u8>, Fault> {
        let file = self.file(io)?;
        let mut bytes = vec![0; found.header.total_len()];
        read_exact_at(&*file, &mut bytes, found.position).at("read", &self.path)?;
        Ok(bytes)
    }

    /// The first batch with a record at or after `timestamp`, as far as headers tell, from offset `from` on.
    pub(crate) fn find_timestamp(
        &self,
        io: IndexIo<'_>,
        timestamp: i64,
        from: i64,
    ) -> Result<Option<Found>, Fault> {
        let file = self.file(io)?;
        let mut headers = HeaderReader::new(&*file, &self.path, self.len());
        // Nothing up to the last entry with a smaller timestamp can match.
        let before = self.times.last_where(io, |e| e.timestamp < timestamp)?;
        let after =
            self.checked_time(io, &mut headers, before)?.map_or(self.base_offset, |known| known.offset + 1);
        let Some(start) = self.find_with(io, &mut headers, after.max(from))? else { return Ok(None) };
        headers.first_from(start.position, |found| found.header.max_timestamp >= timestamp)
    }

    /// The largest timestamp, if somebody has asked for it since the start.
    pub(crate) fn known_largest(&self) -> Option<LargestTimestamp> {
        *self.largest.lock()
    }

    /// The largest timestamp, and where.
    pub(crate) fn largest_timestamp(&self, io: IndexIo<'_>) -> Result<LargestTimestamp, Fault> {
        if let Some(largest) = *self.largest.lock() {
            return Ok(largest);
        }
        let file = self.file(io)?;
        let mut headers = HeaderReader::new(&*file, &self.path, self.len());
        let last = self.times.last(io)?;
        let mut largest = self.checked_time(io, &mut headers, last)?.unwrap_or(LargestTimestamp::NONE);
        // A finished segment's last entry covers all of it. Where that is missing, the rest is walked.
        if let Some(next) = self.find_with(io, &mut headers, largest.offset.max(self.base_offset - 1) + 1)? {
            headers.each_from(next.position, |found| largest.add(&found.header))?;
        }
        // Whoever was faster may know of batches that came meanwhile.
        Ok(*self.largest.lock().get_or_insert(largest))
    }

    /// The largest timestamp of batches in `from..up_to`, [`NO_TIMESTAMP`] if none has one. Only a segment
    /// that one of the bounds cuts is walked.
    pub(crate) fn largest_below(&self, io: IndexIo<'_>, from: i64, up_to: i64) -> Result<i64, Fault> {
        let largest = self.largest_timestamp(io)?;
        if from <= self.base_offset && largest.offset < up_to {
            return Ok(largest.timestamp);
        }
        let file = self.file(io)?;
        let mut headers = HeaderReader::new(&*file, &self.path, self.len());
        let mut below = NO_TIMESTAMP;
        if let Some(first) = self.find_with(io, &mut headers, from)? {
            headers.each_from(first.position, |found| {
                if found.header.last_offset() < up_to {
                    below = below.max(found.header.max_timestamp);
                }
            })?;
        }
        Ok(below)
    }

    /// Notes the timestamp of a batch that was appended.
    pub(crate) fn note_timestamp(&self, header: &BatchHeader) -> LargestTimestamp {
        let mut largest = self.largest.lock();
        let largest = largest.get_or_insert(LargestTimestamp::NONE);
        largest.add(header);
        *largest
    }

    /// Sets or forgets what is known of timestamps.
    pub(crate) fn set_largest(&self, largest: Option<LargestTimestamp>) {
        *self.largest.lock() = largest;
    }

    /// Sets what is known of aborted transactions.
    pub(crate) fn set_aborted(&self, aborted: Vec<AbortedTxn>) {
        *self.aborted.write() = Some(Arc::new(aborted));
    }
}

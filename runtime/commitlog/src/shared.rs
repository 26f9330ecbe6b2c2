//! What the writer of a log and its readers share. The writer swaps the list of segments and moves the
//! offsets; readers take what is there and never wait for an append.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::cleaned_to;
use crate::error::StorageFailure;
use crate::file_cache::FileCache;
use crate::id::PartitionId;
use crate::index::IndexIo;
use crate::leader_epoch::LeaderEpochs;
use crate::offsets::SharedOffsets;
use crate::segment::Segment;
use crate::sink::FrameSink;
use crate::storage::Storage;
use crate::tail_cache::{Tail, TailBudget};

/// What every log of a log directory is given.
#[derive(Clone)]
pub struct LogContext {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// The journal.
    pub sink: Arc<dyn FrameSink>,
    /// Open files other than active segments.
    pub files: Arc<FileCache>,
    /// Memory for recent batches.
    pub tails: Arc<TailBudget>,
}

/// The segments of a log by base offset, never empty. The last one is active.
pub(crate) type Segments = Vec<Arc<Segment>>;

pub(crate) struct Shared {
    pub(crate) id: PartitionId,
    pub(crate) dir: Arc<Path>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) files: Arc<FileCache>,
    pub(crate) offsets: SharedOffsets,
    pub(crate) tail: Arc<Tail>,
    pub(crate) epochs: RwLock<LeaderEpochs>,
    segments: RwLock<Arc<Segments>>,
    /// How many cleaned segments took their place.
    cleaned_segments: AtomicU64,
    /// How far the log was cleaned, once it was read.
    cleaned_to: Mutex<Option<i64>>,
}

impl Shared {
    pub(crate) fn new(
        id: PartitionId,
        dir: Arc<Path>,
        context: &LogContext,
        tail_bytes: usize,
        offsets: SharedOffsets,
        epochs: LeaderEpochs,
        segments: Segments,
    ) -> Shared {
        assert!(!segments.is_empty(), "a log has an active segment");
        Shared {
            id,
            dir,
            storage: context.storage.clone(),
            files: context.files.clone(),
            offsets,
            tail: Tail::new(context.tails.clone(), tail_bytes),
            epochs: RwLock::new(epochs),
            segments: RwLock::new(Arc::new(segments)),
            cleaned_segments: AtomicU64::new(0),
            cleaned_to: Mutex::new(None),
        }
    }

    pub(crate) fn io(&self) -> IndexIo<'_> {
        IndexIo { storage: &*self.storage, files: &self.files }
    }

    /// The first offset that was not cleaned yet.
    pub(crate) fn cleaned_to(&self) -> Result<i64, StorageFailure> {
        let mut known = self.cleaned_to.lock();
        match *known {
            Some(offset) => Ok(offset),
            None => Ok(*known.insert(cleaned_to::read(&*self.storage, &self.dir)?)),
        }
    }

    /// Says that everything below `offset` was cleaned, and that is durable.
    pub(crate) fn set_cleaned_to(&self, offset: i64) -> Result<(), StorageFailure> {
        let mut known = self.cleaned_to.lock();
        cleaned_to::write(&*self.storage, &self.dir, offset)?;
        *known = Some(offset);
        Ok(())
    }

    /// Nothing at or above `offset` was cleaned any more: the log was cut there.
    pub(crate) fn cut_cleaned_to(&self, offset: i64) -> Result<(), StorageFailure> {
        let mut known = self.cleaned_to.lock();
        if known.is_none_or(|known| known > offset) {
            // Everything is read again, which a log that is cut can afford.
            cleaned_to::remove(&*self.storage, &self.dir)?;
            *known = Some(0);
        }
        Ok(())
    }

    pub(crate) fn segments(&self) -> Arc<Segments> {
        self.segments.read().clone()
    }

    /// Raised by each segment that the cleaner replaces: who reads batches and then an index of them can tell whether both
    /// are of one state.
    pub(crate) fn cleaned_segments(&self) -> u64 {
        self.cleaned_segments.load(Ordering::SeqCst)
    }

    /// A cleaned segment takes its place, before readers are led to it.
    pub(crate) fn note_cleaned_segment(&self) {
        self.cleaned_segments.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn set_segments(&self, segments: Segments) {
        assert!(!segments.is_empty(), "a log has an active segment");
        *self.segments.write() = Arc::new(segments);
    }
}

/// Index of the segment that holds `offset`, or the first one if it lies before all.
pub(crate) fn segment_of(segments: &[Arc<Segment>], offset: i64) -> usize {
    segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1)
}

//! The one writer of a partition's log. Whoever owns a [`Log`] is the only one who changes the partition;
//! everybody else has a [`LogReader`].
//!
//! An append takes room in the segment, because that is where a full disk shows, and goes to the journal, which says when
//! it is durable; a checkpoint writes it to the segment ([`crate::SegmentFile`]). Nothing here waits for the disk to
//! sync, but for truncation.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::config::LogConfig;
use crate::error::{AppendError, ChangeError, CreateError, Fault, IoContext, StorageFailure};
use crate::id::{LogEnd, PartitionId};
use crate::index::TimeEntry;
use crate::leader_epoch::LeaderEpochs;
use crate::metadata::write_topic_id;
use crate::names::{FileKind, PARTITION_METADATA, file_path};
use crate::offsets::{LogOffsets, SharedOffsets};
use crate::producer_state::ProducerStates;
use crate::reader::LogReader;
use crate::segment::SegmentFile;
use crate::segment::{IndexBuilder, Segment};
use crate::sequence::OffsetSequence;
use crate::shared::{LogContext, Segments, Shared};
use crate::sink::{DurableListener, FrameSink, SyncLater};
use crate::storage::{File, OpenMode};

mod append;
mod change;
mod clean;
mod removal;
mod retain;
mod snapshots;
mod truncate;

pub use append::{AppendMeta, Appended};
pub use clean::{Swap, Swapped};
pub use removal::{Removal, Removed};
pub use retain::DeletedSegment;

/// One partition's log.
pub struct Log {
    shared: Arc<Shared>,
    sink: Arc<dyn FrameSink>,
    listener: Arc<dyn DurableListener>,
    starts: Arc<LogStartListener>,
    config: LogConfig,
    active: Active,
    producers: ProducerStates,
    /// Where the offsets of clients' batches come from, if not from the end of this log.
    sequence: Option<Arc<OffsetSequence>>,
    /// The failure after which nothing is taken any more.
    latched: Option<StorageFailure>,
    /// Segments out of the log whose files wait for the log start to be durable beyond them.
    pending_deletion: Vec<PendingDeletion>,
    /// A removal, or a swap, is under way.
    removing: bool,
    /// A cleaned segment is taking its place, which ends before this offset: nothing is cut below.
    swapping: Option<i64>,
    /// Offsets of the producer snapshots on disk.
    snapshots: BTreeSet<i64>,
    bytes_since_snapshot: u64,
}

/// The segment that is appended to.
struct Active {
    segment: Arc<Segment>,
    file: Arc<SegmentFile>,
    /// Where the next batch goes.
    position: u64,
    /// Absent after a clean start, until the first append needs it.
    indexes: Option<IndexBuilder>,
    /// Largest timestamp of the first batch, ms, where it has one. Known with `indexes`.
    first_timestamp: Option<i64>,
    created_ms: i64,
    /// A failed write may have left bytes at or after `position` that could not be cut.
    must_cut: bool,
}

struct PendingDeletion {
    /// The files may go once this is the durable log start.
    log_start: i64,
    segment: Arc<Segment>,
}

/// What recovery found out, to make a log of.
pub(crate) struct LogParts {
    pub(crate) id: PartitionId,
    pub(crate) dir: Arc<Path>,
    pub(crate) config: LogConfig,
    pub(crate) log_start: i64,
    pub(crate) end: LogEnd,
    pub(crate) segments: Segments,
    pub(crate) active_file: Arc<dyn File>,
    pub(crate) indexes: Option<IndexBuilder>,
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) producers: ProducerStates,
    pub(crate) epochs: LeaderEpochs,
    pub(crate) snapshots: BTreeSet<i64>,
    pub(crate) now_ms: i64,
}

impl Log {
    /// Makes a partition: its directory, `partition.metadata` and an empty first segment. Nothing is synced
    /// here: the log directory makes the partition durable, and the next checkpoint its files.
    pub fn create(
        context: &LogContext,
        dir: &Path,
        id: PartitionId,
        config: LogConfig,
        listener: Arc<dyn DurableListener>,
        now_ms: i64,
    ) -> Result<Log, CreateError> {
        let storage = &*context.storage;
        if storage.exists(dir).at("look for", dir)? {
            return Err(CreateError::Exists(dir.to_owned()));
        }
        storage.create_dir_all(dir).at("create", dir)?;
        drop(write_topic_id(storage, dir, id.topic_id)?);
        let path = file_path(dir, 0, FileKind::Log);
        let active_file = storage.open(&path, OpenMode::Create).at("create", &path)?;
        let dir: Arc<Path> = dir.into();
        context.sink.sync_later(SyncLater::Named(dir.join(PARTITION_METADATA)));
        context.sink.sync_later(SyncLater::Dir(dir.clone()));
        if let Some(parent) = dir.parent() {
            context.sink.sync_later(SyncLater::Dir(parent.into()));
        }
        let segments = vec![Arc::new(Segment::create(&dir, 0, &context.files, now_ms))];
        let parts = LogParts {
            indexes: Some(IndexBuilder::new(config.index_interval_bytes, None)),
            id,
            dir,
            config,
            log_start: 0,
            end: LogEnd::EMPTY,
            segments,
            active_file,
            first_timestamp: None,
            producers: ProducerStates::default(),
            epochs: LeaderEpochs::default(),
            snapshots: BTreeSet::new(),
            now_ms,
        };
        Ok(Log::assemble(context, parts, listener))
    }

    pub(crate) fn assemble(context: &LogContext, parts: LogParts, listener: Arc<dyn DurableListener>) -> Log {
        let LogParts { end, config, segments, .. } = parts;
        let segment = segments.last().expect("a log has an active segment").clone();
        assert_eq!(segment.base_offset, end.segment_base, "the end lies in the active segment");
        let file = Arc::new(SegmentFile::new(parts.active_file, end.position));
        segment.begin(file.clone());
        // Everything that a start finds is durable: the high watermark is the end.
        let offsets = SharedOffsets::new(parts.log_start, end.offset, end.offset);
        let mut producers = parts.producers;
        producers.high_watermark_moved(end.offset);
        producers.keep_at_most(config.producers_max);
        offsets.set_first_unstable(producers.first_unstable_offset());
        let tail_bytes = config.tail_cache_bytes;
        let shared = Shared::new(parts.id, parts.dir, context, tail_bytes, offsets, parts.epochs, segments);
        let starts = LogStartListener::new(parts.log_start, listener.clone());
        let active = Active {
            segment,
            file,
            position: end.position,
            indexes: parts.indexes,
            first_timestamp: parts.first_timestamp,
            created_ms: parts.now_ms,
            must_cut: false,
        };
        Log {
            shared: Arc::new(shared),
            sink: context.sink.clone(),
            listener,
            starts: Arc::new(starts),
            config,
            active,
            producers,
            sequence: None,
            latched: None,
            pending_deletion: Vec::new(),
            removing: false,
            swapping: None,
            snapshots: parts.snapshots,
            bytes_since_snapshot: 0,
        }
    }

    /// A reader of this log. Clone it freely.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// Which partition this is.
    pub fn id(&self) -> &PartitionId {
        &self.shared.id
    }

    /// The partition's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The settings in force.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings. They hold from the next append or retention run on.
    pub fn set_config(&mut self, config: LogConfig) {
        if let Some(indexes) = &mut self.active.indexes {
            indexes.set_interval_bytes(config.index_interval_bytes);
        }
        self.shared.tail.set_limit(config.tail_cache_bytes);
        self.producers.keep_at_most(config.producers_max);
        self.config = config;
    }

    /// From now on clients' batches get their offsets from a sequence that other logs share. It lies behind the end of this
    /// log, or is moved there.
    pub fn share_offsets(&mut self, sequence: Arc<OffsetSequence>) {
        sequence.at_least(self.offsets().log_end);
        self.sequence = Some(sequence);
    }

    /// The offsets now.
    pub fn offsets(&self) -> LogOffsets {
        self.shared.offsets.load()
    }

    /// Where the log ends.
    pub fn end(&self) -> LogEnd {
        LogEnd {
            segment_base: self.active.segment.base_offset,
            position: self.active.position,
            offset: self.offsets().log_end,
        }
    }

    /// What is known of producers, for `DescribeProducers`.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Moves the high watermark up to `offset`, which is cut to the log end. It never goes back here. Returns
    /// the last stable offset.
    pub fn set_high_watermark(&mut self, offset: i64) -> i64 {
        let now = self.offsets();
        let offset = offset.min(now.log_end);
        if offset > now.high_watermark {
            // In this order no reader sees the new high watermark with an old, larger, unstable bound
            // missing.
            self.producers.high_watermark_moved(offset);
            self.shared.offsets.set_high_watermark(offset);
            self.shared.offsets.set_first_unstable(self.producers.first_unstable_offset());
        }
        self.offsets().last_stable
    }

    /// Refuses everything from now on, because the journal or the disk failed.
    pub fn latch(&mut self, reason: StorageFailure) {
        self.latched.get_or_insert(reason);
    }

    fn check_change(&self) -> Result<(), ChangeError> {
        match &self.latched {
            Some(reason) => Err(ChangeError::Latched(reason.clone())),
            None => Ok(()),
        }
    }

    /// Loads what appends need of the active segment, which a clean start leaves alone.
    fn load_active(&mut self) -> Result<(), Fault> {
        if self.active.indexes.is_some() {
            return Ok(());
        }
        let io = self.shared.io();
        let segment = &self.active.segment;
        let position = self.active.position;
        let offsets = segment.offsets.load(io, |e| e.position > 0 && u64::from(e.position) < position)?;
        let times = segment.times.load(io, TimeEntry::is_written)?;
        let largest = segment.largest_timestamp(io)?;
        let last_time = times.last().copied();
        segment.offsets.replace_all(io, offsets)?;
        segment.times.replace_all(io, times)?;
        segment.set_largest(Some(largest));
        let first = segment.find(io, segment.base_offset)?;
        self.active.first_timestamp = first.map(|f| f.header.max_timestamp).filter(|t| *t >= 0);
        self.active.indexes = Some(IndexBuilder::new(self.config.index_interval_bytes, last_time));
        Ok(())
    }
}

/// Stands between the journal and the partition's listener for frames that move the log start.
struct LogStartListener {
    durable: AtomicI64,
    listener: Arc<dyn DurableListener>,
}

impl LogStartListener {
    fn new(log_start: i64, listener: Arc<dyn DurableListener>) -> LogStartListener {
        LogStartListener { durable: log_start.into(), listener }
    }

    fn durable_start(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }
}

impl DurableListener for LogStartListener {
    fn durable(&self, end_offset: i64) {
        self.durable.fetch_max(end_offset, Ordering::AcqRel);
        self.listener.log_start_durable(end_offset);
    }

    fn failed(&self, reason: &StorageFailure) {
        self.listener.failed(reason);
    }
}

impl From<Fault> for AppendError {
    fn from(fault: Fault) -> AppendError {
        match fault {
            Fault::Corrupt(corruption) => AppendError::Corrupt(corruption),
            Fault::Storage(failure) if failure.is_full() => AppendError::Full(failure),
            Fault::Storage(failure) => AppendError::Unavailable(failure),
        }
    }
}

impl From<ChangeError> for AppendError {
    fn from(error: ChangeError) -> AppendError {
        match error {
            ChangeError::OffsetOutOfRange { offset, .. } => {
                AppendError::InvalidBatch(format!("offset {offset} is out of range"))
            }
            ChangeError::Corrupt(corruption) => AppendError::Corrupt(corruption),
            ChangeError::Storage(failure) => Fault::Storage(failure).into(),
            ChangeError::Latched(failure) => AppendError::Latched(failure),
            ChangeError::Closed(closed) => AppendError::Closed(closed),
            // Appends cut nothing.
            ChangeError::Swapping => AppendError::Behind,
        }
    }
}

#[cfg(test)]
mod tests;

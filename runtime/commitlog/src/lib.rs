//! A log directory: partitions in Kafka's file format, one journal, one sync group.
//!
//! [`Log`] is the one writer of a partition, [`LogReader`] reads it without ever waiting for the writer.
//! Everything goes through a [`storage::Storage`], so that tests can break the disk. Blocking, no async;
//! refuses to look inside records, but for timestamps and control batches. `FORMAT.md` describes every file,
//! byte by byte, with its crash cases.

pub mod config;
pub mod error;
pub mod id;
pub mod metadata;
#[doc(hidden)]
pub mod producer_state;
pub mod recovery;
pub mod sink;
pub mod storage;

mod checkpointer;
mod cleaned_to;
mod cleaner;
mod file_cache;
mod index;
mod journal;
mod leader_epoch;
mod log;
mod log_dir;
mod marker;
mod names;
mod offsets;
mod reader;
mod rebuild;
mod retention;
mod scan;
mod segment;
mod sequence;
mod shared;
mod slice;
mod tail_cache;
#[cfg(test)]
mod testkit;
mod txn_index;

pub use cleaner::{
    ActiveProducers, CleanError, CleanJob, CleanReport, Compaction, Dirt, Pace, Replacement, clean,
};
pub use config::{LogConfig, SharedLimits};
pub use error::{
    AppendError, ChangeError, Corruption, CreateError, OpenError, ReadError, SinkClosed, StorageFailure,
};
pub use file_cache::FileCache;
pub use id::{LogEnd, PartitionId};
pub use leader_epoch::{EpochEnd, EpochStart};
pub use log::{AppendMeta, Appended, DeletedSegment, Log, Removal, Removed, Swap, Swapped};
pub use log_dir::{
    AppendPermit, Clock, CloseError, DeleteError, FORMAT_VERSION, FailureHook, JournalStats, LogDir,
    LogDirConfig, METADATA_TOPIC, Meta, OPEN_FILES_WANTED, OpenDirError, OpenFilesLimit, PermitWait,
    RecoveredPartition, Recovery, SpaceWatch, Threads, raise_open_files_limit,
};
pub use offsets::LogOffsets;
pub use pelton_wire::mutant;
pub use producer_state::AppendOrigin;
pub use reader::{LogReader, ReadRange, TimestampOffset};
pub use recovery::{PartitionRecovery, RecoverMode, RecoveryReport, Replayed};
pub use retention::DeleteReason;
pub use segment::SegmentFile;
pub use sequence::OffsetSequence;
pub use shared::LogContext;
pub use sink::{DurableListener, Frame, FrameClass, FrameKind, FrameMeta, FrameSink, Lsn, SyncLater};
pub use slice::Slice;
pub use tail_cache::TailBudget;
pub use txn_index::AbortedTxn;

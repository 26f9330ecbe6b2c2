//! A log directory: partitions in Kafka's file format, one journal, one sync group.

pub mod config;
pub mod error;
pub mod id;
pub mod sink;
pub mod storage;

pub use config::{LogConfig, SharedLimits};
pub use error::{AppendError, ChangeError, Corruption, CreateError, OpenError, ReadError, StorageFailure};
pub use id::{LogEnd, PartitionId};
pub use sink::{DurableListener, Frame, FrameKind, FrameMeta, FrameSink, Lsn, SinkClosed, SyncLater};

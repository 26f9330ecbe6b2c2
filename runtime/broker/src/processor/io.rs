//! The seam between a driver and the broker: what it reads, appends and commits. The broker implements it over its own
//! partitions; a test implements it over vectors.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use pelton_commitlog::AbortedTxn;
use pelton_streams::manifest::Guarantee;
use pelton_streams::manifest::values::Start;
use pelton_streams::{Sink, Topology};
use tokio::sync::{Notify, oneshot};

use crate::group::config::PIPELINE_GROUP_PREFIX;

/// Stored batches of one partition.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Whole batches as stored; the first may begin before the offset that was asked for.
    pub(crate) batches: Vec<Bytes>,
    /// Transactions among them that were aborted: their batches are not for readers.
    pub(crate) aborted: Vec<AbortedTxn>,
    /// Where to read next: behind the last batch, or where the asked offset moved because retention took it.
    pub(crate) next_offset: i64,
    /// One past the last record that can be read now.
    pub(crate) end_offset: i64,
    /// Retention took records before they were read: `next_offset` is where the log starts now.
    pub(crate) deleted_unread: bool,
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first offset to read.
    pub(crate) offset: i64,
    /// Whether the group coordinator has it, or it was found out just now.
    pub(crate) committed: bool,
    /// What is committed belongs to an earlier topic of this name, and was passed over.
    pub(crate) renewed: bool,
}

/// A partition of a source's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Input {
    /// An index in [`Topology::sources`].
    pub(crate) source: usize,
    pub(crate) partition: i32,
}

/// What has changed about the topics of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// An output topic has so many partitions.
    Output { output: usize, partitions: u32 },
    /// There are partitions that were not there before.
    Assigned { source: usize, partitions: Range<i32> },
    /// The topic of a source was deleted. One of the same name that was created since is assigned next.
    Revoked { source: usize },
}

/// An append or commit that is not durable yet.
pub(crate) type Ticket = oneshot::Receiver<Result<(), IoError>>;

/// Why the broker did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IoError {
    /// A topic that is written to is not there. Who created it can do that again.
    #[error(
        "topic {topic}, which is written to, does not exist; the pipeline goes on when it is created (`pelton topic create \
         {topic}`, or deploy again)"
    )]
    NoOutput { topic: String },
    /// A topic that is written to is another one now: what was written to the earlier one since the last commit is written
    /// to this one.
    #[error(
        "topic {topic}, which is written to, was deleted and created again; the pipeline goes on with the new one"
    )]
    OutputRenewed { topic: String },
    /// A source's topic is not there any more; what has become of it is a [`Change`].
    #[error("topic {topic}, partition {partition} does not exist")]
    NoPartition { topic: String, partition: i32 },
    /// The position lies behind the end of the log: reading on would wait, and then pass over new records.
    #[error(
        "offset {offset} of topic {topic}, partition {partition} was to be read next, but the log ends at {end}: records were \
         lost or the offset was set by hand; `pelton group reset-offsets` moves it"
    )]
    BehindEnd { topic: String, partition: i32, offset: i64, end: i64 },
    /// The disk is full, or the coordinator is not ready: later it may work.
    #[error("{0}")]
    Unavailable(String),
}

impl IoError {
    /// Whether the same thing may succeed later without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            IoError::BehindEnd { .. } => false,
            IoError::NoOutput { .. }
            | IoError::OutputRenewed { .. }
            | IoError::NoPartition { .. }
            | IoError::Unavailable(_) => true,
        }
    }
}

/// What a driver needs of the broker. Every call may block the driver's thread, none is made while a plugin runs. What is
/// written to the sink is appended by [`DriverIo::flush`].
pub(crate) trait DriverIo: Sink + Send {
    /// Called first. Under exactly-once this becomes the pipeline's only producer, after what an earlier one left open has
    /// been aborted.
    fn begin(&mut self) -> Result<(), IoError>;
    /// What has changed since this was asked last; at first everything that is there. Cheap when nothing has.
    fn changes(&mut self) -> Result<Vec<Change>, IoError>;
    /// Where to begin: the committed offset of this pipeline, else `start`.
    fn position(&self, input: Input, start: Start) -> Result<Position, IoError>;
    /// Batches from `offset` on that a read-committed consumer may see, about `max_bytes` of them, at least one if
    /// there is one.
    fn read(&self, input: Input, offset: i64, max_bytes: usize) -> Result<Chunk, IoError>;
    /// Appends what was written. Durable no later than what is committed after it; under exactly-once seen no earlier either.
    /// After an error some of it may be there.
    fn flush(&mut self) -> Result<(), IoError>;
    /// Commits input offsets behind everything that was appended before: if they survive a crash, so do the outputs, and
    /// under exactly-once the other way round too. What is appended after this is of the next commit.
    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError>;
    /// Returns when a partition has records at or behind its position, when the stop signal is set, or after `timeout_ms`.
    fn wait(&self, positions: &[(Input, i64)], timeout_ms: u64);
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}

/// Makes the I/O of one pipeline's driver. Its offsets are those of the consumer group [`group_of`].
pub(crate) trait IoFactory: Send + Sync {
    /// For the pipeline of a topology; `stop` ends a wait early.
    fn open(&self, of: &Arc<Topology>, guarantee: Guarantee, stop: Arc<StopSignal>) -> Box<dyn DriverIo>;
    /// A driver ended without committing: what it appended since its last commit is never seen. Blocking.
    fn abandon(&self, pipeline: &str) -> Result<(), IoError>;
    /// Whether a topic exists now.
    fn topic_exists(&self, topic: &str) -> bool;
}

/// The consumer group that holds a pipeline's offsets, so that every tool for groups shows its lag.
pub(crate) fn group_of(pipeline: &str) -> String {
    format!("{PIPELINE_GROUP_PREFIX}{pipeline}")
}

/// Tells a driver to stop at its next commit.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    set: AtomicBool,
    notify: Notify,
}

impl StopSignal {
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Release);
        // A permit is kept for a driver that begins to wait just now.
        self.notify.notify_one();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Returns when the signal is set. One waiter at a time: the driver.
    pub(crate) async fn wait(&self) {
        while !self.is_set() {
            self.notify.notified().await;
        }
    }
}

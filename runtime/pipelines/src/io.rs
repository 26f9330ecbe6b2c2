//! What a driver needs from outside, at the level of records: a source that it reads, outputs that it writes, and somebody
//! who commits. Batches, sequences and what a topic takes are the business of who implements them.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pelton_streams::manifest::Guarantee;
use pelton_streams::manifest::values::Start;
use pelton_streams::state::ChangelogPosition;
use pelton_streams::{Sink, Topology};
use pelton_wire::record::Columns;
use tokio::sync::{Notify, oneshot};

use crate::readers::Offsets;

/// What a read has found besides records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Where to read next: behind the last record, aborted ones and control records among them, or where retention has moved
    /// the start of the log.
    pub next_offset: i64,
    /// One past the last record that can be read now.
    pub end_offset: i64,
    /// Retention took records before they were read: `next_offset` is where the log starts now.
    pub deleted_unread: bool,
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The first offset to read.
    pub offset: i64,
    /// Whether the group coordinator has it, or it was found out just now.
    pub committed: bool,
    /// What is committed belongs to an earlier topic of this name, and was passed over.
    pub renewed: bool,
}

/// A partition of a source's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// An index in [`Topology::sources`].
    pub source: usize,
    pub partition: i32,
}

/// What has changed about the topics of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An output topic has so many partitions.
    Output { output: usize, partitions: u32 },
    /// There are partitions that were not there before.
    Assigned { source: usize, partitions: Range<i32> },
    /// The topic of a source was deleted. One of the same name that was created since is assigned next.
    Revoked { source: usize },
}

/// A commit that is not durable yet.
pub type Ticket = oneshot::Receiver<Result<(), IoError>>;

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
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
    /// What is stored there is damaged.
    #[error(
        "topic {topic}, partition {partition}, offset {offset}: the stored batch cannot be read: {reason}"
    )]
    BadBatch { topic: String, partition: i32, offset: i64, reason: String },
    /// The disk is full, or the coordinator is not ready: later it may work.
    #[error("{0}")]
    Unavailable(String),
}

impl IoError {
    /// Whether the same thing may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            IoError::BehindEnd { .. } | IoError::BadBatch { .. } => false,
            IoError::NoOutput { .. }
            | IoError::OutputRenewed { .. }
            | IoError::NoPartition { .. }
            | IoError::Unavailable(_) => true,
        }
    }
}

/// The partitions of a pipeline's topics, to be read. Every call may block the driver's thread.
pub trait Source {
    /// What has changed since this was asked last; at first everything that is there. Cheap when nothing has.
    fn changes(&mut self) -> Result<Vec<Change>, IoError>;
    /// Where to begin: the committed offset of this pipeline, else `start`.
    fn position(&self, input: Input, start: Start) -> Result<Position, IoError>;
    /// Adds records from `offset` on that a read-committed consumer may see, as many as one step should have, at least one if
    /// there is one.
    fn fill(&self, input: Input, offset: i64, records: &mut Columns) -> Result<Filled, IoError>;
    /// Up to which offset (exclusive) the records of each of these inputs, partitions of one intake, can be taken now in the order
    /// of their offsets. Asked before they are filled.
    fn order_limits(&self, inputs: &[Input]) -> Result<Vec<i64>, IoError>;
    /// Deletes the records before an offset of an input that is the pipeline's own: they are done, and that is durable.
    fn purge(&mut self, input: Input, before: i64) -> Result<(), IoError>;
    /// Returns when a partition has records at or behind its position, when the stop signal is set, or after `timeout_ms`.
    fn wait(&self, positions: &[(Input, i64)], timeout_ms: u64);
}

/// The topics that a pipeline writes. A write is refused record by record; what was taken is sent on by
/// [`Outputs::flush`].
pub trait Outputs: Sink {
    /// Appends what was written. Durable no later than what is committed after it; under exactly-once seen no earlier either.
    /// After an error some of it may be there.
    fn flush(&mut self) -> Result<(), IoError>;
}

/// Makes a pipeline's offsets durable, together with its outputs.
pub trait Committer {
    /// Called before anything is written. Under exactly-once this becomes the lane's only producer, after what an earlier
    /// one left open has been aborted.
    fn begin(&mut self) -> Result<(), IoError>;
    /// Commits input offsets behind everything that was flushed before: if they survive a crash, so do the outputs, and
    /// under exactly-once the other way round too. What is flushed after this is of the next commit.
    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError>;
    /// The driver has ended without committing: what it flushed since its last commit is never seen.
    fn abandon(&mut self) -> Result<(), IoError>;
}

/// What there is of a partition of a changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogEnds {
    /// The id of its topic.
    pub topic_id: [u8; 16],
    /// The first offset that is there.
    pub start: i64,
    /// Behind its last record, whether or not that can be read yet.
    pub end: i64,
    /// `delete.retention.ms` of its topic.
    pub delete_retention_ms: i64,
}

impl ChangelogEnds {
    /// The position of a store that has everything up to `offset`.
    pub fn position(&self, offset: i64, now_ms: i64) -> ChangelogPosition {
        ChangelogPosition { topic_id: self.topic_id, offset, caught_up_ms: now_ms }
    }
}

/// The changelogs of a pipeline's stores, which are outputs (by index) of its own: nobody else writes to them.
pub trait Changelogs {
    /// Where a partition starts and ends now. Once [`Committer::begin`] has returned, the end is that of what is committed,
    /// until the driver writes something.
    fn changelog(&self, output: usize, partition: i32) -> Result<ChangelogEnds, IoError>;
    /// As [`Source::fill`].
    fn fill_changelog(
        &self,
        output: usize,
        partition: i32,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError>;
    /// Returns when there is something to read at `offset`, when the stop signal is set, or after `timeout_ms`.
    fn wait_changelog(&self, output: usize, partition: i32, offset: i64, timeout_ms: u64);
}

/// A partition of a topic, to be read over a range. Every call may block.
pub trait ReplayPartition: Send + Sync {
    /// The offset that this means now: of the log's start, of its readable end, or between the two.
    ///
    /// # Errors
    /// It cannot be found out.
    fn resolve(&self, at: Start) -> Result<i64, IoError>;

    /// Adds records from `offset` on, but for those of aborted transactions, and none from `end` on.
    ///
    /// # Errors
    /// They cannot be read.
    fn fill(&self, offset: i64, end: i64, records: &mut Columns) -> Result<Filled, IoError>;
}

/// All of one driver's outside.
pub trait PipelineIo: Source + Outputs + Committer + Changelogs + Send {}

impl<T: Source + Outputs + Committer + Changelogs + Send> PipelineIo for T {}

/// Whether something is gone in the end.
pub type Forgetting<'a> = Pin<Box<dyn Future<Output = Result<(), IoError>> + Send + 'a>>;

/// The offsets of a group.
pub type Committed<'a> = Pin<Box<dyn Future<Output = Result<Offsets, IoError>> + Send + 'a>>;

/// Makes the I/O of one pipeline's driver.
pub trait IoFactory: Send + Sync {
    /// For a lane of the pipeline of a topology; `stop` ends a wait early.
    fn open(
        &self,
        of: &Arc<Topology>,
        lane: u32,
        guarantee: Guarantee,
        stop: Arc<StopSignal>,
    ) -> Box<dyn PipelineIo>;
    /// Ends what drivers of these lanes of a pipeline have left: open transactions are aborted, and what is on its way from
    /// them is refused. None of them runs. Blocking.
    fn fence(&self, pipeline: &str, lanes: Range<u32>) -> Result<(), IoError>;
    /// The consumer group that holds a pipeline's offsets, so that every tool for groups shows its lag.
    fn group(&self, pipeline: &str) -> String;
    /// What is committed of what a pipeline reads, by topic and partition.
    fn committed<'a>(&'a self, pipeline: &'a str) -> Committed<'a>;
    /// Whether a topic exists now.
    fn topic_exists(&self, topic: &str) -> bool;
    /// How many partitions a topic has; none if it does not exist.
    fn partitions(&self, topic: &str) -> Option<u32>;
    /// Where each partition of a topic ends for who reads what is committed; nothing if it does not exist.
    fn readable_ends(&self, topic: &str) -> Vec<i64>;
    /// How long a topic keeps its records, in milliseconds; none for ever. One that does not exist keeps them as it would
    /// if it were created.
    fn retention_ms(&self, topic: &str) -> Option<i64>;
    /// Whether of the records of a key the last one alone stays in a topic. One that does not exist is as it would be if it were
    /// created.
    fn is_compacted(&self, topic: &str) -> bool;
    /// A partition, to be read over a range; none if it does not exist.
    fn replay_partition(&self, topic: &str, partition: i32) -> Option<Box<dyn ReplayPartition>>;
    /// Deletes topics of the server's own that are a pipeline's, and its offsets. The pipeline does not run.
    fn forget<'a>(&'a self, pipeline: &'a str, topics: &'a [String]) -> Forgetting<'a>;
}

/// Tells a driver to stop at its next commit, or only to look what has come.
#[derive(Debug, Default)]
pub struct StopSignal {
    set: AtomicBool,
    /// Something besides records has come since the last wait.
    nudged: AtomicBool,
    notify: Notify,
    /// That of the whole pipeline, if this is one of a lane's: what is set there is set here.
    of: Option<Arc<StopSignal>>,
    /// From then on it is set. Nobody is woken by that.
    until: Option<Instant>,
}

impl StopSignal {
    /// One of a lane: set when that of its pipeline is, and nudged alone.
    pub fn of_lane(pipeline: &Arc<StopSignal>) -> Arc<StopSignal> {
        Arc::new(StopSignal { of: Some(Arc::clone(pipeline)), ..StopSignal::default() })
    }

    /// One that is set when `of` is, and from a time on.
    pub fn until(of: &Arc<StopSignal>, at: Instant) -> Arc<StopSignal> {
        Arc::new(StopSignal { of: Some(Arc::clone(of)), until: Some(at), ..StopSignal::default() })
    }

    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
            || self.of.as_ref().is_some_and(|of| of.is_set())
            || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Has a wait end that is under way, or else the next one.
    pub fn nudge(&self) {
        self.nudged.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Returns when the signal is set, or was nudged since this has returned last. Whoever returns sees what was done before the
    /// nudge that it has taken.
    pub async fn wait(&self) {
        let mut notified = std::pin::pin!(self.notify.notified());
        // Before the signal is looked at, so that one that is set in between is not missed.
        notified.as_mut().enable();
        let Some(of) = &self.of else {
            if !self.is_set() && !self.nudged.swap(false, Ordering::AcqRel) {
                notified.await;
                self.nudged.swap(false, Ordering::AcqRel);
            }
            return;
        };
        let mut of_all = std::pin::pin!(of.notify.notified());
        of_all.as_mut().enable();
        if !self.is_set() && !self.nudged.swap(false, Ordering::AcqRel) {
            tokio::select! {
                () = notified => {}
                () = of_all => {}
            }
            self.nudged.swap(false, Ordering::AcqRel);
        }
    }
}

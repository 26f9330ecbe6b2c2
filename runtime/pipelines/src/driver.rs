//! One driver runs the tasks of one pipeline, on a thread of its own.
//!
//! The order is: read input, run the task, append its outputs, and only then append the input offsets. The journal makes a
//! prefix durable, so offsets that survive a crash have their outputs before them.
//!
//! Exactly once, outputs and offsets are one transaction of the pipeline's own producer: all of its tasks since the last
//! commit. It is opened by the first output and ended with the offsets; all of it, markers included, has its place in the
//! log before the next one is opened. A driver that ends without a commit leaves a transaction that is aborted, and the
//! next one begins at what is committed. At least once, there is no transaction, and a crash between outputs and offsets
//! repeats the outputs.
//!
//! While a commit is on its way to the disk the driver goes on with the next records; one commit is in flight at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use pelton_streams::log::LogLevel;
use pelton_streams::manifest::{CommitSpec, Guarantee};
use pelton_streams::task::{Notice, NoticeKind, RecordError, StepError};
use pelton_streams::{
    BatchIn, InstanceSpec, InstantiateError, PluginError, PluginFactory, Task, TaskFailure, Topology,
};
use pelton_wire::record::Columns;

use self::commit::{InFlight, Uncommitted};
use super::io::{Filled, Input, IoError, PipelineIo, StopSignal};
use super::status::{FailureStatus, InstanceLog, StatusBoard, TaskStatus, Totals};
use crate::Clock;

/// What a failure is called that ends when somebody creates a topic.
pub(super) const NO_TOPIC: &str = "no-topic";
/// How long an idle driver sleeps at the most before it looks for new partitions.
const IDLE_MS: u64 = 1_000;
/// How often progress is published while there is always something to do.
const PUBLISH_MS: i64 = 100;

/// What a driver is made of.
pub(crate) struct DriverSpec {
    pub(crate) topology: Arc<Topology>,
    pub(crate) guarantee: Guarantee,
    pub(crate) commit: CommitSpec,
    pub(crate) factory: Arc<dyn PluginFactory>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: Arc<StopSignal>,
}

/// Why a driver ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// A record cannot be passed.
    #[error("{0}")]
    Task(Box<TaskFailure>),
    /// A plugin does not start.
    #[error("node `{node}` does not start: {error}")]
    Start { node: String, error: InstantiateError },
    /// What the driver reads, writes and commits to refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A defect of ours.
    #[error("the driver panicked, which is a bug of pelton: {0}")]
    Bug(String),
}

impl DriverError {
    /// Whether the supervisor starts the pipeline again by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            DriverError::Io(error) => error.is_transient(),
            DriverError::Start { error, .. } => matches!(
                error,
                InstantiateError::TooMany { .. } | InstantiateError::Start(PluginError::ServerMemory { .. })
            ),
            // Memory comes back when other plugins stop, and this pipeline gives back its own meanwhile.
            DriverError::Task(failure) => {
                matches!(failure.error, RecordError::Plugin(PluginError::ServerMemory { .. }))
            }
            DriverError::Bug(_) => false,
        }
    }

    /// Whether it passes when somebody creates a topic.
    pub(crate) fn waits_for_topic(&self) -> bool {
        matches!(self, DriverError::Io(IoError::NoOutput { .. } | IoError::OutputRenewed { .. }))
    }

    /// For status and HTTP.
    pub(crate) fn status(&self, at_ms: i64) -> FailureStatus {
        let place = match self {
            DriverError::Task(failure) => {
                Some((failure.topic.clone(), failure.partition, Some(failure.offset)))
            }
            DriverError::Io(
                IoError::BehindEnd { topic, partition, offset, .. }
                | IoError::BadBatch { topic, partition, offset, .. },
            ) => Some((topic.clone(), *partition, Some(*offset))),
            DriverError::Io(IoError::NoPartition { topic, partition }) => {
                Some((topic.clone(), *partition, None))
            }
            DriverError::Io(
                IoError::Unavailable(_) | IoError::NoOutput { .. } | IoError::OutputRenewed { .. },
            )
            | DriverError::Start { .. }
            | DriverError::Bug(_) => None,
        };
        let kind = match self {
            DriverError::Task(failure) => failure.error.kind(),
            DriverError::Start { .. } => "start",
            DriverError::Io(IoError::BadBatch { .. }) => "input",
            DriverError::Io(IoError::NoOutput { .. } | IoError::OutputRenewed { .. }) => NO_TOPIC,
            DriverError::Io(_) => "io",
            DriverError::Bug(_) => "bug",
        };
        let (topic, partition, offset) = match place {
            Some((topic, partition, offset)) => (Some(topic), Some(partition), offset),
            None => (None, None, None),
        };
        FailureStatus { reason: self.to_string(), kind, topic, partition, offset, at_ms }
    }
}

/// See the module.
pub(crate) struct Driver<'io> {
    spec: DriverSpec,
    io: &'io mut dyn PipelineIo,
    lanes: Vec<Lane>,
    uncommitted: Uncommitted,
    in_flight: Option<InFlight>,
    /// Sources whose topic is not there.
    missing: BTreeSet<usize>,
    /// The partitions of each output topic.
    outputs: Vec<u32>,
    /// Everything that was there when it began has its task.
    has_begun: bool,
    totals: Totals,
    published_ms: i64,
    columns: Columns,
}

/// One task with its position.
struct Lane {
    task: Task,
    input: Input,
    topic: String,
    /// The next offset to read.
    position: i64,
    committed: i64,
    /// False: where this began is not committed, and the end of the topic that it stands for would move.
    anchored: bool,
    end: i64,
    /// Not before this time: a retry waits.
    not_before_ms: i64,
}

/// What a step left behind.
enum Progress {
    /// There was nothing to read.
    Idle,
    /// Something was read.
    Some,
}

impl<'io> Driver<'io> {
    pub(crate) fn new(spec: DriverSpec, io: &'io mut dyn PipelineIo) -> Driver<'io> {
        Driver {
            io,
            lanes: Vec::new(),
            uncommitted: Uncommitted::default(),
            in_flight: None,
            missing: (0..spec.topology.sources.len()).collect(),
            outputs: vec![0; spec.topology.outputs.len()],
            has_begun: false,
            totals: Totals::default(),
            published_ms: i64::MIN,
            columns: Columns::new(),
            spec,
        }
    }

    /// Runs until it is told to stop, at a commit, or cannot go on. What was done is committed in both cases, unless it
    /// would be committed half.
    pub(crate) fn run(mut self) -> Result<(), DriverError> {
        let result = self.run_until_stopped();
        // A step that fails has appended nothing, and all before it count. Only outputs and commits can fail in the midst of
        // one: then the transaction is aborted. Without one, what was appended twice is better than what is not committed.
        let whole = match &result {
            Ok(()) | Err(DriverError::Io(IoError::BadBatch { .. })) => true,
            Err(DriverError::Io(_)) => Mutant::HalfStepCommitted.is_on(),
            Err(DriverError::Task(_) | DriverError::Start { .. } | DriverError::Bug(_)) => true,
        };
        let half_is_kept = self.spec.guarantee == Guarantee::AtLeastOnce;
        let committed = if whole || half_is_kept { self.commit_all() } else { Ok(()) };
        self.publish();
        result.and(committed)
    }

    fn run_until_stopped(&mut self) -> Result<(), DriverError> {
        self.io.begin()?;
        loop {
            // At least once, so that where it begins is committed even if it is stopped at once.
            self.follow_changes()?;
            if self.spec.stop.is_set() {
                return Ok(());
            }
            let mut idle = true;
            for lane in 0..self.lanes.len() {
                if self.lanes[lane].not_before_ms > self.now_ms() {
                    continue;
                }
                if matches!(self.step(lane)?, Progress::Some) {
                    idle = false;
                }
                self.commit_when_due()?;
            }
            if idle {
                self.commit_all()?;
                self.publish();
                self.rest();
            } else if self.now_ms().saturating_sub(self.published_ms) >= PUBLISH_MS {
                self.publish();
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the form that Task::new takes")]
    fn plugins(
        &self,
        Input { source, partition }: Input,
    ) -> Result<Vec<(usize, Box<dyn pelton_streams::Plugin>)>, DriverError> {
        let make = |index: usize| {
            let node = &self.spec.topology.nodes[index];
            let log = InstanceLog { board: Arc::clone(&self.spec.board), node: node.id.clone(), partition };
            let spec = InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(log) };
            let plugin = self.spec.factory.instantiate(&node.plugin.digest, &spec);
            plugin
                .map(|plugin| (index, plugin))
                .map_err(|error| DriverError::Start { node: node.id.clone(), error })
        };
        self.spec.topology.nodes_of(source).into_iter().map(make).collect()
    }

    fn now_ms(&self) -> i64 {
        self.spec.clock.now_ms()
    }

    /// Reads, processes and appends once for one task.
    fn step(&mut self, lane: usize) -> Result<Progress, DriverError> {
        let Lane { input, position, .. } = self.lanes[lane];
        let mut records = std::mem::take(&mut self.columns);
        records.clear();
        let progress = match self.io.fill(input, position, &mut records) {
            Ok(filled) => {
                let Filled { next_offset, end_offset, deleted_unread } = filled;
                self.lanes[lane].end = end_offset;
                if deleted_unread {
                    self.say_deleted(lane, next_offset);
                }
                self.process(lane, &records, next_offset)
            }
            // Whether it has gone for good is a change to follow.
            Err(IoError::NoPartition { .. }) => Ok(Progress::Idle),
            Err(error) => Err(error.into()),
        };
        self.columns = records;
        progress
    }

    fn say_deleted(&self, lane: usize, next_offset: i64) {
        let Lane { topic, input: Input { partition, .. }, position, .. } = &self.lanes[lane];
        let text = format!(
            "topic {topic}, partition {partition}: offsets {position} to {} were deleted before they were read; raise the \
             topic's retention, or give the pipeline more time",
            next_offset - 1
        );
        tracing::warn!(pipeline = self.spec.topology.name, "{text}");
        self.spec.board.say("source", *partition, LogLevel::Warn, &text);
    }

    fn process(&mut self, lane: usize, columns: &Columns, end_offset: i64) -> Result<Progress, DriverError> {
        let entry = &mut self.lanes[lane];
        if columns.is_empty() {
            // Nothing, or only control batches and holes: step over them.
            let moved = end_offset > entry.position;
            entry.position = entry.position.max(end_offset);
            if moved {
                self.uncommitted.since_ms.get_or_insert(self.now_ms());
            }
            return Ok(if moved { Progress::Some } else { Progress::Idle });
        }
        let topic = entry.topic.clone();
        let batch = BatchIn::new(&topic, entry.input.partition.unsigned_abs(), columns);
        let stop = &self.spec.stop;
        let result = entry.task.process(&batch, end_offset, self.io, &|| stop.is_set());
        self.totals.add_calls(entry.task.take_calls());
        let output = match result {
            Ok(output) => output,
            Err(StepError::Failed(failure)) => return Err(DriverError::Task(failure)),
            Err(StepError::Retry { delay_ms, attempt, attempts, failure }) => {
                entry.not_before_ms = self.spec.clock.now_ms().saturating_add(i64::from(delay_ms));
                let text = format!("{failure}; attempt {attempt} of {attempts} in {delay_ms} ms");
                self.spec.board.say(&failure.node, failure.partition, LogLevel::Warn, &text);
                return Ok(Progress::Idle);
            }
        };
        if Mutant::OffsetsBeforeOutputs.is_on() {
            self.lanes[lane].position = output.next_offset;
            self.start_commit()?;
        }
        let flushed = self.io.flush();
        if !Mutant::FailedAppendPassed.is_on() {
            flushed?;
        }
        output.notices.iter().for_each(|notice| self.say_notice(notice));
        self.totals.add(&output.counts);
        self.uncommitted.records += output.counts.records_in;
        self.uncommitted.bytes += output.counts.bytes_out;
        self.uncommitted.since_ms.get_or_insert(self.now_ms());
        self.lanes[lane].position = output.next_offset;
        Ok(Progress::Some)
    }

    fn say_notice(&self, Notice { kind, failure }: &Notice) {
        let (level, text) = match kind {
            NoticeKind::Skipped => (LogLevel::Warn, format!("skipped: {failure}")),
            NoticeKind::DeadLettered => (LogLevel::Warn, format!("sent to the dead-letter topic: {failure}")),
            NoticeKind::Undeliverable { topic, why } => (
                LogLevel::Error,
                format!("dropped, because the dead-letter topic {topic} does not take it ({why}): {failure}"),
            ),
        };
        self.spec.board.say(&failure.node, failure.partition, level, &text);
    }

    /// Waits for records, a stop, or the earliest retry.
    fn rest(&self) {
        let now = self.now_ms();
        let waiting = |lane: &&Lane| lane.not_before_ms > now;
        let ready = self.lanes.iter().filter(|lane| !waiting(lane));
        let positions: Vec<_> = ready.map(|lane| (lane.input, lane.position)).collect();
        let retry =
            self.lanes.iter().filter(waiting).map(|lane| (lane.not_before_ms - now).unsigned_abs()).min();
        self.io.wait(&positions, retry.unwrap_or(IDLE_MS).min(IDLE_MS));
    }

    fn publish(&mut self) {
        self.published_ms = self.now_ms();
        self.spec.board.set_totals(self.totals);
        for lane in &self.lanes {
            self.spec.board.set_task(TaskStatus {
                topic: lane.topic.clone(),
                partition: lane.input.partition,
                committed: lane.committed,
                end: lane.end,
                lag: (lane.end - lane.committed).max(0),
            });
        }
    }
}

mod changes;
mod commit;
#[cfg(test)]
mod tests;

//! One driver runs the tasks of one lane of a pipeline, on a thread of its own. [`crate::lanes`] says which those are; here the
//! pipeline is that lane.
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
use std::sync::atomic::{AtomicI32, Ordering};

use pelton_commitlog::mutant::Mutant;
use pelton_streams::log::LogLevel;
use pelton_streams::manifest::{CommitSpec, Guarantee};
use pelton_streams::state::Position as StorePosition;
use pelton_streams::task::{
    Notice, NoticeKind, Outside, Plugins, RecordError, StepError, StepOutput, TaskInput,
};
use pelton_streams::{BatchIn, PluginFactory, Task, Topology};
use pelton_wire::record::Columns;

use self::commit::{InFlight, Uncommitted};
use self::deliveries::Deliveries;
pub(crate) use self::error::DriverError;
pub(super) use self::error::NO_TOPIC;
use self::globals::OpenGlobals;
use self::pacer::Pacer;
pub(crate) use self::pacer::{CpuUs, StartCpu};
use self::stores::StoreTimes;
use super::globals::Globals;
use super::io::{Filled, Input, IoError, PipelineIo, StopSignal};
use super::readers::OpenGates;
use super::status::{Counted, StatusBoard, TaskStatus, Totals};
use super::stores::TaskStores;
use crate::Clock;
use crate::lanes::Lane;

/// What log lines are about that plugins write before they are given records.
const NO_PARTITION: i32 = -1;
/// How long an idle driver sleeps at the most before it looks for new partitions.
const IDLE_MS: u64 = 1_000;
/// How often what was read of the pipeline's own topics is deleted: Kafka Streams' `repartition.purge.interval.ms`.
const PURGE_MS: i64 = 30_000;
/// How long a task waits whose records are held back: longer than a sync.
const HELD_MS: i64 = 1;
/// How often progress is published while there is always something to do.
const PUBLISH_MS: i64 = 100;

/// What a driver is made of.
pub(crate) struct DriverSpec {
    pub(crate) topology: Arc<Topology>,
    /// Which of the pipeline's tasks it runs.
    pub(crate) lane: Lane,
    pub(crate) guarantee: Guarantee,
    pub(crate) commit: CommitSpec,
    pub(crate) factory: Arc<dyn PluginFactory>,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: Arc<StopSignal>,
    /// Where tasks keep their stores.
    pub(crate) stores: Arc<dyn TaskStores>,
    /// The copies of topics that the process keeps.
    pub(crate) globals: Arc<dyn Globals>,
    /// Begins to count what the calling thread uses.
    pub(crate) cpu: StartCpu,
}

pub(crate) struct Driver<'io> {
    /// The first field, so that nobody reads stores any more when they are dropped.
    gates: OpenGates,
    spec: DriverSpec,
    io: &'io mut dyn PipelineIo,
    tasks: Vec<DriverTask>,
    /// What goes to plugins that act on the outside.
    deliveries: Deliveries,
    /// One instance for each node, whichever partition's records it is given.
    plugins: Plugins,
    /// The partition whose records plugins are given now: the one that their log lines are about.
    calling: Arc<AtomicI32>,
    uncommitted: Uncommitted,
    in_flight: Option<InFlight>,
    /// Sources whose topic is not there.
    missing: BTreeSet<usize>,
    /// The partitions of each output topic.
    outputs: Vec<u32>,
    /// The partitions of each source's topic; 0 while it is not there.
    sources: Vec<u32>,
    store_times: StoreTimes,
    globals: OpenGlobals,
    /// Everything that was there when it began has its task.
    has_begun: bool,
    /// What was counted by now, and what of it is committed.
    counting: Counted,
    counted: Counted,
    published_ms: i64,
    purged_ms: i64,
    pacer: Pacer,
    cpu_us: CpuUs,
    /// Made to be used again: one for each input of a task.
    columns: Vec<Columns>,
}

/// One task with its inputs.
struct DriverTask {
    task: Task,
    inputs: Vec<TaskPosition>,
    /// Not before this time: a retry waits.
    not_before_ms: i64,
    /// The offsets that readers of its stores were told of last, and the position that they were told for.
    told: (Vec<i64>, StorePosition),
    /// When a timer on the clock is due, as far as is known.
    next_tick_ms: Option<i64>,
    /// When timers have fired last.
    ticked_ms: i64,
}

/// How far one input of a task is.
struct TaskPosition {
    input: Input,
    topic: String,
    /// The next offset to read.
    next_offset: i64,
    committed: i64,
    /// False until the start offset is committed: `latest` would be another offset after a restart.
    anchored: bool,
    end_offset: i64,
}

impl TaskPosition {
    /// What a task is given of records that were read up to `end_offset`, of which those below `limit` can be taken.
    fn given<'a>(&self, topic: &'a str, records: &'a Columns, end_offset: i64, limit: i64) -> TaskInput<'a> {
        let all = BatchIn::new(topic, self.input.partition.unsigned_abs(), records);
        let batch = all.below(limit);
        let held = all.offsets.get(batch.len()).copied();
        TaskInput {
            source: self.input.source,
            batch,
            end_offset: held.unwrap_or(end_offset),
            // What is held back comes behind all that others have below the limit.
            more: held.is_none() && end_offset < self.end_offset.min(limit),
        }
    }
}

impl DriverTask {
    fn move_on(&mut self, output: &StepOutput) {
        for &(source, next_offset) in &output.positions {
            let moved = self.inputs.iter_mut().filter(|position| position.input.source == source);
            moved.for_each(|position| position.next_offset = next_offset);
        }
    }
}

/// What a step left behind.
enum Progress {
    /// There was nothing to read.
    Idle,
    /// Something was read.
    Some,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Busy,
    /// There was nothing to read: all that was done is committed.
    Idle,
    /// It was told to stop, and has done nothing.
    Stopped,
    /// It has used its share of CPU, and rests for so long.
    Spent(std::time::Duration),
}

impl<'io> Driver<'io> {
    pub(crate) fn new(spec: DriverSpec, io: &'io mut dyn PipelineIo) -> Driver<'io> {
        Driver {
            gates: OpenGates::new(Arc::clone(spec.board.readers())),
            io,
            tasks: Vec::new(),
            deliveries: Deliveries::default(),
            plugins: Plugins::default(),
            calling: Arc::new(AtomicI32::new(NO_PARTITION)),
            uncommitted: Uncommitted::default(),
            in_flight: None,
            missing: (0..spec.topology.sources.len()).collect(),
            outputs: vec![0; spec.topology.outputs.len()],
            sources: vec![0; spec.topology.sources.len()],
            store_times: StoreTimes::new(spec.clock.now_ms()),
            globals: OpenGlobals::default(),
            has_begun: false,
            counting: spec.board.counted(spec.lane),
            counted: spec.board.counted(spec.lane),
            published_ms: i64::MIN,
            purged_ms: spec.clock.now_ms(),
            pacer: Pacer::default(),
            cpu_us: (spec.cpu)(),
            columns: Vec::new(),
            spec,
        }
    }

    /// Runs until it is told to stop, at a commit, or cannot go on. What was done is committed in both cases, unless it
    /// would be committed half.
    pub(crate) fn run(mut self) -> Result<(), DriverError> {
        let result = self.run_until_stopped();
        self.finish(result)
    }

    fn finish(mut self, result: Result<(), DriverError>) -> Result<(), DriverError> {
        let result = match result {
            // It has read nothing yet.
            Err(DriverError::Stopped) => Ok(()),
            result => result,
        };
        // A step that fails has appended nothing, and all before it count. Only outputs and commits can fail in the midst of
        // one: then the transaction is aborted. Without one, what was appended twice is better than what is not committed.
        let whole = match &result {
            Ok(()) | Err(DriverError::Io(IoError::BadBatch { .. })) => true,
            Err(DriverError::Io(_)) => Mutant::HalfStepCommitted.is_on(),
            // What a task has changed may be half in its changelog.
            Err(DriverError::State { .. }) => false,
            Err(
                DriverError::Task(_)
                | DriverError::Start { .. }
                | DriverError::Global { .. }
                | DriverError::Partitions(_)
                | DriverError::Stopped
                | DriverError::Bug(_),
            ) => true,
        };
        let half_is_kept = self.spec.guarantee == Guarantee::AtLeastOnce;
        let committed = if whole || half_is_kept { self.end() } else { Ok(()) };
        self.publish();
        let result = result.and(committed);
        if let Err(error) = &result {
            self.remove_damaged(error);
        }
        result
    }

    /// Commits what was done, and has it on disk before the driver ends.
    fn end(&mut self) -> Result<(), DriverError> {
        self.drain();
        self.commit_all()?;
        self.purge(true);
        self.catch_up_stores(true)?;
        self.flush_stores(true)
    }

    fn run_until_stopped(&mut self) -> Result<(), DriverError> {
        self.io.begin()?;
        self.open_globals()?;
        loop {
            match self.turn()? {
                Turn::Stopped => return Ok(()),
                Turn::Busy => {}
                Turn::Idle => self.rest(),
                Turn::Spent(rest) => std::thread::sleep(rest),
            }
        }
    }

    /// Gives every task its turn, and does what else is due.
    fn turn(&mut self) -> Result<Turn, DriverError> {
        // At least once, so that where it begins is committed even if it is stopped at once.
        self.follow_changes()?;
        if self.spec.stop.is_set() {
            return Ok(Turn::Stopped);
        }
        if let Some(rest) = self.spent()? {
            return Ok(Turn::Spent(rest));
        }
        if !self.check_globals()? {
            self.commit_all()?;
            return Ok(Turn::Busy);
        }
        let mut idle = true;
        for task in 0..self.tasks.len() {
            if self.tasks[task].not_before_ms > self.now_ms() {
                continue;
            }
            if matches!(self.tick(task)?, Progress::Some) {
                idle = false;
            }
            if matches!(self.step(task)?, Progress::Some) {
                idle = false;
            }
            self.commit_when_due()?;
        }
        if matches!(self.deliver()?, Progress::Some) {
            idle = false;
            self.commit_when_due()?;
        }
        self.flush_stores(false)?;
        self.purge(false);
        if idle {
            self.commit_all()?;
            self.catch_up_stores(false)?;
            self.publish();
            return Ok(Turn::Idle);
        }
        self.publish_when_due();
        Ok(Turn::Busy)
    }

    fn now_ms(&self) -> i64 {
        self.spec.clock.now_ms()
    }

    /// Reads, processes and appends once for one task.
    fn step(&mut self, task: usize) -> Result<Progress, DriverError> {
        let mut columns = std::mem::take(&mut self.columns);
        let inputs = self.tasks[task].inputs.len();
        columns.resize_with(inputs.max(columns.len()), Columns::new);
        let progress = self.step_with(task, &mut columns[..inputs]);
        self.columns = columns;
        progress
    }

    fn step_with(&mut self, task: usize, columns: &mut [Columns]) -> Result<Progress, DriverError> {
        // It reads nothing before all is out that closes before the record that it read last.
        let id = self.tasks[task].task.id();
        if self.tasks[task].task.is_behind().map_err(|error| DriverError::State { task: id, error })? {
            return self.process(task, &[]);
        }
        let limits = self.order_limits(task)?;
        let mut progress = Progress::Idle;
        let mut ends = Vec::with_capacity(columns.len());
        let mut order_is_known = true;
        for (input, records) in columns.iter_mut().enumerate() {
            records.clear();
            let end_offset = self.fill(task, input, records)?;
            let position = &mut self.tasks[task].inputs[input];
            if records.is_empty() && end_offset > position.next_offset {
                // Only control batches, aborted records and holes.
                position.next_offset = end_offset;
                self.uncommitted.since_ms.get_or_insert(self.spec.clock.now_ms());
                progress = Progress::Some;
                // What comes behind may be the earliest record of all.
                order_is_known &= end_offset >= position.end_offset;
            }
            ends.push(end_offset);
        }
        if !order_is_known {
            return Ok(progress);
        }
        let inputs = &self.tasks[task].inputs;
        // Their topics are named while the task is at work.
        let topics: Vec<String> = inputs.iter().map(|position| position.topic.clone()).collect();
        let limit =
            |input: usize| limits.as_ref().and_then(|limits| limits.get(input)).copied().unwrap_or(i64::MAX);
        let given = inputs.iter().zip(&topics).zip(columns.iter().zip(ends)).enumerate();
        let given = given.filter(|(_, (_, (records, _)))| !records.is_empty());
        let given = given.map(|(i, ((position, topic), (records, end_offset)))| {
            position.given(topic, records, end_offset, limit(i))
        });
        let given: Vec<TaskInput<'_>> = given.collect();
        if given.iter().all(|input| input.batch.is_empty()) {
            if !given.is_empty() {
                // What holds them back is on its way, mostly to the disk.
                self.tasks[task].not_before_ms = self.now_ms().saturating_add(HELD_MS);
            }
            return Ok(progress);
        }
        match self.process(task, &given)? {
            Progress::Idle => Ok(progress),
            Progress::Some => Ok(Progress::Some),
        }
    }

    /// How far the inputs of a task can be read, if it takes their records in the order of their offsets.
    fn order_limits(&self, task: usize) -> Result<Option<Vec<i64>>, DriverError> {
        let DriverTask { task, inputs, .. } = &self.tasks[task];
        if !self.spec.topology.sub_topologies[task.id().sub_topology].by_offset {
            return Ok(None);
        }
        let inputs: Vec<Input> = inputs.iter().map(|position| position.input).collect();
        Ok(Some(self.io.order_limits(&inputs)?))
    }

    /// Reads records of one input; the offset behind them.
    fn fill(&mut self, task: usize, input: usize, records: &mut Columns) -> Result<i64, DriverError> {
        let position = &mut self.tasks[task].inputs[input];
        match self.io.fill(position.input, position.next_offset, records) {
            Ok(Filled { next_offset, end_offset, deleted_unread }) => {
                position.end_offset = end_offset;
                if deleted_unread {
                    let (topic, partition) = (position.topic.clone(), position.input.partition);
                    let from = position.next_offset;
                    self.say_deleted(&topic, partition, from, next_offset);
                }
                Ok(next_offset)
            }
            // Whether it has gone for good is a change to follow.
            Err(IoError::NoPartition { .. }) => Ok(position.next_offset),
            Err(error) => Err(error.into()),
        }
    }

    fn say_deleted(&self, topic: &str, partition: i32, from: i64, next_offset: i64) {
        let text = format!(
            "topic {topic}, partition {partition}: offsets {from} to {} were deleted before they were read; raise the \
             topic's retention, or give the pipeline more time",
            next_offset - 1
        );
        tracing::warn!(pipeline = self.spec.topology.name, "{text}");
        self.spec.board.say("source", partition, LogLevel::Warn, &text);
    }

    /// Has a task process records, or go on without any.
    fn process(&mut self, index: usize, given: &[TaskInput<'_>]) -> Result<Progress, DriverError> {
        let DriverTask { task, not_before_ms, .. } = &mut self.tasks[index];
        let partition = task.id().partition;
        self.calling.store(partition, Ordering::Relaxed);
        task.set_clock(self.spec.clock.now_ms());
        let stop = &self.spec.stop;
        let interrupted = || stop.is_set();
        let mut outside = Outside {
            plugins: &mut self.plugins,
            sink: &mut *self.io,
            globals: &self.globals,
            interrupted: &interrupted,
        };
        let result = task.process(given, &mut outside);
        self.counting.totals.add_calls(task.take_calls());
        for (operator, counts) in task.take_dropped() {
            let id = self.spec.topology.operators[operator].id.clone();
            self.counting.dropped.entry(id).or_default().add(counts);
        }
        let output = match result {
            Ok(output) => output,
            Err(StepError::Failed(failure)) => {
                let id = task.id();
                return Err(match failure.error {
                    RecordError::State(error) => DriverError::State { task: id, error },
                    _ => DriverError::Task(failure),
                });
            }
            Err(StepError::Retry { delay_ms, attempt, attempts, failure }) => {
                *not_before_ms = self.spec.clock.now_ms().saturating_add(i64::from(delay_ms));
                let text = format!("{failure}; attempt {attempt} of {attempts} in {delay_ms} ms");
                self.spec.board.say(&failure.node, failure.partition, LogLevel::Warn, &text);
                return Ok(Progress::Idle);
            }
        };
        if Mutant::OffsetsBeforeOutputs.is_on() {
            self.tasks[index].move_on(&output);
            self.start_commit()?;
        }
        let flushed = self.io.flush();
        if !Mutant::FailedAppendPassed.is_on() {
            flushed?;
        }
        self.tasks[index].move_on(&output);
        output.notices.iter().for_each(|notice| self.say_notice(notice));
        self.counting.totals.add(&output.counts);
        self.uncommitted.records += output.counts.records_in;
        self.uncommitted.bytes += output.counts.bytes_out;
        self.uncommitted.since_ms.get_or_insert(self.now_ms());
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

    /// Deletes what was read of the pipeline's own topics and is committed, if that is due, or `now`.
    fn purge(&mut self, now: bool) {
        if !now && self.now_ms().saturating_sub(self.purged_ms) < PURGE_MS {
            return;
        }
        self.purged_ms = self.now_ms();
        let topology = &self.spec.topology;
        let is_own = |source: usize| {
            let source = &topology.sources[source];
            source.repartition.is_some() || source.only.is_some()
        };
        let own = self.positions().filter(|input| is_own(input.input.source));
        let own: Vec<(Input, i64)> = own.map(|position| (position.input, position.committed)).collect();
        for (input, committed) in own {
            if let Err(error) = self.io.purge(input, committed) {
                // The next time deletes these as well.
                let topology = &self.spec.topology;
                let (pipeline, topic) = (&topology.name, &topology.sources[input.source].topic);
                tracing::warn!(pipeline, topic, %error, "records that are done stay for now");
            }
        }
    }

    /// Waits for records, a stop, or the earliest retry.
    fn rest(&self) {
        let now = self.now_ms();
        let waits = |task: &&DriverTask| task.not_before_ms > now;
        let ready = self.tasks.iter().filter(|task| !waits(task)).flat_map(|task| &task.inputs);
        let mut positions: Vec<_> = ready.map(|position| (position.input, position.next_offset)).collect();
        let (wanted, due) = self.delivery_waits(now);
        positions.extend(wanted);
        let retries = self.tasks.iter().filter(waits).map(|task| task.not_before_ms);
        let ticks = self.tasks.iter().filter(|task| !waits(task)).filter_map(|task| task.next_tick_ms);
        let next =
            retries.chain(ticks).chain(due).map(|at| at.saturating_sub(now).max(0).unsigned_abs()).min();
        self.io.wait(&positions, next.unwrap_or(IDLE_MS).min(IDLE_MS));
    }

    fn publish(&mut self) {
        self.published_ms = self.now_ms();
        let Totals { calls, failed_calls, retries, commits, .. } = self.counting.totals;
        self.counted.totals = Totals { calls, failed_calls, retries, commits, ..self.counted.totals };
        self.spec.board.set_counted(self.spec.lane, &self.counted);
        // What is wrong with one shows when it is read.
        let _ = self.show_globals();
        for position in self.positions() {
            self.spec.board.set_task(TaskStatus {
                delivery: self.delivery_status(position),
                topic: position.topic.clone(),
                partition: position.input.partition,
                lane: self.spec.lane.number,
                committed: position.committed,
                end: position.end_offset,
                lag: (position.end_offset - position.committed).max(0),
            });
        }
    }
}

mod changes;
mod commit;
mod deliveries;
mod error;
mod globals;
mod instances;
#[cfg(any(test, feature = "testing"))]
mod obedient;
mod pacer;
mod restore;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
mod stores;
#[cfg(test)]
mod tests;
mod ticks;
mod workers;

//! One source's tree on one partition: a synchronous step from a batch to records for topics.
//!
//! A step either succeeds, or says which record it cannot pass and why. When a plugin fails without naming a record, the
//! batch is halved until the record is found, so a status always has an offset. A step may end early, after some of its
//! records: what it has done up to there counts, and the next step begins behind it. Nothing of a failed call is
//! emitted, and no failure is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::answer::Answer;
use crate::batch::{BatchFull, BatchIn, OwnedBatch, RecordIn};
use crate::manifest::{DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS, MAX_RETRY_BACKOFF_MS, OnError};
use crate::partitioner::Partitioner;
use crate::plugin::{Plugin, PluginError, Rejection};
use crate::topology::{Target, Topology};

mod output;

pub use output::{Calls, Emitted, Notice, NoticeKind, StepCounts, StepOutput, dead_letter_headers};
use output::{Cow, Piece};

/// Failed calls after which a step ends, if it has got anywhere: a pipeline that fails at every record must still
/// answer a pause or a stop. Finding one bad record in a batch of 10,000 takes 14.
const MAX_FAILED_CALLS_PER_STEP: u32 = 40;
/// What a missed deadline counts for: each one takes a second of the pipeline's thread, not microseconds.
const DEADLINE_WEIGHT: u32 = 4;
/// Rejections of one range after which it is halved: a plugin that names one record a call would otherwise see the
/// whole batch again for each of them.
const MAX_REJECTIONS_PER_RANGE: u32 = 4;

/// Bytes after which another batch of dead letters is begun: far from the 4 GiB that one may have.
const MAX_LETTERS_BYTES: usize = 64 << 20;

/// A task: which source (an index in [`Topology::sources`]) and which of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The source.
    pub source: usize,
    /// The partition.
    pub partition: i32,
}

/// Why a pipeline stops, and at which record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The node that failed.
    pub node: String,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record, or of the first of several.
    pub offset: i64,
    /// The offset of the last record, when the failure could not be narrowed to one.
    pub last_offset: i64,
    /// How the plugin failed.
    pub error: PluginError,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskFailure { node, topic, partition, offset, last_offset, error } = self;
        if offset == last_offset {
            write!(
                f,
                "node `{node}` failed at topic {topic}, partition {partition}, offset {offset}: {error}"
            )
        } else {
            write!(
                f,
                "node `{node}` failed at topic {topic}, partition {partition}, offsets {offset} to {last_offset}: \
                 {error}"
            )
        }
    }
}

impl std::error::Error for TaskFailure {}

/// A step that has emitted nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepError {
    /// Give the same batch again, after a while.
    Retry {
        /// How long to wait.
        delay_ms: u32,
        /// Which attempt the next one will be, from 1.
        attempt: u32,
        /// How many there are.
        attempts: u32,
        /// What failed.
        failure: Box<TaskFailure>,
    },
    /// The task cannot go on. A new task begins at the same record.
    Failed(TaskFailure),
}

/// One source's tree on one partition. See the module.
pub struct Task {
    id: TaskId,
    topology: Arc<Topology>,
    /// By index in [`Topology::nodes`]; `None` for nodes of other sources.
    plugins: Vec<Option<Box<dyn Plugin>>>,
    /// By index in [`Topology::outputs`].
    partitioners: Vec<Partitioner>,
    retrying: Option<Retrying>,
    calls: Calls,
    /// Found after progress was made: returned by the step that begins with its record.
    found: Option<TaskFailure>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("pipeline", &self.topology.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct Retrying {
    offset: i64,
    attempts: u32,
}

/// A call that failed, with where.
struct NodeError {
    node: usize,
    error: PluginError,
    /// Rejected records by offset; empty when the plugin named none.
    rejected: Vec<(i64, Rejection)>,
}

/// What one step has decided so far.
struct Step<'a> {
    batch: BatchIn<'a>,
    pieces: Vec<Piece<'a>>,
    counts: StepCounts,
    notices: Vec<Notice>,
    /// Records that a node is not given any more: (node, offset).
    excluded: BTreeSet<(usize, i64)>,
    spent: u32,
    /// Records done, from the beginning of the batch.
    done: usize,
}

/// What to do about a failed range.
enum Next {
    Again,
    Halve,
    Stop(StepError),
}

impl Task {
    /// A task with its plugins: one for each node of its source's tree, as `(node index, plugin)`, and the number of
    /// partitions of each output topic, in the order of [`Topology::outputs`].
    pub fn new(
        id: TaskId,
        topology: Arc<Topology>,
        plugins: Vec<(usize, Box<dyn Plugin>)>,
        output_partitions: &[u32],
    ) -> Task {
        let mut slots: Vec<Option<Box<dyn Plugin>>> = topology.nodes.iter().map(|_| None).collect();
        for (node, plugin) in plugins {
            slots[node] = Some(plugin);
        }
        for node in topology.nodes_of(id.source) {
            assert!(slots[node].is_some(), "every node of the task's tree has its plugin");
        }
        let seed = id.partition.unsigned_abs();
        let partitioners = (topology.outputs.iter().zip(output_partitions))
            .map(|(output, &partitions)| Partitioner::new(output.partitioner, partitions, seed))
            .collect::<Vec<_>>();
        assert_eq!(partitioners.len(), topology.outputs.len(), "every output topic has its partition count");
        Task {
            id,
            topology,
            plugins: slots,
            partitioners,
            retrying: None,
            calls: Calls::default(),
            found: None,
        }
    }

    /// Which task this is.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Calls of plugins since this was asked last, those of failed steps among them.
    pub fn take_calls(&mut self) -> Calls {
        std::mem::take(&mut self.calls)
    }

    /// An output topic has grown.
    pub fn set_output_partitions(&mut self, output: usize, partitions: u32) {
        self.partitioners[output].set_partitions(partitions);
    }

    /// Passes a batch of the task's partition through the tree. `end_offset` is the offset after the batch: what is
    /// committed when all of it is done, even if its last records are not there any more. `interrupted` is asked after
    /// each failed call: the search for a record that takes a plugin's whole deadline each time must not hold up a stop.
    ///
    /// The outputs must be stable before [`StepOutput::next_offset`] is committed. After an early end (`next_offset` is
    /// below `end_offset`) the next step is given what is left; that may be all of it after an interruption.
    ///
    /// # Errors
    /// Nothing was emitted: try again later, or stop.
    pub fn process<'a>(
        &mut self,
        batch: &BatchIn<'a>,
        end_offset: i64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<StepOutput<'a>, StepError> {
        let first = batch.offsets.first().copied();
        if let Some(found) = self.found.take_if(|found| Some(found.offset) == first) {
            return Err(StepError::Failed(found));
        }
        let mut step = Step::new(*batch);
        let mut ranges = vec![(0, batch.len(), 0)];
        while let Some((start, end, rejections)) = ranges.pop() {
            if start == end {
                continue;
            }
            let Err(error) = self.run_range(&mut step, start, end) else {
                step.done = end;
                continue;
            };
            step.spend(&error.error);
            match self.decide(&mut step, start, end, error, rejections) {
                Next::Again => ranges.push((start, end, rejections + 1)),
                Next::Halve => {
                    let middle = start + (end - start) / 2;
                    ranges.push((middle, end, 0));
                    ranges.push((start, middle, 0));
                }
                Next::Stop(stop) if step.done == 0 => return Err(stop),
                Next::Stop(stop) => {
                    if let StepError::Failed(failure) = stop {
                        self.found = Some(failure);
                    }
                    break;
                }
            }
            if (step.spent >= MAX_FAILED_CALLS_PER_STEP && step.done > 0) || interrupted() {
                break;
            }
        }
        if step.done > 0 {
            self.retrying = None;
        }
        let next_offset = match batch.offsets.get(step.done) {
            Some(&next) => next,
            None => end_offset,
        };
        Ok(step.finish(&self.topology, &mut self.partitioners, next_offset))
    }

    /// Runs the whole tree over records `start..end`. Nothing is kept if any node fails.
    fn run_range(&mut self, step: &mut Step<'_>, start: usize, end: usize) -> Result<(), NodeError> {
        let batch = if (start, end) == (0, step.batch.len()) {
            Cow::Borrowed(Arc::new(step.batch))
        } else {
            let part = OwnedBatch::select(step.batch, |i| (start..end).contains(&i));
            Cow::Shared(Arc::new(
                part.expect("fields of stored records do not overlap, so a part fits as the whole does"),
            ))
        };
        let pieces = step.pieces.len();
        let (excluded, calls) = (&step.excluded, &mut self.calls);
        let mut run = Run { nodes: &mut self.plugins, topology: &self.topology, excluded, calls };
        let targets = &self.topology.sources[self.id.source].targets;
        let result = run.source(&batch, targets, &mut step.pieces);
        if result.is_err() {
            step.pieces.truncate(pieces);
        }
        result
    }

    fn decide(
        &mut self,
        step: &mut Step<'_>,
        start: usize,
        end: usize,
        error: NodeError,
        rejections: u32,
    ) -> Next {
        let topology = Arc::clone(&self.topology);
        let node = &topology.nodes[error.node];
        let (topic, partition) = (step.batch.topic, self.id.partition);
        let failure = |first: i64, last: i64, error: &PluginError| TaskFailure {
            node: node.id.clone(),
            topic: topic.to_owned(),
            partition,
            offset: first,
            last_offset: last,
            error: error.clone(),
        };
        let range = (step.batch.offsets[start], step.batch.offsets[end - 1]);
        let whole = failure(range.0, range.1, &error.error);
        match &error.error {
            PluginError::Fatal(_) | PluginError::ServerMemory { .. } => {
                return Next::Stop(StepError::Failed(whole));
            }
            PluginError::Retry(_) => {
                let stop = self.retry(step.batch.offsets[0], &node.on_error, whole.clone(), true);
                return Next::Stop(stop.unwrap_or(StepError::Failed(whole)));
            }
            PluginError::Trapped { .. }
            | PluginError::Deadline { .. }
            | PluginError::Memory { .. }
            | PluginError::OutputTooLarge { .. }
            | PluginError::IllFormed { .. }
            | PluginError::Reject(_) => {}
        }
        if let Some(retry) = self.retry(step.batch.offsets[0], &node.on_error, whole.clone(), false) {
            return Next::Stop(retry);
        }
        let bad: Vec<(i64, PluginError)> = match error.rejected.as_slice() {
            [] if end - start > 1 => return Next::Halve,
            // A machine that is busy makes a call late: one record is only blamed when it is late twice.
            [] if matches!(error.error, PluginError::Deadline { .. }) && rejections == 0 => {
                return Next::Again;
            }
            [] => vec![(range.0, error.error)],
            rejected => rejected.iter().map(|(o, r)| (*o, PluginError::Reject(vec![r.clone()]))).collect(),
        };
        // A record that comes from no stored record has no offset to be left out by.
        if bad.iter().any(|(offset, _)| *offset == -1 || step.excluded.contains(&(error.node, *offset))) {
            return Next::Stop(StepError::Failed(whole));
        }
        let kind = match node.on_error.last_resort() {
            OnError::Skip => NoticeKind::Skipped,
            OnError::DeadLetter { .. } => NoticeKind::DeadLettered,
            OnError::Fail | OnError::Retry { .. } => {
                let Some((first, error)) = bad.iter().min_by_key(|(offset, _)| *offset) else {
                    return Next::Stop(StepError::Failed(whole));
                };
                // The records before the bad one go first, so that the commit ends exactly there.
                if *first > range.0 && end - start > 1 {
                    return Next::Halve;
                }
                return Next::Stop(StepError::Failed(failure(*first, *first, error)));
            }
        };
        for (offset, reason) in bad {
            if step.excluded.insert((error.node, offset)) {
                step.notices.push(Notice { kind, failure: failure(offset, offset, &reason) });
            }
        }
        if rejections + 1 >= MAX_REJECTIONS_PER_RANGE && end - start > 1 { Next::Halve } else { Next::Again }
    }

    /// The next attempt, if the policy has one left for the step that begins at `offset`.
    fn retry(
        &mut self,
        offset: i64,
        policy: &OnError,
        failure: TaskFailure,
        asked: bool,
    ) -> Option<StepError> {
        let (attempts, backoff_ms) = match policy {
            OnError::Retry { attempts, backoff_ms, .. } => (*attempts, *backoff_ms),
            _ if asked => (DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS),
            _ => return None,
        };
        let made = self.retrying.filter(|r| r.offset == offset).map_or(0, |r| r.attempts);
        if made >= attempts {
            return None;
        }
        self.retrying = Some(Retrying { offset, attempts: made + 1 });
        let delay_ms = backoff_ms.saturating_mul(1 << made.min(20)).min(MAX_RETRY_BACKOFF_MS);
        Some(StepError::Retry { delay_ms, attempt: made + 1, attempts, failure: Box::new(failure) })
    }
}

/// One pass through the tree.
struct Run<'t> {
    nodes: &'t mut [Option<Box<dyn Plugin>>],
    topology: &'t Topology,
    excluded: &'t BTreeSet<(usize, i64)>,
    calls: &'t mut Calls,
}

impl Run<'_> {
    /// Gives the records of the source to its readers.
    fn source<'a>(
        &mut self,
        batch: &Cow<'a>,
        targets: &[Target],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), NodeError> {
        for target in targets {
            match *target {
                Target::Node(node) => self.node(node, batch.clone(), pieces)?,
                Target::Output(topic) => {
                    let answer = Arc::new(Answer::identity(&batch.as_batch()));
                    pieces.push(Piece { batch: batch.clone(), answer, output: 0, topic });
                }
            }
        }
        Ok(())
    }

    /// Gives what `answer` emits on `output` to its readers, depth first.
    fn hand_on<'a>(
        &mut self,
        batch: &Cow<'a>,
        answer: &Arc<Answer>,
        output: u32,
        targets: &[Target],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), NodeError> {
        for target in targets {
            match *target {
                Target::Output(topic) => {
                    let (batch, answer) = (batch.clone(), Arc::clone(answer));
                    pieces.push(Piece { batch, answer, output, topic });
                }
                Target::Node(node) => {
                    let next = answer.to_batch(batch.as_batch(), |i| goes_to(answer, i, output));
                    let next = next.map_err(|full| too_large(node, full))?;
                    self.node(node, Cow::Shared(Arc::new(next)), pieces)?;
                }
            }
        }
        Ok(())
    }

    fn node<'a>(
        &mut self,
        node: usize,
        batch: Cow<'a>,
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), NodeError> {
        let batch = self.without_excluded(node, batch)?;
        let input = batch.as_batch();
        if input.is_empty() {
            return Ok(());
        }
        let spec = &self.topology.nodes[node];
        let outputs = u32::try_from(spec.outputs.len()).unwrap_or(u32::MAX);
        let plugin = self.nodes[node].as_mut().expect("checked by Task::new");
        self.calls.made += 1;
        let answer = plugin
            .process(&input)
            .and_then(|out| Answer::check(&input, out, spec.limits.output_bytes, outputs))
            .map_err(|error| failed(node, &input, error))
            .inspect_err(|_| self.calls.failed += 1)?;
        let answer = Arc::new(answer);
        for (output, targets) in (0..).zip(&spec.outputs) {
            self.hand_on(&batch, &answer, output, targets, pieces)?;
        }
        Ok(())
    }

    fn without_excluded<'a>(&self, node: usize, batch: Cow<'a>) -> Result<Cow<'a>, NodeError> {
        let input = batch.as_batch();
        let out = |i: usize| self.excluded.contains(&(node, input.offsets[i]));
        if self.excluded.is_empty() || !(0..input.len()).any(out) {
            return Ok(batch);
        }
        let rest = OwnedBatch::select(input, |i| !out(i)).map_err(|full| too_large(node, full))?;
        Ok(Cow::Shared(Arc::new(rest)))
    }
}

/// Whether record `i` of an answer goes to `output`.
fn goes_to(answer: &Answer, i: usize, output: u32) -> bool {
    match answer.route() {
        None => output == 0,
        Some(route) => route.get(i) == Some(&output),
    }
}

fn too_large(node: usize, full: BatchFull) -> NodeError {
    NodeError { node, error: PluginError::IllFormed { what: full.to_string() }, rejected: Vec::new() }
}

/// Turns indexes of a rejection into offsets; an index that is not in the batch makes the answer ill-formed.
fn failed(node: usize, input: &BatchIn<'_>, error: PluginError) -> NodeError {
    let PluginError::Reject(rejections) = error else {
        return NodeError { node, error, rejected: Vec::new() };
    };
    let offset = |r: &Rejection| Some((input.offsets.get(r.index as usize).copied()?, r.clone()));
    match rejections.iter().map(offset).collect::<Option<Vec<_>>>() {
        Some(rejected) if !rejected.is_empty() => {
            NodeError { node, error: PluginError::Reject(rejections), rejected }
        }
        _ => {
            let (named, records) = (rejections.len(), input.len());
            let what =
                format!("it rejects {named} records by index, not all of them in the batch of {records}");
            NodeError { node, error: PluginError::IllFormed { what }, rejected: Vec::new() }
        }
    }
}

impl<'a> Step<'a> {
    fn new(batch: BatchIn<'a>) -> Step<'a> {
        Step {
            batch,
            pieces: Vec::new(),
            counts: StepCounts::default(),
            notices: Vec::new(),
            excluded: BTreeSet::new(),
            spent: 0,
            done: 0,
        }
    }

    fn spend(&mut self, error: &PluginError) {
        self.spent += match error {
            PluginError::Deadline { .. } => DEADLINE_WEIGHT,
            _ => 1,
        };
    }

    fn finish(
        mut self,
        topology: &Topology,
        partitioners: &mut [Partitioner],
        next_offset: i64,
    ) -> StepOutput<'a> {
        // What was found out about records that the step did not get to is found out again by the next one.
        let limit = self.batch.offsets.get(self.done).copied();
        self.notices.retain(|notice| limit.is_none_or(|limit| notice.failure.offset < limit));
        self.notices.sort_by_key(|notice| notice.failure.offset);
        self.counts.records_in = self.done as u64;
        self.push_dead_letters(topology);
        StepOutput::new(self.pieces, self.counts, self.notices, next_offset, topology, partitioners)
    }

    /// One record for each notice: the original key, value and headers, and the reason in further headers.
    fn push_dead_letters(&mut self, topology: &Topology) {
        let mut open: BTreeMap<usize, OwnedBatch> = BTreeMap::new();
        let mut records = self.batch.records();
        let mut record = records.next();
        for notice in &self.notices {
            let node = topology.nodes.iter().find(|node| node.id == notice.failure.node);
            let topic = match (notice.kind, node.and_then(|node| node.dead_letter)) {
                (NoticeKind::DeadLettered, Some(topic)) => topic,
                (NoticeKind::Skipped | NoticeKind::DeadLettered, _) => {
                    self.counts.skipped += 1;
                    continue;
                }
            };
            self.counts.dead_lettered += 1;
            // Notices and records both come in offset order; a record may have several notices.
            while record.is_some_and(|record| record.offset < notice.failure.offset) {
                record = records.next();
            }
            let original = record.expect("a notice is about a record of the batch");
            let reason = dead_letter_headers(&topology.name, &notice.failure);
            let reason = reason.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
            let new = || OwnedBatch::new(self.batch.topic, self.batch.partition);
            let letters = open.entry(topic).or_insert_with(new);
            let pushed = letters.push(original, original.headers.chain(reason));
            pushed.expect("a record of a batch of 2 GiB fits beside less than MAX_LETTERS_BYTES");
            if letters.as_batch().data.len() >= MAX_LETTERS_BYTES {
                self.pieces.extend(open.remove(&topic).map(|letters| letters_piece(letters, topic)));
            }
        }
        self.pieces.extend(open.into_iter().map(|(topic, letters)| letters_piece(letters, topic)));
    }
}

fn letters_piece<'a>(letters: OwnedBatch, topic: usize) -> Piece<'a> {
    let answer = Arc::new(Answer::identity(&letters.as_batch()));
    Piece { batch: Cow::Shared(Arc::new(letters)), answer, output: 0, topic }
}

#[cfg(test)]
mod tests;

//! A sub-topology on one partition: a synchronous step from batches of its sources to records for topics.
//!
//! A step either succeeds, or says which record it cannot pass and why. When a plugin fails without naming a record, the
//! batch is halved until the record is found, so a status always has an offset. What a range of records emits is shown to
//! the sink before the range counts as done: a record whose output a topic refuses has failed as if its node had. A step may
//! end early, after some of its records: what it has done up to there counts, and the next step begins behind it. Nothing of
//! a failed call is emitted, and no failure is passed over in silence. What a range has written to the task's state is undone
//! with it: see [`Savepoints`].

use std::fmt;
use std::sync::Arc;

use pelton_wire::mutant::Mutant;

use crate::batch::{BatchIn, OwnedBatch};
use crate::operator::{CLOSED_AT_ONCE, Counts, EventTime};
use crate::partitioner::Partitioner;
use crate::sink::Sink;
use crate::state::{StateBackend, StateError, StateLimits, TaskState};
use crate::topology::Topology;

mod changelog;
mod emit;
mod failure;
mod graph;
mod kept;
mod letters;
pub mod order;
mod output;
mod outside;
mod policy;
mod run;
mod state;
mod tick;
mod timers;

pub use failure::{
    NO_RECORD, ORIGINAL_TIMESTAMP_HEADER, PLUGIN_HEADER, RecordError, TaskFailure, dead_letter_headers,
};
use graph::{GraphRun, Origin};
use kept::Kept;
use order::{Order, Runs};
pub use output::{Calls, Notice, NoticeKind, StepCounts, StepOutput};
pub(crate) use output::{Cow, Piece};
pub use outside::{Outside, Plugins};
use policy::{Next, Retrying};
pub(crate) use run::Place;
use run::{Excluded, Meant, RangeError, Run, select};
use state::State;
pub use state::{Savepoints, Stateless};

/// Failed calls after which a step ends, if it has got anywhere: a pipeline that fails at every record must still
/// answer a pause or a stop. Finding one bad record in a batch of 10,000 takes 14.
const MAX_FAILED_CALLS_PER_STEP: u32 = 40;
/// What a missed deadline counts for: each one takes a second of the pipeline's thread, not microseconds.
const DEADLINE_WEIGHT: u32 = 4;

/// A task: which sub-topology (an index in [`Topology::sub_topologies`]), and which partition of its sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The sub-topology.
    pub sub_topology: usize,
    /// The partition.
    pub partition: i32,
}

/// Records of one of a task's sources.
#[derive(Debug, Clone, Copy)]
pub struct TaskInput<'a> {
    /// An index in [`Topology::sources`].
    pub source: usize,
    /// The records, in offset order.
    pub batch: BatchIn<'a>,
    /// The offset after the batch: what is committed when all of it is done, even if its last records are not there any more.
    pub end_offset: i64,
    /// There is more to read behind the batch already.
    pub more: bool,
}

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
    Failed(Box<TaskFailure>),
}

/// A sub-topology on one partition. See the module.
pub struct Task {
    id: TaskId,
    topology: Arc<Topology>,
    state: State,
    /// By index in [`Topology::sources`]: those whose records have their time in a field.
    times: Vec<Option<EventTime>>,
    /// By index in [`Topology::outputs`].
    partitioners: Vec<Partitioner>,
    retrying: Option<Retrying>,
    calls: Calls,
    /// Found after progress was made: returned by the step that begins with its record.
    found: Option<Box<TaskFailure>>,
    /// How much goes on at once of what waits. Less than could be where something of it fails.
    going_on: usize,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("pipeline", &self.topology.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A record that could not be processed, and what was decided about it.
struct Decided {
    notice: Notice,
    /// The output that its letter goes to.
    dead_letter: Option<usize>,
}

/// Consecutive records of a step's batch.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
    /// How often it was run and records were left out of it.
    rejections: u32,
}

impl Range {
    /// The record at this index alone; the last part comes first.
    fn with_alone(self, index: usize) -> [Range; 3] {
        let Range { start, end, .. } = self;
        let alone = index.clamp(start, end - 1);
        [(alone + 1, end), (alone, alone + 1), (start, alone)].map(|(start, end)| Range {
            start,
            end,
            rejections: 0,
        })
    }
}

/// What one step has decided so far.
struct Step<'a> {
    source: usize,
    batch: BatchIn<'a>,
    counts: StepCounts,
    decided: Vec<Decided>,
    excluded: Excluded,
    spent: u32,
    /// Records done, from the beginning of the batch.
    done: usize,
    /// The number of the batch's first record, where records are numbered.
    first_number: u64,
}

impl Task {
    /// A task without state, with the number of partitions of each output topic, in the order of [`Topology::outputs`].
    pub fn new(id: TaskId, topology: Arc<Topology>, output_partitions: &[u32]) -> Task {
        let seed = id.partition.unsigned_abs();
        let partitioners = (topology.outputs.iter().zip(output_partitions))
            .map(|(output, &partitions)| Partitioner::new(output.partitioner.native(), partitions, seed))
            .collect::<Vec<_>>();
        assert_eq!(partitioners.len(), topology.outputs.len(), "every output topic has its partition count");
        let times = topology.sources.iter().map(|source| source.time.clone().map(EventTime::new)).collect();
        Task {
            id,
            topology,
            state: State::Plugins(Box::new(Stateless)),
            times,
            partitioners,
            retrying: None,
            calls: Calls::default(),
            found: None,
            going_on: CLOSED_AT_ONCE,
        }
    }

    /// The same with another bound for what closes, or fires, of a node in one pass.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn closing_at_once(mut self, at_once: usize) -> Task {
        if let Some(kept) = self.state.kept() {
            kept.at_once = at_once;
        }
        Task { going_on: at_once, ..self }
    }

    /// The same task of a sub-topology with state. `backend` has the stores of [`Graph::store_specs`], in their
    /// order, as they are at the positions that the task begins with.
    ///
    /// [`Graph::store_specs`]: crate::topology::Graph::store_specs
    #[must_use]
    pub fn with_stores(self, backend: Box<dyn StateBackend>, limits: StateLimits) -> Task {
        let graph = self.topology.sub_topologies[self.id.sub_topology].graph.as_ref();
        let Some(graph) = graph else { return self };
        let kept = Kept::new(&self.topology, graph, backend, limits);
        Task { state: State::Kept(Box::new(kept)), ..self }
    }

    /// What the task keeps, if its sub-topology has state: whoever commits has its transactions end.
    pub fn stores(&mut self) -> Option<&mut TaskState> {
        Some(self.state.kept()?.state())
    }

    /// The clock of the machine now, for plugins with timers, in milliseconds since 1970-01-01 UTC.
    pub fn set_clock(&mut self, now_ms: i64) {
        if let Some(kept) = self.state.kept() {
            kept.set_clock(now_ms);
        }
    }

    /// Ends the transaction of the task's stores: what it has changed goes into their changelogs. After an error nothing of it
    /// may be committed.
    ///
    /// # Errors
    /// A changelog does not take a change.
    pub fn end_transaction(&mut self, sink: &mut dyn Sink) -> Result<(), StateError> {
        let (id, topology) = (self.id, Arc::clone(&self.topology));
        let graph = topology.sub_topologies[id.sub_topology].graph.as_ref();
        let (Some(graph), Some(kept)) = (graph, self.state.kept()) else { return Ok(()) };
        let written = kept.state().end_transaction();
        let stores = graph.stores.iter().zip(&written).filter(|_| !Mutant::ChangelogNotWritten.is_on());
        for (store, changes) in stores {
            changelog::write(&store.spec.name, store.changelog, id.partition, changes, sink)?;
        }
        Ok(())
    }

    /// What built-in operators have dropped since this was asked last, by index in [`Topology::operators`].
    pub fn take_dropped(&mut self) -> Vec<(usize, Counts)> {
        self.state.kept().map(Kept::take_counts).unwrap_or_default()
    }

    /// The same task, keeping something between records.
    #[must_use]
    pub fn with_state(self, state: Box<dyn Savepoints>) -> Task {
        Task { state: State::Plugins(state), ..self }
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

    /// Passes batches of the task's sources through its nodes and into the sink: one after another, or in the order of time
    /// where built-in operators read them ([`order`]).
    ///
    /// While the task is behind ([`Task::is_behind`]) it goes on with that, and reads nothing: there are no positions then.
    ///
    /// The outputs must be stable before [`StepOutput::positions`] are committed. After an early end (a position is below its
    /// input's `end_offset`, or is not there) the next step is given what is left; that may be all of it after an
    /// interruption.
    ///
    /// # Errors
    /// Nothing was emitted: try again later, or stop.
    pub fn process(
        &mut self,
        inputs: &[TaskInput<'_>],
        outside: &mut Outside<'_>,
    ) -> Result<StepOutput, StepError> {
        match self.behind() {
            Ok(None) => {}
            Ok(Some(vertex)) => return self.go_on(vertex, outside),
            Err(error) => return Err(self.before_records(inputs, self.topology.name.clone(), error.into())),
        }
        let mut output = StepOutput::default();
        self.forget(inputs)?;
        let stamped: Vec<_> = inputs.iter().map(|input| self.stamp(input)).collect();
        let stamped = inputs.iter().zip(&stamped).map(|(input, stamped)| match stamped {
            None => *input,
            Some(stamped) => TaskInput { batch: stamped.as_batch(), ..*input },
        });
        let order = match self.topology.sub_topologies[self.id.sub_topology].by_offset {
            true if Mutant::RoutedByPartition.is_on() => Order::Given,
            true => Order::Offset,
            false if self.state.kept().is_some() => Order::Time,
            false => Order::Given,
        };
        let mut runs = Runs::new(stamped, order);
        while let Some(input) = runs.next() {
            // Plugins and operators copy all bytes of a batch, so a part of one comes with its own alone.
            let of_source = |whole: &&TaskInput<'_>| whole.source == input.source;
            let is_part =
                inputs.iter().find(of_source).is_some_and(|whole| whole.batch.len() > input.batch.len());
            let part = is_part.then(|| select(input.batch, |_| true));
            let input = part.as_ref().map_or(input, |part| TaskInput { batch: part.as_batch(), ..input });
            let retrying = self.retrying;
            let next_offset = match self.process_input(&input, outside, &mut output) {
                Ok(next_offset) => next_offset,
                Err(stop) if output.counts.records_in == 0 => return Err(stop),
                // What was done before counts. The next step meets the same.
                Err(StepError::Failed(failure)) => {
                    self.found = Some(failure);
                    break;
                }
                Err(StepError::Retry { .. }) => {
                    self.retrying = retrying;
                    break;
                }
            };
            output.reached(input.source, next_offset);
            // An error is met again before anything else is done.
            if next_offset < input.end_offset || self.is_behind().unwrap_or(true) {
                break;
            }
        }
        Ok(output)
    }

    /// Operators forget what nobody will ask for any more, before anything is emitted.
    fn forget(&mut self, inputs: &[TaskInput<'_>]) -> Result<(), StepError> {
        let forgotten = self.state.kept().map_or(Ok(()), Kept::forget);
        forgotten.map_err(|(vertex, error)| {
            let node = self.topology.id_of(vertex).to_owned();
            self.before_records(inputs, node, error.into())
        })
    }

    /// What fails before a record is read, named by the first one that would be.
    fn before_records(&self, inputs: &[TaskInput<'_>], node: String, error: RecordError) -> StepError {
        let first = inputs.first().map(|input| input.batch).unwrap_or_default();
        let offset = first.offsets.first().copied().unwrap_or(NO_RECORD);
        let (topic, partition, last_offset) = (first.topic.to_owned(), self.id.partition, offset);
        StepError::Failed(Box::new(TaskFailure { node, topic, partition, offset, last_offset, error }))
    }

    /// The records with the times that their source says they have, if those are not their timestamps.
    fn stamp(&self, input: &TaskInput<'_>) -> Option<OwnedBatch> {
        self.times[input.source].as_ref().map(|time| time.stamp(input.batch))
    }

    /// The next offset of the input. Nothing was emitted if this fails.
    fn process_input(
        &mut self,
        input: &TaskInput<'_>,
        outside: &mut Outside<'_>,
        output: &mut StepOutput,
    ) -> Result<i64, StepError> {
        let TaskInput { source, batch, end_offset, .. } = *input;
        let is_first = |found: &mut Box<TaskFailure>| {
            found.topic == batch.topic && Some(&found.offset) == batch.offsets.first()
        };
        if let Some(found) = self.found.take_if(is_first) {
            return Err(StepError::Failed(found));
        }
        let first_number = self.state.kept().map_or(0, |kept| kept.next_number());
        let mut step = Step { first_number, ..Step::new(source, batch) };
        let mut ranges = vec![Range { start: 0, end: batch.len(), rejections: 0 }];
        while let Some(range) = ranges.pop() {
            if range.start == range.end {
                continue;
            }
            let Err(error) = self.run_range(&mut step, range, outside) else {
                step.done = range.end;
                if self.is_behind().unwrap_or(true) {
                    break;
                }
                continue;
            };
            if let Meant::Alone(offset) = error.meant {
                ranges.extend(range.with_alone(batch.offsets.partition_point(|one| *one < offset)));
                continue;
            }
            step.spend(&error.error);
            match self.decide(&mut step, range, error) {
                Next::Again => ranges.push(Range { rejections: range.rejections + 1, ..range }),
                Next::Split(at) => {
                    ranges.push(Range { start: at, rejections: 0, ..range });
                    ranges.push(Range { end: at, rejections: 0, ..range });
                }
                Next::Stop(stop) if step.done == 0 => return Err(stop),
                Next::Stop(stop) => {
                    if let StepError::Failed(failure) = stop {
                        self.found = Some(failure);
                    }
                    break;
                }
            }
            if (step.spent >= MAX_FAILED_CALLS_PER_STEP && step.done > 0) || (outside.interrupted)() {
                break;
            }
        }
        if step.done > 0 {
            self.retrying = None;
        }
        if let Some(kept) = self.state.kept() {
            kept.advance(step.done as u64);
        }
        Ok(self.finish(step, end_offset, outside.sink, output))
    }

    /// Runs the source's nodes over a range of records. Nothing is kept if any of them fails or any topic refuses.
    fn run_range(
        &mut self,
        step: &mut Step<'_>,
        range: Range,
        outside: &mut Outside<'_>,
    ) -> Result<(), RangeError> {
        self.state.savepoints().begin();
        let run = self.run_and_emit(step, range, outside);
        match &run {
            Ok(()) => {
                self.state.savepoints().keep();
                self.note_left_out(step, range);
            }
            Err(error) if error.is_of_plugin() && Mutant::FailedCallKept.is_on() => {
                self.state.savepoints().keep();
            }
            Err(_) => self.state.savepoints().undo(),
        }
        run
    }

    /// Says which timers were left out within a range.
    fn note_left_out(&mut self, step: &mut Step<'_>, range: Range) {
        let Some(kept) = self.state.kept() else { return };
        let first = step.batch.offsets[range.start];
        for (node, cause, error) in std::mem::take(&mut kept.fired.left_out) {
            // What came of no record itself counts for the first one.
            let offset = cause.max(first);
            step.left_out(&self.topology.nodes[node].id, offset, error);
        }
    }

    fn run_and_emit(
        &mut self,
        step: &mut Step<'_>,
        range: Range,
        outside: &mut Outside<'_>,
    ) -> Result<(), RangeError> {
        let batch = if (range.start, range.end) == (0, step.batch.len()) {
            Cow::Borrowed(Arc::new(step.batch))
        } else {
            select(step.batch, |i| (range.start..range.end).contains(&i))
        };
        let mut pieces = Vec::new();
        let (excluded, calls) = (&step.excluded, &mut self.calls);
        let mut run = Run { plugins: &mut *outside.plugins, topology: &self.topology, excluded, calls };
        let targets = &self.topology.sources[step.source].targets;
        match (self.topology.graph_of(step.source), self.state.kept()) {
            (Some(graph), Some(kept)) => {
                let (batch_of, first, start) = (step.batch, step.first_number, range.start);
                let origin = Origin { batch: batch_of, first, start, is_many: range.end - start > 1 };
                GraphRun { run, graph, kept, globals: outside.globals, origin }.source(
                    batch,
                    targets,
                    &mut pieces,
                )?;
            }
            _ => run.source(batch, targets, &mut pieces)?,
        }
        step.counts.add(self.emit(&pieces, outside)?);
        Ok(())
    }

    fn finish(
        &mut self,
        mut step: Step<'_>,
        end_offset: i64,
        sink: &mut dyn Sink,
        output: &mut StepOutput,
    ) -> i64 {
        let next = step.batch.offsets.get(step.done).copied();
        // What was found out about records that the step did not get to is found out again by the next one.
        step.decided.retain(|decided| next.is_none_or(|next| decided.notice.failure.offset < next));
        step.decided.sort_by_key(|decided| decided.notice.failure.offset);
        step.counts.records_in = step.done as u64;
        step.counts.skipped =
            step.decided.iter().filter(|decided| decided.dead_letter.is_none()).count() as u64;
        self.write_dead_letters(&mut step, sink);
        self.partitioners.iter_mut().for_each(Partitioner::next_step);
        output.counts.add(step.counts);
        output.notices.extend(step.decided.into_iter().map(|decided| decided.notice));
        next.unwrap_or(end_offset)
    }
}

impl<'a> Step<'a> {
    fn new(source: usize, batch: BatchIn<'a>) -> Step<'a> {
        Step {
            source,
            batch,
            counts: StepCounts::default(),
            decided: Vec::new(),
            excluded: Excluded::new(),
            spent: 0,
            done: 0,
            first_number: 0,
        }
    }

    /// The partition that its records are of.
    fn partition(&self) -> i32 {
        i32::try_from(self.batch.partition).unwrap_or(i32::MAX)
    }

    /// Something that is of no record was left out, when the record at this offset came.
    fn left_out(&mut self, node: &str, offset: i64, error: RecordError) {
        let partition = self.partition();
        let (node, topic) = (node.to_owned(), self.batch.topic.to_owned());
        let failure = TaskFailure { node, topic, partition, offset, last_offset: offset, error };
        let notice = Notice { kind: NoticeKind::Skipped, failure };
        self.decided.push(Decided { notice, dead_letter: None });
    }

    fn spend(&mut self, error: &RecordError) {
        self.spent += if error.is_late() { DEADLINE_WEIGHT } else { 1 };
    }
}

#[cfg(test)]
mod tests;

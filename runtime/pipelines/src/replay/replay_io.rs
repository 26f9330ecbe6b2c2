//! What a driver has outside of itself in a replay: it reads ranges of topics, and what it writes is noted and gone. Topics
//! between the parts of the pipeline are in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pelton_streams::manifest::values::Start;
use pelton_streams::state::{MemoryBudget, MemoryShare};
use pelton_streams::{Emissions, RecordIn, Refused, Sink, Topology};
use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, Columns, DecompressLimit, Header, Select};
use tokio::sync::oneshot;

use super::{ALL_MEMORY_MAX, MEMORY_MAX, RECORDS_MAX, Ranges, ReplayClock, ReplaySpec};
use crate::io::{
    Change, ChangelogEnds, Changelogs, Committer, Filled, Input, IoError, Outputs, Position, Source,
    StopSignal, Ticket,
};

/// Unpacked bytes of what is between two parts that one step is given.
const STEP_BYTES: usize = 4 << 20;

/// How long a shadow waits for records before it looks again.
const LOOK: Duration = Duration::from_millis(50);

/// Where what comes out goes.
pub(super) trait Taker: Send {
    /// A record for a partition of a topic; or why it is one too many.
    fn take(&mut self, topic: &str, partition: i32, record: &RecordIn<'_>) -> Result<(), String>;

    /// Whether stored records are read now.
    fn may_read(&self) -> bool {
        true
    }

    /// A stored partition was read up to there.
    fn has_read(&self, _topic: &str, _partition: i32, _next: i64) {}
}

/// What is counted of a run that a driver does not count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    deleted_unread: AtomicU64,
    /// How long it had nothing to do, and since when it has nothing.
    rested: Mutex<(Duration, Option<Instant>)>,
}

impl Tally {
    pub(super) fn deleted_unread(&self) -> u64 {
        self.deleted_unread.load(Ordering::Relaxed)
    }

    /// How long it had nothing to do by now. A rest that goes on counts, so what is told never becomes less.
    pub(super) fn rested(&self) -> Duration {
        let (before, since) = *self.rested.lock();
        before + since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn rest(&self, time: Duration) {
        self.rested.lock().1 = Some(Instant::now());
        std::thread::sleep(time);
        let mut rested = self.rested.lock();
        if let Some(since) = rested.1.take() {
            rested.0 += since.elapsed();
        }
    }
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// At the end of the ranges.
    Ranges,
    /// When it is stopped: ranges have no end.
    Live,
}

/// A partition of a topic between two parts.
#[derive(Default)]
struct Between {
    /// Each with the offset behind it.
    batches: VecDeque<(i64, Bytes)>,
    end: i64,
    /// What was written and not flushed.
    open: Option<BatchBuilder>,
}

/// What was read of stored topics.
#[derive(Default)]
struct Read {
    next: BTreeMap<Input, i64>,
    /// Of topics that are no tables.
    records: u64,
}

pub(super) struct ReplayIo {
    topology: Arc<Topology>,
    ranges: Arc<Ranges>,
    partitions: Vec<u32>,
    mode: Mode,
    stop: Arc<StopSignal>,
    clock: Arc<ReplayClock>,
    taker: Box<dyn Taker>,
    /// What there is was told.
    is_told: bool,
    /// Inputs that the driver has.
    inputs: usize,
    /// By topic and partition.
    between: BTreeMap<(String, i32), Between>,
    between_bytes: u64,
    between_memory: MemoryShare,
    /// How far stored inputs are read: a record that is read again counts once.
    read: Mutex<Read>,
    tally: Arc<Tally>,
    /// Everything was read.
    has_ended: AtomicBool,
    /// Records that were written to changelogs, by output and partition.
    changelogs: BTreeMap<(usize, i32), i64>,
    /// Why it was stopped, if not at the end of the range.
    why: Mutex<Option<String>>,
}

impl ReplayIo {
    pub(super) fn new(
        spec: &ReplaySpec,
        mode: Mode,
        stop: Arc<StopSignal>,
        clock: Arc<ReplayClock>,
        taker: Box<dyn Taker>,
    ) -> ReplayIo {
        ReplayIo {
            topology: Arc::clone(&spec.topology),
            ranges: Arc::clone(&spec.ranges),
            partitions: spec.partitions.clone(),
            mode,
            stop,
            clock,
            taker,
            is_told: false,
            inputs: 0,
            between: BTreeMap::new(),
            between_bytes: 0,
            between_memory: MemoryShare::of(&MemoryBudget::within(&spec.memory, MEMORY_MAX)),
            read: Mutex::default(),
            tally: Arc::default(),
            has_ended: AtomicBool::new(false),
            changelogs: BTreeMap::new(),
            why: Mutex::default(),
        }
    }

    pub(super) fn why_stopped(&self) -> Option<String> {
        self.why.lock().clone()
    }

    /// Whether all of the range was read.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Counts what a read of a stored input has found, which is from `offset` up to `next`.
    fn count(
        &self,
        input: Input,
        offset: i64,
        next: i64,
        found: &[i64],
        deleted: bool,
    ) -> Result<(), IoError> {
        let read = &mut *self.read.lock();
        let known = read.next.entry(input).or_insert(offset);
        if deleted {
            let gone = next.saturating_sub((*known).max(offset)).max(0).unsigned_abs();
            self.tally.deleted_unread.fetch_add(gone, Ordering::Relaxed);
        }
        let new = found.iter().filter(|offset| **offset >= *known).count() as u64;
        *known = next.max(*known);
        if self.topology.sources[input.source].table.is_none() {
            read.records += new;
        }
        if self.mode == Mode::Ranges && read.records > RECORDS_MAX {
            return Err(IoError::Unavailable(format!(
                "the range has more than {RECORDS_MAX} records, which is the most that a replay reads: say a smaller one by `from` \
                 and `to`"
            )));
        }
        Ok(())
    }

    /// Lets go of what is between two parts and done.
    fn free(&mut self, input: Input, before: i64) {
        let place = (self.topic(input.source).to_owned(), input.partition);
        let Some(between) = self.between.get_mut(&place) else { return };
        while between.batches.front().is_some_and(|(end, _)| *end <= before) {
            let gone = between.batches.pop_front().map_or(0, |(_, batch)| batch.len() as u64);
            self.between_bytes -= gone;
        }
    }

    fn topic(&self, source: usize) -> &str {
        &self.topology.sources[source].topic
    }

    fn no_partition(&self, Input { source, partition }: Input) -> IoError {
        IoError::NoPartition { topic: self.topic(source).to_owned(), partition }
    }

    /// Appends a record to a topic between two parts.
    fn append(&mut self, output: usize, partition: i32, record: &RecordIn<'_>) -> Result<(), String> {
        let place = (self.topology.outputs[output].topic.clone(), partition);
        let between = self.between.entry(place).or_default();
        let base_offset = between.end;
        let builder = between.open.get_or_insert_with(|| {
            BatchBuilder::new(BatchOptions { base_offset, ..BatchOptions::default() })
        });
        let headers = record.headers.map(|(key, value)| Header { key, value });
        let delta = builder.records_count();
        let added = builder.append_at(delta, record.timestamp, record.key, record.value, headers);
        added.map_err(|error| error.to_string())
    }
}

impl Sink for ReplayIo {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let topology = Arc::clone(&self.topology);
        for emitted in records.iter() {
            let output = &topology.outputs[emitted.output];
            if output.changelog_of.is_some() {
                *self.changelogs.entry((emitted.output, emitted.partition)).or_default() += 1;
            } else if output.repartition.is_some() {
                if let Err(why) = self.append(emitted.output, emitted.partition, &emitted.record) {
                    self.why.lock().get_or_insert(format!("topic {}: {why}", output.topic));
                }
            } else if let Err(why) = self.taker.take(&output.topic, emitted.partition, &emitted.record) {
                self.why.lock().get_or_insert(why);
            }
        }
        Ok(())
    }
}

impl Outputs for ReplayIo {
    fn flush(&mut self) -> Result<(), IoError> {
        if let Some(why) = self.why_stopped() {
            return Err(IoError::Unavailable(why));
        }
        for ((topic, _), between) in &mut self.between {
            let Some(builder) = between.open.take() else { continue };
            let batch = builder.build();
            let batch = batch.map_err(|error| IoError::Unavailable(format!("topic {topic}: {error}")))?;
            between.end = batch.header().next_offset();
            self.between_bytes += batch.len() as u64;
            between.batches.push_back((between.end, batch.into_bytes()));
        }
        let taken = self.between_memory.set(self.between_bytes);
        taken.map_err(|_| {
            IoError::Unavailable(format!(
                "{} bytes wait between the parts of the pipeline, which is more than there is ({MEMORY_MAX} for a run, \
                 {ALL_MEMORY_MAX} for all replays and shadows of the server): replay a smaller range",
                self.between_bytes
            ))
        })
    }
}

impl Source for ReplayIo {
    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        if std::mem::replace(&mut self.is_told, true) {
            return Ok(Vec::new());
        }
        let outputs = self.partitions.iter().enumerate();
        let mut changes: Vec<Change> =
            outputs.map(|(output, partitions)| Change::Output { output, partitions: *partitions }).collect();
        for (source, spec) in self.topology.sources.iter().enumerate() {
            let stored = self.ranges.get(&spec.topic).map_or(0, Vec::len);
            let count = spec.repartition.map_or(stored, |partitions| partitions as usize);
            self.inputs += count;
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            changes.push(Change::Assigned { source, partitions: 0..count });
        }
        Ok(changes)
    }

    fn position(&self, input: Input, _: Start) -> Result<Position, IoError> {
        let found = self.ranges.get(self.topic(input.source));
        let index = usize::try_from(input.partition).unwrap_or(usize::MAX);
        let offset = match found {
            Some(partitions) => partitions.get(index).ok_or_else(|| self.no_partition(input))?.0.from,
            None => 0,
        };
        Ok(Position { offset, committed: true, renewed: false })
    }

    fn fill(&self, input: Input, offset: i64, records: &mut Columns) -> Result<Filled, IoError> {
        let topic = self.topic(input.source);
        let Some(partitions) = self.ranges.get(topic) else {
            let Some(between) = self.between.get(&(topic.to_owned(), input.partition)) else {
                return Ok(Filled { next_offset: offset, end_offset: offset, deleted_unread: false });
            };
            return between.fill(topic, input.partition, offset, records);
        };
        let index = usize::try_from(input.partition).unwrap_or(usize::MAX);
        let (range, stored) = partitions.get(index).ok_or_else(|| self.no_partition(input))?;
        let end = match self.mode {
            Mode::Ranges => range.to,
            Mode::Live => stored.resolve(Start::Latest)?,
        };
        if offset >= end || !self.taker.may_read() {
            return Ok(Filled { next_offset: offset, end_offset: end, deleted_unread: false });
        }
        let before = records.timestamps().len();
        let filled = stored.fill(offset, end, records)?;
        let next = filled.next_offset.min(end);
        self.count(input, offset, next, &records.offsets()[before..], filled.deleted_unread)?;
        self.taker.has_read(topic, input.partition, next);
        if let Some(newest) = records.timestamps()[before..].iter().max() {
            self.clock.see(*newest);
        }
        Ok(Filled { end_offset: end, next_offset: next, ..filled })
    }

    fn order_limits(&self, inputs: &[Input]) -> Result<Vec<i64>, IoError> {
        Ok(vec![i64::MAX; inputs.len()])
    }

    fn purge(&mut self, input: Input, before: i64) -> Result<(), IoError> {
        self.free(input, before);
        Ok(())
    }

    /// Everything that can be read is read: the replay is over, unless a task waits to try again.
    fn wait(&self, positions: &[(Input, i64)], timeout_ms: u64) {
        if self.mode == Mode::Live {
            if !self.stop.is_set() {
                self.tally.rest(LOOK.min(Duration::from_millis(timeout_ms)));
            }
        } else if positions.len() < self.inputs {
            self.clock.pass(i64::try_from(timeout_ms.max(1)).unwrap_or(i64::MAX));
        } else {
            self.has_ended.store(true, Ordering::Relaxed);
            self.stop.set();
        }
    }
}

impl Between {
    fn fill(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError> {
        let mut next_offset = offset;
        for (end, batch) in self.batches.iter().filter(|(end, _)| *end > offset) {
            let bad = |reason: String| {
                let topic = topic.to_owned();
                IoError::BadBatch { topic, partition, offset: next_offset, reason }
            };
            let view = BatchView::check(batch).map_err(|error| bad(error.to_string()))?;
            let select = Select { from_offset: offset, headers: true };
            records.append(&view, select, DecompressLimit::STORED).map_err(|error| bad(error.to_string()))?;
            next_offset = *end;
            if records.data().len() >= STEP_BYTES {
                break;
            }
        }
        Ok(Filled { next_offset, end_offset: self.end, deleted_unread: false })
    }
}

impl Committer for ReplayIo {
    fn begin(&mut self) -> Result<(), IoError> {
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
        offsets.iter().for_each(|(input, offset)| self.free(*input, *offset));
        let (done, ticket) = oneshot::channel();
        // The receiver is the ticket.
        let _ = done.send(Ok(()));
        Ok(ticket)
    }

    fn abandon(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Nothing is ever restored: stores begin with nothing.
impl Changelogs for ReplayIo {
    fn changelog(&self, output: usize, partition: i32) -> Result<ChangelogEnds, IoError> {
        let end = self.changelogs.get(&(output, partition)).copied().unwrap_or(0);
        Ok(ChangelogEnds { topic_id: [1; 16], start: 0, end, delete_retention_ms: i64::MAX })
    }

    fn fill_changelog(&self, _: usize, _: i32, offset: i64, _: &mut Columns) -> Result<Filled, IoError> {
        Ok(Filled { next_offset: offset, end_offset: offset, deleted_unread: false })
    }

    fn wait_changelog(&self, _: usize, _: i32, _: i64, _: u64) {}
}

#[cfg(test)]
mod tests;

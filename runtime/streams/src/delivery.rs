//! Records on their way to a plugin that acts on the outside: one partition of its source.
//!
//! A [`Delivery`] decides, and nothing else: which records are given next, what becomes of those that are not done, and up to
//! where the partition is. Whoever drives it reads records, has calls made on threads that may wait, and commits.
//!
//! # States
//!
//! It holds a window of records, in the order of their offsets, from the first that is not done to the last that was read. Each
//! is in one state:
//!
//! ```text
//!            next_call                    answered: not named
//!  Waiting ------------> Given(call) -------------------------------> Done
//!     ^                      |  answered: again, attempts are left       ^
//!     +----------------------+                                           |
//!     (not before its back-off)|  answered: never, or no attempts left   |
//!                              +--> on_error: skip, dead-letter ---------+
//!                                             fail: Waiting, and the delivery stops
//! ```
//!
//! # Invariants
//!
//! 1. [`Delivery::next_offset`] is the offset of the first record that is not done, or where to read next if all are: what is
//!    committed is never past a record that is not done.
//! 2. A record is given only when those that it waits for ([`Parallelism`]) are done: all before it in its partition, or those
//!    of its key. Of one key there is at most one record in one call, and with `partition` at most one call at once, whose
//!    records come in order.
//! 3. The window has at most `deliver.records` records. Those that are not done, of all partitions that share a [`Room`], have at
//!    most `deliver.bytes`; beyond that a partition has one record at most.
//! 4. A record is given at most `on_error.attempts` more times for a reason that may pass; then `then` decides.
//! 5. A call that fails as a whole says nothing of its records. Each of them is given again alone, so that the one that fails is
//!    found, and what it does to others is bounded.
//! 6. What was cut off says nothing of its records either: [`Delivery::ended`] takes what is done, counts no attempt, and has no
//!    policy decide.
//!
//! What is in the window is in memory alone. After a crash the records from what is committed on are given again, done or not:
//! at least once. A record keeps its topic, partition and offset whenever it is given, which is its idempotency key.

use std::collections::VecDeque;
use std::sync::Arc;

use pelton_wire::mutant::Mutant;

use crate::batch::{BatchIn, OwnedBatch};
use crate::manifest::consumer::{ConsumerSpec, Parallelism};
use crate::manifest::{DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS, MAX_RETRY_BACKOFF_MS, OnError};
use crate::partitioner::Partitioner;
use crate::plugin::{CallOrder, PluginError, Rejection, Unfinished};
use crate::sink::Sink;
use crate::task::{Notice, NoticeKind, RecordError, StepCounts, TaskFailure};
use crate::topology::Topology;

mod body;
mod choice;
mod letter;
mod room;
#[cfg(test)]
mod tests;

use body::{Body, size};
use letter::Letters;
pub use room::Room;
use room::Share;

/// Bytes of the records of one call, unless the first alone is larger: they are copied into the plugin.
const MAX_CALL_BYTES: u64 = 4 << 20;
/// The longest that a plugin can have a record wait by its answer: an hour.
const MAX_ASKED_MS: u32 = 3_600_000;

/// Records that are given together.
#[derive(Debug)]
pub struct Call {
    /// What its answer is told with.
    pub id: u64,
    /// Whether its records wait for each other.
    pub order: CallOrder,
    /// The records.
    pub records: OwnedBatch,
}

/// A record that will be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// What failed.
    pub failure: TaskFailure,
    /// How long it waits.
    pub delay_ms: u32,
    /// Which attempt the next one will be, from 1.
    pub attempt: u32,
    /// How many there are.
    pub attempts: u32,
}

/// What came of an answer.
#[derive(Debug, Default)]
pub struct Answered {
    /// Records that will be given again.
    pub again: Vec<Again>,
    /// Records that were given up, as the policy says. Letters are in the sink.
    pub notices: Vec<Notice>,
    /// Letters were written.
    pub wrote: bool,
    /// The delivery cannot go on: nothing more of it is given.
    pub stop: Option<Box<TaskFailure>>,
}

/// How far records are, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Records that are not done.
    pub unfinished: u64,
    /// Those of them that are given now.
    pub given: u64,
    /// Those of them that were given before and wait to be given again.
    pub retrying: u64,
    /// Done already, behind one that is not.
    pub ahead: u64,
}

#[derive(Debug)]
enum State {
    Waiting(Body),
    Given(Body),
    Done(StepCounts),
}

/// A record of the window.
#[derive(Debug)]
struct Entry {
    offset: i64,
    /// What it counts for of `deliver.bytes`.
    bytes: u64,
    state: State,
    /// It waits so long.
    not_before_ms: i64,
    /// How often it was not done.
    attempts: u32,
    /// A call with others has failed: it is given alone.
    alone: bool,
    /// A call with it alone did not end in time, which a busy machine may be to blame for once.
    was_late: bool,
}

/// See the module.
pub struct Delivery {
    topology: Arc<Topology>,
    node: usize,
    topic: String,
    partition: i32,
    spec: ConsumerSpec,
    window: VecDeque<Entry>,
    /// The bytes of those that are not done.
    share: Share,
    /// What the record at `read_to` needs, if it was read and did not fit.
    refused: Option<u64>,
    /// What was read ends here.
    read_to: i64,
    calls: Vec<(u64, Vec<i64>)>,
    next_call: u64,
    letters: Option<Letters>,
    stopped: bool,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = (&self.topic, self.partition);
        f.debug_struct("Delivery").field("at", &at).field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Delivery {
    /// Of a partition of a source ([`Topology::consumer_of`] says the node), from an offset on. `outputs` has the partitions of
    /// each of [`Topology::outputs`]; `room` is what all partitions of the node have together.
    ///
    /// # Panics
    /// If the node does not act on the outside.
    pub fn new(
        topology: &Arc<Topology>,
        (node, source): (usize, usize),
        partition: i32,
        offset: i64,
        outputs: &[u32],
        room: &Arc<Room>,
    ) -> Delivery {
        let spec = topology.nodes[node].consumer.clone().expect("the node acts on the outside");
        let letters = topology.nodes[node].dead_letter.map(|output| {
            let kind = topology.outputs[output].partitioner.native();
            let partitions = outputs.get(output).copied().unwrap_or_default();
            Letters { output, partitioner: Partitioner::new(kind, partitions, partition.unsigned_abs()) }
        });
        Delivery {
            topic: topology.sources[source].topic.clone(),
            topology: Arc::clone(topology),
            node,
            partition,
            spec,
            window: VecDeque::new(),
            share: Share::of(room),
            refused: None,
            read_to: offset,
            calls: Vec::new(),
            next_call: 0,
            letters,
            stopped: false,
        }
    }

    /// An output topic has grown.
    pub fn set_output_partitions(&mut self, output: usize, partitions: u32) {
        if let Some(letters) = self.letters.as_mut().filter(|letters| letters.output == output) {
            letters.partitioner.set_partitions(partitions);
        }
    }

    /// Where to read next, if there is room for more than a few records, and for the next one if it is known.
    pub fn wants(&self) -> Option<i64> {
        if self.stopped || self.window.len() as u64 > u64::from(self.spec.records) / 2 {
            return None;
        }
        // What is read is read whole, and what does not fit is read again: not before it fits.
        let has_room = self.share.has_half() && self.refused.is_none_or(|needs| self.share.fits(needs));
        has_room.then_some(self.read_to)
    }

    /// Where to read next.
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Takes what was read from [`Delivery::read_to`] to `end_offset`, as much of it as there is room for, and at least one
    /// record if it has none.
    pub fn take(&mut self, batch: BatchIn<'_>, end_offset: i64) {
        let from = self.read_to;
        self.refused = None;
        for record in batch.records().filter(|record| record.offset >= from) {
            let bytes = size(&record);
            if self.window.len() as u64 >= u64::from(self.spec.records) || !self.share.fits(bytes) {
                (self.read_to, self.refused) = (record.offset, Some(bytes));
                return;
            }
            self.share.add(bytes);
            self.read_to = record.offset + 1;
            self.window.push_back(Entry {
                offset: record.offset,
                bytes,
                state: State::Waiting(Body::of(&record)),
                not_before_ms: i64::MIN,
                attempts: 0,
                alone: false,
                was_late: false,
            });
        }
        self.read_to = self.read_to.max(end_offset);
    }

    /// The offset to commit: all before it are done.
    pub fn next_offset(&self) -> i64 {
        if Mutant::AheadCommitted.is_on() {
            return self.read_to;
        }
        self.window.front().map_or(self.read_to, |first| first.offset)
    }

    /// Leaves the records behind that are done, with all before them. What they count for.
    pub fn advance(&mut self) -> StepCounts {
        let mut counts = StepCounts::default();
        while let Some(Entry { state: State::Done(done), .. }) = self.window.front() {
            counts.add(*done);
            self.window.pop_front();
        }
        counts
    }

    /// When a record that waits can be given, if one waits for a time that has not come.
    pub fn next_due(&self, now_ms: i64) -> Option<i64> {
        let waits = |entry: &Entry| matches!(entry.state, State::Waiting(_)) && entry.not_before_ms > now_ms;
        let waiting = self.window.iter().filter(|entry| waits(entry)).map(|entry| entry.not_before_ms);
        waiting.min().filter(|_| !self.stopped)
    }

    /// Whether calls are under way.
    pub fn is_busy(&self) -> bool {
        !self.calls.is_empty()
    }

    /// How far records are.
    pub fn held(&self) -> Held {
        let mut held = Held::default();
        for entry in &self.window {
            match entry.state {
                State::Waiting(_) => held.retrying += u64::from(entry.attempts > 0),
                State::Given(_) => held.given += 1,
                State::Done(_) => held.ahead += 1,
            }
        }
        held.unfinished = self.window.len() as u64 - held.ahead;
        held
    }

    /// The records to give next, if some can be given now. Their answer is told by [`Delivery::answered`].
    pub fn next_call(&mut self, now_ms: i64) -> Option<Call> {
        if self.stopped {
            return None;
        }
        let (order, chosen) = match self.spec.parallelism {
            Parallelism::Partition if self.is_busy() => return None,
            Parallelism::Partition => (CallOrder::Whole, self.choose_in_order(now_ms)),
            Parallelism::Key => (CallOrder::Free, self.choose_by_key(now_ms)),
        };
        if chosen.is_empty() {
            return None;
        }
        let mut records = OwnedBatch::new(&self.topic, self.partition.unsigned_abs());
        let mut offsets = Vec::with_capacity(chosen.len());
        for index in chosen {
            let entry = &mut self.window[index];
            let done = State::Done(StepCounts::default());
            let State::Waiting(body) = std::mem::replace(&mut entry.state, done) else {
                unreachable!("what is chosen waits");
            };
            let pushed = records.push(body.record(entry.offset), body.headers());
            pushed.expect("a record of 2 GiB at the most fits beside less than MAX_CALL_BYTES");
            entry.state = State::Given(body);
            offsets.push(entry.offset);
        }
        let id = self.next_call;
        self.next_call += 1;
        self.calls.push((id, offsets));
        Some(Call { id, order, records })
    }

    /// What a call has answered, or how it failed. Letters go into the sink.
    pub fn answered(
        &mut self,
        id: u64,
        answer: Result<Vec<Unfinished>, PluginError>,
        now_ms: i64,
        sink: &mut dyn Sink,
    ) -> Answered {
        let mut answered = Answered::default();
        let Some(call) = self.calls.iter().position(|(known, _)| *known == id) else { return answered };
        let (_, offsets) = self.calls.swap_remove(call);
        match answer.and_then(|unfinished| by_record(unfinished, offsets.len())) {
            Ok(unfinished) => {
                let mut is_behind = false;
                for (offset, unfinished) in offsets.into_iter().zip(unfinished) {
                    let waited = is_behind;
                    is_behind |= unfinished.is_some() && self.spec.parallelism == Parallelism::Partition;
                    match unfinished {
                        // It was not tried, for one before it is not done.
                        Some(Unfinished { again: Some(_), .. }) if waited => {
                            self.wait(offset, i64::MIN, |_| {})
                        }
                        None => self.done(offset, StepCounts { records_in: 1, ..StepCounts::default() }),
                        Some(Unfinished { reason, again: Some(asked_ms), .. }) => {
                            let (error, least_ms) = (PluginError::Retry(reason), asked_ms.min(MAX_ASKED_MS));
                            self.again_or_give_up(
                                offset,
                                error,
                                least_ms,
                                (now_ms, &mut *sink),
                                &mut answered,
                            );
                        }
                        Some(Unfinished { reason, again: None, .. }) => {
                            let error = PluginError::Reject(vec![Rejection { index: 0, reason }]);
                            self.give_up(offset, error, &mut *sink, &mut answered);
                        }
                    }
                }
            }
            Err(error) => self.failed(&offsets, error, (now_ms, sink), &mut answered),
        }
        answered
    }

    /// What a call has answered that was told to end: what is done of it, and no more. The rest waits as it did before the call,
    /// for whoever ended the call may be why it is not done.
    pub fn ended(&mut self, id: u64, answer: Result<Vec<Unfinished>, PluginError>) {
        let Some(call) = self.calls.iter().position(|(known, _)| *known == id) else { return };
        let (_, offsets) = self.calls.swap_remove(call);
        let by_record = answer.and_then(|unfinished| by_record(unfinished, offsets.len()));
        let is_done = |at: usize| by_record.as_ref().is_ok_and(|unfinished| unfinished[at].is_none());
        for (at, offset) in offsets.into_iter().enumerate() {
            if is_done(at) {
                self.done(offset, StepCounts { records_in: 1, ..StepCounts::default() });
            } else {
                self.wait(offset, i64::MIN, |_| {});
            }
        }
    }

    /// A call has failed as a whole.
    fn failed(
        &mut self,
        offsets: &[i64],
        error: PluginError,
        (now_ms, sink): (i64, &mut dyn Sink),
        answered: &mut Answered,
    ) {
        let is_final = matches!(error, PluginError::Fatal(_) | PluginError::ServerMemory { .. });
        let ([offset], false) = (offsets, is_final) else {
            for offset in offsets {
                self.wait(*offset, i64::MIN, |entry| entry.alone = true);
            }
            if is_final {
                let (first, last) = (offsets.first().copied(), offsets.last().copied());
                self.stop(self.failure(first.unwrap_or(-1), last.unwrap_or(-1), error), answered);
            }
            return;
        };
        let is_late = matches!(error, PluginError::Deadline { .. });
        let was_late = self.entry(*offset).is_some_and(|entry| std::mem::replace(&mut entry.was_late, true));
        if is_late && !was_late {
            self.wait(*offset, i64::MIN, |_| {});
        } else if matches!(self.on_error(), OnError::Retry { .. }) {
            self.again_or_give_up(*offset, error, 0, (now_ms, sink), answered);
        } else {
            self.give_up(*offset, error, sink, answered);
        }
    }

    /// Has a record wait to be given again, if the policy has an attempt left.
    fn again_or_give_up(
        &mut self,
        offset: i64,
        error: PluginError,
        least_ms: u32,
        (now_ms, sink): (i64, &mut dyn Sink),
        answered: &mut Answered,
    ) {
        let (attempts, backoff_ms) = match self.on_error() {
            OnError::Retry { attempts, backoff_ms, .. } => (*attempts, *backoff_ms),
            _ => (DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS),
        };
        let made = self.entry(offset).map_or(0, |entry| entry.attempts);
        if made >= attempts {
            self.give_up(offset, error, sink, answered);
            return;
        }
        let backoff = backoff_ms.saturating_mul(1 << made.min(20)).min(MAX_RETRY_BACKOFF_MS);
        // A little apart from each other, so that a server that comes back is not met by all at once.
        let spread = offset.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let delay_ms = (backoff - (spread % u64::from(backoff / 5 + 1)) as u32).max(least_ms);
        self.wait(offset, now_ms.saturating_add(i64::from(delay_ms)), |entry| entry.attempts += 1);
        let failure = self.failure(offset, offset, error);
        answered.again.push(Again { failure, delay_ms, attempt: made + 1, attempts });
    }

    /// The policy decides about a record that cannot be done.
    fn give_up(&mut self, offset: i64, error: PluginError, sink: &mut dyn Sink, answered: &mut Answered) {
        let failure = self.failure(offset, offset, error);
        let done = StepCounts { records_in: 1, ..StepCounts::default() };
        let (kind, counts) = match self.on_error().last_resort() {
            OnError::Fail | OnError::Retry { .. } => {
                self.wait(offset, i64::MIN, |entry| entry.attempts = 0);
                self.stop(failure, answered);
                return;
            }
            OnError::Skip => (NoticeKind::Skipped, StepCounts { skipped: 1, ..done }),
            OnError::DeadLetter { .. } => self.write_letter(offset, &failure, done, sink, answered),
        };
        answered.notices.push(Notice { kind, failure });
        self.done(offset, counts);
    }

    /// Writes the letter of a record. What is told of it, and what the record counts for.
    fn write_letter(
        &mut self,
        offset: i64,
        failure: &TaskFailure,
        done: StepCounts,
        sink: &mut dyn Sink,
        answered: &mut Answered,
    ) -> (NoticeKind, StepCounts) {
        let topology = Arc::clone(&self.topology);
        let index = self.window.partition_point(|entry| entry.offset < offset);
        let body = self.window.get(index).and_then(|entry| match &entry.state {
            State::Given(body) | State::Waiting(body) => Some(body),
            State::Done(_) => None,
        });
        let (Some(letters), Some(body)) = (&mut self.letters, body) else {
            unreachable!(
                "a node with this policy has a topic for letters, and a record that was given has its bytes"
            );
        };
        match letters.write(&topology, body.record(offset), || body.headers(), failure, sink) {
            Ok(bytes_out) => {
                answered.wrote = true;
                (NoticeKind::DeadLettered, StepCounts { records_out: 1, bytes_out, dead_lettered: 1, ..done })
            }
            Err(why) => {
                let topic = topology.outputs[letters.output].topic.clone();
                (NoticeKind::Undeliverable { topic, why }, StepCounts { undeliverable: 1, ..done })
            }
        }
    }

    fn on_error(&self) -> &OnError {
        &self.topology.nodes[self.node].on_error
    }

    fn failure(&self, offset: i64, last_offset: i64, error: PluginError) -> TaskFailure {
        let node = self.topology.nodes[self.node].id.clone();
        let (topic, partition, error) = (self.topic.clone(), self.partition, RecordError::from(error));
        TaskFailure { node, topic, partition, offset, last_offset, error }
    }

    fn stop(&mut self, failure: TaskFailure, answered: &mut Answered) {
        self.stopped = true;
        let earlier = |known: &TaskFailure| known.offset <= failure.offset;
        if !answered.stop.as_deref().is_some_and(earlier) {
            answered.stop = Some(Box::new(failure));
        }
    }

    fn entry(&mut self, offset: i64) -> Option<&mut Entry> {
        let index = self.window.partition_point(|entry| entry.offset < offset);
        self.window.get_mut(index).filter(|entry| entry.offset == offset)
    }

    fn wait(&mut self, offset: i64, not_before_ms: i64, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entry(offset) else { return };
        let state = std::mem::replace(&mut entry.state, State::Done(StepCounts::default()));
        entry.state = match state {
            State::Given(body) | State::Waiting(body) => State::Waiting(body),
            done @ State::Done(_) => done,
        };
        entry.not_before_ms = not_before_ms;
        change(entry);
    }

    fn done(&mut self, offset: i64, counts: StepCounts) {
        let Some(entry) = self.entry(offset) else { return };
        entry.state = State::Done(counts);
        let bytes = std::mem::take(&mut entry.bytes);
        self.share.give_back(bytes);
    }
}

/// What was said of each record of a call.
fn by_record(unfinished: Vec<Unfinished>, records: usize) -> Result<Vec<Option<Unfinished>>, PluginError> {
    let mut by_record: Vec<Option<Unfinished>> = (0..records).map(|_| None).collect();
    for one in unfinished {
        let index = one.index;
        let place = by_record.get_mut(index as usize).filter(|place| place.is_none());
        let place = place.ok_or_else(|| PluginError::IllFormed {
            what: format!("it names record {index} of {records}, from 0 on, or names it twice"),
        })?;
        *place = Some(one);
    }
    Ok(by_record)
}

//! Records for plugins that act on the outside. The driver reads them, has them given by threads that may wait ([`super::workers`]),
//! and commits what is done; [`pelton_streams::delivery`] decides which come next and what becomes of those that are not done.
//! Nothing here waits: a turn takes the answers that are there, reads what there is room for, and gives what can be given.
//!
//! Offsets of such a source are committed as those of others, with whatever else the driver commits. They are never past a record
//! that is not done, so a crash repeats what was done behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::BatchIn;
use pelton_streams::delivery::{Again, Answered, Delivery, Room};
use pelton_streams::log::LogLevel;
use pelton_streams::manifest::consumer::DEFAULT_BYTES;
use pelton_streams::task::TaskFailure;
use pelton_wire::record::Columns;

use super::workers::{Answer, Workers};
use super::{Driver, DriverError, Progress, TaskPosition};
use crate::io::{Filled, IoError};
use crate::status::DeliveryStatus;

/// All deliveries of a driver, and the threads of their nodes.
#[derive(Default)]
pub(super) struct Deliveries {
    pub(super) all: Vec<Delivering>,
    /// By node.
    pub(super) workers: BTreeMap<usize, Workers>,
    /// By node: what its partitions have together.
    rooms: BTreeMap<usize, Arc<Room>>,
    next_key: u64,
    /// Which one is asked first for something to give.
    turn: usize,
    columns: Columns,
}

/// One partition.
pub(super) struct Delivering {
    /// Answers of calls of another one, of a topic that is gone, are not taken for its own.
    key: u64,
    pub(super) node: usize,
    pub(super) delivery: Delivery,
    pub(super) position: TaskPosition,
}

impl Delivering {
    pub(super) fn status(&self, node: &str) -> DeliveryStatus {
        let held = self.delivery.held();
        DeliveryStatus {
            node: node.to_owned(),
            unfinished: held.unfinished,
            given: held.given,
            retrying: held.retrying,
            ahead: held.ahead,
        }
    }
}

impl Driver<'_> {
    /// The threads of a node, which are started with its first partition.
    pub(super) fn start_workers(&mut self, node: usize) -> Result<(), DriverError> {
        if !self.deliveries.workers.contains_key(&node) {
            let workers = Workers::start(&self.spec, &self.spec.topology, node)?;
            self.deliveries.workers.insert(node, workers);
        }
        Ok(())
    }

    /// A partition of a source that a plugin reads which acts on the outside.
    pub(super) fn add_delivery(&mut self, node: usize, position: TaskPosition) {
        let place = (node, position.input.source);
        let (partition, offset) = (position.input.partition, position.next_offset);
        let consumer = self.spec.topology.nodes[node].consumer.as_ref();
        let bytes = consumer.map_or(DEFAULT_BYTES, |consumer| consumer.bytes);
        let room = self.deliveries.rooms.entry(node).or_insert_with(|| Room::new(bytes.bytes()));
        let delivery = Delivery::new(&self.spec.topology, place, partition, offset, &self.outputs, room);
        let key = self.deliveries.next_key;
        self.deliveries.next_key += 1;
        self.deliveries.all.push(Delivering { key, node, delivery, position });
    }

    /// A turn: see the module.
    pub(super) fn deliver(&mut self) -> Result<Progress, DriverError> {
        if self.deliveries.all.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut progress = Progress::Idle;
        while let Some(answer) = self.deliveries.workers.values_mut().find_map(Workers::answer) {
            progress = Progress::Some;
            if let Some(failure) = self.answered(answer)? {
                self.advance_deliveries();
                return Err(DriverError::Task(failure));
            }
        }
        self.advance_deliveries();
        for index in 0..self.deliveries.all.len() {
            if self.read_for(index)? {
                progress = Progress::Some;
            }
        }
        if self.give() {
            progress = Progress::Some;
        }
        Ok(progress)
    }

    /// What came of a call; why the driver cannot go on, if it cannot.
    pub(super) fn answered(&mut self, answer: Answer) -> Result<Option<Box<TaskFailure>>, DriverError> {
        let Answer { delivery, call, result, .. } = answer;
        self.counting.totals.calls += 1;
        self.counting.totals.failed_calls += u64::from(result.is_err());
        let now_ms = self.now_ms();
        let Some(of) = self.deliveries.all.iter_mut().find(|one| one.key == delivery) else {
            return Ok(None);
        };
        let Answered { again, notices, wrote, stop } =
            of.delivery.answered(call, result, now_ms, &mut *self.io);
        if wrote {
            self.io.flush()?;
            // The letters are of the next commit, whether or not an offset is.
            self.uncommitted.since_ms.get_or_insert(now_ms);
            self.uncommitted.bytes += 1;
        }
        self.counting.totals.retries += again.len() as u64;
        self.say_again(&again);
        notices.iter().for_each(|notice| self.say_notice(notice));
        Ok(stop)
    }

    /// What came of a call that was under way when the driver was told to stop: what it has done, and nothing else.
    pub(super) fn ended(&mut self, answer: Answer) {
        let Answer { delivery, call, result, .. } = answer;
        self.counting.totals.calls += 1;
        if let Some(of) = self.deliveries.all.iter_mut().find(|one| one.key == delivery) {
            of.delivery.ended(call, result);
        }
    }

    /// Says of one record that it is given again, and how many others are.
    fn say_again(&self, again: &[Again]) {
        let [Again { failure, delay_ms, attempt, attempts }, others @ ..] = again else { return };
        let others = match others.len() {
            0 => String::new(),
            more => format!("; so are {more} more records of the call"),
        };
        let text = format!("{failure}; attempt {attempt} of {attempts} in {delay_ms} ms{others}");
        self.spec.board.say(&failure.node, failure.partition, LogLevel::Warn, &text);
    }

    /// Moves positions to where everything before is done.
    pub(super) fn advance_deliveries(&mut self) {
        let now_ms = self.spec.clock.now_ms();
        for Delivering { delivery, position, .. } in &mut self.deliveries.all {
            let counts = delivery.advance();
            self.counting.totals.add(&counts);
            self.uncommitted.records += counts.records_in;
            self.uncommitted.bytes += counts.bytes_out;
            let next_offset = delivery.next_offset();
            if next_offset > position.next_offset {
                position.next_offset = next_offset;
                self.uncommitted.since_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Reads records of a partition if there is room; whether there were some.
    fn read_for(&mut self, index: usize) -> Result<bool, DriverError> {
        let Delivering { delivery, position, .. } = &mut self.deliveries.all[index];
        let Some(from) = delivery.wants() else { return Ok(false) };
        let columns = &mut self.deliveries.columns;
        columns.clear();
        let filled = match self.io.fill(position.input, from, columns) {
            Ok(filled) => filled,
            // Whether it has gone for good is a change to follow.
            Err(IoError::NoPartition { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Filled { next_offset, end_offset, deleted_unread } = filled;
        position.end_offset = end_offset;
        let batch = BatchIn::new(&position.topic, position.input.partition.unsigned_abs(), columns);
        delivery.take(batch, next_offset);
        let has_read = delivery.read_to() > from;
        if deleted_unread {
            let (topic, partition) = (position.topic.clone(), position.input.partition);
            self.say_deleted(&topic, partition, from, next_offset);
        }
        Ok(has_read)
    }

    /// Gives calls to threads that are idle, one of each partition in turn; whether there were some.
    fn give(&mut self) -> bool {
        let now_ms = self.spec.clock.now_ms();
        let Deliveries { all, workers, turn, .. } = &mut self.deliveries;
        let (count, mut given, mut passed) = (all.len(), false, 0);
        while passed < count {
            *turn = (*turn + 1) % count;
            passed += 1;
            let Delivering { key, node, delivery, .. } = &mut all[*turn];
            let Some(workers) = workers.get_mut(node).filter(|workers| workers.has_idle()) else { continue };
            let Some(call) = delivery.next_call(now_ms) else { continue };
            workers.give(*key, call);
            (given, passed) = (true, 0);
        }
        given
    }

    /// What deliveries wait for: records at these positions, and a time.
    pub(super) fn delivery_waits(&self, now_ms: i64) -> (Vec<(crate::io::Input, i64)>, Option<i64>) {
        let all = self.deliveries.all.iter();
        let wanted = all.clone().filter_map(|one| Some((one.position.input, one.delivery.wants()?)));
        (wanted.collect(), all.filter_map(|one| one.delivery.next_due(now_ms)).min())
    }

    /// The positions of all inputs.
    pub(super) fn positions(&self) -> impl Iterator<Item = &TaskPosition> {
        let delivered = self.deliveries.all.iter().map(|one| &one.position);
        self.tasks.iter().flat_map(|task| &task.inputs).chain(delivered)
    }

    pub(super) fn positions_mut(&mut self) -> impl Iterator<Item = &mut TaskPosition> {
        let delivered = self.deliveries.all.iter_mut().map(|one| &mut one.position);
        self.tasks.iter_mut().flat_map(|task| &mut task.inputs).chain(delivered)
    }

    /// What is shown of each delivery, by topic and partition.
    pub(super) fn delivery_status(&self, position: &TaskPosition) -> Option<DeliveryStatus> {
        let topology = Arc::clone(&self.spec.topology);
        let one = self.deliveries.all.iter().find(|one| one.position.input == position.input)?;
        Some(one.status(&topology.nodes[one.node].id))
    }
}

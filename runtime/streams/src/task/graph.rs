//! One pass of a range of records through a sub-topology with state: its nodes in their order, plugins with batches, operators
//! with rows. All records of a range are of one source.

use std::sync::Arc;

use bytes::Bytes;

use super::kept::{FailedRow, Kept};
use super::output::{Cow, Piece};
use super::run::{Meant, Place, RangeError, Run, goes_to};
use super::timers::FIRED_PER_TICK;
use super::{NO_RECORD, RecordError};
use crate::answer::Answer;
use crate::batch::{BatchFull, BatchIn, Headers, OwnedBatch, RecordIn, SlicesIn};
use crate::operator::{Emitted, GlobalTables, Header, OperatorError, Row, RowHeaders, TimerDomain};
use crate::topology::{Graph, Target, Vertex};

/// Where the records of a range come from, and their numbers: they rise by one with each, from the first record of the task
/// on.
#[derive(Clone, Copy)]
pub(super) struct Origin<'s> {
    /// The step's batch.
    pub(super) batch: BatchIn<'s>,
    /// The number of its first record.
    pub(super) first: u64,
    /// Where the range begins in it.
    pub(super) start: usize,
    /// The range has more than one record.
    pub(super) is_many: bool,
}

impl Origin<'_> {
    fn offset_of(&self, number: u64) -> i64 {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.batch.offsets.get(index)).copied().unwrap_or(-1)
    }
}

/// What waits for its node.
pub(super) enum Waiting<'a> {
    Nothing,
    Batch(Cow<'a>),
    /// By input.
    Rows(Vec<Vec<Row>>),
}

/// See the module.
pub(super) struct GraphRun<'t, 'r> {
    pub(super) run: Run<'t>,
    pub(super) graph: &'t Graph,
    pub(super) kept: &'r mut Kept,
    pub(super) globals: &'r dyn GlobalTables,
    pub(super) origin: Origin<'r>,
}

impl GraphRun<'_, '_> {
    pub(super) fn source<'a>(
        &mut self,
        batch: Cow<'a>,
        targets: &[Target],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let batch = self.run.without_excluded(None, batch);
        let mut waiting: Vec<Waiting<'a>> = self.graph.order.iter().map(|_| Waiting::Nothing).collect();
        for target in targets {
            match *target {
                Target::Output(topic) => pieces.push(self.run.source_piece(&batch, topic)),
                Target::Node(_) => self.set_batch(&mut waiting, *target, batch.clone()),
                Target::Operator(..) => {
                    let rows = self.rows_of(&batch.as_batch());
                    self.add_rows(&mut waiting, *target, rows);
                }
            }
        }
        self.walk(waiting, pieces)
    }

    /// Timers on the clock fire; what comes of that goes its way.
    pub(super) fn tick(&mut self, pieces: &mut Vec<Piece<'_>>) -> Result<(), RangeError> {
        let mut waiting: Vec<Waiting<'_>> = self.graph.order.iter().map(|_| Waiting::Nothing).collect();
        for index in 0..self.graph.order.len() {
            let Vertex::Node(node) = self.graph.order[index] else { continue };
            if self.kept.timers(node).is_some() {
                let mut answers = Vec::new();
                let now = self.kept.clock_ms();
                let mut left = FIRED_PER_TICK;
                self.fire(node, TimerDomain::WallClock, (now, NO_RECORD), &mut left, &mut answers)?;
                self.hand_on(node, &answers, &mut waiting, pieces)?;
            }
        }
        self.walk(waiting, pieces)
    }

    /// Gives every node what waits for it, in their order.
    fn walk<'a>(
        &mut self,
        mut waiting: Vec<Waiting<'a>>,
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        for index in 0..self.graph.order.len() {
            let vertex = self.graph.order[index];
            match (vertex, std::mem::replace(&mut waiting[index], Waiting::Nothing)) {
                (Vertex::Node(node), Waiting::Batch(batch)) => {
                    self.node(node, batch, &mut waiting, pieces)?;
                }
                (Vertex::Operator(operator), Waiting::Rows(inputs)) => {
                    self.operator(operator, inputs, &mut waiting, pieces)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn place(&self, vertex: Vertex) -> Option<usize> {
        self.graph.order.iter().position(|known| *known == vertex)
    }

    fn set_batch<'a>(&self, waiting: &mut [Waiting<'a>], target: Target, batch: Cow<'a>) {
        if let Target::Node(node) = target
            && let Some(place) = self.place(Vertex::Node(node))
        {
            waiting[place] = Waiting::Batch(batch);
        }
    }

    /// Rows of several nodes for one input come in the order of their numbers, those of one number in the order in which the
    /// nodes are.
    fn add_rows(&self, waiting: &mut [Waiting<'_>], target: Target, rows: Vec<Row>) {
        let Target::Operator(operator, input) = target else { return };
        let Some(place) = self.place(Vertex::Operator(operator)) else { return };
        if !matches!(waiting[place], Waiting::Rows(_)) {
            waiting[place] = Waiting::Rows(vec![Vec::new(); 2]);
        }
        let Waiting::Rows(inputs) = &mut waiting[place] else { return };
        let known = &mut inputs[input];
        if known.is_empty() {
            *known = rows;
        } else {
            known.extend(rows);
            known.sort_by_key(|row| row.sequence);
        }
    }

    fn node<'a>(
        &mut self,
        node: usize,
        batch: Cow<'a>,
        waiting: &mut [Waiting<'a>],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        if self.kept.timers(node).is_some() {
            let answers = self.with_timers(node, batch)?;
            return self.hand_on(node, &answers, waiting, pieces);
        }
        let Some(answer) = self.run.call(node, batch, Some(&mut *self.kept))? else { return Ok(()) };
        self.hand_on(node, &[answer], waiting, pieces)
    }

    /// Gives what a plugin has answered to its readers, one answer after the other.
    pub(super) fn hand_on<'a>(
        &mut self,
        node: usize,
        answers: &[(Cow<'a>, Arc<Answer>)],
        waiting: &mut [Waiting<'a>],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let Some((first, _)) = answers.first() else { return Ok(()) };
        let made_by = Some(Place::Node(node));
        for (output, targets) in (0..).zip(&self.run.topology.nodes[node].outputs) {
            // Made for the first target that asks for records.
            let mut made: Option<Arc<OwnedBatch>> = None;
            for target in targets {
                if let Target::Output(topic) = *target {
                    for (batch, answer) in answers {
                        let (batch, answer) = (batch.clone(), Arc::clone(answer));
                        pieces.push(Piece { batch, answer, output, topic, made_by });
                    }
                    continue;
                }
                let next = match &made {
                    Some(next) => Arc::clone(next),
                    None => {
                        let first = first.as_batch();
                        let mut next = OwnedBatch::new(first.topic, first.partition);
                        for (batch, answer) in answers {
                            let goes = |i| goes_to(answer, i, output);
                            let appended = answer.append_to(&mut next, batch.as_batch(), goes);
                            appended.map_err(|full| RangeError::too_large(node, full))?;
                        }
                        Arc::clone(made.insert(Arc::new(next)))
                    }
                };
                if let Target::Operator(..) = target {
                    let rows = self.rows_of(&next.as_batch());
                    self.add_rows(waiting, *target, rows);
                } else {
                    self.set_batch(waiting, *target, Cow::Shared(next));
                }
            }
        }
        Ok(())
    }

    fn operator<'a>(
        &mut self,
        operator: usize,
        mut inputs: Vec<Vec<Row>>,
        waiting: &mut [Waiting<'a>],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let (origin, place) = (self.origin, Place::Operator(operator));
        if !self.run.excluded.is_empty() {
            let excluded = self.run.excluded;
            let places: Vec<Place> = self
                .run
                .topology
                .grouped_by(operator)
                .into_iter()
                .chain([operator])
                .map(Place::Operator)
                .collect();
            let is_in = |row: &Row| {
                let offset = origin.offset_of(row.sequence);
                !places.iter().any(|place| excluded.contains(&(Some(*place), offset)))
            };
            inputs.iter_mut().for_each(|rows| rows.retain(is_in));
        }
        let plugin = self.run.plugins.aggregator(operator);
        let emitted = self.kept.process(operator, inputs, origin.is_many, (self.globals, plugin));
        let emitted = emitted.map_err(|failed| of_operator(place, origin, failed))?;
        self.hand_on_rows(operator, emitted, waiting, pieces)
    }

    /// A node goes on with what waits, and what comes of that goes its way.
    pub(super) fn go_on(&mut self, vertex: Vertex, pieces: &mut Vec<Piece<'_>>) -> Result<(), RangeError> {
        let mut waiting: Vec<Waiting<'_>> = self.graph.order.iter().map(|_| Waiting::Nothing).collect();
        match vertex {
            Vertex::Operator(operator) => self.operator_goes_on(operator, &mut waiting, pieces)?,
            Vertex::Node(node) => {
                let answers = self.node_goes_on(node)?;
                self.hand_on(node, &answers, &mut waiting, pieces)?;
            }
        }
        self.walk(waiting, pieces)
    }

    /// An operator goes on with what waits: see [`Operator::go_on`](crate::operator::Operator::go_on).
    fn operator_goes_on<'a>(
        &mut self,
        operator: usize,
        waiting: &mut [Waiting<'a>],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let (origin, place) = (self.origin, Place::Operator(operator));
        // It has failed before, or what it emits: that is left out.
        let leave_out = self.run.excluded.contains(&(Some(place), NO_RECORD));
        let plugin = self.run.plugins.aggregator(operator);
        let emitted = self.kept.go_on(operator, leave_out, (self.globals, plugin));
        let emitted = emitted.map_err(|failed| of_operator(place, origin, failed))?;
        if leave_out { Ok(()) } else { self.hand_on_rows(operator, emitted, waiting, pieces) }
    }

    /// Gives what an operator has emitted to its readers.
    fn hand_on_rows<'a>(
        &mut self,
        operator: usize,
        emitted: Vec<Emitted>,
        waiting: &mut [Waiting<'a>],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let place = Place::Operator(operator);
        let targets = &self.run.topology.operators[operator].outputs;
        let mut outputs: Vec<Vec<Row>> = vec![Vec::new(); targets.len()];
        for one in emitted {
            // Late rows that nobody asked for have no output.
            if let Some(rows) = outputs.get_mut(one.output) {
                rows.push(one.row);
            }
        }
        for (rows, targets) in outputs.into_iter().zip(targets) {
            if rows.is_empty() {
                continue;
            }
            let mut made: Option<Arc<OwnedBatch>> = None;
            for target in targets {
                if let Target::Operator(..) = target {
                    self.add_rows(waiting, *target, rows.clone());
                    continue;
                }
                let batch = match &made {
                    Some(batch) => Arc::clone(batch),
                    None => {
                        let batch = self.batch_of(&rows).map_err(|full| too_large(place, full))?;
                        Arc::clone(made.insert(Arc::new(batch)))
                    }
                };
                let batch = Cow::Shared(batch);
                match *target {
                    Target::Output(topic) => {
                        let answer = Arc::new(Answer::identity(&batch.as_batch()));
                        pieces.push(Piece { batch, answer, output: 0, topic, made_by: Some(place) });
                    }
                    target => self.set_batch(waiting, target, batch),
                }
            }
        }
        Ok(())
    }

    /// Rows as records. Each has the offset of the record that triggered it.
    pub(super) fn batch_of(&self, rows: &[Row]) -> Result<OwnedBatch, BatchFull> {
        let mut batch = OwnedBatch::new(self.origin.batch.topic, self.origin.batch.partition);
        for row in rows {
            let key = row.full_key();
            let record = RecordIn {
                offset: self.origin.offset_of(row.sequence),
                timestamp: row.timestamp,
                key: key.as_deref(),
                value: row.value.as_deref(),
                headers: Headers::default(),
            };
            let headers = row.headers.as_slice().iter();
            batch.push(record, headers.map(|header| (&*header.name, header.value.as_deref())))?;
        }
        Ok(batch)
    }

    /// Records as rows. What was made of no record belongs to the one before it, so the numbers rise.
    pub(super) fn rows_of(&self, batch: &BatchIn<'_>) -> Vec<Row> {
        let data = Bytes::copy_from_slice(batch.data);
        let field = |column: SlicesIn<'_>, i: usize| {
            // A slice that is there was found within the data.
            let found = column.get(batch.blob(), i)?;
            let from = column.offsets[i] as usize;
            Some(data.slice(from..from + found.len()))
        };
        let mut header = 0;
        let mut at = self.origin.start;
        let mut rows = Vec::with_capacity(batch.len());
        for (i, offset) in batch.offsets.iter().enumerate() {
            at += self.origin.batch.offsets[at..].iter().take_while(|known| *known < offset).count();
            let headers = match batch.headers {
                None => RowHeaders::default(),
                Some(columns) => {
                    let count = columns.counts.get(i).copied().unwrap_or(0) as usize;
                    let own = header..header + count;
                    header += count;
                    let one = |i| Header {
                        name: field(columns.names, i).unwrap_or_default(),
                        value: field(columns.values, i),
                    };
                    RowHeaders::new(own.map(one).collect())
                }
            };
            rows.push(Row {
                sequence: self.origin.first + at as u64,
                key: field(batch.keys, i),
                value: field(batch.values, i),
                timestamp: batch.timestamps.get(i).copied().unwrap_or(-1),
                headers,
                ..Row::default()
            });
        }
        rows
    }
}

fn too_large(place: Place, full: BatchFull) -> RangeError {
    RangeError::new(place, RecordError::Row(full.to_string()))
}

/// Turns the number of a row into the offset of the record that it comes from.
fn of_operator(place: Place, origin: Origin<'_>, failed: FailedRow) -> RangeError {
    let FailedRow { error, number } = failed;
    let offset = number.map(|number| origin.offset_of(number));
    if let OperatorError::Alone { .. } = error {
        return RangeError::alone(place, offset.unwrap_or(NO_RECORD));
    }
    let of_row = matches!(error, OperatorError::Row(_));
    let error = RecordError::from(error);
    let blamed = offset.filter(|_| of_row).map(|offset| (offset, error.clone()));
    RangeError { meant: Meant::Blamed(blamed.into_iter().collect()), ..RangeError::new(place, error) }
}

//! What a task with built-in operators keeps between records: the operators and their stores.

use super::state::Savepoints;
use crate::operator::{Context, Counts, Emitted, GlobalTables, NoTables, Operator, OperatorError, Row};
use crate::state::{Savepoint, StateBackend, StateLimits, TaskState};
use crate::topology::{Graph, Topology};

/// Entries that an operator forgets at once: bounds what it adds to a step.
const FORGET_PER_STEP: usize = 1_000;

/// No operator that a manifest can name looks at the clock.
const NO_CLOCK: i64 = 0;

/// See the module.
pub(super) struct Kept {
    state: TaskState,
    /// By index in [`Topology::operators`]; none where one is of another sub-topology.
    operators: Vec<Option<Box<dyn Operator>>>,
    /// What each has dropped since it was asked last.
    counts: Vec<Counts>,
    /// Where a range began.
    before: Option<(Savepoint, Vec<Counts>)>,
    /// The number that the next record gets.
    next_number: u64,
    /// Operators that may have something to forget.
    forgetful: Vec<usize>,
}

impl Kept {
    pub(super) fn new(
        topology: &Topology,
        graph: &Graph,
        backend: Box<dyn StateBackend>,
        limits: StateLimits,
    ) -> Kept {
        let operators = topology.build_operators(graph);
        Kept {
            state: TaskState::new(backend, &graph.store_specs(), limits),
            counts: vec![Counts::default(); operators.len()],
            operators,
            before: None,
            next_number: 0,
            forgetful: Vec::new(),
        }
    }

    pub(super) fn state(&mut self) -> &mut TaskState {
        &mut self.state
    }

    /// What operators have dropped since this was asked last, by index in [`Topology::operators`].
    pub(super) fn take_counts(&mut self) -> Vec<(usize, Counts)> {
        let nothing = Counts::default();
        let counts = self.counts.iter_mut().map(std::mem::take).enumerate();
        counts.filter(|(_, counts)| *counts != nothing).collect()
    }

    /// The number of the record that comes next; after it come `records` others.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// So many records are done.
    pub(super) fn advance(&mut self, records: u64) {
        self.next_number += records;
    }

    /// Gives an operator rows of each of its inputs, in the order of their numbers, those of one number in the order of
    /// the inputs. What it emits.
    pub(super) fn process(
        &mut self,
        operator: usize,
        inputs: Vec<Vec<Row>>,
        globals: &dyn GlobalTables,
    ) -> Result<Vec<Emitted>, FailedRow> {
        let mut out = Vec::new();
        let Some(node) = &mut self.operators[operator] else { return Ok(out) };
        if !self.forgetful.contains(&operator) {
            self.forgetful.push(operator);
        }
        let counts = &mut self.counts[operator];
        let mut cx = Context::new(&mut self.state, &mut out, counts, globals, NO_CLOCK, self.next_number);
        for (input, rows) in inputs.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let asked = node.prefetch(input, rows, &mut cx);
            asked.map_err(|error| FailedRow { error, number: None })?;
        }
        let mut rest: Vec<&[Row]> = inputs.iter().map(Vec::as_slice).collect();
        while let Some((input, len)) = next_rows(&rest) {
            let (rows, behind) = rest[input].split_at(len);
            rest[input] = behind;
            node.process(input, rows, &mut cx).map_err(|error| {
                let index = if let OperatorError::Row(row) = &error { Some(row.index) } else { None };
                let number = index.and_then(|index| rows.get(index)).map(|row| row.sequence);
                FailedRow { error, number }
            })?;
        }
        Ok(out)
    }

    /// Operators that were given rows forget what nobody will ask for any more.
    pub(super) fn forget(&mut self) -> Result<(), (usize, OperatorError)> {
        let forgetful = std::mem::take(&mut self.forgetful);
        for operator in forgetful {
            let Some(node) = &mut self.operators[operator] else { continue };
            let (mut out, counts) = (Vec::new(), &mut self.counts[operator]);
            let mut cx =
                Context::new(&mut self.state, &mut out, counts, &NoTables, NO_CLOCK, self.next_number);
            let more = node.maintain(&mut cx, FORGET_PER_STEP).map_err(|error| (operator, error))?;
            if more {
                self.forgetful.push(operator);
            }
        }
        Ok(())
    }
}

/// A call of an operator that failed, and the number of the row to blame, if that is known.
pub(super) struct FailedRow {
    pub(super) error: OperatorError,
    pub(super) number: Option<u64>,
}

/// The input whose rows come next, and how many of them come before another input's.
fn next_rows(rest: &[&[Row]]) -> Option<(usize, usize)> {
    let first = |input: &usize| rest[*input].first().map(|row| (row.sequence, *input));
    let (_, input) = (0..rest.len()).filter_map(|input| first(&input)).min()?;
    let comes_first = |row: &&Row| {
        let others = (0..rest.len()).filter(|other| *other != input).filter_map(|other| first(&other));
        others.min().is_none_or(|other| (row.sequence, input) < other)
    };
    Some((input, rest[input].iter().take_while(comes_first).count()))
}

impl Savepoints for Kept {
    fn begin(&mut self) {
        self.before = Some((self.state.savepoint(), self.counts.clone()));
    }

    fn keep(&mut self) {
        if let Some((savepoint, _)) = self.before.take() {
            self.state.release(savepoint);
        }
    }

    fn undo(&mut self) {
        if let Some((savepoint, counts)) = self.before.take() {
            self.state.roll_back(savepoint);
            self.counts = counts;
            self.operators.iter_mut().flatten().for_each(|operator| operator.reset());
        }
    }
}

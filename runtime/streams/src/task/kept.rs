//! What a task with state keeps between records: its operators, and the stores of these and of its plugins.

use super::RecordError;
use super::state::Savepoints;
use crate::node_state::timers::Timers;
use crate::node_state::{NodeState, NodeStores};
use crate::operator::{
    CLOSED_AT_ONCE, Context, Counts, Emitted, GlobalTables, LentAggregator, NoTables, Operator,
    OperatorError, Row,
};
use crate::state::{Savepoint, StateBackend, StateError, StateLimits, TaskState};
use crate::topology::{Graph, Topology, Vertex};

/// Entries that an operator forgets with a step, besides as many as were written since the step before: whatever comes, what
/// is to be forgotten gets less.
const FORGET_PER_STEP: usize = 1_000;
/// Entries that it forgets at once: those are in memory together.
const FORGET_AT_ONCE: usize = 1_000;

/// No operator that a manifest can name looks at the clock.
const NO_CLOCK: i64 = 0;

/// What timers have done within a range.
#[derive(Default)]
pub(super) struct Fired {
    /// Some have fired.
    pub(super) any: bool,
    /// Those whose firing failed and was left out: the node, the offset of the record that brought their time, and why.
    pub(super) left_out: Vec<(usize, i64, RecordError)>,
}

/// See the module.
pub(super) struct Kept {
    /// None while a plugin is called, to which it is lent.
    state: Option<Box<TaskState>>,
    /// The stores of plugins, by index in [`Topology::nodes`]; none where one keeps nothing, or is called.
    nodes: Vec<Option<Box<NodeStores>>>,
    /// By index in [`Topology::operators`]; none where one is of another sub-topology.
    operators: Vec<Option<Box<dyn Operator>>>,
    /// What each has dropped since it was asked last.
    counts: Vec<Counts>,
    /// Where a range began.
    before: Option<(Savepoint, Vec<Counts>)>,
    /// The number that the next record gets.
    next_number: u64,
    /// Nodes that may have something to forget.
    forgetful: Vec<Vertex>,
    /// The clock of the machine, for plugins with timers.
    clock_ms: i64,
    /// What timers have done since the range began.
    pub(super) fired: Fired,
    /// Windows that close, timers that fire and the like of one node in one pass.
    pub(super) at_once: usize,
}

impl Kept {
    pub(super) fn new(
        topology: &Topology,
        graph: &Graph,
        backend: Box<dyn StateBackend>,
        limits: StateLimits,
    ) -> Kept {
        let operators = topology.build_operators(graph);
        let nodes = topology.nodes.iter().enumerate().map(|(index, node)| {
            let stores = graph.stores_of(Vertex::Node(index));
            (!stores.is_empty()).then(|| Box::new(NodeStores::new(&node.stores, &stores)))
        });
        Kept {
            state: Some(Box::new(TaskState::new(backend, &graph.store_specs(), limits))),
            nodes: nodes.collect(),
            counts: vec![Counts::default(); operators.len()],
            operators,
            before: None,
            next_number: 0,
            forgetful: Vec::new(),
            clock_ms: NO_CLOCK,
            fired: Fired::default(),
            at_once: CLOSED_AT_ONCE,
        }
    }

    /// The last node, in their order, in which something waits until all is out that closes before it.
    pub(super) fn behind(&mut self, graph: &Graph) -> Result<Option<Vertex>, StateError> {
        for vertex in graph.order.iter().rev() {
            let is_behind = match *vertex {
                Vertex::Operator(operator) => self.operator_is_behind(operator)?,
                Vertex::Node(node) => match self.timers(node) {
                    Some((timers, state)) => timers.backlog.is_waiting(state)?,
                    None => false,
                },
            };
            if is_behind {
                return Ok(Some(*vertex));
            }
        }
        Ok(None)
    }

    fn operator_is_behind(&mut self, operator: usize) -> Result<bool, StateError> {
        let Some(node) = &mut self.operators[operator] else { return Ok(false) };
        let (mut out, counts) = (Vec::new(), &mut self.counts[operator]);
        let state = here(&mut self.state);
        let mut cx = Context::new(state, &mut out, counts, &NoTables, NO_CLOCK, self.next_number);
        node.is_behind(&mut cx).map_err(|error| match error {
            OperatorError::State(error) => error,
            other => StateError::Corrupt(other.to_string()),
        })
    }

    pub(super) fn state(&mut self) -> &mut TaskState {
        here(&mut self.state)
    }

    /// The clock goes on.
    pub(super) fn set_clock(&mut self, clock_ms: i64) {
        self.clock_ms = clock_ms;
    }

    pub(super) fn clock_ms(&self) -> i64 {
        self.clock_ms
    }

    /// The timers of a plugin, and the state that they are in; none if it has no timers.
    pub(super) fn timers(&mut self, node: usize) -> Option<(&mut Timers, &mut TaskState)> {
        let timers = self.nodes.get_mut(node)?.as_mut()?.timers()?;
        Some((timers, here(&mut self.state)))
    }

    /// What is known of the stores of a plugin says nothing any more: they were rolled back.
    pub(super) fn reset_node(&mut self, node: usize) {
        self.nodes[node].iter_mut().for_each(|stores| stores.reset());
    }

    /// Whether a plugin keeps something.
    pub(super) fn has_stores(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(Option::is_some)
    }

    /// Calls a plugin with the stores of its node, which may write so many bytes. An error says that a store cannot be used,
    /// whatever the plugin has made of it.
    pub(super) fn lend<T>(
        &mut self,
        node: usize,
        limit_bytes: u64,
        call: impl FnOnce(NodeState) -> (T, NodeState),
    ) -> Result<T, StateError> {
        let (Some(state), Some(stores)) = (self.state.take(), self.nodes[node].take()) else {
            unreachable!("one call at a time, of a node with stores");
        };
        if stores.has_windows() && !self.forgetful.contains(&Vertex::Node(node)) {
            self.forgetful.push(Vertex::Node(node));
        }
        let (out, lent) = call(NodeState::new(state, stores, limit_bytes).at(self.clock_ms));
        let (state, stores, used) = lent.end();
        (self.state, self.nodes[node]) = (Some(state), Some(stores));
        used.map(|()| out)
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
        is_many: bool,
        (globals, aggregator): (&dyn GlobalTables, LentAggregator<'_>),
    ) -> Result<Vec<Emitted>, FailedRow> {
        let mut out = Vec::new();
        let Some(node) = &mut self.operators[operator] else { return Ok(out) };
        if !self.forgetful.contains(&Vertex::Operator(operator)) {
            self.forgetful.push(Vertex::Operator(operator));
        }
        let counts = &mut self.counts[operator];
        let state = here(&mut self.state);
        let cx = Context::new(state, &mut out, counts, globals, NO_CLOCK, self.next_number);
        let mut cx = cx.with_aggregator(aggregator).closing(self.at_once);
        cx.set_many_records(is_many);
        for (input, rows) in inputs.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let asked = node.prefetch(input, rows, &mut cx);
            asked.map_err(|error| FailedRow { error, number: None })?;
        }
        let mut rest: Vec<&[Row]> = inputs.iter().map(Vec::as_slice).collect();
        while let Some((input, len)) = next_rows(&rest) {
            let (rows, behind) = rest[input].split_at(len);
            rest[input] = behind;
            node.process(input, rows, &mut cx).map_err(|error| {
                let index = match &error {
                    OperatorError::Row(row) => Some(row.index),
                    OperatorError::Alone { index } => Some(*index),
                    _ => None,
                };
                let number = index.and_then(|index| rows.get(index)).map(|row| row.sequence);
                FailedRow { error, number }
            })?;
        }
        Ok(out)
    }

    /// An operator goes on with what waits. What it emits.
    pub(super) fn go_on(
        &mut self,
        operator: usize,
        leave_out: bool,
        (globals, aggregator): (&dyn GlobalTables, LentAggregator<'_>),
    ) -> Result<Vec<Emitted>, FailedRow> {
        let mut out = Vec::new();
        let Some(node) = &mut self.operators[operator] else { return Ok(out) };
        let counts = &mut self.counts[operator];
        let state = here(&mut self.state);
        let cx = Context::new(state, &mut out, counts, globals, NO_CLOCK, self.next_number);
        let mut cx = cx.with_aggregator(aggregator).closing(self.at_once);
        node.go_on(&mut cx, leave_out).map_err(|error| FailedRow { error, number: None })?;
        Ok(out)
    }

    /// Nodes that were given something forget what nobody will ask for any more.
    pub(super) fn forget(&mut self) -> Result<(), (Vertex, OperatorError)> {
        let budget = FORGET_PER_STEP + self.state().take_written();
        for vertex in std::mem::take(&mut self.forgetful) {
            let (mut left, mut more) = (budget, true);
            while more && left > 0 {
                let part = left.min(FORGET_AT_ONCE);
                left -= part;
                more = self.vertex_forgets(vertex, part).map_err(|error| (vertex, error))?;
            }
            if more {
                self.forgetful.push(vertex);
            }
        }
        // What is written to forget something is nothing to forget.
        self.state().take_written();
        Ok(())
    }

    fn vertex_forgets(&mut self, vertex: Vertex, budget: usize) -> Result<bool, OperatorError> {
        match vertex {
            Vertex::Operator(operator) => self.operator_forgets(operator, budget),
            Vertex::Node(node) => match &mut self.nodes[node] {
                Some(stores) => Ok(stores.forget(here(&mut self.state), budget)?),
                None => Ok(false),
            },
        }
    }

    fn operator_forgets(&mut self, operator: usize, budget: usize) -> Result<bool, OperatorError> {
        let Some(node) = &mut self.operators[operator] else { return Ok(false) };
        let (mut out, counts) = (Vec::new(), &mut self.counts[operator]);
        let state = here(&mut self.state);
        let mut cx = Context::new(state, &mut out, counts, &NoTables, NO_CLOCK, self.next_number);
        node.maintain(&mut cx, budget)
    }
}

fn here(state: &mut Option<Box<TaskState>>) -> &mut TaskState {
    state.as_mut().expect("who is lent the state gives it back before anything else happens")
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
        self.before = Some((self.state().savepoint(), self.counts.clone()));
        self.fired = Fired::default();
    }

    fn keep(&mut self) {
        if let Some((savepoint, _)) = self.before.take() {
            self.state().release(savepoint);
        }
    }

    fn undo(&mut self) {
        if let Some((savepoint, counts)) = self.before.take() {
            self.state().roll_back(savepoint);
            self.counts = counts;
            self.operators.iter_mut().flatten().for_each(|operator| operator.reset());
            self.nodes.iter_mut().flatten().for_each(|stores| stores.reset());
        }
    }
}

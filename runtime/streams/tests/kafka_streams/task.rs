//! Runs a topology, input by input.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use pelton_streams::operator::{Context, Counts, Emitted, GlobalTableError, GlobalTables, Row};
use pelton_streams::state::{
    Blob, ChangelogPosition, Changes, MemoryState, Position, StateBackend, StateBatch, StateLimits,
    StoreKind, StoreSpec, TaskState,
};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::case::{Case, Input};
use crate::topology::{Source, Topology};

/// A record that came out: key, value, time.
pub(crate) type Output = (Option<String>, Option<String>, i64);

/// Makes or opens the stores of a task: how many there are, and whether what is there is gone on with.
pub(crate) type Open<'o> = &'o mut dyn FnMut(&[StoreSpec]) -> Box<dyn StateBackend>;

/// A case that is run.
pub(crate) struct Task<'c> {
    case: &'c Case,
    pub(crate) topology: Topology,
    state: TaskState,
    /// What transactions have written to the changelog of each store.
    changelogs: Vec<Changes>,
    tables: Tables,
    /// What each call has emitted for the input.
    emitted: Vec<Vec<Emitted>>,
    /// What each call was given.
    pub(crate) given: Vec<Vec<Row>>,
    /// Of each operator.
    pub(crate) counts: Vec<Counts>,
    sequence: u64,
}

#[derive(Default)]
struct Tables(Vec<HashMap<Bytes, Bytes>>);

impl GlobalTables for Tables {
    fn get(&self, table: usize, key: &[u8]) -> Result<Option<Bytes>, GlobalTableError> {
        Ok(self.0[table].get(key).cloned())
    }
}

fn specs(count: usize) -> Vec<StoreSpec> {
    (0..count)
        .map(|n| StoreSpec { name: format!("store-{n}"), ordered: true, kind: StoreKind::Memory })
        .collect()
}

impl<'c> Task<'c> {
    pub(crate) fn new(case: &'c Case, cache_bytes: u64, open: Open<'_>) -> Task<'c> {
        let topology = Topology::new(case);
        let specs = specs(topology.stores);
        let state =
            TaskState::new(open(&specs), &specs, StateLimits { cache_bytes, ..StateLimits::default() });
        Task {
            case,
            state,
            changelogs: vec![Vec::new(); topology.stores],
            tables: Tables(vec![HashMap::new(); topology.globals.len()]),
            emitted: vec![Vec::new(); topology.calls.len()],
            given: vec![Vec::new(); topology.calls.len()],
            counts: vec![Counts::default(); topology.operators.len()],
            sequence: 0,
            topology,
        }
    }

    /// What an input makes the last node emit.
    pub(crate) fn input(&mut self, (topic, key, value, timestamp): &Input) -> Vec<Output> {
        self.sequence += 1;
        let bytes = |text: &Option<String>| text.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let (key, value) = (bytes(key), bytes(value));
        if let Some(table) = self.topology.globals.iter().position(|global| global == topic)
            && let Some(key) = &key
        {
            match &value {
                Some(value) => self.tables.0[table].insert(key.clone(), value.clone()),
                None => self.tables.0[table].remove(key),
            };
        }
        let row = Row { sequence: self.sequence, key, value, timestamp: *timestamp, ..Row::default() };
        for call in 0..self.topology.calls.len() {
            self.call(call, topic, &row);
        }
        let last = self.topology.results.last().expect("there are nodes").clone();
        self.rows(&last, topic, &row).iter().map(output).collect()
    }

    fn rows(&self, from: &[Source], topic: &str, row: &Row) -> Vec<Row> {
        let mut rows = Vec::new();
        for from in from {
            match from {
                Source::Topic(name) if name == topic => rows.push(row.clone()),
                Source::Topic(_) => {}
                Source::Call(call, output) => {
                    let emitted = self.emitted[*call].iter().filter(|one| one.output == *output);
                    rows.extend(emitted.map(|one| one.row.clone()));
                }
            }
        }
        rows
    }

    fn call(&mut self, call: usize, topic: &str, row: &Row) {
        let rows = self.rows(&self.topology.calls[call].from, topic, row);
        let (operator, input) = (self.topology.calls[call].operator, self.topology.calls[call].input);
        let (mut out, counts) = (Vec::new(), &mut self.counts[operator]);
        let operator = &mut self.topology.operators[operator];
        let mut cx = Context::new(&mut self.state, &mut out, counts, &self.tables, 0, self.sequence);
        if !rows.is_empty() {
            operator
                .prefetch(input, &rows, &mut cx)
                .and_then(|()| operator.process(input, &rows, &mut cx))
                .expect("it is processed");
        }
        self.emitted[call] = out;
        self.given[call] = rows;
    }

    /// Ends the transaction. With `apply` the backend takes over what was changed.
    pub(crate) fn commit(&mut self, apply: bool) {
        for (changelog, written) in self.changelogs.iter_mut().zip(self.state.end_transaction()) {
            changelog.extend(written);
        }
        if apply && let Some(batch) = self.state.take_changes(self.end()) {
            self.state.apply(batch).expect("the backend takes it over");
        }
    }

    fn end(&self) -> Position {
        let position = |log: &Changes| ChangelogPosition {
            topic_id: [1; 16],
            offset: log.len() as i64,
            caught_up_ms: 0,
        };
        self.changelogs.iter().map(position).collect()
    }

    /// The process is gone. So is what the transaction has not committed, and what the backend has not flushed may be.
    /// The stores are what is there and what the changelog says after that: how many keys that were.
    pub(crate) fn restart(&mut self, cache_bytes: u64, open: Open<'_>) -> usize {
        let specs = specs(self.topology.stores);
        let limits = StateLimits { cache_bytes, ..StateLimits::default() };
        let nothing = Box::new(MemoryState::new(0));
        // The old one is closed before the new one is opened.
        drop(std::mem::replace(&mut self.state, TaskState::new(nothing, &[], limits)));
        let mut backend = open(&specs);
        let behind = |(log, position): (&Changes, &ChangelogPosition)| -> Changes {
            // The last word on each key, in the order of keys.
            let mut rest: BTreeMap<Blob, Option<Blob>> = BTreeMap::new();
            rest.extend(log[usize::try_from(position.offset).expect("an offset")..].iter().cloned());
            rest.into_iter().collect()
        };
        let changes: Vec<_> = self.changelogs.iter().zip(backend.position()).map(behind).collect();
        let restored = changes.iter().map(Vec::len).sum();
        backend.restore(StateBatch { changes, position: self.end() }).expect("it is restored");
        self.state = TaskState::new(backend, &specs, limits);
        self.topology = Topology::new(self.case);
        restored
    }

    /// Makes what was taken over survive.
    pub(crate) fn flush(&mut self) {
        self.state.flush().expect("it is flushed");
    }

    /// Every operator forgets some of what nobody needs.
    pub(crate) fn maintain(&mut self, budget: usize) {
        for (operator, counts) in self.topology.operators.iter_mut().zip(&mut self.counts) {
            let mut out = Vec::new();
            let mut cx = Context::new(&mut self.state, &mut out, counts, &self.tables, 0, self.sequence);
            operator.maintain(&mut cx, budget).expect("it forgets");
            assert_eq!(out, [], "forgetting is not seen");
        }
    }

    /// An input is processed and taken back.
    pub(crate) fn in_vain(&mut self, input: &Input) {
        let savepoint = self.state.savepoint();
        let (counts, tables) = (self.counts.clone(), self.tables.0.clone());
        self.input(input);
        self.state.roll_back(savepoint);
        (self.counts, self.tables.0) = (counts, tables);
        self.sequence -= 1;
        self.topology.operators.iter_mut().for_each(|operator| operator.reset());
    }
}

fn output(row: &Row) -> Output {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    (row.full_key().map(text), row.value.clone().map(text), row.timestamp)
}

/// Something happens that must not matter.
pub(crate) fn disturb(task: &mut Task<'_>, next: &Input, random: &mut SmallRng, open: Open<'_>) {
    match random.random_range(0..12) {
        0 => {
            task.commit(random.random_range(0..2) == 0);
            let _restored = task.restart([0, 300, 1 << 20][random.random_range(0..3)], open);
        }
        1 | 2 => task.commit(true),
        3 => task.commit(false),
        4 => task.in_vain(next),
        5 | 6 => task.maintain(random.random_range(1..5)),
        7 => task.flush(),
        _ => {}
    }
}

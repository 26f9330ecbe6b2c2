//! Runs an operator without a pipeline: rows in, rows out, and the same once more with everything in between that
//! must not matter: other calls, commits, restarts from the changelog, calls that are rolled back, caches of all
//! sizes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::aggregate::{AggregateFunction, Item, Way};
use super::{
    CLOSED_AT_ONCE, Change, Context, Counts, Emitted, GlobalTables, NoTables, Operator, OperatorError, Row,
    WindowKind,
};
use crate::batch::BatchIn;
use crate::node_state::ColumnOut;
use crate::plugin::{AggregatorPlugin, PluginError, Rejection};
use crate::state::{
    Blob, ChangelogPosition, Changes, MemoryState, Position, StateBackend, StateBatch, StateLimits,
    StateReader, StoreKind, StoreSpec, TaskState,
};

/// Where randomness comes from: a number in the range.
pub type Dice<'d> = &'d mut dyn FnMut(RangeInclusive<u64>) -> u64;

/// What a changelog says when it is replayed, by store.
pub type Replayed = Vec<BTreeMap<Blob, Blob>>;

/// An operator with its stores.
pub struct Rig<'m> {
    make: &'m dyn Fn() -> Box<dyn Operator>,
    /// Whether ranges of each store are read.
    ordered: Vec<bool>,
    /// The operator.
    pub operator: Box<dyn Operator>,
    state: TaskState,
    changelog: Replayed,
    offset: i64,
    /// What was dropped.
    pub counts: Counts,
    /// The clock.
    pub now_ms: i64,
    tables: Box<dyn GlobalTables>,
    /// The plugin that the operator aggregates with, if it does.
    pub aggregator: Option<Box<dyn AggregatorPlugin>>,
    /// What closes with one call.
    pub at_once: usize,
    /// It begins anew after each part of what closes.
    pub restarts: bool,
    /// The most rows that one call has emitted.
    pub most: usize,
}

fn limits(cache_bytes: u64) -> StateLimits {
    StateLimits { cache_bytes, ..StateLimits::default() }
}

fn specs(ordered: &[bool]) -> Vec<StoreSpec> {
    let spec = |(n, ordered): (usize, &bool)| StoreSpec {
        name: format!("store-{n}"),
        ordered: *ordered,
        kind: StoreKind::Memory,
    };
    ordered.iter().enumerate().map(spec).collect()
}

impl<'m> Rig<'m> {
    /// An operator whose stores are the first ones; `ordered` says which of them read ranges.
    pub fn new(make: &'m dyn Fn() -> Box<dyn Operator>, ordered: &[bool]) -> Rig<'m> {
        let count = ordered.len();
        let backend = Box::new(MemoryState::new(count));
        Rig {
            make,
            ordered: ordered.to_vec(),
            operator: make(),
            state: TaskState::new(backend, &specs(ordered), limits(1 << 20)),
            changelog: vec![BTreeMap::new(); count],
            offset: 0,
            counts: Counts::default(),
            now_ms: 0,
            tables: Box::new(NoTables),
            aggregator: None,
            at_once: CLOSED_AT_ONCE,
            restarts: false,
            most: 0,
        }
    }

    /// With these global tables.
    #[must_use]
    pub fn with_tables(mut self, tables: Box<dyn GlobalTables>) -> Rig<'m> {
        self.tables = tables;
        self
    }

    fn call(
        &mut self,
        sequence: u64,
        call: impl FnOnce(&mut dyn Operator, &mut Context<'_>) -> Result<bool, OperatorError>,
    ) -> Result<(Vec<Emitted>, bool), OperatorError> {
        let mut out = Vec::new();
        let tables = &*self.tables;
        let cx = Context::new(&mut self.state, &mut out, &mut self.counts, tables, self.now_ms, sequence);
        let mut cx = cx.with_aggregator(self.aggregator.as_deref_mut()).closing(self.at_once);
        let more = call(&mut *self.operator, &mut cx)?;
        self.most = self.most.max(out.len());
        Ok((out, more))
    }

    /// Gives rows in one call, or in as many as a task would. What is emitted.
    ///
    /// # Errors
    /// The operator's.
    pub fn give(&mut self, input: usize, rows: &[Row]) -> Result<Vec<Emitted>, OperatorError> {
        let (savepoint, counts) = (self.state.savepoint(), self.counts);
        let given = self.call(0, |operator, cx| {
            cx.set_many_records(rows.len() > 1);
            operator.prefetch(input, rows, cx)?;
            operator.process(input, rows, cx)?;
            Ok(false)
        });
        if let Err(OperatorError::Alone { index }) = given {
            self.state.roll_back(savepoint);
            self.counts = counts;
            self.operator.reset();
            let parts = [&rows[..index], &rows[index..=index], &rows[index + 1..]];
            let given = parts.iter().filter(|part| !part.is_empty()).map(|part| self.give(input, part));
            return Ok(given.collect::<Result<Vec<_>, _>>()?.concat());
        }
        self.state.release(savepoint);
        let mut out = given?.0;
        let sequence = rows.last().map_or(0, |row| row.sequence);
        while self.call(sequence, |operator, cx| operator.is_behind(cx))?.1 {
            if self.restarts {
                self.restart(300);
            }
            out.extend(self.call(sequence, |operator, cx| operator.go_on(cx, false).map(|()| false))?.0);
        }
        Ok(out)
    }

    /// The clock goes on. What is emitted.
    ///
    /// # Errors
    /// The operator's.
    pub fn tick(&mut self, now_ms: i64) -> Result<Vec<Emitted>, OperatorError> {
        self.now_ms = now_ms;
        Ok(self.call(0, |operator, cx| operator.tick(cx).map(|()| false))?.0)
    }

    /// Forgets up to `budget` entries; whether there are more.
    ///
    /// # Errors
    /// The operator's.
    ///
    /// # Panics
    /// If it emits something.
    pub fn maintain(&mut self, budget: usize) -> Result<bool, OperatorError> {
        let (out, more) = self.call(0, |operator, cx| operator.maintain(cx, budget))?;
        assert_eq!(out, [], "forgetting is not seen");
        Ok(more)
    }

    /// Gives rows that cannot be processed, and takes back what comes of that.
    ///
    /// # Panics
    /// If they can.
    pub fn fails(&mut self, input: usize, rows: &[Row]) -> OperatorError {
        let savepoint = self.state.savepoint();
        let failed = self.give(input, rows).expect_err("they cannot be processed");
        self.state.roll_back(savepoint);
        self.operator.reset();
        failed
    }

    /// Gives rows and takes it all back.
    fn give_in_vain(&mut self, input: usize, rows: &[Row]) {
        let (savepoint, counts) = (self.state.savepoint(), self.counts);
        let restarts = std::mem::take(&mut self.restarts);
        // Whether it fails does not matter: it is undone.
        let _ = self.give(input, rows);
        self.state.roll_back(savepoint);
        (self.counts, self.restarts) = (counts, restarts);
        self.operator.reset();
    }

    /// Ends the transaction. With `apply` the backend takes over what was changed.
    ///
    /// # Panics
    /// If the store and the replay of its changelog differ.
    pub fn commit(&mut self, apply: bool) {
        for (store, changes) in self.state.end_transaction().into_iter().enumerate() {
            for (key, value) in changes {
                self.offset += 1;
                match value {
                    Some(value) => self.changelog[store].insert(key, value),
                    None => self.changelog[store].remove(&key),
                };
            }
        }
        if apply && let Some(batch) = self.state.take_changes(position(self.changelog.len(), self.offset)) {
            self.state.apply(batch).expect("memory takes everything");
        }
    }

    /// Ends the transaction and begins anew with what the changelog says.
    pub fn restart(&mut self, cache_bytes: u64) {
        self.commit(true);
        let mut backend = MemoryState::new(self.changelog.len());
        let all = |map: &BTreeMap<Blob, Blob>| -> Changes {
            map.iter().map(|(key, value)| (Blob::clone(key), Some(Blob::clone(value)))).collect()
        };
        let changes = self.changelog.iter().map(all).collect();
        let batch = StateBatch { changes, position: position(self.changelog.len(), self.offset) };
        backend.restore(batch).expect("memory takes everything");
        self.state = TaskState::new(Box::new(backend), &specs(&self.ordered), limits(cache_bytes));
        self.operator = (self.make)();
    }

    /// For readers of what the backend has.
    pub fn reader(&self) -> Arc<dyn StateReader> {
        self.state.reader()
    }

    /// What the changelog says after a commit.
    pub fn replayed(&mut self) -> &Replayed {
        self.commit(false);
        &self.changelog
    }

    /// Gives rows one by one, each with the input it comes to. What each of them triggers.
    ///
    /// # Errors
    /// The operator's.
    pub fn run(&mut self, rows: &[(usize, Row)]) -> Result<Vec<Vec<Emitted>>, OperatorError> {
        rows.iter().map(|(input, row)| self.give(*input, std::slice::from_ref(row))).collect()
    }

    /// The same with everything in between that must not matter.
    ///
    /// # Errors
    /// The operator's.
    pub fn run_disturbed(
        &mut self,
        rows: &[(usize, Row)],
        dice: Dice<'_>,
    ) -> Result<Vec<Vec<Emitted>>, OperatorError> {
        self.at_once = [CLOSED_AT_ONCE, 1, 2, 3][dice(0..=3) as usize];
        self.restarts = dice(0..=1) == 1;
        let mut outputs = vec![Vec::new(); rows.len()];
        let mut place = 0;
        while place < rows.len() {
            let input = rows[place].0;
            let same = rows[place..].iter().take_while(|(other, _)| *other == input).count();
            let count = dice(1..=8).min(same as u64) as usize;
            let batch: Vec<_> = rows[place..place + count].iter().map(|(_, row)| row.clone()).collect();
            match dice(0..=9) {
                0 => self.restart([0, 300, 1 << 20][dice(0..=2) as usize]),
                1 => self.commit(dice(0..=1) == 1),
                2 => self.give_in_vain(input, &batch),
                3 => drop(self.maintain(dice(1..=5) as usize)?),
                _ => {}
            }
            for emitted in self.give(input, &batch)? {
                let index = rows.iter().position(|(_, row)| row.sequence == emitted.row.sequence);
                outputs[index.expect("each row has its number")].push(emitted);
            }
            place += count;
        }
        while self.maintain(3)? {}
        Ok(outputs)
    }
}

/// An [`AggregateFunction`] as a plugin, which is called with many groups at once. Counts its calls.
pub struct FunctionPlugin {
    /// The function.
    pub function: Box<dyn AggregateFunction>,
    /// How often it was called.
    pub calls: Arc<AtomicUsize>,
}

impl FunctionPlugin {
    fn failed(error: OperatorError) -> PluginError {
        match error {
            OperatorError::Plugin(error) => error,
            other => PluginError::Fatal(other.to_string()),
        }
    }
}

impl AggregatorPlugin for FunctionPlugin {
    fn create(&mut self) -> Result<Vec<u8>, PluginError> {
        self.function.create(&[]).map_err(FunctionPlugin::failed)
    }

    fn fold(
        &mut self,
        way: Way,
        values: &ColumnOut,
        batch: &BatchIn<'_>,
        groups: &[u32],
    ) -> Result<ColumnOut, PluginError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut now: Vec<Vec<u8>> =
            (0..values.len()).map(|i| values.get(i).unwrap_or_default().to_vec()).collect();
        let (mut out, mut rejected) = (ColumnOut::default(), Vec::new());
        for ((index, record), group) in (0..).zip(batch.records()).zip(groups) {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            let item = Item { key, value, timestamp: record.timestamp, origin: None };
            let state = &mut now[*group as usize];
            let folded = match way {
                Way::In => self.function.add(state, item),
                Way::Out => self.function.subtract(state, item),
            };
            match folded {
                Ok(folded) => *state = folded,
                Err(OperatorError::Row(row)) => rejected.push(Rejection { index, reason: row.reason }),
                Err(other) => return Err(FunctionPlugin::failed(other)),
            }
            out.push(Some(state));
        }
        if rejected.is_empty() { Ok(out) } else { Err(PluginError::Reject(rejected)) }
    }

    fn merge(&mut self, left: &ColumnOut, right: &ColumnOut) -> Result<ColumnOut, PluginError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut out = ColumnOut::default();
        for i in 0..left.len() {
            let [left, right] = [left, right].map(|column| column.get(i).unwrap_or_default());
            out.push(Some(&self.function.merge(&[], left, right).map_err(FunctionPlugin::failed)?));
        }
        Ok(out)
    }
}

fn position(stores: usize, offset: i64) -> Position {
    vec![ChangelogPosition { topic_id: [1; 16], offset, caught_up_ms: 0 }; stores]
}

/// A row as text: `key=value@time`, `-` for no key, `~` for no value.
///
/// # Panics
/// If it is not that.
pub fn row(text: &str) -> Row {
    let (record, time) = text.rsplit_once('@').expect("a time");
    let (key, value) = record.split_once('=').expect("a value");
    let field = |text: &str, none: &str| (text != none).then(|| Bytes::copy_from_slice(text.as_bytes()));
    Row {
        key: field(key, "-"),
        value: field(value, "~"),
        timestamp: time.trim().parse().expect("a number"),
        ..Row::default()
    }
}

/// Rows as text, each for an input: `1>key=value@time`, without a number for the first.
///
/// # Panics
/// If they are not that.
pub fn rows(texts: &[&str]) -> Vec<(usize, Row)> {
    let numbered = texts.iter().enumerate();
    numbered
        .map(|(index, text)| {
            let (input, text) = match text.split_once('>') {
                Some((input, text)) => (input.trim().parse().expect("an input"), text),
                None => (0, *text),
            };
            (input, Row { sequence: index as u64, ..row(text.trim()) })
        })
        .collect()
}

/// A row as text: `key[start,end]=value@time`, what it is in the place of behind it, and the output before it.
pub fn show(emitted: &Emitted) -> String {
    let text = |field: Option<&Bytes>, none: &str| match field {
        None => none.to_owned(),
        Some(bytes) => bytes.escape_ascii().to_string().replace("\\\"", "\""),
    };
    let row = &emitted.row;
    let output = if emitted.output == 0 { String::new() } else { format!("{}>", emitted.output) };
    let window = row.window.map(|window| {
        let end = if window.kind == WindowKind::Time { ')' } else { ']' };
        format!("[{},{}{end}", window.start, window.end)
    });
    let change = match &row.change {
        Change::Unknown => String::new(),
        Change::Was(was) => format!(" was {}", text(was.as_ref(), "~")),
        Change::Grouped { was, origin } => {
            format!(" was {} of {}", text(was.as_ref(), "~"), text(Some(origin), ""))
        }
    };
    let (key, value) = (text(row.key.as_ref(), "-"), text(row.value.as_ref(), "~"));
    format!("{output}{key}{}={value}@{}{change}", window.unwrap_or_default(), row.timestamp)
}

//! What an operator is given besides rows.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::backlog::{CLOSED_AT_ONCE, ClosingBudget};
use super::row::{Change, Row, RowHeaders, Window};
use super::windows::MAX_TIMESTAMP;
use super::{OperatorError, RowError};
use crate::plugin::{AggregatorPlugin, PluginError};
use crate::state::{Blob, KeyRange, StoreIndex, TaskState};

/// Values from this size on are not copied when they go from a store into a row.
const SHARED_FROM: usize = 512;

/// What an operator has not let through, or has met, since it was asked last. They are the pipeline's metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows without a key where one is needed.
    pub null_key: u64,
    /// Rows without a value where one is needed.
    pub null_value: u64,
    /// Rows whose timestamp is no time: negative, or beyond [`MAX_TIMESTAMP`].
    pub no_time: u64,
    /// Rows that came when all that they belong to was closed.
    pub late: u64,
    /// Windows that a row belongs to and that were closed when it came; those of rows that count as late among them.
    pub late_windows: u64,
    /// Rows that repeat an earlier one.
    pub duplicates: u64,
    /// Updates of a versioned table that are older than the latest, and change nothing downstream.
    pub out_of_order: u64,
    /// Rows of a stream that found nothing to join.
    pub unmatched: u64,
    /// Answers to a foreign-key subscription that was replaced before they came.
    pub stale: u64,
    /// Rows whose value lacks the field that makes their key.
    pub null_field: u64,
}

/// A global table cannot be read, and why. No record is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GlobalTableError(pub String);

/// Tables of which the process has one whole copy, for all tasks.
pub trait GlobalTables {
    /// Reads keys that are asked for next, all at one moment of the table.
    ///
    /// # Errors
    /// The table cannot be read.
    fn load(&self, _table: usize, _keys: &mut dyn Iterator<Item = &[u8]>) -> Result<(), GlobalTableError> {
        Ok(())
    }

    /// The value of a key: at the moment of the last [`GlobalTables::load`] if that has read it, now otherwise.
    ///
    /// # Errors
    /// The table cannot be read.
    fn get(&self, table: usize, key: &[u8]) -> Result<Option<Bytes>, GlobalTableError>;
}

/// No global tables.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTables;

impl GlobalTables for NoTables {
    fn get(&self, table: usize, _: &[u8]) -> Result<Option<Bytes>, GlobalTableError> {
        Err(GlobalTableError(format!("there is no global table {table}")))
    }
}

/// A row and the output of the operator that it leaves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Which output.
    pub output: usize,
    /// The row.
    pub row: Row,
}

/// An entry of a store.
pub(super) type Entry = (Box<[u8]>, Box<[u8]>);

/// The plugin that an operator aggregates with, if it does.
pub type LentAggregator<'a> = Option<&'a mut (dyn AggregatorPlugin + 'static)>;

/// What an operator is given besides rows.
pub struct Context<'a> {
    /// The stores of the task.
    pub(super) state: &'a mut TaskState,
    out: &'a mut Vec<Emitted>,
    /// What was dropped.
    pub counts: &'a mut Counts,
    pub(super) tables: &'a dyn GlobalTables,
    /// The clock of the machine, in milliseconds since 1970-01-01 UTC. Only timers on wall-clock time may depend on it.
    pub now_ms: i64,
    /// The number of the source record that is being processed.
    sequence: u64,
    /// The plugin of the node, if it aggregates with one.
    aggregator: LentAggregator<'a>,
    /// How much may still be closed.
    pub(super) closing: ClosingBudget,
    /// All rows are of one record, or of none.
    is_alone: bool,
}

impl<'a> Context<'a> {
    /// `sequence` is the number of the latest source record, for what is emitted without one.
    pub fn new(
        state: &'a mut TaskState,
        out: &'a mut Vec<Emitted>,
        counts: &'a mut Counts,
        tables: &'a dyn GlobalTables,
        now_ms: i64,
        sequence: u64,
    ) -> Context<'a> {
        let (aggregator, closing, is_alone) = (None, ClosingBudget::of(CLOSED_AT_ONCE), true);
        Context { state, out, counts, tables, now_ms, sequence, aggregator, closing, is_alone }
    }

    /// The same, which closes about so many windows and the like.
    #[must_use]
    pub fn closing(self, rows: usize) -> Context<'a> {
        Context { closing: ClosingBudget::of(rows), ..self }
    }

    /// Rows are of several records, none of which may wait.
    pub fn set_many_records(&mut self, are_many: bool) {
        self.is_alone = !are_many;
    }

    /// Before a row waits. What it is made of should be of no other record.
    pub(super) fn goes_alone(&self) -> Result<(), OperatorError> {
        if self.is_alone { Ok(()) } else { Err(OperatorError::Alone { index: 0 }) }
    }

    /// The same with the plugin that the node aggregates with.
    #[must_use]
    pub fn with_aggregator(self, aggregator: LentAggregator<'a>) -> Context<'a> {
        Context { aggregator, ..self }
    }

    /// The plugin that the node aggregates with.
    pub(super) fn aggregator(&mut self) -> Result<&mut dyn AggregatorPlugin, OperatorError> {
        match &mut self.aggregator {
            Some(aggregator) => Ok(&mut **aggregator),
            None => Err(PluginError::Fatal("the plugin of the aggregate is not there".to_owned()).into()),
        }
    }

    /// The same with another place for what is emitted.
    pub(super) fn with_output<'b>(&'b mut self, out: &'b mut Vec<Emitted>) -> Context<'b> {
        let Context { state, counts, tables, now_ms, sequence, aggregator, closing, is_alone, .. } = self;
        let aggregator = aggregator.as_deref_mut();
        let (tables, now_ms, sequence) = (*tables, *now_ms, *sequence);
        let (closing, is_alone) = (*closing, *is_alone);
        Context { state, out, counts, tables, now_ms, sequence, aggregator, closing, is_alone }
    }

    /// What is emitted from now on is triggered by this row.
    pub(super) fn begin(&mut self, row: &Row) {
        self.sequence = row.sequence;
    }

    /// Sends a row out.
    pub(super) fn emit(&mut self, output: usize, row: Row) {
        self.out.push(Emitted { output, row: Row { sequence: self.sequence, ..row } });
    }

    /// Sends the result of an aggregate out.
    pub(super) fn emit_result(
        &mut self,
        key: Bytes,
        window: Option<Window>,
        value: Option<Bytes>,
        timestamp: i64,
        change: Change,
    ) {
        let headers = RowHeaders::default();
        self.emit(0, Row { sequence: 0, key: Some(key), value, timestamp, headers, window, change });
    }

    pub(super) fn get(&mut self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, OperatorError> {
        Ok(self.state.get(store, key)?)
    }

    pub(super) fn put(&mut self, store: StoreIndex, key: &[u8], value: &[u8]) {
        self.state.put(store, key, Some(Blob::from(value)));
    }

    pub(super) fn delete(&mut self, store: StoreIndex, key: &[u8]) {
        self.state.put(store, key, None);
    }

    /// The first `limit` entries of a range, and whether there may be more.
    pub(super) fn scan(
        &self,
        store: StoreIndex,
        range: KeyRange<'_>,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool), OperatorError> {
        self.scan_within(store, range, (limit, usize::MAX))
    }

    /// The same, but no more once they have so many bytes; at least one.
    pub(super) fn scan_within(
        &self,
        store: StoreIndex,
        range: KeyRange<'_>,
        (limit, bytes_max): (usize, usize),
    ) -> Result<(Vec<Entry>, bool), OperatorError> {
        let (mut found, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
        let mut more = false;
        self.state.range(store, range, &mut |key, value| {
            if found.len() == limit || bytes >= bytes_max {
                more = true;
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            found.push((key.into(), value.into()));
            ControlFlow::Continue(())
        })?;
        Ok((found, more))
    }

    /// The key and value of a row, where both are needed; a row that lacks one is counted.
    pub(super) fn keyed<'r>(&mut self, row: &'r Row) -> Option<(Bytes, &'r Bytes)> {
        let Some(key) = row.full_key() else {
            self.counts.null_key += 1;
            return None;
        };
        if row.value.is_none() {
            self.counts.null_value += 1;
        }
        Some((key, row.value.as_ref()?))
    }

    /// The same for a row that needs a time as well: one that is not negative and not beyond [`MAX_TIMESTAMP`].
    pub(super) fn timed<'r>(&mut self, row: &'r Row) -> Option<(Bytes, &'r Bytes)> {
        let keyed = self.keyed(row)?;
        self.has_time(row).then_some(keyed)
    }

    /// Whether [`Context::timed`] has something; nothing is counted.
    pub(crate) fn is_timed(row: &Row) -> bool {
        row.key.is_some() && row.value.is_some() && is_time(row.timestamp)
    }

    /// Whether a row has a time; one that has none is counted.
    pub(super) fn has_time(&mut self, row: &Row) -> bool {
        let has_time = is_time(row.timestamp);
        self.counts.no_time += u64::from(!has_time);
        has_time
    }
}

pub(crate) fn is_time(timestamp: i64) -> bool {
    (0..=MAX_TIMESTAMP).contains(&timestamp)
}

/// A part of a stored value as the value of a row.
pub(super) fn to_bytes(blob: &Blob, from: usize) -> Bytes {
    let value = &blob[from..];
    if value.len() < SHARED_FROM {
        Bytes::copy_from_slice(value)
    } else {
        Bytes::from_owner(Blob::clone(blob)).slice(from..)
    }
}

/// Runs `each` for the rows of a call, and says which of them failed.
pub(super) fn each_row(
    rows: &[Row],
    cx: &mut Context<'_>,
    mut each: impl FnMut(&Row, &mut Context<'_>) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    for (index, row) in rows.iter().enumerate() {
        cx.begin(row);
        each(row, cx).map_err(|error| match error {
            OperatorError::Row(RowError { reason, .. }) => OperatorError::Row(RowError { index, reason }),
            OperatorError::Alone { .. } => OperatorError::Alone { index },
            other => other,
        })?;
    }
    Ok(())
}

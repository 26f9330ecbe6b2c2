//! What can be asked of the stores of a pipeline: rows of tables, results of aggregates, windows. From the views of the
//! stores of its tasks, without an operator.

use std::ops::RangeInclusive;

use crate::batch::NO_TIMESTAMP;
use crate::operator::aggregate::{AggregateSpec, Aggregator, BuiltIn};
use crate::operator::scan::{self, Layout, Part, Scanned, Wanted};
use crate::operator::view::{self, FoundWindow};
use crate::operator::{Closing, OperatorError, Window, WindowKind, WindowSpec, envelope};
use crate::partitioner::PartitionerKind;
use crate::state::{Blob, StateError, StateView, StoreIndex};
use crate::topology::Vertex;

/// Bytes of the rows of a page, at least one row.
const PAGE_BYTES: usize = 4 << 20;
/// Rows of a table's group, in front of its state.
const GROUP_ROWS_BYTES: usize = 8;

/// A store of a pipeline, as it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct StateTable {
    /// The store's name, which is that of its node, or begins with it.
    pub store: String,
    /// What the manifest calls it besides, among all tables.
    pub table: Option<String>,
    /// The sub-topology whose tasks have it: an index in [`Topology::sub_topologies`](crate::Topology::sub_topologies).
    pub sub_topology: usize,
    /// Which of their stores it is.
    pub index: StoreIndex,
    /// The node.
    pub owner: Vertex,
    /// What it holds.
    pub holds: Holds,
    /// How keys were placed into the partitions of the tasks, if that is known.
    pub placement: Option<PartitionerKind>,
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Holds {
    /// The last value of each key.
    Rows,
    /// A result for each key.
    Results(AggregateSpec),
    /// A result for each window of each key.
    Windows {
        /// What is computed.
        spec: AggregateSpec,
        /// Which windows.
        window: WindowSpec,
        /// When they close, and how long they are kept.
        closing: Closing,
    },
    /// What a plugin keeps, as it is.
    Entries,
    /// Nothing that could be asked.
    Internal,
}

impl Holds {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Holds::Rows => "rows",
            Holds::Results(_) => "results",
            Holds::Windows { .. } => "windows",
            Holds::Entries => "entries",
            Holds::Internal => "internal",
        }
    }

    fn spec(&self) -> Option<&AggregateSpec> {
        match self {
            Holds::Results(spec) | Holds::Windows { spec, .. } => Some(spec),
            Holds::Rows | Holds::Entries | Holds::Internal => None,
        }
    }
}

/// A row of a table, or a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// The key.
    pub key: Vec<u8>,
    /// The window that it is the result of.
    pub window: Option<Window>,
    /// The value; none where a result has none.
    pub value: Option<Vec<u8>>,
    /// The time of the latest record in it; -1 where nothing says it.
    pub timestamp: i64,
}

/// Rows in the order of the stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatePage {
    /// The rows.
    pub rows: Vec<StateRow>,
    /// Where the next page goes on ([`Wanted::behind`]), if there may be more.
    pub next: Option<Vec<u8>>,
}

/// Windows of a key, in the order of their starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowRows {
    /// The windows.
    pub rows: Vec<StateRow>,
    /// When the next page begins, if there may be more.
    pub next: Option<i64>,
}

impl WindowRows {
    /// At most `limit` windows of several tasks together. Those that begin at one time stay together, so there may be a few more.
    pub fn together(parts: Vec<WindowRows>, limit: usize) -> WindowRows {
        let start = |row: &StateRow| row.window.map_or(i64::MIN, |window| window.start);
        // Behind this, one of them was not read.
        let mut next = parts.iter().filter_map(|part| part.next).min();
        let mut rows: Vec<StateRow> = parts.into_iter().flat_map(|part| part.rows).collect();
        rows.retain(|row| next.is_none_or(|next| start(row) < next));
        rows.sort_by_key(|row| row.window.map(|window| (window.start, window.end)));
        let last = limit.checked_sub(1).and_then(|last| rows.get(last)).map(start);
        let behind = last.and_then(|last| rows.iter().position(|row| start(row) > last));
        if let Some(end) = behind {
            next = Some(start(&rows[end]));
            rows.truncate(end);
        }
        WindowRows { rows, next }
    }
}

impl StateTable {
    /// The partition whose task has a key, among so many; none if any of them may.
    pub fn partition_of(&self, key: &[u8], partitions: u32) -> Option<i32> {
        // The number of partitions is a Kafka int32.
        self.placement?.partition_of(key, partitions).map(u32::cast_signed)
    }

    /// The row or result of a key. The table has no windows.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&self, view: &dyn StateView, key: &[u8]) -> Result<Option<StateRow>, StateError> {
        if self.holds == Holds::Entries {
            let value = view.get(self.index, key)?;
            let row = |value: Blob| StateRow {
                key: key.to_vec(),
                window: None,
                value: Some(value.to_vec()),
                timestamp: NO_TIMESTAMP,
            };
            return Ok(value.map(row));
        }
        let Some(found) = view::get(view, self.index, key)? else { return Ok(None) };
        let value = self.shown(key, &found.value)?;
        Ok(Some(StateRow { key: key.to_vec(), window: None, value, timestamp: found.timestamp }))
    }

    /// The first `limit` windows of a key that begin within a time, in their order, and from which start on there may be more.
    /// Nothing if the table has none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn windows(
        &self,
        view: &dyn StateView,
        key: &[u8],
        starts: RangeInclusive<i64>,
        limit: usize,
    ) -> Result<WindowRows, StateError> {
        let Holds::Windows { window, closing, .. } = &self.holds else { return Ok(WindowRows::default()) };
        let found = view::windows(view, self.index, (window, closing), key, starts, limit)?;
        let row = |FoundWindow { window, timestamp, state }: FoundWindow| {
            let value = self.shown(key, &state)?;
            Ok(StateRow { key: key.to_vec(), window: Some(window), value, timestamp })
        };
        let rows = found.windows.into_iter().map(row).collect::<Result<_, StateError>>()?;
        Ok(WindowRows { rows, next: found.next })
    }

    /// What one task adds to a page of at most `limit` rows of so many tasks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn part(
        &self,
        view: &dyn StateView,
        wanted: &Wanted,
        limit: usize,
        tasks: usize,
    ) -> Result<Part, StateError> {
        let layout = match &self.holds {
            Holds::Windows { window, closing, .. } => Layout::Windows(window, closing),
            Holds::Rows | Holds::Results(_) => Layout::Keys,
            Holds::Entries => Layout::Entries,
            Holds::Internal => return Ok(Part::default()),
        };
        scan::part(view, self.index, layout, wanted, (limit, PAGE_BYTES / tasks.max(1)))
    }

    /// At most `limit` rows of all tasks together.
    ///
    /// # Errors
    /// What is stored cannot be read.
    pub fn page(&self, parts: Vec<Part>, limit: usize) -> Result<StatePage, StateError> {
        let (entries, next) = together(parts, limit);
        let row = |Scanned { key, window, timestamp, state, .. }: Scanned| {
            let value = self.shown(&key, &state)?;
            Ok(StateRow { key, window, value, timestamp })
        };
        Ok(StatePage { rows: entries.into_iter().map(row).collect::<Result<_, StateError>>()?, next })
    }

    /// Whether each change of the store is one of a row, so that they can be followed: not if the open windows of a key are one
    /// entry.
    pub fn can_be_followed(&self) -> bool {
        match &self.holds {
            Holds::Rows | Holds::Results(_) | Holds::Entries => true,
            Holds::Windows { window, .. } => matches!(window, WindowSpec::Hopping { .. }),
            Holds::Internal => false,
        }
    }

    /// What a change of the store says of a row: its new value, or none if there is no such row any more. None if it is no
    /// change of a row.
    ///
    /// # Errors
    /// What was stored cannot be read.
    pub fn change(&self, key: &[u8], stored: Option<&[u8]>) -> Result<Option<StateRow>, StateError> {
        let unreadable = || view::unreadable(self.index);
        let (key, window) = match &self.holds {
            Holds::Rows | Holds::Results(_) | Holds::Entries => (key, None),
            Holds::Windows { window: WindowSpec::Hopping { size_ms, .. }, .. } => {
                // Other entries are the operator's own.
                let Some((start, key)) = scan::hopping_place(key) else { return Ok(None) };
                (key, Some(Window { kind: WindowKind::Time, start, end: start + size_ms }))
            }
            Holds::Windows { .. } | Holds::Internal => return Ok(None),
        };
        let (timestamp, value) = match stored {
            None => (NO_TIMESTAMP, None),
            Some(stored) if self.holds == Holds::Entries => (NO_TIMESTAMP, Some(stored.to_vec())),
            Some(stored) => {
                let (timestamp, state) = envelope::decode(stored).ok_or_else(unreadable)?;
                (timestamp, self.shown(key, state)?)
            }
        };
        Ok(Some(StateRow { key: key.to_vec(), window, value, timestamp }))
    }

    /// The value of what is stored.
    fn shown(&self, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let Some(spec) = self.holds.spec() else { return Ok(Some(stored.to_vec())) };
        let skipped = if spec.of_table { GROUP_ROWS_BYTES } else { 0 };
        let state = stored.get(skipped..).ok_or_else(|| view::unreadable(self.index))?;
        let mut value = Vec::new();
        let has_value = BuiltIn::new(spec.clone(), None).result(key, state, &mut value);
        let has_value = has_value.map_err(|error| match error {
            OperatorError::State(error) => error,
            OperatorError::Row(_)
            | OperatorError::Plugin(_)
            | OperatorError::Global(_)
            | OperatorError::Alone { .. } => view::unreadable(self.index),
        })?;
        Ok(has_value.then_some(value))
    }
}

/// The first entries of several parts in one order, and up to where they go if there may be more.
fn together(parts: Vec<Part>, limit: usize) -> (Vec<Scanned>, Option<Vec<u8>>) {
    // Behind this, a part that was not read to its end may have entries that were not read.
    let mut next = parts.iter().filter_map(|part| part.up_to.clone()).min();
    let mut entries: Vec<Scanned> = parts.into_iter().flat_map(|part| part.entries).collect();
    entries.retain(|entry| next.as_ref().is_none_or(|up_to| entry.order <= *up_to));
    entries.sort_by(|a, b| a.order.cmp(&b.order));
    if entries.len() > limit {
        // Those of one place stay together: it would be left out of the next page.
        let mut end = limit;
        while end < entries.len() && end > 0 && entries[end].order == entries[end - 1].order {
            end += 1;
        }
        if end < entries.len() {
            entries.truncate(end);
            next = entries.last().map(|entry| entry.order.clone());
        }
    }
    (entries, next)
}

#[cfg(test)]
mod tests;

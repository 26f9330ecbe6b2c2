//! A table grouped by something else than its key, and aggregated: when a row of the table changes, what it was
//! leaves its group and what it is now comes into its own.
//!
//! [`GroupTable`] makes the rows for that, which may go through a repartition topic (`change`); [`AggregateTable`]
//! keeps the groups.
//!
//! Store: the key of the group as it is; the envelope with the highest timestamp of all rows that came or went, how
//! many rows are in the group (8), and the state. A group whose last row has left is deleted.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use pelton_wire::mutant::Mutant;

use super::aggregate::{Aggregator, Group, Item, Plan, Way};
use super::by_key::{Scratch, result_bytes};
use super::context::each_row;
use super::envelope::{self, Stored};
use super::field::{Extractor, Field};
use super::key::{push_escaped, read_u64};
use super::rows::one_field;
use super::table::table_key;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::StoreIndex;

/// Rows of a table become rows of the group that they are in. A row without the field is in no group.
pub struct GroupTable(Extractor);

impl GroupTable {
    /// By this field.
    pub fn new(by: Field) -> GroupTable {
        GroupTable(Extractor::new(vec![by]))
    }

    fn group(
        &self,
        key: &[u8],
        value: Option<&Bytes>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Bytes>, OperatorError> {
        let Some(value) = value else { return Ok(None) };
        let group = one_field(&self.0, Some(key), value)?.key_bytes();
        cx.counts.null_field += u64::from(group.is_none());
        Ok(group.map(Bytes::from))
    }

    fn row(&self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(origin) = table_key(cx, row) else { return Ok(()) };
        let send = |cx: &mut Context<'_>, key: Bytes, was: Option<&Bytes>, value: Option<&Bytes>| {
            let change = Change::Grouped { was: was.cloned(), origin: origin.clone() };
            let (value, window) = (value.cloned(), None);
            cx.emit(RESULTS, Row { key: Some(key), value, window, change, ..row.clone() });
        };
        let (was, value) = (row.change.was(), row.value.as_ref());
        let (old, new) = (self.group(&origin, was, cx)?, self.group(&origin, value, cx)?);
        match (old, new) {
            (Some(old), Some(new)) if old == new => send(cx, new, was, value),
            (old, new) => {
                if let Some(old) = old {
                    send(cx, old, was, None);
                }
                if let Some(new) = new {
                    send(cx, new, None, value);
                }
            }
        }
        Ok(())
    }
}

impl Operator for GroupTable {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| self.row(row, cx))
    }
}

/// See the module.
pub struct AggregateTable {
    store: StoreIndex,
    aggregator: Box<dyn Aggregator>,
    tells_old: bool,
    scratch: Scratch,
    /// The state without what has left.
    without: Vec<u8>,
}

/// A group as it was stored.
struct Before {
    stored: Stored,
    rows: u64,
}

impl Before {
    fn state(&self) -> &[u8] {
        &self.stored.value()[8..]
    }
}

impl AggregateTable {
    /// `tells_old`: results say what was before, for tables downstream.
    pub fn new(store: StoreIndex, aggregator: Box<dyn Aggregator>, tells_old: bool) -> AggregateTable {
        AggregateTable { store, aggregator, tells_old, scratch: Scratch::default(), without: Vec::new() }
    }

    fn before(&self, cx: &mut Context<'_>, key: &[u8]) -> Result<Option<Before>, OperatorError> {
        let Some(blob) = cx.get(self.store, key)? else { return Ok(None) };
        let unreadable = || OperatorError::damaged(self.store, key);
        let stored = Stored::read(blob).ok_or_else(unreadable)?;
        let rows = read_u64(stored.value()).ok_or_else(unreadable)?.0;
        Ok(Some(Before { stored, rows }))
    }

    /// What rows will take out of which groups, and put into them.
    fn plan(&self, rows: &[Row], cx: &mut Context<'_>) -> Result<Plan, OperatorError> {
        let mut plan = Plan::default();
        // Of each group that is there: its place in the plan, and how many rows it has.
        let mut groups = HashMap::<Bytes, Option<(usize, u64)>, RandomState>::default();
        for (index, row) in rows.iter().enumerate() {
            let Some(key) = row.full_key() else { continue };
            let group = match groups.get(&key) {
                Some(group) => *group,
                None => {
                    let before = self.before(cx, &key)?;
                    before.map(|before| (plan.group(Some(before.state())), before.rows))
                }
            };
            let was = row.change.was().filter(|_| group.is_some());
            if was.is_none() && row.value.is_none() {
                continue;
            }
            let (place, before) = group.unwrap_or_else(|| (plan.group(None), 0));
            let mut step = |way, value: &Bytes| {
                plan.step((place, way), index, (key.clone(), value.clone(), row.timestamp));
            };
            if let Some(was) = was.filter(|_| !Mutant::NothingSubtracted.is_on()) {
                step(Way::Out, was);
            }
            let count = before.saturating_sub(u64::from(was.is_some())) + u64::from(row.value.is_some());
            if count > 0
                && let Some(value) = &row.value
            {
                step(Way::In, value);
            }
            // A group that ends begins anew, if it does.
            groups.insert(key, (count > 0).then_some((place, count)));
        }
        Ok(plan)
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = table_key(cx, row) else { return Ok(()) };
        let origin = match &row.change {
            Change::Grouped { origin, .. } => Some(&origin[..]),
            Change::Unknown | Change::Was(_) => None,
        };
        let before = self.before(cx, &key)?;
        // What was not put in is not taken out: the aggregate may be younger than its table.
        let was = row.change.was().filter(|_| before.is_some());
        if was.is_none() && row.value.is_none() {
            return Ok(());
        }
        let Scratch { cell, stored, result } = &mut self.scratch;
        cell.clear();
        if self.aggregator.has_members() {
            push_escaped(cell, &key);
        }
        let rows_before = before.as_ref().map_or(0, |before| before.rows);
        let rows = (rows_before - u64::from(was.is_some()).min(rows_before)) + u64::from(row.value.is_some());
        let timestamp = before.as_ref().map_or(row.timestamp, |b| b.stored.timestamp.max(row.timestamp));
        let item = |value| Item { key: &key, value, timestamp: row.timestamp, origin };
        let mut state = before.as_ref().map(Before::state);
        if let Some(was) = was.filter(|_| !Mutant::NothingSubtracted.is_on()) {
            self.without.clear();
            self.aggregator.subtract(cx, Group { cell, state }, item(was), &mut self.without)?;
            state = Some(&self.without);
        }
        let now = if rows == 0 {
            self.aggregator.forget(cx, cell)?;
            cx.delete(self.store, &key);
            None
        } else {
            envelope::begin(stored, timestamp);
            stored.extend_from_slice(&rows.to_be_bytes());
            match &row.value {
                Some(value) => self.aggregator.add(cx, Group { cell, state }, item(value), stored)?,
                None => stored.extend_from_slice(state.unwrap_or_default()),
            }
            cx.put(self.store, &key, stored);
            let state = &stored[envelope::HEADER + 8..];
            result_bytes(&mut *self.aggregator, &key, state, result)?
        };
        let change = match (self.tells_old, &before) {
            (false, _) => Change::Unknown,
            (true, None) => Change::Was(None),
            (true, Some(before)) => {
                Change::Was(result_bytes(&mut *self.aggregator, &key, before.state(), result)?)
            }
        };
        cx.emit_result(key, None, now, timestamp, change);
        Ok(())
    }
}

impl Operator for AggregateTable {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let keys = rows.iter().filter(|row| row.window.is_none()).filter_map(|row| row.key.as_deref());
        Ok(cx.state.prefetch(self.store, keys)?)
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.aggregator.plans() {
            let plan = self.plan(rows, cx)?;
            self.aggregator.prepare(cx, plan)?;
        }
        each_row(rows, cx, |row, cx| self.row(row, cx))
    }
}

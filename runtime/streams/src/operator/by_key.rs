//! A stream aggregated by key, without windows: each row gives the new result of its key.
//!
//! Store: the key as it is; the envelope with the highest timestamp of the key's rows, and the state.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::aggregate::{Aggregator, Group, Item, Plan, Way};
use super::context::each_row;
use super::envelope::{self, Stored};
use super::key::push_escaped;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::StoreIndex;

/// See the module.
pub struct AggregateByKey {
    store: StoreIndex,
    aggregator: Box<dyn Aggregator>,
    /// Somebody downstream needs what was before.
    tells_old: bool,
    scratch: Scratch,
}

/// Buffers that are used again.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) cell: Vec<u8>,
    pub(super) stored: Vec<u8>,
    pub(super) result: Vec<u8>,
}

impl AggregateByKey {
    /// `tells_old`: results say what was before, for tables downstream.
    pub fn new(store: StoreIndex, aggregator: Box<dyn Aggregator>, tells_old: bool) -> AggregateByKey {
        AggregateByKey { store, aggregator, tells_old, scratch: Scratch::default() }
    }

    /// What rows will be folded into which keys.
    fn plan(&self, rows: &[Row], cx: &mut Context<'_>) -> Result<Plan, OperatorError> {
        let (mut plan, mut groups) = (Plan::default(), HashMap::<Bytes, usize, RandomState>::default());
        for (index, row) in rows.iter().enumerate() {
            let (Some(key), Some(value)) = (row.full_key(), &row.value) else { continue };
            let group = match groups.get(&key) {
                Some(group) => *group,
                None => {
                    let stored = match cx.get(self.store, &key)? {
                        None => None,
                        Some(blob) => {
                            Some(Stored::read(blob).ok_or_else(|| OperatorError::damaged(self.store, &key))?)
                        }
                    };
                    let group = plan.group(stored.as_ref().map(Stored::value));
                    groups.insert(key.clone(), group);
                    group
                }
            };
            plan.step((group, Way::In), index, (key, value.clone(), row.timestamp));
        }
        Ok(plan)
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some((key, value)) = cx.keyed(row) else { return Ok(()) };
        let Scratch { cell, stored, result } = &mut self.scratch;
        let before = match cx.get(self.store, &key)? {
            None => None,
            Some(blob) => Some(Stored::read(blob).ok_or_else(|| OperatorError::damaged(self.store, &key))?),
        };
        if self.aggregator.has_members() {
            cell.clear();
            push_escaped(cell, &key);
        }
        let timestamp = before.as_ref().map_or(row.timestamp, |before| before.timestamp.max(row.timestamp));
        let group = Group { cell, state: before.as_ref().map(Stored::value) };
        let item = Item { key: &key, value, timestamp: row.timestamp, origin: None };
        envelope::begin(stored, timestamp);
        self.aggregator.add(cx, group, item, stored)?;
        cx.put(self.store, &key, stored);
        let change = match (self.tells_old, &before) {
            (false, _) => Change::Unknown,
            (true, None) => Change::Was(None),
            (true, Some(before)) => {
                Change::Was(result_bytes(&mut *self.aggregator, &key, before.value(), result)?)
            }
        };
        let now = result_bytes(&mut *self.aggregator, &key, &stored[envelope::HEADER..], result)?;
        cx.emit_result(key, None, now, timestamp, change);
        Ok(())
    }
}

impl Operator for AggregateByKey {
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

/// The value that readers get for a state.
pub(super) fn result_bytes(
    aggregator: &mut dyn Aggregator,
    key: &[u8],
    state: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Option<Bytes>, OperatorError> {
    scratch.clear();
    let is_some = aggregator.result(key, state, scratch)?;
    Ok(is_some.then(|| Bytes::copy_from_slice(scratch)))
}

//! Tables: the latest value of each key, in the order in which rows come.
//!
//! Store: the key as it is; the envelope with the row's timestamp, and the value.
//!
//! A row that deletes a key which is not there changes nothing, and nothing is emitted. One with the value of before
//! is emitted: its time may be another one.

use bytes::Bytes;

use super::context::each_row;
use super::envelope::{self, Stored};
use super::rows::Predicate;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::StoreIndex;

/// The latest value of each key of a store.
pub(super) struct Latest {
    pub(super) store: StoreIndex,
    scratch: Vec<u8>,
}

impl Latest {
    pub(super) fn new(store: StoreIndex) -> Latest {
        Latest { store, scratch: Vec::new() }
    }

    pub(super) fn get(&self, cx: &mut Context<'_>, key: &[u8]) -> Result<Option<Stored>, OperatorError> {
        match cx.get(self.store, key)? {
            None => Ok(None),
            Some(blob) => Stored::read(blob).map(Some).ok_or_else(|| OperatorError::damaged(self.store, key)),
        }
    }

    pub(super) fn put(&mut self, cx: &mut Context<'_>, key: &[u8], value: &[u8], timestamp: i64) {
        envelope::encode(&mut self.scratch, timestamp, value);
        cx.put(self.store, key, &self.scratch);
    }

    pub(super) fn delete(&self, cx: &mut Context<'_>, key: &[u8]) {
        cx.delete(self.store, key);
    }

    /// Takes a row; what was there before. None if nothing has changed: nothing was there, and nothing is.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
        value: Option<&Bytes>,
        timestamp: i64,
    ) -> Result<Option<Option<Stored>>, OperatorError> {
        let before = self.get(cx, key)?;
        match value {
            Some(value) => self.put(cx, key, value, timestamp),
            None if before.is_none() => return Ok(None),
            None => self.delete(cx, key),
        }
        Ok(Some(before))
    }

    pub(super) fn prefetch(&self, cx: &mut Context<'_>, rows: &[Row]) -> Result<(), OperatorError> {
        let keys = rows.iter().filter(|row| row.window.is_none()).filter_map(|row| row.key.as_deref());
        Ok(cx.state.prefetch(self.store, keys)?)
    }
}

/// The key of a row of a table; a row without one is counted.
pub(super) fn table_key(cx: &mut Context<'_>, row: &Row) -> Option<Bytes> {
    let key = row.full_key();
    cx.counts.null_key += u64::from(key.is_none());
    key
}

/// A table made of the rows of a stream, which say nothing of what was before.
pub struct Table {
    latest: Latest,
    tells_old: bool,
}

impl Table {
    /// `tells_old`: rows say what was before, for tables downstream.
    pub fn new(store: StoreIndex, tells_old: bool) -> Table {
        Table { latest: Latest::new(store), tells_old }
    }
}

impl Operator for Table {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.latest.prefetch(cx, rows)
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let Some(key) = table_key(cx, row) else { return Ok(()) };
            let Some(before) = self.latest.take(cx, &key, row.value.as_ref(), row.timestamp)? else {
                return Ok(());
            };
            let change = if self.tells_old {
                Change::Was(before.as_ref().map(Stored::to_bytes))
            } else {
                Change::Unknown
            };
            cx.emit(RESULTS, Row { key: Some(key), window: None, change, ..row.clone() });
            Ok(())
        })
    }
}

/// Rows of a table that meet a predicate: one that does not any more is deleted. Where nobody says what a row replaces, one that
/// does not is deleted whether or not it was there.
pub struct FilterTable(pub Box<dyn Predicate>);

impl Operator for FilterTable {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let mut pass = |value: Option<&Bytes>| -> Result<Option<Bytes>, OperatorError> {
                let Some(value) = value else { return Ok(None) };
                let is_in = self.0.test(&Row { value: Some(value.clone()), ..row.clone() })?;
                Ok(is_in.then(|| value.clone()))
            };
            let was = pass(row.change.was())?;
            let value = pass(row.value.as_ref())?;
            emit_change(cx, row, was, value);
            Ok(())
        })
    }
}

/// Sends what a row of a table becomes: not if there was nothing, and is nothing.
fn emit_change(cx: &mut Context<'_>, row: &Row, was: Option<Bytes>, value: Option<Bytes>) {
    let is_known = row.change != Change::Unknown;
    if was.is_none() && value.is_none() && is_known {
        return;
    }
    let change = if is_known { Change::Was(was) } else { Change::Unknown };
    cx.emit(RESULTS, Row { value, change, ..row.clone() });
}

/// A function of a value. What was before is made again with it, so it must give the same for the same.
pub trait ValueFunction: Send {
    /// The value that it becomes; none deletes the key.
    ///
    /// # Errors
    /// The row cannot be processed.
    fn call(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<Option<Bytes>, OperatorError>;
}

impl<F: FnMut(Option<&[u8]>, &[u8]) -> Result<Option<Bytes>, OperatorError> + Send> ValueFunction for F {
    fn call(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<Option<Bytes>, OperatorError> {
        self(key, value)
    }
}

/// Rows of a table with other values.
pub struct MapTable(pub Box<dyn ValueFunction>);

impl Operator for MapTable {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let key = row.key.as_deref();
            let mut made = |value: Option<&Bytes>| value.map_or(Ok(None), |value| self.0.call(key, value));
            let was = made(row.change.was())?;
            let value = made(row.value.as_ref())?;
            emit_change(cx, row, was, value);
            Ok(())
        })
    }
}

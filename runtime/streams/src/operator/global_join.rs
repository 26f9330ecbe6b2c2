//! A stream joined with a global table, of which the process has one whole copy: by any field, in any partition, and without
//! a store. The copy is kept fresh beside the stream, so a row finds what the table has at about the moment at which it is
//! processed: the same input read again may find something else. All rows of one call see the table at one moment, as far as
//! whoever reads it can hold their values ([`GlobalTables::load`](super::GlobalTables::load)), and later rows never an
//! earlier one.
//!
//! A row without a value is dropped. One without the field finds nothing, and neither does one whose field is of no key of
//! the table: a left join emits both alone. The result has the key, the time and the headers of the stream's row.

use bytes::Bytes;

use super::context::each_row;
use super::field::{Extractor, Field};
use super::joiner::Joiner;
use super::rows::one_field;
use super::stream_join::joined;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row, RowError};

/// See the module.
pub struct GlobalJoin {
    table: usize,
    by: Extractor,
    /// Rows without a match are emitted.
    is_left: bool,
    joiner: Box<dyn Joiner>,
    scratch: Vec<u8>,
}

impl GlobalJoin {
    /// A join with this table, in which the field `by` of a row is looked up. `is_left`: rows that find nothing are
    /// emitted as well.
    pub fn new(table: usize, by: Field, is_left: bool, joiner: Box<dyn Joiner>) -> GlobalJoin {
        GlobalJoin { table, by: Extractor::new(vec![by]), is_left, joiner, scratch: Vec::new() }
    }

    fn key(&self, row: &Row) -> Result<Option<Bytes>, OperatorError> {
        let Some(value) = &row.value else { return Ok(None) };
        Ok(one_field(&self.by, row.full_key().as_deref(), value)?.key_bytes().map(Bytes::from))
    }

    fn row(&mut self, row: &Row, key: Option<&Bytes>, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(left) = &row.value else {
            cx.counts.null_value += 1;
            return Ok(());
        };
        let found = match key {
            None => {
                cx.counts.null_field += 1;
                None
            }
            Some(key) => {
                let found = cx.tables.get(self.table, key)?;
                cx.counts.unmatched += u64::from(found.is_none());
                found
            }
        };
        if found.is_none() && !self.is_left {
            return Ok(());
        }
        let key = row.full_key();
        let scratch = &mut self.scratch;
        let value = joined(&mut *self.joiner, scratch, key.as_deref(), Some(left), found.as_ref())?;
        cx.emit(RESULTS, Row { value: Some(value), change: Change::Unknown, ..row.clone() });
        Ok(())
    }
}

impl Operator for GlobalJoin {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let mut keys = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            keys.push(self.key(row).map_err(|error| match error {
                OperatorError::Row(RowError { reason, .. }) => OperatorError::Row(RowError { index, reason }),
                other => other,
            })?);
        }
        cx.tables.load(self.table, &mut keys.iter().flatten().map(|key| &**key))?;
        let mut keys = keys.iter();
        each_row(rows, cx, |row, cx| self.row(row, keys.next().and_then(Option::as_ref), cx))
    }
}

//! Two tables joined by their keys: a table again.
//!
//! The join keeps both tables, so what a row finds depends on the rows that came before it. It tells a row's old
//! result from what it keeps, not from what the row says: it may be younger than its tables.
//!
//! Stores: that of left rows and that of right rows, each as that of a table. The time of a result is the later one
//! of the row and what it found. A result that is not there before nor after is not emitted.

use bytes::Bytes;

use super::context::each_row;
use super::envelope::Stored;
use super::joiner::Joiner;
use super::stream_join::{JoinKind, LEFT, joined};
use super::table::{Latest, table_key};
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::StoreIndex;

/// See the module.
pub struct TableJoin {
    sides: [Latest; 2],
    kind: JoinKind,
    joiner: Box<dyn Joiner>,
    tells_old: bool,
    scratch: Vec<u8>,
}

impl TableJoin {
    /// A join of this kind, with its left and its right store. `tells_old`: results say what was before, for tables
    /// downstream.
    pub fn new(
        left: StoreIndex,
        right: StoreIndex,
        kind: JoinKind,
        joiner: Box<dyn Joiner>,
        tells_old: bool,
    ) -> TableJoin {
        let sides = [Latest::new(left), Latest::new(right)];
        TableJoin { sides, kind, joiner, tells_old, scratch: Vec::new() }
    }

    fn row(&mut self, side: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = table_key(cx, row) else { return Ok(()) };
        let Some(before) = self.sides[side].take(cx, &key, row.value.as_ref(), row.timestamp)? else {
            return Ok(());
        };
        let found = self.sides[1 - side].get(cx, &key)?;
        let other = found.as_ref().map(Stored::to_bytes);
        let was = self.result(side, &key, before.map(|stored| stored.to_bytes()).as_ref(), other.as_ref())?;
        let value = self.result(side, &key, row.value.as_ref(), other.as_ref())?;
        if was.is_none() && value.is_none() {
            return Ok(());
        }
        let timestamp = found.map_or(row.timestamp, |found| found.timestamp.max(row.timestamp));
        let change = if self.tells_old { Change::Was(was) } else { Change::Unknown };
        cx.emit_result(key, None, value, timestamp, change);
        Ok(())
    }

    /// The result for a value of one side and the one of the other; none if there is none of them.
    fn result(
        &mut self,
        side: usize,
        key: &[u8],
        value: Option<&Bytes>,
        other: Option<&Bytes>,
    ) -> Result<Option<Bytes>, OperatorError> {
        let (left, right) = if side == LEFT { (value, other) } else { (other, value) };
        let is_there = match self.kind {
            JoinKind::Inner => left.is_some() && right.is_some(),
            JoinKind::Left => left.is_some(),
            JoinKind::Outer => left.is_some() || right.is_some(),
        };
        if !is_there {
            return Ok(None);
        }
        joined(&mut *self.joiner, &mut self.scratch, Some(key), left, right).map(Some)
    }
}

impl Operator for TableJoin {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.sides.iter().try_for_each(|side| side.prefetch(cx, rows))
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| self.row(input, row, cx))
    }
}

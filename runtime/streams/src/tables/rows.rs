//! Reading the rows of stores: one by its key, or many in the order of keys over any number of stores.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use pelton_wire::mutant::Mutant;

use super::{ROW_TAG, STORE};
use crate::operator::envelope;
use crate::state::{KeyRange, StateError, StateView, prefix_end};

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's value.
    pub value: Vec<u8>,
    /// The record's timestamp.
    pub timestamp: i64,
}

/// The rows that are wanted, by the bytes of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowRange {
    /// The first key, inclusive.
    pub from: Vec<u8>,
    /// The end, exclusive.
    pub to: Option<Vec<u8>>,
}

impl RowRange {
    /// Rows from `from` (inclusive) to `to` (exclusive) whose keys begin with `prefix`.
    pub fn new(from: Option<Vec<u8>>, to: Option<Vec<u8>>, prefix: Option<&[u8]>) -> RowRange {
        let mut range = RowRange { from: from.unwrap_or_default(), to };
        if let Some(prefix) = prefix {
            range.from = range.from.max(prefix.to_vec());
            range.to = match (range.to, prefix_end(prefix)) {
                (Some(to), Some(end)) => Some(to.min(end)),
                (to, end) => to.or(end),
            };
        }
        range
    }

    /// The part of it behind a key.
    #[must_use]
    pub fn behind(&self, key: &[u8]) -> RowRange {
        let mut next = key.to_vec();
        next.push(0);
        RowRange { from: self.from.clone().max(next), to: self.to.clone() }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.from[..] && self.to.as_ref().is_none_or(|to| key < &to[..])
    }
}

pub(super) fn row_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(ROW_TAG);
    bytes.extend_from_slice(key);
    bytes
}

fn unreadable() -> StateError {
    StateError::Corrupt("a row has an unknown layout".to_owned())
}

/// The row of a key.
///
/// # Errors
/// The store cannot be read.
pub fn row(view: &dyn StateView, key: &[u8]) -> Result<Option<Row>, StateError> {
    let Some(stored) = view.get(STORE, &row_key(key))? else { return Ok(None) };
    let (timestamp, value) = envelope::decode(&stored).ok_or_else(unreadable)?;
    Ok(Some(Row { key: key.to_vec(), value: value.to_vec(), timestamp }))
}

/// Bytes of rows that a cursor takes from its store at once, at least one row.
const REFILL_BYTES: usize = 64 << 10;
/// Rows that it takes at once.
const REFILL_ROWS: usize = 256;

/// The rows of one store, in order. It holds a few of them, whatever the store has.
pub struct Cursor<'v> {
    view: &'v dyn StateView,
    rest: RowRange,
    taken: VecDeque<Row>,
    ended: bool,
}

impl<'v> Cursor<'v> {
    /// The rows of a range.
    pub fn new(view: &'v dyn StateView, range: RowRange) -> Cursor<'v> {
        Cursor { view, rest: range, taken: VecDeque::new(), ended: false }
    }

    fn peek(&mut self) -> Result<Option<&Row>, StateError> {
        if self.taken.is_empty() && !self.ended {
            self.refill()?;
        }
        Ok(self.taken.front())
    }

    fn refill(&mut self) -> Result<(), StateError> {
        let from = row_key(&self.rest.from);
        let to = self.rest.to.as_ref().map_or_else(|| vec![ROW_TAG + 1], |to| row_key(to));
        let (mut bytes, mut bad, mut full) = (0, false, false);
        let taken = &mut self.taken;
        self.view.range(
            STORE,
            KeyRange { from: &from, to: Some(&to), reverse: false },
            &mut |key, stored| {
                let Some((timestamp, value)) = envelope::decode(stored) else {
                    bad = true;
                    return ControlFlow::Break(());
                };
                let key = key.get(1..).unwrap_or_default().to_vec();
                bytes += key.len() + value.len();
                taken.push_back(Row { key, value: value.to_vec(), timestamp });
                full = bytes >= REFILL_BYTES || taken.len() >= REFILL_ROWS;
                if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
        if bad {
            return Err(unreadable());
        }
        match self.taken.back() {
            Some(last) if full => self.rest = self.rest.behind(&last.key),
            _ => self.ended = true,
        }
        Ok(())
    }
}

/// The rows of several stores in the order of their keys. A key that several stores have (its topic has grown, or its
/// producers placed it differently) has the row with the latest timestamp, of equal ones that of the last store.
pub struct Merged<'v> {
    cursors: Vec<Cursor<'v>>,
}

impl<'v> Merged<'v> {
    /// The rows of all of them.
    pub fn new(cursors: Vec<Cursor<'v>>) -> Merged<'v> {
        Merged { cursors }
    }

    /// The next row, and which of the cursors has it.
    ///
    /// # Errors
    /// A store cannot be read.
    #[expect(clippy::should_implement_trait, reason = "it may fail")]
    pub fn next(&mut self) -> Result<Option<(usize, Row)>, StateError> {
        let mut least: Option<Vec<u8>> = None;
        for cursor in &mut self.cursors {
            if let Some(row) = cursor.peek()?
                && least.as_ref().is_none_or(|least| row.key < *least)
            {
                least = Some(row.key.clone());
            }
        }
        let Some(key) = least else { return Ok(None) };
        let mut best: Option<(usize, Row)> = None;
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            if let Some(row) = cursor.taken.pop_front_if(|row| row.key == key)
                && best
                    .as_ref()
                    .is_none_or(|(_, best)| row.timestamp >= best.timestamp || Mutant::LaterStoreWins.is_on())
            {
                best = Some((index, row));
            }
        }
        Ok(best)
    }
}

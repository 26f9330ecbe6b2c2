//! The members of groups: values that are in a group, with how often each is.
//!
//! Key: the cell, the number of the function (1), the value; value: how often (8).

use super::super::key::{push_u64, read_u64};
use super::super::{Context, OperatorError};
use crate::state::{KeyRange, StoreIndex, prefix_end};

/// Entries that are moved at once.
const CHUNK: usize = 1_024;

/// The members that one function keeps of one group.
pub(super) struct Members<'a> {
    pub(super) store: StoreIndex,
    pub(super) cell: &'a [u8],
    pub(super) part: u8,
}

impl Members<'_> {
    fn key(&self, value: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.cell.len() + 1 + value.len());
        key.extend_from_slice(self.cell);
        key.push(self.part);
        key.extend_from_slice(value);
        key
    }

    fn count(&self, cx: &mut Context<'_>, key: &[u8]) -> Result<u64, OperatorError> {
        match cx.get(self.store, key)? {
            None => Ok(0),
            Some(blob) => Ok(read_u64(&blob).ok_or_else(|| OperatorError::damaged(self.store, key))?.0),
        }
    }

    fn set(&self, cx: &mut Context<'_>, key: &[u8], count: u64) {
        let mut value = Vec::with_capacity(8);
        push_u64(&mut value, count);
        cx.put(self.store, key, &value);
    }

    /// Notes that a value is there; whether it is new. How often it came is not noted.
    pub(super) fn note(&self, cx: &mut Context<'_>, value: &[u8]) -> Result<bool, OperatorError> {
        let key = self.key(value);
        let is_new = self.count(cx, &key)? == 0;
        if is_new {
            self.set(cx, &key, 1);
        }
        Ok(is_new)
    }

    /// A value has come once more; whether it is new.
    pub(super) fn add(&self, cx: &mut Context<'_>, value: &[u8]) -> Result<bool, OperatorError> {
        let key = self.key(value);
        let count = self.count(cx, &key)?;
        self.set(cx, &key, count + 1);
        Ok(count == 0)
    }

    /// A value has gone once; whether it was the last.
    pub(super) fn remove(&self, cx: &mut Context<'_>, value: &[u8]) -> Result<bool, OperatorError> {
        let key = self.key(value);
        match self.count(cx, &key)? {
            // It was never there: the aggregate is younger than its table.
            0 => Ok(false),
            1 => {
                cx.delete(self.store, &key);
                Ok(true)
            }
            count => {
                self.set(cx, &key, count - 1);
                Ok(false)
            }
        }
    }

    /// The first values in order, or the last ones, at most `n`.
    pub(super) fn ends(
        &self,
        cx: &Context<'_>,
        reverse: bool,
        n: usize,
    ) -> Result<Vec<Vec<u8>>, OperatorError> {
        let prefix = self.key(&[]);
        let end = prefix_end(&prefix);
        let range = KeyRange { reverse, ..KeyRange::prefix(&prefix, end.as_deref()) };
        let (entries, _) = cx.scan(self.store, range, n)?;
        Ok(entries.into_iter().map(|(key, _)| key[prefix.len()..].to_vec()).collect())
    }

    /// How many values of another group are not in this one; they are now. The other one's are gone then.
    pub(super) fn take(&self, cx: &mut Context<'_>, other: &Members<'_>) -> Result<u64, OperatorError> {
        let prefix = other.key(&[]);
        let mut new = 0;
        each_below(cx, self.store, &prefix, |cx, key| {
            new += u64::from(self.note(cx, &key[prefix.len()..])?);
            cx.delete(self.store, key);
            Ok(())
        })?;
        Ok(new)
    }
}

/// All members of a group are members of another one as well.
pub(super) fn copy(
    cx: &mut Context<'_>,
    store: StoreIndex,
    from: &[u8],
    to: &[u8],
) -> Result<(), OperatorError> {
    each_below(cx, store, from, |cx, key| {
        let Some(value) = cx.get(store, key)? else { return Ok(()) };
        let copied = [to, &key[from.len()..]].concat();
        cx.put(store, &copied, &value);
        Ok(())
    })
}

/// A group has no members any more.
pub(super) fn forget(cx: &mut Context<'_>, store: StoreIndex, cell: &[u8]) -> Result<(), OperatorError> {
    each_below(cx, store, cell, |cx, key| {
        cx.delete(store, key);
        Ok(())
    })
}

/// Does something with each key that begins with `prefix`, some of them at a time.
fn each_below(
    cx: &mut Context<'_>,
    store: StoreIndex,
    prefix: &[u8],
    mut each: impl FnMut(&mut Context<'_>, &[u8]) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let end = prefix_end(prefix);
    let mut from = prefix.to_vec();
    loop {
        let range = KeyRange { from: &from, to: end.as_deref(), reverse: false };
        let (entries, more) = cx.scan(store, range, CHUNK)?;
        for (key, _) in &entries {
            each(cx, key)?;
        }
        let Some((last, _)) = entries.last().filter(|_| more) else { return Ok(()) };
        // The first key behind it.
        from = [&**last, &[0]].concat();
    }
}

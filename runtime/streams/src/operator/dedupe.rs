//! One row of each key within a time: the first passes, and rows of the key whose time differs from one that passed
//! by less than `within` do not.
//!
//! A row is late when stream time is its time + within + grace: what would tell whether it repeats something may be
//! forgotten from then on, so it does not pass.
//!
//! Of the times that are `within` long and lie side by side from 1970 on, each has at most one row of a key that passed. So a row
//! asks for three entries, however long rows are remembered, and one that passes writes two.
//!
//! ```text
//! 14 key* time / within(8)             version(1) time(8) of the row that passed
//! 15 useless(8) key* time / within(8)  nothing: the stream time from which on the other one is not needed
//! ```

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::context::{each_row, is_time};
use super::field::{Extractor, Field};
use super::key::{push_escaped, push_i64, read_i64, sortable, tag, tagged};
use super::meta::Meta;
use super::windows::{LATE, Late, RESULTS};
use super::{Context, Operator, OperatorError, Row};
use crate::state::{KeyRange, StoreIndex};

const VERSION: u8 = 1;

/// See the module.
pub struct Deduplicate {
    store: StoreIndex,
    by: Option<Extractor>,
    within_ms: i64,
    grace_ms: i64,
    late: Late,
    meta: Meta,
    /// Of the entry that is asked for.
    place: Vec<u8>,
}

impl Deduplicate {
    /// By the rows' keys, or by a field of their values. `within_ms` is at least 1; both lengths are at most
    /// [`MAX_MS`](super::MAX_MS).
    pub fn new(
        store: StoreIndex,
        by: Option<Field>,
        within_ms: i64,
        grace_ms: i64,
        late: Late,
    ) -> Deduplicate {
        let by = by.map(|field| Extractor::new(vec![field]));
        let (meta, place) = (Meta::new(store), Vec::new());
        Deduplicate { store, by, within_ms, grace_ms, late, meta, place }
    }

    /// What must not repeat; none if the row has nothing to tell it by.
    fn key(&self, row: &Row, cx: &mut Context<'_>) -> Result<Option<Bytes>, OperatorError> {
        let Some(by) = &self.by else {
            let key = row.full_key();
            cx.counts.null_key += u64::from(key.is_none());
            return Ok(key);
        };
        let Some(value) = row.value.as_deref() else {
            cx.counts.null_value += 1;
            return Ok(None);
        };
        let found =
            by.extract(row.key.as_deref(), value).map_err(|error| OperatorError::row(error.to_string()))?;
        let key = found[0].key_bytes().map(Bytes::from);
        cx.counts.null_field += u64::from(key.is_none());
        Ok(key)
    }

    fn row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = self.key(row, cx)?.filter(|_| cx.has_time(row)) else { return Ok(()) };
        self.meta.observe(row.timestamp);
        let (time, now) = (row.timestamp, self.meta.stream_time());
        if time + self.within_ms + self.grace_ms <= now {
            cx.counts.late += 1;
            if self.late == Late::Emit {
                cx.emit(LATE, row.clone());
            }
            return Ok(());
        }
        for slot in self.slots(time) {
            push_slot(&mut self.place, &key, slot);
            let passed = self.passed(cx)?;
            if passed.is_some_and(|passed| (time - passed).abs() < self.within_ms) {
                cx.counts.duplicates += 1;
                return Ok(());
            }
        }
        push_slot(&mut self.place, &key, time / self.within_ms);
        let mut entry = [VERSION; 9];
        entry[1..].copy_from_slice(&time.to_be_bytes());
        cx.put(self.store, &self.place, &entry);
        cx.put(self.store, &useless_place(self.useless_at(time), &self.place[1..]), &[]);
        cx.emit(RESULTS, row.clone());
        Ok(())
    }

    /// Those that can have a row in them which this time repeats.
    fn slots(&self, time: i64) -> std::ops::RangeInclusive<i64> {
        let slot = time / self.within_ms;
        slot - 1..=slot + 1
    }

    /// The time of the row in the slot that is asked for.
    fn passed(&self, cx: &mut Context<'_>) -> Result<Option<i64>, OperatorError> {
        let Some(entry) = cx.get(self.store, &self.place)? else { return Ok(None) };
        let time = entry.split_first().filter(|(version, _)| **version == VERSION);
        let time = time.and_then(|(_, time)| <[u8; 8]>::try_from(time).ok());
        let time = time.ok_or_else(|| OperatorError::damaged(self.store, &self.place))?;
        Ok(Some(i64::from_be_bytes(time)))
    }

    /// The stream time from which on no row that is not late can repeat the one that passed at this time.
    fn useless_at(&self, time: i64) -> i64 {
        let lengths = if Mutant::RepeatForgotten.is_on() { 1 } else { 2 };
        time + lengths * self.within_ms + self.grace_ms
    }
}

impl Operator for Deduplicate {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.by.is_some() {
            return Ok(());
        }
        let (mut places, mut place) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|row| row.window.is_none() && is_time(row.timestamp)) {
            let Some(key) = row.key.as_deref() else { continue };
            for slot in self.slots(row.timestamp) {
                push_slot(&mut place, key, slot);
                places.push(place.clone());
            }
        }
        Ok(cx.state.prefetch(self.store, places.iter().map(Vec::as_slice))?)
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        each_row(rows, cx, |row, cx| self.row(row, cx))?;
        self.meta.save(cx);
        Ok(())
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        let (first, end) = (self.meta.cleaned(0), self.meta.stream_time() + 1);
        // A row that passes is needed for longer than it is until now.
        if first >= end {
            return Ok(false);
        }
        let (from, to) = (useless_place(first, &[]), useless_place(end, &[]));
        let range = KeyRange { from: &from, to: Some(&to), reverse: false };
        let (entries, more) = cx.scan(self.store, range, budget)?;
        let mut cleaned = end;
        for (entry, _) in &entries {
            let (at, place) =
                read_i64(&entry[1..]).ok_or_else(|| OperatorError::damaged(self.store, entry))?;
            cx.delete(self.store, &[&[tag::SEEN][..], place].concat());
            cx.delete(self.store, entry);
            if more {
                cleaned = at;
            }
        }
        if !entries.is_empty() {
            self.meta.set_cleaned(0, cleaned);
            self.meta.save(cx);
        }
        Ok(more)
    }

    fn reset(&mut self) {
        self.meta.reset();
    }
}

fn push_slot(out: &mut Vec<u8>, key: &[u8], slot: i64) {
    tagged(out, tag::SEEN);
    push_escaped(out, key);
    push_i64(out, slot);
}

fn useless_place(at: i64, slot: &[u8]) -> Vec<u8> {
    [&[tag::SEEN_UNTIL][..], &sortable(at), slot].concat()
}

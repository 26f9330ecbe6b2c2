//! One row of each key within a time: the first passes, and rows of the key whose time differs from one that passed
//! by less than `within` do not.
//!
//! A row is late when stream time is its time + within + grace: what would tell whether it repeats something may be
//! forgotten from then on, so it does not pass.
//!
//! Store: what is alive of a key is the times of its rows that passed, in their order, 8 bytes each (`live`).

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::context::each_row;
use super::field::{Extractor, Field};
use super::live::{self, Due, Live, push_live};
use super::meta::Meta;
use super::windows::{LATE, Late, RESULTS};
use super::{Context, Operator, OperatorError, Row};
use crate::state::StoreIndex;

/// See the module.
pub struct Deduplicate {
    store: StoreIndex,
    by: Option<Extractor>,
    within_ms: i64,
    grace_ms: i64,
    late: Late,
    meta: Meta,
    due: Due,
    place: Vec<u8>,
    entry: Vec<u8>,
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
        let (meta, due) = (Meta::new(store), Due::new(store));
        let (place, entry) = (Vec::new(), Vec::new());
        Deduplicate { store, by, within_ms, grace_ms, late, meta, due, place, entry }
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
        push_live(&mut self.place, &key);
        let live = Live::read(cx, self.store, &self.place)?;
        let passed = self.passed(&live)?;
        let place = passed.partition_point(|other| *other <= time);
        let near = |other: Option<&i64>| other.is_some_and(|other| (time - other).abs() < self.within_ms);
        if near(passed.get(place)) || near(place.checked_sub(1).and_then(|before| passed.get(before))) {
            cx.counts.duplicates += 1;
            return Ok(());
        }
        let useless = passed[..place].partition_point(|time| self.useless_at(*time) <= now);
        let behind = &passed[place..];
        Live::begin(&mut self.entry);
        for time in passed[useless..place].iter().chain([&time]).chain(behind) {
            self.entry.extend_from_slice(&time.to_be_bytes());
        }
        let useless_at = self.useless_at(behind.last().copied().unwrap_or(time));
        live.write(cx, &mut self.due, &self.place, &mut self.entry, useless_at);
        cx.emit(RESULTS, row.clone());
        Ok(())
    }

    fn passed(&self, live: &Live) -> Result<Vec<i64>, OperatorError> {
        let (times, rest) = live.body().as_chunks::<8>();
        if !rest.is_empty() {
            return Err(OperatorError::damaged(self.store, &self.place));
        }
        Ok(times.iter().map(|time| i64::from_be_bytes(*time)).collect())
    }

    /// The stream time from which on no row that is not late can repeat the one that passed at this time.
    fn useless_at(&self, time: i64) -> i64 {
        let lengths = if Mutant::RepeatForgotten.is_on() { 1 } else { 2 };
        time + lengths * self.within_ms + self.grace_ms
    }
}

impl Operator for Deduplicate {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.by.is_some() { Ok(()) } else { live::prefetch(cx, self.store, rows) }
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        each_row(rows, cx, |row, cx| self.row(row, cx))?;
        self.meta.save(cx);
        Ok(())
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        let now = self.meta.stream_time();
        let keys = self.due.keys(cx, now, budget)?;
        for key in &keys {
            push_live(&mut self.place, key);
            let live = Live::read(cx, self.store, &self.place)?;
            match self.passed(&live)?.last() {
                Some(last) if self.useless_at(*last) > now => {
                    let useless_at = self.useless_at(*last);
                    self.entry.clear();
                    Live::begin(&mut self.entry);
                    self.entry.extend_from_slice(live.body());
                    live.write_at(cx, &mut self.due, &self.place, &mut self.entry, useless_at);
                }
                _ => live.remove(cx, &mut self.due, &self.place),
            }
        }
        Ok(keys.len() == budget)
    }

    fn reset(&mut self) {
        self.meta.reset();
        self.due.reset();
    }
}

//! Versioned tables: what the value of a key was at a time, as far back as `history`.
//!
//! Versions are in the order of their timestamps, whatever the order in which they come. One that is older than the
//! latest changes what a join finds for that time, and nothing downstream. One that is older than the history goes
//! nowhere: it is late.
//!
//! Two stores. *Latest*: as that of a table, so that readers find it. *History*, ordered:
//!
//! ```text
//! 00                               the stream time of the table
//! 08 key* ~time(8)                 1 and the value, or 0 for "deleted": versions that are not the latest
//! 09 until(8) key* ~time(8)        when a version was replaced, or the latest one deleted the key
//! 0e key                           time(8) of a latest version that deleted the key
//! ```

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::context::{each_row, to_bytes};
use super::envelope::Stored;
use super::key::{
    push_escaped, push_i64, push_i64_descending, read_escaped, read_i64, read_i64_descending, tag, tagged,
};
use super::meta::Meta;
use super::table::{Latest, table_key};
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::{Blob, KeyRange, StoreIndex, prefix_end};

/// What a row has done to a versioned table.
pub(super) enum Taken {
    /// It is the latest now; this was before.
    Latest(Option<Bytes>),
    /// It is an older one, or nothing has changed.
    Nothing,
}

/// The versions of each key.
pub(super) struct Versions {
    latest: Latest,
    history: StoreIndex,
    history_ms: i64,
    meta: Meta,
    place: Vec<u8>,
}

impl Versions {
    pub(super) fn new(latest: StoreIndex, history: StoreIndex, history_ms: i64) -> Versions {
        let (latest, meta) = (Latest::new(latest), Meta::new(history));
        Versions { latest, history, history_ms, meta, place: Vec::new() }
    }

    pub(super) fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)
    }

    pub(super) fn save(&mut self, cx: &mut Context<'_>) {
        self.meta.save(cx);
    }

    pub(super) fn reset(&mut self) {
        self.meta.reset();
    }

    pub(super) fn prefetch(&self, cx: &mut Context<'_>, rows: &[Row]) -> Result<(), OperatorError> {
        self.latest.prefetch(cx, rows)
    }

    /// The time of the latest version, and its value if it has one.
    fn latest(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
    ) -> Result<Option<(i64, Option<Stored>)>, OperatorError> {
        if let Some(stored) = self.latest.get(cx, key)? {
            return Ok(Some((stored.timestamp, Some(stored))));
        }
        push_gone(&mut self.place, key);
        let Some(gone) = cx.get(self.history, &self.place)? else { return Ok(None) };
        let time = gone.first_chunk().ok_or_else(|| OperatorError::damaged(self.history, &self.place))?;
        Ok(Some((i64::from_be_bytes(*time), None)))
    }

    /// Takes a row.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
        value: Option<&Bytes>,
        time: i64,
    ) -> Result<Taken, OperatorError> {
        self.meta.observe(time);
        if time + self.history_ms < self.meta.stream_time() {
            cx.counts.late += 1;
            return Ok(Taken::Nothing);
        }
        let (before_time, before) = match self.latest(cx, key)? {
            Some((latest, _)) if latest > time => {
                cx.counts.out_of_order += 1;
                self.insert(cx, key, value, time, latest)?;
                return Ok(if Mutant::OlderVersionForwarded.is_on() {
                    Taken::Latest(None)
                } else {
                    Taken::Nothing
                });
            }
            Some((latest, before)) => (Some(latest), before),
            None => (None, None),
        };
        if let Some(before_time) = before_time.filter(|before| *before < time) {
            let value = before.as_ref().map(Stored::value);
            self.put_version(cx, key, value, before_time);
            self.put_until(cx, time, key, before_time);
        }
        push_gone(&mut self.place, key);
        match value {
            Some(value) => {
                if before.is_none() && before_time.is_some() {
                    cx.delete(self.history, &self.place);
                }
                self.latest.put(cx, key, value, time);
            }
            None => {
                if before.is_some() {
                    self.latest.delete(cx, key);
                }
                cx.put(self.history, &self.place, &time.to_be_bytes());
                self.put_until(cx, time, key, time);
            }
        }
        Ok(match (&before, value) {
            (None, None) => Taken::Nothing,
            _ => Taken::Latest(before.as_ref().map(Stored::to_bytes)),
        })
    }

    /// A version that is not the latest: until the next one after it.
    fn insert(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
        value: Option<&Bytes>,
        time: i64,
        latest: i64,
    ) -> Result<(), OperatorError> {
        let (prefix, place) = (version_prefix(key), version_place(key, time));
        let range = KeyRange { from: &prefix, to: Some(&place), reverse: true };
        let (next, _) = cx.scan(self.history, range, 1)?;
        let until = match next.first() {
            None => latest,
            Some((next, _)) => {
                version_time(next).ok_or_else(|| OperatorError::damaged(self.history, next))?
            }
        };
        self.put_version(cx, key, value.map(|value| &value[..]), time);
        self.put_until(cx, until, key, time);
        Ok(())
    }

    fn put_version(&self, cx: &mut Context<'_>, key: &[u8], value: Option<&[u8]>, time: i64) {
        let stored = value.map_or_else(|| vec![0], |value| [&[1], value].concat());
        cx.put(self.history, &version_place(key, time), &stored);
    }

    fn put_until(&self, cx: &mut Context<'_>, until: i64, key: &[u8], time: i64) {
        let mut place = vec![tag::UNTIL];
        push_i64(&mut place, until);
        push_escaped(&mut place, key);
        push_i64_descending(&mut place, time);
        cx.put(self.history, &place, &[]);
    }

    /// The value that a key had at a time. Before the history there is only what still is: a version that is the latest
    /// is known for as long as nothing comes after it.
    pub(super) fn as_of(
        &mut self,
        cx: &mut Context<'_>,
        key: &[u8],
        time: i64,
    ) -> Result<Option<Bytes>, OperatorError> {
        // A key without a latest version has been deleted for longer than the history.
        let Some((latest, stored)) = self.latest(cx, key)? else { return Ok(None) };
        if latest <= time {
            return Ok(stored.map(|stored| stored.to_bytes()));
        }
        if time + self.history_ms < self.meta.stream_time() {
            return Ok(None);
        }
        let from = version_place(key, time);
        let end = prefix_end(&version_prefix(key));
        let range = KeyRange { from: &from, to: end.as_deref(), reverse: false };
        let (found, _) = cx.scan(self.history, range, 1)?;
        Ok(match found.first() {
            Some((_, stored)) if stored.first() == Some(&1) => Some(to_bytes(&Blob::from(&**stored), 1)),
            _ => None,
        })
    }

    /// Forgets up to `budget` versions that nobody can ask for any more; whether there may be more.
    pub(super) fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.meta.load(cx)?;
        let mut end = vec![tag::UNTIL];
        // Those that were replaced by then.
        push_i64(&mut end, self.meta.stream_time() - self.history_ms + 1);
        let range = KeyRange { from: &[tag::UNTIL], to: Some(&end), reverse: false };
        let (entries, more) = cx.scan(self.history, range, budget)?;
        for (entry, _) in &entries {
            let unreadable = || OperatorError::damaged(self.history, entry);
            let (until, rest) = read_i64(&entry[1..]).ok_or_else(unreadable)?;
            let (key, rest) = read_escaped(rest).ok_or_else(unreadable)?;
            let (time, _) = read_i64_descending(rest).ok_or_else(unreadable)?;
            if until == time {
                push_gone(&mut self.place, &key);
                if cx.get(self.history, &self.place)?.as_deref() == Some(&time.to_be_bytes()) {
                    cx.delete(self.history, &self.place);
                }
            } else {
                cx.delete(self.history, &version_place(&key, time));
            }
            cx.delete(self.history, entry);
        }
        Ok(more)
    }
}

fn push_gone(place: &mut Vec<u8>, key: &[u8]) {
    tagged(place, tag::GONE);
    place.extend_from_slice(key);
}

fn version_prefix(key: &[u8]) -> Vec<u8> {
    let mut place = vec![tag::VERSION];
    push_escaped(&mut place, key);
    place
}

fn version_place(key: &[u8], time: i64) -> Vec<u8> {
    let mut place = version_prefix(key);
    push_i64_descending(&mut place, time);
    place
}

fn version_time(place: &[u8]) -> Option<i64> {
    Some(read_i64_descending(read_escaped(&place[1..])?.1)?.0)
}

/// A versioned table made of the rows of a stream. Only its latest versions go downstream.
pub struct VersionedTable {
    versions: Versions,
    tells_old: bool,
}

impl VersionedTable {
    /// The store of latest versions, that of the history, and how far back it goes (at most [`MAX_MS`](super::MAX_MS)).
    /// `tells_old`: rows say what was before, for tables downstream.
    pub fn new(latest: StoreIndex, history: StoreIndex, history_ms: i64, tells_old: bool) -> VersionedTable {
        VersionedTable { versions: Versions::new(latest, history, history_ms), tells_old }
    }
}

impl Operator for VersionedTable {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.versions.prefetch(cx, rows)
    }

    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.versions.load(cx)?;
        each_row(rows, cx, |row, cx| {
            let Some(key) = table_key(cx, row).filter(|_| cx.has_time(row)) else { return Ok(()) };
            let taken = self.versions.take(cx, &key, row.value.as_ref(), row.timestamp)?;
            if let Taken::Latest(was) = taken {
                let change = if self.tells_old { Change::Was(was) } else { Change::Unknown };
                cx.emit(RESULTS, Row { key: Some(key), window: None, change, ..row.clone() });
            }
            Ok(())
        })?;
        self.versions.save(cx);
        Ok(())
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        self.versions.maintain(cx, budget)
    }

    fn reset(&mut self) {
        self.versions.reset();
    }
}

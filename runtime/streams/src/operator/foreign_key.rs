//! Two tables joined by a field of the left one, which is the key of the right one (the *foreign key*). The halves
//! are in different places: the left half where left rows are, the right half where the right table has the foreign
//! key, and two repartition topics go between them.
//!
//! ```text
//! left rows -> [ left half ] -- subscriptions, by foreign key --> [ right half ] <- right rows
//!                  |    ^------------ answers, by left key -------------'
//!                  '-> results
//! ```
//!
//! A left row subscribes at its foreign key with a number that it has alone. Every answer carries the number of the
//! subscription it is for; an answer to one that was replaced in the meantime says nothing, and is counted as stale.
//! (Kafka Streams compares a hash of the left value instead, so two left rows of the same value accept each other's
//! answers.) What the left half can know by itself is a result at once: a deleted row, a row without a foreign key.
//!
//! The left half keeps the results, so it knows what was before, and a result that is not there before nor after is
//! not emitted. The time of a result is the later one of its two rows.
//!
//! ```text
//! subscription (key: the foreign key)    version(1) kind(1) number(8) left key
//! answer (key: the left key)             version(1) kind(1) number(8) time(8) right value
//! left store                             00: the last number; 0f left key: envelope, number(8) left value
//! result store (key: the left key)       envelope, result
//! right store                            as that of a table
//! subscription store, ordered            0b foreign key* left key: number(8)
//! ```

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::context::each_row;
use super::envelope::{self, Stored};
use super::field::{Extractor, Field};
use super::joiner::Joiner;
use super::key::{push_escaped, push_u64, read_u64, tag, tagged};
use super::live;
use super::meta::Meta;
use super::rows::one_field;
use super::stream_join::joined;
use super::table::{Latest, table_key};
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row, RowHeaders};
use crate::state::{KeyRange, StoreIndex, prefix_end};

const VERSION: u8 = 1;
/// Subscribers that are read at once when a right row changes.
const CHUNK: usize = 1_024;

/// Output of the left half: subscriptions for the topic by foreign key.
pub const SUBSCRIPTIONS: usize = 1;
/// Input of the left half: left rows.
pub const LEFT_ROWS: usize = 0;
/// Input of the left half: answers.
pub const ANSWERS: usize = 1;
/// Input of the right half: subscriptions.
pub const SUBSCRIBERS: usize = 0;
/// Input of the right half: right rows.
pub const RIGHT_ROWS: usize = 1;

/// What a subscription asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Ask {
    /// Tell of the right row, if there is one, and of each change.
    IfThere = 1,
    /// The same, and tell as well that there is none.
    Always = 2,
    /// No more.
    No = 3,
}

impl Ask {
    fn read(byte: u8) -> Option<Ask> {
        [Ask::IfThere, Ask::Always, Ask::No].into_iter().find(|ask| *ask as u8 == byte)
    }
}

/// Whether an answer has a value.
mod answer {
    pub(super) const VALUE: u8 = 1;
    pub(super) const NONE: u8 = 2;
}

/// The half where left rows are. See the module.
pub struct ForeignKeyLeft {
    left: StoreIndex,
    meta: Meta,
    results: Latest,
    by: Extractor,
    /// Left rows without a right one have a result.
    is_left: bool,
    joiner: Box<dyn Joiner>,
    tells_old: bool,
    place: Vec<u8>,
    scratch: Vec<u8>,
}

/// A left row that was stored.
struct LeftRow {
    stored: Stored,
    number: u64,
}

impl LeftRow {
    fn value(&self) -> &[u8] {
        &self.stored.value()[8..]
    }
}

impl ForeignKeyLeft {
    /// The store of left rows, that of results, and the field of a left value that is the key of the right table.
    /// `is_left`: left rows without a right one have a result. `tells_old`: results say what was before, for tables
    /// downstream.
    pub fn new(
        left: StoreIndex,
        results: StoreIndex,
        by: Field,
        is_left: bool,
        joiner: Box<dyn Joiner>,
        tells_old: bool,
    ) -> ForeignKeyLeft {
        let (results, by, meta) = (Latest::new(results), Extractor::new(vec![by]), Meta::new(left));
        let (place, scratch) = (Vec::new(), Vec::new());
        ForeignKeyLeft { left, meta, results, by, is_left, joiner, tells_old, place, scratch }
    }

    /// The left row of a key; `place` is where it is then.
    fn stored(&mut self, cx: &mut Context<'_>, key: &[u8]) -> Result<Option<LeftRow>, OperatorError> {
        tagged(&mut self.place, tag::LEFT_ROW);
        self.place.extend_from_slice(key);
        let Some(blob) = cx.get(self.left, &self.place)? else { return Ok(None) };
        let unreadable = || OperatorError::damaged(self.left, &self.place);
        let stored = Stored::read(blob).ok_or_else(unreadable)?;
        let number = read_u64(stored.value()).ok_or_else(unreadable)?.0;
        Ok(Some(LeftRow { stored, number }))
    }

    fn foreign_key(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<Bytes>, OperatorError> {
        let Some(value) = value else { return Ok(None) };
        Ok(one_field(&self.by, Some(key), value)?.key_bytes().map(Bytes::from))
    }

    fn left_row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = table_key(cx, row) else { return Ok(()) };
        let before = self.stored(cx, &key)?;
        let old = self.foreign_key(&key, before.as_ref().map(LeftRow::value))?;
        let new = self.foreign_key(&key, row.value.as_deref())?;
        let number = self.meta.next();
        match &row.value {
            Some(value) => {
                envelope::begin(&mut self.scratch, row.timestamp);
                push_u64(&mut self.scratch, number);
                self.scratch.extend_from_slice(value);
                cx.put(self.left, &self.place, &self.scratch);
            }
            None if before.is_none() => return Ok(()),
            None => cx.delete(self.left, &self.place),
        }
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            send(cx, old, &key, Ask::No, number, row.timestamp);
        }
        let Some(new) = new else {
            cx.counts.null_field += u64::from(row.value.is_some());
            let left = row.value.as_ref().filter(|_| self.is_left);
            return self.result(key, left, None, row.timestamp, cx);
        };
        let always = self.is_left || self.results.get(cx, &key)?.is_some();
        send(cx, new, &key, if always { Ask::Always } else { Ask::IfThere }, number, row.timestamp);
        Ok(())
    }

    fn answer(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = table_key(cx, row) else { return Ok(()) };
        let malformed = || OperatorError::row("it is no answer of a foreign-key join".to_owned());
        let value = row.value.as_ref().ok_or_else(malformed)?;
        let (has_value, number, time, right) = read_answer(value).ok_or_else(malformed)?;
        let Some(left) =
            self.stored(cx, &key)?.filter(|left| left.number == number || Mutant::StaleAnswerTaken.is_on())
        else {
            cx.counts.stale += 1;
            return Ok(());
        };
        let right = has_value.then(|| value.slice_ref(right));
        let left_value = Bytes::copy_from_slice(left.value());
        let is_there = right.is_some() || self.is_left;
        let timestamp = left.stored.timestamp.max(time);
        self.result(key, is_there.then_some(&left_value), right.as_ref(), timestamp, cx)
    }

    /// The result of a key is that of these values now; none without a left one.
    fn result(
        &mut self,
        key: Bytes,
        left: Option<&Bytes>,
        right: Option<&Bytes>,
        timestamp: i64,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError> {
        let value = match left {
            None => None,
            Some(_) => Some(joined(&mut *self.joiner, &mut self.scratch, Some(&key), left, right)?),
        };
        let Some(before) = self.results.take(cx, &key, value.as_ref(), timestamp)? else { return Ok(()) };
        let change =
            if self.tells_old { Change::Was(before.as_ref().map(Stored::to_bytes)) } else { Change::Unknown };
        cx.emit_result(key, None, value, timestamp, change);
        Ok(())
    }
}

impl Operator for ForeignKeyLeft {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.results.prefetch(cx, rows)?;
        live::prefetch_tagged(cx, self.left, tag::LEFT_ROW, rows)
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.meta.load(cx)?;
        each_row(
            rows,
            cx,
            |row, cx| {
                if input == LEFT_ROWS { self.left_row(row, cx) } else { self.answer(row, cx) }
            },
        )?;
        self.meta.save(cx);
        Ok(())
    }

    fn reset(&mut self) {
        self.meta.reset();
    }
}

/// The half where the right table is. See the module.
pub struct ForeignKeyRight {
    right: Latest,
    subscriptions: StoreIndex,
}

impl ForeignKeyRight {
    /// The store of right rows and that of subscriptions.
    pub fn new(right: StoreIndex, subscriptions: StoreIndex) -> ForeignKeyRight {
        ForeignKeyRight { right: Latest::new(right), subscriptions }
    }

    fn subscriber(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(foreign_key) = table_key(cx, row) else { return Ok(()) };
        let malformed = || OperatorError::row("it is no subscription of a foreign-key join".to_owned());
        let value = row.value.as_ref().ok_or_else(malformed)?;
        let (ask, number, left_key) = read_subscription(value).ok_or_else(malformed)?;
        let place = [&subscribers_of(&foreign_key)[..], left_key].concat();
        if ask == Ask::No {
            cx.delete(self.subscriptions, &place);
            return Ok(());
        }
        cx.put(self.subscriptions, &place, &number.to_be_bytes());
        let found = self.right.get(cx, &foreign_key)?;
        if found.is_some() || ask == Ask::Always {
            // Without a right row there is no time but the left row's.
            let time = found.as_ref().map_or(row.timestamp, |found| found.timestamp);
            answer(cx, value.slice_ref(left_key), number, found.as_ref().map(Stored::value), time);
        }
        Ok(())
    }

    fn right_row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(foreign_key) = table_key(cx, row) else { return Ok(()) };
        if self.right.take(cx, &foreign_key, row.value.as_ref(), row.timestamp)?.is_none() {
            return Ok(());
        }
        let prefix = subscribers_of(&foreign_key);
        let end = prefix_end(&prefix);
        let mut from = prefix.clone();
        loop {
            let range = KeyRange { from: &from, to: end.as_deref(), reverse: false };
            let (entries, more) = cx.scan(self.subscriptions, range, CHUNK)?;
            for (place, number) in &entries {
                let number =
                    read_u64(number).ok_or_else(|| OperatorError::damaged(self.subscriptions, place))?.0;
                let left_key = Bytes::copy_from_slice(&place[prefix.len()..]);
                answer(cx, left_key, number, row.value.as_deref(), row.timestamp);
            }
            let Some((last, _)) = entries.last().filter(|_| more) else { return Ok(()) };
            from = [&**last, &[0]].concat();
        }
    }
}

impl Operator for ForeignKeyRight {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        self.right.prefetch(cx, rows)
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            if input == SUBSCRIBERS { self.subscriber(row, cx) } else { self.right_row(row, cx) }
        })
    }
}

fn send(cx: &mut Context<'_>, foreign_key: Bytes, left_key: &[u8], ask: Ask, number: u64, timestamp: i64) {
    let mut value = Vec::with_capacity(10 + left_key.len());
    value.extend_from_slice(&[VERSION, ask as u8]);
    value.extend_from_slice(&number.to_be_bytes());
    value.extend_from_slice(left_key);
    emit_message(cx, SUBSCRIPTIONS, foreign_key, value, timestamp);
}

fn read_subscription(value: &[u8]) -> Option<(Ask, u64, &[u8])> {
    let (&[VERSION, ask], rest) = value.split_first_chunk::<2>()? else { return None };
    let (number, left_key) = read_u64(rest)?;
    Some((Ask::read(ask)?, number, left_key))
}

fn answer(cx: &mut Context<'_>, left_key: Bytes, number: u64, right: Option<&[u8]>, time: i64) {
    let mut value = Vec::with_capacity(18 + right.map_or(0, <[u8]>::len));
    value.extend_from_slice(&[VERSION, if right.is_some() { answer::VALUE } else { answer::NONE }]);
    value.extend_from_slice(&number.to_be_bytes());
    value.extend_from_slice(&time.to_be_bytes());
    value.extend_from_slice(right.unwrap_or_default());
    emit_message(cx, RESULTS, left_key, value, time);
}

fn read_answer(value: &[u8]) -> Option<(bool, u64, i64, &[u8])> {
    let (&[VERSION, kind], rest) = value.split_first_chunk::<2>()? else { return None };
    let (number, rest) = read_u64(rest)?;
    let (time, right) = rest.split_first_chunk::<8>()?;
    let has_value = match kind {
        answer::VALUE => true,
        answer::NONE => false,
        _ => return None,
    };
    Some((has_value, number, i64::from_be_bytes(*time), right))
}

fn emit_message(cx: &mut Context<'_>, output: usize, key: Bytes, value: Vec<u8>, timestamp: i64) {
    let (headers, change) = (RowHeaders::default(), Change::Unknown);
    let value = Some(value.into());
    cx.emit(output, Row { sequence: 0, key: Some(key), value, timestamp, headers, window: None, change });
}

fn subscribers_of(foreign_key: &[u8]) -> Vec<u8> {
    let mut place = vec![tag::SUBSCRIPTION];
    push_escaped(&mut place, foreign_key);
    place
}

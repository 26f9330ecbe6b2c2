//! A stream joined with a table: each row of the stream with what its key has in the table when it comes.
//!
//! The join keeps a copy of the table, made of the table's rows as its second input: so what a row finds depends on
//! the rows that came before it, and not on how far another operator is. A *versioned* table is asked for what was at
//! the row's time; with a grace, a row waits until stream time is its time + grace, so that rows of the table that
//! come late are found. The stream time that counts there is that of the stream. Global tables are joined by
//! [`GlobalJoin`](super::GlobalJoin).
//!
//! The result has the key, the time and the headers of the stream's row.

use bytes::Bytes;

use super::backlog::{self, Backlog, CLOSED_BYTES_AT_ONCE, Paced};
use super::context::{each_row, is_time};
use super::joiner::Joiner;
use super::key::{push_i64, push_u64, read_i64, tag};
use super::meta::Meta;
use super::stored_row;
use super::stream_join::joined;
use super::table::{Latest, table_key};
use super::versioned::Versions;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};
use crate::state::{Blob, KeyRange, StoreIndex};

/// Rows that are read at once when they need not wait any longer.
const CHUNK: usize = 1_024;

/// The input for rows of the stream.
pub const STREAM: usize = 0;
/// The input for rows of the table.
pub const TABLE: usize = 1;

/// Where the values of the table are.
pub enum JoinedTable {
    /// In this store: the latest of each key.
    Latest(StoreIndex),
    /// In two stores, with their history.
    Versioned {
        /// The latest of each key.
        latest: StoreIndex,
        /// What was before; an ordered one.
        history: StoreIndex,
        /// How far back.
        history_ms: i64,
    },
}

enum Source {
    Latest(Latest),
    Versioned(Versions),
}

/// Rows wait before they are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Where they wait; an ordered store.
    pub store: StoreIndex,
    /// How long, in stream time: 0 to [`MAX_MS`](super::MAX_MS).
    pub grace_ms: i64,
}

/// See the module.
pub struct StreamTableJoin {
    source: Source,
    /// Rows without a match are emitted.
    is_left: bool,
    joiner: Box<dyn Joiner>,
    waiting: Option<Waiting>,
    scratch: Vec<u8>,
}

/// Rows that wait: `0a time(8) n(8)`, with key, value and headers.
struct Waiting {
    store: StoreIndex,
    grace_ms: i64,
    meta: Meta,
    backlog: Backlog,
    /// No row that waits is earlier; none if that is not known.
    first: Option<i64>,
}

impl StreamTableJoin {
    /// A join with this table. `is_left`: rows that find nothing are emitted as well.
    pub fn new(
        table: JoinedTable,
        is_left: bool,
        joiner: Box<dyn Joiner>,
        wait: Option<Wait>,
    ) -> StreamTableJoin {
        let source = match table {
            JoinedTable::Latest(store) => Source::Latest(Latest::new(store)),
            JoinedTable::Versioned { latest, history, history_ms } => {
                Source::Versioned(Versions::new(latest, history, history_ms))
            }
        };
        let waiting = wait.map(|Wait { store, grace_ms }| Waiting {
            store,
            grace_ms,
            meta: Meta::new(store),
            backlog: Backlog::new(store),
            first: None,
        });
        StreamTableJoin { source, is_left, joiner, waiting, scratch: Vec::new() }
    }

    fn table_row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let Some(key) = table_key(cx, row) else { return Ok(()) };
        match &mut self.source {
            Source::Latest(latest) => {
                latest.take(cx, &key, row.value.as_ref(), row.timestamp)?;
            }
            Source::Versioned(versions) => {
                if cx.has_time(row) {
                    versions.take(cx, &key, row.value.as_ref(), row.timestamp)?;
                }
            }
        }
        Ok(())
    }

    fn stream_row(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if row.value.is_none() {
            cx.counts.null_value += 1;
            return Ok(());
        }
        // Without a key a left join emits the row alone.
        if row.key.is_none() && !self.is_left {
            cx.counts.null_key += 1;
            return Ok(());
        }
        if matches!(self.source, Source::Versioned(_)) && !cx.has_time(row) {
            return Ok(());
        }
        let Some(waiting) = &mut self.waiting else { return self.join(row, cx) };
        let waits_until = row.timestamp + waiting.grace_ms;
        cx.counts.late += u64::from(waits_until < waiting.meta.stream_time());
        // All that were to be joined before it are.
        if waits_until <= waiting.meta.stream_time() {
            return self.join(row, cx);
        }
        waiting.put(row, &mut self.scratch, cx);
        Ok(())
    }

    /// Joins the rows that need not wait any longer, in the order of time, then as they came. Whether those are all.
    fn release(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        while let Some(waiting) = &mut self.waiting {
            let (rows, more) = waiting.take(cx)?;
            for row in rows {
                self.join(&row, cx)?;
            }
            if !more || !cx.closing.is_left() {
                return Ok(!more);
            }
        }
        Ok(true)
    }

    fn join(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let found = self.look_up(row, cx)?;
        if found.is_none() && !self.is_left {
            return Ok(());
        }
        let key = row.full_key();
        let left = row.value.as_ref();
        let value = joined(&mut *self.joiner, &mut self.scratch, key.as_deref(), left, found.as_ref())?;
        let change = Change::Unknown;
        cx.emit(RESULTS, Row { value: Some(value), change, ..row.clone() });
        Ok(())
    }

    fn look_up(&mut self, row: &Row, cx: &mut Context<'_>) -> Result<Option<Bytes>, OperatorError> {
        let Some(key) = row.full_key() else { return Ok(None) };
        let found = match &mut self.source {
            Source::Latest(latest) => latest.get(cx, &key)?.map(|stored| stored.to_bytes()),
            Source::Versioned(versions) => versions.as_of(cx, &key, row.timestamp)?,
        };
        cx.counts.unmatched += u64::from(found.is_none());
        Ok(found)
    }
}

impl Waiting {
    fn put(&mut self, row: &Row, scratch: &mut Vec<u8>, cx: &mut Context<'_>) {
        let mut place = vec![tag::WAITING];
        push_i64(&mut place, row.timestamp);
        push_u64(&mut place, self.meta.next());
        scratch.clear();
        stored_row::encode(scratch, row.full_key().as_deref(), row, false);
        cx.put(self.store, &place, scratch);
        self.first = self.first.map(|first| first.min(row.timestamp));
    }

    /// Takes some rows that need not wait any longer; whether there are more.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<(Vec<Row>, bool), OperatorError> {
        let last = self.meta.stream_time() - self.grace_ms;
        if self.first.is_some_and(|first| first > last) {
            return Ok((Vec::new(), false));
        }
        let mut from = vec![tag::WAITING];
        // What was before is gone, and takes time to pass.
        self.first.iter().for_each(|first| push_i64(&mut from, *first));
        let range = KeyRange { from: &from, to: Some(&[tag::WAITING + 1]), reverse: false };
        let most = (CHUNK.min(cx.closing.rows()) + 1, CLOSED_BYTES_AT_ONCE);
        let (entries, more) = cx.scan_within(self.store, range, most)?;
        let mut rows = Vec::new();
        self.first = Some(i64::MAX);
        for (place, stored) in entries {
            let unreadable = || OperatorError::damaged(self.store, &place);
            let (timestamp, _) = read_i64(&place[1..]).ok_or_else(unreadable)?;
            if timestamp > last {
                self.first = Some(timestamp);
                return Ok((rows, false));
            }
            if rows.len() == CHUNK || !cx.closing.is_left() {
                self.first = None;
                return Ok((rows, true));
            }
            cx.closing.spend(stored.len());
            let row = stored_row::decode(&Blob::from(stored)).ok_or_else(unreadable)?;
            rows.push(Row { timestamp, ..row });
            cx.delete(self.store, &place);
        }
        if more {
            self.first = None;
        }
        Ok((rows, more))
    }
}

impl Operator for StreamTableJoin {
    fn prefetch(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        match &self.source {
            Source::Latest(latest) => latest.prefetch(cx, rows),
            Source::Versioned(versions) => versions.prefetch(cx, rows),
        }
    }

    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.waiting.is_some() {
            return backlog::process(self, input, rows, cx);
        }
        self.load(cx)?;
        each_row(rows, cx, |row, cx| self.enter(input, row, cx))?;
        self.save(cx);
        Ok(())
    }

    fn is_behind(&mut self, cx: &mut Context<'_>) -> Result<bool, OperatorError> {
        let Some(waiting) = &mut self.waiting else { return Ok(false) };
        Ok(waiting.backlog.is_waiting(cx.state)?)
    }

    fn go_on(&mut self, cx: &mut Context<'_>, leave_out: bool) -> Result<(), OperatorError> {
        if self.waiting.is_some() { backlog::go_on(self, leave_out, cx) } else { Ok(()) }
    }

    fn maintain(&mut self, cx: &mut Context<'_>, budget: usize) -> Result<bool, OperatorError> {
        match &mut self.source {
            Source::Versioned(versions) => versions.maintain(cx, budget),
            Source::Latest(_) => Ok(false),
        }
    }

    fn reset(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.meta.reset();
            waiting.backlog.reset();
            waiting.first = None;
        }
        if let Source::Versioned(versions) = &mut self.source {
            versions.reset();
        }
    }
}

impl Paced for StreamTableJoin {
    fn backlog(&mut self) -> &mut Backlog {
        let waiting = self.waiting.as_mut();
        &mut waiting.expect("only rows of a join with a place to wait do").backlog
    }

    fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if let Some(waiting) = &mut self.waiting {
            waiting.meta.load(cx)?;
        }
        match &mut self.source {
            Source::Versioned(versions) => versions.load(cx),
            Source::Latest(_) => Ok(()),
        }
    }

    fn save(&mut self, cx: &mut Context<'_>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.meta.save(cx);
        }
        if let Source::Versioned(versions) = &mut self.source {
            versions.save(cx);
        }
    }

    fn close_before(
        &mut self,
        input: usize,
        row: &Row,
        again: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, OperatorError> {
        let is_dropped = row.value.is_none()
            || (row.key.is_none() && !self.is_left)
            || (matches!(self.source, Source::Versioned(_)) && !is_time(row.timestamp));
        let Some(waiting) = self.waiting.as_mut().filter(|_| input == STREAM && !is_dropped) else {
            return Ok(true);
        };
        if waiting.meta.observe(row.timestamp).is_some() || again { self.release(cx) } else { Ok(true) }
    }

    fn enter(&mut self, input: usize, row: &Row, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if input == STREAM { self.stream_row(row, cx) } else { self.table_row(row, cx) }
    }
}

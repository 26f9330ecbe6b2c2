//! What a pipeline does with records besides running plugins: aggregates, windows, joins, tables. Pure, over the
//! stores of a task.
//!
//! # Rows and their order
//!
//! A [`Row`] is a record on its way through a task. It carries the number of the source record that triggered it, and
//! an operator with several inputs is given rows in the order of these numbers, those of one number in the order of
//! its inputs. [`Operator::process`] is a function of the rows that were given so far, whatever the calls they came
//! in, the moments at which transactions ended, and what is cached where: an output is emitted by a row, never by the
//! end of a batch or by a cache.
//!
//! A row of a *table* says what its key had before ([`Change`]). A row without a value deletes its key there.
//!
//! # What is dropped
//!
//! An operator that needs a key drops rows without one, and one that needs a value drops rows without one. Windows
//! and joins drop rows whose timestamp is no time (negative, or beyond [`MAX_TIMESTAMP`]). All are counted
//! ([`Counts`]). What is dropped for such a reason changes nothing, stream time included: it is as if a filter had
//! stood before the operator.
//!
//! # Time, and the one moment of closing
//!
//! The *stream time* of an operator is the highest timestamp of the rows that it was given and has not dropped. It is
//! kept in the operator's own store, so that after a restart the same rows are late as would have been without one.
//!
//! Everything that waits for time closes at one moment, which is the stream time T that is written here for each kind:
//!
//! | what | covers | closes at |
//! |---|---|---|
//! | tumbling or hopping window | start <= t < end | end + grace |
//! | sliding window of a size | start <= t <= start + size | start + size + grace + 1 |
//! | session with a gap | from its first to its last row | last row + gap + grace + 1 |
//! | a left row of a stream-stream join | t - before <= right row <= t + after | t + after + grace + 1 |
//! | a right row of it | t - after <= left row <= t + before | t + before + grace + 1 |
//!
//! Before that moment it takes rows in; from then on nothing changes it, whether or not it is still in a store. At
//! that moment, which is when the row that brings stream time there is processed, and before that row has any other
//! effect, what is final is emitted: once, in the order of time and key. Stores may forget it then, or keep it for
//! readers for as long as `retention` says. When they forget is [`Operator::maintain`]'s business and never shows in
//! an output. Where more closes at one moment than goes out with one call, the row that brings it waits: see [`backlog`].
//!
//! # Layout of stores
//!
//! A store whose keys are those of records (aggregates without windows, tables) has the key's bytes as they are, so
//! that readers find them. All others begin with a tag (`key::tag`):
//!
//! ```text
//! 00                                          stream time, a counter, how far the store was cleaned
//! 01 start(8) key                             windows of fixed places: in the order in which they close
//! 02 key                                      all that is alive of a key, packed: sliding windows, sessions
//! 03 due(8) key                               when that has to be looked at: a lower bound
//! 04 key* end(8) start(8)                     closed sliding windows and sessions, kept for readers
//! 05 expiry(8) key* end(8) start(8)           when those are forgotten
//! 06 side(1) segment(8) key* time(8) n(8)     rows of a stream-stream join, by segments of time
//! 07 side(1) time(8) key* n(8)                those of them that have not matched, in the order in which they close
//! 08 key* ~time(8)                            versions of a versioned table that are not the latest
//! 09 until(8) key* ~time(8)                   when those are forgotten
//! 0a time(8) n(8)                             rows that wait for a versioned table
//! 0b fk* pk                                   subscriptions of a foreign-key join
//! 0c domain(1) at(8) name                     timers in the order in which they are due
//! 0d domain(1) name                           when a timer is due
//! 0e key                                      when the latest version deleted the key
//! 0f key                                      left rows of a foreign-key join
//! 10 key* start(8)                            windows that a plugin keeps
//! 11 end(8) key                               when those of a key are forgotten
//! 12 n(8)                                     rows before which more closes than goes out at once; 12 alone: up to where it is out
//! 13 end(8) start(8) key                      sessions and sliding windows that have closed and are not out
//! 14 key* slot(8)                             rows that have passed deduplication
//! 15 useless(8) key* slot(8)                  when those are forgotten
//! ```
//!
//! Numbers are big endian, so that they sort; `key*` is escaped and ended ([`key::push_escaped`]), so that what
//! follows sorts within a key. No layout expires by ranges: range tombstones beside reads cost up to a millisecond
//! (RocksDB), and a changelog that is compacted keeps what nobody deletes. What expires is found by time (the layouts
//! that begin with it) and deleted key by key within a budget, so a store always equals the replay of its changelog
//! and the changelog needs no retention by wall clock.

use crate::plugin::PluginError;
use crate::state::{StateError, StoreIndex};

pub mod aggregate;
pub(crate) mod backlog;
mod by_key;
mod chain;
pub mod change;
mod condition;
mod context;
mod dedupe;
pub(crate) mod envelope;
mod event_time;
mod field;
pub mod foreign_key;
mod global_join;
mod joiner;
mod json_text;
pub mod key;
mod live;
mod meta;
mod native;
mod rekey;
mod row;
mod rows;
mod scalar;
pub mod scan;
mod session;
mod sliding;
mod stored_row;
mod stream_join;
mod table;
mod table_aggregate;
mod table_join;
mod table_table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time_window;
mod timers;
mod versioned;
pub mod view;
mod windows;

pub use backlog::{CLOSED_AT_ONCE, CLOSED_BYTES_AT_ONCE};
pub use by_key::AggregateByKey;
pub use chain::Chain;
pub use change::{GroupsOfTopic, GroupsToTopic};
pub use condition::{Condition, Judge};
pub(crate) use context::is_time;
pub use context::{Context, Counts, Emitted, GlobalTableError, GlobalTables, LentAggregator, NoTables};
pub use dedupe::Deduplicate;
pub use event_time::EventTime;
pub use field::{Field, FieldError};
pub use foreign_key::{ForeignKeyLeft, ForeignKeyRight};
pub use global_join::GlobalJoin;
pub use joiner::{JoinSpecError, Joiner, JsonJoin, Side};
pub use native::{Explode, Holds, MAX_ITEMS, MapValues, Select, Selection};
pub use rekey::{KeyAside, KeyBack};
pub use row::{Change, Header, Row, RowHeaders, Window, WindowKind};
pub use rows::{Branch, Filter, FlatMap, Merge, NullKey, Predicate, RowFunction, SelectKey};
pub use session::Sessions;
pub use sliding::SlidingWindows;
pub use stream_join::{JoinKind, JoinWindow, LEFT, RIGHT, StreamJoin};
pub use table::{FilterTable, MapTable, Table, ValueFunction};
pub use table_aggregate::{AggregateTable, GroupTable};
pub use table_join::{JoinedTable, STREAM, StreamTableJoin, TABLE, Wait};
pub use table_table::TableJoin;
pub use time_window::TimeWindows;
pub use timers::{Timer, TimerDomain, TimerFunction, TimerNode, TimerSetter};
pub use versioned::VersionedTable;
pub use windows::{
    Closing, Emit, LATE, Late, MAX_MS, MAX_TIMESTAMP, MAX_WINDOWS_PER_ROW, RESULTS, WindowError, WindowSpec,
};

/// A row that cannot be processed: the node's `on_error` says what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RowError {
    /// Its place in the rows of the call.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// Why a call failed. What it wrote is rolled back by whoever called, then [`Operator::reset`] is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// A row cannot be processed.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The store cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A global table cannot be read.
    #[error(transparent)]
    Global(#[from] GlobalTableError),
    /// More closes before a row than goes out at once: its record is to be given alone.
    #[error("more closes before it than goes out at once")]
    Alone {
        /// The row's place in the rows of the call.
        index: usize,
    },
}

impl OperatorError {
    /// The row that is being processed cannot be.
    pub fn row(reason: String) -> OperatorError {
        OperatorError::Row(RowError { index: 0, reason })
    }

    /// What is stored under a key has a layout that this version does not know.
    fn damaged(store: StoreIndex, key: &[u8]) -> OperatorError {
        let reason = format!("the entry {} of store {store} has an unknown layout", key.escape_ascii());
        OperatorError::State(StateError::Corrupt(reason))
    }

    /// A state that an aggregate cannot read.
    fn unreadable() -> OperatorError {
        OperatorError::State(StateError::Corrupt(
            "the state of an aggregate has an unknown layout".to_owned(),
        ))
    }
}

/// One node of a topology. See the module.
pub trait Operator: Send {
    /// Gets ready for rows: asks for what they will read with one call of the store.
    ///
    /// # Errors
    /// The store cannot be read.
    fn prefetch(&mut self, _input: usize, _rows: &[Row], _: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Takes rows of an input, in the order that the module describes, and emits what they trigger.
    ///
    /// # Errors
    /// What the call wrote and emitted must be undone.
    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError>;

    /// The clock has gone on: what waits for it happens. Called with rows or without.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn tick(&mut self, _: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Whether rows wait until all is out that closes before them: no record is read before they are done.
    ///
    /// # Errors
    /// The store cannot be read.
    fn is_behind(&mut self, _: &mut Context<'_>) -> Result<bool, OperatorError> {
        Ok(false)
    }

    /// Goes on with them, within the budget of the call: a part of what closes, or what a row does that has waited. With
    /// `leave_out` such a row does nothing.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn go_on(&mut self, _: &mut Context<'_>, _leave_out: bool) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Forgets about `budget` entries that nothing will look at any more, and emits nothing. Whether there may be more.
    ///
    /// # Errors
    /// As [`Operator::process`].
    fn maintain(&mut self, _: &mut Context<'_>, _budget: usize) -> Result<bool, OperatorError> {
        Ok(false)
    }

    /// The stores were rolled back: what is in memory says nothing any more.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;

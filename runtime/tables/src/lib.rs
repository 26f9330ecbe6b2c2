//! Tables: views of compacted topics that are kept fresh and asked.
//!
//! * [`source`] has the seams: the topics that are read, and where definitions are kept.
//! * [`Tables`] is the handle of all of them: it creates, deletes, lists and asks.
//! * `worker` is a thread that owns stores, `task` what it does for one of them; `store` is what others see of one.
//! * `ask` reads rows, `follow` hands on every change, `kept` those of a table that somebody else keeps; `copy` is read in place
//!   by who joins records with a table.
//!
//! What a table is, and what its stores hold, is decided in `pelton_streams::tables`. A store has one owner, a thread
//! among
//! `pelton.table.threads`. It reads the topic from the offset that is kept inside the store, applies each stretch of
//! it in one batch together with the new offset, and so is at any moment, after any crash, what a replay of the topic
//! up to that offset gives. A crash alone never costs a store: it goes on where it was. One that cannot be trusted
//! (another topic, missing records, tombstones that it may have missed, damage) is made again, and says so.
//!
//! Memory is bounded: a thread holds one chunk of changes ([`CHUNK_BYTES`]) and one read; RocksDB has one block cache
//! and one budget of write buffers for the process; a follower has a few frames on their way.
//!
//! It refuses to know brokers, sockets and RocksDB.

#![allow(missing_docs, reason = "its users are the broker's packages; what a name does not say is said")]

mod ask;
mod copy;
mod follow;
mod kept;
mod service;
pub mod source;
mod store;
mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod worker;

pub use ask::{AskError, Found, Page};
pub use copy::{Copy, CopyError, CopyPart, CopyRefused};
pub use follow::{FOLLOWER_PATIENCE, FollowEvent, Following};
pub use kept::{Enough, Inputs, Kept, OnBegin, OnRow};
pub use service::{CreateError, DeleteError, NewTable, Tables, TablesSpec};
pub use store::{PartitionStatus, StoreState, StoreStatus, TableDescription, Totals};
pub use task::CHUNK_BYTES;

/// Where the time of day comes from, in ms since the epoch.
pub type Clock = dyn Fn() -> i64 + Send + Sync;

//! The coordinators: the members of consumer groups and their committed offsets; the producers of transactional ids and
//! the ends of their transactions.
//!
//! * [`group`]: classic consumer groups over a store of records.
//! * [`txn`]: transactions of both protocols.
//!
//! The truth is a replay of `__consumer_offsets` and `__transaction_state`. This package refuses to know sockets
//! and requests: a caller names the versions' differences, not the versions.

#![allow(missing_docs, reason = "its users are the broker's packages; what a name does not say is said")]

pub mod group;
mod snapshot;
mod timer;
pub mod txn;
mod unreadable;

pub use unreadable::UnreadableRecord;

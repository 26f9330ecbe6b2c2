//! The transaction coordinator.
//!
//! A transactional id is a slot behind a lock, and whoever holds the lock is alone with that id: a transactional append
//! checks and writes under it, and so does the end of a transaction, which writes its decision, its markers and its
//! completion in one go. So no append of a producer ever comes between the check that it may and the marker that ends it,
//! and no verification is needed (KIP-890 part 1 has one because its coordinator is elsewhere).
//!
//! Everything that is written goes through the one journal, whose syncs make a prefix durable. So what is decided may be
//! acted upon at once; only answers wait, and each for the last thing that was written for it.

pub(crate) mod coordinator;
pub(crate) mod embedded;
pub(crate) mod error;
pub(crate) mod housekeeping;
mod log;
pub(crate) mod order;
mod records;
pub(crate) mod state;

pub(crate) use self::coordinator::{Transactions, TxnSettings};
pub(crate) use self::records::by_topic;

#[cfg(test)]
mod sim;

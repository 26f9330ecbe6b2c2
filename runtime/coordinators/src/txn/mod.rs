//! The transaction coordinator.
//!
//! A transactional id has a lock, and its holder is alone with that id: a transactional append checks and writes under
//! it, and so does the end of a transaction, which writes its decision, its markers and its completion in one go. So no
//! append of a producer ever comes between the check that it may and the marker that ends it, and no verification is
//! needed (KIP-890 part 1 has one because its coordinator is elsewhere).
//!
//! All appends go through the one journal, whose syncs make a prefix durable (`SameJournal`). So a decision may be
//! acted upon at once; only answers wait, and each for the last thing that was written for it.
//!
//! # Copies
//!
//! A network may deliver a request after its client has given up the connection, asked again on another, and gone on
//! (KAFKA-17754). With the newer protocol each transaction has an epoch of its own, and a copy is refused by that. With
//! the older one it looks like a request for the next transaction, and [`origin`] tells it by where it comes from. A
//! request whose number was passed on its connection is a copy, and the connection is closed: no client waits there. A
//! request on an older connection than the newest is a copy, or comes from a client that uses several connections at a
//! time; it is refused with CONCURRENT_TRANSACTIONS (TxnOffsetCommit: COORDINATOR_LOAD_IN_PROGRESS), and served once it
//! comes again on that connection, as no copy does. TxnOffsetCommit is treated so with both protocols, since several of
//! them may be in one transaction.
//!
//! What remains with the older protocol, as with every broker that speaks it:
//!
//! - A copy on a connection that is younger than the client's: from something in between that repeats requests, or
//!   connects to the broker long after the client has connected to it. It may commit or abort what is open then. The
//!   client is told: what it sends next is refused with INVALID_TXN_STATE.
//! - A restart of the broker forgets origins, but no connection outlives it: a copy comes on a younger connection, or
//!   not.
//! - Two copies of one request on one connection, the second numbered higher: no client sends that without an answer
//!   between.
//! - Batches are told by their epoch and sequence alone, as they come over connections of their own.

pub mod cache;
pub mod coordinator;
pub mod embedded;
mod end;
pub mod error;
pub mod housekeeping;
mod init;
mod log;
pub mod origin;
mod records;
mod snapshot;
pub mod state;
mod sweep;

pub use self::coordinator::{Transactions, TxnSettings};
pub use self::log::{LoadError, TRANSACTIONS_TOPIC};
pub use self::records::by_topic;

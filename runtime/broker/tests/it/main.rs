//! A broker in this process, on a port of its own and a directory of its own, asked through its socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod admin;
mod client;
mod compaction;
mod fetch;
mod fetch_sessions;
mod gate;
mod groups;
mod held_syncs;
mod hostile;
mod one_broker;
mod order;
mod produce;
mod restart;
mod stalled;
mod storage;
mod tables;
mod transaction_copies;
mod transaction_ends;
mod transaction_requests;
mod transactions;
mod unreadable;

//! The group coordinator: classic consumer groups and committed offsets.
//!
//! * `state`, `rebalance`, `join`, `sync`, `leave`, `commit`, `describe`: one group. Pure: requests and times in,
//!   replies and records out.
//! * `shard`: the groups of one partition of `__consumer_offsets`, with the order of their deadlines. Pure.
//! * `records`, `replay`: Kafka's record format, and the way back from a log to its groups.
//! * `service`: an owner per shard, which appends what a shard wants appended and answers when that is durable.
//!
//! What is durable and what is not: committed offsets and the assignment of a stable generation are in the log before
//! any client hears of them. Membership in a generation that is not yet stable is a lease, as in Kafka: after a crash
//! its members are told to join again.

pub mod config;
pub mod error;
pub mod lag;
pub mod log_store;

pub mod service;
pub mod store;
pub mod types;

pub use self::offsets::CommittedOffset;
pub use self::service::{Groups, partition_of};

mod commit;
mod describe;
mod join;
mod leave;
mod member;
mod members;
mod offsets;
mod owner;
mod rebalance;
mod records;
mod replay;
mod shard;
mod state;
mod subscription;
mod sync;

#[cfg(test)]
mod tests;

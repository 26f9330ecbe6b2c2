//! Compaction: of each key the newest record stays. The rules are those of Kafka's log cleaner, seen on Kafka 4.4:
//!
//! * only what lies below the active segment and below the last stable offset is cleaned;
//! * offsets never change, batches keep their codec, a batch that loses nothing is copied byte for byte;
//! * a tombstone, and a marker whose transaction has no record left, gets a delete horizon in its batch at its first clean,
//!   and goes at the first clean after that;
//! * the last batch of a producer that may still write stays, empty if need be, for its sequence.

mod batch;
mod clean;
mod key_map;
mod output;
mod plan;
pub(crate) mod swap;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use batch::LastRecord;
pub use clean::{ActiveProducers, CleanError, CleanJob, CleanReport, Pace, Replacement, clean};
pub use plan::{Compaction, Dirt};

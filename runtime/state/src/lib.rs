//! RocksDB behind the state-store trait: one database per task, one column family per store.
//!
//! The write-ahead log is off: what a crash takes from the memtables is in the changelog. `atomic_flush` keeps all
//! stores of a task at one commit, and each store has its changelog position among its own keys, so that no crash
//! parts the two.
//!
//! A column family holds `0x00` → the position, and `0x01 key` → value for every key of the store.

mod factory;
mod options;
mod rocks;

pub use factory::RocksFactory;
pub use options::{StateMemory, StateOptions};
pub use rocks::RocksState;

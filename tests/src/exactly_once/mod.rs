//! Exactly once, proven from outside: a transactional load that writes down what it asked for and what it was told, and
//! a judge that compares this history with what a read-committed consumer finds at the end.

pub mod history;
pub mod judge;
pub mod ledger;
pub mod load;
pub mod reader;
pub mod rig;

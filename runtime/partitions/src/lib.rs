//! The topics of this broker: their facts, and the partitions that it leads.
//!
//! * [`partition`]: the owner of one log, its watermarks, and the produces and fetches that wait for it.
//! * [`topics`]: the catalogue, which is what a replay of `__cluster_metadata-0` gives; it gives out producer ids.
//! * [`topic_config`]: every setting that a topic can have.
//! * [`cleaner`]: the thread that compacts.
//! * [`producer_id`]: the identity of a producer.
//! * [`admission`]: the checks of a client's batch before it is appended.
//! * [`same_journal`]: the assumption that one journal orders everything, as a value.
//! * [`data_dir`]: all of it opened from a data directory.
//!
//! It refuses to know sockets, requests and coordinators.

#![allow(missing_docs, reason = "its users are the broker's packages; what a name does not say is said")]

pub mod admission;
pub mod blocking;
pub mod cleaner;
pub mod clock;
pub mod data_dir;
pub mod failure;
pub mod intake;
pub mod partition;
pub mod producer_id;
pub mod same_journal;
pub mod setting;
pub mod topic_config;
pub mod topics;

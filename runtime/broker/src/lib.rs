//! Everything with a socket, a clock or a task: the broker that Kafka clients talk to.
//!
//! * [`Broker::start`] opens a data directory and takes connections; [`BrokerHandle`] stops it.
//! * `net` moves frames, `api` has one file per API, `partition` is the owner of one log, `topics` the catalogue.
//! * [`Config`] and [`topic_config`] are the tables of all settings.
//!
//! It refuses to know RocksDB and wasmtime: what runs plugins and keeps their state is handed in.

mod admin;
mod api;
mod blocking;
mod broker;
mod clock;
mod config;
mod failure;
mod group;
mod housekeeping;
mod http;
mod memory;
mod metrics;
mod net;
mod partition;
mod processor;
mod producer_id;
mod snapshot;
mod startup;
mod timer;
pub mod topic_config;
mod topics;
mod txn;
mod unreadable;

pub use broker::{Broker, BrokerHandle, Deps, StartError};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, ConfigError, HostPort, Key};
pub use http::TokenError;
pub use partition::acks::NotDurable;
pub use partition::{
    InternalAppend, InternalAppendError, InternalRecord, Isolation, Offsets, Partition, PartitionAppendError,
    PartitionCreateError, ReplayError, Replayed,
};
pub use topics::metadata_log::{MetadataReplayError, MetadataWriteError};
pub use topics::{METADATA_TOPIC, NameError, NewTopic, Topic, TopicError, Topics};
pub use txn::LoadError;
pub use unreadable::UnreadableRecord;

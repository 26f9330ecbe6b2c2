//! Everything with a socket, a clock or a task: the broker that Kafka clients talk to.
//!
//! * [`Broker::start`] opens a data directory and takes connections; [`BrokerHandle`] stops it.
//! * `net` moves frames, `api` has one file per API.
//! * [`Config`] and [`topic_config`] are the tables of all settings.
//!
//! It refuses to know RocksDB and wasmtime: what runs plugins and keeps their state is handed in.

#![allow(missing_docs, reason = "its users are the binary and tests; what a name does not say is said")]

mod access;
mod admin;
mod api;
mod broker;
mod config;
mod housekeeping;
mod http;
mod memory;
mod metrics;
mod net;
mod pipelines;
mod records;
mod routers;
mod tables;

pub(crate) use pelton_coordinators::{group, txn};
pub use pelton_partitions::topic_config;
pub(crate) use pelton_partitions::{blocking, clock, failure, partition, producer_id, same_journal, topics};

pub use broker::{Broker, BrokerHandle, Deps, StartError};
pub use clock::{Clock, SystemClock};
pub use config::{Config, ConfigError, HostPort, Key};

//! What the stream processor decides: manifests, topologies, tasks, partitioners. Pure: nothing here blocks, sleeps,
//! reads a clock or touches a file.
//!
//! A [`Manifest`] is parsed from `pipeline.toml`, linked into a [`Topology`], and run as one [`Task`] for each
//! partition of its source topics. A task is a synchronous step: a batch of one partition in, records for topics out,
//! and the next offset to read. What runs users' code is behind [`Plugin`] and [`PluginFactory`]; this package knows
//! nothing of WebAssembly.

pub mod answer;
pub mod batch;
pub mod dead_letter;
pub mod delivery;
mod digest;
pub mod http;
pub mod json;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod meter;
mod nearest;
pub mod node_state;
pub mod operator;
pub mod partitioner;
pub mod plugin;
pub mod plugin_manifest;
pub mod sink;
pub mod state;
pub mod state_tables;
pub mod tables;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod topology;
pub mod values;
pub mod world;

pub use answer::{Answer, AnswerError, BatchOut, HeadersOut, SlicesOut};
pub use batch::{BatchIn, HeadersIn, OwnedBatch, RecordIn, SlicesIn};
pub use digest::{Digest, ParseDigestError};
pub use limits::PluginLimits;
pub use manifest::{Manifest, ManifestError};
pub use partitioner::{Partitioner, PartitionerKind};
pub use plugin::{InstanceSpec, InstantiateError, LoadError, Plugin, PluginError, PluginFactory, PluginInfo};
pub use plugin_manifest::PluginManifest;
pub use sink::{Emissions, Emitted, Refusal, Refused, Sink};
pub use task::{Task, TaskFailure};
pub use topology::{Topology, TopologyError};
pub use world::World;

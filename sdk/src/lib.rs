//! Write a pelton plugin in Rust: implement [`Transform`], name it in [`export_transform!`], and build it with
//! `pelton plugin build`.
//!
//! ```
//! use pelton_sdk::{Config, Failure, Out, Record, Transform};
//!
//! /// Keeps the records whose value is longer than a limit, in capitals.
//! #[derive(Default)]
//! struct Shout {
//!     longer_than: usize,
//! }
//!
//! impl Transform for Shout {
//!     fn configure(&mut self, config: &Config) -> Result<(), String> {
//!         self.longer_than = config.parse("longer_than")?.unwrap_or(0);
//!         Ok(())
//!     }
//!
//!     fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
//!         let value = record.value().ok_or_else(|| Failure::reject("there is no value"))?;
//!         if value.len() > self.longer_than {
//!             out.edit(record, |value| value.make_ascii_uppercase());
//!         }
//!         Ok(())
//!     }
//! }
//!
//! pelton_sdk::export_transform!(Shout);
//!
//! // The logic is tested natively:
//! use pelton_sdk::testing::{TestRecord, run};
//! let out = run::<Shout>(&[("longer_than", "2")], &[TestRecord::value("abc"), TestRecord::value("no")]);
//! assert_eq!(out.unwrap(), [TestRecord::value("ABC")]);
//! ```
//!
//! A record is borrowed from the batch it came in, and what is not changed is never copied: [`Out::keep`] costs four
//! bytes. A plugin runs without clock, randomness, files or network, and its memory is a cache: one instance is given
//! the records of all partitions, batch by batch, and after a failed call it is gone and a new one is configured. What
//! it has to say goes to [`mod@log`].

mod aggregate;
mod batch;
#[doc(hidden)]
pub mod bindings;
mod config;
mod consumer;
mod http_consumer;
pub mod log;
mod out;
mod partition;
mod state;
mod stores;
pub mod testing;
mod timers;
mod transform;

pub use aggregate::Aggregator;
pub use batch::{Headers, Record};
pub use bindings::{Batch, Output};
pub use config::Config;
pub use consumer::{Consumer, Order, Undone};
pub use http_consumer::{HttpConsumer, HttpError, Request, Response, TooLarge};
pub use out::{Last, Out};
pub use partition::{Partitioner, partition_of_key};
pub use state::StateTransform;
pub use stores::{Entries, Range, Reads, Stores, Windows};
pub use timers::{Emit, Timer, TimerDomain, TimerTransform, Timers};
pub use transform::{Failure, Transform};

#[doc(hidden)]
pub use aggregate::ExportedAggregator;
#[doc(hidden)]
pub use consumer::ExportedConsumer;
#[doc(hidden)]
pub use http_consumer::ExportedHttpConsumer;
#[doc(hidden)]
pub use partition::ExportedPartitioner;
#[doc(hidden)]
pub use state::ExportedState;
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub use stores::Server;
#[doc(hidden)]
pub use timers::ExportedTimers;
#[doc(hidden)]
pub use transform::Exported;

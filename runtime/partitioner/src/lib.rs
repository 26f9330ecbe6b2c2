//! Which partition of its topic a record goes to. The rules are those of the clients, so that pelton and a client that
//! write to the same topic put equal keys into the same partition; `PARTITIONERS.md` says which client has which.
//!
//! Pure: no I/O, no clock, no randomness but the seed that is given. Whoever produces to Kafka or pelton from Rust can
//! use it as it is and give its answer to the client, as `BaseRecord::partition` of the crate `rdkafka` takes it:
//!
//! ```
//! use pelton_partitioner::{Partitioner, PartitionerKind};
//!
//! // The partitions of the topic, from the client's metadata; `set_partitions` when the topic has grown.
//! let mut partitioner = Partitioner::new(PartitionerKind::Murmur2, 12, 0);
//! let (key, value) = (b"pelton", b"the value");
//! assert_eq!(partitioner.place(Some(key), key.len() + value.len()), 11);
//! ```

mod hash;
mod kind;
mod rule;
pub mod sample;

pub use kind::{Partitioner, PartitionerKind, UNIFORM_BYTES};
pub use rule::KeyRule;

pub use hash::crc32;

//! The bytes that Kafka defines: requests and responses, record batches, compression.
//!
//! This package turns frames into values and values into frames. It never does I/O, never reads a clock, starts no
//! thread, and holds no state between calls: everything in it is a function of its arguments.
//!
//! * [`message`]: one file per API with its request and response. The names are those of Kafka's message schemas.
//! * [`api`]: which APIs and versions there are, which of them are flexible, what to advertise.
//! * [`header`] and [`frame`]: what surrounds a message on a connection.
//! * [`codec`]: how fields become bytes. Decoding never allocates on the word of the peer.
//! * [`record`]: record batches and their compression.
//! * [`error_code`]: the error codes of the protocol.
//! * [`topic_name`]: which topic names are special.
//!
//! ```
//! use pelton_wire::codec::{Reader, Writer};
//! use pelton_wire::message::{ListGroupsRequest, Message};
//!
//! let request = ListGroupsRequest { states_filter: vec!["Stable".to_owned()], ..Default::default() };
//! let mut writer = Writer::new();
//! request.encode(&mut writer, 4)?;
//! let bytes = writer.into_bytes()?;
//! assert_eq!(&bytes[..], b"\x02\x07Stable\x00");
//! assert_eq!(ListGroupsRequest::decode(&mut Reader::new(bytes), 4)?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod api;
pub mod codec;
pub mod error_code;
pub mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod message;
pub mod mutant;
pub mod record;
pub mod topic_name;

pub use api::{ApiKey, ApiRange};
pub use codec::{DecodeError, EncodeError, Malformed, Piece, Reader, Records, Writer};
pub use error_code::ErrorCode;
pub use message::{Message, Request};

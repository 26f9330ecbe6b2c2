//! How fields become bytes and bytes become fields.
//!
//! [`Reader`] takes a frame apart, [`Writer`] puts one together, and [`Field`] says how one type does both. The message
//! definitions in [`crate::message`] are built on these three.
//!
//! **What a peer can cost us.** A count or length on the wire is a claim, not a fact. Every one is checked against the
//! bytes that are left before anything is allocated, and what a frame may grow into is bounded as a whole by a budget
//! ([`DECODED_MULTIPLE`]), because a struct in memory is larger than the few bytes that stand for it on the wire.

mod error;
mod field;
mod reader;
#[cfg(feature = "fuzzing")]
mod sampler;
mod writer;

pub use error::{DecodeError, EncodeError, Malformed};
pub use field::{Ctx, Field, Float64};
pub use reader::{DECODED_ALLOWANCE, DECODED_MULTIPLE, Reader, decoded_limit};
#[cfg(feature = "fuzzing")]
pub use sampler::Sampler;
pub use writer::{Piece, Records, SPLICE_MIN, Writer};

/// The largest value of the protocol's signed 32-bit lengths, as a `usize`.
pub(crate) const I32_MAX: usize = i32::MAX as usize;

#[cfg(test)]
mod tests;

//! Record batches, version 2: the unit in which records travel and are stored.
//!
//! Everything here works on borrowed bytes and returns typed errors. A batch is stored as it came, so reading one
//! never builds an owned copy of its records: [`BatchView`] borrows the batch, [`Records`] borrows either the
//! batch or the buffer that it was decompressed into. It refuses to do I/O, to read a clock, and to handle the
//! message sets of magic 0 and 1, which Kafka 4 no longer accepts either.
//!
//! Three rules hold throughout: nothing is allocated from a count that a peer sent, decompression always has a
//! bound ([`DecompressLimit`]), and no input makes a function here panic.

pub mod columns;
pub mod compression;

mod builder;
mod checked;
mod control;
mod crc;
mod edit;
mod filter;
#[cfg(feature = "fuzzing")]
mod fuzz;
mod header;
mod records;
mod search;
mod sequence;
#[cfg(test)]
mod tests;
mod validate;
mod varint;
mod view;

pub use builder::{
    BatchBuilder, BatchOptions, BuildError, BuilderMark, MAX_BATCH_BYTES, hole_batch, recompress,
    rewrite_offsets,
};
pub use checked::CheckedBatch;
pub use columns::{Columns, ColumnsError, NULL_LENGTH, Select};
pub use compression::{Codec, DecompressError, DecompressLimit};
pub use control::{ControlError, ControlRecord, ControlType, EndTransactionMarker, end_transaction_batch};
pub use crc::{combine as combine_crc32c, crc32c};
pub use edit::BatchMut;
pub use filter::{FilterSpec, Filtered, filter_batch};
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use fuzz::fuzz_batch;
pub use header::{
    BatchError, BatchHeader, HEADER_BYTES, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType, UnknownCodec,
};
pub use records::{Header, Headers, Record, RecordError, RecordFault, Records};
pub use search::{TimestampedOffset, first_at_or_after, offset_of_max_timestamp};
pub use sequence::{next_sequence, sequence_add};
pub use validate::{
    AppendRefusal, AppendRules, MAX_RECORD_ERRORS, RecordProblem, RecordProblemKind, Validated,
    validate_for_append,
};
pub use view::{BatchView, Batches, batches};

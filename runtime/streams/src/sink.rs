//! Where the records of a step go. A task writes its output records to its sink before an input record counts as done.
//! So an output record that its topic refuses is a failure of the input record, which the manifest's `on_error`
//! handles.

use crate::batch::RecordIn;
use crate::task::Piece;

/// A sink names at most this many refused records of one write; the rest are found when it is written again.
pub const MAX_REFUSALS: usize = 1_000;

/// A record and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Emitted<'a> {
    /// An index in [`Topology::outputs`](crate::Topology::outputs).
    pub output: usize,
    /// The partition of that topic.
    pub partition: i32,
    /// The record. Its offset is that of the input record that it comes from.
    pub record: RecordIn<'a>,
}

/// What a range of input records emits. The records of one topic and partition come in input order.
#[derive(Debug, Clone, Copy)]
pub struct Emissions<'a> {
    pub(crate) pieces: &'a [Piece<'a>],
    /// For each piece, the partition of each of its records.
    pub(crate) partitions: &'a [Vec<i32>],
}

impl<'a> Emissions<'a> {
    /// Every record, in order.
    pub fn iter(self) -> impl Iterator<Item = Emitted<'a>> {
        self.pieces.iter().zip(self.partitions).flat_map(|(piece, partitions)| {
            let output = piece.topic;
            piece.records().zip(partitions).map(move |(record, &partition)| Emitted {
                output,
                partition,
                record,
            })
        })
    }
}

/// Why a topic does not take a record. The same record is refused again unless the topic's settings change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Larger than the topic allows, in the form in which the topic stores it.
    #[error("it has {bytes} bytes as stored ({codec}), the topic's max.message.bytes is {max}")]
    TooLarge {
        /// A batch with this record alone.
        bytes: usize,
        /// How it would be compressed.
        codec: &'static str,
        /// The limit.
        max: usize,
    },
    /// Out of the range of `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`.
    #[error("its timestamp is {timestamp}, the topic takes {min} to {max} now (message.timestamp.*.max.ms)")]
    Timestamp {
        /// The record's.
        timestamp: i64,
        /// The smallest that is taken.
        min: i64,
        /// The largest that is taken.
        max: i64,
    },
    /// Compaction needs keys.
    #[error("it has no key, which a compacted topic needs")]
    NoKey,
    /// It cannot be written as a record at all.
    #[error("{0}")]
    Unwritable(String),
}

/// A record of a write that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which one, from 0, in the order of [`Emissions::iter`].
    pub index: usize,
    /// Why.
    pub why: Refusal,
}

/// Takes the records that tasks emit. The driver appends or drops them when the step is over.
pub trait Sink {
    /// Takes all of these records, or none of them.
    ///
    /// # Errors
    /// The records that their topics refuse, in order, at least one and at most [`MAX_REFUSALS`].
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>>;
}

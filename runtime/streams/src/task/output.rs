//! What a step emits: records that still point into the batch and the answers they come from; and what it has done.

use std::sync::Arc;

use super::TaskFailure;
use super::run::{Place, goes_to};
use crate::answer::Answer;
use crate::batch::{BatchIn, OwnedBatch, RecordIn};
use crate::sink::Refusal;

/// A batch that is the caller's, or one that was made on the way.
#[derive(Debug, Clone)]
pub(crate) enum Cow<'a> {
    Borrowed(Arc<BatchIn<'a>>),
    Shared(Arc<OwnedBatch>),
}

impl Cow<'_> {
    pub(crate) fn as_batch(&self) -> BatchIn<'_> {
        match self {
            Cow::Borrowed(batch) => **batch,
            Cow::Shared(batch) => batch.as_batch(),
        }
    }
}

/// An answer that goes to a topic.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) batch: Cow<'a>,
    pub(crate) answer: Arc<Answer>,
    /// The output of the plugin whose records go there; 0 for what no plugin made.
    pub(crate) output: u32,
    /// An index in [`Topology::outputs`](crate::Topology::outputs).
    pub(crate) topic: usize,
    /// The node whose answer it is; `None`: the records are those of the source.
    pub(crate) made_by: Option<Place>,
}

impl Piece<'_> {
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordIn<'_>> {
        let records = self.answer.records(self.batch.as_batch()).enumerate();
        records.filter(|(i, _)| goes_to(&self.answer, *i, self.output)).map(|(_, record)| record)
    }

    /// Where a record is left out that its topic does not take.
    pub(super) fn place(&self) -> Place {
        self.made_by.unwrap_or(Place::Output(self.topic))
    }
}

/// What was done about a record that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// It was dropped.
    Skipped,
    /// It is among the step's records, for the dead-letter topic.
    DeadLettered,
    /// It was dropped, because the dead-letter topic does not take it either.
    Undeliverable {
        /// The dead-letter topic.
        topic: String,
        /// Why it does not.
        why: Refusal,
    },
}

/// A record that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What was done about it.
    pub kind: NoticeKind,
    /// Which record, which node, and why.
    pub failure: TaskFailure,
}

/// What a step did, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Input records that are done.
    pub records_in: u64,
    /// Records emitted, dead letters included.
    pub records_out: u64,
    /// Bytes emitted: keys, values, headers and a little for each record.
    pub bytes_out: u64,
    /// Records that a node dropped because it could not process them.
    pub skipped: u64,
    /// Records that went to a dead-letter topic.
    pub dead_lettered: u64,
    /// Records that were dropped because their dead-letter topic did not take them.
    pub undeliverable: u64,
}

impl StepCounts {
    pub(crate) fn add(&mut self, more: StepCounts) {
        let StepCounts { records_in, records_out, bytes_out, skipped, dead_lettered, undeliverable } = more;
        self.records_in += records_in;
        self.records_out += records_out;
        self.bytes_out += bytes_out;
        self.skipped += skipped;
        self.dead_lettered += dead_lettered;
        self.undeliverable += undeliverable;
    }
}

/// Calls of plugins. Counted apart from [`StepCounts`]: a step that fails has made calls, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub made: u64,
    /// Those that failed.
    pub failed: u64,
}

impl StepOutput {
    /// A source is done up to an offset.
    pub(super) fn reached(&mut self, source: usize, next_offset: i64) {
        match self.positions.iter_mut().find(|(known, _)| *known == source) {
            Some((_, offset)) => *offset = next_offset,
            None => self.positions.push((source, next_offset)),
        }
    }
}

/// What came of a step. Its records are in the sink.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// By source: the input offset to commit once every record is stable. Everything below it is done.
    pub positions: Vec<(usize, i64)>,
    /// What was done.
    pub counts: StepCounts,
    /// Records that could not be processed, in offset order for each input.
    pub notices: Vec<Notice>,
}

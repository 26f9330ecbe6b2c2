//! What a step emits: records that still point into the batch and the answers they come from, placed into partitions.

use std::sync::Arc;

use super::{Answer, BatchIn, OwnedBatch, Partitioner, RecordIn, TaskFailure, Topology, goes_to};

/// A batch that is the caller's, or one that was made on the way.
#[derive(Debug, Clone)]
pub(super) enum Cow<'a> {
    Borrowed(Arc<BatchIn<'a>>),
    Shared(Arc<OwnedBatch>),
}

impl Cow<'_> {
    pub(super) fn as_batch(&self) -> BatchIn<'_> {
        match self {
            Cow::Borrowed(batch) => **batch,
            Cow::Shared(batch) => batch.as_batch(),
        }
    }
}

/// An answer that goes to a topic.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) batch: Cow<'a>,
    pub(super) answer: Arc<Answer>,
    /// The output of the plugin whose records go there; 0 for what no plugin made.
    pub(super) output: u32,
    /// An index in [`Topology::outputs`].
    pub(super) topic: usize,
}

/// What was done about a record that a node could not process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// It was dropped.
    Skipped,
    /// It is among the step's records, for the dead-letter topic.
    DeadLettered,
}

/// A record that a node could not process.
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
}

/// Calls of plugins. Counted apart from [`StepCounts`]: a step that fails has made calls, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub made: u64,
    /// Those that failed.
    pub failed: u64,
}

/// A record and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Emitted<'a> {
    /// An index in [`Topology::outputs`].
    pub topic: usize,
    /// The partition of that topic.
    pub partition: i32,
    /// The record. Its offset is that of the input record that it comes from.
    pub record: RecordIn<'a>,
}

/// What a step emits.
#[derive(Debug)]
pub struct StepOutput<'a> {
    pieces: Vec<Piece<'a>>,
    /// For each piece, the partition of each of its records that is emitted.
    partitions: Vec<Vec<i32>>,
    /// The input offset to commit once every record is stable: everything below it is done.
    pub next_offset: i64,
    /// What was done.
    pub counts: StepCounts,
    /// Records that nodes could not process, in offset order.
    pub notices: Vec<Notice>,
}

impl<'a> StepOutput<'a> {
    pub(super) fn new(
        pieces: Vec<Piece<'a>>,
        mut counts: StepCounts,
        notices: Vec<Notice>,
        next_offset: i64,
        topology: &Topology,
        partitioners: &mut [Partitioner],
    ) -> StepOutput<'a> {
        assert_eq!(partitioners.len(), topology.outputs.len(), "one partitioner for each output topic");
        let mut partitions = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let partitioner = &mut partitioners[piece.topic];
            let placed: Vec<i32> = piece.records().map(|record| partitioner.place(record.key)).collect();
            counts.records_out += placed.len() as u64;
            // A piece that takes one of several outputs emits less than its answer holds: an upper bound.
            counts.bytes_out += piece.answer.bytes();
            partitions.push(placed);
        }
        partitioners.iter_mut().for_each(Partitioner::next_step);
        StepOutput { pieces, partitions, next_offset, counts, notices }
    }

    /// Only what comes from offsets below `offset` could be appended, `records_in` of the input: the rest counts when it
    /// is done.
    pub fn cut(&mut self, offset: i64, records_in: usize) {
        self.next_offset = offset;
        self.counts.records_in = records_in as u64;
        let kept = self.records().filter(|emitted| emitted.record.offset < offset).count();
        self.counts.records_out = kept as u64;
        self.notices.retain(|notice| notice.failure.offset < offset);
        let of = |kind: NoticeKind| self.notices.iter().filter(|notice| notice.kind == kind).count() as u64;
        (self.counts.skipped, self.counts.dead_lettered) =
            (of(NoticeKind::Skipped), of(NoticeKind::DeadLettered));
    }

    /// Every record to append. Those of one topic and partition come in input order, dead letters last.
    pub fn records(&self) -> impl Iterator<Item = Emitted<'_>> {
        self.pieces.iter().zip(&self.partitions).flat_map(|(piece, partitions)| {
            let topic = piece.topic;
            piece.records().zip(partitions).map(move |(record, &partition)| Emitted {
                topic,
                partition,
                record,
            })
        })
    }
}

impl Piece<'_> {
    fn records(&self) -> impl Iterator<Item = RecordIn<'_>> {
        let records = self.answer.records(self.batch.as_batch()).enumerate();
        records.filter(|(i, _)| goes_to(&self.answer, *i, self.output)).map(|(_, record)| record)
    }
}

/// The headers that a dead letter has behind its own. The names are part of the contract with users.
pub fn dead_letter_headers(pipeline: &str, failure: &TaskFailure) -> [(&'static str, String); 7] {
    [
        ("pelton.error.pipeline", pipeline.to_owned()),
        ("pelton.error.node", failure.node.clone()),
        ("pelton.error.topic", failure.topic.clone()),
        ("pelton.error.partition", failure.partition.to_string()),
        ("pelton.error.offset", failure.offset.to_string()),
        ("pelton.error.kind", failure.error.kind().to_owned()),
        ("pelton.error.reason", failure.error.to_string()),
    ]
}

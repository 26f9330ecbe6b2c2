//! The letter of a record that was given up.

use std::sync::Arc;

use crate::answer::Answer;
use crate::batch::{BatchFull, NO_TIMESTAMP, OwnedBatch, RecordIn};
use crate::partitioner::Partitioner;
use crate::sink::{Emissions, Refusal, Sink};
use crate::task::{Cow, ORIGINAL_TIMESTAMP_HEADER, Piece, TaskFailure, dead_letter_headers};
use crate::topology::Topology;

/// A header, for a time.
type Header<'h> = (&'h [u8], Option<&'h [u8]>);

fn shorter<'s, 'l: 's>(header: Header<'l>) -> Header<'s> {
    header
}

/// Where letters go.
pub(super) struct Letters {
    /// An index in [`Topology::outputs`].
    pub(super) output: usize,
    pub(super) partitioner: Partitioner,
}

impl Letters {
    /// Writes the original key, value, headers and timestamp, and the reason in further headers; how many bytes that is.
    pub(super) fn write<'h, H: Iterator<Item = Header<'h>>>(
        &mut self,
        topology: &Topology,
        record: RecordIn<'_>,
        headers: impl Fn() -> H,
        failure: &TaskFailure,
        sink: &mut dyn Sink,
    ) -> Result<u64, Refusal> {
        let reason = dead_letter_headers(topology, failure);
        let timestamp = record.timestamp.to_string();
        let mut further: Vec<Header<'_>> =
            reason.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).collect();
        match self.write_one(record, headers().map(shorter).chain(further.iter().copied()), failure, sink) {
            Err(Refusal::Timestamp { .. }) if record.timestamp != NO_TIMESTAMP => {
                further.push((ORIGINAL_TIMESTAMP_HEADER.as_bytes(), Some(timestamp.as_bytes())));
                let record = RecordIn { timestamp: NO_TIMESTAMP, ..record };
                self.write_one(record, headers().map(shorter).chain(further.iter().copied()), failure, sink)
            }
            written => written,
        }
    }

    fn write_one<'h>(
        &mut self,
        record: RecordIn<'_>,
        headers: impl Iterator<Item = Header<'h>>,
        failure: &TaskFailure,
        sink: &mut dyn Sink,
    ) -> Result<u64, Refusal> {
        let mut batch = OwnedBatch::new(&failure.topic, failure.partition.unsigned_abs());
        let pushed = batch.push(record, headers);
        pushed.map_err(|full: BatchFull| Refusal::Unwritable(full.to_string()))?;
        let placed = self.partitioner.place(record.key, record.key_and_value_bytes());
        self.partitioner.next_step();
        let answer = Arc::new(Answer::identity(&batch.as_batch()));
        let bytes = answer.bytes();
        let batch = Cow::Shared(Arc::new(batch));
        let piece = Piece { batch, answer, output: 0, topic: self.output, made_by: None };
        let emissions = Emissions { pieces: std::slice::from_ref(&piece), partitions: &[vec![placed]] };
        sink.write(emissions).map(|()| bytes).map_err(|refused| {
            let why = refused.into_iter().next().map(|refused| refused.why);
            why.unwrap_or_else(|| Refusal::Unwritable("its topic does not take it".to_owned()))
        })
    }
}

//! Where the records of a range go: each into a partition of its topic, and all of them to the sink.

use super::output::StepCounts;
use super::run::goes_to;
use super::{Outside, Piece, Plugins, RangeError, RecordError, Task};
use crate::batch::{BatchIn, RecordIn};
use crate::partitioner::Partitioner;
use crate::plugin::{PluginError, checked_partitions};
use crate::sink::{Emissions, Refused, Sink};
use crate::topology::OutputTopic;

impl Task {
    /// Places records into partitions and shows them to the sink. Nothing is emitted if that fails.
    pub(super) fn emit(
        &mut self,
        pieces: &[Piece<'_>],
        outside: &mut Outside<'_>,
    ) -> Result<StepCounts, RangeError> {
        let mut partitions = Vec::with_capacity(pieces.len());
        for piece in pieces {
            partitions.push(self.place(piece, outside.plugins)?);
        }
        write(pieces, &partitions, outside.sink).map_err(|refused| {
            let emissions = Emissions { pieces, partitions: &partitions };
            let error = RangeError::of_outputs(emissions, refused, &self.topology);
            error.expect("a sink that refuses names a record of the write")
        })
    }

    /// The same for dead letters, whose topics have no plugin; which of them their topic refuses.
    pub(super) fn emit_letters(
        &mut self,
        letters: &Piece<'_>,
        sink: &mut dyn Sink,
    ) -> Result<StepCounts, Vec<Refused>> {
        let partitioner = &mut self.partitioners[letters.topic];
        let placed = by_rule(partitioner, letters);
        write(std::slice::from_ref(letters), &[placed], sink)
    }

    fn place(&mut self, piece: &Piece<'_>, plugins: &mut Plugins) -> Result<Vec<i32>, RangeError> {
        let output = &self.topology.outputs[piece.topic];
        let partitioner = &mut self.partitioners[piece.topic];
        if output.partitioner.plugin().is_none() {
            return Ok(by_rule(partitioner, piece));
        }
        let plugin = plugins.partitioner(piece.topic);
        let plugin = plugin.expect("every plugin that a step reaches has its instance");
        let partitions = partitioner.partitions();
        let mut call = |batch: BatchIn<'_>| {
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            self.calls.made += 1;
            let placed = plugin.partition(&batch, partitions);
            let placed = placed.and_then(|placed| checked_partitions(&placed, batch.len(), partitions));
            placed.inspect_err(|_| self.calls.failed += 1)
        };
        let input = piece.batch.as_batch();
        let placed = match piece.output == 0 && piece.answer.is_identity_of(&input) {
            true => call(input),
            false => (piece.answer)
                .to_batch(input, |i| goes_to(&piece.answer, i, piece.output))
                .map_err(|full| PluginError::IllFormed { what: full.to_string() })
                .and_then(|batch| call(batch.as_batch())),
        };
        placed.map_err(|error| failed(piece, output, error))
    }
}

fn by_rule(partitioner: &mut Partitioner, piece: &Piece<'_>) -> Vec<i32> {
    let place = |record: RecordIn<'_>| partitioner.place(record.key, record.key_and_value_bytes());
    piece.records().map(place).collect()
}

fn write(
    pieces: &[Piece<'_>],
    partitions: &[Vec<i32>],
    sink: &mut dyn Sink,
) -> Result<StepCounts, Vec<Refused>> {
    sink.write(Emissions { pieces, partitions })?;
    Ok(StepCounts {
        records_out: partitions.iter().map(Vec::len).sum::<usize>() as u64,
        // A piece that takes one of several outputs emits less than its answer holds: an upper bound.
        bytes_out: pieces.iter().map(|piece| piece.answer.bytes()).sum(),
        ..StepCounts::default()
    })
}

/// The partitioner says nothing of single records: which one is to blame is found by halving.
fn failed(piece: &Piece<'_>, output: &OutputTopic, error: PluginError) -> RangeError {
    let error = RecordError::Partitioner { topic: output.topic.clone(), error };
    RangeError::new(piece.place(), error)
}

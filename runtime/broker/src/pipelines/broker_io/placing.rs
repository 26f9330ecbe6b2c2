//! A router notes where it has put what it has routed ([`crate::pipelines::places`]), in the transaction that holds it.

use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use pelton_pipelines::io::{Input, IoError};
use pelton_wire::record::{BatchBuilder, BatchOptions, sequence_add};

use super::BrokerIo;
use crate::group::types::TopicPartition;
use crate::pipelines::places::{Placed, encode};
use crate::producer_id::ProducerIdentity;
use crate::txn::embedded::TransactionalBatch;

/// What a router is to note with its next commit.
#[derive(Default)]
pub(super) struct Placing {
    placed: Vec<Placed>,
    /// Up to where each partition of the intake is routed; none before that was asked for.
    routed: Option<Vec<i64>>,
    next_sequence: i32,
}

impl Placing {
    /// Records have been appended to a partition from an offset on, each of which comes from an offset of the intake.
    pub(super) fn written(&mut self, partition: i32, first: i64, tickets: &[i64]) {
        let placed = tickets.iter().zip(first..);
        self.placed.extend(placed.map(|(&ticket, offset)| Placed { ticket, partition, offset }));
    }
}

impl BrokerIo {
    /// Notes where everything of the open transaction is, which commits these offsets.
    pub(super) fn note_places(
        &mut self,
        producer: ProducerIdentity,
        offsets: &[(Input, i64)],
    ) -> Result<(), IoError> {
        let Some(mut placing) = self.placing.take() else { return Ok(()) };
        let noted = self.note(&mut placing, producer, offsets);
        self.placing = Some(placing);
        noted
    }

    fn note(
        &mut self,
        placing: &mut Placing,
        producer: ProducerIdentity,
        offsets: &[(Input, i64)],
    ) -> Result<(), IoError> {
        let mut placed = std::mem::take(&mut placing.placed);
        let mut routed = match placing.routed.take() {
            Some(routed) => routed,
            None => self.routed_before()?,
        };
        let offsets = if Mutant::PlacesBehind.is_on() { &[] } else { offsets };
        for (input, offset) in offsets {
            let partition = usize::try_from(input.partition).unwrap_or(0);
            if routed.len() <= partition {
                routed.resize(partition + 1, 0);
            }
            routed[partition] = routed[partition].max(*offset);
        }
        let places = self.known.places.as_ref().filter(|_| !placed.is_empty());
        let Some(places) = places.and_then(|topic| Some((topic.name.as_str(), topic.local.first()?))) else {
            placing.routed = Some(routed);
            return Ok(());
        };
        let options = BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: placing.next_sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let failed = |error: &dyn std::fmt::Display| IoError::Unavailable(format!("note places: {error}"));
        let mut builder = BatchBuilder::new(options);
        let value = encode(&routed, &mut placed);
        builder.append(self.clock.now_ms(), None, Some(&value), &[]).map_err(|error| failed(&error))?;
        let batch = builder.build().map_err(|error| failed(&error))?;
        let (name, partition) = places;
        let at = TopicPartition { topic: name.into(), partition: 0 };
        let durability = crate::topic_config::Durability::Group;
        let batches = vec![TransactionalBatch { at, partition: Arc::clone(partition), batch, durability }];
        let Some(room) = self.room(&batches)? else { return Ok(()) };
        self.write_in_transaction(producer, batches, &room)?;
        placing.next_sequence = sequence_add(placing.next_sequence, 1);
        placing.routed = Some(routed);
        Ok(())
    }

    /// Up to where each partition of the intake was routed when this driver began.
    fn routed_before(&self) -> Result<Vec<i64>, IoError> {
        let Some(intake) = self.known.sources.first().and_then(Option::as_ref) else { return Ok(Vec::new()) };
        let committed =
            |partition| Ok(self.committed(&intake.name, partition)?.map_or(0, |(offset, _)| offset));
        (0..intake.partition_count).map(committed).collect()
    }
}

//! The records of a request by partition, and batches of them.

use bytes::Bytes;
use pelton_partitioner::{Partitioner, PartitionerKind};
use pelton_partitions::admission::{Rules, check};
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch, DecompressLimit, Header};

use super::{NewRecord, Place, WriteError};
use crate::producer_id::ProducerIdentity;
use crate::topics::Topic;

/// Version of Produce whose rules are those of records over HTTP: the newest that is told of.
const VERSION: i16 = 12;

/// The records of a request that go to one partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: i32,
    /// With the place of each in the request.
    pub(super) records: Vec<(usize, NewRecord)>,
}

/// Divides the records of a request by partition, in their order.
pub(super) fn parts(
    topic: &Topic,
    records: Vec<NewRecord>,
    rule: PartitionerKind,
) -> Result<Vec<Part>, WriteError> {
    // Each request is a step of its own.
    let seed = topic.id.as_u128() as u32;
    let mut partitioner = Partitioner::new(rule, topic.partition_count.unsigned_abs().max(1), seed);
    let mut parts: Vec<Part> = Vec::new();
    for (index, record) in records.into_iter().enumerate() {
        let partition = match record.partition {
            Some(partition) if topic.has_partition(partition) => partition,
            Some(partition) => {
                let (name, count) = (&topic.name, topic.partition_count);
                let why = format!(
                    "record {index}: topic `{name}` has {count} partitions, and no partition {partition}"
                );
                return Err(WriteError::Refused(why));
            }
            None => {
                let bytes =
                    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
                partitioner.place(record.key.as_deref(), bytes)
            }
        };
        match parts.iter_mut().find(|part| part.partition == partition) {
            Some(part) => part.records.push((index, record)),
            None => parts.push(Part { partition, records: vec![(index, record)] }),
        }
    }
    Ok(parts)
}

impl Part {
    /// A batch that the topic takes; of a transaction, with the producer and the sequence of its first record.
    pub(super) fn batch(
        &self,
        topic: &Topic,
        transaction: Option<(ProducerIdentity, i32)>,
        now_ms: i64,
        limit: DecompressLimit,
    ) -> Result<CheckedBatch, WriteError> {
        let options =
            transaction.map_or_else(BatchOptions::default, |(producer, base_sequence)| BatchOptions {
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                base_sequence,
                transactional: true,
                ..BatchOptions::default()
            });
        let refused = |why: &dyn std::fmt::Display| {
            let first = self.records.first().map_or(0, |(index, _)| *index);
            let (topic, partition) = (&topic.name, self.partition);
            WriteError::Refused(format!(
                "topic `{topic}` does not take records for partition {partition}, from record {first} on: {why}"
            ))
        };
        let mut builder = BatchBuilder::new(options);
        for (_, record) in &self.records {
            let headers: Vec<Header<'_>> = record
                .headers
                .iter()
                .map(|(name, value)| Header { key: name.as_bytes(), value: value.as_deref() })
                .collect();
            let timestamp = record.timestamp.unwrap_or(now_ms);
            let pushed = builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
            pushed.map_err(|error| refused(&error))?;
        }
        let bytes = builder.finish().map_err(|error| refused(&error))?;
        let rules = Rules { topic: &topic.config, version: VERSION, now_ms, limit };
        check(Some(bytes), &rules, &mut Vec::new()).map_err(|refusal| {
            match refusal.record_problems().first() {
                Some(problem) => {
                    let index = usize::try_from(problem.index).ok().and_then(|index| self.records.get(index));
                    let index = index.map_or(0, |(index, _)| *index);
                    WriteError::Refused(format!("record {index}: {}", problem.kind))
                }
                None => refused(&refusal),
            }
        })
    }

    /// Notes where its records are.
    pub(super) fn note(&self, base_offset: i64, places: &mut [Place]) {
        for ((index, _), offset) in self.records.iter().zip(base_offset..) {
            places[*index] = Place { partition: self.partition, offset };
        }
    }
}

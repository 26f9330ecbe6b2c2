//! Puts what a step emits into batches that their topics take.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_streams::Topology;
use pelton_streams::task::StepOutput;
use pelton_wire::record::{BatchBuilder, BatchOptions, Header, sequence_add};

use super::super::io::{DriverIo, IoError};
use crate::producer_id::ProducerIdentity;

/// An output batch is closed when it has so many bytes, or what its topic's `max.message.bytes` allows if that is less.
const OUTPUT_BATCH_BYTES: usize = 256 << 10;
/// What a record or a header takes besides its bytes, at the most: the varints of its lengths and deltas.
const FRAME_BYTES: usize = 40;

/// An index in [`Topology::outputs`] and a partition.
type Slot = (usize, i32);

/// A batch that may be appended.
pub(super) struct Ready {
    pub(super) slot: Slot,
    pub(super) batch: Bytes,
    /// The sequence after its last record.
    next_sequence: i32,
}

/// Who the driver is as a producer of transactions, and the next sequence of each partition that it writes to.
#[derive(Default)]
pub(super) struct Producer {
    identity: Option<ProducerIdentity>,
    sequences: BTreeMap<Slot, i32>,
}

impl Producer {
    /// A producer in a new epoch, in which sequences begin at 0. `None`: one without transactions.
    pub(super) fn new(identity: Option<ProducerIdentity>) -> Producer {
        Producer { identity, sequences: BTreeMap::new() }
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.identity.is_some()
    }

    /// Batches are in the log.
    pub(super) fn appended(&mut self, ready: &[Ready]) {
        if self.is_transactional() {
            self.sequences.extend(ready.iter().map(|ready| (ready.slot, ready.next_sequence)));
        }
    }

    fn options(&self, base_sequence: i32) -> BatchOptions {
        match self.identity {
            None => BatchOptions::default(),
            Some(ProducerIdentity { id, epoch }) => BatchOptions {
                producer_id: id,
                producer_epoch: epoch,
                base_sequence,
                transactional: true,
                ..BatchOptions::default()
            },
        }
    }
}

/// Why there is nothing to append.
pub(super) enum PackError {
    /// A topic does not take a batch. If it is of one record, the record is to blame.
    Refused {
        /// The source offset of its first record.
        offset: i64,
        /// How many it has.
        records: i32,
        reason: String,
    },
    Io(IoError),
}

struct Open {
    builder: BatchBuilder,
    /// The source offset of its first record.
    offset: i64,
    limit: usize,
    base_sequence: i32,
}

/// Everything that comes from source offsets below `before`, in the order to append it; one record a batch if `singly`.
pub(super) fn pack(
    io: &dyn DriverIo,
    topology: &Topology,
    output: &StepOutput<'_>,
    before: i64,
    producer: &Producer,
    singly: bool,
) -> Result<Vec<Ready>, PackError> {
    let mut ready = Vec::new();
    let mut open: BTreeMap<Slot, Open> = BTreeMap::new();
    // Of partitions that have a batch in `ready`.
    let mut sequences: BTreeMap<Slot, i32> = BTreeMap::new();
    let mut headers: Vec<Header<'_>> = Vec::new();
    for emitted in output.records().filter(|emitted| emitted.record.offset < before) {
        let record = &emitted.record;
        headers.clear();
        headers.extend(record.headers.map(|(key, value)| Header { key, value }));
        let slot = (emitted.topic, emitted.partition);
        let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let of_headers = headers.iter().map(|header| FRAME_BYTES + header.key.len() + size(header.value));
        let bytes = FRAME_BYTES + size(record.key) + size(record.value) + of_headers.sum::<usize>();
        let full =
            |open: &Open| singly || open.builder.uncompressed_bytes().saturating_add(bytes) > open.limit;
        if open.get(&slot).is_some_and(full)
            && let Some(done) = open.remove(&slot)
        {
            let done = close(io, topology, slot, done)?;
            sequences.insert(slot, done.next_sequence);
            ready.push(done);
        }
        let entry = open.entry(slot).or_insert_with(|| {
            let base_sequence =
                sequences.get(&slot).or_else(|| producer.sequences.get(&slot)).copied().unwrap_or(0);
            Open {
                builder: BatchBuilder::new(producer.options(base_sequence)),
                offset: record.offset,
                limit: io.max_batch_bytes(&topology.outputs[slot.0].topic).min(OUTPUT_BATCH_BYTES),
                base_sequence,
            }
        });
        // A record without a timestamp gets the time at which it is written.
        let timestamp = if record.timestamp < 0 { io.now_ms() } else { record.timestamp };
        entry.builder.append(timestamp, record.key, record.value, &headers).map_err(|error| {
            PackError::Refused { offset: record.offset, records: 1, reason: error.to_string() }
        })?;
    }
    for (slot, rest) in open {
        ready.push(close(io, topology, slot, rest)?);
    }
    Ok(ready)
}

fn close(io: &dyn DriverIo, topology: &Topology, slot: Slot, open: Open) -> Result<Ready, PackError> {
    let (offset, records) = (open.offset, open.builder.records_count());
    let refused = |reason: String| PackError::Refused { offset, records, reason };
    let batch = open.builder.finish().map_err(|error| refused(error.to_string()))?;
    match io.prepare(&topology.outputs[slot.0].topic, slot.1, batch) {
        Ok(batch) => Ok(Ready { slot, batch, next_sequence: sequence_add(open.base_sequence, records) }),
        Err(error @ IoError::Refused { .. }) => Err(refused(error.to_string())),
        Err(error) => Err(PackError::Io(error)),
    }
}

//! Puts what a step emits into batches that their topics take.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_streams::Topology;
use pelton_streams::task::StepOutput;
use pelton_wire::record::{BatchBuilder, BatchOptions, Header};

use super::super::io::{DriverIo, IoError};

/// An output batch is closed when it has so many bytes, or what its topic's `max.message.bytes` allows if that is less.
const OUTPUT_BATCH_BYTES: usize = 256 << 10;
/// What a record or a header takes besides its bytes, at the most: the varints of its lengths and deltas.
const FRAME_BYTES: usize = 40;

/// A batch that may be appended: an index in [`Topology::outputs`], a partition, the bytes.
pub(super) type Ready = (usize, i32, Bytes);

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
}

/// Everything that comes from source offsets below `before`, in the order to append it; one record a batch if `singly`.
pub(super) fn pack(
    io: &dyn DriverIo,
    topology: &Topology,
    output: &StepOutput<'_>,
    before: i64,
    singly: bool,
) -> Result<Vec<Ready>, PackError> {
    let mut ready = Vec::new();
    let mut open: BTreeMap<(usize, i32), Open> = BTreeMap::new();
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
            ready.push(close(io, topology, slot, done)?);
        }
        let entry = open.entry(slot).or_insert_with(|| Open {
            builder: BatchBuilder::new(BatchOptions::default()),
            offset: record.offset,
            limit: io.max_batch_bytes(&topology.outputs[slot.0].topic).min(OUTPUT_BATCH_BYTES),
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

fn close(io: &dyn DriverIo, topology: &Topology, slot: (usize, i32), open: Open) -> Result<Ready, PackError> {
    let (offset, records) = (open.offset, open.builder.records_count());
    let refused = |reason: String| PackError::Refused { offset, records, reason };
    let batch = open.builder.finish().map_err(|error| refused(error.to_string()))?;
    match io.prepare(&topology.outputs[slot.0].topic, slot.1, batch) {
        Ok(batch) => Ok((slot.0, slot.1, batch)),
        Err(error @ IoError::Refused { .. }) => Err(refused(error.to_string())),
        Err(error) => Err(PackError::Io(error)),
    }
}

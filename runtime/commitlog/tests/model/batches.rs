//! Batches of all shapes.

use bytes::Bytes;
use pelton_commitlog::storage::sim::SimRng;
use pelton_wire::record::{BatchBuilder, BatchOptions, Codec, EndTransactionMarker, end_transaction_batch};

/// What identifies the producer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
}

/// A batch as a client sends it, and the timestamps of its records.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) producer: Option<Producer>,
}

pub(crate) fn random(rng: &mut SimRng, now_ms: i64, producer: Option<Producer>) -> Sent {
    let codecs = [Codec::None, Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let mut options = BatchOptions { codec: codecs[rng.up_to(codecs.len() - 1)], ..BatchOptions::default() };
    if let Some(producer) = producer {
        options.producer_id = producer.id;
        options.producer_epoch = producer.epoch;
        options.base_sequence = producer.sequence;
        options.transactional = producer.transactional;
    }
    let most = if rng.chance(20) { 40 } else { 3 };
    let count = 1 + rng.up_to(most);
    let largest = [10, 100, 1000, 12_000][rng.up_to(3)];
    let mut builder = BatchBuilder::new(options);
    let mut timestamps = Vec::new();
    for _ in 0..count {
        // Mostly in order, sometimes far off either way.
        let timestamp = match rng.up_to(9) {
            0 => now_ms - rng.up_to(20_000) as i64,
            1 => now_ms + rng.up_to(2_000) as i64,
            _ => now_ms + rng.up_to(10) as i64,
        }
        .max(0);
        let value: Vec<u8> = (0..rng.up_to(largest)).map(|_| rng.bits() as u8).collect();
        builder.append(timestamp, None, Some(&value), &[]).unwrap();
        timestamps.push(timestamp);
    }
    Sent { bytes: builder.finish().unwrap(), timestamps, producer }
}

pub(crate) fn marker(committed: bool, producer: Producer, now_ms: i64) -> Bytes {
    let marker = EndTransactionMarker { committed, coordinator_epoch: 1 };
    end_transaction_batch(&marker, producer.id, producer.epoch, now_ms).unwrap().into_bytes()
}

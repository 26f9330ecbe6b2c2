//! The `.snapshot` file: producer state at the offset of its name, in Kafka's bytes.
//!
//! Only the last batch of each producer is kept; the other four come back with the batches that are replayed.

use pelton_wire::record::NO_SEQUENCE;

use super::{BTreeMap, HashMap, ProducerBatch, ProducerState, ProducerStates, VecDeque};

const VERSION: i16 = 1;
/// Version and checksum, both before what the checksum covers.
const CRC_COVERS_FROM: usize = 6;
const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;
/// `currentTxnFirstOffset` of a producer without an open transaction; also the last offset of one without
/// batches.
const NONE: i64 = -1;

/// Why bytes are not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("{0} bytes are no whole snapshot")]
    Length(usize),
    #[error("version is `{0}`, expected `{VERSION}`")]
    Version(i16),
    #[error("checksum `{stored:08x}` in the file, `{computed:08x}` computed")]
    Crc { stored: u32, computed: u32 },
}

impl ProducerStates {
    /// The bytes of a snapshot.
    pub(crate) fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.producers.len() * ENTRY_BYTES);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((self.producers.len() as u32).to_be_bytes());
        for (producer_id, state) in self.all() {
            put_entry(&mut bytes, producer_id, state);
        }
        let crc = crc_fast::crc32_iscsi(&bytes[CRC_COVERS_FROM..]);
        bytes[2..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a snapshot. Open transactions in it are ongoing again.
    pub(crate) fn from_snapshot(bytes: &[u8]) -> Result<ProducerStates, SnapshotError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(SnapshotError::Length(bytes.len()))?;
        let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *header;
        let version = i16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let stored = u32::from_be_bytes([c0, c1, c2, c3]);
        let computed = crc_fast::crc32_iscsi(&bytes[CRC_COVERS_FROM..]);
        if stored != computed {
            return Err(SnapshotError::Crc { stored, computed });
        }
        let (entries, rest) = bytes[HEADER_BYTES..].as_chunks::<ENTRY_BYTES>();
        if entries.len() as u64 != u64::from(u32::from_be_bytes([n0, n1, n2, n3])) || !rest.is_empty() {
            return Err(SnapshotError::Length(bytes.len()));
        }
        let producers: HashMap<i64, ProducerState> = entries.iter().map(entry).collect();
        let open = |(id, state): (&i64, &ProducerState)| Some((state.current_txn_first_offset?, *id));
        let ongoing: BTreeMap<i64, i64> = producers.iter().filter_map(open).collect();
        Ok(ProducerStates { producers, ongoing, ..ProducerStates::default() })
    }
}

fn put_entry(bytes: &mut Vec<u8>, producer_id: i64, state: &ProducerState) {
    let last = state.batches.back();
    let offset_delta = last.map_or(0, |b| b.last_offset.saturating_sub(b.base_offset)) as i32;
    bytes.extend(producer_id.to_be_bytes());
    bytes.extend(state.epoch.to_be_bytes());
    bytes.extend(last.map_or(NO_SEQUENCE, |b| b.last_sequence).to_be_bytes());
    bytes.extend(last.map_or(NONE, |b| b.last_offset).to_be_bytes());
    bytes.extend(offset_delta.to_be_bytes());
    bytes.extend(state.last_write_ms.to_be_bytes());
    bytes.extend(state.coordinator_epoch.to_be_bytes());
    bytes.extend(state.current_txn_first_offset.unwrap_or(NONE).to_be_bytes());
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> (i64, ProducerState) {
    let i64_at = |at: usize| i64::from_be_bytes(field(bytes, at));
    let i32_at = |at: usize| i32::from_be_bytes(field(bytes, at));
    let (last_sequence, last_offset, offset_delta) = (i32_at(10), i64_at(14), i32_at(22).max(0));
    let last_write_ms = i64_at(26);
    let mut batches = VecDeque::new();
    if last_offset >= 0 {
        batches.push_back(ProducerBatch {
            first_sequence: first_sequence(last_sequence, offset_delta),
            last_sequence,
            base_offset: last_offset.saturating_sub(i64::from(offset_delta)),
            last_offset,
            timestamp: last_write_ms,
        });
    }
    let txn = i64_at(38);
    let state = ProducerState {
        epoch: i16::from_be_bytes(field(bytes, 8)),
        coordinator_epoch: i32_at(34),
        last_write_ms,
        current_txn_first_offset: (txn >= 0).then_some(txn),
        batches,
    };
    (i64_at(0), state)
}

/// The sequence `delta` records before `last`, where sequences go from 2147483647 to 0.
fn first_sequence(last: i32, delta: i32) -> i32 {
    match last {
        NO_SEQUENCE => NO_SEQUENCE,
        last => last.wrapping_sub(delta) & i32::MAX,
    }
}

fn field<const N: usize>(bytes: &[u8; ENTRY_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies inside the entry")
}

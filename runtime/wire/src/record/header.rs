//! The 61 bytes before the records of a batch.

use super::compression::Codec;
use super::sequence::sequence_add;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// The only batch version that is supported.
pub const MAGIC: i8 = 2;
/// `producer_id` of a batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// `producer_epoch` of a batch whose producer is not idempotent.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// `base_sequence` of a batch without a sequence (no idempotent producer, or a control batch).
pub const NO_SEQUENCE: i32 = -1;
/// `partition_leader_epoch` before a leader has set one.
pub const NO_LEADER_EPOCH: i32 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Bytes of `baseOffset` and `length`, which `length` does not count.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;
/// The smallest `length`: a header without records.
const MIN_LENGTH: i32 = (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32;
/// The checksum covers everything from here: base offset and leader epoch can be changed without touching it.
pub(super) const CRC_COVERS_FROM: usize = 21;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

const _: () = assert!(MIN_LENGTH == 49);

/// Why bytes are not a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header has.
    #[error("a batch header needs {HEADER_BYTES} bytes, there are {have}")]
    Short {
        /// Bytes there are.
        have: usize,
    },
    /// Another format version. Magic 0 and 1 are the message sets of Kafka before 0.11.
    #[error("unsupported magic `{0}`, only record batches of magic {MAGIC} are known")]
    Magic(i8),
    /// The length field is smaller than the header.
    #[error("batch length `{0}` is smaller than the {MIN_LENGTH} bytes of its own header")]
    Length(i32),
    /// The batch says that it is longer than the bytes there are.
    #[error("the batch is {total} bytes long, there are {have}")]
    Truncated {
        /// Bytes of the whole batch.
        total: usize,
        /// Bytes there are.
        have: usize,
    },
    /// More bytes follow the one batch that was expected.
    #[error("the batch is {total} bytes long, but {have} bytes came: one batch was expected")]
    Trailing {
        /// Bytes of the whole batch.
        total: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Base offset and last offset delta do not make a range of offsets.
    #[error(
        "base offset `{base_offset}` and last offset delta `{last_offset_delta}` are no range of offsets"
    )]
    OffsetRange {
        /// As in the header.
        base_offset: i64,
        /// As in the header.
        last_offset_delta: i32,
    },
    /// The record count is negative.
    #[error("record count `{0}` is negative")]
    RecordsCount(i32),
    /// The checksum does not match.
    #[error("checksum `{stored:08x}` in the batch, `{computed:08x}` computed")]
    Crc {
        /// CRC-32C in the header.
        stored: u32,
        /// CRC-32C of the bytes.
        computed: u32,
    },
}

/// The attributes name a codec that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression codec `{0}`")]
pub struct UnknownCodec(pub u8);

/// Who set the timestamps of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The broker, at append: the batch's `max_timestamp` is the timestamp of every record in it.
    LogAppendTime,
}

/// The header of a record batch, all fields as on the wire.
///
/// One that came from [`BatchHeader::parse`] has `magic` 2, a `length` of at least 49, a `last_offset_delta` and a
/// `records_count` that are not negative, and a last offset that fits `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record that was in the batch when it was made.
    pub base_offset: i64,
    /// Bytes after this field.
    pub length: i32,
    /// Epoch of the leader that appended it, [`NO_LEADER_EPOCH`] before that.
    pub partition_leader_epoch: i32,
    /// Format version.
    pub magic: i8,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
    /// Codec and flags; see the methods.
    pub attributes: i16,
    /// Last offset minus base offset. Compaction keeps it, so it may be larger than the last record's.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to, or the delete horizon (ms).
    pub base_timestamp: i64,
    /// Largest record timestamp (ms), or the append time.
    pub max_timestamp: i64,
    /// Id of an idempotent producer, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Epoch of that id, or [`NO_PRODUCER_EPOCH`].
    pub producer_epoch: i16,
    /// Sequence of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Records in the batch; compaction may leave 0.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads a header from the first 61 bytes of `bytes`. The checksum is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(b) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short { have: bytes.len() });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(b, 0)),
            length: i32::from_be_bytes(field(b, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(b, 12)),
            magic: i8::from_be_bytes(field(b, 16)),
            crc: u32::from_be_bytes(field(b, 17)),
            attributes: i16::from_be_bytes(field(b, 21)),
            last_offset_delta: i32::from_be_bytes(field(b, 23)),
            base_timestamp: i64::from_be_bytes(field(b, 27)),
            max_timestamp: i64::from_be_bytes(field(b, 35)),
            producer_id: i64::from_be_bytes(field(b, 43)),
            producer_epoch: i16::from_be_bytes(field(b, 51)),
            base_sequence: i32::from_be_bytes(field(b, 53)),
            records_count: i32::from_be_bytes(field(b, 57)),
        };
        header.check()
    }

    fn check(self) -> Result<BatchHeader, BatchError> {
        if self.magic != MAGIC {
            return Err(BatchError::Magic(self.magic));
        }
        if self.length < MIN_LENGTH {
            return Err(BatchError::Length(self.length));
        }
        let last = self.base_offset.checked_add(i64::from(self.last_offset_delta));
        if self.last_offset_delta < 0 || last.is_none() {
            let BatchHeader { base_offset, last_offset_delta, .. } = self;
            return Err(BatchError::OffsetRange { base_offset, last_offset_delta });
        }
        if self.records_count < 0 {
            return Err(BatchError::RecordsCount(self.records_count));
        }
        Ok(self)
    }

    /// The 61 bytes of this header, with the checksum as it stands in the field.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        b[8..12].copy_from_slice(&self.length.to_be_bytes());
        b[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        b[16..17].copy_from_slice(&self.magic.to_be_bytes());
        b[17..21].copy_from_slice(&self.crc.to_be_bytes());
        b[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        b[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        b[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        b[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        b[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        b[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        b[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        b[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        b
    }

    /// The CRC-32C of a batch with this header and these bytes after it. For a caller that writes header and
    /// records from two buffers, and so can change the header without copying the records.
    pub fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.encode()[CRC_COVERS_FROM..]);
        digest.update(records);
        digest.finalize() as u32
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        LENGTH_PREFIX_BYTES + usize::try_from(self.length).unwrap_or(0)
    }

    /// Offset of the last record that was in the batch when it was made. A reader goes on at the one after it,
    /// whether or not compaction has left that record in.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, UnknownCodec> {
        Codec::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records (transaction markers and the like) instead of data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether an idempotent producer made it.
    pub fn has_producer(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// When compaction may drop the tombstones or the marker in this batch (ms), where that is set (KIP-534).
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Sequence of the last record, [`NO_SEQUENCE`] for a batch without sequences.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            NO_SEQUENCE => NO_SEQUENCE,
            base => sequence_add(base, self.last_offset_delta),
        }
    }

    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.attributes = (self.attributes & !CODEC_MASK) | i16::from(codec.id());
    }

    pub(super) fn set_timestamp_type(&mut self, timestamp_type: TimestampType) {
        self.set_flag(LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime);
    }

    pub(super) fn set_transactional(&mut self, on: bool) {
        self.set_flag(TRANSACTIONAL, on);
    }

    pub(super) fn set_control(&mut self, on: bool) {
        self.set_flag(CONTROL, on);
    }

    pub(super) fn set_delete_horizon(&mut self, horizon: Option<i64>) {
        self.set_flag(DELETE_HORIZON, horizon.is_some());
        if let Some(horizon) = horizon {
            self.base_timestamp = horizon;
        }
    }

    fn set_flag(&mut self, flag: i16, on: bool) {
        self.attributes = if on { self.attributes | flag } else { self.attributes & !flag };
    }
}

/// The `N` bytes at `at`.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies inside the header")
}

//! Writing batches.

use bytes::Bytes;

use super::checked::CheckedBatch;
use super::compression::{Codec, CompressError, DecompressLimit};
use super::edit::seal;
use super::header::{
    BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
};
use super::records::{Header, Record, RecordError};
use super::varint::{put_varlong, varlong_len};
use super::view::BatchView;

/// Most bytes of a batch: its length field is a signed 32-bit number.
pub const MAX_BATCH_BYTES: usize = i32::MAX as usize;

/// Why a batch cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It would be larger than the format allows.
    #[error("the batch would be larger than {MAX_BATCH_BYTES} bytes")]
    TooLarge,
    /// Offsets inside a batch only go up, and stay within [`BatchOptions::last_offset_delta`] if that is set.
    #[error("offset delta `{delta}` after `{previous}`")]
    OffsetDelta {
        /// The record's.
        delta: i32,
        /// The one before it, -1 at the start; or the last one allowed.
        previous: i32,
    },
    /// A batch without records needs [`BatchOptions::last_offset_delta`], for the offsets that it covers.
    #[error("a batch without records needs a last offset delta")]
    Empty,
    /// The codec failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The records to be rewritten cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// The header fields of a batch that do not follow from its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the first record. 0 from a producer: the broker assigns it.
    pub base_offset: i64,
    /// Epoch of the leader.
    pub partition_leader_epoch: i32,
    /// How to compress.
    pub codec: Codec,
    /// The compression level; see [`Codec::compress`].
    pub level: Option<i32>,
    /// Who sets timestamps.
    pub timestamp_type: TimestampType,
    /// Id of an idempotent producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// Holds control records.
    pub control: bool,
    /// When compaction may drop the tombstones in it (ms). It takes the place of `base_timestamp`.
    pub delete_horizon: Option<i64>,
    /// What timestamps are written relative to; by default the first record's.
    pub base_timestamp: Option<i64>,
    /// The append time of a batch with [`TimestampType::LogAppendTime`], the largest timestamp of one without
    /// records. Otherwise the largest timestamp is taken from the records.
    pub max_timestamp: Option<i64>,
    /// The last offset minus the base offset where that is not the last record's: after compaction.
    pub last_offset_delta: Option<i32>,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            base_offset: 0,
            partition_leader_epoch: NO_LEADER_EPOCH,
            codec: Codec::None,
            level: None,
            timestamp_type: TimestampType::CreateTime,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            delete_horizon: None,
            base_timestamp: None,
            max_timestamp: None,
            last_offset_delta: None,
        }
    }
}

impl BatchOptions {
    /// Options that keep what identifies a stored batch: offsets, sequence, producer, flags, codec. For compaction,
    /// which writes it anew with fewer records. An unknown codec becomes no compression.
    pub fn like(header: &BatchHeader) -> BatchOptions {
        BatchOptions {
            base_offset: header.base_offset,
            partition_leader_epoch: header.partition_leader_epoch,
            codec: header.codec().unwrap_or_default(),
            level: None,
            timestamp_type: header.timestamp_type(),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            delete_horizon: header.delete_horizon(),
            base_timestamp: None,
            max_timestamp: Some(header.max_timestamp),
            last_offset_delta: Some(header.last_offset_delta),
        }
    }
}

/// Builds one batch, record by record.
///
/// ```
/// # use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, Codec};
/// let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::Lz4, ..BatchOptions::default() });
/// builder.append(1_000, Some(b"key"), Some(b"value"), &[])?;
/// let batch = builder.finish()?;
/// assert_eq!(BatchView::check(&batch)?.header().records_count, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records, uncompressed.
    bytes: Vec<u8>,
    count: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    /// Of the last record, -1 before the first.
    last_delta: i32,
}

/// A batch without records that takes `offsets` offsets of a log (at least 1), as compaction leaves one: readers pass over it.
///
/// # Errors
/// `offsets` is less than 1.
pub fn hole_batch(offsets: i32) -> Result<CheckedBatch, BuildError> {
    let last_offset_delta = Some(offsets.saturating_sub(1));
    BatchBuilder::new(BatchOptions { last_offset_delta, ..BatchOptions::default() }).build()
}

/// A state of a [`BatchBuilder`].
#[derive(Clone, Copy, Debug)]
pub struct BuilderMark {
    bytes: usize,
    count: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    last_delta: i32,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> BatchBuilder {
        BatchBuilder::with_capacity(options, 0)
    }

    /// An empty batch with room for `bytes` bytes of uncompressed records.
    pub fn with_capacity(options: BatchOptions, bytes: usize) -> BatchBuilder {
        let base_timestamp = options.delete_horizon.or(options.base_timestamp);
        let mut buffer = Vec::with_capacity(HEADER_BYTES + bytes);
        buffer.resize(HEADER_BYTES, 0);
        BatchBuilder {
            options,
            bytes: buffer,
            count: 0,
            base_timestamp,
            max_timestamp: i64::MIN,
            last_delta: -1,
        }
    }

    /// Appends a record at the next offset. `timestamp` in ms.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BuildError> {
        let previous = self.last_delta;
        let delta = previous.checked_add(1).ok_or(BuildError::TooLarge)?;
        self.append_at(delta, timestamp, key, value, headers.iter().copied())
    }

    /// Appends a record of another batch with its timestamp, headers and offset delta.
    pub fn append_record(&mut self, record: &Record<'_>) -> Result<(), BuildError> {
        self.append_at(record.offset_delta, record.timestamp, record.key, record.value, record.headers)
    }

    /// Appends a record at `base_offset + delta`, which must lie after the last one.
    pub fn append_at<'h>(
        &mut self,
        delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
    ) -> Result<(), BuildError> {
        if delta <= self.last_delta {
            return Err(BuildError::OffsetDelta { delta, previous: self.last_delta });
        }
        if let Some(last) = self.options.last_offset_delta.filter(|last| delta > *last) {
            return Err(BuildError::OffsetDelta { delta, previous: last });
        }
        let base_timestamp = self.base_timestamp.unwrap_or(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp);
        let body = 1
            + varlong_len(timestamp_delta)
            + varlong_len(i64::from(delta))
            + nullable_len(key)
            + nullable_len(value)
            + varlong_len(headers.len() as i64)
            + headers.clone().map(|h| nullable_len(Some(h.key)) + nullable_len(h.value)).sum::<usize>();
        if self.bytes.len() + varlong_len(body as i64) + body > MAX_BATCH_BYTES {
            return Err(BuildError::TooLarge);
        }
        let out = &mut self.bytes;
        put_varlong(out, body as i64);
        out.push(0);
        put_varlong(out, timestamp_delta);
        put_varlong(out, i64::from(delta));
        put_nullable(out, key);
        put_nullable(out, value);
        put_varlong(out, headers.len() as i64);
        for header in headers {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
        self.count += 1;
        self.last_delta = delta;
        self.base_timestamp = Some(base_timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    /// The present state of the batch, for [`rollback`](Self::rollback).
    pub fn mark(&self) -> BuilderMark {
        BuilderMark {
            bytes: self.bytes.len(),
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            last_delta: self.last_delta,
        }
    }

    /// Removes the records that were appended since `mark`.
    pub fn rollback(&mut self, mark: BuilderMark) {
        self.bytes.truncate(mark.bytes);
        self.count = mark.count;
        self.base_timestamp = mark.base_timestamp;
        self.max_timestamp = mark.max_timestamp;
        self.last_delta = mark.last_delta;
    }

    /// Records so far.
    pub fn records_count(&self) -> i32 {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, header included, before compression.
    pub fn uncompressed_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the batch.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        self.build().map(CheckedBatch::into_bytes)
    }

    /// The batch. Without compression it is the buffer that the records were written into.
    pub fn build(self) -> Result<CheckedBatch, BuildError> {
        let header = self.header()?;
        if self.options.codec.is_compressed() && self.count > 0 {
            return compressed(header, self.options.codec, self.options.level, &self.bytes[HEADER_BYTES..]);
        }
        sealed(header, Codec::None, self.bytes)
    }

    fn header(&self) -> Result<BatchHeader, BuildError> {
        let options = &self.options;
        let last_offset_delta = match options.last_offset_delta {
            None if self.count == 0 => return Err(BuildError::Empty),
            None => self.last_delta,
            Some(delta) if delta < 0 => {
                return Err(BuildError::OffsetDelta { delta, previous: self.last_delta });
            }
            Some(delta) => delta,
        };
        let from_records = (self.count > 0).then_some(self.max_timestamp);
        let max_timestamp = match options.timestamp_type {
            TimestampType::CreateTime => from_records.or(options.max_timestamp),
            TimestampType::LogAppendTime => options.max_timestamp.or(from_records),
        };
        let mut header = BatchHeader {
            base_offset: options.base_offset,
            length: 0,
            partition_leader_epoch: options.partition_leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp: max_timestamp.unwrap_or(NO_TIMESTAMP),
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            records_count: self.count,
        };
        header.set_timestamp_type(options.timestamp_type);
        header.set_transactional(options.transactional);
        header.set_control(options.control);
        header.set_delete_horizon(options.delete_horizon);
        Ok(header)
    }
}

/// The batch with its records compressed by another codec, everything else kept.
pub fn recompress(
    view: &BatchView<'_>,
    codec: Codec,
    level: Option<i32>,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<CheckedBatch, BuildError> {
    let records = view.decompressed(scratch, limit)?;
    if codec.is_compressed() && !records.is_empty() {
        return compressed(*view.header(), codec, level, records);
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + records.len());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(records);
    sealed(*view.header(), Codec::None, bytes)
}

/// The batch with its records at the offsets 0, 1, 2 … after the base offset, everything else kept: for clients that
/// get them wrong (see [`Validated::offsets_wrong`](super::Validated::offsets_wrong)).
pub fn rewrite_offsets(
    view: &BatchView<'_>,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<CheckedBatch, BuildError> {
    let base_timestamp = Some(view.header().base_timestamp);
    let options = BatchOptions { base_timestamp, ..BatchOptions::like(view.header()) };
    let mut builder = BatchBuilder::with_capacity(options, view.payload().len());
    for (record, delta) in view.records(scratch, limit)?.with_any_offsets().zip(0..) {
        let Record { timestamp, key, value, headers, .. } = record?;
        builder.append_at(delta, timestamp, key, value, headers)?;
    }
    builder.build()
}

fn compressed(
    header: BatchHeader,
    codec: Codec,
    level: Option<i32>,
    records: &[u8],
) -> Result<CheckedBatch, BuildError> {
    let mut bytes = vec![0; HEADER_BYTES];
    codec.compress(level, records, &mut bytes)?;
    sealed(header, codec, bytes)
}

/// Writes the header into the room before the records and computes the checksum.
fn sealed(mut header: BatchHeader, codec: Codec, mut bytes: Vec<u8>) -> Result<CheckedBatch, BuildError> {
    let length = bytes.len() - LENGTH_PREFIX_BYTES;
    header.length = i32::try_from(length).map_err(|_| BuildError::TooLarge)?;
    header.set_codec(codec);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    header.crc = seal(&mut bytes);
    Ok(CheckedBatch::sealed(header, Bytes::from(bytes)))
}

fn nullable_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |field| varlong_len(field.len() as i64) + field.len())
}

fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(field) => {
            put_varlong(out, field.len() as i64);
            out.extend_from_slice(field);
        }
    }
}

//! The records inside a batch, borrowed from its uncompressed bytes.

use super::compression::DecompressError;
use super::header::{BatchHeader, TimestampType, UnknownCodec};
use super::varint::{Cursor, VarintError};

/// Bytes of a record without key, value and headers.
const MIN_RECORD_BYTES: usize = 7;

/// Why the records of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The codec is unknown.
    #[error(transparent)]
    Codec(#[from] UnknownCodec),
    /// The records cannot be decompressed, or only to more than the limit.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record is not well-formed.
    #[error("record {index} of the batch: {fault}")]
    Malformed {
        /// Which record, from 0.
        index: i32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// More bytes follow the records that the header counts.
    #[error("{bytes} bytes follow the {count} records that the batch header counts")]
    Trailing {
        /// Records the header counts.
        count: i32,
        /// Bytes after them.
        bytes: usize,
    },
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The bytes end inside the record, or the header counts more records than there are.
    #[error("the bytes end before the record does")]
    Truncated,
    /// A number has more bytes than its type allows.
    #[error("a number is longer than its type")]
    Varint,
    /// The length of the record is negative or goes beyond the batch.
    #[error("invalid record length `{0}`")]
    Length(i32),
    /// The fields do not end where the record's length says.
    #[error("the fields have {fields} bytes, the record says {record}")]
    LengthMismatch {
        /// Bytes of all fields.
        fields: usize,
        /// Bytes that the length field says.
        record: usize,
    },
    /// The length of a key, value or header is below -1, or -1 where null is not allowed.
    #[error("invalid field length `{0}`")]
    FieldLength(i32),
    /// The number of headers is negative.
    #[error("negative header count `{0}`")]
    HeaderCount(i32),
    /// The offset lies outside the batch.
    #[error("offset delta `{0}` lies outside the batch")]
    OffsetDelta(i32),
}

impl From<VarintError> for RecordFault {
    fn from(error: VarintError) -> RecordFault {
        match error {
            VarintError::Truncated => RecordFault::Truncated,
            VarintError::TooLong => RecordFault::Varint,
        }
    }
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Offset minus the base offset of the batch.
    pub offset_delta: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp (ms); the batch's append time if the broker sets timestamps.
    pub timestamp: i64,
    /// The key; `None` is null, which is not the empty key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null: a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of one record in their order, with duplicates. They were checked together with the record, so
/// iterating them cannot fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    cursor: &'a [u8],
    count: usize,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name: UTF-8 by convention, which nobody enforces. Not unique within a record.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        let mut cursor = Cursor::at(self.cursor, 0);
        let key = header_key(&mut cursor).ok()?;
        let value = nullable(&mut cursor).ok()?;
        let header = Header { key: key.of(self.cursor), value: value.map(|span| span.of(self.cursor)) };
        self.cursor = &self.cursor[cursor.position..];
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of one batch, in order; see [`BatchView::records`](super::BatchView::records). The first error ends
/// it.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    data: &'a [u8],
    position: usize,
    count: i32,
    index: i32,
    base_offset: i64,
    /// `None`: any offset delta is accepted.
    max_offset_delta: Option<i32>,
    base_timestamp: i64,
    append_time: Option<i64>,
    ended: bool,
}

impl<'a> Records<'a> {
    /// Reads the uncompressed records `data` of a batch with this header.
    pub fn new(header: &BatchHeader, data: &'a [u8]) -> Records<'a> {
        Records {
            data,
            position: 0,
            count: header.records_count,
            index: 0,
            base_offset: header.base_offset,
            max_offset_delta: Some(header.last_offset_delta),
            base_timestamp: header.base_timestamp,
            append_time: match header.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(header.max_timestamp),
            },
            ended: false,
        }
    }

    /// The uncompressed bytes that the records lie in.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Records that there can be at most: what the header counts, but no more than fit the bytes.
    pub(super) fn count_bound(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0).min(self.data.len() / MIN_RECORD_BYTES)
    }

    /// Accepts any offset deltas: for a batch whose producer got them wrong, before it is rewritten.
    pub fn with_any_offsets(mut self) -> Records<'a> {
        self.max_offset_delta = None;
        self
    }

    /// The next record as places inside [`Records::data`].
    #[inline(always)]
    pub(super) fn next_raw(&mut self) -> Option<Result<RawRecord, RecordError>> {
        if self.ended {
            return None;
        }
        if self.index >= self.count {
            self.ended = true;
            let bytes = self.data.len() - self.position;
            return (bytes > 0).then_some(Err(RecordError::Trailing { count: self.count, bytes }));
        }
        match RawRecord::parse(self.data, self.position).and_then(|raw| self.in_batch(raw)) {
            Ok(raw) => {
                self.position = raw.end;
                self.index += 1;
                Some(Ok(raw))
            }
            Err(fault) => {
                self.ended = true;
                Some(Err(RecordError::Malformed { index: self.index, fault }))
            }
        }
    }

    #[inline(always)]
    fn in_batch(&self, raw: RawRecord) -> Result<RawRecord, RecordFault> {
        match self.max_offset_delta {
            Some(max) if !(0..=max).contains(&raw.offset_delta) => {
                Err(RecordFault::OffsetDelta(raw.offset_delta))
            }
            _ => Ok(raw),
        }
    }

    /// Kafka's clients compute and apply timestamp deltas with wrap-around, so any two timestamps fit one batch.
    #[inline]
    pub(super) fn timestamp_of(&self, raw: &RawRecord) -> i64 {
        self.append_time.unwrap_or_else(|| self.base_timestamp.wrapping_add(raw.timestamp_delta))
    }

    #[inline]
    pub(super) fn offset_of(&self, raw: &RawRecord) -> i64 {
        self.base_offset.saturating_add(i64::from(raw.offset_delta))
    }

    fn resolve(&self, raw: &RawRecord) -> Record<'a> {
        Record {
            offset_delta: raw.offset_delta,
            offset: self.offset_of(raw),
            timestamp: self.timestamp_of(raw),
            key: raw.key.map(|span| span.of(self.data)),
            value: raw.value.map(|span| span.of(self.data)),
            headers: raw.headers(self.data),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let raw = match self.next_raw()? {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(self.resolve(&raw)))
    }
}

/// A part of a buffer, known to lie inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Span {
    #[inline]
    fn of(self, data: &[u8]) -> &[u8] {
        &data[self.start..self.start + self.len]
    }
}

/// The fields of a record as they are on the wire; places are positions in the uncompressed records.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRecord {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<Span>,
    pub(super) value: Option<Span>,
    pub(super) header_count: usize,
    pub(super) header_start: usize,
    /// Bytes of the record after its length.
    pub(super) size: usize,
    pub(super) end: usize,
}

impl RawRecord {
    /// Parses the record at `position`, its headers included.
    #[inline(always)]
    fn parse(data: &[u8], position: usize) -> Result<RawRecord, RecordFault> {
        let mut cursor = Cursor::at(data, position);
        let length = cursor.varint()?;
        let start = cursor.position;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let end = end.filter(|end| *end <= data.len()).ok_or(RecordFault::Length(length))?;
        // Nothing of this record may be read from the next one.
        cursor.data = &data[..end];

        cursor.byte()?; // record attributes: no bit has a meaning yet
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = nullable(&mut cursor)?;
        let value = nullable(&mut cursor)?;
        let count = cursor.varint()?;
        let header_count = usize::try_from(count).map_err(|_| RecordFault::HeaderCount(count))?;
        let header_start = cursor.position;
        for _ in 0..header_count {
            header_key(&mut cursor)?;
            nullable(&mut cursor)?;
        }
        if cursor.position != end {
            return Err(RecordFault::LengthMismatch { fields: cursor.position - start, record: end - start });
        }
        let size = end - start;
        Ok(RawRecord { timestamp_delta, offset_delta, key, value, header_count, header_start, size, end })
    }

    #[inline]
    pub(super) fn headers<'a>(&self, data: &'a [u8]) -> Headers<'a> {
        Headers { cursor: &data[self.header_start..self.end], count: self.header_count }
    }
}

/// A field with a length, where -1 is null.
#[inline(always)]
fn nullable(cursor: &mut Cursor<'_>) -> Result<Option<Span>, RecordFault> {
    match cursor.varint()? {
        -1 => Ok(None),
        length => sized(cursor, length).map(Some),
    }
}

/// The name of a header, which cannot be null.
#[inline(always)]
fn header_key(cursor: &mut Cursor<'_>) -> Result<Span, RecordFault> {
    let length = cursor.varint()?;
    sized(cursor, length)
}

#[inline(always)]
fn sized(cursor: &mut Cursor<'_>, length: i32) -> Result<Span, RecordFault> {
    let len = usize::try_from(length).map_err(|_| RecordFault::FieldLength(length))?;
    let start = cursor.position;
    if cursor.data.len() - start < len {
        return Err(RecordFault::Truncated);
    }
    cursor.position += len;
    Ok(Span { start, len })
}

impl<'a> Headers<'a> {
    /// The places of the headers, counted from the start of this record's headers.
    pub(super) fn spans(self) -> impl Iterator<Item = (Span, Option<Span>)> + use<'a> {
        let mut cursor = Cursor::at(self.cursor, 0);
        (0..self.count).map_while(move |_| {
            let key = header_key(&mut cursor).ok()?;
            let value = nullable(&mut cursor).ok()?;
            Some((key, value))
        })
    }
}

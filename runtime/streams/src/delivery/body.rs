//! A copy of a record, and what it takes in memory.

use crate::batch::{Headers, RecordIn};

/// What a record takes in memory besides its bytes.
const RECORD_BYTES: u64 = 160;
/// What each of its headers does.
const HEADER_BYTES: u64 = 64;

/// A name and a value.
type OwnedHeader = (Box<[u8]>, Option<Box<[u8]>>);

/// A copy of a record.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) timestamp: i64,
    pub(super) key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    headers: Vec<OwnedHeader>,
}

/// What a record counts for of `deliver.bytes`, and of the bytes of a call. A record may have many headers of few bytes.
pub(super) fn size(record: &RecordIn<'_>) -> u64 {
    let headers = record.headers.len() as u64;
    record.bytes().saturating_add(RECORD_BYTES).saturating_add(headers.saturating_mul(HEADER_BYTES))
}

impl Body {
    pub(super) fn of(record: &RecordIn<'_>) -> Body {
        Body {
            timestamp: record.timestamp,
            key: record.key.map(Box::from),
            value: record.value.map(Box::from),
            headers: record.headers.map(|(name, value)| (Box::from(name), value.map(Box::from))).collect(),
        }
    }

    pub(super) fn record(&self, offset: i64) -> RecordIn<'_> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        RecordIn { offset, timestamp: self.timestamp, key, value, headers: Headers::default() }
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (&name[..], value.as_deref()))
    }
}

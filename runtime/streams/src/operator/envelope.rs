//! How values are stored: a version, the timestamp, and the value. A changed layout gets another version, which a
//! reader of both can tell from the first byte, so state of an earlier release is read entry by entry.

use bytes::Bytes;

use super::context::to_bytes;
use crate::state::Blob;

/// The only version there is.
const VERSION: u8 = 1;
/// Bytes before the value.
pub(crate) const HEADER: usize = 9;

/// A value read from a store.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) timestamp: i64,
    blob: Blob,
}

impl Stored {
    /// None if this version does not know the layout.
    pub(super) fn read(blob: Blob) -> Option<Stored> {
        let timestamp = decode(&blob)?.0;
        Some(Stored { timestamp, blob })
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.blob[HEADER..]
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        to_bytes(&self.blob, HEADER)
    }
}

/// Begins a stored value: what is appended to `out` is the value.
pub(crate) fn begin(out: &mut Vec<u8>, timestamp: i64) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(&timestamp.to_be_bytes());
}

/// A whole stored value.
pub(crate) fn encode(out: &mut Vec<u8>, timestamp: i64, value: &[u8]) {
    begin(out, timestamp);
    out.extend_from_slice(value);
}

/// Timestamp and value; none if this version does not know the layout.
pub(crate) fn decode(stored: &[u8]) -> Option<(i64, &[u8])> {
    let (version, rest) = stored.split_first()?;
    let (timestamp, value) = rest.split_first_chunk::<8>()?;
    (*version == VERSION).then_some((i64::from_be_bytes(*timestamp), value))
}

//! `.timeindex`: timestamp to offset, 12 bytes an entry.

use super::Entry;

/// No record up to `relative_offset` (counted from the segment's base offset) has a larger timestamp, and the
/// batch that ends with it has this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Milliseconds.
    pub(crate) timestamp: i64,
    pub(crate) relative_offset: u32,
}

impl TimeEntry {
    /// False for what a crash leaves of a sector that was never written.
    pub(crate) fn is_written(&self) -> bool {
        self.timestamp > 0 || self.relative_offset > 0
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.relative_offset.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> TimeEntry {
        let timestamp = bytes.first_chunk().map_or(0, |b| i64::from_be_bytes(*b));
        let relative_offset = bytes.last_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        TimeEntry { timestamp, relative_offset }
    }

    fn follows(&self, before: &TimeEntry) -> bool {
        self.timestamp > before.timestamp && self.relative_offset > before.relative_offset
    }
}

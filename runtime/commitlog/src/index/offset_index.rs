//! `.index`: offset to position, 8 bytes an entry.

use super::Entry;

/// The batch that starts at `position` ends with `relative_offset` (counted from the segment's base offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.relative_offset.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> OffsetEntry {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |n: usize| words.get(n).map_or(0, |w| u32::from_be_bytes(*w));
        OffsetEntry { relative_offset: word(0), position: word(1) }
    }

    fn follows(&self, before: &OffsetEntry) -> bool {
        self.relative_offset > before.relative_offset && self.position > before.position
    }
}

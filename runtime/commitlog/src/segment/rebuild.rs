//! Making the offset and time index of a segment from its batches.

use std::sync::atomic::Ordering;

use pelton_wire::record::BatchHeader;

use super::{HeaderReader, LargestTimestamp, Segment};
use crate::error::Fault;
use crate::index::{Entry, IndexIo, OffsetEntry, TimeEntry};

/// Decides which batches get index entries, one batch after the other: the same for appends and for
/// rebuilding.
#[derive(Clone, Debug)]
pub(crate) struct IndexBuilder {
    interval_bytes: u64,
    bytes_since_entry: u64,
    last_time: Option<TimeEntry>,
}

/// What one batch adds to the indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewEntries {
    pub(crate) offset: Option<OffsetEntry>,
    pub(crate) time: Option<TimeEntry>,
}

impl IndexBuilder {
    /// `last_time` is the last entry that the time index has.
    pub(crate) fn new(interval_bytes: u64, last_time: Option<TimeEntry>) -> IndexBuilder {
        IndexBuilder { interval_bytes, bytes_since_entry: 0, last_time }
    }

    /// Changes `index.interval.bytes`.
    pub(crate) fn set_interval_bytes(&mut self, interval_bytes: u64) {
        self.interval_bytes = interval_bytes;
    }

    /// The entries for the batch at `position`; `largest` includes it. As Kafka: an entry is due with the
    /// first batch after more than the interval.
    pub(crate) fn add(
        &mut self,
        base_offset: i64,
        position: u64,
        header: &BatchHeader,
        largest: LargestTimestamp,
    ) -> NewEntries {
        let mut entries = NewEntries::default();
        if self.bytes_since_entry > self.interval_bytes {
            entries.offset = offset_entry(base_offset, position, header);
            entries.time = self.time_entry(base_offset, largest);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.total_len() as u64;
        entries
    }

    /// The entry that says the largest timestamp so far, unless the last one says it.
    pub(crate) fn time_entry(&mut self, base_offset: i64, largest: LargestTimestamp) -> Option<TimeEntry> {
        let relative_offset = u32::try_from(largest.offset.checked_sub(base_offset)?).ok()?;
        let entry = TimeEntry { timestamp: largest.timestamp, relative_offset };
        let due = largest.timestamp >= 0 && self.last_time.is_none_or(|last| entry.follows(&last));
        if due {
            self.last_time = Some(entry);
        }
        due.then_some(entry)
    }
}

fn offset_entry(base_offset: i64, position: u64, header: &BatchHeader) -> Option<OffsetEntry> {
    let relative_offset = u32::try_from(header.last_offset().checked_sub(base_offset)?).ok()?;
    Some(OffsetEntry { relative_offset, position: u32::try_from(position).ok()? })
}

impl Segment {
    /// Adds what a batch gives the indexes. A failed write is returned, and the next one writes its entries too.
    pub(crate) fn add_entries(&self, io: IndexIo<'_>, new: &NewEntries) {
        if let Some(entry) = new.offset
            && let Err(failure) = self.offsets.push(io, entry)
        {
            tracing::warn!(%failure, "offset index not written, trying again with the next entry");
        }
        self.add_time(io, new.time);
    }

    /// Adds to the time index, as [`Segment::add_entries`].
    pub(crate) fn add_time(&self, io: IndexIo<'_>, entry: Option<TimeEntry>) {
        if let Some(entry) = entry
            && let Err(failure) = self.times.push(io, entry)
        {
            tracing::warn!(%failure, "time index not written, trying again with the next entry");
        }
    }

    /// True if an index has no room for two more entries within `limit` bytes.
    pub(crate) fn indexes_are_full(&self, limit: u64) -> bool {
        let room_for_two = |bytes: u64, entry: usize| bytes + 2 * entry as u64 <= limit;
        !room_for_two(self.offsets.memory_bytes(), OffsetEntry::BYTES)
            || !room_for_two(self.times.memory_bytes(), TimeEntry::BYTES)
    }

    /// Builds the indexes of an older segment anew. A failure costs time on the next look-up, nothing else.
    pub(super) fn rebuild_in_place(&self, io: IndexIo<'_>) {
        let Some(_only_one) = self.rebuilding.try_lock() else { return };
        if self.is_replaced.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.rebuild(io, DEFAULT_INTERVAL_BYTES) {
            tracing::warn!(segment = %self.path.display(), %error, "index could not be rebuilt");
        }
    }

    /// Builds both indexes from all batches of the segment, and leaves them in their files.
    fn rebuild(&self, io: IndexIo<'_>, interval_bytes: u64) -> Result<(), Fault> {
        let file = self.file(io)?;
        let mut builder = IndexBuilder::new(interval_bytes, None);
        let mut largest = LargestTimestamp::NONE;
        let (mut offsets, mut times) = (Vec::new(), Vec::new());
        HeaderReader::new(&*file, &self.path, self.len()).each_from(0, |found| {
            largest.add(&found.header);
            let new = builder.add(self.base_offset, found.position, &found.header, largest);
            offsets.extend(new.offset);
            times.extend(new.time);
        })?;
        times.extend(builder.time_entry(self.base_offset, largest));
        if offsets.is_empty() {
            // Large batches only: there is nothing to index, so there was nothing wrong.
            return Ok(());
        }
        self.offsets.rewrite(io, &offsets)?;
        self.times.rewrite(io, &times)?;
        *self.largest.lock() = Some(largest);
        Ok(())
    }
}

/// `index.interval.bytes` for an index that is rebuilt by a reader, which does not know the topic's setting.
const DEFAULT_INTERVAL_BYTES: u64 = 4096;

//! Reading a log while it is written. A [`LogReader`] takes what the writer has published and never waits for
//! an append.
//!
//! What comes from a file is given as a range of it, so that it can go to a socket without being copied. What
//! is still in memory is given as bytes. Either way whole batches, as they are stored.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Fault, ReadError};
use crate::id::PartitionId;
use crate::leader_epoch::EpochEnd;
use crate::mutant::Mutant;
use crate::offsets::LogOffsets;
use crate::segment::RunResult;
use crate::shared::{Segments, Shared, segment_of};
use crate::slice::Slice;
use crate::storage::{ahead_of, read_exact_at};
use crate::txn_index::AbortedTxn;

mod timestamps;

pub use timestamps::TimestampOffset;

/// Ranges of a file that one read returns at most: with segments of a few batches a large read would
/// otherwise open one file after the other.
const MAX_SLICES_FROM_FILES: usize = 16;

/// How often a read-committed read begins again because the cleaner has replaced segments meanwhile, which takes it two
/// syncs each.
const READ_COMMITTED_TRIES: usize = 16;

/// Reads one partition's log. A cheap clone.
#[derive(Clone)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

/// What a read found: whole batches, in order.
#[derive(Clone)]
pub struct ReadRange {
    /// The bytes, in order. Empty if nothing may be read now.
    pub slices: Vec<Slice>,
    /// Base offset of the first batch, which may lie below the offset that was asked for; that offset itself
    /// if there is none.
    pub base_offset: i64,
    /// The offset after the last batch: where the next read goes on. The offset that was asked for if there
    /// is none.
    pub next_offset: i64,
    /// Sum of all slices.
    pub bytes: u64,
}

impl ReadRange {
    fn empty(at: i64) -> ReadRange {
        ReadRange { slices: Vec::new(), base_offset: at, next_offset: at, bytes: 0 }
    }

    fn push(&mut self, slices: impl IntoIterator<Item = Slice>, base_offset: i64, next_offset: i64) {
        if self.slices.is_empty() {
            self.base_offset = base_offset;
        }
        for slice in slices {
            self.bytes += slice.len();
            self.slices.push(slice);
        }
        self.next_offset = next_offset;
    }

    /// All bytes, copied into one buffer: for those who need records, not a socket.
    pub fn into_bytes(self) -> io::Result<Bytes> {
        if let [Slice::Memory(bytes)] = &self.slices[..] {
            return Ok(bytes.clone());
        }
        let mut all = vec![0; self.bytes as usize];
        let mut rest = &mut all[..];
        for slice in &self.slices {
            let (now, later) = rest.split_at_mut(slice.len() as usize);
            match slice {
                Slice::Memory(bytes) => now.copy_from_slice(bytes),
                Slice::File { file, position, len } => {
                    read_exact_at(&**file, now, *position)?;
                    file.will_need(position + len, ahead_of(*len));
                }
            }
            rest = later;
        }
        Ok(all.into())
    }
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// Which partition this is.
    pub fn id(&self) -> &PartitionId {
        &self.shared.id
    }

    /// The offsets now.
    pub fn offsets(&self) -> LogOffsets {
        self.shared.offsets.load()
    }

    /// The last stable offset under this high watermark, for an owner whose high watermark runs ahead of [`Log::set_high_watermark`].
    ///
    /// [`Log::set_high_watermark`]: crate::Log::set_high_watermark
    pub fn last_stable_at(&self, high_watermark: i64) -> i64 {
        self.shared.offsets.last_stable_at(high_watermark)
    }

    /// True if a read from `from` on would be answered from memory now. For a caller that must not wait for a
    /// disk; the memory may be given up before it reads.
    pub fn is_in_memory(&self, from: i64) -> bool {
        self.shared.tail.covers(from)
    }

    /// Finds out the largest timestamp of each segment, which is not in memory after a start. [`Log::apply_retention`] goes by
    /// what is in memory, because its caller holds the log, which must not wait for a disk; call this before it.
    ///
    /// [`Log::apply_retention`]: crate::Log::apply_retention
    pub fn learn_timestamps(&self) -> Result<(), ReadError> {
        let segments = self.shared.segments();
        for segment in segments.iter() {
            match segment.largest_timestamp(self.shared.io()) {
                Ok(_) => {}
                // It has left the log meanwhile, and its file may be gone.
                Err(_) if segment.base_offset < self.offsets().log_start => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.shared.segments().iter().map(|s| s.len()).sum()
    }

    /// Where an epoch ends, as `OffsetForLeaderEpoch` asks; `None` if the log cannot know.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        let log_end = self.offsets().log_end;
        self.shared.epochs.read().end_offset_for(epoch, log_end)
    }

    /// The epoch of the last record.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.shared.epochs.read().latest()
    }

    /// Whole batches from the one that holds `from` on, all of their offsets below `up_to` (the high
    /// watermark or the last stable offset), in about `max_bytes`.
    ///
    /// With `min_one_batch` the first batch comes even if it is larger than `max_bytes` (KIP-74); no other
    /// passes that bound. `from` may be anything from the log start to the log end; at or above `up_to` the
    /// answer is empty.
    pub fn read(
        &self,
        from: i64,
        max_bytes: u64,
        up_to: i64,
        min_one_batch: bool,
    ) -> Result<ReadRange, ReadError> {
        let offsets = self.offsets();
        if from < offsets.log_start || from > offsets.log_end {
            return Err(self.out_of_range(from));
        }
        let mut range = ReadRange::empty(from);
        let up_to = up_to.min(offsets.log_end);
        let mut cursor = from;
        // Every turn adds batches or goes on to a later segment.
        let mut segments: Option<(Arc<Segments>, usize)> = None;
        while cursor < up_to && range.slices.len() < MAX_SLICES_FROM_FILES {
            let left = max_bytes.saturating_sub(range.bytes);
            let first_must = min_one_batch && range.slices.is_empty();
            if let Some(run) = self.shared.tail.read(cursor, up_to, left, first_must) {
                if !run.batches.is_empty() {
                    range.push(run.batches.into_iter().map(Slice::Memory), run.base_offset, run.next_offset);
                }
                break;
            }
            let (list, number) = segments.get_or_insert_with(|| {
                let list = self.shared.segments();
                let number = segment_of(&list, cursor);
                (list, number)
            });
            let Some(segment) = list.get(*number) else { break };
            match segment.run(self.shared.io(), cursor, up_to, left, first_must) {
                Ok(RunResult::Run(run)) => {
                    range.push(run.slices, run.base_offset, run.next_offset);
                    cursor = run.next_offset;
                }
                Ok(RunResult::Bounded) => break,
                Ok(RunResult::PastEnd) => {
                    *number += 1;
                    cursor = cursor.max(list.get(*number).map_or(cursor, |next| next.base_offset));
                }
                Err(fault) => return self.explain(from, range, fault),
            }
        }
        Ok(range)
    }

    /// As [`LogReader::read`] up to the last stable offset `up_to`, with the aborted transactions among what was read.
    ///
    /// # Errors
    /// As of [`LogReader::read`].
    pub fn read_committed(
        &self,
        from: i64,
        max_bytes: u64,
        up_to: i64,
        min_one_batch: bool,
    ) -> Result<(ReadRange, Vec<AbortedTxn>), ReadError> {
        self.read_committed_while(from, max_bytes, up_to, min_one_batch, || {})
    }

    /// The cleaner removes the entry of an aborted transaction once nothing of it is left. A range that was read before that
    /// still has its records, which the index does not name any more: both are read again.
    pub(crate) fn read_committed_while(
        &self,
        from: i64,
        max_bytes: u64,
        up_to: i64,
        min_one_batch: bool,
        mut between: impl FnMut(),
    ) -> Result<(ReadRange, Vec<AbortedTxn>), ReadError> {
        for _ in 0..READ_COMMITTED_TRIES {
            let cleaned = self.shared.cleaned_segments();
            let range = self.read(from, max_bytes, up_to, min_one_batch)?;
            between();
            if range.slices.is_empty() {
                return Ok((range, Vec::new()));
            }
            let aborted = self.aborted_transactions(range.base_offset, range.next_offset)?;
            if self.shared.cleaned_segments() == cleaned || Mutant::IndexOfAnotherClean.is_on() {
                return Ok((range, aborted));
            }
        }
        // The cleaner replaced segments all the while: nothing may be read for a moment.
        Ok((ReadRange::empty(from), Vec::new()))
    }

    /// Aborted transactions that touch offsets in `from..upper`, for a `read_committed` fetch. `upper` is the
    /// end of what the fetch returns, not the last stable offset.
    pub fn aborted_transactions(&self, from: i64, upper: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        let mut found = Vec::new();
        let segments = self.shared.segments();
        // An entry lies with its marker, so segments before the one that holds `from` have nothing to say.
        for segment in &segments[segment_of(&segments, from)..] {
            let aborted = segment.aborted(self.shared.io())?;
            for txn in aborted.iter() {
                if txn.overlaps(from, upper) {
                    found.push(*txn);
                }
                if txn.last_stable_offset >= upper {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    fn out_of_range(&self, offset: i64) -> ReadError {
        let LogOffsets { log_start, log_end, .. } = self.offsets();
        ReadError::OffsetOutOfRange { offset, log_start, log_end }
    }

    /// A file may be missing, or shorter than it was, because retention or truncation took it while this read
    /// was under way.
    fn explain(&self, from: i64, range: ReadRange, fault: Fault) -> Result<ReadRange, ReadError> {
        let offsets = self.offsets();
        if from < offsets.log_start || from > offsets.log_end {
            return Err(self.out_of_range(from));
        }
        if !range.slices.is_empty() {
            // What was found is good; the next read meets the fault, if it is one.
            return Ok(range);
        }
        Err(fault.into())
    }
}

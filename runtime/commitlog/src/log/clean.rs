//! What the owner of a log has to do with its cleaning: say which producers there are, and let a cleaned segment take its
//! place. The cleaning itself ([`crate::clean`]) needs the log no more than a reader does.

use std::sync::Arc;

use super::{Log, PendingDeletion};
use crate::cleaner::swap::{SwapFailed, swap};
use crate::cleaner::{ActiveProducers, CleanError, LastRecord, Replacement};
use crate::error::StorageFailure;
use crate::segment::Segment;
use crate::sink::SyncLater;

/// A cleaned segment on its way to its place.
#[must_use = "what is not run and settled stays on disk until the next start"]
pub struct Swap(Replacement);

/// What became of a [`Swap`], for [`Log::settle_swap`].
#[must_use = "a log removes nothing more until it has this"]
pub struct Swapped {
    replacement: Replacement,
    result: Result<(), SwapFailed>,
}

impl Swap {
    /// Replaces the files. Waits for the disk; readers of the old ones go on.
    pub fn run(self) -> Swapped {
        let Swap(replacement) = self;
        for (segment, file) in &replacement.old {
            segment.replace(file.clone());
        }
        let others: Vec<i64> = replacement.old[1..].iter().map(|(segment, _)| segment.base_offset).collect();
        let shared = &replacement.shared;
        let place = (replacement.base(), replacement.end);
        let result = swap(&*shared.storage, &shared.dir, place, &others);
        Swapped { replacement, result }
    }
}

impl Swapped {
    /// Whether the cleaned segment is part of the log. To be asked when the log is not held any more: files are closed, which
    /// gives their room back.
    pub fn finish(self) -> Result<(), CleanError> {
        let Swapped { replacement, result } = self;
        for (segment, _) in &replacement.old {
            replacement.shared.files.forget(segment.number());
        }
        let Err(SwapFailed { is_begun, is_final, failure }) = result else { return Ok(()) };
        if is_final {
            return Err(CleanError::Final(failure));
        }
        if is_begun {
            return Err(CleanError::Unfinished(failure));
        }
        replacement.discard();
        Err(CleanError::Storage(failure))
    }
}

impl Log {
    /// The producers that are known, and the last record of each, which must stay.
    pub fn active_producers(&self) -> ActiveProducers {
        let last = |state: &crate::producer_state::ProducerState| match state.batches.back() {
            Some(batch) => LastRecord::Data(batch.last_offset),
            None => LastRecord::Marker(state.epoch),
        };
        ActiveProducers(self.producers.all().into_iter().map(|(id, state)| (id, last(state))).collect())
    }

    /// Lets a cleaned segment take the place of those that it was made of. Nothing else removes files until
    /// [`Log::settle_swap`].
    ///
    /// # Errors
    /// Some of them have left the log since, or are leaving it: what was written is removed again.
    pub fn begin_swap(&mut self, replacement: Replacement) -> Result<Swap, Replacement> {
        let segments = self.shared.segments();
        let finished = &segments[..segments.len() - 1];
        let first = finished.iter().position(|segment| Arc::ptr_eq(segment, &replacement.old[0].0));
        let are_there = first.is_some_and(|first| {
            let there = finished[first..].iter().take(replacement.old.len());
            there.len() == replacement.old.len()
                && there.zip(&replacement.old).all(|(segment, (old, _))| Arc::ptr_eq(segment, old))
        });
        if self.removing || self.swapping.is_some() || self.latched.is_some() || !are_there {
            return Err(replacement);
        }
        self.removing = true;
        self.swapping = Some(replacement.end);
        Ok(Swap(replacement))
    }

    /// Takes note of a swap. [`Swapped::finish`] says what came of it.
    pub fn settle_swap(&mut self, swapped: &Swapped) {
        self.removing = false;
        self.swapping = None;
        if swapped.result.is_ok() {
            self.take_place(&swapped.replacement);
            // The last name is not durable yet; no checkpoint goes past what happens to the segment next before it is.
            self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
        }
    }

    /// The old segments may have left the log meanwhile, or some of them: retention goes on.
    fn take_place(&mut self, replacement: &Replacement) {
        let Replacement { old, new, .. } = replacement;
        // Memory would go on showing what was cleaned away, of aborted transactions too, which no index names any more.
        self.shared.tail.forget_below(replacement.end);
        self.shared.note_cleaned_segment();
        let base = replacement.base();
        let written_ms = old.iter().map(|(segment, _)| segment.written_ms()).max().unwrap_or(0);
        let cleaned = Segment::open(&self.shared.dir, base, new.len, &self.shared.files, written_ms);
        cleaned.set_largest(Some(new.largest));
        cleaned.set_aborted(new.aborted.clone());
        let cleaned = Arc::new(cleaned);
        let is_old = |segment: &Arc<Segment>| old.iter().any(|(old, _)| Arc::ptr_eq(old, segment));
        let segments = self.shared.segments();
        let place = segments.iter().position(is_old);
        let pending_at = self.pending_deletion.iter().position(|pending| is_old(&pending.segment));
        let log_start =
            self.pending_deletion.iter().filter(|d| is_old(&d.segment)).map(|d| d.log_start).max();
        self.pending_deletion.retain(|pending| !is_old(&pending.segment));
        match (place, pending_at.zip(log_start)) {
            (Some(place), _) => {
                let mut list: Vec<_> = segments.iter().filter(|s| !is_old(s)).cloned().collect();
                list.insert(place, cleaned);
                self.shared.set_segments(list);
            }
            (None, Some((at, log_start))) => {
                self.pending_deletion.insert(at, PendingDeletion { log_start, segment: cleaned })
            }
            // Nothing removes files during a swap, so they are in one of the two.
            (None, None) => {}
        }
    }

    /// What was cleaned above `offset` is not any more.
    pub(super) fn cut_cleaned(&self, offset: i64) -> Result<(), StorageFailure> {
        self.shared.cut_cleaned_to(offset)
    }
}

impl Replacement {
    /// Removes what was written: the log does not take it.
    pub fn refused(self) -> CleanError {
        self.discard();
        CleanError::Changed
    }
}

#[cfg(test)]
mod tests;

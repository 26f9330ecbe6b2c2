//! One clean of one log: the newest offset of each key of its dirty part goes into a map, then everything up to there is
//! read again, and what is left is written to new segments. No lock of the log is held meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use pelton_wire::record::{BatchView, BuildError, Filtered};

use super::batch::{BatchCleaner, CleanCounts, CleanRules, LastRecord, map_batch};
use super::key_map::{Full, KeyOffsets};
use super::output::{Output, Written, remove_cleaned};
use super::plan::{self, Compaction, Dirt, SegmentFacts, Sizes};
use super::transactions::CleanedTransactions;
use crate::config::LogConfig;
use crate::error::{Corruption, Fault, ReadError, StorageFailure};
use crate::mutant::Mutant;
use crate::reader::LogReader;
use crate::scan::{Scanned, Scanner};
use crate::segment::Segment;
use crate::shared::{Segments, Shared};
use crate::storage::File;

/// Slows a clean down, and stops it.
pub trait Pace {
    /// So many bytes were read or written. Returns when the next may be; false ends the clean.
    fn spend(&mut self, bytes: u64) -> bool;
}

/// What a clean is told besides what the log knows.
pub struct CleanJob<'a> {
    /// The topic's settings.
    pub compaction: Compaction,
    /// The log's settings: how large segments and indexes get.
    pub log: LogConfig,
    /// Producers whose last batch must stay.
    pub producers: ActiveProducers,
    /// The broker's clock, ms.
    pub now_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`: bytes that the map of keys may take.
    pub map_bytes: usize,
    /// A secret of the process, for the map.
    pub hash_key: [u8; 16],
    /// Slows it down.
    pub pace: &'a mut dyn Pace,
}

/// The producers that a log knows, and the last record of each.
#[derive(Clone, Debug, Default)]
pub struct ActiveProducers(pub(crate) HashMap<i64, LastRecord>);

/// What a clean did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Everything below this was cleaned.
    pub cleaned_to: i64,
    /// Bytes of the batches that were read.
    pub bytes_read: u64,
    /// Bytes of what was left of them.
    pub bytes_written: u64,
    /// Records that were read.
    pub records_read: u64,
    /// Records that were left of them.
    pub records_written: u64,
    /// Segments that became fewer.
    pub segments_before: usize,
    /// What they became.
    pub segments_after: usize,
}

/// Why a clean ended early. What it had put in place stays, and the log is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// It was told to stop.
    #[error("it was told to stop")]
    Stopped,
    /// Segments left the log meanwhile.
    #[error("segments left the log meanwhile")]
    Changed,
    /// A batch cannot be read or written.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Not one batch fits into the map.
    #[error(
        "the keys of the batch at offset {offset} do not fit into `log.cleaner.dedupe.buffer.size`, which is {bytes}: raise it"
    )]
    MapTooSmall {
        /// Where the batch is.
        offset: i64,
        /// The size of the map.
        bytes: usize,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(StorageFailure),
    /// The files of a segment are half replaced, which the next start finishes.
    #[error("a cleaned segment is not in its place before the next start: {0}")]
    Unfinished(StorageFailure),
    /// A directory was not synced, in which others rely on syncs: the process should end.
    #[error(transparent)]
    Final(StorageFailure),
}

impl CleanError {
    /// True if another try makes no sense until somebody has done something about it.
    pub fn is_lasting(&self) -> bool {
        match self {
            CleanError::Stopped | CleanError::Changed => false,
            CleanError::Storage(failure) => !failure.is_passing(),
            CleanError::Corrupt(_)
            | CleanError::MapTooSmall { .. }
            | CleanError::Unfinished(_)
            | CleanError::Final(_) => true,
        }
    }
}

impl From<Fault> for CleanError {
    fn from(fault: Fault) -> CleanError {
        match fault {
            Fault::Corrupt(corruption) => corruption.into(),
            Fault::Storage(failure) => CleanError::Storage(failure),
        }
    }
}

impl From<StorageFailure> for CleanError {
    fn from(failure: StorageFailure) -> CleanError {
        CleanError::Storage(failure)
    }
}

impl From<ReadError> for CleanError {
    fn from(error: ReadError) -> CleanError {
        match error {
            ReadError::Corrupt(corruption) => corruption.into(),
            ReadError::Storage(failure) => failure.into(),
            ReadError::OffsetOutOfRange { .. } => CleanError::Changed,
        }
    }
}

/// Segments, and the cleaned one that is to take their place.
pub struct Replacement {
    pub(crate) shared: Arc<Shared>,
    /// With their files, so that readers that have them go on.
    pub(crate) old: Vec<(Arc<Segment>, Arc<dyn File>)>,
    /// Base offset of the segment behind them.
    pub(crate) end: i64,
    pub(crate) new: Written,
}

impl Replacement {
    pub(crate) fn base(&self) -> i64 {
        self.old[0].0.base_offset
    }

    /// Removes what was written: it is not needed.
    pub(crate) fn discard(&self) {
        if let Err(failure) = remove_cleaned(&*self.shared.storage, &self.shared.dir, self.base()) {
            tracing::warn!(partition = %self.shared.id, %failure, "what the cleaner wrote stays until the next start");
        }
    }
}

impl LogReader {
    /// What a clean would read now, and whether it is worth it. Blocking.
    pub fn dirt(&self, compaction: &Compaction, now_ms: i64) -> Result<Dirt, ReadError> {
        let segments = self.shared.segments();
        let offsets = self.offsets();
        let first_dirty = self.shared.cleaned_to()?.clamp(offsets.log_start, offsets.log_end);
        let facts = facts(&self.shared, &segments, first_dirty, compaction)?;
        let last_stable = if Mutant::CleansPastStable.is_on() { i64::MAX } else { offsets.last_stable };
        Ok(plan::look(&facts, first_dirty, last_stable, compaction, now_ms))
    }
}

fn facts(
    shared: &Shared,
    segments: &Segments,
    first_dirty: i64,
    compaction: &Compaction,
) -> Result<Vec<SegmentFacts>, Fault> {
    let io = shared.io();
    // Frames go in order: the first batch of a segment that no start replays says that of all segments before it. What the
    // checkpoint names as the segment of the end is then one of the later ones.
    let settled = segments.iter().rposition(|segment| segment.is_in_checkpoint()).unwrap_or(0);
    let mut facts = Vec::with_capacity(segments.len());
    for (number, segment) in segments.iter().enumerate() {
        let is_finished = number + 1 < segments.len();
        let is_dirty = is_finished && segments[number + 1].base_offset > first_dirty;
        let mut fact = SegmentFacts {
            base_offset: segment.base_offset,
            bytes: segment.len(),
            is_settled: (number < settled || Mutant::CleansUnsettled.is_on()) && segment.held().is_none(),
            largest_timestamp: 0,
            first_timestamp: None,
        };
        if is_dirty && compaction.min_compaction_lag_ms > 0 {
            let largest = segment.largest_timestamp(io)?.timestamp;
            fact.largest_timestamp = if largest < 0 { segment.written_ms() } else { largest };
        }
        if is_dirty && compaction.max_compaction_lag_ms < i64::MAX {
            let first = segment.find(io, segment.base_offset)?;
            fact.first_timestamp = first.map(|found| found.header.max_timestamp).filter(|ms| *ms > 0);
        }
        facts.push(fact);
    }
    Ok(facts)
}

/// Cleans what `dirt` says. Each segment that is written is given to `swap`, which puts it in place
/// ([`crate::Log::begin_swap`]). How far it came is noted when all of them are.
pub fn clean(
    reader: &LogReader,
    dirt: &Dirt,
    job: CleanJob<'_>,
    swap: &mut dyn FnMut(Replacement) -> Result<(), CleanError>,
) -> Result<CleanReport, CleanError> {
    let shared = &reader.shared;
    let all = shared.segments();
    let count = all.partition_point(|segment| segment.base_offset < dirt.end);
    let Some(next) = all.get(count).filter(|next| next.base_offset == dirt.end) else {
        return Err(CleanError::Changed);
    };
    let mut bases: Vec<i64> = all[..count].iter().map(|segment| segment.base_offset).collect();
    bases.push(next.base_offset);
    let mut run = Run { reader, segments: &all[..count], bases, pace: job.pace, scratch: Vec::new() };
    let map = run.build_map(dirt, job.map_bytes, job.hash_key)?;
    let up_to = map.latest() + 1;
    // What the map does not reach is not touched, but for the rest of the segment where it ends.
    run.segments = &run.segments[..run.segments.partition_point(|segment| segment.base_offset < up_to)];
    let rules = CleanRules {
        now_ms: job.now_ms,
        delete_retention_ms: job.compaction.delete_retention_ms,
        last_records: job.producers.0,
        up_to,
    };
    let transactions = run.transactions(run.segments.first().map_or(0, |first| first.base_offset), up_to)?;
    let mut cleaner = BatchCleaner::new(&map, &rules, transactions);
    if Mutant::CleanedToBeforeSwap.is_on() {
        shared.set_cleaned_to(up_to)?;
    }
    let (mut before, mut after) = (0, 0);
    for group in plan::groups(&run.sizes()?, job.log.segment_bytes, job.log.segment_index_bytes) {
        before += group.len();
        after += 1;
        let base = run.bases[group.start];
        let cleaned = run.clean_group(group, &mut cleaner, &job.log).inspect_err(|_| {
            // What cannot be removed now is removed by the next start.
            drop(remove_cleaned(&*shared.storage, &shared.dir, base));
        });
        if let Some(replacement) = cleaned? {
            swap(replacement)?;
        }
    }
    shared.set_cleaned_to(up_to)?;
    let CleanCounts { records_in, records_out, bytes_in, bytes_out, keyless } = cleaner.counts();
    if keyless > 0 {
        tracing::warn!(partition = %shared.id, records = keyless, "records without a key were removed: the topic is compacted");
    }
    Ok(CleanReport {
        cleaned_to: up_to,
        bytes_read: bytes_in,
        bytes_written: bytes_out,
        records_read: records_in,
        records_written: records_out,
        segments_before: before,
        segments_after: after,
    })
}

/// A clean that is under way.
struct Run<'a> {
    reader: &'a LogReader,
    /// What is cleaned.
    segments: &'a [Arc<Segment>],
    /// Their base offsets, and the one of the segment behind them.
    bases: Vec<i64>,
    pace: &'a mut dyn Pace,
    scratch: Vec<u8>,
}

impl Run<'_> {
    /// The newest offsets of the keys from the first dirty offset on, as far as they fit.
    fn build_map(&mut self, dirt: &Dirt, bytes: usize, hash_key: [u8; 16]) -> Result<KeyOffsets, CleanError> {
        let keys = usize::try_from(dirt.end.saturating_sub(dirt.first_dirty)).unwrap_or(usize::MAX);
        let mut map = KeyOffsets::new(bytes, keys, hash_key);
        let mut transactions = self.transactions(dirt.first_dirty, dirt.end)?;
        map.seen_up_to(dirt.first_dirty - 1);
        let first = crate::shared::segment_of(self.segments, dirt.first_dirty);
        let io = self.reader.shared.io();
        for number in first..self.segments.len() {
            let segment = &self.segments[number];
            let file = segment.file(io)?;
            let from = segment.find(io, dirt.first_dirty.max(segment.base_offset))?;
            let Some(from) = from.map(|found| found.position) else { continue };
            let mut scanner = Scanner::new(&*file, segment.path(), from, segment.len(), segment.base_offset);
            while let Some(scanned) = scanner.next()? {
                let position = scanned.found.position;
                let scratch = &mut self.scratch;
                let full = with_batch(segment, io, &scanned, |view| {
                    map_batch(&mut map, &mut transactions, view, scratch)
                })?;
                spend(self.pace, scanned.found.header.total_len() as u64)?;
                match full {
                    Ok(()) => {}
                    Err(Full) if map.latest() >= dirt.first_dirty => return Ok(map),
                    Err(Full) => {
                        let offset = scanned.found.header.base_offset;
                        tracing::debug!(position, "the map of keys is full at its first batch");
                        return Err(CleanError::MapTooSmall { offset, bytes });
                    }
                }
            }
        }
        // Compaction may have left nothing at the end of the last segment.
        map.seen_up_to(dirt.end - 1);
        Ok(map)
    }

    /// What is known of aborted transactions that touch a part of the log. Their markers may lie behind it.
    fn transactions(&self, from: i64, up_to: i64) -> Result<CleanedTransactions, CleanError> {
        Ok(CleanedTransactions::new(self.reader.aborted_transactions(from, up_to)?))
    }

    fn sizes(&self) -> Result<Vec<Sizes>, CleanError> {
        let io = self.reader.shared.io();
        let size = |(number, segment): (usize, &Arc<Segment>)| {
            Ok(Sizes {
                base_offset: segment.base_offset,
                next_base: self.bases[number + 1],
                bytes: segment.len(),
                offset_index_bytes: segment.offsets.file_bytes(io)?,
                time_index_bytes: segment.times.file_bytes(io)?,
            })
        };
        self.segments.iter().enumerate().map(size).collect()
    }

    /// Writes what is left of some segments. `None`: nothing would change.
    fn clean_group(
        &mut self,
        group: std::ops::Range<usize>,
        cleaner: &mut BatchCleaner<'_>,
        config: &LogConfig,
    ) -> Result<Option<Replacement>, CleanError> {
        let shared = &self.reader.shared;
        let (base, end) = (self.bases[group.start], self.bases[group.end]);
        let mut output = Output::create(&*shared.storage, &shared.dir, base, config.index_interval_bytes)?;
        let is_one = group.len() == 1;
        let (mut old, mut changed, mut has_txn_index) = (Vec::new(), false, false);
        for segment in &self.segments[group] {
            let file = segment.file(shared.io())?;
            has_txn_index |= !segment.aborted(shared.io())?.is_empty();
            changed |= clean_segment(segment, &*file, shared, cleaner, &mut output, self.pace)?;
            old.push((segment.clone(), file));
        }
        let new = output.finish(has_txn_index)?;
        let aborted_before: usize = old
            .iter()
            .map(|(segment, _)| segment.aborted(shared.io()).map(|aborted| aborted.len()))
            .sum::<Result<usize, _>>()?;
        let replacement = Replacement { shared: shared.clone(), old, end, new };
        if is_one && !changed && replacement.new.aborted.len() == aborted_before {
            replacement.discard();
            return Ok(None);
        }
        Ok(Some(replacement))
    }
}

/// Cleans the batches of one segment. True if one of them has changed or gone.
fn clean_segment(
    segment: &Segment,
    file: &dyn File,
    shared: &Shared,
    cleaner: &mut BatchCleaner<'_>,
    output: &mut Output<'_>,
    pace: &mut dyn Pace,
) -> Result<bool, CleanError> {
    let mut scanner = Scanner::new(file, segment.path(), 0, segment.len(), segment.base_offset);
    let mut changed = false;
    while let Some(scanned) = scanner.next()? {
        let len = scanned.found.header.total_len() as u64;
        let written = with_batch(segment, shared.io(), &scanned, |view| {
            let cleaned = cleaner.clean(view)?;
            if let Some(aborted) = cleaned.aborted {
                output.push_aborted(aborted);
            }
            let bytes: &[u8] = match &cleaned.bytes {
                Filtered::Removed => &[],
                Filtered::Whole(bytes) => bytes,
                Filtered::Rewritten(bytes) => bytes,
            };
            changed |= bytes != view.bytes();
            Ok(if bytes.is_empty() { Ok(0) } else { output.push(bytes).map(|()| bytes.len() as u64) })
        })??;
        spend(pace, len + written)?;
    }
    Ok(changed)
}

/// Calls `act` with a batch, which is read for this if it is very large.
fn with_batch<T>(
    segment: &Segment,
    io: crate::index::IndexIo<'_>,
    scanned: &Scanned<'_>,
    act: impl FnOnce(&BatchView<'_>) -> Result<T, BuildError>,
) -> Result<T, CleanError> {
    let position = scanned.found.position;
    let corrupt = |error: String| Corruption::new(segment.path(), position, error);
    let done = match &scanned.view {
        Some(view) => act(view),
        None => {
            let bytes = segment.read_batch(io, &scanned.found)?;
            act(&BatchView::check(&bytes).map_err(|error| corrupt(error.to_string()))?)
        }
    };
    done.map_err(|error| corrupt(error.to_string()).into())
}

fn spend(pace: &mut dyn Pace, bytes: u64) -> Result<(), CleanError> {
    if pace.spend(bytes) { Ok(()) } else { Err(CleanError::Stopped) }
}

//! Rebuilding what is never synced for an ack: indexes, producer state, transaction index and leader epochs,
//! from the nearest snapshot that can be trusted and the batches after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Fault, IoContext, StorageFailure};
use crate::id::LogEnd;
use crate::index::{IndexIo, TimeEntry};
use crate::leader_epoch::LeaderEpochs;
use crate::marker::parse_marker;
use crate::metadata::read_state;
use crate::mutant::Mutant;
use crate::names::{FileKind, file_path};
use crate::producer_state::ProducerStates;
use crate::scan::{Scanned, Scanner};
use crate::segment::{HeaderReader, IndexBuilder, LargestTimestamp, Segment};
use crate::storage::{File, OpenMode};
use crate::txn_index::AbortedTxn;

/// What to rebuild from.
pub(crate) struct Rebuild<'a> {
    pub(crate) io: IndexIo<'a>,
    pub(crate) dir: &'a Path,
    /// All segments, their lengths set; the last one is active and holds `end`.
    pub(crate) segments: &'a [Arc<Segment>],
    pub(crate) snapshots: &'a BTreeSet<i64>,
    /// Snapshots and index entries above this offset are not used.
    pub(crate) trusted: i64,
    pub(crate) log_start: i64,
    pub(crate) end: LogEnd,
    pub(crate) interval_bytes: u64,
    pub(crate) producers_max: usize,
    pub(crate) now_ms: i64,
}

/// What came out.
pub(crate) struct Rebuilt {
    pub(crate) producers: ProducerStates,
    /// For the active segment.
    pub(crate) indexes: IndexBuilder,
    pub(crate) first_timestamp: Option<i64>,
    /// Epochs of the batches that were scanned.
    pub(crate) epochs: LeaderEpochs,
    pub(crate) scanned_bytes: u64,
    /// The snapshots that are good.
    pub(crate) snapshots: BTreeSet<i64>,
    /// Snapshots that turned out to be damaged or too new. Their files are to be removed.
    pub(crate) removed_snapshots: Vec<i64>,
    /// Snapshots and indexes that were written: they must be durable before the journal lets go of what they
    /// came from.
    pub(crate) dirty: Vec<Arc<dyn File>>,
}

/// Scans from the nearest snapshot to the end. Everything in between was durable: a bad batch is corruption.
pub(crate) fn rebuild_tail(task: Rebuild<'_>) -> Result<Rebuilt, Fault> {
    let (start, producers, bad_snapshots) = nearest_snapshot(&task)?;
    let mut state = State {
        producers,
        epochs: LeaderEpochs::default(),
        now_ms: task.now_ms,
        scanned_bytes: 0,
        next_offset: start,
        dirty: Vec::new(),
    };
    let first = crate::shared::segment_of(task.segments, start);
    let mut indexes = IndexBuilder::new(task.interval_bytes, None);
    let mut snapshots = task.snapshots.clone();
    for offset in &bad_snapshots {
        snapshots.remove(offset);
    }
    for (number, segment) in task.segments.iter().enumerate().skip(first) {
        if segment.base_offset > start {
            // The one that was made when the segment was begun may be lost or untrusted.
            state.dirty.push(write_snapshot(task.io, task.dir, segment.base_offset, &state.producers)?);
            snapshots.insert(segment.base_offset);
        }
        indexes = rebuild_segment(&task, segment, start, &mut state)?;
        if number + 1 < task.segments.len() {
            state.dirty.extend(segment.offsets.flush(task.io)?);
            state.dirty.extend(segment.times.flush(task.io)?);
            segment.offsets.seal();
            segment.times.seal();
        }
    }
    let active = task.segments.last().expect("a log has an active segment");
    let first_batch = active.find(task.io, active.base_offset)?;
    Ok(Rebuilt {
        producers: state.producers,
        indexes,
        first_timestamp: first_batch.map(|f| f.header.max_timestamp).filter(|t| *t >= 0),
        epochs: state.epochs,
        scanned_bytes: state.scanned_bytes,
        removed_snapshots: task.snapshots.difference(&snapshots).copied().collect(),
        snapshots,
        dirty: state.dirty,
    })
}

/// Where to start: the newest good snapshot that may be trusted; or one at or before the first segment that
/// stays, since the one at the first segment of a log is made durable before the past is deleted; or the first
/// segment with no producers. (Segments before that one may be here again: the journal made them.)
fn nearest_snapshot(task: &Rebuild<'_>) -> Result<(i64, ProducerStates, Vec<i64>), StorageFailure> {
    let first_base = task.segments.first().map_or(0, |s| s.base_offset);
    let first_kept = crate::shared::segment_of(task.segments, task.log_start);
    let trusted = if Mutant::NewerSnapshotTrusted.is_on() { i64::MAX - 1 } else { task.trusted };
    let newest = trusted.min(task.end.offset);
    let bases = task.segments[..=first_kept].iter().rev().map(|s| s.base_offset);
    let fallback = bases.filter(|base| *base > newest);
    let trusted = task.snapshots.range(first_base..=newest.max(first_base)).rev().copied();
    let mut bad = Vec::new();
    for offset in trusted.filter(|offset| *offset <= newest).chain(fallback) {
        if !task.snapshots.contains(&offset) {
            continue;
        }
        match read_snapshot(task.io, task.dir, offset)? {
            Some(producers) => {
                bad.extend(task.snapshots.range(newest + 1..).filter(|o| **o != offset));
                return Ok((offset, producers, bad));
            }
            None => bad.push(offset),
        }
    }
    bad.extend(task.snapshots.range(newest.saturating_add(1)..));
    Ok((first_base, ProducerStates::default(), bad))
}

/// The epochs that the batches of these segments tell, for when nothing else does.
pub(crate) fn walk_epochs(io: IndexIo<'_>, segments: &[Arc<Segment>]) -> Result<LeaderEpochs, Fault> {
    let mut epochs = LeaderEpochs::default();
    for segment in segments {
        let file = segment.file(io)?;
        HeaderReader::new(&*file, segment.path(), segment.len()).each_from(0, |found| {
            epochs.assign(found.header.partition_leader_epoch, found.header.base_offset);
        })?;
    }
    Ok(epochs)
}

/// Writes a snapshot, unsynced: its checksum tells whether a crash took it.
pub(crate) fn write_snapshot(
    io: IndexIo<'_>,
    dir: &Path,
    offset: i64,
    producers: &ProducerStates,
) -> Result<Arc<dyn File>, StorageFailure> {
    let path = file_path(dir, offset, FileKind::Snapshot);
    let file = io.storage.open(&path, OpenMode::Create).at("create", &path)?;
    file.set_len(0).at("cut", &path)?;
    file.write_all_at(&producers.to_snapshot(), 0).at("write", &path)?;
    Ok(file)
}

/// The producers in the snapshot at `offset`, `None` if it is damaged.
pub(crate) fn read_snapshot(
    io: IndexIo<'_>,
    dir: &Path,
    offset: i64,
) -> Result<Option<ProducerStates>, StorageFailure> {
    let path = file_path(dir, offset, FileKind::Snapshot);
    let Some(bytes) = read_state(io.storage, &path)? else { return Ok(None) };
    match ProducerStates::from_snapshot(&bytes) {
        Ok(producers) => Ok(Some(producers)),
        Err(error) => {
            // A crash explains that: snapshots are not synced before anybody is answered.
            tracing::warn!(path = %path.display(), %error, "producer snapshot not usable, scanning more of the log");
            Ok(None)
        }
    }
}

struct State {
    producers: ProducerStates,
    epochs: LeaderEpochs,
    now_ms: i64,
    scanned_bytes: u64,
    next_offset: i64,
    dirty: Vec<Arc<dyn File>>,
}

/// Scans one segment from offset `start` on, and leaves its indexes in memory.
fn rebuild_segment(
    task: &Rebuild<'_>,
    segment: &Segment,
    start: i64,
    state: &mut State,
) -> Result<IndexBuilder, Fault> {
    let io = task.io;
    let file = segment.file(io)?;
    let from =
        if start <= segment.base_offset { Some(0) } else { segment.find(io, start)?.map(|f| f.position) };
    let from = from.unwrap_or(segment.len());
    let relative = start.saturating_sub(segment.base_offset);
    let offsets = segment.offsets.load(io, |e| e.position > 0 && u64::from(e.position) < from)?;
    let times = segment.times.load(io, |e| e.is_written() && i64::from(e.relative_offset) < relative)?;
    let mut largest = largest_before(segment, io, times.last(), from)?;
    let mut aborted: Vec<AbortedTxn> = (*segment.aborted(io)?).clone();
    aborted.retain(|txn| txn.last_offset < start);
    let kept_aborted = aborted.len();

    let mut builder = IndexBuilder::new(task.interval_bytes, times.last().copied());
    segment.offsets.replace_all(io, offsets)?;
    segment.times.replace_all(io, times)?;
    let mut scanner = Scanner::new(&*file, segment.path(), from, segment.len(), state.next_offset);
    while let Some(scanned) = scanner.next()? {
        let found = scanned.found;
        largest.add(&found.header);
        let new = builder.add(segment.base_offset, found.position, &found.header, largest);
        segment.add_entries(io, &new);
        aborted.extend(state.note(&scanned).map_err(|what| segment.corrupt(found.position, what))?);
        state.producers.keep_at_most(task.producers_max);
    }
    state.next_offset = scanner.next_offset();
    state.scanned_bytes += segment.len() - from;
    segment.add_time(io, builder.time_entry(segment.base_offset, largest));
    segment.set_largest(Some(largest));
    let changed = aborted.len() != kept_aborted || segment.aborted(io)?.len() != kept_aborted;
    if changed {
        state.dirty.extend(segment.replace_aborted(io, aborted, kept_aborted)?);
    }
    Ok(builder)
}

/// The largest timestamp before position `from`: the one of the last time entry, or a larger one that came
/// after it.
fn largest_before(
    segment: &Segment,
    io: IndexIo<'_>,
    last: Option<&TimeEntry>,
    from: u64,
) -> Result<LargestTimestamp, Fault> {
    let mut largest = LargestTimestamp::NONE;
    let mut start = 0;
    if let Some(last) = last {
        largest.timestamp = last.timestamp;
        largest.offset = segment.base_offset + i64::from(last.relative_offset);
        start = segment.find(io, largest.offset)?.map_or(from, |found| found.position);
    }
    let file = segment.file(io)?;
    HeaderReader::new(&*file, segment.path(), from).each_from(start, |found| largest.add(&found.header))?;
    Ok(largest)
}

impl State {
    /// Takes a batch into producers and epochs. An aborted transaction that it ends is returned.
    fn note(&mut self, scanned: &Scanned<'_>) -> Result<Option<AbortedTxn>, String> {
        let header = &scanned.found.header;
        self.epochs.assign(header.partition_leader_epoch, header.base_offset);
        if !header.is_control() {
            self.producers.record(header, self.now_ms);
            return Ok(None);
        }
        let Some(view) = &scanned.view else {
            return Err("the control batch is too large to be a marker".to_owned());
        };
        let Some(marker) = parse_marker(view)? else { return Ok(None) };
        let txn =
            self.producers.record_marker(header, marker.committed, marker.coordinator_epoch, self.now_ms);
        let txn = txn.filter(|t| t.aborted && !Mutant::AbortedNotRebuilt.is_on());
        Ok(txn.map(|t| self.producers.aborted_entry(&t)))
    }
}

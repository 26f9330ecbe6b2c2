//! The end of opening a partition.

use std::sync::Arc;

use super::{PartitionRecovery, RecoverMode, RecoveryReport};
use crate::error::{Corruption, Fault, IoContext, OpenError, StorageFailure};
use crate::id::LogEnd;
use crate::index::IndexIo;
use crate::leader_epoch::LeaderEpochs;
use crate::log::{Log, LogParts};
use crate::metadata::read_small;
use crate::metadata::remove_if_there;
use crate::mutant::Mutant;
use crate::names::{FileKind, LEADER_EPOCH_CHECKPOINT, file_path};
use crate::producer_state::ProducerStates;
use crate::rebuild::{Rebuild, read_snapshot, rebuild_tail, walk_epochs};
use crate::scan::{Scanned, Scanner};
use crate::segment::{Found, IndexBuilder, Segment};
use crate::shared::{LogContext, Segments};
use crate::sink::{DurableListener, SyncLater};
use crate::storage::{File, OpenMode};

/// Memory that is made for the active segment and the producers.
struct Restored {
    producers: ProducerStates,
    indexes: Option<IndexBuilder>,
    first_timestamp: Option<i64>,
    epochs: LeaderEpochs,
}

pub(super) fn finish(
    mut recovery: PartitionRecovery,
    context: &LogContext,
    listener: Arc<dyn DurableListener>,
    now_ms: i64,
) -> Result<(Log, RecoveryReport), OpenError> {
    // A hole beyond the end is where an earlier start cut the first parts of a batch whose last part was
    // never durable.
    let end_offset = recovery.known_end().map_or(i64::MAX, |end| end.offset);
    if let Some(hole) =
        recovery.hole.take_if(|hole| hole.last >= recovery.log_start && hole.first < end_offset)
    {
        return Err(hole.corruption.into());
    }
    let mut report = RecoveryReport::default();
    let end = recovery.find_end(&mut report)?;
    let end = recovery.keep_written_through(end, &mut report)?;
    recovery.check_start(end)?;
    // Nothing was changed up to here but by replay, which can be repeated.
    let file = recovery.cut(end, &mut report)?;
    recovery.remove_leftovers()?;
    let mut segments = recovery.open_segments(context, end, now_ms)?;
    let io = IndexIo { storage: &*context.storage, files: &context.files };
    let restored = recovery.restore(io, &segments, end, now_ms, &mut report)?;
    recovery.remove_below_start(context, &mut segments, &mut report)?;
    recovery.report_dirty(&mut report);
    report.log_start = recovery.log_start;
    report.written_through = recovery.written_through;
    report.end = Some(end);
    let parts = LogParts {
        id: recovery.id,
        dir: recovery.dir,
        config: recovery.config,
        log_start: recovery.log_start,
        end,
        segments,
        active_file: file,
        indexes: restored.indexes,
        first_timestamp: restored.first_timestamp,
        producers: restored.producers,
        epochs: restored.epochs,
        snapshots: recovery.snapshots,
        now_ms,
    };
    Ok((Log::assemble(context, parts, listener), report))
}

/// Whether a batch that the journal does not have may stand at `offset`.
fn follows(found: &Found, offset: i64) -> bool {
    let header = &found.header;
    let is_of_transaction = header.is_control() || header.is_transactional();
    header.base_offset == offset && (!is_of_transaction || Mutant::TransactionKept.is_on())
}

impl PartitionRecovery {
    /// Where the good bytes end.
    fn find_end(&mut self, report: &mut RecoveryReport) -> Result<LogEnd, OpenError> {
        let known = match self.mode {
            RecoverMode::Clean(end) => Some(end),
            RecoverMode::Unclean(end) => self.replayed.or(end),
        };
        match known {
            Some(end) => Ok(self.without_deleted(end)),
            None => self.scan_for_end(report),
        }
    }

    /// Retention may have taken everything, also the segment that the last frame was written to. The log then
    /// ends in the empty one that was begun for that, at its start.
    fn without_deleted(&self, end: LogEnd) -> LogEnd {
        let all_deleted = self.log_start >= end.offset && !self.bases.contains(&end.segment_base);
        if all_deleted { LogEnd { segment_base: end.offset, position: 0, ..end } } else { end }
    }

    /// Where the log ends with what a process that was killed had written through, and the journal does not have. As Kafka
    /// does, good batches are kept. Not those of transactions: whether they count is for the journal to say, which has what
    /// was written before and after them elsewhere.
    fn keep_written_through(
        &mut self,
        end: LogEnd,
        report: &mut RecoveryReport,
    ) -> Result<LogEnd, OpenError> {
        if !self.written_through || matches!(self.mode, RecoverMode::Clean(_)) {
            return Ok(end);
        }
        let mut kept = end;
        while self.bases.contains(&kept.segment_base) {
            let path = file_path(&self.dir, kept.segment_base, FileKind::Log);
            let file = self.segment_file(kept.segment_base)?;
            let len = file.len().at("ask the length of", &path)?;
            let mut scanner = Scanner::new(&*file, &path, kept.position, len, kept.offset);
            loop {
                match scanner.next() {
                    Ok(Some(Scanned { found, .. })) if follows(&found, kept.offset) => {
                        report.kept_bytes += found.header.total_len() as u64;
                        kept.position = found.end();
                        kept.offset = found.header.next_offset();
                    }
                    Ok(_) | Err(Fault::Corrupt(_)) => break,
                    Err(Fault::Storage(failure)) => return Err(failure.into()),
                }
            }
            let is_next = kept.position == len && kept.position > 0 && self.bases.contains(&kept.offset);
            if !is_next || kept.offset == kept.segment_base {
                break;
            }
            kept = LogEnd { segment_base: kept.offset, position: 0, ..kept };
        }
        if kept != end {
            self.modified.extend(self.bases.range(end.segment_base..=kept.segment_base));
        }
        Ok(kept)
    }

    /// Nobody knows the end: it is where the last segment has no good batch any more.
    fn scan_for_end(&mut self, report: &mut RecoveryReport) -> Result<LogEnd, OpenError> {
        let base = match self.bases.last() {
            Some(base) => *base,
            None => self.log_start,
        };
        let path = file_path(&self.dir, base, FileKind::Log);
        let file = self.segment_file(base)?;
        let len = file.len().at("ask the length of", &path)?;
        let mut scanner = Scanner::new(&*file, &path, 0, len, base);
        let stopped = loop {
            match scanner.next() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(Fault::Corrupt(corruption)) => break Some(corruption),
                Err(Fault::Storage(failure)) => return Err(failure.into()),
            }
        };
        let end = LogEnd { segment_base: base, position: scanner.position(), offset: scanner.next_offset() };
        report.scanned_bytes += end.position;
        if let Some(corruption) = stopped {
            let bytes = len - end.position;
            tracing::warn!(partition = %self.id, %corruption, bytes, "cutting the log at its first bad batch");
        }
        Ok(end)
    }

    /// The log start must lie in the log, and the segments from it on must be there.
    fn check_start(&mut self, end: LogEnd) -> Result<(), OpenError> {
        let first_base = self.bases.first().copied().unwrap_or(end.segment_base).min(end.segment_base);
        let path = file_path(&self.dir, end.segment_base, FileKind::Log);
        if self.log_start > end.offset {
            let what = format!("the log ends at offset {}, but starts at {}", end.offset, self.log_start);
            return Err(Corruption::new(&path, end.position, what).into());
        }
        if self.log_start < first_base {
            let nobody_knows = matches!(self.mode, RecoverMode::Unclean(None));
            if !nobody_knows {
                let path = file_path(&self.dir, self.log_start, FileKind::Log);
                let what =
                    format!("the log starts at offset {}, its first segment at {first_base}", self.log_start);
                return Err(Corruption::new(&path, 0, what).into());
            }
            self.log_start = first_base;
        }
        Ok(())
    }

    /// Makes the files end where the log ends, and returns the file of the active segment.
    fn cut(&mut self, end: LogEnd, report: &mut RecoveryReport) -> Result<Arc<dyn File>, OpenError> {
        let path = file_path(&self.dir, end.segment_base, FileKind::Log);
        if end.position > 0 && !self.bases.contains(&end.segment_base) {
            let what = format!("the segment is missing, {} of its bytes were durable", end.position);
            return Err(Corruption::new(&path, 0, what).into());
        }
        let file = self.segment_file(end.segment_base)?;
        let len = file.len().at("ask the length of", &path)?;
        if len < end.position {
            let what = format!("the file has {len} bytes, {} were durable", end.position);
            return Err(Corruption::new(&path, len, what).into());
        }
        if len > end.position && !Mutant::TailKept.is_on() {
            if matches!(self.mode, RecoverMode::Clean(_)) {
                // Somebody wrote after the clean stop. Cutting could destroy what is not ours.
                let what = format!("the file has {len} bytes, the log was closed with {}", end.position);
                return Err(Corruption::new(&path, end.position, what).into());
            }
            file.set_len(end.position).at("cut", &path)?;
            self.modified.insert(end.segment_base);
            report.cut_bytes += len - end.position;
        }
        report.removed_segments += self.remove_segments_above(end.segment_base)?;
        Ok(file)
    }

    /// Segments that lie below the log start as a whole were on their way out. The active one stays.
    fn remove_below_start(
        &mut self,
        context: &LogContext,
        segments: &mut Segments,
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        let gone = segments[1..].partition_point(|s| s.base_offset <= self.log_start);
        if gone > 0 && self.snapshots.contains(&segments[gone].base_offset) {
            // All that is left of the producers in what goes.
            let path = file_path(&self.dir, segments[gone].base_offset, FileKind::Snapshot);
            let file = self.storage.open(&path, OpenMode::Write).at("open", &path)?;
            file.sync_data().at("sync", &path)?;
            self.storage.sync_dir(&self.dir).at("sync", &self.dir)?;
        }
        for segment in segments.drain(..gone) {
            context.files.forget(segment.number());
            self.remove_segment(segment.base_offset)?;
            report.removed_segments += 1;
        }
        Ok(())
    }

    fn remove_leftovers(&mut self) -> Result<(), StorageFailure> {
        for path in std::mem::take(&mut self.leftovers) {
            remove_if_there(&*self.storage, &path)?;
            self.renamed = true;
        }
        Ok(())
    }

    fn open_segments(&self, context: &LogContext, end: LogEnd, now_ms: i64) -> Result<Segments, OpenError> {
        let mut segments = Segments::new();
        for base in &self.bases {
            let len = if *base == end.segment_base { end.position } else { self.len_of(*base)? };
            segments.push(Arc::new(Segment::open(&self.dir, *base, len, &context.files, now_ms)));
        }
        Ok(segments)
    }

    fn len_of(&self, base: i64) -> Result<u64, StorageFailure> {
        let path = file_path(&self.dir, base, FileKind::Log);
        let file = self.storage.open(&path, OpenMode::Read).at("open", &path)?;
        file.len().at("ask the length of", &path)
    }

    fn restore(
        &mut self,
        io: IndexIo<'_>,
        segments: &Segments,
        end: LogEnd,
        now_ms: i64,
        report: &mut RecoveryReport,
    ) -> Result<Restored, OpenError> {
        let epochs = self.read_epochs()?;
        if let RecoverMode::Clean(_) = self.mode
            && self.snapshots.last() == Some(&end.offset)
            && let Some(producers) = read_snapshot(io, &self.dir, end.offset)?
        {
            // No file after a clean stop: no epoch was ever set.
            let epochs = epochs.unwrap_or_default();
            return Ok(Restored { producers, indexes: None, first_timestamp: None, epochs });
        }
        let rebuilt = rebuild_tail(Rebuild {
            io,
            dir: &self.dir,
            segments,
            snapshots: &self.snapshots,
            trusted: self.trusted,
            log_start: self.log_start,
            end,
            interval_bytes: self.config.index_interval_bytes,
            producers_max: self.config.producers_max,
            now_ms,
        })?;
        report.scanned_bytes += rebuilt.scanned_bytes;
        self.snapshots = rebuilt.snapshots;
        for offset in rebuilt.removed_snapshots {
            remove_if_there(&*self.storage, &file_path(&self.dir, offset, FileKind::Snapshot))?;
            self.renamed = true;
        }
        self.renamed |= !rebuilt.dirty.is_empty();
        report.dirty.extend(rebuilt.dirty.into_iter().map(SyncLater::File));
        let known = match &epochs {
            Some(epochs) => epochs.clone(),
            None => walk_epochs(io, segments)?,
        };
        let known = self.merge_epochs(known, &rebuilt.epochs, end);
        if epochs.unwrap_or_default() != known {
            let path = self.dir.join(LEADER_EPOCH_CHECKPOINT);
            let file = crate::metadata::replace_small(&*self.storage, &path, known.to_text().as_bytes())?;
            report.dirty.push(SyncLater::File(file));
            self.renamed = true;
        }
        Ok(Restored {
            producers: rebuilt.producers,
            indexes: Some(rebuilt.indexes),
            first_timestamp: rebuilt.first_timestamp,
            epochs: known,
        })
    }

    /// The epochs in the checkpoint file. `None` if it is damaged or missing, which a crash explains.
    fn read_epochs(&self) -> Result<Option<LeaderEpochs>, StorageFailure> {
        let path = self.dir.join(LEADER_EPOCH_CHECKPOINT);
        let Some(bytes) = read_small(&*self.storage, &path)? else { return Ok(None) };
        match LeaderEpochs::from_text(&String::from_utf8_lossy(&bytes)) {
            Ok(epochs) => Ok(Some(epochs)),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "leader epochs not usable, scanning the log for them");
                Ok(None)
            }
        }
    }

    /// What the file says, cut at both ends of the log, and what the batches say.
    fn merge_epochs(&self, mut epochs: LeaderEpochs, scanned: &LeaderEpochs, end: LogEnd) -> LeaderEpochs {
        epochs.truncate_from_end(end.offset);
        for start in scanned.entries() {
            if epochs.latest().is_none_or(|latest| start.epoch > latest) {
                epochs.assign(start.epoch, start.start_offset);
            }
        }
        epochs.truncate_from_start(self.log_start);
        epochs
    }

    fn report_dirty(&mut self, report: &mut RecoveryReport) {
        let open = std::mem::take(&mut self.open);
        let modified = open.into_iter().filter(|(base, _)| self.modified.contains(base));
        report.dirty.extend(modified.map(|(_, file)| SyncLater::File(file)));
        if self.renamed {
            report.dirty.push(SyncLater::Dir(self.dir.clone()));
        }
    }
}

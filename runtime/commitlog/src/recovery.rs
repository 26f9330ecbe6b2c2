//! Opening a partition: finding out where its good bytes end, and making memory fit them.
//!
//! After a clean stop nothing is read but the directory and the newest snapshot. After a crash the journal
//! says what was durable: [`PartitionRecovery::replay`] puts it back, [`PartitionRecovery::finish`] cuts what
//! lies beyond and rebuilds indexes, producer state and leader epochs from the batches since the last
//! checkpoint. Bytes that were durable and are damaged or gone are an error, and nothing is cut then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::cleaned_to;
use crate::cleaner::swap;
use crate::config::LogConfig;
use crate::error::{Corruption, IoContext, OpenError, StorageFailure};
use crate::id::{LogEnd, PartitionId};
use crate::log::Log;
use crate::metadata::{read_topic_id, remove_if_there};
use crate::names::{self, FileKind, PARTITION_METADATA, SEGMENT_FILES, file_path};
use crate::shared::LogContext;
use crate::sink::{DurableListener, FrameKind, FrameMeta, SyncLater};
use crate::storage::{File, OpenMode, Storage};

mod finish;

/// What the last checkpoint says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverMode {
    /// The log directory was closed cleanly, and the log ended here.
    Clean(LogEnd),
    /// It was not. The end at the last checkpoint, if one knew the partition; without it the last segment is
    /// scanned and cut at its first bad batch, as Kafka does.
    Unclean(Option<LogEnd>),
}

/// What became of a frame that was replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is in the files now.
    Applied,
    /// It belongs to a part of the log that is gone.
    Skipped,
}

/// What a start did to a partition.
#[derive(Default)]
pub struct RecoveryReport {
    /// First offset that may be read.
    pub log_start: i64,
    /// Where the log ends.
    pub end: Option<LogEnd>,
    /// Bytes cut off the ends of segments: they were never acknowledged.
    pub cut_bytes: u64,
    /// Segments removed, because nothing of them was durable or everything lies below the log start.
    pub removed_segments: usize,
    /// Bytes of batches that were written through and not durable, and are kept.
    pub kept_bytes: u64,
    /// The log was written through ([`LogConfig::write_through`]) when it was last appended to.
    pub written_through: bool,
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// What must be synced before the journal's space is used again.
    pub dirty: Vec<SyncLater>,
}

/// A partition that is being opened.
pub struct PartitionRecovery {
    storage: Arc<dyn Storage>,
    dir: Arc<Path>,
    id: PartitionId,
    config: LogConfig,
    mode: RecoverMode,
    log_start: i64,
    /// Base offsets of the segments on disk.
    bases: BTreeSet<i64>,
    snapshots: BTreeSet<i64>,
    leftovers: Vec<PathBuf>,
    /// Segment files that are open.
    open: BTreeMap<i64, Arc<dyn File>>,
    /// Segments that were written or cut.
    modified: BTreeSet<i64>,
    /// Where the log ends as far as the journal was replayed.
    replayed: Option<LogEnd>,
    /// Where the next part of a batch in several frames goes.
    partial: Option<(i64, u64)>,
    /// Snapshots and index entries above this offset may speak of what was cut or overwritten.
    trusted: i64,
    hole: Option<Hole>,
    /// Names were made or removed.
    renamed: bool,
    written_through: bool,
}

/// Records that the journal builds on and that are not there.
struct Hole {
    first: i64,
    last: i64,
    corruption: Corruption,
}

impl PartitionRecovery {
    /// Looks at the partition in `dir`. `log_start` is the one of the last checkpoint, 0 if that is not
    /// known.
    pub fn start(
        storage: Arc<dyn Storage>,
        dir: &Path,
        id: PartitionId,
        config: LogConfig,
        mode: RecoverMode,
        log_start: i64,
    ) -> Result<PartitionRecovery, OpenError> {
        let mut bases = BTreeSet::new();
        let mut snapshots = BTreeSet::new();
        let mut leftovers = Vec::new();
        let mut has_metadata = false;
        let mut indexes = Vec::new();
        // Before anything is replayed: a frame may speak of a place in a segment that was cleaned.
        let files = names_after_swaps(&*storage, dir)?;
        for path in files {
            match names::parse(&path) {
                Some((base, FileKind::Log)) => drop(bases.insert(base)),
                Some((offset, FileKind::Snapshot)) => drop(snapshots.insert(offset)),
                Some((base, _)) => indexes.push((base, path)),
                None if names::is_leftover(&path) => leftovers.push(path),
                None => has_metadata |= path.ends_with(PARTITION_METADATA),
            }
        }
        // Left over from a segment that was removed. A new one with this base offset must not find them.
        leftovers.extend(indexes.into_iter().filter(|(base, _)| !bases.contains(base)).map(|(_, path)| path));
        if has_metadata {
            check_topic(&*storage, dir, &id)?;
        }
        let trusted = match mode {
            RecoverMode::Clean(end) | RecoverMode::Unclean(Some(end)) => end.offset,
            RecoverMode::Unclean(None) => bases.last().copied().unwrap_or(0),
        };
        Ok(PartitionRecovery {
            storage,
            dir: dir.into(),
            id,
            config,
            mode,
            log_start,
            bases,
            snapshots,
            leftovers,
            open: BTreeMap::new(),
            modified: BTreeSet::new(),
            replayed: None,
            partial: None,
            trusted,
            hole: None,
            renamed: false,
            written_through: false,
        })
    }

    /// Says whether the log was written through when it was last appended to: good batches behind the last frame are kept
    /// then. They are there after a kill, not after a power cut, and their producers were told of them.
    pub fn set_written_through(&mut self, written_through: bool) {
        self.written_through = written_through;
    }

    /// Puts back what a frame of the journal says, in the order of the journal. `more`: the batch goes on in
    /// the next frame of this partition. Repeating a replay changes nothing.
    pub fn replay(&mut self, meta: &FrameMeta, more: bool, payload: &Bytes) -> Result<Replayed, OpenError> {
        match meta.kind {
            FrameKind::Data => self.replay_data(meta, more, payload),
            FrameKind::Truncate => self.replay_truncate(meta),
            FrameKind::LogStart => {
                self.log_start = self.log_start.max(meta.base_offset);
                Ok(Replayed::Applied)
            }
            // These concern the directory as a whole.
            FrameKind::PartitionDelete | FrameKind::PartitionCreate => Ok(Replayed::Skipped),
        }
    }

    /// Cuts what was not durable, rebuilds what is not durable by design, and makes the log. The caller syncs
    /// [`RecoveryReport::dirty`] before it lets go of the journal.
    pub fn finish(
        self,
        context: &LogContext,
        listener: Arc<dyn DurableListener>,
        now_ms: i64,
    ) -> Result<(Log, RecoveryReport), OpenError> {
        finish::finish(self, context, listener, now_ms)
    }

    /// First offset that may be read, as far as it is known by now.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    fn replay_data(&mut self, meta: &FrameMeta, more: bool, payload: &Bytes) -> Result<Replayed, OpenError> {
        let place = (meta.segment_base, meta.position);
        if self.partial.take() != Some(place) {
            self.go_on(meta)?;
        }
        let end = meta.position + payload.len() as u64;
        if more {
            self.partial = Some((meta.segment_base, end));
        } else {
            let end = LogEnd { segment_base: meta.segment_base, position: end, offset: meta.end_offset() };
            self.replayed = Some(end);
        }
        let below_start = meta.last_offset < self.log_start;
        if below_start || self.is_hole(meta, meta.base_offset, meta.last_offset)? {
            return Ok(Replayed::Skipped);
        }
        let path = file_path(&self.dir, meta.segment_base, FileKind::Log);
        self.segment_file(meta.segment_base)?.write_all_at(payload, meta.position).at("write", &path)?;
        self.modified.insert(meta.segment_base);
        Ok(Replayed::Applied)
    }

    /// Whether the bytes before the place of a frame are missing. Retention or a truncation further on in the
    /// journal may explain that: an earlier start got that far, and was interrupted. Otherwise it is damage.
    /// Nothing is written behind a hole, so that the next start finds it too.
    fn is_hole(&mut self, meta: &FrameMeta, first: i64, last: i64) -> Result<bool, OpenError> {
        if meta.position == 0 {
            return Ok(false);
        }
        let path = file_path(&self.dir, meta.segment_base, FileKind::Log);
        let len = if self.bases.contains(&meta.segment_base) {
            let file = self.segment_file(meta.segment_base)?;
            file.len().at("ask the length of", &path)?
        } else {
            0
        };
        if len >= meta.position {
            return Ok(false);
        }
        let what = format!("the file has {len} bytes, {} were durable", meta.position);
        let hole =
            self.hole.get_or_insert(Hole { first, last, corruption: Corruption::new(&path, len, what) });
        hole.first = hole.first.min(first);
        hole.last = hole.last.max(last);
        Ok(true)
    }

    /// Where the log ends as far as it is known.
    fn known_end(&self) -> Option<LogEnd> {
        let at_checkpoint = match self.mode {
            RecoverMode::Clean(end) => Some(end),
            RecoverMode::Unclean(end) => end,
        };
        self.replayed.or(at_checkpoint)
    }

    /// Frames of a partition follow each other without a hole. Where one begins a segment, the segment before
    /// it is cut at its last batch: a write that failed may have left something behind it.
    fn go_on(&mut self, meta: &FrameMeta) -> Result<(), OpenError> {
        let Some(before) = self.known_end() else { return Ok(()) };
        let place =
            LogEnd { segment_base: meta.segment_base, position: meta.position, offset: meta.base_offset };
        // The checkpoint may know more than the place in the journal from which it is replayed.
        if place == before || (self.replayed.is_none() && place <= before) {
            return Ok(());
        }
        let next_segment = place.segment_base > before.segment_base;
        // A checkpoint between the parts of a large batch: its first parts lie below it, in the segment.
        let between_parts = self.replayed.is_none() && place > before;
        if place.offset == before.offset && (between_parts || (next_segment && place.position == 0)) {
            if next_segment {
                self.cut_segment(before)?;
            }
            return Ok(());
        }
        let path = file_path(&self.dir, meta.segment_base, FileKind::Log);
        let what = format!("the journal goes on with {place:?} after {before:?}");
        Err(Corruption::new(&path, meta.position, what).into())
    }

    /// Cuts a segment, if it is there, to end at this place.
    fn cut_segment(&mut self, end: LogEnd) -> Result<(), StorageFailure> {
        if !self.bases.contains(&end.segment_base) {
            return Ok(());
        }
        let path = file_path(&self.dir, end.segment_base, FileKind::Log);
        let file = self.segment_file(end.segment_base)?;
        if file.len().at("ask the length of", &path)? > end.position {
            file.set_len(end.position).at("cut", &path)?;
        }
        // Even if it was cut already: a process that was killed may have done that, and a power cut could
        // still undo it.
        self.modified.insert(end.segment_base);
        Ok(())
    }

    fn replay_truncate(&mut self, meta: &FrameMeta) -> Result<Replayed, OpenError> {
        let end =
            LogEnd { segment_base: meta.segment_base, position: meta.position, offset: meta.base_offset };
        self.trusted = self.trusted.min(end.offset);
        // It may say that what is appended behind the cut was cleaned.
        cleaned_to::remove(&*self.storage, &self.dir)?;
        self.replayed = Some(end);
        self.partial = None;
        if let Some(hole) = &mut self.hole {
            hole.last = hole.last.min(meta.last_offset);
        }
        self.hole.take_if(|hole| hole.last < hole.first);
        self.remove_segments_above(end.segment_base)?;
        // The batch before the cut is what is missing, if anything is.
        if self.is_hole(meta, meta.last_offset, meta.last_offset)? {
            return Ok(Replayed::Skipped);
        }
        // Appends that follow in the journal write over what lies beyond; cutting now keeps the two apart.
        self.segment_file(end.segment_base)?;
        self.cut_segment(end)?;
        Ok(Replayed::Applied)
    }

    /// The file of a segment, made if it is not there.
    fn segment_file(&mut self, base: i64) -> Result<Arc<dyn File>, StorageFailure> {
        if let Some(file) = self.open.get(&base) {
            return Ok(file.clone());
        }
        let path = file_path(&self.dir, base, FileKind::Log);
        let file = self.storage.open(&path, OpenMode::Create).at("open", &path)?;
        self.renamed |= self.bases.insert(base);
        self.open.insert(base, file.clone());
        Ok(file)
    }

    /// Removes segments that start above `base`, and says how many.
    fn remove_segments_above(&mut self, base: i64) -> Result<usize, StorageFailure> {
        let gone: Vec<i64> = self.bases.range(base + 1..).copied().collect();
        for base in &gone {
            self.remove_segment(*base)?;
        }
        Ok(gone.len())
    }

    fn remove_segment(&mut self, base: i64) -> Result<(), StorageFailure> {
        self.bases.remove(&base);
        self.open.remove(&base);
        self.modified.remove(&base);
        self.renamed = true;
        for kind in SEGMENT_FILES {
            remove_if_there(&*self.storage, &file_path(&self.dir, base, kind))?;
        }
        Ok(())
    }
}

impl Log {
    /// Opens a partition that needs no replay from a journal. `log_start` is what is known from the last
    /// checkpoint, 0 if nothing is.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact that only the log directory has")]
    pub fn open(
        context: &LogContext,
        dir: &Path,
        id: PartitionId,
        config: LogConfig,
        listener: Arc<dyn DurableListener>,
        mode: RecoverMode,
        log_start: i64,
        now_ms: i64,
    ) -> Result<(Log, RecoveryReport), OpenError> {
        PartitionRecovery::start(context.storage.clone(), dir, id, config, mode, log_start)?
            .finish(context, listener, now_ms)
    }
}

/// The files of a partition, once what the cleaner had begun is finished.
fn names_after_swaps(storage: &dyn Storage, dir: &Path) -> Result<Vec<PathBuf>, StorageFailure> {
    let files = storage.list(dir).at("list", dir)?;
    if files.iter().any(|path| names::parse_swap(path).is_some()) {
        swap::finish_interrupted(storage, dir, &files)?;
        return storage.list(dir).at("list", dir);
    }
    Ok(files)
}

fn check_topic(storage: &dyn Storage, dir: &Path, id: &PartitionId) -> Result<(), OpenError> {
    match read_topic_id(storage, dir)? {
        Some(found) if found != id.topic_id => {
            let path = dir.join(PARTITION_METADATA);
            Err(OpenError::WrongTopic { path, found, expected: id.topic_id })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

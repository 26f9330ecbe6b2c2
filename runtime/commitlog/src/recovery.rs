//! Opening a partition: finding out where its good bytes end, and making memory fit them.
//!
//! After a clean stop nothing is read but the directory and the newest snapshot. After a crash the journal says what was
//! durable: [`PartitionRecovery::replay`] puts it back, [`PartitionRecovery::finish`] cuts what lies beyond and rebuilds
//! indexes, producer state and leader epochs from the batches since the last checkpoint. Bytes that were
//! durable and are damaged or gone are an error, and nothing is cut then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::LogConfig;
use crate::error::{Corruption, IoContext, OpenError, StorageFailure};
use crate::id::{LogEnd, PartitionId};
use crate::log::Log;
use crate::metadata::read_topic_id;
use crate::names::{self, FileKind, PARTITION_METADATA, file_path};
use crate::shared::LogContext;
use crate::sink::{DurableListener, FrameKind, FrameMeta, SyncLater};
use crate::storage::{File, OpenMode, Storage};

mod finish;
pub(crate) mod rebuild;

/// What the last checkpoint says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverMode {
    /// The log directory was closed cleanly, and the log ended here.
    Clean(LogEnd),
    /// It was not. The end at the last checkpoint, if one knew the partition; without it the last segment is scanned and cut at
    /// its first bad batch, as Kafka does.
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
    /// Durable bytes that are not there, in this segment. A truncation further on in the journal may explain that: an earlier start
    /// got as far as to cut them, and was interrupted. Until then nothing is written behind the hole.
    missing: Option<(i64, Corruption)>,
    /// A frame was skipped, so the next one need not follow what is known.
    skipped: bool,
    /// Names were made or removed.
    renamed: bool,
}

impl PartitionRecovery {
    /// Looks at the partition in `dir`. `log_start` is the one of the last checkpoint, 0 if that is not known.
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
        for path in storage.list(dir).at("list", dir)? {
            match names::parse(&path) {
                Some((base, FileKind::Log)) => drop(bases.insert(base)),
                Some((offset, FileKind::Snapshot)) => drop(snapshots.insert(offset)),
                Some(_) => {}
                None if names::is_leftover(&path) => leftovers.push(path),
                None => has_metadata |= path.ends_with(PARTITION_METADATA),
            }
        }
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
            missing: None,
            skipped: false,
            renamed: false,
        })
    }

    /// Puts back what a frame of the journal says, in the order of the journal. `more`: the batch goes on in the next
    /// frame of this partition. Repeating a replay changes nothing.
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
        let continues = self.partial.take() == Some(place);
        if meta.last_offset < self.log_start || self.is_gone(meta) {
            self.skipped = true;
            return Ok(Replayed::Skipped);
        }
        if !continues {
            self.go_on(meta)?;
        }
        self.skipped = false;
        let path = file_path(&self.dir, meta.segment_base, FileKind::Log);
        let file = self.segment_file(meta.segment_base)?;
        let len = file.len().at("ask the length of", &path)?;
        if len < meta.position && self.missing.is_none() {
            let what = format!("the file has {len} bytes, {} were durable", meta.position);
            self.missing = Some((meta.segment_base, Corruption::new(&path, len, what)));
        }
        if self.missing.is_none() {
            file.write_all_at(payload, meta.position).at("write", &path)?;
            self.modified.insert(meta.segment_base);
        }
        let end = meta.position + payload.len() as u64;
        if more {
            self.partial = Some((meta.segment_base, end));
        } else {
            let end = LogEnd { segment_base: meta.segment_base, position: end, offset: meta.end_offset() };
            self.replayed = Some(end);
        }
        Ok(Replayed::Applied)
    }

    /// A segment without a file that this replay does not begin was removed by retention.
    fn is_gone(&self, meta: &FrameMeta) -> bool {
        meta.position > 0 && !self.bases.contains(&meta.segment_base)
    }

    /// Where the log ends as far as it is known, unless frames were skipped since.
    fn known_end(&self) -> Option<LogEnd> {
        let at_checkpoint = match self.mode {
            RecoverMode::Clean(end) => Some(end),
            RecoverMode::Unclean(end) => end,
        };
        self.replayed.or(at_checkpoint).filter(|_| !self.skipped)
    }

    /// Frames of a partition follow each other without a hole. Where one begins a segment, the segment before it is cut at its
    /// last batch: a write that failed may have left something behind it.
    fn go_on(&mut self, meta: &FrameMeta) -> Result<(), OpenError> {
        let Some(before) = self.known_end() else { return Ok(()) };
        let place =
            LogEnd { segment_base: meta.segment_base, position: meta.position, offset: meta.base_offset };
        // The checkpoint may know more than the place in the journal from which it is replayed.
        if place == before || (self.replayed.is_none() && place <= before) {
            return Ok(());
        }
        if place.segment_base > before.segment_base && place.position == 0 && place.offset == before.offset {
            return Ok(self.cut_segment(before)?);
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
            self.modified.insert(end.segment_base);
        }
        Ok(())
    }

    fn replay_truncate(&mut self, meta: &FrameMeta) -> Result<Replayed, OpenError> {
        if self.is_gone(meta) || meta.base_offset < self.log_start {
            return Ok(Replayed::Skipped);
        }
        let end =
            LogEnd { segment_base: meta.segment_base, position: meta.position, offset: meta.base_offset };
        self.trusted = self.trusted.min(end.offset);
        self.replayed = Some(end);
        self.partial = None;
        let explains =
            |(base, hole): &(i64, Corruption)| (*base, hole.position) >= (end.segment_base, end.position);
        if self.missing.as_ref().is_some_and(explains) {
            self.missing = None;
        }
        self.remove_segments_above(end.segment_base)?;
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
        for kind in [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex] {
            remove_if_there(&*self.storage, &file_path(&self.dir, base, kind))?;
        }
        Ok(())
    }
}

fn remove_if_there(storage: &dyn Storage, path: &Path) -> Result<(), StorageFailure> {
    match storage.remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.at("remove", path),
    }
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

//! Brings the partitions up to the end of the journal after a crash (FORMAT.md, "Start", step 5): which of them exist, and which
//! frame goes to which. What a frame does to a partition's files is in [`crate::recovery`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::OpenDirError;
use super::layout::{self, DirName};
use crate::config::LogConfig;
use crate::error::{IoContext, OpenError, StorageFailure};
use crate::id::{LogEnd, PartitionId};
use crate::journal::group::FrameHeader;
use crate::journal::slot::PartitionEnd;
use crate::journal::tracker::Key;
use crate::metadata::{read_topic_id, write_topic_id};
use crate::names::{self, FileKind, PARTITION_METADATA};
use crate::recovery::{PartitionRecovery, RecoverMode};
use crate::sink::{FrameKind, FrameMeta};
use crate::storage::{OpenMode, Storage};

/// Partitions on their way to the state at the end of the journal.
pub(crate) struct Replay<'a> {
    storage: &'a Arc<dyn Storage>,
    root: &'a Path,
    config: &'a LogConfig,
    partitions: BTreeMap<Key, Recovering>,
    dirty_dirs: BTreeSet<PathBuf>,
    frames: u64,
}

/// A partition, where it lies, and how far its recovery is.
pub(crate) struct Recovering {
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    /// Or why its directory cannot be used: not an error yet, a frame may say that the partition was deleted.
    recovery: Result<PartitionRecovery, OpenError>,
}

/// What a replay found.
pub(crate) struct Replayed {
    pub(crate) partitions: Vec<(PartitionId, PathBuf, PartitionRecovery)>,
    /// Directories whose entries have changed.
    pub(crate) dirty_dirs: BTreeSet<PathBuf>,
    pub(crate) frames: u64,
}

impl<'a> Replay<'a> {
    /// Starts from the partitions of a checkpoint, which was the `clean` end of a server or not.
    pub(crate) fn start(
        storage: &'a Arc<dyn Storage>,
        root: &'a Path,
        config: &'a LogConfig,
        ends: Vec<PartitionEnd>,
        clean: bool,
    ) -> Result<Replay<'a>, OpenDirError> {
        let (partitions, dirty_dirs) = (BTreeMap::new(), BTreeSet::new());
        let mut replay = Replay { storage, root, config, partitions, dirty_dirs, frames: 0 };
        for end in ends {
            let id = PartitionId {
                topic_id: end.topic_id,
                topic: end.topic.to_string(),
                partition: end.partition,
            };
            if end.deleted {
                replay.remove_dir_of(&id)?;
                continue;
            }
            let mode = if clean { RecoverMode::Clean(end.end) } else { RecoverMode::Unclean(Some(end.end)) };
            let partition = replay.begin(id, mode, end.log_start, end.written_through);
            replay.partitions.insert((end.topic_id, end.partition), partition);
        }
        Ok(replay)
    }

    fn begin(&self, id: PartitionId, mode: RecoverMode, log_start: i64, written_through: bool) -> Recovering {
        let dir = layout::partition_dir(self.root, &id);
        let storage = self.storage.clone();
        let mut recovery =
            PartitionRecovery::start(storage, &dir, id.clone(), self.config.clone(), mode, log_start);
        if let Ok(recovery) = &mut recovery {
            recovery.set_written_through(written_through);
        }
        Recovering { id, dir, recovery }
    }

    /// Redoes one frame. Repeating a replay changes nothing.
    pub(crate) fn apply(&mut self, frame: &FrameHeader, payload: &Bytes) -> Result<(), OpenDirError> {
        let meta = &frame.meta;
        let key = (meta.topic_id, meta.partition);
        self.frames += 1;
        match meta.kind {
            FrameKind::PartitionCreate => self.create(meta, payload, frame.written_through),
            FrameKind::PartitionDelete => match self.partitions.remove(&key) {
                Some(partition) => self.remove_dir_of(&partition.id),
                None => Ok(()),
            },
            FrameKind::Data | FrameKind::Truncate | FrameKind::LogStart => {
                // Frames of a partition that was deleted before the checkpoint have nothing to act on.
                let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
                let Ok(recovery) = &mut partition.recovery else { return Ok(()) };
                // Its files may have been made by a process that was killed, and their names not be durable.
                if !self.dirty_dirs.contains(&partition.dir) {
                    self.dirty_dirs.insert(partition.dir.clone());
                }
                if meta.kind == FrameKind::Data {
                    recovery.set_written_through(frame.written_through);
                }
                let replayed = recovery.replay(meta, frame.more, payload);
                replayed.map(drop).map_err(|error| OpenDirError::Partition(partition.id.clone(), error))
            }
        }
    }

    fn create(&mut self, meta: &FrameMeta, topic: &Bytes, written_through: bool) -> Result<(), OpenDirError> {
        let topic = String::from_utf8_lossy(topic).into_owned();
        let id = PartitionId { topic_id: meta.topic_id, topic, partition: meta.partition };
        let dir = layout::partition_dir(self.root, &id);
        match read_topic_id(&**self.storage, &dir) {
            // Not durable before its frame was: missing, or some of its sectors are.
            Ok(None) | Err(OpenError::Corrupt(_)) => self.make_dir(&dir, meta.topic_id)?,
            // There, but perhaps written by a process that was killed before a checkpoint made it durable.
            Ok(Some(found)) if found == meta.topic_id => {
                let path = dir.join(PARTITION_METADATA);
                self.storage
                    .open(&path, OpenMode::Write)
                    .and_then(|file| file.sync_data())
                    .at("sync", &path)?;
            }
            // The name was given to another topic since, so a delete frame of this one follows; without it, finishing refuses.
            Ok(Some(_)) => {}
            Err(error) => return Err(OpenDirError::Partition(id, error)),
        }
        self.dirty_dirs.extend(dir.parent().map(Path::to_owned));
        self.dirty_dirs.insert(dir);
        let mode = RecoverMode::Unclean(Some(LogEnd::EMPTY));
        let partition = self.begin(id, mode, 0, written_through);
        self.partitions.insert((meta.topic_id, meta.partition), partition);
        Ok(())
    }

    fn make_dir(&self, dir: &Path, topic_id: Uuid) -> Result<(), StorageFailure> {
        self.storage.create_dir_all(dir).at("create", dir)?;
        write_topic_id(&**self.storage, dir, topic_id)?.sync_data().at("sync", dir)
    }

    /// Moves the directory of a deleted partition out of the way. A directory of that name may belong to a later topic.
    fn remove_dir_of(&mut self, id: &PartitionId) -> Result<(), OpenDirError> {
        let dir = layout::partition_dir(self.root, id);
        match read_topic_id(&**self.storage, &dir) {
            Ok(Some(found)) if found == id.topic_id => {
                mark_deleted(&**self.storage, &dir, found)?;
                self.dirty_dirs.remove(&dir);
                self.dirty_dirs.extend(dir.parent().map(Path::to_owned));
                Ok(())
            }
            Ok(_) | Err(OpenError::Corrupt(_)) => Ok(()),
            Err(error) => Err(OpenDirError::Partition(id.clone(), error)),
        }
    }

    /// The partitions that exist at the end of the journal. Refuses if one of them cannot be used.
    pub(crate) fn finish(self) -> Result<Replayed, OpenDirError> {
        let usable = |partition: Recovering| match partition.recovery {
            Ok(recovery) => Ok((partition.id, partition.dir, recovery)),
            Err(OpenError::Storage(failure)) if failure.source.kind() == io::ErrorKind::NotFound => {
                Err(OpenDirError::PartitionMissing(partition.dir))
            }
            Err(error) => Err(OpenDirError::Partition(partition.id, error)),
        };
        let partitions = self.partitions.into_values().map(usable).collect::<Result<_, _>>()?;
        Ok(Replayed { partitions, dirty_dirs: self.dirty_dirs, frames: self.frames })
    }
}

/// Renames the directory of a deleted partition, so that its name is free and its bytes can be removed at leisure. Answers the new name.
pub(super) fn mark_deleted(
    storage: &dyn Storage,
    dir: &Path,
    topic_id: Uuid,
) -> Result<PathBuf, StorageFailure> {
    let to = layout::deleted_dir(dir, topic_id);
    // An earlier start got as far as to rename it, and this one made it anew from the journal.
    if storage.exists(&to).at("look for", &to)? {
        storage.remove_dir_all(&to).at("remove", &to)?;
    }
    storage.rename(dir, &to).at("rename", dir)?;
    Ok(to)
}

/// Renames a directory of an unknown partition, so that its name is free and its bytes are kept.
fn set_aside(storage: &dyn Storage, dir: &Path, topic_id: Uuid) -> Result<(), StorageFailure> {
    let mut to = layout::stray_dir(dir, topic_id, 0);
    for n in 1.. {
        if !storage.exists(&to).at("look for", &to)? {
            break;
        }
        to = layout::stray_dir(dir, topic_id, n);
    }
    tracing::warn!(
        "`{}` belongs to no partition of this directory: moved to `{}`",
        dir.display(),
        to.display()
    );
    storage.rename(dir, &to).at("rename", dir)
}

/// Deals with directories that are no partition's: those that never held a record go, others are set aside. Answers the directories to remove.
pub(crate) fn sweep_unknown(
    storage: &dyn Storage,
    root: &Path,
    known: &BTreeSet<&Path>,
) -> Result<Vec<PathBuf>, OpenDirError> {
    let topics = layout::topics_dir(root);
    let mut remove = Vec::new();
    let mut moved = BTreeSet::new();
    let beside_topics =
        storage.list(root).at("list", root)?.into_iter().filter(|dir| layout::lies_beside_topics(dir));
    for dir in storage.list(&topics).at("list", &topics)?.into_iter().chain(beside_topics) {
        match layout::parse_dir_name(&dir) {
            DirName::Other => {}
            DirName::Deleted => remove.push(dir),
            DirName::Partition if known.contains(&*dir) => {}
            DirName::Partition => {
                let topic_id = read_topic_id(storage, &dir).ok().flatten().unwrap_or_default();
                if holds_records(storage, &dir)? {
                    set_aside(storage, &dir, topic_id)?;
                } else {
                    remove.push(mark_deleted(storage, &dir, topic_id)?);
                }
                moved.extend(dir.parent().map(Path::to_owned));
            }
        }
    }
    for dir in moved {
        storage.sync_dir(&dir).at("sync", &dir)?;
    }
    Ok(remove)
}

fn holds_records(storage: &dyn Storage, dir: &Path) -> Result<bool, StorageFailure> {
    for path in storage.list(dir).at("list", dir)? {
        if matches!(names::parse(&path), Some((_, FileKind::Log))) {
            let file = storage.open(&path, OpenMode::Read).at("open", &path)?;
            if file.len().at("ask the length of", &path)? > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

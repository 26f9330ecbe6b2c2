//! Opening a data directory: making a new one, or recovering one that is there (FORMAT.md, "Start").

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::config::{LogDirConfig, Threads};
use super::guard::{DirLock, SpaceWatch, raise_open_files_limit};
use super::housekeeper::{Crew, Housekeeper};
use super::partitions::{self, RecoveredPartition};
use super::replay::{Replay, Replayed, sweep_unknown};
use super::{LogDir, Meta, OpenDirError, Running, layout, start_threads};
use crate::checkpointer::{CheckpointSignal, Checkpointer};
use crate::error::{IoContext, StorageFailure};
use crate::journal::ring::Ring;
use crate::journal::ring_file::RingFile;
use crate::journal::scan::Scan;
use crate::journal::slot::{JournalPoint, PartitionEnd, Slot};
use crate::journal::slot_file::{Checkpoint, SlotFile, StoreError};
use crate::journal::writer::Writer;
use crate::journal::{Helpers, Journal};
use crate::metadata::uuid_to_text;
use crate::storage::Storage;

/// What opening a directory found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The directory was made now.
    pub created: bool,
    /// It was stopped in order before.
    pub clean: bool,
    /// Groups of the journal that were replayed.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// This incarnation.
    pub epoch: u64,
}

impl LogDir {
    /// Opens a data directory, or makes one. Recovers what a crash left: when this returns, everything that was ever acknowledged is in
    /// the logs, and durable there.
    pub fn open(
        path: &Path,
        config: LogDirConfig,
        storage: Arc<dyn Storage>,
    ) -> Result<(LogDir, Vec<RecoveredPartition>), OpenDirError> {
        storage.create_dir_all(path).at("create", path)?;
        let lock = DirLock::take(&*storage, path)?;
        if config.threads == Threads::Spawned {
            raise_open_files_limit();
        }
        let (meta, created) = match Meta::load(&*storage, path)? {
            Some(meta) => (meta, false),
            None => (create(path, &config, &storage)?, true),
        };
        if meta.node_id != config.node_id {
            return Err(OpenDirError::WrongNode { found: meta.node_id, expected: config.node_id });
        }
        let mut found = find(path, &config, &storage, &meta)?;
        found.report.created = created;
        start(path, config, storage, lock, meta, found)
    }
}

/// Makes a directory. `meta.properties` comes last: a crash before it leaves nothing that counts.
fn create(root: &Path, config: &LogDirConfig, storage: &Arc<dyn Storage>) -> Result<Meta, OpenDirError> {
    let (topics, journal_dir) = (layout::topics_dir(root), layout::journal_dir(root));
    storage.create_dir_all(&topics).at("create", &topics)?;
    storage.create_dir_all(&journal_dir).at("create", &journal_dir)?;
    if !storage.list(&topics).at("list", &topics)?.is_empty() {
        return Err(OpenDirError::NotOurs(root.to_owned()));
    }
    let meta = Meta {
        cluster_id: config.cluster_id.clone().unwrap_or_else(|| uuid_to_text(Uuid::new_v4())),
        directory_id: config.directory_id,
        node_id: config.node_id,
    };
    let file = RingFile::create(&**storage, &journal_dir, 1, config.first_file_bytes())?;
    let mut slots = SlotFile::create(storage, &journal_dir, meta.directory_id)?;
    storage.sync_dir(&journal_dir).at("sync", &journal_dir)?;
    store_checkpoint(&mut slots, 0, JournalPoint::default(), &[Arc::new(file)], &[], true)?;
    sync_ancestors(&**storage, root)?;
    meta.store(&**storage, root)?;
    Ok(meta)
}

/// Makes the name of the directory durable, and those above it that may be new too.
fn sync_ancestors(storage: &dyn Storage, root: &Path) -> Result<(), StorageFailure> {
    for dir in root.ancestors().skip(1) {
        // Above the first part of a relative path is where the process is.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match storage.sync_dir(dir) {
            // Not ours to open, so not made by us either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            synced => synced.at("sync", dir)?,
        }
    }
    Ok(())
}

/// A directory whose journal has been read.
struct Found {
    slots: SlotFile,
    ring: Vec<Arc<RingFile>>,
    /// Ring files that a smaller `journal.max.bytes` has no place for.
    surplus: Vec<Arc<RingFile>>,
    replayed: Replayed,
    /// The end of the journal.
    point: JournalPoint,
    report: Recovery,
}

/// Reads the newest checkpoint and what the journal holds beyond it.
fn find(
    root: &Path,
    config: &LogDirConfig,
    storage: &Arc<dyn Storage>,
    meta: &Meta,
) -> Result<Found, OpenDirError> {
    let journal_dir = layout::journal_dir(root);
    // A process that was killed may have left names that a power cut can still take back.
    storage.sync_dir(&journal_dir).at("sync", &journal_dir)?;
    let mut ring = open_ring(&**storage, &journal_dir)?;
    let mut slots = SlotFile::open(storage, &journal_dir, meta.directory_id)?;
    let (slot, ends) = slots.load()?;
    let replay = Replay::start(storage, root, &config.log, ends, slot.clean)?;
    let (point, groups, replayed) = scan(&slot, &ring, replay)?;
    let frames = replayed.frames;
    if !slot.clean {
        tracing::info!(groups, frames, "the server was not stopped in order: the journal was replayed");
    }
    // The ring starts anew, in any of its files.
    let point = JournalPoint { file: 0, position: 0, ..point };
    let report =
        Recovery { created: false, clean: slot.clean, groups, frames, epoch: slot.epoch.saturating_add(1) };
    let surplus = drop_surplus(&mut ring, config.journal_max_bytes);
    Ok(Found { slots, ring, surplus, replayed, point, report })
}

/// Replays the journal from the checkpoint to its end. Refuses if acknowledged groups are damaged.
fn scan(
    slot: &Slot,
    ring: &[Arc<RingFile>],
    mut replay: Replay<'_>,
) -> Result<(JournalPoint, u64, Replayed), OpenDirError> {
    let mut scan = Scan::start(slot, ring)?;
    let mut groups = 0;
    if !slot.clean {
        while let Some(frames) = scan.next()? {
            groups += 1;
            for (frame, payload) in &frames {
                replay.apply(frame, payload)?;
            }
        }
        scan.check_end()?;
    }
    Ok((scan.point(), groups, replay.finish()?))
}

/// The files of the ring, by number. One that was still being made is removed.
fn open_ring(storage: &dyn Storage, journal_dir: &Path) -> Result<Vec<Arc<RingFile>>, OpenDirError> {
    let mut files = Vec::new();
    for path in storage.list(journal_dir).at("list", journal_dir)? {
        if let Some(number) = RingFile::number_of(&path) {
            files.push(Arc::new(RingFile::open(storage, journal_dir, number)?));
        } else if path.extension().is_some_and(|extension| extension == "new") {
            storage.remove_file(&path).at("remove", &path)?;
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

/// Takes out the files that are too many; the first one stays. Everything in them is in the segments by the time they go.
fn drop_surplus(ring: &mut Vec<Arc<RingFile>>, max: u64) -> Vec<Arc<RingFile>> {
    let mut bytes = 0;
    let (keep, surplus) = std::mem::take(ring).into_iter().partition(|file| {
        let stays = bytes == 0 || bytes + file.len <= max;
        bytes += if stays { file.len } else { 0 };
        stays
    });
    *ring = keep;
    surplus
}

fn store_checkpoint(
    slots: &mut SlotFile,
    epoch: u64,
    point: JournalPoint,
    ring: &[Arc<RingFile>],
    ends: &[PartitionEnd],
    clean: bool,
) -> Result<(), StorageFailure> {
    let ring_files = ring.iter().map(|file| (file.number, file.len)).collect();
    let checkpoint = Checkpoint { epoch, point, durable_lsn: point.lsn, clean, ring_files, ends };
    match slots.store(&checkpoint) {
        Ok(_) => Ok(()),
        Err(StoreError::Passing(failure) | StoreError::Failed(failure)) => Err(failure),
    }
}

/// Opens the logs, begins a new epoch, and starts to work.
fn start(
    root: &Path,
    config: LogDirConfig,
    storage: Arc<dyn Storage>,
    lock: DirLock,
    meta: Meta,
    mut found: Found,
) -> Result<(LogDir, Vec<RecoveredPartition>), OpenDirError> {
    let known: BTreeSet<PathBuf> = found.replayed.partitions.iter().map(|(_, dir, _)| dir.clone()).collect();
    let remove = sweep_unknown(&*storage, root, &known.iter().map(PathBuf::as_path).collect())?;
    let journal = Arc::new(Journal::new(
        (meta.directory_id, found.report.epoch),
        found.point,
        Ring::new(found.ring.iter().cloned()),
        config.journal(),
        (config.threads == Threads::Spawned, config.on_failure.clone()),
    ));
    let context = partitions::context(&config, &storage, journal.clone());
    let mut opened = partitions::open_all(found.replayed.partitions, &config, &context, found.report.clean)?;
    opened.dirty.extend(journal.take_later());
    partitions::sync(&config, &*storage, &mut opened.dirty, found.replayed.dirty_dirs)?;
    // Everything is durable in the segments. After this the ring may be written.
    store_checkpoint(&mut found.slots, found.report.epoch, found.point, &found.ring, &opened.ends, false)?;
    for file in found.surplus {
        storage.remove_file(file.file.path()).at("remove", file.file.path())?;
    }
    journal.set_ends(opened.ends);
    let (crew, space) = crew(root, &config, &storage, &journal, found.slots);
    crew.housekeeper.remove_dirs(remove);
    let running = match config.threads {
        Threads::Spawned => start_threads(root, &journal, &crew, config.checkpoint_interval)?,
        Threads::ByHand => Running::ByHand(Box::new(Writer::new(journal.clone()))),
    };
    let dir = LogDir {
        root: root.to_owned(),
        storage,
        meta,
        journal,
        crew,
        space,
        recovery: found.report,
        context,
        clock: config.clock,
        running: Mutex::new(running),
        leftovers: Mutex::default(),
        lock: Mutex::new(Some(lock)),
    };
    Ok((dir, opened.partitions))
}

fn crew(
    root: &Path,
    config: &LogDirConfig,
    storage: &Arc<dyn Storage>,
    journal: &Arc<Journal>,
    slots: SlotFile,
) -> (Arc<Crew>, Arc<SpaceWatch>) {
    let threads = config.threads == Threads::Spawned;
    let space = Arc::new(SpaceWatch::new(config.disk_free_min));
    space.refresh(&**storage, root);
    let first_file_bytes = config.first_file_bytes();
    let housekeeper =
        Housekeeper::new(journal.clone(), storage.clone(), root, first_file_bytes, space.clone());
    let crew = Arc::new(Crew {
        checkpointer: Mutex::new(Checkpointer::new(journal.clone(), storage.clone(), slots, threads)),
        signal: CheckpointSignal::default(),
        housekeeper,
        threads,
    });
    let helpers: Arc<dyn Helpers> = crew.clone();
    journal.set_helpers(Arc::downgrade(&helpers));
    (crew, space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::DiskStorage;

    #[test]
    fn a_relative_directory_has_ancestors_too() {
        for root in ["pelton-data", "./pelton-data", "src/pelton-data"] {
            sync_ancestors(&DiskStorage, Path::new(root)).unwrap();
        }
    }
}

//! The files that hold checkpoints: two slots, and a partition-ends file for each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::ring_file::{SyncFile, create_zeroed};
use super::slot::{JournalPoint, PartitionEnd, SLOT_BYTES, SLOTS, Slot, decode_ends, encode_ends};
use crate::error::OpenDirError;
use crate::error::{Corruption, IoContext, StorageFailure};
use crate::storage::{AlignedBuf, OpenMode, Storage, read_exact_at};
use pelton_wire::record::crc32c;

/// An ends file has at least this length, and its length doubles: so that a checkpoint hardly ever needs room on a full disk.
const ENDS_MIN_BYTES: u64 = 64 << 10;

/// Reads and writes checkpoints.
pub(crate) struct SlotFile {
    storage: Arc<dyn Storage>,
    journal_dir: PathBuf,
    file: SyncFile,
    directory_id: Uuid,
    /// Generation of the newest slot; 0 before the first.
    generation: u64,
}

/// Why a checkpoint was not written.
pub(crate) enum StoreError {
    /// There is no room on the disk, or no descriptor; the checkpoint before this one still holds, and writing another may
    /// work later.
    Passing(StorageFailure),
    /// Final.
    Failed(StorageFailure),
}

/// What a checkpoint says, besides what [`SlotFile`] knows itself.
pub(crate) struct Checkpoint<'a> {
    pub(crate) epoch: u64,
    pub(crate) point: JournalPoint,
    pub(crate) durable_lsn: u64,
    pub(crate) clean: bool,
    pub(crate) ring_files: Vec<(u32, u64)>,
    pub(crate) ends: &'a [PartitionEnd],
}

impl SlotFile {
    fn path(journal_dir: &Path) -> PathBuf {
        journal_dir.join("checkpoint")
    }

    fn ends_path(journal_dir: &Path, index: u64) -> PathBuf {
        journal_dir.join(format!("partition-ends-{index}"))
    }

    /// Makes the files, without any checkpoint in them. Their names are durable after a sync of the directory.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        journal_dir: &Path,
        directory_id: Uuid,
    ) -> Result<SlotFile, StorageFailure> {
        create_zeroed(&**storage, &SlotFile::path(journal_dir), SLOTS * SLOT_BYTES as u64)?;
        for index in 0..SLOTS {
            let path = SlotFile::ends_path(journal_dir, index);
            storage.open(&path, OpenMode::Create).at("create", &path)?;
        }
        SlotFile::open(storage, journal_dir, directory_id)
    }

    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        journal_dir: &Path,
        directory_id: Uuid,
    ) -> Result<SlotFile, StorageFailure> {
        let file = SyncFile::open(&**storage, &SlotFile::path(journal_dir))?;
        let storage = storage.clone();
        Ok(SlotFile { storage, journal_dir: journal_dir.to_owned(), file, directory_id, generation: 0 })
    }

    /// The newest checkpoint. Durable when this returns, even if the process that wrote it was killed meanwhile: the next one
    /// overwrites the other slot.
    pub(crate) fn load(&mut self) -> Result<(Slot, Vec<PartitionEnd>), OpenDirError> {
        self.file.sync()?;
        let mut newest: Option<Slot> = None;
        for index in 0..SLOTS {
            let mut buf = AlignedBuf::zeroed(SLOT_BYTES);
            let read = self.file.read(&mut buf, index * SLOT_BYTES as u64)?;
            let slot = Slot::decode(&buf.as_slice()[..read])
                .filter(|slot| slot.directory_id == self.directory_id && slot.index() == index);
            let newer = |s: &Slot| newest.as_ref().is_none_or(|n| s.generation > n.generation);
            if let Some(slot) = slot.filter(newer) {
                newest = Some(slot);
            }
        }
        let slot =
            newest.ok_or_else(|| Corruption::new(self.file.path(), 0, "neither slot holds a checkpoint"))?;
        self.generation = slot.generation;
        let ends = self.load_ends(&slot)?;
        Ok((slot, ends))
    }

    /// An older slot is no substitute when these bytes are damaged: the ring may have been reused since.
    fn load_ends(&self, slot: &Slot) -> Result<Vec<PartitionEnd>, OpenDirError> {
        let path = SlotFile::ends_path(&self.journal_dir, slot.index());
        let damaged = |what: &str| Corruption::new(&path, 0, what);
        let file = self.storage.open(&path, OpenMode::Read).at("open", &path)?;
        if file.len().at("ask the length of", &path)? < slot.ends_len {
            return Err(damaged("it is shorter than its checkpoint says").into());
        }
        let len =
            usize::try_from(slot.ends_len).map_err(|_| damaged("its checkpoint has an impossible length"))?;
        let mut bytes = vec![0; len];
        read_exact_at(&*file, &mut bytes, 0).at("read", &path)?;
        if crc32c(&bytes) != slot.ends_crc {
            return Err(damaged("its CRC differs from the one in its checkpoint").into());
        }
        let ends = decode_ends(&bytes, self.directory_id, slot.generation);
        Ok(ends.ok_or_else(|| damaged("it is not the list of partitions that its checkpoint names"))?)
    }

    /// Writes a checkpoint; durable when this returns. The one before stays intact until then.
    pub(crate) fn store(&mut self, checkpoint: &Checkpoint<'_>) -> Result<Slot, StoreError> {
        let generation = self.generation + 1;
        let ends = encode_ends(self.directory_id, generation, checkpoint.ends.iter());
        let slot = Slot {
            directory_id: self.directory_id,
            generation,
            epoch: checkpoint.epoch,
            point: checkpoint.point,
            durable_lsn: checkpoint.durable_lsn,
            clean: checkpoint.clean,
            ends_len: ends.len() as u64,
            ends_crc: crc32c(&ends),
            ring_files: checkpoint.ring_files.clone(),
        };
        self.store_ends(&slot, &ends)?;
        let mut block = AlignedBuf::new();
        block.extend(&slot.encode());
        self.file.write(block.as_slice(), slot.index() * SLOT_BYTES as u64).map_err(StoreError::Failed)?;
        self.generation = generation;
        Ok(slot)
    }

    fn store_ends(&self, slot: &Slot, ends: &[u8]) -> Result<(), StoreError> {
        let path = SlotFile::ends_path(&self.journal_dir, slot.index());
        // No slot names this file yet, so what a write leaves in it does not matter.
        let classify = |failure: StorageFailure| match failure.is_passing() {
            true => StoreError::Passing(failure),
            false => StoreError::Failed(failure),
        };
        let file =
            self.storage.open(&path, OpenMode::Write).at("open", &path).map_err(StoreError::Passing)?;
        let padded = (ends.len() as u64).next_power_of_two().max(ENDS_MIN_BYTES);
        let len = file.len().at("ask the length of", &path).map_err(StoreError::Passing)?;
        if len < padded {
            let zeros = vec![0; usize::try_from(padded - len).expect("about as much as the list itself")];
            file.write_all_at(&zeros, len).at("write", &path).map_err(classify)?;
        }
        file.write_all_at(ends, 0).at("write", &path).map_err(classify)?;
        file.sync_data().at("sync", &path).map_err(classify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimStorage;

    const DIR: &str = "/journal";

    fn create(storage: &Arc<dyn Storage>) -> SlotFile {
        let dir = Path::new(DIR);
        storage.create_dir_all(dir).unwrap();
        let file = SlotFile::create(storage, dir, Uuid::from_u128(1)).unwrap();
        storage.sync_dir(dir).unwrap();
        storage.sync_dir(Path::new("/")).unwrap();
        file
    }

    fn store(file: &mut SlotFile, lsn: u64) -> bool {
        let end = PartitionEnd {
            topic_id: Uuid::from_u128(u128::from(lsn)),
            partition: 0,
            topic: "t".into(),
            log_start: 0,
            end: crate::id::LogEnd::EMPTY,
            deleted: false,
            written_through: false,
        };
        // The list grows, so that its length changes too.
        let ends = vec![end; 1 + lsn as usize / 4096];
        let point = JournalPoint { lsn, ..JournalPoint::default() };
        let checkpoint = Checkpoint {
            epoch: 1,
            point,
            durable_lsn: lsn,
            clean: false,
            ring_files: Vec::new(),
            ends: &ends,
        };
        file.store(&checkpoint).is_ok()
    }

    fn load(storage: &Arc<dyn Storage>) -> Result<u64, OpenDirError> {
        let mut file = SlotFile::open(storage, Path::new(DIR), Uuid::from_u128(1))?;
        let (slot, ends) = file.load()?;
        assert_eq!(ends[0].topic_id.as_u128(), u128::from(slot.point.lsn), "slot and list belong together");
        Ok(slot.point.lsn)
    }

    #[test]
    fn a_power_cut_leaves_the_old_checkpoint_or_the_new_one() {
        for seed in 0..200 {
            let sim = SimStorage::new();
            let storage: Arc<dyn Storage> = Arc::new(sim.clone());
            let mut file = create(&storage);
            sim.cut_power_at_sync_point(sim.sync_points() + seed % 20);
            let mut stored = 0;
            let mut tried = 0;
            while !sim.power_is_off() {
                tried += 4096;
                if store(&mut file, tried) {
                    stored = tried;
                }
            }
            sim.crash(seed);
            match load(&storage) {
                Ok(lsn) => assert!(lsn == stored || lsn == tried, "seed {seed}: {lsn} after {stored}"),
                Err(error) => assert_eq!(stored, 0, "seed {seed}: {error}"),
            }
        }
    }

    #[test]
    fn a_damaged_list_is_refused_even_if_the_older_checkpoint_is_whole() {
        let sim = SimStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut file = create(&storage);
        for lsn in [4096, 8192] {
            assert!(store(&mut file, lsn));
        }
        assert_eq!(load(&storage).unwrap(), 8192);
        sim.corrupt(Path::new("/journal/partition-ends-0"), 40, |b| b[0] ^= 1).unwrap();
        assert!(matches!(load(&storage), Err(OpenDirError::Journal(c)) if c.what.contains("CRC")));
    }

    #[test]
    fn a_full_disk_is_not_final() {
        let sim = SimStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut file = create(&storage);
        assert!(store(&mut file, 4096));
        assert!(store(&mut file, 8192));
        sim.set_capacity(Some(0));
        assert!(store(&mut file, 12288), "a list of about the same length needs no room");
        let long = 2000 * 4096;
        assert!(!store(&mut file, long));
        assert_eq!(load(&storage).unwrap(), 12288);
        sim.set_capacity(None);
        assert!(store(&mut file, long));
        assert_eq!(load(&storage).unwrap(), long);
    }
}

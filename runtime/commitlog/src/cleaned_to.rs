//! How far a log was cleaned, on disk: a small text file in the partition's directory. (Kafka has one for all
//! partitions of a directory, by name, and has to care for topics that come again.)
//!
//! It may say less than what was cleaned, which costs work, and never more: a tombstone goes only when all older records
//! of its key have gone. So it is written when the segments are in place for good, and one that is damaged says nothing.

use std::path::Path;

use crate::error::{IoContext, StorageFailure};
use crate::metadata::remove_if_there;
use crate::metadata::{read_small, replace_small};
use crate::names::CLEANER_OFFSET_CHECKPOINT;
use crate::storage::Storage;

/// The first offset that was not cleaned yet, 0 if nothing is known.
pub(crate) fn read(storage: &dyn Storage, dir: &Path) -> Result<i64, StorageFailure> {
    let bytes = read_small(storage, &dir.join(CLEANER_OFFSET_CHECKPOINT))?.unwrap_or_default();
    Ok(parse(&bytes).unwrap_or(0))
}

fn parse(bytes: &[u8]) -> Option<i64> {
    let number = std::str::from_utf8(bytes).ok()?.strip_prefix("0\n")?.strip_suffix('\n')?;
    number.parse().ok().filter(|offset| *offset >= 0)
}

/// Says that everything below `offset` was cleaned.
pub(crate) fn write(storage: &dyn Storage, dir: &Path, offset: i64) -> Result<(), StorageFailure> {
    let path = dir.join(CLEANER_OFFSET_CHECKPOINT);
    let file = replace_small(storage, &path, format!("0\n{offset}\n").as_bytes())?;
    file.sync_data().at("sync", &path)
}

/// Forgets it.
pub(crate) fn remove(storage: &dyn Storage, dir: &Path) -> Result<(), StorageFailure> {
    remove_if_there(storage, &dir.join(CLEANER_OFFSET_CHECKPOINT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{OpenMode, SimStorage};

    #[test]
    fn it_says_what_was_written_or_nothing() {
        let (disk, dir) = (SimStorage::new(), Path::new("/d"));
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), 0);
        for offset in [7, 1_234_567_890_123, 8] {
            write(&disk, dir, offset).unwrap();
            assert_eq!(read(&disk, dir).unwrap(), offset);
        }
        let path = dir.join(CLEANER_OFFSET_CHECKPOINT);
        for damaged in ["", "0\n8", "1\n8\n", "0\n-8\n", "0\n8\n9\n", "\0\0\0\0"] {
            let file = disk.open(&path, OpenMode::Write).unwrap();
            file.set_len(0).unwrap();
            file.write_all_at(damaged.as_bytes(), 0).unwrap();
            assert_eq!(read(&disk, dir).unwrap(), 0, "{damaged:?}");
        }
        remove(&disk, dir).unwrap();
        remove(&disk, dir).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), 0);
    }
}

//! What a start makes of journals that crashes and damage left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::slot_file::{Checkpoint, SlotFile};
use crate::log::Log;
use crate::log_dir::tests::{append, create, id, only, open, open_error, small, values};
use crate::log_dir::{LogDir, OpenDirError};
use crate::storage::{DIRECT_ALIGN, SimStorage, Storage};

fn ring_file(number: u32) -> PathBuf {
    super::ring_file::RingFile::path(Path::new("/data/journal"), number)
}

/// Every group header in the ring that is of this epoch: file, position, header; in the order of their lsn.
fn groups(storage: &SimStorage, epoch: u64) -> Vec<(PathBuf, usize, GroupHeader)> {
    let mut found = Vec::new();
    for path in storage.list(Path::new("/data/journal")).unwrap() {
        if super::ring_file::RingFile::number_of(&path).is_some() {
            let bytes = storage.content(&path).unwrap();
            for (block, at) in bytes.chunks(DIRECT_ALIGN).zip((0..).step_by(DIRECT_ALIGN)) {
                found.extend(GroupHeader::decode(block).map(|header| (path.clone(), at, header)));
            }
        }
    }
    found.retain(|(_, _, header)| header.epoch == epoch);
    found.sort_by_key(|(_, _, header)| header.lsn);
    found
}

/// A directory with one partition, in which each value has a group of its own.
fn write(storage: &SimStorage, count: usize, len: usize) -> (LogDir, Log) {
    let (dir, _) = open(storage, small());
    let (mut log, _) = create(&dir, id("t", 0));
    dir.flush().unwrap();
    for n in 0..count {
        append(&mut log, &vec![n as u8; len]).unwrap();
        assert!(dir.step().unwrap());
    }
    (dir, log)
}

/// Groups that the newest checkpoint does not cover: only those are read at a start.
fn live_groups(storage: &SimStorage) -> Vec<(PathBuf, usize, GroupHeader)> {
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut slots = SlotFile::open(&shared, Path::new("/data/journal"), Uuid::from_u128(1)).unwrap();
    let (slot, _) = slots.load().unwrap();
    let mut live = groups(storage, slot.epoch);
    live.retain(|(_, _, header)| header.lsn >= slot.point.lsn);
    live
}

fn flip(storage: &SimStorage, path: &Path, position: usize) {
    storage.corrupt(path, position as u64, |bytes| bytes[0] ^= 0x40).unwrap();
}

fn count(storage: &SimStorage) -> usize {
    values(&only(open(storage, small()).1)).len()
}

/// Everything on the disk but `lock`.
fn snapshot(storage: &SimStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let mut dirs = vec![PathBuf::from("/data")];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for path in storage.list(&dir).unwrap() {
            match storage.content(&path) {
                Ok(bytes) => files.push((path, bytes)),
                Err(_) => dirs.push(path),
            }
        }
    }
    files
}

#[test]
fn a_torn_group_ends_the_log() {
    let storage = SimStorage::new();
    drop(write(&storage, 5, 100));
    let (path, at, _) = groups(&storage, 1).pop().unwrap();
    for byte in [0, GROUP_HEADER_BYTES - 1, GROUP_HEADER_BYTES, GROUP_HEADER_BYTES + 150] {
        let torn = storage.fork();
        flip(&torn, &path, at + byte);
        assert_eq!(count(&torn), 4, "byte {byte}");
        assert_eq!(count(&torn), 4, "a second start finds the same");
    }
    let padding = storage.fork();
    flip(&padding, &path, at + DIRECT_ALIGN - 1);
    assert_eq!(count(&padding), 5, "padding is not part of the group");
}

#[test]
fn a_damaged_group_with_a_later_one_behind_it_is_refused_and_nothing_is_cut() {
    let storage = SimStorage::new();
    drop(write(&storage, 7, 100));
    let groups = live_groups(&storage);
    assert!(groups.len() > 2);
    for (path, at, header) in &groups[..groups.len() - 1] {
        for byte in [1, 30, GROUP_HEADER_BYTES + 4, GROUP_HEADER_BYTES + 72] {
            let damaged = storage.fork();
            flip(&damaged, path, at + byte);
            let before = snapshot(&damaged);
            let error = open_error(&damaged, small());
            let text = error.to_string();
            assert!(matches!(error, OpenDirError::Journal(_)), "{text}");
            assert!(
                text.contains(&format!("lsn {}", header.lsn)) && text.contains("nothing was cut"),
                "{text}"
            );
            // What the journal has before the damage may be in the segments by now, and nothing is lost.
            for (path, bytes) in before {
                let now = damaged.content(&path).unwrap();
                let is_segment = path.extension().is_some_and(|extension| extension == "log");
                let kept = if is_segment { now.starts_with(&bytes) } else { now == bytes };
                assert!(kept, "lsn {}: `{}` was changed", header.lsn, path.display());
            }
            // The bit is put right again, and nothing is lost.
            flip(&damaged, path, at + byte);
            assert_eq!(count(&damaged), 7);
        }
    }
}

#[test]
fn damage_in_the_first_group_of_a_file_is_seen() {
    let mut seen = 0;
    for count in 5..30 {
        let storage = SimStorage::new();
        // Five of these groups fill a file.
        drop(write(&storage, count, 10_000));
        let groups = live_groups(&storage);
        let newest = groups.last().map(|(_, _, header)| header.lsn);
        let first_of_file = groups.iter().find(|(_, at, header)| *at == 0 && Some(header.lsn) < newest);
        if let Some((path, _, header)) = first_of_file {
            flip(&storage, path, 9);
            let text = open_error(&storage, small()).to_string();
            assert!(text.contains(&format!("lsn {} is damaged", header.lsn)), "{text}");
            seen += 1;
        }
    }
    assert!(seen > 0, "no case came up");
}

#[test]
fn an_end_before_what_the_checkpoint_called_durable_is_refused() {
    let storage = SimStorage::new();
    let (dir, mut log) = write(&storage, 3, 100);
    dir.checkpoint().unwrap();
    append(&mut log, b"after").unwrap();
    dir.step().unwrap();
    drop((dir, log));
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut slots = SlotFile::open(&shared, Path::new("/data/journal"), Uuid::from_u128(1)).unwrap();
    let (slot, ends) = slots.load().unwrap();
    let ring_files = slot.ring_files.clone();
    let durable_lsn = slot.point.lsn + DIRECT_ALIGN as u64;
    let checkpoint = Checkpoint {
        epoch: slot.epoch,
        point: slot.point,
        durable_lsn,
        clean: false,
        ring_files,
        ends: &ends,
    };
    assert!(slots.store(&checkpoint).is_ok());
    assert_eq!(count(&storage.fork()), 4, "the group is there");
    let (path, at, _) = groups(&storage, 1).pop().unwrap();
    flip(&storage, &path, at);
    let text = open_error(&storage, small()).to_string();
    assert!(text.contains(&format!("everything below {durable_lsn} was durable")), "{text}");
}

#[test]
fn groups_of_an_earlier_epoch_are_never_joined() {
    let storage = SimStorage::new();
    drop(write(&storage, 10, 100));
    assert_eq!(groups(&storage, 1).len(), 11);
    for survivors in 0..4_usize {
        let storage = storage.fork();
        storage.crash(1);
        let (dir, recovered) = open(&storage, small());
        let mut log = only(recovered);
        for n in 0..survivors {
            append(&mut log, &[n as u8; 100]).unwrap();
            dir.step().unwrap();
        }
        drop((dir, log));
        // Behind the new groups lie whole groups of the epoch before, at the places where they were written.
        assert_eq!((groups(&storage, 1).len(), groups(&storage, 2).len()), (11 - survivors, survivors));
        storage.crash(2);
        let (dir, recovered) = open(&storage, small());
        assert_eq!(dir.recovery().groups, survivors as u64);
        assert_eq!(values(&only(recovered)).len(), 10 + survivors);
    }
}

/// Not even one that would follow in every other respect.
#[test]
fn a_group_of_an_earlier_epoch_that_would_follow_is_not_joined() {
    let (storage, other) = (SimStorage::new(), SimStorage::new());
    drop(write(&storage, 10, 100));
    drop(write(&other, 12, 100));
    storage.crash(1);
    let (dir, recovered) = open(&storage, small());
    let mut log = only(recovered);
    append(&mut log, &[10; 100]).unwrap();
    dir.step().unwrap();
    drop((dir, log));
    let (path, at, header) = groups(&storage, 2).pop().unwrap();
    let (from, place, next) = groups(&other, 1).pop().unwrap();
    let len = header.total_bytes();
    assert_eq!((next.lsn, next.number), (header.lsn + len as u64, header.number + 1), "the rig");
    let bytes = other.content(&from).unwrap()[place..place + next.total_bytes()].to_vec();
    storage.corrupt(&path, (at + len) as u64, |there| there[..bytes.len()].copy_from_slice(&bytes)).unwrap();
    storage.crash(2);
    let (dir, recovered) = open(&storage, small());
    assert_eq!((dir.recovery().groups, values(&only(recovered)).len()), (1, 11));
}

#[test]
fn a_missing_or_cut_ring_file_is_refused() {
    let storage = SimStorage::new();
    drop(write(&storage, 8, 10_000));
    drop(open(&storage, small()));
    for number in [1, 2] {
        let path = ring_file(number);
        let missing = storage.fork();
        missing.remove_file(&path).unwrap();
        let text = open_error(&missing, small()).to_string();
        assert!(text.contains(&format!("`journal-{number}`, which is missing")), "{text}");
        let cut = storage.fork();
        cut.open(&path, crate::storage::OpenMode::Write).unwrap().set_len(5000).unwrap();
        let text = open_error(&cut, small()).to_string();
        assert!(text.contains("it has 5000"), "{text}");
    }
}

#[test]
fn a_frame_type_of_a_newer_version_is_refused() {
    let storage = SimStorage::new();
    drop(write(&storage, 2, 100));
    let (path, at, header) = groups(&storage, 1).pop().unwrap();
    let len = GROUP_HEADER_BYTES + header.payload_len as usize;
    storage
        .corrupt(&path, at as u64, |bytes| {
            let group = &mut bytes[..len];
            group[GROUP_HEADER_BYTES + 4] = 6;
            let fix = |bytes: &mut [u8]| {
                let (rest, crc) = bytes.split_at_mut(bytes.len() - 4);
                crc.copy_from_slice(&pelton_wire::record::crc32c(rest).to_be_bytes());
            };
            fix(&mut group[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + 72]);
            let payload_crc = pelton_wire::record::crc32c(&group[GROUP_HEADER_BYTES..]);
            group[64..68].copy_from_slice(&payload_crc.to_be_bytes());
            fix(&mut group[..GROUP_HEADER_BYTES]);
        })
        .unwrap();
    let text = open_error(&storage, small()).to_string();
    assert!(text.contains("unknown type 6"), "{text}");
}

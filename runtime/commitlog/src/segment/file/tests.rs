use std::path::Path;

use super::*;
use crate::storage::sim::{Call, SimRng};
use crate::storage::{OpenMode, SimStorage, Storage, read_exact_at};

const PATH: &str = "/0.log";

fn open(disk: &SimStorage) -> Arc<dyn File> {
    disk.create_dir_all(Path::new("/")).unwrap();
    disk.open(Path::new(PATH), OpenMode::Create).unwrap()
}

fn content(disk: &SimStorage) -> Vec<u8> {
    disk.content(Path::new(PATH)).unwrap()
}

/// What a reader sees of a range, in whichever pieces it comes.
fn read(file: &SegmentFile, position: u64, len: u64) -> Vec<u8> {
    let Pieces { file, memory } = file.pieces(position, len).expect("it is inside");
    let mut all = Vec::new();
    if let Some((file, len)) = file {
        all.resize(len as usize, 0);
        read_exact_at(&*file, &mut all, position).unwrap();
    }
    memory.iter().for_each(|part| all.extend_from_slice(part));
    all
}

/// Appends, checkpoints, cuts and reads in any order: readers see what a vector has, and the file never has more than the
/// journal.
#[test]
fn readers_see_one_file_wherever_its_bytes_are() {
    for seed in 0..60 {
        let disk = SimStorage::new();
        if seed % 3 == 0 {
            disk.refuse_direct_io();
        }
        let file = SegmentFile::new(open(&disk), 0);
        let mut rng = SimRng::new(seed);
        let (mut model, mut ends, mut durable) = (Vec::new(), vec![0_usize], 0_usize);
        for step in 0..120 {
            match rng.up_to(9) {
                0 => {
                    // A part of a large batch may be durable.
                    durable += rng.up_to(model.len() - durable);
                    file.write_out(durable as u64).unwrap();
                    assert_eq!(content(&disk).len().max(durable), durable, "seed {seed}, step {step}");
                    file.sync_data().unwrap();
                    file.note_synced(durable as u64);
                }
                1 => {
                    let keep = rng.up_to(ends.len() - 1);
                    ends.truncate(keep + 1);
                    model.truncate(ends[keep]);
                    durable = durable.min(model.len());
                    file.cut_to(model.len() as u64).unwrap();
                }
                _ => {
                    let bytes = vec![rng.bits() as u8; 1 + rng.up_to([100, 5_000, 90_000][step % 3])];
                    model.extend_from_slice(&bytes);
                    ends.push(model.len());
                    file.reserve(bytes.len() as u64).unwrap();
                    file.push(bytes.into());
                }
            }
            let from = rng.up_to(model.len());
            let len = rng.up_to(model.len() - from);
            assert!(
                read(&file, from as u64, len as u64) == model[from..from + len],
                "seed {seed}, step {step}"
            );
            let mut buf = vec![0; len];
            read_exact_at(&file, &mut buf, from as u64).unwrap();
            assert!(buf == model[from..from + len], "seed {seed}, step {step}");
            assert_eq!(File::len(&file).unwrap(), model.len() as u64);
            assert_eq!(file.read_at(&mut [0], model.len() as u64).unwrap(), 0);
        }
        file.write_out(model.len() as u64).unwrap();
        assert!(content(&disk) == model, "seed {seed}");
    }
}

#[test]
fn what_is_written_through_comes_behind_what_was_not() {
    let disk = SimStorage::new();
    let file = SegmentFile::new(open(&disk), 0);
    file.push(vec![1; 70_000].into());
    file.write_through(&[2; 10]).unwrap();
    assert_eq!(content(&disk).len(), 70_010);
    assert!(file.take_cached() && !file.take_cached());
    file.push(vec![3; 5].into());
    assert_eq!(read(&file, 69_999, 16), [&[1][..], &[2; 10], &[3; 5]].concat());
    assert_eq!(content(&disk).len(), 70_010);
}

#[test]
fn a_write_that_failed_can_be_done_again() {
    for direct in [true, false] {
        let disk = SimStorage::new();
        if !direct {
            disk.refuse_direct_io();
        }
        let file = SegmentFile::new(open(&disk), 0);
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        file.push(bytes[..10].to_vec().into());
        file.write_out(10).unwrap();
        file.push(bytes[10..].to_vec().into());
        for skip in 0..3 {
            disk.fail_after(Some(Call::Write), ".log", skip, std::io::ErrorKind::StorageFull);
            assert!(file.write_out(1_000_000).is_err());
            assert!(read(&file, 0, 1_000_000) == bytes);
        }
        file.write_out(1_000_000).unwrap();
        assert!(content(&disk) == bytes);
    }
}

#[test]
fn room_is_taken_ahead_and_given_back() {
    let disk = SimStorage::new();
    let room = || {
        disk.set_capacity(Some(1 << 40));
        (1 << 40) - disk.space(Path::new("/")).unwrap().free_bytes
    };
    let file = Arc::new(SegmentFile::new(open(&disk), 0));
    let mut asked = Vec::new();
    for _ in 0..200 {
        file.reserve(10_000).unwrap();
        file.push(vec![0; 10_000].into());
        assert!(room() >= File::len(&*file).unwrap());
        asked.push(disk.calls(Call::Reserve));
    }
    assert!(asked[199] < 12, "it asks rarely: {asked:?}");
    let files = crate::FileCache::new(1);
    let segment = Arc::new(Segment::create(Path::new("/"), 0, &files, 0));
    segment.begin(file.clone());
    segment.finish();
    file.write_out(u64::MAX).unwrap();
    file.sync_data().unwrap();
    assert!(segment.held().is_some(), "not all is known to be durable");
    file.note_synced(2_000_000);
    assert!(segment.held().is_none(), "whoever needs it opens it");
    assert_eq!(room(), 2_000_000);
}

/// A reader has the list of segments, and the segment goes.
#[test]
fn what_is_gone_is_not_handed_out() {
    let disk = SimStorage::new();
    let file = SegmentFile::new(open(&disk), 0);
    file.push(vec![1; 100].into());
    file.write_out(40).unwrap();
    file.push(vec![2; 100].into());
    assert!(file.pieces(0, 200).is_some() && file.pieces(0, 201).is_none());
    file.cut_to(100).unwrap();
    assert!(file.pieces(0, 100).is_some() && file.pieces(0, 101).is_none());
    file.discard();
    assert!(file.pieces(0, 40).is_some() && file.pieces(0, 41).is_none());
    file.write_out(u64::MAX).unwrap();
    assert_eq!(content(&disk).len(), 40, "nothing is written any more");
}

#[test]
fn many_small_batches_are_read_as_one_piece() {
    let disk = SimStorage::new();
    let file = SegmentFile::new(open(&disk), 0);
    for n in 0..1_000_u32 {
        file.push(vec![n as u8; 3].into());
    }
    let pieces = file.pieces(1, 2_997).unwrap();
    assert_eq!((pieces.file.is_some(), pieces.memory.len()), (false, 1));
    assert_eq!(file.pieces(0, 300).unwrap().memory.len(), 100);
    assert_eq!(read(&file, 3, 6), [1, 1, 1, 2, 2, 2]);
}

/// A frame of before a cut speaks of a place that other batches have been written beyond since.
#[test]
fn what_is_written_already_is_not_written_again() {
    let disk = SimStorage::new();
    let file = SegmentFile::new(open(&disk), 0);
    file.push(Bytes::from(vec![1; 100]));
    file.push(Bytes::from(vec![2; 300]));
    // In the midst of the second batch, where a batch ended before the cut.
    file.write_out(250).unwrap();
    file.write_out(120).unwrap();
    assert_eq!(content(&disk), [vec![1; 100], vec![2; 150]].concat());
    file.write_out(400).unwrap();
    assert_eq!(read(&file, 0, 400), [vec![1; 100], vec![2; 300]].concat());
}

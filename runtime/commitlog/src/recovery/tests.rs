use std::path::Path;

use super::*;
use crate::storage::sim::Call;
use crate::testkit::{DIR, Rig, at, batch, of, producer_batch, read_all, small};
use crate::{FrameMeta, LogConfig};

/// Bytes of each of the batches in [`filled`].
const BATCH: u64 = 431;
const LAST: &str = "00000000000000000100.log";

/// Twelve batches of ten records in six segments, and where the log ends.
fn filled() -> (Rig, LogEnd) {
    let rig = Rig::new(small());
    let mut log = rig.create();
    for n in 0..12 {
        let bytes = producer_batch(of(1 + n % 2, 0, (n / 2 * 10) as i32, false), 10, 300, n * 100);
        log.append(bytes.clone(), at(n * 100)).unwrap();
    }
    let end = log.close().unwrap();
    (rig, end)
}

fn damage(rig: &Rig, name: &str, position: u64, change: impl FnOnce(&mut [u8])) {
    rig.disk.corrupt(&Path::new(DIR).join(name), position, change).unwrap();
}

fn cut(rig: &Rig, name: &str, len: u64) {
    rig.disk.open(&Path::new(DIR).join(name), OpenMode::Write).unwrap().set_len(len).unwrap();
}

fn append_garbage(rig: &Rig, name: &str, bytes: &[u8]) {
    let file = rig.disk.open(&Path::new(DIR).join(name), OpenMode::Write).unwrap();
    file.write_all_at(bytes, file.len().unwrap()).unwrap();
}

fn remove(rig: &Rig, name: &str) {
    rig.disk.remove_file(&Path::new(DIR).join(name)).unwrap();
}

/// Opening must be refused as damage at this place, and leave every file as it was.
fn check_refused(rig: &Rig, mode: RecoverMode, path: &str, position: u64) {
    let files = || rig.files().iter().map(|f| (f.clone(), rig.content(f))).collect::<Vec<_>>();
    let before = files();
    match rig.open(mode) {
        Err(OpenError::Corrupt(corruption)) => {
            assert_eq!(corruption.path, Path::new(DIR).join(path));
            assert_eq!(corruption.position, position, "{corruption}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("damage was not noticed"),
    }
    let changed: Vec<_> =
        files().into_iter().filter(|f| f.0.ends_with(".log") && !before.contains(f)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn damage_of_durable_bytes_is_refused_and_never_cut() {
    let len = 2 * BATCH;
    let (rig, end) = filled();
    assert_eq!(end, LogEnd { segment_base: 100, position: len, offset: 120 });
    let known = RecoverMode::Unclean(Some(end));

    damage(&rig, LAST, BATCH + 99, |bytes| bytes[0] ^= 1);
    // No snapshot at the end: as after a crash.
    remove(&rig, "00000000000000000120.snapshot");
    check_refused(&rig, known, LAST, BATCH);
    damage(&rig, LAST, BATCH + 99, |bytes| bytes[0] ^= 1);
    assert!(rig.open(known).is_ok());

    let (rig, _) = filled();
    cut(&rig, LAST, len - 1);
    check_refused(&rig, known, LAST, len - 1);
    check_refused(&rig, RecoverMode::Clean(end), LAST, len - 1);

    let (rig, _) = filled();
    append_garbage(&rig, LAST, b"x");
    check_refused(&rig, RecoverMode::Clean(end), LAST, len);

    let (rig, _) = filled();
    remove(&rig, LAST);
    check_refused(&rig, known, LAST, 0);

    let (rig, _) = filled();
    remove(&rig, "00000000000000000000.log");
    check_refused(&rig, known, "00000000000000000000.log", 0);
}

#[test]
fn what_was_not_durable_is_cut() {
    let (rig, end) = filled();
    append_garbage(&rig, LAST, &[7; 1000]);
    let later = Path::new(DIR).join("00000000000000000120.log");
    rig.disk.open(&later, OpenMode::Create).unwrap().write_all_at(&[7; 10], 0).unwrap();
    let (log, report) = rig.open(RecoverMode::Unclean(Some(end))).unwrap();
    assert_eq!((report.cut_bytes, report.removed_segments), (1000, 1));
    assert_eq!(report.dirty.len(), 2, "the file and the directory");
    assert_eq!(log.end(), end);
    assert_eq!(read_all(&log.reader()).len(), 12);
    assert!(!rig.files().contains(&"00000000000000000120.log".to_owned()));
}

#[test]
fn without_a_checkpoint_the_good_prefix_of_the_last_segment_counts() {
    let whole = 2 * BATCH as i64;
    // bytes of garbage or -n cut → end of the log
    for (change, end) in [(0, 120), (1, 120), (500, 120), (-1, 110), (-431, 110), (-432, 100), (-862, 100)] {
        let (rig, _) = filled();
        match usize::try_from(change) {
            Ok(garbage) => append_garbage(&rig, LAST, &vec![0; garbage]),
            Err(_) => cut(&rig, LAST, (whole + change) as u64),
        }
        let (log, _) = rig.open(RecoverMode::Unclean(None)).unwrap();
        assert_eq!(log.offsets().log_end, end, "change {change}");
        assert_eq!(read_all(&log.reader()).len() as i64, end / 10);
    }
    let (rig, _) = filled();
    damage(&rig, LAST, BATCH + 99, |bytes| bytes[0] ^= 1);
    let (log, report) = rig.open(RecoverMode::Unclean(None)).unwrap();
    assert_eq!((log.offsets().log_end, report.cut_bytes), (110, BATCH));
}

#[test]
fn producers_epochs_and_indexes_come_back_from_the_batches() {
    let (rig, end) = filled();
    let expect = rig.open(RecoverMode::Clean(end)).unwrap().0.producers().clone();
    let names = rig.files();
    let lost = |name: &&String| {
        name.ends_with("index") || name.ends_with("snapshot") || name.ends_with("checkpoint")
    };
    for name in names.iter().filter(lost) {
        remove(&rig, name);
    }
    let (mut log, report) = rig.open(RecoverMode::Unclean(Some(end))).unwrap();
    assert_eq!(report.scanned_bytes, 12 * BATCH);
    let sequences = |p: &crate::producer_state::ProducerStates| {
        p.all()
            .iter()
            .map(|(id, s)| (*id, s.epoch, s.batches.back().unwrap().last_sequence))
            .collect::<Vec<_>>()
    };
    assert_eq!(sequences(log.producers()), sequences(&expect));
    assert_eq!(log.reader().latest_epoch(), Some(0));
    assert_eq!(rig.content("leader-epoch-checkpoint"), b"0\n1\n0 0\n");
    assert_eq!(log.reader().offset_for_timestamp(650, 120).unwrap().unwrap().offset, 70);
    let appended = log.append(batch(1, 100, 0), at(0)).unwrap();
    assert_eq!(appended.base_offset, 120);
    for name in names.iter().filter(|name| name.ends_with("index")) {
        assert!(rig.files().contains(name), "{name} is there again");
    }
}

#[test]
fn a_clean_start_reads_little_and_a_crash_not_much() {
    let (rig, end) = filled();
    let (reads, opens) = (rig.disk.calls(Call::Read), rig.disk.calls(Call::Open));
    let (log, report) = rig.open(RecoverMode::Clean(end)).unwrap();
    assert_eq!(report.scanned_bytes, 0);
    // partition.metadata, the epochs, the snapshot; and each segment is opened for its length.
    assert_eq!(rig.disk.calls(Call::Read) - reads, 3);
    assert_eq!(rig.disk.calls(Call::Open) - opens, 3 + 6);
    drop(log);
    // The snapshot at the last segment bounds what is read.
    remove(&rig, "00000000000000000120.snapshot");
    let (_, report) = rig.open(RecoverMode::Unclean(Some(end))).unwrap();
    assert_eq!(report.scanned_bytes, 2 * BATCH);
}

#[test]
fn another_topics_directory_is_refused() {
    let (rig, end) = filled();
    let other = PartitionId { topic_id: uuid::Uuid::from_u128(6), ..crate::testkit::id() };
    let storage: Arc<dyn Storage> = Arc::new(rig.disk.clone());
    let mode = RecoverMode::Clean(end);
    let result = PartitionRecovery::start(storage, Path::new(DIR), other, LogConfig::default(), mode, 0);
    assert!(matches!(result.err(), Some(OpenError::WrongTopic { .. })));
}

#[test]
fn replay_refuses_a_journal_that_does_not_follow() {
    let meta = |segment_base, position, base_offset| FrameMeta {
        kind: FrameKind::Data,
        topic_id: crate::testkit::id().topic_id,
        partition: 0,
        base_offset,
        last_offset: base_offset + 9,
        segment_base,
        position,
        leader_epoch: 0,
    };
    // The log ends at 120 in segment 100, position 862.
    let cases = [
        ("next in the segment", meta(100, 862, 120), true),
        ("next segment", meta(120, 0, 120), true),
        ("known already", meta(100, 431, 110), true),
        ("hole in offsets", meta(100, 862, 121), false),
        ("next segment with a hole", meta(121, 0, 121), false),
    ];
    for (name, frame, good) in cases {
        let (rig, end) = filled();
        let storage: Arc<dyn Storage> = Arc::new(rig.disk.clone());
        let mode = RecoverMode::Unclean(Some(end));
        let mut recovery =
            PartitionRecovery::start(storage, Path::new(DIR), crate::testkit::id(), small(), mode, 0)
                .unwrap();
        assert_eq!(recovery.replay(&frame, false, batch(10, 300, 0).bytes()).is_ok(), good, "{name}");
    }
    // A hole in a segment may be a part of a batch that the checkpoint has; if it is not there, it is
    // missing.
    for (frame, path, position) in
        [(meta(100, 863, 120), LAST, 2 * BATCH), (meta(120, 10, 120), "00000000000000000120.log", 0)]
    {
        let (rig, end) = filled();
        let storage: Arc<dyn Storage> = Arc::new(rig.disk.clone());
        let (id, mode) = (crate::testkit::id(), RecoverMode::Unclean(Some(end)));
        let mut recovery = PartitionRecovery::start(storage, Path::new(DIR), id, small(), mode, 0).unwrap();
        assert_eq!(recovery.replay(&frame, false, batch(10, 300, 0).bytes()).unwrap(), Replayed::Skipped);
        let finished = recovery.finish(&rig.context, Arc::new(crate::sink::testing::NoListener), 0);
        let Some(OpenError::Corrupt(found)) = finished.err() else { panic!("the hole was not noticed") };
        assert_eq!((found.path, found.position), (Path::new(DIR).join(path), position));
    }
}

/// A process was killed: the page cache has batches that the journal does not have.
fn killed(kept: &[(i32, bool)], durable_frames: usize, written_through: bool) -> (Rig, PartitionRecovery) {
    let rig = Rig::new(LogConfig { write_through: true, ..small() });
    let mut log = rig.create();
    for (sequence, transactional) in kept {
        log.append(producer_batch(of(7, 0, *sequence, *transactional), 10, 300, 0), at(0)).unwrap();
    }
    let frames = rig.sink.take_frames();
    let storage: Arc<dyn Storage> = Arc::new(rig.disk.clone());
    let mode = RecoverMode::Unclean(Some(LogEnd::EMPTY));
    let mut recovery =
        PartitionRecovery::start(storage, Path::new(DIR), crate::testkit::id(), small(), mode, 0).unwrap();
    recovery.set_written_through(written_through);
    for (meta, payload) in &frames[..durable_frames] {
        recovery.replay(meta, false, payload).unwrap();
    }
    (rig, recovery)
}

fn recovered(rig: &Rig, recovery: PartitionRecovery) -> (Vec<i64>, RecoveryReport, Log) {
    let finished = recovery.finish(&rig.context, Arc::new(crate::sink::testing::NoListener), 0);
    let (log, report) = finished.unwrap();
    (read_all(&log.reader()), report, log)
}

#[test]
fn what_was_written_through_survives_a_kill() {
    // Two batches fill a segment.
    let batches: Vec<_> = (0..5).map(|n| (n * 10, false)).collect();
    for durable in 0..=5 {
        let (rig, recovery) = killed(&batches, durable, true);
        let (found, report, mut log) = recovered(&rig, recovery);
        assert_eq!(found, [0, 10, 20, 30, 40], "{durable} are durable");
        assert_eq!(report.kept_bytes, (5 - durable as u64) * BATCH);
        assert!(report.written_through && (durable == 5 || report.dirty.len() > 1));
        // The producer goes on where it was, and its copies are known.
        let mut append = |sequence| {
            log.append(producer_batch(of(7, 0, sequence, false), 10, 300, 0), at(0)).unwrap().duplicate
        };
        assert_eq!((append(40), append(50)), (true, false));
    }
    let (rig, recovery) = killed(&batches, 1, false);
    assert_eq!(recovered(&rig, recovery).0, [0], "of a log that is not written through nobody was told");
}

#[test]
fn a_transaction_that_the_journal_does_not_have_is_not_kept() {
    let batches = [(0, false), (10, false), (20, true), (30, true)];
    let (rig, recovery) = killed(&batches, 1, true);
    let (found, report, log) = recovered(&rig, recovery);
    assert_eq!(found, [0, 10]);
    assert_eq!((report.kept_bytes, log.offsets().last_stable), (BATCH, 20));
    let (rig, recovery) = killed(&batches, 3, true);
    assert_eq!(recovered(&rig, recovery).0, [0, 10, 20]);
}

#[test]
fn what_a_power_cut_tore_ends_what_is_kept() {
    let batches: Vec<_> = (0..4).map(|n| (n * 10, false)).collect();
    for (position, expect) in [(5, 2), (BATCH + 50, 3), (2 * BATCH - 1, 3)] {
        let (rig, recovery) = killed(&batches, 1, true);
        damage(&rig, "00000000000000000020.log", position, |bytes| bytes[0] ^= 1);
        let (found, report, _) = recovered(&rig, recovery);
        assert_eq!((found.len(), report.kept_bytes), (expect, (expect as u64 - 1) * BATCH), "{position}");
        assert_eq!(rig.content("00000000000000000020.log").len() as u64, (expect as u64 - 2) * BATCH);
    }
}

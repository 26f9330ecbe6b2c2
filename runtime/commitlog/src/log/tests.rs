use std::io;
use std::path::Path;

use pelton_wire::record::{BatchOptions, CheckedBatch};

use super::*;
use crate::RecoverMode;
use crate::retention::DeleteReason;
use crate::storage::sim::{Call, SimError};
use crate::testkit::{DIR, Rig, append_marker, at, batch, of, producer_batch, read_all, small};
use crate::{AppendOrigin, LogConfig, OffsetSequence};

/// How a refused append reads, without its numbers.
fn refusal(error: &AppendError) -> &'static str {
    match error {
        AppendError::InvalidBatch(_) => "invalid batch",
        AppendError::OutOfOrderSequence { .. } => "out of order",
        AppendError::SequenceOfEnded { .. } => "used before",
        AppendError::InvalidProducerEpoch { .. } => "invalid epoch",
        AppendError::InvalidTxnState { .. } => "invalid txn state",
        AppendError::CoordinatorFenced { .. } => "coordinator fenced",
        AppendError::LeaderEpochFenced { .. } => "leader epoch fenced",
        AppendError::Full(_) => "full",
        AppendError::Unavailable(_) => "unavailable",
        AppendError::Storage(_) => "storage",
        AppendError::Corrupt(_) => "corrupt",
        AppendError::Latched(_) => "latched",
        AppendError::TooManyProducers { .. } => "too many producers",
        AppendError::AfterRefused { .. } => "after refused",
        AppendError::Behind => "behind",
        AppendError::Closed(_) => "closed",
    }
}

/// Appends two records of a producer, and says where they are, with `+` for a duplicate, or why they are not.
fn try_append(log: &mut Log, options: BatchOptions) -> String {
    match log.append(producer_batch(options, 2, 20, 1000), at(1000)) {
        Ok(Appended { base_offset, duplicate, .. }) => {
            format!("{base_offset}{}", if duplicate { "+" } else { "" })
        }
        Err(error) => refusal(&error).to_owned(),
    }
}

#[test]
fn idempotent_producers_are_checked_across_restarts() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    // epoch, sequence, transactional → answer; two records each.
    let script = [
        (0, 0, false, "0"),
        (0, 2, false, "2"),
        (0, 2, false, "2+"),
        (0, 0, false, "0+"),
        (0, 6, false, "out of order"),
        (0, 4, false, "4"),
        (1, 2, false, "out of order"),
        (1, 0, false, "6"),
        (0, 6, false, "invalid epoch"),
        (0, 4, false, "invalid epoch"),
        (1, 2, true, "8"),
        (1, 4, false, "invalid txn state"),
        (1, 4, true, "10"),
    ];
    for (epoch, sequence, transactional, expect) in script {
        assert_eq!(try_append(&mut log, of(9, epoch, sequence, transactional)), expect, "{epoch} {sequence}");
    }
    let mut log = rig.reopen(log);
    // A snapshot has the last batch of each producer.
    let after = [
        (1, 4, true, "10+"),
        (1, 2, true, "out of order"),
        (1, 6, false, "invalid txn state"),
        (1, 6, true, "12"),
    ];
    for (epoch, sequence, transactional, expect) in after {
        assert_eq!(try_append(&mut log, of(9, epoch, sequence, transactional)), expect, "{epoch} {sequence}");
    }
    assert_eq!(log.offsets().last_stable, 8);
}

#[test]
fn the_log_assigns_offsets_and_epoch_and_nothing_else() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    let sent = batch(3, 300, 1000);
    log.append(sent.clone(), at(0)).unwrap();
    log.append(sent.clone(), AppendMeta { leader_epoch: 7, ..at(0) }).unwrap();
    let mut expect = sent.bytes().to_vec();
    expect[..8].copy_from_slice(&3_i64.to_be_bytes());
    expect[12..16].copy_from_slice(&7_i32.to_be_bytes());
    let stored = rig.content("00000000000000000000.log");
    assert_eq!(stored[sent.len()..], expect);
    let frames = rig.sink.take_frames();
    assert_eq!(frames[1].1, expect);
    assert_eq!(
        (frames[1].0.position, frames[1].0.base_offset, frames[1].0.last_offset),
        (sent.len() as u64, 3, 5)
    );
    assert_eq!(rig.content("leader-epoch-checkpoint"), b"0\n2\n0 0\n7 3\n");
    let fenced = log.append(sent.clone(), AppendMeta { leader_epoch: 6, ..at(0) });
    assert_eq!(refusal(&fenced.unwrap_err()), "leader epoch fenced");
}

#[test]
fn logs_that_share_a_sequence_say_in_which_order_they_were_appended_to() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    let sequence = Arc::new(OffsetSequence::starting_at(0));
    log.share_offsets(sequence.clone());
    let place = |log: &mut Log, options| {
        let appended = log.append(producer_batch(options, 2, 20, 1000), at(1000)).unwrap();
        (appended.base_offset, appended.last_offset, appended.duplicate)
    };
    assert_eq!(place(&mut log, of(9, 0, 0, false)), (0, 1, false));
    sequence.at_least(7);
    assert_eq!(place(&mut log, of(9, 0, 2, true)), (7, 8, false), "another log has taken 2 to 6");
    sequence.at_least(20);
    assert_eq!(place(&mut log, of(9, 0, 2, true)), (7, 8, true), "a copy takes nothing");
    assert_eq!(append_marker(&mut log, 9, true).unwrap().base_offset, 9, "nor does a marker");
    assert_eq!(place(&mut log, of(9, 0, 4, false)), (20, 21, false));
    assert_eq!((sequence.next(), log.offsets().log_end), (22, 22));
    assert_eq!(read_all(&log.reader()), [0, 2, 7, 9, 10, 20], "batches without records fill what is between");
    drop(log);
    // The end is found by its batches, as after a crash that nothing is known of.
    let (mut log, _) = rig.open(RecoverMode::Unclean(None)).unwrap();
    assert_eq!(log.offsets().log_end, 22);
    log.share_offsets(Arc::new(OffsetSequence::starting_at(0)));
    assert_eq!(place(&mut log, of(9, 0, 6, false)), (22, 23, false), "a sequence goes on behind every log");
}

#[test]
fn a_segment_is_finished_for_each_of_kafkas_reasons() {
    let base = LogConfig { segment_ms: 100, ..small() };
    // name, settings, timestamp of the second batch, clock at the second batch, its bytes → rolled
    let cases = [
        ("fits", base.clone(), 1000, 1000, 200, false),
        ("too large", base.clone(), 1000, 1000, 900, true),
        ("old by timestamps", base.clone(), 1101, 1000, 200, true),
        ("not old by the clock while there are timestamps", base.clone(), 1100, 9000, 200, false),
        ("old by the clock without timestamps", base.clone(), -1, 1101, 200, true),
        ("index full", LogConfig { segment_index_bytes: 23, ..base.clone() }, 1000, 1000, 200, true),
    ];
    for (name, config, timestamp, now_ms, bytes, rolled) in cases {
        let rig = Rig::new(config);
        let mut log = rig.create();
        log.active.created_ms = 1000;
        log.append(batch(1, 200, 1000), at(1000)).unwrap();
        log.append(batch(1, bytes, timestamp), at(now_ms)).unwrap();
        assert_eq!(log.end().segment_base == 1, rolled, "{name}");
    }
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    for bytes in [5_000, 5_000, 100, 5_000] {
        log.append(batch(1, bytes, 0), at(0)).unwrap();
    }
    let bases: Vec<i64> = log.shared.segments().iter().map(|s| s.base_offset).collect();
    assert_eq!(bases, [0, 1, 2, 3]);
    assert_eq!(read_all(&log.reader()), [0, 1, 2, 3]);
}

fn through(config: LogConfig) -> LogConfig {
    LogConfig { write_through: true, ..config }
}

fn check_full_disk(config: LogConfig) {
    let rig = Rig::new(config);
    let mut log = rig.create();
    log.append(batch(1, 500, 0), at(0)).unwrap();
    let before = rig.content("00000000000000000000.log");
    let free = 100;
    let used = u64::MAX - {
        rig.disk.set_capacity(Some(u64::MAX));
        crate::storage::Storage::space(&rig.disk, Path::new(DIR)).unwrap().free_bytes
    };
    rig.disk.set_capacity(Some(used + free));
    for _ in 0..3 {
        assert_eq!(refusal(&log.append(batch(1, 30_000, 0), at(0)).unwrap_err()), "full");
        assert_eq!(rig.content("00000000000000000000.log"), before, "the write was cut back");
    }
    assert!(log.append(batch(1, 20, 0), at(0)).is_ok(), "a small batch fits");
    rig.disk.set_capacity(None);
    log.append(batch(1, 30_000, 0), at(0)).unwrap();
    assert_eq!(read_all(&log.reader()), [0, 1, 2]);
}

#[test]
fn a_full_disk_is_not_final() {
    check_full_disk(LogConfig::default());
    check_full_disk(through(LogConfig::default()));
}

/// A file system that cannot say in advance shows at the checkpoint that it is full.
#[test]
fn a_disk_that_cannot_keep_room_takes_appends() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    rig.disk.fail_after(Some(Call::Reserve), ".log", 0, io::ErrorKind::Unsupported);
    for n in 0..20 {
        log.append(batch(1, 30_000, 0), at(0)).unwrap();
        assert_eq!(rig.disk.calls(Call::Reserve), 1, "append {n} does not ask again");
    }
    assert_eq!(read_all(&log.reader()), (0..20).collect::<Vec<i64>>());
}

#[test]
fn a_failed_write_is_final() {
    let rig = Rig::new(through(LogConfig::default()));
    let mut log = rig.create();
    log.append(batch(1, 500, 0), at(0)).unwrap();
    rig.disk.fail_after(Some(Call::Write), ".log", 0, io::ErrorKind::Other);
    let answers: Vec<_> =
        (0..2).map(|_| refusal(&log.append(batch(1, 500, 0), at(0)).unwrap_err())).collect();
    assert_eq!(answers, ["storage", "latched"]);
    assert!(matches!(log.roll(0), Err(ChangeError::Latched(_))));
    assert_eq!(read_all(&log.reader()), [0], "what was there can be read");
}

/// A producer has sent the next batch before it hears of the failure. That one must not be told that it is out of order,
/// which the failure alone made it: the client would give up its epoch, and send again what other partitions may have.
#[test]
fn what_fails_in_an_append_is_final_or_may_be_sent_again_in_order() {
    let (full, other) = (SimError::Kind(io::ErrorKind::StorageFull), SimError::Kind(io::ErrorKind::Other));
    let cases = [
        // No descriptor, or a file that cannot be opened or replaced: the log itself is as it was.
        (Call::Open, ".log", SimError::Os(libc::EMFILE), "unavailable"),
        (Call::Open, ".log", SimError::Os(libc::ENFILE), "unavailable"),
        (Call::Open, ".log", other, "unavailable"),
        (Call::Write, "leader-epoch", other, "unavailable"),
        (Call::Rename, "leader-epoch", other, "unavailable"),
        // What a write has left is cut away.
        (Call::Write, ".log", SimError::Os(libc::ENOMEM), "unavailable"),
        (Call::Write, ".log", full, "full"),
        (Call::Write, ".log", other, "storage"),
        // Nothing was written yet.
        (Call::Reserve, ".log", SimError::Os(libc::EMFILE), "unavailable"),
        (Call::Reserve, ".log", full, "full"),
        (Call::Reserve, ".log", other, "unavailable"),
    ];
    for (call, file, error, expect) in cases {
        let rig = Rig::new(LogConfig { write_through: call == Call::Write, ..small() });
        let mut log = rig.create();
        let of = |base_sequence| BatchOptions {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence,
            ..BatchOptions::default()
        };
        let append = |log: &mut Log, sequence, epoch| {
            let meta = AppendMeta { leader_epoch: epoch, ..at(0) };
            log.append(producer_batch(of(sequence), 1, 900, 0), meta)
        };
        append(&mut log, 0, 0).unwrap();
        // A log that gets less room than it asks for asks for what it needs.
        for _ in 0..if call == Call::Reserve { 2 } else { 1 } {
            rig.disk.fail_after(Some(call), file, 0, error);
        }
        let answers: Vec<_> =
            (1..4).map(|sequence| refusal(&append(&mut log, sequence, 1).unwrap_err())).collect();
        let then = if expect == "storage" { "latched" } else { "after refused" };
        assert_eq!(answers, [expect, then, then], "{call:?} {file} {error:?}");
        if expect == "storage" {
            continue;
        }
        assert_eq!(append(&mut log, 0, 1).unwrap().base_offset, 0, "a copy is a copy");
        for sequence in 1..4 {
            let appended = append(&mut log, sequence, 1).unwrap();
            assert_eq!(appended.base_offset, i64::from(sequence), "{call:?} {file} {error:?}");
        }
        assert_eq!(refusal(&append(&mut log, 9, 1).unwrap_err()), "out of order");
        let log = rig.reopen(log);
        assert_eq!(read_all(&log.reader()), [0, 1, 2, 3]);
    }
}

/// A producer that is not known may begin at any sequence, so its second batch would be taken in the place of the first.
#[test]
fn a_new_producer_whose_first_batch_was_refused_begins_with_it() {
    let rig = Rig::new(through(LogConfig::default()));
    let mut log = rig.create();
    let append = |log: &mut Log, epoch, sequence| {
        log.append(producer_batch(of(7, epoch, sequence, false), 1, 50, 0), at(0))
    };
    rig.disk.fail_after(Some(Call::Write), ".log", 0, io::ErrorKind::StorageFull);
    assert_eq!(refusal(&append(&mut log, 0, 0).unwrap_err()), "full");
    assert_eq!(refusal(&append(&mut log, 0, 1).unwrap_err()), "after refused");
    assert_eq!(append(&mut log, 0, 0).unwrap().base_offset, 0);
    assert_eq!(append(&mut log, 0, 1).unwrap().base_offset, 1);
    // Who goes on in a new epoch, or not at all, holds up nothing.
    rig.disk.fail_after(Some(Call::Write), ".log", 0, io::ErrorKind::StorageFull);
    assert_eq!(refusal(&append(&mut log, 0, 2).unwrap_err()), "full");
    assert_eq!(append(&mut log, 1, 0).unwrap().base_offset, 2);
    rig.disk.fail_after(Some(Call::Write), ".log", 0, io::ErrorKind::StorageFull);
    assert_eq!(refusal(&append(&mut log, 1, 1).unwrap_err()), "full");
    log.housekeep(0);
    assert_eq!(refusal(&append(&mut log, 1, 2).unwrap_err()), "out of order");
}

#[test]
fn a_closed_journal_refuses_appends() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    rig.sink.close("test");
    assert_eq!(refusal(&log.append(batch(1, 500, 0), at(0)).unwrap_err()), "closed");
}

#[test]
fn index_files_may_fail_without_harm() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    for n in 0..30 {
        rig.disk.clear_faults();
        let call = [Call::Open, Call::Write][n as usize % 2];
        rig.disk.fail_after(Some(call), "index", n % 3, io::ErrorKind::Other);
        log.append(batch(1, 150, n as i64), at(0)).unwrap();
    }
    rig.disk.clear_faults();
    assert_eq!(read_all(&log.reader()), (0..30).collect::<Vec<i64>>());
    let log = rig.reopen(log);
    assert_eq!(read_all(&log.reader()), (0..30).collect::<Vec<i64>>());
    for n in 0..30 {
        assert_eq!(log.reader().offset_for_timestamp(n, 30).unwrap().unwrap().offset, n);
    }
}

#[test]
fn clients_do_not_write_markers_and_old_coordinators_are_fenced() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    assert_eq!(try_append(&mut log, of(9, 0, 0, true)), "0");
    append_marker(&mut log, 9, false).unwrap();
    log.set_high_watermark(3);
    assert_eq!(log.offsets().last_stable, 3);
    let aborted = log.reader().aborted_transactions(0, 3).unwrap();
    assert_eq!(aborted.len(), 1);
    assert_eq!((aborted[0].first_offset, aborted[0].last_offset, aborted[0].last_stable_offset), (0, 2, 3));
    assert_eq!(rig.content("00000000000000000000.txnindex").len(), 34);
    let marker = log.reader().read(2, 1, 3, true).unwrap().into_bytes().unwrap();
    assert_eq!(
        refusal(&log.append(CheckedBatch::check(marker).unwrap(), at(0)).unwrap_err()),
        "invalid batch"
    );
    // An empty transaction writes a marker and no entry.
    append_marker(&mut log, 10, false).unwrap();
    assert_eq!(rig.content("00000000000000000000.txnindex").len(), 34);
    assert_eq!(log.reader().aborted_transactions(0, 4).unwrap().len(), 1);
}

/// librdkafka sends new records with the sequences of those that it dropped in an abort. They must not be acknowledged as
/// what is there, and aborted, already.
#[test]
fn a_batch_repeats_nothing_of_a_transaction_that_has_ended() {
    for committed in [false, true] {
        let rig = Rig::new(LogConfig::default());
        let mut log = rig.create();
        assert_eq!(try_append(&mut log, of(9, 0, 0, true)), "0");
        assert_eq!(try_append(&mut log, of(9, 0, 0, true)), "0+", "in its own transaction it does");
        append_marker(&mut log, 9, committed).unwrap();
        for _ in 0..2 {
            assert_eq!(try_append(&mut log, of(9, 0, 0, true)), "used before");
            assert_eq!(try_append(&mut log, of(9, 0, 1, true)), "used before");
            assert_eq!(try_append(&mut log, of(9, 0, 3, true)), "out of order");
            log = rig.reopen(log);
        }
        assert_eq!(try_append(&mut log, of(9, 0, 2, true)), "3");
        assert_eq!(try_append(&mut log, of(9, 0, 0, true)), "used before");
        assert_eq!(try_append(&mut log, of(9, 0, 3, true)), "out of order", "of this transaction");
        log = rig.reopen(log);
        assert_eq!(try_append(&mut log, of(9, 0, 2, true)), "3+");
    }
}

#[test]
fn the_high_watermark_only_rises_and_is_bounded_by_the_end() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    log.append(batch(5, 100, 0), at(0)).unwrap();
    for (set, expect) in [(3, 3), (2, 3), (99, 5), (0, 5)] {
        log.set_high_watermark(set);
        assert_eq!(log.offsets().high_watermark, expect, "set to {set}");
    }
}

fn filled(rig: &Rig) -> Log {
    let mut log = rig.create();
    for n in 0..12 {
        log.append(batch(10, 300, n * 100), at(n * 100)).unwrap();
    }
    log
}

fn log_files(rig: &Rig) -> Vec<i64> {
    let bases = |name: String| name.strip_suffix(".log").map(|base| base.parse().unwrap());
    rig.files().into_iter().filter_map(bases).collect()
}

/// Producers wait while the log is held, so nothing is read then.
#[test]
fn retention_reads_nothing_while_it_decides() {
    let rig = Rig::new(LogConfig { retention_ms: Some(500), ..small() });
    let mut log = rig.reopen(filled(&rig));
    log.set_high_watermark(120);
    let asked = || [Call::Read, Call::Ask].map(|call| rig.disk.calls(call));
    let before = asked();
    assert!(log.apply_retention(1_000).unwrap().is_empty(), "how old they are is not known after a start");
    assert_eq!(asked(), before);
    log.reader().learn_timestamps().unwrap();
    let before = asked();
    assert_eq!(log.apply_retention(1_000).unwrap().len(), 2);
    assert_eq!(asked(), before);
}

#[test]
fn retention_removes_finished_segments_and_their_files() {
    let rig = Rig::new(LogConfig { retention_ms: Some(500), ..small() });
    let mut log = filled(&rig);
    assert_eq!(log_files(&rig), [0, 20, 40, 60, 80, 100]);
    assert!(log.apply_retention(1_000).unwrap().is_empty(), "nothing is below the high watermark");
    log.set_high_watermark(120);
    let reader = log.reader();
    let held = reader.read(0, 10, 120, true).unwrap();
    let deleted: Vec<_> =
        log.apply_retention(1_000).unwrap().iter().map(|d| (d.base_offset, d.reason)).collect();
    assert_eq!(deleted, [(0, DeleteReason::Time), (20, DeleteReason::Time)]);
    assert_eq!(log.offsets().log_start, 40);
    log.remove_files();
    assert_eq!(log_files(&rig), [40, 60, 80, 100]);
    assert!(!rig.files().iter().any(|f| f.ends_with(".deleted") || f.starts_with("00000000000000000020")));
    assert_eq!(held.into_bytes().unwrap().len(), 431, "a reader that holds a file goes on reading it");
    assert!(reader.read(0, 10, 120, true).is_err());
    // Later all of it is too old: the active segment is finished, then it is no different from the others.
    log.apply_retention(9_000).unwrap();
    log.remove_files();
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (120, 120));
    assert_eq!(log_files(&rig), [120]);
    let mut log = rig.open_from(RecoverMode::Clean(log.close().unwrap()), 120).unwrap().0;
    assert_eq!(log.append(batch(1, 10, 0), at(0)).unwrap().base_offset, 120);
}

#[test]
fn deleting_records_moves_the_start_and_keeps_what_is_above() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    log.set_high_watermark(95);
    assert!(matches!(log.delete_records_before(96), Err(ChangeError::OffsetOutOfRange { high: 95, .. })));
    assert!(log.delete_records_before(-1).is_err());
    for (before, start, first_file) in [(0, 0, 0), (5, 5, 0), (3, 5, 0), (45, 45, 40), (95, 95, 80)] {
        assert_eq!(log.delete_records_before(before).unwrap(), start);
        log.remove_files();
        assert_eq!(log_files(&rig)[0], first_file, "before {before}");
    }
    assert_eq!(read_all(&log.reader()), [90, 100, 110], "the batch that holds the start comes first");
    assert!(log.reader().read(94, 10, 120, true).is_err());
}

#[test]
fn files_are_removed_while_the_log_goes_on() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    log.set_high_watermark(120);
    log.delete_records_before(45).unwrap();
    let removal = log.removable().unwrap();
    assert!(log.removable().is_none(), "one at a time");
    // Whoever owns the log goes on: appends, finishes segments, snapshots, and drops more of the beginning.
    for n in 12..16 {
        log.append(batch(10, 300, n * 100), at(n * 100)).unwrap();
    }
    log.delete_records_before(85).unwrap();
    assert!(log.removable().is_none());
    assert_eq!(log_files(&rig), [0, 20, 40, 60, 80, 100, 120, 140]);
    let removed = removal.run();
    assert_eq!(log_files(&rig), [40, 60, 80, 100, 120, 140]);
    log.settle(removed);
    log.remove_files();
    assert_eq!(log_files(&rig), [80, 100, 120, 140]);
    let names = |end: &str| rig.files().iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((names(".snapshot"), names(".deleted")), (4, 0), "one for each segment");
}

#[test]
fn what_cannot_be_synced_first_is_removed_later() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    log.set_high_watermark(120);
    let before = rig.files();
    rig.disk.fail_after(Some(Call::Sync), "00000000000000000040.snapshot", 0, io::ErrorKind::Other);
    log.delete_records_before(45).unwrap();
    log.remove_files();
    assert_eq!(rig.files(), before, "the snapshot at 40 would have been all that is known of the past");
    rig.disk.clear_faults();
    log.remove_files();
    assert_eq!(log_files(&rig)[0], 40);
    assert!(!rig.files().iter().any(|name| name.starts_with("00000000000000000020")));
}

#[test]
fn reads_do_not_need_indexes() {
    let rig = Rig::new(small());
    let log = filled(&rig);
    let log = rig.reopen(log);
    for name in rig.files().iter().filter(|name| name.ends_with("index")) {
        rig.disk.corrupt(&Path::new(DIR).join(name), 0, |bytes| bytes.fill(0x11)).unwrap();
    }
    let log = rig.reopen(log);
    let reader = log.reader();
    assert_eq!(read_all(&reader), (0..12).map(|n| n * 10).collect::<Vec<i64>>());
    for n in 0..12 {
        assert_eq!(reader.offset_for_timestamp(n * 100 - 50, 120).unwrap().unwrap().offset, n * 10);
    }
    assert_eq!(reader.max_timestamp_offset(120).unwrap().unwrap().offset, 110);
}

#[test]
fn a_lost_index_is_rebuilt_when_it_is_missed() {
    let rig = Rig::new(LogConfig { index_interval_bytes: 4096, ..LogConfig::default() });
    let mut log = rig.create();
    for _ in 0..2_000 {
        log.append(batch(1, 100, 5), at(0)).unwrap();
    }
    log.roll(0).unwrap();
    let name = "00000000000000000000.index";
    let before = rig.content(name);
    rig.disk.corrupt(&Path::new(DIR).join(name), 0, |bytes| bytes.fill(0)).unwrap();
    let reader = log.reader();
    assert_eq!(reader.read(1_999, 1, 2_000, true).unwrap().base_offset, 1_999);
    assert_eq!(rig.content(name), before);
}

#[test]
fn settings_change_a_live_log() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    for _ in 0..5 {
        log.append(batch(1, 500, 0), at(0)).unwrap();
    }
    log.set_config(LogConfig { segment_bytes: 1_000, index_interval_bytes: 1, ..LogConfig::default() });
    for _ in 0..4 {
        log.append(batch(1, 400, 0), at(0)).unwrap();
    }
    assert_eq!(log_files(&rig), [0, 5, 7]);
}

#[test]
fn producers_expire_by_the_time_of_their_last_write() {
    let rig = Rig::new(LogConfig { producer_id_expiration_ms: 1000, ..LogConfig::default() });
    let mut log = rig.create();
    // Records of the past do not make their producer old.
    log.append(producer_batch(of(9, 0, 0, false), 1, 10, 5), at(10_000)).unwrap();
    for (now_ms, known) in [(10_999, 1), (11_000, 0)] {
        log.housekeep(now_ms);
        assert_eq!(log.producers().len(), known);
    }
    assert_eq!(try_append(&mut log, of(9, 0, 77, false)), "1", "who is not known may start anywhere");
}

#[test]
fn coordinators_write_batches_without_sequences() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    let meta = AppendMeta { origin: AppendOrigin::Coordinator, ..at(0) };
    for expect in [0, 1] {
        let bytes = producer_batch(of(9, 0, -1, true), 1, 10, 5);
        let appended = log.append(bytes.clone(), meta).unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (expect, false));
    }
}

#[test]
fn a_leader_epoch_that_could_not_be_written_is_written_with_the_next_append() {
    let rig = Rig::new(LogConfig::default());
    let mut log = rig.create();
    log.append(batch(1, 10, 0), at(0)).unwrap();
    rig.disk.fail_after(Some(Call::Write), "leader-epoch", 0, io::ErrorKind::StorageFull);
    let next_epoch = AppendMeta { leader_epoch: 3, ..at(0) };
    assert_eq!(refusal(&log.append(batch(1, 10, 0), next_epoch).unwrap_err()), "full");
    assert_eq!(log.reader().latest_epoch(), Some(0));
    log.append(batch(1, 10, 0), next_epoch).unwrap();
    assert_eq!(rig.content("leader-epoch-checkpoint"), b"0\n2\n0 0\n3 1\n");
}

#[test]
fn a_journal_that_is_behind_takes_records_of_clients_only() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    rig.sink.set_behind(true);
    let error = append_marker(&mut log, 5, true).unwrap_err();
    assert_eq!(refusal(&error), "behind");
    log.append(batch(1, 10, 0), at(0)).expect("a client has a permit instead");
    rig.sink.set_behind(false);
    assert_eq!(append_marker(&mut log, 5, true).unwrap().base_offset, 1);
}

//! A log on a simulated disk is cleaned while others read it, cut it, or have just crashed.

use std::path::Path;

use pelton_wire::record::{BatchBuilder, BatchHeader, BatchOptions, DecompressLimit, batches};

use super::*;
use crate::storage::sim::Call;
use crate::storage::{SimStorage, Storage};
use crate::testkit::{DIR, Rig, append_marker, at, of, small};
use crate::{
    ChangeError, CleanJob, CleanReport, Compaction, Dirt, LogConfig, LogReader, Pace, RecoverMode,
    TailBudget, clean,
};

const COMPACTION: Compaction = Compaction {
    min_cleanable_dirty_ratio: 0.0,
    min_compaction_lag_ms: 0,
    max_compaction_lag_ms: i64::MAX,
    delete_retention_ms: 0,
};

/// So many bytes may be spent.
struct Budget(u64);

impl Pace for Budget {
    fn spend(&mut self, bytes: u64) -> bool {
        self.0 = self.0.saturating_sub(bytes);
        self.0 > 0
    }
}

fn put(log: &mut Log, options: BatchOptions, records: &[(&str, Option<&str>)]) -> i64 {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        builder.append(1_000, Some(key.as_bytes()), value.map(str::as_bytes), &[]).unwrap();
    }
    let appended = log.append(builder.build().unwrap(), at(1_000)).unwrap();
    log.set_high_watermark(appended.last_offset + 1);
    appended.base_offset
}

fn job(pace: &mut dyn Pace) -> CleanJob<'_> {
    CleanJob {
        compaction: COMPACTION,
        log: small(),
        producers: ActiveProducers::default(),
        now_ms: 5_000,
        map_bytes: 1 << 20,
        hash_key: [1; 16],
        pace,
    }
}

/// Lets a replacement take its place; `meanwhile` happens when the files are replaced and the log does not know it.
fn put_in_place(
    log: &mut Log,
    replacement: Replacement,
    meanwhile: impl FnOnce(&mut Log),
) -> Result<(), CleanError> {
    let swap = log.begin_swap(replacement).map_err(Replacement::refused)?;
    let swapped = swap.run();
    meanwhile(log);
    log.settle_swap(&swapped);
    swapped.finish()
}

fn dirt(log: &Log) -> Dirt {
    log.reader().dirt(&COMPACTION, 5_000).unwrap()
}

fn clean_all(log: &mut Log) -> Result<CleanReport, CleanError> {
    let (reader, dirt) = (log.reader(), dirt(log));
    clean(&reader, &dirt, job(&mut Budget(u64::MAX)), &mut |replacement| {
        put_in_place(log, replacement, |_| {})
    })
}

/// Offset and key of every record that a reader finds from `from` on.
fn records(reader: &LogReader, from: i64) -> Vec<(i64, String)> {
    let end = reader.offsets().log_end;
    let (mut at, mut found) = (from, Vec::new());
    while at < end {
        let range = reader.read(at, 300, end, true).unwrap();
        assert!(range.next_offset > at, "nothing at {at}");
        at = range.next_offset;
        found.extend(keys(&range.into_bytes().unwrap()));
    }
    found
}

fn keys(bytes: &[u8]) -> Vec<(i64, String)> {
    let mut scratch = Vec::new();
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        for record in batch.records(&mut scratch, DecompressLimit::default()).unwrap() {
            let record = record.unwrap();
            found.push((record.offset, String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned()));
        }
    }
    found
}

/// Three segments of three records each, of which the last ones of `a`, `b` and `c` count, and an active one.
fn filled(rig: &Rig) -> Log {
    let mut log = rig.create();
    for round in 0..3 {
        for key in ["a", "b", "c"] {
            put(&mut log, BatchOptions::default(), &[(key, Some(&format!("{round}").repeat(80)))]);
        }
        log.roll(1_000).unwrap();
    }
    put(&mut log, BatchOptions::default(), &[("d", Some("1"))]);
    log
}

fn keyed(records: &[(i64, &str)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, key)| (*offset, (*key).to_owned())).collect()
}

#[test]
fn of_each_key_the_newest_record_stays_and_segments_become_one() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    let before = dirt(&log);
    assert_eq!((before.first_dirty, before.end, before.clean_bytes), (0, 9, 0));
    assert!(before.is_due(&COMPACTION));
    let report = clean_all(&mut log).unwrap();
    assert_eq!((report.cleaned_to, report.records_read, report.records_written), (9, 9, 3));
    assert_eq!((report.segments_before, report.segments_after), (3, 2), "two segments fit into one");
    assert!(report.bytes_written * 2 < report.bytes_read);
    let left = keyed(&[(6, "a"), (7, "b"), (8, "c"), (9, "d")]);
    for from in 0..7 {
        assert_eq!(records(&log.reader(), from), left, "across the hole, from {from}");
    }
    assert!(!dirt(&log).is_due(&COMPACTION), "nothing is dirty any more");
    let files = rig.files();
    assert!(files.iter().all(|name| !name.contains("cleaned") && !name.contains("swap")), "{files:?}");
    assert_eq!(rig.content("cleaner-offset-checkpoint"), b"0\n9\n");
    let log = rig.reopen(log);
    assert_eq!(records(&log.reader(), 0), left);
    assert!(!dirt(&log).is_due(&COMPACTION), "a start knows how far it was cleaned");
}

#[test]
fn indexes_of_a_cleaned_segment_lead_to_its_batches() {
    let rig = Rig::new(LogConfig { segment_bytes: 4_000, ..small() });
    let mut log = rig.create();
    for n in 0..60 {
        let key = if n % 2 == 0 { "same".to_owned() } else { format!("key-{n}") };
        put(&mut log, BatchOptions::default(), &[(&key, Some(&"v".repeat(40)))]);
    }
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("d", Some("1"))]);
    clean_all(&mut log).unwrap();
    let calls = |offset| {
        let before = rig.disk.calls(Call::Read);
        let range = log.reader().read(offset, 1, 61, true).unwrap();
        (range.base_offset, rig.disk.calls(Call::Read) - before)
    };
    let rewritten = rig.disk.calls(Call::Rename);
    for offset in (0..60).rev() {
        let (base, reads) = calls(offset);
        assert_eq!(base, if offset == 58 { 58 } else { offset | 1 });
        assert!(reads < 40, "{reads} reads for offset {offset}");
    }
    assert_eq!(rig.disk.calls(Call::Rename), rewritten, "no index had to be made again");
}

#[test]
fn who_reads_goes_on_in_the_files_that_it_has() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    let reader = log.reader();
    let before = reader.read(0, 10_000, 10, true).unwrap();
    let old = reader.shared.segments();
    let dirt = dirt(&log);
    let all = records(&reader, 0);
    clean(&reader, &dirt, job(&mut Budget(u64::MAX)), &mut |replacement| {
        put_in_place(&mut log, replacement, |log| {
            assert_eq!(records(&log.reader(), 0), all, "the files are replaced, the list is not");
        })
    })
    .unwrap();
    assert_eq!(keys(&before.into_bytes().unwrap()), all, "ranges that were given out before");
    for (segment, expect) in old.iter().zip([0, 3, 6]) {
        let found = segment.find(log.shared.io(), expect).unwrap().unwrap();
        assert_eq!(found.header.base_offset, expect, "a list of segments that somebody has still");
    }
}

#[test]
fn only_what_no_start_replays_is_cleaned() {
    use crate::log_dir::tests::{Ear, by_hand, id, open};

    let (dir, _) = open(&SimStorage::new(), by_hand());
    let config = LogConfig { segment_bytes: 400, ..LogConfig::default() };
    let mut log = dir.create(id("t", 0), config, Arc::new(Ear::default())).unwrap();
    for n in 0..6 {
        put(&mut log, BatchOptions::default(), &[("k", Some(&format!("{n}").repeat(150)))]);
    }
    let cleanable = |log: &Log| log.reader().dirt(&COMPACTION, 0).unwrap().end;
    assert_eq!(cleanable(&log), 0, "it is in memory");
    dir.flush().unwrap();
    assert_eq!(cleanable(&log), 0, "it is in the journal, from which a start would write it again");
    dir.checkpoint().unwrap();
    let active = log.end().segment_base;
    assert_eq!(cleanable(&log), active);
    log.roll(0).unwrap();
    assert_eq!(
        cleanable(&log),
        active,
        "the checkpoint says that the log ends in the segment that was just finished"
    );
    put(&mut log, BatchOptions::default(), &[("k", Some("new"))]);
    dir.flush().unwrap();
    assert_eq!(cleanable(&log), active);
    dir.checkpoint().unwrap();
    assert_eq!(cleanable(&log), log.end().segment_base);
}

#[test]
fn open_transactions_are_not_touched_and_aborted_ones_go() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    put(&mut log, BatchOptions::default(), &[("a", Some("old"))]);
    put(&mut log, of(7, 0, 0, true), &[("a", Some("aborted")), ("b", Some("aborted"))]);
    append_marker(&mut log, 7, false).unwrap();
    log.roll(1_000).unwrap();
    put(&mut log, of(8, 0, 0, true), &[("c", Some("open"))]);
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("c", Some("new"))]);
    assert_eq!(dirt(&log).end, 4, "up to the segment with an open transaction");
    clean_all(&mut log).unwrap();
    let left = records(&log.reader(), 0);
    assert_eq!(left.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 3, 4, 5]);
    assert!(log.reader().aborted_transactions(0, 6).unwrap().len() == 1, "its marker is there");
    append_marker(&mut log, 8, true).unwrap();
    log.set_high_watermark(i64::MAX);
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("d", Some("1"))]);
    clean_all(&mut log).unwrap();
    assert_eq!(log.reader().aborted_transactions(0, 8).unwrap(), [], "nothing of it is left to leave out");
    let log = rig.reopen(log);
    assert_eq!(log.reader().aborted_transactions(0, 8).unwrap(), [], "nor after a start");
}

/// The index of aborted transactions forgets one once nothing of it is left; a reader may still hold what was there.
#[test]
fn a_reader_that_two_cleans_overtake_sees_nothing_aborted() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    put(&mut log, of(7, 0, 0, true), &[("a", Some("aborted"))]);
    append_marker(&mut log, 7, false).unwrap();
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("b", Some("1"))]);
    let (reader, mut reads) = (log.reader(), 0);
    let end = log.offsets().log_end;
    let (range, aborted) = reader
        .read_committed_while(0, 1 << 20, end, true, || {
            reads += 1;
            if reads > 1 {
                return;
            }
            for value in ["2", "3"] {
                clean_all(&mut log).unwrap();
                log.roll(1_000).unwrap();
                put(&mut log, BatchOptions::default(), &[("b", Some(value))]);
            }
            assert_eq!(reader.aborted_transactions(0, end).unwrap(), [], "the index has forgotten it");
        })
        .unwrap();
    let bytes = range.into_bytes().unwrap();
    let of_aborted = |header: &BatchHeader| header.producer_id == 7 && !header.is_control();
    let shown = batches(&bytes).any(|view| of_aborted(view.unwrap().header()));
    assert!(!shown || !aborted.is_empty(), "a consumer would take the aborted record for a committed one");
    assert_eq!(reads, 2);
}

/// What memory has of a segment that was cleaned is not what the log says any more: aborted records would be shown, since
/// nothing says that they are.
#[test]
fn memory_has_nothing_of_what_was_cleaned() {
    let mut rig = Rig::new(LogConfig { tail_cache_bytes: 1 << 20, ..small() });
    rig.context.tails = TailBudget::new(1 << 20);
    let mut log = rig.create();
    put(&mut log, BatchOptions::default(), &[("a", Some("old"))]);
    put(&mut log, of(7, 0, 0, true), &[("a", Some("aborted"))]);
    append_marker(&mut log, 7, false).unwrap();
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("a", Some("new"))]);
    assert_eq!(records(&log.reader(), 0).len(), 4);
    clean_all(&mut log).unwrap();
    let left = records(&log.reader(), 0);
    assert_eq!(left.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(
        log.shared.tail.covers(3) && !log.shared.tail.covers(2),
        "what was not cleaned is still in memory"
    );
}

#[test]
fn the_last_batch_of_an_active_producer_stays_empty() {
    let rig = Rig::new(small());
    let mut log = rig.create();
    put(&mut log, of(7, 0, 0, false), &[("a", Some("1"))]);
    put(&mut log, BatchOptions::default(), &[("a", Some("2"))]);
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("d", Some("1"))]);
    let (reader, found) = (log.reader(), dirt(&log));
    let producers = log.active_producers();
    let mut budget = Budget(u64::MAX);
    let job = CleanJob { producers, ..job(&mut budget) };
    clean(&reader, &found, job, &mut |replacement| put_in_place(&mut log, replacement, |_| {})).unwrap();
    let bytes = reader.read(0, 1, 3, true).unwrap().into_bytes().unwrap();
    let header = *batches(&bytes).next().unwrap().unwrap().header();
    assert_eq!((header.records_count, header.producer_id, header.last_sequence()), (0, 7, 0));
    // Without any snapshot a start knows the producer by that batch alone.
    let end = log.close().unwrap();
    for name in rig.files().iter().filter(|name| name.ends_with(".snapshot")) {
        rig.disk.remove_file(&Path::new(DIR).join(name)).unwrap();
    }
    let (log, _) = rig.open(RecoverMode::Unclean(Some(end))).unwrap();
    assert_eq!(log.producers().get(7).unwrap().batches.back().unwrap().last_sequence, 0);
}

#[test]
fn retention_goes_on_during_a_swap() {
    // The start of the log moves into the middle of what is replaced, behind it, or stays.
    for (start, left) in [(4, vec![6, 7, 8, 9]), (9, vec![9]), (0, vec![6, 7, 8, 9])] {
        let rig = Rig::new(LogConfig { segment_bytes: 100_000, ..small() });
        let mut log = filled(&rig);
        let (reader, found) = (log.reader(), dirt(&log));
        let mut budget = Budget(u64::MAX);
        let job = CleanJob { log: rig.config.clone(), ..job(&mut budget) };
        clean(&reader, &found, job, &mut |replacement| {
            put_in_place(&mut log, replacement, |log| {
                log.delete_records_before(start).unwrap();
                assert!(log.removable().is_none(), "files are not removed during a swap");
                assert!(start >= 9 || matches!(log.truncate_to(start.max(1), 0), Err(ChangeError::Swapping)));
            })
        })
        .unwrap();
        log.remove_files();
        let offsets = |log: &Log| records(&log.reader(), start).iter().map(|(o, _)| *o).collect::<Vec<_>>();
        assert_eq!(offsets(&log), left, "start {start}");
        let logs = || rig.files().iter().filter(|name| name.ends_with(".log")).count();
        assert_eq!(logs(), if start == 9 { 1 } else { 2 }, "start {start}: {:?}", rig.files());
        let end = log.close().unwrap();
        let (log, _) = rig.open_from(RecoverMode::Clean(end), start).unwrap();
        assert_eq!(offsets(&log), left, "start {start}, reopened");
    }
}

#[test]
fn a_log_that_changed_refuses_what_was_written() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    let (reader, found) = (log.reader(), dirt(&log));
    let result = clean(&reader, &found, job(&mut Budget(u64::MAX)), &mut |replacement| {
        log.delete_records_before(4).unwrap();
        put_in_place(&mut log, replacement, |_| {})
    });
    assert!(matches!(result, Err(CleanError::Changed)), "{result:?}");
    assert!(!CleanError::Changed.is_lasting());
    let files = rig.files();
    assert!(files.iter().all(|name| !name.ends_with("cleaned")), "{files:?}");
    clean_all(&mut log).unwrap();
    assert_eq!(records(&log.reader(), 4), keyed(&[(6, "a"), (7, "b"), (8, "c"), (9, "d")]));
}

#[test]
fn a_clean_that_is_stopped_or_fails_leaves_nothing_behind() {
    let rig = Rig::new(small());
    let mut log = filled(&rig);
    let all = records(&log.reader(), 0);
    let reader = log.reader();
    for bytes in [1, 500, 2_000] {
        let found = dirt(&log);
        let result = clean(&reader, &found, job(&mut Budget(bytes)), &mut |replacement| {
            put_in_place(&mut log, replacement, |_| {})
        });
        assert!(matches!(result, Err(CleanError::Stopped)), "{bytes}: {result:?}");
    }
    let mut budget = Budget(u64::MAX);
    let tiny = CleanJob { map_bytes: 1, ..job(&mut budget) };
    let found = dirt(&log);
    let result = clean(&reader, &found, tiny, &mut |_| unreachable!("nothing is written"));
    // One key fits into the smallest map.
    assert!(
        matches!(result, Ok(CleanReport { cleaned_to: 1, .. }) | Err(CleanError::MapTooSmall { .. })),
        "{result:?}"
    );
    assert_eq!(records(&reader, 0), all);
    let files = rig.files();
    assert!(files.iter().all(|name| !name.ends_with("cleaned")), "{files:?}");
    // A batch that rots is found before anything is replaced.
    let path = Path::new(DIR).join("00000000000000000003.log");
    rig.disk.corrupt(&path, 70, |bytes| bytes[0] ^= 1).unwrap();
    let error = clean_all(&mut log).unwrap_err();
    assert!(matches!(error, CleanError::Corrupt(_)) && error.is_lasting(), "{error}");
}

#[test]
fn keys_that_do_not_fit_are_cleaned_in_several_rounds() {
    let rig = Rig::new(LogConfig { segment_bytes: 100_000, ..small() });
    let mut log = rig.create();
    for n in 0..40 {
        put(&mut log, BatchOptions::default(), &[(&format!("key-{}", n % 20), Some("v"))]);
    }
    log.roll(1_000).unwrap();
    put(&mut log, BatchOptions::default(), &[("d", Some("1"))]);
    let mut rounds = 0;
    while dirt(&log).is_due(&COMPACTION) {
        let (reader, found) = (log.reader(), dirt(&log));
        let mut budget = Budget(u64::MAX);
        let job = CleanJob { map_bytes: 10 * 24, ..job(&mut budget) };
        let report =
            clean(&reader, &found, job, &mut |replacement| put_in_place(&mut log, replacement, |_| {}));
        assert!(report.unwrap().cleaned_to > found.first_dirty, "each round gets on");
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    let offsets: Vec<i64> = records(&log.reader(), 0).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (20..=40).collect::<Vec<_>>());
}

#[test]
fn a_swap_that_fails_in_the_middle_is_finished_by_the_next_start() {
    for renames in 1..4 {
        let rig = Rig::new(small());
        let mut log = filled(&rig);
        let all = records(&log.reader(), 0);
        let names = rig.files().len();
        rig.disk.fail_after(Some(Call::Rename), "log", renames - 1, std::io::ErrorKind::PermissionDenied);
        let result = clean_all(&mut log);
        rig.disk.clear_faults();
        match &result {
            Err(CleanError::Storage(_)) => {
                assert_eq!(records(&log.reader(), 0), all);
                assert_eq!(rig.files().len(), names, "what was written is removed");
            }
            Err(CleanError::Unfinished(_)) => {
                assert_eq!(records(&log.reader(), 0).last(), all.last());
                assert!(result.is_err_and(|error| error.is_lasting()));
            }
            other => assert!(other.is_ok(), "{other:?}"),
        }
        let log = rig.reopen(log);
        let left = records(&log.reader(), 0);
        assert!(left.ends_with(&keyed(&[(6, "a"), (7, "b"), (8, "c"), (9, "d")])), "{left:?}");
        assert!(rig.files().iter().all(|name| !name.ends_with("swap") && !name.ends_with("cleaned")));
    }
}

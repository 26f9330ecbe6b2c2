//! Files with random damage: opening and reading them may fail, with an error, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_commitlog::sink::testing::{InstantSink, NoListener};
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::storage::{OpenMode, SimStorage, Storage};
use pelton_commitlog::{
    AppendMeta, AppendOrigin, FileCache, Log, LogConfig, LogContext, LogEnd, PartitionId, RecoverMode,
    TailBudget,
};
use pelton_wire::record::CheckedBatch;
use uuid::Uuid;

use crate::batches::{Producer, marker, random};

const DIR: &str = "/t-0";

fn context(disk: &SimStorage) -> LogContext {
    LogContext {
        storage: Arc::new(disk.clone()),
        sink: Arc::new(InstantSink::default()),
        files: Arc::new(FileCache::new(2)),
        tails: TailBudget::new(0),
    }
}

fn id() -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(1), topic: "t".to_owned(), partition: 0 }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 300, ..LogConfig::default() }
}

fn append(log: &mut Log, rng: &mut SimRng, n: i64) {
    let producer = Producer { id: 7, epoch: 0, sequence: -1, transactional: true };
    let (origin, bytes) = match n % 5 {
        0 => (AppendOrigin::Coordinator, marker(n % 10 == 0, producer, 1000 + n)),
        1 => (AppendOrigin::Coordinator, random(rng, 1000 + n, Some(producer)).bytes),
        _ => (AppendOrigin::Client, random(rng, 1000 + n, None).bytes),
    };
    // A damaged log may refuse.
    let _ = log.append(
        CheckedBatch::check(bytes).unwrap(),
        AppendMeta { leader_epoch: (n / 30) as i32, origin, now_ms: 1000 + n },
    );
}

fn build(disk: &SimStorage) -> LogEnd {
    let mut rng = SimRng::new(1);
    let mut log =
        Log::create(&context(disk), Path::new(DIR), id(), config(), Arc::new(NoListener), 0).unwrap();
    for n in 0..100 {
        append(&mut log, &mut rng, n);
    }
    log.close().unwrap()
}

/// Zeros, flips, cuts, extends or removes a part of a random file. Which one it was.
fn damage(disk: &SimStorage, rng: &mut SimRng) -> PathBuf {
    let files = disk.list(Path::new(DIR)).unwrap();
    let path = files[rng.up_to(files.len() - 1)].clone();
    let len = disk.content(&path).unwrap().len();
    let (from, count) = (rng.up_to(len), 1 + rng.up_to(40));
    let bits = rng.bits();
    let file = disk.open(&path, OpenMode::Write).unwrap();
    match rng.up_to(5) {
        0 => disk.remove_file(&path).unwrap(),
        1 => file.set_len(from as u64).unwrap(),
        2 => file.write_all_at(&bits.to_be_bytes(), len as u64).unwrap(),
        3 => disk.corrupt(&path, from as u64, |b| b.iter_mut().take(count).for_each(|b| *b = 0)).unwrap(),
        4 => disk.corrupt(&path, from as u64, |b| b.iter_mut().take(count).for_each(|b| *b = 0xff)).unwrap(),
        _ => disk
            .corrupt(&path, from as u64, |b| b.iter_mut().take(1).for_each(|b| *b ^= 1 << (bits % 8)))
            .unwrap(),
    }
    path
}

fn use_it(mut log: Log, rng: &mut SimRng) {
    log.set_high_watermark(i64::MAX);
    let reader = log.reader();
    let offsets = reader.offsets();
    let mut cursor = offsets.log_start;
    while let Ok(range) = reader.read(cursor, rng.range(1, 30_000), offsets.log_end, true) {
        let next = range.next_offset;
        if next <= cursor || range.into_bytes().is_err() {
            break;
        }
        cursor = next;
    }
    for timestamp in [0, 1050, 1099, 5000] {
        let _ = reader.offset_for_timestamp(timestamp, offsets.log_end);
    }
    let _ = reader.max_timestamp_offset(offsets.log_end);
    let _ = reader.aborted_transactions(0, offsets.log_end);
    for n in 100..130 {
        append(&mut log, rng, n);
    }
    let _ = log.truncate_to(offsets.log_end.saturating_sub(20), 2000);
    let _ = log.delete_records_before(offsets.log_start + 10);
    let _ = log.reader().learn_timestamps();
    let _ = log.apply_retention(i64::MAX);
    log.remove_files();
    let _ = log.close();
}

#[test]
fn damaged_files_give_errors_and_nothing_else() {
    let good = SimStorage::new();
    let end = build(&good);
    let mut opened = 0;
    for seed in 0..1_500 {
        let mut rng = SimRng::new(seed);
        let disk = good.fork();
        let paths: Vec<PathBuf> = (0..=rng.up_to(2)).map(|_| damage(&disk, &mut rng)).collect();
        let mode = match rng.up_to(2) {
            0 => RecoverMode::Clean(end),
            1 => RecoverMode::Unclean(Some(end)),
            _ => RecoverMode::Unclean(None),
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let context = context(&disk);
            let listener = Arc::new(NoListener);
            match Log::open(&context, Path::new(DIR), id(), config(), listener, mode, 0, 2000) {
                Ok((log, _)) => {
                    use_it(log, &mut SimRng::new(seed));
                    1
                }
                Err(_) => 0,
            }
        }));
        opened += outcome.unwrap_or_else(|_| panic!("seed {seed}, {mode:?}, damaged {paths:?}"));
    }
    assert!(opened > 500, "{opened} of 1500 could be opened: most damage is to what can be rebuilt");
}

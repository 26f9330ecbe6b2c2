//! Readers that are far behind, with every fetch size, and readers that run beside the writer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pelton_commitlog::sink::testing::{InstantSink, NoListener};
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::storage::{DiskStorage, SimStorage, Storage};
use pelton_commitlog::{
    AppendMeta, AppendOrigin, FileCache, Log, LogConfig, LogContext, LogReader, PartitionId, ReadError,
    TailBudget,
};
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch, batches};
use uuid::Uuid;

const META: AppendMeta = AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1000 };

fn new_log(storage: Arc<dyn Storage>, dir: &Path, config: LogConfig, open_files: usize, tail: usize) -> Log {
    let context = LogContext {
        storage,
        sink: Arc::new(InstantSink::default()),
        files: Arc::new(FileCache::new(open_files)),
        tails: TailBudget::new(tail),
    };
    let id = PartitionId { topic_id: Uuid::from_u128(1), topic: "t".to_owned(), partition: 0 };
    Log::create(&context, dir, id, config, Arc::new(NoListener), 0).unwrap()
}

/// A batch of `count` records, `bytes` long in all.
fn batch(count: usize, bytes: usize) -> CheckedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = vec![7; bytes / count];
    for _ in 0..count {
        builder.append(1000, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// Reads everything from `from` to the high watermark and checks that each batch comes once, in order.
/// Returns the bytes.
fn catch_up(reader: &LogReader, from: i64, fetch_bytes: u64) -> u64 {
    let (mut cursor, mut total) = (from, 0);
    let end = reader.offsets().high_watermark;
    while cursor < end {
        let range = reader.read(cursor, fetch_bytes, end, true).unwrap();
        assert!(range.next_offset > cursor, "no progress at {cursor} with {fetch_bytes} bytes");
        let bytes = range.into_bytes().unwrap();
        let mut seen = 0;
        for view in batches(&bytes) {
            let header = *view.unwrap().header();
            assert_eq!(header.base_offset, cursor, "with {fetch_bytes} bytes");
            cursor = header.next_offset();
            seen += header.total_len();
        }
        assert_eq!(seen, bytes.len(), "whole batches only");
        total += bytes.len() as u64;
    }
    total
}

#[test]
fn every_fetch_size_gets_every_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 700_000, tail_cache_bytes: 1 << 20, ..LogConfig::default() };
    let mut log = new_log(Arc::new(DiskStorage), &dir.path().join("t-0"), config, 4, 1 << 20);
    let mut rng = SimRng::new(1);
    while log.end().offset < 20_000 {
        let size = [80, 300, 3_000, 30_000, 300_000][rng.up_to(4)];
        log.append(batch(1 + rng.up_to(30), 30 + rng.up_to(size)), META).unwrap();
    }
    log.set_high_watermark(i64::MAX);
    let reader = log.reader();
    let all = reader.size_bytes();
    for power in 10..=23 {
        assert_eq!(catch_up(&reader, 0, 1 << power), all, "fetches of {} bytes", 1_u64 << power);
    }
    // Any place to start from, also in the middle of a batch, gives the batch that holds it.
    for from in (0..log.end().offset).step_by(97) {
        let range = reader.read(from, 1, i64::MAX, true).unwrap();
        assert!(range.base_offset <= from && from < range.next_offset);
    }
}

#[test]
fn open_files_are_bounded_whatever_is_read() {
    let config = LogConfig { segment_bytes: 4_000, ..LogConfig::default() };
    let disk = SimStorage::new();
    let files = Arc::new(FileCache::new(3));
    let context = LogContext {
        storage: Arc::new(disk.clone()),
        sink: Arc::new(InstantSink::default()),
        files: files.clone(),
        tails: TailBudget::new(0),
    };
    let id = PartitionId { topic_id: Uuid::from_u128(1), topic: "t".to_owned(), partition: 0 };
    let mut log = Log::create(&context, Path::new("/t-0"), id, config, Arc::new(NoListener), 0).unwrap();
    for _ in 0..200 {
        log.append(batch(1, 500), META).unwrap();
    }
    log.set_high_watermark(i64::MAX);
    catch_up(&log.reader(), 0, 10_000);
    assert!(files.open_files() <= 3);
    assert!(disk.list(Path::new("/t-0")).unwrap().len() > 60, "there were many more files to open");
}

#[test]
fn the_tail_is_read_from_memory() {
    let disk = SimStorage::new();
    let log = new_log(Arc::new(disk.clone()), Path::new("/t-0"), LogConfig::default(), 4, 1 << 20);
    let mut log = log;
    for _ in 0..100 {
        log.append(batch(2, 1000), META).unwrap();
    }
    log.set_high_watermark(i64::MAX);
    let before = disk.calls(pelton_commitlog::storage::sim::Call::Read);
    assert_eq!(catch_up(&log.reader(), 0, 5_000), log.end().position);
    assert_eq!(disk.calls(pelton_commitlog::storage::sim::Call::Read), before);
}

#[test]
fn readers_beside_a_writer_and_retention_see_no_torn_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 60_000,
        retention_ms: None,
        retention_bytes: Some(200_000),
        tail_cache_bytes: 8_000,
        ..LogConfig::default()
    };
    let mut log = new_log(Arc::new(DiskStorage), &dir.path().join("t-0"), config, 2, 8_000);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [1_000, 20_000, 1 << 20]
        .into_iter()
        .map(|fetch_bytes| {
            let (reader, done) = (log.reader(), done.clone());
            std::thread::spawn(move || follow(&reader, fetch_bytes, &done))
        })
        .collect();
    let mut rng = SimRng::new(3);
    for n in 0..4_000 {
        log.append(batch(1 + rng.up_to(5), 30 + rng.up_to(2_000)), META).unwrap();
        log.set_high_watermark(i64::MAX);
        if n % 50 == 0 {
            log.apply_retention(2000).unwrap();
            log.remove_files();
        }
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        let (batches, jumps) = reader.join().unwrap();
        assert!(batches > 0, "{batches} batches, {jumps} jumps");
    }
}

/// Reads until the writer is done; where retention was faster, goes on at the log start. Batches seen, and
/// such jumps.
fn follow(reader: &LogReader, fetch_bytes: u64, done: &AtomicBool) -> (u64, u64) {
    let (mut cursor, mut seen, mut jumps) = (0, 0, 0);
    loop {
        let was_done = done.load(Ordering::Acquire);
        match reader.read(cursor, fetch_bytes, reader.offsets().high_watermark, true) {
            Ok(range) if range.slices.is_empty() && was_done => return (seen, jumps),
            Ok(range) => {
                let bytes = range.into_bytes().unwrap();
                for view in batches(&bytes) {
                    let view = view.unwrap();
                    view.verify_crc().unwrap();
                    let header = view.header();
                    assert!(
                        header.base_offset == cursor || jumps > 0,
                        "{} after {cursor}",
                        header.base_offset
                    );
                    assert!(header.last_offset() >= cursor);
                    cursor = header.next_offset();
                    seen += 1;
                }
            }
            Err(ReadError::OffsetOutOfRange { log_start, .. }) => {
                assert!(log_start > cursor);
                cursor = log_start;
                jumps += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

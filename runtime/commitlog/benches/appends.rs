//! One partition's log without the journal: what an append and a read cost the CPU, page cache included.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pelton_commitlog::sink::testing::{InstantSink, NoListener};
use pelton_commitlog::storage::DiskStorage;
use pelton_commitlog::{
    AppendMeta, AppendOrigin, FileCache, Log, LogConfig, LogContext, PartitionId, RecoverMode, TailBudget,
};
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch};
use uuid::Uuid;

const META: AppendMeta =
    AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1_700_000_000_000 };
const BATCH_BYTES: usize = 1024;

fn context(tail_bytes: usize) -> LogContext {
    LogContext {
        storage: Arc::new(DiskStorage),
        sink: Arc::new(InstantSink::default()),
        files: Arc::new(FileCache::new(64)),
        tails: TailBudget::new(tail_bytes),
    }
}

fn id() -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(1), topic: "bench".to_owned(), partition: 0 }
}

fn new_log(dir: &Path, tail_bytes: usize) -> Log {
    // Small enough that a long run does not fill the disk: retention keeps four segments.
    let config =
        LogConfig { segment_bytes: 64 << 20, retention_bytes: Some(192 << 20), ..LogConfig::default() };
    Log::create(&context(tail_bytes), dir, id(), config, Arc::new(NoListener), 0).expect("an empty directory")
}

/// Ten records, about 1 KiB in all.
fn batch() -> CheckedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..10 {
        builder.append(META.now_ms, None, Some(&[b'v'; BATCH_BYTES / 10 - 16]), &[]).expect("small");
    }
    builder.build().expect("small")
}

fn append(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let mut group = c.benchmark_group("append");
    let batch = batch();
    group.throughput(Throughput::Bytes(batch.len() as u64));
    let mut log = new_log(&temp.path().join("append"), 64 << 20);
    let mut count = 0_u64;
    group.bench_function("1 KiB", |b| {
        b.iter(|| {
            let appended = log.append(batch.clone(), META).expect("room");
            log.set_high_watermark(appended.last_offset + 1);
            count += 1;
            if count.is_multiple_of(50_000) {
                log.apply_retention(META.now_ms).expect("a good disk");
                log.remove_files();
            }
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let batch = batch();
    let mut group = c.benchmark_group("read");
    for (place, tail_bytes) in [("memory", 64 << 20), ("file", 0)] {
        let mut log = new_log(&temp.path().join(place), tail_bytes);
        for _ in 0..3_000 {
            log.append(batch.clone(), META).expect("room");
        }
        log.set_high_watermark(i64::MAX);
        let (reader, end) = (log.reader(), log.offsets().log_end);
        for fetch_bytes in [1 << 10, 64 << 10, 1 << 20] {
            group.throughput(Throughput::Bytes(fetch_bytes));
            group.bench_with_input(BenchmarkId::new(place, fetch_bytes), &fetch_bytes, |b, bytes| {
                let mut from = 0;
                b.iter(|| {
                    // Different places, none of them the start of a segment.
                    from = (from + 7_919) % 15_000;
                    black_box(reader.read(from, *bytes, end, true).expect("in range"))
                });
            });
        }
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dir = temp.path().join("open");
    let mut log = new_log(&dir, 0);
    let batch = batch();
    for _ in 0..1_000 {
        log.append(batch.clone(), META).expect("room");
    }
    let end = log.close().expect("a good disk");
    let context = context(0);
    c.bench_function("open after a clean stop", |b| {
        b.iter(|| {
            let config = LogConfig::default();
            Log::open(&context, &dir, id(), config, Arc::new(NoListener), RecoverMode::Clean(end), 0, 0)
                .expect("a clean log")
        });
    });
}

criterion_group!(benches, append, read, open);
criterion_main!(benches);

//! Durable appends: 256 producers, each with one batch of 1 KiB in flight, over 1, 100 and 1,000 partitions; and beside them a raw writer
//! that syncs the same bytes in groups of the same size, which is what the disk can do.
//!
//! The files go to the directory in `PELTON_BENCH_DIR`, or to the system's temporary directory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Receiver, Sender, unbounded};
use pelton_commitlog::sink::testing::NoListener;
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::storage::{DIRECT_ALIGN, DiskStorage, OpenMode, Storage};
use pelton_commitlog::{
    AppendMeta, AppendOrigin, DurableListener, Log, LogConfig, LogDir, LogDirConfig, PartitionId,
    StorageFailure,
};
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch};
use uuid::Uuid;

const PRODUCERS: u64 = 256;
const BATCH_BYTES: usize = 1024;
/// The raw writer goes round in a file of this size.
const RAW_FILE_BYTES: u64 = 64 << 20;

/// Says how many batches became durable.
struct Acks {
    end: AtomicI64,
    sender: Sender<u64>,
}

impl DurableListener for Acks {
    fn durable(&self, end_offset: i64) {
        let before = self.end.swap(end_offset, Ordering::AcqRel);
        // The receiver lives as long as the bench.
        let _ = self.sender.send(end_offset.abs_diff(before));
    }

    fn failed(&self, reason: &StorageFailure) {
        panic!("the journal failed: {reason}");
    }
}

struct Rig {
    temp: tempfile::TempDir,
    dir: LogDir,
    logs: Vec<Log>,
    acks: Receiver<u64>,
    batch: CheckedBatch,
    rng: SimRng,
    sent: u64,
}

fn bench_dir() -> PathBuf {
    std::env::var_os("PELTON_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

fn batch() -> CheckedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(&[7; BATCH_BYTES - 73]), &[]).expect("it fits");
    builder.build().expect("it fits")
}

impl Rig {
    fn new(partitions: i32) -> Rig {
        let mut rig = Rig::empty(partitions);
        // Until the ring has its size under this load.
        rig.produce(300_000);
        rig
    }

    /// One record in each partition.
    fn filled(partitions: i32) -> Rig {
        let mut rig = Rig::empty(partitions);
        let meta = AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1 };
        for log in &mut rig.logs {
            log.append(rig.batch.clone(), meta).expect("the disk has room");
        }
        rig.dir.flush().expect("the journal works");
        rig
    }

    fn empty(partitions: i32) -> Rig {
        let temp = tempfile::tempdir_in(bench_dir()).expect("a temporary directory");
        let (dir, _) =
            LogDir::open(temp.path(), LogDirConfig::default(), Arc::new(DiskStorage)).expect("it opens");
        let (sender, acks) = unbounded();
        let make = |partition| {
            let id = PartitionId { topic_id: Uuid::from_u128(1), topic: "bench".to_owned(), partition };
            let listener = Acks { end: AtomicI64::new(0), sender: sender.clone() };
            dir.create(id, LogConfig::default(), Arc::new(listener)).expect("it is created")
        };
        let logs = (0..partitions).map(make).collect();
        dir.flush().expect("the journal works");
        Rig { temp, dir, logs, acks, batch: batch(), rng: SimRng::new(1), sent: 0 }
    }

    /// Closed loop: `count` batches, at most [`PRODUCERS`] of them in flight.
    fn produce(&mut self, count: u64) -> Duration {
        let meta = AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1 };
        let start = Instant::now();
        let (mut sent, mut acked) = (0, 0);
        while acked < count {
            while sent < count && sent - acked < PRODUCERS {
                let n = self.rng.up_to(self.logs.len() - 1);
                black_box(self.logs[n].append(self.batch.clone(), meta).expect("the disk has room"));
                sent += 1;
            }
            acked += self.acks.recv().expect("the journal lives");
            acked += self.acks.try_iter().sum::<u64>();
        }
        self.sent += count;
        start.elapsed()
    }

    /// Bytes of an average group so far.
    fn group_bytes(&self) -> usize {
        let stats = self.dir.journal_stats();
        usize::try_from(stats.durable_lsn / stats.groups.max(1))
            .expect("small")
            .next_multiple_of(DIRECT_ALIGN)
    }
}

/// Writes `groups` groups, one after the other, to a file that was zeroed before.
fn raw(path: &Path, group_bytes: usize, groups: u64) -> Duration {
    let file = DiskStorage.open(path, OpenMode::DirectSync).expect("a file system with direct I/O");
    let memory = vec![7_u8; group_bytes + DIRECT_ALIGN];
    let from = memory.as_ptr().align_offset(DIRECT_ALIGN);
    let group = &memory[from..from + group_bytes];
    let per_lap = RAW_FILE_BYTES / group_bytes as u64;
    let start = Instant::now();
    for n in 0..groups {
        file.write_all_at(group, (n % per_lap) * group_bytes as u64).expect("it is written");
    }
    start.elapsed()
}

fn raw_file() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir_in(bench_dir()).expect("a temporary directory");
    let path = temp.path().join("raw");
    let file = DiskStorage.open(&path, OpenMode::Create).expect("it is created");
    let zeros = vec![0_u8; 1 << 20];
    for at in (0..RAW_FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&zeros, at).expect("it is written");
    }
    file.sync_data().expect("it is synced");
    (temp, path)
}

fn journal(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable_append_256x1KiB");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let (_temp, raw_path) = raw_file();
    for partitions in [1, 100, 1000] {
        let mut rig = Rig::new(partitions);
        let (before, sent, cpu) = (rig.dir.journal_stats(), rig.sent, cpu_time());
        group.bench_function(BenchmarkId::new("journal", partitions), |b| b.iter_custom(|n| rig.produce(n)));
        let after = rig.dir.journal_stats();
        let group_bytes = rig.group_bytes();
        let batches_per_group = group_bytes.div_ceil(BATCH_BYTES + 72) as u64;
        let cpu = (cpu_time() - cpu).as_nanos() / u128::from((rig.sent - sent).max(1));
        report(partitions, group_bytes, after.groups - before.groups, after.waits_for_room, cpu);
        drop(rig);
        group.bench_function(BenchmarkId::new("raw", partitions), |b| {
            b.iter_custom(|n| raw(&raw_path, group_bytes, n.div_ceil(batches_per_group)));
        });
    }
    group.finish();
}

#[expect(clippy::print_stderr, reason = "a bench speaks to whoever runs it")]
fn report(partitions: i32, group_bytes: usize, groups: u64, waits: u64, cpu: u128) {
    eprintln!(
        "{partitions} partitions: {groups} groups of {group_bytes} bytes on average, {waits} waits for the ring, {cpu} ns CPU per batch"
    );
}

/// User and system time of this process: unlike the clock, it hardly depends on what else the machine does.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, the second field, may hold anything but a closing parenthesis.
    let ticks: u64 = stat.rsplit(')').next().map_or(0, |rest| {
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    });
    Duration::from_millis(10 * ticks)
}

/// How long a start takes: of a directory that is made now, and of one with 5,000 partitions that hold a record each, stopped in order or
/// dropped.
fn open(c: &mut Criterion) {
    const PARTITIONS: i32 = 5000;
    let mut group = c.benchmark_group("open");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let open =
        |path: &Path| LogDir::open(path, LogDirConfig::default(), Arc::new(DiskStorage)).expect("it opens");
    group.bench_function("new", |b| {
        b.iter_custom(|n| {
            let one = |_| {
                let temp = tempfile::tempdir_in(bench_dir()).expect("a temporary directory");
                let start = Instant::now();
                let (dir, _) = open(temp.path());
                let took = start.elapsed();
                drop(dir);
                took
            };
            (0..n).map(one).sum()
        });
    });
    let rig = Rig::filled(PARTITIONS);
    let path = rig.temp.path();
    drop((rig.logs, rig.dir));
    for clean in [false, true] {
        let name = if clean { "5000 partitions, clean" } else { "5000 partitions, dropped" };
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                let one = |_| {
                    let start = Instant::now();
                    let (dir, recovered) = open(path);
                    let took = start.elapsed();
                    let listener: Arc<dyn DurableListener> = Arc::new(NoListener);
                    let logs =
                        recovered.into_iter().map(|r| r.into_log(LogConfig::default(), listener.clone()));
                    if clean {
                        for log in logs {
                            log.close().expect("it closes");
                        }
                        dir.close().expect("it closes");
                    }
                    took
                };
                // The first of a kind follows the other kind.
                one(0);
                (0..n).map(one).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, journal, open);
criterion_main!(benches);

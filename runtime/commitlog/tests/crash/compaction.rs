//! Compaction through power cuts, failing calls and restarts: whatever was removed, and whenever the power went, a consumer
//! from the beginning ends with the table that the appended records give, at the offset where the log ends.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pelton_commitlog::storage::sim::{Call, SimError, SimRng};
use pelton_commitlog::storage::{SimStorage, Storage};
use pelton_commitlog::{
    AppendError, AppendMeta, AppendOrigin, CleanError, CleanJob, CleanReport, Compaction, DurableListener,
    Log, LogConfig, LogDir, LogDirConfig, Pace, PartitionId, RecoveredPartition, Replacement, StorageFailure,
    Threads, clean,
};
use pelton_wire::record::{
    BatchBuilder, BatchOptions, CheckedBatch, Codec, EndTransactionMarker, end_transaction_batch,
};
use uuid::Uuid;

use crate::table::{Batch, Kind, Model, read_table};
use crate::{ROOT, seeds};

/// Operations of one run.
const STEPS: usize = 90;
const DELETE_RETENTION_MS: i64 = 100;

/// A directory with one compacted log, and what was done to it.
struct World {
    storage: Arc<dyn Storage>,
    rng: SimRng,
    clock: Arc<AtomicI64>,
    open: Option<(LogDir, Log, Arc<Ear>)>,
    model: Model,
    /// Next sequence of each producer, and whether it has a transaction open.
    producers: [(i32, bool); 2],
    /// Log end and log start that were surely durable.
    acknowledged: (i64, i64),
    /// What cleans have removed.
    removed: u64,
    merged: usize,
    /// A swap failed: nothing is cleaned before the next start.
    uncleanable: bool,
    /// It is read after each clean: no call is going to fail.
    looks: bool,
}

/// Nothing more can be done: the power went, or the storage failed.
type Step = ControlFlow<String>;

#[derive(Default)]
struct Ear {
    end: AtomicI64,
    start: AtomicI64,
}

impl DurableListener for Ear {
    fn durable(&self, end_offset: i64) {
        self.end.store(end_offset, Ordering::Release);
    }

    fn log_start_durable(&self, log_start: i64) {
        self.start.fetch_max(log_start, Ordering::AcqRel);
    }

    fn failed(&self, _reason: &StorageFailure) {}
}

/// Nobody waits.
struct NoPace;

impl Pace for NoPace {
    fn spend(&mut self, _bytes: u64) -> bool {
        true
    }
}

fn id() -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(9), topic: "compacted".to_owned(), partition: 0 }
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        retention_ms: None,
        tail_cache_bytes: 0,
        ..LogConfig::default()
    }
}

fn config(clock: &Arc<AtomicI64>) -> LogDirConfig {
    let clock = clock.clone();
    LogDirConfig {
        cluster_id: Some("cluster".to_owned()),
        directory_id: Uuid::from_u128(1),
        journal_first_file_bytes: 32 << 10,
        journal_max_bytes: 64 << 10,
        journal_group_max_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        log: log_config(),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        threads: Threads::ByHand,
        ..LogDirConfig::default()
    }
}

/// What a start finds, which must be what was appended up to where the log ends.
fn recover(storage: &Arc<dyn Storage>, world: &World, what: &str) -> (LogDir, RecoveredPartition) {
    let opened = LogDir::open(Path::new(ROOT), config(&world.clock), storage.clone());
    let (dir, mut recovered) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let partition = recovered.pop().unwrap_or_else(|| panic!("{what}: the partition is gone"));
    check(partition.log(), world, what);
    (dir, partition)
}

fn check(log: &Log, world: &World, what: &str) {
    let offsets = log.offsets();
    let (end, start) = world.acknowledged;
    assert!(offsets.log_end >= end, "{what}: the log ends at {}, {end} was durable", offsets.log_end);
    assert!(
        offsets.log_start >= start,
        "{what}: the log starts at {}, {start} was durable",
        offsets.log_start
    );
    let expected = world.model.table(offsets.log_start, offsets.log_end);
    assert_eq!(offsets.last_stable, expected.stable, "{what}: the last stable offset");
    assert_eq!(read_table(&log.reader(), what), expected.rows, "{what}: {offsets:?}");
}

impl World {
    /// `None`: the power went before there was a partition.
    fn start(storage: &SimStorage, seed: u64) -> Option<World> {
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        let clock = Arc::new(AtomicI64::new(1_000_000));
        let (dir, _) = LogDir::open(Path::new(ROOT), config(&clock), shared.clone()).ok()?;
        let ear = Arc::new(Ear::default());
        let log = dir.create(id(), log_config(), ear.clone()).ok()?;
        dir.flush().ok()?;
        Some(World {
            storage: shared,
            rng: SimRng::new(seed),
            clock,
            open: Some((dir, log, ear)),
            model: Model::default(),
            producers: [(0, false); 2],
            acknowledged: (0, 0),
            removed: 0,
            merged: 0,
            uncleanable: false,
            looks: false,
        })
    }

    fn adopt(&mut self, (dir, partition): (LogDir, RecoveredPartition)) {
        let offsets = partition.log().offsets();
        self.model.cut(offsets.log_end);
        self.producers = [1, 2].map(|id| self.model.producer(id));
        let ear = Ear { end: offsets.log_end.into(), start: offsets.log_start.into() };
        let ear = Arc::new(ear);
        let log = partition.into_log(log_config(), ear.clone());
        self.acknowledged = (offsets.log_end, offsets.log_start);
        self.uncleanable = false;
        self.open = Some((dir, log, ear));
    }

    /// Why it ended, if it did.
    fn steps(&mut self, count: usize) -> Option<String> {
        (0..count).find_map(|_| match self.step() {
            ControlFlow::Continue(()) => None,
            ControlFlow::Break(reason) => Some(reason),
        })
    }

    fn step(&mut self) -> Step {
        let waits = self.rng.up_to(30) as i64;
        self.clock.fetch_add(waits, Ordering::Relaxed);
        match self.rng.up_to(99) {
            0..40 => self.append(),
            40..58 => self.append_of_producer(),
            58..70 => self.sync(),
            70..82 => self.checkpoint(),
            82..94 => self.clean(),
            94..97 => self.delete_records(),
            _ => self.restart(),
        }
    }

    fn parts(&mut self) -> (&LogDir, &mut Log, &Arc<Ear>) {
        let (dir, log, ear) = self.open.as_mut().expect("it is open until it ends");
        (dir, log, ear)
    }

    fn records(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let count = 1 + self.rng.up_to(3);
        let record = |rng: &mut SimRng| {
            let key = format!("key-{}", rng.up_to(6)).into_bytes();
            let value = rng.chance(75).then(|| format!("{:x}", rng.bits()).repeat(1 + rng.up_to(2)));
            (key, value.map(String::into_bytes))
        };
        (0..count).map(|_| record(&mut self.rng)).collect()
    }

    fn append(&mut self) -> Step {
        let records = self.records();
        let codec = if self.rng.chance(30) { Codec::Lz4 } else { Codec::None };
        let options = BatchOptions { codec, ..BatchOptions::default() };
        let batch = batch(options, &records, self.clock.load(Ordering::Relaxed));
        self.push(batch, AppendOrigin::Client, Kind::Plain(records)).map_continue(drop)
    }

    fn append_of_producer(&mut self) -> Step {
        let number = self.rng.up_to(1);
        let producer_id = 1 + number as i64;
        let (sequence, is_open) = self.producers[number];
        let now_ms = self.clock.load(Ordering::Relaxed);
        if is_open && self.rng.chance(50) {
            let committed = self.rng.chance(50);
            let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
            let batch = end_transaction_batch(&marker, producer_id, 0, now_ms).expect("a marker");
            let kind = Kind::Marker { producer_id, committed };
            let pushed = self.push(batch, AppendOrigin::Coordinator, kind)?;
            self.producers[number].1 = !pushed && is_open;
            return Step::Continue(());
        }
        let records = self.records();
        let options = BatchOptions {
            producer_id,
            producer_epoch: 0,
            base_sequence: sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let batch = batch(options, &records, now_ms);
        let count = records.len() as i32;
        if self.push(batch, AppendOrigin::Client, Kind::InTransaction { producer_id, sequence, records })? {
            self.producers[number] = (sequence + count, true);
        }
        Step::Continue(())
    }

    /// True if it is in the log.
    fn push(&mut self, batch: CheckedBatch, origin: AppendOrigin, kind: Kind) -> ControlFlow<String, bool> {
        let meta = AppendMeta { leader_epoch: 0, origin, now_ms: self.clock.load(Ordering::Relaxed) };
        match self.parts().1.append(batch, meta) {
            Ok(appended) => {
                assert!(!appended.duplicate, "a new sequence is no duplicate");
                self.model.push(Batch { base: appended.base_offset, end: appended.last_offset + 1, kind });
                ControlFlow::Continue(true)
            }
            Err(AppendError::Full(_) | AppendError::Unavailable(_)) => ControlFlow::Continue(false),
            Err(error) => ControlFlow::Break(error.to_string()),
        }
    }

    fn sync(&mut self) -> Step {
        let (dir, log, ear) = self.parts();
        if let Err(failure) = dir.step() {
            return Step::Break(failure.to_string());
        }
        log.set_high_watermark(ear.end.load(Ordering::Acquire));
        log.housekeep(0);
        log.remove_files();
        let durable = (ear.end.load(Ordering::Acquire), ear.start.load(Ordering::Acquire));
        self.acknowledged = durable;
        Step::Continue(())
    }

    fn checkpoint(&mut self) -> Step {
        self.sync()?;
        match self.parts().0.checkpoint() {
            Err(failure) if !failure.is_passing() => Step::Break(failure.to_string()),
            _ => Step::Continue(()),
        }
    }

    fn delete_records(&mut self) -> Step {
        let ahead = self.rng.up_to(8) as i64;
        let (_, log, _) = self.parts();
        let offsets = log.offsets();
        match log.delete_records_before((offsets.log_start + ahead).min(offsets.high_watermark)) {
            Ok(_) => Step::Continue(()),
            Err(error) => Step::Break(error.to_string()),
        }
    }

    fn clean(&mut self) -> Step {
        if self.uncleanable {
            return Step::Continue(());
        }
        let compaction = Compaction { delete_retention_ms: DELETE_RETENTION_MS, ..Compaction::default() };
        let now_ms = self.clock.load(Ordering::Relaxed);
        let map_bytes = if self.rng.chance(20) { 150 } else { 1 << 20 };
        let (moves_start, ahead) = (self.rng.chance(10), self.rng.up_to(6) as i64);
        let (_, log, _) = self.parts();
        let reader = log.reader();
        let dirt = match reader.dirt(&compaction, now_ms) {
            Ok(dirt) if dirt.dirty_bytes > 0 => dirt,
            _ => return Step::Continue(()),
        };
        let mut swap = |replacement: Replacement| -> Result<(), CleanError> {
            let swap = log.begin_swap(replacement).map_err(Replacement::refused)?;
            let swapped = swap.run();
            if moves_start {
                // Retention does not wait.
                let offsets = log.offsets();
                let start = (offsets.log_start + ahead).min(offsets.high_watermark);
                drop(log.delete_records_before(start));
            }
            log.settle_swap(&swapped);
            swapped.finish()
        };
        match run_clean(&reader, &mut swap, &compaction, now_ms, map_bytes, &dirt) {
            Ok(report) => {
                self.removed += report.records_read - report.records_written;
                self.merged += report.segments_before - report.segments_after;
            }
            Err(CleanError::Final(failure)) => return Step::Break(failure.to_string()),
            Err(error) => {
                self.uncleanable = error.is_lasting() && !matches!(error, CleanError::MapTooSmall { .. })
            }
        }
        if self.looks {
            let log = &self.open.as_ref().expect("it is open").1;
            let (offsets, what) = (log.offsets(), format!("after a clean at {now_ms}"));
            let expected = self.model.table(offsets.log_start, offsets.high_watermark);
            assert_eq!(read_table(&log.reader(), &what), expected.rows, "{what}");
        }
        Step::Continue(())
    }

    fn restart(&mut self) -> Step {
        let (dir, log, _) = self.open.take().expect("it is open");
        let (end, start) = (log.offsets().log_end, log.offsets().log_start);
        if let Err(error) = log.close() {
            return Step::Break(error.to_string());
        }
        match dir.close() {
            Ok(()) | Err(pelton_commitlog::CloseError::NotClean(_)) => {}
            Err(error) => return Step::Break(error.to_string()),
        }
        drop(dir);
        self.acknowledged = (end, start);
        match LogDir::open(Path::new(ROOT), config(&self.clock), self.storage.clone()) {
            Ok((dir, mut recovered)) => {
                let partition = recovered.pop().expect("the partition is there");
                if self.looks {
                    check(partition.log(), self, "after a stop in order");
                }
                self.adopt((dir, partition));
                Step::Continue(())
            }
            Err(error) => Step::Break(error.to_string()),
        }
    }

    /// The machine stops here.
    fn stop(&mut self) {
        self.open = None;
    }
}

fn run_clean(
    reader: &pelton_commitlog::LogReader,
    swap: &mut dyn FnMut(Replacement) -> Result<(), CleanError>,
    compaction: &Compaction,
    now_ms: i64,
    map_bytes: usize,
    dirt: &pelton_commitlog::Dirt,
) -> Result<CleanReport, CleanError> {
    let job = CleanJob {
        compaction: *compaction,
        log: log_config(),
        // As if all had expired: the hardest for what is left.
        producers: Default::default(),
        now_ms,
        map_bytes,
        hash_key: [5; 16],
        pace: &mut NoPace,
    };
    clean(reader, dirt, job, swap)
}

fn batch(options: BatchOptions, records: &[(Vec<u8>, Option<Vec<u8>>)], now_ms: i64) -> CheckedBatch {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        builder.append(now_ms, Some(key), value.as_deref(), &[]).expect("it fits");
    }
    builder.build().expect("it fits")
}

fn run_on(storage: &SimStorage, seed: u64) -> Option<World> {
    let mut world = World::start(storage, seed)?;
    // Why it ended does not matter.
    drop(world.steps(STEPS));
    Some(world)
}

/// A run in which nothing fails.
fn whole_run(seed: u64) -> (SimStorage, World) {
    let storage = SimStorage::new();
    let mut world = World::start(&storage, seed).expect("nothing fails");
    world.looks = true;
    assert_eq!(world.steps(STEPS), None, "CRASH_SEED={seed}");
    (storage, world)
}

/// Crashes, and crashes again `cuts` times while the start recovers; then all must be there, and can be worked with.
fn recover_and_check(storage: &SimStorage, mut world: World, seed: u64, cuts: u64, what: &str) {
    world.stop();
    storage.crash(seed);
    for cut in 0..cuts {
        storage.cut_power_at_sync_point(storage.sync_points() + cut * 2);
        let opened = LogDir::open(Path::new(ROOT), config(&world.clock), Arc::new(storage.clone()));
        assert!(opened.is_ok() || storage.power_is_off(), "{what}: {}", opened.err().expect("failed"));
        drop(opened);
        storage.crash(seed + cut + 1);
    }
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let found = recover(&shared, &world, what);
    world.adopt(found);
    let ended = world.steps(25);
    assert_eq!(ended, None, "{what}: it cannot be worked with");
    world.stop();
    storage.crash(seed + 100);
    drop(recover(&shared, &world, &format!("{what}, and again")));
}

#[test]
fn a_power_cut_at_any_sync_point_of_compaction_leaves_the_same_table() {
    let (mut removed, mut merged) = (0, 0);
    for seed in seeds(8) {
        let (whole, world) = whole_run(seed);
        (removed, merged) = (removed + world.removed, merged + world.merged);
        for point in 0..whole.sync_points() {
            let what =
                format!("CRASH_SEED={seed}, power cut at sync point {point} of {}", whole.sync_points());
            let storage = SimStorage::new();
            storage.cut_power_at_sync_point(point);
            if let Some(world) = run_on(&storage, seed) {
                recover_and_check(&storage, world, seed ^ point, point % 3, &what);
            }
        }
    }
    assert!(removed > 100 && merged > 10, "only {removed} records and {merged} segments were removed");
}

#[test]
fn an_error_of_any_call_of_compaction_leaves_the_same_table() {
    let calls = [
        Call::Open,
        Call::OpenDir,
        Call::Read,
        Call::Write,
        Call::Sync,
        Call::SyncDir,
        Call::Rename,
        Call::Remove,
    ];
    let errors = [
        SimError::Kind(std::io::ErrorKind::Other),
        SimError::Kind(std::io::ErrorKind::StorageFull),
        SimError::Os(libc::EMFILE),
    ];
    for (seed, error) in seeds(2).into_iter().flat_map(|seed| errors.map(|error| (seed, error))) {
        let (whole, _) = whole_run(seed);
        for call in calls {
            let stride = (whole.calls(call) / 60).max(1) as usize;
            for n in (0..whole.calls(call)).step_by(stride) {
                let what = format!("CRASH_SEED={seed}, {error:?} at {call:?} number {n}");
                let storage = SimStorage::new();
                storage.fail_after(Some(call), "", n, error);
                if let Some(world) = run_on(&storage, seed) {
                    recover_and_check(&storage, world, seed ^ n, 0, &what);
                }
            }
        }
    }
}

/// A server that is killed leaves what it wrote in the page cache. The next start finishes a swap on that, and then the power
/// goes.
#[test]
fn a_kill_in_compaction_and_then_a_power_cut_leave_the_same_table() {
    for seed in seeds(6) {
        let mut points = 0;
        for calls in 1..40 {
            let storage = SimStorage::new();
            // A rename that fails is a process that is killed there: most of them are the cleaner's.
            storage.fail_after(Some(Call::Rename), "compacted-0", calls, std::io::ErrorKind::Other);
            let Some(mut world) = run_on(&storage, seed) else { continue };
            world.stop();
            let killed = storage.fork();
            let shared: Arc<dyn Storage> = Arc::new(killed.clone());
            drop(recover(&shared, &world, &format!("CRASH_SEED={seed}, killed at rename {calls}")));
            for point in 0..killed.sync_points() {
                let what =
                    format!("CRASH_SEED={seed}, killed at rename {calls}, power cut at sync point {point}");
                let storage = storage.fork();
                storage.cut_power_at_sync_point(point);
                let opened = LogDir::open(Path::new(ROOT), config(&world.clock), Arc::new(storage.clone()));
                assert!(
                    opened.is_ok() || storage.power_is_off(),
                    "{what}: {}",
                    opened.err().expect("failed")
                );
                drop(opened);
                storage.crash(seed ^ point);
                drop(recover(&(Arc::new(storage) as Arc<dyn Storage>), &world, &what));
                points += 1;
            }
        }
        assert!(points > 100, "CRASH_SEED={seed}: only {points} power cuts");
    }
}

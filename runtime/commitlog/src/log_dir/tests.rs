use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Condvar;
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch, DecompressLimit, batches};
use uuid::Uuid;

use super::*;
use crate::config::LogConfig;
use crate::error::{AppendError, CreateError};
use crate::log::{AppendMeta, Log};
use crate::producer_state::AppendOrigin;
use crate::storage::sim::{Call, SimError};
use crate::storage::{DiskStorage, File, OpenMode, SimStorage, Space, Storage};
use std::io;

mod descriptors;
mod removal;

pub(crate) const ROOT: &str = "/data";
const EMFILE: SimError = SimError::Os(libc::EMFILE);

/// A listener that remembers, and that can be waited for.
#[derive(Default)]
pub(crate) struct Ear {
    durable: AtomicI64,
    failed: AtomicUsize,
    changed: Condvar,
    lock: Mutex<()>,
}

impl DurableListener for Ear {
    fn durable(&self, end_offset: i64) {
        self.durable.store(end_offset, Ordering::Release);
        drop(self.lock.lock());
        self.changed.notify_all();
    }

    fn failed(&self, _reason: &StorageFailure) {
        self.failed.fetch_add(1, Ordering::AcqRel);
        drop(self.lock.lock());
        self.changed.notify_all();
    }
}

impl Ear {
    pub(crate) fn durable_end(&self) -> i64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn wait_for(&self, end_offset: i64) {
        let mut guard = self.lock.lock();
        while self.durable_end() < end_offset && self.failed.load(Ordering::Acquire) == 0 {
            self.changed.wait(&mut guard);
        }
        assert!(self.durable_end() >= end_offset, "the journal failed");
    }
}

pub(crate) fn id(topic: &str, partition: i32) -> PartitionId {
    let topic_id = topic.bytes().fold(1_u128, |id, byte| id * 257 + u128::from(byte));
    PartitionId { topic_id: Uuid::from_u128(topic_id), topic: topic.to_owned(), partition }
}

/// One batch of one record.
fn batch(value: &[u8]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(value), &[]).unwrap();
    builder.build().unwrap()
}

pub(crate) fn append(log: &mut Log, value: &[u8]) -> Result<i64, AppendError> {
    let meta = AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1 };
    log.append(batch(value), meta).map(|appended| appended.last_offset + 1)
}

/// The values of all records below the log end.
pub(crate) fn values(log: &Log) -> Vec<Vec<u8>> {
    let reader = log.reader();
    let end = reader.offsets().log_end;
    let mut values = Vec::new();
    let mut at = reader.offsets().log_start;
    while at < end {
        let range = reader.read(at, 1 << 20, end, true).unwrap();
        assert!(range.next_offset > at, "no progress at {at}");
        at = range.next_offset;
        let bytes = range.into_bytes().unwrap();
        for view in batches(&bytes) {
            let mut scratch = Vec::new();
            let records = view.unwrap().records(&mut scratch, DecompressLimit::default()).unwrap();
            values.extend(records.map(|record| record.unwrap().value.unwrap().to_vec()));
        }
    }
    values
}

pub(crate) fn by_hand() -> LogDirConfig {
    LogDirConfig {
        directory_id: Uuid::from_u128(1),
        cluster_id: Some("cluster".to_owned()),
        threads: Threads::ByHand,
        clock: Arc::new(|| 1),
        ..LogDirConfig::default()
    }
}

/// A journal so small that it wraps all the time.
pub(crate) fn small() -> LogDirConfig {
    LogDirConfig {
        journal_first_file_bytes: 64 << 10,
        journal_max_bytes: 128 << 10,
        journal_group_max_bytes: 16 << 10,
        ..by_hand()
    }
}

pub(crate) fn open(storage: &SimStorage, config: LogDirConfig) -> (LogDir, Vec<RecoveredPartition>) {
    LogDir::open(Path::new(ROOT), config, Arc::new(storage.clone())).unwrap()
}

pub(crate) fn open_error(storage: &SimStorage, config: LogDirConfig) -> OpenDirError {
    LogDir::open(Path::new(ROOT), config, Arc::new(storage.clone()))
        .err()
        .expect("the directory must be refused")
}

pub(crate) fn create(dir: &LogDir, id: PartitionId) -> (Log, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let log = dir.create(id, LogConfig::default(), ear.clone()).unwrap();
    (log, ear)
}

pub(crate) fn only(mut recovered: Vec<RecoveredPartition>) -> Log {
    assert_eq!(recovered.len(), 1);
    recovered.remove(0).into_log(LogConfig::default(), Arc::new(Ear::default()))
}

#[test]
fn what_was_acknowledged_survives_a_crash_and_a_clean_stop() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/data");
    let config = || LogDirConfig { journal_first_file_bytes: 2 << 20, ..LogDirConfig::default() };
    let reopen = || LogDir::open(&path, config(), Arc::new(DiskStorage)).unwrap();
    let (dir, recovered) = reopen();
    assert!(recovered.is_empty() && dir.recovery().created);
    let mut logs: Vec<_> = (0..3).map(|p| create(&dir, id("t", p))).collect();
    let mut expect = vec![Vec::new(); 3];
    for n in 0..300_usize {
        let value = format!("value {n}").into_bytes();
        append(&mut logs[n % 3].0, &value).unwrap();
        expect[n % 3].push(value);
    }
    logs.iter().for_each(|(_, ear)| ear.wait_for(100));
    drop(logs);
    drop(dir);

    let (dir, recovered) = reopen();
    assert!(!dir.recovery().clean && dir.recovery().frames >= 303);
    assert_eq!(recovered.len(), 3);
    for partition in &recovered {
        assert_eq!(values(partition.log()), expect[partition.id.partition as usize]);
    }
    for partition in recovered {
        let ear = Arc::new(Ear::default());
        let number = partition.id.partition as usize;
        let mut log = partition.into_log(LogConfig::default(), ear.clone());
        ear.wait_for(append(&mut log, b"more").map(|_| 0).unwrap());
        expect[number].push(b"more".to_vec());
        log.close().unwrap();
    }
    dir.close().unwrap();
    assert!(matches!(
        dir.create(id("u", 0), LogConfig::default(), Arc::new(Nobody)),
        Err(CreateError::Closed(_))
    ));
    drop(dir);

    let (dir, recovered) = reopen();
    assert!(dir.recovery().clean && dir.recovery().frames == 0);
    for partition in &recovered {
        assert_eq!(values(partition.log()), expect[partition.id.partition as usize]);
    }
    assert_eq!(dir.recovery().epoch, 3);
}

#[test]
fn a_directory_has_one_server_and_knows_whose_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let open = |config| LogDir::open(temp.path(), config, Arc::new(DiskStorage));
    let (dir, _) = open(by_hand()).unwrap();
    assert!(matches!(open(by_hand()), Err(OpenDirError::Locked(_))));
    assert_eq!(dir.meta().cluster_id, "cluster");
    drop(dir);
    let other = LogDirConfig { node_id: 7, ..by_hand() };
    assert!(matches!(open(other), Err(OpenDirError::WrongNode { found: 1, expected: 7 })));
    let meta = temp.path().join("meta.properties");
    let newer = std::fs::read_to_string(&meta).unwrap().replace("format.version=1", "format.version=9");
    std::fs::write(&meta, newer).unwrap();
    assert!(matches!(open(by_hand()), Err(OpenDirError::NewerFormat { found: 9, .. })));
    std::fs::remove_file(&meta).unwrap();
    std::fs::create_dir_all(temp.path().join("topics/t-0")).unwrap();
    assert!(matches!(open(by_hand()), Err(OpenDirError::NotOurs(_))));
}

#[test]
fn a_crash_while_a_directory_is_made_leaves_one_that_can_be_made() {
    for cut in 0.. {
        let storage = SimStorage::new();
        storage.cut_power_at_sync_point(cut);
        let made = LogDir::open(Path::new(ROOT), small(), Arc::new(storage.clone())).is_ok();
        storage.crash(cut);
        let (dir, recovered) = open(&storage, small());
        assert!(recovered.is_empty());
        assert!(!made || !dir.recovery().created, "cut {cut}: it was there");
        if made {
            return;
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_its_group_is_written() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, ear) = create(&dir, id("t", 0));
    append(&mut log, b"one").unwrap();
    assert_eq!(ear.durable_end(), 0);
    assert!(dir.step().unwrap());
    assert_eq!(ear.durable_end(), 1);
    append(&mut log, b"two").unwrap();
    drop((log, dir));
    assert_eq!(
        (ear.durable_end(), ear.failed.load(Ordering::Acquire)),
        (1, 1),
        "who waits hears that it ended"
    );
    storage.crash(7);
    assert_eq!(values(&only(open(&storage, small()).1)), [b"one"]);
}

#[test]
fn the_ring_is_used_again_and_again() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, ear) = create(&dir, id("t", 0));
    let mut expect = Vec::new();
    for n in 0..200_usize {
        let value = vec![n as u8; 10_000];
        append(&mut log, &value).unwrap();
        expect.push(value);
        if n % 3 == 0 {
            dir.step_by_hand().unwrap();
        }
    }
    dir.step_by_hand().unwrap();
    let stats = dir.journal_stats();
    assert_eq!(ear.durable_end(), 200);
    assert!(stats.durable_lsn > 10 * stats.ring_bytes && stats.ring_bytes == 128 << 10, "{stats:?}");
    drop((log, dir));
    storage.crash(3);
    assert!(values(&only(open(&storage, small()).1)) == expect);
}

#[test]
fn a_batch_larger_than_the_ring_is_split() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, ear) = create(&dir, id("t", 0));
    let big = vec![7; 500_000];
    append(&mut log, b"small").unwrap();
    append(&mut log, &big).unwrap();
    dir.step_by_hand().unwrap();
    assert_eq!(ear.durable_end(), 2);
    let before = storage.fork();
    append(&mut log, &big).unwrap();
    // Some parts of the second one.
    for _ in 0..5 {
        assert!(dir.step().unwrap());
    }
    assert_eq!(ear.durable_end(), 2);
    for storage in [before, storage.fork()] {
        storage.crash(1);
        let log = only(open(&storage, small()).1);
        assert!(values(&log) == [b"small".to_vec(), big.clone()]);
    }
}

#[test]
fn a_deleted_partition_stays_away_and_its_name_can_be_used_again() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut old, _) = create(&dir, id("t", 0));
    append(&mut old, b"old").unwrap();
    let exists = dir.create(id("t", 0), LogConfig::default(), Arc::new(Nobody));
    assert!(matches!(exists, Err(CreateError::Exists(_))));
    drop(old);
    dir.flush().unwrap();
    assert_eq!(dir.partitions().len(), 1);
    dir.delete(id("t", 0).topic_id, 0).unwrap();
    assert!(matches!(dir.delete(id("t", 0).topic_id, 0), Err(DeleteError::Unknown { .. })));
    let new_id = PartitionId { topic_id: Uuid::from_u128(99), ..id("t", 0) };
    let (mut new, _) = create(&dir, new_id.clone());
    append(&mut new, b"new").unwrap();
    dir.flush().unwrap();
    for seed in 0..20 {
        let storage = storage.fork();
        storage.crash(seed);
        let (dir, recovered) = open(&storage, small());
        assert_eq!(recovered[0].id, new_id);
        assert_eq!(values(&only(recovered)), [b"new"], "seed {seed}");
        dir.step_by_hand().unwrap();
        assert_eq!(storage.list(Path::new("/data/topics")).unwrap(), [Path::new("/data/topics/t-0")]);
    }
    let bad = PartitionId { topic: "a/b".to_owned(), ..id("t", 0) };
    assert!(matches!(dir.create(bad, LogConfig::default(), Arc::new(Nobody)), Err(CreateError::Name { .. })));
}

/// A directory of the failed creation was brought back by a power cut, under the name that another topic had by then: the start refused it.
#[test]
fn a_creation_that_failed_does_not_come_back() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    storage.fail_after(Some(Call::Open), ".log", 0, std::io::ErrorKind::StorageFull);
    let failed = dir.create(id("t", 0), LogConfig::default(), Arc::new(Nobody));
    assert!(matches!(failed, Err(CreateError::Full(_))));
    let second = PartitionId { topic_id: Uuid::from_u128(99), ..id("t", 0) };
    create(&dir, second.clone());
    dir.flush().unwrap();
    for seed in 0..40 {
        let storage = storage.fork();
        storage.crash(seed);
        assert_eq!(open(&storage, small()).1[0].id, second, "seed {seed}");
    }
    // What could not be removed now is removed by the next creation of that name.
    for call in [Call::Remove, Call::OpenDir] {
        storage.fail_after(Some(Call::Open), ".log", 0, EMFILE);
        storage.fail_after(Some(call), "topics", 0, EMFILE);
        let failed = dir.create(id("w", 0), LogConfig::default(), Arc::new(Nobody));
        assert!(matches!(failed, Err(CreateError::Storage(_))));
        let third = PartitionId { topic_id: Uuid::from_u128(100), ..id("w", 0) };
        create(&dir, third.clone());
        dir.flush().unwrap();
        dir.delete(third.topic_id, 0).unwrap();
    }
    // When it is not certain that the removal stays, the name is not given away.
    storage.fail_after(Some(Call::Open), ".log", 0, std::io::ErrorKind::StorageFull);
    storage.fail_after(Some(Call::SyncDir), "topics", 0, std::io::ErrorKind::Other);
    let failed = dir.create(id("u", 0), LogConfig::default(), Arc::new(Nobody));
    assert!(matches!(failed, Err(CreateError::Full(_))));
    let again = dir.create(id("u", 0), LogConfig::default(), Arc::new(Nobody));
    assert!(matches!(again, Err(CreateError::Exists(_))));
}

#[test]
fn directories_that_nobody_knows_are_set_aside_and_missing_ones_refused() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, _) = create(&dir, id("t", 0));
    append(&mut log, b"x").unwrap();
    dir.step_by_hand().unwrap();
    log.close().unwrap();
    dir.close().unwrap();
    drop(dir);
    let topics = Path::new("/data/topics");
    let nil = Uuid::nil().simple().to_string();
    let taken = format!("full-3.{nil}-stray");
    for (name, bytes) in [("empty-0", &b""[..]), ("full-3", b"records"), (&taken, b"")] {
        let dir = topics.join(name);
        storage.create_dir_all(&dir).unwrap();
        let path = crate::names::file_path(&dir, 0, crate::names::FileKind::Log);
        storage.open(&path, crate::storage::OpenMode::Create).unwrap().write_all_at(bytes, 0).unwrap();
    }
    let (dir, recovered) = open(&storage, small());
    assert_eq!(recovered.len(), 1);
    dir.step_by_hand().unwrap();
    let names: Vec<_> = storage.list(topics).unwrap();
    assert_eq!(names, [topics.join(taken), topics.join(format!("full-3.{nil}.1-stray")), topics.join("t-0")]);
    drop((recovered, dir));
    storage.rename(&topics.join("t-0"), &topics.join("elsewhere")).unwrap();
    assert!(
        matches!(open_error(&storage, small()), OpenDirError::PartitionMissing(path) if path.ends_with("t-0"))
    );
}

/// Calls of the hook.
fn counting(config: LogDirConfig) -> (LogDirConfig, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let hook = calls.clone();
    let on_failure = Arc::new(move |_: &StorageFailure| {
        hook.fetch_add(1, Ordering::AcqRel);
    });
    (LogDirConfig { on_failure, ..config }, calls)
}

#[test]
fn a_failed_journal_write_is_final() {
    for refuse_direct in [false, true] {
        let storage = SimStorage::new();
        let call = if refuse_direct { Call::Sync } else { Call::WriteSync };
        if refuse_direct {
            storage.refuse_direct_io();
        }
        let (config, hook_calls) = counting(small());
        let (dir, _) = open(&storage, config);
        let (mut log, ear) = create(&dir, id("t", 0));
        append(&mut log, b"one").unwrap();
        dir.step_by_hand().unwrap();
        append(&mut log, b"two").unwrap();
        storage.fail_after(Some(call), "journal-", 0, std::io::ErrorKind::Other);
        assert!(dir.step().is_err());
        assert_eq!((ear.durable_end(), ear.failed.load(Ordering::Acquire)), (1, 1));
        assert_eq!(hook_calls.load(Ordering::Acquire), 1);
        // The disk is well again, but what happened to the group is unknown.
        assert!(matches!(append(&mut log, b"three"), Err(AppendError::Closed(_))));
        assert!(dir.flush().is_err() && dir.close().is_err() && dir.checkpoint().is_err());
        assert!(dir.failure().unwrap().to_string().contains("journal-1"));
        assert_eq!((ear.durable_end(), hook_calls.load(Ordering::Acquire)), (1, 1));
        drop((log, dir));
        storage.crash(5);
        let found = values(&only(open(&storage, small()).1));
        assert!(found.starts_with(&[b"one".to_vec()]) && found.len() <= 2);
    }
}

#[test]
fn a_failed_checkpoint_is_final_and_the_journal_brings_the_bytes_back() {
    let storage = SimStorage::new();
    let (config, hook_calls) = counting(small());
    let (dir, _) = open(&storage, config);
    let (mut log, ear) = create(&dir, id("t", 0));
    for n in 0..10_u8 {
        append(&mut log, &[n; 1000]).unwrap();
    }
    dir.step_by_hand().unwrap();
    storage.fail_after(Some(Call::Sync), ".log", 0, std::io::ErrorKind::Other);
    let text = dir.checkpoint().unwrap_err().to_string();
    assert!(text.starts_with("sync `t-0/00000000000000000000.log`"), "{text}");
    assert_eq!(hook_calls.load(Ordering::Acquire), 1);
    assert!(append(&mut log, b"more").is_err());
    assert_eq!(ear.durable_end(), 10);
    drop((log, dir));
    // The pages are marked clean and lost by the crash: only the journal has them.
    storage.crash(11);
    let found = values(&only(open(&storage, small()).1));
    assert_eq!(found, (0..10_u8).map(|n| vec![n; 1000]).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_not_final() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, ear) = create(&dir, id("t", 0));
    append(&mut log, b"one").unwrap();
    dir.step_by_hand().unwrap();
    storage.set_capacity(Some(0));
    assert!(matches!(append(&mut log, &[2; 30_000]), Err(AppendError::Full(_))));
    assert!(matches!(
        dir.create(id("u", 0), LogConfig::default(), Arc::new(Nobody)),
        Err(CreateError::Full(_))
    ));
    // The journal and the checkpoint have their room already.
    dir.checkpoint().unwrap();
    assert!(dir.failure().is_none());
    dir.step().unwrap();
    assert!(dir.space().is_low());
    storage.set_capacity(None);
    append(&mut log, b"three").unwrap();
    dir.step_by_hand().unwrap();
    dir.checkpoint().unwrap();
    assert!(!dir.space().is_low());
    assert_eq!(ear.durable_end(), 2);
    create(&dir, id("u", 0));
    dir.flush().unwrap();
    drop((log, dir));
    storage.crash(2);
    let (_, recovered) = open(&storage, small());
    let log = recovered.iter().find(|p| p.id == id("t", 0)).unwrap().log();
    assert_eq!(values(log), [b"one".to_vec(), b"three".to_vec()]);
}

#[test]
fn a_smaller_maximum_takes_files_away() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, _) = create(&dir, id("t", 0));
    for _ in 0..20 {
        append(&mut log, &[1; 9000]).unwrap();
        dir.step_by_hand().unwrap();
    }
    assert_eq!(dir.journal_stats().ring_bytes, 128 << 10);
    drop((log, dir));
    let less = || LogDirConfig { journal_max_bytes: 64 << 10, ..small() };
    for _ in 0..2 {
        let (dir, recovered) = open(&storage, less());
        assert_eq!(dir.journal_stats().ring_bytes, 64 << 10);
        assert_eq!(values(recovered[0].log()).len(), 20);
    }
}

#[test]
fn barriers_come_after_what_was_submitted_before() {
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, small());
    let (mut log, ear) = create(&dir, id("t", 0));
    append(&mut log, &[0; 10_000]).unwrap();
    let seen = Arc::new(AtomicI64::new(-1));
    let (note, heard) = (seen.clone(), ear.clone());
    dir.barrier(move |result| {
        result.unwrap();
        note.store(heard.durable_end(), Ordering::Release);
    });
    append(&mut log, &[0; 10_000]).unwrap();
    assert_eq!(seen.load(Ordering::Acquire), -1);
    dir.step().unwrap();
    assert_eq!(seen.load(Ordering::Acquire), 1);
    dir.flush().unwrap();
    assert_eq!(ear.durable_end(), 2);
}

/// What a checkpoint covers is not looked for in the batches again, so that the index must be there, and its name. The power
/// goes once, and again while what the journal has is put back.
#[test]
fn aborted_transactions_are_known_after_crashes_and_crashes_in_recovery() {
    let config = || LogConfig { segment_bytes: 1_000, ..LogConfig::default() };
    for seed in 0..100 {
        let storage = SimStorage::new();
        let (dir, _) = open(&storage, by_hand());
        let mut log = dir.create(id("t", 0), config(), Arc::new(Ear::default())).unwrap();
        // With it the directory is made durable for the last time but for what is under test.
        append(&mut log, b"first").unwrap();
        while dir.step().unwrap() {}
        dir.checkpoint().unwrap();
        let options = crate::testkit::of(9, 0, 0, true);
        log.append(crate::testkit::producer_batch(options, 1, 100, 1), crate::testkit::at(1)).unwrap();
        crate::testkit::append_marker(&mut log, 9, false).unwrap();
        while dir.step().unwrap() {}
        dir.checkpoint().unwrap();
        // It begins a segment.
        append(&mut log, &[0; 900]).unwrap();
        while dir.step().unwrap() {}
        storage.cut_power();
        drop((log, dir));
        storage.crash(seed);
        for cut in 0..10 {
            let storage = storage.fork();
            storage.cut_power_at_sync_point(storage.sync_points() + cut);
            drop(LogDir::open(Path::new(ROOT), by_hand(), Arc::new(storage.clone())));
            storage.cut_power();
            storage.crash(seed ^ cut);
            let (_dir, recovered) = open(&storage, by_hand());
            let log = only(recovered);
            let aborted = log.reader().aborted_transactions(0, log.offsets().log_end).unwrap();
            let found: Vec<_> = aborted.iter().map(|txn| (txn.first_offset, txn.last_offset)).collect();
            assert_eq!(found, [(1, 2)], "seed {seed}, cut {cut}");
        }
    }
}

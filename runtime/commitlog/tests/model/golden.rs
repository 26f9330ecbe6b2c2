//! The bytes of one small partition, file by file. `UPDATE_GOLDEN=1` writes them anew: only with a change of
//! FORMAT.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_commitlog::sink::testing::{InstantSink, NoListener};
use pelton_commitlog::storage::{DiskStorage, SimStorage, Storage};
use pelton_commitlog::{
    AppendMeta, AppendOrigin, FileCache, Log, LogConfig, LogContext, PartitionId, RecoverMode, TailBudget,
};
use pelton_wire::record::{BatchBuilder, BatchOptions, EndTransactionMarker, end_transaction_batch};
use uuid::Uuid;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/partition")
}

fn id() -> PartitionId {
    let topic_id = Uuid::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    PartitionId { topic_id, topic: "golden".to_owned(), partition: 3 }
}

fn context(storage: Arc<dyn Storage>) -> LogContext {
    LogContext {
        storage,
        sink: Arc::new(InstantSink::default()),
        files: Arc::new(FileCache::new(8)),
        tails: TailBudget::new(0),
    }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 200, ..LogConfig::default() }
}

/// Two leader epochs, an idempotent and two transactional producers, one aborted and one open transaction,
/// three segments.
fn write(log: &mut Log) {
    let mut now_ms = 1_700_000_000_000;
    let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
    let mut append = |log: &mut Log, producer_id: i64, transactional: bool, leader_epoch: i32| {
        now_ms += 1000;
        let base_sequence = sequences.get(&producer_id).copied().unwrap_or(0);
        let mut options = BatchOptions { transactional, ..BatchOptions::default() };
        if producer_id >= 0 {
            (options.producer_id, options.producer_epoch, options.base_sequence) =
                (producer_id, 2, base_sequence);
        }
        let mut builder = BatchBuilder::new(options);
        for n in 0..3 {
            let key = format!("key-{n}");
            builder.append(now_ms + n, Some(key.as_bytes()), Some(&[b'v'; 40]), &[]).unwrap();
        }
        sequences.insert(producer_id, base_sequence + 3);
        let meta = AppendMeta { leader_epoch, origin: AppendOrigin::Client, now_ms };
        log.append(builder.build().unwrap(), meta).unwrap();
    };
    for n in 0..20 {
        let leader_epoch = if n < 9 { 0 } else { 4 };
        append(log, [-1, 1000, -1, 2000][n % 4], n % 4 == 3, leader_epoch);
        if n == 12 {
            let marker = EndTransactionMarker { committed: false, coordinator_epoch: 7 };
            let batch = end_transaction_batch(&marker, 2000, 2, 1_700_000_013_500).unwrap();
            let meta =
                AppendMeta { leader_epoch, origin: AppendOrigin::Coordinator, now_ms: 1_700_000_013_500 };
            log.append(batch, meta).unwrap();
        }
    }
}

#[test]
fn a_partition_has_these_bytes() {
    let disk = SimStorage::new();
    let dir = Path::new("/topics/golden-3");
    let context = context(Arc::new(disk.clone()));
    let mut log =
        Log::create(&context, dir, id(), config(), Arc::new(NoListener), 1_700_000_000_000).unwrap();
    write(&mut log);
    log.close().unwrap();
    let files: BTreeMap<String, Vec<u8>> = disk
        .list(dir)
        .unwrap()
        .iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), disk.content(path).unwrap()))
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::remove_dir_all(golden_dir()).ok();
        std::fs::create_dir_all(golden_dir()).unwrap();
        for (name, bytes) in &files {
            std::fs::write(golden_dir().join(name), bytes).unwrap();
        }
    }
    let golden: BTreeMap<String, Vec<u8>> = std::fs::read_dir(golden_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    assert_eq!(files.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert!(bytes == &golden[name], "{name} has other bytes");
    }
}

#[test]
fn the_golden_partition_opens_with_and_without_a_clean_stop() {
    let copy = tempfile::tempdir().unwrap();
    let dir = copy.path().join("golden-3");
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let mut ends = Vec::new();
    for mode in [None, Some(())] {
        let mode = match mode {
            None => RecoverMode::Unclean(None),
            Some(()) => RecoverMode::Clean(ends[0]),
        };
        let context = context(Arc::new(DiskStorage));
        let listener = Arc::new(NoListener);
        let now_ms = 1_700_000_100_000;
        let (log, report) = Log::open(&context, &dir, id(), config(), listener, mode, 0, now_ms).unwrap();
        assert_eq!(report.cut_bytes, 0);
        let offsets = log.offsets();
        assert_eq!((offsets.log_start, offsets.log_end, offsets.last_stable), (0, 61, 46));
        let aborted = log.reader().aborted_transactions(0, 61).unwrap();
        assert_eq!(aborted.len(), 1);
        assert_eq!((aborted[0].first_offset, aborted[0].last_offset), (9, 39));
        assert_eq!(log.producers().get(1000).unwrap().batches.back().unwrap().last_sequence, 14);
        assert_eq!(log.reader().end_offset_for_epoch(0).unwrap().end_offset, 27);
        assert_eq!(log.reader().offset_for_timestamp(1_700_000_010_002, 61).unwrap().unwrap().offset, 29);
        ends.push(log.close().unwrap());
    }
    assert_eq!(ends[0], ends[1]);
}

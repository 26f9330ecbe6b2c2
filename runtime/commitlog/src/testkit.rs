//! What the tests of this crate share: a log on a simulated disk and batches for it.

use std::path::Path;
use std::sync::Arc;

use pelton_wire::record::{
    BatchBuilder, BatchOptions, CheckedBatch, EndTransactionMarker, batches, end_transaction_batch,
};
use uuid::Uuid;

use crate::sink::testing::{InstantSink, NoListener};
use crate::storage::{SimStorage, Storage};
use crate::{
    AppendError, AppendMeta, AppendOrigin, Appended, FileCache, Log, LogConfig, LogContext, LogEnd,
    LogReader, OpenError, PartitionId, RecoverMode, RecoveryReport, TailBudget,
};

/// The partition's directory.
pub(crate) const DIR: &str = "/topics/t-0";

/// A disk, a journal that is durable at once, and what a log needs besides.
pub(crate) struct Rig {
    pub(crate) disk: SimStorage,
    pub(crate) sink: Arc<InstantSink>,
    pub(crate) context: LogContext,
    pub(crate) config: LogConfig,
}

pub(crate) fn id() -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(5), topic: "t".to_owned(), partition: 0 }
}

impl Rig {
    /// Without a tail cache, so that reads go to files.
    pub(crate) fn new(config: LogConfig) -> Rig {
        Rig::on(SimStorage::new(), config)
    }

    pub(crate) fn on(disk: SimStorage, config: LogConfig) -> Rig {
        let sink = Arc::new(InstantSink::recording());
        let context = LogContext {
            storage: Arc::new(disk.clone()),
            sink: sink.clone(),
            files: Arc::new(FileCache::new(8)),
            tails: TailBudget::new(0),
        };
        Rig { disk, sink, context, config }
    }

    pub(crate) fn create(&self) -> Log {
        Log::create(&self.context, Path::new(DIR), id(), self.config.clone(), Arc::new(NoListener), 0)
            .unwrap()
    }

    pub(crate) fn open(&self, mode: RecoverMode) -> Result<(Log, RecoveryReport), OpenError> {
        self.open_from(mode, 0)
    }

    pub(crate) fn open_from(
        &self,
        mode: RecoverMode,
        log_start: i64,
    ) -> Result<(Log, RecoveryReport), OpenError> {
        let listener = Arc::new(NoListener);
        Log::open(&self.context, Path::new(DIR), id(), self.config.clone(), listener, mode, log_start, 0)
    }

    pub(crate) fn reopen(&self, log: Log) -> Log {
        let end: LogEnd = log.close().unwrap();
        self.open(RecoverMode::Clean(end)).unwrap().0
    }

    /// Names of the files of the partition.
    pub(crate) fn files(&self) -> Vec<String> {
        let paths = self.disk.list(Path::new(DIR)).unwrap();
        paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        self.disk.content(&Path::new(DIR).join(name)).unwrap()
    }
}

/// Small segments, an index entry for nearly every batch.
pub(crate) fn small() -> LogConfig {
    LogConfig { segment_bytes: 1_000, index_interval_bytes: 100, ..LogConfig::default() }
}

pub(crate) fn at(now_ms: i64) -> AppendMeta {
    AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms }
}

/// `count` records of this timestamp, about `bytes` bytes in all.
pub(crate) fn batch(count: usize, bytes: usize, timestamp: i64) -> CheckedBatch {
    producer_batch(BatchOptions::default(), count, bytes, timestamp)
}

pub(crate) fn producer_batch(
    options: BatchOptions,
    count: usize,
    bytes: usize,
    timestamp: i64,
) -> CheckedBatch {
    let mut builder = BatchBuilder::new(options);
    let value = vec![b'v'; bytes / count];
    for _ in 0..count {
        builder.append(timestamp, None, Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// A batch of an idempotent producer.
pub(crate) fn of(
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
) -> BatchOptions {
    BatchOptions { producer_id, producer_epoch, base_sequence, transactional, ..BatchOptions::default() }
}

pub(crate) fn append_marker(
    log: &mut Log,
    producer_id: i64,
    committed: bool,
) -> Result<Appended, AppendError> {
    let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
    let batch = end_transaction_batch(&marker, producer_id, 0, 1000).unwrap();
    log.append(batch, AppendMeta { origin: AppendOrigin::Coordinator, ..at(1000) })
}

/// Base offsets of all batches from the log start to the log end.
pub(crate) fn read_all(reader: &LogReader) -> Vec<i64> {
    let offsets = reader.offsets();
    let (mut cursor, mut bases) = (offsets.log_start, Vec::new());
    while cursor < offsets.log_end {
        let range = reader.read(cursor, 400, offsets.log_end, true).unwrap();
        assert!(range.next_offset > cursor, "no progress at {cursor}");
        cursor = range.next_offset;
        let bytes = range.into_bytes().unwrap();
        bases.extend(batches(&bytes).map(|b| b.unwrap().header().base_offset));
    }
    bases
}

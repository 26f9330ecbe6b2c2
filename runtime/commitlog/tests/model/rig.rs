//! A log on a simulated disk, and the ways to stop and start it.

use std::path::PathBuf;
use std::sync::Arc;

use pelton_commitlog::sink::testing::NoListener;
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::storage::{OpenMode, SimStorage, Storage};
use pelton_commitlog::{
    FileCache, Log, LogConfig, LogContext, LogEnd, PartitionId, PartitionRecovery, RecoverMode, SyncLater,
    TailBudget,
};
use uuid::Uuid;

use crate::sink::{LagSink, apply, sync_dirs};

pub(crate) struct Rig {
    pub(crate) disk: SimStorage,
    pub(crate) sink: Arc<LagSink>,
    pub(crate) context: LogContext,
    pub(crate) config: LogConfig,
    pub(crate) dir: PathBuf,
    pub(crate) id: PartitionId,
    /// As the last checkpoint knew them.
    pub(crate) end: LogEnd,
    pub(crate) log_start: i64,
}

impl Rig {
    pub(crate) fn new(rng: &mut SimRng) -> (Rig, Log) {
        let disk = SimStorage::new();
        let config = LogConfig {
            segment_bytes: rng.range(8_000, 120_000),
            segment_index_bytes: rng.range(200, 4000),
            index_interval_bytes: rng.range(100, 8000),
            retention_ms: None,
            tail_cache_bytes: [0, 10_000, 1 << 20][rng.up_to(2)],
            ..LogConfig::default()
        };
        let dir = PathBuf::from("/data/topics/t-0");
        let id = PartitionId { topic_id: Uuid::from_u128(7), topic: "t".to_owned(), partition: 0 };
        disk.create_dir_all(dir.parent().unwrap()).unwrap();
        let sink = Arc::new(LagSink::default());
        let context = context(&disk, &sink, rng);
        let log = Log::create(&context, &dir, id.clone(), config.clone(), Arc::new(NoListener), 0).unwrap();
        sync_dirs(&disk, &dir);
        let mut rig = Rig { disk, sink, context, config, dir, id, end: LogEnd::EMPTY, log_start: 0 };
        rig.checkpoint();
        (rig, log)
    }

    pub(crate) fn checkpoint(&mut self) {
        (self.end, self.log_start) = self.sink.checkpoint(&self.disk, self.end, self.log_start);
    }

    /// Closes the log, makes a checkpoint, and opens it again.
    pub(crate) fn reopen_cleanly(&mut self, log: Log, rng: &mut SimRng, now_ms: i64) -> Log {
        self.sink.settle(0);
        let end = log.close().unwrap();
        self.checkpoint();
        assert_eq!(self.end.offset, end.offset, "frames and log agree on the end");
        // They may name different places: the log may have begun a segment that is empty yet.
        if rng.chance(50) {
            self.end = end;
        }
        if rng.chance(50) {
            self.disk.crash(rng.bits());
        }
        self.open(RecoverMode::Clean(self.end), &[], rng, now_ms)
    }

    /// Cuts the power, and replays what the journal has. Returns where the durable log ends.
    pub(crate) fn crash(&mut self, log: Log, rng: &mut SimRng, now_ms: i64) -> Log {
        drop(log);
        let frames = self.sink.durable_frames();
        let mode = RecoverMode::Unclean(Some(self.end));
        self.disk.crash(rng.bits());
        // A start may be interrupted by another crash, as often as it likes.
        while rng.chance(30) {
            let disk = self.disk.fork();
            let mut recovery = self.recovery(&disk, mode);
            let count = if rng.chance(50) { frames.len() } else { rng.up_to(frames.len()) };
            for (meta, payload) in &frames[..count] {
                recovery.replay(meta, false, payload).unwrap();
            }
            if count == frames.len() {
                let context = context(&disk, &Arc::default(), rng);
                drop(recovery.finish(&context, Arc::new(NoListener), now_ms).unwrap());
            }
            disk.crash(rng.bits());
            self.disk = disk;
        }
        self.open(mode, &frames, rng, now_ms)
    }

    fn recovery(&self, disk: &SimStorage, mode: RecoverMode) -> PartitionRecovery {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        PartitionRecovery::start(
            storage,
            &self.dir,
            self.id.clone(),
            self.config.clone(),
            mode,
            self.log_start,
        )
        .unwrap()
    }

    fn open(
        &mut self,
        mode: RecoverMode,
        frames: &[(pelton_commitlog::FrameMeta, bytes::Bytes)],
        rng: &mut SimRng,
        now_ms: i64,
    ) -> Log {
        self.sink = Arc::new(LagSink::default());
        self.context = context(&self.disk, &self.sink, rng);
        let mut recovery = self.recovery(&self.disk, mode);
        for (meta, payload) in frames {
            apply(meta, payload.len(), &mut self.end, &mut self.log_start);
            if payload.len() > 2 && rng.chance(20) {
                // As the journal does with batches that do not fit into one group.
                let (a, b) = (payload.slice(..payload.len() / 2), payload.slice(payload.len() / 2..));
                let second =
                    pelton_commitlog::FrameMeta { position: meta.position + a.len() as u64, ..*meta };
                recovery.replay(meta, true, &a).unwrap();
                recovery.replay(&second, false, &b).unwrap();
            } else {
                recovery.replay(meta, false, payload).unwrap();
            }
        }
        let (log, report) = recovery.finish(&self.context, Arc::new(NoListener), now_ms).unwrap();
        let end = report.end.unwrap();
        assert_eq!(end.offset, self.end.offset);
        self.end = end;
        assert_eq!(report.log_start, self.log_start);
        for item in report.dirty {
            match item {
                SyncLater::File(file) => file.sync_data().unwrap(),
                SyncLater::Named(path) => {
                    self.disk.open(&path, OpenMode::Write).unwrap().sync_data().unwrap()
                }
                SyncLater::Dir(dir) => self.disk.sync_dir(&dir).unwrap(),
            }
        }
        log
    }
}

fn context(disk: &SimStorage, sink: &Arc<LagSink>, rng: &mut SimRng) -> LogContext {
    LogContext {
        storage: Arc::new(disk.clone()),
        sink: sink.clone(),
        files: Arc::new(FileCache::new(1 + rng.up_to(4))),
        tails: TailBudget::new([0, 30_000, 1 << 20][rng.up_to(2)]),
    }
}

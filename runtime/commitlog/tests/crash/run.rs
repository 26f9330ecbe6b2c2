//! A random run over a directory. Everything follows from the seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pelton_commitlog::storage::Storage;
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::{
    AppendError, AppendMeta, AppendOrigin, ChangeError, CreateError, DurableListener, Log, LogConfig, LogDir,
    LogDirConfig, PartitionId, ReadError, RecoveredPartition, StorageFailure, Threads,
};
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch};
use uuid::Uuid;

use crate::history::{History, Op};

/// Partitions at a time.
const PARTITIONS_MAX: usize = 4;

/// A journal so small that it wraps all the time.
pub(crate) fn config(threads: Threads) -> LogDirConfig {
    LogDirConfig {
        cluster_id: Some("cluster".to_owned()),
        directory_id: Uuid::from_u128(1),
        journal_first_file_bytes: 32 << 10,
        journal_max_bytes: 128 << 10,
        journal_group_max_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        log: log_config(),
        clock: Arc::new(|| 1_000_000),
        threads,
        ..LogDirConfig::default()
    }
}

/// Segments so small that they roll all the time.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 6_000,
        retention_bytes: Some(20_000),
        index_interval_bytes: 512,
        ..LogConfig::default()
    }
}

pub(crate) fn open(
    path: &Path,
    storage: &Arc<dyn Storage>,
    threads: Threads,
    what: &str,
) -> (LogDir, Vec<RecoveredPartition>) {
    LogDir::open(path, config(threads), storage.clone()).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Remembers what was acknowledged to it.
#[derive(Default)]
struct Ear(AtomicI64);

impl DurableListener for Ear {
    fn durable(&self, end_offset: i64) {
        self.0.store(end_offset, Ordering::Release);
    }

    fn failed(&self, _reason: &StorageFailure) {}
}

pub(crate) struct Run {
    path: PathBuf,
    storage: Arc<dyn Storage>,
    threads: Threads,
    rng: SimRng,
    dir: Option<LogDir>,
    logs: BTreeMap<PartitionId, (Log, Arc<Ear>)>,
    history: History,
    ids: u128,
    /// Why the run ended before its time.
    failure: Option<String>,
    full_errors: usize,
    /// What is being done, for who asks why the run ended.
    doing: Doing,
}

/// What a run was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Start,
    Truncation,
    Other,
}

/// What became of an operation.
enum Done {
    Yes,
    /// Surely not, and the next one may work.
    Refused,
    /// Nobody knows, and nothing works any more.
    Failed(String),
}

impl Run {
    pub(crate) fn new(path: &Path, storage: Arc<dyn Storage>, seed: u64, threads: Threads) -> Run {
        let mut run = Run::empty(path, storage.clone(), seed, threads, History::default());
        match LogDir::open(path, config(threads), storage) {
            Ok((dir, _)) => run.dir = Some(dir),
            Err(error) => run.failure = Some(error.to_string()),
        }
        run
    }

    /// Goes on with what a start found.
    pub(crate) fn resume(
        path: &Path,
        storage: Arc<dyn Storage>,
        seed: u64,
        threads: Threads,
        (dir, recovered): (LogDir, Vec<RecoveredPartition>),
        mut history: History,
    ) -> Run {
        history.cut(crate::history::check(&history, &recovered, "before going on"));
        let mut run = Run::empty(path, storage, seed, threads, history);
        run.adopt(recovered);
        run.dir = Some(dir);
        run.ids = 1 << 64;
        run
    }

    fn empty(path: &Path, storage: Arc<dyn Storage>, seed: u64, threads: Threads, history: History) -> Run {
        Run {
            path: path.to_owned(),
            storage,
            threads,
            rng: SimRng::new(seed),
            dir: None,
            logs: BTreeMap::new(),
            history,
            ids: 1,
            failure: None,
            full_errors: 0,
            doing: Doing::Start,
        }
    }

    fn adopt(&mut self, recovered: Vec<RecoveredPartition>) {
        for partition in recovered {
            let id = partition.id.clone();
            let ear = Arc::new(Ear(AtomicI64::new(partition.log().offsets().log_end)));
            self.logs.insert(id, (partition.into_log(log_config(), ear.clone()), ear));
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        self.failure.is_none()
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn doing(&self) -> Doing {
        self.doing
    }

    pub(crate) fn full_errors(&self) -> usize {
        self.full_errors
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.logs.is_empty()
    }

    /// Does so many random things, or fewer if the disk fails.
    pub(crate) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            if self.failure.is_some() {
                return;
            }
            if let Done::Failed(reason) = self.step() {
                self.failure = Some(reason);
            }
        }
    }

    /// The machine stops here.
    pub(crate) fn stop(mut self) -> History {
        self.logs.clear();
        self.dir = None;
        self.history
    }

    /// The server stops in order.
    pub(crate) fn close(mut self, what: &str) -> History {
        assert!(self.failure.is_none(), "{what}: {:?}", self.failure);
        for (_, (log, _)) in std::mem::take(&mut self.logs) {
            log.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let acknowledge = self.history.acknowledge();
        let dir = self.dir.take().expect("a run that is well has its directory");
        dir.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        acknowledge();
        self.history
    }

    fn dir(&self) -> &LogDir {
        self.dir.as_ref().expect("a run that is well has its directory")
    }

    fn step(&mut self) -> Done {
        let before = self.history.submitted();
        self.doing = Doing::Other;
        let done = match self.rng.up_to(99) {
            _ if self.logs.is_empty() => self.create(),
            0..6 if self.logs.len() < PARTITIONS_MAX => self.create(),
            0..8 => self.delete(),
            8..10 => self.truncate(),
            10..16 => self.delete_records(),
            16..19 => self.retain(),
            19..22 => self.restart(),
            22..25 => self.dir().checkpoint().map_or_else(storage_failed, |()| Done::Yes),
            25..50 => self.sync(),
            _ => self.append(),
        };
        if matches!(done, Done::Yes) && self.history.submitted() > before {
            let acknowledge = self.history.acknowledge();
            self.dir().barrier(move |result| {
                if result.is_ok() {
                    acknowledge();
                }
            });
        }
        done
    }

    fn sync(&mut self) -> Done {
        match self.dir().step() {
            Ok(_) => {}
            Err(failure) => return Done::Failed(failure.to_string()),
        }
        for (log, ear) in self.logs.values_mut() {
            log.set_high_watermark(ear.0.load(Ordering::Acquire));
            log.housekeep(1_000_000);
        }
        let removal = |(id, (log, _)): (&PartitionId, &mut (Log, _))| Some((id.clone(), log.removable()?));
        let removals: Vec<_> = self.logs.iter_mut().filter_map(removal).collect();
        // Often something else happens between the decision and the removal.
        if self.rng.chance(50)
            && let failed @ Done::Failed(_) = self.append()
        {
            return failed;
        }
        for (id, removal) in removals {
            let removed = removal.run();
            let (log, _) = self.logs.get_mut(&id).expect("nothing was deleted since");
            log.settle(removed);
        }
        Done::Yes
    }

    fn is_full(&self) -> bool {
        self.storage.space(&self.path).is_ok_and(|space| space.free_bytes == 0)
    }

    fn pick(&mut self) -> PartitionId {
        let n = self.rng.up_to(self.logs.len() - 1);
        self.logs.keys().nth(n).expect("there is one").clone()
    }

    fn create(&mut self) -> Done {
        self.ids += 1;
        // Names are used again, ids never.
        let topic = ["a", "b", "long-topic-name"][self.rng.up_to(2)].to_owned();
        let id =
            PartitionId { topic_id: Uuid::from_u128(self.ids), topic, partition: self.rng.up_to(1) as i32 };
        if self.logs.keys().any(|other| other.dir_name() == id.dir_name()) {
            return Done::Refused;
        }
        self.history.push(Op::Create(id.clone()));
        let ear = Arc::new(Ear::default());
        match self.dir().create(id.clone(), log_config(), ear.clone()) {
            Ok(log) => drop(self.logs.insert(id, (log, ear))),
            Err(CreateError::Full(_)) => return self.refused(),
            Err(CreateError::Storage(failure)) if failure.is_passing() => return self.refused(),
            Err(error) => return Done::Failed(error.to_string()),
        }
        Done::Yes
    }

    fn refused(&mut self) -> Done {
        self.full_errors += 1;
        self.history.take_back();
        Done::Refused
    }

    fn delete(&mut self) -> Done {
        let id = self.pick();
        if let Err(failure) = self.dir().flush() {
            return storage_failed(failure);
        }
        self.logs.remove(&id);
        self.history.push(Op::Delete(id.clone()));
        match self.dir().delete(id.topic_id, id.partition) {
            Ok(()) => Done::Yes,
            Err(error) => Done::Failed(error.to_string()),
        }
    }

    fn append(&mut self) -> Done {
        let id = self.pick();
        let len = match self.rng.up_to(30) {
            // Larger than a group.
            0 => 20_000 + self.rng.up_to(30_000),
            1..10 => self.rng.up_to(3_000),
            _ => self.rng.up_to(300),
        };
        let mut value = format!("{id} {} ", self.history.submitted()).into_bytes();
        value.resize(value.len() + len, self.rng.bits() as u8);
        self.history.push(Op::Append(id.clone(), value.clone()));
        let meta = AppendMeta { leader_epoch: 0, origin: AppendOrigin::Client, now_ms: 1_000_000 };
        let (log, _) = self.logs.get_mut(&id).expect("it was picked");
        match log.append(batch(&value), meta) {
            Ok(_) => Done::Yes,
            Err(AppendError::Full(_) | AppendError::Unavailable(_)) => self.refused(),
            Err(error) => Done::Failed(error.to_string()),
        }
    }

    /// Truncation waits for the journal, so somebody else must work meanwhile. What it does after that may or may not be in the
    /// checkpoint that the same step takes: the one thing in a run that need not repeat exactly.
    fn truncate(&mut self) -> Done {
        let id = self.pick();
        let (mut log, ear) = self.logs.remove(&id).expect("it was picked");
        let offsets = log.offsets();
        let back = self.rng.up_to(5) as i64;
        let end = (offsets.log_end - back).max(offsets.log_start);
        // A truncation that fails half-way ends the log until the next start, and it writes the leader epochs anew.
        if end == offsets.log_end || self.is_full() {
            self.logs.insert(id, (log, ear));
            return Done::Refused;
        }
        self.history.push(Op::Truncate(id.clone(), end));
        self.doing = Doing::Truncation;
        let dir = self.dir();
        let result = std::thread::scope(|scope| {
            let worker = scope.spawn(|| log.truncate_to(end, 1_000_000));
            while !worker.is_finished() {
                // A failure reaches the worker through its listener.
                let _ = dir.step();
                std::thread::yield_now();
            }
            worker.join().expect("truncation does not panic")
        });
        ear.0.store(log.offsets().high_watermark, Ordering::Release);
        self.logs.insert(id, (log, ear));
        // After its frame is durable there is no way back but a restart.
        result.map_or_else(|error| Done::Failed(error.to_string()), |_| Done::Yes)
    }

    fn delete_records(&mut self) -> Done {
        let id = self.pick();
        let (log, _) = self.logs.get_mut(&id).expect("it was picked");
        let offsets = log.offsets();
        let start = (offsets.log_start + self.rng.up_to(4) as i64).min(offsets.high_watermark);
        if start == offsets.log_start {
            return Done::Refused;
        }
        self.history.push(Op::LogStart(id.clone(), start));
        change(log.delete_records_before(start).map(drop))
    }

    fn retain(&mut self) -> Done {
        let id = self.pick();
        let (log, _) = self.logs.get_mut(&id).expect("it was picked");
        let before = log.offsets().log_start;
        if let Err(ReadError::Storage(failure)) = log.reader().learn_timestamps() {
            return storage_failed(failure);
        }
        let result = log.apply_retention(1_000_000).map(drop);
        let after = log.offsets().log_start;
        if after > before {
            self.history.push(Op::LogStart(id, after));
        }
        change(result)
    }

    fn restart(&mut self) -> Done {
        // A start writes a checkpoint, which may need room.
        if self.is_full() {
            return Done::Refused;
        }
        for (_, (log, _)) in std::mem::take(&mut self.logs) {
            if let Err(error) = log.close() {
                return Done::Failed(error.to_string());
            }
        }
        let acknowledge = self.history.acknowledge();
        let closed = self.dir().close();
        self.dir = None;
        match closed {
            Ok(()) => acknowledge(),
            // A disk that is full: the next start recovers instead.
            Err(pelton_commitlog::CloseError::NotClean(_)) => acknowledge(),
            Err(error) => return Done::Failed(error.to_string()),
        }
        self.doing = Doing::Start;
        match LogDir::open(&self.path, config(self.threads), self.storage.clone()) {
            Ok((dir, recovered)) => {
                self.adopt(recovered);
                self.dir = Some(dir);
                Done::Yes
            }
            Err(error) => Done::Failed(error.to_string()),
        }
    }
}

fn storage_failed(failure: StorageFailure) -> Done {
    if failure.is_passing() { Done::Refused } else { Done::Failed(failure.to_string()) }
}

fn change(result: Result<(), ChangeError>) -> Done {
    match result {
        Ok(()) => Done::Yes,
        Err(ChangeError::Storage(failure)) => storage_failed(failure),
        Err(error) => Done::Failed(error.to_string()),
    }
}

fn batch(value: &[u8]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1_000_000, None, Some(value), &[]).expect("it fits");
    builder.build().expect("it fits")
}

//! The coordinators and partitions of a broker, over a disk that fails on command. Nothing here has a thread of its
//! own: the journal writes when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::{LogDir, LogDirConfig, Threads};
use pelton_coordinators::group::Groups;
use pelton_coordinators::group::config::GroupLimits;
use pelton_coordinators::group::log_store::TopicStore;
use pelton_coordinators::txn::{Transactions, TxnSettings};
use pelton_partitions::blocking::run_blocking;
use pelton_partitions::clock::{Clock, ManualClock};
use pelton_partitions::data_dir::{self, Environment, Opened, Settings};
use pelton_partitions::failure::Failure;
use pelton_partitions::partition::ProducerLimits;
use pelton_partitions::topics::producer_ids::ProducerIds;
use pelton_partitions::topics::{NewTopic, Topics};
use uuid::Uuid;

/// Where records go: topics and their partitions.
pub(crate) const TOPICS: [(&str, i32); 2] = [("a", 2), ("b", 1)];
/// How long a start may try to end what was decided, as long as it takes: every wait of it is answered.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);
/// After so many rounds without news nobody in the runtime has anything to do but wait for the disk.
const SETTLED: usize = 24;
/// A start that takes more rounds than this hangs.
const ROUNDS_MAX: usize = 5_000_000;

/// Why a core is of no use any more: the disk is gone.
#[derive(Debug)]
pub(crate) struct Cut;

pub(crate) struct Core {
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    producer_ids: Arc<ProducerIds>,
    pub(crate) clock: Arc<ManualClock>,
}

/// How long a transactional id is remembered.
pub(crate) const EXPIRATION_MS: i64 = 7 * 24 * 3_600_000;
/// Smaller than an operator may ask for, so that they roll.
const SEGMENT_BYTES: u32 = 4000;
const SNAPSHOT_BYTES: u64 = 2000;
/// Of either coordinator.
const PARTITIONS: i32 = 2;

fn log_dir(failure: &Failure, clock: &Arc<ManualClock>) -> LogDirConfig {
    let (raise, clock) = (failure.clone(), Arc::clone(clock));
    LogDirConfig {
        // So small that it wraps and checkpoints all the time.
        threads: Threads::ByHand,
        journal_first_file_bytes: 32 << 10,
        journal_max_bytes: 256 << 10,
        journal_group_max_bytes: 16 << 10,
        checkpoint_bytes: 16 << 10,
        disk_free_min: 0,
        on_failure: Arc::new(move |reason| raise.raise(reason)),
        clock: Arc::new(move || clock.now_ms()),
        ..LogDirConfig::default()
    }
}

fn settings(log_dir: LogDirConfig) -> Settings {
    Settings {
        path: "/data".into(),
        log_dir,
        producers: ProducerLimits { expiration_ms: 86_400_000, max: 100_000 },
        topic_defaults: [("segment.bytes".to_owned(), "2000".to_owned())].into(),
        max_partitions: 100,
    }
}

/// Ids in order, so that a run repeats; never one of another run of the same disk.
fn ids(life: u64) -> Arc<dyn Fn() -> Uuid + Send + Sync> {
    let next = AtomicU64::new(0);
    Arc::new(move || {
        Uuid::from_u64_pair(life + 1, 0x8000_0000_0000_0000 | next.fetch_add(1, Ordering::Relaxed))
    })
}

impl Core {
    /// Starts as the broker does, up to the point where it would listen.
    pub(crate) async fn start(disk: &SimStorage, clock: &Arc<ManualClock>, life: u64) -> Result<Core, Cut> {
        let failure = Failure::default();
        let settings = settings(log_dir(&failure, clock));
        let environment =
            Environment { clock: clock.clone(), storage: Arc::new(disk.clone()), new_id: ids(life), failure };
        let opened = match data_dir::open(settings, environment) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(disk.power_is_off(), "the data directory does not open: {error}");
                return Err(Cut);
            }
        };
        let core = Core::over(opened, clock);
        let transactions = core.transactions.clone();
        if let Err(error) = run_blocking(move || transactions.load()).await {
            assert!(disk.power_is_off(), "transactions cannot be read: {error}");
            return Err(Cut);
        }
        let (groups, transactions) = (core.groups.clone(), core.transactions.clone());
        core.drive(disk, async move {
            groups.loaded().await.expect("the groups read");
            transactions.recover(PATIENCE).await;
        })
        .await?;
        Ok(core)
    }

    fn over(opened: Opened, clock: &Arc<ManualClock>) -> Core {
        let (topics, clock) = (opened.topics, Arc::clone(clock));
        let batch_max_bytes = 16 << 20;
        let store = TopicStore::new(Arc::clone(&topics), clock.clone(), SEGMENT_BYTES, batch_max_bytes);
        let limits = GroupLimits { snapshot_min_bytes: SNAPSHOT_BYTES, ..GroupLimits::default() };
        let groups = Groups::start(&limits, PARTITIONS, Arc::new(store), clock.clone());
        let producer_ids = Arc::new(ProducerIds::default());
        let settings = TxnSettings {
            partitions: PARTITIONS,
            segment_bytes: SEGMENT_BYTES,
            snapshot_min_bytes: SNAPSHOT_BYTES,
            max_timeout_ms: 900_000,
            max_ids: 1000,
            expiration_ms: EXPIRATION_MS,
        };
        let ids = Arc::clone(&producer_ids);
        let transactions =
            Transactions::new(settings, Arc::clone(&topics), groups.clone(), ids, clock.clone());
        Core { log_dir: opened.log_dir, topics, groups, transactions, producer_ids, clock }
    }

    /// Makes the topics, once in the life of a disk.
    pub(crate) async fn create_topics(&self, disk: &SimStorage) -> Result<(), Cut> {
        let (topics, groups) = (Arc::clone(&self.topics), self.groups.clone());
        let (transactions, producer_ids) = (self.transactions.clone(), Arc::clone(&self.producer_ids));
        self.drive(disk, async move {
            for (name, partitions) in TOPICS {
                let new = NewTopic { name: name.to_owned(), partitions, overrides: Default::default() };
                topics.create(new, 0).await.unwrap();
            }
            groups.ensure_topic().await.unwrap();
            transactions.ensure_topic().await.unwrap();
            // The first block of producer ids, so that all that follows is transactions.
            producer_ids.next(&topics).await.unwrap();
        })
        .await?;
        // Nothing is left to do that could be counted in one run and not in another.
        while self.log_dir.step().map_err(|_| Cut)? {}
        self.log_dir.checkpoint().map_err(|_| Cut)
    }

    /// Lets the journal write until `work` is done, or the power is off.
    pub(crate) async fn drive<T: Send + 'static>(
        &self,
        disk: &SimStorage,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Cut> {
        let work = tokio::spawn(work);
        for _ in 0..ROUNDS_MAX {
            self.settle().await;
            if work.is_finished() {
                return Ok(work.await.unwrap());
            }
            if let Err(failure) = self.log_dir.step() {
                assert!(disk.power_is_off(), "the disk failed by itself: {failure}");
                return Err(Cut);
            }
            std::thread::yield_now();
        }
        panic!("it never ends");
    }

    /// Lets everybody do what there is to do, until nobody waits for the disk.
    pub(crate) async fn finish(&self, disk: &SimStorage) -> Result<(), Cut> {
        loop {
            self.settle().await;
            match self.log_dir.step() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(failure) => {
                    assert!(disk.power_is_off(), "the disk failed by itself: {failure}");
                    return Err(Cut);
                }
            }
        }
    }

    /// Lets everybody do what can be done without the disk.
    pub(crate) async fn settle(&self) {
        for _ in 0..SETTLED {
            tokio::task::yield_now().await;
        }
    }
}

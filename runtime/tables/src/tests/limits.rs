//! What has a limit: followers, memory, and the work of a thread.

use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use pelton_wire::record::Columns;

use super::*;
use crate::source::{At, Bounds, News, ReadError, ReadTo, Told, TopicNow, Wake};

/// More than frames on their way take.
const LARGE: usize = 80 << 10;

fn spec(lab: &Lab) -> TablesSpec {
    let clock = Arc::clone(&lab.clock);
    TablesSpec {
        source: Arc::clone(&lab.topics) as Arc<dyn Source>,
        definitions: MemoryDefinitions::new(),
        factory: None,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        dir: "nowhere".into(),
        threads: 1,
        max_tables: 3,
        max_followers: 1,
        follower_patience: LIMIT,
        memory: MemoryBudget::new(u64::MAX),
        flush_interval_ms: 1_000,
        runtime: tokio::runtime::Handle::current(),
    }
}

/// A table `t` on a topic of one partition with these records.
async fn table_of(spec: TablesSpec, topics: &MemoryTopics, records: i64) -> Arc<Tables> {
    let large = "x".repeat(LARGE);
    topics.create("t", 1, 1_000_000);
    for i in 0..records {
        topics.put("t", 0, &format!("{i:03}"), Some(&large));
    }
    let tables = Tables::start(spec).unwrap();
    tables.create(new("t", "t", Scope::Partitioned, KeyPlacement::Unknown)).await.unwrap();
    tables.wait_for("t", &BTreeMap::from([(0, records - 1)]), LIMIT).await.unwrap();
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_takes_nothing_is_cut_off() {
    let lab = Lab::start();
    let spec = TablesSpec { follower_patience: Duration::from_millis(20), ..spec(&lab) };
    let tables = table_of(spec, &lab.topics, 50).await;
    let mut following = tables.follow("t", RowRange::default()).unwrap();
    assert!(matches!(tables.follow("t", RowRange::default()), Err(AskError::TooManyFollowers(1))));
    let begun = std::time::Instant::now();
    while following.ended() == "the server ended it" {
        assert!(begun.elapsed() < LIMIT, "it is not cut off");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(following.ended(), "the reader took nothing for 20 ms");
    let mut frames = 0;
    while following.next().await.is_some() {
        frames += 1;
    }
    assert!(frames < 10, "{frames} frames were on their way");
    // Its place is free for somebody else, who takes everything.
    let mut next = loop {
        match tables.follow("t", RowRange::default()) {
            Ok(next) => break next,
            Err(error) => assert_eq!(error, AskError::TooManyFollowers(1)),
        }
        tokio::task::yield_now().await;
    };
    let seen = events(&mut next, |event| *event == FollowEvent::Current).await;
    assert_eq!(seen.len(), 52);
    tables.stop().await;
    lab.tables.stop().await;
}

/// What says that a row is deleted may be gone when somebody comes to it that late.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_is_late_is_cut_off() {
    let lab = Lab::start();
    let tables = table_of(TablesSpec { follower_patience: 10 * LIMIT, ..spec(&lab) }, &lab.topics, 1).await;
    let mut following = tables.follow("t", RowRange::default()).unwrap();
    events(&mut following, |event| *event == FollowEvent::Current).await;
    let large = "y".repeat(LARGE);
    let ends: Vec<i64> = (0..50).map(|_| lab.topics.put("t", 0, "a", Some(&large))).collect();
    tables.wait_for("t", &BTreeMap::from([(0, ends[49] - 1)]), LIMIT).await.unwrap();
    // The topic keeps tombstones for 1,000 s.
    lab.clock.fetch_add(1_000_001, Ordering::Relaxed);
    let mut changes = 0;
    while let Some(frame) = tokio::time::timeout(LIMIT, following.next()).await.expect("it is cut off") {
        changes += frame.len();
    }
    assert!(
        changes < 50 && following.ended().contains("delete.retention.ms"),
        "{changes}: {}",
        following.ended()
    );
    tables.stop().await;
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_memory_have_so_much_of_it() {
    let lab = Lab::start();
    let tables =
        table_of(TablesSpec { memory: MemoryBudget::new(10 * LARGE as u64), ..spec(&lab) }, &lab.topics, 3)
            .await;
    let large = "z".repeat(LARGE);
    lab.topics.create("big", 1, 1_000_000);
    for i in 0..9 {
        lab.topics.put("big", 0, &i.to_string(), Some(&large));
    }
    tables.create(new("big", "big", Scope::Partitioned, KeyPlacement::Unknown)).await.unwrap();
    let reason = loop {
        match tables.get("big", b"1").unwrap_err() {
            AskError::Failed { reason, .. } => break reason,
            AskError::Restoring { .. } | AskError::NoTopic { .. } => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    };
    assert!(reason.contains("`pelton.state.memory.max.bytes`") && reason.contains("rocksdb"), "{reason}");
    // Others are as they were, and there is room for them.
    lab.topics.put("t", 0, "003", Some(&large));
    tables.wait_for("t", &BTreeMap::from([(0, 3)]), LIMIT).await.unwrap();
    // What a table gives back is there for others.
    tables.delete("t").await.unwrap();
    lab.clock.fetch_add(60_000, Ordering::Relaxed);
    tables.wait_for("big", &BTreeMap::from([(0, 8)]), LIMIT).await.unwrap();
    tables.stop().await;
    lab.tables.stop().await;
}

/// Topics in memory that count what is read of each partition, and tell of the partitions that the test names.
struct Scripted {
    topics: Arc<MemoryTopics>,
    reads: Mutex<BTreeMap<u32, u32>>,
    told: Mutex<Option<Receiver<Vec<u32>>>>,
}

impl Source for Scripted {
    fn changes(&self) -> u64 {
        self.topics.changes()
    }

    fn topic(&self, name: &str) -> Option<TopicNow> {
        self.topics.topic(name)
    }

    fn bounds(&self, at: &At) -> Result<Bounds, ReadError> {
        self.topics.bounds(at)
    }

    fn read(&self, at: &At, offset: i64, records: &mut Columns) -> Result<ReadTo, ReadError> {
        *self.reads.lock().entry(at.partition).or_default() += 1;
        self.topics.read(at, offset, records)
    }

    fn news(self: Arc<Self>) -> Box<dyn News> {
        let told = self.told.lock().take().expect("there is one thread");
        Box::new(ScriptedNews { told, numbers: BTreeMap::new() })
    }
}

struct ScriptedNews {
    told: Receiver<Vec<u32>>,
    /// By partition.
    numbers: BTreeMap<u32, u32>,
}

impl News for ScriptedNews {
    fn watch(&mut self, number: u32, at: &At) {
        self.numbers.insert(at.partition, number);
    }

    fn forget(&mut self, number: u32) {
        self.numbers.retain(|_, known| *known != number);
    }

    fn wait(&mut self, _: &Wake, timeout_ms: u64) -> Told {
        let told = if timeout_ms == 0 { self.told.try_recv().ok() } else { self.told.recv().ok() };
        let number = |partition: &u32| self.numbers.get(partition).copied();
        Told { ready: told.unwrap_or_default().iter().filter_map(number).collect(), idle: false }
    }
}

/// A record costs the store that it is for, whatever others there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_news_is_not_looked_at() {
    let lab = Lab::start();
    let (tell, told): (Sender<Vec<u32>>, _) = channel();
    let source = Arc::new(Scripted {
        topics: Arc::clone(&lab.topics),
        reads: Mutex::default(),
        told: Mutex::new(Some(told)),
    });
    let spec = TablesSpec { source: Arc::clone(&source) as Arc<dyn Source>, ..spec(&lab) };
    lab.topics.create("t", 40, 1_000_000);
    let tables = Tables::start(spec).unwrap();
    tables.create(new("t", "t", Scope::Partitioned, KeyPlacement::Unknown)).await.unwrap();
    tell.send(Vec::new()).unwrap();
    let all = (0..40).map(|partition| (partition, -1)).collect();
    tables.wait_for("t", &all, LIMIT).await.unwrap();
    let before = source.reads.lock().clone();
    for i in 0..100 {
        lab.topics.put("t", 7, "a", Some(&i.to_string()));
        tell.send(vec![7]).unwrap();
        tables.wait_for("t", &BTreeMap::from([(7, i)]), LIMIT).await.unwrap();
    }
    let after = source.reads.lock().clone();
    assert!(after[&7] >= 100, "{after:?}");
    let others = |reads: &BTreeMap<u32, u32>| {
        reads.iter().filter(|(partition, _)| **partition != 7).map(|(_, reads)| *reads).sum::<u32>()
    };
    assert_eq!(others(&after), others(&before));
    drop(tell);
    tables.stop().await;
    lab.tables.stop().await;
}

/// Topics that are read so slowly that the clock goes on by this much with each read, until a store was made again.
struct Crawling {
    topics: Arc<MemoryTopics>,
    clock: Arc<AtomicI64>,
    reads_left: Mutex<u32>,
}

impl Source for Crawling {
    fn changes(&self) -> u64 {
        self.topics.changes()
    }

    fn topic(&self, name: &str) -> Option<TopicNow> {
        self.topics.topic(name)
    }

    fn bounds(&self, at: &At) -> Result<Bounds, ReadError> {
        self.topics.bounds(at)
    }

    fn read(&self, at: &At, offset: i64, records: &mut Columns) -> Result<ReadTo, ReadError> {
        let mut left = self.reads_left.lock();
        if *left > 0 {
            *left -= 1;
            self.clock.fetch_add(600_000, Ordering::Relaxed);
        }
        self.topics.read(at, offset, records)
    }

    fn news(self: Arc<Self>) -> Box<dyn News> {
        Arc::clone(&self.topics).news()
    }
}

/// What is restored for longer than its topic keeps tombstones may have missed one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_takes_too_long_is_begun_again() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    let (large, records) = ("x".repeat(1 << 20), 30);
    for i in 0..records {
        lab.topics.put("t", 0, &format!("{i:03}"), Some(&large));
    }
    let source = Arc::new(Crawling {
        topics: Arc::clone(&lab.topics),
        clock: Arc::clone(&lab.clock),
        reads_left: Mutex::new(2),
    });
    let spec = TablesSpec { source: Arc::clone(&source) as Arc<dyn Source>, ..spec(&lab) };
    let tables = Tables::start(spec).unwrap();
    tables.create(new("t", "t", Scope::Partitioned, KeyPlacement::Unknown)).await.unwrap();
    tables.wait_for("t", &BTreeMap::from([(0, records - 1)]), LIMIT).await.unwrap();
    let described = tables.describe("t").unwrap();
    let rebuilt = described.stores[0].rebuilt.clone().unwrap_or_default();
    assert!(described.totals.rebuilds == 1 && rebuilt.contains("delete.retention.ms"), "{described:?}");
    assert!(tables.get("t", b"000").unwrap().row.is_some());
    tables.stop().await;
    lab.tables.stop().await;
}

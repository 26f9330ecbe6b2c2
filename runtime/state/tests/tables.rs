//! Tables over RocksDB: whatever happens to the process, a store is what a replay of its topic up to its offset gives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pelton_state::{RocksFactory, StateMemory};
use pelton_streams::state::{MemoryBudget, StateFactory, StoreSpec};
use pelton_streams::tables::{
    Cursor, KeyPlacement, Merged, RowRange, STORE_NAME, Scope, StoreKind, ValueFormat, marks_of,
};
use pelton_tables::source::{Definitions, Source};
use pelton_tables::testing::{MemoryDefinitions, MemoryTopics, Slot};
use pelton_tables::{NewTable, StoreState, Tables, TablesSpec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crash::crashed;

mod crash;

const LIMIT: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

struct Lab {
    runtime: Runtime,
    topics: Arc<MemoryTopics>,
    definitions: Arc<MemoryDefinitions>,
    clock: Arc<AtomicI64>,
    factory: Arc<RocksFactory>,
}

impl Lab {
    fn new() -> Lab {
        let memory = StateMemory { block_cache_bytes: 8 << 20, write_buffer_bytes: 8 << 20, threads: 2 };
        Lab {
            runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
            topics: MemoryTopics::new(),
            definitions: MemoryDefinitions::new(),
            clock: Arc::new(AtomicI64::new(DAY_MS)),
            factory: Arc::new(RocksFactory::new(memory)),
        }
    }

    fn start(&self, dir: &Path, flush_interval_ms: i64) -> Arc<Tables> {
        let clock = Arc::clone(&self.clock);
        let spec = TablesSpec {
            source: Arc::clone(&self.topics) as Arc<dyn Source>,
            definitions: Arc::clone(&self.definitions) as Arc<dyn Definitions>,
            factory: Some(Arc::clone(&self.factory) as Arc<dyn StateFactory>),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            dir: dir.to_owned(),
            threads: 2,
            max_tables: 10,
            max_followers: 2,
            follower_patience: LIMIT,
            memory: MemoryBudget::new(u64::MAX),
            flush_interval_ms,
            runtime: self.runtime.handle().clone(),
        };
        Tables::start(spec).unwrap()
    }

    fn create(&self, tables: &Tables, topic: &str, scope: Scope) {
        let new = NewTable {
            name: topic.to_owned(),
            topic: topic.to_owned(),
            scope,
            partitioner: KeyPlacement::Unknown,
            store: StoreKind::Rocksdb,
            value: ValueFormat::Raw,
        };
        self.runtime.block_on(tables.create(new)).unwrap();
    }

    fn until(&self, tables: &Tables, name: &str, ends: &[i64]) {
        let wanted = (0..).zip(ends).map(|(partition, end)| (partition, end - 1)).collect();
        self.runtime.block_on(tables.wait_for(name, &wanted, LIMIT)).unwrap();
    }

    fn stop(&self, tables: &Tables) {
        self.runtime.block_on(tables.stop());
    }

    fn replay(&self, topic: &str, ends: &BTreeMap<u32, i64>) -> Rows {
        ends.iter().flat_map(|(partition, end)| self.topics.replay(topic, *partition, *end)).collect()
    }

    /// What is in a store that nobody has open, and how far it has read.
    fn found(&self, dir: &Path) -> (Rows, BTreeMap<u32, i64>) {
        let specs = [StoreSpec { name: STORE_NAME.to_owned(), ordered: true, kind: StoreKind::Rocksdb }];
        let store = self.factory.open(dir, &specs).unwrap();
        let reader = store.reader();
        let view = reader.view().unwrap();
        let mut merged = Merged::new(vec![Cursor::new(&*view, RowRange::default())]);
        let mut rows = Rows::new();
        while let Some((_, row)) = merged.next().unwrap() {
            rows.insert(row.key, row.value);
        }
        let ends =
            marks_of(&*view).unwrap().into_iter().map(|(partition, mark)| (partition, mark.next_offset));
        (rows, ends.collect())
    }
}

fn all(tables: &Tables, name: &str) -> Rows {
    let page = tables.scan(name, &RowRange::default(), usize::MAX).unwrap();
    page.rows.into_iter().map(|row| (row.key, row.value)).collect()
}

/// Keys are of one partition each, as partitioners have it.
fn slot(random: &mut SmallRng, partition: u32) -> Slot {
    let key = format!("{partition}/{}", random.random_range(0..200));
    let value = vec![random.random(); random.random_range(0..2_000)];
    match random.random_range(0..10) {
        0 => None,
        1 => Some((None, Some(value))),
        2 | 3 => Some((Some(key.into_bytes()), None)),
        _ => Some((Some(key.into_bytes()), Some(value))),
    }
}

#[test]
fn a_crash_costs_nothing_but_reading_again() {
    let (mut crashes, mut lossy) = (0, 0);
    for seed in 0..6 {
        let lab = Lab::new();
        let mut random = SmallRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut dir = directory.path().join("0");
        let scope = if seed % 2 == 0 { Scope::Global } else { Scope::Partitioned };
        lab.topics.create("t", 2, DAY_MS);
        let mut ends = [0; 2];
        let mut append = |random: &mut SmallRng, count: usize| {
            for partition in 0..2 {
                let slots: Vec<Slot> = (0..count).map(|_| slot(random, partition)).collect();
                ends[partition as usize] = lab.topics.append("t", partition, slots);
            }
            ends
        };
        // Enough for files of a restore.
        let mut now = append(&mut random, 2_000);
        let flush_ms = [0, i64::MAX][random.random_range(0..2)];
        let mut tables = lab.start(&dir, flush_ms);
        lab.create(&tables, "t", scope);
        lab.until(&tables, "t", &now);
        for round in 1..6 {
            for _ in 0..random.random_range(1..4) {
                let count = random.random_range(1..100);
                now = append(&mut random, count);
                lab.until(&tables, "t", &now);
            }
            let to = directory.path().join(round.to_string());
            std::fs::create_dir_all(to.join("t")).unwrap();
            let stores: &[&str] = if scope == Scope::Global { &["global"] } else { &["0", "1"] };
            for store in stores {
                crashed(&dir.join("t").join(store), to.join("t").join(store));
                let copy = directory.path().join("looked at");
                crashed(&dir.join("t").join(store), copy.clone());
                let (rows, read_to) = lab.found(&copy);
                assert_eq!(rows, lab.replay("t", &read_to), "seed {seed}, round {round}, {read_to:?}");
                lossy += u32::from(read_to.iter().any(|(partition, at)| *at < now[*partition as usize]));
                crashes += 1;
                std::fs::remove_dir_all(copy).unwrap();
            }
            lab.stop(&tables);
            dir = to;
            tables = lab.start(&dir, flush_ms);
            now = append(&mut random, 20);
            lab.until(&tables, "t", &now);
            let described = tables.describe("t").unwrap();
            assert_eq!((described.state, described.totals.rebuilds), (StoreState::Live, 0), "{described:?}");
            assert_eq!(
                all(&tables, "t"),
                lab.replay("t", &(0..).zip(now).collect()),
                "seed {seed}, round {round}"
            );
        }
        lab.stop(&tables);
    }
    assert!(lossy * 3 > crashes, "of {crashes} crashes {lossy} took something: these are none");
}

/// One table on a topic of one partition with two rows, stopped in order; what comes between is the test's.
fn restarted(between: impl FnOnce(&Lab, &Path)) -> (Lab, Arc<Tables>, tempfile::TempDir) {
    let (lab, directory) = (Lab::new(), tempfile::tempdir().unwrap());
    lab.topics.create("t", 1, DAY_MS);
    let tables = lab.start(directory.path(), HOUR_MS);
    lab.create(&tables, "t", Scope::Partitioned);
    for i in 0..1_000 {
        lab.topics.put("t", 0, &format!("{i:04}"), Some(&format!("value {i} of the topic as it was")));
    }
    lab.until(&tables, "t", &[1_000]);
    lab.stop(&tables);
    between(&lab, &directory.path().join("t").join("0"));
    let tables = lab.start(directory.path(), HOUR_MS);
    (lab, tables, directory)
}

fn rebuilt(tables: &Tables) -> (u64, String) {
    let described = tables.describe("t").unwrap();
    // Right after a start no store is there yet.
    let why = described.stores.first().and_then(|store| store.rebuilt.clone());
    (described.totals.rebuilds, why.unwrap_or_default())
}

#[test]
fn a_store_that_was_closed_in_order_reads_only_what_is_new() {
    let (lab, tables, _directory) = restarted(|lab, _| {
        lab.clock.fetch_add(DAY_MS, Ordering::Relaxed);
        lab.topics.put("t", 0, "0000", None);
    });
    lab.until(&tables, "t", &[1_001]);
    let totals = tables.describe("t").unwrap().totals;
    assert_eq!((totals.puts, totals.tombstones, totals.rebuilds), (0, 1, 0));
    assert_eq!(all(&tables, "t"), lab.topics.replay("t", 0, 1_001));
    lab.stop(&tables);
}

#[test]
fn a_store_that_cannot_be_trusted_is_made_again_and_says_so() {
    let check = |between: &dyn Fn(&Lab, &Path), end: i64, reason: &str| {
        let (lab, tables, _directory) = restarted(between);
        lab.until(&tables, "t", &[end]);
        let (rebuilds, why) = rebuilt(&tables);
        assert!(rebuilds == 1 && why.contains(reason), "{rebuilds} times: {why}, not {reason}");
        assert_eq!(all(&tables, "t"), lab.topics.replay("t", 0, end));
        lab.stop(&tables);
    };
    let away = |lab: &Lab, _: &Path| {
        lab.clock.fetch_add(DAY_MS + 1, Ordering::Relaxed);
    };
    check(&away, 1_000, "delete.retention.ms");
    let again = |lab: &Lab, _: &Path| {
        lab.topics.create("t", 1, DAY_MS);
        lab.topics.put("t", 0, "only", Some("one"));
    };
    check(&again, 1, "created again");
    let lost = |lab: &Lab, _: &Path| lab.topics.lose_from("t", 0, 500);
    check(&lost, 500, "the log ends at 500");
}

#[test]
fn a_damaged_store_is_made_again_and_nothing_wrong_is_given_out() {
    let (lab, tables, _directory) = restarted(|_, store| {
        for entry in std::fs::read_dir(store).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sst") {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 3;
                bytes[middle] ^= 0xff;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    });
    let expect = lab.topics.replay("t", 0, 1_000);
    let begun = std::time::Instant::now();
    while rebuilt(&tables).0 == 0 {
        if let Ok(page) = tables.scan("t", &RowRange::default(), usize::MAX) {
            let rows: Rows = page.rows.into_iter().map(|row| (row.key, row.value)).collect();
            assert_eq!(rows, expect);
        }
        assert!(begun.elapsed() < LIMIT, "the damage is not found: {:?}", tables.describe("t"));
    }
    lab.until(&tables, "t", &[1_000]);
    assert_eq!(all(&tables, "t"), expect);
    assert!(rebuilt(&tables).1.contains("damage"), "{}", rebuilt(&tables).1);
    lab.stop(&tables);
}

#[test]
fn a_deleted_table_leaves_nothing_on_disk() {
    let (lab, tables, directory) = restarted(|_, _| {});
    lab.until(&tables, "t", &[1_000]);
    assert!(directory.path().join("t").exists());
    lab.runtime.block_on(tables.delete("t")).unwrap();
    assert!(!directory.path().join("t").exists());
    // What a crash in the middle of a deletion leaves.
    std::fs::create_dir_all(directory.path().join("t/0")).unwrap();
    lab.stop(&tables);
    let tables = lab.start(directory.path(), HOUR_MS);
    assert!(!directory.path().join("t").exists());
    lab.stop(&tables);
}

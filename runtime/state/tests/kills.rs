//! Pipelines over RocksDB, killed at every step: each store that a kill leaves on disk is the replay of its changelog up to
//! its position, and in the end the results are those of a run that nobody killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use pelton_pipelines::sim::{Failing, Fault, Shared, World, drive, drive_lanes, drive_with, hasty, linked};
use pelton_pipelines::stores::{DirStores, TaskStores};
use pelton_state::{RocksFactory, StateMemory};
use pelton_streams::Topology;
use pelton_streams::state::{
    Blob, KeyRange, MemoryBudget, Position, StateBackend, StateBatch, StateError, StateFactory, StateReader,
    StoreIndex, StoreSpec, Visit,
};
use pelton_streams::task::TaskId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crash::crashed;

mod crash;

const PARTITIONS: i32 = 2;
const FAULTS: [Fault; 5] =
    [Fault::Flush, Fault::CommitRefused, Fault::CommitLost, Fault::CommitUnknown, Fault::StoreFull];

/// What is kept: by key, with members, in windows that close, in sessions, of two streams, and by plugins.
const PIPELINES: [(&str, &[&str]); 6] = [
    (
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='m'\nfrom='in'\naggregate={n='count',all='distinct:raw',top='max:raw'}\n\
         [[sink]]\nfrom='m'\ntopic='out'\n",
        &["in"],
    ),
    (
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='w'\nfrom='in'\naggregate='count'\n\
         window={hopping='10ms',advance='5ms',grace='3ms',emit='on-close',late='emit'}\n\
         [[sink]]\nfrom='w'\ntopic='out'\n[[sink]]\nfrom='w:late'\ntopic='out'\n",
        &["in"],
    ),
    (
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='d'\nfrom='in'\ndeduplicate={within='4ms'}\n\
         [[node]]\nid='s'\nfrom='d'\naggregate={n='count',all='distinct:raw'}\nwindow={session='6ms',grace='2ms'}\n\
         [[sink]]\nfrom='s'\ntopic='out'\n",
        &["in"],
    ),
    (
        "[[source]]\nid='l'\ntopic='left'\npartitioner='murmur2'\n\
         [[source]]\nid='r'\ntopic='right'\npartitioner='murmur2'\n\
         [[node]]\nid='j'\nfrom='l'\njoin={with='r',within='3ms',kind='outer',left='l',right='r'}\n\
         [[node]]\nid='m'\nfrom='j'\naggregate={n='count',of='distinct:json:r'}\n\
         [[sink]]\nfrom='m'\ntopic='out'\n",
        &["left", "right"],
    ),
    (
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='k'\nfrom='in'\nplugin='keeper'\nstores={seen={},recent={kind='window',retention='9ms'}}\n\
         [[sink]]\nfrom='k'\ntopic='out'\n",
        &["in"],
    ),
    (
        "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='t'\nfrom='in'\nplugin='timers'\n\
         [[sink]]\nfrom='t'\ntopic='out'\n",
        &["in"],
    ),
];

/// RocksDB that is killed before and behind what it is told.
struct Killed {
    rocks: DirStores,
    world: Shared,
    clock: Arc<AtomicI64>,
}

struct KilledState {
    rocks: Box<dyn StateBackend>,
    world: Shared,
    /// Goes on with each read, so that stores take over in the midst of what a driver does, not only at its end.
    clock: Arc<AtomicI64>,
}

/// How far the clock goes on with each read.
const READ_MS: i64 = 700;

impl TaskStores for Killed {
    fn open(
        &self,
        pipeline: &str,
        task: TaskId,
        stores: &[StoreSpec],
    ) -> Result<Box<dyn StateBackend>, StateError> {
        let rocks = self.rocks.open(pipeline, task, stores)?;
        Ok(Box::new(KilledState { rocks, world: Arc::clone(&self.world), clock: Arc::clone(&self.clock) }))
    }

    fn remove(&self, pipeline: &str, task: TaskId) -> Result<(), StateError> {
        self.rocks.remove(pipeline, task)
    }

    fn remove_all(&self, pipeline: &str) -> Result<(), StateError> {
        self.rocks.remove_all(pipeline)
    }

    fn remove_others(&self, pipelines: &[&str]) -> Result<(), StateError> {
        self.rocks.remove_others(pipelines)
    }

    fn flush_interval_ms(&self) -> i64 {
        self.rocks.flush_interval_ms()
    }
}

impl StateBackend for KilledState {
    fn position(&self) -> &Position {
        self.rocks.position()
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        self.clock.fetch_add(READ_MS, Ordering::Relaxed);
        self.rocks.multi_get(store, keys)
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.clock.fetch_add(READ_MS, Ordering::Relaxed);
        self.rocks.range(store, range, visit)
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        self.world.lock().store_fails()?;
        self.rocks.apply(batch)?;
        self.world.lock().store_fails()
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.world.lock().store_fails()?;
        self.rocks.flush()?;
        self.world.lock().store_fails()
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.rocks.reader()
    }
}

fn input(world: &mut World, topics: &[&str], random: &mut SmallRng) {
    let mut time = 20;
    for number in 0..80 {
        time += random.random_range(0..3);
        let key = ["a", "b", "c", "d"][random.random_range(0..4)];
        let (value, partition) = (number.to_string(), i32::from(key == "b"));
        let at = time - if random.random_ratio(1, 8) { random.random_range(0..20) } else { 0 };
        let value = if random.random_ratio(1, 20) { "~" } else { &value };
        world.produce(topics[random.random_range(0..topics.len())], partition, &[(key, value, at)]);
    }
}

/// What a kill left of each task.
struct Left {
    lossy: u32,
    stores: u32,
}

/// Compares all stores below a directory with their changelogs.
fn check(dir: &Path, factory: &RocksFactory, world: &World, topology: &Topology, looked_at: &Path) -> Left {
    let graph = topology.sub_topologies[0].graph.as_ref().unwrap();
    let mut left = Left { lossy: 0, stores: 0 };
    for partition in 0..PARTITIONS {
        let task = dir.join("p").join(format!("0-{partition}"));
        if !task.exists() {
            continue;
        }
        // Closing a store writes, and this one goes on.
        let copy = crashed(&task, looked_at.join("copy"));
        {
            let store = factory.open(&copy, &graph.store_specs()).unwrap();
            for (index, used) in graph.stores.iter().enumerate() {
                let topic = &topology.outputs[used.changelog].topic;
                let end = store.position()[index].offset;
                let mut found = BTreeMap::new();
                let each = &mut |key: &[u8], value: &[u8]| {
                    found.insert(Blob::from(key), Blob::from(value));
                    ControlFlow::Continue(())
                };
                store.range(index, KeyRange::ALL, each).unwrap();
                assert_eq!(
                    found,
                    world.replay(topic, partition, end),
                    "{}, {partition}, up to {end}",
                    used.spec.name
                );
                let log = world.logs.get(&(topic.clone(), partition)).map_or(0, Vec::len) as i64;
                left.lossy += u32::from(end < log);
                left.stores += 1;
            }
        }
        std::fs::remove_dir_all(copy).unwrap();
    }
    left
}

/// Copies what the files of all tasks are now: what a kill leaves.
fn kill(from: &Path, to: &Path) {
    for partition in 0..PARTITIONS {
        let task = Path::new("p").join(format!("0-{partition}"));
        if from.join(&task).exists() {
            std::fs::create_dir_all(to.join("p")).unwrap();
            crashed(&from.join(&task), to.join(&task));
        }
    }
}

fn results(world: &Shared, partition: i32) -> Vec<String> {
    let mut out = world.lock().committed_records("out", partition);
    // Two tasks write to a partition; the records of a key come from one of them.
    out.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
    out
}

#[test]
fn killed_at_any_step_it_is_what_its_changelog_says() {
    let memory = StateMemory { block_cache_bytes: 8 << 20, write_buffer_bytes: 8 << 20, threads: 2 };
    let factory = Arc::new(RocksFactory::new(memory));
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let runs: u64 = std::env::var("PELTON_STORE_RUNS").map_or(2, |runs| runs.parse().unwrap());
    let (mut kills, mut all) = (0, Left { lossy: 0, stores: 0 });
    for (number, (nodes, topics)) in PIPELINES.iter().enumerate() {
        let topology = linked(nodes);
        for seed in 0..runs {
            let mut random = SmallRng::seed_from_u64(seed);
            let worlds = [(); 2].map(|()| Shared::default());
            for world in &worlds {
                input(&mut world.lock(), topics, &mut SmallRng::seed_from_u64(seed));
            }
            let [calm, stormy] = worlds;
            drive(&calm, &topology, PARTITIONS, &clock).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let mut dir = directory.path().join("0");
            for round in 1.. {
                let killed: Arc<Mutex<Option<PathBuf>>> = Arc::default();
                {
                    let (from, to) = (dir.clone(), directory.path().join(round.to_string()));
                    let killed = Arc::clone(&killed);
                    let mut world = stormy.lock();
                    let fault = FAULTS[random.random_range(0..FAULTS.len())];
                    world.fault = Some((random.random_range(0..10), fault));
                    world.at_fault = Some(Box::new(move || {
                        kill(&from, &to);
                        *killed.lock().unwrap() = Some(to.clone());
                    }));
                }
                clock.fetch_add([0, 2_000][random.random_range(0..2)], Ordering::Relaxed);
                let flush_interval_ms = [1, 60_000][random.random_range(0..2)];
                let rocks = DirStores {
                    factory: Arc::clone(&factory) as Arc<dyn StateFactory>,
                    dir: dir.clone(),
                    memory: MemoryBudget::new(u64::MAX),
                    flush_interval_ms,
                };
                let stores =
                    Arc::new(Killed { rocks, world: Arc::clone(&stormy), clock: Arc::clone(&clock) });
                // Each start may have another number of lanes.
                let ended = match random.random_range(1..4) {
                    1 => drive_with(hasty(), stores, &stormy, &topology, PARTITIONS, &clock),
                    lanes => {
                        let world = (&stormy, &topology, PARTITIONS);
                        let order = random.random_range(0..u64::MAX);
                        drive_lanes(lanes, Failing::All, stores, world, &clock, order).map(drop)
                    }
                };
                let killed = killed.lock().unwrap().take();
                let Some(to) = killed else {
                    ended.unwrap();
                    break;
                };
                kills += 1;
                dir = to;
                let left = check(&dir, &factory, &stormy.lock(), &topology, directory.path());
                (all.lossy, all.stores) = (all.lossy + left.lossy, all.stores + left.stores);
                if round == 30 {
                    stormy.lock().at_fault = None;
                    stormy.lock().fault = None;
                }
            }
            check(&dir, &factory, &stormy.lock(), &topology, directory.path());
            for partition in 0..PARTITIONS {
                let expect = results(&calm, partition);
                assert_eq!(
                    results(&stormy, partition),
                    expect,
                    "pipeline {number}, seed {seed}, partition {partition}"
                );
                assert!(
                    !expect.is_empty(),
                    "pipeline {number}, seed {seed}, partition {partition}: no results"
                );
            }
        }
    }
    println!("{kills} kills, {} stores compared, {} of them behind their changelogs", all.stores, all.lossy);
    assert!(
        all.lossy * 3 > all.stores,
        "of {} stores {} were behind: these are no kills",
        all.stores,
        all.lossy
    );
}

//! Several lanes over one world, which fail alone or together, in every order: what they write is what one lane writes.

use std::sync::atomic::AtomicI64;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::driver::sim::{Disk, FAULTS, Failing, Shared, World, drive, drive_lanes, linked};

const PARTITIONS: i32 = 2;

/// By key, and through a topic of the pipeline's own by value.
const BOTH: &str = "[[source]]\nid='in'\ntopic='in'\n\
                    [[node]]\nid='n'\nfrom='in'\naggregate='count'\n\
                    [[node]]\nid='g'\nfrom='in'\ngroup_by='raw'\naggregate='count'\n\
                    [[sink]]\nfrom='n'\ntopic='out'\n[[sink]]\nfrom='g'\ntopic='groups'\n";

fn input(world: &mut World, random: &mut SmallRng) {
    for number in 0..60 {
        let key = ["a", "b", "c", "d"][random.random_range(0..4)];
        let partition = i32::from(matches!(key, "b" | "d"));
        let group = random.random_range(0..3).to_string();
        world.produce("in", partition, &[(key, &group, number)]);
    }
}

/// What was counted of each key, in order, without the times, which are those of the record that came last.
fn counts(world: &Shared, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let world = world.lock();
    for record in (0..PARTITIONS).flat_map(|partition| world.committed_records(topic, partition)) {
        let (key, count) = record.split_once('@').unwrap().0.split_once('=').unwrap();
        seen.entry(key.to_owned()).or_default().push(count.to_owned());
    }
    seen
}

/// Each lane fails alone, and begins again while the others go on; the process crashes; and each time it starts there is
/// another number of lanes.
#[test]
fn results_are_those_of_one_lane() {
    let (topology, clock) = (linked(BOTH), Arc::new(AtomicI64::new(1_000_000)));
    assert_eq!(topology.sub_topologies.len(), 2);
    let (mut alone, mut together) = (0, 0);
    for seed in 0..150 {
        let mut random = SmallRng::seed_from_u64(seed);
        let [calm, stormy] = [(); 2].map(|()| {
            let world = Shared::default();
            input(&mut world.lock(), &mut SmallRng::seed_from_u64(seed));
            world
        });
        drive(&calm, &topology, PARTITIONS, &clock).unwrap();
        let mut failures = 0;
        loop {
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            let steps = if failures < 5 { 0..3 } else { 0..40 };
            stormy.lock().fault = Some((random.random_range(steps), fault));
            clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
            let threads = random.random_range(1..5);
            let failing = [Failing::Alone, Failing::All][random.random_range(0..2)];
            let disk = Arc::new(Disk(Arc::clone(&stormy)));
            let order = random.random_range(0..u64::MAX);
            let world = (&stormy, &topology, PARTITIONS);
            let result = drive_lanes(threads, failing, disk, world, &clock, order);
            stormy.lock().check_stores(&topology);
            match result {
                Ok(restarts) => {
                    alone += restarts;
                    break;
                }
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            failures += 1;
            together += 1;
            if random.random_range(0..3) == 0 {
                stormy.lock().crash();
                stormy.lock().check_stores(&topology);
            }
        }
        for topic in ["out", "groups"] {
            assert_eq!(counts(&stormy, topic), counts(&calm, topic), "seed {seed}");
        }
    }
    assert!(alone > 20 && together > 20, "{alone} lanes failed alone, {together} with all others");
}

/// One that cannot go on stops all of them, where each has committed what it has done.
#[test]
fn a_lane_that_fails_for_good_stops_all() {
    let topology = linked(
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='p'\nfrom='in'\nplugin='obedient'\nkeeps_key=true\n\
         [[node]]\nid='m'\nfrom='p'\naggregate='count'\n\
         [[sink]]\nfrom='m'\ntopic='out'\n",
    );
    let (world, clock) = (Shared::default(), Arc::new(AtomicI64::new(1_000)));
    world.lock().produce("in", 0, &[("a", "1", 1); 9]);
    world.lock().produce("in", 1, &[("b", "1", 1), ("b", "trap", 2), ("b", "1", 3)]);
    let disk = Arc::new(Disk(Arc::clone(&world)));
    let failed = drive_lanes(2, Failing::Alone, disk, (&world, &topology, PARTITIONS), &clock, 5);
    let DriverError::Task(failure) = failed.unwrap_err() else { panic!("a record is to blame") };
    assert_eq!((failure.partition, failure.offset), (1, 1));
    let committed = world.lock().committed.clone();
    assert_eq!(committed.get(&("in".to_owned(), 1)), Some(&1), "the record before it is committed");
    let first = committed.get(&("in".to_owned(), 0)).copied().unwrap_or(0);
    let results = counts(&world, "out").get("a").map_or(0, Vec::len);
    assert_eq!(results as i64, first, "what was done is committed, and nothing else");
}

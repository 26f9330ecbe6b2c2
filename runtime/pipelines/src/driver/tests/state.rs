//! Drivers of pipelines that keep state, over logs and disks that fail at every step.
//!
//! The crash points of a store beside its changelog: a transaction that is open (a, b) or whose end nobody heard of (c), a
//! commit that the store has not taken over (d, e), or not flushed (f), a damaged store (h), one that does not fit its changelog
//! (i) or was away for too long (j), a store that takes nothing (l). At every start a store must be the replay of its changelog
//! up to its position, and in the end each result is there once.

use std::sync::atomic::AtomicI64;

use pelton_streams::state::{StateBackend, StateError, StoreSpec};
use pelton_streams::task::TaskId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::driver::sim::{Disk, Entry, FAULTS, Fate, Fault, Shared, World, drive, drive_with, hasty, linked};
use crate::stores::TaskStores;

const COUNT: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\naggregate='count'\n\
                     [[sink]]\nfrom='n'\ntopic='out'\n";
const JOIN: &str = "[[source]]\nid='l'\ntopic='left'\npartitioner='murmur2'\n\
                    [[source]]\nid='r'\ntopic='right'\npartitioner='murmur2'\n\
                    [[node]]\nid='j'\nfrom='l'\njoin={with='r',within='3ms',kind='outer',left='l',right='r'}\n\
                    [[node]]\nid='d'\nfrom='j'\naggregate={n='count',of='distinct:json:r'}\n\
                    [[sink]]\nfrom='d'\ntopic='out'\n";
/// A plugin that keeps something.
const KEEP: &str = "[[source]]\nid='in'\ntopic='in'\n\
                    [[node]]\nid='k'\nfrom='in'\nplugin='obedient'\nstores={seen={},recent={kind='window',retention='9ms'}}\n\
                    [[sink]]\nfrom='k'\ntopic='out'\n";
/// One with timers.
const WAIT: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='t'\nfrom='in'\nplugin='timers'\n\
                    [[sink]]\nfrom='t'\ntopic='out'\n";

/// A plugin that aggregates.
const FOLD: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='f'\nfrom='in'\naggregate={plugin='last'}\n\
                    [[sink]]\nfrom='f'\ntopic='out'\n";

/// Records of a group are in both partitions.
const GROUP: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\ngroup_by='raw'\naggregate='count'\n\
                     [[sink]]\nfrom='n'\ntopic='out'\n";

/// Input of some keys, with times that mostly rise.
fn input(world: &mut World, topics: &[&str], random: &mut SmallRng) {
    let mut time = 0;
    for number in 0..60 {
        time += random.random_range(0..3);
        let key = ["a", "b", "c"][random.random_range(0..3)];
        let (value, partition) = (number.to_string(), i32::from(key == "b"));
        let topic = topics[random.random_range(0..topics.len())];
        world.produce(topic, partition, &[(key, &value, time)]);
    }
}

/// Whatever fails at whatever moment, what a pipeline writes is what it writes without failures.
#[test]
fn results_are_those_of_a_run_without_failures() {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    for (nodes, topics) in
        [(COUNT, &["in"][..]), (KEEP, &["in"]), (FOLD, &["in"]), (WAIT, &["in"]), (JOIN, &["left", "right"])]
    {
        let topology = linked(nodes);
        let (mut damaged, mut results) = (0, 0);
        for seed in 0..150 {
            let mut random = SmallRng::seed_from_u64(seed);
            let [calm, stormy] = [(); 2].map(|()| {
                let mut world = World::default();
                input(&mut world, topics, &mut SmallRng::seed_from_u64(seed));
                Arc::new(Mutex::new(world))
            });
            drive(&calm, &topology, 2, &clock).unwrap();
            let mut failures = 0;
            loop {
                let fault = FAULTS[random.random_range(0..FAULTS.len())];
                // The first ones are sure to come.
                let steps = if failures < 5 { 0..2 } else { 0..20 };
                stormy.lock().fault = Some((random.random_range(steps), fault));
                // Some drivers take over and flush more often than others.
                clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
                let result = drive(&stormy, &topology, 2, &clock);
                stormy.lock().check_stores(&topology);
                match result {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
                failures += 1;
                if random.random_range(0..3) == 0 {
                    stormy.lock().crash();
                    stormy.lock().check_stores(&topology);
                }
            }
            damaged += stormy.lock().removed;
            for partition in 0..2 {
                // Two tasks write to a partition; the records of a key come from one of them.
                let out = |world: &Shared| {
                    let mut out = world.lock().committed_records("out", partition);
                    out.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
                    out
                };
                assert_eq!(out(&stormy), out(&calm), "partition {partition}, seed {seed}");
                results += out(&calm).len();
            }
        }
        assert!(damaged > 0 && results > 0, "{damaged} stores were damaged, and {results} results came");
    }
}

/// A record that closes more than goes out at once, whatever fails between its parts: each result comes once, and in order.
#[test]
fn what_one_record_closes_goes_out_in_parts() {
    const KEYS: usize = pelton_streams::operator::CLOSED_AT_ONCE * 5 / 2;
    let nodes = "[[source]]\nid='in'\ntopic='in'\n\
        [[node]]\nid='w'\nfrom='in'\nwindow={tumbling='5ms',emit='on-close'}\naggregate='count'\n\
        [[sink]]\nfrom='w'\ntopic='out'\n";
    let (topology, clock) = (linked(nodes), Arc::new(AtomicI64::new(1_000_000)));
    let expect: Vec<String> = {
        let mut keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).chain(["a".to_owned()]).collect();
        keys[..KEYS].sort();
        keys
    };
    for seed in 0..4 {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = Shared::default();
        for n in 0..KEYS {
            world.lock().produce("in", 0, &[(&format!("k{n}"), "x", 1)]);
        }
        world.lock().produce("in", 0, &[("a", "x", 100), ("k1", "x", 2), ("b", "x", 200)]);
        for failures in 0.. {
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            let steps = if failures < 4 { 0..5 } else { 0..20 };
            world.lock().fault = Some((random.random_range(steps), fault));
            clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
            let result = drive(&world, &topology, 1, &clock);
            world.lock().check_stores(&topology);
            match result {
                Ok(()) => break,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            if random.random_range(0..3) == 0 {
                world.lock().crash();
            }
        }
        // The key of a window is followed by its start.
        let out = counted(&world);
        let keys: Vec<&str> = out.iter().filter_map(|one| one.split(['\0', '\\', '=']).next()).collect();
        assert_eq!(keys.len(), expect.len(), "seed {seed}");
        assert!(keys.iter().eq(expect.iter()), "seed {seed}");
        assert!(out.iter().all(|one| one.contains("=1@")), "seed {seed}");
    }
}

/// Records are counted by what is not their key, through a topic of the pipeline's own: each once, whatever fails.
#[test]
fn records_go_once_through_a_repartition_topic() {
    let (topology, clock) = (linked(GROUP), Arc::new(AtomicI64::new(1_000_000)));
    let topic = "__pelton_p-n-repartition";
    assert_eq!(topology.sources[1].topic, topic);
    let mut purged = 0;
    for seed in 0..150 {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = Shared::default();
        let mut counts = [0; 3];
        for number in 0..60 {
            let (group, partition) = (random.random_range(0..3), random.random_range(0..2));
            counts[group] += 1;
            world.lock().produce("in", partition, &[("k", &group.to_string(), number)]);
        }
        let mut failures = 0;
        loop {
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            let steps = if failures < 5 { 0..3 } else { 0..40 };
            world.lock().fault = Some((random.random_range(steps), fault));
            clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
            let result = drive(&world, &topology, 2, &clock);
            world.lock().check_stores(&topology);
            match result {
                Ok(()) => break,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            failures += 1;
            if random.random_range(0..3) == 0 {
                world.lock().crash();
            }
        }
        let world = world.lock();
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in (0..2).flat_map(|partition| world.committed_records("out", partition)) {
            let (group, count) = record.split_once('@').unwrap().0.split_once('=').unwrap();
            seen.entry(group.to_owned()).or_default().push(count.to_owned());
        }
        for (group, count) in counts.iter().enumerate() {
            let expect: Vec<String> = (1..=*count).map(|n: u64| n.to_string()).collect();
            assert_eq!(seen.remove(&group.to_string()).unwrap_or_default(), expect, "seed {seed}");
        }
        for partition in 0..2 {
            let at = (topic.to_owned(), partition);
            // All of it is deleted in the end: the driver has ended in order.
            let end = world.logs.get(&at).map_or(0, Vec::len) as i64;
            assert_eq!(world.starts.get(&at).copied().unwrap_or(0), end, "seed {seed}");
            purged += end;
        }
    }
    assert!(purged > 0);
}

fn counted(world: &Shared) -> Vec<String> {
    world.lock().committed_records("out", 0)
}

/// A driver that has ended in order leaves its stores at the end, on disk: the next one has nothing to restore.
#[test]
fn a_stop_in_order_leaves_nothing_to_restore() {
    let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1), ("b", "1", 2), ("a", "1", 3)]);
    drive(&world, &topology, 1, &clock).unwrap();
    world.lock().crash();
    world.lock().check_stores(&topology);
    let changelog = "__pelton_p-n-changelog".to_owned();
    let end = world.lock().logs[&(changelog, 0)].len() as i64;
    assert_eq!(world.lock().stores[&TaskId { sub_topology: 0, partition: 0 }].position[0].offset, end);
    assert_eq!(counted(&world), ["a=1@1", "b=1@2", "a=2@3"]);
}

/// A store that does not fit its changelog, or may have missed that keys were deleted, is made again.
#[test]
fn a_store_that_cannot_be_trusted_is_made_again() {
    let makes_again = |spoil: fn(&mut World, &AtomicI64)| {
        let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
        let world = Shared::default();
        world.lock().produce("in", 0, &[("a", "1", 1), ("a", "1", 3)]);
        drive(&world, &topology, 1, &clock).unwrap();
        spoil(&mut world.lock(), &clock);
        world.lock().produce("in", 0, &[("a", "1", 5)]);
        drive(&world, &topology, 1, &clock).unwrap();
        let removed = world.lock().removed;
        (removed, counted(&world).pop().unwrap())
    };
    assert_eq!(makes_again(|_, _| {}), (0, "a=3@5".to_owned()));
    let away = |_: &mut World, clock: &AtomicI64| {
        clock.fetch_add(86_500_000, Ordering::Relaxed);
    };
    assert_eq!(makes_again(away), (1, "a=3@5".to_owned()));
    let ahead = |world: &mut World, _: &AtomicI64| {
        world.stores.get_mut(&TaskId { sub_topology: 0, partition: 0 }).unwrap().position[0].offset = 1_000;
    };
    assert_eq!(makes_again(ahead), (1, "a=3@5".to_owned()));
    // Another topic of its name: what it says is what there is.
    let renewed = |world: &mut World, _: &AtomicI64| {
        let changelog = "__pelton_p-n-changelog".to_owned();
        world.topic_ids.insert(changelog.clone(), 2);
        world.logs.remove(&(changelog, 0));
    };
    assert_eq!(makes_again(renewed), (1, "a=1@5".to_owned()));
    // The offsets alone would fit.
    let as_long = |world: &mut World, _: &AtomicI64| {
        world.topic_ids.insert("__pelton_p-n-changelog".to_owned(), 2);
    };
    assert_eq!(makes_again(as_long), (1, "a=3@5".to_owned()));
}

/// Records of a key may be in another partition than what is kept of them.
#[test]
fn a_topic_that_has_grown_stops_the_pipeline() {
    let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1)]);
    let error = drive(&world, &topology, 3, &clock).unwrap_err();
    assert!(!error.is_transient());
    let text = error.to_string();
    assert!(
        text.starts_with(
            "topic `in` has 3 partitions now, and what the pipeline keeps of its records is in 2"
        ),
        "{text}"
    );
    assert_eq!(world.lock().committed, BTreeMap::new());
}

/// The same with a store that nobody asks: what it has is not what the records of one topic make.
fn unasked() -> String {
    COUNT.replace("'n'", "'m'")
}

/// The task of the first partition.
const FIRST: TaskId = TaskId { sub_topology: 0, partition: 0 };

/// What operators have forgotten before a step that is put off is in no transaction yet, so stores do not take it over.
#[test]
fn a_step_that_is_tried_again_leaves_the_store_as_its_changelog_says() {
    let topology = linked(
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='p'\nfrom='in'\nplugin='obedient'\nkeeps_key=true\n\
         on_error={policy='retry',attempts=3,backoff_ms=1000,then='fail'}\n\
         [[node]]\nid='m'\nfrom='p'\naggregate='count'\nwindow={tumbling='10ms'}\n\
         [[sink]]\nfrom='m'\ntopic='out'\n",
    );
    let (world, clock) = (Shared::default(), Arc::new(AtomicI64::new(1_000_000)));
    // The first step has all but the last; the next one forgets the windows that it has closed, and fails.
    world.lock().produce("in", 0, &[("a", "1", 1), ("b", "1", 2), ("a", "1", 1_000), ("a", "trap", 1_001)]);
    drive(&world, &topology, 1, &clock).unwrap();
    world.lock().check_stores(&topology);
    let changelog = ("__pelton_p-m-changelog".to_owned(), 0);
    let forgotten = |entry: &&Entry| entry.fate == Fate::Committed && entry.value.is_none();
    assert_eq!(
        world.lock().logs[&changelog].iter().filter(forgotten).count(),
        2,
        "the step has forgotten windows"
    );
}

/// What a topic's records have become stays when the topic goes: results, and what is kept of them.
#[test]
fn what_is_kept_of_a_topic_outlives_the_topic() {
    let (topology, clock) = (linked(&unasked()), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1); 6]);
    // The first three records are in a commit that takes its time, the others in none.
    world.lock().revoked_at = Some(2);
    let patient = CommitSpec { interval_ms: 60_000, records: 1_000, ..CommitSpec::default() };
    let disk = Arc::new(Disk(Arc::clone(&world)));
    drive_with(patient, disk, &world, &topology, 1, &clock).unwrap();
    assert_eq!(counted(&world).len(), 6);
    world.lock().check_stores(&topology);
    {
        let mut world = world.lock();
        world.logs.remove(&("in".to_owned(), 0));
        world.committed.clear();
        world.revoked_at = None;
        world.produce("in", 0, &[("a", "1", 2)]);
    }
    drive(&world, &topology, 1, &clock).unwrap();
    assert_eq!(counted(&world).pop().unwrap(), "a=7@2");
}

/// A store that has been brought forward half of the way may have missed what the other half says of deleted keys.
#[test]
fn half_a_restore_is_as_old_as_the_store_was() {
    let (topology, clock) = (linked(&unasked()), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1)]);
    drive(&world, &topology, 1, &clock).unwrap();
    let before = world.lock().stores[&FIRST].position[0];
    clock.fetch_add(50_000_000, Ordering::Relaxed);
    let large = "x".repeat(12 << 20);
    let changes = [("b", large.as_str(), 1); 6];
    world.lock().produce("__pelton_p-m-changelog", 0, &changes);
    // The first chunk is taken over, the second is not.
    world.lock().fault = Some((1, Fault::StoreFull));
    let error = drive(&world, &topology, 1, &clock).unwrap_err();
    assert!(matches!(error, DriverError::State { error: StateError::Full(_), .. }), "{error}");
    let half = world.lock().stores[&FIRST].position[0];
    assert!(half.offset > before.offset, "the first half is there: {half:?}");
    assert_eq!(half.caught_up_ms, before.caught_up_ms);
    // It was away for too long then, whatever it has read since.
    clock.fetch_add(50_000_000, Ordering::Relaxed);
    drive(&world, &topology, 1, &clock).unwrap();
    assert_eq!(world.lock().removed, 1);
    let all = world.lock().stores[&FIRST].position[0];
    assert!(all.caught_up_ms > before.caught_up_ms + 100_000_000, "{all:?}");
}

/// A table joined by a field with another one: whatever fails, in the end each left row's last result is that of what both tables
/// say then, and nothing is left on its way.
#[test]
fn tables_joined_by_a_field_are_joined_whatever_fails() {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let nodes = |kind: &str| {
        format!(
            "[[table]]\nid='l'\ntopic='left'\npartitioner='murmur2'\n[[table]]\nid='r'\ntopic='right'\npartitioner='murmur2'\n\
             [[node]]\nid='j'\nfrom='l'\njoin={{with='r',by='json:k',kind='{kind}',left='l',right='r'}}\n\
             [[sink]]\nfrom='j'\ntopic='out'\n"
        )
    };
    let partition_of = |key: &str| {
        let mut murmur2 = pelton_streams::Partitioner::new(pelton_streams::PartitionerKind::Murmur2, 2, 0);
        murmur2.place(Some(key.as_bytes()), key.len())
    };
    let mut stale_or_joined = 0;
    for (kind, seed) in [("inner", 0), ("left", 1)]
        .into_iter()
        .flat_map(|(kind, odd)| (0..100).map(move |n| (kind, 2 * n + odd)))
    {
        let (topology, mut random, world) =
            (linked(&nodes(kind)), SmallRng::seed_from_u64(seed), Shared::default());
        let mut tables: [BTreeMap<&str, String>; 2] = Default::default();
        let mut failures = 0;
        for round in 0..4 {
            for number in 0..20 {
                let (side, n) = (random.random_range(0..2), 100 * round + number);
                let key = [["a", "b", "c"], ["x", "y", "z"]][side][random.random_range(0..3)];
                let value = match (random.random_range(0..5), side) {
                    (0, _) => "~".to_owned(),
                    (1, 0) => "{}".to_owned(),
                    (_, 0) => {
                        format!("{{\"k\":\"{}\",\"n\":{n}}}", ["x", "y", "z"][random.random_range(0..3)])
                    }
                    _ => n.to_string(),
                };
                let topic = ["left", "right"][side];
                world.lock().produce(topic, partition_of(key), &[(key, &value, number)]);
                if value == "~" {
                    tables[side].remove(key)
                } else {
                    tables[side].insert(key, value)
                };
            }
            loop {
                let fault = FAULTS[random.random_range(0..FAULTS.len())];
                let steps = if failures < 4 { 0..3 } else { 0..40 };
                world.lock().fault = Some((random.random_range(steps), fault));
                clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
                let result = drive(&world, &topology, 2, &clock);
                world.lock().check_stores(&topology);
                match result {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
                failures += 1;
                if random.random_range(0..3) == 0 {
                    world.lock().crash();
                }
            }
            let world = world.lock();
            let mut last: BTreeMap<String, String> = BTreeMap::new();
            for record in (0..2).flat_map(|partition| world.committed_records("out", partition)) {
                let (key, value) = record.rsplit_once('@').unwrap().0.split_once('=').unwrap();
                match value {
                    "~" => last.remove(key),
                    value => last.insert(key.to_owned(), value.to_owned()),
                };
                stale_or_joined += 1;
            }
            let mut expect = BTreeMap::new();
            for (key, left) in &tables[0] {
                let foreign = left.split('"').nth(3);
                let right = foreign.and_then(|foreign| tables[1].get(foreign));
                if right.is_some() || kind == "left" {
                    let right = right.map_or("null", String::as_str);
                    expect.insert((*key).to_owned(), format!("{{\"l\":{left},\"r\":{right}}}"));
                }
            }
            assert_eq!(last, expect, "{kind}, seed {seed}, round {round}");
            for topic in ["__pelton_p-j-answers-repartition", "__pelton_p-j-subscriptions-repartition"] {
                for partition in 0..2 {
                    let at = (topic.to_owned(), partition);
                    let end = world.logs.get(&at).map_or(0, Vec::len) as i64;
                    assert_eq!(world.starts.get(&at).copied().unwrap_or(0), end, "{topic} has what is done");
                }
            }
        }
    }
    assert!(stale_or_joined > 1_000, "{stale_or_joined} results");
}

/// A store whose restore takes longer than the changelog keeps deletions is made again: it may have read a value, and not what
/// said later that it was deleted.
#[test]
fn a_restore_that_takes_too_long_is_begun_again() {
    let (topology, clock) = (linked(&unasked()), Arc::new(AtomicI64::new(1_000)));
    for large in [0, 12 << 20] {
        let world = Shared::default();
        let value = "x".repeat(large);
        let changes = [("a", value.as_str(), 1), ("b", value.as_str(), 1), ("c", value.as_str(), 1)];
        world.lock().produce("__pelton_p-m-changelog", 0, &[&changes[..], &changes[..]].concat());
        world.lock().restore_ms = 86_400_001;
        // The first restore is too slow; nobody is asked to read it a third time.
        let slowed = Arc::clone(&world);
        let told = Arc::new(Mutex::new(0));
        let stores =
            Arc::new(Hasty { disk: Disk(Arc::clone(&world)), world: slowed, told: Arc::clone(&told) });
        drive_with(hasty(), stores, &world, &topology, 1, &clock).unwrap();
        assert_eq!((*told.lock(), world.lock().removed), (1, 1));
        world.lock().check_stores(&topology);
    }
}

/// Stores that are read fast once they were made again.
struct Hasty {
    disk: Disk,
    world: Shared,
    told: Arc<Mutex<u32>>,
}

impl TaskStores for Hasty {
    fn open(
        &self,
        pipeline: &str,
        task: TaskId,
        specs: &[StoreSpec],
    ) -> Result<Box<dyn StateBackend>, StateError> {
        self.disk.open(pipeline, task, specs)
    }

    fn remove(&self, pipeline: &str, task: TaskId) -> Result<(), StateError> {
        self.world.lock().restore_ms = 0;
        *self.told.lock() += 1;
        self.disk.remove(pipeline, task)
    }

    fn remove_all(&self, pipeline: &str) -> Result<(), StateError> {
        self.disk.remove_all(pipeline)
    }

    fn remove_others(&self, pipelines: &[&str]) -> Result<(), StateError> {
        self.disk.remove_others(pipelines)
    }

    fn flush_interval_ms(&self) -> i64 {
        self.disk.flush_interval_ms()
    }
}

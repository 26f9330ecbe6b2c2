//! The coordinator, the groups and the partitions together, over a disk that loses, tears and reorders what is not
//! synced.
//!
//! Several producers of both protocols run transactions at random: records in several partitions, offsets of a group,
//! commits, aborts, time-outs, take-overs, a disk that is full now and then, and copies of earlier requests. The power
//! goes at a sync point, or between two of them; the broker starts again, loses its power again while it recovers, and
//! starts again. Then every transaction must be there whole or not at all, as its client was told.
//!
//! A failing run prints its seed: `PELTON_SIM_SEED=<seed> cargo test -p pelton-coordinators --test sim` repeats it.
//! `PELTON_SIM_RUNS=<n>` sets how many seeds are taken; a hundredth of them is cut at every sync point.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says where it failed, and of which seed"
)]

mod client;
mod core;
mod reader;
mod requests;
mod sweeps;
mod world;

use std::sync::Arc;

use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::SimRng;

use crate::world::World;
use pelton_partitions::clock::ManualClock;

/// Steps of a run.
const STEPS: usize = 400;
const START_MS: i64 = 1_700_000_000_000;

/// Longest wait for the threads of a life: they wait for nothing but the disk, which answers at once.
const THREADS_END: std::time::Duration = std::time::Duration::from_secs(60);

/// Seeds of a run that takes some seconds.
const RUNS: u64 = 300;

/// One seed of so many.
fn seeds(every: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("PELTON_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("PELTON_SIM_RUNS").unwrap_or(RUNS).div_ceil(every)).collect(),
    }
}

/// When the power goes.
#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    /// In the middle of this sync point, counted from the first step.
    AtSync(u64),
    /// Before this step.
    BeforeStep(usize),
}

/// Says which run it was, should it fail.
struct Named(u64, When);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PELTON_SIM_SEED={}, the power goes {:?}", self.0, self.1);
        }
    }
}

fn in_a_life<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let done = runtime.block_on(work);
    // As the machine stops: no task gets to finish anything. Only a thread that deletes files does, before the next
    // life and not in the middle of it.
    runtime.shutdown_timeout(THREADS_END);
    done
}

/// What a run came to.
struct Ran {
    world: World,
    sync_points: u64,
}

fn run(disk: &SimStorage, clock: &Arc<ManualClock>, seed: u64, when: When) -> Ran {
    // Every second disk has no room ahead: there an append itself finds it full.
    disk.set_room_max(seed.is_multiple_of(2).then_some(8 << 10));
    in_a_life(async {
        let core = core::Core::start(disk, clock, 0).await.expect("the power is on");
        core.create_topics(disk).await.expect("the power is on");
        let mut world = World::new(seed);
        let before = disk.sync_points();
        if let When::AtSync(point) = when {
            disk.cut_power_at_sync_point(before + point);
        }
        let cut_before = if let When::BeforeStep(step) = when { step } else { usize::MAX };
        for step in 0..STEPS {
            if step == cut_before {
                disk.cut_power();
            }
            if world.step(&core, disk).await.is_err() {
                break;
            }
        }
        disk.clear_faults();
        disk.cut_power_at_sync_point(u64::MAX);
        Ran { world, sync_points: disk.sync_points() - before }
    })
}

/// Starts until a start is not cut, and judges what is there. Then once more, after a process that just ended.
fn recover(disk: &SimStorage, clock: &Arc<ManualClock>, world: &mut World, rng: &mut SimRng) {
    let mut life = 1;
    if disk.power_is_off() || rng.chance(50) {
        disk.crash(rng.bits());
        for _ in 0..rng.up_to(2) {
            disk.cut_power_at_sync_point(disk.sync_points() + rng.up_to(25) as u64);
            let started = in_a_life(async { core::Core::start(disk, clock, life).await.map(drop) });
            life += 1;
            if started.is_ok() {
                disk.cut_power();
            }
            disk.crash(rng.bits());
        }
    }
    for _ in 0..2 {
        in_a_life(async {
            let core = core::Core::start(disk, clock, life).await.expect("the power is on");
            world.judge(&core, disk).await;
        });
        life += 1;
    }
}

fn run_and_recover(seed: u64, when: When) -> World {
    let _named = Named(seed, when);
    let (disk, clock) = (SimStorage::new(), Arc::new(ManualClock::new(START_MS)));
    let mut ran = run(&disk, &clock, seed, when);
    let mut rng = SimRng::new(seed ^ 0x5eed);
    recover(&disk, &clock, &mut ran.world, &mut rng);
    ran.world
}

#[test]
fn transactions_are_whole_or_not_there_after_a_cut_at_any_sync_point() {
    let mut cuts = 0;
    for seed in seeds(100) {
        let (disk, clock) = (SimStorage::new(), Arc::new(ManualClock::new(START_MS)));
        let points = run(&disk, &clock, seed, When::Never).sync_points;
        for point in 0..points {
            run_and_recover(seed, When::AtSync(point));
        }
        cuts += points;
    }
    println!("{cuts} cuts");
    assert!(cuts > 0, "nothing was cut");
}

#[test]
fn transactions_are_whole_or_not_there_after_a_cut_at_any_moment() {
    let mut sum = world::Count::default();
    for seed in seeds(1) {
        let mut rng = SimRng::new(seed ^ 0xc07);
        let when = When::BeforeStep(STEPS / 3 + rng.up_to(STEPS * 2 / 3));
        sum.add(&run_and_recover(seed, when).count());
    }
    println!("{sum:?}");
    // A run with too little in it shows nothing.
    assert!(sum.is_substantial(), "{sum:?}");
}

#[test]
fn a_run_repeats_by_its_seed() {
    for seed in seeds(130) {
        let trace = || {
            let (disk, clock) = (SimStorage::new(), Arc::new(ManualClock::new(START_MS)));
            run(&disk, &clock, seed, When::Never).world.trace
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

//! Power cuts and failing disks. A random run over several partitions is stopped at every sync point (or at every call), the
//! machine loses what it may lose, and the directory is opened again. What is there must be the state after some prefix of all
//! operations, in the order in which they were submitted, and that prefix must hold everything that was acknowledged.
//!
//! A failing run prints its seed: `CRASH_SEED=<seed> cargo test -p pelton-commitlog --test crash` repeats it.
//! `CRASH_RUNS=<n>` sets how many seeds a test takes.

mod compaction;
mod history;
mod run;
mod table;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_commitlog::storage::sim::{Call, SimError, SimRng};
use pelton_commitlog::storage::{DiskStorage, OpenMode, SimStorage, Storage};
use pelton_commitlog::{LogDir, Threads};

use history::check;
use run::{Doing, Run, config, open};

const ROOT: &str = "/data";
/// Operations of one run.
const STEPS: usize = 60;

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("CRASH_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("CRASH_RUNS").unwrap_or(default)).collect(),
    }
}

fn run_on(storage: &SimStorage, seed: u64) -> Run {
    let mut run = Run::new(Path::new(ROOT), Arc::new(storage.clone()), seed, Threads::ByHand);
    run.steps(STEPS);
    run
}

/// Crashes, and crashes again `cuts` times while the start recovers; then everything must be in order, and stay so.
fn recover_and_check(storage: &SimStorage, run: Run, seed: u64, cuts: u64, what: &str) {
    let history = run.stop();
    storage.crash(seed);
    for cut in 0..cuts {
        storage.cut_power_at_sync_point(storage.sync_points() + cut * 3);
        let opened = LogDir::open(Path::new(ROOT), config(Threads::ByHand), Arc::new(storage.clone()));
        assert!(opened.is_ok() || storage.power_is_off(), "{what}: {}", opened.err().expect("failed"));
        drop(opened);
        storage.crash(seed + cut + 1);
    }
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let (dir, recovered) = open(Path::new(ROOT), &shared, Threads::ByHand, what);
    let found = check(&history, &recovered, what);
    // What was recovered is durable by now: a second crash changes nothing.
    drop((dir, recovered));
    storage.crash(seed + 100);
    let (dir, recovered) = open(Path::new(ROOT), &shared, Threads::ByHand, what);
    let again = check(&history, &recovered, what);
    assert_eq!(found, again, "{what}: a second crash changed what was recovered");
    // And it can be worked with.
    let mut run =
        Run::resume(Path::new(ROOT), shared.clone(), seed + 1, Threads::ByHand, (dir, recovered), history);
    run.steps(10);
    let history = run.close(what);
    let (_, recovered) = open(Path::new(ROOT), &shared, Threads::ByHand, what);
    check(&history, &recovered, what);
}

#[test]
fn a_power_cut_at_any_sync_point_loses_nothing_acknowledged() {
    for seed in seeds(6) {
        cut_everywhere(seed, &SimStorage::new());
    }
}

#[test]
fn a_power_cut_without_direct_io_loses_nothing_acknowledged() {
    for seed in seeds(2) {
        let disk = SimStorage::new();
        disk.refuse_direct_io();
        cut_everywhere(seed, &disk);
    }
}

/// A server that is killed leaves what it wrote in the page cache. The next start builds on that, and then the power goes.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing_acknowledged() {
    for seed in seeds(10) {
        let storage = SimStorage::new();
        let history = run_on(&storage, seed).stop();
        let before = storage.sync_points();
        let whole = storage.fork();
        drop(open(Path::new(ROOT), &(Arc::new(whole.clone()) as _), Threads::ByHand, "killed"));
        // The copy counts from zero.
        for point in 0..=whole.sync_points() {
            let what = format!(
                "CRASH_SEED={seed}, killed, power cut at sync point {point} of the start ({before} before)"
            );
            let storage = storage.fork();
            storage.cut_power_at_sync_point(point);
            let opened = LogDir::open(Path::new(ROOT), config(Threads::ByHand), Arc::new(storage.clone()));
            assert!(opened.is_ok() || storage.power_is_off(), "{what}: {}", opened.err().expect("failed"));
            let found = opened.ok().map(|(dir, recovered)| (check(&history, &recovered, &what), dir).0);
            storage.crash(seed ^ point);
            let (_, recovered) =
                open(Path::new(ROOT), &(Arc::new(storage.clone()) as _), Threads::ByHand, &what);
            let again = check(&history, &recovered, &what);
            assert!(
                found.is_none_or(|found| found == again),
                "{what}: the start gave {found:?}, now {again}"
            );
        }
    }
}

fn cut_everywhere(seed: u64, disk: &SimStorage) {
    let whole = disk.fork();
    drop(run_on(&whole, seed));
    let points = whole.sync_points();
    let mut missed = 0;
    for point in 0..points {
        let what = format!("CRASH_SEED={seed}, power cut at sync point {point} of {points}");
        let storage = disk.fork();
        storage.cut_power_at_sync_point(point);
        let run = run_on(&storage, seed);
        // A truncation may save a sync point: then the last cuts come after the end.
        missed += u64::from(!storage.power_is_off());
        recover_and_check(&storage, run, seed ^ point, point % 4, &what);
    }
    assert!(missed * 10 <= points, "CRASH_SEED={seed}: {missed} of {points} power cuts came too late");
}

/// Every call of the run fails once, each time in a run of its own.
fn fail_each_call(seed: u64, error: impl Into<SimError>, stride: usize) {
    const CALLS: [Call; 11] = [
        Call::Open,
        Call::OpenDir,
        Call::Write,
        Call::WriteSync,
        Call::Sync,
        Call::SyncDir,
        Call::SetLen,
        Call::Reserve,
        Call::Rename,
        Call::CreateDir,
        Call::Remove,
    ];
    let (whole, error) = (SimStorage::new(), error.into());
    drop(run_on(&whole, seed));
    for call in CALLS {
        for n in (0..whole.calls(call)).step_by(stride) {
            let what = format!("CRASH_SEED={seed}, {error:?} at {call:?} number {n}");
            let storage = SimStorage::new();
            storage.fail_after(Some(call), "", n, error);
            let run = run_on(&storage, seed);
            recover_and_check(&storage, run, seed ^ n, 0, &what);
        }
    }
}

#[test]
fn an_error_of_the_disk_at_any_call_loses_nothing_acknowledged() {
    for seed in seeds(2) {
        fail_each_call(seed, ErrorKind::Other, 3);
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_is_not_final() {
    for seed in seeds(2) {
        fail_each_call(seed, ErrorKind::StorageFull, 3);
    }
}

/// No descriptor is left when something is to be opened, once in each run: what was asked for then is refused, and everything
/// else goes on. (A truncation that fails half-way ends its log, and a start ends: those runs may end there.)
#[test]
fn no_descriptor_at_any_call_loses_nothing_and_is_not_final() {
    for seed in seeds(2) {
        fail_each_call(seed, SimError::Os(libc::EMFILE), 3);
        let whole = SimStorage::new();
        drop(run_on(&whole, seed));
        let (mut went_on, mut all) = (0, 0);
        for call in [Call::Open, Call::OpenDir] {
            for n in (0..whole.calls(call)).step_by(2) {
                let storage = SimStorage::new();
                storage.fail_after(Some(call), "", n, SimError::Os(libc::EMFILE));
                let run = run_on(&storage, seed);
                all += 1;
                match run.failure() {
                    None => went_on += 1,
                    Some(failure) => {
                        assert_ne!(
                            run.doing(),
                            Doing::Other,
                            "CRASH_SEED={seed}, EMFILE at {call:?} number {n}: {failure}"
                        );
                    }
                }
            }
        }
        assert!(went_on * 2 > all, "CRASH_SEED={seed}: only {went_on} of {all} runs went on");
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_takes_appends_again() {
    for seed in seeds(20) {
        let what = format!("CRASH_SEED={seed}, full for a while");
        let storage = SimStorage::new();
        let mut run = Run::new(Path::new(ROOT), Arc::new(storage.clone()), seed, Threads::ByHand);
        for round in 0..4 {
            run.steps(10);
            storage.set_capacity(Some(0));
            run.steps(10);
            assert!(run.is_well(), "{what}: a full disk ended round {round}: {:?}", run.failure());
            storage.set_capacity(None);
        }
        assert!(run.full_errors() > 0 || run.is_idle(), "{what}: nothing was refused");
        recover_and_check(&storage, run, seed, seed % 3, &what);
    }
}

/// Damage anywhere: a start may refuse, and what it accepts must be readable or say what is wrong. It never panics.
#[test]
fn a_damaged_directory_is_opened_or_refused() {
    for seed in seeds(60) {
        let storage = SimStorage::new();
        drop(run_on(&storage, seed).stop());
        let files = files(&storage);
        for n in 0..20 {
            let mut rng = SimRng::new(seed * 1000 + n);
            let storage = storage.fork();
            for _ in 0..=rng.up_to(2) {
                damage(&storage, &files[rng.up_to(files.len() - 1)], &mut rng);
            }
            let Ok((dir, recovered)) =
                LogDir::open(Path::new(ROOT), config(Threads::ByHand), Arc::new(storage.clone()))
            else {
                continue;
            };
            for partition in &recovered {
                let reader = partition.log().reader();
                // A batch that cannot be read is an error of the read, not of the process.
                let _ = reader.read(reader.offsets().log_start, 1 << 20, i64::MAX, true);
            }
            let _ = dir.close();
        }
    }
}

fn files(storage: &SimStorage) -> Vec<PathBuf> {
    let (mut dirs, mut files) = (vec![PathBuf::from(ROOT)], Vec::new());
    while let Some(dir) = dirs.pop() {
        for path in storage.list(&dir).expect("it is a directory") {
            if storage.content(&path).is_ok() { files.push(path) } else { dirs.push(path) }
        }
    }
    files
}

fn damage(storage: &SimStorage, path: &Path, rng: &mut SimRng) {
    let len = storage.content(path).map_or(0, |bytes| bytes.len());
    match rng.up_to(3) {
        0 => {
            // Unless it was removed before.
            if let Ok(file) = storage.open(path, OpenMode::Write) {
                file.set_len(rng.up_to(2 * len) as u64).expect("there is room");
            }
        }
        1 => storage.remove_file(path).unwrap_or_default(),
        _ if len == 0 => {}
        _ => {
            let bits = rng.bits();
            let change = |bytes: &mut [u8]| {
                let end = bytes.len().min(1 + bits as usize % 600);
                bytes[..end].iter_mut().for_each(|byte| *byte = byte.rotate_left(3) ^ bits as u8);
            };
            storage.corrupt(path, rng.up_to(len - 1) as u64, change).unwrap_or_default();
        }
    }
}

/// Real files, real threads, and a directory that is dropped in the middle of everything; in memory too, where direct I/O may be missing.
#[test]
fn real_files_keep_what_was_acknowledged_when_the_server_is_dropped() {
    for base in [std::env::temp_dir(), "/dev/shm".into()] {
        if base.is_dir() {
            seeds(5).into_iter().for_each(|seed| drop_and_reopen(&base, seed));
        }
    }
}

fn drop_and_reopen(base: &Path, seed: u64) {
    let what = format!("CRASH_SEED={seed}, in {}", base.display());
    let temp = tempfile::tempdir_in(base).expect("a temporary directory");
    let storage: Arc<dyn Storage> = Arc::new(DiskStorage);
    let mut run = Run::new(temp.path(), storage.clone(), seed, Threads::Spawned);
    run.steps(3 * STEPS);
    assert!(run.is_well(), "{what}: {:?}", run.failure());
    let history = run.stop();
    let opened = open(temp.path(), &storage, Threads::Spawned, &what);
    check(&history, &opened.1, &what);
    let mut run = Run::resume(temp.path(), storage.clone(), seed + 1, Threads::Spawned, opened, history);
    run.steps(STEPS);
    let history = run.close(&what);
    assert_eq!(history.acknowledged(), history.submitted(), "{what}: a clean stop keeps everything");
    let (dir, recovered) = open(temp.path(), &storage, Threads::Spawned, &what);
    assert!(dir.recovery().clean, "{what}");
    check(&history, &recovered, &what);
}

//! How many files are open at a time.

use super::super::partitions::DIRTY_FILES_MAX;
use super::*;
use crate::config::SharedLimits;

#[test]
fn new_partitions_hold_a_descriptor_each() {
    const PARTITIONS: usize = 300;
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, by_hand());
    storage.set_handles_max(Some(PARTITIONS + 16));
    let mut logs: Vec<_> = (0..PARTITIONS as i32).map(|n| create(&dir, id("t", n))).collect();
    for (log, _) in &mut logs {
        append(log, b"first").unwrap();
    }
    assert!(dir.step().unwrap());
    dir.checkpoint().unwrap();
    drop((logs, dir));
    storage.set_handles_max(None);
    storage.crash(1);
    let (_dir, recovered) = open(&storage, by_hand());
    assert_eq!(recovered.iter().filter(|p| values(p.log()).len() == 1).count(), PARTITIONS);
}

#[test]
fn a_start_after_a_crash_keeps_few_files_open_beside_the_active_segments() {
    const PARTITIONS: usize = 1_000;
    const CACHED: usize = 16;
    let storage = SimStorage::new();
    let (dir, _) = open(&storage, by_hand());
    let logs: Vec<_> = (0..PARTITIONS as i32).map(|n| create(&dir, id("t", n))).collect();
    assert!(dir.step().unwrap());
    drop((logs, dir));
    storage.crash(1);
    // The segments, what is synced together, the cache of other files, and the journal's and the directory's own.
    storage.set_handles_max(Some(PARTITIONS + DIRTY_FILES_MAX + 2 * CACHED));
    let limits = SharedLimits { open_files: CACHED, ..SharedLimits::default() };
    let (_dir, recovered) = open(&storage, LogDirConfig { limits, ..by_hand() });
    assert_eq!(recovered.len(), PARTITIONS);
}

//! Stores that are opened and closed again and again take nothing with them: by the statistics of the allocator, which the
//! library's own memory comes from as well, by open files and by threads.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use pelton_state::{RocksFactory, StateMemory};
use pelton_streams::state::{
    Blob, ChangelogPosition, KeyRange, StateBatch, StateFactory, StoreKind, StoreSpec,
};

/// Opens before the first look: caches and lists that stay are there by then.
const WARM: u64 = 100;
const OPENS: u64 = 1_000;
/// What one open may leave on average: a part of what a handle, a cache's entry or a list of files takes.
const LEFT_MAX: u64 = 256;

#[derive(Debug, Clone, Copy)]
struct Look {
    allocated: u64,
    files: usize,
    threads: usize,
}

#[expect(
    unsafe_code,
    reason = "the C library has no safe wrapper of its statistics; the call takes nothing and cannot fail"
)]
fn look() -> Look {
    // SAFETY: mallinfo2 has no preconditions; it locks the allocator's arenas and returns a plain struct.
    let info = unsafe { libc::mallinfo2() };
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    Look {
        allocated: (info.uordblks + info.hblkhd) as u64,
        files: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
    }
}

/// Opens two stores, does with them what a task does, and closes them.
fn open_and_close(factory: &RocksFactory, dir: &Path, round: u64) {
    let spec = |name: &str| StoreSpec { name: name.to_owned(), ordered: true, kind: StoreKind::Rocksdb };
    let mut stores = factory.open(dir, &[spec("counts"), spec("windows")]).unwrap();
    let reader = stores.reader();
    let number = i64::try_from(round).unwrap();
    let position = vec![ChangelogPosition { offset: number, ..ChangelogPosition::default() }; 2];
    let change = |key: u64| (Blob::from(&key.to_be_bytes()[..]), Some(Blob::from(&round.to_be_bytes()[..])));
    let changes = vec![(0..20).map(change).collect(), vec![change(round % 7)]];
    stores.apply(StateBatch { changes, position }).unwrap();
    if round.is_multiple_of(8) {
        stores.flush().unwrap();
    }
    {
        let view = reader.view().unwrap();
        assert_eq!(view.get(0, &3_u64.to_be_bytes()).unwrap(), Some(Blob::from(&round.to_be_bytes()[..])));
        let mut seen = 0;
        view.range(0, KeyRange::ALL, &mut |_, _| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, 20);
    }
    let keys = [0_u64.to_be_bytes(), 9_u64.to_be_bytes()];
    assert!(stores.multi_get(0, &[&keys[0], &keys[1]]).unwrap().iter().all(Option::is_some));
}

#[test]
fn opening_and_closing_stores_leaves_nothing() {
    let memory = StateMemory { block_cache_bytes: 1 << 20, write_buffer_bytes: 8 << 20, threads: 1 };
    let factory = RocksFactory::new(memory);
    let dir = tempfile::tempdir().unwrap();
    let tasks = [dir.path().join("0-0"), dir.path().join("0-1")];
    let rounds = |from: u64, to: u64| {
        for round in from..to {
            let task = &tasks[usize::try_from(round % 2).unwrap()];
            open_and_close(&factory, task, round);
            // Files of a store that is removed go with it: what is left of it would be memory too.
            if round % 50 >= 48 {
                factory.remove(task).unwrap();
            }
        }
    };
    rounds(0, WARM);
    let before = look();
    rounds(WARM, WARM + OPENS);
    let after = look();
    let left = after.allocated.saturating_sub(before.allocated);
    println!("{OPENS} opens: {left} bytes more are allocated than before; {before:?} {after:?}");
    assert!(left <= OPENS * LEFT_MAX, "{left} bytes more are allocated: {before:?} {after:?}");
    assert_eq!((after.files, after.threads), (before.files, before.threads));
}

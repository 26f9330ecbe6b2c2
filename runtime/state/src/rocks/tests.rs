//! RocksDB beside the stores in memory.

use pelton_streams::state::{MemoryState, StoreKind};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const STORES: usize = 2;

fn specs() -> Vec<StoreSpec> {
    ["counts", "windows"]
        .map(|name| StoreSpec { name: name.to_owned(), ordered: true, kind: StoreKind::Rocksdb })
        .to_vec()
}

fn position(offset: i64) -> Position {
    vec![ChangelogPosition { topic_id: [7; 16], offset, caught_up_ms: offset * 2 }; STORES]
}

fn key(random: &mut SmallRng) -> Vec<u8> {
    (0..random.random_range(0..4)).map(|_| [0, 1, 2, 255][random.random_range(0..4)]).collect()
}

fn batch(random: &mut SmallRng, offset: i64) -> StateBatch {
    let changes = |random: &mut SmallRng| {
        let mut changes: Changes = (0..random.random_range(0..20))
            .map(|_| {
                let value: Option<Vec<u8>> = random.random_bool(0.7).then(|| vec![random.random(); 9]);
                (Blob::from(key(random)), value.map(Blob::from))
            })
            .collect();
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        changes.dedup_by(|a, b| a.0 == b.0);
        changes
    };
    StateBatch { changes: (0..STORES).map(|_| changes(random)).collect(), position: position(offset) }
}

fn scan(
    read: impl FnOnce(&mut Visit<'_>) -> Result<(), StateError>,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    read(&mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        if all.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    all
}

fn compare(rocks: &RocksState, memory: &MemoryState, random: &mut SmallRng) {
    assert_eq!(rocks.position(), memory.position());
    let reader = rocks.reader();
    let view = reader.view().unwrap();
    assert_eq!(view.position(), memory.position());
    for store in 0..STORES {
        let mut keys: Vec<_> = (0..8).map(|_| key(random)).collect();
        keys.sort();
        keys.dedup();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let expect = memory.multi_get(store, &keys).unwrap();
        assert_eq!(rocks.multi_get(store, &keys).unwrap(), expect);
        for (key, value) in keys.iter().zip(expect) {
            assert_eq!(view.get(store, key).unwrap(), value);
        }
        let (from, to) = (key(random), random.random::<bool>().then(|| key(random)));
        for reverse in [false, true] {
            let range = KeyRange { from: &from, to: to.as_deref(), reverse };
            let limit = random.random_range(1..10);
            let expect = scan(|visit| memory.range(store, range, visit), limit);
            assert_eq!(scan(|visit| rocks.range(store, range, visit), limit), expect, "{range:?}");
            assert_eq!(scan(|visit| view.range(store, range, visit), limit), expect, "{range:?}");
        }
    }
}

#[test]
fn it_does_what_a_map_does() {
    let options = StateOptions::default();
    for seed in 0..10 {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut rocks = RocksState::open(dir.path(), &specs(), &options).unwrap();
        let mut memory = MemoryState::new(STORES);
        assert_eq!(rocks.position(), &vec![ChangelogPosition::default(); STORES]);
        for offset in 1..60 {
            let batch = batch(&mut random, offset);
            memory.apply(batch.clone()).unwrap();
            match random.random_range(0..4) {
                0 => rocks.restore(batch).unwrap(),
                _ => rocks.apply(batch).unwrap(),
            }
            match random.random_range(0..12) {
                0 => rocks.flush().unwrap(),
                1 => {
                    drop(rocks);
                    rocks = RocksState::open(dir.path(), &specs(), &options).unwrap();
                }
                _ => {}
            }
            compare(&rocks, &memory, &mut random);
        }
    }
}

#[test]
fn a_view_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = RocksState::open(dir.path(), &specs(), &StateOptions::default()).unwrap();
    let one = |value: &str, offset| StateBatch {
        changes: vec![vec![(Blob::from(*b"k"), Some(Blob::from(value.as_bytes())))], Vec::new()],
        position: position(offset),
    };
    rocks.apply(one("old", 1)).unwrap();
    let reader = rocks.reader();
    let view = reader.view().unwrap();
    rocks.apply(one("new", 2)).unwrap();
    assert_eq!((view.get(0, b"k").unwrap().as_deref(), view.position()[0].offset), (Some(&b"old"[..]), 1));
    assert_eq!(reader.view().unwrap().get(0, b"k").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_store_that_is_not_wanted_any_more_goes_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions::default();
    let mut rocks = RocksState::open(dir.path(), &specs(), &options).unwrap();
    let change = |value: &str| vec![(Blob::from(*b"k"), Some(Blob::from(value.as_bytes())))];
    rocks.apply(StateBatch { changes: vec![change("a"), change("b")], position: position(1) }).unwrap();
    drop(rocks);
    let kept = RocksState::open(dir.path(), &specs()[1..], &options).unwrap();
    assert_eq!(kept.multi_get(0, &[b"k"]).unwrap(), [Some(Blob::from(*b"b"))]);
    drop(kept);
    let again = RocksState::open(dir.path(), &specs(), &options).unwrap();
    assert_eq!(again.multi_get(0, &[b"k"]).unwrap(), [None]);
    assert_eq!(again.position()[0], ChangelogPosition::default());
    assert_eq!(again.position()[1].offset, 1);
}

#[test]
fn damage_and_a_second_owner_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions::default();
    let mut rocks = RocksState::open(dir.path(), &specs(), &options).unwrap();
    let values = (0..1000u32).map(|n| (Blob::from(n.to_be_bytes()), Some(Blob::from([7; 50])))).collect();
    rocks.apply(StateBatch { changes: vec![values, Vec::new()], position: position(1) }).unwrap();
    rocks.flush().unwrap();
    let second = RocksState::open(dir.path(), &specs(), &options).err().unwrap();
    assert!(matches!(second, StateError::Storage(_)), "{second}");
    drop(rocks);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let read = RocksState::open(dir.path(), &specs(), &options)
        .and_then(|rocks| rocks.range(0, KeyRange::ALL, &mut |_, _| ControlFlow::Continue(())));
    assert!(matches!(read, Err(StateError::Corrupt(_))), "{read:?}");
}

/// A database of which files are missing or wrong is damaged: it is made again, and is not tried for ever as it is.
#[test]
fn files_that_are_lost_are_damage() {
    let is = |path: &Path, beginning: &str| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))
    };
    let sst = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    type Spoil<'a> = (&'a str, &'a dyn Fn(&Path) -> bool, &'a dyn Fn(&Path));
    let spoils: [Spoil<'_>; 4] = [
        ("no manifest", &|path| is(path, "MANIFEST"), &|path| std::fs::remove_file(path).unwrap()),
        ("no table file", &sst, &|path| std::fs::remove_file(path).unwrap()),
        ("an empty table file", &sst, &|path| std::fs::write(path, "").unwrap()),
        ("another manifest's name", &|path| is(path, "CURRENT"), &|path| {
            std::fs::write(path, "MANIFEST-999999\n").unwrap();
        }),
    ];
    let options = StateOptions::default();
    for (what, which, spoil) in spoils {
        let dir = tempfile::tempdir().unwrap();
        let mut rocks = RocksState::open(dir.path(), &specs(), &options).unwrap();
        let values = (0..1000u32).map(|n| (Blob::from(n.to_be_bytes()), Some(Blob::from([7; 50])))).collect();
        rocks.apply(StateBatch { changes: vec![values, Vec::new()], position: position(1) }).unwrap();
        rocks.flush().unwrap();
        drop(rocks);
        let paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let chosen: Vec<PathBuf> = paths.filter(|path| which(path)).collect();
        assert!(!chosen.is_empty(), "{what}");
        chosen.iter().for_each(|path| spoil(path));
        let read = RocksState::open(dir.path(), &specs(), &options)
            .and_then(|rocks| rocks.range(0, KeyRange::ALL, &mut |_, _| ControlFlow::Continue(())));
        assert!(matches!(read, Err(StateError::Corrupt(_))), "{what}: {read:?}");
    }
}

#[test]
fn what_the_disk_says_is_told_apart() {
    let io =
        |text: &str| told(ErrorKind::IOError, format!("IO error: While appending to file: 7.sst: {text}"));
    for text in ["No space left on device", "Disk quota exceeded"] {
        assert!(matches!(io(text), StateError::Full(_)), "{text}");
    }
    // Not only of the file that did not fit: a database that has stopped says of every later write why.
    let stopped = "Not implemented: the database is read-only: IO error: No space left on device: 7.sst";
    assert!(matches!(told(ErrorKind::NotSupported, stopped.to_owned()), StateError::Full(_)));
    assert!(matches!(io("Input/output error"), StateError::Corrupt(_)));
    for text in ["Permission denied", "Too many open files", "lock hold by current process"] {
        assert!(matches!(io(text), StateError::Storage(_)), "{text}: nothing is wrong with what is stored");
    }
}

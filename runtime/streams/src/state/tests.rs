//! The state of a task against a map that is copied at every moment that can be returned to.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

type Model = Vec<BTreeMap<Vec<u8>, Vec<u8>>>;

const STORES: usize = 2;

fn specs() -> Vec<StoreSpec> {
    let spec = |n| StoreSpec { name: format!("s{n}"), ordered: n == 0, kind: StoreKind::Memory };
    (0..STORES).map(spec).collect()
}

fn position(offset: i64) -> Position {
    vec![ChangelogPosition { topic_id: [1; 16], offset, caught_up_ms: 5 }; STORES]
}

fn scan(
    range: KeyRange<'_>,
    limit: usize,
    read: impl FnOnce(&mut Visit<'_>) -> Result<(), StateError>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    read(&mut |key, value| {
        assert!(range.contains(key));
        all.push((key.to_vec(), value.to_vec()));
        if all.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    all
}

fn expect(model: &BTreeMap<Vec<u8>, Vec<u8>>, range: KeyRange<'_>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let hits = model.iter().filter(|(key, _)| range.contains(key)).map(|(k, v)| (k.clone(), v.clone()));
    let mut all: Vec<_> = hits.collect();
    if range.reverse {
        all.reverse();
    }
    all.truncate(limit);
    all
}

fn key(random: &mut SmallRng) -> Vec<u8> {
    let len = random.random_range(0..4);
    (0..len).map(|_| [0, 1, 127, 255][random.random_range(0..4)]).collect()
}

struct World {
    state: TaskState,
    now: Model,
    applied: Model,
    /// A batch that was taken and not applied, and the model that it leads to.
    taken: Option<(StateBatch, Model)>,
    savepoints: Vec<(Savepoint, Model)>,
    /// The changelog, and its length at each end of a transaction.
    changelog: Model,
    offset: i64,
}

impl World {
    fn step(&mut self, random: &mut SmallRng) {
        let store = random.random_range(0..STORES);
        match random.random_range(0..100) {
            0..35 => {
                let key = key(random);
                let value: Option<Vec<u8>> =
                    random.random_bool(0.7).then(|| vec![random.random(); random.random_range(0..40)]);
                self.state.put(store, &key, value.as_deref().map(Blob::from));
                match value {
                    Some(value) => self.now[store].insert(key, value),
                    None => self.now[store].remove(&key),
                };
            }
            35..60 => {
                let keys: Vec<_> = (0..random.random_range(1..5)).map(|_| key(random)).collect();
                if random.random() {
                    self.state.prefetch(store, keys.iter().map(Vec::as_slice)).unwrap();
                }
                for key in keys {
                    let value = self.state.get(store, &key).unwrap();
                    assert_eq!(value.as_deref(), self.now[store].get(&key).map(Vec::as_slice));
                }
            }
            60..75 => {
                let (from, to) = (key(random), random.random::<bool>().then(|| key(random)));
                let range = KeyRange { from: &from, to: to.as_deref(), reverse: random.random() };
                let limit = random.random_range(1..10);
                let seen = scan(range, limit, |visit| self.state.range(store, range, visit));
                assert_eq!(seen, expect(&self.now[store], range, limit), "{range:?}");
            }
            75..85 => {
                let savepoint = self.state.savepoint();
                self.savepoints.push((savepoint, self.now.clone()));
            }
            85..92 => {
                if let Some((savepoint, before)) = self.savepoints.pop() {
                    if random.random() {
                        self.state.roll_back(savepoint);
                        self.now = before;
                    } else {
                        self.state.release(savepoint);
                    }
                }
            }
            _ if !self.savepoints.is_empty() => {}
            92..96 => self.commit(random),
            _ => self.apply(),
        }
    }

    fn commit(&mut self, random: &mut SmallRng) {
        for (store, changes) in self.state.end_transaction().into_iter().enumerate() {
            let mut keys: Vec<_> = changes.iter().map(|(key, _)| key.clone()).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), changes.len(), "each key once");
            for (key, value) in changes {
                self.offset += 1;
                match value {
                    Some(value) => self.changelog[store].insert(key.to_vec(), value.to_vec()),
                    None => self.changelog[store].remove(&*key),
                };
            }
        }
        assert_eq!(self.changelog, self.now, "the changelog says everything");
        if random.random() {
            let position = position(self.offset);
            if let Some(batch) = self.state.take_changes(position) {
                for changes in &batch.changes {
                    assert!(changes.is_sorted_by(|a, b| a.0 < b.0), "sorted, each key once");
                }
                self.taken = Some((batch, self.now.clone()));
            }
        }
    }

    fn apply(&mut self) {
        if let Some((batch, model)) = self.taken.take() {
            let offset = batch.position[0].offset;
            self.state.apply(batch).unwrap();
            self.applied = model;
            assert_eq!(self.state.position()[0].offset, offset);
        }
        let reader = self.state.reader();
        let view = reader.view().unwrap();
        for (store, model) in self.applied.iter().enumerate() {
            let seen = scan(KeyRange::ALL, usize::MAX, |visit| view.range(store, KeyRange::ALL, visit));
            assert_eq!(
                seen,
                expect(model, KeyRange::ALL, usize::MAX),
                "readers see what was applied, no more"
            );
        }
    }
}

#[test]
fn state_is_what_was_written_and_not_undone() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let limits = StateLimits { cache_bytes: [0, 500, 1 << 20][seed as usize % 3], changed_bytes: 1000 };
        let empty = vec![BTreeMap::new(); STORES];
        let mut world = World {
            state: TaskState::new(Box::new(MemoryState::new(STORES)), &specs(), limits),
            now: empty.clone(),
            applied: empty.clone(),
            taken: None,
            savepoints: Vec::new(),
            changelog: empty,
            offset: 0,
        };
        for _ in 0..400 {
            world.step(&mut random);
        }
        while let Some((savepoint, _)) = world.savepoints.pop() {
            world.state.release(savepoint);
        }
        world.commit(&mut random);
        world.apply();
        world.commit(&mut random);
        if let Some(batch) = world.state.take_changes(position(world.offset)) {
            world.taken = Some((batch, world.now.clone()));
        }
        world.apply();
        assert_eq!(world.state.changed_bytes(), 0, "all is clean once it was applied, seed {seed}");
    }
}

#[test]
fn the_end_of_a_prefix() {
    let cases: [(&[u8], Option<&[u8]>); 5] = [
        (b"", None),
        (b"a", Some(b"b")),
        (b"a\xff", Some(b"b")),
        (b"\xff\xff", None),
        (b"a\x00", Some(b"a\x01")),
    ];
    for (prefix, end) in cases {
        assert_eq!(prefix_end(prefix).as_deref(), end);
    }
}

fn changes(entries: &[(&str, Option<&str>)]) -> Changes {
    let blob = |text: &str| Blob::from(text.as_bytes());
    entries.iter().map(|(key, value)| (blob(key), value.map(blob))).collect()
}

/// Bytes that an entry takes besides its own.
const OVERHEAD: u64 = 96;

#[test]
fn stores_in_memory_have_so_much_of_it_together() {
    let budget = MemoryBudget::new(2 * OVERHEAD + 4);
    let mut stores = [(); 2].map(|()| MemoryState::within(1, &budget));
    let batch = |entries: &[(&str, Option<&str>)]| StateBatch {
        changes: vec![changes(entries)],
        position: vec![ChangelogPosition { offset: 7, ..ChangelogPosition::default() }],
    };
    stores[0].apply(batch(&[("a", Some("1"))])).unwrap();
    stores[1].apply(batch(&[("b", Some("2"))])).unwrap();
    assert_eq!(budget.used(), 2 * OVERHEAD + 4);
    // What replaces something needs no more than the difference.
    stores[0].apply(batch(&[("a", Some("3"))])).unwrap();
    let refused = stores[0].apply(batch(&[("a", Some("33"))])).unwrap_err();
    assert_eq!(refused, StateError::Memory { limit: 2 * OVERHEAD + 4 });
    assert!(refused.to_string().contains("`pelton.state.memory.max.bytes`"), "{refused}");
    let has = |store: &MemoryState, key: &str| {
        let found = store.multi_get(0, &[key.as_bytes()]).unwrap().pop().unwrap();
        found.map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    assert_eq!(has(&stores[0], "a").as_deref(), Some("3"), "nothing of it was taken over");
    stores[0].apply(batch(&[("a", None), ("c", Some("4"))])).unwrap();
    let [first, second] = stores;
    drop(second);
    assert_eq!(budget.used(), OVERHEAD + 2, "a store that goes gives back what it had");
    drop(first);
    assert_eq!(budget.used(), 0);
}

#[test]
fn stores_of_both_kinds_are_read_as_they_were_between_two_batches() {
    let spec = |name: &str, kind| StoreSpec { name: name.to_owned(), ordered: true, kind };
    let (disk, memory) = (StoreKind::Rocksdb, StoreKind::Memory);
    let specs = [spec("m", memory), spec("d", disk), spec("n", memory)];
    let budget = MemoryBudget::new(3 * OVERHEAD + 100);
    let in_memory = MemoryState::within(2, &budget);
    let mut mixed = MixedState::new(&specs, Box::new(MemoryState::new(1)), in_memory);
    let at = |offset| vec![ChangelogPosition { offset, ..ChangelogPosition::default() }; 3];
    let batch = |offset: i64| {
        let value = offset.to_string();
        let of = |key: &str| changes(&[(key, Some(&value))]);
        StateBatch { changes: vec![of("m"), of("d"), of("n")], position: at(offset) }
    };
    let reader = mixed.reader();
    let seen = |view: &dyn StateView| {
        let values = ["m", "d", "n"].into_iter().enumerate().map(|(store, key)| {
            let value = view.get(store, key.as_bytes()).unwrap();
            value.map_or_else(String::new, |value| String::from_utf8(value.to_vec()).unwrap())
        });
        (view.position()[1].offset, values.collect::<Vec<_>>())
    };
    let expect = |offset: i64| (offset, vec![offset.to_string(); 3]);
    for offset in 1..4 {
        mixed.apply(batch(offset)).unwrap();
        assert_eq!(*mixed.position(), at(offset));
        assert_eq!(seen(&*reader.view().unwrap()), expect(offset));
    }
    let pinned = reader.pinned().unwrap();
    let large = "x".repeat(200);
    let too_much = StateBatch {
        changes: vec![changes(&[("m", Some(&large))]), changes(&[("d", None)]), vec![]],
        position: at(9),
    };
    assert!(matches!(mixed.apply(too_much), Err(StateError::Memory { .. })));
    assert_eq!(seen(&*reader.view().unwrap()), expect(3), "no part of it was taken over");
    // A chunk of a restore is of one store.
    let mut position = at(3);
    position[2].offset = 5;
    mixed
        .restore(StateBatch { changes: vec![vec![], vec![], changes(&[("n", Some("5"))])], position })
        .unwrap();
    assert_eq!(mixed.position()[2].offset, 5);
    assert_eq!(mixed.multi_get(2, &[b"n"]).unwrap(), [Some(Blob::from(&b"5"[..]))]);
    assert_eq!((pinned.position()[2].offset, pinned.get(2, b"n").unwrap()), (3, Some(Blob::from(&b"3"[..]))));
    assert_eq!(reader.size().unwrap().keys, 3);
    assert_eq!(reader.store_size(2).unwrap(), StateSize { bytes: 2, keys: 1 });
}

#[test]
fn a_restored_chunk_is_the_last_change_of_each_key_in_order() {
    let mut random = SmallRng::seed_from_u64(7);
    let mut chunk = Restored::default();
    for round in 0..50 {
        let mut expect: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for number in 0..random.random_range(0..200_u32) {
            let mut key = vec![b'k'; random.random_range(0..10)];
            key.extend((0..random.random_range(0..3)).map(|_| random.random_range(0..3_u8)));
            let value = (!random.random_ratio(1, 5)).then(|| number.to_string().into_bytes());
            assert!(chunk.push(&key, value.as_deref()));
            expect.insert(key, value);
        }
        chunk.sort();
        let found: Vec<_> =
            chunk.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
        assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "round {round}");
        assert_eq!(chunk.to_changes().len(), chunk.len());
        chunk.clear();
        assert!(chunk.is_empty() && chunk.memory() == 0);
    }
}

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::state::{ChangelogPosition, MemoryState, StateLimits, StoreKind, StoreSpec};

/// A store of entries and one of windows, `e` and `w`, and a savepoint for each call.
struct Rig {
    kept: Option<(Box<TaskState>, Box<NodeStores>)>,
    limit_bytes: u64,
}

const RETENTION_MS: i64 = 10_000;

fn specs() -> [StoreSpec; 2] {
    ["n-e", "n-w"].map(|name| StoreSpec { name: name.to_owned(), ordered: true, kind: StoreKind::Memory })
}

fn stores() -> Box<NodeStores> {
    let spec = |name: &str, retention_ms| NodeStoreSpec { name: name.to_owned(), retention_ms, format: 0 };
    Box::new(NodeStores::new(&[spec("e", None), spec("w", Some(RETENTION_MS))], &[0, 1]))
}

impl Rig {
    fn new() -> Rig {
        let state = TaskState::new(Box::new(MemoryState::new(2)), &specs(), StateLimits::default());
        Rig { kept: Some((Box::new(state), stores())), limit_bytes: 1 << 20 }
    }

    /// A call, which is undone if it fails or is to be.
    fn call<T>(
        &mut self,
        undo: bool,
        call: impl FnOnce(&mut NodeState) -> Result<T, Refused>,
    ) -> Result<T, String> {
        let (mut state, stores) = self.kept.take().unwrap();
        let savepoint = state.savepoint();
        let mut lent = NodeState::new(state, stores, self.limit_bytes);
        let done = call(&mut lent);
        let (mut state, mut stores, used) = lent.end();
        used.unwrap();
        if undo || done.is_err() {
            state.roll_back(savepoint);
            stores.reset();
        } else {
            state.release(savepoint);
        }
        self.kept = Some((state, stores));
        done.map_err(|Refused(why)| why)
    }

    fn forget(&mut self, budget: usize) -> bool {
        let (state, stores) = self.kept.as_mut().unwrap();
        stores.forget(state, budget).unwrap()
    }

    /// The transaction ends, and the backend takes over what it wrote.
    fn commit(&mut self) {
        let (state, _) = self.kept.as_mut().unwrap();
        state.end_transaction();
        let batch = state.take_changes(vec![ChangelogPosition::default(); 2]).unwrap();
        state.apply(batch).unwrap();
    }

    fn count(&mut self, store: usize) -> usize {
        let (state, _) = self.kept.as_mut().unwrap();
        let mut count = 0;
        let mut each = |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        state.range(store, KeyRange::ALL, &mut each).unwrap();
        count
    }
}

/// Byte strings, `~` for null.
fn column(texts: &[&str]) -> ColumnOut {
    let mut column = ColumnOut::default();
    texts.iter().for_each(|text| column.push((*text != "~").then_some(text.as_bytes())));
    column
}

fn texts(column: &ColumnOut) -> Vec<String> {
    let text = |i| column.get(i).map_or("~".to_owned(), |field| String::from_utf8(field.to_vec()).unwrap());
    (0..column.len()).map(text).collect()
}

fn put(rig: &mut Rig, keys: &[&str], values: &[&str]) -> Result<(), String> {
    rig.call(false, |state| state.put("e", column(keys).as_in(), column(values).as_in()))
}

fn shown(found: &EntriesOut) -> String {
    let pairs = texts(&found.keys).into_iter().zip(texts(&found.values));
    let all: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    format!("{}{}", all.join(" "), if found.more { " …" } else { "" })
}

#[test]
fn entries_by_key_and_in_order() {
    let mut rig = Rig::new();
    put(&mut rig, &["b", "a", "", "ab", "b"], &["1", "2", "3", "4", "5"]).unwrap();
    rig.commit();
    put(&mut rig, &["a", "c"], &["~", "6"]).unwrap();
    let got =
        rig.call(false, |state| state.get("e", column(&["c", "a", "b", "", "x", "b"]).as_in())).unwrap();
    assert_eq!(texts(&got), ["6", "~", "5", "3", "~", "5"]);
    let mut range = |from: &str, to: Option<&str>, reverse, limit| {
        let bounds = (from.as_bytes(), to.map(str::as_bytes));
        shown(&rig.call(false, |state| state.range("e", bounds, reverse, limit)).unwrap())
    };
    assert_eq!(range("", None, false, 10), "=3 ab=4 b=5 c=6");
    assert_eq!(range("a", Some("c"), false, 10), "ab=4 b=5");
    assert_eq!(range("", None, true, 2), "c=6 b=5 …");
    assert_eq!(range("c", Some("a"), false, 10), "");
    assert_eq!(range("a", None, false, 0), " …");
    let prefix = rig.call(false, |state| state.prefix("e", b"a", false, 10)).unwrap();
    assert_eq!(shown(&prefix), "ab=4");
    let more = rig.call(false, |state| state.delete_range("e", (b"", None), 3)).unwrap();
    assert!(more);
    let all = rig.call(false, |state| state.prefix("e", b"", false, 10)).unwrap();
    assert_eq!(shown(&all), "c=6");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let mut rig = Rig::new();
    rig.limit_bytes = 250;
    let fails = |done: Result<(), String>, expect: &str| assert_eq!(done, Err(expect.to_owned()));
    let keys = column(&["a"]);
    fails(
        rig.call(false, |state| state.get("x", keys.as_in()).map(drop)),
        "it uses the store `x`, which its node is not given (it has `e`, `w`): add it to `stores` in pipeline.toml",
    );
    fails(
        rig.call(false, |state| state.get("w", keys.as_in()).map(drop)),
        "the store `w` has windows, which are found by key and start together",
    );
    fails(
        rig.call(false, |state| state.get_windows("e", keys.as_in(), &[1]).map(drop)),
        "the store `e` has entries without windows, which are found by key alone",
    );
    fails(put(&mut rig, &["~"], &["1"]), "keys[0] is null");
    fails(put(&mut rig, &["a"], &[]), "`values` has 0 entries, but should have 1, one for each key");
    let outside = ColumnIn { data: b"abc", fields: SlicesIn { offsets: &[u32::MAX], lengths: &[2] } };
    fails(
        rig.call(false, |state| state.get("e", outside).map(drop)),
        "keys[0] is 2 bytes at 4294967295, which is not within its 3 bytes",
    );
    let uneven = ColumnIn { data: b"abc", fields: SlicesIn { offsets: &[0, 1], lengths: &[1] } };
    fails(rig.call(false, |state| state.get("e", uneven).map(drop)), "`keys` has 2 offsets and 1 lengths");
    put(&mut rig, &["a", "b"], &["1", "1"]).unwrap();
    let long = "x".repeat(60);
    fails(
        put(&mut rig, &["a", "b"], &[&long, "1"]),
        "it writes more than 250 bytes to its stores in one call (limits.state)",
    );
    assert_eq!(texts(&rig.call(false, |state| state.get("e", keys.as_in())).unwrap()), ["1"], "it is undone");
    fails(
        rig.call(false, |state| state.put_windows("w", keys.as_in(), &[-1], keys.as_in())),
        "starts[0] is -1, which is no time for a window",
    );
}

#[test]
fn a_range_is_bounded() {
    let mut rig = Rig::new();
    rig.limit_bytes = 32 << 20;
    let value = "x".repeat(1 << 20);
    for key in ["a", "b", "c", "d", "e", "f"] {
        put(&mut rig, &[key], &[&value]).unwrap();
    }
    let found = rig.call(false, |state| state.range("e", (b"", None), false, u32::MAX)).unwrap();
    assert_eq!((found.keys.len(), found.more), (4, true));
    let keys = ["a"; 17];
    let got = rig.call(false, |state| state.get("e", column(&keys).as_in()).map(drop));
    assert_eq!(got, Err("it asks for more than 16777216 bytes at once: ask for fewer keys".to_owned()));
}

/// Windows against a map, with calls that are undone, commits and forgetting in between.
#[test]
fn windows_against_a_naive_model() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut rig, mut model, mut time) = (Rig::new(), BTreeMap::<(String, i64), String>::new(), -1_i64);
        for number in 0..300 {
            let keys: Vec<&str> = (0..random.random_range(1..4))
                .map(|_| ["a", "b", "a\0"][random.random_range(0..3)])
                .collect();
            let near = time.max(0);
            let starts: Vec<i64> =
                keys.iter().map(|_| (near + random.random_range(-15_000_i64..700)).max(0)).collect();
            let values: Vec<String> = keys
                .iter()
                .map(|_| if random.random_ratio(1, 6) { "~".to_owned() } else { number.to_string() })
                .collect();
            let texts_of: Vec<&str> = values.iter().map(String::as_str).collect();
            let undo = random.random_ratio(1, 5);
            let (key_column, value_column) = (column(&keys), column(&texts_of));
            rig.call(undo, |state| state.put_windows("w", key_column.as_in(), &starts, value_column.as_in()))
                .unwrap();
            if !undo {
                for ((key, start), value) in keys.iter().zip(&starts).zip(&values) {
                    time = time.max(*start);
                    if start + RETENTION_MS > time {
                        model.insert(((*key).to_owned(), *start), value.clone());
                    }
                }
                model.retain(|(_, start), value| start + RETENTION_MS > time && value != "~");
            }
            match random.random_range(0..6) {
                0 => rig.commit(),
                1 => drop(rig.forget(random.random_range(1..5))),
                _ => {}
            }
            let got = rig.call(false, |state| state.get_windows("w", key_column.as_in(), &starts)).unwrap();
            let expect: Vec<String> = keys
                .iter()
                .zip(&starts)
                .map(|(key, start)| {
                    model.get(&((*key).to_owned(), *start)).cloned().unwrap_or("~".to_owned())
                })
                .collect();
            assert_eq!(texts(&got), expect, "seed {seed}, {number}");
            let (first, last) = (near - random.random_range(0..12_000), near - random.random_range(0..3_000));
            let (reverse, limit) = (random.random_ratio(1, 2), random.random_range(0..6));
            let found = rig
                .call(false, |state| state.windows_of("w", keys[0].as_bytes(), (first, last), reverse, limit))
                .unwrap();
            let mut expect: Vec<(i64, String)> = model
                .iter()
                .filter(|((key, start), _)| key == keys[0] && (first..=last).contains(start))
                .map(|((_, start), value)| (*start, value.clone()))
                .collect();
            if reverse {
                expect.reverse();
            }
            let more = expect.len() > limit as usize;
            expect.truncate(limit as usize);
            let found_pairs: Vec<_> = found.starts.iter().copied().zip(texts(&found.values)).collect();
            assert_eq!((found_pairs, found.more), (expect, more), "seed {seed}, {number}");
        }
        // All that is over is gone at last, and nothing else.
        let last = column(&["z"]);
        rig.call(false, |state| {
            state.put_windows("w", last.as_in(), &[time + 10 * RETENTION_MS], last.as_in())
        })
        .unwrap();
        while rig.forget(3) {}
        assert_eq!(rig.count(1), 3, "the time, the last window, and when it is forgotten");
    }
}

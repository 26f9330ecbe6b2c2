use std::collections::BTreeMap;

use super::*;

fn windows(
    size: (i64, i64),
    closing: Closing,
    tells_old: bool,
    aggregator: fn() -> Box<dyn Aggregator>,
) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(TimeWindows::new(0, size, closing, aggregator(), tells_old))
}

const ON_CLOSE: Closing = Closing { grace_ms: 0, emit: Emit::OnClose, late: Late::Drop, retention_ms: 0 };
const ON_UPDATE: Closing = Closing { emit: Emit::OnUpdate, ..ON_CLOSE };

fn count() -> Box<dyn Aggregator> {
    single("count")
}

#[test]
fn tumbling_windows_on_update() {
    let counts = check(
        &windows((10, 10), Closing { grace_ms: 5, ..ON_UPDATE }, true, count),
        &[true],
        &[
            ("a=x@0", &["a[0,10)=1@0 was ~"]),
            ("a=x@9", &["a[0,10)=2@9 was 1"]),
            ("a=x@10", &["a[10,20)=1@10 was ~"]),
            ("b=x@14", &["b[10,20)=1@14 was ~"]),
            // Open until stream time 15.
            ("a=x@1", &["a[0,10)=3@9 was 2"]),
            ("b=x@15", &["b[10,20)=2@15 was 1"]),
            ("a=x@2", &[]),
            ("c=x@9", &[]),
            // What is dropped does not move the time.
            ("-=x@99", &[]),
            ("a=~@99", &[]),
            ("a=x@-1", &[]),
            ("a=x@1152921504606846977", &[]),
            ("a=x@10", &["a[10,20)=2@10 was 1"]),
        ],
    );
    let expect =
        Counts { late: 2, late_windows: 2, null_key: 1, null_value: 1, no_time: 2, ..Counts::default() };
    assert_eq!(counts, expect);
}

#[test]
fn hopping_windows_on_update() {
    let counts = check(
        &windows((10, 4), ON_UPDATE, false, count),
        &[true],
        &[
            // None begins before 1970.
            ("a=x@2", &["a[0,10)=1@2"]),
            ("a=x@9", &["a[0,10)=2@9", "a[4,14)=1@9", "a[8,18)=1@9"]),
            ("a=x@13", &["a[4,14)=2@13", "a[8,18)=2@13", "a[12,22)=1@13"]),
            // Late for one of its windows.
            ("a=x@8", &["a[4,14)=3@13", "a[8,18)=3@13"]),
        ],
    );
    assert_eq!(counts, Counts { late_windows: 1, ..Counts::default() });
}

/// Closed for late rows and emitted at the same moment, in the order of windows, then keys.
#[test]
fn windows_on_close() {
    let counts = check(
        &windows((10, 10), Closing { grace_ms: 5, ..ON_CLOSE }, true, count),
        &[true],
        &[
            ("b=x@3", &[]),
            ("a=x@4", &[]),
            ("ab=x@13", &[]),
            ("a=x@14", &[]),
            ("a=x@2", &[]),
            ("c=x@15", &["a[0,10)=2@4 was ~", "b[0,10)=1@3 was ~"]),
            ("a=x@9", &[]),
            // Time jumps: none is lost.
            ("z=x@1000", &["a[10,20)=1@14 was ~", "ab[10,20)=1@13 was ~", "c[10,20)=1@15 was ~"]),
            ("z=x@1001", &[]),
            ("z=x@1015", &["z[1000,1010)=2@1001 was ~"]),
        ],
    );
    assert_eq!(counts, Counts { late: 1, late_windows: 1, ..Counts::default() });
}

#[test]
fn late_rows_by_an_output() {
    let closing = Closing { late: Late::Emit, ..ON_CLOSE };
    let counts = check(
        &windows((10, 5), closing, false, count),
        &[true],
        &[
            ("a=x@12", &[]),
            ("a=y@4", &["1>a=y@4"]),
            // In one of its windows.
            ("a=z@7", &[]),
            ("a=x@15", &["a[5,15)=2@12"]),
        ],
    );
    assert_eq!(counts, Counts { late: 1, late_windows: 2, ..Counts::default() });
}

/// Readers find a result for as long as it is kept, and no longer. It changes nothing once it is closed.
#[test]
fn closed_windows_are_kept_for_readers() {
    for emit in [Emit::OnClose, Emit::OnUpdate] {
        let make = windows((10, 10), Closing { emit, retention_ms: 30, ..ON_UPDATE }, false, count);
        let mut rig = Rig::new(&make, &[true]);
        let starts = |rig: &mut Rig<'_>| {
            while rig.maintain(1).unwrap() {}
            let windows =
                rig.replayed()[0].keys().filter_map(|key| super::super::time_window::read_window(key));
            windows.map(|(start, key)| (start, key.to_vec())).collect::<Vec<_>>()
        };
        let emitted = rig.run(&rows(&["a=x@0", "b=x@1", "a=x@10", "a=x@39"])).unwrap().concat();
        let of_first = emitted.iter().filter(|emitted| emitted.row.window.unwrap().start == 0).count();
        assert_eq!(of_first, 2, "each result once, though what it is made of is kept");
        let a = |start| (start, b"a".to_vec());
        assert_eq!(starts(&mut rig), [a(0), (0, b"b".to_vec()), a(10), a(30)]);
        let emitted = rig.run(&rows(&["a=x@9", "a=x@40", "a=x@49"])).unwrap().concat();
        assert_eq!(emitted.iter().filter(|emitted| emitted.row.window.unwrap().start == 0).count(), 0);
        assert_eq!(starts(&mut rig), [a(10), a(30), a(40)]);
        rig.restart(0);
        rig.run(&rows(&["c=x@500"])).unwrap();
        assert_eq!(starts(&mut rig), [(500, b"c".to_vec())]);
    }
}

/// A distinct count keeps members; they go with their window.
#[test]
fn members_go_with_their_window() {
    for closing in [ON_CLOSE, ON_UPDATE, Closing { retention_ms: 20, ..ON_CLOSE }] {
        let make = || -> Box<dyn Operator> {
            Box::new(TimeWindows::new(
                0,
                (10, 5),
                closing,
                single_with("distinct:raw", false, Some(1)),
                false,
            ))
        };
        let mut rig = Rig::new(&make, &[true, true]);
        let out = rig.run(&rows(&["a=x@6", "a=y@7", "a=x@8", "b=x@8", "a=z@30"])).unwrap().concat();
        let last: BTreeMap<_, _> = out
            .iter()
            .map(|one| (show(one).split('=').next().unwrap().to_owned(), one.row.value.clone().unwrap()))
            .collect();
        assert_eq!((&last["a[0,10)"][..], &last["a[5,15)"][..]), (&b"2"[..], &b"2"[..]));
        rig.give(0, &[testing::row("z=z@1000")]).unwrap();
        while rig.maintain(2).unwrap() {}
        assert_eq!(rig.replayed()[0].len(), 3, "two windows, and stream time");
        assert_eq!(rig.replayed()[1].len(), 2);
    }
}

/// All rows that were accepted, and what they make.
#[test]
fn windows_against_a_naive_model() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (size, advance) = [(10, 10), (10, 4), (7, 7), (12, 1)][random.random_range(0..4)];
        let closing = Closing {
            grace_ms: [0, 3, 20][random.random_range(0..3)],
            emit: [Emit::OnUpdate, Emit::OnClose][random.random_range(0..2)],
            late: Late::Emit,
            retention_ms: [0, 50][random.random_range(0..2)],
        };
        let make = windows((size, advance), closing, true, concat);
        let given = random_rows(&mut random, 60, 1, &["a", "b", "a\0"]);
        let seen = run_two_ways(&make, &[true], &given, seed);
        let mut stream_time = -1;
        // By start and key: the value and the time.
        type Open<'r> = BTreeMap<(i64, &'r [u8]), (Vec<u8>, i64)>;
        let mut open = Open::new();
        for ((_, row), seen) in given.iter().zip(&seen) {
            let key = &row.key.as_ref().unwrap()[..];
            let mut expect = Vec::new();
            let show_at = |start: i64, key: &[u8], value: &[u8], time: i64, was: &[u8]| {
                let [key, value, was] = [key, value, was].map(|bytes| bytes.escape_ascii().to_string());
                let was = if was.is_empty() { "~" } else { &was };
                format!("{key}[{start},{})={value}@{time} was {was}", start + size)
            };
            stream_time = stream_time.max(row.timestamp);
            let (closed, left) =
                open.into_iter().partition(|((start, _), _)| start + size + closing.grace_ms <= stream_time);
            open = left;
            let closed: Open<'_> = closed;
            for ((start, key), (value, time)) in closed {
                if closing.emit == Emit::OnClose {
                    expect.push(show_at(start, key, &value, time, b""));
                }
            }
            let mut entered = false;
            for start in
                (0..=row.timestamp).filter(|start| start % advance == 0 && start + size > row.timestamp)
            {
                if start + size + closing.grace_ms <= stream_time {
                    continue;
                }
                entered = true;
                let entry = open.entry((start, key)).or_insert((Vec::new(), row.timestamp));
                let was = entry.0.clone();
                if !entry.0.is_empty() {
                    entry.0.push(b',');
                }
                entry.0.extend_from_slice(row.value.as_ref().unwrap());
                entry.1 = entry.1.max(row.timestamp);
                if closing.emit == Emit::OnUpdate {
                    expect.push(show_at(start, key, &entry.0, entry.1, &was));
                }
            }
            if !entered {
                expect.push(show(&Emitted { output: LATE, row: row.clone() }));
            }
            let seen: Vec<_> = seen.iter().map(show).collect();
            assert_eq!(seen, expect, "seed {seed} {closing:?} {size} {advance}");
        }
    }
}

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ON_UPDATE: Closing = Closing { grace_ms: 0, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 0 };
const ON_CLOSE: Closing = Closing { emit: Emit::OnClose, ..ON_UPDATE };

fn sliding(
    size: i64,
    closing: Closing,
    tells_old: bool,
    aggregator: fn() -> Box<dyn Aggregator>,
) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(SlidingWindows::new(0, size, closing, aggregator(), tells_old))
}

#[test]
fn sliding_windows_on_update() {
    let counts = check(
        &sliding(10, Closing { grace_ms: 50, ..ON_UPDATE }, true, concat),
        &[true],
        &[
            // Before the first size: in the window that begins in 1970.
            ("a=p@0", &["a[0,10]=p@0 was ~"]),
            ("a=q@5", &["a[0,10]=p,q@5 was p", "a[1,11]=q@5 was ~"]),
            ("a=r@12", &["a[2,12]=q,r@12 was ~", "a[6,16]=r@12 was ~"]),
            ("b=x@13", &["b[3,13]=x@13 was ~"]),
            // Out of order: in all that it belongs to, and in two of its own.
            (
                "a=s@7",
                &[
                    "a[0,10]=p,q,s@7 was p,q",
                    "a[1,11]=q,s@7 was q",
                    "a[2,12]=q,r,s@12 was q,r",
                    "a[6,16]=r,s@12 was r",
                    "a[8,18]=r@12 was ~",
                ],
            ),
            ("-=x@99", &[]),
            ("a=~@99", &[]),
            ("a=x@-1", &[]),
        ],
    );
    assert_eq!(counts, Counts { null_key: 1, null_value: 1, no_time: 1, ..Counts::default() });
}

/// The window [10,20] closes for late rows and is sent when stream time is 21, once.
#[test]
fn sliding_windows_on_close() {
    let counts = check(
        &sliding(10, ON_CLOSE, true, concat),
        &[true],
        &[
            ("a=p@20", &[]),
            ("a=q@15", &[]),
            ("b=x@21", &["a[10,20]=p,q@20 was ~"]),
            ("a=r@19", &[]),
            ("a=late@10", &[]),
            ("b=y@200", &["b[11,21]=x@21 was ~", "a[16,26]=p,r@20 was ~", "a[20,30]=p@20 was ~"]),
        ],
    );
    assert_eq!(counts, Counts { late: 1, late_windows: 4, ..Counts::default() });
}

/// Accepted when only later windows can have it: Kafka Streams forgets it there.
#[test]
fn a_row_that_is_late_for_some_windows_counts_for_others() {
    check(
        &sliding(10, ON_UPDATE, false, concat),
        &[true],
        &[
            ("b=x@100", &["b[90,100]=x@100"]),
            ("a=p@95", &[]),
            ("a=q@100", &["a[90,100]=p,q@100", "a[96,106]=q@100"]),
        ],
    );
}

#[test]
fn members_of_sliding_windows() {
    let make = || -> Box<dyn Operator> {
        let closing = Closing { grace_ms: 50, ..ON_UPDATE };
        Box::new(SlidingWindows::new(0, 10, closing, single_with("distinct:raw", false, Some(1)), false))
    };
    let given = rows(&["a=x@20", "a=y@25", "a=x@27", "a=x@22", "a=y@23", "b=x@999"]);
    let (seen, _) = run_all_ways(&make, &[true, true], &given);
    let mut last = BTreeMap::new();
    for one in seen.concat() {
        last.insert((one.row.key.unwrap(), one.row.window.unwrap().start), one.row.value.unwrap());
    }
    let a: Vec<_> =
        last.iter().filter(|((key, _), _)| key == "a").map(|((_, start), n)| (*start, &n[..])).collect();
    let expect: [(i64, &[u8]); 9] = [
        (10, b"1"),
        (12, b"1"),
        (13, b"2"),
        (15, b"2"),
        (17, b"2"),
        (21, b"2"),
        (23, b"2"),
        (24, b"2"),
        (26, b"1"),
    ];
    assert_eq!(a, expect);
    let mut rig = Rig::new(&make, &[true, true]);
    rig.run(&given).unwrap();
    while rig.maintain(1).unwrap() {}
    assert_eq!(rig.replayed()[1].len(), 1, "one window is open");
}

/// The windows there are for a list of accepted rows: value and latest row.
fn contents(rows: &[(i64, String)], size: i64) -> BTreeMap<i64, (String, i64)> {
    let mut starts: BTreeSet<i64> = rows.iter().map(|(time, _)| (time - size).max(0)).collect();
    starts.extend(rows.iter().map(|(time, _)| time + 1));
    let within = |start: i64| rows.iter().filter(move |(time, _)| (start..=start + size).contains(time));
    let content = |start| {
        let latest = within(start).map(|(time, _)| *time).max()?;
        let values: Vec<_> = within(start).map(|(_, value)| value.as_str()).collect();
        Some((start, (values.join(","), latest)))
    };
    starts.into_iter().filter_map(content).collect()
}

#[test]
fn sliding_windows_against_a_naive_model() {
    for seed in 0..1500 {
        let mut random = SmallRng::seed_from_u64(seed);
        let size = [1, 3, 10][random.random_range(0..3)];
        let closing = Closing {
            grace_ms: [0, 3, 20][random.random_range(0..3)],
            emit: [Emit::OnUpdate, Emit::OnClose][random.random_range(0..2)],
            late: Late::Emit,
            retention_ms: [0, 50][random.random_range(0..2)],
        };
        let make = sliding(size, closing, true, concat);
        let given = random_rows(&mut random, 60, 1, &["a", "b", "a\0"]);
        let seen = run_two_ways(&make, &[true], &given, seed);
        let mut accepted: BTreeMap<&[u8], Vec<(i64, String)>> = BTreeMap::new();
        let mut stream_time = -1;
        let windows = |rows: &[(i64, String)]| contents(rows, size);
        let closes_at = |start: i64| start + size + closing.grace_ms + 1;
        for ((_, row), seen) in given.iter().zip(&seen) {
            let mut expect = Vec::new();
            let before_time = stream_time;
            stream_time = stream_time.max(row.timestamp);
            if closing.emit == Emit::OnClose {
                let mut closed = Vec::new();
                for (key, rows) in &accepted {
                    let now_closed =
                        |start: i64| closes_at(start) > before_time && closes_at(start) <= stream_time;
                    closed.extend(
                        windows(rows).into_iter().filter(|(start, _)| now_closed(*start)).map(|w| (w, key)),
                    );
                }
                closed.sort_by_key(|((start, _), key)| (*start, *key));
                for ((start, (value, latest)), key) in closed {
                    let key = key.escape_ascii();
                    expect.push(format!("{key}[{start},{}]={value}@{latest} was ~", start + size));
                }
            }
            let key = &row.key.as_ref().unwrap()[..];
            if closes_at(row.timestamp) <= stream_time {
                expect.push(show(&Emitted { output: LATE, row: row.clone() }));
            } else {
                let rows = accepted.entry(key).or_default();
                let before = windows(rows);
                rows.push((row.timestamp, row.value.as_ref().unwrap().escape_ascii().to_string()));
                for (start, (value, latest)) in windows(rows) {
                    let was = before.get(&start);
                    let changed = was.is_none_or(|(was, _)| *was != value);
                    if changed && closing.emit == Emit::OnUpdate && closes_at(start) > stream_time {
                        let was = was.map_or("~", |(was, _)| was);
                        let key = key.escape_ascii();
                        expect.push(format!("{key}[{start},{}]={value}@{latest} was {was}", start + size));
                    }
                }
            }
            let seen: Vec<_> = seen.iter().map(show).collect();
            assert_eq!(
                seen,
                expect,
                "seed {seed} {closing:?} size {size} row {}",
                show(&Emitted { output: 0, row: row.clone() })
            );
        }
    }
}

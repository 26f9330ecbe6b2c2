use super::*;

fn join(kind: JoinKind, before: i64, after: i64, grace: i64) -> impl Fn() -> Box<dyn Operator> {
    let window = JoinWindow { before_ms: before, after_ms: after, grace_ms: grace };
    move || Box::new(StreamJoin::new(0, kind, window, pair()))
}

#[test]
fn pairs_within_a_window() {
    let counts = check(
        &join(JoinKind::Inner, 5, 10, 0),
        &[true],
        &[
            ("a=l0@100", &[]),
            ("1>a=r0@94", &[]),
            ("1>a=r1@95", &["a=l0+r1@100"]),
            ("1>a=r2@110", &["a=l0+r2@110"]),
            ("1>b=r2@110", &[]),
            // The earlier ones first; the time of a pair is the later one.
            ("a=l1@105", &["a=l1+r2@110"]),
            ("1>a=r3@106", &["a=l0+r3@106", "a=l1+r3@106"]),
            // l0 has closed at 111.
            ("1>b=r4@111", &[]),
            ("1>a=r5@110", &["a=l1+r5@110"]),
            ("-=x@999", &[]),
            ("1>a=~@999", &[]),
            ("a=x@-5", &[]),
        ],
    );
    let expect = Counts { late: 1, null_key: 1, null_value: 1, no_time: 1, ..Counts::default() };
    assert_eq!(counts, expect);
}

/// At the moment when no match can come any more, and before the row that brings it: by time, right ones first, then
/// key.
#[test]
fn outer_rows_without_a_match() {
    let counts = check(
        &join(JoinKind::Outer, 10, 10, 5),
        &[true],
        &[
            ("b=l0@0", &[]),
            ("a=l0@0", &[]),
            ("1>c=r0@0", &[]),
            ("a=l1@0", &[]),
            ("1>a=r1@1", &["a=l0+r1@1", "a=l1+r1@1"]),
            ("b=l2@15", &[]),
            ("b=l3@16", &["c=~+r0@0", "b=l0+~@0"]),
            // Closed: not with l0, and in good time for l2.
            ("1>b=r2@5", &["b=l2+r2@15"]),
            // Late itself, and alone: at once.
            ("1>z=r3@0", &["z=~+r3@0"]),
            ("z=l4@0", &["z=l4+~@0"]),
            // Without a key it matches nothing.
            ("-=l5@20", &["-=l5+~@20"]),
            ("1>-=r5@20", &["-=~+r5@20"]),
            ("1>-=~@20", &[]),
            ("1>d=r6@999", &["b=l3+~@16"]),
        ],
    );
    assert_eq!(counts.late, 2);
    assert_eq!(counts.null_key, 1);
}

#[test]
fn left_rows_without_a_match() {
    check(
        &join(JoinKind::Left, 0, 10, 0),
        &[true],
        &[
            ("a=l0@0", &[]),
            ("1>b=r0@0", &[]),
            ("a=l1@5", &[]),
            ("1>a=r1@10", &["a=l0+r1@10", "a=l1+r1@10"]),
            ("b=l2@11", &[]),
            ("1>b=r3@10", &[]),
            ("1>-=r4@10", &[]),
            ("-=l4@10", &["-=l4+~@10"]),
            ("c=l5@22", &["b=l2+~@11"]),
        ],
    );
}

#[test]
fn headers_are_those_of_the_left_row() {
    let make = join(JoinKind::Outer, 5, 5, 0);
    let header =
        |name: &'static str| RowHeaders::new(vec![Header { name: name.as_bytes().into(), value: None }]);
    let mut given = rows(&["a=l@0", "1>a=r@1", "1>b=r@2", "b=l@3", "1>c=r@4", "d=x@99"]);
    for ((input, row), name) in given.iter_mut().zip(["l0", "r1", "r2", "l3", "r4", "l5"]) {
        row.headers = header(name);
        assert_eq!(*input, usize::from(name.starts_with('r')));
    }
    let (seen, _) = run_all_ways(&make, &[true], &given);
    let seen: Vec<_> = seen.concat().iter().map(|one| (show(one), one.row.headers.clone())).collect();
    let expect = [("a=l+r@1", "l0"), ("b=l+r@3", "l3"), ("c=~+r@4", "r4")];
    assert_eq!(seen, expect.map(|(row, name)| (row.to_owned(), header(name))));
}

/// What has closed leaves the store.
#[test]
fn stores_are_cleaned() {
    for kind in [JoinKind::Inner, JoinKind::Left, JoinKind::Outer] {
        let make = join(kind, 10, 10, 0);
        let mut rig = Rig::new(&make, &[true]);
        for second in 0..20 {
            let given = rows(&["a=l@0", "1>a=r@0", "b=l@1", "1>c=r@1"]);
            let given: Vec<_> = given
                .into_iter()
                .map(|(input, row)| (input, Row { timestamp: row.timestamp + second * 700, ..row }))
                .collect();
            rig.run(&given).unwrap();
            rig.maintain(2).unwrap();
            if second == 10 {
                rig.restart(0);
            }
        }
        rig.give(0, &[testing::row("z=z@100000")]).unwrap();
        while rig.maintain(3).unwrap() {}
        let expect = 2 + usize::from(kind != JoinKind::Inner);
        assert_eq!(rig.replayed()[0].len(), expect, "stream time, one row, and that it has no match");
    }
}

struct Kept {
    side: usize,
    key: String,
    value: String,
    time: i64,
    matched: bool,
    emitted: bool,
}

/// Each row against all that came before it.
#[test]
fn joins_against_a_naive_model() {
    for seed in 0..600 {
        let mut random = SmallRng::seed_from_u64(seed);
        let kind = [JoinKind::Inner, JoinKind::Left, JoinKind::Outer][random.random_range(0..3)];
        let (before, after) = [(0, 0), (5, 5), (0, 10), (10, 3)][random.random_range(0..4)];
        let grace = [0, 3, 20][random.random_range(0..3)];
        let make = join(kind, before, after, grace);
        let given = random_rows(&mut random, 80, 2, &["a", "b", "a\0"]);
        let seen = run_two_ways(&make, &[true], &given, seed);
        let mut kept: Vec<Kept> = Vec::new();
        let mut now = -1;
        let close = |side: usize, time: i64| time + if side == LEFT { after } else { before } + grace + 1;
        let alone = |one: &Kept| {
            let value =
                if one.side == LEFT { format!("{}+~", one.value) } else { format!("~+{}", one.value) };
            format!("{}={value}@{}", one.key, one.time)
        };
        for ((side, row), seen) in given.iter().zip(&seen) {
            let mut expect = Vec::new();
            now = now.max(row.timestamp);
            let mut closed: Vec<_> = kept
                .iter_mut()
                .filter(|one| close(one.side, one.time) <= now && !one.matched && !one.emitted)
                .collect();
            closed.sort_by_key(|one| (one.time, 1 - one.side, one.key.clone()));
            for one in closed {
                one.emitted = true;
                if kind.is_outer(one.side) {
                    expect.push(alone(one));
                }
            }
            let text = |field: &Option<bytes::Bytes>| field.as_ref().unwrap().escape_ascii().to_string();
            let (key, value) = (text(&row.key), text(&row.value));
            let mut new =
                Kept { side: *side, key, value, time: row.timestamp, matched: false, emitted: false };
            let mut found: Vec<_> = kept
                .iter_mut()
                .filter(|one| {
                    let (left, right) =
                        if *side == LEFT { (new.time, one.time) } else { (one.time, new.time) };
                    let in_window = left - before <= right && right <= left + after;
                    one.side != *side && one.key == new.key && in_window && close(one.side, one.time) > now
                })
                .collect();
            found.sort_by_key(|one| one.time);
            for one in found {
                (one.matched, new.matched) = (true, true);
                let (left, right) =
                    if *side == LEFT { (&new.value, &one.value) } else { (&one.value, &new.value) };
                expect.push(format!("{}={left}+{right}@{}", new.key, new.time.max(one.time)));
            }
            if close(*side, new.time) <= now {
                if !new.matched && kind.is_outer(*side) {
                    expect.push(alone(&new));
                }
            } else {
                kept.push(new);
            }
            let seen: Vec<_> = seen.iter().map(show).collect();
            assert_eq!(seen, expect, "seed {seed} {kind:?} {before} {after} {grace}");
        }
    }
}

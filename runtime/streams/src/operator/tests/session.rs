use super::*;

const ON_UPDATE: Closing = Closing { grace_ms: 2, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 0 };
const ON_CLOSE: Closing = Closing { emit: Emit::OnClose, ..ON_UPDATE };

fn sessions(
    gap: i64,
    closing: Closing,
    tells_old: bool,
    aggregator: fn() -> Box<dyn Aggregator>,
) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(Sessions::new(0, gap, closing, aggregator(), tells_old))
}

fn count() -> Box<dyn Aggregator> {
    single("count")
}

#[test]
fn sessions_on_update() {
    let counts = check(
        &sessions(5, Closing { grace_ms: 20, ..ON_UPDATE }, true, count),
        &[true],
        &[
            ("a=x@0", &["a[0,0]=1@0 was ~"]),
            // The bounds stay: it is updated.
            ("a=x@0", &["a[0,0]=2@0 was 1"]),
            ("b=x@3", &["b[3,3]=1@3 was ~"]),
            ("a=x@10", &["a[10,10]=1@10 was ~"]),
            // Both are merged.
            ("a=x@5", &["a[0,0]=~@0 was 2", "a[10,10]=~@10 was 1", "a[0,10]=4@10 was ~"]),
            ("a=x@7", &["a[0,10]=5@10 was 4"]),
            ("a=x@16", &["a[16,16]=1@16 was ~"]),
            ("a=x@15", &["a[0,10]=~@10 was 5", "a[16,16]=~@16 was 1", "a[0,16]=7@16 was ~"]),
            // Closed: the one of b at 3 + 5 + 20 + 1.
            ("c=x@28", &["c[28,28]=1@28 was ~"]),
            ("b=x@4", &["b[3,3]=~@3 was 1", "b[3,4]=2@4 was ~"]),
            ("c=x@30", &["c[28,28]=~@28 was 1", "c[28,30]=2@30 was ~"]),
            ("b=x@4", &[]),
            ("b=x@5", &["b[5,5]=1@5 was ~"]),
            // Late by itself, and still in an open session.
            ("a=x@1", &["a[0,16]=8@16 was 7"]),
            ("-=x@99", &[]),
            ("a=~@99", &[]),
            ("a=x@-1", &[]),
        ],
    );
    let expect =
        Counts { late: 1, late_windows: 1, null_key: 1, null_value: 1, no_time: 1, ..Counts::default() };
    assert_eq!(counts, expect);
}

/// Closed for late rows and sent at the same moment, once: 0 + 5 + 2 + 1.
#[test]
fn sessions_on_close() {
    let counts = check(
        &sessions(5, ON_CLOSE, true, count),
        &[true],
        &[
            ("k=x@0", &[]),
            ("other=x@7", &[]),
            ("k=x@0", &[]),
            ("other=x@8", &["k[0,0]=2@0 was ~"]),
            ("k=x@0", &[]),
            // Closed, and yet it was within the gap: a session of its own.
            ("k=x@4", &[]),
            ("k=x@9", &[]),
            ("b=x@9", &[]),
            // By ends, starts and keys.
            ("b=x@100", &["other[7,8]=2@8 was ~", "k[4,9]=2@9 was ~", "b[9,9]=1@9 was ~"]),
        ],
    );
    assert_eq!(counts, Counts { late: 1, late_windows: 1, ..Counts::default() });
}

#[test]
fn late_rows_by_an_output() {
    let closing = Closing { late: Late::Emit, grace_ms: 0, ..ON_UPDATE };
    let make = sessions(5, closing, false, count);
    check(
        &make,
        &[true],
        &[
            ("a=x@10", &["a[10,10]=1@10"]),
            ("a=y@4", &["1>a=y@4"]),
            ("a=z@5", &["a[10,10]=~@10", "a[5,10]=2@10"]),
        ],
    );
}

/// Merged in the order of time, then the row.
#[test]
fn states_are_merged_in_order() {
    let make = sessions(5, Closing { grace_ms: 99, ..ON_UPDATE }, false, concat);
    check(
        &make,
        &[true],
        &[
            ("a=x@20", &["a[20,20]=x@20"]),
            ("a=y@10", &["a[10,10]=y@10"]),
            ("a=z@15", &["a[10,10]=~@10", "a[20,20]=~@20", "a[10,20]=y,x,z@20"]),
        ],
    );
}

/// Members go where their session goes, and end with it.
#[test]
fn members_of_sessions() {
    for closing in [ON_UPDATE, ON_CLOSE, Closing { retention_ms: 50, ..ON_CLOSE }] {
        let closing = Closing { grace_ms: 30, ..closing };
        let make = move || -> Box<dyn Operator> {
            Box::new(Sessions::new(0, 5, closing, single_with("distinct:raw", false, Some(1)), false))
        };
        let given = rows(&["a=x@0", "a=y@10", "b=x@10", "a=x@10", "a=z@5", "a=y@3", "c=x@41", "c=x@1000"]);
        let (seen, _) = run_all_ways(&make, &[true, true], &given);
        let shown: Vec<_> = seen.concat().iter().map(show).collect();
        assert!(shown.contains(&"a[0,10]=3@10".to_owned()), "{shown:?}");
        let mut rig = Rig::new(&make, &[true, true]);
        rig.run(&given).unwrap();
        while rig.maintain(1).unwrap() {}
        assert_eq!(rig.replayed()[1].len(), 1, "one session is open");
    }
}

/// All rows in arrival order, put into sessions by trying all that are open.
#[test]
fn sessions_against_a_naive_model() {
    struct Naive {
        start: i64,
        end: i64,
        values: Vec<String>,
    }
    for seed in 0..500 {
        let mut random = SmallRng::seed_from_u64(seed);
        let gap = [0, 1, 5][random.random_range(0..3)];
        let closing = Closing {
            grace_ms: [0, 3, 20][random.random_range(0..3)],
            emit: [Emit::OnUpdate, Emit::OnClose][random.random_range(0..2)],
            late: Late::Emit,
            retention_ms: [0, 50][random.random_range(0..2)],
        };
        let make = sessions(gap, closing, true, concat);
        let given = random_rows(&mut random, 60, 1, &["a", "b", "a\0"]);
        let seen = run_two_ways(&make, &[true], &given, seed);
        let mut open: Vec<(String, Naive)> = Vec::new();
        let mut stream_time = -1;
        for ((_, row), seen) in given.iter().zip(&seen) {
            let mut expect = Vec::new();
            let (key, value) = (row.key.as_ref().unwrap(), row.value.as_ref().unwrap());
            let key = key.escape_ascii().to_string();
            stream_time = stream_time.max(row.timestamp);
            let time = row.timestamp;
            let is_open = |end: i64| stream_time <= end + gap + closing.grace_ms;
            let (still, mut closed): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|(_, session)| is_open(session.end));
            open = still;
            closed.sort_by_key(|(key, session)| (session.end, session.start, key.clone()));
            for (key, Naive { start, end, values }) in closed.iter().filter(|_| closing.emit == Emit::OnClose)
            {
                expect.push(format!("{key}[{start},{end}]={}@{end} was ~", values.join(",")));
            }
            let touches = |session: &Naive| session.start - gap <= time && time <= session.end + gap;
            let (mut mine, others): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|(other, session)| *other == key && touches(session));
            open = others;
            if mine.is_empty() && !is_open(time) {
                expect.push(show(&Emitted { output: LATE, row: row.clone() }));
            } else {
                mine.sort_by_key(|(_, session)| session.start);
                let start = mine.iter().map(|(_, session)| session.start).min().unwrap_or(time).min(time);
                let end = mine.iter().map(|(_, session)| session.end).max().unwrap_or(time).max(time);
                let mut values: Vec<_> =
                    mine.iter().flat_map(|(_, session)| session.values.clone()).collect();
                values.push(value.escape_ascii().to_string());
                let mut was = "~".to_owned();
                for (_, old) in mine {
                    let text = old.values.join(",");
                    if (old.start, old.end) == (start, end) {
                        was = text;
                    } else if closing.emit == Emit::OnUpdate {
                        expect.push(format!("{key}[{},{}]=~@{} was {text}", old.start, old.end, old.end));
                    }
                }
                if closing.emit == Emit::OnUpdate {
                    expect.push(format!("{key}[{start},{end}]={}@{end} was {was}", values.join(",")));
                }
                open.push((key, Naive { start, end, values }));
            }
            let seen: Vec<_> = seen.iter().map(show).collect();
            assert_eq!(seen, expect, "seed {seed} {closing:?} gap {gap}");
        }
    }
}

//! One row that closes more than goes out at once. (That parts of every size give the same is seen by every table of the other
//! tests: [`run_all_ways`] has parts of one to three results.)

use super::*;

const ON_CLOSE: Closing = Closing { grace_ms: 0, emit: Emit::OnClose, late: Late::Drop, retention_ms: 0 };

type MakeOperator = Box<dyn Fn() -> Box<dyn Operator>>;

/// Operators before whose rows something closes, with how many stores they have; each row of another key closes by itself.
fn operators() -> Vec<(&'static str, MakeOperator, usize)> {
    fn of(
        name: &'static str,
        stores: usize,
        make: impl Fn() -> Box<dyn Operator> + 'static,
    ) -> (&'static str, MakeOperator, usize) {
        (name, Box::new(make), stores)
    }
    let kept = Closing { retention_ms: 1_000, ..ON_CLOSE };
    let window = JoinWindow { before_ms: 10, after_ms: 10, grace_ms: 0 };
    let wait = Wait { store: 2, grace_ms: 10 };
    vec![
        of("tumbling", 1, || Box::new(TimeWindows::new(0, (10, 10), ON_CLOSE, single("count"), false))),
        of("kept", 1, move || Box::new(TimeWindows::new(0, (10, 10), kept, single("count"), true))),
        of("sliding", 1, || Box::new(SlidingWindows::new(0, 10, ON_CLOSE, single("count"), true))),
        of("session", 1, move || Box::new(Sessions::new(0, 10, kept, single("count"), false))),
        of("join", 1, move || Box::new(StreamJoin::new(0, JoinKind::Outer, window, pair()))),
        of("table", 3, move || {
            let table = JoinedTable::Versioned { latest: 0, history: 1, history_ms: 1_000 };
            Box::new(StreamTableJoin::new(table, true, pair(), Some(wait)))
        }),
    ]
}

/// As many rows as `keys`, then one that closes what they have made, and another one.
fn given(keys: usize) -> Vec<(usize, Row)> {
    let row = |n: usize, text: String| Row { sequence: n as u64, ..testing::row(&text) };
    let first = (0..keys).map(|n| row(n, format!("k{n}=x@{}", n % 5)));
    let last = ["z=y@500", "k1=y@501"].into_iter().enumerate();
    first.chain(last.map(|(n, text)| row(keys + n, text.to_owned()))).map(|row| (0, row)).collect()
}

#[test]
fn as_much_goes_out_with_one_call_as_one_may() {
    for (name, make, stores) in operators() {
        let ordered = vec![true; stores];
        let rows = given(40);
        let expect = Rig::new(&*make, &ordered).run(&rows).unwrap();
        assert!(expect[40].len() >= 40, "{name}: {}", expect[40].len());
        for at_once in [1, 7, 39, 40, 41] {
            for restarts in [false, true] {
                let mut rig = Rig::new(&*make, &ordered);
                (rig.at_once, rig.restarts) = (at_once, restarts);
                let seen = rig.run(&rows).unwrap();
                assert_eq!(seen, expect, "{name}, {at_once} at once");
                // What closes, and what the row itself does.
                assert!(rig.most <= at_once + 1, "{name}: {} with one call, not {at_once}", rig.most);
                let (mut rest, mut other) = (rig, Rig::new(&*make, &ordered));
                other.run(&rows).unwrap();
                assert_eq!(rest.replayed(), other.replayed(), "{name}: nothing is left behind");
            }
        }
    }
}

/// Nothing is closed for a row that cannot be processed, and that is found when it comes.
#[test]
fn a_row_that_fails_changes_nothing() {
    let sum = || single("sum:json:n");
    let make =
        move || -> Box<dyn Operator> { Box::new(TimeWindows::new(0, (10, 10), ON_CLOSE, sum(), false)) };
    let mut rig = Rig::new(&make, &[true]);
    rig.at_once = 2;
    let row = |n: u64, text: &str| Row { sequence: n, ..testing::row(text) };
    for n in 0..9 {
        rig.give(0, &[row(n, &format!("k{n}={{\"n\":1}}@1"))]).unwrap();
    }
    let before = rig.replayed().clone();
    let failed = rig.fails(0, &[row(9, "a={@100")]);
    assert!(matches!(failed, OperatorError::Row(RowError { index: 0, .. })), "{failed}");
    assert_eq!(*rig.replayed(), before);
    assert_eq!(rig.give(0, &[row(10, "a={\"n\":1}@100")]).unwrap().len(), 9);
}

/// With what is stored large, less goes out at once.
#[test]
fn bytes_count_as_well() {
    let first = || -> Box<dyn Aggregator> { single("last:raw") };
    let make = move || -> Box<dyn Operator> { Box::new(Sessions::new(0, 10, ON_CLOSE, first(), false)) };
    let mut rig = Rig::new(&make, &[true]);
    let large = "x".repeat(CLOSED_BYTES_AT_ONCE / 8);
    for n in 0..40 {
        rig.give(0, &[Row { sequence: n, ..testing::row(&format!("k{n}={large}@1")) }]).unwrap();
    }
    rig.most = 0;
    let closed = rig.give(0, &[Row { sequence: 40, ..testing::row("a=x@100") }]).unwrap();
    assert_eq!(closed.len(), 40);
    assert!((1..=9).contains(&rig.most), "{}", rig.most);
}

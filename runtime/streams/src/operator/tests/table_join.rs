use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::operator::GlobalTableError;

fn with_table(is_left: bool) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(StreamTableJoin::new(JoinedTable::Latest(0), is_left, pair(), None))
}

#[test]
fn rows_with_what_a_table_has() {
    let counts = check(
        &with_table(false),
        &[false],
        &[
            ("a=s0@1", &[]),
            ("1>a=t0@100", &[]),
            // Whatever the times are; the time is that of the row.
            ("a=s1@2", &["a=s1+t0@2"]),
            ("1>a=t1@50", &[]),
            ("a=s2@-1", &["a=s2+t1@-1"]),
            ("1>a=~@50", &[]),
            ("a=s3@3", &[]),
            ("-=s4@3", &[]),
            ("a=~@3", &[]),
            ("1>-=t2@3", &[]),
        ],
    );
    assert_eq!(counts, Counts { unmatched: 2, null_key: 2, null_value: 1, ..Counts::default() });
}

#[test]
fn all_rows_of_the_stream() {
    let counts = check(
        &with_table(true),
        &[false],
        &[
            ("a=s0@1", &["a=s0+~@1"]),
            ("1>a=t0@100", &[]),
            ("a=s1@2", &["a=s1+t0@2"]),
            ("-=s2@3", &["-=s2+~@3"]),
            ("a=~@3", &[]),
        ],
    );
    assert_eq!(counts, Counts { unmatched: 1, null_value: 1, ..Counts::default() });
}

/// What the table was at the time of the row.
#[test]
fn rows_with_what_a_versioned_table_had() {
    let make = || -> Box<dyn Operator> {
        let table = JoinedTable::Versioned { latest: 0, history: 1, history_ms: 100 };
        Box::new(StreamTableJoin::new(table, true, pair(), None))
    };
    check(
        &make,
        &[false, true],
        &[
            ("1>a=t100@100", &[]),
            ("1>a=t150@150", &[]),
            ("a=s@99", &["a=s+~@99"]),
            ("a=s@100", &["a=s+t100@100"]),
            ("a=s@149", &["a=s+t100@149"]),
            ("a=s@999", &["a=s+t150@999"]),
            ("1>a=t120@120", &[]),
            ("1>a=~@140", &[]),
            ("a=s@119", &["a=s+t100@119"]),
            ("a=s@120", &["a=s+t120@120"]),
            ("a=s@145", &["a=s+~@145"]),
            // As far back as the history goes, which is the table's.
            ("1>b=t@220", &[]),
            ("a=s@120", &["a=s+t120@120"]),
            ("a=s@119", &["a=s+~@119"]),
            ("1>a=late@119", &[]),
            ("a=s@-1", &[]),
        ],
    );
}

#[test]
fn rows_wait_for_a_versioned_table() {
    let make = || -> Box<dyn Operator> {
        let table = JoinedTable::Versioned { latest: 0, history: 1, history_ms: 1000 };
        Box::new(StreamTableJoin::new(table, true, pair(), Some(Wait { store: 2, grace_ms: 10 })))
    };
    let counts = check(
        &make,
        &[false, true, true],
        &[
            ("a=s1@100", &[]),
            ("1>a=t1@100", &[]),
            ("a=s2@95", &[]),
            ("1>a=t0@90", &[]),
            ("1>a=t2@500", &[]),
            // By time, then as they came.
            ("b=s3@110", &["a=s2+t0@95", "a=s1+t1@100"]),
            ("a=s4@100", &["a=s4+t1@100"]),
            ("a=s5@99", &["a=s5+t0@99"]),
            ("-=s6@105", &[]),
            ("c=s7@999", &["-=s6+~@105", "b=s3+~@110"]),
        ],
    );
    assert_eq!(counts.late, 1);
}

struct Planes(BTreeMap<&'static str, &'static str>);

impl GlobalTables for Planes {
    fn get(&self, table: usize, key: &[u8]) -> Result<Option<Bytes>, GlobalTableError> {
        assert_eq!(table, 3);
        let key = std::str::from_utf8(key).unwrap();
        Ok(self.0.get(key).map(|value| Bytes::from_static(value.as_bytes())))
    }
}

#[test]
fn rows_with_a_global_table() {
    for is_left in [false, true] {
        let make = move || -> Box<dyn Operator> {
            let by = Field::parse("json:tail").unwrap();
            let joiner = JsonJoin::new(Side::Spread, Side::Member("plane".to_owned())).unwrap();
            Box::new(GlobalJoin::new(3, by, is_left, Box::new(joiner)))
        };
        let planes = Planes(BTreeMap::from([("N1", r#"{"seats":2}"#)]));
        let mut rig = Rig::new(&make, &[]).with_tables(Box::new(planes));
        let given = rows(&[r#"-={"tail":"N1"}@1"#, r#"f={"tail":"N2"}@2"#, r#"f={"x":1}@3"#, "f=~@4"]);
        let seen = rig.run(&given).unwrap().concat();
        let seen: Vec<_> = seen.iter().map(show).collect();
        let all = [
            r#"-={"tail":"N1","plane":{"seats":2}}@1"#,
            r#"f={"tail":"N2","plane":null}@2"#,
            r#"f={"x":1,"plane":null}@3"#,
        ];
        assert_eq!(seen, all[..if is_left { 3 } else { 1 }]);
        let expect = Counts { unmatched: 1, null_field: 1, null_value: 1, ..Counts::default() };
        assert_eq!(rig.counts, expect);
    }
}

fn tables(kind: JoinKind) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(TableJoin::new(0, 1, kind, pair(), true))
}

#[test]
fn two_tables() {
    // Row, and what each kind makes of it.
    let table: [(&str, [&str; 3]); 12] = [
        ("a=l0@10", ["", "a=l0+~@10 was ~", "a=l0+~@10 was ~"]),
        ("1>a=r0@5", ["a=l0+r0@10 was ~", "a=l0+r0@10 was l0+~", "a=l0+r0@10 was l0+~"]),
        ("a=l1@20", ["a=l1+r0@20 was l0+r0"; 3]),
        ("1>a=~@21", ["a=~@21 was l1+r0", "a=l1+~@21 was l1+r0", "a=l1+~@21 was l1+r0"]),
        ("1>a=~@22", [""; 3]),
        ("a=~@23", ["", "a=~@23 was l1+~", "a=~@23 was l1+~"]),
        ("a=~@24", [""; 3]),
        ("1>a=r1@25", ["", "", "a=~+r1@25 was ~"]),
        ("1>a=r2@26", ["", "", "a=~+r2@26 was ~+r1"]),
        ("a=l2@8", ["a=l2+r2@26 was ~", "a=l2+r2@26 was ~", "a=l2+r2@26 was ~+r2"]),
        ("a=~@27", ["a=~@27 was l2+r2", "a=~@27 was l2+r2", "a=~+r2@27 was l2+r2"]),
        ("1>-=x@99", [""; 3]),
    ];
    for (column, kind) in [JoinKind::Inner, JoinKind::Left, JoinKind::Outer].into_iter().enumerate() {
        let outputs: Vec<Vec<&str>> = table
            .iter()
            .map(|(_, out)| out[column..=column].iter().copied().filter(|out| !out.is_empty()).collect())
            .collect();
        let rows: Vec<(&str, &[&str])> =
            table.iter().zip(&outputs).map(|(row, out)| (row.0, &out[..])).collect();
        let counts = check(&tables(kind), &[false; 2], &rows);
        assert_eq!(counts, Counts { null_key: 1, ..Counts::default() });
    }
}

/// A result is always that of what both tables have now.
#[test]
fn two_tables_against_a_naive_model() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let kind = [JoinKind::Inner, JoinKind::Left, JoinKind::Outer][random.random_range(0..3)];
        let given: Vec<_> = (0..60)
            .map(|sequence| {
                let key = ["a", "b"][random.random_range(0..2)];
                let value = if random.random_bool(0.3) { "~".to_owned() } else { sequence.to_string() };
                let row = testing::row(&format!("{key}={value}@{}", random.random_range(0..50)));
                (random.random_range(0..2), Row { sequence, ..row })
            })
            .collect();
        let (seen, _) = run_all_ways(&tables(kind), &[false; 2], &given);
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for ((side, row), seen) in given.iter().zip(&seen) {
            let key = row.key.clone().unwrap();
            let result = |sides: &[BTreeMap<Bytes, (String, i64)>; 2]| {
                let [left, right] = [0, 1].map(|side| sides[side].get(&key).map(|(value, _)| value.clone()));
                let is_there = match kind {
                    JoinKind::Inner => left.is_some() && right.is_some(),
                    JoinKind::Left => left.is_some(),
                    JoinKind::Outer => left.is_some() || right.is_some(),
                };
                let text = |side: Option<String>| side.unwrap_or("~".to_owned());
                is_there.then(|| format!("{}+{}", text(left), text(right)))
            };
            let before = result(&sides);
            let other = sides[1 - side].get(&key).map_or(i64::MIN, |(_, time)| *time);
            let changed = match &row.value {
                Some(value) => {
                    let text = value.escape_ascii().to_string();
                    sides[*side].insert(key.clone(), (text, row.timestamp));
                    true
                }
                None => sides[*side].remove(&key).is_some(),
            };
            let after = result(&sides);
            let text = |value: Option<String>| value.unwrap_or("~".to_owned());
            let expect = (changed && (before.is_some() || after.is_some())).then(|| {
                let key = key.escape_ascii();
                format!("{key}={}@{} was {}", text(after), row.timestamp.max(other), text(before))
            });
            let seen: Vec<_> = seen.iter().map(show).collect();
            assert_eq!(seen, expect.into_iter().collect::<Vec<_>>(), "seed {seed} {kind:?}");
        }
    }
}

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// Operators one after the other, as one: what tables make of what tables say.
pub(super) struct Chain(pub(super) Vec<Box<dyn Operator>>);

impl Operator for Chain {
    fn process(&mut self, input: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        let mut rows = rows.to_vec();
        let mut input = input;
        let last = self.0.len() - 1;
        for operator in &mut self.0[..last] {
            let mut out = Vec::new();
            let mut inner = cx.with_output(&mut out);
            operator.process(input, &rows, &mut inner)?;
            rows = out.into_iter().map(|emitted| emitted.row).collect();
            input = 0;
        }
        self.0[last].process(input, &rows, cx)
    }
}

fn table() -> Box<dyn Operator> {
    Box::new(Table::new(0, true))
}

#[test]
fn the_latest_value_of_each_key() {
    let counts = check(
        &table,
        &[false],
        &[
            ("a=1@10", &["a=1@10 was ~"]),
            // In the order of rows, whatever their times.
            ("a=2@5", &["a=2@5 was 1"]),
            ("a=2@5", &["a=2@5 was 2"]),
            ("b=~@5", &[]),
            ("a=~@7", &["a=~@7 was 2"]),
            ("a=~@8", &[]),
            ("a=@9", &["a=@9 was ~"]),
            ("-=x@9", &[]),
        ],
    );
    assert_eq!(counts, Counts { null_key: 1, ..Counts::default() });
}

#[test]
fn filtered_and_mapped() {
    let make = || -> Box<dyn Operator> {
        let big = |row: &Row| Ok(row.value.as_ref().is_some_and(|value| value.len() > 1));
        let first = |_: Option<&[u8]>, value: &[u8]| Ok(Some(Bytes::copy_from_slice(&value[..1])));
        let operators: Vec<Box<dyn Operator>> =
            vec![table(), Box::new(FilterTable(Box::new(big))), Box::new(MapTable(Box::new(first)))];
        Box::new(Chain(operators))
    };
    check(
        &make,
        &[false],
        &[
            ("a=1@1", &[]),
            ("a=22@2", &["a=2@2 was ~"]),
            ("a=33@3", &["a=3@3 was 2"]),
            ("a=4@4", &["a=~@4 was 3"]),
            ("a=5@5", &[]),
            ("a=66@6", &["a=6@6 was ~"]),
            ("a=~@7", &["a=~@7 was 6"]),
        ],
    );
}

fn grouped(function: &'static str, members: bool) -> impl Fn() -> Box<dyn Operator> {
    move || {
        let aggregator = single_with(function, true, members.then_some(2));
        let operators: Vec<Box<dyn Operator>> = vec![
            table(),
            Box::new(GroupTable::new(Field::parse("json:g").unwrap())),
            Box::new(AggregateTable::new(1, aggregator, true)),
        ];
        Box::new(Chain(operators))
    }
}

#[test]
fn groups_of_a_table() {
    let counts = check(
        &grouped("sum:json:n", false),
        &[false; 2],
        &[
            (r#"a={"g":"x","n":1}@10"#, &["x=1@10 was ~"]),
            (r#"b={"g":"x","n":2.5}@5"#, &["x=3.5@10 was 1"]),
            // It changes within its group: once.
            (r#"b={"g":"x","n":3}@20"#, &["x=4@20 was 3.5"]),
            // It goes to another one: the old one first.
            (r#"b={"g":"y","n":3}@15"#, &["x=1@20 was 4", "y=3@15 was ~"]),
            // The last one has left: the group is gone.
            (r#"a=~@30"#, &["x=~@30 was 1"]),
            (r#"b={"n":3}@31"#, &["y=~@31 was 3"]),
            (r#"b={"g":"x"}@32"#, &["x=0@32 was ~"]),
        ],
    );
    // What it was is looked at once more when it changes.
    assert_eq!(counts, Counts { null_field: 2, ..Counts::default() });
}

#[test]
fn the_rows_of_groups() {
    let make = || -> Box<dyn Operator> {
        let operators: Vec<Box<dyn Operator>> =
            vec![table(), Box::new(GroupTable::new(Field::parse("json:g").unwrap()))];
        Box::new(Chain(operators))
    };
    check(
        &make,
        &[false],
        &[
            (r#"a={"g":1}@1"#, &[r#"1={"g":1}@1 was ~ of a"#]),
            (r#"a={"g":1,"n":2}@2"#, &[r#"1={"g":1,"n":2}@2 was {"g":1} of a"#]),
            (r#"a={"g":2}@3"#, &[r#"1=~@3 was {"g":1,"n":2} of a"#, r#"2={"g":2}@3 was ~ of a"#]),
            (r#"a=~@4"#, &[r#"2=~@4 was {"g":2} of a"#]),
        ],
    );
}

#[test]
fn the_ends_of_a_group() {
    let table: [(&str, &str, &str, &str); 7] = [
        (r#"a={"g":"x","n":5}@1"#, "5", "5", r#"[{"value":5,"label":"a"}]"#),
        (r#"b={"g":"x","n":3}@2"#, "3", "5", r#"[{"value":5,"label":"a"},{"value":3,"label":"b"}]"#),
        (r#"c={"g":"x","n":9}@3"#, "3", "9", r#"[{"value":9,"label":"c"},{"value":5,"label":"a"}]"#),
        // Equal ones: by label.
        (r#"b={"g":"x","n":9}@4"#, "5", "9", r#"[{"value":9,"label":"b"},{"value":9,"label":"c"}]"#),
        // The next one moves up.
        ("c=~@5", "5", "9", r#"[{"value":9,"label":"b"},{"value":5,"label":"a"}]"#),
        (r#"b={"g":"x","n":null}@6"#, "5", "5", r#"[{"value":5,"label":"a"}]"#),
        ("a=~@7", "~", "~", "[]"),
    ];
    for (function, column) in [("min:json:n", 0), ("max:json:n", 1), ("top:2:json:n", 2)] {
        let mut was = "~".to_owned();
        let expect: Vec<String> = table
            .iter()
            .map(|(row, min, max, top)| {
                let now = [*min, *max, *top][column];
                let time = row.rsplit_once('@').unwrap().1;
                format!("x={now}@{time} was {}", std::mem::replace(&mut was, now.to_owned()))
            })
            .collect();
        let expect: Vec<[&str; 1]> = expect.iter().map(|text| [text.as_str()]).collect();
        let rows: Vec<(&str, &[&str])> =
            table.iter().zip(&expect).map(|(row, out)| (row.0, &out[..])).collect();
        check(&grouped(function, true), &[false, false, true], &rows);
    }
}

#[test]
fn different_values_of_a_group() {
    check(
        &grouped("distinct:json:n", true),
        &[false, false, true],
        &[
            (r#"a={"g":"x","n":5}@1"#, &["x=1@1 was ~"]),
            (r#"b={"g":"x","n":5.0}@2"#, &["x=1@2 was 1"]),
            (r#"c={"g":"x","n":"5"}@3"#, &["x=2@3 was 1"]),
            (r#"a=~@4"#, &["x=2@4 was 2"]),
            (r#"b=~@5"#, &["x=1@5 was 2"]),
        ],
    );
}

/// The three largest of a group.
fn top(rows: &BTreeMap<u64, (u64, f64)>, group: u64) -> String {
    let mut of_group: Vec<_> =
        rows.iter().filter(|(_, (g, _))| *g == group).map(|(key, (_, n))| (*n, *key)).collect();
    if of_group.is_empty() {
        return "~".to_owned();
    }
    of_group.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let entries = of_group.iter().take(3).map(|(n, key)| {
        let mut value = Vec::new();
        scalar::Scalar::float(*n).unwrap().write_json(&mut value);
        format!(r#"{{"value":{},"label":"{key}"}}"#, String::from_utf8(value).unwrap())
    });
    format!("[{}]", entries.collect::<Vec<_>>().join(","))
}

/// Every function of a table's groups after every change equals that of the rows which are there then.
#[test]
fn groups_against_a_naive_model() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let functions = [
            "count",
            "sum:json:n",
            "avg:json:n",
            "min:json:n",
            "max:json:n",
            "distinct:json:n",
            "top:3:json:n",
        ];
        let function = functions[random.random_range(0..functions.len())];
        let make = grouped(function, true);
        let mut rows: BTreeMap<u64, (u64, f64)> = BTreeMap::new();
        let mut given = Vec::new();
        let mut expect = Vec::new();
        for sequence in 0..60 {
            let (key, group, n) =
                (random.random_range(0..6_u64), random.random_range(0..3_u64), random.random_range(0..40));
            let n = f64::from(n) / 10.0 + if random.random_bool(0.1) { 1e15 } else { 0.0 };
            let gone = random.random_bool(0.25);
            let text =
                if gone { format!("{key}=~@1") } else { format!(r#"{key}={{"g":{group},"n":{n}}}@1"#) };
            given.push((0, Row { sequence, ..testing::row(&text) }));
            let before = if gone { rows.remove(&key) } else { rows.insert(key, (group, n)) };
            // The groups that it was in and is in now, the old one first.
            let mut groups: Vec<_> = before.iter().map(|(group, _)| *group).collect();
            if !gone && groups != [group] {
                groups.push(group);
            }
            let of = |group: &u64| {
                if function.starts_with("top") {
                    return top(&rows, *group);
                }
                // Afresh, in another order.
                let aggregate = || -> Box<dyn Operator> {
                    Box::new(AggregateByKey::new(0, single_with(function, true, Some(1)), false))
                };
                let mut rig = Rig::new(&aggregate, &[false, true]);
                let mut last = "~".to_owned();
                for (key, (_, n)) in rows.iter().rev().filter(|(_, (g, _))| g == group) {
                    let row = testing::row(&format!(r#"{key}={{"n":{n}}}@1"#));
                    let change = Change::Grouped { was: None, origin: row.key.clone().unwrap() };
                    let row = Row { key: Some(Bytes::from_static(b"x")), change, ..row };
                    last = show(&rig.give(0, &[row]).unwrap()[0]);
                }
                last.trim_start_matches("x=").trim_end_matches("@1").to_owned()
            };
            expect.push(groups.iter().map(|group| (group.to_string(), of(group))).collect::<Vec<_>>());
        }
        let seen = Rig::new(&make, &[false, false, true]).run(&given).unwrap();
        for (index, (seen, expect)) in seen.iter().zip(&expect).enumerate() {
            let seen: Vec<_> = seen
                .iter()
                .map(|one| {
                    let text = show(one);
                    let (key, rest) = text.split_once('=').unwrap();
                    (key.to_owned(), rest.split('@').next().unwrap().to_owned())
                })
                .collect();
            assert_eq!(&seen, expect, "seed {seed} {function} row {index}");
        }
    }
}

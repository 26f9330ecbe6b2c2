use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

fn versioned() -> Box<dyn Operator> {
    Box::new(VersionedTable::new(0, 1, 100, true))
}

/// An update that is older than the latest changes nothing downstream. (Kafka Streams forwards it.)
#[test]
fn out_of_order_updates_go_nowhere() {
    let counts = check(
        &versioned,
        &[false, true],
        &[
            ("k=ten@10", &["k=ten@10 was ~"]),
            ("k=five@5", &[]),
            ("k=eleven@11", &["k=eleven@11 was ten"]),
            ("k=again@11", &["k=again@11 was eleven"]),
            ("k=~@12", &["k=~@12 was again"]),
            ("k=six@6", &[]),
            ("k=~@13", &[]),
            ("k=twelve@12", &[]),
            ("k=new@14", &["k=new@14 was ~"]),
            ("j=x@114", &["j=x@114 was ~"]),
            ("j=~@13", &[]),
            ("-=x@999", &[]),
            ("j=x@-1", &[]),
        ],
    );
    assert_eq!(counts, Counts { out_of_order: 3, late: 1, null_key: 1, no_time: 1, ..Counts::default() });
}

/// A row that is older than the history finds the version that is still the latest, and none that was replaced.
#[test]
fn the_latest_version_is_known_before_the_history() {
    let make = || -> Box<dyn Operator> {
        let table = JoinedTable::Versioned { latest: 0, history: 1, history_ms: 10 };
        Box::new(StreamTableJoin::new(table, true, pair(), None))
    };
    check(
        &make,
        &[false, true],
        &[
            ("1>a=one@5", &[]),
            ("1>b=one@5", &[]),
            ("1>b=two@90", &[]),
            ("1>c=~@5", &[]),
            ("1>z=z@100", &[]),
            ("0>a=s@6", &["a=s+one@6"]),
            ("0>a=s@4", &["a=s+~@4"]),
            ("0>b=s@6", &["b=s+~@6"]),
            ("0>b=s@90", &["b=s+two@90"]),
            ("0>c=s@6", &["c=s+~@6"]),
        ],
    );
}

/// A join finds what a map of all versions has.
#[test]
fn versions_against_a_naive_model() {
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let history = [0, 10, 50][random.random_range(0..3)];
        let make = move || -> Box<dyn Operator> {
            let table = JoinedTable::Versioned { latest: 0, history: 1, history_ms: history };
            Box::new(StreamTableJoin::new(table, true, pair(), None))
        };
        let mut time = 0;
        let given: Vec<_> = (0..100)
            .map(|sequence| {
                time += [0, 0, 1, 2, 5, 40][random.random_range(0..6)];
                let timestamp = (time - [0, 0, 1, 5, 12, 60][random.random_range(0..6)]).max(0);
                let key = ["a", "b"][random.random_range(0..2)];
                let input = random.random_range(0..2);
                let value = if input == TABLE && random.random_bool(0.3) {
                    "~".to_owned()
                } else {
                    sequence.to_string()
                };
                (input, Row { sequence, ..testing::row(&format!("{key}={value}@{timestamp}")) })
            })
            .collect();
        let seen = Rig::new(&make, &[false, true]).run(&given).unwrap();
        let mut disturbed = Rig::new(&make, &[false, true]);
        let mut random = SmallRng::seed_from_u64(seed);
        assert_eq!(disturbed.run_disturbed(&given, &mut |range| random.random_range(range)).unwrap(), seen);
        let mut versions: BTreeMap<(Bytes, i64), Option<Bytes>> = BTreeMap::new();
        let mut now = -1;
        for ((input, row), seen) in given.iter().zip(&seen) {
            let (key, time) = (row.key.clone().unwrap(), row.timestamp);
            if *input == TABLE {
                now = now.max(time);
                if time + history >= now {
                    versions.insert((key, time), row.value.clone());
                }
                assert_eq!(seen[..], []);
                continue;
            }
            let latest = versions.range((key.clone(), 0)..=(key.clone(), time)).next_back();
            let is_latest =
                versions.range((key.clone(), time + 1)..=(key.clone(), i64::MAX)).next().is_none();
            let is_known = is_latest || time + history >= now;
            let found = latest.and_then(|(_, value)| value.clone()).filter(|_| is_known);
            let text =
                |bytes: Option<Bytes>| bytes.map_or("~".to_owned(), |bytes| bytes.escape_ascii().to_string());
            let expect = format!("{}={}+{}@{time}", text(Some(key)), text(row.value.clone()), text(found));
            assert_eq!(seen.iter().map(show).collect::<Vec<_>>(), [expect], "seed {seed} history {history}");
        }
        disturbed.give(TABLE, &[testing::row("z=z@100000")]).unwrap();
        while disturbed.maintain(2).unwrap() {}
        assert_eq!(disturbed.replayed()[1].len(), 1, "stream time");
    }
}

use super::*;

#[test]
fn the_first_of_a_key_within_a_time_passes() {
    let make = || -> Box<dyn Operator> { Box::new(Deduplicate::new(0, None, 10, 0, Late::Emit)) };
    let counts = check(
        &make,
        &[true],
        &[
            ("a=1@100", &["a=1@100"]),
            ("a=2@109", &[]),
            ("b=3@109", &["b=3@109"]),
            // From the one that passed, not from its repetitions.
            ("a=4@110", &["a=4@110"]),
            // Out of order: before and between those that passed.
            ("a=5@101", &[]),
            ("a=6@100", &["1>a=6@100"]),
            ("-=7@110", &[]),
            ("a=~@120", &["a=~@120"]),
            // Late when stream time is its time + 10.
            ("a=8@110", &["1>a=8@110"]),
            ("b=9@111", &[]),
            ("b=9@119", &["b=9@119"]),
            ("c=9@-1", &[]),
        ],
    );
    assert_eq!((counts.duplicates, counts.late, counts.null_key, counts.no_time), (3, 2, 1, 1));
}

#[test]
fn by_a_field() {
    let by = Field::parse("json:id").unwrap();
    let make =
        move || -> Box<dyn Operator> { Box::new(Deduplicate::new(0, Some(by.clone()), 10, 5, Late::Drop)) };
    let counts = check(
        &make,
        &[true],
        &[
            (r#"a={"id":1}@100"#, &[r#"a={"id":1}@100"#]),
            (r#"b={"id":1.0}@101"#, &[]),
            (r#"-={"id":"1x"}@101"#, &[r#"-={"id":"1x"}@101"#]),
            ("a={}@101", &[]),
            ("a=~@101", &[]),
        ],
    );
    assert_eq!((counts.duplicates, counts.null_field, counts.null_value), (1, 1, 1));
}

/// A row costs the same, however many of its key are remembered.
#[test]
fn a_long_memory_costs_no_more_for_each_row() {
    let make = || -> Box<dyn Operator> { Box::new(Deduplicate::new(0, None, 1, 1_000_000, Late::Drop)) };
    let mut rig = Rig::new(&make, &[true]);
    for n in 0..2_000 {
        assert_eq!(rig.give(0, &[testing::row(&format!("a=x@{n}"))]).unwrap().len(), 1);
    }
    let longest = rig.replayed()[0].values().map(|value| value.len()).max();
    assert!(longest.is_some_and(|longest| longest < 64), "{longest:?}");
}

/// A row that is not late yet may repeat one that passed as long as two times `within` before.
#[test]
fn what_a_row_can_still_repeat_is_remembered() {
    let make = || -> Box<dyn Operator> { Box::new(Deduplicate::new(0, None, 10, 0, Late::Emit)) };
    let mut rig = Rig::new(&make, &[true]);
    let mut passes = |text: &str| {
        let outputs: Vec<usize> =
            rig.give(0, &[testing::row(text)]).unwrap().iter().map(|emitted| emitted.output).collect();
        while rig.maintain(1).unwrap() {}
        (outputs, rig.replayed()[0].len())
    };
    assert_eq!(passes("a=1@0"), (vec![RESULTS], 3));
    assert_eq!(passes("b=2@10"), (vec![RESULTS], 5));
    assert_eq!(passes("a=3@9"), (vec![], 5), "it repeats the first one");
    assert_eq!(passes("b=4@19"), (vec![], 5));
    assert_eq!(passes("b=5@20"), (vec![RESULTS], 5), "nothing can repeat the first one any more");
}

/// All that passed, looked through for each row.
#[test]
fn against_a_naive_model() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (within, grace) = ([1, 3, 10][random.random_range(0..3)], [0, 5][random.random_range(0..2)]);
        let make =
            move || -> Box<dyn Operator> { Box::new(Deduplicate::new(0, None, within, grace, Late::Emit)) };
        let given = random_rows(&mut random, 80, 1, &["a", "b", "a\0"]);
        let seen = Rig::new(&make, &[true]).run(&given).unwrap();
        let mut other = Rig::new(&make, &[true]);
        let mut random = SmallRng::seed_from_u64(seed);
        assert_eq!(other.run_disturbed(&given, &mut |range| random.random_range(range)).unwrap(), seen);
        let (mut passed, mut now): (Vec<&Row>, i64) = (Vec::new(), -1);
        for ((_, row), seen) in given.iter().zip(&seen) {
            now = now.max(row.timestamp);
            let repeats =
                |other: &&Row| other.key == row.key && (other.timestamp - row.timestamp).abs() < within;
            let expect = if row.timestamp + within + grace <= now {
                Some(LATE)
            } else if passed.iter().any(repeats) {
                None
            } else {
                passed.push(row);
                Some(RESULTS)
            };
            assert_eq!(seen.first().map(|emitted| emitted.output), expect, "seed {seed}");
        }
        // What nobody can repeat is forgotten.
        other.give(0, &[testing::row("z=z@100000")]).unwrap();
        while other.maintain(1).unwrap() {}
        assert_eq!(other.replayed()[0].len(), 3, "stream time, one row and when it is forgotten");
    }
}

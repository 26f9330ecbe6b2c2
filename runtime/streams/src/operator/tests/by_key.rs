use super::*;

fn count() -> Box<dyn Operator> {
    Box::new(AggregateByKey::new(0, single("count"), true))
}

#[test]
fn each_row_gives_the_new_result_of_its_key() {
    let counts = check(
        &count,
        &[false],
        &[
            ("a=x@10", &["a=1@10 was ~"]),
            ("b=x@11", &["b=1@11 was ~"]),
            // The time of a result is the latest of its rows.
            ("a=y@3", &["a=2@10 was 1"]),
            ("-=y@50", &[]),
            ("a=~@50", &[]),
            // A time is not needed.
            ("a=z@-1", &["a=3@10 was 2"]),
            ("=z@12", &["=1@12 was ~"]),
        ],
    );
    assert_eq!(counts, Counts { null_key: 1, null_value: 1, ..Counts::default() });
}

fn functions() -> Box<dyn Operator> {
    let functions = [
        "count",
        "count:json:v",
        "sum:json:v",
        "avg:json:v",
        "min:json:v",
        "max:json:v",
        "first:json:v",
        "last:json:v",
        "distinct:json:v",
        "top:2:json:v,label=json:l",
    ];
    let part = |text: &&str| Part {
        name: text.split(':').next().unwrap().to_owned() + if text.contains(":json") { "_v" } else { "" },
        function: Function::parse(text).unwrap(),
    };
    let spec = AggregateSpec {
        parts: functions.iter().map(part).collect(),
        form: ResultForm::Object,
        of_table: false,
    };
    spec.check().unwrap();
    Box::new(AggregateByKey::new(0, Box::new(BuiltIn::new(spec, Some(1))), false))
}

#[test]
fn every_function_of_a_stream() {
    let given = rows(&[
        r#"a={"v":3,"l":"x"}@10"#,
        r#"a={"v":1.5,"l":"y"}@5"#,
        r#"a={"l":"z"}@20"#,
        r#"a={"v":3,"l":"w"}@10"#,
        r#"b={}@10"#,
        r#"a={"v":"text","l":1}@30"#,
    ]);
    let mut rig = Rig::new(&functions, &[false, true]);
    let seen: Vec<_> = given[..5].iter().map(|one| rig.run(std::slice::from_ref(one)).unwrap()).collect();
    let seen: Vec<_> = seen.iter().map(|out| show(&out[0][0])).collect();
    assert_eq!(
        seen,
        [
            r#"a={"count":1,"count_v":1,"sum_v":3,"avg_v":3.0,"min_v":3,"max_v":3,"first_v":3,"last_v":3,"distinct_v":1,"top_v":[{"value":3,"label":"x"}]}@10"#,
            r#"a={"count":2,"count_v":2,"sum_v":4.5,"avg_v":2.25,"min_v":1.5,"max_v":3,"first_v":1.5,"last_v":3,"distinct_v":2,"top_v":[{"value":3,"label":"x"},{"value":1.5,"label":"y"}]}@10"#,
            r#"a={"count":3,"count_v":2,"sum_v":4.5,"avg_v":2.25,"min_v":1.5,"max_v":3,"first_v":1.5,"last_v":3,"distinct_v":2,"top_v":[{"value":3,"label":"x"},{"value":1.5,"label":"y"}]}@20"#,
            r#"a={"count":4,"count_v":3,"sum_v":7.5,"avg_v":2.5,"min_v":1.5,"max_v":3,"first_v":1.5,"last_v":3,"distinct_v":2,"top_v":[{"value":3,"label":"x"},{"value":3,"label":"w"}]}@20"#,
            r#"b={"count":1,"count_v":0,"sum_v":0,"avg_v":null,"min_v":null,"max_v":null,"first_v":null,"last_v":null,"distinct_v":0,"top_v":[]}@10"#,
        ]
    );
    run_all_ways(&functions, &[false, true], &given[..5]);
    // What cannot be summed is the row's fault, and the row is named.
    let rows: Vec<_> = given.iter().map(|(_, row)| row.clone()).collect();
    let error = Rig::new(&functions, &[false, true]).give(0, &rows).unwrap_err();
    let reason = r#"`sum:json:v` needs a number, and has "text""#.to_owned();
    assert_eq!(error, OperatorError::Row(RowError { index: 5, reason }));
}

#[test]
fn a_result_without_a_value() {
    let min = || -> Box<dyn Operator> { Box::new(AggregateByKey::new(0, single("min:json:v"), true)) };
    check(
        &min,
        &[false],
        &[
            ("a={}@1", &["a=~@1 was ~"]),
            (r#"a={"v":"b"}@2"#, &["a=b@2 was ~"]),
            (r#"a={"v":null}@3"#, &["a=b@3 was b"]),
            // Numbers sort before text.
            (r#"a={"v":7}@4"#, &["a=7@4 was b"]),
        ],
    );
}

//! What becomes of each record by itself.

use bytes::Bytes;

use super::*;

fn condition(text: &str) -> Condition {
    Condition::parse(text).unwrap()
}

#[test]
fn rows_that_meet_a_condition() {
    let make =
        || -> Box<dyn Operator> { Box::new(Filter(Box::new(Holds::new(condition("json:delay > 15"))))) };
    let counts = check(
        &make,
        &[],
        &[
            (r#"a={"delay":16}@1"#, &[r#"a={"delay":16}@1"#]),
            (r#"a={"delay":15}@1"#, &[]),
            (r#"a={"delay":null}@1"#, &[]),
            (r#"-={"delay":1e9}@-1"#, &[r#"-={"delay":1e9}@-1"#]),
            ("a={}@1", &[]),
            ("a=~@1", &[]),
        ],
    );
    assert_eq!(counts, Counts::default());
    let bad = Rig::new(&make, &[]).give(0, &[testing::row("a={}@1"), testing::row("a=x@1")]);
    assert!(matches!(bad, Err(OperatorError::Row(RowError { index: 1, .. }))));
}

#[test]
fn the_first_condition_that_is_true() {
    let make = || -> Box<dyn Operator> {
        let conditions = ["json:n > 10", "json:n > 5"]
            .map(|text| Box::new(Holds::new(condition(text))) as Box<dyn Predicate>);
        Box::new(Branch(conditions.into()))
    };
    let table: [(&str, &[&str]); 4] = [
        (r#"a={"n":11}@1"#, &[r#"a={"n":11}@1"#]),
        (r#"a={"n":6}@1"#, &[r#"1>a={"n":6}@1"#]),
        // Neither is true: the rest.
        (r#"a={"n":5}@1"#, &[r#"2>a={"n":5}@1"#]),
        ("a={}@1", &["2>a={}@1"]),
    ];
    check(&make, &[], &table);
}

fn selection() -> Selection {
    let field = |text: &str| Field::parse(text).unwrap();
    Selection(vec![
        ("z".to_owned(), field("json:o.x")),
        ("n n".to_owned(), field("json:n")),
        ("k".to_owned(), field("key")),
    ])
}

#[test]
fn members_of_another_object() {
    let make = || -> Box<dyn Operator> { Box::new(MapValues(Box::new(Select::new(selection())))) };
    let counts = check(
        &make,
        &[],
        &[
            (r#"a={"n": 1.10,"o":{"x":[ 1 ]}}@1"#, &[r#"a={"z":[ 1 ],"n n":1.10,"k":"a"}@1"#]),
            ("-=[]@1", &[r#"-={"z":null,"n n":null,"k":null}@1"#]),
            ("a=~@1", &[]),
        ],
    );
    assert_eq!(counts, Counts { null_value: 1, ..Counts::default() });
}

/// What is known of a row's past decides whether a row that is not in the table has to be deleted.
#[test]
fn tables_stay_tables() {
    let filter =
        || -> Box<dyn Operator> { Box::new(FilterTable(Box::new(Holds::new(condition("raw > 5"))))) };
    check(&filter, &[], &[("a=6@1", &["a=6@1"]), ("a=5@2", &["a=~@2"]), ("a=~@3", &["a=~@3"])]);
    let select = || -> Box<dyn Operator> { Box::new(MapTable(Box::new(Select::new(selection())))) };
    check(&select, &[], &[("a=~@3", &["a=~@3"])]);
    let was = |was: Option<&'static str>| Change::Was(was.map(|was| Bytes::from_static(was.as_bytes())));
    let row = |text: &str, before| Row { change: was(before), ..testing::row(text) };
    let mut rig = Rig::new(&filter, &[]);
    for (given, expect) in [
        (row("a=6@1", None), "a=6@1 was ~"),
        (row("a=4@1", None), ""),
        (row("a=4@1", Some("6")), "a=~@1 was 6"),
        (row("a=7@1", Some("4")), "a=7@1 was ~"),
        (row("a=~@1", Some("4")), ""),
    ] {
        let seen: Vec<_> = rig.give(0, &[given]).unwrap().iter().map(show).collect();
        assert_eq!(seen.concat(), expect);
    }
}

#[test]
fn items_of_a_list() {
    let make = || -> Box<dyn Operator> { Box::new(Explode::new(vec!["items".to_owned()])) };
    let counts = check(
        &make,
        &[],
        &[
            (r#"a={"items":[1.0, {"b": 2} ,"c"]}@7"#, &["a=1.0@7", r#"a={"b": 2}@7"#, r#"a="c"@7"#]),
            (r#"a={"items":[]}@1"#, &[]),
            (r#"a={"items":null}@1"#, &[]),
            ("a={}@1", &[]),
            ("a=~@1", &[]),
        ],
    );
    assert_eq!(counts, Counts { null_field: 2, null_value: 1, ..Counts::default() });
    let give = |value: String| Rig::new(&make, &[]).give(0, &[testing::row(&format!("a={value}@1"))]);
    assert!(
        give(r#"{"items":{}}"#.to_owned()).is_err_and(|error| error.to_string() == "`json:items` is no list")
    );
    assert!(give("x".to_owned()).is_err());
    let list = |count: usize| format!("{{\"items\":[{}]}}", vec!["0"; count].join(","));
    assert_eq!(give(list(10_000)).unwrap().len(), 10_000);
    assert!(give(list(10_001)).is_err_and(|error| error.to_string().contains("more than 10000 items")));
}

use pelton_sdk::testing::{RunError, TestRecord, run};

use super::*;

const ORDER: &str = r#"{"id":18446744073709551615, "customer" : {"nr":7,"name":"Zo\u00eb","email":"z@x.org"} ,
 "total":10.50,"items":[{"sku":"a","qty":1e0},{"sku":"b","note":null}],"no":null}"#;

fn config<'a>(of: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let defaults = [("select", ""), ("drop", ""), ("rename", ""), ("missing", "skip")];
    let rest = defaults.into_iter().filter(|(key, _)| of.iter().all(|(given, _)| given != key));
    of.iter().copied().chain(rest).collect()
}

fn order() -> TestRecord {
    TestRecord {
        timestamp: 77,
        headers: vec![("trace".to_owned(), Some(b"t\"1".to_vec()))],
        ..TestRecord::value(ORDER).with_key("k1")
    }
}

fn projected(of: &[(&str, &str)]) -> String {
    let out = run::<Project>(&config(of), &[order()]).expect("is processed");
    assert_eq!(out.len(), 1);
    let rest = TestRecord { value: order().value, ..out[0].clone() };
    assert_eq!(rest, order(), "key, headers and timestamp are as they were");
    out[0].text()
}

#[test]
fn members_are_chosen() {
    for (select, expect) in [
        ("json:total, json:id", r#"{"total":10.50,"id":18446744073709551615}"#),
        ("json:customer.name as who, json:items.1.sku as second", r#"{"who":"Zo\u00eb","second":"b"}"#),
        (
            "json:id as a.b, json:total as a.c.d, json:no",
            r#"{"a":{"b":18446744073709551615,"c":{"d":10.50}},"no":null}"#,
        ),
        ("json:customer", r#"{"customer":{"nr":7,"name":"Zo\u00eb","email":"z@x.org"}}"#),
        ("key, timestamp as at, header:trace, header:x", r#"{"key":"k1","at":77,"trace":"t\"1"}"#),
        ("json:id as `/a.b`, json:x, json:x.y as p.q", r#"{"a.b":18446744073709551615,"p":{}}"#),
        ("json:x", "{}"),
    ] {
        assert_eq!(projected(&[("select", select)]), expect, "{select}");
    }
    let nulls = projected(&[("select", "json:x, json:id, json:y as a.b"), ("missing", "null")]);
    assert_eq!(nulls, r#"{"x":null,"id":18446744073709551615,"a":{"b":null}}"#);
}

#[test]
fn members_are_dropped_and_renamed() {
    for (of, expect) in [
        (
            &[("drop", "json:customer, json:items.*.note, json:no")][..],
            r#"{"id":18446744073709551615,"total":10.50,"items":[{"sku":"a","qty":1e0},{"sku":"b"}]}"#,
        ),
        (
            &[
                ("drop", "json:customer.email, json:items"),
                (
                    "rename",
                    "json:total as `the total`, json:customer as c, json:customer.nr as number, json:no as total",
                ),
            ],
            r#"{"id":18446744073709551615,"c":{"number":7,"name":"Zo\u00eb"},"the total":10.50,"total":null}"#,
        ),
        (&[("drop", "json:x.y"), ("rename", "json:z as id")], ORDER),
    ] {
        assert_eq!(projected(of), expect, "{of:?}");
    }
}

#[test]
fn records_that_do_not_fit() {
    let given = ["{\"a\":1}", "{\"a\":1", "7", "[{\"a\":1}]", "{\"b\":2}"].map(TestRecord::value);
    let reasons = |of: &[(&str, &str)]| match run::<Project>(&config(of), &given) {
        Err(RunError::Rejected(reasons)) => reasons,
        other => panic!("{other:?}"),
    };
    let strict = reasons(&[("select", "json:a"), ("missing", "reject")]);
    let indexes = |reasons: &[(u32, String)]| reasons.iter().map(|(index, _)| *index).collect::<Vec<u32>>();
    assert_eq!(indexes(&strict), [1, 2, 3, 4]);
    assert_eq!(strict[3].1, "it has no `json:a`");
    assert!(strict[0].1.starts_with("the value is not JSON"), "{}", strict[0].1);
    assert_eq!(strict[1].1, "the value is JSON, but no object and no list, so it has no members");
    assert_eq!(indexes(&reasons(&[("drop", "json:a")])), [1, 2]);
    assert_eq!(indexes(&reasons(&[("select", "key")])), [1, 2]);
    let taken =
        run::<Project>(&config(&[("rename", "json:a as b")]), &[TestRecord::value(r#"{"a":1,"b":2}"#)]);
    let reason = "a member should be named `b`, and the object has one of that name".to_owned();
    assert_eq!(taken, Err(RunError::Rejected(vec![(0, reason)])));
    let key = TestRecord::value("{}").with_key(b"\xff");
    let not_text = run::<Project>(&config(&[("select", "key")]), &[key]);
    assert!(matches!(not_text, Err(RunError::Rejected(reasons)) if reasons[0].1.contains("is not UTF-8")));
    // A delete stays one.
    let gone = [TestRecord::default().with_key("k")];
    assert_eq!(
        run::<Project>(&config(&[("select", "json:a"), ("missing", "reject")]), &gone),
        Ok(gone.to_vec())
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (of, expect) in [
        (&[][..], "none of select, drop and rename is set"),
        (&[("select", "json:a"), ("drop", "json:b")], "select and drop are both set"),
        (&[("drop", "json:b"), ("missing", "null")], "missing is for select"),
        (&[("select", "json:a"), ("missing", "x")], "missing is `x`"),
        (&[("select", "json:a b")], "select has `b` at character 8, where `,` or the end"),
        (&[("select", "a")], "select has `a` at character 1, where a field should be, which is one of `key`"),
        (&[("select", "json:a, json:b as a")], "select writes `a` twice"),
        (&[("select", "json:a, json:b as a.b")], "select writes `a.b` twice"),
        (&[("select", "json:a as x.y, json:b as x")], "select writes `x` twice"),
        (&[("select", "json:a.0")], "select has `json:a.0`, which has no name by itself"),
        (&[("select", "raw")], "select has `raw`, which has no name by itself"),
        (&[("select", "json:a as b..c")], "select has `b..c`, which is no name"),
        (&[("drop", "key")], "drop has `key`, and only members"),
        (
            &[("drop", "json")],
            "drop has `json` at character 1, where a field should be, which is one of `json:a.b`",
        ),
        (&[("drop", "json:a, json:a.b")], "drop has `json:a.b`, which is within"),
        (&[("drop", "json:a"), ("rename", "json:a as b")], "rename has `json:a`, which is named twice"),
        (&[("rename", "json:a")], "rename has `json:a` without `as` and a name"),
        (&[("rename", "json:a as c, json:b as c")], "rename gives `json:a` and `json:b` the same name"),
    ] {
        let Err(RunError::Configure(error)) = run::<Project>(&config(of), &[]) else { panic!("{expect}") };
        assert!(error.starts_with(expect), "{error}");
    }
}

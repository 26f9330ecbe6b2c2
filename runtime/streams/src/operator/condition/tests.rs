//! Conditions as people write them, and what must not be read as one.

use proptest::prelude::*;

use super::*;

/// `true`, `false` or `?`, for a record with the key `k`.
fn judge(condition: &str, value: Option<&str>) -> String {
    let parsed = Condition::parse(condition).unwrap_or_else(|error| panic!("{condition} {error}"));
    let judged = Judge::new(parsed).judge(Some(b"k"), value.map(str::as_bytes));
    judged.unwrap_or_else(|error| panic!("{condition}: {error}")).map_or("?".to_owned(), |is| is.to_string())
}

#[test]
fn tests_of_fields() {
    let value = r#"{"n":15,"f":1.5,"big":9007199254740993,"t":"it's","b":true,"null":null,"o":{"a":[1,"x"]},"a b":1,"text":"7"}"#;
    for (condition, expect) in [
        ("json:n = 15", "true"),
        ("json:n == 15.0", "true"),
        ("json:n>14.5", "true"),
        ("json:n < 15", "false"),
        ("json:n <= 15", "true"),
        ("json:n >= 16", "false"),
        ("json:n <> 15", "false"),
        ("json:n != -1e3", "true"),
        ("json:big > 9007199254740992", "true"),
        ("json:big = 9007199254740993", "true"),
        ("json:f > 1", "true"),
        ("json:t = 'it''s'", "true"),
        ("json:t = \"it's\"", "true"),
        ("json:t > 'is'", "true"),
        ("json:b = TRUE", "true"),
        ("json:b != true", "false"),
        ("json:o.a.0 = 1 AND json:o.a.1 = 'x'", "true"),
        ("json:/o/a/0 = 1", "true"),
        ("`json:a b` = 1", "true"),
        ("key = 'k'", "true"),
        ("key < 5", "?"),
        ("json:n in (1, 15)", "true"),
        ("json:n not in (1, 15)", "false"),
        ("json:n in ('15')", "false"),
        // Other types: not equal, and without an order.
        ("json:text = 7", "false"),
        ("json:text != 7", "true"),
        ("json:text < 8", "?"),
        ("json:o = 1", "false"),
        ("json:o != 1", "true"),
        ("json:o > 1", "?"),
        ("json = 1", "false"),
        // What is not there, and null.
        ("json:x = 1", "?"),
        ("json:x != 1", "?"),
        ("json:null = 1", "?"),
        ("json:x is null", "true"),
        ("json:null is null", "true"),
        ("json:o is null", "false"),
        ("json:n is not null", "true"),
        ("exists json:null", "true"),
        ("exists json:o", "true"),
        ("exists json:o.a", "true"),
        ("not exists json:x", "true"),
        ("json:x in (1)", "?"),
        ("json:x not in (1)", "?"),
    ] {
        assert_eq!(judge(condition, Some(value)), expect, "{condition}");
    }
    assert_eq!(judge("raw = 7", Some(" 7 ")), "true");
    assert_eq!(judge("raw = 'x'", Some("x")), "true");
    assert_eq!(judge("raw = 7 or json = 7", Some("7")), "true");
    for (condition, expect) in
        [("key = 'k'", "true"), ("json:a = 1", "?"), ("json:a is null", "true"), ("exists raw", "false")]
    {
        assert_eq!(judge(condition, None), expect, "{condition} without a value");
    }
}

/// What the plugins' conditions are tested with, too (`plugins/fields`): what both know means the same in both.
#[test]
fn the_table_of_both() {
    const TABLE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/fields/conditions.tsv"));
    let rows: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in rows {
        let [condition, value, expect] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        assert_eq!(judge(condition, (value != "-").then_some(value)), expect, "{condition} of {value}");
    }
}

/// As SQL has it.
#[test]
fn three_values() {
    let (yes, no, unknown) = ("exists key", "not exists key", "json:x = 1");
    let name = |condition: &str| judge(condition, Some("{}"));
    let table = [
        (yes, yes, "true", "true"),
        (yes, no, "false", "true"),
        (yes, unknown, "?", "true"),
        (no, no, "false", "false"),
        (no, unknown, "false", "?"),
        (unknown, unknown, "?", "?"),
    ];
    for (a, b, and, or) in table {
        for (a, b) in [(a, b), (b, a)] {
            assert_eq!(
                (name(&format!("{a} and {b}")), name(&format!("{a} or {b}"))),
                (and.to_owned(), or.to_owned())
            );
        }
    }
    assert_eq!(name(&format!("not {unknown}")), "?");
    // `and` binds more than `or`, and `not` more than both.
    assert_eq!(name(&format!("{yes} or {yes} and {no}")), "true");
    assert_eq!(name(&format!("({yes} or {yes}) and {no}")), "false");
    assert_eq!(name(&format!("not {no} or {no}")), "true");
    assert_eq!(name(&format!("not ({no} or {yes})")), "false");
}

#[test]
fn what_is_no_condition_is_said() {
    for (bad, expect) in [
        ("", "ends where a field"),
        ("json:a", "ends where a comparison"),
        ("json:a =", "ends where a number, a text in quotes"),
        ("json:a = b", "has `b` at character 10, where a number, a text in quotes"),
        ("json:a = null", "say `is null`"),
        ("json:a > true", "true and false have no order"),
        ("jsn:a = 1", "has `jsn:a = 1` at character 1, where a field"),
        ("json:a = 1 json:b = 2", "has `json:b = 2` at character 12, where `and`, `or` or the end"),
        ("(json:a = 1", "ends where `)`"),
        ("json:a = 'x", "has a text at character 10 that does not end"),
        ("`json:a = 1", "has a field at character 1 that does not end"),
        ("json:a ! 1", "has `!` at character 8, which means nothing"),
        ("json:a = 1.2.3", "where a number should be"),
        ("json:a = 1e999", "where a number should be"),
        ("json:a in ()", "where a number, a text in quotes"),
        ("json:a in (1", "ends where `,` or `)`"),
        ("json:a not 1", "where `in` should be"),
        ("json:a is 1", "where `null` should be"),
    ] {
        let error = Condition::parse(bad).expect_err(bad);
        assert!(error.contains(expect), "{bad}: {error}");
    }
    assert!(Condition::parse(&"not ".repeat(32)).is_err_and(|error| error.contains("deeper than 32")));
    assert!(Condition::parse(&format!("{}exists key{}", "(".repeat(31), ")".repeat(31))).is_ok());
    assert!(Condition::parse(&format!("{}exists key", "exists key and ".repeat(400))).is_err());
    let not_json = Judge::new(Condition::parse("json:a = 1").unwrap()).judge(None, Some(b"x"));
    assert!(not_json.is_err_and(|error| error.to_string().starts_with("the value is not JSON")));
}

proptest! {
    /// Whatever is written, it is a condition or an error.
    #[test]
    fn any_text_is_parsed_or_refused(text in "[ -~\u{e4}\u{20ac}]{0,60}") {
        let _ = Condition::parse(&text);
    }

    /// The same of what looks like one.
    #[test]
    fn words_of_conditions_are_parsed_or_refused(
        words in proptest::collection::vec(
            prop_oneof![
                Just("json:a"), Just("key"), Just("raw"), Just("="), Just("<"), Just(">="), Just("!="), Just("1"),
                Just("'x'"), Just("true"), Just("null"), Just("and"), Just("or"), Just("not"), Just("("), Just(")"),
                Just("is"), Just("in"), Just(","), Just("exists"), Just("-1.5"), Just("`json:/b/c`"),
            ],
            0..40,
        ),
        value in "[ -~]{0,30}",
    ) {
        if let Ok(condition) = Condition::parse(&words.join(" ")) {
            let mut judge = Judge::new(condition);
            let _ = judge.judge(Some(b"7"), Some(value.as_bytes()));
            let whole = judge.judge(None, Some(br#"{"a":1,"b":{"c":null}}"#));
            prop_assert!(whole.is_ok(), "{whole:?}");
        }
    }
}

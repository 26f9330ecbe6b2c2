//! Conditions as people write them, and what must not be read as one.

use pelton_sdk::testing::{TestRecord, batch};
use proptest::prelude::*;

use super::*;

/// `true`, `false`, `?` or why not.
fn judge(condition: &str, record: &TestRecord) -> String {
    let condition = Condition::parse(condition).unwrap_or_else(|error| panic!("{condition} {error}"));
    let batch = batch(std::slice::from_ref(record));
    let record = Record::all(&batch).next().expect("there is one");
    condition.judge(record).map_or_else(|error| error, |is| is.map_or("?".to_owned(), |is| is.to_string()))
}

/// What the built-in conditions are tested with, too (`runtime/streams/src/operator/condition/tests.rs`): what they judge,
/// these judge alike.
#[test]
fn the_table_of_both() {
    let mut rows = 0;
    for line in include_str!("../../conditions.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [condition, value, expect] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut record = TestRecord::default().with_key("k");
        record.value = (value != "-").then(|| value.as_bytes().to_vec());
        assert_eq!(judge(condition, &record), expect, "{condition} of {value}");
        rows += 1;
    }
    assert!(rows > 50, "{rows} rows");
}

#[test]
fn texts_headers_and_exact_numbers() {
    let mut record = TestRecord::value(
        r#"{"t":"EWR-LAX","n":15,"id":18446744073709551615,"tags":["a",7,true,null],"null":null,"o":{"a":1},"e":"\u0041b"}"#,
    );
    record.timestamp = 1_700_000_000_123;
    record.headers = [("from", Some("web")), ("from", Some("app")), ("size", Some("12")), ("none", None)]
        .map(|(name, value)| (name.to_owned(), value.map(|value| value.as_bytes().to_vec())))
        .to_vec();
    for (condition, expect) in [
        ("json:t starts with 'EWR'", "true"),
        ("json:t STARTS WITH 'LAX'", "false"),
        ("json:t ends with 'LAX'", "true"),
        ("json:t contains 'R-L'", "true"),
        ("json:t contains ''", "true"),
        ("json:t not contains 'JFK'", "true"),
        ("json:t not starts with 'EWR'", "false"),
        ("json:e starts with 'Ab'", "true"),
        ("json:n starts with '1'", "false"),
        ("json:n not starts with '1'", "true"),
        ("json:x starts with '1'", "?"),
        ("json:x not starts with '1'", "?"),
        ("json:null contains 'a'", "?"),
        ("json:tags contains 'a'", "true"),
        ("json:tags contains 7.0", "true"),
        ("json:tags contains true", "true"),
        ("json:tags contains 'b'", "false"),
        ("json:o contains 'a'", "false"),
        ("json:n contains 1", "false"),
        ("json:id = 18446744073709551615", "true"),
        ("json:id = 18446744073709551614", "false"),
        ("json:id > 18446744073709551614.5", "true"),
        ("header:from = 'app'", "true"),
        ("header:from starts with 'we'", "false"),
        ("header:size > 2", "true"),
        ("exists header:none", "false"),
        ("header:nothing is null", "true"),
        ("timestamp >= 1700000000123", "true"),
        ("timestamp < 1700000000123", "false"),
        ("raw starts with '{'", "true"),
        ("key is null", "true"),
    ] {
        assert_eq!(judge(condition, &record), expect, "{condition}");
    }
    let untimed = TestRecord { timestamp: -1, ..record };
    assert_eq!(judge("timestamp is null", &untimed), "true");
}

#[test]
fn what_cannot_be_judged() {
    let not_json = judge("json:a = 1", &TestRecord::value("x"));
    assert!(not_json.starts_with("the value is not JSON"), "{not_json}");
    assert_eq!(judge("key is null", &TestRecord::value("x")), "true");
    let half = judge("json:a = 'x'", &TestRecord::value(r#"{"a":"\ud800"}"#));
    assert!(half.contains("surrogate"), "{half}");
    assert_eq!(judge("json:b is null", &TestRecord::value(r#"{"a":"\ud800"}"#)), "true");
    let exponent = judge("json:a = 1", &TestRecord::value(r#"{"a":1e999999999999999999}"#));
    assert_eq!(exponent, "a number has an exponent of more than 17 digits");
}

#[test]
fn what_is_no_condition_is_said() {
    for (bad, expect) in [
        ("", "ends where a field"),
        ("json:a", "ends where a comparison"),
        ("json:a =", "ends where a number, a text in quotes"),
        ("json:a = b", "has `b` at character 10, where a number, a text in quotes"),
        ("json:a = null", "say `is null`"),
        (
            "json:a > true",
            "has `true` at character 10, where a number or a text (true and false have no order)",
        ),
        ("jsn:a = 1", "has `jsn:a = 1` at character 1, where a field should be, which is one of"),
        ("json:a = 1 json:b = 2", "has `json:b = 2` at character 12, where `and`, `or` or the end"),
        ("(json:a = 1", "ends where `)`"),
        ("json:a = 'x", "has a text that does not end, which begins at character 10"),
        ("`json:a = 1", "has a field that does not end, which begins at character 1"),
        ("json:ä = 1 and json:a ! 1", "has `!`, which means nothing, at character 23"),
        ("json:a = 1.2.3", "where a number should be"),
        ("json:a in ()", "where a number, a text in quotes"),
        ("json:a in (1", "ends where `,` or `)`"),
        ("json:a not 1", "where `in`, `starts with`"),
        ("json:a is 1", "where `null` should be"),
        ("json:a starts 'x'", "where `with` should be"),
        ("json:a ends with 5", "where a text in quotes should be"),
        ("json:a contains x", "where a number, a text in quotes"),
        ("all = 1", "where a field should be"),
    ] {
        let error = Condition::parse(bad).expect_err(bad);
        assert!(error.contains(expect), "{bad}: {error}");
    }
    assert!(Condition::parse(&"not ".repeat(32)).is_err_and(|error| error.contains("deeper than 32")));
    assert!(Condition::parse(&format!("{}exists key{}", "(".repeat(31), ")".repeat(31))).is_ok());
    assert!(
        Condition::parse(&"exists key and ".repeat(400)).is_err_and(|error| error.contains("at most 4096"))
    );
}

proptest! {
    /// Whatever is written, it is a condition or an error.
    #[test]
    fn any_text_is_parsed_or_refused(text in "[ -~\u{e4}\u{20ac}]{0,60}") {
        let _ = Condition::parse(&text);
    }

    /// The same of what looks like one, for values that are JSON or not.
    #[test]
    fn words_of_conditions_are_parsed_or_refused(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "json:a", "key", "raw", "header:h", "=", "<", ">=", "!=", "1", "'x'", "true", "null", "and",
                "or", "not", "(", ")", "is", "in", ",", "exists", "-1.5", "`json:/b/c`", "starts", "with", "ends", "contains",
            ]),
            0..40,
        ),
        value in "[ -~]{0,30}",
    ) {
        if let Ok(condition) = Condition::parse(&words.join(" ")) {
            let batch = batch(&[TestRecord::value(value), TestRecord::value(r#"{"a":1,"b":{"c":null}}"#)]);
            let judged: Vec<_> = Record::all(&batch).map(|record| condition.judge(record)).collect();
            prop_assert!(judged[1].is_ok(), "{:?}", judged[1]);
        }
    }
}

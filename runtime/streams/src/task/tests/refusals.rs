//! Outputs that their topic refuses.

use super::*;

/// Topics that do not take values with `big` in them; the dead-letter topic takes none with `huge`, and no timestamp above
/// 1,000.
fn small_records_alone(record: &TestOutput) -> Result<(), Refusal> {
    let value = String::from_utf8_lossy(record.record.value.as_deref().unwrap_or_default()).into_owned();
    let word = if record.topic == "dead" { "huge" } else { "big" };
    let timestamp = record.record.timestamp;
    if value.contains(word) {
        return Err(Refusal::TooLarge { bytes: value.len(), codec: "none", max: 2 });
    }
    if record.topic == "dead" && timestamp > 1_000 {
        return Err(Refusal::Timestamp { timestamp, min: 0, max: 1_000 });
    }
    Ok(())
}

fn check_refused(on_error: &str, values: &str, expect: &str) -> Harness {
    let mut harness = harness(on_error);
    harness.driver.rule = small_records_alone;
    let out = harness.driver.pipe(&records(values)).expect("does not fail");
    assert_eq!(shown(&out), expect, "{on_error} {values}");
    harness
}

#[test]
fn what_a_topic_refuses_is_the_failure_of_the_record() {
    let mut harness = harness("{ policy = 'fail' }");
    harness.driver.rule = small_records_alone;
    let input = records("a b big c big");
    let first = harness.driver.step(&input, 5).expect("goes up to the record");
    assert_eq!((shown(&first).as_str(), harness.driver.next_offset()), ("out:0=a out:1=b", 2));
    let Err(StepError::Failed(failure)) = harness.driver.step(&input[2..], 5) else { panic!("is passed") };
    assert_eq!(
        failure.to_string(),
        "node `n` failed at topic in, partition 0, offset 2: topic out, partition 0 does not take what comes of it: it has \
         3 bytes as stored (none), the topic's max.message.bytes is 2"
    );
    assert_eq!(failure.error.kind(), "output");
}

#[test]
fn what_a_topic_refuses_goes_by_the_policy() {
    let harness = check_refused("{ policy = 'skip' }", "a big c 2big 2", "out:0=a out:2=c out:4=2 out:4=2");
    let skipped: Vec<_> = harness.driver.notices.iter().map(|n| (n.kind.clone(), n.failure.offset)).collect();
    assert_eq!(skipped, [(NoticeKind::Skipped, 1), (NoticeKind::Skipped, 3)]);
    // All that are refused are found in one pass, and left out of the next.
    assert_eq!(*harness.calls.lock().expect("not poisoned"), [5, 3]);

    let dead = "{ policy = 'dead-letter', topic = 'dead' }";
    let harness = check_refused(dead, "a big c", "out:0=a out:2=c dead:1=big");
    assert_eq!(harness.driver.notices[0].kind, NoticeKind::DeadLettered);

    let retry = "{ policy = 'retry', attempts = 2, backoff_ms = 10, then = 'skip' }";
    let harness = check_refused(retry, "a big c", "out:0=a out:2=c");
    assert_eq!(harness.driver.retries, [10, 20]);
}

/// A record that a plugin makes of none is that of the input record at which it makes it.
#[test]
fn what_is_made_of_no_record_is_found_too() {
    let harness = check_refused("{ policy = 'skip' }", "a b made-big c", "out:0=a out:1=b out:3=c");
    let skipped: Vec<_> = harness.driver.notices.iter().map(|n| n.failure.offset).collect();
    assert_eq!(skipped, [2]);
}

#[test]
fn a_dead_letter_that_its_topic_does_not_take_is_dropped_and_said() {
    let mut harness = harness("{ policy = 'dead-letter', topic = 'dead' }");
    harness.driver.rule = small_records_alone;
    let mut input = records("big bighuge big reject");
    input[2].timestamp = 2_000;
    let out = harness.driver.pipe(&input).expect("one record never stops it");
    assert_eq!(shown(&out), "dead:0=big dead:2=big dead:3=reject");
    // With a timestamp that the topic takes, and the original one beside it.
    let late = &out[1].record;
    let original = ("pelton.error.timestamp".to_owned(), Some(b"2000".to_vec()));
    assert_eq!((late.timestamp, late.headers.last()), (-1, Some(&original)));
    let dropped: Vec<_> = harness.driver.notices.iter().map(|n| (n.kind.clone(), n.failure.offset)).collect();
    let why = Refusal::TooLarge { bytes: 7, codec: "none", max: 2 };
    let undeliverable = NoticeKind::Undeliverable { topic: "dead".to_owned(), why };
    let letter = NoticeKind::DeadLettered;
    assert_eq!(dropped, [(letter.clone(), 0), (undeliverable, 1), (letter.clone(), 2), (letter, 3)]);
}

/// A topic that takes nothing: steps stay bounded, every record is named, nothing is lost or repeated.
#[test]
fn a_topic_that_refuses_everything_does_not_stop_the_pipeline() {
    let mut harness = harness("{ policy = 'dead-letter', topic = 'dead' }");
    harness.driver.rule = small_records_alone;
    let out = harness.driver.pipe(&records(&"big ".repeat(3_000))).expect("goes on");
    let offsets: Vec<i64> = out.iter().map(|letter| letter.source_offset).collect();
    assert_eq!(offsets, (0..3_000).collect::<Vec<_>>());
    assert!(out.iter().all(|letter| letter.topic == "dead"));
}

/// Where a sink reads the source itself there is no node: the sink's own policy decides, about its records alone.
#[test]
fn a_sink_of_a_source_has_a_policy_of_its_own() {
    let manifest = |on_error: &str| {
        format!(
            "name='p'\nguarantee='at-least-once'\n[[source]]\nid='in'\ntopic='in'\n\
             [[node]]\nid='n'\nfrom='in'\nplugin='p'\non_error={{ policy = 'skip' }}\n[[sink]]\nfrom='n'\ntopic='out'\n\
             [[sink]]\nfrom='in'\ntopic='copy'\n{on_error}"
        )
    };
    let run = |on_error: &str| {
        let mut harness = harness_of(&manifest(on_error));
        harness.driver.rule = |record| match record.topic.as_str() {
            "copy" => small_records_alone(record),
            _ => Ok(()),
        };
        let out = harness.driver.step(&records("a big c"), 3);
        out.map(|out| shown(&out)).map_err(|error| format!("{error:?}"))
    };
    assert_eq!(run("").expect("goes up to the record"), "out:0=a copy:0=a");
    assert_eq!(
        run("on_error={ policy = 'skip' }").expect("goes on"),
        "out:0=a out:1=big out:2=c copy:0=a copy:2=c"
    );
    assert_eq!(
        run("on_error={ policy = 'dead-letter', topic = 'dead' }").expect("goes on"),
        "out:0=a out:1=big out:2=c copy:0=a copy:2=c dead:1=big"
    );
}

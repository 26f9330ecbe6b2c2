//! Outputs that their topic refuses.

use super::*;

#[test]
fn a_refused_output_stops_the_pipeline_exactly_at_its_record() {
    let large = "x".repeat(2 * MAX_RECORD_BYTES);
    for bad in ["unwanted", &large] {
        for before in [0, 1, 2, 30] {
            let mut values = vec!["an output of some size, so that not all fit into one batch"; before];
            values.extend([bad, "after"]);
            let world = world(&[(0, &values)]);
            let (result, board) = run(&world, FAIL);
            let error = result.unwrap_err();
            let status = error.status(9);
            let place = (status.topic.as_deref(), status.partition, status.offset);
            assert_eq!(place, (Some("in"), Some(0), Some(before as i64)), "{error}");
            assert_eq!(status.kind, "output");
            assert_eq!(world.lock().values(), values[..before], "what comes before it is there, once");
            let committed = world.lock().committed.get(&0).copied().unwrap_or(0);
            assert_eq!(committed, before as i64, "the next start begins at the bad record");
            let totals = board.snapshot().totals;
            assert_eq!((totals.records_in, totals.records_out), (before as u64, before as u64));
        }
    }
}

#[test]
fn a_refused_output_goes_by_the_policy() {
    let large = "x".repeat(2 * MAX_RECORD_BYTES);
    for (on_error, expect) in [
        ("{ policy = \"skip\" }", vec!["a", "b"]),
        ("{ policy = \"dead-letter\", topic = \"dead\" }", vec!["a", "b"]),
        ("{ policy = \"retry\", attempts = 1, backoff_ms = 1, then = \"skip\" }", vec![]),
    ] {
        let world = world(&[(0, &["a", "unwanted", &large, "b"])]);
        let (result, board) = run(&world, on_error);
        result.unwrap();
        assert_eq!(world.lock().values(), expect, "{on_error}");
        let totals = board.snapshot().totals;
        let told: Vec<_> = board
            .log_since(0)
            .0
            .into_iter()
            .map(|line| (line.line.level.to_string(), line.line.text))
            .collect();
        let says = |level: &str, words: &[&str]| {
            told.iter().any(|(l, text)| l == level && words.iter().all(|word| text.contains(word)))
        };
        if on_error.contains("retry") {
            // The next attempt is a step of its own, which waits.
            assert!(says("warn", &["attempt 1 of 1", "offset 1"]), "{told:?}");
        } else if on_error.contains("dead") {
            // The fake broker's dead-letter topic takes no more than its other topic.
            assert_eq!((totals.dead_lettered, totals.undeliverable, totals.records_in), (0, 2, 4));
            assert!(says("error", &["dropped", "topic dead does not take it", "offset 2"]), "{told:?}");
        } else {
            assert_eq!((totals.skipped, totals.undeliverable, totals.records_in), (2, 0, 4));
            assert!(says("warn", &["skipped", "offset 2", "max.message.bytes"]), "{told:?}");
        }
    }
}

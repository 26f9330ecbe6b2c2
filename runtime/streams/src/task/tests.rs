use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::answer::{BatchOut, NO_SOURCE, SlicesOut};
use crate::batch::{Headers, OwnedBatch, RecordIn};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::plugin::{PluginInfo, Rejection};
use crate::plugin_manifest::PluginManifest;
use crate::sink::Refusal;
use crate::testing::{TestOutput, TestRecord, TopologyDriver};
use crate::topology::SubTopology;
use crate::world::World;

/// A plugin that reads its orders from the values: `trap`, `reject`, `late`, … fail the call, `drop` is filtered,
/// `late?` is late the first time, `2` and `2big` are emitted twice, `>late` goes to the second output, `made-big` is made
/// of no record. It notes the size of each
/// batch it is given.
struct Script {
    calls: Arc<Mutex<Vec<usize>>>,
    was_late: bool,
}

impl Plugin for Script {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        self.calls.lock().expect("not poisoned").push(batch.len());
        let mut out = BatchOut { route: Some(Vec::new()), ..BatchOut::default() };
        let mut rejected = Vec::new();
        for (i, record) in (0..).zip(batch.records()) {
            let times = match record.value.unwrap_or_default() {
                b"trap" => return Err(PluginError::Trapped { trap: "unreachable".into(), said: None }),
                b"late?" if !self.was_late => {
                    self.was_late = true;
                    return Err(PluginError::Deadline { deadline_ms: 5 });
                }
                b"late" => return Err(PluginError::Deadline { deadline_ms: 5 }),
                b"fatal" => return Err(PluginError::Fatal("no".into())),
                b"no-memory" => return Err(PluginError::ServerMemory { limit_bytes: 1 }),
                b"retry" => return Err(PluginError::Retry("busy".into())),
                b"bad-reject" => {
                    return Err(PluginError::Reject(vec![Rejection {
                        index: 1_000_000,
                        reason: "r".into(),
                    }]));
                }
                b"bad-slice" => {
                    out.keys = Some(SlicesOut { offsets: vec![99], lengths: vec![1] });
                    1
                }
                b"reject" => {
                    rejected.push(Rejection { index: i, reason: format!("odd {i}") });
                    0
                }
                b"drop" => 0,
                b"2" | b"2big" => 2,
                _ => 1,
            };
            let made = record.value == Some(b"made-big");
            for _ in 0..times {
                out.source.push(if made { NO_SOURCE } else { i });
                let late = record.value == Some(b">late");
                out.route.get_or_insert_default().push(u32::from(late));
            }
        }
        if out.source.contains(&NO_SOURCE) {
            // Made of no record: nothing can be inherited.
            let made = |&source: &u32| {
                batch.record(source as usize).map_or(&b"big"[..], |r| r.value.unwrap_or_default())
            };
            let values: Vec<&[u8]> = out.source.iter().map(made).collect();
            let (offsets, lengths) = slices(&values, batch.data.len());
            out.data = values.concat();
            out.values = Some(SlicesOut { offsets, lengths });
            out.timestamps = Some(vec![0; out.source.len()]);
        }
        if rejected.is_empty() { Ok(out) } else { Err(PluginError::Reject(rejected)) }
    }
}

fn slices(values: &[&[u8]], base: usize) -> (Vec<u32>, Vec<u32>) {
    let mut next = base as u32;
    let place = |value: &&[u8]| {
        let offset = next;
        next += value.len() as u32;
        (offset, value.len() as u32)
    };
    values.iter().map(place).unzip()
}

/// Which record each plugin call saw, and what came out.
struct Harness {
    driver: TopologyDriver,
    calls: Arc<Mutex<Vec<usize>>>,
}

fn topology(manifest: &str) -> Topology {
    let plugin = "name='p'\nversion='1'\nworld='transform'\noutputs=['main','late']";
    let info = PluginInfo {
        digest: Digest::new([1; 32]),
        world: World::Transform,
        manifest: Some(PluginManifest::parse(plugin).expect("is valid")),
        bytes: 1,
    };
    let manifest = Manifest::parse(manifest).expect("is valid");
    let plugins = manifest.nodes.iter().map(|node| (node.id.clone(), info.clone())).collect();
    Topology::link(&manifest, &plugins).expect("fits")
}

fn harness_of(manifest: &str) -> Harness {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let topology = topology(manifest);
    let script = || Box::new(Script { calls: Arc::clone(&calls), was_late: false }) as Box<dyn Plugin>;
    let ids: Vec<String> = topology.nodes.iter().map(|node| node.id.clone()).collect();
    let plugins: BTreeMap<&str, Box<dyn Plugin>> = ids.iter().map(|id| (id.as_str(), script())).collect();
    Harness { driver: TopologyDriver::new(topology, plugins, 1), calls }
}

fn one_node(on_error: &str) -> String {
    format!(
        "name='p'\nguarantee='at-least-once'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='p'\n\
         on_error={on_error}\n[[sink]]\nfrom='n'\ntopic='out'\n[[sink]]\nfrom='n:late'\ntopic='late'"
    )
}

fn harness(on_error: &str) -> Harness {
    harness_of(&one_node(on_error))
}

fn records(values: &str) -> Vec<TestRecord> {
    values.split_whitespace().map(|value| TestRecord::value(value).with_key("k")).collect()
}

fn shown(outputs: &[TestOutput]) -> String {
    let one = |o: &TestOutput| {
        let value = String::from_utf8_lossy(o.record.value.as_deref().unwrap_or_default()).into_owned();
        format!("{}:{}={value}", o.topic, o.source_offset)
    };
    outputs.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn check(on_error: &str, values: &str, expect: &str) -> Harness {
    let mut harness = harness(on_error);
    let out = harness.driver.pipe(&records(values)).expect("does not fail");
    assert_eq!(shown(&out), expect, "{on_error} {values}");
    harness
}

#[test]
fn records_go_where_the_plugin_sends_them() {
    let harness =
        check("{ policy = 'fail' }", "a drop 2 >late b", "out:0=a out:2=2 out:2=2 out:4=b late:3=>late");
    assert_eq!(*harness.calls.lock().expect("not poisoned"), [5]);
    assert_eq!(harness.driver.next_offset(), 5);
    assert!(harness.driver.notices.is_empty());
}

#[test]
fn fail_stops_exactly_at_the_record_and_keeps_what_came_before() {
    for (bad, error) in [
        ("trap", "the plugin trapped: unreachable"),
        ("late", "the plugin did not answer within 5 ms (limits.deadline_ms)"),
        ("reject", "the plugin rejects the record: odd 0"),
        (
            "bad-reject",
            "the answer is ill-formed: it rejects 1 records by index, not all of them in the batch of 1",
        ),
        (
            "bad-slice",
            "the answer is ill-formed: keys[0] is 1 bytes at 99, which is not within the input (10 bytes) or the \
             answer's data (0 bytes behind it)",
        ),
    ] {
        let mut harness = harness("{ policy = 'fail' }");
        let input = records(&format!("a b c {bad} e f g"));
        let first = harness.driver.step(&input, 7).expect("goes up to the record");
        assert_eq!(shown(&first), "out:0=a out:1=b out:2=c", "{bad}");
        assert_eq!(harness.driver.next_offset(), 3);
        let Err(StepError::Failed(failure)) = harness.driver.step(&input[3..], 7) else {
            panic!("{bad} is passed")
        };
        assert_eq!(
            failure.to_string(),
            format!("node `n` failed at topic in, partition 0, offset 3: {error}")
        );
        // Asked again, it fails again.
        assert!(harness.driver.step(&input[3..], 7).is_err());
    }
}

#[test]
fn fatal_stops_whatever_the_policy_says() {
    let mut harness = harness("{ policy = 'skip' }");
    let Err(StepError::Failed(failure)) = harness.driver.pipe(&records("a fatal b")) else {
        panic!("is passed")
    };
    let expect = "node `n` failed at topic in, partition 0, offsets 0 to 2: the plugin cannot go on: no";
    assert_eq!(failure.to_string(), expect);
}

#[test]
fn skip_drops_the_record_and_says_so() {
    for bad in ["trap", "late", "reject", "bad-reject"] {
        let harness = check("{ policy = 'skip' }", &format!("a {bad} c {bad} e"), "out:0=a out:2=c out:4=e");
        let skipped: Vec<_> =
            harness.driver.notices.iter().map(|n| (n.kind.clone(), n.failure.offset)).collect();
        assert_eq!(skipped, [(NoticeKind::Skipped, 1), (NoticeKind::Skipped, 3)], "{bad}");
    }
}

/// A deadline that was missed because the machine was busy must not cost a record.
#[test]
fn a_record_is_not_late_for_being_late_once() {
    let harness = check("{ policy = 'skip' }", "late?", "out:0=late?");
    assert!(harness.driver.notices.is_empty());
}

#[test]
fn a_dead_letter_has_the_original_bytes_and_the_reason() {
    let mut harness = harness("{ policy = 'dead-letter', topic = 'dead' }");
    let mut input = records("a reject c");
    input[1].headers = vec![("h".to_owned(), Some(b"1".to_vec()))];
    input[1].timestamp = 77;
    let out = harness.driver.pipe(&input).expect("does not fail");
    assert_eq!(shown(&out), "out:0=a out:2=c dead:1=reject");
    let letter = &out[2].record;
    assert_eq!((letter.key.as_deref(), letter.timestamp), (Some(&b"k"[..]), 77));
    let headers: Vec<String> = (letter.headers.iter())
        .map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v.as_deref().unwrap_or_default())))
        .collect();
    assert_eq!(
        headers,
        [
            "h=1",
            "pelton.error.pipeline=p",
            "pelton.error.node=n",
            "pelton.error.topic=in",
            "pelton.error.partition=0",
            "pelton.error.offset=1",
            "pelton.error.kind=reject",
            "pelton.error.reason=the plugin rejects the record: odd 1",
        ]
    );
}

#[test]
fn retry_waits_longer_each_time_and_then_gives_up() {
    let harness = check(
        "{ policy = 'retry', attempts = 3, backoff_ms = 10, then = 'skip' }",
        "a trap c",
        "out:0=a out:2=c",
    );
    assert_eq!(harness.driver.retries, [10, 20, 40]);
    let harness = check("{ policy = 'retry', attempts = 3, then = 'skip' }", "late?", "out:0=late?");
    assert_eq!(harness.driver.retries, [100]);
}

#[test]
fn a_plugin_that_asks_for_ever_is_stopped() {
    for policy in ["{ policy = 'skip' }", "{ policy = 'retry', attempts = 5, then = 'skip' }"] {
        let mut harness = harness(policy);
        let Err(StepError::Failed(failure)) = harness.driver.pipe(&records("a retry")) else {
            panic!("is passed")
        };
        assert_eq!(failure.error, PluginError::Retry("busy".into()).into());
        assert_eq!(harness.driver.retries, [100, 200, 400, 800, 1600], "{policy}");
    }
}

/// Whatever the policy says of records that cannot be processed: this one can be.
#[test]
fn no_record_is_blamed_for_the_servers_memory() {
    for policy in ["{ policy = 'skip' }", "{ policy = 'retry', attempts = 5, then = 'skip' }"] {
        let mut harness = harness(policy);
        let Err(StepError::Failed(failure)) = harness.driver.pipe(&records("a no-memory")) else {
            panic!("is passed")
        };
        assert_eq!(failure.error, PluginError::ServerMemory { limit_bytes: 1 }.into(), "{policy}");
        assert!(harness.driver.retries.is_empty());
    }
}

/// A plugin that fails at every record: steps stay bounded, every record is named, nothing is lost or repeated.
#[test]
fn a_step_is_bounded_however_much_fails() {
    for bad in ["trap", "late", "reject"] {
        let mut harness = harness("{ policy = 'dead-letter', topic = 'dead' }");
        let input = records(&format!("{bad} ").repeat(300));
        let (mut letters, mut steps) = (Vec::new(), 0);
        while harness.driver.next_offset() < 300 {
            let rest = &input[usize::try_from(harness.driver.next_offset()).expect("positive")..];
            harness.calls.lock().expect("not poisoned").clear();
            letters.extend(harness.driver.step(rest, 300).expect("goes on"));
            assert!(harness.calls.lock().expect("not poisoned").len() <= 2 * 50, "{bad}");
            steps += 1;
        }
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.source_offset).collect();
        assert_eq!(offsets, (0..300).collect::<Vec<_>>(), "{bad}");
        assert!(steps < 300);
    }
}

const CHAIN: &str = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='in'\ntopic='in'\n\
    [[node]]\nid='one'\nfrom='in'\nplugin='p'\non_error={policy='skip'}\n\
    [[node]]\nid='two'\nfrom='one:late'\nplugin='p'\non_error={policy='dead-letter',topic='dead'}\n\
    [[node]]\nid='side'\nfrom='in'\nplugin='p'\non_error={policy='skip'}\n\
    [[sink]]\nfrom='one'\ntopic='main'\n[[sink]]\nfrom='two:late'\ntopic='twice'\n[[sink]]\nfrom='side'\ntopic='side'\n\
    [[sink]]\nfrom='in'\ntopic='copy'";

#[test]
fn nodes_are_chained_and_offsets_stay_those_of_the_source() {
    let mut harness = harness_of(CHAIN);
    let out = harness.driver.pipe(&records("a drop >late")).expect("does not fail");
    assert_eq!(shown(&out), "main:0=a twice:2=>late side:0=a copy:0=a copy:1=drop copy:2=>late");
}

/// A record that one branch cannot process still goes through the others.
#[test]
fn a_failure_is_that_of_one_node() {
    let mut harness = harness_of(CHAIN);
    let out = harness.driver.pipe(&records("a trap >late")).expect("does not fail");
    let copies: Vec<_> = out.iter().filter(|o| o.topic == "copy").map(|o| o.source_offset).collect();
    assert_eq!(copies, [0, 1, 2]);
    let nodes: Vec<_> =
        harness.driver.notices.iter().map(|n| (n.failure.node.as_str(), n.failure.offset)).collect();
    assert_eq!(nodes, [("one", 1), ("side", 1)]);
}

/// A batch whose last records were compacted away still commits up to its end.
#[test]
fn the_end_offset_is_committed_when_all_is_done() {
    let mut harness = harness("{ policy = 'fail' }");
    harness.driver.step(&records("a b"), 9).expect("does not fail");
    assert_eq!(harness.driver.next_offset(), 9);
    harness.driver.step(&[], 12).expect("nothing to do");
    assert_eq!(harness.driver.next_offset(), 12);
}

/// Counts what it is given.
struct Count(usize);

impl Sink for Count {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        self.0 += records.iter().count();
        Ok(())
    }
}

#[test]
fn an_interrupted_search_ends_after_the_call_and_emits_what_is_done() {
    let (topic, values) = ("in", ["a", "b", "c", "late"]);
    let mut batch = OwnedBatch::new(topic, 0);
    for (offset, value) in (10..).zip(values) {
        let record = RecordIn {
            offset,
            timestamp: 1,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::default(),
        };
        batch.push(record, std::iter::empty()).expect("is small");
    }
    // Interrupted after so many failed calls: the step's records are done up to here.
    for (failed_calls, next) in [(1, 10), (2, 12), (3, 13)] {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let topology = Arc::new(topology(&one_node("{ policy = 'fail' }")));
        let script: Box<dyn Plugin> = Box::new(Script { calls: Arc::clone(&calls), was_late: true });
        let partitions = vec![1; topology.outputs.len()];
        let mut plugins = Plugins::default();
        plugins.set(0, script);
        let mut task = Task::new(TaskId { sub_topology: 0, partition: 0 }, topology, &partitions);
        let asked = std::cell::Cell::new(0);
        let interrupted = || {
            asked.set(asked.get() + 1);
            asked.get() == failed_calls
        };
        let mut sink = Count(0);
        let mut outside = Outside { plugins: &mut plugins, sink: &mut sink, interrupted: &interrupted };
        let input = TaskInput { source: 0, batch: batch.as_batch(), end_offset: 14 };
        let out = task.process(&[input], &mut outside).expect("does not fail");
        assert_eq!((out.positions, sink.0), (vec![(0, next)], (next - 10) as usize), "{failed_calls}");
        assert_eq!(task.take_calls().failed, failed_calls);
        assert_eq!(task.take_calls(), Calls::default());
    }
}

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

/// A number that each record adds to, as a store would be written to.
#[derive(Default)]
struct Written {
    now: Vec<String>,
    savepoint: Option<usize>,
}

#[derive(Clone, Default)]
struct State(Arc<Mutex<Written>>);

impl Savepoints for State {
    fn begin(&mut self) {
        let mut written = self.0.lock().expect("not poisoned");
        assert_eq!(written.savepoint, None, "savepoints are not nested");
        written.savepoint = Some(written.now.len());
    }

    fn keep(&mut self) {
        self.0.lock().expect("not poisoned").savepoint = None;
    }

    fn undo(&mut self) {
        let mut written = self.0.lock().expect("not poisoned");
        let before = written.savepoint.take().expect("undo follows a savepoint");
        written.now.truncate(before);
    }
}

/// Writes each value to the state, and fails at `bad`.
struct Writer(State);

impl Plugin for Writer {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut source = Vec::new();
        for (i, record) in (0..).zip(batch.records()) {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            if value == "bad" {
                return Err(PluginError::Trapped { trap: "unreachable".into(), said: None });
            }
            self.0.0.lock().expect("not poisoned").now.push(value);
            source.push(i);
        }
        Ok(BatchOut { source, ..BatchOut::default() })
    }
}

/// Refuses values with `big` in them.
struct SmallAlone(Vec<String>);

impl Sink for SmallAlone {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let value =
            |record: RecordIn<'_>| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        let values: Vec<String> = records.iter().map(|emitted| value(emitted.record)).collect();
        let big = values.iter().enumerate().filter(|(_, value)| value.contains("big"));
        let why = Refusal::TooLarge { bytes: 3, codec: "none", max: 2 };
        let refused: Vec<Refused> = big.map(|(index, _)| Refused { index, why: why.clone() }).collect();
        if refused.is_empty() {
            self.0.extend(values);
            return Ok(());
        }
        Err(refused)
    }
}

fn batch_of(topic: &str, values: &str) -> OwnedBatch {
    let mut batch = OwnedBatch::new(topic, 0);
    for (offset, record) in (0..).zip(records(values)) {
        let value = record.value.as_deref();
        let parts = RecordIn { offset, timestamp: 1, key: None, value, headers: Headers::default() };
        batch.push(parts, std::iter::empty()).expect("is small");
    }
    batch
}

#[test]
fn the_state_has_what_is_emitted_whatever_fails_or_is_refused() {
    for (on_error, values, expect) in [
        ("{ policy = 'skip' }", "a bad b big c", "a b c"),
        ("{ policy = 'skip' }", "bad big bad", ""),
        ("{ policy = 'fail' }", "a b big c", "a b"),
        ("{ policy = 'fail' }", "a b c bad", "a b c"),
    ] {
        let topology = Arc::new(topology(&one_node(on_error)));
        let state = State::default();
        let mut plugins = Plugins::default();
        plugins.set(0, Box::new(Writer(state.clone())));
        let partitions = vec![1; topology.outputs.len()];
        let task = Task::new(TaskId { sub_topology: 0, partition: 0 }, topology, &partitions);
        let mut task = task.with_state(Box::new(state.clone()));
        let mut sink = SmallAlone(Vec::new());
        let batch = batch_of("in", values);
        let input =
            TaskInput { source: 0, batch: batch.as_batch(), end_offset: batch.as_batch().len() as i64 };
        let mut outside = Outside { plugins: &mut plugins, sink: &mut sink, interrupted: &|| false };
        task.process(&[input], &mut outside).expect("some of it is done");
        let written = std::mem::take(&mut *state.0.lock().expect("not poisoned"));
        assert_eq!(
            (written.now.join(" "), written.savepoint),
            (expect.to_owned(), None),
            "{on_error} {values}"
        );
        assert_eq!(sink.0, written.now, "{on_error} {values}");
    }
}

/// Two sources of one task, as a join has them: the step ends at the first that cannot go on.
#[test]
fn a_step_takes_several_inputs_and_answers_a_position_for_each() {
    let manifest = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='l'\ntopic='left'\n[[source]]\nid='r'\ntopic='right'\n\
        [[node]]\nid='a'\nfrom='l'\nplugin='p'\n[[node]]\nid='b'\nfrom='r'\nplugin='p'\n\
        [[sink]]\nfrom='a'\ntopic='x'\n[[sink]]\nfrom='b'\ntopic='y'";
    let mut topology = topology(manifest);
    assert_eq!(topology.sub_topologies.len(), 2, "nothing joins them yet");
    topology.sub_topologies = vec![SubTopology { sources: vec![0, 1] }];
    let topology = Arc::new(topology);
    let run = |left: &str, right: &str| {
        let mut plugins = Plugins::default();
        plugins.set(0, Box::new(Writer(State::default())));
        plugins.set(1, Box::new(Writer(State::default())));
        let mut task = Task::new(TaskId { sub_topology: 0, partition: 0 }, Arc::clone(&topology), &[1, 1]);
        let (left, right) = (batch_of("left", left), batch_of("right", right));
        let mut sink = SmallAlone(Vec::new());
        let mut step = |from: [usize; 2]| {
            let rest = [&left, &right].map(|batch| batch.as_batch());
            let rest = [0, 1].map(|i| OwnedBatch::select(rest[i], |n| n >= from[i]).expect("is small"));
            let inputs = [0, 1].map(|source| TaskInput {
                source,
                batch: rest[source].as_batch(),
                end_offset: [&left, &right][source].as_batch().len() as i64,
            });
            let mut outside = Outside { plugins: &mut plugins, sink: &mut sink, interrupted: &|| false };
            task.process(&inputs, &mut outside).map(|out| out.positions)
        };
        let steps = (step([0, 0]), step([2, 0]));
        (steps, sink.0.join(" "))
    };
    let (steps, written) = run("a b", "c d e");
    assert_eq!((steps.0.expect("is fine"), written.as_str()), (vec![(0, 2), (1, 3)], "a b c d e c d e"));
    let (steps, written) = run("a b", "bad d e");
    assert_eq!((steps.0.expect("the left is done"), written.as_str()), (vec![(0, 2)], "a b"));
    let Err(StepError::Failed(failure)) = steps.1 else { panic!("the right is bad") };
    assert_eq!((failure.topic.as_str(), failure.offset), ("right", 0));
    let (steps, written) = run("a bad", "c d");
    let expect = (vec![(0, 1)], "a c d");
    assert_eq!(
        (steps.0.expect("some is done"), written.as_str()),
        expect,
        "the right comes with the next step"
    );
}

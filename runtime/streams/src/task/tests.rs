use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::answer::{BatchOut, NO_SOURCE, SlicesOut};
use crate::batch::{Headers, OwnedBatch, RecordIn};
use crate::digest::Digest;
use crate::manifest::{Manifest, NodeSpec, PluginRef};
use crate::operator::NoTables;
use crate::plugin::{Plugin, PluginError};
use crate::plugin::{PluginInfo, Rejection};
use crate::plugin_manifest::PluginManifest;
use crate::sink::Refusal;
use crate::sink::{Emissions, Refused};
use crate::testing::{TestOutput, TestRecord, TopologyDriver};
use crate::topology::SubTopology;
use crate::world::World;

mod backlog;
mod forgetting;
mod graph;
mod keeps;
mod placing;
mod refusals;
mod routing;
mod state;
mod timers;

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
    // One that is given stores is of a world with state.
    let info = |node: &NodeSpec| {
        let world = match &node.plugin {
            PluginRef::Name(name) if name == "timers" => World::TransformTimer,
            _ if node.stores.is_empty() => World::Transform,
            _ => World::TransformState,
        };
        let plugin = format!("name='p'\nversion='1'\nworld='{world}'\noutputs=['main','late']");
        let manifest = Some(PluginManifest::parse(&plugin).expect("is valid"));
        PluginInfo { digest: Digest::new([1; 32]), world, manifest, bytes: 1 }
    };
    let manifest = Manifest::parse(manifest).expect("is valid");
    let plugins = manifest.nodes.iter().map(|node| (node.id.clone(), info(node))).collect();
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
            &format!("pelton.error.plugin={}", Digest::new([1; 32])),
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
        let mut outside =
            Outside { plugins: &mut plugins, sink: &mut sink, globals: &NoTables, interrupted: &interrupted };
        let input = TaskInput { source: 0, batch: batch.as_batch(), end_offset: 14, more: false };
        let out = task.process(&[input], &mut outside).expect("does not fail");
        assert_eq!((out.positions, sink.0), (vec![(0, next)], (next - 10) as usize), "{failed_calls}");
        assert_eq!(task.take_calls().failed, failed_calls);
        assert_eq!(task.take_calls(), Calls::default());
    }
}

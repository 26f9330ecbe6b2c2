use super::*;
use crate::partitioner::PartitionerKind;

mod operators;

const FULL: &str = r#"
name = "flight-delays"
guarantee = "at-least-once"
commit = { interval_ms = 50, bytes = "4 MiB" }

[[source]]
id = "flights"
topic = "flights"
start = "timestamp:2013-01-01T00:00:00Z"
partitioner = "crc32"
time = "record"

[[node]]
id = "clean"
from = "flights"
plugin = "../../plugins/clean-flight"
config = { drop_cancelled = true }
on_error = { policy = "dead-letter", topic = "flights.dead" }
limits = { memory = "32 MiB", deadline_ms = 200, output = "8 MiB" }

[[sink]]
from = "clean"
topic = "flights-clean"
partitioner = "fnv1a"
"#;

#[test]
fn reads_all_that_is_there() {
    let manifest = Manifest::parse(FULL).expect("is valid");
    assert_eq!(manifest.name, "flight-delays");
    assert_eq!(manifest.commit, CommitSpec { interval_ms: 50, records: 10_000, bytes: ByteSize::mib(4) });
    assert_eq!(manifest.sources[0].start, Start::Timestamp(1_356_998_400_000));
    assert_eq!(manifest.sources[0].partitioner.as_deref(), Some("crc32"));
    let node = &manifest.nodes[0];
    assert_eq!(node.plugin, PluginRef::Name("../../plugins/clean-flight".to_owned()));
    assert_eq!(node.config["drop_cancelled"], toml::Value::Boolean(true));
    assert_eq!(node.on_error, OnError::DeadLetter { topic: "flights.dead".to_owned() });
    assert_eq!(node.limits.memory, Some(ByteSize::mib(32)));
    assert_eq!(manifest.sinks[0].partitioner, SinkPartitioner::Native(PartitionerKind::Fnv1a));
}

#[test]
fn exactly_once_unless_said_otherwise() {
    let check = |line: &str, expect| {
        let text = FULL.replace("guarantee = \"at-least-once\"\n", line);
        assert_eq!(Manifest::parse(&text).expect("is valid").guarantee, expect);
    };
    check("", Guarantee::ExactlyOnce);
    check("guarantee = \"exactly-once\"\n", Guarantee::ExactlyOnce);
    check("guarantee = \"at-least-once\"\n", Guarantee::AtLeastOnce);
}

#[test]
fn every_policy() {
    let check = |on_error: &str, expect: Result<OnError, &str>| {
        let text = FULL.replace(r#"{ policy = "dead-letter", topic = "flights.dead" }"#, on_error);
        let got = Manifest::parse(&text).map(|m| m.nodes[0].on_error.clone()).map_err(|e| e.to_string());
        assert_eq!(got, expect.map_err(str::to_owned), "{on_error}");
    };
    let retry = |attempts, backoff_ms, then| OnError::Retry { attempts, backoff_ms, then: Box::new(then) };
    let dead = || OnError::DeadLetter { topic: "d".to_owned() };
    check("{ policy = 'fail' }", Ok(OnError::Fail));
    check("{ policy = 'skip' }", Ok(OnError::Skip));
    check("{ policy = 'retry' }", Ok(retry(5, 100, OnError::Fail)));
    check(
        "{ policy = 'retry', attempts = 2, backoff_ms = 7, then = 'dead-letter', topic = 'd' }",
        Ok(retry(2, 7, dead())),
    );
    check(
        "{ policy = 'dead-letter' }",
        Err("`node[0].on_error.topic` is missing: name the dead-letter topic"),
    );
    check(
        "{ policy = 'skip', topic = 'd' }",
        Err("`node[0].on_error.topic` is not used by the policy \"skip\""),
    );
    check("{ policy = 'skip', then = 'fail' }", Err("`node[0].on_error.then` is for the policy \"retry\""));
    check(
        "{ policy = 'retry', then = 'retry' }",
        Err("`node[0].on_error.then` is `retry`; known: `fail`, `skip`, `dead-letter`"),
    );
    check(
        "{ policy = 'retry', attempts = 0 }",
        Err("`node[0].on_error.attempts` is 0, but must be between 1 and 1500"),
    );
    check("{ policy = 'skpi' }", Err("`node[0].on_error.policy` is `skpi`; did you mean `skip`?"));
}

#[test]
fn what_is_refused_is_named() {
    let check = |from: &str, to: &str, expect: &str| {
        let text = FULL.replace(from, to);
        assert_ne!(text, FULL, "{from} is in the text");
        assert_eq!(Manifest::parse(&text).map(|_| ()).map_err(|e| e.to_string()), Err(expect.to_owned()));
    };
    check("plugin =", "plugn =", "`plugn` is not a key of `node[0]` (line 16); did you mean `plugin`?");
    check("[[sink]]", "[[snk]]", "`snk` is not a key of the pipeline (line 21); did you mean `sink`?");
    check(
        "interval_ms",
        "every",
        "`every` is not a key of `commit` (line 4); known: `interval_ms`, `records`, `bytes`",
    );
    check("memory", "memroy", "`memroy` is not a key of `node[0].limits` (line 19); did you mean `memory`?");
    check(
        "\"8 MiB\"",
        "true",
        "`node[0].limits.output`: invalid type: boolean `true`, expected a size, as \"16 MiB\" or a number of bytes \
         (line 19)",
    );
    check(
        "\"at-least-once\"",
        "\"exactly-onec\"",
        "`guarantee` is `exactly-onec`; did you mean `exactly-once`?",
    );
    check(
        "limits =",
        "window = { tumbling = \"1h\" }\nlimits =",
        "`node[0].window` cannot stand beside `plugin`: a node does one thing; add another [[node]]",
    );
    check(
        "[[sink]]",
        "[[table]]\nid = \"planes\"\n[[sink]]",
        "`table[0].topic` is missing: name a compacted topic, or with `table` one that `pelton table create` has made",
    );
    check(
        "time = \"record\"",
        "time = \"jsn:time_hour\"",
        "`source[0].time` is `jsn:time_hour`, but must be `record`, or one of `raw`, `key`, `all`, `long`, `double`, `json`, \
         `json:member`, `json:member.member`, or `json:/member/member` as a JSON pointer, with at most 32 members",
    );
    check(
        "partitioner = \"fnv1a\"",
        "partitioner = \"murmur3\"",
        "`sink[0].partitioner` is `murmur3`; did you mean `murmur2`? For a plugin of that name write `./murmur3`, its directory, or `murmur3@sha256:…`",
    );
    check(
        "partitioner = \"crc32\"",
        "partitioner = \"crc23\"",
        "`source[0].partitioner` is `crc23`; did you mean `crc32`? (\"unknown\" is an answer, too)",
    );
    check(
        "topic = \"flights-clean\"",
        "topic = \"__consumer_offsets\"",
        "`sink[0].topic` is `__consumer_offsets`, which is a topic of the server's own",
    );
    check(
        "id = \"clean\"",
        "id = \"flights\"",
        "`node[0].id` is `flights`, which another source or node is called already",
    );
    check(
        "\"../../plugins/clean-flight\"",
        "\"clean@sha256:12\"",
        "`node[0].plugin` has a wrong digest: `sha256:12` is not a digest: it must be `sha256:` and 64 hexadecimal digits",
    );
    check(
        "name = \"flight-delays\"",
        "name = \"Flight delays\"",
        "`name` is `Flight delays`, but must be 1 to 64 of a-z, 0-9, `.`, `_`, `-`, and begin with a letter or a digit",
    );
    let broken = Manifest::parse("name = ").map(|_| ()).map_err(|e| e.to_string());
    assert!(broken.as_ref().is_err_and(|text| text.contains("line 1")), "{broken:?}");
    let large = "#".repeat(MAX_MANIFEST_BYTES + 1);
    assert_eq!(Manifest::parse(&large), Err(ManifestError::TooLarge { bytes: MAX_MANIFEST_BYTES + 1 }));
}

#[test]
fn a_pinned_plugin() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let text = FULL.replace("../../plugins/clean-flight", &format!("clean-flight@{digest}"));
    let plugin = Manifest::parse(&text).expect("is valid").nodes[0].plugin.clone();
    let digest = digest.parse().expect("is a digest");
    assert_eq!(plugin, PluginRef::Pinned { name: "clean-flight".to_owned(), digest });
}

#[test]
fn threads_are_bounded() {
    let check = |line: &str, expect: Result<u32, &str>| {
        let text = FULL.replace("guarantee = \"at-least-once\"\n", line);
        let threads = Manifest::parse(&text).map(|manifest| manifest.threads);
        assert_eq!(threads.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
    };
    check("", Ok(1));
    check("threads = 3\n", Ok(3));
    check("threads = 0\n", Err("`threads` is 0, but must be between 1 and 64"));
    check("threads = 65\n", Err("`threads` is 65, but must be between 1 and 64"));
}

/// Whoever writes a pipeline begins with these.
#[test]
fn what_the_reference_shows_is_a_manifest() {
    let reference = include_str!("../../PIPELINE.md");
    let shown: Vec<&str> =
        reference.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let names = shown.iter().map(|text| Manifest::parse(text).map(|manifest| manifest.name));
    let names = names.collect::<Result<Vec<_>, _>>().expect("is valid");
    assert_eq!(names, ["orders", "orders-with-customers", "orders-hook"]);
}

#[test]
fn a_sink_may_have_a_plugin_as_its_partitioner() {
    let text = |sinks: &str| format!("name='p'\n[[source]]\nid='s'\ntopic='in'\n{sinks}");
    let sink = |rest: &str| format!("[[sink]]\nfrom='s'\ntopic='out'\n{rest}\n");
    let parsed = Manifest::parse(&text(&sink("partitioner='by-zone'\nconfig={zones=3}"))).expect("is valid");
    let plugin = parsed.sinks[0].plugin().expect("is one");
    assert_eq!(plugin.plugin, PluginRef::Name("by-zone".to_owned()));
    assert_eq!(plugin.config["zones"].as_integer(), Some(3));
    let named: Vec<_> = parsed.plugins().map(|(id, _)| id).collect();
    assert_eq!(named, ["sink out"]);
    let twice = sink("partitioner='by-zone'") + &sink("partitioner='by-zone'");
    assert_eq!(Manifest::parse(&text(&twice)).expect("is valid").plugins().count(), 1);
    for (sinks, why) in [
        (sink("partitioner='murmur3'"), "did you mean `murmur2`?"),
        (sink("partitioner='murmur2'\nconfig={x=1}"), "`sink[0].config` is for a plugin as partitioner"),
        (sink("partitioner='crc32'\nlimits={deadline_ms=5}"), "`sink[0].limits` is for a plugin"),
        (sink("partitioner='p@sha256:12'"), "`sink[0].partitioner` has a wrong digest"),
        (sink("partitioner='p'\nlimits={deadline_ms=0}"), "`sink[0].limits.deadline_ms`"),
        (sink("partitioner='p'") + &sink("partitioner='murmur2'"), "`sink[1].partitioner` is not that of"),
        (
            sink("partitioner='p'") + &sink("partitioner='p'\nconfig={x=1}"),
            "`sink[1].partitioner` is not that",
        ),
    ] {
        let refused = Manifest::parse(&text(&sinks)).expect_err("is refused").to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

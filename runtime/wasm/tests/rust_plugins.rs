//! Rust plugins from their source to their answers: the build in process, the SDK inside, and the host around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pelton_streams::batch::Headers;
use pelton_streams::http::{HttpClient, HttpError, HttpRequest, HttpResponse};
use pelton_streams::log::{LogLevel, LogSink, NoLog};
use pelton_streams::plugin::CallOrder;
use pelton_streams::task::{NoticeKind, RecordError, StepError};
use pelton_streams::testing::{TestRecord, TopologyDriver};
use pelton_streams::{
    InstanceSpec, InstantiateError, Manifest, OwnedBatch, Plugin, PluginError, PluginFactory, PluginLimits,
    RecordIn, Topology, World,
};
use pelton_wasm::toolchain::{BuildError, BuildOptions, Built, build};
use pelton_wasm::{Engine, EngineConfig, inspect};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn build_plugin(dir: &str) -> Built {
    let target_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests"));
    let options = BuildOptions { target_dir, locked: true, ..BuildOptions::default() };
    build(&root().join(dir), &options).expect("builds")
}

/// The example pipeline with the plugin it names, as a server runs it.
fn flights(engine: &Engine, built: &Built) -> TopologyDriver {
    let text =
        std::fs::read_to_string(root().join("examples/01_flight_delays/pipeline.toml")).expect("is there");
    let manifest = Manifest::parse(&text).expect("is valid");
    let info = engine.load(&built.digest, &built.component).expect("can be loaded");
    let topology = Topology::link(&manifest, &BTreeMap::from([("clean".to_owned(), info)])).expect("fits");
    let node = &topology.nodes[0];
    let spec = InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(NoLog) };
    let plugin = engine.instantiate(&built.digest, &spec).expect("starts");
    TopologyDriver::new(topology, BTreeMap::from([("clean", plugin)]), 4)
}

#[test]
fn flights_are_cleaned_by_the_example_pipeline() {
    let built = build_plugin("plugins/clean-flight");
    let seen = inspect(&built.component).expect("is a component");
    assert_eq!(seen.imports, ["pelton:plugin/log@0.1.0"]);
    assert_eq!(seen.exports, ["configure", "process"]);
    assert_eq!(seen.digest, built.digest);
    assert_eq!(seen.manifest.as_ref(), Some(&built.manifest));

    let lines = [
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
        "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z",
        "this is no flight",
        "2013,1,1,848,1835,853,1001,1950,851,MQ,3944,N942MQ,JFK,BWI,41,184,18,35,2013-01-01T23:00:00Z",
    ];
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let mut driver = flights(&engine, &built);
    let out = driver.pipe(&lines.map(TestRecord::value)).expect("does not fail");
    let shown: Vec<_> = out
        .iter()
        .map(|o| {
            let text = |field: &Option<Vec<u8>>| {
                String::from_utf8_lossy(field.as_deref().unwrap_or(b"null")).into_owned()
            };
            (o.topic.as_str(), o.source_offset, text(&o.record.key), text(&o.record.value))
        })
        .collect();
    let expect = [
        (
            "flights-clean",
            0,
            "UA",
            r#"{"carrier":"UA","flight":1545,"tailnum":"N14228","origin":"EWR","dest":"IAH","time_hour":"2013-01-01T10:00:00Z","dep_delay":2,"arr_delay":11,"air_time":227,"distance":1400,"delay_class":"on-time"}"#,
        ),
        (
            "flights-clean",
            3,
            "MQ",
            r#"{"carrier":"MQ","flight":3944,"tailnum":"N942MQ","origin":"JFK","dest":"BWI","time_hour":"2013-01-01T23:00:00Z","dep_delay":853,"arr_delay":851,"air_time":41,"distance":184,"delay_class":"severe"}"#,
        ),
        ("flights.dead", 2, "null", "this is no flight"),
    ];
    assert_eq!(shown, expect.map(|(topic, offset, k, v)| (topic, offset, k.to_owned(), v.to_owned())));
    let [notice] = &driver.notices[..] else { panic!("{:?}", driver.notices) };
    assert_eq!(notice.kind, NoticeKind::DeadLettered);
    assert_eq!(
        notice.failure.to_string(),
        "node `clean` failed at topic flights, partition 0, offset 2: the plugin rejects the record: it has 1 columns, \
         not 19"
    );
}

/// The text of a panic is in the status of the record that caused it, and in the log.
#[test]
fn a_panic_names_its_record_and_its_reason() {
    struct Lines(Mutex<Vec<(LogLevel, String)>>);
    impl LogSink for Lines {
        fn write(&self, level: LogLevel, text: &str) {
            self.0.lock().expect("not poisoned").push((level, text.to_owned()));
        }
    }
    let built = build_plugin("tests/guests/bench-ops");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let info = engine.load(&built.digest, &built.component).expect("can be loaded");
    let manifest = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\n\
                    plugin='p'\nconfig={operation='panic'}\n[[sink]]\nfrom='n'\ntopic='out'";
    let topology = Topology::link(
        &Manifest::parse(manifest).expect("is valid"),
        &BTreeMap::from([("n".to_owned(), info)]),
    );
    let topology = topology.expect("fits");
    let lines = Arc::new(Lines(Mutex::default()));
    let spec = |operation: &str| InstanceSpec {
        config: vec![("operation".to_owned(), operation.to_owned())],
        limits: PluginLimits::default(),
        log: Arc::clone(&lines) as Arc<dyn LogSink>,
    };
    let refused = engine.instantiate(&built.digest, &spec("nothing")).map(|_| ());
    assert_eq!(refused, Err(InstantiateError::Refused("operation is Some(\"nothing\")".to_owned())));

    let plugin: Box<dyn Plugin> = engine.instantiate(&built.digest, &spec("panic")).expect("starts");
    let mut driver = TopologyDriver::new(topology, BTreeMap::from([("n", plugin)]), 1);
    let records: Vec<_> = ["a", "b", "c", "bad", "d"].map(TestRecord::value).to_vec();
    let Err(StepError::Failed(failure)) = driver.pipe(&records) else { panic!("is passed") };
    assert_eq!((failure.offset, failure.last_offset), (3, 3));
    let RecordError::Plugin(PluginError::Trapped { said: Some(said), .. }) = &failure.error else {
        panic!("{failure}")
    };
    assert!(said.contains("a bad record"), "{said}");
    let lines = lines.0.lock().expect("not poisoned");
    assert!(
        lines.iter().any(|(level, text)| *level == LogLevel::Error && text.contains("panicked")),
        "{lines:?}"
    );
}

/// A pipeline of one node that runs a plugin.
fn one_node(engine: &Engine, built: &Built, rest: &str) -> TopologyDriver {
    let info = engine.load(&built.digest, &built.component).expect("can be loaded");
    let manifest = format!(
        "name='p'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='p'\n{rest}\n[[sink]]\nfrom='n'\ntopic='out'"
    );
    let manifest = Manifest::parse(&manifest).expect("is valid");
    let topology = Topology::link(&manifest, &BTreeMap::from([("n".to_owned(), info)])).expect("fits");
    let node = &topology.nodes[0];
    let spec = InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(NoLog) };
    let plugin = engine.instantiate(&built.digest, &spec).expect("starts");
    TopologyDriver::new(topology, BTreeMap::from([("n", plugin)]), 1)
}

/// Records as `key=value@time`.
fn records(texts: &[&str]) -> Vec<TestRecord> {
    let record = |text: &&str| {
        let (record, time) = text.rsplit_once('@').expect("a time");
        let (key, value) = record.split_once('=').expect("a value");
        TestRecord { timestamp: time.parse().expect("a number"), ..TestRecord::value(value).with_key(key) }
    };
    texts.iter().map(record).collect()
}

/// What comes out, as `key=value`.
fn piped(driver: &mut TopologyDriver, texts: &[&str]) -> Vec<String> {
    let out = driver.pipe(&records(texts)).expect("is passed");
    let text =
        |field: &Option<Vec<u8>>| String::from_utf8_lossy(field.as_deref().unwrap_or(b"~")).into_owned();
    out.iter().map(|o| format!("{}={}", text(&o.record.key), text(&o.record.value))).collect()
}

/// Stores through the whole border: entries, ranges, windows; and what fails is undone.
#[test]
fn a_plugin_keeps_what_it_has_written_and_emitted() {
    let built = build_plugin("tests/guests/keeper");
    let seen = inspect(&built.component).expect("is a component");
    assert_eq!(seen.imports, ["pelton:plugin/log@0.1.0", "pelton:plugin/state@0.1.0"]);
    assert_eq!(seen.world.as_deref(), Some("transform-state"));
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let mut driver = one_node(&engine, &built, "on_error={policy='skip'}");
    assert_eq!(piped(&mut driver, &["a=x@1", "b=x@2", "a=x@3"]), ["a=1", "b=1", "a=2"]);
    // Each of these has written, and the good ones between them are given again.
    let out = piped(&mut driver, &["a=trap@4", "a=x@5", "b=reject@6", "a=stray@7", "b=x@8", "a=much@9"]);
    assert_eq!(out, ["a=3", "b=2"]);
    assert_eq!(piped(&mut driver, &["a=all@10", "b=last@11"]), ["a=a=4 b=2", "b=b=3 more false"]);
    let windows = ["a=window@100", "a=window@9000", "b=window@10099", "a=window@10100", "a=window@50"];
    let out = piped(&mut driver, &windows);
    assert_eq!(out, ["a=5@100", "a=5@100 6@9000", "b=4@10099", "a=6@9000 7@10100", "a=6@9000 7@10100"]);
    assert_eq!(piped(&mut driver, &["c=clear@11", "a=x@12"]), ["c=false", "a=1"]);
    let reasons: Vec<String> = driver.notices.iter().map(|notice| notice.failure.error.to_string()).collect();
    let expect = [
        "the plugin trapped: wasm `unreachable` instruction executed",
        "the plugin rejects the record: told to reject",
        "the plugin trapped: it uses the store `sene`, which its node is not given (it has `recent`, `seen`)",
        "the plugin trapped: it writes more than 16777216 bytes to its stores in one call (limits.state)",
    ];
    for (reason, expect) in reasons.iter().zip(expect) {
        assert!(reason.starts_with(expect), "{reason}");
    }
    assert_eq!(reasons.len(), expect.len(), "{reasons:?}");
}

/// A minute of silence of a key is told before the record that ends it for all, also within one batch.
#[test]
fn timers_fire_through_the_border() {
    let built = build_plugin("plugins/silence");
    assert_eq!(inspect(&built.component).expect("is a component").world.as_deref(), Some("transform-timer"));
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let mut driver = one_node(&engine, &built, "config={after_ms=100}");
    assert_eq!(piped(&mut driver, &["a=x@0", "b=x@50", "a=x@99", "c=x@160"]), ["b=50"]);
    assert_eq!(piped(&mut driver, &["b=x@500", "b=x@501", "b=x@700"]), ["a=99", "c=160", "b=501"]);
}

/// A node that aggregates, built in or with a plugin.
fn aggregating(engine: &Engine, built: Option<&Built>, rest: &str) -> TopologyDriver {
    let infos = built.map(|built| engine.load(&built.digest, &built.component).expect("can be loaded"));
    let infos = infos.map(|info| ("n".to_owned(), info)).into_iter().collect();
    let manifest = format!("name='p'\n{rest}\n[[sink]]\nfrom='n'\ntopic='out'");
    let topology = Topology::link(&Manifest::parse(&manifest).expect("is valid"), &infos).expect("fits");
    let operator = topology.operators.iter().position(|node| node.plugin.is_some());
    let plugin = operator.zip(built).map(|(operator, built)| {
        let node = topology.operators[operator].plugin.as_ref().expect("was found");
        let spec = InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(NoLog) };
        (operator, engine.instantiate_aggregator(&built.digest, &spec).expect("starts"))
    });
    let mut driver = TopologyDriver::new(topology, BTreeMap::new(), 1);
    if let Some((operator, plugin)) = plugin {
        driver.plugins.set_aggregator(operator, plugin);
    }
    driver
}

/// The same counts as the built-in function, by key, in windows, in sessions, and of a table.
#[test]
fn an_aggregator_counts_as_the_built_in_function_does() {
    let built = build_plugin("tests/guests/count");
    assert_eq!(inspect(&built.component).expect("is a component").world.as_deref(), Some("aggregator"));
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let stream = "[[source]]\nid='in'\ntopic='in'\n";
    let table = "[[table]]\nid='in'\ntopic='in'\n";
    let input: Vec<String> = (0..400)
        .map(|n| format!("{}={}@{}", ["a", "b", "c"][n % 3], ["x", "y"][n * n % 7 % 2], n / 2 * 3))
        .collect();
    let input: Vec<&str> = input.iter().map(String::as_str).collect();
    for (source, node) in [
        (stream, ""),
        (stream, "window={tumbling='20ms',grace='5ms',emit='on-close'}"),
        (stream, "window={hopping='30ms',advance='10ms'}"),
        (stream, "window={session='4ms'}"),
        (stream, "window={sliding='15ms'}"),
        (table, "group_by='raw'"),
    ] {
        let rest =
            |aggregate: &str| format!("{source}[[node]]\nid='n'\nfrom='in'\naggregate={aggregate}\n{node}");
        let mut own = aggregating(&engine, None, &rest("'count'"));
        let mut plugin = aggregating(&engine, Some(&built), &rest("{plugin='count'}"));
        let expect = piped(&mut own, &input);
        assert!(expect.len() > 20, "{node}");
        assert_eq!(piped(&mut plugin, &input), expect, "{node}");
    }
}

#[test]
fn a_record_that_an_aggregator_cannot_take_goes_by_the_policy() {
    let built = build_plugin("tests/guests/count");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let rest = |config: &str, on_error: &str| {
        format!(
            "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\naggregate={{plugin='count'}}\nconfig={{{config}}}\n\
             on_error={on_error}"
        )
    };
    let input = ["a=x@1", "b=x@2", "a=x@3", "b=x@4", "a=x@5", "c=x@6"];
    for config in ["reject_at=2", "trap_at=2"] {
        let mut driver = aggregating(&engine, Some(&built), &rest(config, "{policy='skip'}"));
        assert_eq!(piped(&mut driver, &input), ["a=1", "b=1", "c=1"], "{config}");
        let offsets: Vec<i64> = driver.notices.iter().map(|notice| notice.failure.offset).collect();
        assert_eq!(offsets, [2, 3, 4], "{config}");
    }
    let mut driver = aggregating(&engine, Some(&built), &rest("reject_at=2", "{policy='fail'}"));
    let Err(StepError::Failed(failure)) = driver.pipe(&records(&input)) else { panic!("is passed") };
    assert_eq!(
        failure.to_string(),
        "node `n` failed at topic in, partition 0, offset 2: the plugin rejects the record: told to reject"
    );
}

#[test]
fn numbers_have_a_mean() {
    let built = build_plugin("plugins/mean");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let rest = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\naggregate={plugin='mean'}\non_error={policy='skip'}";
    let mut driver = aggregating(&engine, Some(&built), rest);
    let out = piped(&mut driver, &["a=3@1", "a=x@2", "a=4.5@3"]);
    assert_eq!(out, [r#"a={"count":1,"sum":3,"mean":3}"#, r#"a={"count":2,"sum":7.5,"mean":3.75}"#]);
}

#[test]
fn events_that_repeat_are_counted_once() {
    let built = build_plugin("plugins/count-once");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let mut driver = one_node(&engine, &built, "config={within_ms=100}");
    assert_eq!(piped(&mut driver, &["a=x@0", "a=x@50", "b=x@60", "a=y@70"]), ["a=1", "b=1", "a=2"]);
    assert_eq!(piped(&mut driver, &["a=x@100", "a=x@101", "a=x@20"]), ["a=3"]);
}

#[test]
fn what_is_no_plugin_is_not_built() {
    let dir = tempfile::tempdir().expect("makes a directory");
    let options = BuildOptions { target_dir: Some(dir.path().join("target")), ..BuildOptions::default() };
    let build = || build(dir.path(), &options).map(|_| ());
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writes");
    assert!(matches!(build(), Err(BuildError::NoManifest { .. })));
    write("plugin.toml", "nam = 'p'");
    let error = build().map_err(|error| error.to_string()).expect_err("is refused");
    assert!(error.ends_with("`nam` is not a key of plugin.toml (line 1); did you mean `name`?"), "{error}");
    write("plugin.toml", "name = 'p'\nversion = '1'\nworld = 'transform'");
    assert!(matches!(build(), Err(BuildError::NoLanguage { .. })));
    write("Cargo.toml", "[package]\nname = 'p'\nedition = '2024'\n[workspace]\n");
    std::fs::create_dir(dir.path().join("src")).expect("makes a directory");
    write("src/lib.rs", "pub fn f() {}");
    assert!(matches!(build(), Err(BuildError::NoArtifact { .. })));
    write("src/lib.rs", "pub fn f( {}");
    assert!(matches!(build(), Err(BuildError::Cargo { .. })));
}

/// A pipeline of a source and a sink that a plugin places the records of, into four partitions.
fn placing(engine: &Engine, built: &Built, rest: &str) -> TopologyDriver {
    let info = engine.load(&built.digest, &built.component).expect("can be loaded");
    let manifest = format!(
        "name='p'\n[[source]]\nid='in'\ntopic='in'\n[[sink]]\nfrom='in'\ntopic='out'\npartitioner='./p'\n{rest}"
    );
    let manifest = Manifest::parse(&manifest).expect("is valid");
    let topology = Topology::link(&manifest, &BTreeMap::from([("sink out".to_owned(), info)])).expect("fits");
    let placing = topology.partitioners().map(|(output, _, plugin)| {
        let (config, limits) = (plugin.config.clone(), plugin.limits);
        let spec = InstanceSpec { config, limits, log: Arc::new(NoLog) };
        (output, engine.instantiate_partitioner(&built.digest, &spec).expect("starts"))
    });
    let placing: Vec<_> = placing.collect();
    let mut driver = TopologyDriver::new(topology, BTreeMap::new(), 4);
    for (output, plugin) in placing {
        driver.plugins.set_partitioner(output, plugin);
    }
    driver
}

#[test]
fn a_plugin_places_the_records_of_a_sink() {
    let built = build_plugin("plugins/region");
    assert_eq!(inspect(&built.component).expect("is a component").world.as_deref(), Some("partitioner"));
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let mut driver = placing(&engine, &built, "config={regions='eu,us,asia'}");
    let input = records(&["eu-1=a@1", "us-1=b@2", "asia-9=c@3", "x=d@4", "eu-2=e@5"]);
    let out = driver.pipe(&input).expect("is passed");
    assert_eq!(out.iter().map(|o| o.partition).collect::<Vec<_>>(), [0, 1, 2, 3, 0]);
    assert_eq!(out.iter().map(|o| o.record.value.clone()).collect::<Vec<_>>(), {
        input.iter().map(|record| record.value.clone()).collect::<Vec<_>>()
    });
}

/// Whatever a partitioner answers, the records that it has no partition for go by the sink's policy, and no others.
#[test]
fn a_partitioner_that_goes_wrong_takes_one_record_along() {
    let built = build_plugin("tests/guests/astray");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let rest = "on_error={policy='dead-letter',topic='dead'}\nlimits={deadline_ms=50,output='1 MiB'}";
    for (bad, why) in [
        ("beyond", "it names partition 4 for record 0, but the topic has 4, from 0 on"),
        ("far", "it names partition 4294967295 for record 0, but the topic has 4, from 0 on"),
        ("none", "it names 0 partitions for 1 records"),
        ("twice", "it names 2 partitions for 1 records"),
        ("trap", "the plugin trapped: wasm `unreachable` instruction executed"),
        ("loop", "the plugin did not answer within 50 ms"),
        ("many", "it names 1048576 partitions for 1 records"),
    ] {
        let mut driver = placing(&engine, &built, rest);
        let values = ["3", "0", bad, "1", "2"];
        let out = driver.pipe(&values.map(TestRecord::value)).expect("is passed");
        let places: Vec<_> = out.iter().map(|o| (o.topic.as_str(), o.source_offset, o.partition)).collect();
        let (kept, dead): (Vec<_>, Vec<_>) = places.into_iter().partition(|(topic, ..)| *topic == "out");
        assert_eq!(kept, [("out", 0, 3), ("out", 1, 0), ("out", 3, 1), ("out", 4, 2)], "{bad}");
        assert_eq!(dead.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [2], "{bad}");
        let [notice] = &driver.notices[..] else { panic!("{bad}: {:?}", driver.notices) };
        let text = notice.failure.to_string();
        assert!(text.starts_with("node `sink out` failed at topic in, partition 0, offset 2: "), "{text}");
        assert!(text.contains("the partitioner of topic out") && text.contains(why), "{text}");
    }
}

/// Answers requests by their bodies: a status, or how long it takes.
#[derive(Default)]
struct Hooks(Mutex<Vec<HttpRequest>>);

impl HttpClient for Hooks {
    fn send(&self, requests: Vec<HttpRequest>, _: Duration) -> Vec<Result<HttpResponse, HttpError>> {
        let answer = |request: &HttpRequest| {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            if let Some(ms) = text.strip_prefix("wait ").and_then(|ms| ms.parse().ok()) {
                std::thread::sleep(Duration::from_millis(ms));
                return Ok(HttpResponse { status: 200, ..HttpResponse::default() });
            }
            let status = text.parse().map_err(|_| HttpError::UnknownOutcome(format!("lost {text}")))?;
            let headers = vec![("retry-after".to_owned(), b"3".to_vec())];
            Ok(HttpResponse { status, headers, body: b"you sent s3cret".to_vec() })
        };
        let answers = requests.iter().map(answer).collect();
        self.0.lock().expect("not poisoned").extend(requests);
        answers
    }

    fn cancel(&self) {}

    fn redact(&self, text: &str) -> String {
        text.replace("s3cret", "***")
    }
}

#[test]
fn a_consumer_sends_and_says_what_is_not_done() {
    let built = build_plugin("plugins/webhook");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    let info = engine.load(&built.digest, &built.component).expect("can be loaded");
    assert_eq!(info.world, World::ConsumerHttp);
    let manifest = "name='p'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='p'\n\
                    config={url='http://x.example/'}\nlimits={deadline_ms=1000}";
    let manifest = Manifest::parse(manifest).expect("is valid");
    let topology = Topology::link(&manifest, &BTreeMap::from([("n".to_owned(), info)])).expect("fits");
    let node = &topology.nodes[0];
    let spec = InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(NoLog) };
    let hooks = Arc::new(Hooks::default());
    let client: Arc<dyn HttpClient> = Arc::clone(&hooks) as Arc<dyn HttpClient>;
    let mut plugin = engine.instantiate_consumer(&built.digest, &spec, Some(&client)).expect("starts");
    let mut consume = |order, values: &[&str]| {
        let mut batch = OwnedBatch::new("in", 2);
        for (offset, value) in (40..).zip(values) {
            let (key, value, headers) = (None, Some(value.as_bytes()), Headers::default());
            let record = RecordIn { offset, timestamp: 7, key, value, headers };
            batch.push(record, [].into_iter()).expect("fits");
        }
        plugin.consume(&batch.as_batch(), order)
    };
    let undone = consume(CallOrder::Free, &["200", "404", "503", "gone", "204"]).expect("answers");
    let undone: Vec<_> = undone.into_iter().map(|one| (one.index, one.again, one.reason)).collect();
    let says = |status: u16| format!("http://x.example answers {status} you sent ***");
    let expect = [(1, None, says(404)), (2, Some(3_000), says(503)), (3, Some(0), "lost gone".to_owned())];
    assert_eq!(undone, expect);
    let sent = std::mem::take(&mut *hooks.0.lock().expect("not poisoned"));
    let keys = sent.iter().map(|request| {
        let key = request.headers.iter().find(|(name, _)| name == "idempotency-key");
        String::from_utf8_lossy(&key.expect("has a key").1).into_owned()
    });
    assert_eq!(keys.collect::<Vec<_>>(), ["in/2/40", "in/2/41", "in/2/42", "in/2/43", "in/2/44"]);
    let undone = consume(CallOrder::Whole, &["200", "500", "200"]).expect("answers");
    assert_eq!(undone.iter().map(|one| one.index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(hooks.0.lock().expect("not poisoned").len(), 2, "nothing behind it was sent");
    // Longer than the deadline, which stands still meanwhile.
    assert_eq!(consume(CallOrder::Whole, &["wait 500", "wait 500", "wait 500"]), Ok(vec![]));
}

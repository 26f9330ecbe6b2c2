//! Rust plugins from their source to their answers: the build in process, the SDK inside, and the host around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pelton_streams::log::{LogLevel, LogSink, NoLog};
use pelton_streams::task::{NoticeKind, RecordError, StepError};
use pelton_streams::testing::{TestRecord, TopologyDriver};
use pelton_streams::{
    InstanceSpec, InstantiateError, Manifest, Plugin, PluginError, PluginFactory, PluginLimits, Topology,
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
    assert!(matches!(build(), Err(BuildError::NoCrate { .. })));
    write("Cargo.toml", "[package]\nname = 'p'\nedition = '2024'\n[workspace]\n");
    std::fs::create_dir(dir.path().join("src")).expect("makes a directory");
    write("src/lib.rs", "pub fn f() {}");
    assert!(matches!(build(), Err(BuildError::NoArtifact { .. })));
    write("src/lib.rs", "pub fn f( {}");
    assert!(matches!(build(), Err(BuildError::Cargo { .. })));
}

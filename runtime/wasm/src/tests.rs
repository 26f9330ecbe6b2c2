//! Guests that misbehave, each in its own way: every one of them yields its own error, and the same plugin, its
//! neighbours and the engine go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pelton_streams::batch::{BatchIn, OwnedBatch};
use pelton_streams::log::{LogLevel, LogSink, NoLog};
use pelton_streams::plugin::Rejection;
use pelton_streams::testing::{TestRecord, TopologyDriver};
use pelton_streams::{
    BatchOut, InstanceSpec, InstantiateError, LoadError, Manifest, Plugin, PluginError, PluginFactory,
    PluginLimits, Topology,
};

use wasmtime::{Config, ModuleVersionStrategy, OptLevel};

use crate::cache::EngineBuild;
use crate::engine::wasmtime_config;
use crate::toolchain::componentize;
use crate::{CacheError, CodeCache, Engine, EngineConfig, digest, inspect, package};

/// A guest without any toolchain: `process` does what its partition number says, and answers with all records for
/// partition 0. The layouts are those that the canonical ABI gives to the records of `sdk/wit`.
const GUEST: &str = r#"(module
  (import "pelton:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 512) "first line\nsecond line")
  (global $next (mut i32) (i32.const 8192))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (memory.grow (i32.add (i32.div_u (local.get 3) (i32.const 65536)) (i32.const 1))) (i32.const -1))
        (then unreachable))))
    (local.get $at))
  (func (export "cabi_post_process") (param i32) (global.set $next (i32.const 8192)))
  (func (export "configure") (param i32 i32) (result i32) CONFIGURE)
  (func $all (param $n i32) (local $p i32) (local $i i32)
    (local.set $p (call $realloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $n) (i32.const 4))))
    (i32.store (i32.const 2052) (local.get $p))
    (i32.store (i32.const 2056) (local.get $n))
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
      (i32.store (i32.add (local.get $p) (i32.mul (local.get $i) (i32.const 4))) (local.get $i))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $more))))
  (func $forever (loop $again (br $again)))
  (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
  (func $grow (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
  (func (export "process") (param $batch i32) (result i32) (local $what i32)
    (local.set $what (i32.load offset=8 (local.get $batch)))
    (memory.fill (i32.const 2048) (i32.const 0) (i32.const 128))
    (call $all (i32.load offset=24 (local.get $batch)))
    (if (i32.eq (local.get $what) (i32.const 1)) (then unreachable))
    (if (i32.eq (local.get $what) (i32.const 2)) (then (call $forever)))
    (if (i32.eq (local.get $what) (i32.const 3)) (then (call $grow)))
    (if (i32.eq (local.get $what) (i32.const 4)) (then (call $all (i32.const 1000000))))
    ;; a list that ends outside of the memory
    (if (i32.eq (local.get $what) (i32.const 5)) (then (i32.store (i32.const 2056) (i32.const 0x7fffffff))))
    ;; neither ok nor failure
    (if (i32.eq (local.get $what) (i32.const 6)) (then (i32.store8 (i32.const 2048) (i32.const 7))))
    ;; reject record 1: one rejection at 3072, its reason is "first line"
    (if (i32.eq (local.get $what) (i32.const 7)) (then
      (i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 1))
      (i32.store (i32.const 2056) (i32.const 3072)) (i32.store (i32.const 2060) (i32.const 1))
      (i32.store (i32.const 3072) (i32.const 1)) (i32.store (i32.const 3076) (i32.const 512))
      (i32.store (i32.const 3080) (i32.const 10))))
    (if (i32.eq (local.get $what) (i32.const 8)) (then
      (call $log (i32.const 3) (i32.const 512) (i32.const 22)) unreachable))
    (if (i32.eq (local.get $what) (i32.const 9)) (then (drop (call $deep))))
    ;; fatal, with a reason that is not UTF-8
    (if (i32.eq (local.get $what) (i32.const 10)) (then
      (i32.store8 (i32.const 2048) (i32.const 1)) (i32.store8 (i32.const 2052) (i32.const 2))
      (i32.store (i32.const 2056) (i32.const 3072)) (i32.store (i32.const 2060) (i32.const 1))
      (i32.store8 (i32.const 3072) (i32.const 0xff))))
    ;; 500 lines
    (if (i32.eq (local.get $what) (i32.const 11)) (then (loop $more
      (call $log (i32.const 0) (i32.const 512) (i32.const 10))
      (local.set $batch (i32.add (local.get $batch) (i32.const 1)))
      (br_if $more (i32.rem_u (local.get $batch) (i32.const 500))))))
    ;; values of length 1 that begin 4 GiB away
    (if (i32.eq (local.get $what) (i32.const 12)) (then
      (i32.store8 (i32.const 2088) (i32.const 1))
      (i32.store (i32.const 3072) (i32.const -2)) (i32.store (i32.const 3076) (i32.const 1))
      (i32.store (i32.const 2056) (i32.const 1))
      (i32.store (i32.const 2092) (i32.const 3072)) (i32.store (i32.const 2096) (i32.const 1))
      (i32.store (i32.const 2100) (i32.const 3076)) (i32.store (i32.const 2104) (i32.const 1))))
    (if (i32.eq (local.get $what) (i32.const 13)) (then (drop (i32.load (i32.const -1)))))
    (i32.const 2048)))"#;

const CONFIGURED: &str = "(i32.const 1024)";
const REFUSED: &str = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 512)) \
                       (i32.store (i32.const 1032) (i32.const 10)) (i32.const 1024)";

fn guest(configure: &str) -> Vec<u8> {
    let core = wat::parse_str(GUEST.replace("CONFIGURE", configure)).expect("is valid");
    componentize(core, "transform").expect("fits")
}

fn engine() -> Engine {
    Engine::new(EngineConfig::default()).expect("runs here")
}

fn spec() -> InstanceSpec {
    let limits = PluginLimits {
        memory_bytes: 4 << 20,
        deadline_ms: 50,
        output_bytes: 64 << 10,
        ..PluginLimits::default()
    };
    InstanceSpec { config: Vec::new(), limits, log: Arc::new(NoLog) }
}

fn start(
    engine: &Engine,
    component: &[u8],
    spec: &InstanceSpec,
) -> Result<Box<dyn Plugin>, InstantiateError> {
    let digest = digest(component);
    engine.load(&digest, component).expect("can be loaded");
    engine.instantiate(&digest, spec)
}

fn batch(values: &[&str]) -> OwnedBatch {
    let mut batch = OwnedBatch::new("t", 0);
    for (offset, value) in (0..).zip(values) {
        let record = pelton_streams::RecordIn {
            offset,
            timestamp: 0,
            key: None,
            value: Some(value.as_bytes()),
            headers: Default::default(),
        };
        batch.push(record, record.headers).expect("fits");
    }
    batch
}

fn call(plugin: &mut dyn Plugin, what: u32) -> Result<BatchOut, PluginError> {
    let batch = batch(&["a", "b", "c"]);
    plugin.process(&BatchIn { partition: what, ..batch.as_batch() })
}

#[test]
fn every_failure_has_its_name_and_the_plugin_goes_on() {
    let engine = engine();
    let mut plugin = start(&engine, &guest(CONFIGURED), &spec()).expect("starts");
    let mut neighbour = start(&engine, &guest(CONFIGURED), &spec()).expect("starts");
    let all = BatchOut::identity(3);
    let trapped = |trap: &str, said: Option<&str>| PluginError::Trapped {
        trap: trap.to_owned(),
        said: said.map(str::to_owned),
    };
    let unreachable = "wasm `unreachable` instruction executed";
    for (what, expect) in [
        (1, trapped(unreachable, None)),
        (2, PluginError::Deadline { deadline_ms: 50 }),
        (3, PluginError::Memory { limit_bytes: 4 << 20 }),
        (4, PluginError::OutputTooLarge { limit_bytes: 64 << 10 }),
        (7, PluginError::Reject(vec![Rejection { index: 1, reason: "first line".to_owned() }])),
        (8, trapped(unreachable, Some("first line second line"))),
        (9, trapped("call stack exhausted", None)),
        (13, trapped("out of bounds memory access", None)),
    ] {
        let begun = Instant::now();
        assert_eq!(call(&mut *plugin, what), Err(expect), "{what}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        assert_eq!(call(&mut *plugin, 0).as_ref(), Ok(&all), "after {what}");
        assert_eq!(call(&mut *neighbour, 0).as_ref(), Ok(&all), "beside {what}");
    }
    for what in [5, 6, 10] {
        let error = call(&mut *plugin, what);
        assert!(matches!(error, Err(PluginError::IllFormed { .. })), "{what}: {error:?}");
        assert_eq!(call(&mut *plugin, 0).as_ref(), Ok(&all), "after {what}");
    }
}

#[test]
fn lines_reach_the_log_within_bounds() {
    struct Lines(Mutex<Vec<(LogLevel, String)>>);
    impl LogSink for Lines {
        fn write(&self, level: LogLevel, text: &str) {
            self.0.lock().expect("not poisoned").push((level, text.to_owned()));
        }
    }
    let lines = Arc::new(Lines(Mutex::default()));
    let spec = InstanceSpec { log: Arc::clone(&lines) as Arc<dyn LogSink>, ..spec() };
    let mut plugin = start(&engine(), &guest(CONFIGURED), &spec).expect("starts");
    assert!(call(&mut *plugin, 11).is_ok());
    let lines = lines.0.lock().expect("not poisoned");
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[0], (LogLevel::Debug, "first line".to_owned()));
    assert!(
        lines[100].1.ends_with("lines of this call were dropped: at most 100 are kept"),
        "{}",
        lines[100].1
    );
}

/// The whole way: what a task makes of an answer that points outside of its input.
#[test]
fn an_ill_formed_answer_names_its_record() {
    let engine = engine();
    let component = guest(CONFIGURED);
    let info = engine.load(&digest(&component), &component).expect("can be loaded");
    let manifest = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\n\
                    plugin='p'\n[[sink]]\nfrom='n'\ntopic='out'";
    let manifest = Manifest::parse(manifest).expect("is valid");
    let plugins = BTreeMap::from([("n".to_owned(), info)]);
    let topology = Topology::link(&manifest, &plugins).expect("fits");
    /// Gives every batch to the guest as one of partition 12.
    struct Misled(Box<dyn Plugin>);
    impl Plugin for Misled {
        fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
            self.0.process(&BatchIn { partition: 12, ..*batch })
        }
    }
    let plugin = engine.instantiate(&digest(&component), &spec()).expect("starts");
    let plugin: Box<dyn Plugin> = Box::new(Misled(plugin));
    let mut driver = TopologyDriver::new(topology, BTreeMap::from([("n", plugin)]), 1);
    let Err(pelton_streams::task::StepError::Failed(failure)) = driver.pipe(&[TestRecord::value("abc")])
    else {
        panic!("is passed")
    };
    assert_eq!(
        failure.to_string(),
        "node `n` failed at topic in, partition 0, offset 0: the answer is ill-formed: values[0] is 1 bytes at \
         4294967294, which is not within the input (3 bytes) or the answer's data (0 bytes behind it)"
    );
}

#[test]
fn settings_are_refused_by_the_plugin() {
    let refused = start(&engine(), &guest(REFUSED), &spec()).map(|_| ());
    assert_eq!(refused, Err(InstantiateError::Refused("first line".to_owned())));
    let endless = start(&engine(), &guest("(loop $again (br $again)) unreachable"), &spec()).map(|_| ());
    assert_eq!(endless, Err(InstantiateError::Start(PluginError::Deadline { deadline_ms: 50 })));
}

#[test]
fn what_cannot_run_is_refused_when_it_is_loaded() {
    let engine = engine();
    let check = |component: &[u8], expect: &str| {
        let got = engine.load(&digest(component), component).map(|_| ()).map_err(|e| e.to_string());
        let error = got.expect_err("is refused");
        assert!(error.starts_with(expect), "{error}");
    };
    let text = |wat: &str| wat::parse_str(wat).expect("is valid");
    check(b"no wasm", "the component is not valid: it is not WebAssembly; `pelton plugin build` ");
    check(
        &text("(module)"),
        "the component is not valid: it is a core module, not a component; `pelton plugin build` ",
    );
    check(
        &text("(component)"),
        "the plugin does not export `configure` as the world `transform` of pelton:plugin@0.1.0 has it: it is \
         missing",
    );
    check(
        &text("(component (import \"wasi:http/outgoing-handler@0.2.6\" (instance (export \"f\" (func)))))"),
        "the plugin imports `wasi:http/outgoing-handler@0.2.6`, which the world `transform` does not offer; of WASI only",
    );
    check(
        &text("(component (import \"pelton:plugin/state@0.1.0\" (instance (export \"get\" (func)))))"),
        "the plugin imports `pelton:plugin/state@0.1.0`, which the world `transform` does not offer; it was built \
         for another world",
    );
    check(
        &text("(component (import \"f\" (func)))"),
        "the plugin imports `f`, which the world `transform` does not offer",
    );
    let functions = "(core module $m (func (export \"f\"))) (core instance $i (instantiate $m)) \
                     (func $f (canon lift (core func $i \"f\")))";
    check(
        &text(&format!(
            "(component {functions} (export \"configure\" (func $f)) (export \"process\" (func $f)))"
        )),
        "the plugin does not export `configure` as the world `transform` of pelton:plugin@0.1.0 has it: ",
    );
    check(
        &text(&format!("(component {functions} (export \"migrate\" (func $f)))")),
        "plugins of the world `migrator` are not supported yet; this version runs: transform",
    );
    check(
        &package::with_manifest(guest(CONFIGURED), "name = 'p'"),
        "the plugin.toml inside the component is not valid: missing field `version`",
    );
    let component = guest(CONFIGURED);
    let other = digest(b"other");
    let mismatch = LoadError::DigestMismatch { expected: other, actual: digest(&component) };
    assert_eq!(engine.load(&other, &component), Err(mismatch));
    let small =
        Engine::new(EngineConfig { max_component_bytes: 10, ..EngineConfig::default() }).expect("runs here");
    let too_large = LoadError::TooLarge { bytes: component.len() as u64, max_bytes: 10 };
    assert_eq!(small.load(&digest(&component), &component), Err(too_large));
}

#[test]
fn instances_are_counted() {
    let engine =
        Engine::new(EngineConfig { max_instances: 2, ..EngineConfig::default() }).expect("runs here");
    let component = guest(CONFIGURED);
    let one = start(&engine, &component, &spec());
    let two = start(&engine, &component, &spec());
    assert!(one.is_ok() && two.is_ok());
    let third = start(&engine, &component, &spec()).map(|_| ());
    assert_eq!(third, Err(InstantiateError::TooMany { limit: 2 }));
    drop(one);
    assert_eq!(engine.instances(), 1);
    assert!(start(&engine, &component, &spec()).is_ok());
    assert_eq!(engine.loaded(), [digest(&component)]);
    engine.unload(&digest(&component));
    assert!(engine.loaded().is_empty());
    let gone = engine.instantiate(&digest(&component), &spec()).map(|_| ());
    assert_eq!(gone, Err(InstantiateError::NotLoaded(digest(&component))));
}

/// A page each for two, and no more: within its own limit, the second one is refused what the first may not have
/// either.
#[test]
fn instances_share_one_memory() {
    const PAGE: u64 = 64 << 10;
    let refused = PluginError::ServerMemory { limit_bytes: 2 * PAGE };
    let engine = Engine::new(EngineConfig { max_memory_bytes: 2 * PAGE, ..EngineConfig::default() })
        .expect("runs here");
    let component = guest(CONFIGURED);
    let mut one = start(&engine, &component, &spec()).expect("there is room");
    let two = start(&engine, &component, &spec()).expect("there is room");
    assert_eq!(engine.memory_bytes(), 2 * PAGE);
    let third = start(&engine, &component, &spec()).map(|_| ());
    assert_eq!(third, Err(InstantiateError::Start(refused.clone())));
    assert_eq!(call(&mut *one, 3).map(|_| ()), Err(refused));
    assert_eq!(engine.memory_bytes(), PAGE, "what the trapped one had is free");
    assert!(call(&mut *one, 0).is_ok());
    drop((one, two));
    assert_eq!(engine.memory_bytes(), 0);
}

#[test]
fn what_is_inside_a_component_is_seen_from_outside() {
    let toml = "name = 'p'\nversion = '1.2.3'\nworld = 'transform'\nneeds = ['value']";
    let component = package::with_manifest(guest(CONFIGURED), toml);
    let seen = inspect(&component).expect("is a component");
    assert_eq!(seen.world.as_deref(), Some("transform"));
    assert_eq!(seen.imports, ["pelton:plugin/log@0.1.0"]);
    assert_eq!(seen.exports, ["configure", "process"]);
    assert_eq!(seen.digest, digest(&component));
    assert_eq!(seen.manifest.map(|m| m.version), Some("1.2.3".to_owned()));
    let engine = engine();
    let info = engine.load(&digest(&component), &component).expect("can be loaded");
    assert_eq!(info.manifest.map(|m| m.name), Some("p".to_owned()));
    let bare = inspect(&guest(CONFIGURED)).expect("is a component");
    assert_eq!((bare.world.as_deref(), bare.manifest), (Some("transform"), None));
    let core = wat::parse_str("(module)").expect("is valid");
    assert_eq!(inspect(&core), Err(crate::InspectError::CoreModule));
    assert!(inspect(b"x").is_err());
}

/// JavaScript's runtime is such a component. wasmtime panics over it where no module may have two memories.
#[test]
fn parts_of_a_component_have_memories_of_their_own() {
    let parts = r#"(component
        (component $taking
            (core module $m
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
                (func (export "take") (param i32 i32))
            )
            (core instance $i (instantiate $m))
            (func (export "take") (param "text" string)
                (canon lift (core func $i "take") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
        )
        (component $giving
            (import "take" (func $take (param "text" string)))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $take (canon lower (func $take) (memory (core memory $memory "memory"))))
            (core module $m
                (import "" "take" (func $take (param i32 i32)))
                (func (export "give") (call $take (i32.const 0) (i32.const 4)))
            )
            (core instance $i (instantiate $m (with "" (instance (export "take" (func $take))))))
            (func (export "give") (canon lift (core func $i "give")))
        )
        (instance $taking (instantiate $taking))
        (instance $giving (instantiate $giving (with "take" (func $taking "take"))))
        (export "give" (func $giving "give"))
    )"#;
    let component = wat::parse_str(parts).expect("is valid");
    let loaded = engine().load(&digest(&component), &component).map(|_| ()).map_err(|e| e.to_string());
    let error = loaded.expect_err("it is no plugin");
    assert!(error.starts_with("the plugin does not export `configure`"), "{error}");
}

/// A guest that calls WASI, as those of Go and C do, imports nothing of it once it is a component.
#[test]
fn wasi_is_answered_inside() {
    let core = GUEST.replace("CONFIGURE", "(call $clock (i32.const 0) (i64.const 0) (i32.const 1024)) drop (i64.store (i32.const 1024) (i64.const 0)) (i32.const 1024)").replace(
        "(memory (export",
        "(import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))\n(memory (export",
    );
    let core = wat::parse_str(core).expect("is valid");
    let component = componentize(core, "transform").expect("fits");
    assert_eq!(inspect(&component).expect("is a component").imports, ["pelton:plugin/log@0.1.0"]);
    let mut plugin = start(&engine(), &component, &spec()).expect("starts");
    assert_eq!(call(&mut *plugin, 0), Ok(BatchOut::identity(3)));
}

#[test]
fn compiled_code_is_kept_and_checked() {
    let dir = tempfile::tempdir().expect("makes a directory");
    let path = dir.path().join("code");
    let component = guest(CONFIGURED);
    let open = || {
        let cache = CodeCache::open(&path).expect("can be used");
        Engine::new(EngineConfig { cache: Some(cache), ..EngineConfig::default() }).expect("runs here")
    };
    // Without a compilation there is nothing before the first one, and everything after it.
    let ready = || open().load_compiled(&digest(&component), &component).map(|info| info.is_some());
    assert_eq!(ready(), Ok(false));
    let run = || {
        let engine = open();
        let mut plugin = start(&engine, &component, &spec()).expect("starts");
        assert_eq!(call(&mut *plugin, 0), Ok(BatchOut::identity(3)));
        engine
    };
    run();
    assert_eq!(ready(), Ok(true));
    let files = || -> Vec<std::path::PathBuf> {
        let dir = std::fs::read_dir(path.join(digest(&component).hex())).expect("is there");
        dir.map(|entry| entry.expect("is readable").path()).collect()
    };
    let [file] = files().try_into().expect("one file");
    let whole = std::fs::read(&file).expect("is readable");
    // A file that is found is used: its time does not change.
    let written = std::fs::metadata(&file).and_then(|m| m.modified()).expect("has a time");
    run();
    assert_eq!(std::fs::metadata(&file).and_then(|m| m.modified()).expect("has a time"), written);
    // Torn, flipped, or no such file at all: it is compiled again.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &whole[..3], &flipped[..], b""] {
        std::fs::write(&file, damaged).expect("writes");
        run();
        assert_eq!(std::fs::read(&file).expect("is readable").len(), whole.len());
    }
    let engine = run();
    engine.cache().expect("has one").remove(&digest(&component)).expect("goes");
    assert!(!file.exists());
}

/// wasmtime's own check takes what any release of its major version has compiled.
#[test]
fn code_of_another_build_is_not_run() {
    let lock = include_str!("../../../Cargo.lock");
    let version =
        lock.split("name = \"wasmtime\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    let version = version.expect("it is in the lock file");
    let engine_of = |change: fn(&mut Config) -> &mut Config| {
        let mut config = wasmtime_config().expect("is valid");
        change(&mut config);
        wasmtime::Engine::new(&config).expect("runs here")
    };
    let ours = engine_of(|config| config);
    let build = EngineBuild::of(&ours);
    assert!(format!("{build:?}").contains(&format!("\"{version}-")), "{build:?} names {version}");
    let major: fn(&mut Config) -> &mut Config =
        |config| config.module_version(ModuleVersionStrategy::WasmtimeVersion).expect("is short");
    let earlier: fn(&mut Config) -> &mut Config =
        |config| config.module_version(ModuleVersionStrategy::Custom("48.0.7".to_owned())).expect("is short");
    let changes: [fn(&mut Config) -> &mut Config; 6] = [
        earlier,
        |config| config.cranelift_opt_level(OptLevel::None),
        |config| config.cranelift_nan_canonicalization(false),
        |config| config.epoch_interruption(false),
        |config| config.consume_fuel(true),
        |config| config.wasm_simd(true),
    ];
    let mut builds: Vec<EngineBuild> = changes.map(|change| EngineBuild::of(&engine_of(change))).into();
    builds.push(build.clone());
    builds.sort_by_key(|build| format!("{build:?}"));
    builds.dedup();
    assert_eq!(builds.len(), changes.len() + 1, "every one of them has a name of its own: {builds:?}");

    // Even under our name: what any release of the major version has compiled by wasmtime's default, and an earlier
    // one.
    let dir = tempfile::tempdir().expect("makes a directory");
    let cache = CodeCache::open(dir.path().join("code")).expect("can be used");
    let component = guest(CONFIGURED);
    let digest = digest(&component);
    let compiled = |engine: &wasmtime::Engine| {
        wasmtime::component::Component::from_binary(engine, &component).expect("is valid")
    };
    for theirs in [major, earlier].map(engine_of) {
        cache.store(&compiled(&theirs), &digest, &build);
        assert!(cache.load(&ours, &digest, &build).is_none());
    }
    cache.store(&compiled(&ours), &digest, &build);
    assert!(cache.load(&ours, &digest, &build).is_some());
    // What another build has compiled goes when there is something new.
    let theirs = engine_of(earlier);
    cache.store(&compiled(&theirs), &digest, &EngineBuild::of(&theirs));
    assert!(cache.load(&ours, &digest, &build).is_none());
    let files = std::fs::read_dir(dir.path().join("code").join(digest.hex())).expect("is there").count();
    assert_eq!(files, 1);
}

#[test]
fn what_a_crash_left_of_a_write_goes() {
    let dir = tempfile::tempdir().expect("makes a directory");
    let path = dir.path().join("code");
    let of_component = path.join("ab".repeat(32));
    std::fs::create_dir_all(&of_component).expect("makes a directory");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("may be set");
    // Process 1 runs; no process has a number beyond the kernel's maximum.
    let files = ["48.0.8-1f.cwasm", "48.0.8-1f.1-3.partial", "48.0.8-1f.4194305-0.partial", "1f.partial"];
    let own = format!("48.0.8-1f.{}-0.partial", std::process::id());
    for file in files.into_iter().chain([own.as_str()]) {
        std::fs::write(of_component.join(file), "x").expect("writes");
    }
    CodeCache::open(&path).expect("can be used");
    let left = std::fs::read_dir(&of_component).expect("is there");
    let mut left: Vec<_> = left.map(|file| file.expect("is readable").file_name()).collect();
    left.sort();
    assert_eq!(left, ["48.0.8-1f.1-3.partial", "48.0.8-1f.cwasm"]);
}

#[test]
fn code_that_others_could_write_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("makes a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("may be set");
    let refused = CodeCache::open(dir.path());
    assert!(matches!(refused, Err(CacheError::NotPrivate { mode: 0o777, .. })), "{refused:?}");
}

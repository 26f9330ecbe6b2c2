//! What a plugin does wrong, again and again, costs the server nothing that stays.
//!
//! `PELTON_HOSTILE_ROUNDS` (1000) rounds of each kind.

use std::path::Path;
use std::sync::Arc;

use pelton_streams::batch::Headers;
use pelton_streams::log::NoLog;
use pelton_streams::{Answer, InstanceSpec, OwnedBatch, PluginError, PluginFactory, PluginLimits, RecordIn};
use pelton_wasm::toolchain::{BuildOptions, build};
use pelton_wasm::{Engine, EngineConfig};

/// What a record tells the guest `unruly`, and the kind of failure that comes of it.
const MISDEEDS: [(&str, &str); 12] = [
    ("trap", "trapped"),
    ("recursion", "trapped"),
    ("memory", "memory"),
    ("loop", "deadline"),
    ("large", "output-too-large"),
    ("ill-formed", "ill-formed"),
    ("unequal", "ill-formed"),
    ("short", "ill-formed"),
    ("beyond", "ill-formed"),
    ("across", "ill-formed"),
    ("reject", "reject"),
    ("fatal", "fatal"),
];
/// A loop takes its whole deadline: it is tried less often.
const LOOPS_PART: u32 = 20;
/// Rounds after which memory must have found its size, in parts of all.
const WARM_PART: u32 = 5;
/// What an allocator may hold back from one time to the next.
const SLACK_BYTES: u64 = 24 << 20;
const LIMITS: PluginLimits =
    PluginLimits { memory_bytes: 8 << 20, deadline_ms: 20, output_bytes: 512 << 10, state_bytes: 1 << 20 };

fn batch(values: &[&str]) -> OwnedBatch {
    let mut batch = OwnedBatch::new("in", 0);
    for (offset, value) in (0..).zip(values) {
        let value = Some(value.as_bytes());
        let record = RecordIn { offset, timestamp: 1, key: None, value, headers: Headers::default() };
        batch.push(record, std::iter::empty()).expect("there is room");
    }
    batch
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("there is one");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("is a number");
    kib << 10
}

#[test]
fn what_a_plugin_does_wrong_leaves_nothing() {
    let rounds = std::env::var("PELTON_HOSTILE_ROUNDS").ok();
    let rounds: u32 =
        rounds.map_or(1000, |rounds| rounds.parse().expect("PELTON_HOSTILE_ROUNDS is a number"));
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/unruly");
    let target_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests"));
    let built = build(&guest, &BuildOptions { target_dir, ..BuildOptions::default() }).expect("builds");
    let engine = Engine::new(EngineConfig::default()).expect("runs here");
    engine.load(&built.digest, &built.component).expect("can be loaded");
    let mut warm = 0;
    for round in 0..rounds {
        for (misdeed, kind) in MISDEEDS {
            if kind != "deadline" || round % LOOPS_PART == 0 {
                let error = done(&engine, &built.digest, misdeed);
                assert_eq!(error.kind(), kind, "{misdeed} in round {round}: {error}");
            }
        }
        assert_eq!((engine.instances(), engine.memory_bytes()), (0, 0), "after round {round}");
        if round == rounds / WARM_PART {
            warm = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(warm);
    assert!(grown <= SLACK_BYTES, "{grown} bytes more are resident than after {} rounds", rounds / WARM_PART);
}

/// What comes of records with a misdeed among them, given to a new instance.
fn done(engine: &Engine, digest: &pelton_streams::Digest, misdeed: &str) -> PluginError {
    let spec = InstanceSpec { config: Vec::new(), limits: LIMITS, log: Arc::new(NoLog) };
    let mut plugin = engine.instantiate(digest, &spec).expect("starts");
    let given = batch(&["a", misdeed, "b"]);
    let given = given.as_batch();
    let checked = |out| Ok(Answer::check(&given, out, LIMITS.output_bytes, 1).map(drop)?);
    let came: Result<(), PluginError> = plugin.process(&given).and_then(checked);
    came.expect_err("it goes wrong")
}

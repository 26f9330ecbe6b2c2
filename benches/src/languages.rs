//! The same three operations as plugins in each language, one core, in the driver's own step: a stored batch is read into columns,
//! goes through the plugin, and what comes out is checked and built into a batch again. Then what a call, an instance and a new
//! revision cost.

use crate::client::Conn;
use crate::latency::{self, Path};
use crate::server::{Server, memory_of};
use crate::transform::{Pass, pass};
use crate::{Bench, exactly_once};
use anyhow::{Context, ensure};
use pelton_streams::log::NoLog;
use pelton_streams::{Digest, InstanceSpec, Plugin, PluginFactory, PluginLimits};
use pelton_wasm::toolchain::{BuildOptions, build};
use pelton_wasm::{Engine, EngineConfig};
use pelton_wire::record::{BatchBuilder, BatchOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Where each plugin is, below `tests/guests`, and whether it also has the operations on columns.
const LANGUAGES: [(&str, &str, &[bool]); 5] = [
    ("Rust", "bench-ops", &[false]),
    ("C", "operations/c", &[false]),
    ("Go", "operations/go", &[false, true]),
    ("JavaScript", "operations/js", &[false, true]),
    ("Python", "operations/python", &[false, true]),
];
const OPERATIONS: [&str; 3] = ["identity", "filter", "edit"];
/// Batches of so many records each.
const BATCHES: u32 = 20;
const BATCH_RECORDS: u32 = 500;
/// How long each case is measured, in parts of the time of a measurement.
const CASES_PER_TIME: u32 = 5;
/// Instances that are there at once.
const INSTANCES: u64 = 1_000;
/// Deployments beside which latency is measured.
const SWAPS: usize = 5;
const RECORDS_PER_S: u32 = 2_000;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nlanguages: batches of {BATCH_RECORDS} JSON documents through a plugin, the driver's whole step, one core; records/s, and of Rust's"
    );
    let engine = Engine::new(EngineConfig {
        max_instances: 2 * INSTANCES as usize,
        // Each begins with some more than a MiB that it may use, and mostly does not touch.
        max_memory_bytes: 4 << 30,
        ..EngineConfig::default()
    })?;
    let mut rust = BTreeMap::new();
    let mut digests = Vec::new();
    for (language, guest, ways) in LANGUAGES {
        let digest = load(bench, &engine, guest)?;
        digests.push(digest);
        for (&columns, bytes) in
            ways.iter().flat_map(|way| bench.sizes.iter().map(move |bytes| (way, *bytes)))
        {
            let batches = documents(bytes)?;
            let mut line = Vec::new();
            for operation in OPERATIONS {
                let per_s = measure(bench, &engine, &digest, &batches, (operation, columns))?;
                let of = rust.entry((bytes, operation)).or_insert(per_s);
                line.push(format!("{operation} {per_s:>9.0} ({:.3})", per_s / *of));
            }
            let way = if columns { "columns" } else { "records" };
            println!("  {language:<10} {way} {bytes:>5} B  {}", line.join("  "));
        }
    }
    let rust = digests.first().context("there is no Rust")?;
    calls(&engine, rust)?;
    instances(&engine, rust)?;
    swaps(bench)
}

fn load(bench: &Bench, engine: &Engine, guest: &str) -> anyhow::Result<Digest> {
    let dir = guests().join(guest);
    let target_dir = Some(bench.dir.path().join("guest"));
    let built = build(&dir, &BuildOptions { target_dir, ..BuildOptions::default() })?;
    engine.load(&built.digest, &built.component)?;
    Ok(built.digest)
}

fn guests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/guests")
}

/// Stored batches of documents of about so many bytes.
fn documents(bytes: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let batch = |number: u32| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for i in 0..BATCH_RECORDS {
            let id = number * BATCH_RECORDS + i;
            let head = format!("{{\"id\":{id:05},\"name\":\"somebody\",\"text\":\"");
            let text: String =
                (head.len()..bytes.saturating_sub(2)).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
            let (key, value) = (format!("key-{id:012}"), format!("{head}{text}\"}}"));
            builder.append(1_700_000_000_000, Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
        }
        anyhow::Ok(builder.finish()?.to_vec())
    };
    (0..BATCHES).map(batch).collect()
}

fn instance(
    engine: &Engine,
    digest: &Digest,
    operation: &str,
    columns: bool,
) -> anyhow::Result<Box<dyn Plugin>> {
    let mut config = vec![("operation".to_owned(), operation.to_owned())];
    if columns {
        config.push(("columns".to_owned(), "true".to_owned()));
    }
    // An interpreter on a busy machine takes its time, which is what is measured.
    // What Python answers stays in its memory (sdk/LANGUAGES.md).
    let limits = PluginLimits { deadline_ms: 60_000, memory_bytes: 768 << 20, ..PluginLimits::default() };
    Ok(engine.instantiate(digest, &InstanceSpec { config, limits, log: Arc::new(NoLog) })?)
}

/// Records a second.
fn measure(
    bench: &Bench,
    engine: &Engine,
    digest: &Digest,
    batches: &[Vec<u8>],
    (operation, columns): (&str, bool),
) -> anyhow::Result<f64> {
    let mut plugin = instance(engine, digest, operation, columns)?;
    // Not measured: memory grows to what the batches need.
    let once = pass(batches, &mut *plugin)?;
    let all = u64::from(BATCHES * BATCH_RECORDS);
    let expected = if operation == "filter" { all / 2 } else { all };
    ensure!(once.emitted == expected, "{operation}: {} of {all} records came out", once.emitted);
    let mut total = Pass::default();
    while total.time < bench.time / CASES_PER_TIME {
        total.add(pass(batches, &mut *plugin)?);
    }
    Ok(total.records_per_s())
}

/// A call with one record.
fn calls(engine: &Engine, digest: &Digest) -> anyhow::Result<()> {
    const CALLS: u32 = 100_000;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(b"a value"), &[])?;
    let batches = vec![builder.finish()?.to_vec(); CALLS as usize];
    let mut plugin = instance(engine, digest, "identity", false)?;
    let time = pass(&batches, &mut *plugin)?.time / CALLS;
    println!("  a step with a batch of one record, Rust: {:.2} us", time.as_secs_f64() * 1e6);
    Ok(())
}

fn instances(engine: &Engine, digest: &Digest) -> anyhow::Result<()> {
    let resident = || memory_of(std::process::id(), "VmRSS:");
    let batches = documents(100)?;
    let (before, started) = (resident()?, Instant::now());
    let made = (0..INSTANCES).map(|_| instance(engine, digest, "identity", false));
    let mut made = made.collect::<anyhow::Result<Vec<_>>>()?;
    let (time, fresh) = (started.elapsed(), resident()?);
    for plugin in &mut made {
        pass(&batches[..1], &mut **plugin)?;
    }
    let mib = |bytes: u64| bytes.saturating_sub(before) as f64 / f64::from(1 << 20);
    println!(
        "  {INSTANCES} instances, Rust: {:.0} us and {:.0} KiB each, {:.0} MiB; after a batch each {:.0} MiB",
        time.as_secs_f64() * 1e6 / INSTANCES as f64,
        mib(fresh) * 1024.0 / INSTANCES as f64,
        mib(fresh),
        mib(resident()?),
    );
    Ok(())
}

/// The longest that a record took while one revision took the place of another, and while none did.
fn swaps(bench: &Bench) -> anyhow::Result<()> {
    let server = Server::with_http(bench, "swaps")?;
    exactly_once::push_identity(bench, &server)?;
    let (mut longest, mut usual) = (Vec::new(), Vec::new());
    for swap in 0..SWAPS {
        usual.push(one_swap(bench, &server, &format!("still-{swap}"), false)?);
        longest.push(one_swap(bench, &server, &format!("swap-{swap}"), true)?);
    }
    longest.sort_by(f64::total_cmp);
    usual.sort_by(f64::total_cmp);
    println!(
        "  a new revision under {RECORDS_PER_S} records/s: the longest that a record took {:.1} ms, {:.1} ms without (medians of {SWAPS})",
        longest[SWAPS / 2],
        usual[SWAPS / 2],
    );
    Ok(())
}

/// The most milliseconds that a record took through a pipeline of that name.
fn one_swap(bench: &Bench, server: &Server, name: &str, is_swapped: bool) -> anyhow::Result<f64> {
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let mut conn = Conn::open(&server.address)?;
    conn.create_topic(&input, 1)?;
    conn.create_topic(&output, 1)?;
    let deploy = |deadline_ms: u32| -> anyhow::Result<()> {
        let manifest = format!(
            "name = \"{name}\"\n[[source]]\nid = \"in\"\ntopic = \"{input}\"\n\
             [[node]]\nid = \"pass\"\nfrom = \"in\"\nplugin = \"bench-ops\"\nconfig = {{ operation = \"identity\" }}\n\
             limits = {{ deadline_ms = {deadline_ms} }}\n[[sink]]\nfrom = \"pass\"\ntopic = \"{output}\"\n"
        );
        let file = bench.dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, manifest)?;
        server.command(&["deploy", file.to_str().context("a path that is no text")?]).map(drop)
    };
    deploy(1_000)?;
    let path =
        Path { address: &server.address, input: &input, output: &output, records_per_s: RECORDS_PER_S };
    let (warm_up, time) = (Duration::from_secs(1), Duration::from_secs(3));
    let (done, swapped) = mpsc::channel();
    let mut latencies = std::thread::scope(|scope| {
        latency::measure_after(warm_up, time, &path, || {
            // Beside who takes the records, which would wait for it.
            scope.spawn(move || if is_swapped { done.send(deploy(2_000)) } else { done.send(Ok(())) });
            Ok(())
        })
    })?;
    swapped.recv().context("nothing was deployed")??;
    server.command(&["pipeline", "delete", name])?;
    Ok(latencies.ms(1.0))
}

//! What pipelines whose plugins misbehave cost the one beside them: latency through it alone, and beside them.

use crate::Bench;
use crate::client::Conn;
use crate::exactly_once;
use crate::latency::{self, Path};
use crate::server::Server;
use crate::stats::Latencies;
use anyhow::Context;
use pelton_wasm::toolchain::{BuildOptions, build};
use pelton_wire::record::{BatchBuilder, BatchOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A pace that a small server is asked for.
const RECORDS_PER_S: u32 = 5_000;
/// What the others' records tell their plugin (`tests/guests/unruly`). They skip each that fails, so they go on.
const MISDEEDS: [&str; 6] = ["trap", "memory", "large", "recursion", "unequal", "loop"];
/// How often a batch of them comes to each.
const EVERY: Duration = Duration::from_millis(20);
/// Measurements of either kind, in turn.
const ROUNDS: usize = 3;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nneighbours: end to end through an exactly-once pipeline at {RECORDS_PER_S} records/s of 100 B, beside pipelines that go \
         wrong all the time"
    );
    let mut alone = Latencies::default();
    for _ in 0..ROUNDS {
        alone.merge(beside(bench, None)?);
    }
    println!("  alone: {}", alone.text());
    for misdeed in MISDEEDS {
        let mut latencies = Latencies::default();
        for _ in 0..ROUNDS {
            latencies.merge(beside(bench, Some(misdeed))?);
        }
        println!(
            "  beside {misdeed:<10} {}, p99 {:.2} of that alone",
            latencies.text(),
            latencies.ms(0.99) / alone.ms(0.99)
        );
    }
    Ok(())
}

fn beside(bench: &Bench, misdeed: Option<&str>) -> anyhow::Result<Latencies> {
    let server = Server::with_http(bench, "neighbours")?;
    let mut conn = Conn::open(&server.address)?;
    for topic in ["in", "out", "bad-in", "bad-out"] {
        conn.create_topic(topic, 1)?;
    }
    exactly_once::push_identity(bench, &server)?;
    exactly_once::deploy(bench, &server, "good", "exactly-once", ("in", "out"))?;
    if misdeed.is_some() {
        deploy_bad(bench, &server)?;
    }
    let is_over = AtomicBool::new(false);
    let path = Path { address: &server.address, input: "in", output: "out", records_per_s: RECORDS_PER_S };
    let measured = std::thread::scope(|scope| {
        let feeding = misdeed.map(|misdeed| scope.spawn(|| feed(&server.address, misdeed, &is_over)));
        let measured = latency::measure(bench, &path);
        is_over.store(true, Ordering::Relaxed);
        feeding.map_or(Ok(()), |feeding| feeding.join().ok().context("the feeder panicked")?)?;
        measured
    })?;
    let data_dir = server.data_dir.clone();
    drop(server);
    std::fs::remove_dir_all(data_dir)?;
    Ok(measured)
}

fn deploy_bad(bench: &Bench, server: &Server) -> anyhow::Result<()> {
    let guest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/unruly");
    let target_dir = Some(bench.dir.path().join("guest"));
    let built = build(&guest, &BuildOptions { target_dir, ..BuildOptions::default() })?;
    let file = bench.dir.path().join("unruly.wasm");
    std::fs::write(&file, &built.component)?;
    server.command(&["plugin", "push", file.to_str().context("a path that is no text")?])?;
    let manifest = "name = \"bad\"\n[[source]]\nid = \"in\"\ntopic = \"bad-in\"\n\
         [[node]]\nid = \"work\"\nfrom = \"in\"\nplugin = \"unruly\"\non_error = { policy = \"skip\" }\n\
         limits = { deadline_ms = 200, memory = \"8 MiB\", output = \"512 KiB\" }\n\
         [[sink]]\nfrom = \"work\"\ntopic = \"bad-out\"\n";
    let file = bench.dir.path().join("bad.toml");
    std::fs::write(&file, manifest)?;
    server.command(&["deploy", file.to_str().context("a path that is no text")?]).map(drop)
}

/// Gives the bad pipeline what it goes wrong at, until it is over.
fn feed(address: &str, misdeed: &str, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut conn = Conn::open(address)?;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(misdeed.as_bytes()), &[])?;
    let batch = builder.finish()?;
    while !is_over.load(Ordering::Relaxed) {
        conn.send(&mut crate::client::produce("bad-in", 0, batch.clone())?)?;
        crate::client::check_produced(conn.receive()?)?;
        std::thread::sleep(EVERY);
    }
    Ok(())
}

//! What exactly once costs pipelines: one that is beside one that is at least once, and latency through it.

use crate::client::{self, Conn};
use crate::latency::{self, Path};
use crate::server::Server;
use crate::{Bench, raw};
use anyhow::{Context, ensure};
use pelton_wasm::toolchain::{BuildOptions, build};
use std::time::{Duration, Instant};

/// Rounds that are compared: each side runs once in each, so that a slow minute hits all of them.
const ROUNDS: usize = 3;
/// Partitions that pipelines read and write.
const PARTITIONS: i32 = 4;
/// Records that a pipeline works off in one round.
const BACKLOG: u64 = 2_000_000;
/// Records in a stored batch of the backlog.
const BATCH_RECORDS: u64 = 500;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    pipelines(bench)?;
    latencies(bench)
}

/// Pushes the plugin that hands on what it is given.
pub(crate) fn push_identity(bench: &Bench, server: &Server) -> anyhow::Result<()> {
    let guest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/bench-ops");
    let target_dir = Some(bench.dir.path().join("guest"));
    let built = build(&guest, &BuildOptions { target_dir, ..BuildOptions::default() })?;
    let file = bench.dir.path().join("bench-ops.wasm");
    std::fs::write(&file, &built.component)?;
    server.command(&["plugin", "push", file.to_str().context("a path that is no text")?]).map(drop)
}

pub(crate) fn deploy(
    bench: &Bench,
    server: &Server,
    name: &str,
    guarantee: &str,
    topics: (&str, &str),
) -> anyhow::Result<()> {
    let (input, output) = topics;
    let manifest = format!(
        "name = \"{name}\"\nguarantee = \"{guarantee}\"\n[[source]]\nid = \"in\"\ntopic = \"{input}\"\n\
         [[node]]\nid = \"pass\"\nfrom = \"in\"\nplugin = \"bench-ops\"\nconfig = {{ operation = \"identity\" }}\n\
         [[sink]]\nfrom = \"pass\"\ntopic = \"{output}\"\n"
    );
    let file = bench.dir.path().join(format!("{name}.toml"));
    std::fs::write(&file, manifest)?;
    server.command(&["deploy", file.to_str().context("a path that is no text")?]).map(drop)
}

/// How many records a pipeline has passed on, and committed.
pub(crate) fn committed(server: &Server, name: &str) -> anyhow::Result<u64> {
    let text = server.command(&["pipeline", "describe", name, "--json"])?;
    let numbers = text.lines().filter_map(|line| line.trim().strip_prefix("\"committed\": "));
    let numbers = numbers.map(|number| number.trim_end_matches(',').parse::<u64>());
    Ok(numbers.sum::<Result<u64, _>>()?)
}

fn pipelines(bench: &Bench) -> anyhow::Result<()> {
    let server = Server::with_http(bench, "pipelines")?;
    let mut conn = Conn::open(&server.address)?;
    conn.create_topic("in", PARTITIONS)?;
    let batch = client::batch(usize::try_from(BATCH_RECORDS)?, 100, 1)?;
    for i in 0..BACKLOG / BATCH_RECORDS {
        conn.send(&mut client::produce("in", (i % PARTITIONS as u64) as i32, batch.clone())?)?;
        client::check_produced(conn.receive()?)?;
    }
    push_identity(bench, &server)?;
    let guarantees = ["at-least-once", "exactly-once"];
    let mut figures = [(Duration::ZERO, Duration::ZERO); 2];
    for round in 0..ROUNDS {
        for (guarantee, figure) in guarantees.into_iter().zip(&mut figures) {
            let (name, output) = (format!("{guarantee}-{round}"), format!("out-{guarantee}-{round}"));
            conn.create_topic(&output, PARTITIONS)?;
            let (cpu, started) = (server.cpu()?, Instant::now());
            deploy(bench, &server, &name, guarantee, ("in", &output))?;
            while committed(&server, &name)? < BACKLOG {
                ensure!(started.elapsed() < LIMIT, "{name} has not come to its end in {LIMIT:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
            figure.0 += started.elapsed();
            figure.1 += server.cpu()?.saturating_sub(cpu);
            server.command(&["pipeline", "delete", &name])?;
        }
    }
    println!(
        "\npipelines: {BACKLOG} records of 100 B through a transform that hands them on, {PARTITIONS} partitions in and out, equal commit \
         settings, {ROUNDS} rounds each"
    );
    let total = (BACKLOG * ROUNDS as u64) as f64;
    for (guarantee, (time, cpu)) in guarantees.into_iter().zip(figures) {
        println!(
            "  {guarantee}: {:>9.0} records/s, ratio {:.3}, server CPU {:.0} ns/record",
            total / time.as_secs_f64(),
            figures[0].0.as_secs_f64() / time.as_secs_f64(),
            cpu.as_nanos() as f64 / total,
        );
    }
    Ok(())
}

fn latencies(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nend to end through an exactly-once pipeline, librdkafka both ends, read committed, 100 B, linger.ms=0"
    );
    for records_per_s in [1_000, 20_000] {
        let server = Server::with_http(bench, &format!("eos-latency-{records_per_s}"))?;
        let mut conn = Conn::open(&server.address)?;
        conn.create_topic("in", 1)?;
        conn.create_topic("out", 1)?;
        push_identity(bench, &server)?;
        deploy(bench, &server, "pass", "exactly-once", ("in", "out"))?;
        let mut limit = raw::journal(bench, 4 << 10)?;
        let path = Path { address: &server.address, input: "in", output: "out", records_per_s };
        let mut measured = latency::measure(bench, &path)?;
        let target = 4.0 * limit.latencies.ms(0.99) + 5.0;
        println!(
            "  {records_per_s:>6} records/s: {}  | raw sync of 4 KiB: {}, 4 x its p99 + 5 ms = {target:.2} ms",
            measured.text(),
            limit.latencies.text(),
        );
    }
    Ok(())
}

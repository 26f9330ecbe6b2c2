//! What a topic that places its records itself costs: latency and processor time beside a plain topic, by a rule and by a plugin.

use crate::Bench;
use crate::counts::{self, Keys, LIMIT, PARTITIONS, Spread};
use crate::latency::{self, Path};
use crate::server::Server;
use crate::stats::Latencies;
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};

const RECORDS: u64 = 1_000_000;
const KEYS: u32 = 100_000;
/// A pace that a small server is asked for.
const RECORDS_PER_S: u32 = 1_000;
/// Measurements of each, in turn.
const ROUNDS: usize = 3;
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Who says where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Client,
    Rule,
    Plugin,
}

impl By {
    const ALL: [By; 3] = [By::Client, By::Rule, By::Plugin];

    fn name(self) -> &'static str {
        match self {
            By::Client => "a plain topic",
            By::Rule => "murmur2 of the topic",
            By::Plugin => "plugins/region of the topic",
        }
    }

    fn create(self, server: &Server, topic: &str, partitions: i32) -> anyhow::Result<()> {
        let count = partitions.to_string();
        let region = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/region");
        let create = ["topic", "create", topic, "--partitions", &count];
        let more: &[&str] = match self {
            By::Client => &[],
            By::Rule => &["--partitioner", "murmur2"],
            By::Plugin => {
                &["--partitioner", region, "--config", "pelton.partitioner.config={ regions = \"k\" }"]
            }
        };
        server.command(&[&create[..], more].concat()).map(drop)
    }
}

#[derive(Debug, Default)]
struct Measured {
    latencies: Latencies,
    time: Duration,
    cpu: Duration,
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nrouting: end to end at {RECORDS_PER_S} records/s of 100 B, linger.ms=0, read committed; and {RECORDS} records of 16 B \
         keys and 80 B values until all can be read, {PARTITIONS} partitions; {ROUNDS} rounds in turn"
    );
    let mut measured = By::ALL.map(|by| (by, Measured::default()));
    for round in 0..ROUNDS {
        for (by, into) in &mut measured {
            one(bench, *by, round, into)?;
        }
    }
    let plain = measured[0].1.time;
    for (by, Measured { latencies, time, cpu }) in &mut measured {
        let records = (RECORDS * ROUNDS as u64) as f64;
        println!(
            "  {:<28} {} | {:>8.0} records/s, ratio {:.2}, server CPU {:.0} ns/record",
            by.name(),
            latencies.text(),
            records / time.as_secs_f64(),
            plain.as_secs_f64() / time.as_secs_f64(),
            cpu.as_nanos() as f64 / records,
        );
    }
    Ok(())
}

fn one(bench: &Bench, by: By, round: usize, into: &mut Measured) -> anyhow::Result<()> {
    let server = Server::with_http(bench, &format!("routing-{by:?}-{round}"))?;
    by.create(&server, "pace", 1)?;
    by.create(&server, "in", PARTITIONS)?;
    let path = Path { address: &server.address, input: "pace", output: "pace", records_per_s: RECORDS_PER_S };
    into.latencies.merge(latency::measure(bench, &path)?);
    let (cpu, started) = (server.cpu()?, Instant::now());
    counts::fill(&server.address, Keys::new(Spread::Uniform, KEYS)?, RECORDS)?;
    while by != By::Client && unrouted(&server)? > 0 {
        ensure!(started.elapsed() < LIMIT, "the records are not routed in {LIMIT:?}");
        std::thread::sleep(ASK_EVERY);
    }
    into.time += started.elapsed();
    into.cpu += server.cpu()?.saturating_sub(cpu);
    let data_dir = server.data_dir.clone();
    drop(server);
    std::fs::remove_dir_all(data_dir)?;
    Ok(())
}

/// Bytes that are acknowledged and cannot be read yet.
fn unrouted(server: &Server) -> anyhow::Result<u64> {
    let text = server.command(&["topic", "describe", "in", "--json"])?;
    let described: serde_json::Value = serde_json::from_str(&text)?;
    described["routing"]["unrouted_bytes"].as_u64().with_context(|| format!("no routing in {text}"))
}

//! A store that is lost and made again from its changelog: from the start of the server until the pipeline goes on, the log
//! read included.

use crate::Bench;
use crate::client::{self, Conn};
use crate::counts::key;
use crate::exactly_once::committed;
use crate::server::Server;
use anyhow::{Context, ensure};
use bytes::Bytes;
use pelton_wire::record::{BatchBuilder, BatchOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// Keys of the store, each of which was written once.
pub(crate) const KEYS: u32 = 10_000_000;
const BATCH_RECORDS: u32 = 500;
/// Bytes of a value, which are text.
const VALUE_BYTES: usize = 80;
const IN_FLIGHT: usize = 16;
const LIMIT: Duration = Duration::from_secs(600);
const SEED: u64 = 1;

/// What making the store again took, from the start of the server.
pub(crate) struct Restored {
    pub(crate) changes: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    /// The most that was resident.
    pub(crate) peak: u64,
    ready_after: Duration,
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nrestore: a store of {KEYS} keys of 16 B with values of {VALUE_BYTES} B in one task, made again from its changelog"
    );
    let Restored { changes, time, cpu, peak, ready_after } = measure(bench)?;
    println!(
        "  {changes} changes in {:.1} s, {:.0} a second, CPU {:.0} ns each | server ready after {:.2} s | {:.0} MiB resident at most",
        time.as_secs_f64(),
        changes as f64 / time.as_secs_f64(),
        cpu.as_nanos() as f64 / changes as f64,
        ready_after.as_secs_f64(),
        peak as f64 / f64::from(1 << 20),
    );
    Ok(())
}

pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Restored> {
    let server = Server::with_http(bench, "restore")?;
    let mut conn = Conn::open(&server.address)?;
    conn.create_topic("in", 1)?;
    conn.create_topic("out", 1)?;
    fill(&server.address, "in", KEYS)?;
    deploy(bench, &server)?;
    let started = Instant::now();
    while committed(&server, "kept")? < u64::from(KEYS) {
        ensure!(started.elapsed() < LIMIT, "the pipeline has not come to its end in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let data_dir = server.data_dir.clone();
    server.stop()?;
    std::fs::remove_dir_all(data_dir.join("state").join("kept"))?;
    let started = Instant::now();
    let server = Server::launch(&bench.binary, &data_dir, "127.0.0.1:0")?;
    let changes = until_restored(&server, started)?;
    let (time, cpu, peak) = (started.elapsed(), server.cpu()?, server.peak()?);
    ensure!(changes >= u64::from(KEYS), "{changes} changes were restored");
    let restored = Restored { changes, time, cpu, peak, ready_after: server.ready_after };
    drop(server);
    std::fs::remove_dir_all(data_dir)?;
    Ok(restored)
}

/// How many changes were restored, once the pipeline goes on.
fn until_restored(server: &Server, started: Instant) -> anyhow::Result<u64> {
    loop {
        let text = server.command(&["pipeline", "describe", "kept", "--json"])?;
        let described: serde_json::Value = serde_json::from_str(&text)?;
        let store = &described["stores"][0];
        if described["state"] == "running" && store["restoring"] == false {
            return store["restored"].as_u64().context("nothing is said of what was restored");
        }
        ensure!(started.elapsed() < LIMIT, "the store is not restored in {LIMIT:?}: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps the last value of each key.
fn deploy(bench: &Bench, server: &Server) -> anyhow::Result<()> {
    let manifest = "name = \"kept\"\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\
         [[node]]\nid = \"last\"\nfrom = \"in\"\naggregate = \"last:raw\"\n\
         [[sink]]\nfrom = \"last\"\ntopic = \"out\"\n";
    let file = bench.dir.path().join("kept.toml");
    std::fs::write(&file, manifest)?;
    server.command(&["deploy", file.to_str().context("a path that is no text")?]).map(drop)
}

/// Writes the first `keys` keys to partition 0 of a topic, each once.
pub(crate) fn fill(address: &str, topic: &str, keys: u32) -> anyhow::Result<()> {
    let mut conn = Conn::open(address)?;
    let mut values = SmallRng::seed_from_u64(SEED);
    let mut in_flight = 0;
    for first in (0..keys).step_by(BATCH_RECORDS as usize) {
        conn.send(&mut client::produce(topic, 0, batch(first, &mut values)?)?)?;
        in_flight += 1;
        if in_flight == IN_FLIGHT {
            client::check_produced(conn.receive()?)?;
            in_flight -= 1;
        }
    }
    for _ in 0..in_flight {
        client::check_produced(conn.receive()?)?;
    }
    Ok(())
}

fn batch(first: u32, values: &mut SmallRng) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    for number in first..first + BATCH_RECORDS {
        let mut value = [0; VALUE_BYTES];
        value.fill_with(|| values.random_range(b'a'..=b'z'));
        builder.append(i64::try_from(now.as_millis())?, Some(&key(number)), Some(&value), &[])?;
    }
    Ok(builder.finish()?)
}

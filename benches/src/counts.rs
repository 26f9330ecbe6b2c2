//! Records counted by key through a pipeline, exactly once: by the built-in function, by the same as a plugin, and with the
//! store in memory, beside a bare hash map over the same keys.

use crate::Bench;
use crate::client::{self, Conn};
use crate::exactly_once::committed;
use crate::server::Server;
use anyhow::{Context, ensure};
use bytes::Bytes;
use pelton_wire::record::{BatchBuilder, BatchOptions};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Partitions that are counted, each with keys of its own.
pub(crate) const PARTITIONS: i32 = 4;
/// Records in a stored batch.
const BATCH_RECORDS: usize = 500;
/// Bytes of a value, which nobody looks at.
const VALUE_BYTES: usize = 80;
/// Batches on their way to the broker while the input is made.
const IN_FLIGHT: usize = 16;
/// What the frequencies of keys fall with.
const ZIPF: f64 = 0.99;
/// More do not fit into what a server gives to stores in memory.
const MEMORY_KEYS: u32 = 1_000_000;
/// Longest wait for a pipeline.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// The seed of keys and values: the same records in every run.
const SEED: u64 = 1;

/// How often keys come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// A few often, most rarely.
    Zipf,
    /// All alike.
    Uniform,
}

/// Keys of 16 bytes out of `keys`, drawn one after the other.
pub(crate) struct Keys {
    rng: SmallRng,
    keys: u32,
    zipf: Option<WeightedIndex<f64>>,
}

impl Keys {
    pub(crate) fn new(spread: Spread, keys: u32) -> anyhow::Result<Keys> {
        let zipf = match spread {
            Spread::Uniform => None,
            Spread::Zipf => Some(WeightedIndex::new((1..=keys).map(|rank| f64::from(rank).powf(-ZIPF)))?),
        };
        Ok(Keys { rng: SmallRng::seed_from_u64(SEED), keys, zipf })
    }

    /// The number of a key.
    fn draw(&mut self) -> anyhow::Result<u32> {
        match &self.zipf {
            Some(zipf) => Ok(u32::try_from(zipf.sample(&mut self.rng))?),
            None => Ok(self.rng.random_range(0..self.keys)),
        }
    }
}

/// The bytes of a key. Keys that come equally often do not lie beside each other.
pub(crate) fn key(number: u32) -> [u8; 16] {
    let mixed = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) & ((1 << 48) - 1);
    let mut key = [b'k'; 16];
    key[4..].copy_from_slice(format!("{mixed:012x}").as_bytes());
    key
}

/// Writes `records` records to the topic `in`, all records of a key to one partition.
pub(crate) fn fill(address: &str, mut keys: Keys, records: u64) -> anyhow::Result<()> {
    let mut conn = Conn::open(address)?;
    let mut open: Vec<Vec<u32>> = vec![Vec::with_capacity(BATCH_RECORDS); PARTITIONS as usize];
    let mut values = SmallRng::seed_from_u64(SEED);
    let mut in_flight = 0;
    for drawn in 1..=records {
        let number = keys.draw()?;
        open[(number % PARTITIONS as u32) as usize].push(number);
        for (partition, numbers) in (0..).zip(&mut open) {
            if numbers.len() < BATCH_RECORDS && (drawn < records || numbers.is_empty()) {
                continue;
            }
            conn.send(&mut client::produce("in", partition, batch(numbers, &mut values)?)?)?;
            numbers.clear();
            in_flight += 1;
            if in_flight == IN_FLIGHT {
                client::check_produced(conn.receive()?)?;
                in_flight -= 1;
            }
        }
    }
    for _ in 0..in_flight {
        client::check_produced(conn.receive()?)?;
    }
    Ok(())
}

fn batch(numbers: &[u32], values: &mut SmallRng) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut value = [0; VALUE_BYTES];
    for number in numbers {
        values.fill(&mut value[..]);
        builder.append(i64::try_from(now.as_millis())?, Some(&key(*number)), Some(&value), &[])?;
    }
    Ok(builder.finish()?)
}

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The built-in function.
    Function,
    /// The same as a plugin: `tests/guests/count`.
    Plugin,
    /// The built-in function, its store in memory.
    Memory,
}

/// Deploys the pipeline `counts`, which counts the records of `in` by key, and writes each count to `out`.
pub(crate) fn deploy(bench: &Bench, server: &Server) -> anyhow::Result<()> {
    deploy_with(bench, server, "\"count\"")
}

pub(crate) fn deploy_with(bench: &Bench, server: &Server, aggregate: &str) -> anyhow::Result<()> {
    let manifest = format!(
        "name = \"counts\"\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\
         [[node]]\nid = \"by-key\"\nfrom = \"in\"\naggregate = {aggregate}\n\
         [[sink]]\nfrom = \"by-key\"\ntopic = \"out\"\n"
    );
    let file = bench.dir.path().join("counts.toml");
    std::fs::write(&file, manifest)?;
    server.command(&["deploy", file.to_str().context("a path that is no text")?]).map(drop)
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\ncounts: records of 16 B keys and {VALUE_BYTES} B values counted by key, exactly once, {PARTITIONS} partitions; each \
         count is written to a topic"
    );
    let cases = [
        (Spread::Zipf, 1_000_000, 4_000_000),
        (Spread::Uniform, 1_000_000, 4_000_000),
        (Spread::Uniform, 10_000_000, 10_000_000),
    ];
    for (spread, keys, records) in cases {
        let built_in = one(bench, By::Function, spread, keys, records)?;
        let plugin = one(bench, By::Plugin, spread, keys, records)?;
        println!("    the plugin's rate is {:.2} of the function's", plugin / built_in);
        if keys <= MEMORY_KEYS {
            let memory = one(bench, By::Memory, spread, keys, records)?;
            println!("    the rate in memory is {:.2} of that in RocksDB", memory / built_in);
        }
    }
    Ok(())
}

/// Records per second.
fn one(bench: &Bench, by: By, spread: Spread, keys: u32, records: u64) -> anyhow::Result<f64> {
    let server = Server::with_http(bench, &format!("counts-{by:?}-{spread:?}-{keys}"))?;
    let mut conn = Conn::open(&server.address)?;
    conn.create_topic("in", PARTITIONS)?;
    conn.create_topic("out", PARTITIONS)?;
    fill(&server.address, Keys::new(spread, keys)?, records)?;
    if by == By::Plugin {
        let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/count");
        server.command(&["plugin", "push", guest.to_str().context("a path that is no text")?])?;
    }
    let (cpu, started) = (server.cpu()?, Instant::now());
    match by {
        By::Function => deploy(bench, &server)?,
        By::Plugin => deploy_with(bench, &server, "{ plugin = \"count\" }")?,
        By::Memory => deploy_with(bench, &server, "\"count\"\nstore = \"memory\"")?,
    }
    while committed(&server, "counts")? < records {
        ensure!(started.elapsed() < LIMIT, "the pipeline has not come to its end in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (time, cpu) = (started.elapsed(), server.cpu()?.saturating_sub(cpu));
    let map = bare(Keys::new(spread, keys)?, records)?;
    println!(
        "  {by:?}, {spread:?} over {keys} keys, {records} records: {:>8.0} records/s, server CPU {:>5.0} ns/record | in a hash map {:>4.0} ns, \
         ratio {:.1} | {:.0} MiB resident at most",
        records as f64 / time.as_secs_f64(),
        cpu.as_nanos() as f64 / records as f64,
        map.as_nanos() as f64 / records as f64,
        cpu.as_secs_f64() / map.as_secs_f64(),
        server.peak()? as f64 / f64::from(1 << 20),
    );
    let data_dir = server.data_dir.clone();
    drop(server);
    std::fs::remove_dir_all(data_dir)?;
    Ok(records as f64 / time.as_secs_f64())
}

/// The same counts in one hash map, by one thread that has all keys in memory.
fn bare(mut keys: Keys, records: u64) -> anyhow::Result<Duration> {
    let drawn = (0..records).map(|_| Ok(key(keys.draw()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut counts: HashMap<[u8; 16], u64> = HashMap::new();
    let started = Instant::now();
    for key in &drawn {
        *counts.entry(*key).or_default() += 1;
    }
    let time = started.elapsed();
    ensure!(counts.values().sum::<u64>() == records, "a count was lost");
    Ok(time)
}

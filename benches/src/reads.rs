//! Rows of a table, read one by one by key: over HTTP, beside what the same connections get of a route that does nothing, and
//! in process.

use crate::Bench;
use crate::client::Conn;
use crate::counts::key;
use crate::restore;
use crate::server::Server;
use crate::stats::Latencies;
use anyhow::{Context, bail, ensure};
use pelton_state::{RocksState, StateMemory, StateOptions};
use pelton_streams::state::{StateBackend, StoreKind, StoreSpec};
use pelton_streams::tables::{STORE_NAME, row};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sizes of the table: one that fits into the block cache, and one that does not.
const KEYS: [u32; 2] = [1_000_000, 10_000_000];
/// Connections that ask at once, each the next key when it has the row of the one before.
const CONNECTIONS: u64 = 8;
/// Rows read in process.
const READS: u32 = 1_000_000;
/// Longest wait for the table.
const LIMIT: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Bytes of an answer's head and of its body, more than any here has.
const ANSWER_MAX: usize = 64 << 10;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nreads: rows of a table (16 B keys, 80 B values) by key, at random; {CONNECTIONS} connections, each one request at a time"
    );
    KEYS.iter().try_for_each(|keys| one(bench, *keys))
}

fn one(bench: &Bench, keys: u32) -> anyhow::Result<()> {
    let server = Server::with_http(bench, &format!("reads-{keys}"))?;
    Conn::open(&server.address)?.create_topic_with("in", 1, &[("cleanup.policy", "compact")])?;
    restore::fill(&server.address, "in", keys)?;
    server.command(&["table", "create", "rows", "--topic", "in", "--partitioner", "murmur2"])?;
    until_restored(&server, keys)?;
    let asked = |path: fn(u32) -> String| ask(&server, bench.time, keys, path);
    let (mut nothing, nothing_cpu) = asked(|_| "/healthz".to_owned())?;
    let (mut rows, rows_cpu) = asked(|number| {
        let key = key(number);
        format!("/v1/tables/rows/records/{}", String::from_utf8_lossy(&key))
    })?;
    let per_s = |latencies: &Latencies| latencies.len() as f64 / bench.time.as_secs_f64();
    println!(
        "  {keys} keys, HTTP:       {:>8.0} rows/s, {:.0} us of server CPU each, {} | /healthz {:.0}/s, {:.0} us, {} | ratio {:.2}",
        per_s(&rows),
        rows_cpu.as_secs_f64() * 1e6 / rows.len() as f64,
        rows.text(),
        per_s(&nothing),
        nothing_cpu.as_secs_f64() * 1e6 / nothing.len() as f64,
        nothing.text(),
        per_s(&rows) / per_s(&nothing),
    );
    let data_dir = server.data_dir.clone();
    server.stop()?;
    in_process(&store_dir(&data_dir.join("state"))?, keys)?;
    std::fs::remove_dir_all(data_dir)?;
    Ok(())
}

fn until_restored(server: &Server, keys: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let text = server.command(&["table", "describe", "rows", "--json"])?;
        let described: serde_json::Value = serde_json::from_str(&text)?;
        let partition = &described["stores"][0]["partitions"][0];
        if partition["offset"].as_i64() == Some(i64::from(keys) - 1) && described["state"] == "live" {
            return Ok(());
        }
        ensure!(started.elapsed() < LIMIT, "the table has not read its topic in {LIMIT:?}: {text}");
        std::thread::sleep(ASK_EVERY);
    }
}

/// What became of asking for paths for `time`, and the processor time that it took the server.
fn ask(
    server: &Server,
    time: Duration,
    keys: u32,
    path: fn(u32) -> String,
) -> anyhow::Result<(Latencies, Duration)> {
    let before = server.cpu()?;
    let end = Instant::now() + time;
    let address = server.http()?;
    let all = std::thread::scope(|scope| {
        let one = |seed: u64| {
            move || -> anyhow::Result<Latencies> {
                let mut rng = SmallRng::seed_from_u64(seed);
                let mut latencies = Latencies::default();
                let mut asker = Asker::open(address)?;
                while Instant::now() < end {
                    let path = path(rng.random_range(0..keys));
                    let started = Instant::now();
                    asker.ask(&path)?;
                    latencies.add(started.elapsed());
                }
                Ok(latencies)
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|seed| scope.spawn(one(seed))).collect();
        let mut all = Latencies::default();
        for thread in threads {
            all.merge(thread.join().ok().context("a client panicked")??);
        }
        anyhow::Ok(all)
    })?;
    Ok((all, server.cpu()?.saturating_sub(before)))
}

/// A connection that is kept.
struct Asker {
    stream: BufReader<TcpStream>,
    host: String,
    line: String,
    body: Vec<u8>,
}

impl Asker {
    fn open(address: &str) -> anyhow::Result<Asker> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let host = address.to_owned();
        Ok(Asker { stream: BufReader::new(stream), host, line: String::new(), body: Vec::new() })
    }

    /// Asks for a path, and reads the answer, which must be a 200.
    fn ask(&mut self, path: &str) -> anyhow::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut is_first) = (0, true);
        loop {
            self.line.clear();
            ensure!(self.stream.read_line(&mut self.line)? > 0, "the server has closed the connection");
            let line = self.line.trim_end();
            if line.is_empty() {
                break;
            }
            if std::mem::take(&mut is_first) && line.split(' ').nth(1) != Some("200") {
                bail!("{path}: {line}");
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        ensure!(length <= ANSWER_MAX, "{path}: {length} bytes");
        self.body.resize(length, 0);
        Ok(self.stream.read_exact(&mut self.body)?)
    }
}

/// The directory of the one database below `dir`.
fn store_dir(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let mut wanted = vec![dir.to_owned()];
    while let Some(dir) = wanted.pop() {
        if dir.join("CURRENT").exists() {
            return Ok(dir);
        }
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                wanted.push(path);
            }
        }
    }
    bail!("there is no database below {}", dir.display())
}

/// The same store in this process, without HTTP: one thread, one row after the other.
fn in_process(dir: &Path, keys: u32) -> anyhow::Result<()> {
    let spec = StoreSpec { name: STORE_NAME.to_owned(), ordered: true, kind: StoreKind::Rocksdb };
    let state = RocksState::open(dir, &[spec], &StateOptions::new(StateMemory::default()))?;
    let reader = state.reader();
    let mut rng = SmallRng::seed_from_u64(0);
    let mut read = |rows: u32| -> anyhow::Result<Duration> {
        let started = Instant::now();
        for _ in 0..rows {
            let view = reader.view()?;
            ensure!(row(&*view, &key(rng.random_range(0..keys)))?.is_some(), "a row was lost");
        }
        Ok(started.elapsed())
    };
    // Files are opened and blocks read.
    read(READS / 4)?;
    let time = read(READS)?;
    println!(
        "  {keys} keys, in process: {:>8.0} rows/s, {:.2} us each",
        f64::from(READS) / time.as_secs_f64(),
        time.as_secs_f64() * 1e6 / f64::from(READS),
    );
    Ok(())
}

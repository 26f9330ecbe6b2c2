//! Durable produce beside a raw writer that syncs the same bytes, and server CPU beside a raw sink.

use crate::client::{self, Conn};
use crate::server::Server;
use crate::stats::{Latencies, mb_per_s};
use crate::{Bench, raw};
use anyhow::Context;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections that produce at once.
const CONNECTIONS: usize = 16;
/// Requests that one connection has on the way: what every Kafka client allows with idempotence.
const IN_FLIGHT: usize = 5;
/// Bytes of values in one batch: what clients make of `linger.ms=5` at some MB/s.
const BATCH_BYTES: usize = 16 << 10;

/// What one load came to.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latencies: Latencies,
}

impl Outcome {
    pub(crate) fn mb_per_s(&self) -> f64 {
        mb_per_s(self.bytes, self.time)
    }

    fn cpu_ns_per_record(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.records.max(1) as f64
    }
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nproduce: {CONNECTIONS} connections, {IN_FLIGHT} requests of {} KiB in flight each",
        BATCH_BYTES >> 10
    );
    for &size in &bench.sizes {
        for &partitions in &bench.partitions {
            let server = Server::start(bench, &format!("produce-{size}-{partitions}"))?;
            Conn::open(&server.address)?.create_topic("load", partitions)?;
            let mut outcome = load(bench, &server.address, partitions, size, || server.cpu())?;
            let data_dir = server.data_dir.clone();
            drop(server);
            // The next run finds the same memory free: on a virtual machine, memory that was never used costs the host a
            // fault for every page, which is no figure of ours.
            std::fs::remove_dir_all(data_dir)?;
            // Groups form while a sync runs: at this load one holds what the connections have in flight.
            let group = BATCH_BYTES * CONNECTIONS * IN_FLIGHT;
            let limit = raw::journal(bench, group.min(1 << 20))?;
            let sink = raw::Sink::start(bench)?;
            let below = load(bench, &sink.address, partitions, size, || Ok(sink.cpu()))?;
            let (here, there) = (outcome.cpu_ns_per_record(), below.cpu_ns_per_record());
            println!(
                "  {size:>4} B x {partitions:>4} partitions: {:>6.0} MB/s  {:>9.0} records/s  {}  | raw writer {:>6.0} MB/s, ratio {:.2} \
                 | server CPU {here:.0} ns/record, raw sink {there:.0}, ratio {:.2} ({:.0} MB/s)",
                outcome.mb_per_s(),
                outcome.records as f64 / outcome.time.as_secs_f64(),
                outcome.latencies.text(),
                limit.mb_per_s,
                outcome.mb_per_s() / limit.mb_per_s,
                here / there,
                below.mb_per_s(),
            );
        }
    }
    Ok(())
}

/// Produces for the bench's time, in a closed loop. `cpu` reads the other side's processor time.
pub(crate) fn load(
    bench: &Bench,
    address: &str,
    partitions: i32,
    size: usize,
    cpu: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<Outcome> {
    let cpu_before = cpu()?;
    let started = Instant::now();
    let until = started + bench.time;
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            let address = address.to_owned();
            std::thread::spawn(move || produce_until(&address, partitions, size, worker, until))
        })
        .collect();
    let mut outcome = Outcome {
        requests: 0,
        bytes: 0,
        records: 0,
        time: Duration::ZERO,
        cpu: Duration::ZERO,
        latencies: Latencies::default(),
    };
    for worker in workers {
        let part = worker.join().ok().context("a producer panicked")??;
        outcome.requests += part.requests;
        outcome.bytes += part.bytes;
        outcome.records += part.records;
        outcome.latencies.merge(part.latencies);
    }
    outcome.time = started.elapsed();
    outcome.cpu = cpu()?.saturating_sub(cpu_before);
    Ok(outcome)
}

fn produce_until(
    address: &str,
    partitions: i32,
    size: usize,
    worker: usize,
    until: Instant,
) -> anyhow::Result<Outcome> {
    let records = (BATCH_BYTES / size).max(1);
    let batch = client::batch(records, size, worker as u64)?;
    // A few frames for different partitions, made before the clock matters.
    let mut frames = Vec::new();
    for i in 0..64_i32 {
        let partition = (i * 31 + i32::try_from(worker)?) % partitions;
        frames.push(client::produce("load", partition, batch.clone())?);
    }
    let mut conn = Conn::open(address)?;
    let mut sent: VecDeque<Instant> = VecDeque::new();
    let (mut requests, mut latencies) = (0_u64, Latencies::default());
    let mut next = 0;
    loop {
        let now = Instant::now();
        while now < until && sent.len() < IN_FLIGHT {
            let count = frames.len();
            conn.send(&mut frames[next % count])?;
            next += 1;
            sent.push_back(Instant::now());
        }
        let Some(since) = sent.pop_front() else { break };
        let body = conn.receive()?;
        if requests % 256 == 0 {
            client::check_produced(body)?;
        }
        latencies.add(since.elapsed());
        requests += 1;
    }
    Ok(Outcome {
        requests,
        bytes: requests * batch.len() as u64,
        records: requests * records as u64,
        time: Duration::ZERO,
        cpu: Duration::ZERO,
        latencies,
    })
}

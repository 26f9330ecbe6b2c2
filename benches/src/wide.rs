//! A produce and a fetch over few partitions and over many: what a record costs the server must not depend on how many there are.

use crate::Bench;
use crate::client::{self, Conn};
use crate::server::Server;
use anyhow::{Context, ensure};
use pelton_wire::codec::Records;
use pelton_wire::message::fetch::{FetchPartition, FetchRequest, FetchTopic};
use pelton_wire::record::batches;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FEW: i32 = 100;
const MANY: i32 = 10_000;
/// Descriptors that a partition which is written to takes until the next checkpoint, and some for the rest.
const FILES: u64 = 4;
const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 5;
const BATCH_BYTES: usize = 16 << 10;
/// What librdkafka and Java ask of one partition and of all.
const PARTITION_BYTES: i32 = 1 << 20;
const FETCH_BYTES: i32 = 50 << 20;
/// Stands for the number of a partition in a frame that is sent to many.
const MARK: i32 = 0x5eed_fade;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nwide: {CONNECTIONS} producers of {} KiB batches in turn to all partitions",
        BATCH_BYTES >> 10
    );
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let many = files.and_then(|files| i32::try_from(files / FILES).ok()).unwrap_or(MANY).min(MANY);
    if many < MANY {
        println!(
            "  {many} partitions instead of {MANY}: the hard limit of open files (`ulimit -Hn`) allows no more"
        );
    }
    for &size in &bench.sizes {
        let mut few: Option<[f64; 4]> = None;
        for partitions in [FEW, many] {
            let costs = measure(bench, partitions, size)?;
            let ratio = |i: usize| few.map_or(1.0, |few| costs[i] / few[i]);
            println!(
                "  {size:>4} B x {partitions:>5} partitions, server CPU in ns/record: produce {:.0} ({:.2}x)  with a live consumer \
                 {:.0} ({:.2}x)  catch up in a session {:.0} ({:.2}x), without {:.0} ({:.2}x)",
                costs[0],
                ratio(0),
                costs[1],
                ratio(1),
                costs[2],
                ratio(2),
                costs[3],
                ratio(3),
            );
            few.get_or_insert(costs);
        }
    }
    Ok(())
}

/// Server CPU in nanoseconds a record: produce alone, produce and a consumer that keeps up, catching up with a session and
/// without.
fn measure(bench: &Bench, partitions: i32, size: usize) -> anyhow::Result<[f64; 4]> {
    let server = Server::start(bench, &format!("wide-{size}-{partitions}"))?;
    Conn::open(&server.address)?.create_topic("load", partitions)?;
    let per_record = |cpu: Duration, records: u64| cpu.as_nanos() as f64 / records.max(1) as f64;
    let cpu = server.cpu()?;
    let alone = produce(bench, &server.address, partitions, size)?;
    let produced = per_record(server.cpu()?.saturating_sub(cpu), alone);

    let is_over = Arc::new(AtomicBool::new(false));
    let live = {
        let (address, is_over) = (server.address.clone(), Arc::clone(&is_over));
        let from = Consumer::ends(&address, partitions)?;
        std::thread::spawn(move || {
            Consumer::new(&address, from, true)?.read(|_| !is_over.load(Ordering::Relaxed))
        })
    };
    let cpu = server.cpu()?;
    let beside = produce(bench, &server.address, partitions, size)?;
    let both = per_record(server.cpu()?.saturating_sub(cpu), beside);
    is_over.store(true, Ordering::Relaxed);
    let read = live.join().ok().context("the consumer panicked")??;
    ensure!(read > beside / 2, "the consumer read {read} of {beside} records: it did not keep up");

    let mut costs = [produced, both, 0.0, 0.0];
    for (cost, session) in costs[2..].iter_mut().zip([true, false]) {
        let mut consumer = Consumer::new(&server.address, vec![0; usize::try_from(partitions)?], session)?;
        let (cpu, all) = (server.cpu()?, alone + beside);
        let read = consumer.read(|read| read < all)?;
        ensure!(read == all, "{read} of {all} records");
        *cost = per_record(server.cpu()?.saturating_sub(cpu), read);
    }
    let data_dir = server.data_dir.clone();
    drop(server);
    std::fs::remove_dir_all(data_dir)?;
    Ok(costs)
}

/// Produces for the bench's time, each batch to the next partition; how many records.
fn produce(bench: &Bench, address: &str, partitions: i32, size: usize) -> anyhow::Result<u64> {
    let until = Instant::now() + bench.time;
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            let address = address.to_owned();
            std::thread::spawn(move || -> anyhow::Result<u64> {
                let records = (BATCH_BYTES / size).max(1);
                let mut frame = client::produce("load", MARK, client::batch(records, size, worker as u64)?)?;
                let at = frame.windows(4).position(|window| window == MARK.to_be_bytes());
                let at = at.context("no partition in the frame")?;
                let mut partition = i32::try_from(worker)? * partitions / i32::try_from(CONNECTIONS)?;
                let mut conn = Conn::open(&address)?;
                let (mut in_flight, mut requests) = (VecDeque::new(), 0_u64);
                loop {
                    while Instant::now() < until && in_flight.len() < IN_FLIGHT {
                        frame[at..at + 4].copy_from_slice(&partition.to_be_bytes());
                        partition = (partition + 1) % partitions;
                        conn.send(&mut frame)?;
                        in_flight.push_back(());
                    }
                    if in_flight.pop_front().is_none() {
                        return Ok(requests * records as u64);
                    }
                    let body = conn.receive()?;
                    if requests % 256 == 0 {
                        client::check_produced(body)?;
                    }
                    requests += 1;
                }
            })
        })
        .collect();
    let mut all = 0;
    for worker in workers {
        all += worker.join().ok().context("a producer panicked")??;
    }
    Ok(all)
}

/// A consumer of all partitions.
struct Consumer {
    conn: Conn,
    offsets: Vec<i64>,
    session: bool,
    id: i32,
    epoch: i32,
    /// Those whose offset the broker does not know.
    moved: Vec<i32>,
}

impl Consumer {
    fn new(address: &str, offsets: Vec<i64>, session: bool) -> anyhow::Result<Consumer> {
        let moved = (0..i32::try_from(offsets.len())?).collect();
        Ok(Consumer { conn: Conn::open(address)?, offsets, session, id: 0, epoch: 0, moved })
    }

    /// Where each partition ends now.
    fn ends(address: &str, partitions: i32) -> anyhow::Result<Vec<i64>> {
        let mut consumer = Consumer::new(address, vec![0; usize::try_from(partitions)?], false)?;
        let response = consumer.fetch(1)?;
        let all = response.responses.into_iter().flat_map(|topic| topic.partitions);
        let mut ends = vec![0; usize::try_from(partitions)?];
        for data in all {
            ends[usize::try_from(data.partition_index)?] = data.high_watermark;
        }
        Ok(ends)
    }

    fn fetch(&mut self, max_bytes: i32) -> anyhow::Result<<FetchRequest as pelton_wire::Request>::Response> {
        let named: Vec<i32> = if self.session {
            std::mem::take(&mut self.moved)
        } else {
            (0..i32::try_from(self.offsets.len())?).collect()
        };
        let mut partitions = Vec::with_capacity(named.len());
        for partition in named {
            partitions.push(FetchPartition {
                partition,
                fetch_offset: self.offsets[usize::try_from(partition)?],
                partition_max_bytes: PARTITION_BYTES.min(max_bytes),
                ..Default::default()
            });
        }
        let topic = FetchTopic { topic: "load".to_owned(), partitions, ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes,
            session_id: self.id,
            session_epoch: if self.session { self.epoch } else { -1 },
            topics: if topic.partitions.is_empty() { Vec::new() } else { vec![topic] },
            ..Default::default()
        };
        let response = self.conn.call(&request, client::FETCH_VERSION)?;
        ensure!(response.error_code.is_ok(), "fetch: {:?}", response.error_code);
        self.id = response.session_id;
        self.epoch += 1;
        ensure!(!self.session || self.id != 0, "the broker gives no session");
        Ok(response)
    }

    /// Reads while `more` of the number of records so far; that number.
    fn read(&mut self, more: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
        let mut records = 0;
        while more(records) {
            for data in self.fetch(FETCH_BYTES)?.responses.into_iter().flat_map(|topic| topic.partitions) {
                ensure!(data.error_code.is_ok(), "partition {}: {:?}", data.partition_index, data.error_code);
                let Some(Records::Bytes(bytes)) = data.records else { continue };
                for batch in batches(&bytes) {
                    let header = *batch?.header();
                    records += u64::from(header.records_count.unsigned_abs());
                    self.offsets[usize::try_from(data.partition_index)?] = header.next_offset();
                }
                if !bytes.is_empty() {
                    self.moved.push(data.partition_index);
                }
            }
        }
        Ok(records)
    }
}

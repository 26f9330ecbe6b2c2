//! Consume from the page cache with a raw client, beside sendfile over loopback; and with librdkafka.

use crate::client::{self, Conn};
use crate::server::Server;
use crate::stats::mb_per_s;
use crate::{Bench, produce};
use anyhow::Context;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What one fetch asks for at most: librdkafka's and Java's usual 1 MiB a partition.
const FETCH_BYTES: i32 = 1 << 20;
/// What sendfile is given at a time.
const SENDFILE_BYTES: usize = 1 << 20;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!("\nconsume: one partition, everything in the page cache, fetches of {} KiB", FETCH_BYTES >> 10);
    for &size in &bench.sizes {
        let server = Server::start(bench, &format!("consume-{size}"))?;
        Conn::open(&server.address)?.create_topic("load", 1)?;
        let written = produce::load(bench, &server.address, 1, size, || server.cpu())?;
        let raw = raw(&server, written.records)?;
        let (records, bytes, time) = librdkafka(&server.address, written.records)?;
        let limit = sendfile(&server)?;
        println!(
            "  {size:>4} B: raw client {:>6.0} MB/s  | sendfile {limit:>6.0} MB/s, ratio {:.2} | librdkafka {:>5.0} MB/s  {:>9.0} records/s",
            raw,
            raw / limit,
            mb_per_s(bytes, time),
            records as f64 / time.as_secs_f64(),
        );
    }
    Ok(())
}

/// Reads the partition of `expected` records to its end.
fn raw(server: &Server, expected: u64) -> anyhow::Result<f64> {
    let mut conn = Conn::open(&server.address)?;
    let (mut offset, mut bytes) = (0, 0_u64);
    let started = Instant::now();
    while offset < i64::try_from(expected)? {
        let mut frame = client::fetch("load", 0, offset, FETCH_BYTES)?;
        conn.send(&mut frame)?;
        let records = client::fetched(conn.receive()?)?;
        anyhow::ensure!(!records.is_empty(), "nothing at {offset} of {expected}");
        bytes += records.len() as u64;
        for batch in pelton_wire::record::batches(&records) {
            offset = batch?.header().next_offset();
        }
    }
    Ok(mb_per_s(bytes, started.elapsed()))
}

fn librdkafka(address: &str, expected: u64) -> anyhow::Result<(u64, u64, Duration)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "1000000")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("load", 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let (mut records, mut bytes) = (0, 0);
    let mut started = None;
    while records < expected {
        let message =
            consumer.poll(Duration::from_secs(10)).context("the consumer got nothing for 10 s")??;
        started.get_or_insert_with(Instant::now);
        records += 1;
        bytes += message.payload_len() as u64;
    }
    Ok((records, bytes, started.map_or(Duration::ZERO, |since| since.elapsed())))
}

/// The first segment of the partition over loopback by sendfile, again and again for a second.
fn sendfile(server: &Server) -> anyhow::Result<f64> {
    let path = server.data_dir.join("topics/load-0/00000000000000000000.log");
    let file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let length = usize::try_from(file.metadata()?.len())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut receiver = TcpStream::connect(listener.local_addr()?)?;
    let (sender, _) = listener.accept()?;
    let reader = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut buffer, mut total) = (vec![0; SENDFILE_BYTES], 0);
        loop {
            match receiver.read(&mut buffer)? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    });
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        let mut position = 0_u64;
        while (position as usize) < length {
            let wanted = SENDFILE_BYTES.min(length - position as usize);
            rustix::fs::sendfile(sender.as_fd(), file.as_fd(), Some(&mut position), wanted)?;
        }
    }
    drop(sender);
    let total = reader.join().ok().context("the reader panicked")??;
    Ok(mb_per_s(total, started.elapsed()))
}

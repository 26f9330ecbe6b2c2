//! End to end: from `send` to `poll`, both librdkafka, at 5,000 records a second with `linger.ms=0`.

use crate::Bench;
use crate::client::Conn;
use crate::raw;
use crate::server::Server;
use crate::stats::Latencies;
use anyhow::Context;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const RECORDS_PER_S: u32 = 5_000;
const RECORD_BYTES: usize = 100;
/// Not measured: connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(1);

/// Where records go in, where they come out, and how many a second.
pub(crate) struct Path<'a> {
    pub(crate) address: &'a str,
    pub(crate) input: &'a str,
    pub(crate) output: &'a str,
    pub(crate) records_per_s: u32,
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    let server = Server::start(bench, "latency")?;
    Conn::open(&server.address)?.create_topic("pace", 1)?;
    let mut limit = raw::journal(bench, 4 << 10)?;
    let path = Path { address: &server.address, input: "pace", output: "pace", records_per_s: RECORDS_PER_S };
    let mut measured = measure(bench, &path)?;
    let target = 2.0 * limit.latencies.ms(0.99) + 2.0;
    println!(
        "\nend to end: {RECORDS_PER_S} records/s of {RECORD_BYTES} B, linger.ms=0, acks=all, librdkafka both ends: {}  ({} records)\n\
         \x20 raw sync of 4 KiB: {}  | 2 x its p99 + 2 ms = {target:.2} ms",
        measured.text(),
        measured.len(),
        limit.latencies.text(),
    );
    Ok(())
}

/// From `send` of each record to `poll` of what became of it. A record carries the time at which it was sent in its first
/// eight bytes, and keeps them. One partition each.
pub(crate) fn measure(bench: &Bench, path: &Path<'_>) -> anyhow::Result<Latencies> {
    measure_after(WARM_UP, bench.time, path, || Ok(()))
}

/// The same with a warm-up of another length, and something to do when it ends.
pub(crate) fn measure_after(
    warm_up: Duration,
    time: Duration,
    path: &Path<'_>,
    warm: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Latencies> {
    let &Path { address, input, output, records_per_s } = path;
    let total = records_per_s * u32::try_from((time + warm_up).as_secs())?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "500")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(output, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let origin = Instant::now();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("linger.ms", "0")
        .set("acks", "all")
        .create()?;
    let topic = input.to_owned();
    let sender = std::thread::spawn(move || -> anyhow::Result<()> {
        let start = Instant::now();
        let mut value = [0; RECORD_BYTES];
        for i in 0..total {
            let due = start + Duration::from_secs(1) * i / records_per_s;
            // A sleep may be late: the clock of a record starts when it is sent, and those that are due follow at once.
            // Spinning until then would take half a core from what is measured.
            if let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(left);
            }
            let now = u64::try_from(origin.elapsed().as_nanos())?;
            value[..8].copy_from_slice(&now.to_be_bytes());
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(0).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(Duration::from_secs(30))?)
    });
    let mut latencies = Latencies::default();
    let skip = records_per_s * u32::try_from(warm_up.as_secs())?;
    let mut warm = Some(warm);
    for i in 0..total {
        let message =
            consumer.poll(Duration::from_secs(10)).context("the consumer got nothing for 10 s")??;
        let value = message.payload().context("a record without a value")?;
        let sent = u64::from_be_bytes(value[..8].try_into()?);
        if i >= skip {
            if let Some(warm) = warm.take() {
                warm()?;
            }
            latencies.add(origin.elapsed().saturating_sub(Duration::from_nanos(sent)));
        }
    }
    sender.join().ok().context("the producer panicked")??;
    Ok(latencies)
}

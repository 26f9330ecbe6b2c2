//! End to end: what no client program and no crash test covers. Each scenario prints one line; any failure fails the run.

mod partitioning;

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::load::{client, create_topic};
use pelton_tests::{end, say, settings};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Records that a catch-up reader has to get, half of them written before it starts.
const CATCH_UP: u64 = 60_000;
/// Longest silence while something must come.
const LIMIT: Duration = Duration::from_secs(60);

/// Takes the binary and a directory of its own; returns what it can tell.
type Scenario = fn(&Path, &Path) -> Result<String>;

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let home = tempfile::tempdir()?;
    let scenarios: [(&str, Scenario); 4] = [
        ("catch-up-with-every-fetch-size", catch_up),
        ("graceful-stop-keeps-everything", graceful_stop),
        ("one-broker-per-data-directory", one_broker_per_directory),
        ("partitioners", partitioning::partitioners),
    ];
    let mut failed = 0;
    for (name, scenario) in scenarios {
        let begin = Instant::now();
        let dir = home.path().join(name);
        std::fs::create_dir(&dir)?;
        match scenario(&binary, &dir) {
            Ok(detail) => say(format_args!("ok {name} {detail} {:.1}s", begin.elapsed().as_secs_f64())),
            Err(error) => {
                failed += 1;
                say(format_args!("FAIL {name} {error:#}"));
                say(format_args!("{}", std::fs::read_to_string(dir.join("broker.log")).unwrap_or_default()));
            }
        }
    }
    ensure!(failed == 0, "{failed} scenarios failed");
    Ok(())
}

fn broker(binary: &Path, dir: &Path) -> Result<(Start, Broker)> {
    let mut start = Start::new(binary, &dir.join("data"), &dir.join("broker.log"));
    let broker = start.start()?;
    Ok((start, broker))
}

/// A value of 10 bytes to 40 KB, mostly small, that begins with its number.
fn numbered(n: u64) -> Vec<u8> {
    let length = match n % 100 {
        0 => 40_000,
        1..10 => 2_000,
        m => 10 + m as usize,
    };
    let mut value = n.to_le_bytes().to_vec();
    value.resize(length, n as u8);
    value
}

fn produce_numbered(
    bootstrap: &str,
    topic: &str,
    numbers: std::ops::Range<u64>,
    settings: &[(&str, &str)],
) -> Result<()> {
    let mut config = client(bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let producer: BaseProducer = config.create()?;
    for n in numbers {
        let value = numbered(n);
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "send: {error}");
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(LIMIT).context("flush")
}

/// A reader far behind gets every record once, in order, however much a fetch may bring, while producers go on writing:
/// the step from old segments to the newest batches is where brokers lose records.
fn catch_up(binary: &Path, dir: &Path) -> Result<String> {
    let (_, broker) = broker(binary, dir)?;
    create_topic(&broker.address, "catch-up", 1, &[("segment.bytes", "1048576")])?;
    let batches = [("batch.size", "8000"), ("enable.idempotence", "true"), ("linger.ms", "1")];
    produce_numbered(&broker.address, "catch-up", 0..CATCH_UP / 2, &batches)?;
    let sizes: Vec<u32> = (10..=23).map(|power| 1 << power).collect();
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = sizes
            .iter()
            .map(|size| (*size, scope.spawn(|| read_numbered(&broker.address, "catch-up", *size))))
            .collect();
        produce_numbered(&broker.address, "catch-up", CATCH_UP / 2..CATCH_UP, &batches)?;
        for (size, reader) in readers {
            let read = reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
            read.with_context(|| format!("fetch size {size}"))?;
        }
        Ok(())
    })?;
    broker.stop()?;
    Ok(format!("{CATCH_UP} records, {} fetch sizes from 1 KiB to 8 MiB", sizes.len()))
}

fn read_numbered(bootstrap: &str, topic: &str, fetch_size: u32) -> Result<()> {
    let size = fetch_size.to_string();
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "catch-up")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.message.max.bytes", &size)
        .set("fetch.max.bytes", &size)
        .set("message.max.bytes", "1000") // librdkafka wants fetch.max.bytes to be no smaller
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "16384")
        .create()?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, 0, Offset::Offset(0))?;
    consumer.assign(&all)?;
    let mut next = 0;
    let mut last = Instant::now();
    while next < CATCH_UP {
        ensure!(last.elapsed() < LIMIT, "nothing more after record {next} for {LIMIT:?}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        ensure!(message.offset() == next as i64, "offset {} came where {next} was due", message.offset());
        ensure!(
            message.payload() == Some(&numbered(next)[..]),
            "offset {next} holds other bytes than were sent"
        );
        next += 1;
        last = Instant::now();
    }
    Ok(())
}

/// Unsynced, too: a graceful stop keeps what was produced with the weakest durability.
fn graceful_stop(binary: &Path, dir: &Path) -> Result<String> {
    let (mut start, mut broker) = broker(binary, dir)?;
    let mut slowest = Duration::ZERO;
    for round in 0..3_u64 {
        produce_numbered(&broker.address, "stopped", round * 1000..(round + 1) * 1000, &[("acks", "1")])?;
        slowest = slowest.max(broker.stop()?);
        broker = start.start()?;
        let consumer: BaseConsumer = client(&broker.address).set("group.id", "stopped").create()?;
        let (low, high) = consumer.fetch_watermarks("stopped", 0, LIMIT)?;
        ensure!(
            (low, high) == (0, (round as i64 + 1) * 1000),
            "watermarks after restart {round}: {low} and {high}"
        );
    }
    broker.stop()?;
    Ok(format!("3 stops, the slowest took {} ms", slowest.as_millis()))
}

/// Two servers never share a data directory: the second is refused, and the first goes on.
fn one_broker_per_directory(binary: &Path, dir: &Path) -> Result<String> {
    let (mut start, first) = broker(binary, dir)?;
    "127.0.0.1:0".clone_into(&mut start.listen);
    let mut second = start.spawn()?;
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = second.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            second.kill()?;
            second.wait()?;
            anyhow::bail!("a second broker runs on the same data directory");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    ensure!(!status.success(), "a second broker ended with {status}");
    produce_numbered(&first.address, "first", 0..10, &[])?;
    first.stop()?;
    Ok(format!("the second ends with {status}"))
}

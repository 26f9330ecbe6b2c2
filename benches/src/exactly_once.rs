//! What exactly once costs: transactions of clients beside producers without, an exactly-once pipeline beside one that is at
//! least once, latency through it, and what one commit takes.

use crate::client::{self, Conn};
use crate::latency::{self, Path};
use crate::server::Server;
use crate::{Bench, raw};
use anyhow::{Context, ensure};
use pelton_wasm::toolchain::{BuildOptions, build};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::time::{Duration, Instant};

/// Rounds that are compared: each side runs once in each, so that a slow minute hits all of them.
const ROUNDS: usize = 3;
const RECORD_BYTES: usize = 1024;
/// How long a client's transaction is open.
const TRANSACTION: Duration = Duration::from_millis(100);
/// Partitions that clients write to, and that pipelines read.
const PARTITIONS: i32 = 4;
/// Records that a pipeline works off in one round.
const BACKLOG: u64 = 2_000_000;
/// Records in a stored batch of the backlog.
const BATCH_RECORDS: u64 = 500;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(120);
/// Commits that are measured one after the other.
const COMMITS: u32 = 500;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    produce(bench)?;
    commits(bench)?;
    pipelines(bench)?;
    latencies(bench)
}

/// What a producer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Idempotent,
    Transactional,
}

fn produce(bench: &Bench) -> anyhow::Result<()> {
    let kinds = [Kind::Plain, Kind::Idempotent, Kind::Transactional];
    let mut figures = [(0, Duration::ZERO, Duration::ZERO); 3];
    let limit = raw::journal(bench, 256 << 10)?;
    for round in 0..ROUNDS {
        for (kind, figure) in kinds.into_iter().zip(&mut figures) {
            let server = Server::start(bench, &format!("transactional-{round}-{kind:?}"))?;
            Conn::open(&server.address)?.create_topic("load", PARTITIONS)?;
            let cpu = server.cpu()?;
            let (records, time) = produce_as(kind, &server.address, bench.time)?;
            figure.0 += records;
            figure.1 += time;
            figure.2 += server.cpu()?.saturating_sub(cpu);
            let data_dir = server.data_dir.clone();
            drop(server);
            std::fs::remove_dir_all(data_dir)?;
        }
    }
    println!(
        "\ntransactions: one librdkafka producer, {RECORD_BYTES} B, linger.ms=5, {PARTITIONS} partitions, transactions of {} ms, \
         {ROUNDS} rounds each  (raw sync of 256 KiB: {:.0} MB/s)",
        TRANSACTION.as_millis(),
        limit.mb_per_s
    );
    let rate = |(records, time, _): (u64, Duration, Duration)| records as f64 / time.as_secs_f64();
    for (kind, figure) in kinds.into_iter().zip(figures) {
        println!(
            "  {:<13} {:>9.0} records/s, ratio to idempotent {:.3}, server CPU {:.0} ns/record",
            format!("{kind:?}"),
            rate(figure),
            rate(figure) / rate(figures[1]),
            figure.2.as_nanos() as f64 / figure.0 as f64,
        );
    }
    Ok(())
}

type Client = ThreadedProducer<DefaultProducerContext>;

fn client(address: &str, more: &[(&str, &str)]) -> anyhow::Result<Client> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("acks", "all");
    for (key, value) in more {
        config.set(*key, *value);
    }
    let producer: Client = config.create()?;
    if more.iter().any(|(key, _)| *key == "transactional.id") {
        producer.init_transactions(LIMIT)?;
    }
    Ok(producer)
}

/// Produces for `time` as fast as the client takes it; how many were acknowledged, and in what time.
fn produce_as(kind: Kind, address: &str, time: Duration) -> anyhow::Result<(u64, Duration)> {
    let common = ("linger.ms", "5");
    let producer = match kind {
        Kind::Plain => client(address, &[common])?,
        Kind::Idempotent => client(address, &[common, ("enable.idempotence", "true")])?,
        Kind::Transactional => client(address, &[common, ("transactional.id", "bench")])?,
    };
    let value = vec![7; RECORD_BYTES];
    let (mut records, started) = (0_u64, Instant::now());
    while started.elapsed() < time {
        if kind == Kind::Transactional {
            producer.begin_transaction()?;
        }
        let begun = Instant::now();
        while begun.elapsed() < TRANSACTION {
            send(&producer, "load", (records % PARTITIONS as u64) as i32, &value)?;
            records += 1;
        }
        if kind == Kind::Transactional {
            producer.commit_transaction(LIMIT)?;
        }
    }
    producer.flush(LIMIT)?;
    Ok((records, started.elapsed()))
}

fn send(producer: &Client, topic: &str, partition: i32, value: &[u8]) -> anyhow::Result<()> {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    loop {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).payload(value);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Transactions of one record a partition, one after the other.
fn commits(bench: &Bench) -> anyhow::Result<()> {
    let mut limit = raw::journal(bench, 4 << 10)?;
    println!(
        "\none commit: {COMMITS} transactions of one record a partition, one after the other, librdkafka  (raw sync of 4 KiB: {})",
        limit.latencies.text()
    );
    let mut first = None;
    for partitions in [1, 10, 100] {
        let server = Server::start(bench, &format!("commits-{partitions}"))?;
        Conn::open(&server.address)?.create_topic("load", partitions)?;
        let producer = client(&server.address, &[("linger.ms", "0"), ("transactional.id", "bench")])?;
        let (cpu, started) = (server.cpu()?, Instant::now());
        for _ in 0..COMMITS {
            producer.begin_transaction()?;
            for partition in 0..partitions {
                send(&producer, "load", partition, &[7; 100])?;
            }
            producer.commit_transaction(LIMIT)?;
        }
        let (time, cpu) = (started.elapsed(), server.cpu()?.saturating_sub(cpu));
        let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(COMMITS);
        let (of_one, _) = *first.get_or_insert((cpu_us, partitions));
        let more = match partitions {
            1 => String::new(),
            many => format!(", {:.1} us for each more partition", (cpu_us - of_one) / f64::from(many - 1)),
        };
        println!(
            "  {partitions:>3} partitions: {:.2} ms (the client's own waits in it), server CPU {cpu_us:.0} us a transaction{more}",
            time.as_secs_f64() * 1e3 / f64::from(COMMITS),
        );
    }
    Ok(())
}

/// Pushes the plugin that hands on what it is given.
fn push_identity(bench: &Bench, server: &Server) -> anyhow::Result<()> {
    let guest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/bench-ops");
    let target_dir = Some(bench.dir.path().join("guest"));
    let built = build(&guest, &BuildOptions { target_dir, ..BuildOptions::default() })?;
    let file = bench.dir.path().join("bench-ops.wasm");
    std::fs::write(&file, &built.component)?;
    server.command(&["plugin", "push", file.to_str().context("a path that is no text")?]).map(drop)
}

fn deploy(
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
fn committed(server: &Server, name: &str) -> anyhow::Result<u64> {
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

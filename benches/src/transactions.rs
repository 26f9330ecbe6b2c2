//! What transactions cost clients: one producer with them beside the same without, and what one commit takes.

use crate::client::Conn;
use crate::server::Server;
use crate::stats::Latencies;
use crate::{Bench, raw};
use anyhow::ensure;
use bytes::Bytes;
use pelton_wire::ErrorCode;
use pelton_wire::message::end_txn::EndTxnRequest;
use pelton_wire::message::init_producer_id::InitProducerIdRequest;
use pelton_wire::message::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use pelton_wire::record::{BatchBuilder, BatchOptions};
use rdkafka::bindings::rd_kafka_flush;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;
use std::time::{Duration, Instant};

/// Rounds that are compared: each side runs once in each, so that a slow minute hits all of them.
const ROUNDS: usize = 3;
const RECORD_BYTES: usize = 1024;
/// How long a client's transaction takes records.
const TRANSACTION: Duration = Duration::from_millis(100);
const PARTITIONS: i32 = 4;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(120);
/// Commits that are measured one after the other.
const COMMITS: u32 = 5_000;
/// The first versions of the newer transaction protocol: a Produce adds its partitions, each commit raises the epoch.
const PRODUCE_VERSION: i16 = 12;
const END_TXN_VERSION: i16 = 5;
const INIT_PRODUCER_ID_VERSION: i16 = 5;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    produce(bench)?;
    commits(bench)
}

/// What a producer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As many requests in flight as there are.
    Plain,
    /// Five requests in flight, as many as idempotence allows.
    PlainFive,
    Idempotent,
    Transactional,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Plain, Kind::PlainFive, Kind::Idempotent, Kind::Transactional];

    fn text(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::PlainFive => "plain, 5 in flight",
            Kind::Idempotent => "idempotent",
            Kind::Transactional => "transactional",
        }
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Plain => &[],
            Kind::PlainFive => &[("max.in.flight.requests.per.connection", "5")],
            Kind::Idempotent => &[("enable.idempotence", "true")],
            Kind::Transactional => &[("transactional.id", "bench")],
        }
    }
}

/// What a producer did in all its rounds.
#[derive(Debug, Default)]
struct Figure {
    records: u64,
    time: Duration,
    server_cpu: Duration,
    /// From the last record of a transaction to the last acknowledgement.
    flushes: Latencies,
    /// EndTxn, seen from the client.
    commits: Latencies,
}

impl Figure {
    fn records_per_s(&self) -> f64 {
        self.records as f64 / self.time.as_secs_f64()
    }
}

fn produce(bench: &Bench) -> anyhow::Result<()> {
    let mut figures: [Figure; Kind::ALL.len()] = Default::default();
    let limit = raw::journal(bench, 256 << 10)?;
    for round in 0..ROUNDS {
        for (kind, figure) in Kind::ALL.into_iter().zip(&mut figures) {
            let server = Server::start(bench, &format!("transactional-{round}-{kind:?}"))?;
            Conn::open(&server.address)?.create_topic("load", PARTITIONS)?;
            let cpu = server.cpu()?;
            produce_as(kind, &server.address, bench.time, figure)?;
            figure.server_cpu += server.cpu()?.saturating_sub(cpu);
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
    let base = figures[Kind::Idempotent as usize].records_per_s();
    for (kind, figure) in Kind::ALL.into_iter().zip(&mut figures) {
        println!(
            "  {:<18} {:>9.0} records/s, ratio to idempotent {:.3}, server CPU {:.0} ns/record",
            kind.text(),
            figure.records_per_s(),
            figure.records_per_s() / base,
            figure.server_cpu.as_nanos() as f64 / figure.records as f64,
        );
        if figure.commits.len() > 0 {
            println!("    its flushes: {}, its commits: {}", figure.flushes.text(), figure.commits.text());
        }
    }
    Ok(())
}

type Client = ThreadedProducer<DefaultProducerContext>;

/// Produces for `time` as fast as the client takes it, all of it acknowledged.
fn produce_as(kind: Kind, address: &str, time: Duration, figure: &mut Figure) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("acks", "all").set("linger.ms", "5");
    for (key, value) in kind.settings() {
        config.set(*key, *value);
    }
    let producer: Client = config.create()?;
    let value = vec![7; RECORD_BYTES];
    // Before the clock starts: connections, and the producer id, for which librdkafka may wait half a second.
    if kind == Kind::Transactional {
        producer.init_transactions(LIMIT)?;
        producer.begin_transaction()?;
    }
    for partition in 0..PARTITIONS {
        send(&producer, partition, &value)?;
    }
    flush(&producer)?;
    if kind == Kind::Transactional {
        producer.commit_transaction(LIMIT)?;
    }
    let started = Instant::now();
    while started.elapsed() < time {
        if kind == Kind::Transactional {
            producer.begin_transaction()?;
        }
        let begun = Instant::now();
        while begun.elapsed() < TRANSACTION {
            send(&producer, (figure.records % PARTITIONS as u64) as i32, &value)?;
            figure.records += 1;
        }
        if kind == Kind::Transactional {
            let ended = Instant::now();
            flush(&producer)?;
            let flushed = Instant::now();
            producer.commit_transaction(LIMIT)?;
            figure.flushes.add(flushed - ended);
            figure.commits.add(flushed.elapsed());
        }
    }
    flush(&producer)?;
    figure.time += started.elapsed();
    Ok(())
}

fn send(producer: &Client, partition: i32, value: &[u8]) -> anyhow::Result<()> {
    loop {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("load").partition(partition).payload(value);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits for all acknowledgements, as a client in C does. The crate's own `flush`, which its `commit_transaction` calls
/// too, sleeps for 100 ms whenever something is in flight.
fn flush(producer: &Client) -> anyhow::Result<()> {
    let limit_ms = i32::try_from(LIMIT.as_millis())?;
    #[expect(unsafe_code, reason = "the crate has no flush that only waits")]
    // SAFETY: the pointer is the live client's, which outlives the call; the function may be called from any thread.
    let outcome = unsafe { rd_kafka_flush(producer.client().native_ptr(), limit_ms) };
    ensure!(outcome == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, "flush: {outcome:?}");
    Ok(())
}

/// A producer on one connection that waits for each answer: nothing of a client's is in its times.
struct Raw {
    conn: Conn,
    transactional: bool,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

impl Raw {
    fn open(address: &str, transactional: bool) -> anyhow::Result<Raw> {
        let mut conn = Conn::open(address)?;
        let request = InitProducerIdRequest {
            transactional_id: transactional.then(|| "bench".to_owned()),
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        let mut answer = conn.call(&request, INIT_PRODUCER_ID_VERSION)?;
        let deadline = Instant::now() + LIMIT;
        while answer.error_code.is_retriable() && Instant::now() < deadline {
            answer = conn.call(&request, INIT_PRODUCER_ID_VERSION)?;
        }
        ensure!(answer.error_code == ErrorCode::NONE, "InitProducerId: {:?}", answer.error_code);
        Ok(Raw {
            conn,
            transactional,
            producer_id: answer.producer_id,
            epoch: answer.producer_epoch,
            sequence: 0,
        })
    }

    fn batch(&self) -> anyhow::Result<Bytes> {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            transactional: self.transactional,
            ..BatchOptions::default()
        });
        builder.append(1, None, Some(&[7; 100]), &[])?;
        Ok(builder.finish()?)
    }

    /// One record to each partition, in one request.
    fn produce(&mut self, partitions: i32) -> anyhow::Result<()> {
        let batch = self.batch()?;
        let partition_data = (0..partitions)
            .map(|index| PartitionProduceData { index, records: Some(batch.clone()) })
            .collect();
        let topic = TopicProduceData { name: "load".to_owned(), partition_data, ..Default::default() };
        let request = ProduceRequest {
            transactional_id: self.transactional.then(|| "bench".to_owned()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
        };
        let answer = self.conn.call(&request, PRODUCE_VERSION)?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            ensure!(partition.error_code == ErrorCode::NONE, "produce: {:?}", partition.error_code);
        }
        self.sequence += 1;
        Ok(())
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let request = EndTxnRequest {
            transactional_id: "bench".to_owned(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: true,
        };
        let answer = self.conn.call(&request, END_TXN_VERSION)?;
        ensure!(answer.error_code == ErrorCode::NONE, "EndTxn: {:?}", answer.error_code);
        (self.producer_id, self.epoch, self.sequence) = (answer.producer_id, answer.producer_epoch, 0);
        Ok(())
    }
}

/// Times of one after the other, and what the server spent on each.
struct Taken {
    produces: Latencies,
    commits: Latencies,
    cpu_us: f64,
}

fn in_turn(bench: &Bench, partitions: i32, transactional: bool) -> anyhow::Result<Taken> {
    let server = Server::start(bench, &format!("commits-{partitions}-{transactional}"))?;
    Conn::open(&server.address)?.create_topic("load", partitions)?;
    let mut producer = Raw::open(&server.address, transactional)?;
    let (mut produces, mut commits) = (Latencies::default(), Latencies::default());
    let cpu = server.cpu()?;
    for _ in 0..COMMITS {
        let started = Instant::now();
        producer.produce(partitions)?;
        produces.add(started.elapsed());
        if transactional {
            let started = Instant::now();
            producer.commit()?;
            commits.add(started.elapsed());
        }
    }
    let cpu = server.cpu()?.saturating_sub(cpu);
    Ok(Taken { produces, commits, cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(COMMITS) })
}

/// What a commit takes beyond its records, and what each partition in it adds.
fn commits(bench: &Bench) -> anyhow::Result<()> {
    let mut limit = raw::journal(bench, 4 << 10)?;
    println!(
        "\ncommits: {COMMITS} transactions one after the other, a raw client: one Produce of a record to each partition, EndTxn; beside \
         it the same Produce of an idempotent producer\n  raw sync of 4 KiB: {}",
        limit.latencies.text()
    );
    let mut first = None;
    for partitions in [1, 10, 100] {
        let mut without = in_turn(bench, partitions, false)?;
        let mut with = in_turn(bench, partitions, true)?;
        let more = with.cpu_us - without.cpu_us;
        let each = match first {
            None => String::new(),
            Some(of_one) => {
                format!(", {:.1} us for each more partition", (more - of_one) / f64::from(partitions - 1))
            }
        };
        first.get_or_insert(more);
        println!(
            "  {partitions:>3} partitions: EndTxn {}; Produce {}\n      server CPU {:.0} us a transaction, {:.0} us without: {more:.0} us a \
             commit{each}; idempotent Produce {}",
            with.commits.text(),
            with.produces.text(),
            with.cpu_us,
            without.cpu_us,
            without.produces.text(),
        );
    }
    Ok(())
}

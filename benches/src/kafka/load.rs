//! What a broker is given to do: records in, records out, transactions.

use super::figures::Figures;
use super::peer::Subject;
use super::{Extent, LIMIT, create_topic};
use crate::Bench;
use crate::stats::Latencies;
use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Records that are consumed at most, in each of two turns.
const CONSUMED_AT_MOST: u64 = 2_000_000;
/// The warm-up ends at the latest after so many times its length.
const WARM_UP_STRETCH: u32 = 5;
/// One record in so many has its latency measured.
const SAMPLE_EVERY: u64 = 64;

/// Counts what is acknowledged; an opaque is when its record was sent (ns since `origin`), 0 for most of them.
struct Acknowledged {
    origin: Instant,
    records: AtomicU64,
    failed: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Acknowledged {
    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Deliveries(Arc<Acknowledged>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        let all = &self.0;
        match result {
            Ok(_) => all.records.fetch_add(1, Ordering::Relaxed),
            Err(_) => all.failed.fetch_add(1, Ordering::Relaxed),
        };
        if sent > 0 {
            let took = all.origin.elapsed().saturating_sub(Duration::from_nanos(sent as u64));
            all.latencies().add(took);
        }
    }
}

/// Produces for the bench's time after the warm-up, in turn to every partition.
pub(super) fn produce(
    bench: &Bench,
    extent: Extent,
    subject: &dyn Subject,
    partitions: i32,
    size: usize,
) -> anyhow::Result<Figures> {
    let origin = Instant::now();
    let all = Arc::new(Acknowledged {
        origin,
        records: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        latencies: Mutex::default(),
    });
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", subject.address())
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "20000")
        .create_with_context(Deliveries(Arc::clone(&all)))?;
    let values = values(size);
    let (cold, mut warm) = (subject.cpu()?, None);
    let mut sent = 0_u64;
    while warm.is_none_or(|(_, _, since): (_, _, Instant)| since.elapsed() < bench.time) {
        let sampled = sent.is_multiple_of(SAMPLE_EVERY);
        if warm.is_none() && sampled {
            let cpu = subject.cpu()?;
            if cpu.saturating_sub(cold) >= extent.warm_up
                || origin.elapsed() >= WARM_UP_STRETCH * extent.warm_up
            {
                *all.latencies() = Latencies::default();
                warm = Some((all.records.load(Ordering::Relaxed), cpu, Instant::now()));
            }
        }
        let stamp = if sampled { origin.elapsed().as_nanos() as usize } else { 0 };
        let value = &values[sent as usize % values.len()];
        let partition = (sent % partitions as u64) as i32;
        let record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to("load", stamp).partition(partition).payload(value);
        match producer.send(record) {
            Ok(()) => sent += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_micros(500));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
    let (records, cpu, since) = warm.context("no record was sent")?;
    let (records, time) = (all.records.load(Ordering::Relaxed) - records, since.elapsed());
    let cpu = subject.cpu()?.saturating_sub(cpu);
    let mut latencies = std::mem::take(&mut *all.latencies());
    let figures = Figures::of(records, time, cpu, Some(&mut latencies), subject.peak()?);
    producer.flush(LIMIT)?;
    ensure!(all.failed.load(Ordering::Relaxed) == 0, "records were not taken");
    Ok(figures)
}

/// Some values that do not compress.
fn values(size: usize) -> Vec<Vec<u8>> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
    let one = |_| {
        let mut value = vec![0; size];
        rng.fill(&mut value[..]);
        value
    };
    (0..64).map(one).collect()
}

/// Reads partitions from their start, twice: the second time counts.
pub(super) fn consume(subject: &dyn Subject, partitions: i32) -> anyhow::Result<Figures> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", subject.address())
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "1000000")
        // Otherwise a server that fills the queue is not asked for a second.
        .set("fetch.queue.backoff.ms", "1")
        .create()?;
    let mut expected = 0;
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks("load", partition, LIMIT)?;
        expected += u64::try_from(high - low)?;
    }
    let expected = expected.min(CONSUMED_AT_MOST);
    let mut figures = None;
    for _ in 0..2 {
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset("load", partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let (cpu, started) = (subject.cpu()?, Instant::now());
        for read in 0..expected {
            consumer.poll(LIMIT).with_context(|| format!("nothing after {read} of {expected}"))??;
        }
        let (time, cpu) = (started.elapsed(), subject.cpu()?.saturating_sub(cpu));
        figures = Some(Figures::of(expected, time, cpu, None, subject.peak()?));
        consumer.unassign()?;
    }
    figures.context("nothing was read")
}

/// Transactions of one record, one after the other; the latency is that of the commit.
pub(super) fn commits(bench: &Bench, extent: Extent, subject: &dyn Subject) -> anyhow::Result<Figures> {
    create_topic(subject.address(), "committed", 1, &[])?;
    // Not a threaded one: that looks for what is acknowledged at intervals of its own.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", subject.address())
        .set("transactional.id", "bench")
        .set("linger.ms", "0")
        .create()?;
    producer.init_transactions(LIMIT)?;
    let origin = Instant::now();
    let mut warm = None;
    let mut latencies = Latencies::default();
    while origin.elapsed() < extent.warm_up + bench.time {
        if warm.is_none() && origin.elapsed() >= extent.warm_up {
            latencies = Latencies::default();
            warm = Some((subject.cpu()?, Instant::now()));
        }
        producer.begin_transaction()?;
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("committed").partition(0).payload(&[7; 100]);
        producer.send(record).map_err(|(error, _)| error)?;
        while producer.in_flight_count() > 0 {
            // It takes all of this time, and no less is possible.
            producer.poll(Duration::from_millis(1));
        }
        let started = Instant::now();
        producer.commit_transaction(LIMIT)?;
        latencies.add(started.elapsed());
    }
    let (cpu, since) = warm.context("the warm-up took all of the time")?;
    let (time, cpu) = (since.elapsed(), subject.cpu()?.saturating_sub(cpu));
    Ok(Figures::of(latencies.len() as u64, time, cpu, Some(&mut latencies), subject.peak()?))
}

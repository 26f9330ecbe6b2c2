//! What the programs read: an idempotent producer that numbers its keys.

use anyhow::{Context, Result, ensure};
use pelton_tests::load::client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The topic.
pub(crate) const INPUT: &str = "input";
/// Its partitions.
pub(crate) const PARTITIONS: u32 = 4;
/// Keys; key n goes to partition n modulo the partitions.
pub(crate) const KEYS: u32 = 12;
/// Records at once …
const BURST: u32 = 6;
/// … and the time from burst to burst: what bounds the load.
const PACE: Duration = Duration::from_millis(20);
/// Longest wait for the last acknowledgements.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// The running producer.
pub(crate) struct Input {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<u64>>>,
}

impl Input {
    /// Starts it.
    pub(crate) fn start(bootstrap: &str) -> Result<Input> {
        let mut config = client(bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "300000");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || produce(&producer, &until, &count));
        Ok(Input { stop, sent, thread })
    }

    /// Records sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Ends it; the last number of each key, all of which are acknowledged.
    pub(crate) fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the producer of the input panicked"))?
    }
}

fn produce(
    producer: &ThreadedProducer<DefaultProducerContext>,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<Vec<u64>> {
    let mut numbers = vec![0; KEYS as usize];
    let mut next = 0;
    while !stop.load(Ordering::Acquire) {
        for _ in 0..BURST {
            let (key, number) = (next % KEYS, numbers[(next % KEYS) as usize] + 1);
            let (value, text) = (format!("{key}.{number}"), key.to_string());
            let record =
                BaseRecord::to(INPUT).partition((key % PARTITIONS) as i32).key(&text).payload(&value);
            match producer.send(record) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => return Err(error).context("send the input"),
            }
            numbers[key as usize] = number;
            next += 1;
            sent.fetch_add(1, Ordering::AcqRel);
        }
        std::thread::sleep(PACE);
    }
    producer.flush(FLUSH_LIMIT).context("the last records of the input")?;
    ensure!(producer.in_flight_count() == 0, "records of the input are left over");
    Ok(numbers)
}

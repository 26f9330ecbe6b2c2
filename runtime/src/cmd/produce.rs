//! `pelton produce`: lines of stdin become records, through librdkafka.

use crate::cli;
use crate::report::{Exit, Failure, failed, usage};
use anyhow::Context;
use pelton_partitioner::{Partitioner, PartitionerKind};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A longer line is refused, because a line is read into memory.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How long the command waits for outstanding acknowledgements at the end of stdin. librdkafka gives up on a record after
/// `message.timeout.ms` (5 minutes by default), which is shorter.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(330);
/// A step of a sticky partitioner: so many bytes of stdin, or fewer if no more is there.
const STEP_BYTES: usize = 64 << 10;
/// How long a partitioner of ours goes by what it knows of the topic, before it asks whether the topic has grown.
const METADATA_AGE: Duration = Duration::from_secs(60);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &cli::Produce) -> anyhow::Result<()> {
    let kind = args.partitioner.as_deref().map(|name| kind(name, &args.options)).transpose()?;
    let deliveries = Deliveries::default();
    let producer: ThreadedProducer<Deliveries> = super::client_config(&args.kafka, &args.options)?
        .create_with_context(deliveries.clone())
        .map_err(|error| usage(error.to_string()))?;
    let mut placing = kind.map(|kind| Placing::new(kind, &producer, &args.topic)).transpose()?;
    let mut stdin = BufReader::with_capacity(STEP_BYTES, std::io::stdin().lock());
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        let n = stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("read stdin")?;
        if n == 0 {
            break;
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if n as u64 == LINE_BYTES_MAX {
            return Err(usage(format!("line {number} is longer than {LINE_BYTES_MAX} bytes")));
        }
        let (key, value) = split(&line, args.key_separator.as_deref()).ok_or_else(|| {
            usage(format!(
                "line {number} has no key separator `{}`",
                args.key_separator.as_deref().unwrap_or("")
            ))
        })?;
        let value = not_null(value, args.null_value.as_deref());
        let partition =
            placing.as_mut().map(|placing| placing.place(&producer, key, value.unwrap_or_default()));
        send(&producer, &args.topic, key, value, partition)?;
        if let Some(placing) = &mut placing {
            placing.passed(n, stdin.buffer().is_empty());
        }
    }
    producer.flush(FLUSH_TIMEOUT).map_err(|error| failed(format!("wait for acknowledgements: {error}")))?;
    deliveries.outcome(number)
}

fn split<'a>(line: &'a [u8], separator: Option<&str>) -> Option<(Option<&'a [u8]>, &'a [u8])> {
    let Some(separator) = separator.filter(|text| !text.is_empty()) else { return Some((None, line)) };
    let at = line.windows(separator.len()).position(|window| window == separator.as_bytes())?;
    Some((Some(&line[..at]), &line[at + separator.len()..]))
}

fn not_null<'a>(value: &'a [u8], null: Option<&str>) -> Option<&'a [u8]> {
    Some(value).filter(|value| null.is_none_or(|null| *value != null.as_bytes()))
}

fn send(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    partition: Option<i32>,
) -> anyhow::Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    if let Some(value) = value {
        record = record.payload(value);
    }
    if let Some(key) = key {
        record = record.key(key);
    }
    if let Some(partition) = partition {
        record = record.partition(partition);
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            // librdkafka's queue is full: serve its callbacks until it has room.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(failed(format!("produce to `{topic}`: {error}"))),
        }
    }
}

/// The partitioner of a name.
fn kind(name: &str, options: &[String]) -> anyhow::Result<PartitionerKind> {
    if options.iter().any(|option| option.starts_with("partitioner=")) {
        return Err(usage("--partitioner and -X partitioner=… are given: one of them places the records"));
    }
    pelton_streams::partitioner::parse(name)
        .map_err(|hint| usage(format!("--partitioner is `{name}`; {hint}")))
}

/// A partitioner of ours at work; without one librdkafka places the records.
struct Placing {
    partitioner: Partitioner,
    topic: String,
    /// When the topic was asked for its partitions.
    asked: Instant,
    /// Bytes of stdin since the step began.
    step: usize,
}

impl Placing {
    fn new(
        kind: PartitionerKind,
        producer: &ThreadedProducer<Deliveries>,
        topic: &str,
    ) -> anyhow::Result<Placing> {
        let partitions = partitions(producer, topic)?;
        // Each producer begins with another partition.
        let seed = uuid::Uuid::new_v4().as_u128() as u32;
        let partitioner = Partitioner::new(kind, partitions, seed);
        Ok(Placing { partitioner, topic: topic.to_owned(), asked: Instant::now(), step: 0 })
    }

    fn place(&mut self, producer: &ThreadedProducer<Deliveries>, key: Option<&[u8]>, value: &[u8]) -> i32 {
        if self.asked.elapsed() > METADATA_AGE {
            self.asked = Instant::now();
            // While nobody answers, records wait for the partitions that are known.
            if let Ok(partitions) = partitions(producer, &self.topic) {
                self.partitioner.set_partitions(partitions);
            }
        }
        self.partitioner.place(key, key.map_or(0, <[u8]>::len) + value.len())
    }

    /// A line of so many bytes was sent, and the next one may have to be waited for.
    fn passed(&mut self, bytes: usize, is_last: bool) {
        self.step += bytes;
        if is_last || self.step >= STEP_BYTES {
            self.step = 0;
            self.partitioner.next_step();
        }
    }
}

fn partitions(producer: &ThreadedProducer<Deliveries>, topic: &str) -> anyhow::Result<u32> {
    let metadata = producer
        .client()
        .fetch_metadata(Some(topic), METADATA_TIMEOUT)
        .map_err(|error| super::unreachable(&error.to_string()))?;
    let found = metadata.topics().iter().find(|entry| entry.name() == topic && entry.error().is_none());
    let count = found.map_or(0, |entry| entry.partitions().len());
    match u32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Failure::new(Exit::Failed, format!("topic `{topic}` does not exist"))
            .hint("`pelton topic create` makes it; which partition a record goes to hangs on how many there are")
            .into()),
    }
}

/// Counts acknowledged records, and keeps the first error.
#[derive(Clone, Default)]
struct Deliveries {
    acknowledged: Arc<AtomicU64>,
    refused: Arc<Mutex<(u64, Option<String>)>>,
}

impl Deliveries {
    fn outcome(&self, sent: u64) -> anyhow::Result<()> {
        let refused = self.refused.lock().expect("no callback panics while it holds the lock");
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        if refused.0 == 0 && acknowledged == sent {
            return Ok(());
        }
        let first = refused.1.clone().unwrap_or_else(|| "no answer".to_owned());
        Err(Failure::new(
            Exit::Failed,
            format!("{} of {sent} records were not acknowledged: {first}", sent - acknowledged),
        )
        .hint("acknowledged records are stored; producing all again would store them twice")
        .into())
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                if let Ok(mut refused) = self.refused.lock() {
                    refused.0 += 1;
                    refused.1.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// Defaults of `produce`: Kafka's partitioner, and no duplicates on retry.
pub(crate) const PRODUCER_DEFAULTS: &[(&str, &str)] =
    &[("partitioner", "murmur2_random"), ("enable.idempotence", "true"), ("linger.ms", "5")];

pub(crate) fn with_defaults(config: &mut ClientConfig) {
    for (key, value) in PRODUCER_DEFAULTS {
        if config.get(key).is_none() {
            config.set(*key, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{kind, not_null, split};

    #[test]
    fn one_text_stands_for_null() {
        assert_eq!(not_null(b"NULL", Some("NULL")), None);
        assert_eq!(not_null(b"", Some("")), None);
        assert_eq!(not_null(b"NULLS", Some("NULL")), Some(&b"NULLS"[..]));
        assert_eq!(not_null(b"", None), Some(&b""[..]));
    }

    #[test]
    fn a_partitioner_has_one_of_the_names() {
        assert!(kind("consistent", &["linger.ms=1".to_owned()]).is_ok());
        let error = |name, options: &[String]| kind(name, options).expect_err("is refused").to_string();
        assert_eq!(error("murmur3", &[]), "--partitioner is `murmur3`; did you mean `murmur2`?");
        assert!(error("murmur2", &["partitioner=random".to_owned()]).contains("one of them"));
    }

    #[test]
    fn a_line_is_parted_at_the_first_separator() {
        let check = |line: &str, separator: Option<&str>, expect: Option<(Option<&str>, &str)>| {
            let got = split(line.as_bytes(), separator);
            let expect = expect.map(|(key, value)| (key.map(str::as_bytes), value.as_bytes()));
            assert_eq!(got, expect, "{line:?} {separator:?}");
        };
        check("a:b:c", None, Some((None, "a:b:c")));
        check("a:b:c", Some(""), Some((None, "a:b:c")));
        check("a:b:c", Some(":"), Some((Some("a"), "b:c")));
        check(":b", Some(":"), Some((Some(""), "b")));
        check("a::", Some("::"), Some((Some("a"), "")));
        check("abc", Some(":"), None);
    }
}

//! `pelton produce`: lines of stdin become records, through librdkafka.

use crate::cli;
use crate::report::{Exit, Failure, failed, usage};
use anyhow::Context;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

mod placing;

use placing::{By, Placing};

/// A longer line is refused, because a line is read into memory.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How long the command waits for outstanding acknowledgements at the end of stdin. librdkafka gives up on a record after
/// `message.timeout.ms` (5 minutes by default), which is shorter.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(330);
/// A step, as of a sticky partitioner or a call of a plugin: so many bytes of stdin, or fewer if no more is there.
const STEP_BYTES: usize = 64 << 10;

pub(crate) fn run(args: &cli::Produce) -> anyhow::Result<()> {
    let config = args.partitioner_config.as_deref();
    let by = args.partitioner.as_deref().map(|name| By::named(name, config, &args.options)).transpose()?;
    let deliveries = Deliveries::default();
    let producer: ThreadedProducer<Deliveries> = super::client_config(&args.kafka, &args.options)?
        .create_with_context(deliveries.clone())
        .map_err(|error| usage(error.to_string()))?;
    let mut placing = by.map(|by| Placing::new(by, &producer, &args.topic)).transpose()?;
    let mut stdin = BufReader::with_capacity(STEP_BYTES, std::io::stdin().lock());
    let mut sent = 0_u64;
    loop {
        let (lines, bad) = step(&mut stdin, args, sent);
        let partitions = placing.as_mut().map(|placing| placing.place(&producer, &lines)).transpose()?;
        for (i, line) in lines.iter().enumerate() {
            let partition = partitions.as_ref().map(|partitions| partitions[i]);
            send(&producer, &args.topic, line, partition)?;
        }
        sent += lines.len() as u64;
        bad?;
        if lines.is_empty() {
            break;
        }
    }
    producer.flush(FLUSH_TIMEOUT).map_err(|error| failed(format!("wait for acknowledgements: {error}")))?;
    deliveries.outcome(sent)
}

/// A line of stdin as a record.
struct Line {
    /// From 1.
    number: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Line {
    /// Of key and value.
    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The lines that are there, one at least if stdin has not ended, up to about [`STEP_BYTES`], and what is wrong with the next
/// one. So many came before.
fn step(
    stdin: &mut BufReader<impl Read>,
    args: &cli::Produce,
    before: u64,
) -> (Vec<Line>, anyhow::Result<()>) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        match next_line(stdin, args, before + lines.len() as u64 + 1) {
            Ok(Some((line, read))) => {
                lines.push(line);
                bytes += read;
            }
            Ok(None) => return (lines, Ok(())),
            Err(error) => return (lines, Err(error)),
        }
        // Nothing waits for a line that is not whole yet.
        if bytes >= STEP_BYTES || !stdin.buffer().contains(&b'\n') {
            return (lines, Ok(()));
        }
    }
}

/// The next line, and how many bytes it took of stdin; none at its end.
fn next_line(
    stdin: &mut BufReader<impl Read>,
    args: &cli::Produce,
    number: u64,
) -> anyhow::Result<Option<(Line, usize)>> {
    let mut line = Vec::new();
    let n = stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("read stdin")?;
    if n == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if n as u64 == LINE_BYTES_MAX {
        return Err(usage(format!("line {number} is longer than {LINE_BYTES_MAX} bytes")));
    }
    let separator = args.key_separator.as_deref();
    let (key, value) = split(&line, separator)
        .ok_or_else(|| usage(format!("line {number} has no key separator `{}`", separator.unwrap_or(""))))?;
    let value = not_null(value, args.null_value.as_deref()).map(<[u8]>::to_vec);
    Ok(Some((Line { number, key: key.map(<[u8]>::to_vec), value }, n)))
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
    line: &Line,
    partition: Option<i32>,
) -> anyhow::Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    if let Some(value) = &line.value {
        record = record.payload(value);
    }
    if let Some(key) = &line.key {
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
    use super::{not_null, split};

    #[test]
    fn one_text_stands_for_null() {
        assert_eq!(not_null(b"NULL", Some("NULL")), None);
        assert_eq!(not_null(b"", Some("")), None);
        assert_eq!(not_null(b"NULLS", Some("NULL")), Some(&b"NULLS"[..]));
        assert_eq!(not_null(b"", None), Some(&b""[..]));
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

//! `pelton consume`: the records of a topic on stdout, through librdkafka.

use crate::cli;
use crate::report::failed;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::time::Duration;

const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one poll waits: Ctrl-C and buffered output wait for at most as long.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &cli::Consume) -> anyhow::Result<()> {
    let stop = super::on_interrupt()?;
    let consumer = open(args)?;
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut left = args.max_messages.unwrap_or(u64::MAX);
    let mut at_end = HashSet::new();
    while left > 0 && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        match consumer.poll(Duration::ZERO).or_else(|| {
            // No record waits: flush before the next poll blocks.
            if out.flush().is_err() { None } else { consumer.poll(POLL) }
        }) {
            None => out.flush()?,
            Some(Ok(message)) => {
                at_end.remove(&message.partition());
                print(&mut out, args.format, &message)?;
                if args.group.is_some() {
                    consumer
                        .store_offset_from_message(&message)
                        .map_err(|error| failed(format!("mark a record as read: {error}")))?;
                }
                left -= 1;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
                if args.exit && everything_read(&consumer, &args.topic, &at_end)? {
                    break;
                }
            }
            Some(Err(error)) => return Err(failed(format!("read `{}`: {error}", args.topic))),
        }
    }
    out.flush()?;
    if args.group.is_some() {
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => return Err(failed(format!("commit the group's offsets: {error}"))),
        }
    }
    Ok(())
}

fn open(args: &cli::Consume) -> anyhow::Result<BaseConsumer> {
    let mut config = super::client_config(&args.kafka, &args.options)?;
    let start = if args.from_beginning { "earliest" } else { "latest" };
    let isolation = match args.isolation_level {
        cli::Isolation::ReadCommitted => "read_committed",
        cli::Isolation::ReadUncommitted => "read_uncommitted",
    };
    config
        .set("group.id", args.group.as_deref().unwrap_or("pelton-consume"))
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", if args.group.is_some() { "true" } else { "false" })
        .set("auto.offset.reset", start)
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().map_err(|error| failed(error.to_string()))?;
    if args.group.is_some() {
        consumer
            .subscribe(&[&args.topic])
            .map_err(|error| failed(format!("subscribe to `{}`: {error}", args.topic)))?;
        return Ok(consumer);
    }
    let mut assignment = TopicPartitionList::new();
    for partition in partitions(&consumer, &args.topic)? {
        let offset = if args.from_beginning { Offset::Beginning } else { Offset::End };
        assignment
            .add_partition_offset(&args.topic, partition, offset)
            .map_err(|error| failed(error.to_string()))?;
    }
    consumer.assign(&assignment).map_err(|error| failed(format!("read `{}`: {error}", args.topic)))?;
    Ok(consumer)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer
        .fetch_metadata(Some(topic), METADATA_TIMEOUT)
        .map_err(|error| super::unreachable(&error.to_string()))?;
    let found = metadata.topics().iter().find(|entry| entry.name() == topic);
    match found {
        Some(entry) if entry.error().is_none() && !entry.partitions().is_empty() => {
            Ok(entry.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
        }
        _ => Err(failed(format!("topic `{topic}` does not exist"))),
    }
}

/// True if this consumer has read every partition that it is assigned to its end.
fn everything_read(consumer: &BaseConsumer, topic: &str, at_end: &HashSet<i32>) -> anyhow::Result<bool> {
    let assignment = consumer.assignment().map_err(|error| failed(error.to_string()))?;
    Ok(assignment.elements_for_topic(topic).iter().all(|element| at_end.contains(&element.partition())))
}

fn print(out: &mut impl Write, format: cli::Format, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
    match format {
        cli::Format::Value => out.write_all(message.payload().unwrap_or_default())?,
        cli::Format::KeyValue => {
            out.write_all(message.key().unwrap_or_default())?;
            out.write_all(b"\t")?;
            out.write_all(message.payload().unwrap_or_default())?;
        }
        cli::Format::Json => serde_json::to_writer(&mut *out, &json(message))?,
    }
    out.write_all(b"\n")?;
    Ok(())
}

fn json(message: &BorrowedMessage<'_>) -> serde_json::Value {
    let headers: Vec<_> = message
        .headers()
        .map(|headers| {
            headers.iter().map(|header| serde_json::json!([header.key, text(header.value)])).collect()
        })
        .unwrap_or_default();
    serde_json::json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers,
    })
}

/// Bytes as JSON: a string where they are UTF-8, else `{"hex": "…"}`, so that nothing is lost.
fn text(bytes: Option<&[u8]>) -> serde_json::Value {
    match bytes {
        None => serde_json::Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => serde_json::json!({ "hex": hex::encode(bytes) }),
        },
    }
}

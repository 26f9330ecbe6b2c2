//! Writing and reading whole topics with librdkafka, for tests that are not about load.

use crate::load::client;
use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// Longest silence while something must come.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, as text; empty for none.
    pub key: String,
    /// Its value, as text; empty for none.
    pub value: String,
    /// Its headers, as text.
    pub headers: Vec<(String, String)>,
}

/// Appends values to a partition, in one batch where they fit, and waits until they are acknowledged.
///
/// # Errors
/// They were not.
pub fn produce(bootstrap: &str, topic: &str, partition: i32, values: &[&str]) -> Result<()> {
    let producer: BaseProducer =
        client(bootstrap).set("linger.ms", "20").set("message.timeout.ms", "20000").create()?;
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "watermarks").create()?;
    let end = |consumer: &BaseConsumer| -> Result<i64> {
        Ok(consumer
            .fetch_watermarks(topic, partition, LIMIT)
            .with_context(|| format!("the end of {topic}"))?
            .1)
    };
    let before = end(&consumer)?;
    for value in values {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value.as_bytes());
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")?;
    let after = end(&consumer)?;
    ensure!(
        after == before + values.len() as i64,
        "{topic} [{partition}] went from {before} to {after} for {} records",
        values.len()
    );
    Ok(())
}

/// Reads what is committed of a topic from the offsets `from` (one a partition; 0 where there is none) to where it ends
/// when this begins, and moves them behind the last record that it gives.
///
/// # Errors
/// The topic is not there, or the read does not come to its end.
pub fn read_from(bootstrap: &str, topic: &str, from: &mut Vec<i64>) -> Result<Vec<Read>> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .set("enable.partition.eof", "true")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).with_context(|| format!("look up {topic}"))?;
    let partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
    ensure!(partitions > 0, "topic {topic} does not exist");
    from.resize(partitions, 0);
    let (mut ends, mut wanted) = (Vec::new(), TopicPartitionList::new());
    for (partition, at) in from.iter_mut().enumerate() {
        let (low, high) = consumer.fetch_watermarks(topic, partition as i32, LIMIT)?;
        ensure!(*at <= high, "{topic} [{partition}] ends at {high}, and was read to {at} before");
        *at = (*at).max(low);
        ends.push(high);
        wanted.add_partition_offset(topic, partition as i32, Offset::Offset(*at))?;
    }
    consumer.assign(&wanted)?;
    let (mut read, mut last) = (Vec::new(), Instant::now());
    // The last offsets may be those of markers, which no reader is given, or of an open transaction.
    let mut done: Vec<bool> = from.iter().zip(&ends).map(|(at, end)| at >= end).collect();
    while done.contains(&false) {
        ensure!(last.elapsed() < LIMIT, "{topic}: nothing more at {from:?} of {ends:?} for {LIMIT:?}");
        let message = match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                anyhow::bail!("{topic} lost offsets that were there")
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                done[partition as usize] = true;
                continue;
            }
            Some(Err(_)) | None => continue,
        };
        last = Instant::now();
        let partition = message.partition() as usize;
        if message.offset() < ends[partition] {
            from[partition] = message.offset() + 1;
            read.push(owned(&message));
        }
        done[partition] |= message.offset() + 1 >= ends[partition];
    }
    Ok(read)
}

/// How many records of a topic, over its partitions, have been deleted from its beginning.
///
/// # Errors
/// The topic is not there.
pub fn deleted(bootstrap: &str, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "reader").create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).with_context(|| format!("look up {topic}"))?;
    let partitions = metadata.topics().first().map_or(0, |found| found.partitions().len());
    ensure!(partitions > 0, "topic {topic} does not exist");
    let low = |partition| Ok(consumer.fetch_watermarks(topic, partition as i32, LIMIT)?.0);
    (0..partitions).map(low).sum()
}

/// Reads a topic from its beginning to its ends.
///
/// # Errors
/// The topic is not there, or the read does not come to its end.
pub fn read_all(bootstrap: &str, topic: &str) -> Result<Vec<Read>> {
    read_from(bootstrap, topic, &mut Vec::new())
}

fn owned(message: &impl Message) -> Read {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect::<Vec<_>>()
    });
    Read {
        partition: message.partition(),
        offset: message.offset(),
        key: text(message.key()),
        value: text(message.payload()),
        headers: headers.unwrap_or_default(),
    }
}

/// The committed offset of each partition of a topic, -1 where there is none.
///
/// # Errors
/// The coordinator does not answer.
pub fn committed(bootstrap: &str, group: &str, topic: &str, partitions: u32) -> Result<Vec<i64>> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", group).create()?;
    let mut wanted = TopicPartitionList::new();
    for partition in 0..partitions {
        wanted.add_partition(topic, partition as i32);
    }
    let found = consumer.committed_offsets(wanted, LIMIT).with_context(|| format!("offsets of {group}"))?;
    let offset = |partition| match found.find_partition(topic, partition).map(|entry| entry.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    };
    Ok((0..partitions as i32).map(offset).collect())
}

/// Asks until there is an answer, at most so long.
///
/// # Errors
/// There was none in time, or asking failed.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! What a read-committed consumer finds from some offset to the end as it is now.

use super::history::Stamp;
use super::judge::Record;
use crate::load::client;
use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// Longest time that a transaction whose producer goes on may hold up those who read committed records.
pub const STABLE_LIMIT: Duration = Duration::from_secs(40);
/// Longest silence while something must come.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for one answer; the broker may be down for a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A consumer that only sees what is committed.
pub fn read_committed(bootstrap: &str, group: &str) -> ClientConfig {
    let mut config = client(bootstrap);
    config.set("isolation.level", "read_committed").set("group.id", group);
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    config.set("fetch.wait.max.ms", "20").set("check.crcs", "true");
    config
}

/// The stamp of a record: its value is the stamp's; what was made of another record may have more in front of it.
pub fn stamp(value: Option<&[u8]>, derived: bool) -> Option<Stamp> {
    let text = std::str::from_utf8(value?).ok()?;
    let own = if derived { text.rsplit(':').next()? } else { text };
    Stamp::parse(own)
}

/// The ends of a topic's partitions: the high watermark, or, for a consumer that reads committed records, the last stable offset.
fn ends(consumer: &BaseConsumer, topic: &str, partitions: usize) -> Result<Vec<i64>> {
    let end = Instant::now() + STABLE_LIMIT;
    (0..partitions as i32)
        .map(|partition| {
            loop {
                match consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT) {
                    Ok((low, high)) => {
                        ensure!(low == 0, "{topic} [{partition}] starts at {low}");
                        return Ok(high);
                    }
                    Err(error) if Instant::now() > end => bail!("the end of {topic} [{partition}]: {error}"),
                    Err(_) => {}
                }
            }
        })
        .collect()
}

/// Waits until everything that is in the topic now is stable, so that its transactions have ended.
///
/// # Errors
/// A transaction hangs.
pub fn until_stable(bootstrap: &str, topic: &str, partitions: usize) -> Result<()> {
    let uncommitted: BaseConsumer =
        client(bootstrap).set("group.id", "ends").set("isolation.level", "read_uncommitted").create()?;
    let committed: BaseConsumer = read_committed(bootstrap, "stable-ends").create()?;
    let wanted = ends(&uncommitted, topic, partitions)?;
    let limit = Instant::now() + STABLE_LIMIT;
    loop {
        let stable = ends(&committed, topic, partitions)?;
        if stable.iter().zip(&wanted).all(|(stable, wanted)| stable >= wanted) {
            return Ok(());
        }
        ensure!(
            Instant::now() < limit,
            "a transaction hangs: {topic} ends at {wanted:?} and is stable to {stable:?} for {STABLE_LIMIT:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a topic from the offsets `from`, one a partition, to its stable end, which is at least what its end is now, and
/// moves them behind the last record of each partition.
///
/// # Errors
/// A transaction hangs, or the read does not come to its end.
pub fn read_on(bootstrap: &str, topic: &str, derived: bool, from: &mut [i64]) -> Result<Vec<Vec<Record>>> {
    let mut read: Vec<Vec<Record>> = vec![Vec::new(); from.len()];
    read_each(bootstrap, topic, from, |message| {
        let record = Record { offset: message.offset(), stamp: stamp(message.payload(), derived) };
        read.get_mut(message.partition() as usize)
            .context("a partition that was not asked for")?
            .push(record);
        Ok(())
    })?;
    Ok(read)
}

/// Like [`read_on`], and gives each record away.
///
/// # Errors
/// A transaction hangs, the read does not come to its end, or `each` does not want a record.
pub fn read_each(
    bootstrap: &str,
    topic: &str,
    from: &mut [i64],
    mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    until_stable(bootstrap, topic, from.len())?;
    let consumer: BaseConsumer =
        read_committed(bootstrap, "reader").set("enable.partition.eof", "true").create()?;
    let mut wanted = TopicPartitionList::new();
    for (partition, at) in from.iter().enumerate() {
        wanted.add_partition_offset(topic, partition as i32, Offset::Offset(*at))?;
    }
    consumer.assign(&wanted)?;
    let (mut open, mut last) = (vec![true; from.len()], Instant::now());
    while open.contains(&true) {
        ensure!(last.elapsed() < READ_LIMIT, "{topic}: nothing more behind {from:?} for {READ_LIMIT:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                from[message.partition() as usize] = message.offset() + 1;
                each(&message)?;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => open[partition as usize] = false,
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => bail!("{topic} lost offsets that were there: it was read to {from:?}"),
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

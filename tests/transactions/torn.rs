//! Transactions over a network that delays, repeats and loses their requests: each is there whole or not at all, as its
//! client was told. The newer protocol is spoken by franz-go, the older by librdkafka; librdkafka reads.

use super::Lab;
use super::proxy::{Counts, Proxy};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{committed, read_all};
use pelton_tests::settings::from_env;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const TOPICS: [(&str, u32); 2] = [("one", 2), ("two", 1)];
/// Where the records of a transaction go, in order.
const PLACES: [(&str, i32); 6] = [("one", 0), ("one", 1), ("two", 0), ("one", 0), ("one", 1), ("two", 0)];
/// Longest wait for one call of a client.
const LIMIT: Duration = Duration::from_secs(60);
/// Of a hundred transactions, at least so many requests must come late for the run to show anything.
const LATE_PERCENT: u64 = 10;

/// What a reader may see of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Aborted,
    /// The commit was asked for, and the client does not know.
    Unknown,
}

fn transactions() -> Result<usize> {
    from_env("PELTON_TRANSACTIONS", 150)
}

fn value(number: usize, index: usize) -> String {
    let (topic, partition) = PLACES[index];
    format!("{number}/{topic}-{partition}/{index}")
}

/// The newer protocol: nothing that a network can do tears a transaction, and its client never hears of it.
pub(crate) fn newer(lab: &Lab) -> Result<Option<String>> {
    let Some(franz) = &lab.franz else { return Ok(None) };
    let count = transactions()?;
    let proxy = Proxy::start(lab.seed, true)?;
    let broker = through(lab, &proxy)?;
    proxy.disturb(true);
    let fates = franz_go(franz, &proxy.address, count, lab.seed)?;
    proxy.disturb(false);
    let told = judge(&proxy.address, "newer", &fates, 2)?;
    report(count, &told, proxy.counts(), broker)
}

/// The older protocol: the same, as long as what is late comes on the connection that it was sent on.
pub(crate) fn older(lab: &Lab) -> Result<Option<String>> {
    let count = transactions()?;
    let proxy = Proxy::start(lab.seed, false)?;
    let broker = through(lab, &proxy)?;
    proxy.disturb(true);
    let fates = librdkafka(&proxy.address, count, lab.seed)?;
    proxy.disturb(false);
    let told = judge(&proxy.address, "older", &fates, 1)?;
    let counts = proxy.counts();
    ensure!(counts.hung_up > 0, "no copy was refused by hanging up: {counts:?}");
    report(count, &told, counts, broker)
}

fn report(
    count: usize,
    told: &str,
    counts: Counts,
    broker: pelton_tests::broker::Broker,
) -> Result<Option<String>> {
    broker.stop()?;
    let least = count as u64 * LATE_PERCENT / 100;
    ensure!(counts.late >= least, "INVALID: {} late requests, fewer than {least}: {counts:?}", counts.late);
    Ok(Some(format!(
        "{told}, 0 torn; {} requests disturbed, {} came in a later transaction; {} copies were answered, {} hung up on",
        counts.disturbed, counts.late, counts.answered, counts.hung_up
    )))
}

fn through(lab: &Lab, proxy: &Proxy) -> Result<pelton_tests::broker::Broker> {
    let broker = lab.start(Some(&proxy.address))?;
    proxy.reach(&broker.address);
    for (topic, partitions) in TOPICS {
        create_topic(&proxy.address, topic, partitions, &[])?;
    }
    Ok(broker)
}

/// Runs the franz-go producer; it ends by itself when it is told what it should never be.
fn franz_go(franz: &Path, bootstrap: &str, count: usize, seed: u64) -> Result<Vec<Fate>> {
    let mut command = Command::new(franz);
    command.args(["rig", "transact", bootstrap, "newer", &count.to_string(), &(seed >> 1).to_string()]);
    let output = command.stderr(Stdio::piped()).output().context("start franz-go")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut fates = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some("told"), Some(number), Some(commit)) = (words.next(), words.next(), words.next()) {
            ensure!(number.parse() == Ok(fates.len() + 1), "franz-go said: {line}");
            fates.push(if commit == "true" { Fate::Committed } else { Fate::Aborted });
        }
    }
    let last: String = String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
    ensure!(output.status.success(), "franz-go was refused after {} transactions: {last}", fates.len());
    ensure!(fates.len() == count, "franz-go ended after {} of {count} transactions", fates.len());
    Ok(fates)
}

fn transactional(bootstrap: &str) -> Result<BaseProducer> {
    let producer: BaseProducer = client(bootstrap)
        .set("transactional.id", "older")
        .set("transaction.timeout.ms", "60000")
        .set("message.timeout.ms", "30000")
        .set("linger.ms", "0")
        .create()?;
    again(|| producer.init_transactions(LIMIT))?;
    Ok(producer)
}

/// Calls until the answer is not one to call again after.
fn again(mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn librdkafka(bootstrap: &str, count: usize, seed: u64) -> Result<Vec<Fate>> {
    let mut rng = StdRng::seed_from_u64(seed ^ 1);
    let mut producer = transactional(bootstrap)?;
    let member: BaseConsumer = client(bootstrap).set("group.id", "group-older").create()?;
    let mut fates = Vec::new();
    for number in 1..=count {
        let commit = rng.random_range(0..5) > 0;
        let (fate, result) = one(&producer, &member, number, commit);
        fates.push(fate);
        match result {
            Ok(()) => {}
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                if again(|| producer.abort_transaction(LIMIT)).is_err() {
                    producer = transactional(bootstrap)?;
                }
            }
            Err(KafkaError::Transaction(error)) if error.is_fatal() => producer = transactional(bootstrap)?,
            Err(error) => bail!("transaction {number}: {error}"),
        }
    }
    Ok(fates)
}

/// One transaction; what became of it, and what the last call said.
fn one(
    producer: &BaseProducer,
    member: &BaseConsumer,
    number: usize,
    commit: bool,
) -> (Fate, KafkaResult<()>) {
    let body = || -> KafkaResult<()> {
        producer.begin_transaction()?;
        for (index, (topic, partition)) in PLACES.into_iter().enumerate() {
            let value = value(number, index);
            let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value.as_bytes());
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(LIMIT)?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("one", 0, Offset::Offset(number as i64))?;
        let group = member.group_metadata().ok_or(KafkaError::Canceled)?;
        again(|| producer.send_offsets_to_transaction(&offsets, &group, LIMIT))
    };
    if let Err(error) = body() {
        return (Fate::Aborted, Err(error));
    }
    if !commit {
        return (Fate::Aborted, again(|| producer.abort_transaction(LIMIT)));
    }
    match again(|| producer.commit_transaction(LIMIT)) {
        Ok(()) => (Fate::Committed, Ok(())),
        Err(error) => (Fate::Unknown, Err(error)),
    }
}

/// Reads everything that is committed. `offsets_from` is the first transaction that has an offset in it.
fn judge(bootstrap: &str, id: &str, fates: &[Fate], offsets_from: usize) -> Result<String> {
    let mut there: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (topic, _) in TOPICS {
        for read in read_all(bootstrap, topic)? {
            let number = read.value.split('/').next().and_then(|text| text.parse().ok());
            let number = number.with_context(|| format!("`{}` was written by nobody", read.value))?;
            ensure!(
                there.entry(number).or_default().insert(read.value.clone()),
                "{} is there twice",
                read.value
            );
        }
    }
    let (mut last, mut may_be_last) = (-1, Vec::new());
    let (mut committed_count, mut unknown) = (0, 0);
    for (number, fate) in (1..).zip(fates) {
        let found = there.remove(&number).unwrap_or_default();
        let whole = (0..PLACES.len()).all(|index| found.contains(&value(number, index)));
        ensure!(found.is_empty() || whole && found.len() == PLACES.len(), "{number} is torn: only {found:?}");
        match fate {
            Fate::Committed => ensure!(whole, "{number} was committed, and is not there"),
            Fate::Aborted => ensure!(!whole, "{number} was aborted, and is there"),
            Fate::Unknown => unknown += 1,
        }
        committed_count += usize::from(whole);
        if whole && number >= offsets_from {
            last = number as i64;
        } else if *fate == Fate::Unknown {
            may_be_last.push(number as i64);
        }
    }
    ensure!(there.is_empty(), "transactions that nobody began: {there:?}");
    let offset = committed(bootstrap, &format!("group-{id}"), "one", 1)?[0];
    ensure!(
        offset == last,
        "the offset is that of {offset}, and the last transaction that is there is {last}"
    );
    ensure!(committed_count > fates.len() / 2, "INVALID: {committed_count} of {} committed", fates.len());
    ensure!(unknown * 20 < fates.len(), "the client does not know what became of {unknown}: {may_be_last:?}");
    Ok(format!(
        "{} transactions, {committed_count} committed, {unknown} unknown to their client",
        fates.len()
    ))
}

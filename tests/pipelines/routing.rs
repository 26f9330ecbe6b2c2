//! A topic with a partitioner of its own: clients write to whichever partition they like, and every record ends where the
//! plugin says, once, in the order of its key, through kills and while the topic grows.

use crate::lab::{Lab, path, until_committed, until_state};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::load::client;
use pelton_tests::records::{LIMIT, read_all, until};
use pelton_tests::routed::{CONFIG, Fate, Written, check, keys, plugin};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ROUNDS: usize = 40;
const TOPIC: &str = "flights";

/// A producer and the keys that only it writes. One round after the other has each key once, in a partition of its own.
struct Writer {
    name: &'static str,
    producer: BaseProducer,
    transactional: bool,
    round: usize,
    /// Partitions that it knows of.
    partitions: usize,
    /// By round: whether its records must be there, must not, or nobody knows.
    fates: Vec<Fate>,
}

impl Writer {
    fn new(bootstrap: &str, name: &'static str, transactional: bool) -> Result<Writer> {
        let mut config = client(bootstrap);
        config.set("message.timeout.ms", "60000").set("enable.idempotence", "true").set("linger.ms", "1");
        if transactional {
            config.set("transactional.id", name).set("transaction.timeout.ms", "60000");
        }
        let producer: BaseProducer = config.create()?;
        if transactional {
            producer.init_transactions(LIMIT).context("init_transactions")?;
        }
        Ok(Writer { name, producer, transactional, round: 0, partitions: 3, fates: Vec::new() })
    }

    /// Sends a round and does not wait for it.
    fn send(&mut self) -> Result<()> {
        if self.transactional {
            self.producer.begin_transaction().context("begin")?;
        }
        for (n, key) in keys(self.name).enumerate() {
            // Wherever a client likes: the same key goes through another partition each time.
            let partition = (self.round * 7 + n) % self.partitions;
            let value = self.round.to_string();
            let record = BaseRecord::to(TOPIC).partition(partition as i32).key(&key).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).context("send")?;
        }
        self.round += 1;
        Ok(())
    }

    /// Waits until the round is acknowledged, and ends its transaction.
    fn end(&mut self) -> Result<()> {
        // Delivery reports are polled for by nobody else.
        self.producer.flush(LIMIT).context("flush")?;
        if !self.transactional {
            self.fates.push(Fate::There);
            return Ok(());
        }
        let fate = if self.round % 4 == 3 {
            self.producer.abort_transaction(LIMIT).context("abort")?;
            Fate::Aborted
        } else {
            match self.producer.commit_transaction(LIMIT) {
                Ok(()) => Fate::There,
                Err(error) => {
                    // The broker was killed while it was being committed: whether it was, nobody knows.
                    let aborted = self.producer.abort_transaction(LIMIT);
                    aborted.with_context(|| format!("abort after {error}"))?;
                    Fate::Unknown
                }
            }
        };
        self.fates.push(fate);
        Ok(())
    }
}

fn routing(cli: &Cli) -> Result<Value> {
    Ok(cli.json(&["topic", "describe", TOPIC, "--json"])?["routing"].clone())
}

/// Waits until everything that was written is routed.
fn until_routed(cli: &Cli) -> Result<()> {
    let mut last = Value::Null;
    let waited = until("the router to have routed everything", LIMIT, || {
        last = routing(cli)?;
        let done = last["unrouted_bytes"].as_u64() == Some(0) && last["state"] == "running";
        Ok(done.then_some(()))
    });
    waited.with_context(|| format!("it says {last}"))
}

fn rounds(writers: &mut [Writer], count: usize) -> Result<()> {
    for _ in 0..count {
        writers.iter_mut().try_for_each(Writer::send)?;
        writers.iter_mut().try_for_each(Writer::end)?;
    }
    Ok(())
}

/// The broker is killed while a round is on its way.
fn rounds_with_kill(
    start: &mut Start,
    broker: Broker,
    writers: &mut [Writer],
    after: Duration,
) -> Result<Broker> {
    writers.iter_mut().try_for_each(Writer::send)?;
    // A moment chosen by chance, not a wait for something.
    std::thread::sleep(after);
    broker.kill()?;
    let broker = start.start()?;
    writers.iter_mut().try_for_each(Writer::end)?;
    Ok(broker)
}

/// See the module.
pub(crate) fn obeyed(lab: &Lab) -> Result<String> {
    let (mut start, mut broker, mut cli) = lab.start()?;
    let plugin = plugin();
    let plugin = path(&plugin);
    let create = ["topic", "create", TOPIC, "--partitions", "3", "--partitioner"];
    cli.refused(&[&create[..], &["nowhere"]].concat(), 1, &["`nowhere`, which was never pushed"])?;
    cli.refused(
        &[&create[..], &[plugin, "-c", "pelton.partitioner.config={ x = 1 }"]].concat(),
        1,
        &["config.x is not a setting"],
    )?;
    cli.ok(&[&create[..], &[plugin, "-c", CONFIG]].concat())?;
    let mut writers = vec![
        Writer::new(&broker.address, "idempotent", false)?,
        Writer::new(&broker.address, "transactional", true)?,
    ];
    rounds(&mut writers, ROUNDS)?;
    for after in [0, 2, 20, 100] {
        broker = rounds_with_kill(&mut start, broker, &mut writers, Duration::from_millis(after))?;
        cli = lab.cli(&broker)?;
        rounds(&mut writers, 3)?;
    }
    until_routed(&cli)?;
    let grown_at = writers[0].round;
    cli.ok(&["topic", "alter", TOPIC, "--partitions", "6"])?;
    // Nobody has told the producers yet; then they know.
    rounds(&mut writers, ROUNDS)?;
    writers.iter_mut().for_each(|writer| writer.partitions = 6);
    for writer in &writers {
        let metadata = writer.producer.client().fetch_metadata(Some(TOPIC), LIMIT)?;
        ensure!(metadata.topics()[0].partitions().len() == 6, "the topic has grown");
    }
    rounds(&mut writers, ROUNDS)?;
    broker = rounds_with_kill(&mut start, broker, &mut writers, Duration::from_millis(5))?;
    cli = lab.cli(&broker)?;
    rounds(&mut writers, 3)?;
    until_routed(&cli)?;
    let records = read_all(&broker.address, TOPIC)?;
    let written: Vec<Written<'_>> =
        writers.iter().map(|writer| Written { name: writer.name, fates: &writer.fates }).collect();
    check(&records, &written, grown_at)?;
    let used: BTreeSet<i32> = records
        .iter()
        .filter(|r| r.value.parse::<usize>().is_ok_and(|round| round >= grown_at))
        .map(|r| r.partition)
        .collect();
    ensure!(used.len() == 6, "only {used:?} are used");
    tools(&cli)?;
    cli.ok(&["topic", "delete", TOPIC])?;
    until("the router to go with its topic", LIMIT, || {
        let pipelines = cli.json(&["pipeline", "list", "--json"])?;
        Ok(pipelines.as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    broker.stop()?;
    let unknown = writers[1].fates.iter().filter(|fate| **fate == Fate::Unknown).count();
    Ok(format!(
        "{} records, {} rounds each, 5 kills, {unknown} transactions unknown",
        records.len(),
        writers[0].round
    ))
}

/// What people do with a router as if it were a pipeline of theirs.
fn tools(cli: &Cli) -> Result<()> {
    let router = "partitioner.flights";
    cli.refused(&["pipeline", "delete", router], 1, &["`pelton.partitioner`"])?;
    let removed = ["topic", "alter", TOPIC, "--reset", "pelton.partitioner"];
    cli.refused(&removed, 1, &["a topic keeps having a partitioner"])?;
    let lists = cli.ok(&["topic", "list"])?;
    ensure!(!lists.contains("intake"), "an intake is hidden: {lists}");
    Ok(())
}

/// Records that cannot be placed go by the policy; more than the intake may hold is refused until there is room.
pub(crate) fn limits(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    let settings = ["-c", "pelton.intake.max.bytes=20000", "--partitioner", "murmur2", "--partitions", "2"];
    cli.ok(&[&["topic", "create", TOPIC][..], &settings].concat())?;
    until("the router to run", LIMIT, || Ok((routing(&cli)?["state"] == "running").then_some(())))?;
    cli.ok(&["pipeline", "pause", "partitioner.flights"])?;
    let producer: BaseProducer = client(&broker.address)
        .set("message.timeout.ms", "60000")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "50")
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .create()?;
    let value = "v".repeat(1000);
    for round in 0..100 {
        let key = format!("k{round}");
        let record = BaseRecord::to(TOPIC).partition(round % 2).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    let refused = until("the intake to be full", LIMIT, || {
        producer.poll(Duration::from_millis(20));
        let bytes = routing(&cli)?["unrouted_bytes"].as_u64().context("a number")?;
        Ok((bytes >= 20_000).then_some(bytes))
    })?;
    ensure!(refused < 25_000, "{refused} bytes were taken, of 20,000");
    ensure!(producer.in_flight_count() > 50, "the rest waits at the client");
    ensure!(read_all(&broker.address, TOPIC)?.is_empty(), "nothing is routed while the router is paused");
    cli.ok(&["pipeline", "resume", "partitioner.flights"])?;
    until_state(&cli, "partitioner.flights", "running")?;
    producer.flush(LIMIT).context("flush")?;
    until_routed(&cli)?;
    let records = read_all(&broker.address, TOPIC)?;
    if records.len() != 100 {
        bail!("{} of 100 records", records.len());
    }
    broker.stop()?;
    Ok(format!("{refused} bytes were taken while nothing was routed"))
}

/// Pipelines are producers as others: what they write to a topic with a partitioner goes where that says.
pub(crate) fn by_pipelines(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    cli.ok(&["topic", "create", "in", "--partitions", "1"])?;
    cli.ok(&["topic", "create", TOPIC, "--partitions", "5", "--partitioner", "crc32"])?;
    let manifest = "name = \"copy\"\n\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\n\
                    [[sink]]\nfrom = \"in\"\ntopic = \"flights\"\npartitioner = \"murmur2\"\n";
    cli.ok(&["deploy", &lab.write("copy.toml", manifest)?])?;
    let producer: BaseProducer = client(&broker.address).set("message.timeout.ms", "60000").create()?;
    for n in 0..200 {
        let (key, value) = (format!("k{}", n % 40), n.to_string());
        let record = BaseRecord::to("in").partition(0).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")?;
    until_committed(&cli, "copy", &[200])?;
    until_routed(&cli)?;
    let placed = cli.json(&["topic", "partitioning", TOPIC, "--json"])?;
    ensure!(placed["explained_by"] == serde_json::json!(["crc32"]), "{placed}");
    ensure!(placed["topic_partitioner"] == "crc32", "{placed}");
    let said = cli.ok(&["topic", "partitioning", TOPIC])?;
    ensure!(said.contains("pelton.partitioner = crc32: the topic places its records itself"), "{said}");
    ensure!(placed["records"] == 200 && placed["scattered_keys"] == 0, "{placed}");
    let records = read_all(&broker.address, TOPIC)?;
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &records {
        let n: usize = record.value.parse()?;
        let before = last.insert(&record.key, n);
        ensure!(before.is_none_or(|before| before < n), "{}: {n} behind {before:?}", record.key);
    }
    broker.stop()?;
    Ok(format!("{} records of a pipeline", records.len()))
}

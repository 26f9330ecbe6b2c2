//! What an output topic does not take is a failure of the record, and goes by the policy.

use crate::lab::{Lab, Pipe, check_failure, offsets, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, produce, read_all};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{SystemTime, UNIX_EPOCH};

/// Larger than a topic takes by default.
const LARGE: usize = 1_900_000;

/// What a plugin makes, and a topic does not take, is the record's failure as well.
pub(crate) fn fail(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "long", 1, &[])?;
    create_topic(&broker.address, "short", 1, &[("max.message.bytes", "2000")])?;
    lab.deploy(&cli, Pipe::new("refused", "long", "short"))?;
    // Many small ones fit, though not all of them into one batch.
    let small: Vec<String> = (0..500).map(|n| format!("small {n}")).collect();
    let small: Vec<&str> = small.iter().map(String::as_str).collect();
    produce(&broker.address, "long", 0, &small)?;
    until_committed(&cli, "refused", &[500])?;
    produce(&broker.address, "long", 0, &["fits", &noise(3_000), "after"])?;
    let failed = until_state(&cli, "refused", "failed")?;
    check_failure(&failed, "output", ("long", 0, 501), &["short", "max.message.bytes"])?;
    ensure!(read_all(&broker.address, "short")?.len() == 501, "the records before it are not there");
    ensure!(offsets(&failed) == [501], "{failed}");
    // The cure is the one that the reason names.
    cli.ok(&["topic", "alter", "short", "--config", "max.message.bytes=10000"])?;
    cli.ok(&["pipeline", "resume", "refused"])?;
    until_committed(&cli, "refused", &[503])?;
    broker.stop()?;
    Ok("500 records in batches that fit, one that does not".to_owned())
}

/// Text as topics hold it, which a codec makes some ten times smaller.
fn dull(len: usize) -> String {
    let line =
        |n: usize| format!("{{\"flight\":{},\"carrier\":\"UA\",\"delay\":{}}},", n * 7919 % 10_007, n % 60);
    let mut text = String::with_capacity(len + 64);
    for n in 0.. {
        if text.len() >= len {
            break;
        }
        text.push_str(&line(n));
    }
    text
}

/// Text that no codec makes smaller than three quarters.
fn noise(len: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        LETTERS[(state >> 58) as usize] as char
    };
    (0..len).map(|_| next()).collect()
}

/// A record as a client sends it that compresses.
type Sent<'a> = (Option<&'a str>, &'a str, i64);

/// Sends records, each in a batch of its own.
fn send(bootstrap: &str, topic: &str, records: &[Sent<'_>]) -> Result<()> {
    let mut config = client(bootstrap);
    config.set("compression.type", "zstd").set("message.max.bytes", "4000000").set("batch.num.messages", "1");
    let producer: BaseProducer = config.set("message.timeout.ms", "20000").create()?;
    for (key, value, timestamp) in records {
        let mut record = BaseRecord::to(topic).partition(0).payload(value.as_bytes()).timestamp(*timestamp);
        record.key = *key;
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")?;
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "watermarks").create()?;
    let (_, end) = consumer.fetch_watermarks(topic, 0, LIMIT)?;
    ensure!(end == records.len() as i64, "{topic} has {end} records of {}", records.len());
    Ok(())
}

fn now_ms() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64)
}

fn header<'a>(record: &'a Read, name: &str) -> Result<&'a str> {
    let found = record.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).with_context(|| format!("no {name} in {:?}", record.headers))
}

/// A pipeline without a plugin.
fn copy(name: &str, on_error: &str) -> String {
    format!(
        "name = \"{name}\"\n[[source]]\nid = \"in\"\ntopic = \"{name}\"\n\
         [[sink]]\nfrom = \"in\"\ntopic = \"{name}-out\"\non_error = {on_error}\n"
    )
}

pub(crate) fn policies(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    let address = broker.address.as_str();
    let (now, dull, noise) = (now_ms()?, dull(LARGE), noise(LARGE));
    let any = [("max.message.bytes", "4000000"), ("message.timestamp.after.max.ms", "9223372036854775807")];
    for name in ["skip", "letters"] {
        create_topic(address, name, 1, &any)?;
    }
    create_topic(address, "letters-out", 1, &[("cleanup.policy", "compact")])?;
    for (name, on_error) in
        [("skip", "{ policy = \"skip\" }"), ("letters", "{ policy = \"dead-letter\", topic = \"dead\" }")]
    {
        cli.ok(&["deploy", &lab.write(&format!("{name}.toml"), copy(name, on_error))?])?;
    }

    // What came small because it was compressed is stored as small; what cannot be is skipped.
    let values = ["first", dull.as_str(), noise.as_str(), "last"];
    let values: Vec<_> = values.into_iter().map(|value| (None, value, now)).collect();
    send(address, "skip", &values)?;
    let seen = until_committed(&cli, "skip", &[4])?;
    ensure!(seen["state"] == "running" && seen["totals"]["skipped"] == 1, "{seen}");
    // Of several partitions.
    let mut out: Vec<String> =
        read_all(address, "skip-out")?.into_iter().map(|record| record.value).collect();
    out.sort_by_key(String::len);
    ensure!(out == ["last", "first", dull.as_str()], "{:?}", out.iter().map(String::len).collect::<Vec<_>>());
    let said = cli.ok(&["pipeline", "logs", "skip"])?;
    ensure!(said.contains("offset 2") && said.contains("max.message.bytes"), "{said}");

    // No key for a compacted topic, a time that the topic refuses, and one that no topic takes.
    let (late, key) = (now + 10 * 24 * 3_600_000, Some("k"));
    let records = [
        (key, "first", now),
        (None, "no key", now),
        (key, "late", late),
        (key, dull.as_str(), now),
        (key, noise.as_str(), now),
        (key, "last", now),
    ];
    send(address, "letters", &records)?;
    let seen = until_committed(&cli, "letters", &[6])?;
    let totals = &seen["totals"];
    ensure!(
        seen["state"] == "running" && totals["dead_lettered"] == 2 && totals["undeliverable"] == 1,
        "{seen}"
    );
    let out: Vec<String> = read_all(address, "letters-out")?.into_iter().map(|record| record.value).collect();
    ensure!(out == ["first", dull.as_str(), "last"], "{:?}", out.iter().map(String::len).collect::<Vec<_>>());
    let mut dead = read_all(address, "dead")?;
    dead.sort_by_key(|letter| header(letter, "pelton.error.offset").unwrap_or_default().to_owned());
    let [no_key, late_one] = dead.as_slice() else { anyhow::bail!("{} dead letters", dead.len()) };
    ensure!(no_key.value == "no key" && header(no_key, "pelton.error.offset")? == "1", "{no_key:?}");
    ensure!(header(no_key, "pelton.error.kind")? == "output", "{no_key:?}");
    ensure!(header(no_key, "pelton.error.reason")?.contains("compacted"), "{no_key:?}");
    ensure!(late_one.value == "late" && late_one.key == "k", "{late_one:?}");
    ensure!(header(late_one, "pelton.error.timestamp")? == late.to_string(), "{late_one:?}");
    let said = cli.ok(&["pipeline", "logs", "letters"])?;
    ensure!(
        said.contains("the dead-letter topic dead does not take it") && said.contains("offset 4"),
        "{said}"
    );
    broker.stop()?;
    Ok("skip and dead-letter, by size, by time, by key".to_owned())
}

//! Which partition records go to by `pelton produce --partitioner`, beside librdkafka's own partitioners, and what
//! `pelton topic partitioning` says of it.

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::Start;
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, read_all};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Keys of a topic; enough for a rule to be told from chance.
const KEYS: usize = 400;
const PARTITIONS: u32 = 12;
const VALUE_BYTES: usize = 280;
/// So many records of that fill a uniform partition: 16 KiB.
const UNIFORM: usize = 57;

pub(crate) fn partitioners(binary: &Path, dir: &Path) -> Result<String> {
    let data = dir.join("data");
    let mut start = Start::new(binary, &data, &dir.join("broker.log")).with_http();
    let broker = start.start()?;
    let cli = Cli::new(binary, &broker, &data, dir)?;
    by_key(&cli)?;
    without_keys(&cli)?;
    mixed(&cli)?;
    grown(&cli)?;
    little(&cli)?;
    broker.stop()?;
    Ok(format!("7 partitioners, {KEYS} keys each"))
}

fn keys(of: std::ops::Range<usize>) -> Vec<String> {
    of.map(|i| format!("flight {i}")).collect()
}

/// The partition of each key, as librdkafka reads it.
fn places(cli: &Cli, topic: &str) -> Result<BTreeMap<String, BTreeSet<i32>>> {
    let mut places = BTreeMap::<String, BTreeSet<i32>>::new();
    for read in read_all(&cli.bootstrap, topic)? {
        places.entry(read.key).or_default().insert(read.partition);
    }
    Ok(places)
}

/// Sends keys with librdkafka.
fn send(cli: &Cli, topic: &str, keys: &[String], settings: &[(&str, &str)]) -> Result<()> {
    let mut config = client(&cli.bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let producer: BaseProducer = config.create()?;
    for key in keys {
        producer.send(BaseRecord::<str, str>::to(topic).key(key).payload("v")).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

/// Sends lines with `pelton produce`.
fn produce(cli: &Cli, topic: &str, args: &[&str], lines: &[String]) -> Result<()> {
    let mut command = Command::new(&cli.binary);
    command.args(["produce", topic, "--bootstrap-server", &cli.bootstrap]).args(args);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "`pelton produce {topic} {args:?}` ended with {status}");
    Ok(())
}

fn lines(keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{key}={}", "v".repeat(VALUE_BYTES))).collect()
}

fn asked(cli: &Cli, topic: &str) -> Result<Value> {
    cli.json(&["topic", "partitioning", topic, "--json"])
}

fn says(cli: &Cli, topic: &str, texts: &[&str]) -> Result<()> {
    let said = cli.ok(&["topic", "partitioning", topic])?;
    for text in texts {
        ensure!(said.contains(text), "nothing of `{text}` of {topic}:\n{said}");
    }
    Ok(())
}

/// Every partitioner of keys, beside librdkafka's.
fn by_key(cli: &Cli) -> Result<()> {
    let keys = keys(0..KEYS);
    for (name, theirs) in [
        ("murmur2", Some("murmur2_random")),
        ("crc32", Some("consistent_random")),
        ("fnv1a", Some("fnv1a_random")),
        ("consistent", None),
    ] {
        create_topic(&cli.bootstrap, name, PARTITIONS, &[])?;
        produce(cli, name, &["--key-separator", "=", "--partitioner", name], &lines(&keys))?;
        let places = places(cli, name)?;
        ensure!(places.len() == KEYS && places.values().all(|at| at.len() == 1), "{name}: {places:?}");
        if let Some(setting) = theirs {
            create_topic(&cli.bootstrap, setting, PARTITIONS, &[])?;
            send(cli, setting, &keys, &[("partitioner", setting)])?;
            ensure!(self::places(cli, setting)? == places, "{name} is not {setting}");
        }
        for topic in [Some(name), theirs].into_iter().flatten() {
            let found = asked(cli, topic)?;
            let whole = found["verdict"] == "explained" && found["sure"] == true;
            ensure!(whole && found["explained_by"] == json!([name]), "{topic}: {found}");
            ensure!(found["partitioner"] == name && found["keys"] == KEYS, "{topic}: {found}");
        }
        says(cli, name, &["PARTITION", &format!("In a manifest: partitioner = \"{name}\"")])?;
    }
    Ok(())
}

/// How many records each partition has.
fn counts(cli: &Cli, topic: &str) -> Result<Vec<usize>> {
    let mut counts = vec![0; PARTITIONS as usize];
    for read in read_all(&cli.bootstrap, topic)? {
        counts[read.partition as usize] += 1;
    }
    Ok(counts)
}

fn without_keys(cli: &Cli) -> Result<()> {
    let keys = keys(0..KEYS);
    for name in ["uniform", "sticky", "round-robin"] {
        create_topic(&cli.bootstrap, name, PARTITIONS, &[])?;
        produce(cli, name, &["--key-separator", "=", "--partitioner", name], &lines(&keys))?;
        let counts = counts(cli, name)?;
        let used: Vec<usize> = counts.iter().copied().filter(|count| *count > 0).collect();
        ensure!(used.iter().sum::<usize>() == KEYS, "{name}: {counts:?}");
        let as_said = match name {
            "uniform" => used.len() == KEYS.div_ceil(UNIFORM) && used.iter().all(|count| *count <= UNIFORM),
            // Steps of 64 KiB, or less where a read of the pipe brings less.
            "sticky" => used.len() >= 2,
            _ => used.len() == PARTITIONS as usize && used.iter().all(|count| count.abs_diff(KEYS / 12) <= 1),
        };
        ensure!(as_said, "{name}: {counts:?}");
    }
    // Records without a key go by the same rule, whatever is said of keys.
    create_topic(&cli.bootstrap, "keyless", PARTITIONS, &[])?;
    produce(cli, "keyless", &["--partitioner", "crc32"], &lines(&keys))?;
    let counts = counts(cli, "keyless")?;
    ensure!(counts.iter().filter(|count| **count > 0).count() == KEYS.div_ceil(UNIFORM), "{counts:?}");
    let found = asked(cli, "keyless")?;
    ensure!(found["verdict"] == "keyless" && found["keyless"] == KEYS, "{found}");
    ensure!(found["partitioner"] == Value::Null, "{found}");
    says(cli, "keyless", &["No record has a key"])
}

/// Two producers of one topic that nobody has told of each other.
fn mixed(cli: &Cli) -> Result<()> {
    create_topic(&cli.bootstrap, "mixed", PARTITIONS, &[])?;
    produce(cli, "mixed", &["--key-separator", "=", "--partitioner", "murmur2"], &lines(&keys(0..KEYS)))?;
    send(cli, "mixed", &keys(KEYS / 2..KEYS), &[])?;
    let scattered = places(cli, "mixed")?.values().filter(|at| at.len() > 1).count();
    let found = asked(cli, "mixed")?;
    let names: Vec<&Value> =
        found["parts"].as_array().into_iter().flatten().map(|part| &part["partitioner"]).collect();
    ensure!(found["verdict"] == "parts" && names == ["murmur2", "crc32"], "{found}");
    ensure!(scattered > KEYS / 4 && found["scattered_keys"] == scattered, "{scattered}: {found}");
    ensure!(found["unexplained_keys"] == 0 && found["partitioner"] == "unknown", "{found}");
    says(cli, "mixed", &["murmur2 (", "crc32 (", "place keys differently", "are in several partitions"])
}

fn grown(cli: &Cli) -> Result<()> {
    create_topic(&cli.bootstrap, "grown", 4, &[])?;
    let by = ["--key-separator", "=", "--partitioner", "consistent"];
    produce(cli, "grown", &by, &lines(&keys(0..KEYS)))?;
    let before = places(cli, "grown")?;
    cli.ok(&["topic", "alter", "grown", "--partitions", "5"])?;
    says(cli, "grown", &["consistent (", "while the topic had 4 partitions", "has grown"])?;
    let found = asked(cli, "grown")?;
    ensure!(found["parts"][0]["partitions"] == 4 && found["partitioner"] == "unknown", "{found}");
    produce(cli, "grown", &by, &lines(&keys(0..KEYS)))?;
    // A key has moved to the new partition, or stays.
    let moved = places(cli, "grown")?;
    let moved = moved.iter().filter(|(key, at)| before.get(*key) != Some(at)).map(|(_, at)| at);
    let moved: Vec<_> = moved.collect();
    ensure!(moved.iter().all(|at| at.contains(&4) && at.len() == 2), "{moved:?}");
    // A fifth of them: six standard deviations.
    ensure!(moved.len().abs_diff(KEYS / 5) < 48, "{} of {KEYS}", moved.len());
    Ok(())
}

/// Topics of which little or nothing can be said, and what is refused.
fn little(cli: &Cli) -> Result<()> {
    create_topic(&cli.bootstrap, "empty", 3, &[])?;
    ensure!(asked(cli, "empty")?["verdict"] == "empty");
    says(cli, "empty", &["topic empty: 0 records read", "without records"])?;
    create_topic(&cli.bootstrap, "single", 1, &[])?;
    send(cli, "single", &keys(0..3), &[])?;
    ensure!(asked(cli, "single")?["verdict"] == "one-partition");
    says(cli, "single", &["every partitioner puts every key into the one partition"])?;
    create_topic(&cli.bootstrap, "few", PARTITIONS, &[])?;
    send(cli, "few", &keys(0..3), &[])?;
    let found = asked(cli, "few")?;
    ensure!(found["verdict"] == "explained" && found["sure"] == false, "{found}");
    ensure!(found["partitioner"] == Value::Null, "{found}");
    says(cli, "few", &["crc32 (", "3 different keys are too few to be sure"])?;
    // A bounded sample is of the oldest and the newest records.
    let found = cli.json(&["topic", "partitioning", "murmur2", "--records", "4", "--json"])?;
    ensure!(found["records"] == 4 * PARTITIONS, "{found}");
    cli.refused(&["topic", "partitioning", "nothing"], 1, &["topic `nothing` does not exist"])?;
    cli.refused(&["produce", "few", "--partitioner", "murmur3"], 2, &["did you mean `murmur2`?"])?;
    cli.refused(&["produce", "few", "--partitioner", "by-region"], 2, &["`consistent`", "`round-robin`"])?;
    let both = ["produce", "few", "--partitioner", "crc32", "-X", "partitioner=random"];
    cli.refused(&both, 2, &["one of them places the records"])
}

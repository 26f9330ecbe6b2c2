//! What a pipeline keeps, through kills: every record is counted once, whatever was on its way.

use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, committed, read_all, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeMap;
use std::time::Duration;

const INPUT: &str = "events";
const OUTPUT: &str = "counts";
const PARTITIONS: u32 = 3;
const MANIFEST: &str = "name = \"counts\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"per-partition\"\nfrom = \"in\"\naggregate = { n = \"count\", sum = \"sum:raw\", last = \"max:raw\" }\n\
    [[sink]]\nfrom = \"per-partition\"\ntopic = \"counts\"\n";

/// The results of one key come one after the other, each with one record more.
pub(crate) fn counted_once(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, mut cli) = lab.start()?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[])?;
    let file = lab.write("counts.toml", MANIFEST)?;
    let said = cli.ok(&["deploy", &file])?;
    ensure!(said.contains("store per-partition: new"), "{said}");
    let mut sent = [0_u64; PARTITIONS as usize];
    for kill in 0..kills {
        let records: Vec<(usize, u64)> = (0..rng.random_range(1..20))
            .flat_map(|_| {
                let partition = rng.random_range(0..PARTITIONS) as usize;
                let first = sent[partition];
                sent[partition] += rng.random_range(1..40);
                (first..sent[partition]).map(move |value| (partition, value))
            })
            .collect();
        produce(&broker.address, &records)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        broker.kill()?;
        broker = start.start().with_context(|| format!("start after kill {kill}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
        if rng.random_ratio(1, 4) {
            let said = cli.ok(&["deploy", &file])?;
            ensure!(said.contains("store per-partition: kept"), "{said}");
        }
        check(&read_all(&broker.address, OUTPUT)?).with_context(|| format!("kill {kill}, seed {seed}"))?;
    }
    let input = read_all(&broker.address, INPUT)?;
    let mut ends = vec![0; PARTITIONS as usize];
    input.iter().for_each(|record| ends[record.partition as usize] = record.offset + 1);
    until("everything is counted", LIMIT, || {
        Ok((committed(&broker.address, "pelton.counts", INPUT, PARTITIONS)? == ends).then_some(()))
    })
    .with_context(|| format!("seed {seed}; {}", start.last_words()))?;
    let counts = check(&read_all(&broker.address, OUTPUT)?).with_context(|| format!("seed {seed}"))?;
    let mut expect: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for record in &input {
        let (n, sum) = expect.entry(record.key.clone()).or_default();
        (*n, *sum) = (*n + 1, *sum + record.value.parse::<u64>()?);
    }
    ensure!(counts == expect, "counted {counts:?}, and there are {expect:?}, seed {seed}");
    broker.stop()?;
    Ok(format!("{kills} kills, {} records counted, seed {seed}", input.len()))
}

const GROUPS: &str = "name = \"groups\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"per-group\"\nfrom = \"in\"\ngroup_by = \"raw\"\naggregate = \"count\"\ntable = \"groups\"\n\
    [[sink]]\nfrom = \"per-group\"\ntopic = \"groups\"\n";
const GROUP_COUNT: u64 = 7;

/// Records are counted by their values, which are in every partition: through a topic of the pipeline's own.
pub(crate) fn regrouped_once(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, mut cli) = lab.start()?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[])?;
    let file = lab.write("groups.toml", GROUPS)?;
    let said = cli.ok(&["deploy", &file])?;
    ensure!(said.contains("through topic __pelton_groups-per-group-repartition, 3 partitions"), "{said}");
    let mut expect: BTreeMap<String, u64> = BTreeMap::new();
    for kill in 0..kills {
        let records: Vec<(usize, u64)> = (0..rng.random_range(1..400))
            .map(|_| (rng.random_range(0..PARTITIONS) as usize, rng.random_range(0..GROUP_COUNT)))
            .collect();
        records.iter().for_each(|(_, group)| *expect.entry(group.to_string()).or_default() += 1);
        produce(&broker.address, &records)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        broker.kill()?;
        broker = start.start().with_context(|| format!("start after kill {kill}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
        groups(&read_all(&broker.address, "groups")?).with_context(|| format!("kill {kill}, seed {seed}"))?;
    }
    until("everything is counted", LIMIT, || {
        Ok((groups(&read_all(&broker.address, "groups")?)? == expect).then_some(()))
    })
    .with_context(|| format!("seed {seed}; {}", start.last_words()))?;
    let kept = cli.ok(&["table", "scan", "groups"])?;
    let expect: Vec<String> = expect.iter().map(|(group, count)| format!("{group}\t{count}")).collect();
    ensure!(kept.lines().eq(expect.iter()), "{kept} and not {expect:?}, seed {seed}");
    cli.ok(&["pipeline", "delete", "groups", "--own-topics"])?;
    ensure!(!lab.data().join("state/groups").exists(), "a deleted pipeline leaves its stores");
    let topics = cli.ok(&["topic", "list", "--all"])?;
    ensure!(!topics.contains("__pelton_groups-"), "{topics}");
    broker.stop()?;
    Ok(format!("{kills} kills, {} groups, seed {seed}", expect.len()))
}

/// Of each group the last count. Each result has one record more than the one before.
fn groups(output: &[Read]) -> Result<BTreeMap<String, u64>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for read in output {
        let (n, before) = (read.value.parse::<u64>()?, counts.get(&read.key).copied().unwrap_or(0));
        ensure!(n == before + 1, "{read:?} comes behind a count of {before}");
        counts.insert(read.key.clone(), n);
    }
    Ok(counts)
}

/// Appends records to partitions, whose numbers are their keys, and waits until they are acknowledged.
fn produce(bootstrap: &str, records: &[(usize, u64)]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("enable.idempotence", "true").create()?;
    for (partition, value) in records {
        let (key, value) = (format!("partition {partition}"), value.to_string());
        let record = BaseRecord::to(INPUT).partition(*partition as i32).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

/// Of each key the last count and sum. Each result has one record more than the one before.
fn check(output: &[Read]) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for read in output {
        let result: serde_json::Value = serde_json::from_str(&read.value)?;
        let number = |name: &str| result[name].as_u64().with_context(|| format!("{read:?} has no {name}"));
        let (n, before) = (number("n")?, counts.get(&read.key).map_or(0, |(n, _)| *n));
        ensure!(n == before + 1, "{read:?} comes behind a count of {before}");
        counts.insert(read.key.clone(), (n, number("sum")?));
    }
    Ok(counts)
}

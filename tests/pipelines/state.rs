//! What a pipeline keeps, through kills: every record is counted once, whatever was on its way.

use crate::lab::{Lab, path};
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, committed, read_all, until};
use pelton_tests::{guest, settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const INPUT: &str = "events";
const OUTPUT: &str = "counts";
const PARTITIONS: u32 = 3;
/// Where it keeps what it keeps, and how many threads share the work, changes from one revision to the next.
fn manifest(rng: &mut StdRng) -> String {
    let (threads, store) = (rng.random_range(1..5), ["rocksdb", "memory"][rng.random_range(0..2)]);
    format!("name = \"counts\"\nthreads = {threads}\nstore = \"{store}\"\n{WORK}")
}

const WORK: &str = "commit = { interval_ms = 20 }\n\
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
    let file = lab.write("counts.toml", manifest(&mut rng))?;
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
            lab.write("counts.toml", manifest(&mut rng))?;
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
    cli.ok(&["pipeline", "pause", "counts"])?;
    let reset = ["group", "reset-offsets", "pelton.counts", "--topic", INPUT, "--to", "earliest"];
    let belongs = ["keeps state", "pelton pipeline delete counts --own-topics"];
    cli.refused(&reset, 1, &belongs)?;
    cli.refused(&["group", "delete", "pelton.counts"], 1, &belongs)?;
    cli.ok(&["pipeline", "delete", "counts"])?;
    cli.refused(&reset, 1, &belongs)?;
    cli.ok(&["pipeline", "delete", "counts", "--own-topics"])?;
    broker.stop()?;
    Ok(format!("{kills} kills, {} records counted, seed {seed}", input.len()))
}

const KEPT: &str = "name = \"kept\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"by-key\"\nfrom = \"in\"\nplugin = \"keeper\"\n\
    [[sink]]\nfrom = \"by-key\"\ntopic = \"kept\"\n";

/// A plugin counts the records of each key in its own store: what it keeps and what it emits are one, through kills.
pub(crate) fn kept_once(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let keeper = guest::build(&lab.binary, "keeper", &lab.build_dir, &lab.dir)?;
    let (mut start, mut broker, mut cli) = lab.start()?;
    cli.ok(&["plugin", "push", path(&keeper)])?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[])?;
    let file = lab.write("kept.toml", KEPT)?;
    let said = cli.ok(&["deploy", &file])?;
    ensure!(said.contains("store by-key-seen: new") && said.contains("store by-key-recent: new"), "{said}");
    let mut expect: BTreeMap<String, u64> = BTreeMap::new();
    for kill in 0..kills {
        let records: Vec<(usize, u64)> =
            (0..rng.random_range(1..400)).map(|n| (rng.random_range(0..PARTITIONS) as usize, n)).collect();
        for (partition, _) in &records {
            *expect.entry(format!("partition {partition}")).or_default() += 1;
        }
        produce(&broker.address, &records)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..60)));
        broker.kill()?;
        broker = start.start().with_context(|| format!("start after kill {kill}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
        groups(&read_all(&broker.address, "kept")?).with_context(|| format!("kill {kill}, seed {seed}"))?;
    }
    until("everything is counted", LIMIT, || {
        Ok((groups(&read_all(&broker.address, "kept")?)? == expect).then_some(()))
    })
    .with_context(|| format!("seed {seed}; {}", start.last_words()))?;
    // After the last kill, stores may still be on their way when all results are there.
    let scan = || Ok(Some(cli.run(&["table", "scan", "kept/by-key-seen"])?).filter(|ended| ended.code == 0));
    let kept = until("what is kept is there", LIMIT, scan)?.stdout;
    let lines: Vec<String> = expect.iter().map(|(key, count)| format!("{key}\t{count}")).collect();
    ensure!(kept.lines().eq(lines.iter()), "{kept} and not {lines:?}, seed {seed}");
    let one = cli.ok(&["table", "get", "kept/by-key-seen", "partition 0"])?;
    ensure!(one.trim() == expect["partition 0"].to_string(), "{one} and not {expect:?}");
    let said = cli.ok(&["deploy", &file])?;
    ensure!(said.contains("store by-key-seen: kept"), "{said}");
    let refused = |change: &str, code: i32, named: &[&str]| {
        let changed = KEPT.replace("plugin = \"keeper\"", &format!("plugin = \"keeper\"\n{change}"));
        cli.refused(&["deploy", &lab.write("changed.toml", changed)?], code, named)
    };
    refused("stores = { sene = {} }", 1, &["stores.sene is not a store of the plugin", "`seen`"])?;
    refused("stores = { recent = { kind = \"key-value\" } }", 1, &["works with one of the kind \"window\""])?;
    broker.stop()?;
    Ok(format!("{kills} kills, {} keys, seed {seed}", expect.len()))
}

const QUIET: &str = "name = \"quiet\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"quiet\"\nfrom = \"in\"\nplugin = \"silence\"\nconfig = { after_ms = 1500, clock = \"machine\" }\n\
    [[sink]]\nfrom = \"quiet\"\ntopic = \"quiet\"\n";

/// Timers on the machine's clock are kept through a kill, and wake a pipeline that has nothing to read: each key is told once.
pub(crate) fn timers_fire(lab: &Lab) -> Result<String> {
    let (mut start, mut broker, cli) = lab.start()?;
    let silence = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/silence");
    cli.ok(&["plugin", "push", path(&silence)])?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[])?;
    let said = cli.ok(&["deploy", &lab.write("quiet.toml", QUIET)?])?;
    ensure!(said.contains("store quiet-timers: new"), "{said}");
    let all = |broker: &Broker| -> Result<Vec<String>> {
        let mut keys: Vec<String> =
            read_all(&broker.address, "quiet")?.into_iter().map(|read| read.key).collect();
        keys.sort();
        Ok(keys)
    };
    produce(&broker.address, &[(0, 1), (1, 1), (0, 2)])?;
    until("they are read", LIMIT, || {
        Ok((committed(&broker.address, "pelton.quiet", INPUT, PARTITIONS)?[..2] == [2, 1]).then_some(()))
    })?;
    broker.kill()?;
    broker = start.start()?;
    let expect = ["partition 0", "partition 1"].map(str::to_owned);
    until("both are told", LIMIT, || Ok((all(&broker)? == expect).then_some(())))
        .with_context(|| start.last_words())?;
    broker.kill()?;
    broker = start.start()?;
    produce(&broker.address, &[(2, 1)])?;
    let expect = ["partition 0", "partition 1", "partition 2"].map(str::to_owned);
    until("the third is told, and none again", LIMIT, || {
        let told = all(&broker)?;
        ensure!(told.len() <= expect.len(), "{told:?}");
        Ok((told == expect).then_some(()))
    })
    .with_context(|| start.last_words())?;
    broker.stop()?;
    Ok("2 kills, 3 timers".to_owned())
}

const GROUPS: &str = "name = \"groups\"\nthreads = 3\ncommit = { interval_ms = 20 }\n\
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
    // After the last kill, stores may still be on their way when all results are there.
    let scan = || Ok(Some(cli.run(&["table", "scan", "groups"])?).filter(|ended| ended.code == 0));
    let kept = until("the table is there", LIMIT, scan)?.stdout;
    let expect: Vec<String> = expect.iter().map(|(group, count)| format!("{group}\t{count}")).collect();
    ensure!(kept.lines().eq(expect.iter()), "{kept} and not {expect:?}, seed {seed}");
    cli.ok(&["pipeline", "delete", "groups", "--own-topics"])?;
    ensure!(!lab.data().join("state/groups").exists(), "a deleted pipeline leaves its stores");
    let topics = cli.ok(&["topic", "list", "--all"])?;
    ensure!(!topics.contains("__pelton_groups-"), "{topics}");
    broker.stop()?;
    Ok(format!("{kills} kills, {} groups, seed {seed}", expect.len()))
}

const TURNOVER: &str = "name = \"turnover\"\ncommit = { interval_ms = 20 }\n\
    [[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"per-key\"\nfrom = \"in\"\naggregate = { n = \"count\", sum = \"sum:raw\" }\ntable = \"turnover\"\n\
    [[sink]]\nfrom = \"per-key\"\ntopic = \"turnover\"\n";
const CHANGELOG: &str = "__pelton_turnover-per-key-changelog";

/// A changelog is compacted while the pipeline writes to it. Whoever has lost the stores has them again from what is left.
pub(crate) fn restored_from_what_is_left(lab: &Lab) -> Result<String> {
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let often = |start: Start| {
        let start = start.set("log.cleaner.backoff.ms", 50).set("pelton.checkpoint.interval.ms", 50);
        start.set("log.roll.ms", 50).set("log.cleaner.min.cleanable.ratio", 0.001)
    };
    let (mut start, mut broker, mut cli) = lab.start_as(often)?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[])?;
    cli.ok(&["deploy", &lab.write("turnover.toml", TURNOVER)?])?;
    let mut expect: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut left = 0;
    for restore in 0..3 {
        // Until less than half of what was written is left.
        until("the changelog is compacted", LIMIT * 2, || {
            let records: Vec<(usize, u64)> = (0..200)
                .map(|_| (rng.random_range(0..PARTITIONS) as usize, rng.random_range(0..1_000)))
                .collect();
            for (partition, value) in &records {
                let (n, sum) = expect.entry(format!("partition {partition}")).or_default();
                (*n, *sum) = (*n + 1, *sum + value);
            }
            produce(&broker.address, &records)?;
            let kept = read_all(&broker.address, CHANGELOG)?;
            left = kept.len();
            let ends: BTreeMap<i32, i64> = kept.iter().map(|read| (read.partition, read.offset)).collect();
            Ok((ends.values().sum::<i64>() > 2 * left as i64 + 30).then_some(()))
        })
        .with_context(|| format!("{left} records are left, seed {seed}"))?;
        if restore == 1 {
            broker.kill()?;
        } else {
            broker.stop()?;
        }
        std::fs::remove_dir_all(lab.data().join("state/turnover"))?;
        broker = start.start().with_context(|| format!("start {restore}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
        let wanted: Vec<String> =
            expect.iter().map(|(key, (n, sum))| format!("{key}\t{{\"n\":{n},\"sum\":{sum}}}")).collect();
        let mut last = String::new();
        until("everything is counted", LIMIT, || {
            // Refused while it restores.
            last = cli.run(&["table", "scan", "turnover"])?.stdout;
            Ok(last.lines().eq(wanted.iter()).then_some(()))
        })
        .with_context(|| format!("{last} and not {wanted:?}, seed {seed}; {}", start.last_words()))?;
        check(&read_all(&broker.address, "turnover")?)
            .with_context(|| format!("restore {restore}, seed {seed}"))?;
    }
    broker.stop()?;
    Ok(format!("3 restores, the last from {left} records, seed {seed}"))
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

//! A plugin says which partition of a sink's topic each record goes to.

use crate::lab::{Lab, path, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::http::request;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, read_all};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const REGIONS: [&str; 3] = ["eu", "us", "asia"];
const KEYS: usize = 20;
const ROUNDS: usize = 50;

/// Keys of each region, round by round; values rise.
fn send(bootstrap: &str, from: usize) -> Result<usize> {
    let producer: BaseProducer = client(bootstrap).set("message.timeout.ms", "20000").create()?;
    let mut sent = 0;
    for round in from..from + ROUNDS {
        for (region, key) in REGIONS.iter().flat_map(|region| (0..KEYS).map(move |key| (region, key))) {
            let (key, value) = (format!("{region}-{key}"), round.to_string());
            let record = BaseRecord::to("in").partition(0).key(key.as_str()).payload(value.as_str());
            producer.send(record).map_err(|(error, _)| error)?;
            sent += 1;
        }
    }
    producer.flush(LIMIT).context("flush")?;
    Ok(sent)
}

/// Each region is in its share of the partitions, and what is new of a key is behind what was there.
fn check(records: &[Read], share: impl Fn(&str) -> Vec<i32>) -> Result<()> {
    let mut last: BTreeMap<&str, (i64, i32)> = BTreeMap::new();
    for record in records {
        let region = record.key.split('-').next().unwrap_or_default();
        let Read { partition, .. } = record;
        ensure!(share(region).contains(partition), "{} is in partition {partition}", record.key);
        let round: i64 = record.value.parse()?;
        let before = last.insert(&record.key, (round, *partition));
        ensure!(
            before.is_none_or(|(before, at)| at != *partition || before < round),
            "{}: {round} behind {before:?}",
            record.key
        );
    }
    Ok(())
}

fn manifest(plugin: &str, regions: &str) -> String {
    format!(
        "name = \"placing\"\n\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\n\
         [[sink]]\nfrom = \"in\"\ntopic = \"out\"\npartitioner = \"{plugin}\"\nconfig = {{ regions = \"{regions}\" }}\n"
    )
}

fn region_plugin() -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/region")).to_owned()
}

fn deploy(lab: &Lab, cli: &Cli, regions: &str) -> Result<String> {
    cli.ok(&["deploy", &lab.write("placing.toml", manifest(&region_plugin(), regions))?])
}

/// What the same plugin makes of the same keys over HTTP is where a sink of a pipeline has put them.
fn over_http(bootstrap: &str, cli: &Cli, sunk: &[Read]) -> Result<()> {
    create_topic(bootstrap, "posted", 6, &[])?;
    let at: BTreeMap<&str, i32> = sunk.iter().map(|record| (record.key.as_str(), record.partition)).collect();
    let records: Vec<Value> = at.keys().map(|key| json!({ "key": key, "value": "0" })).collect();
    let token = std::fs::read_to_string(cli.data_dir.join("http.token"))?;
    let post = |query: &str| {
        let headers = [
            format!("Host: {}", cli.http),
            format!("Authorization: Bearer {}", token.trim()),
            "Content-Type: application/json".to_owned(),
        ];
        let line = format!("POST /v1/topics/posted/records?{query}");
        request(&cli.http, &line, &headers, Some(json!({ "records": records }).to_string().as_bytes()))
    };
    let refused = |query: &str, status: u16, words: &str| {
        let answer = post(query)?;
        ensure!(answer.status == status && answer.body.contains(words), "{query}: {}", answer.body);
        Ok(())
    };
    refused("partitioner=nowhere", 400, "no plugin that was pushed")?;
    refused("partitioner=murmur2&partitioner_config=%7B%7D", 400, "a rule has no settings")?;
    refused(
        "partitioner=region&partitioner_config=%7B%20regions%20%3D%20%22eu,,us%22%20%7D",
        422,
        "a name is empty",
    )?;
    refused("partitioner=region&partitioner_config=%7B%7D%0Aname%20%3D%20%7B%7D", 422, "must be one table")?;
    ensure!(read_all(bootstrap, "posted")?.is_empty(), "something of what was refused is written");
    let answer = post("partitioner=region&partitioner_config=%7B%20regions%20%3D%20%22eu,us%22%20%7D")?;
    ensure!(answer.status == 200, "{}", answer.body);
    let posted = read_all(bootstrap, "posted")?;
    ensure!(posted.len() == at.len(), "{} of {} records", posted.len(), at.len());
    for record in posted {
        let expect = at.get(record.key.as_str());
        ensure!(
            expect == Some(&record.partition),
            "{} is in {}, not {expect:?}",
            record.key,
            record.partition
        );
    }
    Ok(())
}

/// Each key stays where the plugin puts it, through restarts, and moves as a whole when the topic grows.
pub(crate) fn by_plugin(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start()?;
    create_topic(&broker.address, "in", 1, &[])?;
    create_topic(&broker.address, "out", 3, &[])?;
    let unknown = lab.write("unknown.toml", manifest("nowhere", "eu"))?;
    cli.refused(&["deploy", &unknown], 1, &["sink out", "`nowhere`, which was never pushed"])?;
    let odd = lab.write("odd.toml", manifest(&region_plugin(), "eu,,us"))?;
    cli.refused(&["deploy", &odd], 1, &["sink out", "a name is empty"])?;
    deploy(lab, &cli, "eu,us")?;
    let sent = send(&broker.address, 0)?;
    until_committed(&cli, "placing", &[sent as i64])?;
    let share = |region: &str| match region {
        "eu" => vec![0],
        "us" => vec![1],
        _ => vec![2],
    };
    check(&read_all(&broker.address, "out")?, share)?;
    // Killed in the midst of the next records.
    let more = send(&broker.address, ROUNDS)?;
    broker.kill()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    until_committed(&cli, "placing", &[(sent + more) as i64])?;
    let all = read_all(&broker.address, "out")?;
    ensure!(all.len() == sent + more, "{} of {} records", all.len(), sent + more);
    check(&all, share)?;
    cli.ok(&["topic", "alter", "out", "--partitions", "6"])?;
    until_state(&cli, "placing", "running")?;
    let last = send(&broker.address, 2 * ROUNDS)?;
    until_committed(&cli, "placing", &[(sent + more + last) as i64])?;
    let all = read_all(&broker.address, "out")?;
    ensure!(all.len() == sent + more + last, "{} of {} records", all.len(), sent + more + last);
    let grown = |record: &&Read| record.value.parse::<usize>().is_ok_and(|round| round >= 2 * ROUNDS);
    let new: Vec<Read> = all.iter().filter(grown).cloned().collect();
    check(&new, |region| match region {
        "eu" => vec![0, 1],
        "us" => vec![2, 3],
        _ => vec![4, 5],
    })?;
    let used: std::collections::BTreeSet<i32> = new.iter().map(|record| record.partition).collect();
    ensure!(used.len() == 6, "only {used:?} are used");
    over_http(&broker.address, &cli, &new)?;
    broker.stop()?;
    Ok(format!("{} records of {} keys in 3 and in 6 partitions", all.len(), REGIONS.len() * KEYS))
}

//! What a pipeline keeps, asked for while it runs: by the command line and over HTTP.

use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use pelton_tests::http::request;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::LIMIT;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

const MANIFEST: &str = "name = \"rides\"\n\
    [[source]]\nid = \"in\"\ntopic = \"rides\"\npartitioner = \"crc32\"\n\
    [[node]]\nid = \"per-city\"\nfrom = \"in\"\naggregate = { n = \"count\", fare = \"sum:json:fare\" }\n\
    table = \"cities\"\n\
    [[node]]\nid = \"per-minute\"\nfrom = \"in\"\naggregate = \"count\"\n\
    window = { tumbling = \"1m\", grace = \"1m\", retention = \"1h\" }\n\
    [[sink]]\nfrom = \"per-city\"\ntopic = \"cities\"\n\
    [[sink]]\nfrom = \"per-minute\"\ntopic = \"minutes\"\n";
/// 2013-01-01T10:00:00Z.
const TEN: i64 = 1_357_034_400_000;

/// Writes rides by city, with the seconds after ten, and gives the last offset of each partition.
fn produce(bootstrap: &str, rides: &[(&str, i64, i64)]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("enable.idempotence", "true").create()?;
    for (city, second, fare) in rides {
        let value = format!("{{\"fare\":{fare}}}");
        let record = BaseRecord::to("rides").key(*city).payload(&value).timestamp(TEN + second * 1_000);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

pub(crate) fn while_it_runs(lab: &Lab) -> Result<String> {
    let (mut start, broker, mut cli) = lab.start()?;
    create_topic(&broker.address, "rides", 3, &[("retention.ms", "-1")])?;
    let file = lab.write("rides.toml", MANIFEST)?;
    cli.ok(&["deploy", &file])?;
    let rides = [
        ("oslo", 1, 10),
        ("rome", 2, 20),
        ("oslo", 61, 5),
        ("bern", 62, 7),
        ("oslo", 3, 1),
        ("rome", 200, 2),
    ];
    produce(&broker.address, &rides)?;
    // Each partition's last record is waited for by the commands themselves.
    let ends: Vec<String> = (0..3)
        .filter_map(|partition| {
            let end = end(&broker.address, partition).ok()?;
            (end > 0).then(|| format!("rides:{partition}:{}", end - 1))
        })
        .collect();
    let ends = ends.join(",");
    let get = |cli: &pelton_tests::cli::Cli, table: &str, city: &str| -> Result<Value> {
        cli.json(&["table", "get", table, city, "--min-offset", &ends, "--timeout-ms", "30000", "--json"])
    };
    for table in ["rides/per-city", "cities"] {
        let oslo = get(&cli, table, "oslo")?;
        ensure!(
            oslo["value"] == json!({ "fare": 16, "n": 3 }) && oslo["timestamp"] == TEN + 61_000,
            "{oslo}"
        );
        ensure!(oslo["offsets"]["rides"].as_object().map(|offsets| offsets.len()) == Some(1), "{oslo}");
        cli.refused(&["table", "get", table, "paris"], 1, &["no row"])?;
    }
    let scanned = cli.ok(&["table", "scan", "cities", "--from", "c"])?;
    ensure!(scanned == "oslo\t{\"fare\":16,\"n\":3}\nrome\t{\"fare\":22,\"n\":2}\n", "{scanned}");
    let windows = cli.ok(&["table", "window", "rides/per-minute", "oslo"])?;
    let expect =
        "2013-01-01T10:00:00Z\t2013-01-01T10:01:00Z\t2\n2013-01-01T10:01:00Z\t2013-01-01T10:02:00Z\t1\n";
    ensure!(windows == expect, "{windows}");
    let later =
        cli.ok(&["table", "window", "rides/per-minute", "oslo", "--since", "2013-01-01T10:01:00Z"])?;
    ensure!(expect.ends_with(&later) && later.lines().count() == 1, "{later}");
    let minute = ["table", "scan", "rides/per-minute", "--until", "2013-01-01T10:01:00Z"];
    let minute = cli.ok(&minute)?;
    ensure!(minute.lines().count() == 2 && minute.contains("rome\t2013-01-01T10:00:00Z\t"), "{minute}");

    cli.refused(&["table", "get", "rides/per-minute", "oslo"], 1, &["window", "pelton table window"])?;
    cli.refused(&["table", "window", "cities", "oslo"], 1, &["has no windows"])?;
    cli.refused(&["table", "get", "rides/per-hour", "oslo"], 1, &["rides/per-hour"])?;
    cli.refused(&["table", "delete", "cities"], 1, &["a pipeline keeps `cities`"])?;
    let too_far = ["table", "get", "cities", "oslo", "--min-offset", "rides:0:1000", "--timeout-ms", "10"];
    cli.refused(&too_far, 1, &["reflects topic rides, partition 0", "1000"])?;
    let listed = cli.json(&["table", "list", "--json"])?;
    let names: Vec<&Value> = listed.as_array().into_iter().flatten().map(|table| &table["name"]).collect();
    ensure!(names == ["rides/per-city", "rides/per-minute"], "{listed}");
    let people = cli.ok(&["table", "list"])?;
    let both = |line: &str| line.contains("rides/per-city") && line.contains(" cities ");
    ensure!(people.lines().any(both), "what the manifest calls it is not there: {people}");
    cli.refused(&["table", "get", "cities", "oslo", "--min-offset", "rides:x:1"], 1, &["PARTITION:OFFSET"])?;
    let described = cli.ok(&["table", "describe", "cities"])?;
    ensure!(
        described.contains("results that pipeline rides keeps") && described.contains("live"),
        "{described}"
    );

    // A slash within a name is %2F in a path.
    let http = broker.http.clone().context("no HTTP")?;
    let path = "GET /v1/tables/rides%2Fper-minute/windows?key=rome&until=1357034520000";
    let answer = request(&http, path, &[format!("Host: {http}")], None)?;
    let rome = answer.json()?;
    ensure!(rome["records"][0]["window"] == json!({ "start": TEN, "end": TEN + 60_000 }), "{rome}");
    ensure!(rome["records"].as_array().map(Vec::len) == Some(1), "{rome}");

    cli.ok(&["pipeline", "pause", "rides"])?;
    cli.refused(&["table", "get", "cities", "oslo"], 1, &["pipeline `rides` is paused"])?;
    cli.ok(&["pipeline", "resume", "rides"])?;
    broker.kill()?;
    let broker = start.start()?;
    cli = lab.cli(&broker)?;
    ensure!(get(&cli, "cities", "rome")?["value"] == json!({ "fare": 22, "n": 2 }), "after a kill");
    broker.stop()?;
    Ok(format!("{} rides by city and by minute", rides.len()))
}

/// The end of a partition of the rides.
fn end(bootstrap: &str, partition: i32) -> Result<i64> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = client(bootstrap).set("group.id", "ends").create()?;
    Ok(consumer.fetch_watermarks("rides", partition, LIMIT)?.1)
}

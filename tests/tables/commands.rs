//! What a user does and sees.

use crate::lab::{Lab, Rows, compacted, put, replay, scan, until_fresh, until_same};
use anyhow::{Context, Result, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::load::client;
use pelton_tests::records::LIMIT;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

pub(crate) fn asked(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    cli.refused(
        &["table", "create", "p", "--topic", "p"],
        1,
        &["`p` does not exist", "cleanup.policy=compact"],
    )?;
    cli.refused(&["table", "create", "p", "--topic", "p", "--scope", "wide"], 2, &["wide"])?;
    cli.refused(&["table", "get", "p", "k"], 1, &["no table `p`"])?;
    compacted(&broker, "p", 3)?;
    let created =
        cli.ok(&["table", "create", "p", "--topic", "p", "--partitioner", "crc32", "--value", "json"])?;
    ensure!(created.contains("table p"), "{created}");
    cli.ok(&["table", "create", "all", "--topic", "p", "--scope", "global", "--store", "memory"])?;
    let keys: Vec<String> = (0..2_500).map(|i| format!("k{i:04}")).collect();
    let values: Vec<String> = (0..2_500).map(|i| format!("{{\"i\": {i}.50}}")).collect();
    let mut records: Vec<(&str, Option<&str>)> =
        keys.iter().zip(&values).map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    records.push(("k0007", None));
    records.push(("ä/ b", Some("[1]")));
    put(&broker.address, "p", &records)?;
    let expect = replay(&broker.address, "p", None)?;
    ensure!(expect.len() == 2_500, "{}", expect.len());
    for table in ["p", "all"] {
        until_same(&cli, table, &expect)?;
        ensure!(cli.ok(&["table", "get", table, "k0042"])? == "{\"i\": 42.50}\n");
        ensure!(cli.ok(&["table", "get", table, "ä/ b"])? == "[1]\n");
        ensure!(cli.ok(&["table", "get", table, "base64:azAwNDI="])? == "{\"i\": 42.50}\n");
        cli.refused(&["table", "get", table, "k0007"], 1, &["no row"])?;
        for offset in ["0:0", "p:0:0", "p:0:0,p:1:0"] {
            cli.ok(&["table", "get", table, "k0042", "--min-offset", offset])?;
        }
        for (offset, why) in
            [("q:0:0", "names topic q"), ("p:0:-1", "PARTITION:OFFSET"), ("p", "PARTITION:OFFSET")]
        {
            cli.refused(&["table", "get", table, "k0042", "--min-offset", offset], 1, &[why])?;
        }
        let part = cli.ok(&["table", "scan", table, "--from", "k0005", "--to", "k0010", "--limit", "3"])?;
        let part: Vec<&str> = part.lines().filter_map(|line| line.split('\t').next()).collect();
        ensure!(part == ["k0005", "k0006", "k0008"], "{part:?}");
        let prefixed = cli.ok(&["table", "scan", table, "--prefix", "k1", "--json"])?;
        ensure!(prefixed.lines().count() == 1_000, "{}", prefixed.lines().count());
        let first: Value = serde_json::from_str(prefixed.lines().next().context("no line")?)?;
        ensure!(first["key"] == "k1000", "{first}");
    }
    let row: Value = cli.json(&["table", "get", "p", "k0001", "--json"])?;
    ensure!(
        row["value"] == json!({ "i": 1.5 }) && row["offsets"].as_object().map(|o| o.len()) == Some(1),
        "{row}"
    );
    let listed = cli.json(&["table", "list", "--json"])?;
    let names: Vec<&Value> = listed.as_array().into_iter().flatten().map(|table| &table["name"]).collect();
    ensure!(names == ["all", "p"], "{listed}");
    ensure!(cli.ok(&["table", "list"])?.contains("global"), "the list for people");
    ensure!(cli.ok(&["table", "describe", "p"])?.contains("partitioner crc32"), "the description for people");
    cli.ok(&["table", "delete", "all"])?;
    cli.refused(&["table", "delete", "all"], 1, &["no table `all`", "pelton table list"])?;
    cli.refused(&["table", "create", "p", "--topic", "p"], 1, &["already"])?;
    broker.stop()?;
    Ok(format!("{} rows in three stores and in one", expect.len()))
}

pub(crate) fn transactions(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    compacted(&broker, "t", 2)?;
    cli.ok(&["table", "create", "t", "--topic", "t"])?;
    put(&broker.address, "t", &[("a", Some("before")), ("b", Some("before"))])?;
    let producer: BaseProducer =
        client(&broker.address).set("transactional.id", "writer").set("linger.ms", "1").create()?;
    producer.init_transactions(LIMIT)?;
    for (round, commit) in [false, true, false].into_iter().enumerate() {
        let value = format!("round {round}");
        producer.begin_transaction()?;
        for key in ["a", "b", "c"] {
            let record = BaseRecord::<str, str>::to("t").key(key).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(LIMIT)?;
        let open = scan(&cli, "t").unwrap_or_default();
        ensure!(!open.values().any(|seen| *seen == value), "an open transaction is seen: {open:?}");
        if commit {
            producer.commit_transaction(LIMIT)?
        } else {
            producer.abort_transaction(LIMIT)?
        }
        let expect = replay(&broker.address, "t", None)?;
        until_same(&cli, "t", &expect)?;
        let aborted = expect.values().any(|seen| seen == "round 0" || seen == "round 2");
        ensure!(!aborted && (expect.len() == 3) == (round > 0), "{expect:?}");
    }
    broker.stop()?;
    Ok("1 of 3 transactions is in it".to_owned())
}

pub(crate) fn restarts(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start()?;
    compacted(&broker, "t", 2)?;
    cli.ok(&["table", "create", "t", "--topic", "t"])?;
    let keys: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    let records: Vec<(&str, Option<&str>)> = keys.iter().map(|key| (key.as_str(), Some("first"))).collect();
    put(&broker.address, "t", &records)?;
    let puts = |table: &Value| table["totals"]["puts"].as_u64();
    ensure!(puts(&until_fresh(&cli, "t")?) == Some(500), "it has read the topic");
    broker.stop()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    put(&broker.address, "t", &[("0", None), ("1", Some("second")), ("new", Some("second"))])?;
    until_same(&cli, "t", &replay(&broker.address, "t", None)?)?;
    let described = cli.json(&["table", "describe", "t", "--json"])?;
    ensure!(
        puts(&described) == Some(2) && described["totals"]["rebuilds"] == 0,
        "it did not go on where it was: {described}"
    );
    ensure!(lab.dir.join("data/state/@tables/t").is_dir(), "the stores are not where they should be");
    cli.ok(&["table", "delete", "t"])?;
    ensure!(!lab.dir.join("data/state/@tables/t").exists(), "a deleted table leaves files");
    broker.stop()?;
    Ok("500 records are not read again".to_owned())
}

pub(crate) fn topics(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    compacted(&broker, "t", 1)?;
    cli.ok(&["table", "create", "t", "--topic", "t", "--scope", "global"])?;
    put(&broker.address, "t", &[("old", Some("1"))])?;
    until_same(&cli, "t", &Rows::from([("old".to_owned(), "1".to_owned())]))?;
    cli.ok(&["topic", "delete", "t"])?;
    pelton_tests::records::until("the table says that its topic is gone", LIMIT, || {
        let ended = cli.run(&["table", "get", "t", "old"])?;
        Ok((ended.code == 1 && ended.stderr.contains("does not exist")).then_some(()))
    })?;
    compacted(&broker, "t", 1)?;
    put(&broker.address, "t", &[("new", Some("2"))])?;
    until_same(&cli, "t", &Rows::from([("new".to_owned(), "2".to_owned())]))?;
    let described = cli.json(&["table", "describe", "t", "--json"])?;
    let why = described["stores"][0]["rebuilt"].as_str().unwrap_or_default();
    ensure!(why.contains("created again") && described["totals"]["rebuilds"] == 1, "{described}");
    broker.stop()?;
    Ok(format!("it says that {why}"))
}

pub(crate) fn followed(lab: &Lab) -> Result<String> {
    const CHANGES: usize = 3_000;
    let (_, broker, cli) = lab.start()?;
    compacted(&broker, "t", 1)?;
    cli.ok(&["table", "create", "t", "--topic", "t"])?;
    put(&broker.address, "t", &[("a", Some("0")), ("b", Some("0"))])?;
    until_fresh(&cli, "t")?;
    let most = (CHANGES + 2).to_string();
    let mut follower = Follower::start(&cli, &["table", "follow", "t", "--json", "--max-events", &most])?;
    let begun = follower.next()?;
    ensure!(begun["event"] == "begin" && begun["offsets"]["0"].is_i64(), "{begun}");
    for key in ["a", "b"] {
        let row = follower.next()?;
        ensure!(row["event"] == "row" && row["key"] == key && row["value"] == "0", "{row}");
    }
    ensure!(follower.next()?["event"] == "current", "rows are followed by the end of them");
    let values: Vec<String> = (1..=CHANGES).map(|i| i.to_string()).collect();
    let records: Vec<(&str, Option<&str>)> = values
        .iter()
        .enumerate()
        .map(|(i, value)| (["a", "b", "c"][i % 3], (i % 7 != 6).then_some(value.as_str())))
        .collect();
    put(&broker.address, "t", &records)?;
    let next = begun["offsets"]["0"].as_i64().context("no offset")? + 1;
    for (offset, (key, value)) in (next..).zip(&records) {
        let change = follower.next()?;
        ensure!(
            change["event"] == "change" && change["key"] == *key && change["value"] == json!(value),
            "{change} instead of {key} {value:?}"
        );
        ensure!(change["offset"] == offset, "{change} instead of offset {offset}");
    }
    ensure!(follower.ended()? == 0, "it ends when it has what was asked for");
    broker.stop()?;
    Ok(format!("{CHANGES} changes"))
}

/// A `pelton table follow` that runs.
struct Follower {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follower {
    fn start(cli: &Cli, args: &[&str]) -> Result<Follower> {
        let mut command = Command::new(&cli.binary);
        command.args(args).env("PELTON_HTTP_SERVER", &cli.http).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the follower")?;
        let out = child.stdout.take().context("its standard output")?;
        Ok(Follower { child, lines: BufReader::new(out).lines() })
    }

    fn next(&mut self) -> Result<Value> {
        let line = self.lines.next().context("the follower has ended")??;
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))
    }

    fn ended(&mut self) -> Result<i32> {
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

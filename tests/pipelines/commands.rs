//! list, describe, pause, resume, delete, logs and deploy do what they say, across restarts.

use crate::lab::{Lab, Pipe, check_failure, guest, offsets, path, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, committed, produce, read_all, until};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long nothing may happen before it is believed that nothing will.
const QUIET: Duration = Duration::from_millis(700);

fn values(bootstrap: &str, topic: &str) -> Result<BTreeSet<String>> {
    let records = read_all(bootstrap, topic)?;
    let values: BTreeSet<String> = records.iter().map(|record| record.value.clone()).collect();
    ensure!(values.len() == records.len(), "{topic} has outputs twice, and nothing was killed");
    Ok(values)
}

fn expected(lanes: &[&[&str]]) -> BTreeSet<String> {
    let lane = |(partition, values): (usize, &&[&str])| {
        values.iter().enumerate().map(move |(n, v)| format!("{partition}:{n}:{v}")).collect::<Vec<_>>()
    };
    lanes.iter().enumerate().flat_map(lane).collect()
}

pub(crate) fn verbs(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 2, &[])?;
    let said = lab.deploy(&cli, Pipe::new("verbs", "in", "out"))?;
    ensure!(said.contains("verbs, revision 1") && said.contains("pelton.verbs"), "deploy said {said}");
    ensure!(
        said.contains("running") || said.contains("starting (`pelton pipeline describe verbs`"),
        "{said}"
    );
    produce(&address, "in", 0, &["a", "log hello from record b"])?;
    produce(&address, "in", 1, &["c"])?;
    let seen = until_committed(&cli, "verbs", &[2, 1])?;
    ensure!(seen["state"] == "running" && seen["revision"] == 1 && seen["group"] == "pelton.verbs", "{seen}");
    ensure!(seen["totals"]["records_in"] == 3 && seen["totals"]["records_out"] == 3, "{seen}");
    ensure!(committed(&address, "pelton.verbs", "in", 2)? == [2, 1], "the group has other offsets");
    let listed = cli.ok(&["pipeline", "list"])?;
    let row = listed.lines().find(|line| line.starts_with("verbs")).context("verbs is not listed")?;
    ensure!(row.split_whitespace().eq(["verbs", "running", "1", "3", "3", "0"]), "{listed}");
    let logs = cli.ok(&["pipeline", "logs", "verbs"])?;
    let line =
        logs.lines().find(|line| line.contains("hello from record b")).context("no line of the guest")?;
    ensure!(line.contains("info") && line.contains("work[0]"), "{line}");

    // Pause stops at a commit: what is committed and what came out are the same.
    let said = cli.ok(&["pipeline", "pause", "verbs"])?;
    ensure!(said == "pipeline verbs is paused\n", "{said}");
    until_state(&cli, "verbs", "paused")?;
    produce(&address, "in", 1, &["d", "e"])?;
    std::thread::sleep(QUIET);
    ensure!(committed(&address, "pelton.verbs", "in", 2)? == [2, 1], "a paused pipeline commits");
    ensure!(read_all(&address, "out")?.len() == 3, "a paused pipeline writes");

    // Paused stays paused, through a stop and through a kill.
    broker.stop()?;
    let broker = start.start()?;
    until_state(&lab.cli(&broker)?, "verbs", "paused")?;
    broker.kill()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    let paused = until_state(&cli, "verbs", "paused")?;
    ensure!(paused["revision"] == 1, "{paused}");
    std::thread::sleep(QUIET);
    ensure!(read_all(&address, "out")?.len() == 3, "a paused pipeline writes after a restart");
    cli.ok(&["pipeline", "resume", "verbs"])?;
    until_committed(&cli, "verbs", &[2, 3])?;
    let all = expected(&[&["a", "log hello from record b"], &["c", "d", "e"]]);
    ensure!(values(&address, "out")? == all, "resume lost or doubled something");

    // A running one goes on after a stop, where it was.
    broker.stop()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    produce(&address, "in", 0, &["f"])?;
    until_committed(&cli, "verbs", &[3, 3])?;
    let all = expected(&[&["a", "log hello from record b", "f"], &["c", "d", "e"]]);
    ensure!(values(&address, "out")? == all, "a stop lost or doubled something");
    deleted(lab, &cli, &address)?;
    broker.stop()?;
    Ok("list, describe, logs, pause, resume, delete, two restarts and a kill".to_owned())
}

fn deleted(lab: &Lab, cli: &pelton_tests::cli::Cli, address: &str) -> Result<()> {
    cli.ok(&["pipeline", "delete", "verbs"])?;
    cli.refused(&["pipeline", "describe", "verbs"], 1, &["no pipeline `verbs`"])?;
    ensure!(!cli.ok(&["pipeline", "list"])?.contains("verbs"), "it is still listed");
    produce(address, "in", 0, &["g"])?;
    std::thread::sleep(QUIET);
    ensure!(read_all(address, "out")?.len() == 6, "a deleted pipeline writes, or its output went away");
    // Its offsets stay, so the same name goes on.
    lab.deploy(cli, Pipe::new("verbs", "in", "out"))?;
    until_committed(cli, "verbs", &[4, 3])?;
    ensure!(values(address, "out")?.contains("0:3:g"), "the record in between is lost");
    Ok(())
}

/// While records come in, every new revision goes on where the one before it stopped: no record twice, none left out.
pub(crate) fn revisions(lab: &Lab) -> Result<String> {
    const REVISIONS: usize = 6;
    /// A step takes 1 MiB, so a revision has several of them, and the next one finds it in the middle of one.
    const BURST: usize = 500;
    const PRELOADED: usize = 20 * BURST;
    const TAGS: [&str; REVISIONS] = ["-1", "-2", "-3", "-4", "-5", "-6"];
    let (_, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 2, &[])?;
    let value = format!("slow{}", "x".repeat(1_000));
    for partition in 0..2 {
        produce(&address, "in", partition, &[value.as_str(); PRELOADED])?;
    }
    let stop = AtomicBool::new(false);
    let sent = PRELOADED
        + std::thread::scope(|scope| -> Result<usize> {
            let producer = scope.spawn(|| -> Result<usize> {
                let mut sent = 0;
                while !stop.load(Ordering::Acquire) {
                    for partition in 0..2 {
                        produce(&address, "in", partition, &[value.as_str(); BURST])?;
                    }
                    sent += BURST;
                }
                Ok(sent)
            });
            let deployed = (|| -> Result<()> {
                let written =
                    || anyhow::Ok(cli.pipeline("p")?["totals"]["records_out"].as_u64().unwrap_or_default());
                for (n, tag) in TAGS.iter().enumerate() {
                    let said =
                        lab.deploy(&cli, Pipe { tag, deadline_ms: 5_000, ..Pipe::new("p", "in", "out") })?;
                    ensure!(said.contains(&format!("revision {}", n + 1)), "{said}");
                    // It goes on through revisions, and the one before has ended.
                    let before = written()?;
                    until("the revision has come further", LIMIT, || {
                        // A step of each partition, and one more.
                        Ok((written()? > before + 6 * BURST as u64).then_some(()))
                    })?;
                }
                // The last one from the plugin's directory, which is built and is the same component.
                let file = lab.dir.join("p.toml");
                let text = std::fs::read_to_string(&file)?
                    .replace("\"unruly\"", &format!("\"{}\"", path(&guest("unruly"))));
                cli.ok(&["deploy", &lab.write("p.toml", text)?]).map(drop)
            })();
            stop.store(true, Ordering::Release);
            let sent = producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?;
            deployed.and(sent)
        })?;
    let described = until_committed(&cli, "p", &[sent as i64, sent as i64])?;
    ensure!(described["revision"] == REVISIONS as u64 + 1, "{described}");
    ensure!(
        cli.json(&["plugin", "list", "--json"])?.as_array().map(Vec::len) == Some(1),
        "another component"
    );
    let mut lanes: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    for record in read_all(&address, "out")? {
        let (place, tag) = record.value.rsplit_once('-').context("an output without its tag")?;
        let place = place.strip_suffix(&format!(":{value}")).context("an output with another value")?;
        let (lane, offset) = place.split_once(':').context("an output without its place")?;
        lanes.entry(lane.to_owned()).or_default().push((offset.parse()?, tag.to_owned()));
    }
    for (lane, outputs) in &lanes {
        let gap = outputs.iter().enumerate().find(|(n, (offset, _))| n != offset);
        ensure!(gap.is_none() && outputs.len() == sent, "[{lane}] of {sent}: {gap:?}");
        ensure!(
            outputs.is_sorted_by_key(|(_, tag)| tag.clone()),
            "[{lane}]: an old revision writes after a new one"
        );
        let tags: BTreeSet<&String> = outputs.iter().map(|(_, tag)| tag).collect();
        ensure!(tags.len() == REVISIONS, "[{lane}]: only {tags:?} wrote anything");
    }
    broker.stop()?;
    Ok(format!("{} revisions, {} records", REVISIONS + 1, sent * 2))
}

/// A pipeline waits for a topic that goes away, says which one, and goes on by itself with the one that is created next: its
/// input from the beginning. More partitions are found by themselves.
pub(crate) fn topics_go_away(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe::new("p", "in", "out"))?;
    produce(&address, "in", 0, &["a", "b", "c"])?;
    until_committed(&cli, "p", &[3])?;
    cli.ok(&["topic", "alter", "in", "--partitions", "3"])?;
    produce(&address, "in", 2, &["d"])?;
    until_committed(&cli, "p", &[3, 0, 1])?;

    cli.ok(&["topic", "delete", "in"])?;
    let waiting = until_state(&cli, "p", "retrying")?;
    let reason = waiting["failure"]["reason"].as_str().unwrap_or_default();
    ensure!(waiting["failure"]["kind"] == "no-topic" && reason.contains("topic in,"), "{waiting}");
    ensure!(offsets(&waiting).is_empty(), "{waiting}");
    cli.refused(&["deploy", &format!("{}/p.toml", path(&lab.dir))], 1, &["`in` does not exist"])?;
    create_topic(&address, "in", 1, &[])?;
    produce(&address, "in", 0, &["e", "f"])?;
    until_committed(&cli, "p", &[2]).context("after the input was created again")?;
    until_state(&cli, "p", "running")?;
    let said = cli.ok(&["pipeline", "logs", "p"])?;
    ensure!(said.contains("topic in was deleted") && said.contains("topic in was created again"), "{said}");

    cli.ok(&["topic", "delete", "out"])?;
    produce(&address, "in", 0, &["g"])?;
    let waiting = until_state(&cli, "p", "retrying")?;
    let reason = waiting["failure"]["reason"].as_str().unwrap_or_default();
    ensure!(waiting["failure"]["kind"] == "no-topic" && reason.contains("topic out,"), "{waiting}");
    create_topic(&address, "out", 1, &[])?;
    let described = until_committed(&cli, "p", &[3]).context("after the output was created again")?;
    let left = |topic: &str| -> Result<Vec<String>> {
        Ok(read_all(&address, topic)?.into_iter().map(|record| record.value).collect())
    };
    ensure!(left("out")? == ["0:2:g"] && offsets(&described) == [3], "{described}");
    until_state(&cli, "p", "running")?;

    // At once: whether it saw that there was none in between or not.
    for (n, topic) in ["in", "out", "in"].into_iter().enumerate() {
        cli.ok(&["topic", "delete", topic])?;
        create_topic(&address, topic, 1, &[])?;
        let (values, committed) = [(&["h"][..], 1), (&["i"], 2), (&["j", "k"], 2)][n];
        produce(&address, "in", 0, values)?;
        until_committed(&cli, "p", &[committed]).with_context(|| format!("{n}: {topic} created again"))?;
    }
    ensure!(left("out")? == ["0:1:i", "0:0:j", "0:1:k"], "{:?}", left("out")?);
    produce(&address, "in", 0, &["l"])?;
    until_committed(&cli, "p", &[3])?;

    // Offsets that somebody sets behind the end: waiting for the log to come there would pass over records.
    cli.ok(&["pipeline", "pause", "p"])?;
    let consumer: BaseConsumer = client(&address).set("group.id", "pelton.p").create()?;
    let mut ahead = TopicPartitionList::new();
    ahead.add_partition_offset("in", 0, Offset::Offset(5))?;
    consumer.commit(&ahead, CommitMode::Sync)?;
    cli.ok(&["pipeline", "resume", "p"])?;
    let failed = until_state(&cli, "p", "failed")?;
    check_failure(&failed, "io", ("in", 0, 5), &["the log ends at 3", "reset-offsets"])?;
    broker.stop()?;
    Ok("the input, the output, and two more partitions".to_owned())
}

/// What `pelton plugin new` makes builds, and its own test passes, for every world that it knows.
pub(crate) fn new_plugins(lab: &Lab) -> Result<String> {
    let worlds = [
        "transform",
        "transform-state",
        "transform-timer",
        "aggregator",
        "partitioner",
        "consumer",
        "consumer-http",
    ];
    for world in worlds {
        let dir = lab.dir.join(format!("new-{world}"));
        let pelton = |args: &[&str]| -> Result<String> {
            let mut command = Command::new(&lab.binary);
            let ran = command.args(args).env("CARGO_TARGET_DIR", &lab.build_dir).output()?;
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            ensure!(ran.status.success(), "pelton {}: {said}", args.join(" "));
            Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
        };
        pelton(&["plugin", "new", path(&dir), "--world", world])?;
        let component = dir.join("new.wasm");
        pelton(&["plugin", "build", path(&dir), "--output", path(&component)])?;
        let seen = pelton(&["plugin", "inspect", path(&component)])?;
        ensure!(seen.lines().any(|line| line.split_whitespace().eq(["world", world])), "{seen}");
        if !world.starts_with("consumer") {
            let tested = pelton(&["plugin", "test", path(&dir), "--component", path(&component)])?;
            ensure!(tested.contains("passed"), "{tested}");
        }
        let mut tested = Command::new("cargo");
        tested.args(["test", "--offline"]).current_dir(&dir).env("CARGO_TARGET_DIR", &lab.build_dir);
        let tested = tested.output().context("run cargo")?;
        let said = String::from_utf8_lossy(&tested.stdout).into_owned();
        ensure!(
            tested.status.success() && said.contains("1 passed"),
            "{world}: {said}{}",
            String::from_utf8_lossy(&tested.stderr)
        );
        let warned = String::from_utf8_lossy(&tested.stderr).into_owned();
        ensure!(!warned.contains("warning"), "{world}: a new plugin begins with a warning: {warned}");
    }
    Ok(worlds.join(", "))
}

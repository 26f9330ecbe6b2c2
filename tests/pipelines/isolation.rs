//! A plugin that misbehaves stops its own pipeline, says at which record and why, and touches nobody else.

use crate::lab::{Lab, Pipe, check_failure, offsets, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::Broker;
use pelton_tests::cli::Cli;
use pelton_tests::load::{block_on, client, create_topic};
use pelton_tests::records::{LIMIT, produce, read_all};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// What a record tells the plugin, the kind of failure that it makes, and words of the reason.
const MISDEEDS: [(&str, &str, &[&str]); 12] = [
    ("trap", "trapped", &["unreachable", "told to trap"]),
    ("loop", "deadline", &["200 ms", "limits.deadline_ms"]),
    ("memory", "memory", &["8388608 bytes", "limits.memory"]),
    ("large", "output-too-large", &["524288 bytes", "limits.output"]),
    ("recursion", "trapped", &["out of bounds memory access"]),
    ("ill-formed", "ill-formed", &["source"]),
    ("unequal", "ill-formed", &["values"]),
    ("short", "ill-formed", &["values"]),
    ("beyond", "ill-formed", &["values"]),
    ("across", "ill-formed", &["values"]),
    ("reject", "reject", &["told to reject"]),
    ("fatal", "fatal", &["told to stop"]),
];

/// Values with the misdeed as the fourth, in one batch.
fn with_misdeed(misdeed: &str) -> [&str; 6] {
    ["a", "b", "c", misdeed, "d", "e"]
}

fn values(bootstrap: &str, topic: &str) -> Result<Vec<String>> {
    Ok(read_all(bootstrap, topic)?.into_iter().map(|record| record.value).collect())
}

pub(crate) fn alone(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "good", 2, &[])?;
    lab.deploy(&cli, Pipe::new("good", "good", "good-out"))?;
    for (misdeed, ..) in MISDEEDS {
        let (input, output) = (format!("{misdeed}-in"), format!("{misdeed}-out"));
        create_topic(&broker.address, &input, 2, &[])?;
        create_topic(&broker.address, &output, 1, &[])?;
        lab.deploy(&cli, Pipe::new(misdeed, &input, &output))?;
        produce(&broker.address, &input, 1, &with_misdeed(misdeed))?;
    }
    for (misdeed, kind, words) in MISDEEDS {
        let input = format!("{misdeed}-in");
        let failed = until_state(&cli, misdeed, "failed")?;
        // A plugin that stops of its own accord may not say at which record of a call.
        let offset = if kind == "fatal" { 0 } else { 3 };
        check_failure(&failed, kind, (&input, 1, offset), words).context(misdeed)?;
        let reason = failed["failure"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("node `work`") && reason.contains(&input), "{misdeed}: {reason}");
        // The records before it are done, and committed; the others are not touched.
        ensure!(offsets(&failed) == [0, offset], "{misdeed}: {failed}");
        let expect: &[&str] = if offset == 0 { &[] } else { &["1:0:a", "1:1:b", "1:2:c"] };
        ensure!(values(&broker.address, &format!("{misdeed}-out"))? == expect, "{misdeed}: other outputs");
        // People see the same.
        let text = cli.ok(&["pipeline", "describe", misdeed])?;
        ensure!(text.contains(&format!("failure: {reason}")) && text.contains("failed"), "{text}");
        let lines = cli.ok(&["pipeline", "logs", misdeed])?;
        ensure!(lines.contains(reason), "the log of {misdeed} does not tell of it: {lines}");
    }
    // Nobody else noticed.
    produce(&broker.address, "good", 0, &["x", "y"])?;
    produce(&broker.address, "good", 1, &["z"])?;
    let good = until_committed(&cli, "good", &[2, 1])?;
    ensure!(good["state"] == "running" && good["failure"].is_null(), "{good}");
    let states = cli.json(&["pipeline", "list", "--json"])?;
    let failed = states.as_array().into_iter().flatten().filter(|one| one["state"] == "failed").count();
    ensure!(failed == MISDEEDS.len(), "{states}");
    broker.stop()?;
    Ok(format!("{} misdeeds", MISDEEDS.len()))
}

fn delete_records(broker: &Broker, topic: &str, partition: i32, before: i64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(&broker.address).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    block_on(admin.delete_records(&offsets, &options)).context("delete records")?;
    Ok(())
}

/// Resuming alone meets the same record again; taking the record away, or another policy, lets it go on.
pub(crate) fn mended(lab: &Lab) -> Result<String> {
    let (mut start, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    for name in ["delete-record", "skip", "dead-letter"] {
        create_topic(&address, name, 1, &[])?;
        lab.deploy(&cli, Pipe::new(name, name, &format!("{name}-out")))?;
        produce(&address, name, 0, &with_misdeed("trap"))?;
        until_state(&cli, name, "failed")?;
    }
    cli.ok(&["pipeline", "resume", "skip"])?;
    let again = until_state(&cli, "skip", "failed")?;
    check_failure(&again, "trapped", ("skip", 0, 3), &[])?;
    // A restart tries again, too, and fails at the same record.
    broker.stop()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    let again = until_state(&cli, "skip", "failed")?;
    check_failure(&again, "trapped", ("skip", 0, 3), &[])?;

    until_state(&cli, "delete-record", "failed")?;
    delete_records(&broker, "delete-record", 0, 4)?;
    cli.ok(&["pipeline", "resume", "delete-record"])?;
    until_committed(&cli, "delete-record", &[6])?;
    let outputs = ["0:0:a", "0:1:b", "0:2:c", "0:4:d", "0:5:e"];
    ensure!(values(&address, "delete-record-out")? == outputs, "not what was left");

    let skip = "{ policy = \"skip\" }";
    lab.deploy(&cli, Pipe { on_error: skip, ..Pipe::new("skip", "skip", "skip-out") })?;
    let skipped = until_committed(&cli, "skip", &[6])?;
    ensure!(skipped["totals"]["skipped"] == 1 && skipped["state"] == "running", "{skipped}");
    ensure!(values(&address, "skip-out")? == outputs, "not what was not skipped");
    ensure!(cli.ok(&["pipeline", "logs", "skip"])?.contains("skipped: node `work` failed"), "it is not said");

    dead_letter(lab, &cli, &address, &outputs)?;
    cli.ok(&["pipeline", "delete", "skip"])?;
    broker.stop()?;
    Ok("by deleting the record, by skip, by dead-letter".to_owned())
}

fn dead_letter(lab: &Lab, cli: &Cli, address: &str, outputs: &[&str]) -> Result<()> {
    let on_error = "{ policy = \"dead-letter\", topic = \"dead\" }";
    lab.deploy(cli, Pipe { on_error, ..Pipe::new("dead-letter", "dead-letter", "dead-letter-out") })?;
    until_committed(cli, "dead-letter", &[6])?;
    ensure!(values(address, "dead-letter-out")? == outputs, "not what was left");
    let dead = read_all(address, "dead")?;
    let [letter] = dead.as_slice() else { anyhow::bail!("dead letters: {dead:?}") };
    ensure!(letter.value == "trap", "not the original bytes: {letter:?}");
    for expect in ["dead-letter", "0", "3", "told to trap"] {
        ensure!(letter.headers.iter().any(|(_, text)| text.contains(expect)), "no {expect}: {letter:?}");
    }
    Ok(())
}

/// A plugin that never answers holds up neither a pause, nor a stop, nor those who look.
pub(crate) fn endless(lab: &Lab) -> Result<String> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let (_, broker, cli) = lab.start_with_plugin()?;
    for (name, deadline) in [("stop", DEADLINE), ("pause", DEADLINE * 4)] {
        let deadline_ms = deadline.as_millis() as u32;
        create_topic(&broker.address, name, 1, &[])?;
        let mut many = vec!["fine"; 600];
        many.extend(["loop"; 20]);
        produce(&broker.address, name, 0, &many)?;
        lab.deploy(&cli, Pipe { deadline_ms, ..Pipe::new(name, name, &format!("{name}-out")) })?;
    }
    let timed = |what: &str, limit: Duration, act: &mut dyn FnMut() -> Result<()>| -> Result<Duration> {
        let begin = Instant::now();
        act()?;
        ensure!(begin.elapsed() < limit, "{what} took {:?}, more than {limit:?}", begin.elapsed());
        Ok(begin.elapsed())
    };
    // One call may be under way; all of them, one after the other, take several times as long as this.
    let limit = DEADLINE * 10;
    std::thread::scope(|scope| -> Result<()> {
        let pause = scope.spawn(|| cli.ok(&["pipeline", "pause", "pause"]));
        // The first call of the plugin takes the whole deadline, so the pause is under way for long.
        std::thread::sleep(Duration::from_millis(100));
        cli.ok(&["pipeline", "list"])?;
        ensure!(!pause.is_finished(), "who looks waits as long as who pauses");
        let begin = Instant::now();
        pause.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(begin.elapsed() < limit, "a pause took {:?}", begin.elapsed());
        Ok(())
    })?;
    until_state(&cli, "pause", "paused")?;
    let mut stopped = Duration::ZERO;
    let mut broker = Some(broker);
    timed("a stop", limit, &mut || {
        if let Some(broker) = broker.take() {
            stopped = broker.stop()?;
        }
        Ok(())
    })?;
    Ok(format!("deadline {DEADLINE:?}, stopped in {stopped:?}"))
}

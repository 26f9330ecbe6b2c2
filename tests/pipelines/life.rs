//! The life of a pipeline: revisions and rollbacks, dead letters that go back, components that may run.

use crate::kills::{PIPELINE, Under, through_kills};
use crate::lab::{Lab, Pipe, path, until_committed, until_state};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::{Cli, Ended};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, produce, read_all, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(crate) fn rolled_back(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 1, &[])?;
    let plugins = [lab.push_variant(&cli, 1)?, lab.push_variant(&cli, 2)?];
    let pipe = |tag| Pipe { tag, ..Pipe::new("p", "in", "out") };
    lab.deploy_with(&cli, pipe("-1"), &plugins[0])?;
    produce(&address, "in", 0, &["a"])?;
    until_committed(&cli, "p", &[1])?;
    let said = lab.deploy_with(&cli, pipe("-2"), &plugins[1])?;
    for line in ["change of node.work.config.tag: \"-1\" -> \"-2\"", "change of node work: sha256:"] {
        ensure!(said.contains(line), "`{line}` is missing: {said}");
    }
    produce(&address, "in", 0, &["b"])?;
    until_committed(&cli, "p", &[2])?;
    let said = cli.ok(&["pipeline", "rollback", "p", "--dry-run"])?;
    ensure!(said.contains("(revision 1 again) is valid; nothing was changed"), "{said}");
    let said = cli.ok(&["pipeline", "rollback", "p"])?;
    ensure!(said.contains("pipeline p, revision 3 (revision 1 again), is live"), "{said}");
    ensure!(said.contains("change of node.work.config.tag: \"-2\" -> \"-1\""), "{said}");
    produce(&address, "in", 0, &["c"])?;
    until_committed(&cli, "p", &[3])?;
    cli.ok(&["pipeline", "rollback", "p", "--to", "2"])?;
    produce(&address, "in", 0, &["d"])?;
    until_committed(&cli, "p", &[4])?;
    let values: Vec<String> = read_all(&address, "out")?.into_iter().map(|record| record.value).collect();
    ensure!(values == ["0:0:a-1", "0:1:b-2", "0:2:c-1", "0:3:d-2"], "{values:?}");
    let kept = cli.json(&["pipeline", "history", "p", "--json"])?;
    let number = |field: &str| -> Vec<Option<u64>> {
        kept["revisions"].as_array().into_iter().flatten().map(|kept| kept[field].as_u64()).collect()
    };
    ensure!(number("revision") == [Some(4), Some(3), Some(2), Some(1)] && kept["live"] == 4, "{kept}");
    ensure!(number("rolled_back_to") == [Some(2), Some(1), None, None], "{kept}");
    let listed = cli.ok(&["pipeline", "history", "p"])?;
    ensure!(listed.starts_with("revision 4, live, deployed 20"), "{listed}");
    ensure!(listed.lines().any(|line| line.starts_with("  node.work.config.tag: ")), "{listed}");
    let manifest = cli.ok(&["pipeline", "history", "p", "--revision", "1"])?;
    ensure!(manifest.contains("tag = \"-1\"") && manifest.contains(&plugins[0]), "{manifest}");
    cli.refused(&["pipeline", "rollback", "p", "--to", "9"], 1, &["no revision 9", "kept are 1, 2, 3"])?;
    cli.refused(&["pipeline", "rollback", "p", "--to", "4"], 1, &["revision 4 is live already"])?;
    cli.refused(&["pipeline", "rollback", "none"], 1, &["no pipeline `none` is deployed"])?;
    cli.refused(&["pipeline", "history", "p", "--revision", "9"], 1, &["revision 9", "not kept"])?;
    broker.stop()?;
    Ok("four revisions, two of them again".to_owned())
}

/// A change that was acknowledged: its revision, and what it runs, if the broker still said that.
type Acknowledged = Arc<Mutex<Vec<(u64, Option<String>)>>>;

/// The exit code of a command that no broker has answered.
const UNREACHABLE: i32 = 3;

/// Whether a command has found no broker any more, or half an answer.
fn was_killed(ended: &Ended) -> bool {
    ended.code == UNREACHABLE || (ended.code == 1 && ended.stderr.contains("read the response of"))
}

/// Notes a change that was acknowledged. Nobody else makes one, so it is what is live. False: the broker was killed.
fn acknowledge(cli: &Cli, said: &str, acknowledged: &Acknowledged) -> Result<bool> {
    let revision = said.split_once(", revision ").map_or("", |(_, rest)| rest);
    let digits: String = revision.chars().take_while(char::is_ascii_digit).collect();
    let revision: u64 = digits.parse().with_context(|| said.to_owned())?;
    let ended = cli.run(&["pipeline", "describe", PIPELINE, "--json"])?;
    let is_killed = was_killed(&ended);
    let plugin = if is_killed {
        None
    } else {
        ensure!(ended.code == 0, "{ended:?}");
        let described: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(described["revision"] == revision, "revision {revision} was acknowledged: {described}");
        Some(described["plugins"]["work"].as_str().unwrap_or_default().to_owned())
    };
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((revision, plugin));
    Ok(!is_killed)
}

/// Deploys and rolls back until the broker does not answer any more.
fn swap(cli: &Cli, files: &[(String, String)], mut rng: StdRng, acknowledged: &Acknowledged) -> Result<()> {
    loop {
        let ended = match rng.random_range(0..3) {
            0 => cli.run(&["pipeline", "rollback", PIPELINE])?,
            1 => {
                let kept = cli.run(&["pipeline", "history", PIPELINE, "--json"])?;
                if was_killed(&kept) {
                    return Ok(());
                }
                ensure!(kept.code == 0, "{kept:?}");
                let kept: Value = serde_json::from_str(&kept.stdout)?;
                let all = kept["revisions"].as_array().map_or(0, Vec::len);
                let to = kept["revisions"][rng.random_range(0..all.max(1))]["revision"].as_u64();
                let to = to.with_context(|| format!("no revision: {kept}"))?;
                cli.run(&["pipeline", "rollback", PIPELINE, "--to", &to.to_string()])?
            }
            _ => cli.run(&["deploy", &files[rng.random_range(0..files.len())].0])?,
        };
        // Going back from the only revision, or to the live one, means nothing.
        let is_refused = ["is the only one", "is live already", "there is no revision"]
            .iter()
            .any(|why| ended.stderr.contains(why));
        if ended.command.contains(" deploy ") && ended.stderr.contains("which was never pushed") {
            // The last ten revisions had the others, so it went; it is pushed as a user would do it.
            for (file, _) in files {
                let component = file.replace("swap-", "variant-").replace(".toml", ".wasm");
                let pushed = cli.run(&["plugin", "push", &component])?;
                ensure!(pushed.code == 0 || was_killed(&pushed), "{pushed:?}");
            }
            continue;
        }
        match ended.code {
            0 if acknowledge(cli, &ended.stdout, acknowledged)? => {}
            0 => return Ok(()),
            1 if is_refused => {}
            _ => {
                ensure!(was_killed(&ended), "{ended:?}");
                return Ok(());
            }
        }
    }
}

/// Revisions that run other components and have other numbers of threads take each other's place, forwards and backwards, while
/// records come in and the broker is killed in the midst of it.
pub(crate) fn swaps(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_SWAP_KILLS", 3)?;
    let acknowledged = Acknowledged::default();
    let files: RefCell<Vec<(String, String)>> = RefCell::default();
    let mut change = |lab: &Lab, cli: &Cli, pipe: Pipe<'_>, rng: &mut StdRng| -> Result<Under> {
        if files.borrow().is_empty() {
            for number in 1..=3 {
                let plugin = lab.push_variant(cli, number)?;
                let manifest =
                    pipe.manifest().replace("plugin = \"unruly\"", &format!("plugin = \"{plugin}\""));
                let manifest = format!("threads = {number}\n{manifest}");
                let file = lab.write(&format!("swap-{number}.toml"), manifest)?;
                files.borrow_mut().push((file, plugin));
            }
        }
        // What was acknowledged before the last kill is kept, or was followed by ten others.
        let kept = cli.json(&["pipeline", "history", PIPELINE, "--json"])?;
        let live = kept["live"].as_u64().unwrap_or(0);
        for (revision, plugin) in acknowledged.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ensure!(*revision <= live, "revision {revision} was acknowledged, and {live} is live: {kept}");
            let found = kept["revisions"].as_array().into_iter().flatten();
            let found = found.into_iter().find(|kept| kept["revision"] == *revision);
            ensure!(
                found
                    .zip(plugin.as_ref())
                    .is_none_or(|(found, ran)| found["plugins"]["work"] == ran.as_str()),
                "revision {revision} ran {plugin:?}: {kept}"
            );
        }
        let (cli, files, rng) = (cli.clone(), files.borrow().clone(), StdRng::seed_from_u64(rng.random()));
        let acknowledged = Arc::clone(&acknowledged);
        Ok(Some(std::thread::spawn(move || swap(&cli, &files, rng, &acknowledged))))
    };
    let told = through_kills(lab, "exactly-once", kills, &mut change)?;
    let swaps = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    ensure!(swaps > 0, "INVALID: no revision was acknowledged");
    Ok(format!("{swaps} swaps acknowledged, {told}"))
}

/// How many records a partition has and had, by its end.
fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<i64> {
    Ok(consumer.fetch_watermarks(topic, partition, LIMIT)?.1)
}

/// Records of each partition that are rejected.
const REJECTED: usize = 2_000;

/// A paused pipeline `p` whose node has rejected [`REJECTED`] records of each of the two partitions of `in`.
fn rejecting(lab: &Lab) -> Result<(Start, Broker, Cli)> {
    let (start, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 2, &[])?;
    create_topic(&broker.address, "dead", 3, &[])?;
    let on_error = "{ policy = \"dead-letter\", topic = \"dead\" }";
    lab.deploy(&cli, Pipe { on_error, deadline_ms: 5_000, ..Pipe::new("p", "in", "out") })?;
    for partition in 0..2 {
        let values: Vec<&str> = (0..2 * REJECTED).map(|n| ["fine", "reject"][n % 2]).collect();
        produce(&broker.address, "in", partition, &values)?;
    }
    until_committed(&cli, "p", &[2 * REJECTED as i64; 2])?;
    // Those that fail again are not put back in the same breath.
    cli.ok(&["pipeline", "pause", "p"])?;
    let letters = read_all(&broker.address, "dead")?.len();
    ensure!(letters == 2 * REJECTED, "{letters} letters");
    let dry = cli.json(&["pipeline", "redrive", "p", "--dry-run", "--json"])?;
    ensure!(dry["redriven"]["in"] == letters && dry["complete"] == true, "{dry}");
    Ok((start, broker, cli))
}

/// Puts letters back in pieces, a transaction each, until all are back or the broker is killed.
fn put_back(cli: &Cli) -> Result<()> {
    loop {
        let ended = cli.run(&["pipeline", "redrive", "p", "--limit", "250", "--json"])?;
        if was_killed(&ended) {
            return Ok(());
        }
        ensure!(ended.code == 0, "{ended:?}");
        let done: Value = serde_json::from_str(&ended.stdout)?;
        if done["complete"] == true {
            return Ok(());
        }
    }
}

/// Kills the broker once so many letters more have gone back, or soon after.
fn kill_at(broker: Broker, cli: &Cli, more: i64, after: Duration) -> Result<()> {
    let consumer: BaseConsumer = client(&broker.address).set("group.id", "watermarks").create()?;
    let wanted = end(&consumer, "in", 0)? + end(&consumer, "in", 1)? + more;
    let most = 6 * REJECTED as i64;
    let under = {
        let cli = cli.clone();
        std::thread::spawn(move || put_back(&cli))
    };
    until("letters go back", LIMIT, || {
        let there = end(&consumer, "in", 0)? + end(&consumer, "in", 1)?;
        Ok((there >= wanted.min(most)).then_some(()))
    })?;
    std::thread::sleep(after);
    broker.kill()?;
    under.join().map_err(|_| anyhow::anyhow!("the thread that puts letters back panicked"))?
}

/// Letters are put back in pieces while the broker is killed: each is back once in the end, in the partition that it came from.
pub(crate) fn redriven_once(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_REDRIVE_KILLS", 3)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, mut cli) = rejecting(lab)?;
    // How many kills come before the last letter is back depends on the machine, so nothing is asked of that here. What a kill in the
    // midst of a transaction leaves is made step by step by the broker's own tests.
    let mut hits = 0;
    for kill in 0..kills {
        let after = Duration::from_millis(rng.random_range(0..15));
        kill_at(broker, &cli, rng.random_range(1..400), after)
            .with_context(|| format!("kill {kill}, seed {seed}"))?;
        broker = start.start().with_context(|| format!("after kill {kill}, seed {seed}"))?;
        cli = lab.cli(&broker)?;
        // Readers wait for nothing that was left open.
        let there = read_all(&broker.address, "in")?.len();
        ensure!((4 * REJECTED..=6 * REJECTED).contains(&there), "{there} records, seed {seed}");
        hits += u32::from(there < 6 * REJECTED);
    }
    let rest = cli.json(&["pipeline", "redrive", "p", "--json"])?;
    ensure!(rest["complete"] == true, "{rest}");
    let mut back = [0; 2];
    for record in read_all(&broker.address, "in")? {
        ensure!(record.headers.is_empty(), "a letter's own headers came back: {record:?}");
        back[record.partition as usize] += usize::from(record.value == "reject");
    }
    ensure!(back == [2 * REJECTED; 2], "{back:?} records that were rejected, seed {seed}");
    let again = cli.ok(&["pipeline", "redrive", "p"])?;
    ensure!(again.starts_with("no letter went back\n"), "{again}");
    // They fail once more, and are letters again.
    cli.ok(&["pipeline", "resume", "p"])?;
    let consumer: BaseConsumer = client(&broker.address).set("group.id", "watermarks").create()?;
    until_committed(&cli, "p", &[end(&consumer, "in", 0)?, end(&consumer, "in", 1)?])?;
    let letters = read_all(&broker.address, "dead")?.len();
    ensure!(letters == 4 * REJECTED, "{letters} letters, seed {seed}");
    cli.refused(&["pipeline", "redrive", "p", "--from", "3"], 1, &["3 of them", "`partition`"])?;
    broker.stop()?;
    Ok(format!("{} letters, {kills} kills, {hits} of them in the midst of it, seed {seed}", 2 * REJECTED))
}

pub(crate) fn allowed(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe::new("p", "in", "out"))?;
    until_state(&cli, "p", "running")?;
    let digest = cli.pipeline("p")?["plugins"]["work"].as_str().unwrap_or_default().to_owned();
    broker.stop()?;

    let (_, broker, cli) = lab.start_as(|start| start.set("pelton.plugin.allow.digests", &digest))?;
    until_state(&cli, "p", "running")?;
    let Err(refused) = lab.push_variant(&cli, 7) else { bail!("a component of another digest was taken") };
    let refused = refused.to_string();
    ensure!(refused.contains("may not run on this server: its digest is not in"), "{refused}");
    broker.stop()?;

    // By a key: the one of minisign's documentation, whose signature is of other bytes.
    let (_, broker, cli) = lab.start_as(|start| start.set("pelton.plugin.allow.keys", KEY))?;
    let failed = until_state(&cli, "p", "failed")?;
    let reason = failed["failure"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&digest) && reason.contains("it is not signed"), "{reason}");
    cli.refused(&["plugin", "push", path(&lab.component)], 1, &["it is not signed", "minisign -S -m FILE"])?;
    let elsewhere = lab.write("elsewhere.minisig", SIGNATURE)?;
    let by_hand = ["plugin", "push", path(&lab.component), "--signature", &elsewhere];
    cli.refused(&by_hand, 1, &["no key of `pelton.plugin.allow.keys` has made its signature"])?;
    // Beside the component it is found.
    let file = lab.write("signed.wasm", std::fs::read(&lab.component)?)?;
    lab.write("signed.wasm.minisig", SIGNATURE)?;
    cli.refused(
        &["plugin", "push", &file],
        1,
        &["no key of `pelton.plugin.allow.keys` has made its signature"],
    )?;
    lab.write("signed.wasm.minisig", "no signature")?;
    cli.refused(&["plugin", "push", &file], 1, &["its signature cannot be read"])?;
    broker.stop()?;
    // Without a list everything runs again.
    let (_, broker, cli) = lab.start()?;
    until_state(&cli, "p", "running")?;
    broker.stop()?;
    Ok("by digest, by key, and all".to_owned())
}

/// Of minisign's documentation: a key, and its signature of `test`.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
    trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
    wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";

/// What another revision would make of a range, and of what comes in, is said, and nothing of it is written.
pub(crate) fn beside(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 2, &[])?;
    let variant = lab.push_variant(&cli, 1)?;
    lab.deploy(&cli, Pipe { tag: "-1", ..Pipe::new("p", "in", "out") })?;
    // `luck` comes out with the time of day and random bytes, as the plugin is told of them.
    for partition in 0..2 {
        produce(&address, "in", partition, &["luck", "b", "c"])?;
    }
    until_committed(&cli, "p", &[3, 3])?;
    let other = Pipe { tag: "-2", ..Pipe::new("p", "in", "out") }.manifest();
    let other = lab.write("other.toml", other.replace("\"unruly\"", &format!("\"{variant}\"")))?;
    over_a_range(lab, &cli, &address, &other)?;
    as_it_comes_in(&cli, &address, &other)?;
    broker.stop()?;
    Ok("a range, and what comes in".to_owned())
}

/// Replays come to what the pipeline has written, each time.
fn over_a_range(lab: &Lab, cli: &Cli, address: &str, other: &str) -> Result<()> {
    // The same code under another digest makes the same of it.
    let file = path(&lab.component).to_owned();
    let same = cli.ok(&["replay", "p", "--plugin", &file])?;
    ensure!(same.contains("the same records, in the same order"), "{same}");
    let replay = |args: &[&str]| -> Result<Value> {
        let ended = cli.run(&[&["replay", "p", "--json"], args].concat())?;
        ensure!(ended.stderr.is_empty() || ended.code == 1, "{ended:?}");
        let mut report: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
        for run in ["before", "after"] {
            report[run]["elapsed_ms"] = Value::Null;
        }
        Ok(report)
    };
    let first = replay(&["--from", "1"])?;
    ensure!(first["before"]["records_in"] == 4 && first["identical"] == true, "{first}");
    ensure!(replay(&["--from", "1"])? == first, "a replay came to something else: {first}");
    // Every record differs from one of the other revision, so all that the live one makes again are shown: they are those that it
    // has written.
    let compared = replay(&["--manifest", other, "--to", "2"])?;
    let shown = compared["difference"]["topics"]["out"]["first_only_before"].as_array().cloned();
    let value = |record: &Value| record["value"].as_str().unwrap_or_default().to_owned();
    let mut shown: Vec<String> = shown.unwrap_or_default().iter().map(value).collect();
    let written = read_all(address, "out")?.into_iter().map(|record| record.value);
    let mut written: Vec<String> = written.filter(|value| !value.ends_with(":c-1")).collect();
    shown.sort();
    written.sort();
    ensure!(written.len() == 4 && shown == written, "written: {written:?}, again: {shown:?}");
    let luck = written.iter().find_map(|value| value.strip_prefix("0:0:luck ")?.strip_suffix("-1"));
    ensure!(luck.is_some_and(|luck| luck.len() > 3), "INVALID: nothing of clocks or randomness: {written:?}");
    let said = cli.run(&["replay", "p", "--manifest", other, "--to", "1"])?;
    ensure!(said.code == 1 && said.stderr.contains("the two are not the same"), "{said:?}");
    for line in [
        "topic out: 2 records of revision 1 alone, 2 of the other one alone",
        "0:0:luck ",
        "-1 (time ",
        "-2 (time ",
    ] {
        ensure!(said.stdout.contains(line), "`{line}` is missing: {}", said.stdout);
    }
    cli.refused(&["replay", "p", "--from", "yesterday"], 1, &["`from` must be"])
}

/// A shadow says what it makes of what comes in, and writes nothing.
fn as_it_comes_in(cli: &Cli, address: &str, other: &str) -> Result<()> {
    let written = read_all(address, "out")?;
    cli.refused(&["pipeline", "shadow", "p"], 1, &["`p` has no shadow", "pelton deploy --shadow"])?;
    let said = cli.ok(&["deploy", other, "--shadow"])?;
    ensure!(said.contains("a shadow of pipeline p runs beside revision 1"), "{said}");
    produce(address, "in", 0, &["d", "reject", "e"])?;
    let shadow = until("both sides have read what came in", LIMIT, || {
        let shadow = cli.json(&["pipeline", "shadow", "p", "--json"])?;
        let failed = shadow["before"]["failure"].is_string() && shadow["after"]["failure"].is_string();
        Ok(failed.then_some(shadow))
    })?;
    let found = &shadow["topics"]["out"];
    ensure!(found["only_before"] == 1 && found["only_after"] == 1, "{shadow}");
    let value = |key: &str| found[key][0]["value"].as_str().unwrap_or_default().to_owned();
    let (before, after) = (value("first_only_before"), value("first_only_after"));
    ensure!(before == "0:3:d-1" && after == "0:3:d-2", "{shadow}");
    let reason = shadow["after"]["failure"].as_str().unwrap_or_default();
    ensure!(reason.contains("topic in, partition 0, offset 4"), "{shadow}");
    let said = cli.ok(&["pipeline", "shadow", "p", "--stop"])?;
    ensure!(said.contains("ended for") && said.contains("the shadow has ended early: "), "{said}");
    // The live one failed by itself at that record; what it wrote before is all there is, and of its own.
    until_state(cli, "p", "failed")?;
    let values: Vec<String> = read_all(address, "out")?.into_iter().map(|record| record.value).collect();
    ensure!(
        values.len() == written.len() + 1 && values.iter().all(|value| value.ends_with("-1")),
        "{values:?}"
    );
    Ok(())
}

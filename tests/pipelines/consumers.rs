//! Pipelines that act on the outside: the plugin `webhook`, against a server that fails, stalls and loses its answers, through
//! kills; and what such a plugin may reach.

use crate::hooks::{Hooks, Mood};
use crate::lab::{Lab, check_failure, offsets, path, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, committed, read_all, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::Path;
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 3;
/// Chains of records that wait for each other, in each partition; with `parallelism = "partition"` one.
const KEYS: usize = 12;
/// Records of a partition.
const RECORDS: usize = 160;
const KILLS: u32 = 3;

/// The ready plugin, built once for all cases.
fn webhook(lab: &Lab) -> Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/webhook");
    let component = lab.dir.join("webhook.wasm");
    let mut command = std::process::Command::new(&lab.binary);
    command.args(["plugin", "build"]).arg(&source).arg("--output").arg(&component);
    let built = command.env("CARGO_TARGET_DIR", &lab.build_dir).output().context("build webhook")?;
    ensure!(built.status.success(), "build webhook: {}", String::from_utf8_lossy(&built.stderr));
    Ok(path(&component).to_owned())
}

/// A server that stalls is not waited for.
const SHORT_MS: u32 = 150;
/// One that answers has the time to, on the slowest machine.
const LONG_MS: u32 = 60_000;

/// `keys` are those of a node beside its plugin and settings.
fn manifest(name: &str, topic: &str, (url, timeout_ms): (&str, u32), keys: &str) -> String {
    format!(
        "name = \"{name}\"\n[[source]]\nid = \"in\"\ntopic = \"{topic}\"\n\n[[node]]\nid = \"hook\"\nfrom = \"in\"\n\
         plugin = \"webhook\"\nconfig = {{ url = \"{url}\", timeout_ms = {timeout_ms}, authorization = \"Bearer ${{secret:token}}\" }}\n\
         {keys}\n"
    )
}

/// A secret of the broker's, which the manifests of the cases name.
fn write_secret(lab: &Lab) -> Result<()> {
    let dir = lab.data().join("secrets");
    std::fs::create_dir_all(&dir)?;
    Ok(std::fs::write(dir.join("hook-token"), SECRET)?)
}

const SECRET: &str = "s3cret-of-the-hook\n";

fn deploy(lab: &Lab, cli: &Cli, name: &str, text: &str) -> Result<String> {
    cli.ok(&["deploy", &lab.write(&format!("{name}.toml"), text)?])
}

/// Writes records: partition, key, value.
fn produce(bootstrap: &str, topic: &str, records: &[(i32, String, String)]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("message.timeout.ms", "20000").create()?;
    for (partition, key, value) in records {
        let record = BaseRecord::<[u8], [u8]>::to(topic).partition(*partition);
        let record = record.key(key.as_bytes()).payload(value.as_bytes());
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

/// Keys are of one partition, and each has its records numbered.
fn chains(by_key: bool) -> Vec<(i32, String, String)> {
    let mut records = Vec::new();
    for partition in 0..PARTITIONS as i32 {
        let keys = if by_key { KEYS } else { 1 };
        for i in 0..RECORDS {
            let key = format!("{partition}-{}", i % keys);
            records.push((partition, key.clone(), format!("{key}:{}", i / keys)));
        }
    }
    records
}

pub(crate) fn by_key(lab: &Lab) -> Result<String> {
    let keys = "parallelism = \"key\"\ndeliver = { threads = 6, batch = 5 }";
    through_kills(lab, "by-key", keys, &chains(true))
}

pub(crate) fn by_partition(lab: &Lab) -> Result<String> {
    through_kills(lab, "by-partition", "deliver = { batch = 20 }", &chains(false))
}

/// The server is not well and the broker is killed: every record is done, none before the one that it waits for was taken,
/// and what is committed was taken before.
fn through_kills(lab: &Lab, name: &str, keys: &str, records: &[(i32, String, String)]) -> Result<String> {
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let hooks = Hooks::start(Hooks::unwell(seed))?;
    let component = webhook(lab)?;
    let (mut start, mut broker, mut cli) = lab.start()?;
    write_secret(lab)?;
    cli.ok(&["plugin", "push", &component])?;
    create_topic(&broker.address, name, PARTITIONS, &[])?;
    let keys = format!(
        "{keys}\nallow_http = [\"127.0.0.1:{}\"]\nsecrets = {{ token = \"hook-token\" }}\n\
         on_error = {{ policy = \"retry\", attempts = 100, backoff_ms = 10 }}",
        hooks.port
    );
    produce(&broker.address, name, records)?;
    deploy(lab, &cli, name, &manifest(name, name, (&hooks.url(), SHORT_MS), &keys))?;
    let (group, mut before) = (format!("pelton.{name}"), 0);
    for kill in 0..KILLS {
        let more = rng.random_range(20..120);
        until("records are taken", LIMIT, || {
            Ok((hooks.book().taken.len() >= (before + more).min(records.len() - 1)).then_some(()))
        })
        .with_context(|| format!("after kill {kill}, seed {seed}"))?;
        broker.kill()?;
        before = hooks.book().taken.len();
        broker = start.start().context("start after a kill")?;
        cli = lab.cli(&broker)?;
        check_committed(&hooks, &committed(&broker.address, &group, name, PARTITIONS)?, name)?;
    }
    let ends = vec![RECORDS as i64; PARTITIONS as usize];
    until_committed(&cli, name, &ends).with_context(|| format!("seed {seed}"))?;
    check_committed(&hooks, &ends, name)?;
    broker.stop()?;
    let book = hooks.book();
    ensure!(book.problems.is_empty(), "seed {seed}: {:?}", &book.problems[..book.problems.len().min(10)]);
    ensure!(book.done.len() == records.len(), "{} of {} are done", book.done.len(), records.len());
    let mut done: Vec<&String> = book.done.values().collect();
    let mut wanted: Vec<&String> = records.iter().map(|(_, _, value)| value).collect();
    done.sort();
    wanted.sort();
    ensure!(done == wanted, "seed {seed}: other records were done than were written");
    ensure!(book.repeated > 0, "INVALID: no answer was lost, seed {seed}");
    let token = book.hooks.iter().all(|hook| {
        hook.headers.get("authorization").is_some_and(|text| text == "Bearer s3cret-of-the-hook")
    });
    ensure!(token, "a request came without its secret");
    let most = book.sent.values().max().copied().unwrap_or(0);
    Ok(format!(
        "{KILLS} kills, {} records, {} requests, {} done again, one {most} times, seed {seed}",
        records.len(),
        book.hooks.len(),
        book.repeated
    ))
}

/// All that is committed was taken.
fn check_committed(hooks: &Hooks, committed: &[i64], topic: &str) -> Result<()> {
    let book = hooks.book();
    for (partition, end) in committed.iter().enumerate() {
        for offset in 0..*end {
            let key = format!("{topic}/{partition}/{offset}");
            ensure!(book.taken.contains(&key), "{key} is committed, but was not taken");
        }
    }
    Ok(())
}

/// What is not granted is not reached, and what cannot be done goes by the policy.
pub(crate) fn grants(lab: &Lab) -> Result<String> {
    let hooks = Hooks::start(|hook, _| if hook.body == "bad" { Mood::Echoes(400) } else { Mood::Takes })?;
    let component = webhook(lab)?;
    let (_start, broker, cli) = lab.start()?;
    cli.ok(&["plugin", "push", &component])?;
    create_topic(&broker.address, "in", 1, &[])?;
    let records: Vec<_> = ["a", "bad", "c"].map(|value| (0, "k".to_owned(), value.to_owned())).to_vec();
    produce(&broker.address, "in", &records)?;
    let (port, url) = (hooks.port, hooks.url());
    let manifest = |name, url: &str, keys: &str| manifest(name, "in", (url, LONG_MS), keys);
    let wide = "http = { timeout = \"2m\" }";
    let named =
        format!("{wide}\nallow_http = [\"127.0.0.1:{port}\"]\nsecrets = {{ token = \"hook-token\" }}");
    // A secret that the server does not have.
    let file = lab.write("no-secret.toml", manifest("no-secret", &url, &named))?;
    cli.refused(&["deploy", &file], 1, &["hook-token", "pelton.secrets.dir", "PELTON_SECRET_HOOK_TOKEN"])?;
    write_secret(lab)?;
    // No host, another host, the same one by a name that is not granted.
    let secret = "secrets = { token = \"hook-token\" }";
    for (name, url, allow) in [
        ("nothing", url.clone(), String::new()),
        ("another", url.clone(), "allow_http = [\"hooks.example.com\"]".to_owned()),
        ("another-port", url.clone(), "allow_http = [\"127.0.0.1\"]".to_owned()),
        ("by-name", format!("http://localhost:{port}/"), format!("allow_http = [\"127.0.0.1:{port}\"]")),
    ] {
        deploy(lab, &cli, name, &manifest(name, &url, &format!("{secret}\n{allow}")))?;
        let failed = until_state(&cli, name, "failed")?;
        check_failure(&failed, "fatal", ("in", 0, 0), &["allow_http"])?;
    }
    ensure!(hooks.book().hooks.is_empty(), "something was sent that is not granted");
    // Where it stops, and where it goes on.
    deploy(lab, &cli, "stops", &manifest("stops", &url, &named))?;
    let failed = until_state(&cli, "stops", "failed")?;
    // The server has told what it was sent, and it is told without the secret.
    check_failure(&failed, "reject", ("in", 0, 1), &["answers 400", "you sent Bearer ***"])?;
    ensure!(offsets(&failed) == [1], "it stops before the record: {failed}");
    let dead = format!("{named}\non_error = {{ policy = \"dead-letter\", topic = \"dead\" }}");
    deploy(lab, &cli, "stops", &manifest("stops", &url, &dead))?;
    until_committed(&cli, "stops", &[3])?;
    let letters = read_all(&broker.address, "dead")?;
    let [letter] = &letters[..] else { anyhow::bail!("{letters:?}") };
    let header =
        |name: &str| letter.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    ensure!(
        letter.value == "bad" && letter.key == "k" && header("pelton.error.offset") == Some("1"),
        "{letter:?}"
    );
    let bodies: Vec<String> = hooks.book().hooks.iter().map(|hook| hook.body.clone()).collect();
    ensure!(bodies == ["a", "bad", "bad", "c"], "{bodies:?}");
    // The secret is in the requests alone, whole or in part.
    let told = [
        cli.ok(&["pipeline", "describe", "stops", "--json"])?,
        cli.ok(&["pipeline", "logs", "stops"])?,
        std::fs::read_to_string(lab.log())?,
        failed.to_string(),
        format!("{letter:?}"),
    ];
    let sent = |hook: &crate::hooks::Hook| hook.headers.get("authorization").cloned().unwrap_or_default();
    ensure!(
        hooks.book().hooks.iter().all(|hook| sent(hook) == format!("Bearer {}", SECRET.trim())),
        "it was not sent"
    );
    let part = &SECRET[..6];
    ensure!(!told.iter().any(|text| text.contains(part)), "the secret was told: {told:?}");
    broker.stop()?;
    Ok("five ways to nothing, one to the server".to_owned())
}

/// New consumers do what they say as they are: one says something of records, one posts them.
pub(crate) fn new_ones(lab: &Lab) -> Result<String> {
    let hooks = Hooks::start(|_, _| Mood::Takes)?;
    let (_start, broker, cli) = lab.start()?;
    create_topic(&broker.address, "words", 1, &[])?;
    produce(
        &broker.address,
        "words",
        &[(0, "a".to_owned(), "no".to_owned()), (0, "b".to_owned(), "much".to_owned())],
    )?;
    for world in ["consumer", "consumer-http"] {
        let dir = lab.dir.join(format!("new-{world}"));
        let steps = cli.ok(&["plugin", "new", path(&dir), "--world", world])?;
        ensure!(steps.contains("next: pelton plugin build"), "{steps}");
        let manifest = dir.join("pipeline.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(&manifest, text.replace("127.0.0.1:9000", &format!("127.0.0.1:{}", hooks.port)))?;
        cli.ok(&["deploy", path(&dir)])?;
        let seen = until_committed(&cli, &format!("new-{world}"), &[2])?;
        ensure!(seen["state"] == "running", "{seen}");
    }
    let said = cli.ok(&["pipeline", "logs", "new-consumer"])?;
    ensure!(said.contains("words/0/1 has 4 bytes") && !said.contains("words/0/0"), "{said}");
    let bodies: Vec<String> = hooks.book().done.values().cloned().collect();
    ensure!(
        bodies.len() == 2 && bodies.contains(&"no".to_owned()) && bodies.contains(&"much".to_owned()),
        "{bodies:?}"
    );
    broker.stop()?;
    Ok("consumer, consumer-http".to_owned())
}

/// What a transform emits is given through a topic of the pipeline's own; a server that hangs holds up a stop for a few seconds.
pub(crate) fn behind_a_node(lab: &Lab) -> Result<String> {
    let hooks = Hooks::start(|hook, before| match hook.body.as_str() {
        "hang" if before == 0 => Mood::Hangs,
        _ => Mood::Takes,
    })?;
    let component = webhook(lab)?;
    let (_start, broker, cli) = lab.start()?;
    cli.ok(&["plugin", "push", &component])?;
    create_topic(&broker.address, "in", 2, &[])?;
    let values = ["keep 1", "leave 2", "keep 3", "hang"];
    let records: Vec<_> = values.iter().map(|value| (1, (*value).to_owned(), (*value).to_owned())).collect();
    produce(&broker.address, "in", &records)?;
    let text = format!(
        "name = \"behind\"\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\n\
         [[node]]\nid = \"some\"\nfrom = \"in\"\nbranch = {{ leave = \"raw = 'leave 2'\" }}\n\n\
         [[node]]\nid = \"hook\"\nfrom = \"some:rest\"\nplugin = \"webhook\"\nconfig = {{ url = \"{}\", timeout_ms = 0 }}\n\
         allow_http = [\"127.0.0.1:{}\"]\nhttp = {{ timeout = \"10m\" }}\nparallelism = \"key\"\n\n\
         [[sink]]\nfrom = \"some:leave\"\ntopic = \"left\"\n",
        hooks.url(),
        hooks.port
    );
    deploy(lab, &cli, "behind", &text)?;
    until("two are taken and one hangs", LIMIT, || {
        let book = hooks.book();
        Ok((book.taken.len() == 2 && book.sent.len() == 3).then_some(()))
    })?;
    let began = Instant::now();
    cli.ok(&["pipeline", "pause", "behind"])?;
    ensure!(began.elapsed() < Duration::from_secs(30), "a stop waits for a server that hangs");
    let paused = until_state(&cli, "behind", "paused")?;
    cli.ok(&["pipeline", "resume", "behind"])?;
    until("the one that hung is sent again", LIMIT, || Ok((hooks.book().taken.len() == 3).then_some(())))
        .with_context(|| format!("it was {paused}"))?;
    {
        let book = hooks.book();
        let keys: Vec<&String> = book.taken.iter().collect();
        ensure!(keys.iter().all(|key| key.starts_with("__pelton_behind-hook-repartition/")), "{keys:?}");
        let bodies: Vec<&String> = book.done.values().collect();
        ensure!(bodies.len() == 3 && !bodies.contains(&&"leave 2".to_owned()), "{bodies:?}");
    }
    until("all is committed", LIMIT, || {
        let described = cli.pipeline("behind")?;
        let lags = described["tasks"].as_array().into_iter().flatten().map(|task| task["lag"].as_i64());
        Ok(lags.sum::<Option<i64>>().filter(|lag| *lag == 0).map(drop))
    })?;
    let left = read_all(&broker.address, "left")?;
    ensure!(left.len() == 1 && left[0].value == "leave 2", "{left:?}");
    broker.stop()?;
    Ok("one that hangs is sent again".to_owned())
}

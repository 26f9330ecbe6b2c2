//! A topic with a partitioner of its own under other people's producers, idempotent and transactional ones, while the broker is
//! killed and the topic grows. Each program writes one round after the other and says what became of it.

use crate::case::Lab;
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::records::{LIMIT, read_all, until};
use pelton_tests::routed::{CONFIG, Fate, PARTITIONS, Written, check, plugin};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const TOPIC: &str = "flights";
/// Rounds before, between and behind faults.
const ROUNDS: u32 = 5;
/// When the broker is killed in a round, at most.
const INTO_ROUND_MS: u64 = 60;

/// A program that writes rounds.
struct Writer {
    name: String,
    log: PathBuf,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    fates: Vec<Fate>,
}

impl Writer {
    fn start(name: String, command: &[String], log: &Path) -> Result<Writer> {
        let (program, args) = command.split_first().context("no program")?;
        let file = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(program)
            .args(args)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {program}; clients/setup.sh installs it"))?;
        let input = child.stdin.take().context("its standard input")?;
        let output = BufReader::new(child.stdout.take().context("its standard output")?);
        Ok(Writer { name, log: log.to_owned(), child, input, output, fates: Vec::new() })
    }

    /// Has it write the next round.
    fn tell(&mut self) -> Result<()> {
        writeln!(self.input, "{} {}", self.fates.len(), PARTITIONS[0])
            .with_context(|| format!("tell {}: {}", self.name, self.last_words()))
    }

    /// What became of it.
    fn hear(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        self.fates.push(match line.trim() {
            "there" => Fate::There,
            "aborted" => Fate::Aborted,
            "unknown" => Fate::Unknown,
            other => {
                bail!("{} says `{other}` of round {}: {}", self.name, self.fates.len(), self.last_words())
            }
        });
        Ok(())
    }

    /// The end of what it wrote to its standard error.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended already, or is no longer wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// How each client is started, up to what all of them are told.
    fn clients(&self) -> [(&'static str, Vec<String>); 4] {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let at = |path: PathBuf| path.display().to_string();
        let python = vec![at(self.cache.join("python/bin/python")), at(own.join("rounds.py"))];
        let node =
            vec!["env".to_owned(), format!("NODE_PATH={}", at(self.cache.join("kafkajs/node_modules")))];
        let kafkajs = [node, vec!["node".to_owned(), at(own.join("kafkajs/rounds.js"))]].concat();
        let franz = vec![at(self.cache.join("franz/franz")), "rounds".to_owned()];
        [("confluent", python), ("java", self.java("Rounds")), ("franz", franz), ("kafkajs", kafkajs)]
    }

    fn writers(&self, bootstrap: &str) -> Result<Vec<Writer>> {
        let kinds = ["idempotent", "transactional"];
        let one = |(client, command): &(&str, Vec<String>), kind: &str| {
            let name = format!("{client}_{kind}");
            let mut command = command.clone();
            command.extend([bootstrap, TOPIC, &name, kind].map(str::to_owned));
            let log = self.dir.join(format!("{name}.log"));
            Writer::start(name, &command, &log)
        };
        let clients = self.clients();
        clients.iter().flat_map(|client| kinds.map(|kind| one(client, kind))).collect()
    }
}

/// What is under test, and who writes.
struct Run<'a> {
    lab: &'a Lab,
    start: Start,
    broker: Broker,
    cli: Cli,
    writers: Vec<Writer>,
}

impl Run<'_> {
    fn rounds(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.writers.iter_mut().try_for_each(Writer::tell)?;
            self.writers.iter_mut().try_for_each(Writer::hear)?;
        }
        Ok(())
    }

    /// The broker is killed while a round is on its way.
    fn round_with_kill(mut self, after: Duration) -> Result<Self> {
        self.writers.iter_mut().try_for_each(Writer::tell)?;
        // A moment chosen by chance, not a wait for something.
        std::thread::sleep(after);
        self.broker.kill()?;
        self.broker = self.start.start().context("start after a kill")?;
        self.cli = self.lab.cli(&self.broker)?;
        self.writers.iter_mut().try_for_each(Writer::hear)?;
        Ok(self)
    }

    /// Waits until everything that was written is routed.
    fn until_routed(&self) -> Result<()> {
        let mut last = serde_json::Value::Null;
        let waited = until("the router to have routed everything", LIMIT, || {
            last = self.cli.json(&["topic", "describe", TOPIC, "--json"])?["routing"].clone();
            let done = last["unrouted_bytes"].as_u64() == Some(0) && last["state"] == "running";
            Ok(done.then_some(()))
        });
        waited.with_context(|| format!("it says {last}"))
    }
}

impl Lab {
    fn cli(&self, broker: &Broker) -> Result<Cli> {
        Cli::new(&self.binary, broker, &self.dir.join("data"), &self.dir.join("build"))
    }
}

/// See the module.
pub(crate) fn obeyed(lab: &Lab) -> Result<String> {
    let mut start = Start::new(&lab.binary, &lab.dir.join("data"), &lab.dir.join("broker.log")).with_http();
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    let (plugin, partitions) = (plugin(), PARTITIONS[0].to_string());
    let plugin = plugin.to_str().context("a path that is no text")?;
    cli.ok(&["topic", "create", TOPIC, "--partitions", &partitions, "--partitioner", plugin, "-c", CONFIG])?;
    let writers = lab.writers(&broker.address)?;
    let mut rng = StdRng::seed_from_u64(lab.seed);
    let mut run = Run { lab, start, broker, cli, writers };
    let mut grown_at = 0;
    let growth = lab.faults / 2;
    for fault in 0..lab.faults {
        run.rounds(ROUNDS)?;
        if fault == growth {
            run.until_routed()?;
            grown_at = run.writers[0].fates.len();
            run.cli.ok(&["topic", "alter", TOPIC, "--partitions", &PARTITIONS[1].to_string()])?;
            run.rounds(ROUNDS)?;
        }
        let after = Duration::from_millis(rng.random_range(0..INTO_ROUND_MS));
        run = run.round_with_kill(after).with_context(|| format!("fault {fault}"))?;
    }
    run.rounds(ROUNDS)?;
    run.until_routed()?;
    let records = read_all(&run.broker.address, TOPIC)?;
    let written: Vec<Written<'_>> =
        run.writers.iter().map(|writer| Written { name: &writer.name, fates: &writer.fates }).collect();
    check(&records, &written, grown_at)?;
    let fates = || written.iter().flat_map(|writer| writer.fates);
    let (there, unknown) = (
        fates().filter(|fate| **fate == Fate::There).count(),
        fates().filter(|fate| **fate == Fate::Unknown).count(),
    );
    ensure!(there > 0 && grown_at > 0, "{there} rounds are there, and the topic grew at {grown_at}");
    let (records, faults) = (records.len(), lab.faults);
    Ok(format!(
        "{} producers, {records} records, {faults} kills of the broker, {unknown} transactions unknown",
        written.len()
    ))
}

//! A client that is frozen in the middle of a transaction, taken over by another of the same transactional id, and thawed:
//! nothing that it writes is ever seen, and it is told.

use super::Lab;
use anyhow::{Context, Result, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, read_all, until};
use pelton_tests::say;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The argument with which this program is a zombie of the older protocol.
pub(crate) const ARGUMENT: &str = "--be-a-zombie";
const TOPIC: &str = "graves";
/// The zombies' transactional id.
const ID: &str = "undead";
/// `transaction.timeout.ms` of the zombies.
const TIMEOUT: Duration = Duration::from_secs(2);

/// When another takes the transactional id over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While the transaction is open.
    Open,
    /// After the broker has aborted it.
    TimedOut,
}

pub(crate) fn older_timed_out(lab: &Lab) -> Result<Option<String>> {
    older(lab, Moment::TimedOut).map(Some)
}

pub(crate) fn older_taken_over(lab: &Lab) -> Result<Option<String>> {
    older(lab, Moment::Open).map(Some)
}

pub(crate) fn newer_timed_out(lab: &Lab) -> Result<Option<String>> {
    newer(lab, Moment::TimedOut)
}

pub(crate) fn newer_taken_over(lab: &Lab) -> Result<Option<String>> {
    newer(lab, Moment::Open)
}

fn older(lab: &Lab, moment: Moment) -> Result<String> {
    haunt(lab, moment, |bootstrap| {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([ARGUMENT, bootstrap]);
        command
    })
}

fn newer(lab: &Lab, moment: Moment) -> Result<Option<String>> {
    let Some(franz) = &lab.franz else { return Ok(None) };
    haunt(lab, moment, |bootstrap| {
        let mut command = Command::new(franz);
        command.args(["rig", "zombie", bootstrap, ID, TOPIC]);
        command
    })
    .map(Some)
}

/// The zombie's process, ended whatever happens.
struct Zombie {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Zombie {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Zombie {
    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the zombie said nothing more")??)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

fn haunt(lab: &Lab, moment: Moment, command: impl FnOnce(&str) -> Command) -> Result<String> {
    let broker = lab.start(None)?;
    create_topic(&broker.address, TOPIC, 1, &[])?;
    let mut command = command(&broker.address);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start the zombie")?;
    let stdout = child.stdout.take().context("the zombie's standard output")?;
    let mut zombie = Zombie { child, lines: BufReader::new(stdout).lines() };
    let first = zombie.line()?;
    ensure!(first == "open", "the zombie has no open transaction: {first}");
    ensure!(seen(&broker.address)? == ["before"], "an open transaction was seen");

    zombie.signal(Signal::STOP)?;
    let frozen = Instant::now();
    if moment == Moment::TimedOut {
        // Not before its time, and soon after it.
        until("end of the open transaction", LIMIT, || Ok(all_is_stable(&broker.address)?.then_some(())))?;
        let took = frozen.elapsed();
        ensure!(took + Duration::from_millis(500) > TIMEOUT, "aborted after {took:?}, before its time");
    }
    let other = transactional(&broker.address, LIMIT)?;
    write(&other, "taken over")?;
    other.commit_transaction(LIMIT)?;
    zombie.signal(Signal::CONT)?;
    zombie.child.stdin.take().context("the zombie's standard input")?.write_all(b"\n")?;

    let (wrote, committed) = (zombie.line()?, zombie.line()?);
    let fenced = ["fenced", "epoch"].iter().any(|word| wrote.to_lowercase().contains(word));
    ensure!(fenced, "the zombie was not told: {wrote}");
    ensure!(
        !committed.ends_with(": ok") && !committed.ends_with("<nil>"),
        "the zombie could commit: {committed}"
    );
    // The other goes on, and its transactions end: so nothing of the zombie's is only waiting to be seen.
    other.begin_transaction()?;
    write(&other, "after")?;
    other.commit_transaction(LIMIT)?;
    let found = seen(&broker.address)?;
    ensure!(found == ["before", "taken over", "after"], "seen: {found:?}");
    drop(zombie);
    broker.stop()?;
    Ok(format!("told `{wrote}` and `{committed}`"))
}

fn seen(bootstrap: &str) -> Result<Vec<String>> {
    Ok(read_all(bootstrap, TOPIC)?.into_iter().map(|read| read.value).collect())
}

/// Whether readers may read all there is.
fn all_is_stable(bootstrap: &str) -> Result<bool> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let end = |isolation: &str| -> Result<i64> {
        let consumer: BaseConsumer =
            client(bootstrap).set("group.id", "ends").set("isolation.level", isolation).create()?;
        Ok(consumer.fetch_watermarks(TOPIC, 0, LIMIT)?.1)
    };
    Ok(end("read_committed")? == end("read_uncommitted")?)
}

fn transactional(bootstrap: &str, timeout: Duration) -> Result<BaseProducer> {
    let timeout = timeout.as_millis().to_string();
    let producer: BaseProducer = client(bootstrap)
        .set("transactional.id", ID)
        .set("transaction.timeout.ms", &timeout)
        .set("message.timeout.ms", &timeout)
        .set("socket.timeout.ms", "2000")
        .set("linger.ms", "0")
        .create()?;
    producer.init_transactions(LIMIT)?;
    producer.begin_transaction()?;
    Ok(producer)
}

fn write(producer: &BaseProducer, value: &str) -> Result<()> {
    let record = BaseRecord::<(), [u8]>::to(TOPIC).partition(0).payload(value.as_bytes());
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(producer.flush(LIMIT)?)
}

/// What the zombie does: one transaction whole, and in the second it writes without end, until it is told to commit.
pub(crate) fn be(arguments: &[String]) -> Result<()> {
    let [bootstrap] = arguments else { anyhow::bail!("{ARGUMENT} BOOTSTRAP") };
    let producer = transactional(bootstrap, TIMEOUT)?;
    write(&producer, "before")?;
    producer.commit_transaction(LIMIT)?;
    producer.begin_transaction()?;
    write(&producer, "open")?;
    say(format_args!("open"));
    let (told, listen) = mpsc::channel();
    std::thread::spawn(move || {
        let read = std::io::stdin().lock().read_line(&mut String::new());
        let _ = told.send(read);
    });
    while listen.recv_timeout(Duration::from_millis(1)).is_err() {
        let record = BaseRecord::<(), [u8]>::to(TOPIC).partition(0).payload(&b"more"[..]);
        // A full queue, or what it will be told below.
        let _ = producer.send(record);
        producer.poll(Duration::ZERO);
    }
    let tell = |what: &str, result: Result<(), String>| {
        say(format_args!("{what}: {}", result.err().unwrap_or_else(|| "ok".to_owned())));
    };
    let wrote = write(&producer, "thawed").map_err(|error| format!("{error:#}"));
    let fatal = producer.client().fatal_error().map(|(code, text)| format!("{code}: {text}"));
    let committed = producer.commit_transaction(LIMIT).map_err(|error| error.to_string());
    // Its records may have timed out while it was frozen: then librdkafka refuses all but an abort without asking the broker,
    // and it is the abort that the broker answers.
    if (wrote.is_err() || committed.is_err()) && producer.client().fatal_error().is_none() {
        drop(producer.abort_transaction(LIMIT));
    }
    let fatal =
        fatal.or_else(|| producer.client().fatal_error().map(|(code, text)| format!("{code}: {text}")));
    tell("write", fatal.map_or(wrote, Err));
    tell("commit", committed);
    Ok(())
}

//! Both guarantees, through kills: every acknowledged input record has its output, outputs of one input partition come in
//! order, and what is committed never runs ahead of what was written. At least once, some come again; exactly once, none.

use crate::lab::{Lab, Pipe, offsets, path};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, committed, deleted, read_all, read_from, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const INPUT: &str = "kill-in";
const OUTPUT: &str = "kill-out";
pub(crate) const PIPELINE: &str = "kill";
const GROUP: &str = "pelton.kill";
const PARTITIONS: u32 = 5;
/// Records without acknowledgement at which the producer waits.
const IN_FLIGHT: u64 = 500;

/// Where each acknowledged record is: (partition, offset) and its number.
type Acked = Vec<(i32, i64, u64)>;

#[derive(Clone, Default)]
struct Ledger {
    acked: Arc<Mutex<Acked>>,
    problems: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

impl Ledger {
    fn in_flight(&self) -> u64 {
        self.sent.load(Ordering::Acquire).saturating_sub(self.done.load(Ordering::Acquire))
    }
}

impl ClientContext for Ledger {}

impl ProducerContext for Ledger {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => {
                let entry = (message.partition(), message.offset(), number as u64);
                self.acked.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
            Err((error, _)) => {
                let text = format!("record {number} was given up: {error}");
                self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
        self.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// What the output topic has shown so far to a read-committed reader, by input partition.
struct Shown {
    exactly_once: bool,
    /// Where the next read of the output begins.
    from: Vec<i64>,
    /// One past the last input offset whose output was seen without a gap.
    ends: Vec<i64>,
    /// The input offset of the last output.
    last: Vec<i64>,
    /// Input offset to value, as the outputs have it.
    values: HashMap<(i32, i64), String>,
    replayed: u64,
}

impl Shown {
    fn new(exactly_once: bool) -> Shown {
        let none = || vec![0; PARTITIONS as usize];
        let last = vec![-1; PARTITIONS as usize];
        Shown { exactly_once, from: Vec::new(), ends: none(), last, values: HashMap::new(), replayed: 0 }
    }

    /// Reads what came since the last time. Each output goes one input record on, or back to one that was shown before.
    fn read_on(&mut self, bootstrap: &str) -> Result<()> {
        for Read { value, key, offset: at, .. } in read_from(bootstrap, OUTPUT, &mut self.from)? {
            let mut parts = value.splitn(3, ':');
            let mut number = || parts.next().and_then(|text| text.parse::<i64>().ok());
            let (Some(partition), Some(offset)) = (number(), number()) else { bail!("output {at}: {value}") };
            let lane = usize::try_from(partition)?;
            ensure!(key == partition.to_string() && lane < self.ends.len(), "output {at}: {key} {value}");
            let last = self.last[lane];
            ensure!(
                offset == last + 1 || (offset <= last && offset >= 0),
                "input [{partition}] {offset} came out behind {last}: records between them are skipped"
            );
            if offset < self.ends[lane] {
                ensure!(!self.exactly_once, "input [{partition}] {offset} came out again");
                self.replayed += 1;
            }
            self.last[lane] = offset;
            self.ends[lane] = self.ends[lane].max(offset + 1);
            let text = parts.next().unwrap_or_default().to_owned();
            let before = self.values.insert((partition as i32, offset), text.clone());
            ensure!(
                before.is_none_or(|before| before == text),
                "input [{partition}] {offset} came out as two"
            );
        }
        Ok(())
    }

    /// What is committed was written before: its outputs are there now.
    fn check_committed(&mut self, bootstrap: &str, before: &mut Vec<i64>) -> Result<()> {
        let offsets = committed(bootstrap, GROUP, INPUT, PARTITIONS)?;
        self.read_on(bootstrap)?;
        for (partition, (offset, end)) in offsets.iter().zip(&self.ends).enumerate() {
            ensure!(offset <= end, "[{partition}]: {offset} is committed, but outputs end at {end}");
        }
        ensure!(
            offsets.iter().zip(before.iter()).all(|(now, before)| now >= before),
            "commits went back from {before:?} to {offsets:?}"
        );
        *before = offsets;
        Ok(())
    }
}

pub(crate) fn kills_exactly_once(lab: &Lab) -> Result<String> {
    let kills = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    through_kills(lab, "exactly-once", kills, &mut changes)
}

pub(crate) fn kills_at_least_once(lab: &Lab) -> Result<String> {
    let kills = settings::from_env("PELTON_PIPELINE_KILLS", 12)?;
    through_kills(lab, "at-least-once", kills, &mut changes)
}

/// What happens before each kill, and may go on until it. `pipe` is what runs at first.
pub(crate) type Change<'a> = dyn FnMut(&Lab, &Cli, Pipe<'_>, &mut StdRng) -> Result<Under> + 'a;

/// What is under way when the broker is killed: it is waited for afterwards, and ends since nobody answers any more.
pub(crate) type Under = Option<JoinHandle<Result<()>>>;

/// Kills during which coordinators write snapshots.
const SNAPSHOT_KILLS: u32 = 10;

/// Kills the broker so many times while records come in, and checks what comes out of a pipeline.
pub(crate) fn through_kills(
    lab: &Lab,
    guarantee: &str,
    kills: u32,
    change: &mut Change<'_>,
) -> Result<String> {
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, mut cli) = lab.start_as(with_snapshots)?;
    cli.ok(&["plugin", "push", path(&lab.component)])?;
    create_topic(&broker.address, INPUT, PARTITIONS, &[("segment.bytes", "1048576")])?;
    create_topic(&broker.address, OUTPUT, 3, &[("segment.bytes", "1048576")])?;
    let pipe = Pipe { deadline_ms: 5_000, guarantee, ..Pipe::new(PIPELINE, INPUT, OUTPUT) };
    lab.deploy(&cli, pipe)?;
    let (ledger, stop) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let load = {
        let (address, ledger, stop) = (broker.address.clone(), ledger.clone(), Arc::clone(&stop));
        std::thread::spawn(move || produce(&address, ledger, &stop))
    };
    let (mut shown, mut before) = (Shown::new(guarantee == "exactly-once"), vec![-1; PARTITIONS as usize]);
    for kill in 0..kills {
        // Mostly it has come further than when it was killed last; sometimes it has only just begun.
        let patient = rng.random_ratio(3, 4);
        until("the pipeline goes on", LIMIT, || {
            let now = offsets(&cli.pipeline(PIPELINE)?);
            let further = now.len() == before.len() && now.iter().zip(&before).any(|(now, old)| now > old);
            Ok((further || !patient).then_some(()))
        })
        .with_context(|| format!("after kill {kill}, seed {seed}; {}", start.last_words()))?;
        let under = change(lab, &cli, pipe, &mut rng)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..300)));
        until("records are in flight", LIMIT, || Ok((ledger.in_flight() > 0).then_some(())))?;
        broker.kill()?;
        if let Some(under) = under {
            under.join().map_err(|_| anyhow::anyhow!("what was under way panicked"))??;
        }
        broker = start.start().context("start after a kill")?;
        cli = lab.cli(&broker)?;
        shown
            .check_committed(&broker.address, &mut before)
            .with_context(|| format!("kill {kill}, seed {seed}"))?;
    }
    stop.store(true, Ordering::Release);
    let sent = load.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
    settle(&broker, &mut shown, &mut before)?;
    all_came_out(&ledger, &shown, sent).with_context(|| format!("seed {seed}"))?;
    let superseded = deleted(&broker.address, "__consumer_offsets")?;
    // Few kills are over before enough was committed.
    ensure!(
        superseded > 0 || kills < SNAPSHOT_KILLS,
        "INVALID: the group coordinator has written no snapshot"
    );
    if guarantee == "exactly-once" {
        let superseded = deleted(&broker.address, "__transaction_state")?;
        ensure!(
            superseded > 0 || kills < SNAPSHOT_KILLS,
            "INVALID: the transaction coordinator has written no snapshot"
        );
    }
    broker.stop()?;
    Ok(format!("{kills} kills, {sent} records acknowledged, {} replayed, seed {seed}", shown.replayed))
}

/// Small, so that the coordinators write snapshots between kills.
fn with_snapshots(start: Start) -> Start {
    let topics = ["offsets.topic", "transaction.state.log"];
    let start =
        topics.iter().fold(start, |start, topic| start.set(&format!("{topic}.segment.bytes"), 1 << 20));
    start.set("pelton.snapshot.check.interval.ms", 20).set("pelton.snapshot.min.bytes", 64 << 10)
}

/// Whether all that was sent was acknowledged, and has come out as it was.
fn all_came_out(ledger: &Ledger, shown: &Shown, sent: u64) -> Result<()> {
    let acked = std::mem::take(&mut *ledger.acked.lock().unwrap_or_else(PoisonError::into_inner));
    let problems = ledger.problems.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(acked.len() as u64 == sent, "{} of {sent} records were acknowledged", acked.len());
    for (partition, offset, number) in &acked {
        let value = shown.values.get(&(*partition, *offset));
        ensure!(
            value == Some(&number.to_string()),
            "record {number}, acknowledged at [{partition}] {offset}, came out as {value:?}"
        );
    }
    Ok(())
}

/// A change that happens between two commits, or none: nothing is lost or doubled by it either.
fn changes(lab: &Lab, cli: &Cli, pipe: Pipe<'_>, rng: &mut StdRng) -> Result<Under> {
    match rng.random_range(0..4) {
        0 => {
            cli.ok(&["pipeline", "pause", PIPELINE])?;
            cli.ok(&["pipeline", "resume", PIPELINE])?;
        }
        1 => drop(lab.deploy(cli, pipe)?),
        2 => {
            cli.ok(&["pipeline", "delete", PIPELINE])?;
            lab.deploy(cli, pipe)?;
        }
        _ => {}
    }
    Ok(None)
}

/// Waits until everything is processed, and compares with the input as it is stored.
fn settle(broker: &Broker, shown: &mut Shown, before: &mut Vec<i64>) -> Result<()> {
    let input = read_all(&broker.address, INPUT)?;
    let mut ends = vec![0; PARTITIONS as usize];
    for record in &input {
        ends[record.partition as usize] = record.offset + 1;
    }
    until("everything is committed", LIMIT, || {
        Ok((committed(&broker.address, GROUP, INPUT, PARTITIONS)? == ends).then_some(()))
    })?;
    shown.check_committed(&broker.address, before)?;
    for record in &input {
        let value = shown.values.get(&(record.partition, record.offset));
        ensure!(value == Some(&record.value), "{record:?} came out as {value:?}");
    }
    ensure!(shown.values.len() == input.len(), "{} records made {}", input.len(), shown.values.len());
    Ok(())
}

fn produce(bootstrap: &str, ledger: Ledger, stop: &AtomicBool) -> Result<u64> {
    let mut config = client(bootstrap);
    config.set("enable.idempotence", "true").set("linger.ms", "1").set("message.timeout.ms", "120000");
    let shared = ledger.clone();
    let producer: ThreadedProducer<Ledger> = config.create_with_context(ledger)?;
    while !stop.load(Ordering::Acquire) {
        for _ in 0..50 {
            if shared.in_flight() >= IN_FLIGHT {
                break;
            }
            let sent = shared.sent.fetch_add(1, Ordering::AcqRel);
            let value = sent.to_string();
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(INPUT, sent as usize);
            let record = record.partition((sent % u64::from(PARTITIONS)) as i32).payload(value.as_bytes());
            producer.send(record).map_err(|(error, _)| error)?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(60)).context("the last records")?;
    Ok(shared.sent.load(Ordering::Acquire))
}

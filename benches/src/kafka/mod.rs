//! pelton beside Apache Kafka: the same disk, the same topics, the same librdkafka client, one after the other.

mod figures;
mod load;
mod peer;
mod pipelines;
mod restore;

use crate::Bench;
use crate::client::Conn;
use crate::latency::{self, Path};
use crate::server::Server;
use anyhow::{Context, ensure};
use figures::{Figures, Side, Table};
use peer::{Installed, Kafka, Subject};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

/// Partitions of the topics that are produced to and consumed.
const PARTITIONS: [i32; 2] = [1, 100];
/// What makes Apache Kafka sync each batch before it acknowledges it.
const SYNCED: &[(&str, &str)] = &[("flush.messages", "1")];
/// Records a second where latency alone is measured.
const PACE: u32 = 1_000;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(300);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Rounds; the table has the median of them.
    pub(crate) rounds: usize,
    /// Not measured: a Java virtual machine compiles first what it runs often. Under full load this is processor time of
    /// the server, so that a busy machine does not cut it short.
    pub(crate) warm_up: Duration,
    /// Records that Kafka Streams passes on.
    pub(crate) pipeline_records: u64,
    /// Only 1 KiB records over 100 partitions where there is a choice.
    pub(crate) quick: bool,
}

impl Extent {
    pub(crate) fn new(rounds: usize, quick: bool) -> Extent {
        let (warm_up, pipeline_records) = if quick { (3, 400_000) } else { (10, 2_000_000) };
        Extent { rounds, warm_up: Duration::from_secs(warm_up), pipeline_records, quick }
    }
}

pub(crate) fn run(bench: &Bench, extent: Extent) -> anyhow::Result<()> {
    let installed = Installed::get()?;
    println!(
        "pelton beside Apache Kafka {} (its start script's 1 GiB heap), one librdkafka client, acks=all, one broker at a time.\n\
         pelton syncs before it acknowledges. Kafka as it comes does not; flush.messages=1 makes it sync.",
        installed.version
    );
    let mut table = Table::default();
    for round in 1..=extent.rounds {
        println!("\nround {round} of {}", extent.rounds);
        let mut run = Run { bench, extent, installed: &installed, table: &mut table };
        run.produce_and_consume()?;
        run.paced()?;
        run.commits()?;
        run.pipelines()?;
        if !extent.quick {
            run.restores()?;
        }
    }
    println!("\n{}", table.text());
    Ok(())
}

/// One round; it prints each figure as it comes.
struct Run<'a> {
    bench: &'a Bench,
    extent: Extent,
    installed: &'a Installed,
    table: &'a mut Table,
}

impl Run<'_> {
    /// Does the same work on each side's broker in turn; each has an empty directory, gone before the next one starts.
    fn on_each<T>(
        &self,
        sides: &[Side],
        mut work: impl FnMut(&dyn Subject, &[(&str, &str)]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<(Side, T)>> {
        let mut done = Vec::new();
        for &side in sides {
            let configs = if side == Side::KafkaSynced { SYNCED } else { &[] };
            let dir = self.bench.dir.path().join("beside");
            let result = if side == Side::Pelton {
                work(&Server::open(&self.bench.binary, &dir)?, configs)
            } else {
                work(&Kafka::start(self.installed, &dir)?, configs)
            };
            std::fs::remove_dir_all(dir)?;
            done.push((side, result.with_context(|| side.name())?));
        }
        Ok(done)
    }

    fn add(&mut self, what: &str, side: Side, figures: Figures) {
        println!("  {what}: {}: {}", side.name(), figures.text());
        self.table.add(what, side, figures);
    }

    fn produce_and_consume(&mut self) -> anyhow::Result<()> {
        for &size in &self.bench.sizes {
            for partitions in PARTITIONS {
                if self.extent.quick && (size, partitions) != (1024, 100) {
                    continue;
                }
                let done = self.on_each(&Side::ALL, |subject, configs| {
                    create_topic(subject.address(), "load", partitions, configs)?;
                    let produced = load::produce(self.bench, self.extent, subject, partitions, size)?;
                    Ok((produced, load::consume(subject, partitions)?))
                })?;
                let what =
                    |verb: &str| format!("{verb} {size} B, {partitions} partition{}", plural(partitions));
                for (side, (produced, consumed)) in done {
                    self.add(&what("produce"), side, produced);
                    // How a topic is synced is nothing to its consumers.
                    if side != Side::KafkaSynced {
                        self.add(&what("consume"), side, consumed);
                    }
                }
            }
        }
        Ok(())
    }

    fn paced(&mut self) -> anyhow::Result<()> {
        // Not with flush.messages=1: a sync for each small batch does not keep the pace on every disk.
        let done = self.on_each(&[Side::Pelton, Side::Kafka], |subject, _| {
            create_topic(subject.address(), "pace", 1, &[])?;
            let path =
                Path { address: subject.address(), input: "pace", output: "pace", records_per_s: PACE };
            end_to_end(self.bench, self.extent, || subject.cpu(), || subject.peak(), &path)
        })?;
        for (side, figures) in done {
            self.add(&format!("end to end, {PACE} records/s of 100 B, linger.ms=0"), side, figures);
        }
        Ok(())
    }

    fn commits(&mut self) -> anyhow::Result<()> {
        let sides = [Side::Pelton, Side::Kafka];
        let done = self.on_each(&sides, |subject, _| load::commits(self.bench, self.extent, subject))?;
        for (side, figures) in done {
            self.add("transaction of one record; latency of its commit", side, figures);
        }
        Ok(())
    }
}

/// Makes a topic and waits until its partitions have their leaders: Kafka answers before that.
fn create_topic(address: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) -> anyhow::Result<()> {
    Conn::open(address)?.create_topic_with(name, partitions, configs)?;
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create()?;
    let started = Instant::now();
    loop {
        let metadata = client.fetch_metadata(Some(name), LIMIT)?;
        let led = metadata.topics().iter().flat_map(|topic| topic.partitions());
        if led.filter(|partition| partition.leader() >= 0).count() == usize::try_from(partitions)? {
            return Ok(());
        }
        ensure!(started.elapsed() < LIMIT, "{name} has no leaders after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Latency at an even pace, and what that costs the servers.
fn end_to_end(
    bench: &Bench,
    extent: Extent,
    cpu: impl Fn() -> anyhow::Result<Duration>,
    peak: impl Fn() -> anyhow::Result<u64>,
    path: &Path<'_>,
) -> anyhow::Result<Figures> {
    let mut since = None;
    let mut latencies = latency::measure_after(extent.warm_up, bench.time, path, || {
        since = Some((cpu()?, Instant::now()));
        Ok(())
    })?;
    let (before, started) = since.context("the warm-up took all of the time")?;
    let time = started.elapsed();
    Ok(Figures::of(
        latencies.len() as u64,
        time,
        cpu()?.saturating_sub(before),
        Some(&mut latencies),
        peak()?,
    ))
}

fn plural(count: i32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

//! Exactly-once pipelines, one that hands on what it is given and one that counts by key: pelton's beside Kafka Streams with
//! `exactly_once_v2`.

use super::figures::{Figures, Side};
use super::peer::{Application, Installed, Kafka, Subject};
use super::{LIMIT, Run, create_topic, end_to_end};
use crate::client::{self, Conn};
use crate::latency::Path;
use crate::server::Server;
use crate::{Bench, counts, exactly_once};
use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// Partitions of a backlog.
const PARTITIONS: i32 = 4;
/// Ours is given so many times the records: otherwise it is through before its half is seen.
const OWN_TIMES: u64 = 5;
/// Records in a stored batch of the input.
const BATCH_RECORDS: u64 = 500;
/// Records a second where latency alone is measured.
const PACE: u32 = 1_000;
/// Keys that are counted.
const KEYS: u32 = 1_000_000;

/// What a pipeline does with the records of the topic `in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    HandOn,
    Count,
}

impl Job {
    /// The name of our pipeline.
    fn name(self) -> &'static str {
        match self {
            Job::HandOn => "pass",
            Job::Count => "counts",
        }
    }

    /// The class of the Kafka Streams application.
    fn class(self) -> &'static str {
        match self {
            Job::HandOn => "Stateless",
            Job::Count => "Counts",
        }
    }

    /// The id of that application, which it sets itself.
    fn application(self) -> &'static str {
        match self {
            Job::HandOn => "stateless",
            Job::Count => "counts",
        }
    }

    /// Makes the topics, and the input.
    fn fill(self, address: &str, records: u64) -> anyhow::Result<()> {
        match self {
            Job::HandOn => fill(address, PARTITIONS, records),
            Job::Count => {
                create_topic(address, "in", counts::PARTITIONS, &[])?;
                create_topic(address, "out", counts::PARTITIONS, &[])?;
                counts::fill(address, counts::Keys::new(counts::Spread::Zipf, KEYS)?, records)
            }
        }
    }
}

/// A broker, and what runs the pipeline from the topic `in` to the topic `out`.
trait Pipeline {
    fn address(&self) -> &str;
    /// Has the broker make what it makes for the first client alone.
    fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }
    fn start(&mut self) -> anyhow::Result<()>;
    /// Records of the input that are passed on and committed.
    fn committed(&self) -> anyhow::Result<u64>;
    /// Of broker and application.
    fn cpu(&self) -> anyhow::Result<Duration>;
    /// Of broker and application.
    fn peak(&self) -> anyhow::Result<u64>;
}

struct Own<'a> {
    bench: &'a Bench,
    server: Server,
    job: Job,
}

impl Pipeline for Own<'_> {
    fn address(&self) -> &str {
        &self.server.address
    }
    fn start(&mut self) -> anyhow::Result<()> {
        match self.job {
            Job::HandOn => {
                exactly_once::deploy(self.bench, &self.server, "pass", "exactly-once", ("in", "out"))
            }
            Job::Count => counts::deploy(self.bench, &self.server),
        }
    }
    fn committed(&self) -> anyhow::Result<u64> {
        exactly_once::committed(&self.server, self.job.name())
    }
    fn cpu(&self) -> anyhow::Result<Duration> {
        self.server.cpu()
    }
    fn peak(&self) -> anyhow::Result<u64> {
        self.server.peak()
    }
}

struct Streams<'a> {
    installed: &'a Installed,
    job: Job,
    kafka: Kafka,
    application: Option<Application>,
    /// Where the application keeps its files.
    state: std::path::PathBuf,
    /// Asks for the offsets that the application has committed.
    consumer: BaseConsumer,
}

impl Pipeline for Streams<'_> {
    fn address(&self) -> &str {
        self.kafka.address()
    }
    fn prepare(&self) -> anyhow::Result<()> {
        self.committed().map(drop)
    }
    fn start(&mut self) -> anyhow::Result<()> {
        let arguments =
            [self.kafka.address().as_ref(), "in".as_ref(), "out".as_ref(), self.state.as_os_str()];
        self.application = Some(Application::start(self.installed, self.job.class(), arguments)?);
        Ok(())
    }
    fn committed(&self) -> anyhow::Result<u64> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range("in", 0, PARTITIONS - 1);
        let committed = self.consumer.committed_offsets(wanted, LIMIT)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { u64::try_from(offset) } else { Ok(0) };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).sum::<Result<u64, _>>()?)
    }
    fn cpu(&self) -> anyhow::Result<Duration> {
        let application = self.application.as_ref().map(Application::cpu).transpose()?;
        Ok(self.kafka.cpu()? + application.unwrap_or_default())
    }
    fn peak(&self) -> anyhow::Result<u64> {
        let application = self.application.as_ref().map(Application::peak).transpose()?;
        Ok(self.kafka.peak()? + application.unwrap_or_default())
    }
}

impl Run<'_> {
    pub(super) fn pipelines(&mut self) -> anyhow::Result<()> {
        let (bench, extent) = (self.bench, self.extent);
        for (job, text, half_text) in [
            (Job::HandOn, "exactly-once pipeline, 100 B, 4 partitions", "the pipeline's second half"),
            (
                Job::Count,
                "exactly-once count by key, 16 B keys of 1,000,000 (Zipf 0.99), 80 B values, 4 partitions",
                "the count's second half",
            ),
        ] {
            for (side, times) in [(Side::Pelton, OWN_TIMES), (Side::Kafka, 1)] {
                let records = times * extent.pipeline_records;
                let (whole, half) =
                    self.on_pipeline(side, job, |pipeline| backlog(pipeline, job, records))?;
                self.add(&format!("{text}, from its start"), side, whole);
                self.add(half_text, side, half);
            }
        }
        for side in [Side::Pelton, Side::Kafka] {
            let paced = self.on_pipeline(side, Job::HandOn, |pipeline| {
                fill(pipeline.address(), 1, 1)?;
                pipeline.start()?;
                // Latency is that of a pipeline that runs.
                wait_for(pipeline, 1)?;
                let path =
                    Path { address: pipeline.address(), input: "in", output: "out", records_per_s: PACE };
                end_to_end(bench, extent, || pipeline.cpu(), || pipeline.peak(), &path)
            })?;
            self.add(&format!("end to end through it, {PACE} records/s"), side, paced);
        }
        Ok(())
    }

    fn on_pipeline<T>(
        &self,
        side: Side,
        job: Job,
        work: impl FnOnce(&mut dyn Pipeline) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let dir = self.bench.dir.path().join("beside");
        let done = if side == Side::Pelton {
            let server = Server::launch(&self.bench.binary, &dir, "127.0.0.1:0")?;
            if job == Job::HandOn {
                exactly_once::push_identity(self.bench, &server)?;
            }
            work(&mut Own { bench: self.bench, server, job })
        } else {
            let kafka = Kafka::start(self.installed, &dir)?;
            let consumer = ClientConfig::new()
                .set("bootstrap.servers", kafka.address())
                .set("group.id", job.application())
                .set("isolation.level", "read_uncommitted")
                .create()?;
            let state = dir.join("streams-state");
            let installed = self.installed;
            work(&mut Streams { installed, job, kafka, application: None, state, consumer })
        };
        std::fs::remove_dir_all(&dir)?;
        done
    }
}

/// A backlog from the start of the pipeline until all of it is committed, and the second half of it by itself.
fn backlog(pipeline: &mut dyn Pipeline, job: Job, records: u64) -> anyhow::Result<(Figures, Figures)> {
    job.fill(pipeline.address(), records)?;
    // The coordinator of the group has been made before it counts.
    pipeline.prepare()?;
    let (mut half, before, started) = (None, pipeline.cpu()?, Instant::now());
    pipeline.start()?;
    loop {
        let committed = pipeline.committed()?;
        let now = (committed, pipeline.cpu()?, Instant::now());
        if half.is_none() && committed >= records / 2 {
            half = Some(now);
        }
        if committed >= records {
            let figures = |(passed, cpu, since): (u64, Duration, Instant)| -> anyhow::Result<Figures> {
                let (time, cpu) = (now.2 - since, now.1.saturating_sub(cpu));
                Ok(Figures::of(records - passed, time, cpu, None, pipeline.peak()?))
            };
            let half = half.filter(|(passed, _, _)| *passed < records);
            let half = half.context("the pipeline came to its end before its half was seen")?;
            return Ok((figures((0, before, started))?, figures(half)?));
        }
        ensure!(started.elapsed() < LIMIT, "the pipeline has not come to its end in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(pipeline: &dyn Pipeline, records: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    while pipeline.committed()? < records {
        ensure!(started.elapsed() < LIMIT, "the pipeline has passed nothing on in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Makes the topics, and the input of a pipeline.
fn fill(address: &str, partitions: i32, records: u64) -> anyhow::Result<()> {
    create_topic(address, "in", partitions, &[])?;
    create_topic(address, "out", partitions, &[])?;
    let mut conn = Conn::open(address)?;
    let in_batch = records.min(BATCH_RECORDS);
    let batch = client::batch(usize::try_from(in_batch)?, 100, 1)?;
    for i in 0..records / in_batch {
        conn.send(&mut client::produce("in", (i % partitions as u64) as i32, batch.clone())?)?;
        client::check_produced(conn.receive()?)?;
    }
    Ok(())
}

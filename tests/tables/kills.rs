//! `kill -9` while a topic is written: after each, what a table gives is what a replay of its topic gives, up to the
//! offsets that the answer says.

use crate::lab::{Lab, compacted, page, replay, until_fresh, until_same};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::load::client;
use pelton_tests::records::{LIMIT, until};
use pelton_tests::settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Fewer than a page has, so that one answer shows all of a table at one moment.
const KEYS: u32 = 400;
/// A kill comes after at least so many more records were handed to the client.
const BETWEEN: u64 = 3_000;
const TABLES: [(&str, &str, &str); 3] = [
    ("parted", "partitioned", "rocksdb"),
    ("whole", "global", "rocksdb"),
    ("light", "partitioned", "memory"),
];

pub(crate) fn under_load(lab: &Lab) -> Result<String> {
    let kills: u32 = settings::from_env("PELTON_TABLE_KILLS", 5)?;
    let seed = settings::seed()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut start, mut broker, cli) = lab.start()?;
    compacted(&broker, "t", 2)?;
    for (name, scope, store) in TABLES {
        let create = ["table", "create", name, "--topic", "t", "--scope", scope, "--store", store];
        cli.ok(&[&create[..], &["--partitioner", "crc32"]].concat())?;
    }
    let load = Load::start(&broker.address, seed)?;
    let mut compared = 0;
    for kill in 0..kills {
        load.progress(BETWEEN)?;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..300)));
        broker.kill()?;
        broker = start.start().context("start after a kill")?;
        compared += look(&broker, &start).with_context(|| format!("after kill {kill}, seed {seed}"))?;
    }
    let written = load.stop()?;
    let cli = lab.cli(&broker)?;
    let expect = replay(&broker.address, "t", None)?;
    let mut rebuilds = 0;
    for (name, ..) in TABLES {
        until_fresh(&cli, name)?;
        until_same(&cli, name, &expect).with_context(|| format!("table {name}, seed {seed}"))?;
        rebuilds +=
            cli.json(&["table", "describe", name, "--json"])?["totals"]["rebuilds"].as_u64().unwrap_or(1);
    }
    ensure!(rebuilds == 0, "a crash alone has cost {rebuilds} stores, seed {seed}");
    broker.stop()?;
    Ok(format!("{kills} kills, {written} records, {compared} answers compared, seed {seed};"))
}

/// Compares an answer of each table with a replay of the topic, while the load goes on.
fn look(broker: &Broker, start: &Start) -> Result<u32> {
    let http = broker.http.as_ref().context("no HTTP")?;
    for (name, ..) in TABLES {
        let (rows, offsets) = until(&format!("table {name} answers"), LIMIT, || page(http, name))
            .with_context(|| start.last_words())?;
        let expect = replay(&broker.address, "t", Some(&offsets))?;
        if rows != expect {
            let wrong = rows.iter().find(|(key, value)| expect.get(*key) != Some(value));
            let missing = expect.iter().find(|(key, _)| !rows.contains_key(*key));
            bail!("table {name} at {offsets:?} has {wrong:?} and lacks {missing:?}");
        }
    }
    Ok(TABLES.len() as u32)
}

/// A producer that writes and deletes rows until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    /// It writes so many, and waits then: what is compared after a kill does not grow with the time that comparing takes.
    allowed: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    fn start(bootstrap: &str, seed: u64) -> Result<Load> {
        let producer: BaseProducer = client(bootstrap)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "120000")
            .set("linger.ms", "2")
            .create()?;
        let (stop, written, allowed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let thread = {
            let (stop, written, allowed) = (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&allowed));
            std::thread::spawn(move || write(&producer, seed, &stop, &written, &allowed))
        };
        Ok(Load { stop, written, allowed, thread })
    }

    /// Has it write on, and waits for so many more records; it goes on for twice as many.
    fn progress(&self, records: u64) -> Result<()> {
        let wanted = self.written.load(Ordering::Relaxed) + records;
        self.allowed.store(wanted + 2 * records, Ordering::Relaxed);
        until("the load goes on", LIMIT, || {
            ensure!(!self.thread.is_finished(), "the load has ended");
            Ok((self.written.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}

fn write(
    producer: &BaseProducer,
    seed: u64,
    stop: &AtomicBool,
    written: &AtomicU64,
    allowed: &AtomicU64,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        if written.load(Ordering::Relaxed) >= allowed.load(Ordering::Relaxed) {
            producer.poll(Duration::from_millis(5));
            continue;
        }
        let key = rng.random_range(0..KEYS).to_string();
        let value = format!("{} of {key}", written.load(Ordering::Relaxed));
        let record = BaseRecord::<str, str>::to("t").key(&key);
        let record = if rng.random_ratio(1, 5) { record } else { record.payload(&value) };
        match producer.send(record) {
            Ok(()) => {
                written.fetch_add(1, Ordering::Relaxed);
            }
            // The queue is full while the broker is away.
            Err(_) => producer.poll(Duration::from_millis(5)),
        }
        producer.poll(Duration::ZERO);
        // Some ten thousand a second: replays stay short.
        if written.load(Ordering::Relaxed).is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(60)).context("flush")
}

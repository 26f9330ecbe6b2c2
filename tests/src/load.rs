//! Load that runs through kills: producers that never give up, a consumer that reads along, a consumer that commits.

use crate::ledger::{Entry, Ledger};
use anyhow::{Context, Result, bail, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One producer and its topic.
pub struct Load {
    /// Topic, and name of the producer.
    pub topic: &'static str,
    /// Partitions of the topic; record n goes to partition n modulo this.
    pub partitions: u32,
    /// The topic's configuration.
    pub config: &'static [(&'static str, &'static str)],
    /// Configuration of the producer.
    pub producer: &'static [(&'static str, &'static str)],
    /// Whether its records must be there exactly once.
    pub idempotent: bool,
    /// Smallest and largest value, in bytes.
    pub value: (usize, usize),
    /// Records sent at once, and the pause after them: bursts keep many requests in flight without filling the disk.
    pub burst: (u32, Duration),
    /// Records without acknowledgement at which it waits.
    pub in_flight: u64,
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Small records in small batches, whole batches compressed, batches of several 100 KiB, and the durability of acks=1
/// without idempotence. Small segments, so that kills meet rolls.
pub const LOADS: [Load; 4] = [
    Load {
        topic: "small",
        partitions: 3,
        config: &[("segment.bytes", "1048576")],
        producer: &[("enable.idempotence", "true"), ("linger.ms", "0"), ("batch.num.messages", "20")],
        idempotent: true,
        value: (12, 200),
        burst: (200, millis(4)),
        in_flight: 2000,
    },
    Load {
        topic: "compressed",
        partitions: 8,
        config: &[("segment.bytes", "1048576")],
        producer: &[("enable.idempotence", "true"), ("linger.ms", "5"), ("compression.type", "lz4")],
        idempotent: true,
        value: (100, 2000),
        burst: (80, millis(6)),
        in_flight: 1000,
    },
    Load {
        topic: "large",
        partitions: 2,
        config: &[("segment.bytes", "2097152"), ("max.message.bytes", "2000000")],
        producer: &[("enable.idempotence", "true"), ("linger.ms", "0"), ("message.max.bytes", "1500000")],
        idempotent: true,
        value: (20_000, 600_000),
        burst: (2, millis(40)),
        in_flight: 8,
    },
    Load {
        topic: "leader",
        partitions: 2,
        config: &[],
        producer: &[("acks", "1"), ("linger.ms", "1")],
        idempotent: false,
        value: (12, 400),
        burst: (50, millis(5)),
        in_flight: 500,
    },
];

/// Group whose offsets are committed by a client that is no member.
pub const GROUP: &str = "committer";
/// Group with one member, which reads the first load's topic and commits as it goes.
const MEMBERS: &str = "members";
/// Records that the member reads between two commits, at most.
const COMMIT_EVERY: usize = 100;
/// How often it is looked whether records are in flight; a burst is in flight for longer.
const LOOK: Duration = Duration::from_micros(50);
/// How long a producer tries before it gives a record up; longer than all kills of a round together.
const DELIVERY_LIMIT_MS: &str = "600000";
/// Longest wait for the last acknowledgements after the last kill.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// What a record holds: its producer and number, then bytes that follow from both, so that every byte can be checked.
pub fn value(load: u32, sequence: u64) -> Vec<u8> {
    let (least, most) = LOADS[load as usize].value;
    let mut state = mix(u64::from(load) << 56 ^ sequence);
    let length = least + (state as usize) % (most - least + 1);
    let mut value = Vec::with_capacity(length + 8);
    value.extend_from_slice(&load.to_le_bytes());
    value.extend_from_slice(&sequence.to_le_bytes());
    while value.len() < length {
        state = mix(state);
        // Half of the bytes repeat, so that compression has something to do.
        value.extend_from_slice(&(state & 0x0000_ffff_0000_ffff).to_le_bytes());
    }
    value.truncate(length);
    value
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// The producer and number that a value says it is of, if every byte fits.
pub fn parse_value(bytes: &[u8]) -> Option<(u32, u64)> {
    let load = u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?);
    let sequence = u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?);
    ((load as usize) < LOADS.len() && value(load, sequence) == bytes).then_some((load, sequence))
}

/// A record that the consumer beside the load was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Producer and number.
    pub record: (u32, u64),
    /// Where it was.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
}

/// What the threads of the load share.
pub struct Shared {
    ledger: Mutex<Ledger>,
    seen: Mutex<Vec<Seen>>,
    problems: Mutex<Vec<String>>,
    stop: AtomicBool,
    faults: AtomicU32,
    sent: [AtomicU64; LOADS.len()],
    acked: [AtomicU64; LOADS.len()],
    committed: AtomicI64,
    attempted: AtomicI64,
    group_commits: AtomicU64,
    drain_ms: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn problem(&self, text: String) {
        let mut problems = lock(&self.problems);
        if problems.len() < 100 {
            problems.push(text);
        }
    }

    fn in_flight(&self, load: usize) -> u64 {
        let acked = self.acked[load].load(Ordering::Acquire);
        self.sent[load].load(Ordering::Acquire) - acked
    }
}

struct Acks {
    load: u32,
    shared: Arc<Shared>,
}

impl ClientContext for Acks {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // Connections break at each kill; only what ends an idempotent producer matters.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.shared
                .problem(format!("fatal error of producer {}: {reason}", LOADS[self.load as usize].topic));
        }
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        let load = self.load as usize;
        match result {
            Ok(message) => {
                let entry = Entry {
                    load: self.load,
                    partition: message.partition() as u32,
                    offset: message.offset(),
                    sequence: sequence as u64,
                    faults: self.shared.faults.load(Ordering::Acquire),
                };
                if let Err(error) = lock(&self.shared.ledger).note(entry) {
                    self.shared.problem(format!("{error:#}"));
                }
                self.shared.acked[load].fetch_add(1, Ordering::AcqRel);
            }
            Err((error, _)) => {
                self.shared.problem(format!("{} gave record {sequence} up: {error}", LOADS[load].topic));
                self.shared.acked[load].fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

/// The running load.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What is known when the load has ended.
pub struct Outcome {
    /// Every acknowledgement.
    pub ledger: Vec<Entry>,
    /// Records sent by each load.
    pub sent: [u64; LOADS.len()],
    /// Every record that the consumer beside the load was given.
    pub seen: Vec<Seen>,
    /// Largest offset whose commit was acknowledged, and largest that was tried.
    pub committed: (i64, i64),
    /// Commits of a group's member that were acknowledged.
    pub group_commits: u64,
    /// What went wrong on the way.
    pub problems: Vec<String>,
}

/// A client of the broker under test that does not wait long to connect again.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("broker.address.family", "v4");
    config.set("reconnect.backoff.ms", "5").set("reconnect.backoff.max.ms", "50");
    config.set("retry.backoff.ms", "10").set("socket.timeout.ms", "10000");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Creates a topic.
///
/// # Errors
/// The broker refused, or did not answer in time.
pub fn create_topic(bootstrap: &str, name: &str, partitions: u32, config: &[(&str, &str)]) -> Result<()> {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<_> = client(bootstrap).create()?;
    let topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(1));
    let topic = config.iter().fold(topic, |t, (key, value)| t.set(key, value));
    let options =
        AdminOptions::new().operation_timeout(Some(millis(20_000))).request_timeout(Some(millis(30_000)));
    for result in block_on(admin.create_topics([&topic], &options))? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create topic {topic}: {code}"))?;
    }
    Ok(())
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an admin call.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

impl Running {
    /// Creates the topics and starts all threads.
    ///
    /// # Errors
    /// The topics cannot be created or a client is misconfigured.
    pub fn start(bootstrap: &str, ledger: Ledger) -> Result<Running> {
        for load in &LOADS {
            create_topic(bootstrap, load.topic, load.partitions, load.config)?;
        }
        let shared = Arc::new(Shared {
            ledger: Mutex::new(ledger),
            seen: Mutex::default(),
            problems: Mutex::default(),
            stop: AtomicBool::new(false),
            faults: AtomicU32::new(0),
            sent: Default::default(),
            acked: Default::default(),
            committed: AtomicI64::new(-1),
            attempted: AtomicI64::new(-1),
            group_commits: AtomicU64::new(0),
            drain_ms: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for (index, load) in LOADS.iter().enumerate() {
            let mut config = client(bootstrap);
            config.set("message.timeout.ms", DELIVERY_LIMIT_MS);
            for (key, value) in load.producer {
                config.set(*key, *value);
            }
            let context = Acks { load: index as u32, shared: Arc::clone(&shared) };
            let producer: ThreadedProducer<Acks> = config.create_with_context(context)?;
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || produce(index, &producer, &shared)));
        }
        for beside in [read_along, commit_along, member_along] {
            let (config, shared) = (client(bootstrap), Arc::clone(&shared));
            threads.push(std::thread::spawn(move || beside(config, &shared)));
        }
        Ok(Running { shared, threads })
    }

    /// Records sent and not acknowledged.
    pub fn in_flight(&self) -> u64 {
        (0..LOADS.len()).map(|load| self.shared.in_flight(load)).sum()
    }

    /// Waits for so many records in flight, and returns how many there are.
    ///
    /// # Errors
    /// They did not come.
    pub fn meet_records(&self, least: u64, limit: Duration) -> Result<u64> {
        let end = Instant::now() + limit;
        loop {
            let in_flight = self.in_flight();
            if in_flight >= least {
                return Ok(in_flight);
            }
            ensure!(
                Instant::now() < end,
                "INVALID: {in_flight} records in flight after {limit:?}, not {least}"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Records acknowledged.
    pub fn acked(&self) -> u64 {
        self.shared.acked.iter().map(|n| n.load(Ordering::Acquire)).sum()
    }

    /// Notes that there was a kill or a cut.
    pub fn fault(&self) {
        self.shared.faults.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until every load has been acknowledged something more; false when that takes longer than `limit`.
    pub fn progress(&self, limit: Duration) -> bool {
        let before: Vec<u64> = self.shared.acked.iter().map(|n| n.load(Ordering::Acquire)).collect();
        let end = Instant::now() + limit;
        while self
            .shared
            .acked
            .iter()
            .zip(&before)
            .any(|(now, before)| now.load(Ordering::Acquire) <= *before)
        {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(millis(1));
        }
        true
    }

    /// What went wrong so far.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).clone()
    }

    /// Sends nothing more, waits for what is in flight, at most so long, and hands over what clients were told.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn finish(self, drain: Duration) -> Result<Outcome> {
        self.shared.drain_ms.store(drain.as_millis() as u64, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.shared.problem(format!("{error:#}")),
                Err(_) => self.shared.problem("a thread of the load panicked".to_owned()),
            }
        }
        let counts = |of: &[AtomicU64; LOADS.len()]| std::array::from_fn(|i| of[i].load(Ordering::Acquire));
        let ledger = lock(&self.shared.ledger).read()?;
        let seen = std::mem::take(&mut *lock(&self.shared.seen));
        let problems = lock(&self.shared.problems).clone();
        let committed =
            (self.shared.committed.load(Ordering::Acquire), self.shared.attempted.load(Ordering::Acquire));
        let group_commits = self.shared.group_commits.load(Ordering::Acquire);
        Ok(Outcome { ledger, sent: counts(&self.shared.sent), seen, committed, group_commits, problems })
    }
}

fn produce(index: usize, producer: &ThreadedProducer<Acks>, shared: &Shared) -> Result<()> {
    let load = &LOADS[index];
    let mut sequence = 0_u64;
    while !shared.stop.load(Ordering::Acquire) {
        for _ in 0..load.burst.0 {
            if shared.in_flight(index) >= load.in_flight {
                break;
            }
            let value = value(index as u32, sequence);
            let key = sequence.to_le_bytes();
            let partition = (sequence % u64::from(load.partitions)) as i32;
            let record = BaseRecord::with_opaque_to(load.topic, sequence as usize);
            shared.sent[index].fetch_add(1, Ordering::AcqRel);
            match producer.send(record.partition(partition).key(&key[..]).payload(&value)) {
                Ok(()) => sequence += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    shared.sent[index].fetch_sub(1, Ordering::AcqRel);
                    break;
                }
                Err((error, _)) => {
                    shared.sent[index].fetch_sub(1, Ordering::AcqRel);
                    bail!("{} cannot send: {error}", load.topic);
                }
            }
        }
        std::thread::sleep(load.burst.1);
    }
    producer.flush(millis(shared.drain_ms.load(Ordering::Acquire))).with_context(|| {
        format!("{} records of {} were not acknowledged", shared.in_flight(index), load.topic)
    })
}

/// Reads everything as it comes. What it was given must still be there after any crash.
fn read_along(mut config: ClientConfig, shared: &Shared) -> Result<()> {
    let consumer: BaseConsumer = config
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let mut all = TopicPartitionList::new();
    for load in &LOADS {
        for partition in 0..load.partitions {
            all.add_partition_offset(load.topic, partition as i32, Offset::Offset(0))?;
        }
    }
    consumer.assign(&all)?;
    while !shared.stop.load(Ordering::Acquire) {
        let message = match consumer.poll(millis(50)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => {
                shared.problem("the log ends before an offset that a consumer had reached".to_owned());
                continue;
            }
            Some(Err(_)) | None => continue,
        };
        let Some(record) = message.payload().and_then(parse_value) else {
            shared.problem(format!(
                "a consumer got damaged bytes: {} [{}] {}",
                message.topic(),
                message.partition(),
                message.offset()
            ));
            continue;
        };
        lock(&shared.seen).push(Seen {
            record,
            partition: message.partition() as u32,
            offset: message.offset(),
        });
    }
    Ok(())
}

/// Commits rising offsets of one partition. An acknowledged commit must survive.
fn commit_along(mut config: ClientConfig, shared: &Shared) -> Result<()> {
    let consumer: BaseConsumer = config.set("group.id", GROUP).set("enable.auto.commit", "false").create()?;
    let mut next = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(LOADS[0].topic, 0, Offset::Offset(next))?;
        shared.attempted.store(next, Ordering::Release);
        if consumer.commit(&offsets, CommitMode::Sync).is_ok() {
            shared.committed.store(next, Ordering::Release);
            next += 1;
        }
        std::thread::sleep(millis(2));
    }
    Ok(())
}

/// A member of a group goes on where its last acknowledged commit was, whatever happens to the coordinator.
fn member_along(mut config: ClientConfig, shared: &Shared) -> Result<()> {
    let consumer: BaseConsumer = config
        .set("group.id", MEMBERS)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    consumer.subscribe(&[LOADS[0].topic])?;
    let partitions = LOADS[0].partitions as usize;
    let (mut read, mut committed) = (vec![0; partitions], vec![0; partitions]);
    let mut uncommitted = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let polled = consumer.poll(millis(20));
        if let Some(Ok(message)) = &polled {
            let (partition, offset) = (message.partition() as usize, message.offset());
            if offset < committed[partition] {
                shared.problem(format!(
                    "a group's member got offset {offset} of [{partition}] after committing {}",
                    committed[partition]
                ));
            }
            read[partition] = offset + 1;
            uncommitted += 1;
        }
        let pause = polled.is_none() && uncommitted > 0;
        if (pause || uncommitted >= COMMIT_EVERY) && consumer.commit_consumer_state(CommitMode::Sync).is_ok()
        {
            committed.clone_from(&read);
            uncommitted = 0;
            shared.group_commits.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_record_and_nothing_else_does() {
        for load in 0..LOADS.len() as u32 {
            for sequence in [0, 1, 77, u64::from(u32::MAX)] {
                let mut bytes = value(load, sequence);
                let (least, most) = LOADS[load as usize].value;
                assert!((least..=most).contains(&bytes.len()));
                assert_eq!(parse_value(&bytes), Some((load, sequence)));
                *bytes.last_mut().expect("a value is at least 12 bytes long") ^= 1;
                assert_ne!(parse_value(&bytes), Some((load, sequence)));
            }
        }
    }
}

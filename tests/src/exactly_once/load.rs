//! A transactional load that goes on through kills as an application does: on an error it aborts, or makes a new producer
//! with the same transactional id and goes on from what is committed.

use super::history::{Cell, Event, Outcome, Stamp, TransactionId};
use super::ledger::Ledger;
use super::reader::{read_committed, read_on};
use crate::load::client;
use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A topic of the load and its partitions.
pub const ORDERS: (&str, u32) = ("orders", 4);
/// Another; what pipelines read.
pub const EVENTS: (&str, u32) = ("events", 3);
/// What the copier makes of the first.
pub const COPIED: (&str, u32) = ("copied", 5);
/// The topics in the order of their numbers.
pub const TOPICS: [(&str, u32); 3] = [ORDERS, EVENTS, COPIED];

/// Producers that write both topics.
pub const WRITERS: u32 = 4;
/// The producer of the copier.
pub const COPIER: u32 = WRITERS;
/// Keys of a writer; every other one is in the other topic.
const KEYS: u32 = 14;
/// Most records of a writer's transaction, and least.
const RECORDS: (u32, u32) = (80, 20);
/// Records sent at once.
const BURST: u32 = 10;
/// Time from burst to burst: what bounds the load.
const PACE: Duration = Duration::from_millis(15);
/// Most records of a copier's transaction.
const COPIED_AT_ONCE: usize = 100;
/// How long the copier collects records.
const COLLECT: Duration = Duration::from_millis(40);
/// One of so many transactions is aborted on purpose …
const ABORT_ONE_IN: u32 = 6;
/// … one of so many is left open, as by a process that dies …
const LEAVE_ONE_IN: u32 = 40;
/// … and one of so many commits is given up when it is not answered within `HASTE`.
const HASTY_ONE_IN: u32 = 3;
/// See above; longer than a commit takes.
const HASTE: Duration = Duration::from_millis(60);
/// How long one call waits.
const CALL: Duration = Duration::from_secs(5);
/// How long a client tries before that counts as a finding; longer than any recovery.
const PATIENCE: Duration = Duration::from_secs(60);

/// The group whose offsets the copier commits.
const GROUP: &str = "copier";

type TransactionalProducer = ThreadedProducer<Acks>;

/// What the threads of the load share.
pub struct Shared {
    pub(super) ledger: Mutex<Ledger>,
    pub(super) problems: Mutex<Vec<String>>,
    /// Errors that ended a producer: they are legal, and worth a look when there are many.
    pub(super) fatal: Mutex<BTreeMap<String, u32>>,
    pub(super) stop: AtomicBool,
    pub(super) stop_sights: AtomicBool,
    /// Where the copier may end, by partition of its input.
    pub(super) copy_until: Mutex<Option<Vec<i64>>>,
    pub(super) open: AtomicU32,
    pub(super) in_flight: AtomicU64,
    /// Commits of each producer that were acknowledged.
    pub(super) commits: [AtomicU64; WRITERS as usize + 1],
    pub(super) anew: AtomicU32,
}

/// The value behind a lock; a thread that panicked is reported by whoever joins it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(ledger: Ledger) -> Shared {
        Shared {
            ledger: Mutex::new(ledger),
            problems: Mutex::default(),
            fatal: Mutex::default(),
            stop: AtomicBool::new(false),
            stop_sights: AtomicBool::new(false),
            copy_until: Mutex::default(),
            open: AtomicU32::new(0),
            in_flight: AtomicU64::new(0),
            commits: Default::default(),
            anew: AtomicU32::new(0),
        }
    }

    pub(super) fn problem(&self, text: String) {
        let mut problems = lock(&self.problems);
        if problems.len() < 100 {
            problems.push(text);
        }
    }

    fn note(&self, event: Event) -> Result<()> {
        lock(&self.ledger).note(event)
    }
}

/// Writes acknowledgements down.
pub struct Acks {
    shared: Arc<Shared>,
    name: String,
}

impl ClientContext for Acks {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            *lock(&self.shared.fatal).entry(format!("{}: {reason}", self.name)).or_default() += 1;
        }
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<(TransactionId, u32)>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        // What is not delivered makes its transaction fail; its producer hears of it there.
        let Ok(message) = result else { return };
        let event = Event::Acked { transaction: record.0, index: record.1, offset: message.offset() };
        if let Err(error) = self.shared.note(event) {
            self.shared.problem(format!("{error:#}"));
        }
    }
}

/// What a producer can do after a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Go on.
    Same,
    /// Nothing more: somebody has to take its transactional id over.
    Anew,
}

/// An open transaction, counted while it is.
struct Open<'a> {
    shared: &'a Shared,
    id: TransactionId,
    records: u32,
}

impl<'a> Open<'a> {
    fn new(shared: &'a Shared, id: TransactionId) -> Open<'a> {
        shared.open.fetch_add(1, Ordering::AcqRel);
        Open { shared, id, records: 0 }
    }

    /// Sends a record; false when the producer takes none, so that the transaction must be aborted.
    fn send(&mut self, producer: &TransactionalProducer, to: Cell, key: u32, number: u64) -> Result<bool> {
        let stamp = Stamp { transaction: self.id, index: self.records, key, number };
        self.shared.note(Event::Sent { stamp, to })?;
        let (value, key) = (stamp.value(), key.to_string());
        let record =
            BaseRecord::with_opaque_to(TOPICS[to.topic as usize].0, Box::new((self.id, stamp.index)));
        let record = record.partition(to.partition as i32).key(&key).payload(&value);
        self.records += 1;
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        Ok(producer.send(record).is_ok())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::AcqRel);
        self.shared.in_flight.fetch_sub(u64::from(self.records), Ordering::AcqRel);
    }
}

/// A producer of the load, whatever it does.
struct Client {
    shared: Arc<Shared>,
    bootstrap: String,
    number: u32,
    name: String,
    transactions: u64,
    rng: StdRng,
}

impl Client {
    fn new(shared: &Arc<Shared>, bootstrap: &str, number: u32, seed: u64) -> Client {
        let name = if number == COPIER { GROUP.to_owned() } else { format!("writer-{number}") };
        let rng = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number)));
        let (shared, bootstrap) = (Arc::clone(shared), bootstrap.to_owned());
        Client { shared, bootstrap, number, name, transactions: 0, rng }
    }

    /// A producer that owns the transactional id. Whatever its predecessor left open is ended when this returns.
    fn producer(&self) -> Result<TransactionalProducer> {
        let end = Instant::now() + PATIENCE;
        self.shared.anew.fetch_add(1, Ordering::AcqRel);
        loop {
            let mut config = client(&self.bootstrap);
            config
                .set("transactional.id", &self.name)
                .set("linger.ms", if self.number.is_multiple_of(2) { "0" } else { "5" });
            config.set("compression.type", if self.number == 1 { "lz4" } else { "none" });
            // One that forgets its brokers when all are gone may wait for ever for a group's coordinator that it forgot,
            // in send_offsets_to_transaction (confluentinc/librdkafka#5511).
            config.set("metadata.recovery.strategy", "none");
            let context = Acks { shared: Arc::clone(&self.shared), name: self.name.clone() };
            let producer: TransactionalProducer = config.create_with_context(context)?;
            let refused = loop {
                match producer.init_transactions(CALL) {
                    Ok(()) => return Ok(producer),
                    Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {}
                    Err(error) => break error,
                }
            };
            if Instant::now() > end {
                bail!("{} cannot take its transactional id over: {refused}", self.name);
            }
        }
    }

    fn next_transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        TransactionId::new(self.number, self.transactions - 1)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn ended(&self, id: TransactionId, outcome: Outcome, next: Next) -> Result<(Outcome, Next)> {
        self.shared.note(Event::Ended { transaction: id, outcome })?;
        if outcome == Outcome::Committed {
            self.shared.commits[self.number as usize].fetch_add(1, Ordering::AcqRel);
        }
        Ok((outcome, next))
    }

    /// Asks for the commit, as patiently as it happens to be.
    fn commit(&mut self, producer: &TransactionalProducer, id: TransactionId) -> Result<(Outcome, Next)> {
        self.shared.note(Event::Asked { transaction: id })?;
        let hasty = self.one_in(HASTY_ONE_IN);
        let end = Instant::now() + PATIENCE;
        loop {
            match producer.commit_transaction(if hasty { HASTE } else { CALL }) {
                Ok(()) => return self.ended(id, Outcome::Committed, Next::Same),
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && !hasty && Instant::now() < end => {}
                Err(error) => {
                    if Instant::now() > end {
                        self.shared.problem(format!("{id}: no commit within {PATIENCE:?}: {error}"));
                    }
                    return self.ended(id, Outcome::Unknown, Next::Anew);
                }
            }
        }
        self.abort(producer, id, Outcome::Unknown)
    }

    /// Asks for the abort; `otherwise` is what is known of the transaction when there is no answer.
    fn abort(
        &self,
        producer: &TransactionalProducer,
        id: TransactionId,
        otherwise: Outcome,
    ) -> Result<(Outcome, Next)> {
        let end = Instant::now() + PATIENCE;
        loop {
            match producer.abort_transaction(CALL) {
                Ok(()) => return self.ended(id, Outcome::Aborted, Next::Same),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {}
                Err(error) => {
                    if Instant::now() > end {
                        self.shared.problem(format!("{id}: no abort within {PATIENCE:?}: {error}"));
                    }
                    return self.ended(id, otherwise, Next::Anew);
                }
            }
        }
    }
}

/// A producer whose keys count.
struct Writer {
    client: Client,
    /// The last committed number of each key.
    counters: Vec<u64>,
    /// Where each topic was read to, when the counters were read back last.
    read: [Vec<i64>; 2],
}

/// Writes transactions until it is told to stop.
pub(super) fn write(shared: &Arc<Shared>, bootstrap: &str, number: u32, seed: u64) -> Result<()> {
    let read = [vec![0; ORDERS.1 as usize], vec![0; EVENTS.1 as usize]];
    let client = Client::new(shared, bootstrap, number, seed);
    let mut writer = Writer { client, counters: vec![0; KEYS as usize], read };
    while !shared.stop.load(Ordering::Acquire) {
        let producer = writer.client.producer()?;
        writer.read_back()?;
        while !shared.stop.load(Ordering::Acquire) {
            let (outcome, next) = writer.transaction(&producer)?;
            debug_assert!(outcome != Outcome::Unknown || next == Next::Anew, "what is unknown is read back");
            if next == Next::Anew {
                break;
            }
        }
    }
    // Its last word may be unknown: whoever reads committed records must not wait for it.
    drop(writer.client.producer()?);
    Ok(())
}

impl Writer {
    fn transaction(&mut self, producer: &TransactionalProducer) -> Result<(Outcome, Next)> {
        let id = self.client.next_transaction();
        let shared = Arc::clone(&self.client.shared);
        if let Err(error) = producer.begin_transaction() {
            *lock(&shared.fatal).entry(format!("begin: {error}")).or_default() += 1;
            return self.client.ended(id, Outcome::Aborted, Next::Anew);
        }
        let mut open = Open::new(&shared, id);
        let mut counters = self.counters.clone();
        let records = self.client.rng.random_range(RECORDS.1..=RECORDS.0);
        for n in 0..records {
            let which = self.client.rng.random_range(0..KEYS);
            let key = self.client.number * KEYS + which;
            let topic = key % 2;
            let to = Cell { topic, partition: key / 2 % TOPICS[topic as usize].1 };
            counters[which as usize] += 1;
            if !open.send(producer, to, key, counters[which as usize])? {
                return self.client.abort(producer, id, Outcome::Aborted);
            }
            if n % BURST == BURST - 1 {
                std::thread::sleep(PACE);
            }
        }
        if self.client.one_in(LEAVE_ONE_IN) {
            return self.client.ended(id, Outcome::Aborted, Next::Anew);
        }
        if self.client.one_in(ABORT_ONE_IN) {
            return self.client.abort(producer, id, Outcome::Aborted);
        }
        let end = self.client.commit(producer, id)?;
        if end.0 == Outcome::Committed {
            self.counters = counters;
        }
        Ok(end)
    }

    /// The counters are what a read-committed consumer finds: the way on after an unknown end.
    fn read_back(&mut self) -> Result<()> {
        let first = self.client.number * KEYS;
        for (topic, from) in self.read.iter_mut().enumerate() {
            let read = read_on(&self.client.bootstrap, TOPICS[topic].0, false, from)
                .with_context(|| format!("{} reads back", self.client.name))?;
            for stamp in read.into_iter().flatten().filter_map(|record| record.stamp) {
                if let Some(counter) =
                    stamp.key.checked_sub(first).and_then(|which| self.counters.get_mut(which as usize))
                {
                    *counter = stamp.number.max(*counter);
                }
            }
        }
        Ok(())
    }
}

/// Copies one topic, its position in the same transactions.
struct Copier {
    client: Client,
    consumer: BaseConsumer,
    /// The committed position of each partition of the input.
    done: Vec<i64>,
}

/// Consumes, transforms and produces until it is told where to stop, and came there.
pub(super) fn copy(shared: &Arc<Shared>, bootstrap: &str, seed: u64) -> Result<()> {
    let consumer: BaseConsumer = read_committed(bootstrap, GROUP).create()?;
    let client = Client::new(shared, bootstrap, COPIER, seed);
    let mut copier = Copier { client, consumer, done: vec![0; ORDERS.1 as usize] };
    let mut came_on = Instant::now();
    loop {
        let producer = copier.client.producer()?;
        copier.go_on()?;
        let mut next = Next::Same;
        while next == Next::Same {
            if let Some(wanted) = lock(&shared.copy_until).as_ref() {
                if copier.done.iter().zip(wanted).all(|(done, wanted)| done >= wanted) {
                    return copier.found();
                }
                if came_on.elapsed() > PATIENCE {
                    bail!("the copier stays at {:?} of {wanted:?}", copier.done);
                }
            }
            let before = copier.done.clone();
            next = copier.step(&producer)?;
            if copier.done != before {
                came_on = Instant::now();
            }
        }
    }
}

impl Copier {
    /// Asks for the group's offsets and writes them down; they are where an application goes on.
    fn found(&mut self) -> Result<()> {
        let mut wanted = TopicPartitionList::new();
        for partition in 0..ORDERS.1 {
            wanted.add_partition(ORDERS.0, partition as i32);
        }
        let end = Instant::now() + PATIENCE;
        let found = loop {
            match self.consumer.committed_offsets(wanted.clone(), CALL) {
                Ok(found) => break found,
                Err(error) if Instant::now() > end => bail!("the copier's committed offsets: {error}"),
                Err(_) => {}
            }
        };
        for (partition, done) in self.done.iter_mut().enumerate() {
            let entry = found.find_partition(ORDERS.0, partition as i32);
            let offset = match entry.map(|entry| entry.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => -1,
            };
            let of = Cell { topic: 0, partition: partition as u32 };
            self.client.shared.note(Event::Found { producer: COPIER, of, offset })?;
            *done = offset.max(0);
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        self.found()?;
        self.assign()
    }

    fn assign(&self) -> Result<()> {
        let mut wanted = TopicPartitionList::new();
        for (partition, done) in self.done.iter().enumerate() {
            wanted.add_partition_offset(ORDERS.0, partition as i32, Offset::Offset(*done))?;
        }
        Ok(self.consumer.assign(&wanted)?)
    }

    /// The stamps that came, and the positions behind them.
    fn collect(&self) -> Result<(Vec<Stamp>, Vec<i64>)> {
        let (mut stamps, mut positions) = (Vec::new(), self.done.clone());
        let end = Instant::now() + COLLECT;
        while stamps.len() < COPIED_AT_ONCE && Instant::now() < end {
            let message = match self.consumer.poll(Duration::from_millis(10)) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => bail!("{} lost offsets that the copier has committed: {:?}", ORDERS.0, self.done),
                Some(Err(_)) | None => continue,
            };
            let partition = message.partition() as usize;
            let stamp = super::reader::stamp(message.payload(), false);
            let at = (message.partition(), message.offset());
            stamps.push(stamp.with_context(|| format!("the copier got damaged bytes at {at:?}"))?);
            positions[partition] = message.offset() + 1;
        }
        Ok((stamps, positions))
    }

    fn step(&mut self, producer: &TransactionalProducer) -> Result<Next> {
        let (stamps, positions) = self.collect()?;
        if stamps.is_empty() {
            return Ok(Next::Same);
        }
        let (outcome, next) = self.transaction(producer, &stamps, &positions)?;
        match outcome {
            Outcome::Committed => {
                self.done = positions;
                if self.client.one_in(8) {
                    self.found()?;
                }
            }
            // Back to where the transaction began.
            Outcome::Aborted if next == Next::Same => self.assign()?,
            Outcome::Aborted | Outcome::Unknown => {}
        }
        Ok(next)
    }

    fn transaction(
        &mut self,
        producer: &TransactionalProducer,
        stamps: &[Stamp],
        positions: &[i64],
    ) -> Result<(Outcome, Next)> {
        let id = self.client.next_transaction();
        let shared = Arc::clone(&self.client.shared);
        if let Err(error) = producer.begin_transaction() {
            *lock(&shared.fatal).entry(format!("begin: {error}")).or_default() += 1;
            return self.client.ended(id, Outcome::Aborted, Next::Anew);
        }
        let mut open = Open::new(&shared, id);
        for stamp in stamps {
            let to = Cell { topic: 2, partition: stamp.key / 2 % COPIED.1 };
            if !open.send(producer, to, stamp.key, stamp.number)? {
                return self.client.abort(producer, id, Outcome::Aborted);
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in positions.iter().enumerate() {
            if *offset != self.done[partition] {
                let of = Cell { topic: 0, partition: partition as u32 };
                shared.note(Event::Offset { transaction: id, of, offset: *offset })?;
                offsets.add_partition_offset(ORDERS.0, partition as i32, Offset::Offset(*offset))?;
            }
        }
        let group = self.consumer.group_metadata().context("the consumer has no group")?;
        let end = Instant::now() + PATIENCE;
        loop {
            match producer.send_offsets_to_transaction(&offsets, &group, CALL) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {}
                Err(_) => return self.client.abort(producer, id, Outcome::Aborted),
            }
        }
        if self.client.one_in(ABORT_ONE_IN) {
            return self.client.abort(producer, id, Outcome::Aborted);
        }
        self.client.commit(producer, id)
    }
}

/// Reads committed records as they come. None may be of a transaction that is not to be committed, and all must stay.
pub(super) fn see(shared: &Arc<Shared>, bootstrap: &str) -> Result<()> {
    let consumer: BaseConsumer = read_committed(bootstrap, "sights").create()?;
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition as i32, Offset::Offset(0))?;
        }
    }
    consumer.assign(&all)?;
    while !shared.stop_sights.load(Ordering::Acquire) {
        let message = match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => bail!("the log ends before an offset that a read-committed consumer had reached"),
            Some(Err(_)) | None => continue,
        };
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let number =
            TOPICS.iter().position(|(name, _)| *name == topic).context("a topic that was not asked for")?;
        let at = Cell { topic: number as u32, partition: partition as u32 };
        match super::reader::stamp(message.payload(), false) {
            Some(stamp) => shared.note(Event::Sight { stamp, at, offset })?,
            None => shared.problem(format!("a consumer got damaged bytes: {topic} [{partition}] {offset}")),
        }
    }
    Ok(())
}

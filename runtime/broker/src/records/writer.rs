//! Writes what comes with an idempotency key: one task, which takes what waits, writes all of it in one transaction of a
//! producer of the broker's own, and answers once that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pelton_wire::record::{BatchBuilder, BatchOptions, Columns, sequence_add};
use tokio::sync::{mpsc, oneshot};

use super::batch::Part;
use super::keys::{self, KEPT_MS, KeyId, KeyRefused, Keys, Known};
use super::{Place, WriteError, Written};
use crate::api::produce::Producing;
use crate::blocking::run_blocking;
use crate::group::types::TopicPartition;
use crate::partition::Partition;
use crate::pipelines::{ReadFault, read_committed};
use crate::producer_id::ProducerIdentity;
use crate::topic_config::{Durability, Overrides};
use crate::topics::Topic;
use crate::txn::embedded::TransactionalBatch;

/// Its transactional id: none of a pipeline, which has no `@` in its name.
const ID: &str = "pelton.@records";
/// Requests that wait. More of them wait at the port.
const QUEUE: usize = 256;
/// Requests of one transaction.
const REQUESTS: usize = 64;

/// A request with a key.
pub(super) struct KeyedWrite {
    pub(super) topic: Arc<Topic>,
    /// The topic, or its intake.
    pub(super) stored_in: Arc<Topic>,
    pub(super) parts: Vec<Part>,
    pub(super) count: usize,
    pub(super) tickets: bool,
    pub(super) key: String,
    pub(super) digest: [u8; 32],
}

impl KeyedWrite {
    fn id(&self) -> KeyId {
        (self.topic.id, self.key.as_str().into())
    }
}

type Answer = Result<Written, WriteError>;

struct Job {
    write: KeyedWrite,
    reply: oneshot::Sender<Answer>,
}

impl Job {
    fn answer(self, answer: Answer) {
        // Who asked may have gone: it asks again with the same key.
        let _ = self.reply.send(answer);
    }
}

/// The task's end of a queue.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
}

fn unavailable(error: &dyn std::fmt::Display) -> WriteError {
    WriteError::Unavailable(error.to_string())
}

impl Writer {
    /// Creates the topic if it is missing, and reads what it remembers.
    pub(super) async fn start(parts: Arc<Producing>) -> Result<Writer, WriteError> {
        let now_ms = parts.clock.now_ms();
        let settings = [
            ("cleanup.policy", "compact,delete".to_owned()),
            // Segments go when their newest record is so old.
            ("retention.ms", (KEPT_MS + KEPT_MS / 4).to_string()),
            ("segment.bytes", (16 << 20).to_string()),
            ("segment.ms", (KEPT_MS / 8).to_string()),
        ];
        let overrides: Overrides = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let topic = parts.topics.ensure_internal(keys::TOPIC, 1, overrides, now_ms).await;
        let topic = topic.map_err(|error| unavailable(&error))?;
        let memory = Arc::clone(topic.partition(0).map_err(|error| unavailable(&error))?);
        let read = Arc::clone(&memory);
        let known = run_blocking(move || remembered(&read, now_ms)).await?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let sequences = BTreeMap::new();
        let work = Work { parts, memory, known, producer: None, sequences, is_stale: false };
        tokio::spawn(work.run(jobs));
        Ok(Writer { queue })
    }

    pub(super) async fn write(&self, write: KeyedWrite) -> Answer {
        let (reply, answer) = oneshot::channel();
        let stopping = || unavailable(&"the broker is stopping");
        self.queue.send(Job { write, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// The keys that the topic has and that are not too old.
fn remembered(memory: &Partition, now_ms: i64) -> Result<Keys, WriteError> {
    let mut known = Keys::default();
    let mut offset = memory.log_start_offset();
    let end = memory.offsets().last_stable;
    let mut records = Columns::new();
    while offset < end {
        records.clear();
        offset = match read_committed(memory, offset, end, false, &mut records) {
            Ok(next) => next,
            Err(ReadFault::Deleted) => memory.log_start_offset(),
            Err(ReadFault::Unreadable(error)) => return Err(unavailable(&error)),
            Err(ReadFault::BadBatch { offset, reason }) => {
                return Err(unavailable(&format!("{} at offset {offset}: {reason}", keys::TOPIC)));
            }
        };
        for (i, at) in records.offsets().iter().enumerate() {
            let key = records.keys().get(records.data(), i).and_then(keys::parse_key);
            let value = records.values().get(records.data(), i).and_then(keys::parse_value);
            if let (Some(id), Some((at_ms, digest, _))) = (key, value) {
                known.insert(id, Known { at_ms, digest, offset: *at });
            }
        }
    }
    known.expire(now_ms);
    Ok(known)
}

/// The answer that is remembered at an offset.
fn answered(memory: &Partition, offset: i64) -> Answer {
    let mut records = Columns::new();
    let read = read_committed(memory, offset, memory.offsets().last_stable, false, &mut records);
    let found = read.ok().and_then(|_| {
        let i = records.offsets().iter().position(|at| *at == offset)?;
        let (_, _, answer) = keys::parse_value(records.values().get(records.data(), i)?)?;
        serde_json::from_slice(answer).ok()
    });
    found.ok_or_else(|| unavailable(&format!("{} cannot be read at offset {offset}", keys::TOPIC)))
}

struct Work {
    parts: Arc<Producing>,
    /// The partition that remembers.
    memory: Arc<Partition>,
    known: Keys,
    /// None until it is made, and after a transaction that failed.
    producer: Option<ProducerIdentity>,
    /// The next sequence of each partition.
    sequences: BTreeMap<(Arc<str>, i32), i32>,
    /// A transaction failed, and what of it is committed is not known.
    is_stale: bool,
}

/// Requests whose batches are made, and what is to be written.
#[derive(Default)]
struct Transaction {
    jobs: Vec<Job>,
    batches: Vec<TransactionalBatch>,
    /// Which batches are those of each request.
    of_job: Vec<usize>,
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.recv().await {
            let mut waiting = vec![first];
            while waiting.len() < REQUESTS
                && let Ok(next) = queue.try_recv()
            {
                waiting.push(next);
            }
            // One that has the key of another one of these is answered as that was.
            while !waiting.is_empty() {
                waiting = self.write_all(waiting).await;
            }
        }
    }

    /// Answers all of these, but for those whose key another one of them has.
    async fn write_all(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let now_ms = self.parts.clock.now_ms();
        if let Err(error) = self.refresh(now_ms).await {
            fail(jobs, &error);
            return Vec::new();
        }
        self.known.expire(now_ms);
        let (mut later, mut taken, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for job in jobs {
            let id = job.write.id();
            match self.known.get(&id) {
                Some(known) if known.digest == job.write.digest => {
                    let memory = Arc::clone(&self.memory);
                    job.answer(run_blocking(move || answered(&memory, known.offset)).await);
                }
                Some(_) => {
                    let key = job.write.key.clone();
                    job.answer(Err(KeyRefused::Reused(key).into()));
                }
                None if self.known.is_full() => job.answer(Err(KeyRefused::TooMany.into())),
                None if !seen.insert(id) => later.push(job),
                None => taken.push(job),
            }
        }
        if !taken.is_empty() {
            self.write_new(taken, now_ms).await;
        }
        later
    }

    /// After a transaction that failed: whatever is left open of it is aborted, and what is committed is read again.
    async fn refresh(&mut self, now_ms: i64) -> Result<(), String> {
        if !self.is_stale {
            return Ok(());
        }
        self.parts.transactions.abandon(ID).await.map_err(|error| error.to_string())?;
        let memory = Arc::clone(&self.memory);
        let read = run_blocking(move || remembered(&memory, now_ms)).await;
        self.known = read.map_err(|error| error.to_string())?;
        self.is_stale = false;
        Ok(())
    }

    async fn write_new(&mut self, jobs: Vec<Job>, now_ms: i64) {
        let producer = match self.producer().await {
            Ok(producer) => producer,
            Err(error) => return fail(jobs, &error),
        };
        let mut transaction = Transaction::default();
        for job in jobs {
            match self.batches(&job.write, producer, now_ms) {
                Ok(batches) => {
                    transaction.of_job.push(batches.len());
                    transaction.batches.extend(batches);
                    transaction.jobs.push(job);
                }
                Err(error) => job.answer(Err(error)),
            }
        }
        if transaction.jobs.is_empty() {
            return;
        }
        let Transaction { jobs, batches, of_job } = transaction;
        match self.commit(&jobs, batches, &of_job, producer, now_ms).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    job.answer(Ok(answer));
                }
            }
            Err(error) => {
                (self.producer, self.is_stale) = (None, true);
                fail(jobs, &error);
            }
        }
    }

    /// The producer, made anew if there is none.
    async fn producer(&mut self) -> Result<ProducerIdentity, String> {
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let made = self.parts.transactions.init_embedded(ID).await.map_err(|error| error.to_string())?;
        self.sequences.clear();
        self.producer = Some(made);
        Ok(made)
    }

    /// The batches of a request. Its sequences count once all of them are made.
    fn batches(
        &mut self,
        write: &KeyedWrite,
        producer: ProducerIdentity,
        now_ms: i64,
    ) -> Result<Vec<TransactionalBatch>, WriteError> {
        let name: Arc<str> = write.stored_in.name.as_str().into();
        let durability = write.stored_in.config.durability;
        let mut batches = Vec::with_capacity(write.parts.len());
        let mut used = Vec::with_capacity(write.parts.len());
        for part in &write.parts {
            let slot = (Arc::clone(&name), part.partition);
            let sequence = self.sequences.get(&slot).copied().unwrap_or(0);
            let batch = part.batch(&write.topic, Some((producer, sequence)), now_ms, self.parts.unpack)?;
            let found = write.stored_in.partition(part.partition).map_err(|error| unavailable(&error))?;
            used.push((slot, next(sequence, part.records.len())));
            let at = TopicPartition { topic: Arc::clone(&name), partition: part.partition };
            batches.push(TransactionalBatch { at, partition: Arc::clone(found), batch, durability });
        }
        self.sequences.extend(used);
        Ok(batches)
    }

    /// Writes the batches, and what is to be remembered of them, and commits.
    async fn commit(
        &mut self,
        jobs: &[Job],
        batches: Vec<TransactionalBatch>,
        of_job: &[usize],
        producer: ProducerIdentity,
        now_ms: i64,
    ) -> Result<Vec<Written>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let bytes = batches.iter().map(|batch| batch.batch.len() as u64).sum();
        let room = self.parts.log_dir.permit(bytes).await.map_err(|error| text(&error))?;
        let transactions = self.parts.transactions.clone();
        let mut held = transactions.lock(ID).await.map_err(|error| text(&error))?;
        let offsets = transactions.write(&mut held, producer, None, batches, &room);
        let mut offsets = offsets.map_err(|error| text(&error))?.into_iter();
        let answers: Vec<Written> = jobs
            .iter()
            .zip(of_job)
            .map(|(job, count)| answer(&job.write, offsets.by_ref().take(*count)))
            .collect();
        let (at, remembering) = self.remembering(jobs, &answers, producer, now_ms)?;
        let remembered = transactions.write(&mut held, producer, None, vec![remembering], &room);
        let first = remembered.map_err(|error| text(&error))?.first().copied().unwrap_or(-1);
        drop((held, room));
        let ending = transactions.commit_embedded(ID, producer, &at).await.map_err(|error| text(&error))?;
        ending.settled().await.map_err(|error| text(&error))?;
        for (job, offset) in jobs.iter().zip(first..) {
            let digest = job.write.digest;
            self.known.insert(job.write.id(), Known { at_ms: now_ms, digest, offset });
            for part in &job.write.parts {
                self.parts.metrics.produced(part.records.len() as u64, 0);
            }
        }
        Ok(answers)
    }

    /// The records that remember these answers, in the order of the requests.
    fn remembering(
        &mut self,
        jobs: &[Job],
        answers: &[Written],
        producer: ProducerIdentity,
        now_ms: i64,
    ) -> Result<(TopicPartition, TransactionalBatch), String> {
        let topic: Arc<str> = keys::TOPIC.into();
        let sequence = self.sequences.entry((Arc::clone(&topic), 0)).or_insert(0);
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: *sequence,
            transactional: true,
            ..BatchOptions::default()
        });
        *sequence = next(*sequence, jobs.len());
        for (job, answer) in jobs.iter().zip(answers) {
            let key = Bytes::from(keys::key_bytes(&job.write.id()));
            let value = keys::value_bytes(now_ms, &job.write.digest, answer);
            let added = builder.append(now_ms, Some(&key), Some(&value), &[]);
            added.map_err(|error| error.to_string())?;
        }
        let batch = builder.build().map_err(|error| error.to_string())?;
        let at = TopicPartition { topic, partition: 0 };
        let partition = Arc::clone(&self.memory);
        Ok((at.clone(), TransactionalBatch { at, partition, batch, durability: Durability::Group }))
    }
}

fn answer(write: &KeyedWrite, offsets: impl Iterator<Item = i64>) -> Written {
    let mut records = vec![Place { partition: -1, offset: -1 }; write.count];
    for (part, base_offset) in write.parts.iter().zip(offsets) {
        part.note(base_offset, &mut records);
    }
    Written { records, tickets: write.tickets }
}

fn next(sequence: i32, records: usize) -> i32 {
    sequence_add(sequence, i32::try_from(records).unwrap_or(i32::MAX))
}

fn fail(jobs: Vec<Job>, error: &str) {
    for job in jobs {
        job.answer(Err(unavailable(&format!(
            "{error}; send it again with the same key: it is written once"
        ))));
    }
}

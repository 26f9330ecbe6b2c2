//! Produce: appends one batch to each of some partitions.
//!
//! Batches are checked and appended in the call, in the order of the connection's requests. The response waits for the
//! group sync, which overlaps with the next requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{AppendPermit, LogDir, SinkClosed};
use pelton_partitions::admission::{Refusal, Rules, check};
use pelton_wire::ErrorCode;
use pelton_wire::message::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use pelton_wire::message::{ProduceRequest, ProduceResponse};
use pelton_wire::record::{CheckedBatch, DecompressLimit, RecordProblem};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use uuid::Uuid;

use super::context::RequestContext;
use super::reply::{Close, Reply};
use super::support::error_map::{self, Refused};
use super::timer::ConnectionTimer;
use crate::clock::Clock;
use crate::group::types::TopicPartition;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::partition::acks::Acks;
use crate::producer_id::ProducerIdentity;
use crate::topic_config::Durability;
use crate::topics::{Topic, Topics};
use crate::txn::Transactions;
use crate::txn::cache::TxnLock;
use crate::txn::coordinator::{TransactionalWrite, open_to_clients};
use crate::txn::error::TxnError;
use crate::txn::state::Protocol;

/// First version in which topics have ids instead of names.
const IDS_SINCE: i16 = 13;
/// First version whose transactional batches add their partition to the transaction (KIP-890).
const ADDS_PARTITIONS_SINCE: i16 = 12;
/// First version whose clients know `TRANSACTION_ABORTABLE`.
const ABORTABLE_SINCE: i16 = 11;

/// A larger request runs in `block_in_place`: checking and copying 256 KiB takes about 100 µs, longer than moving the
/// thread's other connections to another thread.
const BUSY_BYTES: usize = 256 * 1024;

/// The parts that writing records needs: a produce request, or one over HTTP.
pub(crate) struct Producing {
    pub(crate) topics: Arc<Topics>,
    pub(crate) transactions: Transactions,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// What a batch may unpack to.
    pub(crate) unpack: DecompressLimit,
}

pub(crate) fn handle(
    parts: &Arc<Producing>,
    cx: &RequestContext,
    request: ProduceRequest,
) -> Reply<ProduceResponse> {
    let Some(acks) = Required::from_wire(request.acks) else {
        let why = "acks is 0, 1 or -1 (all)";
        return Reply::ready(refuse_all(request, &Refused::new(ErrorCode::INVALID_REQUIRED_ACKS, why)));
    };
    let bytes = cx.request_bytes as u64;
    match parts.log_dir.try_permit(bytes) {
        Ok(Some(room)) => admitted(parts, cx, request, acks, room),
        Ok(None) => {
            let (parts, own, room) = (Arc::clone(parts), cx.clone(), parts.log_dir.permit(bytes));
            cx.waits(async move {
                match room.await {
                    Ok(room) => admitted(&parts, &own, request, acks, room),
                    Err(closed) => refuse(request, acks, &closed_journal(&closed)),
                }
            })
        }
        Err(closed) => refuse(request, acks, &closed_journal(&closed)),
    }
}

fn closed_journal(closed: &SinkClosed) -> Refused {
    Refused::new(ErrorCode::KAFKA_STORAGE_ERROR, closed.to_string())
}

/// The journal has room for the request. A transactional id is locked first.
fn admitted(
    parts: &Arc<Producing>,
    cx: &RequestContext,
    request: ProduceRequest,
    acks: Required,
    room: AppendPermit,
) -> Reply<ProduceResponse> {
    let Some(id) = request.transactional_id.as_deref() else {
        return produce(parts, cx, request, acks, room, Transactional::Unnamed);
    };
    let held = open_to_clients(id).and_then(|()| parts.transactions.try_lock(id));
    match held {
        Ok(Some(held)) => produce(parts, cx, request, acks, room, Transactional::Locked(held)),
        // The coordinator is ending the transaction: this connection's requests wait for that.
        Ok(None) => {
            let (parts, own, id) = (Arc::clone(parts), cx.clone(), id.to_owned());
            cx.waits(async move {
                let held = parts.transactions.lock(&id).await;
                let held = held.map_or_else(Transactional::Refused, Transactional::Locked);
                produce(&parts, &own, request, acks, room, held)
            })
        }
        Err(error) => produce(parts, cx, request, acks, room, Transactional::Refused(error)),
    }
}

/// Whether the request may write transactional batches. Its other batches do not depend on this.
enum Transactional {
    /// The request names no transactional id.
    Unnamed,
    /// It may not, for this reason.
    Refused(TxnError),
    /// It may, while this lock is held: no marker comes between its batches.
    Locked(TxnLock),
}

/// Refuses the whole request. With acks=0 there is no response, so the connection is closed.
fn refuse(request: ProduceRequest, acks: Required, refused: &Refused) -> Reply<ProduceResponse> {
    match acks {
        Required::None => Reply::Close(Close("an append with acks=0 was refused", refused.code)),
        Required::Leader | Required::All => Reply::ready(refuse_all(request, refused)),
    }
}

fn produce(
    parts: &Producing,
    cx: &RequestContext,
    request: ProduceRequest,
    acks: Required,
    room: AppendPermit,
    transaction: Transactional,
) -> Reply<ProduceResponse> {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let bytes: usize = request.topic_data.iter().flat_map(|topic| &topic.partition_data).map(size).sum();
    let waiting = Acks::new();
    let appending = Appending { parts, cx, acks, waiting: &waiting, room, transaction };
    let append = || appending.topics(request.topic_data);
    let response = if bytes > BUSY_BYTES && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(append)
    } else {
        append()
    };
    if acks == Required::None {
        return match first_error(&response) {
            None => Reply::Silent,
            Some(code) => Reply::Close(Close("an append with acks=0 was refused", code)),
        };
    }
    let connection = Arc::clone(&cx.connection);
    cx.later(async move { durable(response, &waiting, &connection.timer, deadline).await })
}

/// The `acks` of the request. With one replica, leader and all mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Required {
    None,
    Leader,
    All,
}

impl Required {
    fn from_wire(acks: i16) -> Option<Required> {
        match acks {
            0 => Some(Required::None),
            1 => Some(Required::Leader),
            -1 => Some(Required::All),
            _ => None,
        }
    }
}

fn size(partition: &PartitionProduceData) -> usize {
    partition.records.as_ref().map_or(0, Bytes::len)
}

/// Where the batches of a topic go.
struct Destination {
    /// The topic that the client names, whose settings count.
    topic: Arc<Topic>,
    /// The topic that takes the batches, if that is another one: the intake.
    intake: Option<Arc<Topic>>,
}

impl Destination {
    fn stored_in(&self) -> &Arc<Topic> {
        self.intake.as_ref().unwrap_or(&self.topic)
    }
}

/// One partition of the request.
struct Part {
    index: i32,
    outcome: Result<Checked, Failed>,
}

/// A checked batch, which its transaction may still refuse.
struct Checked {
    to: Arc<Destination>,
    partition: Arc<Partition>,
    batch: CheckedBatch,
}

/// One request during its appends.
struct Appending<'a> {
    parts: &'a Producing,
    cx: &'a RequestContext,
    acks: Required,
    waiting: &'a Arc<Acks>,
    /// The request's permit of the journal. Appended batches count by themselves once it is released.
    room: AppendPermit,
    transaction: Transactional,
}

impl Appending<'_> {
    /// Checks all batches, then appends those that pass.
    fn topics(mut self, topics: Vec<TopicProduceData>) -> ProduceResponse {
        let by_id = self.cx.version >= IDS_SINCE;
        let mut scratch = Vec::new();
        let mut checked = Vec::with_capacity(topics.len());
        for TopicProduceData { name, topic_id, partition_data } in topics {
            let to = look_up(&self.parts.topics, &name, topic_id, by_id);
            let part = |data: PartitionProduceData| Part {
                index: data.index,
                outcome: match &to {
                    Ok(to) => self.check(to, data, &mut scratch),
                    Err(refused) => Err(refused.clone().into()),
                },
            };
            let parts: Vec<_> = partition_data.into_iter().map(part).collect();
            checked.push((name, topic_id, parts));
        }
        self.allow(checked.iter_mut().flat_map(|(_, _, parts)| parts));
        let responses = checked.into_iter().map(|(name, topic_id, parts)| {
            let answer = |Part { index, outcome }| {
                let appended = outcome.and_then(|checked| self.append(checked));
                appended.unwrap_or_else(|failed: Failed| failed.response(index))
            };
            let partition_responses = parts.into_iter().map(answer).collect();
            TopicProduceResponse { name, topic_id, partition_responses }
        });
        ProduceResponse { responses: responses.collect(), ..Default::default() }
    }

    fn check(
        &self,
        to: &Arc<Destination>,
        data: PartitionProduceData,
        scratch: &mut Vec<u8>,
    ) -> Result<Checked, Failed> {
        let partition = to.stored_in().partition(data.index).map_err(Refused::from)?;
        let now_ms = self.parts.clock.now_ms();
        let rules =
            Rules { topic: &to.topic.config, version: self.cx.version, now_ms, limit: self.parts.unpack };
        let batch = check(data.records, &rules, scratch).map_err(Failed::Check)?;
        let header = batch.header();
        if header.is_transactional() && self.acks == Required::None {
            // With acks=0 the producer cannot know that the batch is durable before it commits.
            let why = "a transaction needs acks=all or acks=1";
            return Err(Refused::new(ErrorCode::INVALID_REQUIRED_ACKS, why).into());
        }
        let is_given = || self.parts.topics.producer_id_was_given(header.producer_id);
        if !header.is_transactional() && header.has_producer() && !is_given() {
            let why = "no producer was given this id here: close the producer and make a new one";
            return Err(Refused::new(ErrorCode::INVALID_PRODUCER_ID_MAPPING, why).into());
        }
        Ok(Checked { to: Arc::clone(to), partition: Arc::clone(partition), batch })
    }

    /// Refuses transactional batches whose producer may not write now. With the newer protocol the partitions of the
    /// others are added to the transaction, all at once.
    fn allow<'p>(&mut self, parts: impl Iterator<Item = &'p mut Part>) {
        let (mut batches, mut writes) = (Vec::new(), Vec::new());
        for part in parts {
            if let Ok(Checked { to, partition, batch }) = &part.outcome
                && batch.header().is_transactional()
            {
                let header = batch.header();
                let producer = ProducerIdentity { id: header.producer_id, epoch: header.producer_epoch };
                let topic = to.stored_in().name.as_str().into();
                let at = TopicPartition { topic, partition: partition.index() };
                writes.push(TransactionalWrite { producer, at });
                batches.push(&mut part.outcome);
            }
        }
        let version = self.cx.version;
        let refusals: Vec<Option<Refused>> = match &mut self.transaction {
            _ if writes.is_empty() => return,
            Transactional::Unnamed => {
                let why = "the batch is transactional and the request names no transactional id";
                let refused = Refused::new(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, why);
                vec![Some(refused); writes.len()]
            }
            Transactional::Refused(error) => {
                vec![Some(transaction_refused(*error, version)); writes.len()]
            }
            Transactional::Locked(held) => {
                let newer = version >= ADDS_PARTITIONS_SINCE;
                let protocol = if newer { Protocol::EpochPerTransaction } else { Protocol::Classic };
                let journal = self.parts.topics.same_journal();
                let verdicts = self.parts.transactions.allow(held, writes, protocol, journal).into_iter();
                verdicts.map(|verdict| Some(transaction_refused(verdict.err()?, version))).collect()
            }
        };
        for (batch, refused) in batches.into_iter().zip(refusals) {
            if let Some(refused) = refused {
                *batch = Err(refused.into());
            }
        }
    }

    fn append(&self, checked: Checked) -> Result<PartitionProduceResponse, Failed> {
        let Checked { to, partition, batch } = checked;
        check_room(&to.topic, &partition)?;
        let durability = to.stored_in().config.durability;
        let is_awaited = self.acks != Required::None && durability == Durability::Group;
        let waits = is_awaited.then_some(self.waiting);
        let (bytes, records) = (batch.len(), batch.header().records_count.unsigned_abs());
        // A cached batch keeps its whole request in memory, so a small part is copied.
        let batch = if bytes < self.cx.request_bytes / 2 { batch.detached() } else { batch };
        let appended = partition
            .append_client(batch, &self.room, self.parts.clock.now_ms(), durability, waits)
            .map_err(|error| Refused::new(error_map::partition_append(&error), error.to_string()))?;
        self.parts.metrics.produced(records.into(), bytes);
        Ok(PartitionProduceResponse {
            index: partition.index(),
            base_offset: appended.base_offset,
            log_append_time_ms: if to.topic.config.log_append_time { appended.max_timestamp } else { -1 },
            log_start_offset: partition.log_start_offset(),
            ..Default::default()
        })
    }
}

/// Refuses what an intake has no room for. Clients try again: their sequences and their order stay.
fn check_room(topic: &Topic, partition: &Partition) -> Result<(), Refused> {
    let (Some(partitioner), Some(intake)) = (&topic.config.partitioner, partition.intake()) else {
        return Ok(());
    };
    let (unrouted, max) = (intake.unrouted_bytes(), partitioner.intake_max_bytes);
    if unrouted < max {
        return Ok(());
    }
    let why = format!(
        "{unrouted} bytes of the topic are not routed yet, and `pelton.intake.max.bytes` is {max}: see `pelton topic describe`"
    );
    Err(Refused::new(ErrorCode::NOT_ENOUGH_REPLICAS, why))
}

fn look_up(topics: &Topics, name: &str, id: Uuid, by_id: bool) -> Result<Arc<Destination>, Refused> {
    let found = if by_id {
        topics.by_id(id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    };
    let topic = found.map_err(|code| Refused::new(code, "there is no such topic"))?;
    if topic.is_internal() {
        let why = "clients cannot write to the broker's own topics";
        return Err(Refused::new(ErrorCode::INVALID_TOPIC_EXCEPTION, why));
    }
    let intake = topics.intake(&topic)?;
    Ok(Arc::new(Destination { topic, intake }))
}

/// Why a partition of the request failed.
enum Failed {
    Check(Refusal),
    Refused(Refused),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Failed::Refused(refused)
    }
}

impl Failed {
    fn response(self, index: i32) -> PartitionProduceResponse {
        let (error_code, message, record_errors) = match self {
            Failed::Check(refusal) => (refusal.code(), refusal.to_string(), record_errors(&refusal)),
            Failed::Refused(refused) => (refused.code, refused.message, Vec::new()),
        };
        PartitionProduceResponse {
            index,
            error_code,
            base_offset: -1,
            record_errors,
            error_message: Some(message),
            ..Default::default()
        }
    }
}

/// The records that failed the check.
fn record_errors(refusal: &Refusal) -> Vec<BatchIndexAndErrorMessage> {
    let named = |problem: &RecordProblem| BatchIndexAndErrorMessage {
        batch_index: problem.index,
        batch_index_error_message: Some(format!("the record {}", problem.kind)),
    };
    refusal.record_problems().iter().map(named).collect()
}

/// The error code of a version for a refusal of the transaction coordinator.
fn transaction_refused(error: TxnError, version: i16) -> Refused {
    let code = match error {
        TxnError::NotAdded if version >= ABORTABLE_SINCE => ErrorCode::TRANSACTION_ABORTABLE,
        // The coordinator's own codes are fatal to these clients here; this code is retriable.
        TxnError::Concurrent if version < ADDS_PARTITIONS_SINCE => ErrorCode::NOT_ENOUGH_REPLICAS,
        TxnError::NotAvailable => ErrorCode::NOT_ENOUGH_REPLICAS,
        other => other.code_before_fenced(),
    };
    Refused::new(code, error.to_string())
}

/// Waits for the sync that covers the appends, at most for the request's timeout.
async fn durable(
    mut response: ProduceResponse,
    waiting: &Acks,
    timer: &ConnectionTimer,
    deadline: Instant,
) -> ProduceResponse {
    if Mutant::ProduceBeforeSync.is_on() {
        return response;
    }
    let refused = match timer.until(deadline, waiting.wait()).await {
        Some(Ok(())) => return response,
        Some(Err(error)) => Refused::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string()),
        // The append may still become durable. The client retries, and its sequence makes that a duplicate.
        None => Refused::new(
            ErrorCode::REQUEST_TIMED_OUT,
            "the append did not become durable within the request's timeout",
        ),
    };
    let all = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
    for partition in all.filter(|partition| partition.error_code.is_ok()) {
        *partition = Failed::from(refused.clone()).response(partition.index);
    }
    response
}

fn refuse_all(request: ProduceRequest, refused: &Refused) -> ProduceResponse {
    let responses = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter();
        let partition_responses = partitions.map(|p| Failed::from(refused.clone()).response(p.index));
        TopicProduceResponse {
            partition_responses: partition_responses.collect(),
            name: topic.name,
            topic_id: topic.topic_id,
        }
    });
    ProduceResponse { responses: responses.collect(), ..Default::default() }
}

fn first_error(response: &ProduceResponse) -> Option<ErrorCode> {
    let all = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    all.map(|partition| partition.error_code).find(|code| code.is_err())
}

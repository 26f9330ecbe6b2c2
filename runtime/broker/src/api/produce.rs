//! Produce: appends one batch to each of some partitions.
//!
//! What must happen in the order of a connection's requests, checking and appending, happens in the call; what the answer
//! waits for, a group sync, happens afterwards and overlaps with the next requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{AppendPermit, SinkClosed};
use pelton_wire::ErrorCode;
use pelton_wire::message::produce::{
    PartitionProduceData, PartitionProduceResponse, TopicProduceData, TopicProduceResponse,
};
use pelton_wire::message::{ProduceRequest, ProduceResponse};
use pelton_wire::record::BatchHeader;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::error_map::{self, Refused};
use super::produce_check::{Accepted, Refusal, Rules, check};
use crate::broker::Broker;
use crate::group::types::TopicPartition;
use crate::partition::acks::Acks;
use crate::producer_id::ProducerIdentity;
use crate::reply::{Close, Reply, RequestContext};
use crate::topic_config::Durability;
use crate::topics::Topic;
use crate::txn::cache::Held;
use crate::txn::coordinator::open_to_clients;
use crate::txn::error::TxnError;
use crate::txn::state::Protocol;

/// First version in which topics have ids instead of names.
const IDS_SINCE: i16 = 13;
/// First version whose transactional batches add their partition to the transaction (KIP-890).
const ADDS_PARTITIONS_SINCE: i16 = 12;
/// First version whose clients know `TRANSACTION_ABORTABLE`.
const ABORTABLE_SINCE: i16 = 11;

/// A request with more bytes than this is worth telling the runtime that its thread is busy: checking and copying 256 KiB
/// takes about 100 µs, longer than moving the other connections to another thread.
const BUSY_BYTES: usize = 256 * 1024;

pub(crate) fn handle(cx: &RequestContext, request: ProduceRequest) -> Reply<ProduceResponse> {
    let Some(acks) = Required::from_wire(request.acks) else {
        let why = "acks is 0, 1 or -1 (all)";
        return Reply::ready(refuse_all(request, &Refused::new(ErrorCode::INVALID_REQUIRED_ACKS, why)));
    };
    let bytes = cx.request_bytes as u64;
    match cx.broker.log_dir.try_permit(bytes) {
        Ok(Some(room)) => admitted(cx, request, acks, room),
        Ok(None) => {
            let (cx, room) = (cx.clone(), cx.broker.log_dir.permit(bytes));
            Reply::Waits(Box::pin(async move {
                match room.await {
                    Ok(room) => admitted(&cx, request, acks, room),
                    Err(closed) => refuse(request, acks, &closed_journal(&closed)),
                }
            }))
        }
        Err(closed) => refuse(request, acks, &closed_journal(&closed)),
    }
}

fn closed_journal(closed: &SinkClosed) -> Refused {
    Refused::new(ErrorCode::KAFKA_STORAGE_ERROR, closed.to_string())
}

/// There is room in the journal for the request. A transaction is taken hold of first.
fn admitted(
    cx: &RequestContext,
    request: ProduceRequest,
    acks: Required,
    room: AppendPermit,
) -> Reply<ProduceResponse> {
    let Some(id) = request.transactional_id.as_deref() else {
        return produce(cx, request, acks, room, None);
    };
    match acks {
        Required::All => {}
        // What is not known to be durable cannot be promised to be committed.
        Required::None => {
            return Reply::Close(Close("a transaction with acks=0", ErrorCode::INVALID_REQUIRED_ACKS));
        }
        Required::Leader => {
            let why = "a transaction needs acks=all";
            return Reply::ready(refuse_all(request, &Refused::new(ErrorCode::INVALID_REQUIRED_ACKS, why)));
        }
    }
    let held = open_to_clients(id).and_then(|()| cx.broker.transactions.try_hold(id));
    match held {
        Ok(Some(held)) => produce(cx, request, acks, room, Some(held)),
        // Somebody is ending its transaction, or aborting it: what comes on this connection waits for that.
        Ok(None) => {
            let (cx, id) = (cx.clone(), id.to_owned());
            Reply::Waits(Box::pin(async move {
                match cx.broker.transactions.hold(&id).await {
                    Ok(held) => produce(&cx, request, acks, room, Some(held)),
                    Err(error) => refuse(request, acks, &transaction_refused(error, cx.version)),
                }
            }))
        }
        Err(error) => refuse(request, acks, &transaction_refused(error, cx.version)),
    }
}

/// Refuses the whole request. With acks=0 the protocol has no answer, so an error can only be said by hanging up.
fn refuse(request: ProduceRequest, acks: Required, refused: &Refused) -> Reply<ProduceResponse> {
    match acks {
        Required::None => Reply::Close(Close("an append with acks=0 was refused", refused.code)),
        Required::Leader | Required::All => Reply::ready(refuse_all(request, refused)),
    }
}

fn produce(
    cx: &RequestContext,
    request: ProduceRequest,
    acks: Required,
    room: AppendPermit,
    held: Option<Held>,
) -> Reply<ProduceResponse> {
    let bytes: usize = request.topic_data.iter().flat_map(|topic| &topic.partition_data).map(size).sum();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let append = || append_all(cx, request.topic_data, acks, &room, held);
    let appended = if bytes > BUSY_BYTES && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(append)
    } else {
        append()
    };
    // What was appended counts by itself from here on.
    drop(room);
    let Appended { response, waiting } = appended;
    if acks == Required::None {
        return match first_error(&response) {
            None => Reply::Silent,
            Some(code) => Reply::Close(Close("an append with acks=0 was refused", code)),
        };
    }
    Reply::later(async move { durable(response, &waiting, timeout).await })
}

/// What an acknowledgement is asked to wait for. With one copy of a partition, leader and all are the same.
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

struct Appended {
    response: ProduceResponse,
    waiting: Arc<Acks>,
}

fn size(partition: &PartitionProduceData) -> usize {
    partition.records.as_ref().map_or(0, Bytes::len)
}

/// Appends what can be appended. A transaction is held until all of it has its place in the log: no marker comes between.
fn append_all(
    cx: &RequestContext,
    topics: Vec<TopicProduceData>,
    acks: Required,
    room: &AppendPermit,
    mut held: Option<Held>,
) -> Appended {
    let waiting = Acks::new();
    let mut scratch = Vec::new();
    let by_id = cx.version >= IDS_SINCE;
    let mut responses = Vec::with_capacity(topics.len());
    for data in topics {
        let topic = look_up(&cx.broker, &data, by_id);
        let mut partition_responses = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data {
            let index = partition.index;
            let outcome = match &topic {
                Ok(topic) => {
                    append(cx, topic, partition, (acks, room), &waiting, held.as_mut(), &mut scratch)
                }
                Err(refused) => Err(refused.clone().into()),
            };
            partition_responses.push(outcome.unwrap_or_else(|failed| failed.response(index)));
        }
        responses.push(TopicProduceResponse {
            name: data.name,
            topic_id: data.topic_id,
            partition_responses,
        });
    }
    Appended { response: ProduceResponse { responses, ..Default::default() }, waiting }
}

fn look_up(broker: &Broker, data: &TopicProduceData, by_id: bool) -> Result<Arc<Topic>, Refused> {
    let found = if by_id {
        broker.topics.by_id(data.topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        broker.topics.get(&data.name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    };
    let topic = found.map_err(|code| Refused::new(code, "there is no such topic"))?;
    if topic.is_internal() {
        let why = "clients cannot write to the broker's own topics";
        return Err(Refused::new(ErrorCode::INVALID_TOPIC_EXCEPTION, why));
    }
    Ok(topic)
}

/// A partition's part of the request that failed.
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
            Failed::Check(refusal) => (refusal.code(), refusal.to_string(), refusal.record_errors()),
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

fn append(
    cx: &RequestContext,
    topic: &Topic,
    data: PartitionProduceData,
    (acks, room): (Required, &AppendPermit),
    waiting: &Arc<Acks>,
    held: Option<&mut Held>,
    scratch: &mut Vec<u8>,
) -> Result<PartitionProduceResponse, Failed> {
    let unknown = || Refused::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition");
    let partition = topic.partition(data.index).ok_or_else(unknown)?;
    let now_ms = cx.broker.clock.now_ms();
    let limit = cx.broker.config.decompress_limit();
    let rules = Rules { topic: &topic.config, version: cx.version, now_ms, limit };
    let Accepted { batch, header } = check(data.records, &rules, scratch).map_err(Failed::Check)?;
    if header.is_transactional() {
        allow(cx, topic, data.index, &header, held)?;
    } else if header.has_producer() && !cx.broker.topics.producer_id_was_given(header.producer_id) {
        let why = "no producer was given this id here: close the producer and make a new one";
        return Err(Refused::new(ErrorCode::INVALID_PRODUCER_ID_MAPPING, why).into());
    }
    let waits = (acks != Required::None && topic.config.durability == Durability::Group).then_some(waiting);
    let bytes = batch.len();
    // The batch may be kept in memory for a while, and all of its request with it.
    let batch = if bytes < cx.request_bytes / 2 { Bytes::copy_from_slice(&batch) } else { batch };
    let appended = partition
        .append_client(batch, room, now_ms, topic.config.durability, waits)
        .map_err(|error| Refused::new(error_map::partition_append(&error), error.to_string()))?;
    cx.broker.metrics.produced(header.records_count.unsigned_abs().into(), bytes);
    Ok(PartitionProduceResponse {
        index: data.index,
        base_offset: appended.base_offset,
        log_append_time_ms: if topic.config.log_append_time { appended.max_timestamp } else { -1 },
        log_start_offset: partition.log_start_offset(),
        ..Default::default()
    })
}

/// Whether a transactional batch may be appended now.
fn allow(
    cx: &RequestContext,
    topic: &Topic,
    partition: i32,
    header: &BatchHeader,
    held: Option<&mut Held>,
) -> Result<(), Refused> {
    let Some(held) = held else {
        let why = "the batch is transactional and the request names no transactional id";
        return Err(Refused::new(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, why));
    };
    let producer = ProducerIdentity { id: header.producer_id, epoch: header.producer_epoch };
    let at = TopicPartition { topic: topic.name.as_str().into(), partition };
    let newer = cx.version >= ADDS_PARTITIONS_SINCE;
    let protocol = if newer { Protocol::EpochPerTransaction } else { Protocol::Classic };
    let allowed = cx.broker.transactions.allow(held, producer, at, protocol);
    allowed.map_err(|error| transaction_refused(error, cx.version))
}

/// What a producer is told, in words that its version knows.
fn transaction_refused(error: TxnError, version: i16) -> Refused {
    let code = match error {
        TxnError::NotAdded if version >= ABORTABLE_SINCE => ErrorCode::TRANSACTION_ABORTABLE,
        // Retriable for every client, which the coordinator's own codes are not here.
        TxnError::Concurrent if version < ADDS_PARTITIONS_SINCE => ErrorCode::NOT_ENOUGH_REPLICAS,
        TxnError::NotAvailable => ErrorCode::NOT_ENOUGH_REPLICAS,
        other => other.code_before_fenced(),
    };
    Refused::new(code, error.to_string())
}

/// Waits for the sync that covers the appends, at most for the time that the client gave.
async fn durable(mut response: ProduceResponse, waiting: &Acks, timeout: Duration) -> ProduceResponse {
    if Mutant::ProduceBeforeSync.is_on() {
        return response;
    }
    let refused = match tokio::time::timeout(timeout, waiting.wait()).await {
        Ok(Ok(())) => return response,
        Ok(Err(error)) => Refused::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string()),
        // Not known to be lost: the client sends it again, and its sequence tells the two apart.
        Err(_) => {
            Refused::new(ErrorCode::REQUEST_TIMED_OUT, "the append was not durable in the request's time")
        }
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

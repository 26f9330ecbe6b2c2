//! AddPartitionsToTxn: adds partitions to a transaction, all or none. From version 4 on other brokers send it, for many
//! transactions, or to verify that a transaction has a partition (KIP-890).

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult, AddPartitionsToTxnTransaction,
};
use pelton_wire::message::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::{Close, Reply};
use super::support::txn_error::or_close;
use crate::group::types::TopicPartition;
use crate::producer_id::ProducerIdentity;
use crate::txn::error::TxnError;
use crate::txn::origin::{RequestKind, RequestOrigin};

/// First version with many transactions.
const BATCHED_SINCE: i16 = 4;
/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> Reply<AddPartitionsToTxnResponse> {
    let (parts, version, place) = (Arc::clone(parts), cx.version, cx.origin());
    cx.later_or_close(async move {
        if version >= BATCHED_SINCE {
            let mut results = Vec::with_capacity(request.transactions.len());
            for one in request.transactions {
                let transactional_id = one.transactional_id.clone();
                // Other brokers have connections of their own, and many.
                let topic_results = add(&parts, one, version, None).await?;
                results.push(AddPartitionsToTxnResult { transactional_id, topic_results });
            }
            return Ok(AddPartitionsToTxnResponse { results_by_transaction: results, ..Default::default() });
        }
        let one = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        let results = add(&parts, one, version, Some(place)).await?;
        Ok(AddPartitionsToTxnResponse { results_by_topic_v3_and_below: results, ..Default::default() })
    })
}

async fn add(
    parts: &TransactionParts,
    request: AddPartitionsToTxnTransaction,
    version: i16,
    from: Option<RequestOrigin>,
) -> Result<Vec<AddPartitionsToTxnTopicResult>, Close> {
    let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
    let id = &request.transactional_id;
    if request.verify_only {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut codes = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let written_to = parts.topics.written_to(&topic.name);
                let name = written_to.as_ref().map_or(&topic.name, |found| &found.name);
                let at = TopicPartition { topic: name.as_str().into(), partition: *partition };
                let verified = parts.transactions.verify(id, producer, &at).await;
                codes.push(verified.map_or_else(|error| error.code(), |()| ErrorCode::NONE));
            }
            results.push(result(topic, codes));
        }
        return Ok(results);
    }
    let exists = |topic: &AddPartitionsToTxnTopic, partition: i32| {
        parts.topics.written_to(&topic.name).is_some_and(|found| found.has_partition(partition))
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let Some(written_to) = parts.topics.written_to(&topic.name) else { continue };
        let name: Arc<str> = written_to.name.as_str().into();
        for partition in topic.partitions.iter().copied().filter(|partition| exists(topic, *partition)) {
            partitions.push(TopicPartition { topic: Arc::clone(&name), partition });
        }
    }
    let wanted: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let outcome = if partitions.len() == wanted {
        let added =
            parts.transactions.add(id, producer, partitions, (RequestKind::AddPartitions, from)).await;
        Some(added.map_or_else(|error| or_close(error).map(Err), |()| Ok(Ok::<(), TxnError>(())))?)
    } else {
        None
    };
    let code = |topic: &AddPartitionsToTxnTopic, partition: i32| match &outcome {
        Some(Ok(())) => ErrorCode::NONE,
        Some(Err(error)) if version < FENCED_SINCE => error.code_before_fenced(),
        Some(Err(error)) => error.code(),
        None if exists(topic, partition) => ErrorCode::OPERATION_NOT_ATTEMPTED,
        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    };
    let codes = |topic: &AddPartitionsToTxnTopic| topic.partitions.iter().map(|p| code(topic, *p)).collect();
    Ok(request.topics.iter().map(|topic| result(topic.clone(), codes(topic))).collect())
}

fn result(topic: AddPartitionsToTxnTopic, codes: Vec<ErrorCode>) -> AddPartitionsToTxnTopicResult {
    let results = topic.partitions.into_iter().zip(codes);
    AddPartitionsToTxnTopicResult {
        name: topic.name,
        results_by_partition: results
            .map(|(partition_index, partition_error_code)| AddPartitionsToTxnPartitionResult {
                partition_index,
                partition_error_code,
            })
            .collect(),
    }
}

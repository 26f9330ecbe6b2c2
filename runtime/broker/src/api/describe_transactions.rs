//! DescribeTransactions: the state of transactional ids.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_transactions::{TopicData, TransactionState};
use pelton_wire::message::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use crate::topics::Topics;
use crate::txn::by_topic;
use crate::txn::state::Transaction;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    _: &RequestContext,
    request: DescribeTransactionsRequest,
) -> Reply<DescribeTransactionsResponse> {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        states.push(match parts.transactions.describe(&id) {
            Some(txn) => described(&txn, &parts.topics),
            None => TransactionState {
                error_code: ErrorCode::TRANSACTIONAL_ID_NOT_FOUND,
                transactional_id: id,
                ..Default::default()
            },
        });
    }
    Reply::ready(DescribeTransactionsResponse { transaction_states: states, ..Default::default() })
}

fn described(txn: &Transaction, known: &Topics) -> TransactionState {
    let name = |topic: &str| known.known_as(topic).unwrap_or_else(|| topic.to_owned());
    let topics = by_topic(&txn.partitions).into_iter();
    TransactionState {
        error_code: ErrorCode::NONE,
        transactional_id: txn.id.to_string(),
        transaction_state: txn.state.name().to_owned(),
        transaction_timeout_ms: txn.timeout_ms,
        transaction_start_time_ms: txn.start_ms,
        producer_id: txn.producer.id,
        producer_epoch: txn.producer.epoch,
        topics: topics.map(|(topic, partitions)| TopicData { topic: name(topic), partitions }).collect(),
    }
}

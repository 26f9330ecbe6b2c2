//! EndTxn: commits or aborts a transaction. Answered when that is durable and everybody sees it.

use std::sync::Arc;

use pelton_wire::message::{EndTxnRequest, EndTxnResponse};

use crate::producer_id::ProducerIdentity;
use crate::reply::{Reply, RequestContext};
use crate::txn::state::Protocol;

/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;
/// First version of the newer protocol (KIP-890).
const EPOCH_PER_TRANSACTION_SINCE: i16 = 5;

pub(crate) fn handle(cx: &RequestContext, request: EndTxnRequest) -> Reply<EndTxnResponse> {
    let (broker, version) = (Arc::clone(&cx.broker), cx.version);
    Reply::later(async move {
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let protocol = if version >= EPOCH_PER_TRANSACTION_SINCE {
            Protocol::EpochPerTransaction
        } else {
            Protocol::Classic
        };
        let ended = broker.transactions.end(&request.transactional_id, producer, request.committed, protocol);
        match ended.await {
            Ok(producer) => EndTxnResponse {
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                ..Default::default()
            },
            Err(error) => EndTxnResponse {
                error_code: if version < FENCED_SINCE { error.code_before_fenced() } else { error.code() },
                ..Default::default()
            },
        }
    })
}

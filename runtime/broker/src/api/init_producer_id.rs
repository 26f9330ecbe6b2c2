//! InitProducerId: a producer id; with a transactional id, a new epoch that fences earlier producers.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{InitProducerIdRequest, InitProducerIdResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use super::support::error_map;
use super::support::txn_error::or_close;
use crate::producer_id::ProducerIdentity;

/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 4;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    if let Some(id) = request.transactional_id.clone() {
        return transactional(parts, cx, id, &request);
    }
    if let Some(id) = parts.producer_ids.next_cached() {
        return Reply::ready(given(ProducerIdentity { id, epoch: 0 }));
    }
    let parts = Arc::clone(parts);
    cx.later(async move {
        match parts.producer_ids.next(&parts.topics).await {
            // Without a transactional id each producer id is new, so its epoch is 0.
            Ok(id) => given(ProducerIdentity { id, epoch: 0 }),
            Err(error) => refused(error_map::topic(&error)),
        }
    })
}

fn transactional(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    transactional_id: String,
    request: &InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    // Producer id and epoch come together or not at all (KIP-360).
    if (id < 0) != (epoch < 0) {
        return Reply::ready(refused(ErrorCode::INVALID_REQUEST));
    }
    let before = (id >= 0).then_some(ProducerIdentity { id, epoch });
    let (parts, timeout_ms) = (Arc::clone(parts), request.transaction_timeout_ms);
    let (version, from) = (cx.version, Some(cx.origin()));
    cx.later_or_close(async move {
        Ok(match parts.transactions.init(&transactional_id, before, timeout_ms, from).await {
            Ok(producer) => given(producer),
            Err(error) if version < FENCED_SINCE => refused(or_close(error)?.code_before_fenced()),
            Err(error) => refused(or_close(error)?.code()),
        })
    })
}

fn given(producer: ProducerIdentity) -> InitProducerIdResponse {
    InitProducerIdResponse { producer_id: producer.id, producer_epoch: producer.epoch, ..Default::default() }
}

fn refused(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code, producer_id: -1, producer_epoch: -1, ..Default::default() }
}

//! InitProducerId: a fresh id for an idempotent producer.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{InitProducerIdRequest, InitProducerIdResponse};

use super::error_map;
use crate::reply::{Reply, RequestContext};

pub(crate) fn handle(cx: &RequestContext, request: InitProducerIdRequest) -> Reply<InitProducerIdResponse> {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return Reply::ready(refused(ErrorCode::INVALID_REQUEST)),
        // There are no transactions yet: fatal for the producer, which is better than one that retries for ever.
        Some(_) => return Reply::ready(refused(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND)),
    }
    if let Some(id) = cx.broker.producer_ids.next_cached() {
        return Reply::ready(given(id));
    }
    let broker = Arc::clone(&cx.broker);
    Reply::later(async move {
        match broker.producer_ids.next(&broker.topics).await {
            Ok(id) => given(id),
            Err(error) => refused(error_map::topic(&error)),
        }
    })
}

/// Epoch 0 always: without a transactional id nobody else can have had this id.
fn given(producer_id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() }
}

fn refused(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code, producer_id: -1, producer_epoch: -1, ..Default::default() }
}

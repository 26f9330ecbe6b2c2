//! AddOffsetsToTxn: makes the offsets of a group part of a transaction.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::producer_id::ProducerIdentity;
use crate::reply::{Reply, RequestContext};

/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;

pub(crate) fn handle(cx: &RequestContext, request: AddOffsetsToTxnRequest) -> Reply<AddOffsetsToTxnResponse> {
    let (broker, version, from) = (Arc::clone(&cx.broker), cx.version, Some(cx.place));
    Reply::later_or_close(async move {
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let error_code = if request.group_id.is_empty() {
            ErrorCode::INVALID_GROUP_ID
        } else if broker.groups.ensure_topic().await.is_err() {
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        } else {
            let at = broker.transactions.offsets_partition(&request.group_id);
            match broker.transactions.add(&request.transactional_id, producer, vec![at], from).await {
                Ok(()) => ErrorCode::NONE,
                Err(error) if version < FENCED_SINCE => error.or_close()?.code_before_fenced(),
                Err(error) => error.or_close()?.code(),
            }
        };
        Ok(AddOffsetsToTxnResponse { error_code, ..Default::default() })
    })
}

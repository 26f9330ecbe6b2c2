//! AddOffsetsToTxn: makes the offsets of a group part of a transaction.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use super::support::txn_error::or_close;
use crate::producer_id::ProducerIdentity;
use crate::txn::origin::RequestKind;

/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> Reply<AddOffsetsToTxnResponse> {
    let (parts, version) = (Arc::clone(parts), cx.version);
    let asked = (RequestKind::AddOffsets, Some(cx.origin()));
    cx.later_or_close(async move {
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let error_code = if request.transactional_id.is_empty() {
            ErrorCode::INVALID_REQUEST
        } else if request.group_id.is_empty() {
            ErrorCode::INVALID_GROUP_ID
        } else if parts.groups.ensure_topic().await.is_err() {
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        } else {
            let at = parts.transactions.offsets_partition(&request.group_id);
            match parts.transactions.add(&request.transactional_id, producer, vec![at], asked).await {
                Ok(()) => ErrorCode::NONE,
                Err(error) if version < FENCED_SINCE => or_close(error)?.code_before_fenced(),
                Err(error) => or_close(error)?.code(),
            }
        };
        Ok(AddOffsetsToTxnResponse { error_code, ..Default::default() })
    })
}

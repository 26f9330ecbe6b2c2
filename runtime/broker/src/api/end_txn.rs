//! EndTxn: commits or aborts a transaction. Answered when the markers are durable and visible to consumers.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::{EndTxnRequest, EndTxnResponse};

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use super::support::txn_error::or_close;
use crate::producer_id::ProducerIdentity;
use crate::txn::state::Protocol;

/// First version whose clients know `PRODUCER_FENCED` (KIP-588).
const FENCED_SINCE: i16 = 2;
/// First version of the newer protocol (KIP-890).
const EPOCH_PER_TRANSACTION_SINCE: i16 = 5;

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    cx: &RequestContext,
    request: EndTxnRequest,
) -> Reply<EndTxnResponse> {
    if request.transactional_id.is_empty() {
        let error_code = ErrorCode::INVALID_REQUEST;
        return Reply::ready(EndTxnResponse { error_code, ..Default::default() });
    }
    let (parts, version, from) = (Arc::clone(parts), cx.version, Some(cx.origin()));
    cx.later_or_close(async move {
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let protocol = if version >= EPOCH_PER_TRANSACTION_SINCE {
            Protocol::EpochPerTransaction
        } else {
            Protocol::Classic
        };
        let (id, commit) = (&request.transactional_id, request.committed);
        let error_code = match parts.transactions.end(id, producer, commit, protocol, from).await {
            Ok(ProducerIdentity { id: producer_id, epoch: producer_epoch }) => {
                return Ok(EndTxnResponse { producer_id, producer_epoch, ..Default::default() });
            }
            Err(error) if version < FENCED_SINCE => or_close(error)?.code_before_fenced(),
            Err(error) => or_close(error)?.code(),
        };
        Ok(EndTxnResponse { error_code, ..Default::default() })
    })
}

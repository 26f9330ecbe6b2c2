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
    let (broker, version, from) = (Arc::clone(&cx.broker), cx.version, Some(cx.place));
    Reply::later_or_close(async move {
        let producer = ProducerIdentity { id: request.producer_id, epoch: request.producer_epoch };
        let protocol = if version >= EPOCH_PER_TRANSACTION_SINCE {
            Protocol::EpochPerTransaction
        } else {
            Protocol::Classic
        };
        let (id, commit) = (&request.transactional_id, request.committed);
        let error_code = match broker.transactions.end(id, producer, commit, protocol, from).await {
            Ok(ProducerIdentity { id: producer_id, epoch: producer_epoch }) => {
                return Ok(EndTxnResponse { producer_id, producer_epoch, ..Default::default() });
            }
            Err(error) if version < FENCED_SINCE => error.or_close()?.code_before_fenced(),
            Err(error) => error.or_close()?.code(),
        };
        Ok(EndTxnResponse { error_code, ..Default::default() })
    })
}

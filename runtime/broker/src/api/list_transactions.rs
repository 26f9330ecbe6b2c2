//! ListTransactions: transactional ids, filtered by state, producer id, duration or name pattern.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::list_transactions::TransactionState;
use pelton_wire::message::{ListTransactionsRequest, ListTransactionsResponse};

use regex::Regex;

use super::context::RequestContext;
use super::parts::TransactionParts;
use super::reply::Reply;
use crate::txn::state::{Transaction, TxnState};

pub(crate) fn handle(
    parts: &Arc<TransactionParts>,
    _: &RequestContext,
    request: ListTransactionsRequest,
) -> Reply<ListTransactionsResponse> {
    let pattern = request.transactional_id_pattern.as_deref().filter(|text| !text.is_empty());
    let Ok(pattern) = pattern.map(|text| Regex::new(&format!("^(?:{text})$"))).transpose() else {
        let error_code = ErrorCode::INVALID_REGULAR_EXPRESSION;
        return Reply::ready(ListTransactionsResponse { error_code, ..Default::default() });
    };
    let known = |name: &String| TxnState::ALL.iter().any(|state| state.name() == name);
    let (states, unknown): (Vec<_>, Vec<_>) = request.state_filters.iter().cloned().partition(known);
    let now_ms = parts.clock.now_ms();
    let wanted = |txn: &Transaction| {
        let any_state = request.state_filters.is_empty();
        let any_producer = request.producer_id_filters.is_empty();
        let open_ms = now_ms.saturating_sub(txn.start_ms);
        (any_state || states.iter().any(|name| name == txn.state.name()))
            && (any_producer || request.producer_id_filters.contains(&txn.producer.id))
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&txn.id))
            && (request.duration_filter < 0 || (txn.start_ms >= 0 && open_ms > request.duration_filter))
    };
    let all = parts.transactions.list();
    let listed = all.iter().filter(|txn| wanted(txn)).map(|txn| TransactionState {
        transactional_id: txn.id.to_string(),
        producer_id: txn.producer.id,
        transaction_state: txn.state.name().to_owned(),
    });
    Reply::ready(ListTransactionsResponse {
        unknown_state_filters: unknown,
        transaction_states: listed.collect(),
        ..Default::default()
    })
}

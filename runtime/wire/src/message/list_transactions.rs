//! ListTransactions (key 66): which transactions there are.

use crate::error_code::ErrorCode;

messages! {
    api ListTransactions: ListTransactionsRequest => ListTransactionsResponse;

    /// Filters, each of them empty for everything.
    pub struct ListTransactionsRequest {
        state_filters: Vec<String>,
        producer_id_filters: Vec<i64>,
        duration_filter: i64 [1..] = -1,
        transactional_id_pattern: Option<String> [2..],
    }

    /// The transactions that match.
    pub struct ListTransactionsResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        unknown_state_filters: Vec<String>,
        transaction_states: Vec<TransactionState>,
    }

    /// One transaction.
    pub struct TransactionState {
        transactional_id: String,
        producer_id: i64,
        transaction_state: String,
    }
}

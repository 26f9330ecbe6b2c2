//! DescribeTransactions (key 65): state of transactions.

use crate::error_code::ErrorCode;

messages! {
    api DescribeTransactions: DescribeTransactionsRequest => DescribeTransactionsResponse;

    /// The transactional ids that are asked about.
    pub struct DescribeTransactionsRequest {
        transactional_ids: Vec<String>,
    }

    /// Their state.
    pub struct DescribeTransactionsResponse {
        throttle_time_ms: i32,
        transaction_states: Vec<TransactionState>,
    }

    /// One transaction.
    pub struct TransactionState {
        error_code: ErrorCode,
        transactional_id: String,
        transaction_state: String,
        transaction_timeout_ms: i32,
        transaction_start_time_ms: i64,
        producer_id: i64,
        producer_epoch: i16,
        topics: Vec<TopicData>,
    }

    /// Partitions of one topic that are part of it.
    pub struct TopicData {
        topic: String,
        partitions: Vec<i32>,
    }
}

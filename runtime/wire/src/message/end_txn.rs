//! EndTxn (key 26): commits or aborts a transaction.

use crate::error_code::ErrorCode;

messages! {
    api EndTxn: EndTxnRequest => EndTxnResponse;

    /// The transaction and how it ends.
    pub struct EndTxnRequest {
        transactional_id: String,
        producer_id: i64,
        producer_epoch: i16,
        committed: bool,
    }

    /// Whether it ended; from version 5 on the producer epoch of the next one.
    pub struct EndTxnResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        producer_id: i64 [5.., ignorable] = -1,
        producer_epoch: i16 [5.., ignorable] = -1,
    }
}

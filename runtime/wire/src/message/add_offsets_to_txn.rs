//! AddOffsetsToTxn (key 25): makes a group's offsets part of a transaction.

use crate::error_code::ErrorCode;

messages! {
    api AddOffsetsToTxn: AddOffsetsToTxnRequest => AddOffsetsToTxnResponse;

    /// The transaction and the group.
    pub struct AddOffsetsToTxnRequest {
        transactional_id: String,
        producer_id: i64,
        producer_epoch: i16,
        group_id: String,
    }

    /// The result.
    pub struct AddOffsetsToTxnResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
    }
}

//! InitProducerId (key 22): gives a producer its id and epoch.

use crate::error_code::ErrorCode;

messages! {
    api InitProducerId: InitProducerIdRequest => InitProducerIdResponse;

    /// The transactional id, and the producer id and epoch that the producer has so far.
    pub struct InitProducerIdRequest {
        transactional_id: Option<String> = Some(Default::default()),
        transaction_timeout_ms: i32,
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }

    /// The id and epoch to use from now on.
    pub struct InitProducerIdResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        producer_id: i64 = -1,
        producer_epoch: i16,
    }
}

//! FindCoordinator (key 10): which broker coordinates a group or transaction.

use crate::error_code::ErrorCode;

messages! {
    api FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse;

    /// One key up to version 3, many from version 4 on.
    pub struct FindCoordinatorRequest {
        key: String [..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<String> [4..],
    }

    /// The broker for each key.
    pub struct FindCoordinatorResponse {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: ErrorCode [..=3],
        error_message: Option<String> [1..=3, ignorable] = Some(Default::default()),
        node_id: i32 [..=3],
        host: String [..=3],
        port: i32 [..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// The broker for one key (from version 4 on).
    pub struct Coordinator {
        key: String,
        node_id: i32,
        host: String,
        port: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
    }
}

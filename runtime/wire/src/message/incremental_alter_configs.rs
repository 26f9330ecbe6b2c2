//! IncrementalAlterConfigs (key 44): changes single settings of topics and brokers.

use crate::error_code::ErrorCode;

messages! {
    api IncrementalAlterConfigs: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;

    /// The changes.
    pub struct IncrementalAlterConfigsRequest {
        resources: Vec<AlterConfigsResource>,
        validate_only: bool,
    }

    /// Changes to one resource.
    pub struct AlterConfigsResource {
        resource_type: i8,
        resource_name: String,
        configs: Vec<AlterableConfig>,
    }

    /// One change (operation 0: set, 1: delete, 2: append, 3: subtract).
    pub struct AlterableConfig {
        name: String,
        config_operation: i8,
        value: Option<String> = Some(Default::default()),
    }

    /// The result for each resource.
    pub struct IncrementalAlterConfigsResponse {
        throttle_time_ms: i32,
        responses: Vec<AlterConfigsResourceResponse>,
    }

    /// The result for one resource.
    pub struct AlterConfigsResourceResponse {
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        resource_type: i8,
        resource_name: String,
    }
}

//! AlterConfigs (key 33): replaces all settings of topics and brokers.

use crate::error_code::ErrorCode;

messages! {
    api AlterConfigs: AlterConfigsRequest => AlterConfigsResponse;

    /// The new settings, complete.
    pub struct AlterConfigsRequest {
        resources: Vec<AlterConfigsResource>,
        validate_only: bool,
    }

    /// All settings of one resource.
    pub struct AlterConfigsResource {
        resource_type: i8,
        resource_name: String,
        configs: Vec<AlterableConfig>,
    }

    /// One setting.
    pub struct AlterableConfig {
        name: String,
        value: Option<String> = Some(Default::default()),
    }

    /// The result for each resource.
    pub struct AlterConfigsResponse {
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

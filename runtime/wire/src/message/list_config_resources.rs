//! ListConfigResources (key 74): which resources have settings of their own.

use crate::error_code::ErrorCode;

messages! {
    api ListConfigResources: ListConfigResourcesRequest => ListConfigResourcesResponse;

    /// The kinds of resource (none: all of them).
    pub struct ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..],
    }

    /// The resources.
    pub struct ListConfigResourcesResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        config_resources: Vec<ConfigResource>,
    }

    /// One resource.
    pub struct ConfigResource {
        resource_name: String,
        resource_type: i8 [1.., ignorable] = 16,
    }
}

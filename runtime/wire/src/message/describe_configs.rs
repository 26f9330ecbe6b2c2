//! DescribeConfigs (key 32): settings of topics and brokers.

use crate::error_code::ErrorCode;

messages! {
    api DescribeConfigs: DescribeConfigsRequest => DescribeConfigsResponse;

    /// The resources to describe.
    pub struct DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource>,
        include_synonyms: bool,
        include_documentation: bool [3..],
    }

    /// A resource (type 2: topic, 4: broker); null keys means all settings.
    pub struct DescribeConfigsResource {
        resource_type: i8,
        resource_name: String,
        configuration_keys: Option<Vec<String>> = Some(Default::default()),
    }

    /// The settings, where each comes from, what it would be otherwise.
    pub struct DescribeConfigsResponse {
        throttle_time_ms: i32,
        results: Vec<DescribeConfigsResult>,
    }

    /// Settings of one resource.
    pub struct DescribeConfigsResult {
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        resource_type: i8,
        resource_name: String,
        configs: Vec<DescribeConfigsResourceResult>,
    }

    /// One setting.
    pub struct DescribeConfigsResourceResult {
        name: String,
        value: Option<String> = Some(Default::default()),
        read_only: bool,
        config_source: i8 = -1,
        is_sensitive: bool,
        synonyms: Vec<DescribeConfigsSynonym>,
        config_type: i8 [3.., ignorable],
        documentation: Option<String> [3.., ignorable] = Some(Default::default()),
    }

    /// A setting that this one would fall back to.
    pub struct DescribeConfigsSynonym {
        name: String,
        value: Option<String> = Some(Default::default()),
        source: i8,
    }
}

//! ApiVersions (key 18): which APIs and versions a broker speaks; the first request on a connection.

use crate::error_code::ErrorCode;

messages! {
    api ApiVersions: ApiVersionsRequest => ApiVersionsResponse;

    /// Who is asking, and which node of which cluster it means to ask (KIP-1242).
    pub struct ApiVersionsRequest {
        client_software_name: String [3.., ignorable],
        client_software_version: String [3.., ignorable],
        cluster_id: Option<String> [5.., ignorable],
        node_id: i32 [5.., ignorable] = -1,
    }

    /// The APIs and features.
    pub struct ApiVersionsResponse {
        error_code: ErrorCode,
        api_keys: Vec<ApiVersion>,
        throttle_time_ms: i32 [1.., ignorable],
        supported_features: Vec<SupportedFeatureKey> [3.., tag 0, ignorable],
        finalized_features_epoch: i64 [3.., tag 1, ignorable] = -1,
        finalized_features: Vec<FinalizedFeatureKey> [3.., tag 2, ignorable],
        zk_migration_ready: bool [3.., tag 3, ignorable],
    }

    /// The versions of one API.
    pub struct ApiVersion {
        api_key: i16,
        min_version: i16,
        max_version: i16,
    }

    /// Versions of a feature that the broker can have. Clients below version 4 must not see a lowest version of 0 (KAFKA-17011).
    pub struct SupportedFeatureKey {
        name: String,
        min_version: i16,
        max_version: i16,
    }

    /// Versions of a feature that the cluster has agreed on.
    pub struct FinalizedFeatureKey {
        name: String,
        max_version_level: i16,
        min_version_level: i16,
    }
}

//! ApiVersions (key 18): which APIs and versions a broker speaks; the first request on a connection.

use crate::api::{ApiKey, ApiRange, range};
use crate::error_code::ErrorCode;

messages! {
    api ApiVersions: ApiVersionsRequest => ApiVersionsResponse;

    /// The client's software, and the node and cluster that it expects to reach (KIP-1242).
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

    /// Versions of a feature that the broker can have. Clients below version 4 must not see a lowest version of 0
    /// (KAFKA-17011).
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

/// The entries of an ApiVersions response for the APIs that a broker serves, in the order of `served`.
pub fn advertised(served: &[ApiKey]) -> Vec<ApiVersion> {
    let entry = |&key: &ApiKey| {
        let ApiRange { min_advertised, max, .. } = range(key);
        ApiVersion { api_key: key as i16, min_version: min_advertised, max_version: max }
    };
    served.iter().map(entry).collect()
}

/// The features that a client may see in an ApiVersions response of this version.
///
/// Clients below version 4 fail on a feature whose lowest version is 0 (KAFKA-17011), so they do not get to see it.
pub fn visible_features(features: &[SupportedFeatureKey], version: i16) -> Vec<SupportedFeatureKey> {
    const KNOWS_ZERO: i16 = 4;
    features.iter().filter(|feature| version >= KNOWS_ZERO || feature.min_version > 0).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_see_no_feature_that_starts_at_0() {
        let feature = |name: &str, min_version| SupportedFeatureKey {
            name: name.to_owned(),
            min_version,
            max_version: 2,
        };
        let features = [feature("transaction.version", 0), feature("metadata.version", 1)];
        assert_eq!(visible_features(&features, 3), features[1..]);
        assert_eq!(visible_features(&features, 4), features);
    }

    #[test]
    fn produce_is_advertised_from_0() {
        let entries = advertised(&[ApiKey::Produce, ApiKey::Fetch]);
        let plain: Vec<_> = entries.iter().map(|e| (e.api_key, e.min_version, e.max_version)).collect();
        assert_eq!(plain, [(0, 0, 13), (1, 4, 18)]);
    }
}

//! UpdateFeatures (key 57): raises or lowers the versions of features that the cluster has agreed on.

use crate::error_code::ErrorCode;

messages! {
    api UpdateFeatures: UpdateFeaturesRequest => UpdateFeaturesResponse;

    /// The features.
    pub struct UpdateFeaturesRequest {
        timeout_ms: i32 = 60000,
        feature_updates: Vec<FeatureUpdateKey>,
        validate_only: bool [1..],
    }

    /// One feature (upgrade type 1: only up, 2: down if it is safe, 3: down).
    pub struct FeatureUpdateKey {
        feature: String,
        max_version_level: i16,
        allow_downgrade: bool [..=0],
        upgrade_type: i8 [1..] = 1,
    }

    /// What became of all, or, before version 2, of each.
    pub struct UpdateFeaturesResponse {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
        results: Vec<UpdatableFeatureResult> [..=1, ignorable],
    }

    /// The result for one feature.
    pub struct UpdatableFeatureResult {
        feature: String,
        error_code: ErrorCode,
        error_message: Option<String> = Some(Default::default()),
    }
}

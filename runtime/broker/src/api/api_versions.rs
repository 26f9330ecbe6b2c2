//! ApiVersions: which APIs and versions this broker speaks.

use pelton_wire::ErrorCode;
use pelton_wire::message::api_versions::{FinalizedFeatureKey, SupportedFeatureKey};
use pelton_wire::message::{ApiVersionsRequest, ApiVersionsResponse};

use super::SERVED;
use crate::reply::{Reply, RequestContext};

/// The feature that lets clients use the newer transaction protocol (KIP-890).
const TRANSACTION_VERSION: &str = "transaction.version";
/// An epoch per transaction, and partitions that writing adds.
const TRANSACTION_VERSION_LEVEL: i16 = 2;

/// First version in which clients say what they are.
const SOFTWARE_SINCE: i16 = 3;

pub(crate) fn handle(cx: &RequestContext, request: ApiVersionsRequest) -> Reply<ApiVersionsResponse> {
    let named = is_software(&request.client_software_name) && is_software(&request.client_software_version);
    if cx.version >= SOFTWARE_SINCE && !named {
        return Reply::ready(ApiVersionsResponse {
            error_code: ErrorCode::INVALID_REQUEST,
            ..Default::default()
        });
    }
    Reply::ready(ApiVersionsResponse {
        api_keys: pelton_wire::api::advertised(SERVED),
        supported_features: vec![SupportedFeatureKey {
            name: TRANSACTION_VERSION.to_owned(),
            min_version: 0,
            max_version: TRANSACTION_VERSION_LEVEL,
        }],
        // Clients use a feature only if it is finalized, in an epoch that is known.
        finalized_features_epoch: 0,
        finalized_features: vec![FinalizedFeatureKey {
            name: TRANSACTION_VERSION.to_owned(),
            max_version_level: TRANSACTION_VERSION_LEVEL,
            min_version_level: TRANSACTION_VERSION_LEVEL,
        }],
        ..Default::default()
    })
}

/// The answer to a version that is not known (KIP-511).
pub(crate) fn unsupported_version() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: pelton_wire::api::advertised(SERVED),
        ..Default::default()
    }
}

/// Kafka's rule for names and versions of clients (KIP-511): letters, digits, `-` and `.`, the ends not punctuation.
fn is_software(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["librdkafka", "apache-kafka-java", "2.0.2", "a"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a\n", "ä"] {
            assert!(!is_software(bad), "{bad}");
        }
    }
}

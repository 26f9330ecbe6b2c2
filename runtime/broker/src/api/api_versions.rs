//! ApiVersions: which APIs and versions this broker speaks.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::api_versions::{
    FinalizedFeatureKey, SupportedFeatureKey, advertised, visible_features,
};
use pelton_wire::message::{ApiVersionsRequest, ApiVersionsResponse};

use super::SERVED;
use super::context::RequestContext;
use super::parts::Cluster;
use super::reply::Reply;

/// A feature of Kafka's that this broker has.
pub(super) struct Feature {
    pub(super) name: &'static str,
    /// The finalized level. It never changes.
    pub(super) level: i16,
}

/// `transaction.version` 2: an epoch per transaction, and partitions that writing adds (KIP-890).
pub(super) const FEATURES: [Feature; 1] = [Feature { name: "transaction.version", level: 2 }];

/// First version in which clients say what they are.
const SOFTWARE_SINCE: i16 = 3;

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    cx: &RequestContext,
    request: ApiVersionsRequest,
) -> Reply<ApiVersionsResponse> {
    let node = &cluster.node;
    let asked =
        check_software(cx.version, &request).and_then(|()| check_node(&request, &node.cluster_id, node.id));
    if let Err(error_code) = asked {
        return Reply::ready(ApiVersionsResponse { error_code, ..Default::default() });
    }
    let supported = FEATURES.map(|feature| SupportedFeatureKey {
        name: feature.name.to_owned(),
        min_version: 0,
        max_version: feature.level,
    });
    let finalized = FEATURES.iter().map(|feature| FinalizedFeatureKey {
        name: feature.name.to_owned(),
        max_version_level: feature.level,
        min_version_level: feature.level,
    });
    Reply::ready(ApiVersionsResponse {
        api_keys: advertised(SERVED),
        supported_features: visible_features(&supported, cx.version),
        // Clients use a feature only if it is finalized, in an epoch that is known.
        finalized_features_epoch: 0,
        finalized_features: finalized.collect(),
        ..Default::default()
    })
}

/// A client of version 3 or later names its software.
fn check_software(version: i16, request: &ApiVersionsRequest) -> Result<(), ErrorCode> {
    let named = is_software(&request.client_software_name) && is_software(&request.client_software_version);
    if version >= SOFTWARE_SINCE && !named { Err(ErrorCode::INVALID_REQUEST) } else { Ok(()) }
}

/// Checks the node and cluster that the client expects. A mismatch makes the client bootstrap again: the address
/// belonged to another broker before (KIP-1242).
fn check_node(request: &ApiVersionsRequest, cluster_id: &str, node_id: i32) -> Result<(), ErrorCode> {
    const NOT_SAID: i32 = -1;
    match (request.cluster_id.as_deref(), request.node_id) {
        (None, NOT_SAID) => Ok(()),
        (None, _) | (Some(_), NOT_SAID) => Err(ErrorCode::INVALID_REQUEST),
        (Some(cluster), node) if cluster == cluster_id && node == node_id => Ok(()),
        (Some(_), _) => Err(ErrorCode::REBOOTSTRAP_REQUIRED),
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

    #[test]
    fn a_client_that_means_another_node_looks_again() {
        let check = |cluster: Option<&str>, node_id| {
            let request =
                ApiVersionsRequest { cluster_id: cluster.map(str::to_owned), node_id, ..Default::default() };
            check_node(&request, "mine", 1)
        };
        assert_eq!(check(None, -1), Ok(()));
        assert_eq!(check(Some("mine"), 1), Ok(()));
        for (cluster, node) in [("other", 1), ("mine", 2), ("mine", -2), ("", 1)] {
            assert_eq!(check(Some(cluster), node), Err(ErrorCode::REBOOTSTRAP_REQUIRED), "{cluster} {node}");
        }
        for (cluster, node) in [(None, 1), (Some("mine"), -1), (Some("other"), -1)] {
            assert_eq!(check(cluster, node), Err(ErrorCode::INVALID_REQUEST), "{cluster:?} {node}");
        }
    }
}

//! ListConfigResources: the names of the resources that have settings.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::list_config_resources::ConfigResource;
use pelton_wire::message::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::configs::ResourceType;
use crate::admin::Admin;

/// First version with resource types; before, it lists client metrics subscriptions.
const TYPES_SINCE: i16 = 1;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> Reply<ListConfigResourcesResponse> {
    let known: Option<Vec<ResourceType>> =
        request.resource_types.iter().map(|code| ResourceType::from_wire(*code)).collect();
    let Some(mut wanted) = known else {
        return Reply::ready(ListConfigResourcesResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            ..Default::default()
        });
    };
    if cx.version < TYPES_SINCE {
        wanted = vec![ResourceType::ClientMetrics];
    } else if wanted.is_empty() {
        wanted = ResourceType::ALL.to_vec();
    }
    let found = ResourceType::ALL.iter().filter(|kind| wanted.contains(kind));
    let config_resources = found.flat_map(|kind| list(admin, *kind)).collect();
    Reply::ready(ListConfigResourcesResponse { config_resources, ..Default::default() })
}

fn list(admin: &Admin, kind: ResourceType) -> Vec<ConfigResource> {
    let named = |resource_name: String| ConfigResource { resource_name, resource_type: kind.code() };
    match kind {
        ResourceType::Topic => admin.list_topics().iter().map(|topic| named(topic.name.clone())).collect(),
        ResourceType::Broker | ResourceType::BrokerLogger => vec![named(admin.node_id().to_string())],
        // This broker has neither.
        ResourceType::ClientMetrics | ResourceType::Group => Vec::new(),
    }
}

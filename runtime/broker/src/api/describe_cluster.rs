//! DescribeCluster: the brokers of the cluster, which is one.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_cluster::DescribeClusterBroker;
use pelton_wire::message::{DescribeClusterRequest, DescribeClusterResponse};

use super::context::RequestContext;
use super::parts::{Cluster, Node};
use super::reply::Reply;
use crate::access::Resource;

/// Kafka's numbers of what can be asked about.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    cx: &RequestContext,
    request: DescribeClusterRequest,
) -> Reply<DescribeClusterResponse> {
    let refuse = |error_code: ErrorCode, text: &str| {
        Reply::ready(DescribeClusterResponse {
            error_code,
            error_message: Some(text.to_owned()),
            ..Default::default()
        })
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refuse(ErrorCode::MISMATCHED_ENDPOINT_TYPE, "this is a broker, not a controller");
        }
        _ => {
            return refuse(
                ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
                "endpoint types are 1 (broker) and 2 (controller)",
            );
        }
    }
    let Node { id, cluster_id, advertised } = &cluster.node;
    let asked = request.include_cluster_authorized_operations;
    Reply::ready(DescribeClusterResponse {
        cluster_id: cluster_id.clone(),
        controller_id: *id,
        brokers: vec![DescribeClusterBroker {
            broker_id: *id,
            host: advertised.host.clone(),
            port: advertised.port.into(),
            ..Default::default()
        }],
        cluster_authorized_operations: cx.connection.principal.authorized(asked, Resource::Cluster),
        ..Default::default()
    })
}

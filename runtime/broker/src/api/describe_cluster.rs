//! DescribeCluster: the brokers of the cluster, which is one.

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_cluster::DescribeClusterBroker;
use pelton_wire::message::{DescribeClusterRequest, DescribeClusterResponse};

use super::operations;
use crate::reply::{Reply, RequestContext};

/// Kafka's numbers of what can be asked about.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(cx: &RequestContext, request: DescribeClusterRequest) -> Reply<DescribeClusterResponse> {
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
    let (broker, advertised) = (&cx.broker, cx.broker.advertised());
    let asked = request.include_cluster_authorized_operations;
    Reply::ready(DescribeClusterResponse {
        cluster_id: broker.cluster_id.clone(),
        controller_id: broker.config.node_id,
        brokers: vec![DescribeClusterBroker {
            broker_id: broker.config.node_id,
            host: advertised.host.clone(),
            port: advertised.port.into(),
            ..Default::default()
        }],
        cluster_authorized_operations: operations::if_asked(asked, operations::CLUSTER),
        ..Default::default()
    })
}

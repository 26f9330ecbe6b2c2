//! DescribeQuorum: the metadata log has one voter, this broker, which leads it.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_quorum::{
    Listener, Node, PartitionData, PartitionQuorum, ReplicaState, TopicData, TopicQuorum,
};
use pelton_wire::message::{DescribeQuorumRequest, DescribeQuorumResponse};

use super::context::RequestContext;
use super::parts::Cluster;
use super::reply::Reply;
use super::support::once::each_once;
use crate::topics::{METADATA_TOPIC, Topics};

/// First version in which an answer names nodes and their directories.
const NODES_SINCE: i16 = 2;
/// Kafka's usual name of the listener of controllers.
const CONTROLLER_LISTENER: &str = "CONTROLLER";

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    topics: &Arc<Topics>,
    cx: &RequestContext,
    request: DescribeQuorumRequest,
) -> Reply<DescribeQuorumResponse> {
    let quorums: Vec<TopicQuorum> = each_once(request.topics, |topic| topic.topic_name.clone())
        .into_iter()
        .map(|topic| describe(cluster, topics, topic))
        .collect();
    let found = quorums.iter().flat_map(|topic| &topic.partitions).any(|p| p.error_code.is_ok());
    let nodes = if cx.version >= NODES_SINCE && found { vec![node(cluster)] } else { Vec::new() };
    Reply::ready(DescribeQuorumResponse { topics: quorums, nodes, ..Default::default() })
}

fn describe(cluster: &Cluster, topics: &Topics, asked: TopicData) -> TopicQuorum {
    let is_metadata = asked.topic_name == METADATA_TOPIC;
    let asked_partitions = each_once(asked.partitions, |partition| partition.partition_index).into_iter();
    let partitions = asked_partitions.map(|PartitionData { partition_index }| {
        if is_metadata && partition_index == 0 {
            metadata(cluster, topics)
        } else {
            PartitionQuorum {
                partition_index,
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                error_message: Some(format!("only `{METADATA_TOPIC}-0` has a quorum")),
                ..Default::default()
            }
        }
    });
    TopicQuorum { partitions: partitions.collect(), topic_name: asked.topic_name }
}

fn metadata(cluster: &Cluster, topics: &Topics) -> PartitionQuorum {
    let (log, now_ms) = (topics.metadata_partition(), cluster.clock.now_ms());
    let voter = ReplicaState {
        replica_id: cluster.node.id,
        log_end_offset: log.log_end_offset(),
        // Kafka's leader reports these of itself too.
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    PartitionQuorum {
        partition_index: 0,
        leader_id: cluster.node.id,
        leader_epoch: log.leader_epoch(),
        high_watermark: log.high_watermark(),
        current_voters: vec![voter],
        ..Default::default()
    }
}

fn node(cluster: &Cluster) -> Node {
    let advertised = &cluster.node.advertised;
    let listener = Listener {
        name: CONTROLLER_LISTENER.to_owned(),
        host: advertised.host.clone(),
        port: advertised.port,
    };
    Node { node_id: cluster.node.id, listeners: vec![listener] }
}

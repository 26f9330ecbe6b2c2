//! DescribeTopicPartitions: topics and partitions in pages, by name (KIP-966).

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use pelton_wire::message::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::context::RequestContext;
use super::parts::Cluster;
use super::reply::Reply;
use crate::access::Resource;
use crate::admin::Admin;
use crate::topics::Topic;

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> Reply<DescribeTopicPartitionsResponse> {
    let max = cluster.config.max_request_partition_size_limit;
    let limit = usize::try_from(request.response_partition_limit.min(max)).unwrap_or(1).max(1);
    let names: BTreeSet<String> = if request.topics.is_empty() {
        admin.list_topics().iter().map(|topic| topic.name.clone()).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).collect()
    };
    let start = request.cursor.unwrap_or_default();
    Reply::ready(page(admin, cx, &names, &start, limit))
}

fn page(
    admin: &Admin,
    cx: &RequestContext,
    names: &BTreeSet<String>,
    start: &Cursor,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut room = limit;
    for name in names.range(start.topic_name.clone()..) {
        let skip =
            if *name == start.topic_name { usize::try_from(start.partition_index).unwrap_or(0) } else { 0 };
        if room == 0 {
            response.next_cursor = Some(cursor(name, skip));
            break;
        }
        let Some(topic) = admin.topic(name) else {
            room -= 1;
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                name: Some(name.clone()),
                ..Default::default()
            });
            continue;
        };
        let count = usize::try_from(topic.partition_count).unwrap_or(0);
        let shown = count.saturating_sub(skip).min(room);
        room -= shown;
        response.topics.push(described(admin.node_id(), cx, &topic, skip, shown));
        if skip + shown < count {
            response.next_cursor = Some(cursor(name, skip + shown));
            break;
        }
    }
    response
}

fn cursor(name: &str, partition: usize) -> Cursor {
    Cursor { topic_name: name.to_owned(), partition_index: i32::try_from(partition).unwrap_or(i32::MAX) }
}

fn described(
    node: i32,
    cx: &RequestContext,
    topic: &Topic,
    skip: usize,
    shown: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.local.iter().skip(skip).take(shown);
    let partitions = partitions.map(|partition| DescribeTopicPartitionsResponsePartition {
        partition_index: partition.index(),
        leader_id: node,
        leader_epoch: partition.leader_epoch(),
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        // Empty, not null: Kafka never sends null, and Java's admin client fails on it.
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    });
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: cx.connection.principal.authorized(true, Resource::Topic),
        ..Default::default()
    }
}

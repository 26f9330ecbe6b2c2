//! Metadata: the broker, the topics, and who leads which partition. Creates topics that are asked for, where that is allowed.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use pelton_wire::message::{MetadataRequest, MetadataResponse};

use super::once::each_once;
use super::{error_map, operations};
use crate::broker::Broker;
use crate::reply::{Reply, RequestContext};
use crate::topic_config::Overrides;
use crate::topics::{NewTopic, Topic, TopicError, name};

pub(crate) fn handle(cx: &RequestContext, request: MetadataRequest) -> Reply<MetadataResponse> {
    let broker = Arc::clone(&cx.broker);
    let with_operations = request.include_topic_authorized_operations;
    let cluster_operations = request.include_cluster_authorized_operations;
    let wanted = match request.topics {
        // Version 0 has no null: an empty list asks for all.
        Some(topics) if !(cx.version == 0 && topics.is_empty()) => {
            each_once(topics, |topic| (topic.topic_id, topic.name.clone()))
        }
        _ => {
            let all = broker.topics.list();
            let topics = all.iter().map(|topic| found(&broker, topic, with_operations)).collect();
            return Reply::ready(response(&broker, topics, cluster_operations));
        }
    };
    let may_create = request.allow_auto_topic_creation && broker.config.auto_create_topics_enable;
    let missing = |topic: &MetadataRequestTopic| {
        topic.name.as_deref().is_some_and(|name| topic.topic_id.is_nil() && broker.topics.get(name).is_none())
    };
    if may_create && wanted.iter().any(missing) {
        // The next request of the connection may well use the topic.
        return Reply::in_order(async move {
            let mut topics = Vec::with_capacity(wanted.len());
            for topic in wanted {
                topics.push(find_or_create(&broker, topic, with_operations).await);
            }
            response(&broker, topics, cluster_operations)
        });
    }
    let topics = wanted.into_iter().map(|topic| find(&broker, topic, with_operations)).collect();
    Reply::ready(response(&broker, topics, cluster_operations))
}

fn response(broker: &Broker, topics: Vec<MetadataResponseTopic>, with_operations: bool) -> MetadataResponse {
    let advertised = broker.advertised();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: broker.config.node_id,
            host: advertised.host.clone(),
            port: advertised.port.into(),
            rack: None,
        }],
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: broker.config.node_id,
        topics,
        cluster_authorized_operations: operations::if_asked(with_operations, operations::CLUSTER),
        ..Default::default()
    }
}

/// What is known of one topic that was asked for by name or by id.
fn find(broker: &Broker, wanted: MetadataRequestTopic, with_operations: bool) -> MetadataResponseTopic {
    let MetadataRequestTopic { topic_id, name } = wanted;
    if !topic_id.is_nil() {
        return match broker.topics.by_id(topic_id) {
            Some(topic) => found(broker, &topic, with_operations),
            None => MetadataResponseTopic { topic_id, ..refused(name, ErrorCode::UNKNOWN_TOPIC_ID) },
        };
    }
    let Some(name) = name else { return refused(None, ErrorCode::INVALID_TOPIC_EXCEPTION) };
    match broker.topics.get(&name) {
        Some(topic) => found(broker, &topic, with_operations),
        None if name::check(&name).is_err() => refused(Some(name), ErrorCode::INVALID_TOPIC_EXCEPTION),
        None => refused(Some(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    }
}

async fn find_or_create(
    broker: &Broker,
    wanted: MetadataRequestTopic,
    with_operations: bool,
) -> MetadataResponseTopic {
    let topic = find(broker, wanted, with_operations);
    let Some(name) = topic.name.clone().filter(|_| topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    else {
        return topic;
    };
    if name::is_internal(&name) {
        return topic;
    }
    let new = NewTopic { name, partitions: broker.config.num_partitions, overrides: Overrides::new() };
    let name = new.name.clone();
    match broker.topics.create(new, broker.clock.now_ms()).await {
        Ok(topic) => found(broker, &topic, with_operations),
        // Somebody else was faster.
        Err(TopicError::Exists(name)) => match broker.topics.get(&name) {
            Some(topic) => found(broker, &topic, with_operations),
            None => refused(Some(name), ErrorCode::LEADER_NOT_AVAILABLE),
        },
        Err(error) => {
            tracing::warn!(topic = name, %error, "automatic creation of a topic was refused");
            refused(Some(name), error_map::topic(&error))
        }
    }
}

fn refused(name: Option<String>, error_code: ErrorCode) -> MetadataResponseTopic {
    // Before version 12 a name cannot be null.
    MetadataResponseTopic { error_code, name: Some(name.unwrap_or_default()), ..Default::default() }
}

fn found(broker: &Broker, topic: &Topic, with_operations: bool) -> MetadataResponseTopic {
    let node = broker.config.node_id;
    let partitions = topic.partitions.iter().map(|partition| MetadataResponsePartition {
        partition_index: partition.index(),
        leader_id: node,
        leader_epoch: partition.leader_epoch(),
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        ..Default::default()
    });
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: operations::if_asked(with_operations, operations::TOPIC),
        ..Default::default()
    }
}

//! Metadata: the broker, topics, and the leaders of partitions. Creates missing topics if client and configuration
//! allow it.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use pelton_wire::message::{MetadataRequest, MetadataResponse};

use super::context::RequestContext;
use super::parts::{Cluster, Node};
use super::reply::Reply;
use super::support::error_map;
use super::support::once::each_once;
use crate::access::Resource;
use crate::admin::{Admin, TopicRef};
use crate::topics::{Topic, name};

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: MetadataRequest,
) -> Reply<MetadataResponse> {
    let principal = &cx.connection.principal;
    let view = View {
        cluster: Arc::clone(cluster),
        admin: Arc::clone(admin),
        topic_operations: principal.authorized(request.include_topic_authorized_operations, Resource::Topic),
        cluster_operations: principal
            .authorized(request.include_cluster_authorized_operations, Resource::Cluster),
    };
    let wanted = match request.topics {
        // Version 0 has no null: an empty list asks for all.
        Some(topics) if !(cx.version == 0 && topics.is_empty()) => {
            each_once(topics, |topic| (topic.topic_id, topic.name.clone()))
        }
        _ => {
            let topics = admin.list_topics().iter().map(|topic| view.found(topic)).collect();
            return Reply::ready(view.response(topics));
        }
    };
    let may_create = request.allow_auto_topic_creation && admin.creates_for_clients();
    let missing = |topic: &MetadataRequestTopic| {
        let name = topic.name.as_deref().filter(|_| topic.topic_id.is_nil());
        name.is_some_and(|name| admin.topic(name).is_none())
    };
    if may_create && wanted.iter().any(missing) {
        // In order: the connection's next request may use the new topic.
        return cx.in_order(async move {
            let mut topics = Vec::with_capacity(wanted.len());
            for topic in wanted {
                topics.push(view.find_or_create(topic).await);
            }
            view.response(topics)
        });
    }
    let topics = wanted.into_iter().map(|topic| view.find(topic)).collect();
    Reply::ready(view.response(topics))
}

/// Metadata of one topic, with the client's authorized operations if asked for.
struct View {
    cluster: Arc<Cluster>,
    admin: Arc<Admin>,
    topic_operations: i32,
    cluster_operations: i32,
}

impl View {
    fn response(&self, topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
        let Node { id, cluster_id, advertised } = &self.cluster.node;
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: *id,
                host: advertised.host.clone(),
                port: advertised.port.into(),
                rack: None,
            }],
            cluster_id: Some(cluster_id.clone()),
            controller_id: *id,
            topics,
            cluster_authorized_operations: self.cluster_operations,
            ..Default::default()
        }
    }

    /// The look-up of one topic by name or id.
    fn find(&self, wanted: MetadataRequestTopic) -> MetadataResponseTopic {
        let MetadataRequestTopic { topic_id, name } = wanted;
        if !topic_id.is_nil() {
            return match self.admin.find_topic(TopicRef::Id(topic_id)) {
                Ok(topic) => self.found(&topic),
                Err(_) => MetadataResponseTopic { topic_id, ..refused(name, ErrorCode::UNKNOWN_TOPIC_ID) },
            };
        }
        let Some(name) = name else { return refused(None, ErrorCode::INVALID_TOPIC_EXCEPTION) };
        match self.admin.topic(&name) {
            Some(topic) => self.found(&topic),
            None if name::check(&name).is_err() => refused(Some(name), ErrorCode::INVALID_TOPIC_EXCEPTION),
            None => refused(Some(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        }
    }

    async fn find_or_create(&self, wanted: MetadataRequestTopic) -> MetadataResponseTopic {
        let topic = self.find(wanted);
        let unknown = topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let Some(name) = topic.name.clone().filter(|_| unknown) else { return topic };
        match self.admin.create_for_client(&name).await {
            Ok(Some(topic)) => self.found(&topic),
            Ok(None) => topic,
            Err(error) => {
                tracing::warn!(topic = name, %error, "cannot create a topic automatically");
                refused(Some(name), error_map::topic(&error))
            }
        }
    }

    fn found(&self, topic: &Topic) -> MetadataResponseTopic {
        let node = self.cluster.node.id;
        let partitions = topic.local.iter().map(|partition| MetadataResponsePartition {
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
            topic_authorized_operations: self.topic_operations,
            ..Default::default()
        }
    }
}

fn refused(name: Option<String>, error_code: ErrorCode) -> MetadataResponseTopic {
    // Before version 12 a name cannot be null.
    MetadataResponseTopic { error_code, name: Some(name.unwrap_or_default()), ..Default::default() }
}

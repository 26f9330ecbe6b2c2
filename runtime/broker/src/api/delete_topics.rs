//! DeleteTopics: deletes topics by name or by id.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::delete_topics::{DeletableTopicResult, DeleteTopicState};
use pelton_wire::message::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::error_map::Refused;
use crate::broker::Broker;
use crate::reply::{Reply, RequestContext};
use crate::topics::Topic;

pub(crate) fn handle(cx: &RequestContext, request: DeleteTopicsRequest) -> Reply<DeleteTopicsResponse> {
    let broker = Arc::clone(&cx.broker);
    let names = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState { name: Some(name), ..Default::default() });
    let wanted: Vec<DeleteTopicState> = request.topics.into_iter().chain(names).collect();
    Reply::in_order(async move {
        let mut responses = Vec::with_capacity(wanted.len());
        for topic in wanted {
            let outcome = delete(&broker, &topic).await;
            responses.push(result(topic, outcome));
        }
        DeleteTopicsResponse { responses, ..Default::default() }
    })
}

async fn delete(broker: &Broker, wanted: &DeleteTopicState) -> Result<Arc<Topic>, Refused> {
    if !broker.config.delete_topic_enable {
        return Err(Refused::new(ErrorCode::TOPIC_DELETION_DISABLED, "`delete.topic.enable` is false"));
    }
    let topic = match (&wanted.name, wanted.topic_id.is_nil()) {
        (Some(_), false) => {
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, "name the topic or give its id, not both"));
        }
        (None, true) => {
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, "neither a name nor an id was given"));
        }
        (Some(name), true) => broker.topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (None, false) => broker.topics.by_id(wanted.topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID),
    };
    let topic = topic.map_err(|code| Refused::new(code, "there is no such topic"))?;
    if topic.is_internal() {
        return Err(Refused::new(ErrorCode::INVALID_REQUEST, "it is a topic of the broker's own"));
    }
    Ok(broker.delete_topic(topic.id).await?)
}

fn result(wanted: DeleteTopicState, outcome: Result<Arc<Topic>, Refused>) -> DeletableTopicResult {
    match outcome {
        Ok(topic) => {
            DeletableTopicResult { name: Some(topic.name.clone()), topic_id: topic.id, ..Default::default() }
        }
        Err(Refused { code, message }) => DeletableTopicResult {
            name: wanted.name,
            topic_id: wanted.topic_id,
            error_code: code,
            error_message: Some(message),
        },
    }
}

//! DeleteTopics: deletes topics by name or by id.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::delete_topics::{DeletableTopicResult, DeleteTopicState};
use pelton_wire::message::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;
use crate::admin::{Admin, TopicRef};
use crate::topics::Topic;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    let admin = Arc::clone(admin);
    let names = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState { name: Some(name), ..Default::default() });
    let wanted: Vec<DeleteTopicState> = request.topics.into_iter().chain(names).collect();
    cx.in_order(async move {
        let mut responses = Vec::with_capacity(wanted.len());
        for topic in wanted {
            let outcome = delete(&admin, &topic).await;
            responses.push(result(topic, outcome));
        }
        DeleteTopicsResponse { responses, ..Default::default() }
    })
}

async fn delete(admin: &Admin, wanted: &DeleteTopicState) -> Result<Arc<Topic>, Refused> {
    let topic = match (&wanted.name, wanted.topic_id.is_nil()) {
        (Some(_), false) => {
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, "name the topic or give its id, not both"));
        }
        (None, true) => {
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, "neither a name nor an id was given"));
        }
        (Some(name), true) => TopicRef::Name(name),
        (None, false) => TopicRef::Id(wanted.topic_id),
    };
    Ok(admin.delete_topic(topic).await?)
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

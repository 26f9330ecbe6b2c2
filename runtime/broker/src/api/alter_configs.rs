//! AlterConfigs replaces all of a topic's own settings; IncrementalAlterConfigs changes some. Both end in one change of the
//! catalogue, which is durable before the answer.

use pelton_wire::ErrorCode;
use pelton_wire::message::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs, incremental_alter_configs,
};
use std::sync::Arc;

use super::configs::{self, Operation, Resource};
use super::error_map::Refused;
use crate::broker::Broker;
use crate::config::ConfigError;
use crate::reply::{Reply, RequestContext};
use crate::topic_config::{self, Overrides, TopicConfig};

pub(crate) fn handle(cx: &RequestContext, request: AlterConfigsRequest) -> Reply<AlterConfigsResponse> {
    let broker = Arc::clone(&cx.broker);
    Reply::in_order(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let outcome = replace(&broker, &resource, request.validate_only).await;
            let (error_code, error_message) = told(outcome);
            responses.push(alter_configs::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            });
        }
        AlterConfigsResponse { responses, ..Default::default() }
    })
}

pub(crate) fn handle_incremental(
    cx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
    let broker = Arc::clone(&cx.broker);
    Reply::in_order(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let outcome = incremental(&broker, &resource, request.validate_only).await;
            let (error_code, error_message) = told(outcome);
            responses.push(incremental_alter_configs::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            });
        }
        IncrementalAlterConfigsResponse { responses, ..Default::default() }
    })
}

async fn replace(
    broker: &Arc<Broker>,
    resource: &alter_configs::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let given = resource.configs.iter().map(|config| (config.name.as_str(), config.value.is_some()));
    configs::check_given(given)?;
    let own = resource.configs.iter();
    let all: Overrides = own.filter_map(|c| Some((c.name.clone(), c.value.clone()?))).collect();
    let change = move |_: &Overrides| Ok(all);
    alter(broker, (resource.resource_type, &resource.resource_name), validate_only, change).await
}

async fn incremental(
    broker: &Arc<Broker>,
    resource: &incremental_alter_configs::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let given = resource.configs.iter().map(|config| {
        let deleted = Operation::from_wire(config.config_operation) == Some(Operation::Delete);
        (config.name.as_str(), deleted || config.value.is_some())
    });
    configs::check_given(given)?;
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let operation = Operation::from_wire(config.config_operation).ok_or_else(|| {
            let why = format!("`{}` has the unknown operation {}", config.name, config.config_operation);
            Refused::new(ErrorCode::INVALID_REQUEST, why)
        })?;
        changes.push((config.name.clone(), operation, config.value.clone()));
    }
    let defaults = broker.config.topic_defaults.clone();
    let change = move |own: &Overrides| {
        configs::apply(own, &changes, |name| {
            let built_in = topic_config::by_name(name).map(|setting| setting.default.to_owned());
            defaults.get(name).cloned().or(built_in)
        })
    };
    alter(broker, (resource.resource_type, &resource.resource_name), validate_only, change).await
}

async fn alter(
    broker: &Arc<Broker>,
    (kind, name): (i8, &str),
    validate_only: bool,
    change: impl FnOnce(&Overrides) -> Result<Overrides, ConfigError> + Send + 'static,
) -> Result<(), Refused> {
    let name = Resource::parse(kind, name, broker.config.node_id)?.changeable()?;
    let topic = broker.topics.get(&name).ok_or_else(|| {
        Refused::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic `{name}`"))
    })?;
    if topic.is_internal() {
        return Err(Refused::new(ErrorCode::INVALID_REQUEST, "it is a topic of the broker's own"));
    }
    if validate_only {
        let after = change(&topic.overrides).and_then(|after| TopicConfig::check_overrides(&after));
        return after.map_err(|error| Refused::new(ErrorCode::INVALID_CONFIG, error.to_string()));
    }
    broker.topics.configure(&name, change).await?;
    Ok(())
}

fn told(outcome: Result<(), Refused>) -> (ErrorCode, Option<String>) {
    match outcome {
        Ok(()) => (ErrorCode::NONE, None),
        Err(Refused { code, message }) => (code, Some(message)),
    }
}

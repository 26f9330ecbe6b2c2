//! AlterConfigs replaces all of a topic's own settings; IncrementalAlterConfigs changes some. Both end in one change of the
//! catalogue, which is durable before the answer.

use pelton_wire::ErrorCode;
use pelton_wire::message::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs, incremental_alter_configs,
};
use std::sync::Arc;

use super::context::RequestContext;
use super::reply::Reply;
use super::support::configs::{self, Resource};
use super::support::error_map::Refused;
use crate::admin::Admin;
use crate::admin::configs::{ConfigChange, ConfigEdit, ConfigOperation};
use crate::topic_config::Overrides;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: AlterConfigsRequest,
) -> Reply<AlterConfigsResponse> {
    let admin = Arc::clone(admin);
    cx.in_order(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let outcome = replace(&admin, &resource, request.validate_only).await;
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
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
    let admin = Arc::clone(admin);
    cx.in_order(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let outcome = incremental(&admin, &resource, request.validate_only).await;
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
    admin: &Admin,
    resource: &alter_configs::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let given = resource.configs.iter().map(|config| (config.name.as_str(), config.value.is_some()));
    configs::check_given(given)?;
    let own = resource.configs.iter();
    let all: Overrides = own.filter_map(|c| Some((c.name.clone(), c.value.clone()?))).collect();
    let change = ConfigChange::Replace(all);
    alter(admin, (resource.resource_type, &resource.resource_name), validate_only, change).await
}

async fn incremental(
    admin: &Admin,
    resource: &incremental_alter_configs::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let given = resource.configs.iter().map(|config| {
        let deleted = configs::operation_of(config.config_operation) == Some(ConfigOperation::Delete);
        (config.name.as_str(), deleted || config.value.is_some())
    });
    configs::check_given(given)?;
    let mut edits = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let operation = configs::operation_of(config.config_operation).ok_or_else(|| {
            let why = format!("`{}` has the unknown operation {}", config.name, config.config_operation);
            Refused::new(ErrorCode::INVALID_REQUEST, why)
        })?;
        edits.push(ConfigEdit { name: config.name.clone(), operation, value: config.value.clone() });
    }
    let change = ConfigChange::Edit(edits);
    alter(admin, (resource.resource_type, &resource.resource_name), validate_only, change).await
}

async fn alter(
    admin: &Admin,
    (kind, name): (i8, &str),
    validate_only: bool,
    change: ConfigChange,
) -> Result<(), Refused> {
    let Some(name) = Resource::parse(kind, name, admin.node_id())?.changeable(change.sets())? else {
        return Ok(());
    };
    Ok(admin.alter_topic(&name, change, validate_only).await?)
}

fn told(outcome: Result<(), Refused>) -> (ErrorCode, Option<String>) {
    match outcome {
        Ok(()) => (ErrorCode::NONE, None),
        Err(Refused { code, message }) => (code, Some(message)),
    }
}

//! Plugins and pipelines over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use pelton_streams::Digest;
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::reply::Refusal;
use pelton_pipelines::status::{LogLine, PipelineState};
use pelton_pipelines::supervisor::{Deleted, Deployed, PipelineDescription, PluginSummary, Pushed};

type Answer<T> = Result<Json<T>, Refusal>;
/// The name in a path; an unreadable one is refused in JSON too.
type Name = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

/// `POST /v1/pipelines`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployRequest {
    /// The text of pipeline.toml.
    manifest: String,
    /// The digest of the component that a node runs, by node id. The manifest says it for the other nodes.
    #[serde(default)]
    plugins: BTreeMap<String, String>,
    /// Validate only.
    #[serde(default)]
    dry_run: bool,
}

/// `GET /v1/pipelines/{name}/logs`.
#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    /// The first sequence wanted.
    #[serde(default)]
    since: u64,
}

/// `DELETE /v1/pipelines/{name}`.
#[derive(Debug, Deserialize)]
pub(super) struct DeleteQuery {
    /// Its changelogs, the topics between its parts and its offsets, too.
    #[serde(default)]
    own_topics: bool,
}

/// Log lines, and the sequence to ask for next.
#[derive(Debug, Serialize)]
pub(super) struct LogAnswer {
    lines: Vec<LogLine>,
    next: u64,
}

/// State of a pipeline shortly after a change; null if it was deleted meanwhile.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    state: Option<PipelineState>,
}

pub(super) async fn plugins(State(state): State<Arc<HttpState>>) -> Answer<Vec<PluginSummary>> {
    Ok(Json(state.supervisor()?.plugins()))
}

pub(super) async fn push(State(state): State<Arc<HttpState>>, body: Body) -> Answer<Pushed> {
    let component = body.map_err(|error| Refusal::of_body(&error, state.limits.component_bytes))?;
    Ok(Json(state.supervisor()?.push(component).await?))
}

pub(super) async fn pipelines(State(state): State<Arc<HttpState>>) -> Answer<Vec<PipelineDescription>> {
    Ok(Json(state.supervisor()?.pipelines()))
}

pub(super) async fn deploy(State(state): State<Arc<HttpState>>, body: Body) -> Answer<Deployed> {
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let request: DeployRequest = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the request is not valid: {error}")))?;
    let mut plugins: BTreeMap<String, Digest> = BTreeMap::new();
    for (node, digest) in &request.plugins {
        let digest =
            digest.parse().map_err(|error| Refusal::bad_request(format!("node `{node}`: {error}")))?;
        plugins.insert(node.clone(), digest);
    }
    let supervisor = state.supervisor()?;
    let deployed = if request.dry_run {
        supervisor.check(&request.manifest, &plugins).await?
    } else {
        supervisor.deploy(&request.manifest, &plugins).await?
    };
    Ok(Json(deployed))
}

pub(super) async fn pipeline(State(state): State<Arc<HttpState>>, name: Name) -> Answer<PipelineDescription> {
    let Path(name) = name?;
    let found = state.supervisor()?.pipeline(&name);
    found.map(Json).ok_or_else(|| Refusal::not_found(format!("no pipeline `{name}` is deployed")))
}

pub(super) async fn delete(
    State(state): State<Arc<HttpState>>,
    name: Name,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Answer<Deleted> {
    let (Path(name), Query(query)) = (name?, query?);
    Ok(Json(state.supervisor()?.delete(&name, query.own_topics).await?))
}

pub(super) async fn pause(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Changed> {
    Ok(Json(Changed { state: state.supervisor()?.set_paused(&name?.0, true).await? }))
}

pub(super) async fn resume(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Changed> {
    Ok(Json(Changed { state: state.supervisor()?.set_paused(&name?.0, false).await? }))
}

pub(super) async fn logs(
    State(state): State<Arc<HttpState>>,
    name: Name,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Answer<LogAnswer> {
    let (Path(name), Query(query)) = (name?, query?);
    let found = state.supervisor()?.log_lines(&name, query.since);
    let (lines, next) =
        found.ok_or_else(|| Refusal::not_found(format!("no pipeline `{name}` is deployed")))?;
    Ok(Json(LogAnswer { lines, next }))
}

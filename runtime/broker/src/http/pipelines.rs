//! Plugins and pipelines over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pelton_streams::Digest;
use pelton_streams::values::ByteSize;
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::reply::Refusal;
use crate::pipelines::kept_logs::{LINES, LINES_MAX, Lines, Unreadable, Wanted};
use crate::pipelines::redrive::{RedriveRequest, Redriven};
use pelton_pipelines::deployments::Revision;
use pelton_pipelines::limits::PipelineLimits;
use pelton_pipelines::refusal::DeployError;
use pelton_pipelines::status::PipelineState;
use pelton_pipelines::supervisor::{
    Deleted, Deployed, Kept, PipelineDescription, PluginSummary, Purpose, Pushed, Unanswered,
};

/// Comes with a component.
const SIGNATURE_HEADER: &str = "pelton-signature";

pub(super) type Answer<T> = Result<Json<T>, Refusal>;
/// The name in a path; an unreadable one is refused in JSON too.
pub(super) type Name = Result<Path<String>, PathRejection>;
pub(super) type Body = Result<Bytes, BytesRejection>;

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

/// `POST /v1/pipelines/{name}/rollback`. All of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackRequest {
    /// The revision; none: the one before the live one.
    to: Option<u64>,
    /// Validate only.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/pipelines/{name}/limits`: what is left out stays as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsRequest {
    /// What was said before does not hold any more.
    reset: bool,
    cpu_percent: Option<u32>,
    log_lines: Option<u32>,
    memory: Option<ByteSize>,
    deadline_ms: Option<u32>,
    output: Option<ByteSize>,
    state: Option<ByteSize>,
}

/// `POST /v1/plugins`.
#[derive(Debug, Deserialize)]
pub(super) struct PushQuery {
    /// To be tried alone: what its name means stays what it is.
    #[serde(default)]
    trial: bool,
}

/// `GET /v1/pipelines/{name}/logs`.
#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    /// The first sequence wanted; none: the newest lines.
    since: Option<u64>,
    /// None that were said before, ms since 1970-01-01 UTC.
    from_ms: Option<i64>,
    /// How many at the most.
    limit: Option<usize>,
}

/// `DELETE /v1/pipelines/{name}`.
#[derive(Debug, Deserialize)]
pub(super) struct DeleteQuery {
    /// Its changelogs, the topics between its parts and its offsets, too.
    #[serde(default)]
    own_topics: bool,
}

/// State of a pipeline shortly after a change; null if it was deleted meanwhile.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    state: Option<PipelineState>,
}

pub(super) async fn plugins(State(state): State<Arc<HttpState>>) -> Answer<Vec<PluginSummary>> {
    Ok(Json(state.supervisor()?.plugins()))
}

pub(super) async fn push(
    State(state): State<Arc<HttpState>>,
    query: Result<Query<PushQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Pushed> {
    let Query(query) = query?;
    let component = body.map_err(|error| Refusal::of_body(&error, state.limits.component_bytes))?;
    let signature = signature(&headers)?;
    let purpose = if query.trial { Purpose::Trial } else { Purpose::Use };
    Ok(Json(state.supervisor()?.push_signed(component, signature, purpose).await?))
}

/// The text of a .minisig file, which is base64 in a header.
fn signature(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(SIGNATURE_HEADER) else { return Ok(None) };
    let text = STANDARD.decode(value.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let wrong = || {
        Refusal::bad_request(format!("`{SIGNATURE_HEADER}` must be the text of a .minisig file, in base64"))
    };
    text.map(Some).ok_or_else(wrong)
}

pub(super) async fn pipelines(State(state): State<Arc<HttpState>>) -> Answer<Vec<PipelineDescription>> {
    Ok(Json(state.supervisor()?.pipelines()))
}

pub(super) async fn deploy(State(state): State<Arc<HttpState>>, body: Body) -> Answer<Deployed> {
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let request: DeployRequest = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the request is not valid: {error}")))?;
    let plugins = digests(&request.plugins)?;
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
    found.map(Json).ok_or_else(|| no_pipeline(&name))
}

pub(super) async fn delete(
    State(state): State<Arc<HttpState>>,
    name: Name,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Answer<Deleted> {
    let (Path(name), Query(query)) = (name?, query?);
    let (supervisor, redrive) = (Arc::clone(state.supervisor()?), Arc::clone(&state.parts.redrive));
    // In a task of its own, so that no letters go back before it is over, whether or not somebody waits for it.
    let delete = async move {
        let _turn = redrive.turn(&name).await;
        supervisor.delete(&name, query.own_topics).await
    };
    match tokio::spawn(delete).await {
        Ok(deleted) => Ok(Json(deleted?)),
        Err(error) => Err(DeployError::from(Unanswered::of(&error)).into()),
    }
}

pub(super) async fn pause(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Changed> {
    Ok(Json(Changed { state: state.supervisor()?.set_paused(&name?.0, true).await? }))
}

pub(super) async fn resume(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Changed> {
    Ok(Json(Changed { state: state.supervisor()?.set_paused(&name?.0, false).await? }))
}

pub(super) async fn limit(
    State(state): State<Arc<HttpState>>,
    name: Name,
    body: Body,
) -> Answer<PipelineLimits> {
    let Path(name) = name?;
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let LimitsRequest { reset, cpu_percent, log_lines, memory, deadline_ms, output, state: of_state } =
        optional(&body)?;
    let said = PipelineLimits { cpu_percent, log_lines, memory, deadline_ms, output, state: of_state };
    Ok(Json(state.supervisor()?.limit(&name, said, reset).await?))
}

pub(super) async fn history(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Kept> {
    let Path(name) = name?;
    let found = state.supervisor()?.history(&name);
    found.map(Json).ok_or_else(|| no_pipeline(&name))
}

pub(super) async fn revision(
    State(state): State<Arc<HttpState>>,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Answer<Revision> {
    let Path((name, revision)) = path?;
    let found = state.supervisor()?.revision(&name, revision);
    found
        .map(Json)
        .ok_or_else(|| Refusal::not_found(format!("revision {revision} of a pipeline `{name}` is not kept")))
}

pub(super) async fn rollback(
    State(state): State<Arc<HttpState>>,
    name: Name,
    body: Body,
) -> Answer<Deployed> {
    let Path(name) = name?;
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let RollbackRequest { to, dry_run } = optional(&body)?;
    Ok(Json(state.supervisor()?.rollback(&name, to, dry_run).await?))
}

/// The components that a request names, by node.
pub(super) fn digests(named: &BTreeMap<String, String>) -> Result<BTreeMap<String, Digest>, Refusal> {
    let digest = |(node, digest): (&String, &String)| {
        let digest = digest.parse().map_err(|error| Refusal::bad_request(format!("node `{node}`: {error}")));
        Ok((node.clone(), digest?))
    };
    named.iter().map(digest).collect()
}

pub(super) async fn redrive(State(state): State<Arc<HttpState>>, name: Name, body: Body) -> Answer<Redriven> {
    let Path(name) = name?;
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let request: RedriveRequest = optional(&body)?;
    let topics = state.supervisor()?.letter_topics(&name)?;
    Ok(Json(Arc::clone(&state.parts.redrive).run(name, topics, request).await?))
}

/// A body that may be left out.
pub(super) fn optional<T: Default + serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let invalid =
        |error: serde_json::Error| Refusal::bad_request(format!("the request is not valid: {error}"));
    serde_json::from_slice(body).map_err(invalid)
}

fn no_pipeline(name: &str) -> Refusal {
    Refusal::not_found(format!("no pipeline `{name}` is deployed"))
}

pub(super) async fn logs(
    State(state): State<Arc<HttpState>>,
    name: Name,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Answer<Lines> {
    let (Path(name), Query(LogQuery { since, from_ms, limit })) = (name?, query?);
    let limit = limit.unwrap_or(LINES);
    if !(1..=LINES_MAX).contains(&limit) {
        return Err(Refusal::bad_request(format!("`limit` must be from 1 to {LINES_MAX}")));
    }
    let found = state.parts.logs.read(&name, Wanted { since, from_ms, limit }).await?;
    // What a pipeline has said is there after it was deleted, too.
    match found.lines.is_empty() && since.is_none() && !state.supervisor()?.is_deployed(&name) {
        true => Err(no_pipeline(&name)),
        false => Ok(Json(found)),
    }
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Refusal {
        Refusal::unavailable(error.to_string())
    }
}

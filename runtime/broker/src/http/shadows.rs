//! Revisions that run without being live: over a range of the log, or beside the live one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use pelton_pipelines::supervisor::{ReplayReport, ReplayRequest, ShadowDescription, ShadowOf};
use pelton_streams::Manifest;
use pelton_streams::manifest::values::Start;
use serde::Deserialize;

use super::HttpState;
use super::pipelines::{Answer, Body, Name, digests, optional};
use super::reply::Refusal;

/// `POST /v1/pipelines/{name}/replay`. All of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RangeRequest {
    /// As `start` of a source.
    from: Option<String>,
    to: Option<String>,
    /// Another manifest than the live one.
    manifest: Option<String>,
    /// Other components, by node.
    plugins: BTreeMap<String, String>,
}

/// `POST /v1/pipelines/{name}/shadow`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShadowRequest {
    /// The text of pipeline.toml.
    manifest: String,
    /// As of a deployment.
    #[serde(default)]
    plugins: BTreeMap<String, String>,
    /// Where it begins, as `start` of a source; none: where the live revision is.
    #[serde(default)]
    from: Option<String>,
}

fn place(key: &str, text: Option<&str>) -> Result<Option<Start>, Refusal> {
    let parsed = text.map(Start::parse).transpose();
    parsed.map_err(|expect| Refusal::bad_request(format!("`{key}` must be {expect}")))
}

pub(super) async fn replay(
    State(state): State<Arc<HttpState>>,
    name: Name,
    body: Body,
) -> Answer<ReplayReport> {
    let Path(name) = name?;
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let RangeRequest { from, to, manifest, plugins } = optional(&body)?;
    let request = ReplayRequest {
        from: place("from", from.as_deref())?.unwrap_or(Start::Earliest),
        to: place("to", to.as_deref())?.unwrap_or(Start::Latest),
        manifest,
        plugins: digests(&plugins)?,
    };
    Ok(Json(state.supervisor()?.replay(&name, request).await?))
}

pub(super) async fn start(State(state): State<Arc<HttpState>>, name: Name, body: Body) -> Answer<ShadowOf> {
    let Path(name) = name?;
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let ShadowRequest { manifest, plugins, from } = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the request is not valid: {error}")))?;
    if Manifest::parse(&manifest).is_ok_and(|parsed| parsed.name != name) {
        return Err(Refusal::bad_request(format!("the manifest is not of pipeline `{name}`")));
    }
    let from = place("from", from.as_deref())?;
    Ok(Json(state.supervisor()?.start_shadow(&manifest, &digests(&plugins)?, from).await?))
}

pub(super) async fn shadow(State(state): State<Arc<HttpState>>, name: Name) -> Answer<ShadowDescription> {
    let Path(name) = name?;
    state.supervisor()?.shadow(&name).map(Json).ok_or_else(|| no_shadow(&name))
}

pub(super) async fn stop(State(state): State<Arc<HttpState>>, name: Name) -> Answer<ShadowDescription> {
    let Path(name) = name?;
    state.supervisor()?.stop_shadow(&name).await.map(Json).ok_or_else(|| no_shadow(&name))
}

fn no_shadow(name: &str) -> Refusal {
    Refusal::not_found(format!("pipeline `{name}` has no shadow; `pelton deploy --shadow` starts one"))
}

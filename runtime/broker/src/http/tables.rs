//! Tables over HTTP: what there is, rows by key and by range, and following them.

mod asked;
mod follow;
mod query;
mod rows;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pelton_pipelines::supervisor::{StateAskError, StateTableDescription};
use pelton_streams::tables::{RowRange, ValueFormat};
use pelton_tables::{NewTable, TableDescription, Tables};
use serde::Serialize;

use self::query::Query;
use super::HttpState;
use super::reply::Refusal;
use crate::blocking::run_blocking;
use crate::tables::PipelineTable;

type Answer<T> = Result<Json<T>, Refusal>;
type Name = Result<Path<String>, PathRejection>;

/// Rows of a page without `limit`, and most rows of a page.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1000;
/// How long a request with `min_offset` waits without `timeout_ms`, and at most.
const WAIT_MS: u64 = 5_000;
const WAIT_MAX_MS: u64 = 60_000;
/// The first byte of a page token: its layout. The last key of the page before follows.
const TOKEN_VERSION: u8 = 1;

/// A table that stands alone, or one that a pipeline keeps.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Described {
    Table(Box<TableDescription>),
    State(Box<StateTableDescription>),
}

pub(super) async fn tables(State(state): State<Arc<HttpState>>) -> Answer<Vec<Described>> {
    let (tables, supervisor) = (Arc::clone(state.tables()?), state.supervisor().ok().cloned());
    let list = move || {
        let tables = tables.list().into_iter().map(|table| Described::Table(Box::new(table)));
        let kept = supervisor.map(|supervisor| supervisor.state_tables()).unwrap_or_default();
        tables.chain(kept.into_iter().map(|table| Described::State(Box::new(table)))).collect()
    };
    Ok(Json(run_blocking(list).await))
}

pub(super) async fn create(
    State(state): State<Arc<HttpState>>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<TableDescription> {
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let new: NewTable = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the request is not valid: {error}")))?;
    Ok(Json(state.tables()?.create(new).await?))
}

pub(super) async fn table(State(state): State<Arc<HttpState>>, name: Name) -> Answer<Described> {
    let (Path(name), tables) = (name?, Arc::clone(state.tables()?));
    if let Some(supervisor) = state::keeper(&state, &name)? {
        let described = run_blocking(move || supervisor.describe_state_table(&name)).await?;
        return Ok(Json(Described::State(Box::new(described))));
    }
    Ok(Json(Described::Table(Box::new(run_blocking(move || tables.describe(&name)).await?))))
}

pub(super) async fn delete(State(state): State<Arc<HttpState>>, name: Name) -> Answer<serde_json::Value> {
    let Path(name) = name?;
    if state::keeper(&state, &name)?.is_some() {
        let error = format!("a pipeline keeps `{name}`: it goes with its node, or with the pipeline");
        return Err(Refusal::bad_request(error));
    }
    state.tables()?.delete(&name).await?;
    Ok(Json(serde_json::json!({})))
}

/// `GET /v1/tables/{table}/records/{key}`, with the key percent-encoded: any bytes.
pub(super) async fn record(State(state): State<Arc<HttpState>>, uri: Uri) -> Result<Response, Refusal> {
    let mut segments = uri.path().splitn(6, '/').skip(3);
    let (name, key) = (segments.next(), segments.nth(1));
    let (name, key) = (query::text_of(name.unwrap_or_default())?, query::bytes_of(key.unwrap_or_default()));
    let query = Query::parse(uri.query(), &["min_offset", "timeout_ms"])?;
    get(&state, name, key, &query).await
}

/// `GET /v1/tables/{table}/records`: with `key` the row of that key, else rows of a range.
pub(super) async fn records(
    State(state): State<Arc<HttpState>>,
    name: Name,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    if let Ok(query) = Query::parse(uri.query(), &["key", "min_offset", "timeout_ms"])
        && let Some(key) = query.bytes("key")?
    {
        return get(&state, name, key, &query).await;
    }
    let keeper = state::keeper(&state, &name)?;
    let known = ["from", "to", "prefix", "limit", "page", "min_offset", "timeout_ms", "since", "until"];
    let query = Query::parse(uri.query(), &known)?;
    match keeper {
        Some(supervisor) => state::scan(supervisor, name, &query).await,
        None if query.has("since") || query.has("until") => {
            state.tables()?.format(&name)?;
            Err(StateAskError::NoWindows(name).into())
        }
        None => scan(&state, name, &query).await,
    }
}

/// `GET /v1/tables/{table}/windows?key=`: the windows of a key that begin within a time.
pub(super) async fn windows(
    State(state): State<Arc<HttpState>>,
    name: Name,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let known = ["key", "since", "until", "limit", "page", "min_offset", "timeout_ms"];
    let query = Query::parse(uri.query(), &known)?;
    let Some(supervisor) = state::keeper(&state, &name)? else {
        state.tables()?.format(&name)?;
        return Err(StateAskError::NoWindows(name).into());
    };
    state::windows(supervisor, name, &query).await
}

pub(super) async fn follow(
    State(state): State<Arc<HttpState>>,
    name: Name,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let query = Query::parse(uri.query(), &["key", "from", "to", "prefix"])?;
    let range = match query.bytes("key")? {
        Some(key) => {
            let end = RowRange::default().behind(&key).from;
            RowRange::new(Some(key), Some(end), None)
        }
        None => range_of(&query)?,
    };
    let tables = Arc::clone(state.tables()?);
    if let Some(supervisor) = state::keeper(&state, &name)? {
        let following = run_blocking(move || {
            let kept = supervisor.state_follow(&name, range)?;
            Ok::<_, StateAskError>(tables.follow_kept(&name, Box::new(PipelineTable(kept))))
        });
        // What each value is shows in it.
        return Ok(follow::response(following.await??, ValueFormat::Raw));
    }
    let format = tables.format(&name)?;
    let following = run_blocking(move || tables.follow(&name, range)).await?;
    Ok(follow::response(following, format))
}

fn range_of(query: &Query) -> Result<RowRange, Refusal> {
    Ok(RowRange::new(query.bytes("from")?, query.bytes("to")?, query.bytes("prefix")?.as_deref()))
}

async fn get(state: &HttpState, name: String, key: Vec<u8>, query: &Query) -> Result<Response, Refusal> {
    if let Some(supervisor) = state::keeper(state, &name)? {
        return state::get(supervisor, name, key, query).await;
    }
    let tables = state.tables()?;
    wait(tables, &name, Some(&key), query).await?;
    let format = tables.format(&name)?;
    let (tables, table, wanted) = (Arc::clone(tables), name.clone(), key.clone());
    let found = run_blocking(move || tables.get(&table, &wanted)).await?;
    let Some(row) = found.row else {
        let error = format!("table `{name}` has no row with this key");
        let details = serde_json::json!({ "table": name, "offsets": found.offsets });
        return Err(Refusal::not_found(error).with(details));
    };
    let mut body = Vec::new();
    rows::answer(&mut body, &name, &found.offsets, |body| {
        body.push(b',');
        rows::push_fields(body, &row, format);
    });
    Ok(json(body))
}

async fn scan(state: &HttpState, name: String, query: &Query) -> Result<Response, Refusal> {
    let tables = state.tables()?;
    let limit = query.number("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let mut range = range_of(query)?;
    if let Some(token) = query.text("page")? {
        range = range.behind(&key_of(&token)?);
    }
    wait(tables, &name, None, query).await?;
    let format = tables.format(&name)?;
    let (tables, table) = (Arc::clone(tables), name.clone());
    // A page has at most PAGE_MAX rows.
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = run_blocking(move || tables.scan(&table, &range, limit)).await?;
    let mut body = Vec::new();
    rows::answer(&mut body, &name, &page.offsets, |body| {
        body.extend_from_slice(b",\"records\":[");
        for (index, row) in page.rows.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            rows::push_fields(body, row, format);
            body.push(b'}');
        }
        body.extend_from_slice(b"],\"next\":");
        rows::push_json(body, &page.next.as_deref().map(token_of));
    });
    Ok(json(body))
}

/// How long a request waits for an offset.
fn patience(query: &Query) -> Result<Duration, Refusal> {
    let patience = query.number("timeout_ms")?.unwrap_or(WAIT_MS).min(WAIT_MAX_MS);
    Ok(Duration::from_millis(patience))
}

fn token_of(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[TOKEN_VERSION], key].concat())
}

fn key_of(token: &str) -> Result<Vec<u8>, Refusal> {
    match URL_SAFE_NO_PAD.decode(token).as_deref() {
        Ok([TOKEN_VERSION, key @ ..]) => Ok(key.to_vec()),
        _ => Err(no_page()),
    }
}

fn no_page() -> Refusal {
    Refusal::bad_request("`page` is not what an answer gave as `next`")
}

/// Waits until the table reflects what the request asks for: its own writes, say.
async fn wait(tables: &Tables, name: &str, key: Option<&[u8]>, query: &Query) -> Result<(), Refusal> {
    let Some(wanted) = asked::asked(query)? else { return Ok(()) };
    let offsets = asked::of_table(tables, name, key, &wanted)?;
    Ok(tables.wait_for(name, &offsets, patience(query)?).await?)
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A value as an answer shows it.
fn is_json(format: ValueFormat, value: &[u8]) -> bool {
    format == ValueFormat::Json && pelton_streams::json::is_json(value)
}

//! Tables that pipelines keep, over HTTP: `PIPELINE/STORE` with the slash as `%2F`, or what a manifest calls one.
//!
//! A row of theirs has `window` besides, where it is the result of one. Offsets are by topic and partition.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::response::Response;
use pelton_pipelines::readers::Offsets;
use pelton_pipelines::supervisor::{StateAskError, Supervisor};
use pelton_streams::operator::scan::Wanted;
use pelton_streams::state_tables::StateRow;
use pelton_streams::tables::ValueFormat;
use serde_json::json as object;

use super::asked::asked;
use super::query::Query;
use super::rows::{answer, push_json, push_key, push_value};
use super::{PAGE, PAGE_MAX, json, key_of, no_page, patience, range_of, token_of};
use crate::blocking::run_blocking;
use crate::http::HttpState;
use crate::http::reply::Refusal;

/// Who keeps a table of this name, if it does not stand alone.
pub(super) fn keeper(state: &HttpState, name: &str) -> Result<Option<Arc<Supervisor>>, Refusal> {
    if !name.contains('/') && state.tables()?.format(name).is_ok() {
        return Ok(None);
    }
    let Ok(supervisor) = state.supervisor() else { return Ok(None) };
    // One that is of no pipeline is unknown to all.
    let is_theirs = name.contains('/') || supervisor.has_state_table(name);
    Ok(is_theirs.then(|| Arc::clone(supervisor)))
}

pub(super) async fn get(
    supervisor: Arc<Supervisor>,
    name: String,
    key: Vec<u8>,
    query: &Query,
) -> Result<Response, Refusal> {
    wait(&supervisor, &name, Some(&key), query).await?;
    let (table, wanted) = (name.clone(), key.clone());
    let found = run_blocking(move || supervisor.state_get(&table, &wanted)).await?;
    let Some(row) = found.row else {
        let error = format!("table `{name}` has no row with this key");
        return Err(Refusal::not_found(error).with(object!({ "table": name, "offsets": found.offsets })));
    };
    let mut body = Vec::new();
    answer(&mut body, &name, &found.offsets, |body| {
        body.push(b',');
        push_row(body, &row);
    });
    Ok(json(body))
}

pub(super) async fn scan(
    supervisor: Arc<Supervisor>,
    name: String,
    query: &Query,
) -> Result<Response, Refusal> {
    let limit = query.number("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let behind = query.text("page")?.map(|token| key_of(&token)).transpose()?;
    let wanted = Wanted { keys: range_of(query)?, starts: starts(query)?, behind };
    wait(&supervisor, &name, None, query).await?;
    // A page has at most PAGE_MAX rows.
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let table = name.clone();
    let found = run_blocking(move || supervisor.state_scan(&table, &wanted, limit)).await?;
    let next = found.page.next.as_deref().map(token_of);
    Ok(rows(&name, &found.offsets, &found.page.rows, next))
}

pub(super) async fn windows(
    supervisor: Arc<Supervisor>,
    name: String,
    query: &Query,
) -> Result<Response, Refusal> {
    let Some(key) = query.bytes("key")? else {
        let error =
            "`key` is missing: whose windows? `/records` with `since` and `until` has those of all keys";
        return Err(Refusal::bad_request(error));
    };
    let mut starts = starts(query)?;
    if let Some(token) = query.text("page")? {
        let start = <[u8; 8]>::try_from(key_of(&token)?).map_err(|_| no_page())?;
        starts = i64::from_be_bytes(start).max(*starts.start())..=*starts.end();
    }
    let limit = query.number("limit")?.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    wait(&supervisor, &name, Some(&key), query).await?;
    let table = name.clone();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = run_blocking(move || supervisor.state_windows(&table, &key, starts, limit)).await?;
    let next = found.windows.next.map(|start| token_of(&start.to_be_bytes()));
    Ok(rows(&name, &found.offsets, &found.windows.rows, next))
}

/// When windows begin.
fn starts(query: &Query) -> Result<RangeInclusive<i64>, Refusal> {
    let time = |name: &str, default: i64| {
        let number = query.number(name)?;
        Ok::<i64, Refusal>(number.map_or(default, |number| i64::try_from(number).unwrap_or(i64::MAX)))
    };
    // What is asked for ends before `until`.
    let until = time("until", i64::MAX)?;
    Ok(time("since", 0)?..=if until == i64::MAX { until } else { until - 1 })
}

fn rows(name: &str, offsets: &Offsets, rows: &[StateRow], next: Option<String>) -> Response {
    let mut body = Vec::new();
    answer(&mut body, name, offsets, |body| {
        body.extend_from_slice(b",\"records\":[");
        for (index, row) in rows.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            push_row(body, row);
            body.push(b'}');
        }
        body.extend_from_slice(b"],\"next\":");
        push_json(body, &next);
    });
    json(body)
}

/// Results are JSON, or text; what a table has is whatever its topic has.
pub(super) fn push_row(body: &mut Vec<u8>, row: &StateRow) {
    push_key(body, &row.key);
    if let Some(window) = row.window {
        body.extend_from_slice(b",\"window\":{\"start\":");
        push_json(body, &window.start);
        body.extend_from_slice(b",\"end\":");
        push_json(body, &window.end);
        body.push(b'}');
    }
    let value = row.value.as_deref();
    let is_json = value.is_some_and(pelton_streams::json::is_json);
    push_value(body, value, if is_json { ValueFormat::Json } else { ValueFormat::Raw });
    body.extend_from_slice(b",\"timestamp\":");
    push_json(body, &row.timestamp);
}

/// Waits until the table reflects what the request asks for: its own writes, say.
async fn wait(supervisor: &Supervisor, name: &str, key: Option<&[u8]>, query: &Query) -> Result<(), Refusal> {
    let Some(wanted) = asked(query)? else { return Ok(()) };
    let waited = supervisor.state_wait(name, key, &wanted, patience(query)?).await;
    waited.map_err(|error: StateAskError| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_its_window() {
        let window = Some(pelton_streams::operator::Window {
            kind: pelton_streams::operator::WindowKind::Time,
            start: 10,
            end: 20,
        });
        let shown = |window, value: Option<&[u8]>| {
            let mut body = b"{".to_vec();
            let value = value.map(<[u8]>::to_vec);
            push_row(&mut body, &StateRow { key: b"k".to_vec(), window, value, timestamp: 15 });
            body.push(b'}');
            String::from_utf8(body).unwrap()
        };
        assert_eq!(
            shown(window, Some(b"{\"n\":1}")),
            r#"{"key":"k","window":{"start":10,"end":20},"value":{"n":1},"timestamp":15}"#
        );
        assert_eq!(shown(None, Some(b"text")), r#"{"key":"k","value":"text","timestamp":15}"#);
        assert_eq!(shown(None, None), r#"{"key":"k","value":null,"timestamp":15}"#);
    }
}

//! `pelton pipeline limits`: what holds over the manifest of a pipeline, while it runs.

use super::super::topic::{print_json, print_line};
use crate::cli::Limits;
use crate::client::http::{HttpClient, segment};
use serde_json::{Map, Value, json};

/// Changes limits if some are given, and prints what holds.
///
/// # Errors
/// There is no such pipeline, or a value is outside its range.
pub(super) fn run(
    http: &HttpClient,
    name: &str,
    limits: &Limits,
    reset: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let Limits { cpu_percent, log_lines, memory, deadline_ms, output, state } = limits;
    let said = [
        ("cpu_percent", json!(cpu_percent)),
        ("log_lines", json!(log_lines)),
        ("memory", json!(memory)),
        ("deadline_ms", json!(deadline_ms)),
        ("output", json!(output)),
        ("state", json!(state)),
    ];
    let said = said.into_iter().filter(|(_, value)| !value.is_null());
    let mut request: Map<String, Value> = said.map(|(key, value)| (key.to_owned(), value)).collect();
    let path = format!("/v1/pipelines/{}", segment(name)?);
    let holds: Value = if request.is_empty() && !reset {
        http.get::<Value>(&path)?["limits"].take()
    } else {
        request.insert("reset".to_owned(), json!(reset));
        let body = Value::Object(request).to_string();
        http.post(&format!("{path}/limits"), "application/json", body.as_bytes())?
    };
    let holds = if holds.is_null() { json!({}) } else { holds };
    if as_json {
        return print_json(&holds);
    }
    let lines: Vec<String> = holds.as_object().into_iter().flatten().map(line).collect();
    match lines.is_empty() {
        true => print_line(&format!("nothing is said over the manifest of pipeline {name}")),
        false => lines.iter().try_for_each(|line| print_line(line)),
    }
}

fn line((key, value): (&String, &Value)) -> String {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match key.as_str() {
        "cpu_percent" => format!("{key} {value}: its drivers have so much of one core"),
        "log_lines" => format!("{key} {value}: so many lines of a second are kept"),
        "deadline_ms" => format!("{key} {value}: a call of a plugin may take so long"),
        "memory" => format!("{key} {value}: an instance of a plugin may have so much"),
        "output" => format!("{key} {value}: an answer of a plugin may emit so much"),
        "state" => format!("{key} {value}: a call of a plugin may write so much to its stores"),
        _ => format!("{key} {value}"),
    }
}

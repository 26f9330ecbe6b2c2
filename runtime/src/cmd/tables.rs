//! `pelton table`: tables and their rows.

use super::table::Table;
use super::topic::{print_json, print_line};
use crate::cli::{self, AtLeast, Rows, Starts};
use crate::client::http::{HttpClient, table_segment};
use crate::report::failed;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pelton_streams::values::epoch_text;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

/// Rows that are asked for at once.
const PAGE: u64 = 1000;
/// How long a scan waits for a table that is being restored.
const RESTORED_MS: u64 = 5_000;
/// The longest wait.
const WAIT_MAX_MS: u64 = 3_600_000;

pub(crate) fn run(command: &cli::Table) -> anyhow::Result<()> {
    match command {
        cli::Table::Create { name, topic, scope, partitioner, store, value, http } => {
            let table = json!({
                "name": name, "topic": topic, "scope": scope, "partitioner": partitioner, "store": store, "value": value
            });
            create(&HttpClient::new(http), &table)
        }
        cli::Table::List { json, http } => list(&HttpClient::new(http), json.json),
        cli::Table::Describe { name, json, http } => describe(&HttpClient::new(http), name, json.json),
        cli::Table::Get { name, key, at_least, json, http } => {
            get(&HttpClient::new(http), name, key, at_least, json.json)
        }
        cli::Table::Window { name, key, starts, at_least, json, http } => {
            windows(&HttpClient::new(http), name, key, starts, at_least, json.json)
        }
        cli::Table::Scan { name, rows, starts, limit, json, http } => {
            scan(&HttpClient::new(http), name, (rows, starts), limit.unwrap_or(u64::MAX), json.json)
        }
        cli::Table::Follow { name, key, rows, max_events, json, http } => {
            let most = max_events.unwrap_or(u64::MAX);
            follow(&HttpClient::new(http), name, key.as_deref(), rows, most, json.json)
        }
        cli::Table::Delete { name, http } => {
            let _: Value = HttpClient::new(http).delete(&format!("/v1/tables/{}", table_segment(name)?))?;
            Ok(())
        }
    }
}

fn create(http: &HttpClient, table: &Value) -> anyhow::Result<()> {
    let created: Value = http.post("/v1/tables", "application/json", table.to_string().as_bytes())?;
    let text = |key: &str| created[key].as_str().unwrap_or_default().to_owned();
    print_line(&format!(
        "table {} is restored from topic {}; `pelton table describe {}` says how far it is",
        text("name"),
        text("topic"),
        text("name")
    ))
}

fn list(http: &HttpClient, as_json: bool) -> anyhow::Result<()> {
    let tables: Vec<Value> = http.get("/v1/tables")?;
    if as_json {
        return print_json(&Value::Array(tables));
    }
    let mut shown = Table::new(&[
        "table",
        "called",
        "topic",
        "scope",
        "store",
        "state",
        "rows (about)",
        "bytes",
        "behind",
    ]);
    for table in &tables {
        let sum = |of: &dyn Fn(&Value) -> u64| json!(stores(table).map(of).sum::<u64>());
        shown.row(vec![
            table["name"].clone(),
            // What a manifest calls it, which may be asked for as well.
            table["table"].clone(),
            table["topic"].clone(),
            table["scope"].clone(),
            table["store"].clone(),
            table["state"].clone(),
            sum(&|store| store["keys"].as_u64().unwrap_or(0)),
            sum(&|store| store["bytes"].as_u64().unwrap_or(0)),
            sum(&|store| partitions(store).filter_map(|partition| partition["behind"].as_u64()).sum()),
        ]);
    }
    shown.print(false)
}

fn stores(table: &Value) -> impl Iterator<Item = &Value> {
    table["stores"].as_array().into_iter().flatten()
}

fn partitions(store: &Value) -> impl Iterator<Item = &Value> {
    store["partitions"].as_array().into_iter().flatten()
}

fn describe(http: &HttpClient, name: &str, as_json: bool) -> anyhow::Result<()> {
    let table: Value = http.get(&format!("/v1/tables/{}", table_segment(name)?))?;
    if as_json {
        return print_json(&table);
    }
    let text = |key: &str| table[key].as_str().unwrap_or("-").to_owned();
    print_line(&match table["pipeline"].as_str() {
        Some(pipeline) => format!(
            "table {}{}, {} that pipeline {pipeline} keeps in {}, which is {}: {}; its changes are in topic {}",
            text("name"),
            table["table"].as_str().map_or(String::new(), |called| format!(" (`{called}`)")),
            text("holds"),
            text("store"),
            text("pipeline_state"),
            text("state"),
            text("topic")
        ),
        None => format!(
            "table {name} of topic {}: {}, partitioner {}, store {}, values {}, {}",
            text("topic"),
            text("scope"),
            text("partitioner"),
            text("store"),
            text("value"),
            text("state")
        ),
    })?;
    if let Some(alias) = table["table"].as_str() {
        print_line(&format!("its name in the manifest: {alias}"))?;
    }
    for (counter, value) in table["totals"].as_object().into_iter().flatten() {
        print_line(&format!("{counter}: {value}"))?;
    }
    for store in stores(&table) {
        let id = store["store"].as_str().unwrap_or("-");
        for (what, key) in [("failure", "failure"), ("made again", "rebuilt")] {
            if let Some(reason) = store[key].as_str() {
                print_line(&format!("store {id}, {what}: {reason}"))?;
            }
        }
    }
    let mut shown =
        Table::new(&["store", "state", "rows (about)", "bytes", "partition", "offset", "end", "behind"]);
    for store in stores(&table) {
        for partition in partitions(store) {
            let of_store = ["store", "state", "keys", "bytes"].map(|key| store[key].clone());
            let of_partition = ["partition", "offset", "end", "behind"].map(|key| partition[key].clone());
            shown.row(of_store.into_iter().chain(of_partition).collect());
        }
    }
    shown.print(false)
}

/// A row, or a change without a value.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_base64: Option<String>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
    window: Option<Bounds>,
}

/// Of a window.
#[derive(Deserialize)]
struct Bounds {
    start: i64,
    end: i64,
}

impl Bounds {
    fn text(&self) -> String {
        format!("{}\t{}", epoch_text(self.start), epoch_text(self.end))
    }
}

impl Shown<'_> {
    fn key(&self) -> anyhow::Result<Vec<u8>> {
        match &self.key_base64 {
            Some(encoded) => Ok(STANDARD.decode(encoded)?),
            None => Ok(self.key.as_deref().unwrap_or_default().as_bytes().to_vec()),
        }
    }

    /// A text is printed without its quotes, other JSON as it is. `None`: the row was deleted.
    fn value(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if let Some(encoded) = &self.value_base64 {
            return Ok(Some(STANDARD.decode(encoded)?));
        }
        let Some(value) = self.value.map(RawValue::get) else { return Ok(None) };
        match serde_json::from_str::<Cow<'_, str>>(value) {
            Ok(text) => Ok(Some(text.as_bytes().to_vec())),
            Err(_) => Ok(Some(value.as_bytes().to_vec())),
        }
    }

    /// `absent` stands for no value.
    fn print(&self, absent: &str) -> anyhow::Result<()> {
        let mut line = self.key()?;
        line.push(b'\t');
        if let Some(window) = &self.window {
            line.extend_from_slice(window.text().as_bytes());
            line.push(b'\t');
        }
        line.extend(self.value()?.unwrap_or_else(|| absent.as_bytes().to_vec()));
        print_bytes(&line)
    }
}

fn print_bytes(line: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A query string. Empty ones are left out.
fn query<'a>(parameters: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let encoded = parameters.into_iter().filter_map(|(name, value)| {
        Some(format!("{name}={}", utf8_percent_encode(&value?, NON_ALPHANUMERIC)))
    });
    encoded.collect::<Vec<_>>().join("&")
}

/// A key, and what an answer about it must reflect.
fn asks(key: &str, at_least: &AtLeast) -> [(&'static str, Option<String>); 3] {
    let timeout_ms = at_least.min_offset.is_some().then(|| at_least.timeout_ms.to_string());
    [("key", Some(key.to_owned())), ("min_offset", at_least.min_offset.clone()), ("timeout_ms", timeout_ms)]
}

fn patience(ms: u64) -> Duration {
    Duration::from_millis(ms.min(WAIT_MAX_MS))
}

/// When windows begin.
fn begins(starts: &Starts) -> [(&'static str, Option<String>); 2] {
    [("since", starts.since.map(|ms| ms.to_string())), ("until", starts.until.map(|ms| ms.to_string()))]
}

fn windows(
    http: &HttpClient,
    name: &str,
    key: &str,
    starts: &Starts,
    at_least: &AtLeast,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut page = None;
    loop {
        let query = query(asks(key, at_least).into_iter().chain(begins(starts)).chain([("page", page)]));
        let path = format!("/v1/tables/{}/windows?{query}", table_segment(name)?);
        let answer: Page = http.get_restored(&path, patience(at_least.timeout_ms))?;
        for row in &answer.records {
            if as_json {
                print_line(row.get())?;
                continue;
            }
            let shown: Shown<'_> = serde_json::from_str(row.get()).context("understand a window")?;
            let mut line = shown.window.as_ref().map_or_else(String::new, Bounds::text).into_bytes();
            line.push(b'\t');
            line.extend(shown.value()?.unwrap_or_default());
            print_bytes(&line)?;
        }
        if answer.next.is_none() {
            return Ok(());
        }
        page = answer.next;
    }
}

fn get(http: &HttpClient, name: &str, key: &str, at_least: &AtLeast, as_json: bool) -> anyhow::Result<()> {
    let query = query(asks(key, at_least));
    let path = format!("/v1/tables/{}/records?{query}", table_segment(name)?);
    let row: Box<RawValue> = http.get_restored(&path, patience(at_least.timeout_ms))?;
    if as_json {
        return print_line(row.get());
    }
    let shown: Shown<'_> = serde_json::from_str(row.get()).context("understand the row")?;
    print_bytes(&shown.value()?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Box<RawValue>>,
    next: Option<String>,
}

fn scan(
    http: &HttpClient,
    name: &str,
    (rows, starts): (&Rows, &Starts),
    limit: u64,
    as_json: bool,
) -> anyhow::Result<()> {
    let (mut left, mut page) = (limit, None);
    while left > 0 {
        let rows = [
            ("from", rows.from.clone()),
            ("to", rows.to.clone()),
            ("prefix", rows.prefix.clone()),
            ("limit", Some(left.min(PAGE).to_string())),
            ("page", page),
        ];
        let query = query(rows.into_iter().chain(begins(starts)));
        let path = format!("/v1/tables/{}/records?{query}", table_segment(name)?);
        let answer: Page = http.get_restored(&path, patience(RESTORED_MS))?;
        for row in &answer.records {
            if as_json {
                print_line(row.get())?;
            } else {
                serde_json::from_str::<Shown<'_>>(row.get()).context("understand a row")?.print("null")?;
            }
        }
        left = left.saturating_sub(answer.records.len() as u64);
        if answer.next.is_none() {
            break;
        }
        page = answer.next;
    }
    Ok(())
}

fn follow(
    http: &HttpClient,
    name: &str,
    key: Option<&str>,
    rows: &Rows,
    most: u64,
    as_json: bool,
) -> anyhow::Result<()> {
    let query = query([
        ("key", key.map(str::to_owned)),
        ("from", rows.from.clone()),
        ("to", rows.to.clone()),
        ("prefix", rows.prefix.clone()),
    ]);
    let path = format!("/v1/tables/{}/follow?{query}", table_segment(name)?);
    let lines = http.lines(&path, patience(RESTORED_MS))?;
    let (mut event, mut left) = (String::new(), most);
    for line in lines {
        let line = line.context("read the table's changes")?;
        if let Some(kind) = line.strip_prefix("event: ") {
            kind.clone_into(&mut event);
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if event == "end" {
            let end: Value = serde_json::from_str(data).context("understand the end")?;
            return Err(failed(format!("it ended: {}", end["reason"].as_str().unwrap_or("no reason given"))));
        }
        let is_row = event == "row" || event == "change";
        if as_json {
            // One object: the event's name, and what it has.
            let rest = data.strip_prefix('{').filter(|rest| *rest != "}");
            print_line(&format!(
                "{{\"event\":\"{event}\"{}",
                rest.map_or("}".to_owned(), |rest| format!(",{rest}"))
            ))?;
        } else if is_row {
            serde_json::from_str::<Shown<'_>>(data).context("understand a row")?.print("(deleted)")?;
        }
        left = left.saturating_sub(u64::from(is_row));
        if left == 0 {
            return Ok(());
        }
    }
    Err(failed("the connection ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_they_are() {
        let value = |row: &str| {
            let value = serde_json::from_str::<Shown<'_>>(row).unwrap().value().unwrap();
            value.map(|value| String::from_utf8(value).unwrap())
        };
        assert_eq!(value(r#"{"key":"a","value":{"n": 1.10}}"#).as_deref(), Some(r#"{"n": 1.10}"#));
        assert_eq!(value(r#"{"key":"a","value":"a\tb"}"#).as_deref(), Some("a\tb"));
        assert_eq!(value(r#"{"key":"a","value_base64":"eyx9"}"#).as_deref(), Some("{,}"));
        assert_eq!(
            value(r#"{"key":"a","value":12345678901234567890123}"#).as_deref(),
            Some("12345678901234567890123")
        );
        assert_eq!(value(r#"{"key":"a","value":null}"#), None);
        let key =
            serde_json::from_str::<Shown<'_>>(r#"{"key_base64":"/w==","value":1}"#).unwrap().key().unwrap();
        assert_eq!(key, [0xff]);
    }

    #[test]
    fn a_query_has_what_was_said_of_it() {
        let query =
            query([("key", Some("a/b é+".to_owned())), ("to", None), ("limit", Some("3".to_owned()))]);
        assert_eq!(query, "key=a%2Fb%20%C3%A9%2B&limit=3");
    }
}

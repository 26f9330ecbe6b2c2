//! `pelton replay`: the live revision and another one over a range of the log, side by side.

use super::deploy::named_plugins;
use super::plugin::{self, Purpose};
use super::topic::{print_json, print_line};
use crate::cli;
use crate::client::http::{HttpClient, segment};
use crate::report::{Exit, Failure, failed, usage};
use pelton_streams::Manifest;
use serde_json::{Map, Value, json};
use std::path::Path;

pub(crate) fn run(args: &cli::Replay) -> anyhow::Result<()> {
    let http = HttpClient::new(&args.http);
    let name = segment(&args.pipeline)?;
    let (mut plugins, mut manifest) = (Map::new(), None);
    if let Some(path) = &args.manifest {
        let path = if path.is_dir() { path.join("pipeline.toml") } else { path.clone() };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| usage(format!("read {}: {error}", path.display())))?;
        let parsed = Manifest::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
        plugins = named_plugins(&http, &parsed, path.parent().unwrap_or(Path::new(".")), Purpose::Trial)?;
        manifest = Some(text);
    }
    for named in &args.plugin {
        let (node, path) = match named.split_once('=') {
            Some((node, path)) => (node.to_owned(), path),
            None => (only_node(&http, name)?, named.as_str()),
        };
        let pushed = plugin::pushed(&http, Path::new(path), Purpose::Trial)?;
        plugins.insert(node, pushed["digest"].clone());
    }
    let request = json!({
        "from": place(&args.from),
        "to": place(&args.to),
        "manifest": manifest,
        "plugins": plugins,
    });
    let path = format!("/v1/pipelines/{name}/replay");
    let report: Value = http.post(&path, "application/json", request.to_string().as_bytes())?;
    if args.json.json {
        print_json(&report)?;
    } else {
        lines(&report).iter().try_for_each(|line| print_line(line))?;
    }
    if report["identical"] == true {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "the two are not the same".to_owned()).into())
}

/// A number is an offset, a date a time.
pub(super) fn place(text: &str) -> String {
    if text.parse::<i64>().is_ok() {
        return format!("offset:{text}");
    }
    match pelton_streams::values::epoch_ms(text) {
        Some(_) => format!("timestamp:{text}"),
        None => text.to_owned(),
    }
}

/// The only node of a pipeline that runs a plugin.
fn only_node(http: &HttpClient, name: &str) -> anyhow::Result<String> {
    let pipeline: Value = http.get(&format!("/v1/pipelines/{name}"))?;
    let nodes: Vec<&String> = pipeline["plugins"].as_object().into_iter().flat_map(Map::keys).collect();
    match nodes[..] {
        [node] => Ok(node.clone()),
        _ => Err(failed(format!(
            "pipeline {name} has {} nodes that run plugins: say which one by --plugin NODE=FILE",
            nodes.len()
        ))),
    }
}

fn lines(report: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = Vec::new();
    for range in list(&report["ranges"]) {
        let (from, to) = (&range["from"], &range["to"]);
        lines.push(format!(
            "topic {}, partition {}: offsets {from} to {to}",
            text(&range["topic"]),
            range["partition"]
        ));
    }
    for note in list(&report["notes"]) {
        lines.push(format!("note: {}", text(&note)));
    }
    let before = format!("revision {}", report["revision"]);
    for (who, run) in [(before.as_str(), &report["before"]), ("the other one", &report["after"])] {
        lines.extend(run_lines(who, run));
        lines.push(format!("{who}: {} ms", run["elapsed_ms"]));
    }
    lines.extend(difference_lines(&before, "the other one", &report["difference"]["topics"]));
    if report["identical"] == true {
        lines.push("the same records, in the same order".to_owned());
    }
    lines
}

/// What one of two has come to.
pub(super) fn run_lines(who: &str, run: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{who}: {} records read, {} skipped, {} dead letters, {} calls of plugins ({} failed), {} bytes of state",
        run["records_in"],
        run["skipped"],
        run["dead_lettered"],
        run["calls"],
        run["failed_calls"],
        run["state_bytes"]
    )];
    for (topic, output) in run["outputs"].as_object().into_iter().flatten() {
        let (records, bytes) = (&output["records"], &output["bytes"]);
        lines.push(format!("{who}: {records} records for topic {topic}, {bytes} bytes"));
    }
    match run["deleted_unread"].as_u64() {
        None | Some(0) => {}
        Some(count) => lines.push(format!("{who}: {count} offsets were deleted before they were read")),
    }
    if let Some(failure) = run["failure"].as_str() {
        lines.push(format!("{who} has ended early: {failure}"));
    }
    lines
}

/// Where two differ, by topic.
pub(super) fn difference_lines(before: &str, after: &str, topics: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for (topic, difference) in topics.as_object().into_iter().flatten() {
        let (only_before, only_after) = (&difference["only_before"], &difference["only_after"]);
        lines.push(format!(
            "topic {topic}: {only_before} records of {before} alone, {only_after} of {after} alone"
        ));
        let reordered = list(&difference["reordered"]);
        if !reordered.is_empty() {
            let partitions: Vec<String> = reordered.iter().map(Value::to_string).collect();
            lines.push(format!("topic {topic}: another order in partition {}", partitions.join(", ")));
        }
        for (sign, key) in [('-', "first_only_before"), ('+', "first_only_after")] {
            lines.extend(list(&difference[key]).iter().map(|record| record_line(sign, record)));
        }
    }
    lines
}

fn record_line(sign: char, record: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| "null".to_owned(), str::to_owned);
    let (partition, index) = (&record["partition"], &record["index"]);
    let headers = record["headers"].as_array().map_or(0, Vec::len) as u64
        + record["more_headers"].as_u64().unwrap_or(0);
    let headers = if headers == 0 { String::new() } else { format!(", {headers} headers") };
    format!(
        "  {sign} [{partition}] #{index} {}: {} (time {}{headers})",
        text(&record["key"]),
        text(&record["value"]),
        record["timestamp"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_offsets_times_or_words() {
        for (given, expect) in [
            ("12", "offset:12"),
            ("2013-01-01T00:00:00Z", "timestamp:2013-01-01T00:00:00Z"),
            ("earliest", "earliest"),
            ("offset:3", "offset:3"),
        ] {
            assert_eq!(place(given), expect);
        }
    }

    #[test]
    fn a_report_says_what_differs() {
        let run = |failure: Value| {
            json!({
                "records_in": 3, "skipped": 0, "dead_lettered": 1, "calls": 2, "failed_calls": 0, "state_bytes": 9,
                "elapsed_ms": 4, "deleted_unread": 6, "outputs": { "out": { "records": 2, "bytes": 20 } }, "failure": failure,
            })
        };
        let record = |value: &str| json!({ "partition": 1, "index": 7, "key": null, "value": value, "timestamp": 5, "headers": [["a", null]], "more_headers": 2 });
        let report = json!({
            "revision": 3, "identical": false, "notes": ["stores begin with nothing"],
            "ranges": [{ "topic": "in", "partition": 0, "from": 2, "to": 5 }],
            "before": run(Value::Null), "after": run(json!("it failed")),
            "difference": { "topics": { "out": {
                "only_before": 1, "only_after": 1, "reordered": [0, 2],
                "first_only_before": [record("x")], "first_only_after": [record("y")],
            } } },
        });
        let lines = lines(&report);
        for line in [
            "topic in, partition 0: offsets 2 to 5",
            "note: stores begin with nothing",
            "revision 3: 2 records for topic out, 20 bytes",
            "the other one has ended early: it failed",
            "the other one: 6 offsets were deleted before they were read",
            "topic out: 1 records of revision 3 alone, 1 of the other one alone",
            "topic out: another order in partition 0, 2",
            "  - [1] #7 null: x (time 5, 3 headers)",
            "  + [1] #7 null: y (time 5, 3 headers)",
        ] {
            assert!(lines.iter().any(|known| known == line), "{line} is not in {lines:#?}");
        }
    }
}

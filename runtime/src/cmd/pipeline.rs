//! `pelton pipeline`: list, describe, pause, resume, history, rollback, redrive, shadow, delete, limits, logs.

mod history;
mod limits;
mod logs;
mod redrive;
mod shadow;

use super::deploy::doing;
use super::table::Table;
use super::topic::{print_json, print_line};
use crate::cli;
use crate::client::http::{HttpClient, segment};
use serde_json::{Value, json};

pub(crate) fn run(command: &cli::Pipeline) -> anyhow::Result<()> {
    match command {
        cli::Pipeline::List { json, http } => list(&HttpClient::new(http), json.json),
        cli::Pipeline::Describe { name, json, http } => describe(&HttpClient::new(http), name, json.json),
        cli::Pipeline::Pause { name, http } => change(&HttpClient::new(http), name, "pause"),
        cli::Pipeline::Resume { name, http } => change(&HttpClient::new(http), name, "resume"),
        cli::Pipeline::History { name, revision, json, http } => {
            history::history(&HttpClient::new(http), name, *revision, json.json)
        }
        cli::Pipeline::Rollback { name, to, dry_run, http } => {
            history::rollback(&HttpClient::new(http), name, *to, *dry_run)
        }
        cli::Pipeline::Redrive { name, topic, partition, from, limit, tables, dry_run, json, http } => {
            let wanted =
                redrive::Wanted { topic, partition: *partition, from: *from, limit: *limit, tables: *tables };
            redrive::run(&HttpClient::new(http), name, &wanted, *dry_run, json.json)
        }
        cli::Pipeline::Shadow { name, stop, json, http } => {
            shadow::run(&HttpClient::new(http), name, *stop, json.json)
        }
        cli::Pipeline::Delete { name, own_topics, http } => delete(&HttpClient::new(http), name, *own_topics),
        cli::Pipeline::Limits { name, limits, reset, json, http } => {
            limits::run(&HttpClient::new(http), name, limits, *reset, json.json)
        }
        cli::Pipeline::Logs { name, since, lines, follow, json, http } => {
            let wanted = logs::Wanted { since: *since, lines: *lines, follow: *follow, as_json: json.json };
            logs::run(&HttpClient::new(http), name, &wanted)
        }
    }
}

fn list(http: &HttpClient, as_json: bool) -> anyhow::Result<()> {
    let pipelines: Vec<Value> = http.get("/v1/pipelines")?;
    if as_json {
        return print_json(&Value::Array(pipelines));
    }
    let mut table = Table::new(&["pipeline", "state", "revision", "in", "out", "lag"]);
    for pipeline in &pipelines {
        let totals = &pipeline["totals"];
        table.row(vec![
            pipeline["name"].clone(),
            pipeline["state"].clone(),
            pipeline["revision"].clone(),
            totals["records_in"].clone(),
            totals["records_out"].clone(),
            json!(lag(pipeline)),
        ]);
    }
    table.print(false)
}

fn lag(pipeline: &Value) -> i64 {
    pipeline["tasks"].as_array().into_iter().flatten().filter_map(|task| task["lag"].as_i64()).sum()
}

fn describe(http: &HttpClient, name: &str, as_json: bool) -> anyhow::Result<()> {
    let pipeline: Value = http.get(&format!("/v1/pipelines/{}", segment(name)?))?;
    if as_json {
        return print_json(&pipeline);
    }
    let text = |key: &str| pipeline[key].as_str().unwrap_or("-").to_owned();
    print_line(&format!(
        "pipeline {name}, revision {}, {}, group {}",
        pipeline["revision"],
        text("state"),
        text("group")
    ))?;
    if let Some(reason) = pipeline["failure"]["reason"].as_str() {
        print_line(&format!("failure: {reason}"))?;
        if text("state") == "failed" {
            print_line(&what_to_do(name, !pipeline["failure"]["offset"].is_null()))?;
        }
    }
    let lanes = pipeline["lanes"].as_array();
    for lane in lanes.into_iter().flatten() {
        let why = lane["failure"]["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        print_line(&format!("lane {}: {}{why}", lane["lane"], lane["state"].as_str().unwrap_or("-")))?;
    }
    for (node, digest) in pipeline["plugins"].as_object().into_iter().flatten() {
        print_line(&format!("node {node}: {}", digest.as_str().unwrap_or("-")))?;
    }
    print_run(&pipeline)?;
    for (counter, value) in pipeline["totals"].as_object().into_iter().flatten() {
        print_line(&format!("{counter}: {value}"))?;
    }
    for (node, counts) in pipeline["dropped"].as_object().into_iter().flatten() {
        let counts = counts.as_object().into_iter().flatten().filter(|(_, count)| **count != 0);
        for (what, count) in counts {
            print_line(&format!("{node} {what}: {count}"))?;
        }
    }
    for store in
        pipeline["stores"].as_array().into_iter().flatten().filter(|store| store["restoring"] == true)
    {
        print_line(&format!(
            "store {}, partition {}, is being restored: offset {} of {}",
            store["store"].as_str().unwrap_or("-"),
            store["partition"],
            store["next"],
            store["end"]
        ))?;
    }
    print_deliveries(&pipeline)?;
    let mut columns = vec!["topic", "partition", "committed", "end", "lag"];
    if lanes.is_some() {
        columns.push("lane");
    }
    let mut table = Table::new(&columns);
    for task in pipeline["tasks"].as_array().into_iter().flatten() {
        table.row(columns.iter().map(|key| task[*key].clone()).collect());
    }
    table.print(false)
}

/// What it may have, and what it and its plugins have used.
fn print_run(pipeline: &Value) -> anyhow::Result<()> {
    for (node, calls) in pipeline["calls"].as_object().into_iter().flatten() {
        print_line(&calls_text(node, calls))?;
    }
    for (limit, value) in pipeline["limits"].as_object().into_iter().flatten() {
        print_line(&format!(
            "limits.{limit}: {}",
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        ))?;
    }
    for key in ["cpu_ms", "rested_ms", "log_lines_dropped"] {
        if let Some(value) = pipeline[key].as_u64() {
            print_line(&format!("{key}: {value}"))?;
        }
    }
    Ok(())
}

/// What was counted of the calls of a node's plugin since the pipeline started.
fn calls_text(node: &str, calls: &Value) -> String {
    let count = |key: &str| calls[key].as_u64().unwrap_or(0);
    let mean_us = count("took_us").checked_div(count("calls")).unwrap_or(0);
    let mut text = format!(
        "node {node}: {} calls with {} records, {mean_us} us each, {} KiB of memory",
        count("calls"),
        count("records"),
        count("memory_bytes") >> 10
    );
    for (what, key) in [("trapped", "trapped"), ("timed out", "timed_out"), ("failed", "failed")] {
        if count(key) > 0 {
            text.push_str(&format!(", {} {what}", count(key)));
        }
    }
    text
}

/// What plugins that act on the outside have not done, where there is something.
fn print_deliveries(pipeline: &Value) -> anyhow::Result<()> {
    for task in pipeline["tasks"].as_array().into_iter().flatten() {
        let delivery = &task["delivery"];
        let count = |key: &str| delivery[key].as_u64().unwrap_or(0);
        if count("unfinished") == 0 {
            continue;
        }
        print_line(&format!(
            "node {}, partition {}: {} records are not done, of which {} are given now and {} are to be given again; {} behind \
             them are done",
            delivery["node"].as_str().unwrap_or("-"),
            task["partition"],
            count("unfinished"),
            count("given"),
            count("retrying"),
            count("ahead")
        ))?;
    }
    Ok(())
}

/// What helps a pipeline that has failed, at a record or elsewhere.
fn what_to_do(name: &str, at_record: bool) -> String {
    let again = format!("`pelton pipeline resume {name}` tries again");
    if at_record {
        format!(
            "what to do: mend the record's producer or the node and deploy; or say on_error = {{ policy = \"skip\" }} or \
             \"dead-letter\" in the node, and such records are left out; {again}"
        )
    } else {
        format!("what to do: mend what it names; {again}")
    }
}

fn change(http: &HttpClient, name: &str, verb: &str) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/{verb}", segment(name)?);
    let changed: Value = http.post(&path, "application/json", b"")?;
    match changed["state"].as_str() {
        Some(state) => print_line(&format!("pipeline {name} is {}", doing(name, state))),
        None => Ok(()),
    }
}

fn delete(http: &HttpClient, name: &str, own_topics: bool) -> anyhow::Result<()> {
    let query = if own_topics { "?own_topics=true" } else { "" };
    let deleted: Value = http.delete(&format!("/v1/pipelines/{}{query}", segment(name)?))?;
    let list = |key: &str| {
        let topics = deleted[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        topics.collect::<Vec<_>>().join(", ")
    };
    let (group, kept, gone) = (deleted["group"].as_str().unwrap_or("-"), list("kept"), list("deleted"));
    print_line(&if own_topics {
        let gone = if gone.is_empty() { String::new() } else { format!(" and the topics {gone}") };
        format!("pipeline {name} is deleted, with the offsets of group {group}{gone}")
    } else if kept.is_empty() {
        format!(
            "pipeline {name} is deleted; the offsets of group {group} stay, and one of its name goes on with them"
        )
    } else {
        format!(
            "pipeline {name} is deleted; the topics {kept} and the offsets of group {group} stay, and one of its name goes on \
             with them (--own-topics deletes them)"
        )
    })
}

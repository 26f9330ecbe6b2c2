//! `pelton deploy`: validate, build, push, take live.

use super::plugin;
use super::topic::print_line;
use crate::cli;
use crate::client::http::HttpClient;
use crate::report::{usage, warn};
use pelton_streams::Manifest;
use pelton_streams::manifest::PluginRef;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &cli::Deploy) -> anyhow::Result<()> {
    let path = if args.path.is_dir() { args.path.join("pipeline.toml") } else { args.path.clone() };
    let text =
        std::fs::read_to_string(&path).map_err(|error| usage(format!("read {}: {error}", path.display())))?;
    let manifest = Manifest::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let http = HttpClient::new(&args.http);
    let mut plugins = serde_json::Map::new();
    for (node, named) in manifest.plugins() {
        // A directory comes before a plugin that was pushed under the name. The broker refuses a name that was not pushed.
        if let PluginRef::Name(name) = named
            && let Some(dir) = directory(base, name)
        {
            let pushed = plugin::push(&http, &plugin::component(&dir)?)?;
            plugins.insert(node, pushed["digest"].clone());
        }
    }
    let request = json!({ "manifest": text, "plugins": plugins, "dry_run": args.dry_run });
    let deployed: Value = http.post("/v1/pipelines", "application/json", request.to_string().as_bytes())?;
    let text = |key: &str| deployed[key].as_str().unwrap_or_default().to_owned();
    match deployed["revision"].as_u64() {
        Some(revision) => print_line(&format!(
            "pipeline {}, revision {revision}, is live and {}; its offsets are those of group {}",
            text("name"),
            doing(&text("name"), &text("state")),
            text("group")
        )),
        None => print_line(&format!("pipeline {} is valid; nothing was changed", text("name"))),
    }?;
    for store in deployed["stores"].as_array().into_iter().flatten() {
        let text = |key: &str| store[key].as_str().unwrap_or_default();
        print_line(&store_line(text("store"), text("fate"), text("changelog")))?;
    }
    for warning in deployed["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        warn(warning);
    }
    for topic in deployed["repartitions"].as_array().into_iter().flatten() {
        let name = topic["topic"].as_str().unwrap_or_default();
        print_line(&format!(
            "records go through topic {name}, {} partitions, which brings those of a key together",
            topic["partitions"]
        ))?;
    }
    Ok(())
}

/// What becomes of what the pipeline keeps.
fn store_line(store: &str, fate: &str, changelog: &str) -> String {
    match fate {
        "kept" => format!("store {store}: kept, it goes on with what it has"),
        "new" => format!("store {store}: new, it begins with nothing"),
        "dropped" => {
            format!(
                "store {store}: dropped, no node has it any more, and it misses what is read from now on; its changelog stays \
                 ({changelog})"
            )
        }
        other => format!("store {store}: {other}"),
    }
}

/// The state of a pipeline shortly after a change, and where to look if it does not run yet.
pub(super) fn doing(name: &str, state: &str) -> String {
    match state {
        "running" | "paused" => state.to_owned(),
        "starting" => format!("starting (`pelton pipeline describe {name}` says when it runs)"),
        _ => format!("{state} (`pelton pipeline describe {name}` says why)"),
    }
}

/// The plugin directory that a manifest means, if it means one.
fn directory(base: &Path, name: &str) -> Option<PathBuf> {
    let beside = base.join(name);
    beside.join("plugin.toml").is_file().then_some(beside)
}

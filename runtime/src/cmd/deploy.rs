//! `pelton deploy`: validate, build, push, take live.

use super::plugin::{self, Purpose};
use super::topic::print_line;
use crate::cli;
use crate::client::http::HttpClient;
use crate::report::{usage, warn};
use pelton_streams::Manifest;
use pelton_streams::manifest::PluginRef;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &cli::Deploy) -> anyhow::Result<()> {
    let path = if args.path.is_dir() { args.path.join("pipeline.toml") } else { args.path.clone() };
    let text =
        std::fs::read_to_string(&path).map_err(|error| usage(format!("read {}: {error}", path.display())))?;
    let manifest = Manifest::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let http = HttpClient::new(&args.http);
    // What is only tried must not be what the plugin's name means afterwards.
    let purpose = if args.shadow || args.dry_run { Purpose::Trial } else { Purpose::Use };
    let plugins = named_plugins(&http, &manifest, base, purpose)?;
    if args.shadow {
        return shadow(&http, &manifest.name, &text, &plugins, args.from.as_deref());
    }
    let request = json!({ "manifest": text, "plugins": plugins, "dry_run": args.dry_run });
    let deployed: Value = http.post("/v1/pipelines", "application/json", request.to_string().as_bytes())?;
    print_deployed(&deployed)
}

/// Runs a manifest beside the live revision of its pipeline.
fn shadow(
    http: &HttpClient,
    name: &str,
    text: &str,
    plugins: &Map<String, Value>,
    from: Option<&str>,
) -> anyhow::Result<()> {
    let from = from.map(super::replay::place);
    let request = json!({ "manifest": text, "plugins": plugins, "from": from }).to_string();
    let path = format!("/v1/pipelines/{name}/shadow");
    let started: Value = http.post(&path, "application/json", request.as_bytes())?;
    print_line(&format!(
        "a shadow of pipeline {name} runs beside revision {} and writes nothing (`pelton pipeline shadow {name}` says where they \
         differ, with --stop it ends)",
        started["revision"]
    ))?;
    for note in started["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        warn(note);
    }
    Ok(())
}

/// Builds and pushes the plugins that a manifest names by their directories: their digests, by node.
pub(super) fn named_plugins(
    http: &HttpClient,
    manifest: &Manifest,
    base: &Path,
    purpose: Purpose,
) -> anyhow::Result<Map<String, Value>> {
    let mut plugins = Map::new();
    for (node, named) in manifest.plugins() {
        // A directory comes before a plugin that was pushed under the name. The broker refuses a name that was not pushed.
        if let PluginRef::Name(name) = named
            && let Some(dir) = directory(base, name)
        {
            let pushed = plugin::pushed(http, &dir, purpose)?;
            plugins.insert(node, pushed["digest"].clone());
        }
    }
    Ok(plugins)
}

/// What became of a deployment or a rollback, or would become of it.
pub(super) fn print_deployed(deployed: &Value) -> anyhow::Result<()> {
    let text = |key: &str| deployed[key].as_str().unwrap_or_default().to_owned();
    let back = deployed["rolled_back_to"].as_u64();
    let back = back.map(|to| format!(" (revision {to} again)")).unwrap_or_default();
    match deployed["revision"].as_u64() {
        Some(revision) => print_line(&format!(
            "pipeline {}, revision {revision}{back}, is live and {}; its offsets are those of group {}",
            text("name"),
            doing(&text("name"), &text("state")),
            text("group")
        )),
        None => print_line(&format!("pipeline {}{back} is valid; nothing was changed", text("name"))),
    }?;
    for line in change_lines(&deployed["changes"]) {
        print_line(&format!("change of {line}"))?;
    }
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

/// What a revision says differently from another one, a line each.
pub(super) fn change_lines(changes: &Value) -> Vec<String> {
    let list = |key: &str| changes[key].as_array().into_iter().flatten();
    let line = |what: String, change: &Value| {
        let side = |key: &str| change[key].as_str().unwrap_or("nothing").to_owned();
        format!("{what}: {} -> {}", side("before"), side("after"))
    };
    let manifest =
        list("manifest").map(|change| line(change["key"].as_str().unwrap_or("-").to_owned(), change));
    let node = |change: &Value| format!("node {}", change["node"].as_str().unwrap_or("-"));
    manifest.chain(list("plugins").map(|change| line(node(change), change))).collect()
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

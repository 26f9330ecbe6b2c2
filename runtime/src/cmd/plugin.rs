//! `pelton plugin`: new, build, test, inspect, push, list.

use super::table::Table;
use super::topic::{print_json, print_line};
use crate::cli;
use crate::client::http::HttpClient;
use crate::report::{failed, usage};
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pelton_streams::PluginManifest;
use pelton_wasm::toolchain::{self, BuildOptions, Built};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

mod new;
mod test;

pub(crate) fn run(command: &cli::Plugin) -> anyhow::Result<()> {
    match command {
        cli::Plugin::New { dir, world, lang } => new::new(dir, world, lang),
        cli::Plugin::Build { dir, output } => {
            let built = build(dir)?;
            let path = match output {
                Some(path) => path.clone(),
                None => dir.join(format!("{}.wasm", built.manifest.name)),
            };
            write(&path, &built.component)?;
            print_line(&format!("{} {} {} bytes", path.display(), built.digest, built.component.len()))
        }
        cli::Plugin::Test { dir, filter, component, bless } => test::test(&test::Options {
            dir,
            filter: filter.as_deref(),
            component: component.as_deref(),
            bless: *bless,
        }),
        cli::Plugin::Inspect { file, json } => inspect(file, json.json),
        cli::Plugin::Push { path, signature, http } => {
            let component = component(path)?;
            let signature = signature_of(path, signature.as_deref())?;
            print_json(&push(&HttpClient::new(http), &component, signature.as_deref(), Purpose::Use)?)
        }
        cli::Plugin::List { json, http } => list(&HttpClient::new(http), json.json),
    }
}

/// Builds the plugin of a directory.
pub(super) fn build(dir: &Path) -> anyhow::Result<Built> {
    toolchain::build(dir, &BuildOptions::default())
        .map_err(|error| failed(format!("build the plugin in {}: {error}", dir.display())))
}

/// The bytes of a component: a file, or a directory to build.
pub(super) fn component(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.is_dir() {
        return Ok(build(path)?.component);
    }
    std::fs::read(path).map_err(|error| usage(format!("read {}: {error}", path.display())))
}

/// The text of a component's .minisig file: of `file`, else of one that is called as the component, or as what is built in its
/// directory, if there is one.
fn signature_of(path: &Path, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let beside = match path.is_dir() {
        true => std::fs::read_to_string(path.join("plugin.toml"))
            .ok()
            .and_then(|text| PluginManifest::parse(&text).ok())
            .map(|manifest| path.join(format!("{}.wasm", manifest.name))),
        false => Some(path.to_owned()),
    };
    let beside = beside.map(|component| {
        let mut name = component.into_os_string();
        name.push(".minisig");
        PathBuf::from(name)
    });
    let Some(file) = file.map(Path::to_owned).or_else(|| beside.filter(|file| file.exists())) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file);
    text.map(Some).map_err(|error| usage(format!("read {}: {error}", file.display())))
}

/// What a component is pushed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its name means it from now on.
    Use,
    /// Its name means what it meant.
    Trial,
}

/// Gives the component of a file or a directory to the broker.
pub(super) fn pushed(http: &HttpClient, path: &Path, purpose: Purpose) -> anyhow::Result<Value> {
    // Before a build that may take a minute.
    http.token()?;
    push(http, &component(path)?, signature_of(path, None)?.as_deref(), purpose)
}

/// Gives a component to the broker.
fn push(
    http: &HttpClient,
    component: &[u8],
    signature: Option<&str>,
    purpose: Purpose,
) -> anyhow::Result<Value> {
    let signature = signature.map(|text| STANDARD.encode(text));
    let mut headers = vec![("content-type", "application/wasm")];
    headers.extend(signature.as_deref().map(|text| ("pelton-signature", text)));
    let path = match purpose {
        Purpose::Use => "/v1/plugins",
        Purpose::Trial => "/v1/plugins?trial=true",
    };
    http.post_with(path, &headers, component)
}

fn inspect(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let found = pelton_wasm::inspect(&component(path)?)
        .map_err(|error| failed(format!("inspect {}: {error}", path.display())))?;
    let manifest = found.manifest.as_ref();
    let (config, stores) = (config_of(manifest), stores_of(manifest));
    let (answered, imports): (Vec<&str>, Vec<&str>) =
        found.imports.iter().map(String::as_str).partition(|import| pelton_wasm::is_answered(import));
    if as_json {
        return print_json(&json!({
            "digest": found.digest.to_string(),
            "bytes": found.bytes,
            "world": found.world,
            "name": manifest.map(|manifest| &manifest.name),
            "version": manifest.map(|manifest| &manifest.version),
            "imports": imports,
            "answered_by_nothing": answered,
            "exports": found.exports,
            "stores": stores,
            "config": config,
        }));
    }
    print_line(&format!("digest   {}", found.digest))?;
    print_line(&format!("bytes    {}", found.bytes))?;
    print_line(&format!("world    {}", found.world.as_deref().unwrap_or("none that pelton knows")))?;
    if let Some(manifest) = manifest {
        print_line(&format!("plugin   {} {}: {}", manifest.name, manifest.version, manifest.description))?;
    }
    print_line(&format!("imports  {}", list_or_none(&imports)))?;
    if !answered.is_empty() {
        print_line(&format!("         {} (answered by a deterministic nothing)", answered.join(", ")))?;
    }
    print_line(&format!(
        "exports  {}",
        list_or_none(&found.exports.iter().map(String::as_str).collect::<Vec<_>>())
    ))?;
    if !stores.is_empty() {
        let mut table = Table::new(&["store", "kind", "retention_ms", "format", "doc"]);
        for store in stores {
            table.row(
                ["name", "kind", "retention_ms", "format", "doc"].map(|field| store[field].clone()).to_vec(),
            );
        }
        table.print(false)?;
    }
    let mut table = Table::new(&["config", "type", "default", "doc"]);
    for key in config {
        table.row(["name", "type", "default", "doc"].map(|field| key[field].clone()).to_vec());
    }
    table.print(false)
}

/// What a plugin can be configured with.
fn config_of(manifest: Option<&PluginManifest>) -> Vec<Value> {
    let mut config = Vec::new();
    for (name, key) in manifest.iter().flat_map(|manifest| &manifest.config) {
        config.push(json!({
            "name": name,
            "type": format!("{:?}", key.kind).to_lowercase(),
            "default": key.default.as_ref().map(ToString::to_string),
            "doc": key.doc,
        }));
    }
    config
}

/// What it keeps.
fn stores_of(manifest: Option<&PluginManifest>) -> Vec<Value> {
    let mut stores = Vec::new();
    for (name, store) in manifest.iter().flat_map(|manifest| &manifest.stores) {
        let retention = store.retention.map(|kept| kept.ms());
        stores.push(json!({
            "name": name,
            "kind": store.kind.name(),
            "retention_ms": retention,
            "format": store.format,
            "doc": store.doc,
        }));
    }
    stores
}

fn list_or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn list(http: &HttpClient, as_json: bool) -> anyhow::Result<()> {
    let plugins: Vec<Value> = http.get("/v1/plugins")?;
    if as_json {
        return print_json(&Value::Array(plugins));
    }
    let mut table = Table::new(&["name", "version", "world", "bytes", "digest"]);
    for plugin in &plugins {
        table
            .row(["name", "version", "world", "bytes", "digest"].map(|field| plugin[field].clone()).to_vec());
    }
    table.print(false)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

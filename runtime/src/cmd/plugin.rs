//! `pelton plugin`: new, build, inspect, push, list.

use super::table::Table;
use super::topic::{print_json, print_line};
use crate::cli;
use crate::client::http::HttpClient;
use crate::report::{Exit, Failure, failed, usage};
use anyhow::Context;
use include_dir::{Dir, include_dir};
use pelton_streams::Manifest;
use pelton_wasm::toolchain::{self, BuildOptions, Built};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The SDK is part of the binary, so that `plugin new` needs nothing else.
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk");
const SDK_CARGO_TOML: &str = include_str!("../../../sdk/Cargo.toml");
/// Has the versions of the SDK's dependencies.
const WORKSPACE_CARGO_TOML: &str = include_str!("../../../Cargo.toml");

pub(crate) fn run(command: &cli::Plugin) -> anyhow::Result<()> {
    match command {
        cli::Plugin::New { dir, world } => new(dir, world),
        cli::Plugin::Build { dir, output } => {
            let built = build(dir)?;
            let path = match output {
                Some(path) => path.clone(),
                None => dir.join(format!("{}.wasm", built.manifest.name)),
            };
            write(&path, &built.component)?;
            print_line(&format!("{} {} {} bytes", path.display(), built.digest, built.component.len()))
        }
        cli::Plugin::Inspect { file, json } => inspect(file, json.json),
        cli::Plugin::Push { path, http } => {
            let component = component(path)?;
            print_json(&push(&HttpClient::new(http), &component)?)
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

/// Gives a component to the broker.
pub(super) fn push(http: &HttpClient, component: &[u8]) -> anyhow::Result<Value> {
    http.post("/v1/plugins", "application/wasm", component)
}

fn inspect(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let found = pelton_wasm::inspect(&component(path)?)
        .map_err(|error| failed(format!("inspect {}: {error}", path.display())))?;
    let manifest = found.manifest.as_ref();
    let config: Vec<Value> = manifest
        .iter()
        .flat_map(|manifest| &manifest.config)
        .map(|(name, key)| {
            json!({
                "name": name,
                "type": format!("{:?}", key.kind).to_lowercase(),
                "default": key.default.as_ref().map(ToString::to_string),
                "doc": key.doc,
            })
        })
        .collect();
    let stores: Vec<Value> = manifest
        .iter()
        .flat_map(|manifest| &manifest.stores)
        .map(|(name, store)| {
            let retention = store.retention.map(|kept| kept.ms());
            json!({
                "name": name,
                "kind": store.kind.name(),
                "retention_ms": retention,
                "format": store.format,
                "doc": store.doc,
            })
        })
        .collect();
    if as_json {
        return print_json(&json!({
            "digest": found.digest.to_string(),
            "bytes": found.bytes,
            "world": found.world,
            "name": manifest.map(|manifest| &manifest.name),
            "version": manifest.map(|manifest| &manifest.version),
            "imports": found.imports,
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
    print_line(&format!("imports  {}", list_or_none(&found.imports)))?;
    print_line(&format!("exports  {}", list_or_none(&found.exports)))?;
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

fn list_or_none(names: &[String]) -> String {
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

/// What a new plugin of a world is.
struct Template {
    world: &'static str,
    lib: &'static str,
    plugin: &'static str,
    pipeline: &'static str,
}

macro_rules! template {
    ($world:literal) => {
        Template {
            world: $world,
            lib: include_str!(concat!("../template/", $world, "/lib.rs")),
            plugin: include_str!(concat!("../template/", $world, "/plugin.toml")),
            pipeline: include_str!(concat!("../template/", $world, "/pipeline.toml")),
        }
    };
}

const TEMPLATES: [Template; 5] = [
    template!("transform"),
    template!("transform-state"),
    template!("transform-timer"),
    template!("aggregator"),
    template!("partitioner"),
];

fn new(dir: &Path, world: &str) -> anyhow::Result<()> {
    let template = TEMPLATES.iter().find(|template| template.world == world).ok_or_else(|| {
        let known: Vec<&str> = TEMPLATES.iter().map(|template| template.world).collect();
        usage(format!("there is no template for the world `{world}`; known: {}", known.join(", ")))
    })?;
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        return Err(usage(format!(
            "`{name}` is not a name for a plugin: use lower-case letters, digits and -, a letter first"
        )));
    }
    if dir.exists() {
        return Err(Failure::new(Exit::Usage, format!("{} already exists", dir.display()))
            .hint("give another name: `plugin new` overwrites nothing")
            .into());
    }
    let fill = |text: &str| text.replace("{name}", name);
    let files: [(PathBuf, String); 5] = [
        ("Cargo.toml".into(), cargo_toml(name)),
        ("src/lib.rs".into(), template.lib.to_owned()),
        ("plugin.toml".into(), fill(template.plugin)),
        ("pipeline.toml".into(), fill(template.pipeline)),
        ("pelton-sdk/Cargo.toml".into(), sdk_cargo_toml()?),
    ];
    for (path, text) in files {
        write(&dir.join(path), text.as_bytes())?;
    }
    for part in ["src", "wit"] {
        let part = SDK.get_dir(part).context("the binary lacks the SDK")?;
        copy(part, &dir.join("pelton-sdk"))?;
    }
    print_line(&next_steps(&dir.display().to_string(), template.pipeline)?)
}

/// What to do with a new plugin, until something of it is seen.
fn next_steps(dir: &str, pipeline: &str) -> anyhow::Result<String> {
    let manifest = Manifest::parse(&pipeline.replace("{name}", "any")).context("read the template")?;
    let output = manifest.sinks.first().map_or("", |sink| sink.topic.as_str());
    Ok(format!(
        "{dir}: src/lib.rs is the plugin, plugin.toml its description, pipeline.toml where it runs\n\
         next: pelton plugin build {dir}, pelton topic create --if-not-exists words, pelton deploy {dir}\n\
         try it: printf 'a=one\\nb=two\\na=three\\n' | pelton produce words --key-separator =\n        \
         pelton consume {output} --from-beginning --format key-value"
    ))
}

fn copy(dir: &Dir<'_>, to: &Path) -> anyhow::Result<()> {
    for file in dir.files() {
        write(&to.join(file.path()), file.contents())?;
    }
    dir.dirs().try_for_each(|inner| copy(inner, to))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn cargo_toml(name: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n\n\
         [dependencies]\npelton-sdk = {{ path = \"pelton-sdk\" }}\n\n\
         [profile.release]\nlto = true\ncodegen-units = 1\npanic = \"abort\"\nstrip = true\n\n[workspace]\n"
    )
}

/// The SDK's manifest for a copy outside of the workspace: values of the workspace are written out.
fn sdk_cargo_toml() -> anyhow::Result<String> {
    let mut sdk: toml::Table = SDK_CARGO_TOML.parse().context("read the SDK's manifest")?;
    let workspace: toml::Table = WORKSPACE_CARGO_TOML.parse().context("read the workspace's manifest")?;
    let shared = |section: &str| workspace["workspace"][section].as_table().cloned().unwrap_or_default();
    sdk.remove("lints");
    sdk.remove("dev-dependencies");
    for (section, values) in [("package", shared("package")), ("dependencies", shared("dependencies"))] {
        let Some(table) = sdk.get_mut(section).and_then(toml::Value::as_table_mut) else { continue };
        for (name, value) in table.iter_mut() {
            if value.get("workspace").is_some() {
                *value = values.get(name).with_context(|| format!("the workspace has no `{name}`"))?.clone();
            }
        }
    }
    toml::to_string(&sdk).context("write the SDK's manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_plugin_is_whole_and_overwrites_nothing() {
        for Template { world, .. } in TEMPLATES {
            let dir = tempfile::tempdir().unwrap();
            let plugin = dir.path().join("shout");
            new(&plugin, world).unwrap();
            for file in [
                "Cargo.toml",
                "src/lib.rs",
                "plugin.toml",
                "pipeline.toml",
                "pelton-sdk/src/lib.rs",
                "pelton-sdk/wit/records.wit",
            ] {
                assert!(plugin.join(file).is_file(), "{file}");
            }
            let sdk = std::fs::read_to_string(plugin.join("pelton-sdk/Cargo.toml")).unwrap();
            assert!(!sdk.contains("workspace"), "it stands alone: {sdk}");
            assert_eq!(toolchain::read_manifest(&plugin).unwrap().0.world, world);
            let pipeline = std::fs::read_to_string(plugin.join("pipeline.toml")).unwrap();
            assert_eq!(pelton_streams::Manifest::parse(&pipeline).unwrap().name, "shout");
            assert!(new(&plugin, world).unwrap_err().to_string().contains("already exists"));
            assert!(new(&dir.path().join("Shout!"), world).unwrap_err().to_string().contains("not a name"));
        }
        let unknown = new(Path::new("x"), "consumer").unwrap_err().to_string();
        assert!(unknown.contains("known: transform, transform-state"), "{unknown}");
    }

    #[test]
    fn whoever_makes_a_plugin_is_told_how_to_see_it_work() {
        let outputs = ["words-loud", "words-counted", "words-quiet", "words-longest", "words-by-region"];
        assert_eq!(TEMPLATES.len(), outputs.len());
        for (template, output) in TEMPLATES.iter().zip(outputs) {
            let steps = next_steps("mine", template.pipeline).unwrap();
            assert!(steps.contains("| pelton produce words --key-separator ="), "{steps}");
            assert!(steps.contains(&format!("pelton consume {output} ")), "{steps}");
        }
    }
}

//! `pelton plugin build`: from a plugin's directory to a component, without wasm-tools. Rust and cargo are there, other
//! languages' tools are installed when they are needed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use pelton_streams::plugin_manifest::Lang;
use pelton_streams::{Digest, ManifestError, PluginManifest};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use crate::null_adapter;
use crate::package;

mod kept;
mod languages;
mod tools;

/// The target that Rust plugins are built for: it has no WASI, so `pelton:plugin` is all that they import.
const TARGET: &str = "wasm32-unknown-unknown";

/// The plugin contract, as text by file name.
pub const WIT: [(&str, &str); 3] = [
    ("records.wit", include_str!("../../../../sdk/wit/records.wit")),
    ("capabilities.wit", include_str!("../../../../sdk/wit/capabilities.wit")),
    ("worlds.wit", include_str!("../../../../sdk/wit/worlds.wit")),
];

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory has no `plugin.toml`, or it cannot be read.
    #[error("{} cannot be read: {error}; a plugin is a directory with a plugin.toml and sources", path.display())]
    NoManifest {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The `plugin.toml` is wrong.
    #[error("{}: {error}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ManifestError,
    },
    /// The directory has nothing that tells a language.
    #[error(
        "{} has no Cargo.toml, plugin.py, plugin.js, plugin.ts, plugin.c or go.mod: `[build] lang` in plugin.toml names \
         the language; those that pelton does not know are built with their own tools and the world `{world}` of sdk/wit",
        dir.display()
    )]
    NoLanguage {
        /// The directory.
        dir: PathBuf,
        /// The plugin's world.
        world: String,
    },
    /// The directory has sources of more than one language.
    #[error("{} has {files}: say in plugin.toml which one it is, as in `[build] lang = \"python\"`", dir.display())]
    ManyLanguages {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        files: String,
    },
    /// The file to begin with is not there.
    #[error("{} has no {expected}; `[build] entry` in plugin.toml names another file", dir.display())]
    NoEntry {
        /// The directory.
        dir: PathBuf,
        /// What it should have.
        expected: String,
    },
    /// There is no place for tools.
    #[error("there is no place for tools: set HOME, XDG_CACHE_HOME or PELTON_CACHE")]
    NoCache,
    /// A program is not there.
    #[error("`{}` could not be run: {error}; {hint}", program.display())]
    NoTool {
        /// What was run.
        program: PathBuf,
        /// Why it did not run.
        error: io::Error,
        /// What to do.
        hint: String,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}); {hint}\n{said}")]
    Tool {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
        /// What to do.
        hint: String,
    },
    /// Cargo cannot be run.
    #[error("`{}` could not be run: {error}; install Rust from https://rustup.rs", program.display())]
    NoCargo {
        /// What was run.
        program: PathBuf,
        /// Why it did not run.
        error: io::Error,
    },
    /// Cargo failed; its messages are on standard error.
    #[error("cargo build failed ({status}); if the target is missing: rustup target add {TARGET}")]
    Cargo {
        /// How it ended.
        status: ExitStatus,
    },
    /// The crate has no `cdylib` target.
    #[error("the crate in {} made no .wasm file; its Cargo.toml needs [lib] crate-type = [\"cdylib\"]", dir.display())]
    NoArtifact {
        /// The directory.
        dir: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The module does not fit its world.
    #[error("the module does not fit the world `{world}` of pelton:plugin@0.1.0: {reason}")]
    Componentize {
        /// The world.
        world: String,
        /// What `wit-component` says.
        reason: String,
    },
}

/// A built plugin.
#[derive(Debug, Clone)]
pub struct Built {
    /// The component, with its `plugin.toml` inside.
    pub component: Vec<u8>,
    /// The name of those bytes.
    pub digest: Digest,
    /// The `plugin.toml`.
    pub manifest: PluginManifest,
    /// Where the component was written, beside cargo's output, if cargo built it.
    pub path: Option<PathBuf>,
}

/// Options of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Where cargo puts its output; `None`: as cargo does by itself.
    pub target_dir: Option<PathBuf>,
    /// The cargo to run; `None`: `$CARGO`, else `cargo` of the path.
    pub cargo: Option<PathBuf>,
    /// Whether `Cargo.lock` must be up to date.
    pub locked: bool,
}

/// Reads the `plugin.toml` of a directory.
///
/// # Errors
/// It is not there, or wrong.
pub fn read_manifest(dir: &Path) -> Result<(PluginManifest, String), BuildError> {
    let path = dir.join("plugin.toml");
    let text =
        fs::read_to_string(&path).map_err(|error| BuildError::NoManifest { path: path.clone(), error })?;
    let manifest = PluginManifest::parse(&text).map_err(|error| BuildError::Manifest { path, error })?;
    Ok((manifest, text))
}

/// The language of the plugin in `dir`.
///
/// # Errors
/// There is no `plugin.toml`, or nothing tells the language.
pub fn language(dir: &Path) -> Result<Lang, BuildError> {
    languages::detect(dir, &read_manifest(dir)?.0)
}

/// Builds the plugin in `dir`. Cargo's own messages go to standard error; those of other tools are part of the error.
///
/// # Errors
/// What stopped the build.
pub fn build(dir: &Path, options: &BuildOptions) -> Result<Built, BuildError> {
    let (manifest, text) = read_manifest(dir)?;
    let lang = languages::detect(dir, &manifest)?;
    let io = |error| BuildError::Io { path: std::env::temp_dir(), error };
    let scratch = tempfile::Builder::new().prefix("pelton-plugin-").tempdir().map_err(io)?;
    let sources = languages::Sources { dir, manifest: &manifest, scratch: scratch.path() };
    let component = match lang {
        Lang::Python => sources.python()?,
        Lang::Js => sources.js()?,
        Lang::C => sources.c()?,
        Lang::Go => sources.go()?,
        Lang::Rust => return build_rust(dir, manifest, &text, options),
    };
    let component = package::with_manifest(component, &text);
    Ok(Built { digest: package::digest(&component), component, manifest, path: None })
}

fn build_rust(
    dir: &Path,
    manifest: PluginManifest,
    text: &str,
    options: &BuildOptions,
) -> Result<Built, BuildError> {
    let module = cargo_build(dir, &dir.join("Cargo.toml"), options)?;
    let core = fs::read(&module).map_err(|error| BuildError::Io { path: module.clone(), error })?;
    let component = package::with_manifest(componentize(core, &manifest.world)?, text);
    let path = module.with_file_name(format!("{}.component.wasm", manifest.name));
    fs::write(&path, &component).map_err(|error| BuildError::Io { path: path.clone(), error })?;
    Ok(Built { digest: package::digest(&component), component, manifest, path: Some(path) })
}

/// Turns a core module into a component of a world of `sdk/wit`. A module that describes its own imports and exports,
/// as those of wit-bindgen do, keeps that description. Its calls of WASI are answered inside the component.
///
/// # Errors
/// The module does not fit the world.
pub fn componentize(mut core: Vec<u8>, world: &str) -> Result<Vec<u8>, BuildError> {
    let failed = |reason: String| BuildError::Componentize { world: world.to_owned(), reason };
    let uses = module_uses(&core).map_err(|error| failed(error.to_string()))?;
    if !uses.describes_itself {
        let (resolve, packages) = contract().map_err(&failed)?;
        let id =
            resolve.select_world(&packages, Some(world)).map_err(|error| failed(format!("{error:#}")))?;
        embed_component_metadata(&mut core, &resolve, id, StringEncoding::UTF8)
            .map_err(|error| failed(format!("{error:#}")))?;
    }
    let adapter = null_adapter::module();
    let encode = || {
        let mut encoder = ComponentEncoder::default().validate(true).module(&core)?;
        if uses.wasi {
            encoder = encoder.adapter(null_adapter::MODULE, &adapter)?;
        }
        encoder.encode()
    };
    encode().map_err(|error| failed(format!("{error:#}")))
}

struct Uses {
    describes_itself: bool,
    wasi: bool,
}

fn module_uses(core: &[u8]) -> Result<Uses, wasmparser::BinaryReaderError> {
    let mut uses = Uses { describes_itself: false, wasi: false };
    for payload in wasmparser::Parser::new(0).parse_all(core) {
        match payload? {
            wasmparser::Payload::CustomSection(section) => {
                uses.describes_itself |= section.name().starts_with("component-type");
            }
            wasmparser::Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    uses.wasi |= import?.module == null_adapter::MODULE;
                }
            }
            _ => {}
        }
    }
    Ok(uses)
}

fn contract() -> Result<(Resolve, Vec<wit_parser::PackageId>), String> {
    let mut sources = SourceMap::default();
    for (name, text) in WIT {
        sources.push_str(name, text);
    }
    let mut resolve = Resolve::default();
    let group = sources.parse().map_err(|(_, error)| error.to_string())?;
    let package = resolve.push_group(group).map_err(|error| error.to_string())?;
    Ok((resolve, vec![package]))
}

/// Runs cargo and returns the module that it made for this crate.
fn cargo_build(dir: &Path, crate_manifest: &Path, options: &BuildOptions) -> Result<PathBuf, BuildError> {
    let program = options.cargo.clone().or_else(|| std::env::var_os("CARGO").map(PathBuf::from));
    let program = program.unwrap_or_else(|| PathBuf::from("cargo"));
    let mut command = Command::new(&program);
    command.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    // Absolute, because cargo runs in another directory.
    let crate_manifest = std::path::absolute(crate_manifest).unwrap_or_else(|_| crate_manifest.to_owned());
    command.arg("--manifest-path").arg(&crate_manifest);
    // Where rustup looks for a rust-toolchain.toml, and cargo for its configuration.
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    if options.locked {
        command.arg("--locked");
    }
    if let Some(target_dir) = &options.target_dir {
        let mut argument = OsString::from("--target-dir=");
        argument.push(std::path::absolute(target_dir).unwrap_or_else(|_| target_dir.clone()));
        command.arg(argument);
    }
    let no_cargo = |error| BuildError::NoCargo { program: program.clone(), error };
    let mut child = command.spawn().map_err(no_cargo)?;
    let expected = crate_manifest.canonicalize().unwrap_or_else(|_| crate_manifest.to_owned());
    let messages = child.stdout.take().map(BufReader::new);
    let artifact = messages.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
    let artifact = artifact.filter_map(|line| artifact_of(&line, &expected)).last();
    let status = child.wait().map_err(no_cargo)?;
    if !status.success() {
        return Err(BuildError::Cargo { status });
    }
    artifact.ok_or_else(|| BuildError::NoArtifact { dir: dir.to_owned() })
}

/// The `.wasm` file of a message of cargo, if it is about this crate.
fn artifact_of(line: &str, crate_manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let about = message.get("reason")? == "compiler-artifact"
        && Path::new(message.get("manifest_path")?.as_str()?).canonicalize().ok()? == crate_manifest;
    let files = message.get("filenames")?.as_array()?.iter();
    files
        .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
        .find(|f| about && f.extension() == Some("wasm".as_ref()))
}

#[cfg(test)]
mod tests {
    use pelton_streams::World;
    use wit_parser::{WorldItem, WorldKey};

    use super::*;

    #[test]
    fn the_table_of_worlds_is_the_contract() {
        let (resolve, packages) = contract().expect("parses");
        for world in World::ALL {
            let id = resolve.select_world(&packages, Some(world.name())).expect("is in the contract");
            let names = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| -> Vec<String> {
                let functions = |item: &WorldItem| match item {
                    WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
                    WorldItem::Function(_) => true,
                    WorldItem::Type { .. } => false,
                };
                items
                    .filter(|(_, item)| functions(item))
                    .map(|(key, _)| resolve.name_world_key(key))
                    .collect()
            };
            let spec = world.spec();
            let imports: Vec<String> =
                spec.imports.iter().map(|interface| crate::host::qualified(*interface)).collect();
            assert_eq!(names(&mut resolve.worlds[id].imports.iter()), imports, "what {world} may call");
            assert_eq!(names(&mut resolve.worlds[id].exports.iter()), spec.exports, "what {world} exports");
            // Some language runtimes export a function of this name themselves.
            assert!(
                resolve.worlds[id].exports.keys().all(|key| resolve.name_world_key(key) != "init"),
                "{world}"
            );
        }
    }

    #[test]
    fn messages_of_cargo() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let manifest = dir.path().join("Cargo.toml");
        fs::write(&manifest, "").expect("writes");
        let manifest = manifest.canonicalize().expect("is there");
        let line = |reason: &str, path: &str| {
            serde_json::json!({"reason": reason, "manifest_path": path, "filenames": ["/t/a.rlib", "/t/a.wasm"]})
                .to_string()
        };
        let path = manifest.to_str().expect("is UTF-8");
        assert_eq!(
            artifact_of(&line("compiler-artifact", path), &manifest),
            Some(PathBuf::from("/t/a.wasm"))
        );
        assert_eq!(artifact_of(&line("build-script-executed", path), &manifest), None);
        assert_eq!(artifact_of(&line("compiler-artifact", "/other"), &manifest), None);
        assert_eq!(artifact_of("no json", &manifest), None);
    }
}

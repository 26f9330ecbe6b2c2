//! Which language a plugin is written in, and how the sources of each become a component.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pelton_streams::plugin_manifest::Lang;
use pelton_streams::world::Interface;
use pelton_streams::{PluginManifest, World};

use crate::host::qualified;

use super::kept::Recipe;
use super::tools::{self, COMPONENTIZE_PY, COMPONENTIZE_QJS, GO, ZIG};
use super::{BuildError, WIT, componentize};

/// The files that tell a language.
const MARKS: [(&str, Lang); 6] = [
    ("Cargo.toml", Lang::Rust),
    ("plugin.py", Lang::Python),
    ("plugin.js", Lang::Js),
    ("plugin.ts", Lang::Js),
    ("plugin.c", Lang::C),
    ("go.mod", Lang::Go),
];

/// Comes before a plugin in JavaScript, which is tested in Node.js without it. For each further interface of its world it has the lines
/// of [`js_host`].
const JS_HOST: &str = include_str!("host.js");

/// The first Go that exports functions to WebAssembly (`go:wasmexport`).
const OLDEST_GO: u32 = 24;

/// The language of a plugin: what `plugin.toml` says, else what the files in its directory tell.
pub(super) fn detect(dir: &Path, manifest: &PluginManifest) -> Result<Lang, BuildError> {
    if let Some(lang) = manifest.build.lang {
        return Ok(lang);
    }
    let found: Vec<(&str, Lang)> = MARKS.into_iter().filter(|(file, _)| dir.join(file).is_file()).collect();
    match found.as_slice() {
        [] => Err(BuildError::NoLanguage { dir: dir.to_owned(), world: manifest.world.clone() }),
        [(_, lang), rest @ ..] if rest.iter().all(|(_, other)| other == lang) => Ok(*lang),
        _ => Err(BuildError::ManyLanguages {
            dir: dir.to_owned(),
            files: found.iter().map(|(file, _)| *file).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// A plugin in another language than Rust. Each function gives the component, without its `plugin.toml`.
pub(super) struct Sources<'a> {
    pub(super) dir: &'a Path,
    pub(super) manifest: &'a PluginManifest,
    /// An empty directory for what comes between.
    pub(super) scratch: &'a Path,
}

impl Sources<'_> {
    pub(super) fn python(&self) -> Result<Vec<u8>, BuildError> {
        let entry = self.entry(&["plugin.py"])?;
        let module = Path::new(&entry).file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let mut recipe = Recipe::new(&COMPONENTIZE_PY, &self.manifest.world);
        recipe.add("entry", entry.as_bytes());
        let beside = self.dir.join(&entry);
        let places = [Some(self.dir), beside.parent()].into_iter().flatten().map(Path::to_owned);
        let is_known = places.chain(self.sdk()).all(|place| recipe.add_files(&place));
        let build = || self.python_anew(&entry, module);
        if is_known { recipe.made(build) } else { build() }
    }

    fn python_anew(&self, entry: &str, module: &str) -> Result<Vec<u8>, BuildError> {
        let tool = COMPONENTIZE_PY.install()?;
        let out = self.scratch.join("out.wasm");
        let mut command = Command::new(tool.join("python/bin/componentize-py"));
        command.arg("--wit-path").arg(self.wit()?).args(["--world", &self.manifest.world, "componentize"]);
        let beside = self.dir.join(entry);
        for path in [beside.parent().unwrap_or(self.dir), self.dir] {
            command.arg("--python-path").arg(path);
        }
        if let Some(sdk) = self.sdk() {
            command.arg("--python-path").arg(sdk);
        }
        command.arg(module).arg("--output").arg(&out);
        tools::run(&mut command, "it must define `WitWorld`, as `WitWorld = pelton.export(MyPlugin)` does")?;
        read(&out)
    }

    pub(super) fn js(&self) -> Result<Vec<u8>, BuildError> {
        let plugin = self.dir.join(self.entry(&["plugin.ts", "plugin.js"])?);
        let plugin = std::path::absolute(&plugin).unwrap_or(plugin);
        let tool = COMPONENTIZE_QJS.install()?;
        let [host, entry, bundle, out] =
            ["host.js", "entry.js", "plugin.js", "out.wasm"].map(|file| self.scratch.join(file));
        let plugin = serde_json::Value::from(plugin.to_string_lossy());
        for (path, text) in [
            (&host, js_host(&self.manifest.world)),
            (&entry, format!("import \"./host.js\";\nexport * from {plugin};\n")),
        ] {
            fs::write(path, text).map_err(|error| BuildError::Io { path: path.clone(), error })?;
        }
        let mut esbuild = Command::new(tool.join("node_modules/.bin/esbuild"));
        esbuild.arg(&entry).args(["--bundle", "--format=esm", "--target=es2023", "--log-level=warning"]);
        esbuild.arg("--external:pelton:*").arg(concat_os("--outfile=", &bundle));
        tools::run(&mut esbuild, "see its messages")?;
        let bundled = fs::read(&bundle).map_err(|error| BuildError::Io { path: bundle.clone(), error })?;
        let mut recipe = Recipe::new(&COMPONENTIZE_QJS, &self.manifest.world);
        recipe.add("bundle", &bundled);
        recipe.made(|| self.js_anew(&tool, &bundle, &out))
    }

    fn js_anew(&self, tool: &Path, bundle: &Path, out: &Path) -> Result<Vec<u8>, BuildError> {
        let mut command = Command::new(tool.join("node_modules/.bin/componentize-qjs"));
        command.arg("--wit").arg(self.wit()?).arg("--js").arg(bundle).args(["--world", &self.manifest.world]);
        command.args(["--sync", "--output"]).arg(out);
        tools::run(&mut command, "see its messages")?;
        read(out)
    }

    pub(super) fn c(&self) -> Result<Vec<u8>, BuildError> {
        let tool = ZIG.install()?;
        let sdk = self.sdk().unwrap_or_else(|| self.dir.join("pelton-sdk"));
        let entry = self.dir.join(self.entry(&["plugin.c"])?);
        let mut files = c_files(entry.parent().unwrap_or(self.dir))?;
        // A plugin without the SDK has no such files.
        files.extend(
            ["pelton.c", "component.c", "state.c"]
                .map(|file| sdk.join(file))
                .into_iter()
                .filter(|file| file.is_file()),
        );
        let out = self.scratch.join("core.wasm");
        let mut command = Command::new(tool.join("python/bin/python"));
        command.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-O3", "-s"]);
        // Otherwise 16 MiB, which each instance would begin with.
        command.arg("-Wl,-z,stack-size=1048576");
        command.args(["-Wall", "-Wextra"]).arg(concat_os("-I", &sdk)).args(files).arg("-o").arg(&out);
        command
            .env("ZIG_GLOBAL_CACHE_DIR", tool.join("cache"))
            .env("ZIG_LOCAL_CACHE_DIR", tool.join("cache"));
        command.arg(format!("-DPELTON_WORLD_{}", self.manifest.world.replace('-', "_").to_uppercase()));
        tools::run(&mut command, "see the messages of the compiler")?;
        componentize(read(&out)?, &self.manifest.world)
    }

    pub(super) fn go(&self) -> Result<Vec<u8>, BuildError> {
        let out = self.scratch.join("core.wasm");
        let mut command = Command::new(go_program()?);
        command.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"]);
        command
            .arg(format!("-tags=pelton_{}", self.manifest.world.replace('-', "_")))
            .arg("-o")
            .arg(&out)
            .arg(".");
        command.current_dir(self.dir).envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
        tools::run(&mut command, "see the messages of the compiler")?;
        componentize(read(&out)?, &self.manifest.world)
    }

    /// The file to begin with, from the plugin's directory.
    fn entry(&self, usual: &[&str]) -> Result<String, BuildError> {
        let named = self.manifest.build.entry.clone();
        let found = || usual.iter().find(|file| self.dir.join(file).is_file()).map(|file| (*file).to_owned());
        named.or_else(found).filter(|file| self.dir.join(file).is_file()).ok_or_else(|| BuildError::NoEntry {
            dir: self.dir.to_owned(),
            expected: self.manifest.build.entry.clone().unwrap_or_else(|| usual.join(" or ")),
        })
    }

    fn sdk(&self) -> Option<PathBuf> {
        self.manifest.build.sdk.as_ref().map(|sdk| self.dir.join(sdk))
    }

    /// The contract, as files.
    fn wit(&self) -> Result<PathBuf, BuildError> {
        let wit = self.scratch.join("wit");
        let io = |error| BuildError::Io { path: wit.clone(), error };
        fs::create_dir_all(&wit).map_err(io)?;
        for (name, text) in WIT {
            fs::write(wit.join(name), text).map_err(io)?;
        }
        Ok(wit)
    }
}

/// What a plugin in JavaScript is evaluated behind: the SDK finds the interfaces of the world as `peltonState` and the like.
fn js_host(world: &str) -> String {
    let imports = World::named(world).map_or(&[][..], |world| world.spec().imports);
    let more = imports.iter().filter(|interface| **interface != Interface::Log).map(|interface| {
        let name = interface.name();
        let mut global = name.to_owned();
        global[..1].make_ascii_uppercase();
        format!("import {name} from \"{}\";\nglobalThis.pelton{global} = {name};\n", qualified(*interface))
    });
    std::iter::once(JS_HOST.to_owned()).chain(more).collect()
}

/// The sources of a plugin in C: all in its directory but its tests.
fn c_files(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let io = |error| BuildError::Io { path: dir.to_owned(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.ends_with(".c") && !name.starts_with("test") {
            files.push(path);
        }
    }
    // The same sources in the same order make the same component.
    files.sort();
    Ok(files)
}

/// The machine's own Go, if it is new enough, else one of PyPI.
fn go_program() -> Result<PathBuf, BuildError> {
    let version = Command::new("go").args(["env", "GOVERSION"]).output().ok();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if is_new_enough(&version) { Ok("go".into()) } else { Ok(GO.install()?.join("python/bin/go")) }
}

/// Whether this is a version of Go that can build plugins: `go1.26.8`.
fn is_new_enough(version: &str) -> bool {
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= OLDEST_GO)
}

fn concat_os(option: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(option);
    argument.push(path);
    argument
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|error| BuildError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_named_or_seen() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let path = dir.path();
        let detect = |build: &str| {
            let text = format!("name='p'\nversion='1'\nworld='transform'\n{build}");
            detect(path, &PluginManifest::parse(&text).expect("is valid")).map_err(|error| error.to_string())
        };
        let nothing = detect("").expect_err("there is nothing");
        assert!(
            nothing.contains("no Cargo.toml, plugin.py, plugin.js, plugin.ts, plugin.c or go.mod"),
            "{nothing}"
        );
        for (file, lang) in MARKS {
            fs::write(path.join(file), "").expect("writes");
            assert_eq!(detect(""), Ok(lang), "{file}");
            fs::remove_file(path.join(file)).expect("goes");
        }
        fs::write(path.join("plugin.js"), "").expect("writes");
        fs::write(path.join("plugin.ts"), "").expect("writes");
        assert_eq!(detect(""), Ok(Lang::Js), "two files of one language");
        fs::write(path.join("Cargo.toml"), "").expect("writes");
        let both = detect("").expect_err("which one?");
        assert!(both.contains("Cargo.toml, plugin.js, plugin.ts") && both.contains("[build] lang"), "{both}");
        assert_eq!(detect("build.lang = 'js'"), Ok(Lang::Js));
        assert_eq!(detect("build.lang = 'go'"), Ok(Lang::Go), "what is named is not looked for");
    }

    #[test]
    fn a_plugin_in_javascript_finds_the_interfaces_of_its_world() {
        assert_eq!(js_host("transform"), JS_HOST);
        let timer = js_host("transform-timer");
        for line in [
            "import state from \"pelton:plugin/state@0.1.0\";",
            "globalThis.peltonState = state;",
            "import timers from \"pelton:plugin/timers@0.1.0\";",
            "globalThis.peltonTimers = timers;",
        ] {
            assert!(timer.lines().any(|other| other == line), "{line}: {timer}");
        }
    }

    #[test]
    fn tests_in_c_are_no_part_of_a_plugin() {
        let dir = tempfile::tempdir().expect("makes a directory");
        for file in ["plugin.c", "test_plugin.c", "a.c", "a.h"] {
            fs::write(dir.path().join(file), "").expect("writes");
        }
        assert_eq!(
            c_files(dir.path()).expect("reads"),
            ["a.c", "plugin.c"].map(|file| dir.path().join(file))
        );
    }

    #[test]
    fn versions_of_go() {
        assert!(is_new_enough("go1.24\n") && is_new_enough("go1.26.8"));
        assert!(!is_new_enough("go1.19.8") && !is_new_enough("") && !is_new_enough("devel"));
    }
}

//! `pelton plugin new`: a plugin that builds and passes its own test, in any language that has an SDK.

use super::write;
use crate::cmd::topic::print_line;
use crate::report::{Exit, Failure, usage};
use anyhow::Context;
use include_dir::{Dir, include_dir};
use pelton_streams::plugin_manifest::Lang;
use std::path::{Path, PathBuf};

/// The SDKs are part of the binary, so that `plugin new` needs nothing else.
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk");
const SDK_CARGO_TOML: &str = include_str!("../../../../sdk/Cargo.toml");
/// Has the versions of the SDK's dependencies.
const WORKSPACE_CARGO_TOML: &str = include_str!("../../../../Cargo.toml");

/// What a new plugin of a world is, in Rust.
struct Template {
    world: &'static str,
    lib: &'static str,
    plugin: &'static str,
    pipeline: &'static str,
    /// What `plugin test` gives it, in whichever language it is.
    cases: Option<&'static str>,
    /// The same in other languages.
    others: &'static [Other],
    /// What is to be seen of it, with `{name}` for its name.
    see: &'static str,
}

/// A plugin and its test in a language.
struct Other {
    lang: Lang,
    source: &'static str,
    test: &'static str,
}

macro_rules! text {
    ($world:literal, $file:literal) => {
        include_str!(concat!("../../template/", $world, "/", $file))
    };
}

macro_rules! template {
    ($world:literal) => {
        Template {
            world: $world,
            lib: text!($world, "lib.rs"),
            plugin: text!($world, "plugin.toml"),
            pipeline: text!($world, "pipeline.toml"),
            cases: Some(text!($world, "cases.toml")),
            see: "pelton consume words-{name} --from-beginning --format key-value",
            others: &[
                Other {
                    lang: Lang::Python,
                    source: text!($world, "plugin.py"),
                    test: text!($world, "test_plugin.py"),
                },
                Other {
                    lang: Lang::Js,
                    source: text!($world, "plugin.js"),
                    test: text!($world, "plugin.test.js"),
                },
                Other {
                    lang: Lang::C,
                    source: text!($world, "plugin.c"),
                    test: text!($world, "test_plugin.c"),
                },
                Other {
                    lang: Lang::Go,
                    source: text!($world, "plugin.go"),
                    test: text!($world, "plugin_test.go"),
                },
            ],
        }
    };
}

macro_rules! consumer {
    ($world:literal, $see:literal) => {
        Template {
            world: $world,
            lib: text!($world, "lib.rs"),
            plugin: text!($world, "plugin.toml"),
            pipeline: text!($world, "pipeline.toml"),
            cases: None,
            others: &[],
            see: $see,
        }
    };
}

const TEMPLATES: [Template; 7] = [
    template!("transform"),
    template!("transform-state"),
    template!("transform-timer"),
    template!("aggregator"),
    template!("partitioner"),
    consumer!("consumer", "pelton pipeline logs {name}"),
    consumer!(
        "consumer-http",
        "what it is for is at the `url` of pipeline.toml; pelton pipeline describe {name}"
    ),
];

/// How projects of a language look.
struct Layout {
    lang: Lang,
    source: &'static str,
    test: &'static str,
    /// Other files, by name, with their text.
    files: &'static [(&'static str, &'static str)],
    /// Where the SDK is in `sdk`, which of its files are copied, and to where.
    sdk: (&'static str, &'static [&'static str], &'static str),
    /// Added to `plugin.toml`: what a component of the language needs.
    limits: &'static str,
    /// Runs the test, in the plugin's directory.
    run_test: &'static str,
}

/// A language's runtime starts with some 20 MiB, and a machine that is busy takes its time for a call.
const PYTHON_LIMITS: &str = "\n[limits]\nmemory = \"128 MiB\"\ndeadline_ms = 5000\n";
/// QuickJS does not compile: a call of some thousand records may take a second.
const JS_LIMITS: &str = "\n[limits]\ndeadline_ms = 5000\n";
const PACKAGE_JSON: &str =
    "{\n  \"private\": true,\n  \"type\": \"module\",\n  \"scripts\": { \"test\": \"node --test\" }\n}\n";
const MAKEFILE: &str = "test: test_plugin.c plugin.c\n\t$(CC) -std=c11 -Wall -Wextra -g -Ipelton-sdk -o test_plugin test_plugin.c plugin.c \
     pelton-sdk/pelton.c\n\t./test_plugin\n";
const GO_MOD: &str = "module {name}\n\ngo 1.24\n\nrequire github.com/pelton-io/pelton/sdk/go v0.0.0\n\n\
     replace github.com/pelton-io/pelton/sdk/go => ./pelton-sdk\n";

const LAYOUTS: [Layout; 4] = [
    Layout {
        lang: Lang::Python,
        source: "plugin.py",
        test: "test_plugin.py",
        files: &[(".gitignore", "__pycache__/\n*.wasm\n")],
        sdk: ("python/pelton", &[".py"], "pelton"),
        limits: PYTHON_LIMITS,
        run_test: "python3 -m unittest",
    },
    Layout {
        lang: Lang::Js,
        source: "plugin.js",
        test: "plugin.test.js",
        files: &[("package.json", PACKAGE_JSON), (".gitignore", "*.wasm\n")],
        sdk: ("js", &[".js", ".d.ts", "package.json"], "pelton-sdk"),
        limits: JS_LIMITS,
        run_test: "node --test",
    },
    Layout {
        lang: Lang::C,
        source: "plugin.c",
        test: "test_plugin.c",
        files: &[("Makefile", MAKEFILE), (".gitignore", "test_plugin\n*.wasm\n")],
        sdk: ("c", &[".c", ".h"], "pelton-sdk"),
        limits: "",
        run_test: "make test",
    },
    Layout {
        lang: Lang::Go,
        source: "plugin.go",
        test: "plugin_test.go",
        files: &[("go.mod", GO_MOD), (".gitignore", "*.wasm\n")],
        sdk: ("go", &[".go", "go.mod"], "pelton-sdk"),
        limits: "",
        run_test: "go test",
    },
];

/// Tests of an SDK itself, which no project needs.
const SDK_TESTS: [&str; 6] =
    ["test_sdk.py", "sdk.test.js", "test_sdk.c", "test_worlds.c", "sdk_test.go", "worlds_test.go"];
/// Where the fixture of a new plugin is.
const CASES: &str = "tests/cases.toml";

pub(super) fn new(dir: &Path, world: &str, lang: &str) -> anyhow::Result<()> {
    let template = TEMPLATES.iter().find(|template| template.world == world).ok_or_else(|| {
        let known: Vec<&str> = TEMPLATES.iter().map(|template| template.world).collect();
        usage(format!("there is no template for the world `{world}`; known: {}", known.join(", ")))
    })?;
    let lang = Lang::named(lang).ok_or_else(|| {
        let known: Vec<&str> = Lang::ALL.iter().map(|lang| lang.name()).collect();
        usage(format!("there is no template for the language `{lang}`; known: {}", known.join(", ")))
    })?;
    let files = |name: &str| match LAYOUTS.iter().find(|layout| layout.lang == lang) {
        None => rust(template, name),
        Some(layout) => other(template, layout, name),
    };
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        return Err(usage(format!(
            "`{name}` is not a name for a plugin: use lower-case letters, digits and -, a letter first"
        )));
    }
    let files = files(name)?;
    if dir.exists() {
        return Err(Failure::new(Exit::Usage, format!("{} already exists", dir.display()))
            .hint("give another name: `plugin new` overwrites nothing")
            .into());
    }
    for (path, content) in files {
        write(&dir.join(path), &content)?;
    }
    print_line(&next_steps(&dir.display().to_string(), name, template, lang))
}

type Files = Vec<(PathBuf, Vec<u8>)>;

fn rust(template: &Template, name: &str) -> anyhow::Result<Files> {
    let mut files: Files = vec![
        ("Cargo.toml".into(), cargo_toml(name).into()),
        ("src/lib.rs".into(), template.lib.into()),
        ("plugin.toml".into(), template.plugin.replace("{name}", name).into()),
        ("pipeline.toml".into(), template.pipeline.replace("{name}", name).into()),
        ("pelton-sdk/Cargo.toml".into(), sdk_cargo_toml()?.into()),
    ];
    files.extend(template.cases.map(|cases| (CASES.into(), cases.into())));
    for part in ["src", "wit"] {
        let part = SDK.get_dir(part).context("the binary lacks the SDK")?;
        copy(part, "", &|_| true, Path::new("pelton-sdk"), &mut files)?;
    }
    Ok(files)
}

fn other(template: &Template, layout: &Layout, name: &str) -> anyhow::Result<Files> {
    let other = template.others.iter().find(|other| other.lang == layout.lang);
    let other = other.ok_or_else(|| {
        let (world, lang) = (template.world, layout.lang.name());
        usage(format!("there is no template for the world `{world}` in {lang} yet; there is one in rust"))
    })?;
    let plugin = template.plugin.replace("{name}", name);
    let mut files: Files = vec![
        (layout.source.into(), other.source.into()),
        (layout.test.into(), other.test.into()),
        ("plugin.toml".into(), format!("{plugin}{}", layout.limits).into()),
        ("pipeline.toml".into(), template.pipeline.replace("{name}", name).into()),
    ];
    files.extend(template.cases.map(|cases| (CASES.into(), cases.into())));
    files.extend(layout.files.iter().map(|(file, text)| (file.into(), text.replace("{name}", name).into())));
    let (from, kinds, to) = layout.sdk;
    let wanted = |file: &str| kinds.iter().any(|kind| file.ends_with(kind)) && !SDK_TESTS.contains(&file);
    let part = SDK.get_dir(from).context("the binary lacks the SDK")?;
    copy(part, from, &wanted, Path::new(to), &mut files)?;
    Ok(files)
}

/// Takes the files of a directory of the SDK, from below `from`.
fn copy(
    dir: &Dir<'_>,
    from: &str,
    wanted: &dyn Fn(&str) -> bool,
    to: &Path,
    files: &mut Files,
) -> anyhow::Result<()> {
    for file in dir.files() {
        let path = file.path().strip_prefix(from)?;
        if wanted(&path.file_name().unwrap_or_default().to_string_lossy()) {
            files.push((to.join(path), file.contents().to_vec()));
        }
    }
    dir.dirs().try_for_each(|inner| copy(inner, from, wanted, to, files))
}

/// What to do with a new plugin, until something of it is seen.
fn next_steps(dir: &str, name: &str, template: &Template, lang: Lang) -> String {
    let layout = LAYOUTS.iter().find(|layout| layout.lang == lang);
    let (source, test) =
        layout.map_or(("src/lib.rs", "cargo test"), |layout| (layout.source, layout.run_test));
    let cases = match template.cases {
        Some(_) => format!("its fixtures are {CASES}: pelton plugin test {dir}\n"),
        None => String::new(),
    };
    let see = template.see.replace("{name}", name);
    format!(
        "{dir}: {source} is the plugin, plugin.toml its description, pipeline.toml where it runs; its unit test: {test}\n\
         {cases}\
         next: pelton plugin build {dir}, pelton topic create --if-not-exists words, pelton deploy {dir}\n\
         try it: printf 'a=one\\nb=two\\na=three\\n' | pelton produce words --key-separator =\n        \
         {see}"
    )
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
    use pelton_streams::Manifest;
    use pelton_wasm::toolchain;

    const FILES: [(Lang, &[&str]); 5] = [
        (Lang::Rust, &["Cargo.toml", "src/lib.rs", "pelton-sdk/src/lib.rs", "pelton-sdk/wit/records.wit"]),
        (Lang::Python, &["plugin.py", "test_plugin.py", "pelton/__init__.py", "pelton/testing.py"]),
        (
            Lang::Js,
            &["plugin.js", "plugin.test.js", "package.json", "pelton-sdk/index.js", "pelton-sdk/index.d.ts"],
        ),
        (
            Lang::C,
            &["plugin.c", "test_plugin.c", "Makefile", "pelton-sdk/pelton.h", "pelton-sdk/component.c"],
        ),
        (
            Lang::Go,
            &["plugin.go", "plugin_test.go", "go.mod", "pelton-sdk/go.mod", "pelton-sdk/component.go"],
        ),
    ];

    #[test]
    fn a_new_plugin_is_whole_and_overwrites_nothing() {
        for Template { world, cases, others, .. } in TEMPLATES {
            for (lang, files) in FILES {
                if lang != Lang::Rust && !others.iter().any(|other| other.lang == lang) {
                    let unknown = new(Path::new("x"), world, lang.name()).unwrap_err().to_string();
                    assert!(unknown.contains("there is one in rust"), "{unknown}");
                    continue;
                }
                let dir = tempfile::tempdir().unwrap();
                let plugin = dir.path().join("shout");
                new(&plugin, world, lang.name()).unwrap();
                let cases = cases.map(|_| &CASES);
                for file in files.iter().chain(&["plugin.toml", "pipeline.toml"]).chain(cases) {
                    assert!(plugin.join(file).is_file(), "{lang}: {file}");
                }
                for test in SDK_TESTS {
                    assert!(!plugin.join("pelton-sdk").join(test).exists(), "{test}");
                }
                assert_eq!(toolchain::read_manifest(&plugin).unwrap().0.world, world);
                assert_eq!(toolchain::language(&plugin).unwrap(), lang, "it is seen from the files");
                let pipeline = std::fs::read_to_string(plugin.join("pipeline.toml")).unwrap();
                assert_eq!(pelton_streams::Manifest::parse(&pipeline).unwrap().name, "shout");
                assert!(new(&plugin, world, lang.name()).unwrap_err().to_string().contains("already exists"));
                let odd = new(&dir.path().join("Shout!"), world, lang.name());
                assert!(odd.unwrap_err().to_string().contains("not a name"));
            }
        }
        let unknown = new(Path::new("x"), "producer", "rust").unwrap_err().to_string();
        assert!(unknown.contains("known: transform, transform-state"), "{unknown}");
        let unknown = new(Path::new("x"), "transform", "cobol").unwrap_err().to_string();
        assert!(unknown.contains("known: rust, python, js, c, go"), "{unknown}");
    }

    #[test]
    fn the_rust_sdk_stands_alone() {
        let sdk = sdk_cargo_toml().unwrap();
        assert!(!sdk.contains("workspace"), "{sdk}");
    }

    #[test]
    fn whoever_makes_a_plugin_is_told_how_to_see_it_work() {
        for template in TEMPLATES {
            let steps = next_steps("dir/mine", "mine", &template, Lang::Go);
            assert!(steps.contains("plugin.go is the plugin") && steps.contains("go test"), "{steps}");
            assert!(steps.contains("| pelton produce words --key-separator ="), "{steps}");
            let manifest = Manifest::parse(&template.pipeline.replace("{name}", "mine")).unwrap();
            let Some(sink) = manifest.sinks.first() else { continue };
            assert!(steps.contains(&format!("pelton consume {} ", sink.topic)), "{steps}");
        }
    }
}

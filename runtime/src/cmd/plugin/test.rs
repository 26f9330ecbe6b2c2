//! `pelton plugin test`: a plugin is given what fixtures say, and what comes of it is compared with what they say. The component runs
//! as in the broker, without one: nothing is listened to, written to disk or read from a clock.

use std::path::{Path, PathBuf};

use pelton_streams::world::Place;
use pelton_streams::{PluginFactory, PluginInfo, World};
use pelton_wasm::{Engine, EngineConfig, toolchain};

use super::build;
use crate::cmd::topic::print_line;
use crate::report::{Exit, Failure, failed, usage};
use fixture::{Case, Fixture, MAX_BYTES};
use judge::{bless, differences, edited};
use run::{Component, output_names};

mod fixture;
mod fold;
mod judge;
mod row;
mod run;

/// Where the fixtures of a plugin are, from its directory.
const FIXTURES: &str = "tests";

/// What is tested, and how.
pub(super) struct Options<'a> {
    /// The directory of the plugin.
    pub(super) dir: &'a Path,
    /// Cases whose name has this in it; all, if it is not given.
    pub(super) filter: Option<&'a str>,
    /// A component that was built already.
    pub(super) component: Option<&'a Path>,
    /// Write what came into the fixtures.
    pub(super) bless: bool,
}

/// A file with cases.
struct File {
    path: PathBuf,
    text: String,
    fixture: Fixture,
}

pub(super) fn test(options: &Options<'_>) -> anyhow::Result<()> {
    // What it says of itself, before it is built: what is wrong with that is said by who builds it.
    let said = toolchain::read_manifest(options.dir).ok().map(|(manifest, _)| manifest.world);
    let said = World::ALL.into_iter().find(|world| said.as_deref() == Some(world.name()));
    said.map_or(Ok(()), has_fixtures)?;
    let files = read_all(options.dir)?;
    let bytes = match options.component {
        Some(path) => {
            std::fs::read(path).map_err(|error| usage(format!("read {}: {error}", path.display())))?
        }
        None => build(options.dir)?.component,
    };
    let engine = Engine::new(EngineConfig::default()).map_err(|error| failed(error.to_string()))?;
    let info = engine
        .load(&pelton_wasm::digest(&bytes), &bytes)
        .map_err(|error| failed(format!("load the component: {error}")))?;
    has_fixtures(info.world)?;
    let (mut passed, mut wrong) = (0, 0);
    for file in files {
        let (good, bad) = test_file(&engine, &info, file, options)?;
        (passed, wrong) = (passed + good, wrong + bad);
    }
    match (passed, wrong) {
        (0, 0) => Err(usage(format!("no case has `{}` in its name", options.filter.unwrap_or_default()))),
        (_, 0) => print_line(&format!("{passed} passed")),
        (_, _) if options.bless => print_line(&format!("{passed} passed, {wrong} written anew")),
        (_, _) => Err(Failure::new(Exit::Failed, format!("{wrong} of {} cases failed", passed + wrong))
            .hint("if what came is right, --bless writes it into the fixtures")
            .into()),
    }
}

/// Whether there are fixtures for plugins of a world: what acts on the outside has none, for they have no outside.
fn has_fixtures(world: World) -> anyhow::Result<()> {
    if world.spec().place != Place::End {
        return Ok(());
    }
    let text =
        format!("plugins of the world `{world}` act on the outside, and cannot be tested with fixtures");
    Err(Failure::new(Exit::Usage, text)
        .hint("run its logic in a unit test, with `testing::consume` or `testing::consume_http` of the SDK")
        .into())
}

/// The fixtures of a plugin, in the order of their names.
fn read_all(dir: &Path) -> anyhow::Result<Vec<File>> {
    let tests = dir.join(FIXTURES);
    let none = |why: String| {
        Failure::new(Exit::Usage, why)
            .hint("a fixture is a .toml file there: see sdk/TESTING.md, or one of `plugin new`")
    };
    let entries =
        std::fs::read_dir(&tests).map_err(|error| none(format!("read {}: {error}", tests.display())))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| usage(format!("read {}: {error}", tests.display())))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(none(format!("there are no fixtures in {}", tests.display())).into());
    }
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(&path).map_err(|error| usage(format!("read {}: {error}", path.display())))?;
    if text.len() > MAX_BYTES {
        return Err(usage(format!("{} has {} bytes, and may have {MAX_BYTES}", path.display(), text.len())));
    }
    let fixture = Fixture::parse(&text).map_err(|wrong| usage(format!("{}: {wrong}", path.display())))?;
    Ok(File { path, text, fixture })
}

/// How many cases of a file passed, and how many did not.
fn test_file(
    engine: &Engine,
    info: &PluginInfo,
    File { path, text, fixture }: File,
    options: &Options<'_>,
) -> anyhow::Result<(usize, usize)> {
    let stores = fixture.stores.clone();
    let named = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let cases = fixture.cases(info.world).map_err(|wrong| usage(format!("{}: {wrong}", path.display())))?;
    let (component, outputs) = (Component { engine, info: info.clone() }, output_names(info));
    let mut edits = Vec::new();
    let (mut passed, mut wrong) = (0, 0);
    let wanted = |case: &Case| options.filter.is_none_or(|filter| case.name.contains(filter));
    for case in cases.iter().filter(|case| wanted(case)) {
        let came = component
            .run(case, &stores)
            .map_err(|error| usage(format!("{}: case `{}`: {error}", path.display(), case.name)))?;
        let lines = differences(case, &came, &outputs);
        if lines.is_empty() {
            passed += 1;
            print_line(&format!("ok      {named}: {}", case.name))?;
            continue;
        }
        wrong += 1;
        let word = if options.bless { "written" } else { "FAILED " };
        print_line(&format!("{word} {named}: {}", case.name))?;
        lines.iter().try_for_each(|line| print_line(&format!("          {line}")))?;
        if options.bless {
            edits.extend(bless(&text, case, &came, &outputs));
        }
    }
    if !edits.is_empty() {
        let blessed = edited(&text, edits);
        // A file that was one before is not left as none.
        Fixture::parse(&blessed).map_err(|wrong| {
            failed(format!(
                "{} would not be a fixture any more: {wrong}; write its cases as [[case]]",
                path.display()
            ))
        })?;
        super::write(&path, blessed.as_bytes())?;
    }
    Ok((passed, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_the_outside_is_refused_by_name() {
        for world in World::ALL {
            let refused = has_fixtures(world).err().map(|error| error.to_string());
            let is_consumer = matches!(world, World::Consumer | World::ConsumerHttp);
            assert_eq!(refused.is_some(), is_consumer, "{world}");
            assert!(refused.is_none_or(|text| text.contains(&format!("`{world}`"))));
        }
        // Before it is built.
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = 'x'\nversion = '1'\nworld = 'consumer-http'\n";
        std::fs::write(dir.path().join("plugin.toml"), manifest).unwrap();
        let options = Options { dir: dir.path(), filter: None, component: None, bless: false };
        let refused = test(&options).unwrap_err().to_string();
        assert!(refused.contains("the world `consumer-http`"), "{refused}");
    }
}

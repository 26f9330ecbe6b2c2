//! The same plugins in each language emit the same records, and what `plugin new` makes in each builds and passes its own
//! test. The tools of the languages are installed by `pelton plugin build` itself.

use crate::lab::{Lab, guest, path, until_committed};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, read_all};
use pelton_tests::settings;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::{Path, PathBuf};
use std::process::Command;

const LANGUAGES: [&str; 5] = ["rust", "python", "js", "c", "go"];
const PLUGINS: [&str; 3] = ["csv-json", "mask", "region"];
/// What `plugin new` makes of the world `transform-state`: it counts the records of each key. No other package of the tests is called so:
/// where two share a target directory, cargo takes the module of one for that of the other.
const COUNT: &str = "count-words";
/// Enough for several batches, of which a language with a garbage collector makes some garbage.
const ROUNDS: usize = 6_000;

/// Where a plugin is in a language.
fn plugin(lang: &str, name: &str) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    if lang == "rust" { plugins.join(name) } else { plugins.join("languages").join(lang).join(name) }
}

/// One record of the input: a key, a value, and whether it is internal.
type Given = (Option<String>, Option<String>, Option<&'static str>);

/// Lines and cards: null, empty, other alphabets, what JSON escapes, and lines that do not fit.
fn input() -> Vec<Given> {
    let region = |i: usize| ["eu", "us", "asia", ""][i % 4];
    let record = |i: usize| -> [Given; 6] {
        let key = Some(format!("{}-{}", region(i), i % 37));
        [
            (key.clone(), Some(format!("{i};Zoë \"Ω\" \\;1234-5678-{i:04}")), None),
            (key.clone(), Some(format!("{i};a\tb\u{1}c;card 4000 1234 5678 {i:04} 😀")), Some("false")),
            (key.clone(), Some(format!("{i};no fit 99887766")), None),
            (key.clone(), Some(format!("{i};secret;12345678")), Some("true")),
            (key.clone(), i.is_multiple_of(2).then(String::new), None),
            ((!i.is_multiple_of(3)).then_some(key).flatten(), Some(";;".to_owned()), Some("")),
        ]
    };
    (0..ROUNDS).flat_map(record).collect()
}

fn send(bootstrap: &str, given: &[Given]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("message.timeout.ms", "20000").create()?;
    for (i, (key, value, internal)) in given.iter().enumerate() {
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to("in").partition(0).timestamp(1_000_000 + i as i64);
        (record.key, record.payload) = (key.as_deref(), value.as_deref());
        if let Some(internal) = internal {
            let headers = OwnedHeaders::new().insert(Header { key: "internal", value: Some(*internal) });
            record = record.headers(headers.insert(Header { key: "ä", value: Some("ö") }));
        }
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

/// The pipelines of a language.
const PIPELINES: [&str; 3] = ["json", "mask", "count"];

/// Pipelines of what was pushed last under each name: lines as JSON, masked values that a plugin places, and counts.
fn manifests(lang: &str) -> [String; 3] {
    let begin = |name: &str| {
        format!(
            "name = \"{name}-{lang}\"\n\n[[source]]\nid = \"in\"\ntopic = \"in\"\nstart = \"earliest\"\n\n"
        )
    };
    let json = "[[node]]\nid = \"json\"\nfrom = \"in\"\nplugin = \"csv-json\"\n\
                config = { columns = \"id,na\\\"me,card\", separator = \";\" }\non_error = { policy = \"skip\" }\n\n\
                [[sink]]\nfrom = \"json\"\n";
    let mask = "[[node]]\nid = \"mask\"\nfrom = \"in\"\nplugin = \"mask\"\n\n[[sink]]\nfrom = \"mask\"\n\
                partitioner = \"region\"\nconfig = { regions = \"eu, us\" }\n";
    let count = "[[node]]\nid = \"count\"\nfrom = \"in\"\nplugin = \"count-words\"\non_error = { policy = \"skip\" }\n\n\
                 [[sink]]\nfrom = \"count\"\n";
    [("json", json), ("mask", mask), ("count", count)]
        .map(|(name, rest)| format!("{}{rest}topic = \"{name}-{lang}\"\n", begin(name)))
}

/// The components of a language. What is new passes its fixtures; Python, which takes its time, in the long run.
fn build(lab: &Lab, cli: &Cli, lang: &str) -> Result<Vec<String>> {
    let component = |name: &str, dir: &Path| {
        let file = lab.dir.join(format!("{name}-{lang}.wasm"));
        cli.ok(&["plugin", "build", path(dir), "--output", path(&file)])?;
        Ok(path(&file).to_owned())
    };
    let known = PLUGINS.iter().map(|name| component(name, &plugin(lang, name)));
    let mut components = known.collect::<Result<Vec<String>>>()?;
    let new = lab.dir.join(lang).join(COUNT);
    cli.ok(&["plugin", "new", path(&new), "--lang", lang, "--world", "transform-state"])?;
    let count = component(COUNT, &new)?;
    if lang != "python" {
        cli.ok(&["plugin", "test", path(&new), "--component", &count])?;
    }
    components.push(count);
    Ok(components)
}

/// What a language's plugins made of the input.
fn outputs(lab: &Lab, bootstrap: &str, cli: &Cli, lang: &str, given: usize) -> Result<[Vec<Read>; 3]> {
    create_topic(bootstrap, &format!("json-{lang}"), 1, &[])?;
    create_topic(bootstrap, &format!("mask-{lang}"), 7, &[])?;
    create_topic(bootstrap, &format!("count-{lang}"), 1, &[])?;
    for (name, manifest) in PIPELINES.iter().zip(manifests(lang)) {
        cli.ok(&["deploy", &lab.write(&format!("{name}-{lang}.toml"), manifest)?])?;
    }
    until_committed(cli, &format!("json-{lang}"), &[given as i64])?;
    until_committed(cli, &format!("count-{lang}"), &[given as i64])?;
    let described = until_committed(cli, &format!("mask-{lang}"), &[given as i64])?;
    // A call that failed was made again in parts, so its records are there all the same.
    ensure!(described["totals"]["failed_calls"] == 0, "{lang}: {described}");
    let [json, mask, count] = PIPELINES.map(|name| read_all(bootstrap, &format!("{name}-{lang}")));
    // Offsets have holes where transactions ended, which differ from run to run.
    let plain = |mut records: Vec<Read>| -> Vec<Read> {
        records.sort_by_key(|record| (record.partition, record.offset));
        records.into_iter().map(|record| Read { offset: 0, ..record }).collect()
    };
    Ok([plain(json?), plain(mask?), plain(count?)])
}

/// Each language's plugins emit what those in Rust emit.
pub(crate) fn agree(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    create_topic(&broker.address, "in", 1, &[])?;
    let given = input();
    send(&broker.address, &given)?;
    let components = std::thread::scope(|threads| {
        let building = LANGUAGES.map(|lang| {
            let cli = &cli;
            threads.spawn(move || build(lab, cli, lang))
        });
        building.map(|thread| thread.join().unwrap_or_else(|_| bail!("the thread panicked")))
    });
    let outputs = |lang: &str, components: Result<Vec<String>>| {
        for component in components? {
            cli.ok(&["plugin", "push", &component])?;
        }
        outputs(lab, &broker.address, &cli, lang, given.len())
    };
    let mut each = LANGUAGES.into_iter().zip(components);
    let (first, components) = each.next().context("there is a language")?;
    let [json, mask, count] = outputs(first, components)?;
    // Of each round a line does not fit, and one record is internal.
    ensure!(json.len() == ROUNDS * 4 + ROUNDS / 2, "{} objects", json.len());
    ensure!(mask.len() == ROUNDS * 5, "{} masked", mask.len());
    ensure!(
        mask.iter().any(|r| r.value.contains("***-") && r.headers.iter().any(|(name, _)| name == "masked")),
        "{:?}",
        mask[0]
    );
    ensure!(json.iter().any(|r| r.value.contains("\\u0009b\\u0001c")), "{:?}", json[0]);
    // Of each three rounds one record has no key.
    ensure!(count.len() == given.iter().filter(|(key, ..)| key.is_some()).count(), "{} counts", count.len());
    let most = count.iter().filter_map(|record| record.value.parse::<usize>().ok()).max();
    ensure!(most.is_some_and(|most| most > ROUNDS / 37), "{most:?} records of a key");
    for (lang, components) in each {
        let [other_json, other_mask, other_count] = outputs(lang, components)?;
        for (wanted, got) in [(&json, other_json), (&mask, other_mask), (&count, other_count)] {
            let differs = wanted.iter().zip(&got).find(|(wanted, got)| wanted != got);
            ensure!(differs.is_none(), "{lang}: {differs:?}");
            ensure!(wanted.len() == got.len(), "{lang}: {} records, not {}", got.len(), wanted.len());
        }
    }
    broker.stop()?;
    Ok(format!("{} records through {} languages", given.len(), LANGUAGES.len()))
}

fn ran(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said =
        [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat();
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(said)
}

/// Worlds of each language that are built in the normal run; the others are with `PELTON_LANGUAGES=all`. `agree` builds the others,
/// but for timers, which guests call in each language.
const BUILT: [(&str, &[&str]); 4] = [
    ("python", &[]),
    ("js", &["aggregator"]),
    ("c", &["transform", "transform-state", "transform-timer", "aggregator", "partitioner"]),
    ("go", &["aggregator"]),
];
const WORLDS: [&str; 5] = ["transform", "transform-state", "transform-timer", "aggregator", "partitioner"];

/// A new plugin of each language and world passes its unit test, and its component the same fixtures.
pub(crate) fn new_plugins(lab: &Lab) -> Result<String> {
    let all = settings::from_env("PELTON_LANGUAGES", String::new())? == "all";
    std::thread::scope(|threads| {
        let testing = BUILT.map(|(lang, built)| {
            threads.spawn(move || {
                each_function(lab, lang)?;
                WORLDS.iter().try_for_each(|world| new_plugin(lab, lang, world, all || built.contains(world)))
            })
        });
        testing
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("the thread panicked")))
    })?;
    Ok(BUILT.map(|(lang, built)| format!("{lang} ({} built)", if all { 5 } else { built.len() })).join(", "))
}

/// A guest that calls each function of stores and timers once says the same in each language.
fn each_function(lab: &Lab, lang: &str) -> Result<()> {
    let said = ran(Command::new(&lab.binary).args(["plugin", "test"]).arg(guest("stores").join(lang)))?;
    ensure!(said.contains("3 passed"), "{lang}: {said}");
    Ok(())
}

fn new_plugin(lab: &Lab, lang: &str, world: &str, is_built: bool) -> Result<()> {
    let (test, passed): (&[&str], &str) = match lang {
        "python" => (&["python3", "-m", "unittest"], "OK"),
        "js" => (&["node", "--test", "--test-reporter=tap"], "# fail 0"),
        "c" => (&["make", "test"], "ok"),
        _ => (&["go", "test"], "ok"),
    };
    let dir = lab.dir.join(format!("new-{lang}-{world}"));
    ran(Command::new(&lab.binary).args(["plugin", "new", path(&dir), "--world", world, "--lang", lang]))?;
    let said = ran(Command::new(test[0]).args(&test[1..]).current_dir(&dir))?;
    ensure!(said.lines().any(|line| line.starts_with(passed)), "{lang}, {world}: {said}");
    if !is_built {
        return Ok(());
    }
    let component = dir.join("new.wasm");
    ran(Command::new(&lab.binary).args(["plugin", "build"]).arg(&dir).arg("--output").arg(&component))?;
    let seen = ran(Command::new(&lab.binary).args(["plugin", "inspect"]).arg(&component))?;
    ensure!(seen.lines().any(|line| line.split_whitespace().eq(["world", world])), "{seen}");
    let mut tested = Command::new(&lab.binary);
    tested.args(["plugin", "test"]).arg(&dir).arg("--component").arg(&component);
    let said = ran(&mut tested)?;
    ensure!(said.contains("passed"), "{lang}, {world}: {said}");
    Ok(())
}

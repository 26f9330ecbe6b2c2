//! The same plugins in each language emit the same records, and what `plugin new` makes in each builds and passes its own
//! test. The tools of the languages are installed by `pelton plugin build` itself.

use crate::lab::{Lab, path, until_committed};
use anyhow::{Context, Result, bail, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, Read, read_all};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::{Path, PathBuf};
use std::process::Command;

const LANGUAGES: [&str; 5] = ["rust", "python", "js", "c", "go"];
const PLUGINS: [&str; 3] = ["csv-json", "mask", "region"];
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

/// Two pipelines of what was pushed last under each name: lines as JSON, and masked values that a plugin places.
fn manifests(lang: &str) -> [String; 2] {
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
    [("json", json), ("mask", mask)]
        .map(|(name, rest)| format!("{}{rest}topic = \"{name}-{lang}\"\n", begin(name)))
}

/// The components of a language.
fn build(lab: &Lab, cli: &Cli, lang: &str) -> Result<Vec<String>> {
    let component = |name: &&str| {
        let file = lab.dir.join(format!("{name}-{lang}.wasm"));
        cli.ok(&["plugin", "build", path(&plugin(lang, name)), "--output", path(&file)])?;
        Ok(path(&file).to_owned())
    };
    PLUGINS.iter().map(component).collect()
}

/// What a language's plugins made of the input.
fn outputs(lab: &Lab, bootstrap: &str, cli: &Cli, lang: &str, given: usize) -> Result<[Vec<Read>; 2]> {
    create_topic(bootstrap, &format!("json-{lang}"), 1, &[])?;
    create_topic(bootstrap, &format!("mask-{lang}"), 7, &[])?;
    for (name, manifest) in ["json", "mask"].iter().zip(manifests(lang)) {
        cli.ok(&["deploy", &lab.write(&format!("{name}-{lang}.toml"), manifest)?])?;
    }
    until_committed(cli, &format!("json-{lang}"), &[given as i64])?;
    let described = until_committed(cli, &format!("mask-{lang}"), &[given as i64])?;
    // A call that failed was made again in parts, so its records are there all the same.
    ensure!(described["totals"]["failed_calls"] == 0, "{lang}: {described}");
    let [json, mask] = ["json", "mask"].map(|name| read_all(bootstrap, &format!("{name}-{lang}")));
    // Offsets have holes where transactions ended, which differ from run to run.
    let plain = |mut records: Vec<Read>| -> Vec<Read> {
        records.sort_by_key(|record| (record.partition, record.offset));
        records.into_iter().map(|record| Read { offset: 0, ..record }).collect()
    };
    Ok([plain(json?), plain(mask?)])
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
    let [json, mask] = outputs(first, components)?;
    // Of each round a line does not fit, and one record is internal.
    ensure!(json.len() == ROUNDS * 4 + ROUNDS / 2, "{} objects", json.len());
    ensure!(mask.len() == ROUNDS * 5, "{} masked", mask.len());
    ensure!(
        mask.iter().any(|r| r.value.contains("***-") && r.headers.iter().any(|(name, _)| name == "masked")),
        "{:?}",
        mask[0]
    );
    ensure!(json.iter().any(|r| r.value.contains("\\u0009b\\u0001c")), "{:?}", json[0]);
    for (lang, components) in each {
        let [other_json, other_mask] = outputs(lang, components)?;
        for (wanted, got) in [(&json, other_json), (&mask, other_mask)] {
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

/// A new plugin of each language passes its own test, and is of the world that was asked for.
pub(crate) fn new_plugins(lab: &Lab) -> Result<String> {
    let tests: [(&str, &[&str], &str); 4] = [
        ("python", &["python3", "-m", "unittest"], "OK"),
        ("js", &["node", "--test", "--test-reporter=tap"], "# fail 0"),
        ("c", &["make", "test"], "ok"),
        ("go", &["go", "test"], "ok"),
    ];
    for (lang, test, passed) in tests {
        for world in ["transform", "partitioner"] {
            let dir = lab.dir.join(format!("new-{lang}-{world}"));
            ran(Command::new(&lab.binary).args([
                "plugin",
                "new",
                path(&dir),
                "--world",
                world,
                "--lang",
                lang,
            ]))?;
            let said = ran(Command::new(test[0]).args(&test[1..]).current_dir(&dir))?;
            ensure!(said.lines().any(|line| line.starts_with(passed)), "{lang}, {world}: {said}");
            if lang == "python" && world == "partitioner" {
                // It takes its time, and differs from the transform by a function.
                continue;
            }
            let seen = ran(Command::new(&lab.binary).args(["plugin", "inspect"]).arg(&dir))?;
            ensure!(seen.lines().any(|line| line.split_whitespace().eq(["world", world])), "{seen}");
        }
    }
    Ok("python, js, c, go".to_owned())
}

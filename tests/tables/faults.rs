//! Faults of the disk that stores are on: it is full, files of it are damaged, lost, or cannot be read. What is wrong is
//! said, nothing wrong is answered, and tables and pipelines come right again: by themselves, or when there is room.

use crate::lab::{Lab, Rows, compacted, put, replay, until_fresh, until_same};
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::disk::{self, Disk};
use pelton_tests::guest;
use pelton_tests::load::create_topic;
use pelton_tests::records::{LIMIT, committed, read_all, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Size of the disk of stores; its image is sparse.
const DISK_BYTES: u64 = 256 << 20;
/// Bytes of a value: what is written does not fit a buffer, and does not compress.
const VALUE_BYTES: usize = 2_000;
/// The table's topic, and one that a pipeline counts by key.
const TOPICS: [&str; 2] = ["t", "events"];
const MANIFEST: &str = "name = \"counts\"\n[[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"by-key\"\nfrom = \"in\"\naggregate = { n = \"count\", seen = \"distinct:raw\" }\n\
    [[sink]]\nfrom = \"by-key\"\ntopic = \"counts\"\n";

/// The same by a plugin, in a store of its own, with windows and timers beside it.
const KEPT: &str = "name = \"kept\"\n[[source]]\nid = \"in\"\ntopic = \"events\"\n\
    [[node]]\nid = \"keeps\"\nfrom = \"in\"\nplugin = \"keeper\"\n\
    [[sink]]\nfrom = \"keeps\"\ntopic = \"kept\"\n";

/// A table and a pipeline whose stores are in a directory of their own.
struct Place<'l> {
    lab: &'l Lab,
    start: Start,
    broker: Broker,
    cli: Cli,
    state: PathBuf,
    random: StdRng,
    /// Those that count the records of `events`, into topics of their names.
    pipelines: Vec<&'static str>,
}

impl<'l> Place<'l> {
    fn new(lab: &'l Lab, state: PathBuf) -> Result<Place<'l>> {
        let start = Start::new(&lab.binary, &lab.dir.join("data"), &lab.log()).with_http();
        let start = start.set("pelton.state.flush.interval.ms", 100).set("pelton.state.dir", state.display());
        let mut start = start.set("pelton.state.write.buffer.bytes", 1 << 20);
        let broker = start.start()?;
        let cli = lab.cli(&broker)?;
        compacted(&broker, TOPICS[0], 1)?;
        create_topic(&broker.address, TOPICS[1], 1, &[])?;
        cli.ok(&["table", "create", "t", "--topic", TOPICS[0]])?;
        let manifest = lab.dir.join("counts.toml");
        std::fs::write(&manifest, MANIFEST)?;
        cli.ok(&["deploy", manifest.to_str().unwrap_or_default()])?;
        let (random, pipelines) = (StdRng::seed_from_u64(7), vec!["counts"]);
        Ok(Place { lab, start, broker, cli, state, random, pipelines })
    }

    /// With a pipeline whose plugin keeps something as well.
    fn with_plugin(self) -> Result<Place<'l>> {
        let build_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let keeper = guest::build(&self.lab.binary, "keeper", &build_dir, &self.lab.dir)?;
        self.cli.ok(&["plugin", "push", keeper.to_str().unwrap_or_default()])?;
        let manifest = self.lab.dir.join("kept.toml");
        std::fs::write(&manifest, KEPT)?;
        self.cli.ok(&["deploy", manifest.to_str().unwrap_or_default()])?;
        Ok(Place { pipelines: vec!["counts", "kept"], ..self })
    }

    /// Writes records to both topics.
    fn put(&mut self, records: usize) -> Result<()> {
        let record = |random: &mut StdRng| {
            let digits: String =
                (0..VALUE_BYTES).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect();
            (random.random_range(0..200).to_string(), digits)
        };
        for topic in TOPICS {
            let records: Vec<(String, String)> = (0..records).map(|_| record(&mut self.random)).collect();
            let records: Vec<(&str, Option<&str>)> =
                records.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
            put(&self.broker.address, topic, &records)?;
        }
        Ok(())
    }

    fn restart(self, between: impl FnOnce(&Path) -> Result<()>) -> Result<Place<'l>> {
        let Place { lab, mut start, broker, state, random, pipelines, .. } = self;
        broker.stop()?;
        between(&state)?;
        let broker = start.start()?;
        let cli = lab.cli(&broker)?;
        Ok(Place { lab, start, broker, cli, state, random, pipelines })
    }

    fn table(&self) -> Result<Value> {
        self.cli.json(&["table", "describe", "t", "--json"])
    }

    /// What is answered is right, if anything is.
    fn answers_nothing_wrong(&self) -> Result<()> {
        let expect = replay(&self.broker.address, TOPICS[0], None)?;
        let (key, value) = expect.iter().next().context("no rows")?;
        let answer = self.cli.run(&["table", "get", "t", key])?;
        // Older than the end of the topic it may be, as a topic has all of them.
        let was_written = || -> Result<bool> {
            let all = read_all(&self.broker.address, TOPICS[0])?;
            Ok(all.iter().any(|read| read.key == *key && read.value == answer.stdout.trim_end()))
        };
        ensure!(
            answer.code != 0 || answer.stdout.trim_end() == value || was_written()?,
            "key {key} is {}",
            answer.stdout
        );
        Ok(())
    }

    /// Waits until the table is what its topic says, and everything is counted once.
    fn comes_right(&self) -> Result<()> {
        let address = &self.broker.address;
        let expect: Rows = replay(address, TOPICS[0], None)?;
        until_fresh(&self.cli, "t")?;
        until_same(&self.cli, "t", &expect)?;
        let input = read_all(address, TOPICS[1])?;
        let end = input.len() as i64;
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        input.into_iter().for_each(|read| *wanted.entry(read.key).or_default() += 1);
        for pipeline in &self.pipelines {
            let mut last = Value::Null;
            let counted = until("everything is counted", LIMIT, || {
                last = self.cli.pipeline(pipeline)?;
                Ok((committed(address, &format!("pelton.{pipeline}"), TOPICS[1], 1)? == [end]).then_some(()))
            });
            counted.map_err(|error| error.context(format!("it is {last}")))?;
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for read in read_all(address, pipeline)? {
                let count = counts.entry(read.key.clone()).or_default();
                *count += 1;
                let by_function = format!("{{\"n\":{count},\"seen\":{count}}}");
                ensure!(
                    read.value == by_function || read.value == count.to_string(),
                    "{read:?} is count {count}"
                );
            }
            ensure!(counts == wanted, "{pipeline} counted {counts:?}, and there are {wanted:?}");
        }
        Ok(())
    }
}

/// Writes to a disk until it has no room, however little is asked for. To be repeated: what others remove meanwhile gives room
/// back.
fn fill(mount: &Path) -> Result<PathBuf> {
    let path = mount.join("filler");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
    for size in [1 << 20, 4 << 10, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(path)
}

pub(crate) fn full(lab: &Lab) -> Result<String> {
    if let Some(why) = disk::missing() {
        return Ok(format!("not run: {why};"));
    }
    let disk = Disk::create(&lab.dir, DISK_BYTES)?;
    let mut place = Place::new(lab, disk.mount.join("state"))?.with_plugin()?;
    place.put(500)?;
    place.comes_right()?;
    let filler = fill(&disk.mount)?;
    place.put(4_000)?;
    let mut last = Value::Null;
    // A store that removes files of its own has room for what it writes next, so there is always something to write.
    let said = until("the table says that the disk is full", LIMIT, || {
        fill(&disk.mount)?;
        place.put(100)?;
        last = place.table()?;
        let failure = last["stores"][0]["failure"].as_str().unwrap_or_default();
        Ok(failure.contains("the state directory is full").then_some(()))
    });
    said.map_err(|error| error.context(format!("it is {last}")))?;
    let mut number = 0;
    for pipeline in place.pipelines.clone() {
        let said = until("the pipeline says that the disk is full", LIMIT, || {
            fill(&disk.mount)?;
            // A count takes little room, so it may take some of them.
            number += 1;
            put(&place.broker.address, TOPICS[1], &[("0", Some(&format!("value {number}")))])?;
            last = place.cli.pipeline(pipeline)?;
            let failure = &last["failure"];
            let reason = failure["reason"].as_str().unwrap_or_default();
            let is_said = failure["kind"] == "state" && reason.contains("the state directory is full");
            Ok((is_said && last["state"] == "retrying").then_some(()))
        });
        said.map_err(|error| error.context(format!("{pipeline} is {last}")))?;
    }
    place.answers_nothing_wrong()?;
    // Everybody else goes on.
    place.put(10)?;
    std::fs::remove_file(filler)?;
    place.comes_right()?;
    place.put(100)?;
    place.comes_right()?;
    let rebuilds = place.table()?["totals"]["rebuilds"].as_u64();
    ensure!(rebuilds == Some(0), "a full disk has cost the store: {rebuilds:?}");
    place.broker.stop()?;
    Ok("both went on when there was room;".to_owned())
}

/// The files of all databases whose names begin or end so.
fn files(state: &Path, is: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![state.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|name| is(&name.to_string_lossy())) {
                found.push(path);
            }
        }
    }
    ensure!(found.len() > 1, "{} has no such files: {found:?}", state.display());
    Ok(found)
}

type Spoil = fn(&Path) -> Result<()>;

pub(crate) fn damaged(lab: &Lab) -> Result<String> {
    let spoils: [(&str, Spoil); 4] = [
        ("bytes that are others", |state| {
            for path in files(state, |name| name.ends_with(".sst"))? {
                let mut bytes = std::fs::read(&path)?;
                let middle = bytes.len() / 3;
                bytes[middle] ^= 0xff;
                std::fs::write(&path, bytes)?;
            }
            Ok(())
        }),
        ("files that are gone", |state| {
            files(state, |name| name.ends_with(".sst"))?
                .iter()
                .try_for_each(|path| Ok(std::fs::remove_file(path)?))
        }),
        ("manifests that are gone", |state| {
            let manifests = files(state, |name| name.starts_with("MANIFEST"))?;
            manifests.iter().try_for_each(|path| Ok(std::fs::remove_file(path)?))
        }),
        // Nothing is mapped where a table file would be read, which is an error of the device to who reads.
        ("files that cannot be read", |state| {
            for path in files(state, |name| name.ends_with(".sst"))? {
                std::fs::remove_file(&path)?;
                std::os::unix::fs::symlink("/proc/self/mem", &path)?;
            }
            Ok(())
        }),
    ];
    let mut place = Place::new(lab, lab.dir.join("state"))?;
    place.put(2_000)?;
    place.comes_right()?;
    for (what, spoil) in spoils {
        place = place.restart(spoil).with_context(|| what.to_owned())?;
        place.answers_nothing_wrong().with_context(|| what.to_owned())?;
        place.put(50)?;
        place.comes_right().with_context(|| what.to_owned())?;
        let table = place.table()?;
        ensure!(
            table["totals"]["rebuilds"].as_u64() >= Some(1),
            "{what}: the table was not made again: {table}"
        );
        ensure!(table["stores"][0]["rebuilt"].is_string(), "{what}: it does not say why: {table}");
    }
    place.broker.stop()?;
    Ok(format!("{} kinds of damage;", spoils.len()))
}

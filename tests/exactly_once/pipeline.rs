//! Pipelines beside the load, exactly once: what one of the load's topics has becomes two others, one through a plugin; and
//! two others count the records of each key, which is state, one of them with a plugin: each must have counted each record
//! once, whatever happened.

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::Broker;
use pelton_tests::cli::Cli;
use pelton_tests::exactly_once::load::EVENTS;
use pelton_tests::exactly_once::reader::{read_each, read_on};
use pelton_tests::load::create_topic;
use pelton_tests::records::committed;
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What it makes.
pub(crate) const OUTPUTS: [(&str, u32); 2] = [("piped-left", 4), ("piped-right", 3)];
const GROUP: &str = "pelton.piped";
/// What the counts are written to, and by whom.
const COUNTED: (&str, u32) = ("counted", 2);
const COUNTED_GROUP: &str = "pelton.counted";
/// What a plugin counts in its own stores, and who writes it.
const KEPT: (&str, u32) = ("kept", 2);
const KEPT_GROUP: &str = "pelton.kept";
const KEPT_MANIFEST: &str = "\
name = \"kept\"

[[source]]
id = \"in\"
topic = \"events\"

[[node]]
id = \"by-key\"
from = \"in\"
plugin = \"keeper\"
limits = { deadline_ms = 5000 }

[[sink]]
from = \"by-key\"
topic = \"kept\"
";
/// A count is in the state of its key, and the different values of a key are entries of their own.
const COUNTED_MANIFEST: &str = "\
name = \"counted\"
threads = 3

[[source]]
id = \"in\"
topic = \"events\"

[[node]]
id = \"by-key\"
from = \"in\"
aggregate = { n = \"count\", seen = \"distinct:raw\" }

[[sink]]
from = \"by-key\"
topic = \"counted\"
";
/// The plugin keys its output by the partition of the input, so that what is in order stays so.
const MANIFEST: &str = "\
name = \"piped\"
threads = 2
guarantee = \"exactly-once\"

[[source]]
id = \"in\"
topic = \"events\"

[[node]]
id = \"work\"
from = \"in\"
plugin = \"unruly\"
limits = { memory = \"8 MiB\", deadline_ms = 5000, output = \"512 KiB\" }

[[sink]]
from = \"work\"
topic = \"piped-left\"

[[sink]]
from = \"in\"
topic = \"piped-right\"
";

/// The deployed pipelines, and how far they had come when they were looked at last.
pub(crate) struct Pipe {
    done: [Vec<i64>; 3],
}

const GROUPS: [&str; 3] = [GROUP, COUNTED_GROUP, KEPT_GROUP];

impl Pipe {
    pub(crate) fn deploy(
        binary: &Path,
        components: &[PathBuf],
        broker: &Broker,
        data: &Path,
        home: &Path,
    ) -> Result<Pipe> {
        let cli = Cli::new(binary, broker, data, home)?;
        let text = |path: &Path| path.display().to_string();
        for component in components {
            cli.ok(&["plugin", "push", &text(component)])?;
        }
        let manifest = home.join("piped.toml");
        std::fs::write(&manifest, MANIFEST)?;
        cli.ok(&["deploy", &text(&manifest)])?;
        create_topic(&broker.address, COUNTED.0, COUNTED.1, &[])?;
        create_topic(&broker.address, KEPT.0, KEPT.1, &[])?;
        for counting in [COUNTED_MANIFEST, KEPT_MANIFEST] {
            std::fs::write(&manifest, counting)?;
            cli.ok(&["deploy", &text(&manifest)])?;
        }
        Ok(Pipe { done: [(); 3].map(|()| vec![-1; EVENTS.1 as usize]) })
    }

    /// Waits until each pipeline has come far enough.
    fn until(
        &mut self,
        bootstrap: &str,
        limit: Duration,
        enough: impl Fn(&[i64], &[i64]) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        for (group, done) in GROUPS.iter().zip(&mut self.done) {
            loop {
                let now = committed(bootstrap, group, EVENTS.0, EVENTS.1)?;
                let back = now.iter().zip(&*done).any(|(now, done)| now < done);
                ensure!(!back, "the commits of {group} went back from {done:?} to {now:?}");
                if enough(&now, done) {
                    *done = now;
                    break;
                }
                ensure!(Instant::now() < end, "{group} stays at {now:?} for {limit:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits until they have committed something more.
    pub(crate) fn progress(&mut self, bootstrap: &str, limit: Duration) -> Result<()> {
        self.until(bootstrap, limit, |now, done| now != done)
    }

    /// Waits until they have come to the end of what is committed.
    pub(crate) fn settle(&mut self, bootstrap: &str, limit: Duration) -> Result<()> {
        let mut ends = vec![0; EVENTS.1 as usize];
        read_on(bootstrap, EVENTS.0, false, &mut ends)?;
        self.until(bootstrap, limit, |now, _| now.iter().zip(&ends).all(|(now, end)| now >= end))
            .with_context(|| format!("their input has records to {ends:?}"))
    }
}

/// The result that a pipeline has for a count.
type Expect = fn(u64) -> String;

/// What is wrong with the counts: of each key they must rise by one, to as many as there are committed records.
pub(crate) fn miscounted(bootstrap: &str) -> Result<Vec<String>> {
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    let key = |message: &BorrowedMessage<'_>| {
        String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned()
    };
    read_each(bootstrap, EVENTS.0, &mut vec![0; EVENTS.1 as usize], |message| {
        *wanted.entry(key(message)).or_default() += 1;
        Ok(())
    })?;
    let mut wrong = Vec::new();
    let by_operator: Expect = |count| format!("{{\"n\":{count},\"seen\":{count}}}");
    let by_plugin: Expect = |count| count.to_string();
    let counted = [(COUNTED.0, COUNTED.1, by_operator), (KEPT.0, KEPT.1, by_plugin)];
    for (topic, partitions, expect) in counted {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        read_each(bootstrap, topic, &mut vec![0; partitions as usize], |message| {
            let count = counts.entry(key(message)).or_default();
            *count += 1;
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
            let expect = expect(*count);
            if value != expect {
                let (key, offset) = (key(message), message.offset());
                wrong.push(format!(
                    "the count of key {key} in {topic} at offset {offset} is {value}, not {expect}"
                ));
            }
            Ok(())
        })?;
        if counts != wanted && wrong.is_empty() {
            wrong.push(format!("there are {wanted:?} committed records, and {topic} has {counts:?}"));
        }
    }
    wrong.truncate(10);
    Ok(wrong)
}

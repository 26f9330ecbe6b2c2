//! What the cases share: a broker with HTTP, the guest, and manifests that run it.

use anyhow::{Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::records::{LIMIT, until};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One case's place.
pub(crate) struct Lab {
    pub(crate) binary: PathBuf,
    /// The plugin `unruly`, built.
    pub(crate) component: PathBuf,
    pub(crate) build_dir: PathBuf,
    pub(crate) dir: PathBuf,
}

/// The source of a guest.
pub(crate) fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(name)
}

/// A pipeline of one node that runs `unruly`.
#[derive(Clone, Copy)]
pub(crate) struct Pipe<'a> {
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
    pub(crate) sink: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) on_error: &'a str,
    pub(crate) deadline_ms: u32,
    pub(crate) guarantee: &'a str,
}

impl<'a> Pipe<'a> {
    pub(crate) fn new(name: &'a str, source: &'a str, sink: &'a str) -> Pipe<'a> {
        Pipe {
            name,
            source,
            sink,
            tag: "",
            on_error: "{ policy = \"fail\" }",
            deadline_ms: 200,
            guarantee: "exactly-once",
        }
    }

    pub(crate) fn manifest(&self) -> String {
        let Pipe { name, source, sink, tag, on_error, deadline_ms, guarantee } = self;
        format!(
            "name = \"{name}\"\nguarantee = \"{guarantee}\"\n\n\
             [[source]]\nid = \"in\"\ntopic = \"{source}\"\n\n\
             [[node]]\nid = \"work\"\nfrom = \"in\"\nplugin = \"unruly\"\nconfig = {{ tag = \"{tag}\" }}\n\
             on_error = {on_error}\n\
             limits = {{ memory = \"8 MiB\", deadline_ms = {deadline_ms}, output = \"512 KiB\" }}\n\n\
             [[sink]]\nfrom = \"work\"\ntopic = \"{sink}\"\n"
        )
    }
}

impl Lab {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn start(&self) -> Result<(Start, Broker, Cli)> {
        self.start_as(|start| start)
    }

    /// A broker with settings of its own.
    pub(crate) fn start_as(&self, settings: impl FnOnce(Start) -> Start) -> Result<(Start, Broker, Cli)> {
        let mut start = settings(Start::new(&self.binary, &self.data(), &self.log()).with_http());
        let broker = start.start()?;
        let cli = self.cli(&broker)?;
        Ok((start, broker, cli))
    }

    /// A broker that has the plugin.
    pub(crate) fn start_with_plugin(&self) -> Result<(Start, Broker, Cli)> {
        let started = self.start()?;
        started.2.ok(&["plugin", "push", path(&self.component)])?;
        Ok(started)
    }

    pub(crate) fn cli(&self, broker: &Broker) -> Result<Cli> {
        Cli::new(&self.binary, broker, &self.data(), &self.build_dir)
    }

    /// Writes a file beside the broker's data.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let file = self.dir.join(name);
        std::fs::write(&file, content)?;
        Ok(path(&file).to_owned())
    }

    /// Pushes the plugin under another digest: the same code with a section of its own. Its name for manifests.
    pub(crate) fn push_variant(&self, cli: &Cli, number: u8) -> Result<String> {
        const NAME: &[u8] = b"variant";
        let mut component = std::fs::read(&self.component)?;
        let size = 1 + NAME.len() + 1;
        component.extend([0, size as u8, NAME.len() as u8]);
        component.extend(NAME);
        component.push(number);
        let file = self.write(&format!("variant-{number}.wasm"), component)?;
        let pushed = cli.json(&["plugin", "push", &file])?;
        Ok(format!("unruly@{}", pushed["digest"].as_str().unwrap_or_default()))
    }

    /// Deploys a pipeline that runs this plugin.
    pub(crate) fn deploy_with(&self, cli: &Cli, pipe: Pipe<'_>, plugin: &str) -> Result<String> {
        let manifest = pipe.manifest().replace("plugin = \"unruly\"", &format!("plugin = \"{plugin}\""));
        cli.ok(&["deploy", &self.write(&format!("{}.toml", pipe.name), manifest)?])
    }

    pub(crate) fn deploy(&self, cli: &Cli, pipe: Pipe<'_>) -> Result<String> {
        cli.ok(&["deploy", &self.write(&format!("{}.toml", pipe.name), pipe.manifest())?])
    }
}

/// A path of a test has no odd characters.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Waits until a pipeline is in a state, and gives its description.
pub(crate) fn until_state(cli: &Cli, name: &str, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("{name} is {state}"), LIMIT, || {
        last = cli.pipeline(name)?;
        Ok((last["state"] == state).then(|| last.clone()))
    });
    found.map_err(|error| error.context(format!("it is {last}")))
}

/// Waits until a pipeline has committed these offsets, one a partition, and reads nothing beyond.
pub(crate) fn until_committed(cli: &Cli, name: &str, wanted: &[i64]) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("{name} has committed {wanted:?}"), LIMIT, || {
        last = cli.pipeline(name)?;
        Ok((offsets(&last) == wanted).then(|| last.clone()))
    });
    found.map_err(|error| error.context(format!("it is {last}")))
}

/// The committed offsets of a description, by partition.
pub(crate) fn offsets(description: &Value) -> Vec<i64> {
    let tasks = description["tasks"].as_array().into_iter().flatten();
    tasks.map(|task| task["committed"].as_i64().unwrap_or(-1)).collect()
}

/// The failure of a description is about this record, of this kind, and says why in words.
pub(crate) fn check_failure(
    description: &Value,
    kind: &str,
    (topic, partition, offset): (&str, i32, i64),
    words: &[&str],
) -> Result<()> {
    let failure = &description["failure"];
    ensure!(
        failure["kind"] == kind
            && failure["topic"] == topic
            && failure["partition"] == partition
            && failure["offset"] == offset,
        "wanted {kind} at {topic} [{partition}] {offset}, got {description}"
    );
    let reason = failure["reason"].as_str().unwrap_or_default();
    for word in words {
        ensure!(reason.contains(word), "the reason says nothing of `{word}`: {reason}");
    }
    Ok(())
}

//! `pipeline.toml`: what a user writes. Parsed strictly: an unknown key is refused and the nearest known one named.
//! What the design has and this version cannot run is refused by name, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::limits::LimitsSpec;
use crate::nearest;
use crate::operator::Field;
use crate::partitioner::PartitionerKind;
use crate::state::StoreKind;

pub mod changes;
pub mod consumer;
pub mod operator;
pub mod stores;

pub use crate::values;

pub(crate) use raw_native::REST_OUTPUT_NAME;

use consumer::ConsumerSpec;
use operator::{GlobalSpec, OperatorPlugin, OperatorSpec, TableSpec};
use stores::StoreGrant;
use values::{ByteSize, Start};

/// Threads that a pipeline may ask for. Each has a transaction, an instance of each plugin and a share of the stores.
pub const MAX_THREADS: u32 = 64;
/// Bytes of a manifest. It is a record of a topic, and nobody writes this much by hand.
pub const MAX_MANIFEST_BYTES: usize = 256 * 1024;

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has {bytes} bytes, but at most {MAX_MANIFEST_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not TOML, or a value of the wrong type. `at` is the key, `reason` has the line.
    #[error("{}{reason}", if at.is_empty() { String::new() } else { format!("`{at}`: ") })]
    Syntax {
        /// The path of the key; empty when the whole text cannot be read.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// A key that does not exist.
    #[error("`{key}` is not a key of {table}; {hint}")]
    UnknownKey {
        /// The path of the key.
        key: String,
        /// The table it was found in.
        table: String,
        /// The nearest known key, or all of them.
        hint: String,
    },
    /// A value that makes no sense.
    #[error("`{at}` {reason}")]
    Invalid {
        /// The path of the key.
        at: String,
        /// What is wrong, as a text that follows the key.
        reason: String,
    },
    /// Something that the design has and this version does not run.
    #[error("`{at}` is not supported yet: {instead}")]
    Unsupported {
        /// The path of the key.
        at: String,
        /// What to do until it is.
        instead: String,
    },
}

/// What a pipeline promises about its outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// After a crash, records that were read since the last commit are processed again: outputs may repeat.
    AtLeastOnce,
    /// Outputs and input offsets are one transaction: a read-committed reader sees the outputs of each record once, through
    /// any crash.
    #[default]
    ExactlyOnce,
}

/// A parsed `pipeline.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The pipeline's name: `[a-z0-9][a-z0-9._-]*`, at most 64 characters.
    pub name: String,
    /// What it promises.
    pub guarantee: Guarantee,
    /// When it commits.
    pub commit: CommitSpec,
    /// Threads that its tasks are spread over: 1 to [`MAX_THREADS`].
    pub threads: u32,
    /// Where its nodes keep what they keep, unless they say so themselves.
    pub store: StoreKind,
    /// The topics it reads.
    pub sources: Vec<SourceSpec>,
    /// The topics it reads as tables.
    pub tables: Vec<TableSpec>,
    /// The tables of which the process has one whole copy.
    pub globals: Vec<GlobalSpec>,
    /// The nodes that run plugins.
    pub nodes: Vec<NodeSpec>,
    /// The nodes that are built in.
    pub operators: Vec<OperatorSpec>,
    /// The topics it writes.
    pub sinks: Vec<SinkSpec>,
}

/// When a commit starts, once the previous one is done: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitSpec {
    /// Milliseconds since the first uncommitted record.
    pub interval_ms: u32,
    /// Uncommitted input records.
    pub records: u32,
    /// Uncommitted output bytes.
    pub bytes: ByteSize,
}

impl Default for CommitSpec {
    fn default() -> CommitSpec {
        CommitSpec { interval_ms: 100, records: 10_000, bytes: ByteSize::mib(16) }
    }
}

/// `[[source]]`: a topic to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// What `from` calls it.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// Where to begin.
    pub start: Start,
    /// How the topic's producers place keys, if known. What needs records of one key in one partition checks it.
    pub partitioner: Option<String>,
    /// Where the time of a record is; none: in its timestamp. A record whose field is not there, or is no time, has none.
    pub time: Option<Field>,
    /// It is the intake of a topic with a server-side partitioner, with so many partitions, whose records are taken in the
    /// order of their offsets by one task. Manifests of users have none.
    pub intake: Option<u32>,
}

/// `[[node]]`: a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    /// What `from` and the logs call it.
    pub id: String,
    /// The source or node it reads, with `:output` for another output than the first.
    pub from: String,
    /// Which plugin.
    pub plugin: PluginRef,
    /// Its settings, as written. Checked against `plugin.toml` when the plugin is known.
    pub config: BTreeMap<String, toml::Value>,
    /// What happens to a record that it cannot process.
    pub on_error: OnError,
    /// What it may use; what is left out is `plugin.toml`'s, else the default.
    pub limits: LimitsSpec,
    /// What it emits has the keys of the records that it is made of. Said by the user: operators behind it rely on it.
    pub keeps_key: bool,
    /// The stores that it is given; where its plugin says what it needs, what the pipeline says of those.
    pub stores: BTreeMap<String, StoreGrant>,
    /// What it keeps is of the partition, not of a key: it does not matter where the records of a key are.
    pub by_partition: bool,
    /// Where what it keeps is, if the manifest says so of the node.
    pub store: Option<StoreKind>,
    /// How records are given to it, and what it may reach, if the manifest says anything of that: it acts on the outside.
    pub consumer: Option<ConsumerSpec>,
}

/// `[[sink]]`: a topic to write.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkSpec {
    /// The source or node it writes, with `:output` for another output than the first.
    pub from: String,
    /// The topic.
    pub topic: String,
    /// How keys are placed.
    pub partitioner: SinkPartitioner,
    /// What happens to a record that the topic does not take, if the sink reads a source. A sink that reads a node goes by
    /// the node's.
    pub on_error: Option<OnError>,
}

/// Who says which partition of its topic a record goes to.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkPartitioner {
    /// By a rule that clients have, too.
    Native(PartitionerKind),
    /// By a plugin of the world `partitioner`.
    Plugin(Box<OperatorPlugin>),
}

impl SinkSpec {
    /// What its plugin is called among those of the pipeline's nodes, whose names have no space. Sinks of one topic have
    /// one partitioner.
    pub fn plugin_id(topic: &str) -> String {
        format!("sink {topic}")
    }

    /// The plugin that places its records, if one does.
    pub fn plugin(&self) -> Option<&OperatorPlugin> {
        match &self.partitioner {
            SinkPartitioner::Native(_) => None,
            SinkPartitioner::Plugin(plugin) => Some(plugin),
        }
    }
}

/// How a manifest names a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginRef {
    /// `name`: a directory beside the manifest, or else what was last pushed under that name. `../name`: a directory.
    Name(String),
    /// `name@sha256:…`: these bytes and no others.
    Pinned {
        /// For people.
        name: String,
        /// What is run.
        digest: Digest,
    },
}

impl PluginRef {
    fn parse(text: &str) -> Result<PluginRef, String> {
        match text.split_once('@') {
            _ if text.is_empty() => Err("is empty; name a directory or a pushed plugin".to_owned()),
            None => Ok(PluginRef::Name(text.to_owned())),
            Some((name, digest)) => match digest.parse() {
                Ok(digest) if !name.is_empty() => Ok(PluginRef::Pinned { name: name.to_owned(), digest }),
                Ok(_) => Err(format!("is `{text}`, which has no name before the @")),
                Err(error) => Err(format!("has a wrong digest: {error}")),
            },
        }
    }
}

/// What happens to a record that a node cannot process, or that a topic does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnError {
    /// The pipeline stops before the record and says which one it is.
    Fail,
    /// The record is dropped and counted.
    Skip,
    /// The record's original bytes go to `topic`, with the reason in its headers.
    DeadLetter {
        /// The topic.
        topic: String,
    },
    /// The batch is given again, up to `attempts` times, and then `then` decides.
    Retry {
        /// How many times.
        attempts: u32,
        /// Milliseconds before the first retry; each one waits twice as long as the one before.
        backoff_ms: u32,
        /// What happens when the last attempt failed. Never a retry.
        then: Box<OnError>,
    },
}

impl OnError {
    /// What decides once there are no attempts left.
    pub fn last_resort(&self) -> &OnError {
        match self {
            OnError::Retry { then, .. } => then,
            other => other,
        }
    }

    /// The dead-letter topic, if there is one.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        match self.last_resort() {
            OnError::DeadLetter { topic } => Some(topic),
            _ => None,
        }
    }
}

/// Attempts of `retry` when the manifest does not say: with the default back-off, a bit over 3 s in all.
pub const DEFAULT_RETRY_ATTEMPTS: u32 = 5;
/// Attempts that a manifest may ask for: with the longest back-off, a bit over a day.
pub const MAX_RETRY_ATTEMPTS: u32 = 1_500;
/// Back-off before the first retry when the manifest does not say.
pub const DEFAULT_RETRY_BACKOFF_MS: u32 = 100;
/// No retry waits longer than this.
pub const MAX_RETRY_BACKOFF_MS: u32 = 60_000;

impl Manifest {
    /// Parses and checks a `pipeline.toml`. What depends on other files (plugins, topics) is not looked at.
    ///
    /// # Errors
    /// The first thing that is wrong, named by its key.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: text.len() });
        }
        let raw: raw::Pipeline = from_toml(text, "the pipeline")?;
        raw.check()
    }
}

impl Manifest {
    /// One whose only work is to have a plugin place records for somebody who is no pipeline. `config` is a table of TOML, or empty.
    ///
    /// # Errors
    /// `config` is no such table, or the plugin cannot be called that.
    pub fn placing(plugin: &str, config: &str) -> Result<Manifest, ManifestError> {
        let text = if config.trim().is_empty() { "{}" } else { config };
        let mut given: BTreeMap<String, BTreeMap<String, toml::Value>> =
            from_toml(&format!("config = {text}"), "the configuration")?;
        let config = given.remove("config").filter(|_| given.is_empty());
        let config = config.ok_or_else(|| {
            raw::invalid("config", "must be one table of TOML, as `{ default = 0 }`".to_owned())
        })?;
        let plugin = toml::Value::String(plugin.to_owned());
        let mut manifest = Manifest::parse(&format!(
            "name = \"placing\"\n[[source]]\nid = \"in\"\ntopic = \"in\"\n\
             [[sink]]\nfrom = \"in\"\ntopic = \"to\"\npartitioner = {plugin}\n"
        ))?;
        match manifest.sinks.first_mut().map(|sink| &mut sink.partitioner) {
            Some(SinkPartitioner::Plugin(plugin)) => plugin.config = config,
            Some(SinkPartitioner::Native(_)) | None => {
                return Err(raw::invalid("partitioner", "is a rule, and no plugin".to_owned()));
            }
        }
        Ok(manifest)
    }

    /// Whether it is what routes the records of a topic with a server-side partitioner.
    pub fn is_router(&self) -> bool {
        self.sources.iter().any(|source| source.intake.is_some())
    }

    /// The plugins that it names, by node; those of sinks by [`SinkSpec::plugin_id`].
    pub fn plugins(&self) -> impl Iterator<Item = (String, &PluginRef)> {
        let nodes = self.nodes.iter().map(|node| (node.id.clone(), &node.plugin));
        let operators = self.operators.iter();
        let operators = operators.filter_map(|node| Some((node.id.clone(), &node.plugin.as_ref()?.plugin)));
        // Sinks of one topic have the same.
        let first = |i: usize| self.sinks[..i].iter().all(|other| other.topic != self.sinks[i].topic);
        let sinks = self.sinks.iter().enumerate().filter(move |(i, _)| first(*i));
        let sinks =
            sinks.filter_map(|(_, sink)| Some((SinkSpec::plugin_id(&sink.topic), &sink.plugin()?.plugin)));
        nodes.chain(operators).chain(sinks)
    }
}

/// Reads TOML into `T`, and makes an unknown key an error that names the nearest known one.
pub(crate) fn from_toml<'t, T: Deserialize<'t>>(text: &'t str, root: &str) -> Result<T, ManifestError> {
    let deserializer = toml::Deserializer::parse(text)
        .map_err(|error| ManifestError::Syntax { at: String::new(), reason: error.to_string() })?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let line = error
            .inner()
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        explain(root, path, line, error.inner().message())
    })
}

/// serde says "unknown field `x`, expected one of `a`, `b`"; people are helped by the nearest one.
fn explain(root: &str, path: String, line: usize, message: &str) -> ManifestError {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(field) if message.starts_with("unknown field") => {
            let known: Vec<&str> = quoted.collect();
            // The path ends with the unknown key itself or with its table, depending on the kind of table.
            let table = path.strip_suffix(field).map_or(path.as_str(), |table| table.trim_end_matches('.'));
            let table = if table.is_empty() { root.to_owned() } else { format!("`{table}`") };
            let hint = nearest::hint(field, known.iter().copied());
            ManifestError::UnknownKey { key: field.to_owned(), table: format!("{table} (line {line})"), hint }
        }
        _ => {
            let at = if line == 0 { String::new() } else { format!(" (line {line})") };
            ManifestError::Syntax { at: path, reason: format!("{message}{at}") }
        }
    }
}

mod raw;
mod raw_native;
mod raw_operator;
#[cfg(test)]
mod tests;

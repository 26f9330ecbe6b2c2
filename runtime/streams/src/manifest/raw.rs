//! The manifest as serde reads it, and the rules that serde cannot say.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::values::Start;
use super::{
    CommitSpec, DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS, Guarantee, MAX_RETRY_ATTEMPTS,
    MAX_RETRY_BACKOFF_MS, Manifest, ManifestError, NodeSpec, OnError, PluginRef, SinkSpec, SourceSpec,
};
use crate::limits::LimitsSpec;
use crate::partitioner::PartitionerKind;

/// Sources, nodes and sinks of one pipeline. A task calls the nodes one after the other, so this bounds a step.
const MAX_VERTICES: usize = 64;
/// Longer names do not fit beside a task's number into the names of files and groups.
const MAX_NAME_LEN: usize = 64;
/// Kafka's limit for topic names.
const MAX_TOPIC_LEN: usize = 249;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pipeline {
    name: String,
    guarantee: Option<String>,
    #[serde(default)]
    commit: CommitSpec,
    #[serde(default)]
    source: Vec<Source>,
    #[serde(default)]
    table: Vec<toml::Table>,
    #[serde(default)]
    node: Vec<Node>,
    #[serde(default)]
    sink: Vec<Sink>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    id: String,
    topic: String,
    #[serde(default)]
    start: Start,
    partitioner: Option<String>,
    time: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: String,
    from: String,
    plugin: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
    on_error: Option<RawOnError>,
    #[serde(default)]
    limits: LimitsSpec,
    // Built-in operators: known, so that they are refused by name.
    filter: Option<toml::Value>,
    select: Option<toml::Value>,
    group_by: Option<toml::Value>,
    window: Option<toml::Value>,
    aggregate: Option<toml::Value>,
    join: Option<toml::Value>,
    table: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sink {
    from: String,
    topic: String,
    partitioner: Option<String>,
    on_error: Option<RawOnError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOnError {
    policy: String,
    topic: Option<String>,
    attempts: Option<u32>,
    backoff_ms: Option<u32>,
    then: Option<String>,
}

impl Pipeline {
    pub(super) fn check(self) -> Result<Manifest, ManifestError> {
        name("name", &self.name)?;
        let guarantee = guarantee(self.guarantee.as_deref())?;
        commit(&self.commit)?;
        if !self.table.is_empty() {
            let instead =
                "this version has no tables; leave [[table]] out and read the topic as a [[source]]";
            return Err(unsupported("table", instead));
        }
        let count = self.source.len() + self.node.len() + self.sink.len();
        if count > MAX_VERTICES {
            return Err(invalid(
                "node",
                format!("has too many: {count} sources, nodes and sinks of {MAX_VERTICES}"),
            ));
        }
        let mut ids = BTreeSet::new();
        let mut sources = Vec::with_capacity(self.source.len());
        for (i, source) in self.source.into_iter().enumerate() {
            sources.push(source.check(&format!("source[{i}]"), &mut ids)?);
        }
        let mut nodes = Vec::with_capacity(self.node.len());
        for (i, node) in self.node.into_iter().enumerate() {
            nodes.push(node.check(&format!("node[{i}]"), &mut ids)?);
        }
        let mut sinks = Vec::with_capacity(self.sink.len());
        for (i, sink) in self.sink.into_iter().enumerate() {
            sinks.push(sink.check(&format!("sink[{i}]"))?);
        }
        Ok(Manifest { name: self.name, guarantee, commit: self.commit, sources, nodes, sinks })
    }
}

impl Source {
    fn check(self, at: &str, ids: &mut BTreeSet<String>) -> Result<SourceSpec, ManifestError> {
        id(&format!("{at}.id"), &self.id, ids)?;
        topic(&format!("{at}.topic"), &self.topic)?;
        if let Some(time) = self.time.as_deref().filter(|time| *time != "record") {
            let instead =
                format!("this version knows record timestamps alone; write time = \"record\" for \"{time}\"");
            return Err(unsupported(&format!("{at}.time"), &instead));
        }
        if let Some(given) = self.partitioner.as_deref().filter(|given| *given != "unknown") {
            PartitionerKind::parse(given).map_err(|hint| {
                invalid(&format!("{at}.partitioner"), format!("is `{given}`; {hint}, or \"unknown\""))
            })?;
        }
        let partitioner = self.partitioner.filter(|given| given != "unknown");
        Ok(SourceSpec { id: self.id, topic: self.topic, start: self.start, partitioner })
    }
}

impl Node {
    fn check(self, at: &str, ids: &mut BTreeSet<String>) -> Result<NodeSpec, ManifestError> {
        id(&format!("{at}.id"), &self.id, ids)?;
        let operators = [
            ("filter", &self.filter),
            ("select", &self.select),
            ("group_by", &self.group_by),
            ("window", &self.window),
            ("aggregate", &self.aggregate),
            ("join", &self.join),
            ("table", &self.table),
        ];
        if let Some((operator, _)) = operators.iter().find(|(_, value)| value.is_some()) {
            let instead = "this version has no built-in operators; write the step as a plugin";
            return Err(unsupported(&format!("{at}.{operator}"), instead));
        }
        let plugin = self.plugin.ok_or_else(|| {
            invalid(&format!("{at}.plugin"), format!("is missing: say which plugin `{}` runs", self.id))
        })?;
        let plugin = PluginRef::parse(&plugin).map_err(|reason| invalid(&format!("{at}.plugin"), reason))?;
        let on_error = match self.on_error {
            Some(on_error) => on_error.check(&format!("{at}.on_error"))?,
            None => OnError::Fail,
        };
        // Ranges are checked here already; the plugin's own limits are not known yet.
        crate::limits::PluginLimits::resolve(&self.limits, &LimitsSpec::default())
            .map_err(|error| invalid(&format!("{at}.{}", error.key_path()), error.reason()))?;
        Ok(NodeSpec {
            id: self.id,
            from: self.from,
            plugin,
            config: self.config,
            on_error,
            limits: self.limits,
        })
    }
}

impl Sink {
    fn check(self, at: &str) -> Result<SinkSpec, ManifestError> {
        topic(&format!("{at}.topic"), &self.topic)?;
        let partitioner = match self.partitioner.as_deref() {
            None => PartitionerKind::Murmur2,
            Some(given) => PartitionerKind::parse(given).map_err(|hint| {
                invalid(
                    &format!("{at}.partitioner"),
                    format!("is `{given}`; {hint} (a plugin as partitioner is not supported yet)"),
                )
            })?,
        };
        let on_error = self.on_error.map(|raw| raw.check(&format!("{at}.on_error"))).transpose()?;
        Ok(SinkSpec { from: self.from, topic: self.topic, partitioner, on_error })
    }
}

impl RawOnError {
    fn check(self, at: &str) -> Result<OnError, ManifestError> {
        let uses_topic = [Some(self.policy.as_str()), self.then.as_deref()].contains(&Some("dead-letter"));
        if self.topic.is_some() && !uses_topic {
            return Err(invalid(
                &format!("{at}.topic"),
                format!("is not used by the policy \"{}\"", self.policy),
            ));
        }
        let retry_keys = [("attempts", self.attempts.is_some()), ("backoff_ms", self.backoff_ms.is_some())];
        let retry_keys = retry_keys.into_iter().chain([("then", self.then.is_some())]);
        if self.policy != "retry"
            && let Some((key, _)) = retry_keys.into_iter().find(|(_, given)| *given)
        {
            return Err(invalid(&format!("{at}.{key}"), "is for the policy \"retry\"".to_owned()));
        }
        if self.policy != "retry" {
            return simple_policy(at, "policy", &self.policy, self.topic);
        }
        let attempts = self.attempts.unwrap_or(DEFAULT_RETRY_ATTEMPTS);
        let backoff_ms = self.backoff_ms.unwrap_or(DEFAULT_RETRY_BACKOFF_MS);
        range(&format!("{at}.attempts"), attempts, 1, MAX_RETRY_ATTEMPTS)?;
        range(&format!("{at}.backoff_ms"), backoff_ms, 1, MAX_RETRY_BACKOFF_MS)?;
        let then = simple_policy(at, "then", self.then.as_deref().unwrap_or("fail"), self.topic)?;
        Ok(OnError::Retry { attempts, backoff_ms, then: Box::new(then) })
    }
}

fn simple_policy(at: &str, key: &str, policy: &str, dead: Option<String>) -> Result<OnError, ManifestError> {
    match policy {
        "fail" => Ok(OnError::Fail),
        "skip" => Ok(OnError::Skip),
        "dead-letter" => {
            let key = format!("{at}.topic");
            let dead =
                dead.ok_or_else(|| invalid(&key, "is missing: name the dead-letter topic".to_owned()))?;
            topic(&key, &dead)?;
            Ok(OnError::DeadLetter { topic: dead })
        }
        other => {
            let known = ["fail", "skip", "retry", "dead-letter"];
            let known = &known[..];
            let hint = crate::nearest::hint(
                other,
                known.iter().copied().filter(|p| key == "policy" || *p != "retry"),
            );
            Err(invalid(&format!("{at}.{key}"), format!("is `{other}`; {hint}")))
        }
    }
}

fn guarantee(given: Option<&str>) -> Result<Guarantee, ManifestError> {
    match given {
        Some("at-least-once") => Ok(Guarantee::AtLeastOnce),
        Some("exactly-once") => Ok(Guarantee::ExactlyOnce),
        Some(other) => {
            let hint = crate::nearest::hint(other, ["exactly-once", "at-least-once"]);
            Err(invalid("guarantee", format!("is `{other}`; {hint}")))
        }
        None => Ok(Guarantee::default()),
    }
}

fn commit(spec: &CommitSpec) -> Result<(), ManifestError> {
    range("commit.interval_ms", spec.interval_ms, 1, 60_000)?;
    range("commit.records", spec.records, 1, 10_000_000)?;
    let bytes = spec.bytes.bytes();
    if !(64 << 10..=1 << 30).contains(&bytes) {
        return Err(invalid(
            "commit.bytes",
            format!("is {}, but must be between 64 KiB and 1 GiB", spec.bytes),
        ));
    }
    Ok(())
}

fn range(at: &str, given: u32, min: u32, max: u32) -> Result<(), ManifestError> {
    if (min..=max).contains(&given) {
        return Ok(());
    }
    Err(invalid(at, format!("is {given}, but must be between {min} and {max}")))
}

fn name(at: &str, given: &str) -> Result<(), ManifestError> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ok = given.len() <= MAX_NAME_LEN
        && given.starts_with(word)
        && given.chars().all(|c| word(c) || matches!(c, '.' | '_' | '-'));
    if ok {
        return Ok(());
    }
    let reason = format!(
        "is `{given}`, but must be 1 to {MAX_NAME_LEN} of a-z, 0-9, `.`, `_`, `-`, and begin with a letter or a digit"
    );
    Err(invalid(at, reason))
}

fn id(at: &str, given: &str, ids: &mut BTreeSet<String>) -> Result<(), ManifestError> {
    name(at, given)?;
    if ids.insert(given.to_owned()) {
        return Ok(());
    }
    Err(invalid(at, format!("is `{given}`, which another source or node is called already")))
}

fn topic(at: &str, given: &str) -> Result<(), ManifestError> {
    let ok = !given.is_empty()
        && given.len() <= MAX_TOPIC_LEN
        && given != "."
        && given != ".."
        && given.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !ok {
        let reason =
            format!("is `{given}`, but must be 1 to {MAX_TOPIC_LEN} of a-z, A-Z, 0-9, `.`, `_`, `-`");
        return Err(invalid(at, reason));
    }
    if pelton_wire::topic_name::is_internal(given) {
        return Err(invalid(at, format!("is `{given}`, which is a topic of the server's own")));
    }
    Ok(())
}

fn invalid(at: &str, reason: String) -> ManifestError {
    ManifestError::Invalid { at: at.to_owned(), reason }
}

fn unsupported(at: &str, instead: &str) -> ManifestError {
    ManifestError::Unsupported { at: at.to_owned(), instead: instead.to_owned() }
}

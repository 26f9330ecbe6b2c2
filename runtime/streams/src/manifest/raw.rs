//! The manifest as serde reads it, and the rules that serde cannot say.

use std::collections::{BTreeMap, BTreeSet};

use pelton_wire::topic_name::INTAKE_PREFIX;
use serde::Deserialize;

use super::consumer::{Deliver, Http, RawConsumer};
use super::operator::{OperatorPlugin, OperatorSpec, Work};
use super::raw_native::InOrder;
use super::raw_operator::{Aggregate, CheckedTable, Deduplicate, From, Join, RawWork, Table, Window};
use super::stores::StoreGrant;
use super::values::Start;
use super::{
    CommitSpec, DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS, Guarantee, MAX_RETRY_ATTEMPTS,
    MAX_RETRY_BACKOFF_MS, MAX_THREADS, Manifest, ManifestError, NodeSpec, OnError, PluginRef,
    SinkPartitioner, SinkSpec, SourceSpec,
};
use crate::http::GrantSpec;
use crate::limits::LimitsSpec;
use crate::operator::Field;
use crate::partitioner;
use crate::state::StoreKind;
use crate::tables::check_name;

/// Sources, nodes and sinks of one pipeline. A task calls the nodes one after the other, so this bounds a step.
const MAX_VERTICES: usize = 64;
/// Longer names do not fit beside a task's number into the names of files and groups.
const MAX_NAME_LEN: usize = 64;
/// Partitions of a topic with a server-side partitioner: one task looks at all of them.
const MAX_INTAKE_PARTITIONS: u32 = 10_000;
/// Kafka's limit for topic names.
const MAX_TOPIC_LEN: usize = 249;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pipeline {
    name: String,
    guarantee: Option<String>,
    #[serde(default)]
    commit: CommitSpec,
    threads: Option<u32>,
    store: Option<String>,
    #[serde(default)]
    source: Vec<Source>,
    #[serde(default)]
    table: Vec<Table>,
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
    intake: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: String,
    from: From,
    plugin: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
    on_error: Option<RawOnError>,
    #[serde(default)]
    limits: LimitsSpec,
    keeps_key: Option<bool>,
    #[serde(default)]
    stores: BTreeMap<String, StoreGrant>,
    state_by: Option<String>,
    group_by: Option<String>,
    window: Option<Window>,
    aggregate: Option<Aggregate>,
    deduplicate: Option<Deduplicate>,
    join: Option<Join>,
    table: Option<String>,
    filter: Option<String>,
    branch: Option<InOrder>,
    select: Option<InOrder>,
    flat_map: Option<String>,
    store: Option<String>,
    parallelism: Option<String>,
    deliver: Option<Deliver>,
    allow_http: Option<Vec<GrantSpec>>,
    secrets: Option<BTreeMap<String, String>>,
    http: Option<Http>,
}

/// A node is one of these.
enum CheckedNode {
    Plugin(NodeSpec),
    Operator(OperatorSpec),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sink {
    from: String,
    topic: String,
    partitioner: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, toml::Value>,
    #[serde(default)]
    limits: LimitsSpec,
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
        let threads = self.threads.unwrap_or(1);
        range("threads", threads, 1, MAX_THREADS)?;
        let store = self.store.map(|kind| store_kind("store", &kind)).transpose()?.unwrap_or_default();
        let count = self.source.len() + self.table.len() + self.node.len() + self.sink.len();
        if count > MAX_VERTICES {
            return Err(invalid(
                "node",
                format!("has too many: {count} sources, tables, nodes and sinks of {MAX_VERTICES}"),
            ));
        }
        let mut ids = BTreeSet::new();
        let mut sources = Vec::with_capacity(self.source.len());
        for (i, source) in self.source.into_iter().enumerate() {
            sources.push(source.check(&format!("source[{i}]"), &mut ids)?);
        }
        let (mut tables, mut globals) = (Vec::new(), Vec::new());
        for (i, table) in self.table.into_iter().enumerate() {
            match table.check(&format!("table[{i}]"), &mut ids)? {
                CheckedTable::Partitioned(table) => tables.push(table),
                CheckedTable::Global(global) => globals.push(global),
            }
        }
        let (mut nodes, mut operators): (_, Vec<OperatorSpec>) = (Vec::new(), Vec::new());
        for (i, node) in self.node.into_iter().enumerate() {
            match node.check(&format!("node[{i}]"), &mut ids)? {
                CheckedNode::Plugin(node) => nodes.push(node),
                CheckedNode::Operator(operator) => {
                    let twice = operators
                        .iter()
                        .find(|other| operator.table.is_some() && other.table == operator.table);
                    if let Some(other) = twice {
                        let reason = format!("is what `{}` has already", other.id);
                        return Err(invalid(&format!("node[{i}].table"), reason));
                    }
                    operators.push(operator);
                }
            }
        }
        let mut sinks = Vec::with_capacity(self.sink.len());
        for (i, sink) in self.sink.into_iter().enumerate() {
            let sink = sink.check(&format!("sink[{i}]"))?;
            one_partitioner(&format!("sink[{i}].partitioner"), &sink, &sinks)?;
            sinks.push(sink);
        }
        let (name, commit) = (self.name, self.commit);
        Ok(Manifest {
            name,
            guarantee,
            commit,
            threads,
            store,
            sources,
            tables,
            globals,
            nodes,
            operators,
            sinks,
        })
    }
}

impl Source {
    fn check(self, at: &str, ids: &mut BTreeSet<String>) -> Result<SourceSpec, ManifestError> {
        id(&format!("{at}.id"), &self.id, ids)?;
        match self.intake {
            None => topic(&format!("{at}.topic"), &self.topic)?,
            Some(partitions) => {
                range(&format!("{at}.intake"), partitions, 1, MAX_INTAKE_PARTITIONS)?;
                if !self.topic.starts_with(INTAKE_PREFIX) {
                    let reason = format!("is `{}`, which is no intake of a topic", self.topic);
                    return Err(invalid(&format!("{at}.topic"), reason));
                }
            }
        }
        let time = match self.time.as_deref() {
            None | Some("record") => None,
            Some(text) => Some(Field::parse(text).map_err(|expect| {
                invalid(&format!("{at}.time"), format!("is `{text}`, but must be `record`, or {expect}"))
            })?),
        };
        let partitioner = partitioner(&format!("{at}.partitioner"), self.partitioner)?;
        let (id, topic, start, intake) = (self.id, self.topic, self.start, self.intake);
        Ok(SourceSpec { id, topic, start, partitioner, time, intake })
    }
}

impl Node {
    fn check(mut self, at: &str, ids: &mut BTreeSet<String>) -> Result<CheckedNode, ManifestError> {
        id(&format!("{at}.id"), &self.id, ids)?;
        let on_error = self.on_error.take().map(|raw| raw.check(&format!("{at}.on_error"))).transpose()?;
        let on_error = on_error.unwrap_or(OnError::Fail);
        let raw = RawWork {
            group_by: self.group_by.take(),
            window: self.window.take(),
            aggregate: self.aggregate.take(),
            deduplicate: self.deduplicate.take(),
            join: self.join.take(),
            filter: self.filter.take(),
            branch: self.branch.take(),
            select: self.select.take(),
            flat_map: self.flat_map.take(),
        };
        if let (Some(_), Some(key)) = (&self.plugin, raw.any()) {
            let reason = "cannot stand beside `plugin`: a node does one thing; add another [[node]]";
            return Err(invalid(&format!("{at}.{key}"), reason.to_owned()));
        }
        let aggregator = raw.aggregate.as_ref().and_then(Aggregate::plugin).map(str::to_owned);
        let consumer = RawConsumer {
            parallelism: self.parallelism.take(),
            deliver: self.deliver.take(),
            allow_http: self.allow_http.take(),
            secrets: self.secrets.take(),
            http: self.http.take(),
        };
        let work = raw.check(at)?;
        let merges = self.plugin.is_none() && self.from.0.len() > 1;
        match (work.or(merges.then_some(Work::Merge)), consumer.any()) {
            (Some(_), Some(key)) => {
                let reason =
                    "is for a plugin that acts on the outside (of the worlds `consumer` and `consumer-http`)";
                Err(invalid(&format!("{at}.{key}"), reason.to_owned()))
            }
            (Some(work), None) => self.operator(at, work, on_error, aggregator).map(CheckedNode::Operator),
            (None, _) => {
                let consumer = consumer.check(at)?;
                let node = self.plugin(at, on_error)?;
                Ok(CheckedNode::Plugin(NodeSpec { consumer, ..node }))
            }
        }
    }

    /// With the plugin that it aggregates with, if it does.
    fn operator(
        self,
        at: &str,
        work: Work,
        on_error: OnError,
        aggregator: Option<String>,
    ) -> Result<OperatorSpec, ManifestError> {
        let has_plugin = aggregator.is_some();
        let of_plugins = [
            ("config", !self.config.is_empty() && !has_plugin),
            ("limits", self.limits != LimitsSpec::default() && !has_plugin),
            ("keeps_key", self.keeps_key.is_some()),
            ("stores", !self.stores.is_empty()),
            ("state_by", self.state_by.is_some()),
        ];
        if let Some((key, _)) = of_plugins.into_iter().find(|(_, is_there)| *is_there) {
            return Err(invalid(&format!("{at}.{key}"), "is for nodes with a plugin".to_owned()));
        }
        if matches!(on_error, OnError::Retry { .. }) && !has_plugin {
            let reason = "is \"retry\", but a built-in operator gives the same answer again; say \"fail\", \"skip\" or \
                          \"dead-letter\"";
            return Err(invalid(&format!("{at}.on_error.policy"), reason.to_owned()));
        }
        let from = self.from.0;
        if from.is_empty() {
            return Err(invalid(&format!("{at}.from"), "is empty: say what the node reads".to_owned()));
        }
        if let Some(i) = (1..from.len()).find(|i| from[..*i].contains(&from[*i])) {
            return Err(invalid(&format!("{at}.from"), format!("names `{}` twice", from[i])));
        }
        let table = self.table.map(|name| results_name(&format!("{at}.table"), name, &work)).transpose()?;
        let store = self.store.map(|kind| store_kind(&format!("{at}.store"), &kind)).transpose()?;
        let keeps = matches!(work, Work::Aggregate(_) | Work::Deduplicate(_) | Work::Join(_));
        if store.is_some() && !keeps {
            let reason = "is for nodes that keep something: this one keeps nothing";
            return Err(invalid(&format!("{at}.store"), reason.to_owned()));
        }
        let plugin = aggregator.map(|text| {
            let plugin = PluginRef::parse(&text)
                .map_err(|reason| invalid(&format!("{at}.aggregate.plugin"), reason))?;
            limits(at, &self.limits)?;
            Ok(OperatorPlugin { plugin, config: self.config, limits: self.limits })
        });
        let plugin = plugin.transpose()?;
        Ok(OperatorSpec { id: self.id, from, work, table, store, on_error, plugin })
    }

    fn plugin(self, at: &str, on_error: OnError) -> Result<NodeSpec, ManifestError> {
        let plugin = self.plugin.ok_or_else(|| {
            let what = "say which plugin it runs, or what it does: `filter`, `branch`, `select`, `flat_map`, `aggregate`, \
                        `deduplicate` or `join`";
            invalid(&format!("{at}.plugin"), format!("is missing in `{}`: {what}", self.id))
        })?;
        if self.table.is_some() {
            let reason = "is for nodes that aggregate: what a plugin makes is not kept";
            return Err(invalid(&format!("{at}.table"), reason.to_owned()));
        }
        let store = self.store.map(|kind| store_kind(&format!("{at}.store"), &kind)).transpose()?;
        let plugin = PluginRef::parse(&plugin).map_err(|reason| invalid(&format!("{at}.plugin"), reason))?;
        let from = <[String; 1]>::try_from(self.from.0).map_err(|_| {
            let reason = "must be one source or node for a plugin; merge several with a node that has a list in `from` \
                          and nothing else";
            invalid(&format!("{at}.from"), reason.to_owned())
        })?;
        let [from] = from;
        limits(at, &self.limits)?;
        for (store, grant) in &self.stores {
            grant.check(store).map_err(|reason| invalid(&format!("{at}.stores.{store}"), reason))?;
        }
        let by_partition = match self.state_by.as_deref() {
            None | Some("key") => false,
            Some("partition") => true,
            Some(other) => return Err(unknown(&format!("{at}.state_by"), other, &["key", "partition"])),
        };
        let keeps_key = self.keeps_key.unwrap_or(false);
        let (id, config, limits, stores) = (self.id, self.config, self.limits, self.stores);
        let consumer = None;
        Ok(NodeSpec {
            id,
            from,
            plugin,
            config,
            on_error,
            limits,
            keeps_key,
            stores,
            by_partition,
            store,
            consumer,
        })
    }
}

/// Ranges are checked here already; the plugin's own limits are not known yet.
fn limits(at: &str, given: &LimitsSpec) -> Result<(), ManifestError> {
    let resolved = crate::limits::PluginLimits::resolve(given, &LimitsSpec::default());
    resolved.map(drop).map_err(|error| invalid(&format!("{at}.{}", error.key_path()), error.reason()))
}

/// The name of a node's results among tables.
fn results_name(at: &str, name: String, work: &Work) -> Result<String, ManifestError> {
    if !matches!(work, Work::Aggregate(_)) {
        let reason = "is for nodes that aggregate: this one keeps no results";
        return Err(invalid(at, reason.to_owned()));
    }
    table_name(at, &name)?;
    Ok(name)
}

/// A name of tables that stand alone and of results.
pub(super) fn table_name(at: &str, name: &str) -> Result<(), ManifestError> {
    check_name(name).map_err(|error| invalid(at, format!("is no name: {error}")))
}

impl Sink {
    fn check(self, at: &str) -> Result<SinkSpec, ManifestError> {
        topic(&format!("{at}.topic"), &self.topic)?;
        let partitioner = self.partitioner(at)?;
        let on_error = self.on_error.map(|raw| raw.check(&format!("{at}.on_error"))).transpose()?;
        Ok(SinkSpec { from: self.from, topic: self.topic, partitioner, on_error })
    }

    fn partitioner(&self, at: &str) -> Result<SinkPartitioner, ManifestError> {
        let given = self.partitioner.as_deref().unwrap_or("murmur2");
        let native = partitioner::parse(given);
        let of_plugins =
            [("config", !self.config.is_empty()), ("limits", self.limits != LimitsSpec::default())];
        let of_plugin = of_plugins.iter().find(|(_, is_there)| *is_there);
        match (native, of_plugin) {
            (Ok(_), Some((key, _))) => {
                let reason =
                    format!("is for a plugin as partitioner: `{given}` is built in and takes nothing");
                Err(invalid(&format!("{at}.{key}"), reason))
            }
            (Ok(kind), None) => Ok(SinkPartitioner::Native(kind)),
            // Most likely a typing error, not the name of a plugin.
            (Err(hint), None) if hint.starts_with("did you mean") => {
                let reason = format!(
                    "is `{given}`; {hint} For a plugin of that name write `./{given}`, its directory, or \
                     `{given}@sha256:…`"
                );
                Err(invalid(&format!("{at}.partitioner"), reason))
            }
            (Err(_), _) => {
                let plugin = PluginRef::parse(given)
                    .map_err(|reason| invalid(&format!("{at}.partitioner"), reason))?;
                limits(at, &self.limits)?;
                let (config, limits) = (self.config.clone(), self.limits);
                Ok(SinkPartitioner::Plugin(Box::new(OperatorPlugin { plugin, config, limits })))
            }
        }
    }
}

/// Where a plugin places the records of a topic, it places all of them.
fn one_partitioner(at: &str, sink: &SinkSpec, before: &[SinkSpec]) -> Result<(), ManifestError> {
    let of_topic = before.iter().find(|other| other.topic == sink.topic);
    let with_plugin = |other: &&SinkSpec| sink.plugin().is_some() || other.plugin().is_some();
    match of_topic.filter(with_plugin) {
        Some(other) if other.partitioner != sink.partitioner => {
            let reason = format!(
                "is not that of the other sink of `{}`: a plugin places all records of its topic; say the same \
                 `partitioner`, `config` and `limits` in both",
                sink.topic
            );
            Err(invalid(at, reason))
        }
        _ => Ok(()),
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

/// Where something is kept.
fn store_kind(at: &str, given: &str) -> Result<StoreKind, ManifestError> {
    StoreKind::parse(given).ok_or_else(|| {
        invalid(at, format!("is `{given}`; {}", crate::nearest::hint(given, StoreKind::NAMES)))
    })
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

/// How a topic's producers place keys, if that is known.
pub(super) fn partitioner(at: &str, given: Option<String>) -> Result<Option<String>, ManifestError> {
    let Some(given) = given.filter(|given| given != "unknown") else { return Ok(None) };
    let known = partitioner::parse_of_producers(&given);
    let known =
        known.map_err(|hint| invalid(at, format!("is `{given}`; {hint} (\"unknown\" is an answer, too)")))?;
    Ok(known.map(|kind| kind.to_string()))
}

pub(super) fn range(at: &str, given: u32, min: u32, max: u32) -> Result<(), ManifestError> {
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

pub(super) fn id(at: &str, given: &str, ids: &mut BTreeSet<String>) -> Result<(), ManifestError> {
    name(at, given)?;
    if ids.insert(given.to_owned()) {
        return Ok(());
    }
    Err(invalid(at, format!("is `{given}`, which another source or node is called already")))
}

pub(super) fn topic(at: &str, given: &str) -> Result<(), ManifestError> {
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

pub(super) fn invalid(at: &str, reason: String) -> ManifestError {
    ManifestError::Invalid { at: at.to_owned(), reason }
}

pub(super) fn unknown(at: &str, given: &str, known: &[&str]) -> ManifestError {
    invalid(at, format!("is `{given}`; {}", crate::nearest::hint(given, known.iter().copied())))
}

//! A manifest, linked: who reads from whom. Its roots are sources, its leaves are sinks, and what has several inputs is built
//! in ([`graph`]). The sources that share nodes are a sub-topology, and a task is a sub-topology on one partition.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{LimitError, PluginLimits};
use crate::manifest::operator::Work;
use crate::manifest::values::Start;
use crate::manifest::{Manifest, NodeSpec, OnError};
use crate::nearest;
use crate::operator::Field;
use crate::partitioner::PartitionerKind;
use crate::plugin::PluginInfo;
use crate::plugin_manifest::{ConfigError, DEFAULT_OUTPUT_NAME, configure_untyped};
use crate::world::{Place, World};

mod build;
pub mod graph;
mod keys;
mod repartition;
mod tables;

pub use graph::{Graph, OperatorNode, StoreUse, Vertex};
pub use repartition::{KnownTopics, repartition_topic};

/// A manifest whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A pipeline must read and write something.
    #[error("the pipeline has no [[{0}]]")]
    Missing(&'static str),
    /// `from` names nothing.
    #[error("`{at}` reads from `{from}`, which is no source or node; {hint}")]
    UnknownFrom {
        /// Who reads.
        at: String,
        /// What it wants to read.
        from: String,
        /// The nearest known one, or all.
        hint: String,
    },
    /// `from` names an output that the plugin does not have.
    #[error("`{at}` reads the output `{output}` of `{from}`, which has no such output; {hint}")]
    UnknownOutput {
        /// Who reads.
        at: String,
        /// Whom it reads.
        from: String,
        /// The output it wants.
        output: String,
        /// The nearest known one, or all.
        hint: String,
    },
    /// Nodes read each other in a circle.
    #[error("node `{0}` cannot be reached from a source: nodes read each other in a circle")]
    Circle(String),
    /// Records would be processed for nobody.
    #[error("nothing reads from `{0}`: add a [[sink]] or a [[node]] with from = \"{0}\", or remove it")]
    DeadEnd(String),
    /// Two sources of one topic.
    #[error("`{0}` is the topic of two sources; let two nodes read from one source")]
    SameTopic(String),
    /// The pipeline would feed itself.
    #[error("the pipeline writes to the topic `{0}` and reads it: it would never come to rest")]
    Loop(String),
    /// A sink has a policy, and reads a node, which has one.
    #[error(
        "the sink `{topic}` reads `{from}`, whose own on_error decides about records that the topic does not take: leave the sink's out"
    )]
    SinkPolicy {
        /// The sink's topic.
        topic: String,
        /// The node.
        from: String,
    },
    /// A node's plugin was not given.
    #[error("the plugin of node `{0}` is not known")]
    NoPlugin(String),
    /// A node's plugin is of a world that nodes cannot run.
    #[error("node `{node}` runs a plugin of the world `{world}`, but a node needs `transform`")]
    WrongWorld {
        /// The node.
        node: String,
        /// What its plugin is.
        world: World,
    },
    /// Settings that do not fit the plugin.
    #[error("node `{node}`: {error}")]
    Config {
        /// The node.
        node: String,
        /// What does not fit.
        error: ConfigError,
    },
    /// Limits out of range.
    #[error("node `{node}`: {error}")]
    Limits {
        /// The node.
        node: String,
        /// Which one.
        error: LimitError,
    },
    /// A built-in operator cannot do this with what it reads.
    #[error("node `{node}` {reason}")]
    Operator {
        /// The node.
        node: String,
        /// What is wrong and what to do, as a text that follows the node.
        reason: String,
    },
    /// Two nodes would keep something under one name.
    #[error("two nodes would both have a store `{0}`: give one of them another id")]
    SameStore(String),
    /// State needs transactions.
    #[error(
        "node `{0}` keeps state, which needs guarantee = \"exactly-once\": at least once, records would be counted again after \
         a crash; leave `guarantee` out"
    )]
    StateAtLeastOnce(String),
    /// Records of one key are not in one partition.
    #[error(
        "node `{node}` needs all records of a key in one partition, but {why}, and topic `{topic}` has {partitions} partitions: \
         write the records under that key to a topic with a pipeline of its own, and read that one; or use a topic with one \
         partition"
    )]
    Scattered {
        /// The node.
        node: String,
        /// What has changed keys.
        why: String,
        /// A topic that is read.
        topic: String,
        /// How many partitions it has.
        partitions: u32,
    },
    /// Topics whose records meet in a node have different numbers of partitions.
    #[error(
        "node `{node}` needs the records of a key from topics `{first}` and `{second}` in partitions of one number, but they have \
         {first_partitions} and {second_partitions} partitions: create one of them again with as many as the other has"
    )]
    PartitionCounts {
        /// The node.
        node: String,
        /// A topic.
        first: String,
        /// Its partitions.
        first_partitions: u32,
        /// Another topic.
        second: String,
        /// Its partitions.
        second_partitions: u32,
    },
    /// A topic has more partitions than what is kept of its records.
    #[error(
        "topic `{topic}` has {partitions} partitions now, and what the pipeline keeps of its records is in {has} ({changelog}): \
         records of a key may be in another partition than what is kept of them. Deploy the pipeline under another name, to \
         read the topic from its start"
    )]
    Grown {
        /// The topic.
        topic: String,
        /// Its partitions.
        partitions: u32,
        /// The changelog of a store.
        changelog: String,
        /// The changelog's partitions.
        has: u32,
    },
    /// Topics whose records meet in a node may have their keys placed by different rules.
    #[error(
        "node `{node}` needs the records of a key from topics `{first}` and `{second}` in partitions of one number, but `{first}` \
         has its keys placed by {first_rule}, and `{second}` by {second_rule}: say in both sources how their producers place \
         keys, as partitioner = \"murmur2\" (Java clients and this server) or \"crc32\" (librdkafka), and have both do the same"
    )]
    Partitioners {
        /// The node.
        node: String,
        /// A topic.
        first: String,
        /// What is known of it.
        first_rule: String,
        /// Another topic.
        second: String,
        /// What is known of it.
        second_rule: String,
    },
}

/// A pipeline that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The pipeline's name.
    pub name: String,
    /// What is read, one tree each.
    pub sources: Vec<Source>,
    /// The plugins that are run.
    pub nodes: Vec<Node>,
    /// What is built in.
    pub operators: Vec<OperatorNode>,
    /// What is written: the sinks in the manifest's order, then dead-letter topics, then the changelogs of stores.
    pub outputs: Vec<OutputTopic>,
    /// Which sources are processed together: those that a node reads together.
    pub sub_topologies: Vec<SubTopology>,
}

/// Sources whose partitions of one number are processed by one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubTopology {
    /// Indexes in [`Topology::sources`].
    pub sources: Vec<usize>,
    /// How it is run if it has built-in operators; none: each source is the root of a tree of plugins.
    pub graph: Option<Graph>,
}

/// A topic that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in the manifest.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// Where to begin without a committed offset.
    pub start: Start,
    /// How its producers place keys, if known.
    pub partitioner: Option<String>,
    /// Where the time of a record is; none: in its timestamp.
    pub time: Option<Field>,
    /// It is read as a table; how far back what was before can be asked for, if it can.
    pub table: Option<Option<i64>>,
    /// It is a topic of the pipeline's own, between two of its sub-topologies, with so many partitions.
    pub repartition: Option<u32>,
    /// Who reads it.
    pub targets: Vec<Target>,
}

/// A plugin in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in the manifest.
    pub id: String,
    /// The component that runs.
    pub plugin: PluginInfo,
    /// What it is configured with, defaults filled in.
    pub config: Vec<(String, String)>,
    /// What it may use.
    pub limits: PluginLimits,
    /// What happens to records that it cannot process.
    pub on_error: OnError,
    /// The index in [`Topology::outputs`] of its dead-letter topic.
    pub dead_letter: Option<usize>,
    /// Who reads each of its outputs. One entry for each output of the plugin.
    pub outputs: Vec<Vec<Target>>,
    /// What it emits has the keys of what it is given.
    pub keeps_key: bool,
}

/// Who reads an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An index in [`Topology::nodes`].
    Node(usize),
    /// An index in [`Topology::operators`], and which input of it.
    Operator(usize, usize),
    /// An index in [`Topology::outputs`].
    Output(usize),
}

/// A topic that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTopic {
    /// The topic.
    pub topic: String,
    /// How keys are placed.
    pub partitioner: PartitionerKind,
    /// Whether it takes records that could not be processed, and not a sink's.
    pub dead_letter: bool,
    /// What happens to a record that the topic does not take, where a sink reads a source. What a node made goes by the
    /// node's.
    pub on_error: OnError,
    /// The index in [`Topology::outputs`] of its dead-letter topic.
    pub letters: Option<usize>,
    /// The sub-topology whose store has its changes there, partition by partition, if it is a changelog.
    pub changelog_of: Option<usize>,
    /// It is a topic of the pipeline's own, between two of its sub-topologies, with so many partitions.
    pub repartition: Option<u32>,
}

impl Target {
    fn vertex(self) -> Option<Vertex> {
        match self {
            Target::Node(node) => Some(Vertex::Node(node)),
            Target::Operator(operator, _) => Some(Vertex::Operator(operator)),
            Target::Output(_) => None,
        }
    }
}

impl Topology {
    /// Links a manifest with what is known of its plugins, by node, for topics with one partition.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn link(
        manifest: &Manifest,
        plugins: &BTreeMap<String, PluginInfo>,
    ) -> Result<Topology, TopologyError> {
        Topology::link_over(manifest, plugins, &|_| None)
    }

    /// The same for topics as they are: records of a key that would be in several partitions where a node needs them together
    /// go through topics of the pipeline's own.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn link_over(
        manifest: &Manifest,
        plugins: &BTreeMap<String, PluginInfo>,
        known: KnownTopics<'_>,
    ) -> Result<Topology, TopologyError> {
        let source = |s: &crate::manifest::SourceSpec| Source {
            id: s.id.clone(),
            topic: s.topic.clone(),
            start: s.start,
            partitioner: s.partitioner.clone(),
            time: s.time.clone(),
            table: None,
            repartition: None,
            targets: Vec::new(),
        };
        let table = |t: &crate::manifest::operator::TableSpec| Source {
            id: t.id.clone(),
            topic: t.topic.clone(),
            start: Start::Earliest,
            partitioner: t.partitioner.clone(),
            time: None,
            table: Some(t.history_ms),
            repartition: None,
            targets: Vec::new(),
        };
        let sink = |s: &crate::manifest::SinkSpec| OutputTopic {
            topic: s.topic.clone(),
            partitioner: s.partitioner,
            dead_letter: false,
            on_error: s.on_error.clone().unwrap_or(OnError::Fail),
            letters: None,
            changelog_of: None,
            repartition: None,
        };
        let mut topology = Topology {
            name: manifest.name.clone(),
            sources: manifest.sources.iter().map(source).chain(manifest.tables.iter().map(table)).collect(),
            nodes: Vec::with_capacity(manifest.nodes.len()),
            operators: Vec::with_capacity(manifest.operators.len()),
            outputs: manifest.sinks.iter().map(sink).collect(),
            sub_topologies: Vec::new(),
        };
        for spec in &manifest.nodes {
            let info = plugins.get(&spec.id).ok_or_else(|| TopologyError::NoPlugin(spec.id.clone()))?;
            let dead_letter = spec.on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
            topology.nodes.push(node(spec, info, dead_letter)?);
        }
        for spec in &manifest.operators {
            let dead_letter = spec.on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
            topology.operators.push(OperatorNode::new(spec, dead_letter));
        }
        for (i, spec) in manifest.nodes.iter().enumerate() {
            topology.connect(&spec.id, &spec.from, Target::Node(i))?;
        }
        topology.connect_operators(manifest)?;
        for (i, spec) in manifest.sinks.iter().enumerate() {
            topology.connect(&format!("sink {}", spec.topic), &spec.from, Target::Output(i))?;
            let Some(on_error) = &spec.on_error else { continue };
            if !topology.sources.iter().any(|source| source.id == spec.from) {
                let (topic, from) = (spec.topic.clone(), spec.from.clone());
                return Err(TopologyError::SinkPolicy { topic, from });
            }
            topology.outputs[i].letters =
                on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
        }
        topology.check()?;
        topology.link_operators(manifest, known)?;
        Ok(topology)
    }

    /// The nodes of a source's sub-topology that are built in, if it has any.
    pub fn graph_of(&self, source: usize) -> Option<&Graph> {
        self.sub_topologies[self.sub_topology_of(source)].graph.as_ref()
    }

    /// The sub-topology that a source is of.
    pub fn sub_topology_of(&self, source: usize) -> usize {
        let found = self.sub_topologies.iter().position(|sub| sub.sources.contains(&source));
        found.expect("every source is of a sub-topology")
    }

    /// The plugins that records of source `source` reach; of a tree in the order in which a step reaches them.
    pub fn nodes_of(&self, source: usize) -> Vec<usize> {
        let node = |vertex| if let Vertex::Node(node) = vertex { Some(node) } else { None };
        self.reached_from(source).into_iter().filter_map(node).collect()
    }

    /// All that records of a source reach, depth first.
    fn reached_from(&self, source: usize) -> Vec<Vertex> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<Target> = self.sources[source].targets.iter().rev().copied().collect();
        while let Some(target) = open.pop() {
            if let Some(vertex) = target.vertex().filter(|vertex| seen.insert(*vertex)) {
                found.push(vertex);
                open.extend(self.outputs_of(vertex).iter().flatten().rev());
            }
        }
        found
    }

    /// Who reads each output of a node.
    fn outputs_of(&self, vertex: Vertex) -> &[Vec<Target>] {
        match vertex {
            Vertex::Node(node) => &self.nodes[node].outputs,
            Vertex::Operator(operator) => &self.operators[operator].outputs,
        }
    }

    fn id_of(&self, vertex: Vertex) -> &str {
        match vertex {
            Vertex::Node(node) => &self.nodes[node].id,
            Vertex::Operator(operator) => &self.operators[operator].id,
        }
    }

    fn dead_letter(&mut self, topic: &str) -> usize {
        if let Some(known) =
            self.outputs.iter().position(|output| output.dead_letter && output.topic == topic)
        {
            return known;
        }
        self.add_output(topic.to_owned(), true, None)
    }

    /// A topic that no sink names.
    fn add_output(&mut self, topic: String, dead_letter: bool, changelog_of: Option<usize>) -> usize {
        let (partitioner, on_error, letters) = (PartitionerKind::Murmur2, OnError::Fail, None);
        self.outputs.push(OutputTopic {
            topic,
            partitioner,
            dead_letter,
            on_error,
            letters,
            changelog_of,
            repartition: None,
        });
        self.outputs.len() - 1
    }

    fn connect_operators(&mut self, manifest: &Manifest) -> Result<(), TopologyError> {
        for (i, spec) in manifest.operators.iter().enumerate() {
            for from in &spec.from {
                self.connect(&spec.id, from, Target::Operator(i, 0))?;
            }
            if let Work::Join(join) = &spec.work {
                self.connect(&spec.id, &join.with, Target::Operator(i, 1))?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, at: &str, from: &str, target: Target) -> Result<(), TopologyError> {
        let (id, output) = match from.split_once(':') {
            Some((id, output)) => (id, Some(output)),
            None => (from, None),
        };
        if let Some(source) = self.sources.iter_mut().find(|source| source.id == id) {
            if let Some(output) = output {
                return Err(unknown_output(at, id, output, &[]));
            }
            source.targets.push(target);
            return Ok(());
        }
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        let node = node.map(|node| (output_names(&node.plugin), &mut node.outputs));
        let operator = self.operators.iter_mut().find(|operator| operator.id == id);
        let operator = operator.map(|operator| (operator.output_names(), &mut operator.outputs));
        let Some((names, outputs)) = node.or(operator) else {
            let known =
                self.sources.iter().map(|s| s.id.as_str()).chain(self.nodes.iter().map(|n| n.id.as_str()));
            let known = known.chain(self.operators.iter().map(|operator| operator.id.as_str()));
            let hint = nearest::hint(id, known);
            return Err(TopologyError::UnknownFrom { at: at.to_owned(), from: id.to_owned(), hint });
        };
        let index = match output {
            None => Some(0),
            Some(output) => names.iter().position(|name| name == output),
        };
        match index {
            Some(index) => outputs[index].push(target),
            None => return Err(unknown_output(at, id, output.unwrap_or_default(), &names)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TopologyError> {
        if self.sources.is_empty() {
            return Err(TopologyError::Missing("source"));
        }
        if self.outputs.iter().all(|output| output.dead_letter) {
            return Err(TopologyError::Missing("sink"));
        }
        let mut reached = BTreeSet::new();
        for (i, source) in self.sources.iter().enumerate() {
            if source.targets.is_empty() {
                return Err(TopologyError::DeadEnd(source.id.clone()));
            }
            if self.sources[..i].iter().any(|other| other.topic == source.topic) {
                return Err(TopologyError::SameTopic(source.topic.clone()));
            }
            if self.outputs.iter().any(|output| output.topic == source.topic) {
                return Err(TopologyError::Loop(source.topic.clone()));
            }
            reached.extend(self.reached_from(i));
        }
        for vertex in self.vertices() {
            let id = || self.id_of(vertex).to_owned();
            if self.outputs_of(vertex).iter().all(Vec::is_empty) {
                return Err(TopologyError::DeadEnd(id()));
            }
            if !reached.contains(&vertex) {
                return Err(TopologyError::Circle(id()));
            }
        }
        Ok(())
    }

    fn vertices(&self) -> impl Iterator<Item = Vertex> + use<> {
        let (nodes, operators) = (self.nodes.len(), self.operators.len());
        (0..nodes).map(Vertex::Node).chain((0..operators).map(Vertex::Operator))
    }
}

fn node(spec: &NodeSpec, info: &PluginInfo, dead_letter: Option<usize>) -> Result<Node, TopologyError> {
    if info.world.spec().place != Place::Node {
        return Err(TopologyError::WrongWorld { node: spec.id.clone(), world: info.world });
    }
    let config = match &info.manifest {
        Some(manifest) => manifest.configure(&spec.config),
        None => configure_untyped(&spec.config),
    };
    let config = config.map_err(|error| TopologyError::Config { node: spec.id.clone(), error })?;
    let own = info.manifest.as_ref().map(|manifest| manifest.limits).unwrap_or_default();
    let limits = PluginLimits::resolve(&spec.limits, &own)
        .map_err(|error| TopologyError::Limits { node: spec.id.clone(), error })?;
    Ok(Node {
        id: spec.id.clone(),
        plugin: info.clone(),
        config,
        limits,
        on_error: spec.on_error.clone(),
        dead_letter,
        outputs: vec![Vec::new(); output_names(info).len()],
        keeps_key: spec.keeps_key,
    })
}

fn output_names(info: &PluginInfo) -> Vec<String> {
    match &info.manifest {
        Some(manifest) => manifest.outputs.clone(),
        None => vec![DEFAULT_OUTPUT_NAME.to_owned()],
    }
}

fn unknown_output(at: &str, from: &str, output: &str, known: &[String]) -> TopologyError {
    TopologyError::UnknownOutput {
        at: at.to_owned(),
        from: from.to_owned(),
        output: output.to_owned(),
        hint: nearest::hint(output, known.iter().map(String::as_str)),
    }
}

#[cfg(test)]
mod tests;

//! A manifest, linked: who reads from whom. A forest whose roots are sources and whose leaves are sinks. The sources that share
//! nodes are a sub-topology, and a task is a sub-topology on one partition.

use std::collections::BTreeMap;

use crate::limits::{LimitError, PluginLimits};
use crate::manifest::values::Start;
use crate::manifest::{Manifest, NodeSpec, OnError};
use crate::nearest;
use crate::partitioner::PartitionerKind;
use crate::plugin::PluginInfo;
use crate::plugin_manifest::{ConfigError, DEFAULT_OUTPUT_NAME, configure_untyped};
use crate::world::{Place, World};

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
}

/// A pipeline that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The pipeline's name.
    pub name: String,
    /// What is read, one tree each.
    pub sources: Vec<Source>,
    /// What is run.
    pub nodes: Vec<Node>,
    /// What is written: the sinks in the manifest's order, then dead-letter topics.
    pub outputs: Vec<OutputTopic>,
    /// Which sources are processed together. One source each, as long as no node reads two of them.
    pub sub_topologies: Vec<SubTopology>,
}

/// Sources whose partitions of one number are processed by one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubTopology {
    /// Indexes in [`Topology::sources`].
    pub sources: Vec<usize>,
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
}

/// Who reads an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An index in [`Topology::nodes`].
    Node(usize),
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
}

impl Topology {
    /// Links a manifest with what is known of its plugins, by node.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn link(
        manifest: &Manifest,
        plugins: &BTreeMap<String, PluginInfo>,
    ) -> Result<Topology, TopologyError> {
        let source = |s: &crate::manifest::SourceSpec| Source {
            id: s.id.clone(),
            topic: s.topic.clone(),
            start: s.start,
            targets: Vec::new(),
        };
        let sink = |s: &crate::manifest::SinkSpec| OutputTopic {
            topic: s.topic.clone(),
            partitioner: s.partitioner,
            dead_letter: false,
            on_error: s.on_error.clone().unwrap_or(OnError::Fail),
            letters: None,
        };
        let mut topology = Topology {
            name: manifest.name.clone(),
            sources: manifest.sources.iter().map(source).collect(),
            nodes: Vec::with_capacity(manifest.nodes.len()),
            outputs: manifest.sinks.iter().map(sink).collect(),
            sub_topologies: (0..manifest.sources.len())
                .map(|source| SubTopology { sources: vec![source] })
                .collect(),
        };
        for spec in &manifest.nodes {
            let info = plugins.get(&spec.id).ok_or_else(|| TopologyError::NoPlugin(spec.id.clone()))?;
            let dead_letter = spec.on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
            topology.nodes.push(node(spec, info, dead_letter)?);
        }
        for (i, spec) in manifest.nodes.iter().enumerate() {
            topology.connect(&spec.id, &spec.from, Target::Node(i))?;
        }
        for (i, spec) in manifest.sinks.iter().enumerate() {
            topology.connect(&format!("sink {}", spec.topic), &spec.from, Target::Output(i))?;
            let Some(on_error) = &spec.on_error else { continue };
            if !manifest.sources.iter().any(|source| source.id == spec.from) {
                let (topic, from) = (spec.topic.clone(), spec.from.clone());
                return Err(TopologyError::SinkPolicy { topic, from });
            }
            topology.outputs[i].letters =
                on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
        }
        topology.check()?;
        Ok(topology)
    }

    /// The sub-topology that a source is of.
    pub fn sub_topology_of(&self, source: usize) -> usize {
        let found = self.sub_topologies.iter().position(|sub| sub.sources.contains(&source));
        found.expect("every source is of a sub-topology")
    }

    /// The tree of source `source`, nodes in the order in which a step reaches them.
    pub fn nodes_of(&self, source: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut open: Vec<Target> = self.sources[source].targets.iter().rev().copied().collect();
        while let Some(target) = open.pop() {
            if let Target::Node(i) = target {
                found.push(i);
                open.extend(self.nodes[i].outputs.iter().flatten().rev());
            }
        }
        found
    }

    fn dead_letter(&mut self, topic: &str) -> usize {
        if let Some(known) =
            self.outputs.iter().position(|output| output.dead_letter && output.topic == topic)
        {
            return known;
        }
        let partitioner = PartitionerKind::Murmur2;
        let (topic, on_error, letters) = (topic.to_owned(), OnError::Fail, None);
        self.outputs.push(OutputTopic { topic, partitioner, dead_letter: true, on_error, letters });
        self.outputs.len() - 1
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
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else {
            let known =
                self.sources.iter().map(|s| s.id.as_str()).chain(self.nodes.iter().map(|n| n.id.as_str()));
            let hint = nearest::hint(id, known);
            return Err(TopologyError::UnknownFrom { at: at.to_owned(), from: id.to_owned(), hint });
        };
        let names = output_names(&node.plugin);
        let index = match output {
            None => Some(0),
            Some(output) => names.iter().position(|name| name == output),
        };
        match index {
            Some(index) => node.outputs[index].push(target),
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
        let mut reached = vec![false; self.nodes.len()];
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
            for node in self.nodes_of(i) {
                reached[node] = true;
            }
        }
        for (node, reached) in self.nodes.iter().zip(reached) {
            if node.outputs.iter().all(Vec::is_empty) {
                return Err(TopologyError::DeadEnd(node.id.clone()));
            }
            if !reached {
                return Err(TopologyError::Circle(node.id.clone()));
            }
        }
        Ok(())
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

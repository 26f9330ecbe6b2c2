//! A manifest, linked: who reads from whom. Its roots are sources, its leaves are sinks, and what has several inputs is built
//! in ([`graph`]). The sources that share nodes are a sub-topology, and a task is a sub-topology on one partition.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::limits::PluginLimits;
use crate::manifest::consumer::ConsumerSpec;
use crate::manifest::operator::{GlobalSpec, Work};
use crate::manifest::stores::NodeStoreSpec;
use crate::manifest::values::Start;
use crate::manifest::{Manifest, OnError, SinkSpec};
use crate::nearest;
use crate::operator::Field;
use crate::partitioner::PartitionerKind;
use crate::plugin::PluginInfo;
use crate::plugin_manifest::DEFAULT_OUTPUT_NAME;
use crate::state::StoreKind;
use crate::task::TaskId;

mod build;
mod consumers;
mod error;
mod foreign;
pub mod graph;
mod grouped;
mod keys;
mod placement;
mod plugins;
mod repartition;
mod resolve;
mod tables;

pub use error::TopologyError;
pub use graph::{Graph, OperatorNode, StoreUse, Vertex};
pub use placement::Recorded;
pub use plugins::OperatorPlugin;
pub use repartition::{KnownTopics, repartition_topic};

/// A pipeline that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The pipeline's name.
    pub name: String,
    /// Where nodes keep what they keep, unless they say so themselves.
    pub store: StoreKind,
    /// What is read, one tree each.
    pub sources: Vec<Source>,
    /// The plugins that are run.
    pub nodes: Vec<Node>,
    /// What is built in.
    pub operators: Vec<OperatorNode>,
    /// The tables of which the process has one whole copy, which are read beside the records.
    pub globals: Vec<GlobalSpec>,
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
    /// Its sources are partitions of one topic, whose records are taken in the order of their offsets.
    pub by_offset: bool,
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
    /// The only partition of the topic that is read, by the task with the number 0.
    pub only: Option<i32>,
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
    /// What it keeps, in the order of names.
    pub stores: Vec<NodeStoreSpec>,
    /// It sets timers, which are kept as well.
    pub has_timers: bool,
    /// What it keeps is of the partition, not of a key.
    pub by_partition: bool,
    /// Where what it keeps is, if the manifest says so.
    pub(crate) store: Option<StoreKind>,
    /// It acts on the outside and hands nothing on: how records are given to it.
    pub consumer: Option<ConsumerSpec>,
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

/// Who says which partition a record goes to.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputPartitioner {
    /// By a rule that clients have, too.
    Native(PartitionerKind),
    /// By a plugin.
    Plugin(Box<OperatorPlugin>),
}

impl OutputPartitioner {
    /// The rule where no plugin decides; beside a plugin it decides nothing.
    pub(crate) fn native(&self) -> PartitionerKind {
        match self {
            OutputPartitioner::Native(kind) => *kind,
            OutputPartitioner::Plugin(_) => PartitionerKind::default(),
        }
    }

    /// The plugin that does, if one does.
    pub fn plugin(&self) -> Option<&OperatorPlugin> {
        match self {
            OutputPartitioner::Native(_) => None,
            OutputPartitioner::Plugin(plugin) => Some(plugin),
        }
    }
}

/// A topic that is written.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputTopic {
    /// The topic.
    pub topic: String,
    /// How keys are placed.
    pub partitioner: OutputPartitioner,
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
            only: None,
            targets: Vec::new(),
        };
        // The partitions of an intake are sources of one name.
        let sources = |s: &crate::manifest::SourceSpec| match s.intake {
            None => vec![source(s)],
            Some(partitions) => (0..i32::try_from(partitions).unwrap_or(i32::MAX))
                .map(|partition| Source { only: Some(partition), ..source(s) })
                .collect(),
        };
        let table = |t: &crate::manifest::operator::TableSpec| Source {
            id: t.id.clone(),
            topic: t.topic.clone(),
            start: Start::Earliest,
            partitioner: t.partitioner.clone(),
            time: None,
            table: Some(t.history_ms),
            repartition: None,
            only: None,
            targets: Vec::new(),
        };
        let sink = |s: &SinkSpec, partitioner| OutputTopic {
            topic: s.topic.clone(),
            partitioner,
            dead_letter: false,
            on_error: s.on_error.clone().unwrap_or(OnError::Fail),
            letters: None,
            changelog_of: None,
            repartition: None,
        };
        let sinks = manifest.sinks.iter();
        let outputs = sinks.map(|spec| Ok(sink(spec, plugins::output_partitioner(spec, plugins)?)));
        let mut topology = Topology {
            name: manifest.name.clone(),
            store: manifest.store,
            sources: manifest
                .sources
                .iter()
                .flat_map(sources)
                .chain(manifest.tables.iter().map(table))
                .collect(),
            nodes: Vec::with_capacity(manifest.nodes.len()),
            operators: Vec::with_capacity(manifest.operators.len()),
            globals: manifest.globals.clone(),
            outputs: outputs.collect::<Result<_, TopologyError>>()?,
            sub_topologies: Vec::new(),
        };
        for spec in &manifest.nodes {
            let info = plugins.get(&spec.id).ok_or_else(|| TopologyError::NoPlugin(spec.id.clone()))?;
            let dead_letter = spec.on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
            topology.nodes.push(plugins::node(spec, info, dead_letter)?);
        }
        for spec in &manifest.operators {
            let dead_letter = spec.on_error.dead_letter_topic().map(|topic| topology.dead_letter(topic));
            let plugin =
                spec.plugin.as_ref().map(|plugin| plugins::operator_plugin(&spec.id, plugin, plugins));
            topology.operators.push(OperatorNode::new(spec, dead_letter, plugin.transpose()?));
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
        topology.part_consumers(manifest.guarantee, known)?;
        topology.link_operators(manifest, known)?;
        Ok(topology)
    }

    /// Says of all its plugins what an operator says over its manifest. The values are within their ranges.
    pub fn limit(&mut self, said: &crate::limits::LimitsSpec) {
        let of_nodes = self.nodes.iter_mut().map(|node| &mut node.limits);
        let operators = self.operators.iter_mut().filter_map(|node| node.plugin.as_mut());
        let outputs = self.outputs.iter_mut().filter_map(|output| match &mut output.partitioner {
            OutputPartitioner::Plugin(plugin) => Some(&mut plugin.limits),
            OutputPartitioner::Native(_) => None,
        });
        for limits in of_nodes.chain(operators.map(|plugin| &mut plugin.limits)).chain(outputs) {
            *limits = limits.under(said);
        }
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

    /// Whether it is what routes the records of a topic with a server-side partitioner.
    pub fn is_router(&self) -> bool {
        self.sub_topologies.iter().any(|sub| sub.by_offset)
    }

    /// The task that reads a partition of a source.
    pub fn task_of(&self, source: usize, partition: i32) -> TaskId {
        let partition = if self.sources[source].only.is_some() { 0 } else { partition };
        TaskId { sub_topology: self.sub_topology_of(source), partition }
    }

    /// Whether a source reads a partition of its topic.
    pub fn takes(&self, source: usize, partition: i32) -> bool {
        self.sources[source].only.is_none_or(|only| only == partition)
    }

    /// Whether a source is of the same intake as others: they have one name.
    fn is_of_intake(&self, source: usize, others: &[usize]) -> bool {
        others.iter().any(|other| self.sources[*other].id == self.sources[source].id)
    }

    /// The plugins that records of source `source` reach; of a tree in the order in which a step reaches them.
    pub fn nodes_of(&self, source: usize) -> Vec<usize> {
        let node = |vertex| if let Vertex::Node(node) = vertex { Some(node) } else { None };
        self.reached_from(source).into_iter().filter_map(node).collect()
    }

    /// The operators with a plugin that records of a source reach.
    pub fn aggregators_of(&self, source: usize) -> Vec<usize> {
        let reached = self.reached_from(source).into_iter();
        let operator = |vertex| if let Vertex::Operator(operator) = vertex { Some(operator) } else { None };
        reached.filter_map(operator).filter(|operator| self.operators[*operator].plugin.is_some()).collect()
    }

    /// The outputs that a plugin places records of: an index in [`Topology::outputs`], what the plugin is called among
    /// those of nodes, and the plugin.
    pub fn partitioners(&self) -> impl Iterator<Item = (usize, String, &OperatorPlugin)> {
        self.outputs.iter().enumerate().filter_map(|(i, output)| {
            Some((i, SinkSpec::plugin_id(&output.topic), output.partitioner.plugin()?))
        })
    }

    /// The component that a node runs, if it runs one.
    pub fn component_of(&self, node: &str) -> Option<Digest> {
        let plugin = self.nodes.iter().find(|known| known.id == node).map(|known| known.plugin.digest);
        let operator = || self.operators.iter().find(|known| known.id == node)?.plugin.as_ref();
        plugin.or_else(|| Some(operator()?.info.digest))
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

    pub(crate) fn id_of(&self, vertex: Vertex) -> &str {
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
        let partitioner = OutputPartitioner::Native(PartitionerKind::Murmur2);
        let (on_error, letters) = (OnError::Fail, None);
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
            if let Work::Join(join) = &spec.work
                && self.global(&join.with).is_none()
            {
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
        if self.global(id).is_some() {
            return Err(TopologyError::GlobalRead { at: at.to_owned(), table: id.to_owned() });
        }
        if self.sources.iter().any(|source| source.id == id) {
            if let Some(output) = output {
                return Err(unknown_output(at, id, output, &[]));
            }
            let of_name = self.sources.iter_mut().filter(|source| source.id == id);
            of_name.for_each(|source| source.targets.push(target));
            return Ok(());
        }
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        if node.as_ref().is_some_and(|node| node.consumer.is_some()) {
            return Err(TopologyError::GivesNothing { at: at.to_owned(), from: id.to_owned() });
        }
        let node = node.map(|node| (output_names(&node.plugin), &mut node.outputs));
        let operator = self.operators.iter_mut().find(|operator| operator.id == id);
        let has_first = !matches!(&operator, Some(operator) if matches!(operator.work, Work::Branch(_)));
        let operator = operator.map(|operator| (operator.output_names(), &mut operator.outputs));
        let Some((names, outputs)) = node.or(operator) else {
            let known =
                self.sources.iter().map(|s| s.id.as_str()).chain(self.nodes.iter().map(|n| n.id.as_str()));
            let known = known.chain(self.operators.iter().map(|operator| operator.id.as_str()));
            let known = known.chain(self.globals.iter().map(|global| global.id.as_str()));
            let hint = nearest::hint(id, known);
            return Err(TopologyError::UnknownFrom { at: at.to_owned(), from: id.to_owned(), hint });
        };
        let index = match output {
            None if has_first => Some(0),
            None => {
                let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                return Err(TopologyError::WhichOutput { at: at.to_owned(), from: id.to_owned(), names });
            }
            Some(output) => names.iter().position(|name| name == output),
        };
        match index {
            Some(index) => outputs[index].push(target),
            None => return Err(unknown_output(at, id, output.unwrap_or_default(), &names)),
        }
        Ok(())
    }

    /// The global table of an id, by index.
    fn global(&self, id: &str) -> Option<usize> {
        self.globals.iter().position(|global| global.id == id)
    }

    /// Whether a node joins records with a global table.
    fn is_joined(&self, global: &str) -> bool {
        let with = |operator: &OperatorNode| match &operator.work {
            Work::Join(join) => join.with == global,
            _ => false,
        };
        self.operators.iter().any(with)
    }

    fn check(&self) -> Result<(), TopologyError> {
        if self.sources.is_empty() {
            return Err(TopologyError::NoSource);
        }
        let is_written = self.outputs.iter().any(|output| !output.dead_letter);
        if !is_written && !self.vertices().any(|vertex| self.is_asked(vertex)) {
            return Err(TopologyError::NoSink);
        }
        if let Some(global) = self.globals.iter().find(|global| !self.is_joined(&global.id)) {
            return Err(TopologyError::GlobalUnused(global.id.clone()));
        }
        let mut reached = BTreeSet::new();
        for (i, source) in self.sources.iter().enumerate() {
            if source.targets.is_empty() {
                return Err(TopologyError::DeadEnd(source.id.clone()));
            }
            if self.sources[..i].iter().any(|other| other.topic == source.topic && other.id != source.id) {
                return Err(TopologyError::SameTopic(source.topic.clone()));
            }
            if self.outputs.iter().any(|output| output.topic == source.topic) {
                return Err(TopologyError::Loop(source.topic.clone()));
            }
            reached.extend(self.reached_from(i));
        }
        for vertex in self.vertices() {
            let id = || self.id_of(vertex).to_owned();
            if self.outputs_of(vertex).iter().all(Vec::is_empty) && !self.is_asked(vertex) {
                return Err(TopologyError::DeadEnd(id()));
            }
            if !reached.contains(&vertex) {
                return Err(TopologyError::Circle(id()));
            }
        }
        Ok(())
    }

    /// Whether people ask for what a node has made, or it acts on the outside, so that nothing needs to read it.
    fn is_asked(&self, vertex: Vertex) -> bool {
        match vertex {
            Vertex::Operator(operator) => matches!(self.operators[operator].work, Work::Aggregate(_)),
            Vertex::Node(node) => self.nodes[node].consumer.is_some(),
        }
    }

    fn vertices(&self) -> impl Iterator<Item = Vertex> + use<> {
        let (nodes, operators) = (self.nodes.len(), self.operators.len());
        (0..nodes).map(Vertex::Node).chain((0..operators).map(Vertex::Operator))
    }
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

//! Built-in operators in their places: what they read (streams or tables), what they keep, and in which order a task runs
//! them.

use std::collections::BTreeSet;

use super::plugins::OperatorPlugin;
use super::{KnownTopics, SubTopology, Target, Topology, TopologyError};
use crate::manifest::operator::{AggregateWork, DeduplicateWork, OperatorSpec, Work};
use crate::manifest::{Guarantee, Manifest, OnError, REST_OUTPUT_NAME};
use crate::operator::aggregate::AggregateSpec;
use crate::operator::{
    Closing, Condition, Emit, Field, JoinKind, JoinWindow, JsonJoin, LATE, Late, Selection, WindowSpec,
};
use crate::plugin_manifest::DEFAULT_OUTPUT_NAME;
use crate::state::{StoreKind, StoreSpec};

/// What the output for late records is called.
const LATE_OUTPUT_NAME: &str = "late";

/// A node of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vertex {
    /// An index in [`Topology::nodes`].
    Node(usize),
    /// An index in [`Topology::operators`].
    Operator(usize),
}

/// A sub-topology with built-in operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// Its nodes, each behind all that it reads.
    pub order: Vec<Vertex>,
    /// What each of its tasks keeps, in the order in which the stores of a task are numbered.
    pub stores: Vec<StoreUse>,
    /// What it asks of the topics that it reads.
    pub(super) needs: Needs,
}

/// What a sub-topology asks of the partitions of its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The node that would need records of a key from several partitions, and what has changed keys before it.
    pub(super) one_partition: Option<(String, String)>,
    /// The node in which records of several sources meet by key.
    pub(super) co_partitioned: Option<String>,
}

/// A store of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUse {
    /// How the task opens it. Its name is that of its node, and where a node has several, what it is for.
    pub spec: StoreSpec,
    /// Whose it is.
    pub owner: Vertex,
    /// What its entries mean: two revisions of a pipeline can share a store if they say the same.
    pub shape: String,
    /// Where its changes go: an index in [`Topology::outputs`].
    pub changelog: usize,
}

/// The changelog topic of a store: a topic of the server's own, which clients may read.
pub fn changelog_topic(pipeline: &str, store: &str) -> String {
    format!("__pelton_{pipeline}-{store}-changelog")
}

/// A built-in operator in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorNode {
    /// Its name in the manifest.
    pub id: String,
    /// What happens to records that it cannot process.
    pub on_error: OnError,
    /// The index in [`Topology::outputs`] of its dead-letter topic.
    pub dead_letter: Option<usize>,
    /// Who reads each of its outputs.
    pub outputs: Vec<Vec<Target>>,
    /// What its results are called among tables, if the manifest says so.
    pub(super) table: Option<String>,
    /// Where what it keeps is, if the manifest says so.
    store: Option<StoreKind>,
    pub(super) work: Work,
    /// What it is, once what it reads is known.
    pub(super) kind: Kind,
    /// Its rows say what was before: a table is made of them that needs it.
    pub(super) tells_old: bool,
    /// What it reads comes under the key that it goes by already.
    pub(super) keyed: bool,
    /// The plugin that it aggregates with, if it does.
    pub plugin: Option<OperatorPlugin>,
}

/// What an operator is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Merge,
    /// Records get a field as their key.
    SelectKey {
        by: Field,
        /// One without the field goes on without a key.
        keeps_null: bool,
    },
    /// Records under a field as their key, which have their own key in a header.
    KeyAside {
        by: Field,
    },
    /// Rows of a table as records of the groups that they leave and come into, for a topic.
    GroupTable {
        by: Field,
    },
    /// A table that is grouped, so that what a row replaces must be known.
    Table,
    Aggregate {
        by: Option<Field>,
        spec: AggregateSpec,
        window: Option<(WindowSpec, Closing)>,
    },
    AggregateTable {
        by: Field,
        spec: AggregateSpec,
    },
    Deduplicate(DeduplicateWork),
    JoinStreams {
        kind: JoinKind,
        window: JoinWindow,
        result: JsonJoin,
    },
    JoinTable {
        is_left: bool,
        history_ms: Option<i64>,
        wait_ms: Option<i64>,
        result: JsonJoin,
    },
    JoinTables {
        kind: JoinKind,
        result: JsonJoin,
    },
    /// Tables joined by a field of the left one: the half where left rows are.
    ForeignLeft {
        by: Field,
        is_left: bool,
        result: JsonJoin,
    },
    /// The half where right rows are.
    ForeignRight,
    /// Rows of which a condition is true; of a table those that are in it then.
    Filter {
        of_table: bool,
        condition: Condition,
    },
    Branch(Vec<Condition>),
    Select {
        of_table: bool,
        selection: Selection,
    },
    FlatMap(Vec<String>),
    JoinGlobal {
        /// An index in [`Topology::globals`].
        table: usize,
        by: Field,
        is_left: bool,
        result: JsonJoin,
    },
}

impl Kind {
    /// Whether it keeps something.
    pub(super) fn is_stateful(&self) -> bool {
        !self.stores().is_empty()
    }

    /// Whether it has two inputs.
    pub(super) fn is_join(&self) -> bool {
        matches!(
            self,
            Kind::JoinStreams { .. }
                | Kind::JoinTable { .. }
                | Kind::JoinTables { .. }
                | Kind::ForeignLeft { .. }
                | Kind::ForeignRight
        )
    }

    /// The stores that it needs: what the name of each has behind the node's id, and whether ranges of it are read.
    pub(super) fn stores(&self) -> Vec<(&'static str, bool)> {
        let members = |spec: &AggregateSpec| spec.has_members().then_some(("-members", true));
        match self {
            Kind::Merge
            | Kind::SelectKey { .. }
            | Kind::GroupTable { .. }
            | Kind::KeyAside { .. }
            | Kind::Filter { .. }
            | Kind::Branch(_)
            | Kind::Select { .. }
            | Kind::FlatMap(_)
            | Kind::JoinGlobal { .. } => Vec::new(),
            Kind::Table => vec![("", false)],
            Kind::Aggregate { spec, window, .. } => {
                [Some(("", window.is_some())), members(spec)].into_iter().flatten().collect()
            }
            Kind::AggregateTable { spec, .. } => {
                [Some(("", false)), members(spec)].into_iter().flatten().collect()
            }
            Kind::Deduplicate(_) | Kind::JoinStreams { .. } => vec![("", true)],
            Kind::JoinTable { history_ms, wait_ms, .. } => {
                let history = history_ms.map(|_| ("-history", true));
                let waiting = wait_ms.map(|_| ("-waiting", true));
                [Some(("-table", history_ms.is_some())), history, waiting].into_iter().flatten().collect()
            }
            Kind::JoinTables { .. } => vec![("-left", false), ("-right", false)],
            Kind::ForeignLeft { .. } => vec![("-left", false), ("-results", false)],
            Kind::ForeignRight => vec![("-right", false), ("-subscriptions", true)],
        }
    }

    /// What its stores' entries mean. What only says when something is sent is not in it.
    fn shape(&self, plugin: Option<&OperatorPlugin>) -> String {
        let by = |by: &Option<Field>| by.as_ref().map_or("key".to_owned(), Field::to_string);
        let functions = |spec: &AggregateSpec| {
            if let Some(plugin) = plugin {
                return plugin.shape();
            }
            let functions = spec.parts.iter().map(|part| format!("{}={}", part.name, part.function));
            functions.collect::<Vec<_>>().join(" ")
        };
        match self {
            Kind::Merge
            | Kind::SelectKey { .. }
            | Kind::GroupTable { .. }
            | Kind::KeyAside { .. }
            | Kind::Filter { .. }
            | Kind::Branch(_)
            | Kind::Select { .. }
            | Kind::FlatMap(_)
            | Kind::JoinGlobal { .. } => String::new(),
            Kind::Table => "table".to_owned(),
            Kind::Aggregate { by: group, spec, window } => {
                let window = match window {
                    None => "no windows".to_owned(),
                    Some((WindowSpec::Hopping { size_ms, advance_ms }, _)) => {
                        format!("windows of {size_ms} ms, every {advance_ms} ms")
                    }
                    Some((WindowSpec::Sliding { size_ms }, _)) => format!("sliding windows of {size_ms} ms"),
                    Some((WindowSpec::Session { gap_ms }, _)) => format!("sessions with gaps of {gap_ms} ms"),
                };
                format!("{} by {}, {window}", functions(spec), by(group))
            }
            Kind::AggregateTable { by, spec } => format!("{} of a table by {by}", functions(spec)),
            Kind::Deduplicate(work) => format!("one seen in each {} ms by {}", work.within_ms, by(&work.by)),
            Kind::JoinStreams { window: JoinWindow { before_ms, after_ms, .. }, .. } => {
                format!("rows of two streams, {before_ms} ms before to {after_ms} ms after")
            }
            Kind::JoinTable { history_ms, .. } => match history_ms {
                None => "a table".to_owned(),
                Some(history_ms) => format!("a table with a history of {history_ms} ms"),
            },
            Kind::JoinTables { .. } => "two tables".to_owned(),
            Kind::ForeignLeft { by, .. } => format!("a table and its results, joined by {by}"),
            Kind::ForeignRight => "a table and who asks for its rows".to_owned(),
        }
    }
}

impl OperatorNode {
    pub(super) fn new(
        spec: &OperatorSpec,
        dead_letter: Option<usize>,
        plugin: Option<OperatorPlugin>,
    ) -> OperatorNode {
        let mut node = OperatorNode {
            id: spec.id.clone(),
            on_error: spec.on_error.clone(),
            dead_letter,
            outputs: Vec::new(),
            table: spec.table.clone(),
            store: spec.store,
            work: spec.work.clone(),
            kind: Kind::Merge,
            tells_old: false,
            keyed: false,
            plugin,
        };
        node.outputs = vec![Vec::new(); node.output_names().len()];
        node
    }

    /// The table that a source is, where what its rows replace must be known.
    pub(super) fn table(id: &str) -> OperatorNode {
        OperatorNode {
            id: id.to_owned(),
            on_error: OnError::Fail,
            dead_letter: None,
            outputs: vec![Vec::new()],
            table: None,
            store: None,
            work: Work::Merge,
            kind: Kind::Table,
            tells_old: true,
            keyed: false,
            plugin: None,
        }
    }

    /// What gives the records for a node the key that it goes by. It counts and fails as the node.
    pub(super) fn before(
        id: &str,
        on_error: OnError,
        dead_letter: Option<usize>,
        kind: Kind,
        to: Target,
    ) -> OperatorNode {
        let (id, outputs, work) = (id.to_owned(), vec![vec![to]], Work::Merge);
        let (table, store, tells_old, keyed, plugin) = (None, None, false, false, None);
        OperatorNode {
            id,
            on_error,
            dead_letter,
            outputs,
            table,
            store,
            work,
            kind,
            tells_old,
            keyed,
            plugin,
        }
    }

    pub(super) fn output_names(&self) -> Vec<String> {
        let late = match &self.work {
            Work::Branch(branches) => {
                let names = branches.iter().map(|(name, _)| name.clone());
                return names.chain([REST_OUTPUT_NAME.to_owned()]).collect();
            }
            Work::Aggregate(AggregateWork { window: Some((_, closing)), .. }) => closing.late,
            Work::Deduplicate(work) => work.late,
            Work::Aggregate(_)
            | Work::Merge
            | Work::Join(_)
            | Work::Filter(_)
            | Work::Select(_)
            | Work::FlatMap(_) => Late::Drop,
        };
        let names = [Some(DEFAULT_OUTPUT_NAME), (late == Late::Emit).then_some(LATE_OUTPUT_NAME)];
        names.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Whether what leaves by an output is a table: a row of it replaces the one of its key before.
    fn is_table(&self, output: usize) -> bool {
        match &self.kind {
            // A final result of a window comes once.
            Kind::Aggregate { window: Some((_, closing)), .. } => {
                closing.emit == Emit::OnUpdate && output != LATE
            }
            Kind::Table
            | Kind::Aggregate { .. }
            | Kind::AggregateTable { .. }
            | Kind::JoinTables { .. }
            | Kind::ForeignLeft { .. } => true,
            Kind::Filter { of_table, .. } | Kind::Select { of_table, .. } => *of_table,
            Kind::Merge
            | Kind::SelectKey { .. }
            | Kind::GroupTable { .. }
            | Kind::KeyAside { .. }
            | Kind::Deduplicate(_)
            | Kind::JoinStreams { .. }
            | Kind::JoinTable { .. }
            | Kind::Branch(_)
            | Kind::FlatMap(_)
            | Kind::ForeignRight
            | Kind::JoinGlobal { .. } => false,
        }
    }
}

/// What an input of an operator reads.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reads {
    pub(super) is_table: bool,
    /// All that is read is this source.
    pub(super) history_ms: Option<i64>,
}

impl Topology {
    /// Finds out what operators are, and which sources are processed together.
    pub(super) fn link_operators(
        &mut self,
        manifest: &Manifest,
        known: KnownTopics<'_>,
    ) -> Result<(), TopologyError> {
        self.keep_grouped_tables();
        let order = self.order()?;
        for vertex in &order {
            if let Vertex::Operator(operator) = *vertex {
                self.resolve(operator)?;
            }
        }
        self.key_joins();
        self.repartition(&self.order()?, known)?;
        let order = self.order()?;
        // Whoever is asked for what was before is behind who gives it.
        for vertex in order.iter().rev() {
            let Vertex::Operator(operator) = *vertex else { continue };
            let node = &self.operators[operator];
            let asks = match node.kind {
                Kind::AggregateTable { .. } => !node.keyed,
                Kind::Filter { .. } | Kind::Select { .. } => node.tells_old,
                ref kind => matches!(kind, Kind::GroupTable { .. }),
            };
            if asks {
                for (vertex, _) in self.read_by(operator, 0) {
                    if let Some(Vertex::Operator(read)) = vertex {
                        self.operators[read].tells_old = true;
                    }
                }
            }
        }
        self.sub_topologies = self.group_sources(&order);
        self.add_changelogs()?;
        match self.vertices().find(|vertex| self.is_stateful(*vertex)) {
            Some(vertex) if manifest.guarantee == Guarantee::AtLeastOnce => {
                Err(TopologyError::StateAtLeastOnce(self.id_of(vertex).to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a node keeps something.
    pub(super) fn is_stateful(&self, vertex: Vertex) -> bool {
        match vertex {
            Vertex::Node(node) => self.nodes[node].has_timers || !self.nodes[node].stores.is_empty(),
            Vertex::Operator(operator) => self.operators[operator].kind.is_stateful(),
        }
    }

    fn add_changelogs(&mut self) -> Result<(), TopologyError> {
        let mut names = BTreeSet::new();
        for sub in 0..self.sub_topologies.len() {
            let Some(mut graph) = self.sub_topologies[sub].graph.take() else { continue };
            for store in &mut graph.stores {
                if !names.insert(store.spec.name.clone()) {
                    return Err(TopologyError::SameStore(store.spec.name.clone()));
                }
                let topic = changelog_topic(&self.name, &store.spec.name);
                store.changelog = self.add_output(topic, false, Some(sub));
            }
            self.sub_topologies[sub].graph = Some(graph);
        }
        Ok(())
    }

    /// Gives what a target reads to an operator.
    pub(super) fn put_before(&mut self, target: Target, operator: OperatorNode) {
        let first = Target::Operator(self.operators.len(), 0);
        self.redirect(target, first);
        self.operators.push(operator);
    }

    /// What goes to a target goes to another one.
    pub(super) fn redirect(&mut self, from: Target, to: Target) {
        let sources = self.sources.iter_mut().map(|source| &mut source.targets);
        let nodes = self.nodes.iter_mut().flat_map(|node| &mut node.outputs);
        let operators = self.operators.iter_mut().flat_map(|operator| &mut operator.outputs);
        let targets = sources.chain(nodes).chain(operators).flatten();
        targets.filter(|target| **target == from).for_each(|target| *target = to);
    }

    /// All nodes, each behind what it reads.
    fn order(&self) -> Result<Vec<Vertex>, TopologyError> {
        let mut order: Vec<Vertex> = Vec::new();
        loop {
            let read = |vertex: Vertex| {
                let reads = |from: &&Vertex| {
                    self.outputs_of(**from).iter().flatten().any(|target| target.vertex() == Some(vertex))
                };
                self.vertices().filter(|from| reads(&from)).collect::<Vec<_>>()
            };
            let is_next = |vertex: &Vertex| {
                !order.contains(vertex) && read(*vertex).iter().all(|from| order.contains(from))
            };
            let Some(next) = self.vertices().find(is_next) else { break };
            order.push(next);
        }
        match self.vertices().find(|vertex| !order.contains(vertex)) {
            Some(vertex) => Err(TopologyError::Circle(self.id_of(vertex).to_owned())),
            None => Ok(order),
        }
    }

    /// Who is read by an input of an operator: a node, or a source if there is none, and by which output or which source.
    pub(super) fn read_by(&self, operator: usize, input: usize) -> Vec<(Option<Vertex>, usize)> {
        let target = Target::Operator(operator, input);
        let sources = self.sources.iter().enumerate().filter(|(_, source)| source.targets.contains(&target));
        let mut read: Vec<_> = sources.map(|(source, _)| (None, source)).collect();
        for vertex in self.vertices() {
            let outputs = self.outputs_of(vertex).iter().enumerate();
            let outputs = outputs.filter(|(_, targets)| targets.contains(&target));
            read.extend(outputs.map(|(output, _)| (Some(vertex), output)));
        }
        read
    }

    pub(super) fn reads(&self, operator: usize, input: usize) -> Reads {
        let read = self.read_by(operator, input);
        // Tables that are merged are a stream of their rows.
        let [(vertex, place)] = read[..] else { return Reads::default() };
        match vertex {
            None => {
                let table = self.sources[place].table;
                Reads { is_table: table.is_some(), history_ms: table.flatten() }
            }
            Some(Vertex::Node(_)) => Reads::default(),
            Some(Vertex::Operator(read)) => {
                Reads { is_table: self.operators[read].is_table(place), history_ms: None }
            }
        }
    }

    /// Sources that reach a common node are of one sub-topology.
    fn group_sources(&self, order: &[Vertex]) -> Vec<SubTopology> {
        let mut groups: Vec<(Vec<usize>, BTreeSet<Vertex>)> = Vec::new();
        for source in 0..self.sources.len() {
            let mut reached: BTreeSet<Vertex> = self.reached_from(source).into_iter().collect();
            let mut sources = vec![source];
            // Groups that this source reaches into become one with it.
            groups.retain_mut(|(of, others)| {
                let apart = reached.is_disjoint(others) && !self.is_of_intake(source, of);
                if !apart {
                    sources.append(of);
                    reached.append(others);
                }
                apart
            });
            sources.sort_unstable();
            groups.push((sources, reached));
        }
        groups.sort_by_key(|(sources, _)| sources[0]);
        let group = |(sources, reached): (Vec<usize>, BTreeSet<Vertex>)| {
            let is_built_in = |vertex: &Vertex| matches!(vertex, Vertex::Operator(_));
            let has_state = reached.iter().any(|vertex| is_built_in(vertex) || self.is_stateful(*vertex));
            let graph = has_state.then(|| self.graph(&sources, order, &reached));
            let by_offset = sources.iter().any(|source| self.sources[*source].only.is_some());
            SubTopology { sources, graph, by_offset }
        };
        groups.into_iter().map(group).collect()
    }

    fn graph(&self, sources: &[usize], order: &[Vertex], reached: &BTreeSet<Vertex>) -> Graph {
        let order: Vec<Vertex> = order.iter().copied().filter(|vertex| reached.contains(vertex)).collect();
        let mut stores: Vec<StoreUse> = Vec::new();
        // It gets its place among the outputs when all stores are known.
        let changelog = usize::MAX;
        for owner in order.iter().copied() {
            let own = match owner {
                Vertex::Operator(operator) => self.operators[operator].store,
                Vertex::Node(node) => self.nodes[node].store,
            };
            let kind = own.unwrap_or(self.store);
            let mut add = |name, ordered, shape| {
                stores.push(StoreUse { spec: StoreSpec { name, ordered, kind }, owner, shape, changelog });
            };
            match owner {
                Vertex::Operator(operator) => {
                    let node = &self.operators[operator];
                    for (suffix, ordered) in node.kind.stores() {
                        add(format!("{}{suffix}", node.id), ordered, node.kind.shape(node.plugin.as_ref()));
                    }
                }
                Vertex::Node(node) => {
                    let node = &self.nodes[node];
                    let plugin = node.plugin.manifest.as_ref().map(|manifest| &*manifest.name);
                    for store in &node.stores {
                        add(format!("{}-{}", node.id, store.name), true, store.shape(plugin));
                    }
                    // Behind those that it has by name.
                    if node.has_timers {
                        add(format!("{}-timers", node.id), true, "timers".to_owned());
                    }
                }
            }
        }
        let needs = self.needs(sources, &order);
        Graph { order, stores, needs }
    }
}

impl Graph {
    /// The stores of a node, by their numbers in the task.
    pub(crate) fn stores_of(&self, owner: Vertex) -> Vec<usize> {
        let stores = self.stores.iter().enumerate();
        stores.filter(|(_, store)| store.owner == owner).map(|(index, _)| index).collect()
    }

    /// How a task opens its stores.
    pub fn store_specs(&self) -> Vec<StoreSpec> {
        self.stores.iter().map(|store| store.spec.clone()).collect()
    }
}

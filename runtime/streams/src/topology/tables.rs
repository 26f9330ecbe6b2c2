//! What readers find in the stores of a pipeline.

use super::graph::{Kind, StoreUse, Vertex};
use super::keys::Keys;
use super::{Node, Topology};
use crate::operator::aggregate::AggregateSpec;
use crate::partitioner::PartitionerKind;
use crate::state_tables::{Holds, StateTable};

impl Topology {
    /// Every store of the pipeline, as it is asked.
    pub fn state_tables(&self) -> Vec<StateTable> {
        let graphs = self.sub_topologies.iter().enumerate();
        let graphs = graphs.filter_map(|(sub, topology)| Some((sub, topology.graph.as_ref()?)));
        let stores = graphs.flat_map(|(sub, graph)| {
            graph.stores.iter().enumerate().map(move |(index, store)| (sub, index, store))
        });
        let table = |(sub_topology, index, store): (usize, usize, &StoreUse)| {
            let name = &store.spec.name;
            let (table, holds, placement) = match store.owner {
                Vertex::Operator(operator) => {
                    let node = &self.operators[operator];
                    let holds = node.kind.holds(name.strip_prefix(&node.id).unwrap_or_default());
                    let table = node.table.clone().filter(|_| *name == node.id);
                    (table, holds, self.placement(sub_topology, operator))
                }
                // Its keys are the plugin's, whatever the records' are.
                Vertex::Node(node) => (None, self.nodes[node].holds(name), None),
            };
            StateTable {
                store: name.clone(),
                table,
                sub_topology,
                index,
                owner: store.owner,
                holds,
                placement,
            }
        };
        stores.map(table).collect()
    }

    /// How the keys of an operator were placed into partitions, if all that it reads says so.
    fn placement(&self, sub_topology: usize, operator: usize) -> Option<PartitionerKind> {
        if self.keys_within(operator) != Keys::AsProduced {
            return None;
        }
        let sources = self.sub_topologies[sub_topology].sources.iter();
        let reach = |source: &&usize| self.reached_from(**source).contains(&Vertex::Operator(operator));
        let mut rules = sources.filter(reach).map(|source| self.sources[*source].partitioner.as_deref());
        let first = rules.next()??;
        rules.all(|rule| rule == Some(first)).then(|| PartitionerKind::from_name(first)).flatten()
    }
}

impl Node {
    /// What a store of it holds.
    fn holds(&self, store: &str) -> Holds {
        let entries = self.stores.iter().filter(|store| store.retention_ms.is_none());
        let mut names = entries.map(|entries| format!("{}-{}", self.id, entries.name));
        if names.any(|name| name == store) { Holds::Entries } else { Holds::Internal }
    }
}

impl Kind {
    /// What a store of it holds, by what its name has behind the node's id.
    fn holds(&self, suffix: &str) -> Holds {
        let results = |spec: &AggregateSpec| Holds::Results(spec.clone());
        match (self, suffix) {
            (Kind::Table, "")
            | (Kind::JoinTable { .. }, "-table")
            | (Kind::JoinTables { .. }, "-left" | "-right")
            | (Kind::ForeignLeft { .. }, "-results")
            | (Kind::ForeignRight, "-right") => Holds::Rows,
            (Kind::Aggregate { spec, window: None, .. } | Kind::AggregateTable { spec, .. }, "") => {
                results(spec)
            }
            (Kind::Aggregate { spec, window: Some((window, closing)), .. }, "") => {
                Holds::Windows { spec: spec.clone(), window: *window, closing: *closing }
            }
            _ => Holds::Internal,
        }
    }
}

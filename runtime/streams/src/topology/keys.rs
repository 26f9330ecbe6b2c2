//! Where records of one key are. A task sees one partition, so an operator that keeps something by key needs all records of a
//! key there.

use super::graph::{Kind, Needs, Vertex};
use super::{Target, Topology, TopologyError};
use crate::operator::{Field, LATE};

/// Where the records of a key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// In the partition where the topics' producers have put it.
    AsProduced,
    /// In one partition, but not that of the key: it has a window in it.
    Windowed,
    /// In any: what has changed them.
    Scattered(String),
}

impl Keys {
    pub(super) fn regrouped(by: &Field) -> Keys {
        Keys::Scattered(format!("it goes by `{by}`, which is not the key"))
    }
}

impl Topology {
    /// What nodes ask of the partitions of the sources.
    pub(super) fn needs(&self, sources: &[usize], order: &[Vertex]) -> Needs {
        let mut needs = Needs::default();
        for vertex in order.iter().filter(|vertex| self.is_stateful(**vertex)) {
            let keys = match *vertex {
                Vertex::Operator(operator) => self.keys_within(operator),
                Vertex::Node(node) if self.nodes[node].by_partition => continue,
                Vertex::Node(node) => self.keys_before(Target::Node(node)),
            };
            if let Keys::Scattered(why) = keys
                && needs.one_partition.is_none()
            {
                needs.one_partition = Some((self.id_of(*vertex).to_owned(), why));
            }
            let reach = |source: &&usize| self.reached_from(**source).contains(vertex);
            if needs.co_partitioned.is_none() && sources.iter().filter(reach).count() > 1 {
                needs.co_partitioned = Some(self.id_of(*vertex).to_owned());
            }
        }
        needs
    }

    /// Where the keys are by which an operator keeps things.
    pub(super) fn keys_within(&self, operator: usize) -> Keys {
        let node = &self.operators[operator];
        match &node.kind {
            Kind::Aggregate { by: Some(by), .. } | Kind::AggregateTable { by, .. }
                if *by != Field::Key && !node.keyed =>
            {
                Keys::regrouped(by)
            }
            Kind::Deduplicate(work) if !node.keyed && work.field().is_some() => {
                work.field().map_or(Keys::AsProduced, Keys::regrouped)
            }
            Kind::SelectKey { by, .. } | Kind::KeyAside { by } | Kind::GroupTable { by } => {
                Keys::regrouped(by)
            }
            _ => {
                let inputs = (0..2).flat_map(|input| self.read_by(operator, input));
                inputs
                    .map(|(vertex, output)| self.keys_of(vertex, output))
                    .reduce(together)
                    .unwrap_or(Keys::AsProduced)
            }
        }
    }

    /// Where the keys of an output are; those of a source if there is no node.
    pub(super) fn keys_of(&self, vertex: Option<Vertex>, output: usize) -> Keys {
        match vertex {
            None => Keys::AsProduced,
            Some(Vertex::Node(node)) => {
                let spec = &self.nodes[node];
                if !spec.keeps_key {
                    let why = format!(
                        "the plugin of `{}` may change keys (if it does not, say keeps_key = true there)",
                        spec.id
                    );
                    return Keys::Scattered(why);
                }
                self.keys_before(Target::Node(node))
            }
            Some(Vertex::Operator(operator)) => match &self.operators[operator].kind {
                // Those have the keys that they came with.
                Kind::Aggregate { .. } if output == LATE => self.keys_in(operator),
                // Behind a topic they are where the field is.
                Kind::Deduplicate(work) if self.operators[operator].keyed => {
                    work.field().map_or(Keys::AsProduced, Keys::regrouped)
                }
                Kind::Deduplicate(_) => self.keys_in(operator),
                Kind::Aggregate { window: Some(_), .. } => match self.keys_within(operator) {
                    Keys::AsProduced => Keys::Windowed,
                    other => other,
                },
                _ => self.keys_within(operator),
            },
        }
    }

    fn keys_in(&self, operator: usize) -> Keys {
        self.keys_before(Target::Operator(operator, 0))
    }

    /// Where the keys of what a target reads are.
    fn keys_before(&self, target: Target) -> Keys {
        let sources = self.sources.iter().filter(|source| source.targets.contains(&target));
        let sources = sources.map(|_| Keys::AsProduced);
        let outputs = self.vertices().flat_map(|vertex| {
            let outputs = self.outputs_of(vertex).iter().enumerate();
            outputs.filter(|(_, targets)| targets.contains(&target)).map(move |(output, _)| (vertex, output))
        });
        let outputs = outputs.map(|(vertex, output)| self.keys_of(Some(vertex), output));
        sources.chain(outputs).reduce(together).unwrap_or(Keys::AsProduced)
    }

    /// Whether the records of each key are in one task, given how many partitions the topics of the sources have (0: the topic
    /// is not there).
    ///
    /// # Errors
    /// Which node would not find them, and what to do.
    pub fn check_partitions(&self, partitions: &[u32]) -> Result<(), TopologyError> {
        for sub in &self.sub_topologies {
            let Some(graph) = &sub.graph else { continue };
            let topics = sub.sources.iter().map(|source| (&self.sources[*source], partitions[*source]));
            let many = topics.clone().find(|(_, partitions)| *partitions > 1);
            let Some((many, count)) = many else { continue };
            if let Some((node, why)) = &graph.needs.one_partition {
                let (node, why, topic) = (node.clone(), why.clone(), many.topic.clone());
                return Err(TopologyError::Scattered { node, why, topic, partitions: count });
            }
            let Some(node) = &graph.needs.co_partitioned else { continue };
            // A topic that is not there is compared when it is.
            for (other, other_count) in topics.filter(|(_, partitions)| *partitions > 0) {
                let (first, second) = (many.topic.clone(), other.topic.clone());
                if count != other_count {
                    return Err(TopologyError::PartitionCounts {
                        node: node.clone(),
                        first,
                        first_partitions: count,
                        second,
                        second_partitions: other_count,
                    });
                }
                if first != second && (many.partitioner.is_none() || many.partitioner != other.partitioner) {
                    let rule = |rule: &Option<String>| {
                        rule.clone().unwrap_or_else(|| "nobody knows what".to_owned())
                    };
                    let (first_rule, second_rule) = (rule(&many.partitioner), rule(&other.partitioner));
                    return Err(TopologyError::Partitioners {
                        node: node.clone(),
                        first,
                        first_rule,
                        second,
                        second_rule,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Where the keys are of two streams that meet.
pub(super) fn together(left: Keys, right: Keys) -> Keys {
    match (left, right) {
        (Keys::Scattered(why), _) | (_, Keys::Scattered(why)) => Keys::Scattered(why),
        (left, right) if left == right => left,
        _ => Keys::Scattered("some of what it reads has windows in its keys, and some has not".to_owned()),
    }
}

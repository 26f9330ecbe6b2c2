//! Records whose key is not the one that a node goes by, or whose topics place keys differently, go through a topic of
//! the pipeline's own: written under the right key, with the pipeline's other outputs, and read by tasks of their own, which
//! are of another sub-topology. It is made only where records of a key would be in several partitions otherwise; where it
//! has been made once, it is used from then on, so that what is in it is read.

use super::graph::{Kind, OperatorNode, Vertex, changelog_topic};
use super::keys::{Keys, together};
use super::{OutputPartitioner, OutputTopic, Source, Target, Topology, TopologyError};
use crate::manifest::OnError;
use crate::manifest::values::Start;
use crate::operator::Field;
use crate::partitioner::PartitionerKind;

/// How many partitions a topic has; none if it does not exist.
pub type KnownTopics<'k> = &'k dyn Fn(&str) -> Option<u32>;

/// The topic through which records for a node go: a topic of the server's own, which clients may read.
pub fn repartition_topic(pipeline: &str, node: &str) -> String {
    format!("__pelton_{pipeline}-{node}-repartition")
}

/// What an input of a node reads.
pub(super) struct Side {
    /// What the topic is called by, if one is made.
    pub(super) name: String,
    pub(super) keys: Keys,
    /// Indexes in [`Topology::sources`].
    pub(super) sources: Vec<usize>,
    /// The topic is there.
    pub(super) was_made: bool,
}

/// A topic to make: into so many partitions, by this rule.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) input: usize,
    pub(super) partitions: u32,
    pub(super) rule: PartitionerKind,
}

impl Plan {
    /// Inputs of a node, at the most.
    pub(super) const INPUTS: usize = 2;
}

impl Topology {
    /// Has records go through topics where nodes would not find all records of a key. `order` has all nodes, each behind
    /// what it reads.
    pub(super) fn repartition(
        &mut self,
        order: &[Vertex],
        known: KnownTopics<'_>,
    ) -> Result<(), TopologyError> {
        for vertex in order {
            let Vertex::Operator(operator) = *vertex else { continue };
            if matches!(self.operators[operator].kind, Kind::ForeignLeft { .. }) {
                self.link_foreign_key(operator, known)?;
                continue;
            }
            for plan in self.plan(operator, known) {
                self.make_topic(operator, plan)?;
            }
        }
        Ok(())
    }

    fn plan(&self, operator: usize, known: KnownTopics<'_>) -> Vec<Plan> {
        let node = &self.operators[operator];
        if !node.kind.is_stateful() || node.kind == Kind::Table {
            return Vec::new();
        }
        let suffixes: &[&str] = if node.kind.is_join() { &["-left", "-right"] } else { &[""] };
        let sides: Vec<Side> = suffixes
            .iter()
            .enumerate()
            .map(|(input, suffix)| self.side(operator, input, &format!("{}{suffix}", node.id), known))
            .collect();
        let count = |source: &usize| self.partitions_of(*source, known);
        let most = sides.iter().flat_map(|side| &side.sources).map(count).max().unwrap_or(0);
        if most <= 1 && sides.iter().all(|side| !side.was_made) {
            return Vec::new();
        }
        // What is kept already is in so many partitions.
        let kept = node
            .kind
            .stores()
            .first()
            .and_then(|(suffix, _)| known(&changelog_topic(&self.name, &format!("{}{suffix}", node.id))));
        // What was kept of one partition goes on in it.
        let is_behind = kept == Some(1) && most > 1;
        let made = |side: &Side| known(&repartition_topic(&self.name, &side.name));
        let places: Vec<_> = sides.iter().map(|side| self.place(side, known)).collect();
        let murmur2 = PartitionerKind::Murmur2;
        let new = |sides: &[Side]| {
            let partitions = sides.iter().find_map(made).or(kept).unwrap_or(most).max(1);
            (0..sides.len()).map(|input| Plan { input, partitions, rule: murmur2 }).collect()
        };
        let [left, right] = &sides[..] else {
            let is_fine = places[0].is_some() && !sides[0].was_made && !is_behind;
            return if is_fine { Vec::new() } else { new(&sides) };
        };
        let agree = match (&places[0], &places[1]) {
            (Some((a, rule, keys)), Some((b, other, others))) => {
                let same_rule = rule.is_some() && rule == other;
                let same_place = a == b && (*a == 1 || same_rule || left.sources == right.sources);
                // What is not there is compared when it is.
                keys == others && (same_place || *a == 0 || *b == 0)
            }
            _ => false,
        };
        if agree && !is_behind && !left.was_made && !right.was_made {
            return Vec::new();
        }
        // One side stays where it is, if the other one can be put beside it.
        let anchor = |input: usize| {
            let (partitions, rule, keys) = places[input].as_ref()?;
            // One that is away for a time has the other one beside it still.
            let partitions = if *partitions == 0 { made(&sides[1 - input])? } else { *partitions };
            let fits = kept.is_none_or(|kept| kept == partitions) && *keys == Keys::AsProduced;
            let rule = if partitions == 1 { rule.or(Some(murmur2)) } else { *rule };
            let rule = rule.filter(|_| fits && !sides[input].was_made)?;
            Some(Plan { input: 1 - input, partitions, rule })
        };
        anchor(1).or_else(|| anchor(0)).map_or_else(|| new(&sides), |plan| vec![plan])
    }

    pub(super) fn side(&self, operator: usize, input: usize, name: &str, known: KnownTopics<'_>) -> Side {
        let by = match &self.operators[operator].kind {
            Kind::Aggregate { by, .. } => by.as_ref(),
            Kind::AggregateTable { by, .. } => Some(by),
            Kind::Deduplicate(work) => work.field(),
            _ => None,
        };
        let read = self.read_by(operator, input);
        let keys = match by.filter(|by| **by != Field::Key) {
            Some(by) => Keys::regrouped(by),
            None => {
                let keys = read.iter().map(|(vertex, output)| self.keys_of(*vertex, *output));
                keys.reduce(together).unwrap_or(Keys::AsProduced)
            }
        };
        let sources = self.sources_before(Target::Operator(operator, input));
        let was_made = known(&repartition_topic(&self.name, name)).is_some();
        Side { name: name.to_owned(), keys, sources, was_made }
    }

    /// Where the records of a side are, if all of a key are in one partition: how many partitions there are, by which rule,
    /// and what of the key that goes by.
    pub(super) fn place(
        &self,
        side: &Side,
        known: KnownTopics<'_>,
    ) -> Option<(u32, Option<PartitionerKind>, Keys)> {
        if matches!(side.keys, Keys::Scattered(_)) {
            return None;
        }
        let rule = |source: &usize| self.sources[*source].partitioner.as_deref();
        let known_rule = |source: &usize| rule(source).and_then(PartitionerKind::from_name);
        let is_there = |source: &usize| self.partitions_of(*source, known) > 0;
        let there: Vec<usize> = side.sources.iter().copied().filter(is_there).collect();
        let Some((first, others)) = there.split_first() else {
            return Some((0, side.sources.first().and_then(known_rule), side.keys.clone()));
        };
        let count = self.partitions_of(*first, known);
        let same = |other: &usize| {
            self.partitions_of(*other, known) == count
                && (count == 1 || (rule(other).is_some() && rule(other) == rule(first)))
        };
        others.iter().all(same).then(|| (count, known_rule(first), side.keys.clone()))
    }

    pub(super) fn partitions_of(&self, source: usize, known: KnownTopics<'_>) -> u32 {
        let source = &self.sources[source];
        source.repartition.or_else(|| known(&source.topic)).unwrap_or(0)
    }

    /// The topics between parts of the pipeline: their places among the outputs, and their names.
    pub fn repartitions(&self) -> impl Iterator<Item = (usize, &String)> {
        let outputs = self.outputs.iter().enumerate().filter(|(_, output)| output.repartition.is_some());
        outputs.map(|(index, output)| (index, &output.topic))
    }

    /// The sources whose records reach an output, within one part of the pipeline.
    pub fn sources_of_output(&self, output: usize) -> Vec<usize> {
        self.sources_before(Target::Output(output))
    }

    /// The sources whose records reach a target.
    pub(super) fn sources_before(&self, target: Target) -> Vec<usize> {
        let vertex = target.vertex();
        let reaches = |source: &usize| {
            self.sources[*source].targets.contains(&target)
                || self.reached_from(*source).into_iter().any(|before| {
                    Some(before) != vertex && self.outputs_of(before).iter().flatten().any(|to| *to == target)
                })
        };
        (0..self.sources.len()).filter(reaches).collect()
    }

    /// Puts a topic before an input of a node.
    pub(super) fn make_topic(&mut self, operator: usize, plan: Plan) -> Result<(), TopologyError> {
        let Plan { input, partitions, rule } = plan;
        let reads = self.reads(operator, input);
        let node = &self.operators[operator];
        let suffix = match input {
            _ if !node.kind.is_join() => "",
            0 => "-left",
            _ => "-right",
        };
        let (id, name) = (node.id.clone(), format!("{}{suffix}", node.id));
        let (on_error, dead_letter) = (node.on_error.clone(), node.dead_letter);
        let before = Target::Operator(operator, input);
        let table = (reads.is_table && !suffix.is_empty()).then_some(reads.history_ms);
        let key = match &node.kind {
            Kind::Aggregate { by: Some(by), .. } if *by != Field::Key => {
                Some(Kind::SelectKey { by: by.clone(), keeps_null: false })
            }
            Kind::AggregateTable { by, .. } => Some(Kind::GroupTable { by: by.clone() }),
            // They are handed on under their own key.
            Kind::Deduplicate(work) => work.field().map(|by| Kind::KeyAside { by: by.clone() }),
            _ => None,
        };
        let output = self.write_topic(operator, &name, (partitions, rule))?;
        match key {
            None => self.redirect(before, output),
            Some(kind) => {
                self.operators[operator].keyed = true;
                self.put_before(before, OperatorNode::before(&id, on_error, dead_letter, kind, output));
            }
        }
        self.read_topic(&name, (partitions, rule), table, before);
        Ok(())
    }

    /// A topic that a node writes to on its way to another part of the pipeline: into so many partitions, by a rule.
    pub(super) fn write_topic(
        &mut self,
        operator: usize,
        name: &str,
        (partitions, partitioner): (u32, PartitionerKind),
    ) -> Result<Target, TopologyError> {
        let topic = repartition_topic(&self.name, name);
        if self.outputs.iter().any(|output| output.topic == topic) {
            return Err(TopologyError::SameStore(name.to_owned()));
        }
        let node = &self.operators[operator];
        let policy = (node.on_error.clone(), node.dead_letter);
        Ok(self.add_between(name, (partitions, partitioner), policy))
    }

    /// The same, with what happens to a record that it does not take.
    pub(super) fn add_between(
        &mut self,
        name: &str,
        (partitions, partitioner): (u32, PartitionerKind),
        (on_error, letters): (OnError, Option<usize>),
    ) -> Target {
        let topic = repartition_topic(&self.name, name);
        let (dead_letter, changelog_of, repartition) = (false, None, Some(partitions));
        let partitioner = OutputPartitioner::Native(partitioner);
        let output =
            OutputTopic { topic, partitioner, dead_letter, on_error, letters, changelog_of, repartition };
        self.outputs.push(output);
        Target::Output(self.outputs.len() - 1)
    }

    /// The same topic, as it is read.
    pub(super) fn read_topic(
        &mut self,
        name: &str,
        (partitions, rule): (u32, PartitionerKind),
        table: Option<Option<i64>>,
        to: Target,
    ) {
        self.sources.push(Source {
            id: format!("{name}-repartition"),
            topic: repartition_topic(&self.name, name),
            start: Start::Earliest,
            partitioner: Some(rule.to_string()),
            time: None,
            table,
            repartition: Some(partitions),
            only: None,
            targets: vec![to],
        });
    }
}

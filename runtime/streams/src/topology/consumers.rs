//! Plugins that act on the outside, apart from everything else.
//!
//! What such a plugin is given is done when the outside has done it, in any order and after any time. So it is the only reader of
//! its source: nothing else waits for it, and the offsets that are committed of the source are its own. One that reads a node, or
//! a source that others read as well, is given what goes there through a topic of the pipeline's own, as records on their way to
//! another key are: it is written with the other outputs, so that what is in it is right after any crash, and a record has the
//! same topic, partition and offset whenever it is given. Where the topic has been made once, it is used from then on, so that what
//! is in it is given.

use super::repartition::KnownTopics;
use super::{Target, Topology, TopologyError};
use crate::manifest::Guarantee;
use crate::partitioner::PartitionerKind;

impl Topology {
    /// Puts a topic before each plugin that acts on the outside, unless it is the only reader of a source and always was.
    pub(super) fn part_consumers(
        &mut self,
        guarantee: Guarantee,
        known: KnownTopics<'_>,
    ) -> Result<(), TopologyError> {
        for node in
            (0..self.nodes.len()).filter(|node| self.nodes[*node].consumer.is_some()).collect::<Vec<_>>()
        {
            let target = Target::Node(node);
            let sources = self.sources_before(target);
            let name = self.nodes[node].id.clone();
            let made = known(&super::repartition_topic(&self.name, &name));
            let is_alone = |source: &usize| {
                let source = &self.sources[*source];
                source.targets == [target] && source.table.is_none() && source.only.is_none()
            };
            if let [source] = &sources[..]
                && is_alone(source)
                && made.is_none()
            {
                continue;
            }
            // A crash would write records into the topic again, at other offsets: the outside could not tell that they are the same.
            if guarantee == Guarantee::AtLeastOnce {
                return Err(TopologyError::BetweenAtLeastOnce(name));
            }
            let most = sources.iter().map(|source| self.partitions_of(*source, known)).max().unwrap_or(0);
            let place = (made.unwrap_or(most).max(1), PartitionerKind::Murmur2);
            let policy = (self.nodes[node].on_error.clone(), self.nodes[node].dead_letter);
            let output = self.add_between(&name, place, policy);
            self.redirect(target, output);
            self.read_topic(&name, place, None, target);
        }
        Ok(())
    }

    /// The plugin that acts on the outside, if a source is read by one: an index in [`Topology::nodes`].
    pub fn consumer_of(&self, source: usize) -> Option<usize> {
        match self.sources[source].targets[..] {
            [Target::Node(node)] if self.nodes[node].consumer.is_some() => Some(node),
            _ => None,
        }
    }
}

//! Where the keys are by which a store is kept: what is recorded of it, so that a change which would put records into other
//! partitions than what is kept of them is refused.
//!
//! ```text
//! placement = input { " and " input }       of each input of the node, in their order
//! input     = way { "+" way }               of each source that reaches it
//! way       = "produced:" rule              as the topic's producers place them; "?" if the manifest does not say how
//!           | "topic:" rule                 through a topic of the pipeline's own
//! ```

use super::graph::{Graph, StoreUse, Vertex};
use super::repartition::Plan;
use super::{Target, Topology};

/// What separates the shape of a store from where its keys are, in what is recorded.
const SEPARATOR: &str = " | ";

/// A store as it is recorded: its shape, and where its keys are. Records of earlier versions have the shape alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded<'r> {
    /// What its entries mean.
    pub shape: &'r str,
    /// Where its keys are, if that was recorded.
    pub placement: Option<&'r str>,
}

impl<'r> Recorded<'r> {
    /// Reads what [`Topology::recorded`] gives.
    pub fn read(text: &'r str) -> Recorded<'r> {
        match text.split_once(SEPARATOR) {
            Some((shape, placement)) => Recorded { shape, placement: Some(placement) },
            None => Recorded { shape: text, placement: None },
        }
    }

    /// Whether what is kept of a key is where the records of the key are now.
    pub fn is_in_place(&self, now: &Recorded<'_>) -> bool {
        let (Some(before), Some(now)) = (self.placement, now.placement) else { return true };
        let [before, now] = [before, now].map(|placement| placement.split(" and ").collect::<Vec<_>>());
        before.len() == now.len() && before.iter().zip(&now).all(|(before, now)| is_same(before, now))
    }
}

/// Whether keys of an input are in the same partitions, of as many.
fn is_same(before: &str, now: &str) -> bool {
    let produced = |input: &str| input.split('+').all(|way| way.starts_with("produced:"));
    let rule =
        |input: &str| input.split_once(':').map(|(_, rule)| rule.to_owned()).filter(|rule| rule != "?");
    // Records stay where their producers put them, whatever a manifest says of it.
    before == now
        || produced(before) && produced(now)
        || !before.contains('+') && !now.contains('+') && rule(before).is_some() && rule(before) == rule(now)
}

impl Topology {
    /// A store as it is recorded.
    pub fn recorded(&self, store: &StoreUse) -> String {
        let target = |input: usize| match store.owner {
            Vertex::Operator(operator) => Some(Target::Operator(operator, input)),
            Vertex::Node(node) => {
                (input == 0 && !self.nodes[node].by_partition).then_some(Target::Node(node))
            }
        };
        let input = |input: usize| {
            let sources = self.sources_before(target(input)?);
            let mut ways: Vec<String> = sources.into_iter().map(|source| self.way(source)).collect();
            ways.sort_unstable();
            ways.dedup();
            (!ways.is_empty()).then(|| ways.join("+"))
        };
        let inputs: Vec<String> = (0..Plan::INPUTS).filter_map(input).collect();
        format!("{}{SEPARATOR}{}", store.shape, inputs.join(" and "))
    }

    fn way(&self, source: usize) -> String {
        let source = &self.sources[source];
        let way = if source.repartition.is_some() { "topic" } else { "produced" };
        format!("{way}:{}", source.partitioner.as_deref().unwrap_or("?"))
    }

    /// Every store of the pipeline.
    pub fn stores(&self) -> impl Iterator<Item = &StoreUse> {
        let graphs = self.sub_topologies.iter().filter_map(|sub| sub.graph.as_ref());
        graphs.flat_map(|graph: &Graph| &graph.stores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stay_where_they_are() {
        for (before, now, expect) in [
            ("a count", "a count | topic:murmur2", true),
            ("s | produced:?", "s | produced:murmur2", true),
            ("s | produced:crc32", "s | produced:murmur2", true),
            ("s | topic:murmur2", "s | topic:murmur2", true),
            ("s | topic:crc32", "s | topic:murmur2", false),
            ("s | produced:murmur2", "s | topic:murmur2", true),
            ("s | produced:crc32", "s | topic:murmur2", false),
            ("s | produced:?", "s | topic:murmur2", false),
            ("s | topic:murmur2", "s | produced:?", false),
            ("s | topic:consistent", "s | produced:consistent", true),
            ("s | topic:consistent", "s | topic:murmur2", false),
            // Earlier versions took a partitioner that goes by no key for a rule of keys.
            ("s | produced:sticky", "s | produced:?", true),
            ("s | topic:round-robin", "s | topic:murmur2", false),
            ("s | produced:?+produced:crc32", "s | produced:murmur2", true),
            ("s | produced:?+topic:crc32", "s | topic:crc32", false),
            ("s | topic:crc32 and produced:crc32", "s | topic:crc32 and produced:murmur2", true),
            ("s | topic:crc32 and produced:crc32", "s | topic:murmur2 and produced:murmur2", false),
            ("s | topic:crc32 and produced:crc32", "s | topic:crc32", false),
        ] {
            let (before, now) = (Recorded::read(before), Recorded::read(now));
            assert_eq!(before.is_in_place(&now), expect, "{before:?} {now:?}");
        }
        assert_eq!(Recorded::read("count by key, no windows | produced:?").shape, "count by key, no windows");
    }
}

//! Foreign-key joins in their places. The left half is where left rows are, the right half where right rows are, and two topics of
//! the pipeline's own go between them: subscriptions to where a right row is, answers to where a left row is. So each of them is
//! placed as the table that it goes to. A table whose topic does not say how its keys are placed, or which is not by its key, goes
//! through a topic of its own first.

use super::graph::{Kind, OperatorNode, changelog_topic};
use super::keys::Keys;
use super::repartition::{Plan, repartition_topic};
use super::{KnownTopics, Target, Topology, TopologyError};
use crate::operator::foreign_key::{ANSWERS, LEFT_ROWS, RIGHT_ROWS, SUBSCRIBERS, SUBSCRIPTIONS};
use crate::partitioner::PartitionerKind;

impl Topology {
    /// Puts the right half of a join beside its left half, and the topics between them.
    pub(super) fn link_foreign_key(
        &mut self,
        operator: usize,
        known: KnownTopics<'_>,
    ) -> Result<(), TopologyError> {
        let id = self.operators[operator].id.clone();
        let mut places = Vec::new();
        for (input, side, back) in [(0, "left", "answers"), (1, "right", "subscriptions")] {
            let (place, plan) =
                self.place_table(operator, input, &format!("{id}-{side}"), &format!("{id}-{back}"), known);
            if let Some(plan) = plan {
                self.make_topic(operator, plan)?;
            }
            places.push(place);
        }
        let (on_error, dead_letter) =
            (self.operators[operator].on_error.clone(), self.operators[operator].dead_letter);
        let right = self.operators.len();
        let (answers, subscriptions) = (format!("{id}-answers"), format!("{id}-subscriptions"));
        let to_answers = self.write_topic(operator, &answers, places[0])?;
        let to_subscriptions = self.write_topic(operator, &subscriptions, places[1])?;
        self.redirect(Target::Operator(operator, 1), Target::Operator(right, RIGHT_ROWS));
        self.operators.push(OperatorNode::before(&id, on_error, dead_letter, Kind::ForeignRight, to_answers));
        let outputs = &mut self.operators[operator].outputs;
        outputs.resize(SUBSCRIPTIONS + 1, Vec::new());
        outputs[SUBSCRIPTIONS].push(to_subscriptions);
        self.read_topic(&subscriptions, places[1], None, Target::Operator(right, SUBSCRIBERS));
        self.read_topic(&answers, places[0], None, Target::Operator(operator, ANSWERS));
        debug_assert_eq!((LEFT_ROWS, ANSWERS), (0, 1), "left rows are what the node reads");
        Ok(())
    }

    /// In how many partitions the rows of a side are, by which rule; and the topic that they have to go through for that. `store`
    /// is what is kept of them, `back` the topic through which the other side comes there.
    fn place_table(
        &self,
        operator: usize,
        input: usize,
        store: &str,
        back: &str,
        known: KnownTopics<'_>,
    ) -> ((u32, PartitionerKind), Option<Plan>) {
        let side = self.side(operator, input, store, known);
        // What is there already is in so many.
        let kept = known(&changelog_topic(&self.name, store))
            .or_else(|| known(&repartition_topic(&self.name, back)));
        if let Some((count, rule, Keys::AsProduced)) = self.place(&side, known)
            && !side.was_made
        {
            let partitions = if count == 0 { kept.unwrap_or(1) } else { count };
            let rule = if partitions == 1 { rule.or(Some(PartitionerKind::Murmur2)) } else { rule };
            if let Some(rule) = rule.filter(|_| kept.is_none_or(|kept| kept == partitions)) {
                return ((partitions, rule), None);
            }
        }
        let made = known(&repartition_topic(&self.name, &side.name));
        let most = side.sources.iter().map(|source| self.partitions_of(*source, known)).max().unwrap_or(0);
        let (partitions, rule) = (made.or(kept).unwrap_or(most).max(1), PartitionerKind::Murmur2);
        ((partitions, rule), Some(Plan { input, partitions, rule }))
    }
}

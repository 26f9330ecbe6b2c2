//! Tables that are grouped: what a row replaces has to leave its group, so somebody must know it. An operator that has a store
//! tells it; a source that is read as a table gets one for it, and what is filtered or made of its rows tells it of them.

use std::collections::BTreeSet;

use pelton_wire::mutant::Mutant;

use super::graph::{Kind, OperatorNode, Vertex};
use super::{Target, Topology};
use crate::manifest::operator::Work;
use crate::operator::RESULTS;

impl Topology {
    /// A table that is grouped needs a store, which tells what a row replaces.
    pub(super) fn keep_grouped_tables(&mut self) {
        let grouped: BTreeSet<usize> =
            (0..self.operators.len()).filter(|operator| self.is_grouped(*operator)).collect();
        for source in self.sources.iter_mut().filter(|source| source.table.is_some()) {
            let groups = |target: &Target| matches!(target, Target::Operator(operator, _) if grouped.contains(operator));
            let (grouped, others): (Vec<Target>, Vec<Target>) =
                source.targets.iter().partition(|target| groups(target));
            if grouped.is_empty() {
                continue;
            }
            let mut table = OperatorNode::table(&source.id);
            table.outputs[RESULTS] = grouped;
            source.targets = others;
            source.targets.push(Target::Operator(self.operators.len(), 0));
            self.operators.push(table);
        }
    }

    /// Whether an operator aggregates what it reads, or hands it on to one that does.
    fn is_grouped(&self, operator: usize) -> bool {
        let (mut open, mut seen) = (vec![operator], BTreeSet::new());
        while let Some(operator) = open.pop() {
            let node = &self.operators[operator];
            match &node.work {
                Work::Aggregate(_) => return true,
                Work::Filter(_) | Work::Select(_) if seen.insert(operator) => {
                    let targets = node.outputs.iter().flatten();
                    open.extend(targets.filter_map(|target| match target {
                        Target::Operator(operator, _) => Some(*operator),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        false
    }

    /// The operators that group the table which an operator is, if it is one, and those on the way to them. A row that one of
    /// them cannot take is no row of the table: it would be what the next row replaces.
    pub(crate) fn grouped_by(&self, operator: usize) -> Vec<usize> {
        let is_table = self.operators[operator].kind == Kind::Table && !Mutant::UngroupedStands.is_on();
        let (mut open, mut found) = (vec![operator], Vec::new());
        while let Some(operator) = open.pop().filter(|_| is_table) {
            for target in self.operators[operator].outputs.iter().flatten() {
                let Some(Vertex::Operator(next)) = target.vertex() else { continue };
                if found.contains(&next) {
                    continue;
                }
                found.push(next);
                if matches!(self.operators[next].kind, Kind::Filter { .. } | Kind::Select { .. }) {
                    open.push(next);
                }
            }
        }
        found
    }
}

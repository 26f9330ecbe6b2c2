//! Makes the operators of a task.

use super::Topology;
use super::graph::{Graph, Kind, OperatorNode, Vertex};
use crate::operator::aggregate::{AggregateSpec, Aggregator, BuiltIn, PluginAggregate, ResultForm};
use crate::operator::{
    AggregateByKey, AggregateTable, Branch, Chain, Condition, Deduplicate, Explode, Field, Filter,
    FilterTable, ForeignKeyLeft, ForeignKeyRight, GlobalJoin, GroupTable, GroupsOfTopic, GroupsToTopic,
    Holds, JoinedTable, KeyAside, KeyBack, MapTable, MapValues, Merge, NullKey, Operator, Predicate, Select,
    SelectKey, Sessions, SlidingWindows, StreamJoin, StreamTableJoin, Table, TableJoin, TimeWindows, Wait,
    WindowSpec,
};
use crate::state::StoreIndex;

impl Topology {
    /// The operators of a task of a sub-topology, by their index; none where one is of another sub-topology.
    pub(crate) fn build_operators(&self, graph: &Graph) -> Vec<Option<Box<dyn Operator>>> {
        let build = |(index, node): (usize, &OperatorNode)| {
            let is_here = graph.order.contains(&Vertex::Operator(index));
            is_here.then(|| node.build(&graph.stores_of(Vertex::Operator(index))))
        };
        self.operators.iter().enumerate().map(build).collect()
    }
}

impl OperatorNode {
    /// `stores` are those of [`Kind::stores`], in their order.
    fn build(&self, stores: &[StoreIndex]) -> Box<dyn Operator> {
        let tells_old = self.tells_old;
        let aggregator = |spec: &AggregateSpec| -> Box<dyn Aggregator> {
            if spec.form == ResultForm::Raw {
                return Box::<PluginAggregate>::default();
            }
            Box::new(BuiltIn::new(spec.clone(), stores.get(1).copied()))
        };
        match &self.kind {
            Kind::Merge => Box::new(Merge),
            Kind::SelectKey { by, keeps_null } => {
                let null = if *keeps_null { NullKey::Keep } else { NullKey::Drop };
                Box::new(SelectKey::new(by.clone(), null))
            }
            Kind::GroupTable { by } => {
                Box::new(Chain::new(Box::new(GroupTable::new(by.clone())), Box::new(GroupsToTopic)))
            }
            Kind::Table => Box::new(Table::new(stores[0], tells_old)),
            Kind::Aggregate { by, spec, window } => {
                let (store, aggregator) = (stores[0], aggregator(spec));
                let main: Box<dyn Operator> = match *window {
                    None => Box::new(AggregateByKey::new(store, aggregator, tells_old)),
                    Some((WindowSpec::Hopping { size_ms, advance_ms }, closing)) => {
                        let length = (size_ms, advance_ms);
                        Box::new(TimeWindows::new(store, length, closing, aggregator, tells_old))
                    }
                    Some((WindowSpec::Sliding { size_ms }, closing)) => {
                        Box::new(SlidingWindows::new(store, size_ms, closing, aggregator, tells_old))
                    }
                    Some((WindowSpec::Session { gap_ms }, closing)) => {
                        Box::new(Sessions::new(store, gap_ms, closing, aggregator, tells_old))
                    }
                };
                match by {
                    None | Some(Field::Key) => main,
                    Some(_) if self.keyed => main,
                    Some(by) => {
                        Box::new(Chain::new(Box::new(SelectKey::new(by.clone(), NullKey::Drop)), main))
                    }
                }
            }
            Kind::AggregateTable { by, spec } => {
                let main = AggregateTable::new(stores[0], aggregator(spec), tells_old);
                let groups: Box<dyn Operator> =
                    if self.keyed { Box::new(GroupsOfTopic) } else { Box::new(GroupTable::new(by.clone())) };
                Box::new(Chain::new(groups, Box::new(main)))
            }
            Kind::KeyAside { by } => Box::new(KeyAside::new(by.clone())),
            Kind::Deduplicate(work) => {
                let by = work.by.clone();
                let main = Deduplicate::new(stores[0], by, work.within_ms, work.grace_ms, work.late);
                if self.keyed {
                    Box::new(Chain::new(Box::new(KeyBack), Box::new(main)))
                } else {
                    Box::new(main)
                }
            }
            Kind::JoinStreams { kind, window, result } => {
                Box::new(StreamJoin::new(stores[0], *kind, *window, Box::new(result.clone())))
            }
            Kind::JoinTable { is_left, history_ms, wait_ms, result } => {
                let mut stores = stores.iter().copied();
                let mut next = || stores.next().expect("each store of the kind is there");
                let latest = next();
                let table = match *history_ms {
                    None => JoinedTable::Latest(latest),
                    Some(history_ms) => JoinedTable::Versioned { latest, history: next(), history_ms },
                };
                let wait = wait_ms.map(|grace_ms| Wait { store: next(), grace_ms });
                Box::new(StreamTableJoin::new(table, *is_left, Box::new(result.clone()), wait))
            }
            Kind::Filter { of_table, condition } => {
                let holds = Box::new(Holds::new(condition.clone()));
                if *of_table { Box::new(FilterTable(holds)) } else { Box::new(Filter(holds)) }
            }
            Kind::Branch(conditions) => {
                let holds =
                    |condition: &Condition| Box::new(Holds::new(condition.clone())) as Box<dyn Predicate>;
                Box::new(Branch(conditions.iter().map(holds).collect()))
            }
            Kind::Select { of_table, selection } => {
                let select = Box::new(Select::new(selection.clone()));
                if *of_table { Box::new(MapTable(select)) } else { Box::new(MapValues(select)) }
            }
            Kind::FlatMap(path) => Box::new(Explode::new(path.clone())),
            Kind::JoinGlobal { table, by, is_left, result } => {
                Box::new(GlobalJoin::new(*table, by.clone(), *is_left, Box::new(result.clone())))
            }
            Kind::ForeignLeft { by, is_left, result } => {
                let (left, results, result) = (stores[0], stores[1], Box::new(result.clone()));
                Box::new(ForeignKeyLeft::new(left, results, by.clone(), *is_left, result, tells_old))
            }
            Kind::ForeignRight => Box::new(ForeignKeyRight::new(stores[0], stores[1])),
            Kind::JoinTables { kind, result } => {
                Box::new(TableJoin::new(stores[0], stores[1], *kind, Box::new(result.clone()), tells_old))
            }
        }
    }
}

//! The operators of a case and how they are linked.

use bytes::Bytes;
use pelton_streams::operator::aggregate::{
    AggregateFunction, AggregateSpec, Aggregator, BuiltIn, Function, FunctionAggregate, Item, Part,
    ResultForm,
};
use pelton_streams::operator::{
    AggregateByKey, AggregateTable, Closing, Emit, Field, Filter, FilterTable, FlatMap, ForeignKeyLeft,
    ForeignKeyRight, GlobalJoin, GroupTable, JoinKind, JoinWindow, JoinedTable, Joiner, Late, MapTable,
    Merge, NullKey, Operator, OperatorError, Row, STREAM, SelectKey, Sessions, SlidingWindows, StreamJoin,
    StreamTableJoin, TABLE, Table, TableJoin, TimeWindows, VersionedTable, Wait, foreign_key,
};
use pelton_streams::state::StoreIndex;

use crate::case::{Case, Emission, Kind, Node};
use crate::values::Values;

/// Where the rows of a call come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Topic(String),
    /// An output of an earlier call.
    Call(usize, usize),
}

/// An operator is given the rows of one of its inputs.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) operator: usize,
    pub(crate) input: usize,
    pub(crate) from: Vec<Source>,
}

/// What a case is made of.
#[derive(Default)]
pub(crate) struct Topology {
    pub(crate) operators: Vec<Box<dyn Operator>>,
    /// In the order in which an input goes through them.
    pub(crate) calls: Vec<Call>,
    pub(crate) stores: usize,
    /// Topics of global tables, by their number.
    pub(crate) globals: Vec<String>,
    /// Where each node's rows are.
    pub(crate) results: Vec<Vec<Source>>,
    /// The operator of each node that is one; of several the first.
    pub(crate) operator_of: Vec<Option<usize>>,
}

impl Topology {
    pub(crate) fn new(case: &Case) -> Topology {
        let mut topology = Topology::default();
        for node in &case.nodes {
            let first = topology.operators.len();
            let result = topology.node(node, case);
            topology.results.push(result);
            topology.operator_of.push((topology.operators.len() > first).then_some(first));
        }
        topology
    }

    fn store(&mut self) -> StoreIndex {
        self.stores += 1;
        self.stores - 1
    }

    fn operator(&mut self, operator: impl Operator + 'static) -> usize {
        self.operators.push(Box::new(operator));
        self.operators.len() - 1
    }

    fn call(&mut self, operator: usize, input: usize, from: Vec<Source>) -> usize {
        self.calls.push(Call { operator, input, from });
        self.calls.len() - 1
    }

    /// An operator with these inputs: where its results are.
    fn link(&mut self, operator: impl Operator + 'static, inputs: &[usize]) -> Vec<Source> {
        let operator = self.operator(operator);
        let inputs = inputs.iter().enumerate();
        inputs
            .map(|(input, place)| Source::Call(self.call(operator, input, self.results[*place].clone()), 0))
            .collect()
    }

    fn source(&mut self, topic: &str, operator: impl Operator + 'static) -> Vec<Source> {
        let operator = self.operator(operator);
        vec![Source::Call(self.call(operator, 0, vec![Source::Topic(topic.to_owned())]), 0)]
    }

    fn then(&mut self, operator: impl Operator + 'static, from: Vec<Source>) -> Vec<Source> {
        let operator = self.operator(operator);
        vec![Source::Call(self.call(operator, 0, from), 0)]
    }

    fn node(&mut self, node: &Node, case: &Case) -> Vec<Source> {
        match *node {
            Node::Stream { ref topic } => vec![Source::Topic(topic.clone())],
            Node::Table { ref topic } => {
                let table = Table::new(self.store(), true);
                self.source(topic, table)
            }
            Node::Global { ref topic } => {
                self.globals.push(topic.clone());
                Vec::new()
            }
            // The join keeps the versions.
            Node::Versioned { ref topic, history } => {
                let table = VersionedTable::new(self.store(), self.store(), history, true);
                self.source(topic, table);
                vec![Source::Topic(topic.clone())]
            }
            Node::Filter { r#in } => self.link(Filter(Box::new(passes)), &[r#in]),
            Node::FilterTable { r#in } => self.link(FilterTable(Box::new(passes)), &[r#in]),
            Node::Map { r#in } => self.link(FlatMap(Box::new(map)), &[r#in]),
            Node::MapTable { r#in } => self.link(MapTable(Box::new(map_value)), &[r#in]),
            Node::Flat { r#in } => self.link(FlatMap(Box::new(flat)), &[r#in]),
            Node::Key { r#in } => self.link(SelectKey::new(field("json:f"), NullKey::Keep), &[r#in]),
            Node::Merge { r#in, with } => self.link(Merge, &[r#in, with]),
            Node::ToTable { r#in } => {
                let table = Table::new(self.store(), true);
                self.link(table, &[r#in])
            }
            Node::ToStream { r#in } => self.link(Merge, &[r#in]),
            Node::Aggregate { r#in, function } => {
                let (aggregator, is_number) = self.aggregator(function, false);
                let aggregate = AggregateByKey::new(self.store(), aggregator, true);
                let results = self.link(aggregate, &[r#in]);
                self.values(results, is_number)
            }
            Node::Group { r#in, function } => {
                let groups = self.link(GroupTable::new(field("json:f")), &[r#in]);
                let (aggregator, is_number) = self.aggregator(function, true);
                let aggregate = AggregateTable::new(self.store(), aggregator, true);
                let results = self.then(aggregate, groups);
                self.values(results, is_number)
            }
            Node::Windows { r#in, size, advance, emission } => {
                let (store, closing) = (self.store(), closing(emission));
                let windows = TimeWindows::new(store, (size, advance), closing, folding(), false);
                self.windows(windows, r#in)
            }
            Node::Sliding { r#in, size, emission } => {
                let windows = SlidingWindows::new(self.store(), size, closing(emission), folding(), false);
                self.windows(windows, r#in)
            }
            Node::Sessions { r#in, gap, emission } => {
                let windows = Sessions::new(self.store(), gap, closing(emission), folding(), false);
                self.windows(windows, r#in)
            }
            _ => self.join(node, case),
        }
    }

    fn join(&mut self, node: &Node, case: &Case) -> Vec<Source> {
        match *node {
            Node::JoinStreams { r#in, with, kind, before, after, grace } => {
                let window = JoinWindow { before_ms: before, after_ms: after, grace_ms: grace };
                let join = StreamJoin::new(self.store(), join_kind(kind), window, joiner());
                let join = self.operator(join);
                let mut sides = [r#in, with].map(|side| self.results[side].clone());
                if kind != Kind::Inner {
                    // `join-null-time`.
                    sides = sides.map(|side| self.then(Filter(Box::new(is_keyed)), side));
                }
                let sides = sides.into_iter().enumerate();
                sides.map(|(input, side)| Source::Call(self.call(join, input, side), 0)).collect()
            }
            Node::JoinTable { r#in, with, kind, grace } => {
                let wait = grace.map(|grace_ms| Wait { store: self.store(), grace_ms });
                let table = match case.nodes[with] {
                    Node::Versioned { history, .. } => JoinedTable::Versioned {
                        latest: self.store(),
                        history: self.store(),
                        history_ms: history,
                    },
                    _ => JoinedTable::Latest(self.store()),
                };
                let join = StreamTableJoin::new(table, kind == Kind::Left, joiner(), wait);
                let join = self.operator(join);
                let mut stream = self.results[r#in].clone();
                if kind == Kind::Left && grace.is_some() {
                    // `versioned-null-key`.
                    stream = self.then(Filter(Box::new(is_keyed)), stream);
                }
                let streams = self.call(join, STREAM, stream);
                let tables = self.call(join, TABLE, self.results[with].clone());
                vec![Source::Call(streams, 0), Source::Call(tables, 0)]
            }
            Node::JoinGlobal { r#in, kind, .. } => {
                let (table, by) = (self.globals.len() - 1, field("json:f"));
                self.link(GlobalJoin::new(table, by, kind == Kind::Left, joiner()), &[r#in])
            }
            Node::JoinTables { r#in, with, kind } => {
                let join = TableJoin::new(self.store(), self.store(), join_kind(kind), joiner(), true);
                self.link(join, &[r#in, with])
            }
            Node::JoinForeign { r#in, with, kind } => self.foreign(r#in, with, kind == Kind::Left),
            _ => unreachable!("{node:?} joins nothing"),
        }
    }

    /// Subscriptions go from the left half to the right one, answers back.
    fn foreign(&mut self, left: usize, right: usize, is_left: bool) -> Vec<Source> {
        let (left_store, results) = (self.store(), self.store());
        let half = ForeignKeyLeft::new(left_store, results, field("json:f"), is_left, joiner(), true);
        let left_half = self.operator(half);
        let half = ForeignKeyRight::new(self.store(), self.store());
        let right_half = self.operator(half);
        let rows = self.call(left_half, foreign_key::LEFT_ROWS, self.results[left].clone());
        let subscriptions = vec![Source::Call(rows, foreign_key::SUBSCRIPTIONS)];
        let subscribed = self.call(right_half, foreign_key::SUBSCRIBERS, subscriptions);
        let changed = self.call(right_half, foreign_key::RIGHT_ROWS, self.results[right].clone());
        let answers = vec![Source::Call(subscribed, 0), Source::Call(changed, 0)];
        let answered = self.call(left_half, foreign_key::ANSWERS, answers);
        vec![Source::Call(rows, 0), Source::Call(answered, 0)]
    }

    /// A function, and whether its result is a number.
    fn aggregator(&mut self, function: &str, of_table: bool) -> (Box<dyn Aggregator>, bool) {
        let text = match function {
            "count" => "count",
            "sum" => "sum:json:n",
            "max" => "max:json:n",
            _ => return (folding(), false),
        };
        let parts = vec![Part { name: "x".to_owned(), function: Function::parse(text).expect("a function") }];
        let spec = AggregateSpec { parts, form: ResultForm::Single, of_table };
        let members = spec.has_members().then(|| self.store());
        (Box::new(BuiltIn::new(spec, members)), true)
    }

    /// Values of what an aggregate has for results.
    fn values(&mut self, results: Vec<Source>, is_number: bool) -> Vec<Source> {
        let number = |_: Option<&[u8]>, value: &[u8]| -> Result<Option<Bytes>, OperatorError> {
            let number = std::str::from_utf8(value).expect("text").parse().expect("a number");
            Ok(Some(Values::number(number).text().into()))
        };
        if is_number { self.then(MapTable(Box::new(number)), results) } else { results }
    }

    /// Windowed keys become key@start@end.
    fn windows(&mut self, windows: impl Operator + 'static, input: usize) -> Vec<Source> {
        let results = self.link(windows, &[input]);
        let flat = |row: &Row, emit: &mut dyn FnMut(usize, Row)| -> Result<(), OperatorError> {
            let window = row.window.expect("it is a result");
            let key = row.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let key = format!("{key}@{}@{}", window.start, window.end);
            emit(0, Row { key: Some(key.into()), window: None, ..row.clone() });
            Ok(())
        };
        self.then(FlatMap(Box::new(flat)), results)
    }
}

fn field(text: &str) -> Field {
    Field::parse(text).expect("a field")
}

fn join_kind(kind: Kind) -> JoinKind {
    match kind {
        Kind::Inner => JoinKind::Inner,
        Kind::Left => JoinKind::Left,
        Kind::Outer => JoinKind::Outer,
    }
}

fn closing(emission: Emission) -> Closing {
    let emit = if emission.close.is_some() { Emit::OnClose } else { Emit::OnUpdate };
    Closing { grace_ms: emission.grace, emit, late: Late::Drop, retention_ms: 0 }
}

fn passes(row: &Row) -> Result<bool, OperatorError> {
    Ok(row.value.as_deref().is_none_or(|value| Values::parse(value).passes()))
}

fn is_keyed(row: &Row) -> Result<bool, OperatorError> {
    Ok(row.key.is_some())
}

fn map_value(_: Option<&[u8]>, value: &[u8]) -> Result<Option<Bytes>, OperatorError> {
    Ok(Some(Values::parse(value).mapped().text().into()))
}

fn map(row: &Row, emit: &mut dyn FnMut(usize, Row)) -> Result<(), OperatorError> {
    let value = row.value.as_deref().map(|value| Values::parse(value).mapped().text().into());
    emit(0, Row { value, ..row.clone() });
    Ok(())
}

fn flat(row: &Row, emit: &mut dyn FnMut(usize, Row)) -> Result<(), OperatorError> {
    emit(0, row.clone());
    if row.value.as_deref().is_some_and(|value| Values::parse(value).is_even()) {
        map(row, emit)?;
    }
    Ok(())
}

fn joiner() -> Box<dyn Joiner> {
    let parse = |value: Option<&[u8]>| value.map(Values::parse);
    Box::new(
        move |_: Option<&[u8]>,
              left: Option<&[u8]>,
              right: Option<&[u8]>,
              out: &mut Vec<u8>|
              -> Result<(), OperatorError> {
            out.extend_from_slice(Values::joined(parse(left), parse(right)).text().as_bytes());
            Ok(())
        },
    )
}

/// Folds the rows of a stream in their order; sums those of a table.
fn folding() -> Box<dyn Aggregator> {
    struct Folding;
    /// An empty state is that of no rows.
    fn parse(state: &[u8]) -> Option<Values> {
        (!state.is_empty()).then(|| Values::parse(state))
    }
    impl AggregateFunction for Folding {
        fn create(&mut self, _: &[u8]) -> Result<Vec<u8>, OperatorError> {
            Ok(Vec::new())
        }

        fn add(&mut self, state: &[u8], item: Item<'_>) -> Result<Vec<u8>, OperatorError> {
            let (state, value) = (parse(state), Values::parse(item.value));
            let folded = match item.origin {
                None => Values::folded(state, value),
                Some(_) => Values::summed(state, value, 1),
            };
            Ok(folded.text().into_bytes())
        }

        fn subtract(&mut self, state: &[u8], item: Item<'_>) -> Result<Vec<u8>, OperatorError> {
            Ok(Values::summed(parse(state), Values::parse(item.value), -1).text().into_bytes())
        }

        fn merge(&mut self, _: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>, OperatorError> {
            Ok(Values::parse(left).merged(Values::parse(right)).text().into_bytes())
        }
    }
    Box::new(FunctionAggregate(Box::new(Folding)))
}

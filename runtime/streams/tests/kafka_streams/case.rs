//! Random topologies with their inputs.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::values::Values;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Inner,
    Left,
    Outer,
}

/// How results are held back until windows close, in Kafka Streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Close {
    /// `emitStrategy(onWindowClose)`.
    Strategy,
    /// `suppress(untilWindowCloses)`.
    Suppress,
}

/// When results of windows are sent and what their stores keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Emission {
    pub(crate) grace: i64,
    /// None: with every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) close: Option<Close>,
    /// Of Kafka Streams' store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<i64>,
}

/// A node. It names the nodes that it reads by their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Node {
    Stream {
        topic: String,
    },
    Table {
        topic: String,
    },
    Global {
        topic: String,
    },
    Versioned {
        topic: String,
        history: i64,
    },
    Filter {
        r#in: usize,
    },
    FilterTable {
        r#in: usize,
    },
    Map {
        r#in: usize,
    },
    MapTable {
        r#in: usize,
    },
    Flat {
        r#in: usize,
    },
    Key {
        r#in: usize,
    },
    Merge {
        r#in: usize,
        with: usize,
    },
    ToTable {
        r#in: usize,
    },
    ToStream {
        r#in: usize,
    },
    /// A stream by its key; a table.
    Aggregate {
        r#in: usize,
        function: &'static str,
    },
    /// A table by a field; a table.
    Group {
        r#in: usize,
        function: &'static str,
    },
    Windows {
        r#in: usize,
        size: i64,
        advance: i64,
        #[serde(flatten)]
        emission: Emission,
    },
    Sliding {
        r#in: usize,
        size: i64,
        #[serde(flatten)]
        emission: Emission,
    },
    Sessions {
        r#in: usize,
        gap: i64,
        #[serde(flatten)]
        emission: Emission,
    },
    JoinStreams {
        r#in: usize,
        with: usize,
        kind: Kind,
        before: i64,
        after: i64,
        grace: i64,
    },
    JoinTable {
        r#in: usize,
        with: usize,
        kind: Kind,
        #[serde(skip_serializing_if = "Option::is_none")]
        grace: Option<i64>,
    },
    JoinGlobal {
        r#in: usize,
        with: usize,
        kind: Kind,
    },
    JoinTables {
        r#in: usize,
        with: usize,
        kind: Kind,
    },
    JoinForeign {
        r#in: usize,
        with: usize,
        kind: Kind,
    },
}

/// What must be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Match {
    /// What each input triggers, in its order.
    Exact,
    /// What each input triggers, in any order among keys of one time.
    AnyKeyOrder,
    /// What each input triggers, in any order, and what is there twice once.
    AnyOrder,
    /// What all inputs trigger.
    Whole,
}

/// A record of an input: topic, key, value, time.
pub(crate) type Input = (String, Option<String>, Option<String>, i64);

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Case {
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<Input>,
    #[serde(skip)]
    pub(crate) must: Match,
    /// Times must be equal.
    #[serde(skip)]
    pub(crate) times: bool,
}

impl Case {
    pub(crate) fn random(seed: u64) -> Case {
        let random = SmallRng::seed_from_u64(seed);
        let mut maker = Maker {
            random,
            nodes: Vec::new(),
            topics: 0,
            must: Match::Exact,
            times: true,
            timed: 0,
            nulls: true,
        };
        maker.root();
        let inputs = maker.inputs();
        Case { nodes: maker.nodes, inputs, must: maker.must, times: maker.times }
    }
}

/// Every topic is read by one node and every node by one other: where a record goes two ways and they meet again, the
/// order of what it triggers is another one (`order-of-ways`).
struct Maker {
    random: SmallRng,
    nodes: Vec<Node>,
    topics: usize,
    must: Match,
    times: bool,
    /// How many nodes whose results depend on times are behind what is being made.
    timed: u32,
    nulls: bool,
}

/// A table, and whether an input changes at most one of its rows at most once.
#[derive(Clone, Copy)]
struct TableNode {
    place: usize,
    single: bool,
}

impl Maker {
    fn dice(&mut self, sides: u32) -> u32 {
        self.random.random_range(0..sides)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.random_range(0..all.len())]
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn topic(&mut self) -> String {
        self.topics += 1;
        format!("t{}", self.topics)
    }

    /// The last node, and what is before it. Nodes whose order or moments differ from Kafka Streams' come last, so that
    /// the difference shows in nothing but the output.
    fn root(&mut self) {
        match self.dice(13) {
            12 => {
                let r#in = self.timed_stream(1);
                let grace = self.one_of(&[0, 4, 10]);
                let place = self.join_versioned(r#in, Some(grace));
                self.must = Match::AnyKeyOrder;
                if self.dice(2) == 0 {
                    self.push(Node::Map { r#in: place });
                }
            }
            0 => {
                let r#in = self.timed_stream(1);
                let node = self.sliding_node(r#in, None);
                self.must = Match::AnyOrder;
                let place = self.push(node);
                if self.dice(2) == 0 {
                    self.push(Node::Map { r#in: place });
                }
            }
            1 => {
                let r#in = self.timed_stream(1);
                let gap = self.one_of(&[3, 5, 10]);
                let emission = self.emission(Some(Close::Strategy));
                self.push(Node::Sessions { r#in, gap, emission });
            }
            2 => {
                let (r#in, with) = (self.timed_stream(1), self.stream(0));
                let kind = self.one_of(&[Kind::Left, Kind::Outer]);
                let (before, after) = self.one_of(&[(0, 10), (10, 0), (3, 12), (20, 5)]);
                self.must = Match::Whole;
                let grace = self.one_of(&[0, 3, 10, 50]);
                self.push(Node::JoinStreams { r#in, with, kind, before, after, grace });
            }
            3 => {
                // `suppress-time`: rows that are dropped before it must not move time.
                self.nulls = false;
                let mut r#in = self.leaf_stream();
                if self.dice(2) == 0 {
                    r#in = self.push(Node::Map { r#in });
                }
                let (size, advance) = self.one_of(&[(5, 5), (10, 5), (10, 3), (20, 20)]);
                let emission = self.emission(Some(Close::Suppress));
                self.push(Node::Windows { r#in, size, advance, emission });
            }
            4 => {
                let (left, right) = (self.table(1), self.table(1));
                if !left.single {
                    self.must = Match::AnyOrder;
                }
                self.foreign(left.place, right.place);
            }
            5..=8 => {
                self.stream(4);
            }
            _ => {
                self.table(4);
            }
        }
    }

    fn leaf_stream(&mut self) -> usize {
        let topic = self.topic();
        self.push(Node::Stream { topic })
    }

    fn stream(&mut self, depth: u32) -> usize {
        if depth == 0 {
            return self.leaf_stream();
        }
        let less = depth - 1;
        match self.dice(16) {
            0 => self.leaf_stream(),
            1 => {
                let r#in = self.stream(less);
                self.push(Node::Filter { r#in })
            }
            2 => {
                let r#in = self.stream(less);
                self.push(Node::Map { r#in })
            }
            3 => {
                let r#in = self.stream(less);
                self.push(Node::Flat { r#in })
            }
            4 | 5 => {
                let r#in = self.stream(less);
                self.push(Node::Key { r#in })
            }
            6 => {
                let (r#in, with) = (self.stream(less), self.stream(less / 2));
                self.push(Node::Merge { r#in, with })
            }
            7 => {
                let r#in = self.table(less).place;
                self.push(Node::ToStream { r#in })
            }
            8 | 9 => self.windows(less),
            10 | 11 => {
                let (r#in, with) = (self.timed_stream(less), self.timed_stream(less / 2));
                let kind = self.one_of(&[Kind::Inner, Kind::Left, Kind::Outer]);
                let (mut before, mut after) = self.one_of(&[(0, 0), (5, 5), (10, 10)]);
                if kind == Kind::Inner {
                    (before, after) = self.one_of(&[(0, 0), (10, 10), (0, 10), (10, 0), (3, 12)]);
                }
                let grace = self.one_of(&[0, 3, 10, 50]);
                self.push(Node::JoinStreams { r#in, with, kind, before, after, grace })
            }
            12 | 13 => {
                let (r#in, with) = (self.stream(less), self.table(less / 2).place);
                let kind = self.one_of(&[Kind::Inner, Kind::Left]);
                self.push(Node::JoinTable { r#in, with, kind, grace: None })
            }
            14 => {
                let r#in = self.timed_stream(less);
                self.join_versioned(r#in, None)
            }
            _ => {
                let r#in = self.stream(less);
                let topic = self.topic();
                let with = self.push(Node::Global { topic });
                let kind = self.one_of(&[Kind::Inner, Kind::Left]);
                self.push(Node::JoinGlobal { r#in, with, kind })
            }
        }
    }

    /// A stream for a node whose results depend on times.
    fn timed_stream(&mut self, depth: u32) -> usize {
        self.timed += 1;
        let place = self.stream(depth);
        self.timed -= 1;
        place
    }

    fn join_versioned(&mut self, r#in: usize, grace: Option<i64>) -> usize {
        let (topic, history) = (self.topic(), self.one_of(&[10, 40, 1_000]));
        let with = self.push(Node::Versioned { topic, history });
        let kind = self.one_of(&[Kind::Inner, Kind::Left]);
        self.push(Node::JoinTable { r#in, with, kind, grace })
    }

    /// A foreign-key join. Its times are other ones (`foreign-key-time`).
    fn foreign(&mut self, left: usize, right: usize) -> usize {
        self.times = false;
        let kind = self.one_of(&[Kind::Inner, Kind::Left]);
        self.push(Node::JoinForeign { r#in: left, with: right, kind })
    }

    fn windows(&mut self, depth: u32) -> usize {
        let r#in = self.timed_stream(depth);
        let close = self.one_of(&[None, Some(Close::Strategy)]);
        let node = match self.dice(3) {
            0 => {
                let (size, advance) = self.one_of(&[(5, 5), (10, 5), (10, 3), (20, 20)]);
                Node::Windows { r#in, size, advance, emission: self.emission(close) }
            }
            1 => self.sliding_node(r#in, Some(Close::Strategy)),
            _ => {
                let gap = self.one_of(&[3, 5, 10]);
                let emission = self.emission(None);
                // Their store must forget a session when it closes, not a millisecond before (`session-store`).
                let retention = Some(gap + emission.grace + 1);
                Node::Sessions { r#in, gap, emission: Emission { retention, ..emission } }
            }
        };
        self.push(node)
    }

    fn sliding_node(&mut self, r#in: usize, close: Option<Close>) -> Node {
        let size = self.one_of(&[4, 10, 25]);
        Node::Sliding { r#in, size, emission: self.emission(close) }
    }

    fn emission(&mut self, close: Option<Close>) -> Emission {
        let grace = self.one_of(&[0, 3, 10, 1_000]);
        // With its own retention the store forgets results that were not sent yet (`close-loses`).
        let retention = (close == Some(Close::Strategy)).then_some(10_000_000);
        Emission { grace, close, retention }
    }

    fn leaf_table(&mut self) -> TableNode {
        let topic = self.topic();
        TableNode { place: self.push(Node::Table { topic }), single: true }
    }

    fn table(&mut self, depth: u32) -> TableNode {
        if depth == 0 {
            return self.leaf_table();
        }
        let less = depth - 1;
        match self.dice(14) {
            0 => self.leaf_table(),
            1 | 2 => {
                let TableNode { place, single } = self.table(less);
                TableNode { place: self.push(Node::FilterTable { r#in: place }), single }
            }
            3 => {
                let TableNode { place, single } = self.table(less);
                TableNode { place: self.push(Node::MapTable { r#in: place }), single }
            }
            4 => {
                let r#in = self.stream(less);
                TableNode { place: self.push(Node::ToTable { r#in }), single: false }
            }
            5..=7 => {
                let r#in = self.stream(less);
                let function = self.one_of(&["count", "sum", "max", "reduce", "fold"]);
                TableNode { place: self.push(Node::Aggregate { r#in, function }), single: false }
            }
            8 | 9 => {
                let r#in = self.table(less).place;
                let function = self.one_of(&["count", "sum", "max", "rows"]);
                TableNode { place: self.push(Node::Group { r#in, function }), single: false }
            }
            10 | 11 => {
                let (left, right) = (self.table(less), self.table(less / 2));
                let kind = self.one_of(&[Kind::Inner, Kind::Left, Kind::Outer]);
                let place = self.push(Node::JoinTables { r#in: left.place, with: right.place, kind });
                TableNode { place, single: left.single && right.single }
            }
            _ if self.timed > 0 => self.leaf_table(),
            _ => {
                // `foreign-key-order`: with several changes at once the order is another one.
                let left = if self.dice(2) == 0 { self.leaf_table() } else { self.single_table() };
                let right = self.table(less / 2);
                TableNode { place: self.foreign(left.place, right.place), single: false }
            }
        }
    }

    fn single_table(&mut self) -> TableNode {
        let TableNode { place, .. } = self.leaf_table();
        let place = match self.dice(3) {
            0 => self.push(Node::FilterTable { r#in: place }),
            1 => self.push(Node::MapTable { r#in: place }),
            _ => {
                let with = self.leaf_table().place;
                let kind = self.one_of(&[Kind::Inner, Kind::Left, Kind::Outer]);
                self.push(Node::JoinTables { r#in: place, with, kind })
            }
        };
        TableNode { place, single: true }
    }

    /// Time goes on by steps and jumps, and records come late.
    fn inputs(&mut self) -> Vec<Input> {
        let count = self.random.random_range(8..=40);
        let mut time: i64 = self.one_of(&[0, 100]);
        let mut inputs: Vec<Input> = (0..count)
            .map(|_| {
                time += self.one_of(&[0, 0, 1, 1, 2, 5, 12, 40]);
                let time = (time - self.one_of(&[0, 0, 0, 1, 5, 12, 30])).max(0);
                let topic = format!("t{}", self.random.random_range(1..=self.topics));
                let key = self.one_of(&["a", "b", "bb", "k0", "k1", "k2"]);
                let (no_key, no_value) = (self.dice(20) == 0, self.dice(8) == 0);
                let value = Values::new(i64::from(self.dice(3)), i64::from(self.dice(40)));
                let key = (!self.nulls || !no_key).then(|| key.to_owned());
                (topic, key, (!self.nulls || !no_value).then(|| value.text()), time)
            })
            .collect();
        if self.must == Match::Whole {
            // Everything closes.
            for topic in (1..=self.topics).chain(1..=self.topics) {
                time += 100_000;
                inputs.push((
                    format!("t{topic}"),
                    Some("z".to_owned()),
                    Some(Values::new(1, 1).text()),
                    time,
                ));
            }
        }
        inputs
    }
}

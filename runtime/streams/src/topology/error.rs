//! Why a manifest cannot be run.

use crate::limits::LimitError;
use crate::manifest::stores::StoreError;
use crate::plugin_manifest::ConfigError;
use crate::world::{Place, World};

/// A manifest whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A pipeline must read something.
    #[error("the pipeline has no [[source]]")]
    NoSource,
    /// A pipeline must write something, or keep something that people ask for.
    #[error(
        "the pipeline has no [[sink]], no node with `aggregate`, whose results could be asked for, and none with a plugin that \
         acts on the outside"
    )]
    NoSink,
    /// A node is read that hands nothing on.
    #[error("`{at}` reads from `{from}`, whose plugin acts on the outside and hands nothing on")]
    GivesNothing {
        /// Who reads.
        at: String,
        /// Whom it reads.
        from: String,
    },
    /// A plugin of another kind has keys of consumers.
    #[error(
        "node `{node}` has keys for a plugin that acts on the outside (`parallelism`, `deliver`, `allow_http`, `secrets`, `http`), \
         but its plugin is of the world `{world}`"
    )]
    NoConsumer {
        /// The node.
        node: String,
        /// The world of its plugin.
        world: World,
    },
    /// Hosts are granted to a plugin that cannot send.
    #[error(
        "node `{node}` has `{key}`, but plugins of the world `{world}` reach no network; one of the world `consumer-http` does"
    )]
    NoNetwork {
        /// The node.
        node: String,
        /// The key.
        key: &'static str,
        /// The world of its plugin.
        world: World,
    },
    /// `from` names nothing.
    #[error("`{at}` reads from `{from}`, which is no source or node; {hint}")]
    UnknownFrom {
        /// Who reads.
        at: String,
        /// What it wants to read.
        from: String,
        /// The nearest known one, or all.
        hint: String,
    },
    /// `from` names an output that the plugin does not have.
    #[error("`{at}` reads the output `{output}` of `{from}`, which has no such output; {hint}")]
    UnknownOutput {
        /// Who reads.
        at: String,
        /// Whom it reads.
        from: String,
        /// The output it wants.
        output: String,
        /// The nearest known one, or all.
        hint: String,
    },
    /// Nodes read each other in a circle.
    #[error("node `{0}` cannot be reached from a source: nodes read each other in a circle")]
    Circle(String),
    /// `from` does not say which of several outputs.
    #[error(
        "`{at}` reads `{from}`, which has several outputs and none that is first: say which, as \"{from}:NAME\", of {names}"
    )]
    WhichOutput {
        /// Who reads.
        at: String,
        /// Whom it reads.
        from: String,
        /// The outputs.
        names: String,
    },
    /// Records would be processed for nobody.
    #[error("nothing reads from `{0}`: add a [[sink]] or a [[node]] with from = \"{0}\", or remove it")]
    DeadEnd(String),
    /// A global table is read where it cannot be.
    #[error(
        "`{at}` reads the global table `{table}`, which records are joined with and which gives none: name it in `join.with` of a \
         node that reads a stream, or leave its scope out"
    )]
    GlobalRead {
        /// Who reads.
        at: String,
        /// The table.
        table: String,
    },
    /// A copy would be kept for nobody.
    #[error(
        "nothing is joined with the global table `{0}`: name it in `join.with` of a [[node]], or remove it"
    )]
    GlobalUnused(String),
    /// Two sources of one topic.
    #[error("`{0}` is the topic of two sources; let two nodes read from one source")]
    SameTopic(String),
    /// The pipeline would feed itself.
    #[error("the pipeline writes to the topic `{0}` and reads it: it would never come to rest")]
    Loop(String),
    /// A sink has a policy, and reads a node, which has one.
    #[error(
        "the sink `{topic}` reads `{from}`, whose own on_error decides about records that the topic does not take: leave the sink's out"
    )]
    SinkPolicy {
        /// The sink's topic.
        topic: String,
        /// The node.
        from: String,
    },
    /// A node's plugin was not given.
    #[error("the plugin of node `{0}` is not known")]
    NoPlugin(String),
    /// A node's plugin is of a world that nodes cannot run.
    #[error(
        "node `{node}` runs a plugin of the world `{world}`, but a node needs one of {}",
        World::hosted_at(Place::Node)
    )]
    WrongWorld {
        /// The node.
        node: String,
        /// What its plugin is.
        world: World,
    },
    /// An aggregate's plugin is of another world.
    #[error(
        "node `{node}` aggregates with a plugin of the world `{world}`, but needs one of the world `aggregator`"
    )]
    NoAggregator {
        /// The node.
        node: String,
        /// What its plugin is.
        world: World,
    },
    /// A sink's plugin is of another world.
    #[error(
        "the sink of topic `{topic}` has a plugin of the world `{world}` as its partitioner, but needs one of the world \
         `partitioner`"
    )]
    NoPartitioner {
        /// The sink's topic.
        topic: String,
        /// What its plugin is.
        world: World,
    },
    /// Settings that do not fit the plugin.
    #[error("node `{node}`: {error}")]
    Config {
        /// The node.
        node: String,
        /// What does not fit.
        error: ConfigError,
    },
    /// Limits out of range.
    #[error("node `{node}`: {error}")]
    Limits {
        /// The node.
        node: String,
        /// Which one.
        error: LimitError,
    },
    /// Stores that the node cannot have.
    #[error("node `{node}`: {error}")]
    Stores {
        /// The node.
        node: String,
        /// What does not fit.
        error: StoreError,
    },
    /// A built-in operator cannot do this with what it reads.
    #[error("node `{node}` {reason}")]
    Operator {
        /// The node.
        node: String,
        /// What is wrong and what to do, as a text that follows the node.
        reason: String,
    },
    /// Two nodes would keep something under one name.
    #[error("two nodes would both have a store `{0}`: give one of them another id")]
    SameStore(String),
    /// State needs transactions.
    #[error(
        "node `{0}` keeps state, which needs guarantee = \"exactly-once\": at least once, records would be counted again after \
         a crash; leave `guarantee` out"
    )]
    StateAtLeastOnce(String),
    /// What goes through a topic to who acts on the outside needs transactions.
    #[error(
        "node `{0}` acts on the outside, and is given its records through a topic of the pipeline's own, which needs guarantee = \
         \"exactly-once\": at least once, a crash would write records there again, with another idempotency key; leave `guarantee` out"
    )]
    BetweenAtLeastOnce(String),
    /// Records of one key are not in one partition.
    #[error(
        "node `{node}` needs all records of a key in one partition, but {why}, and topic `{topic}` has {partitions} partitions \
         now: `pelton pipeline resume` goes on through a topic of the pipeline's own"
    )]
    Scattered {
        /// The node.
        node: String,
        /// What has changed keys.
        why: String,
        /// A topic that is read.
        topic: String,
        /// How many partitions it has.
        partitions: u32,
    },
    /// Topics whose records meet in a node have different numbers of partitions.
    #[error(
        "node `{node}` needs the records of a key from topics `{first}` and `{second}` in partitions of one number, but they have \
         {first_partitions} and {second_partitions} partitions: create one of them again with as many as the other has"
    )]
    PartitionCounts {
        /// The node.
        node: String,
        /// A topic.
        first: String,
        /// Its partitions.
        first_partitions: u32,
        /// Another topic.
        second: String,
        /// Its partitions.
        second_partitions: u32,
    },
    /// A topic has more partitions than what is kept of its records.
    #[error(
        "topic `{topic}` has {partitions} partitions now, and what the pipeline keeps of its records is in {has} ({changelog}): \
         {cure}", cure = cure(*has)
    )]
    Grown {
        /// The topic.
        topic: String,
        /// Its partitions.
        partitions: u32,
        /// The changelog of a store.
        changelog: String,
        /// The changelog's partitions.
        has: u32,
    },
    /// Topics whose records meet in a node may have their keys placed by different rules.
    #[error(
        "node `{node}` needs the records of a key from topics `{first}` and `{second}` in partitions of one number, but `{first}` \
         has its keys placed by {first_rule}, and `{second}` by {second_rule}: say in both sources how their producers place \
         keys, as partitioner = \"murmur2\" (Java clients and this server) or \"crc32\" (librdkafka), and have both do the same"
    )]
    Partitioners {
        /// The node.
        node: String,
        /// A topic.
        first: String,
        /// What is known of it.
        first_rule: String,
        /// Another topic.
        second: String,
        /// What is known of it.
        second_rule: String,
    },
}

/// What helps against a topic that has grown beyond what is kept of its records.
fn cure(has: u32) -> &'static str {
    if has == 1 {
        "`pelton pipeline resume` goes on with that, through a topic of the pipeline's own with one partition"
    } else {
        "records of a key may be in another partition than what is kept of them. Deploy the pipeline under another name, to read \
         the topic from its start"
    }
}

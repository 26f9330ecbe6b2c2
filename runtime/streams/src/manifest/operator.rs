//! What a manifest says of built-in operators: `[[node]]` without a plugin, and `[[table]]`.

use std::collections::BTreeMap;

use crate::operator::aggregate::{Part, ResultForm};
use crate::operator::{
    Closing, Condition, Field, JoinKind, JoinWindow, JsonJoin, Late, Selection, WindowSpec,
};

use super::{OnError, PluginRef};
use crate::limits::LimitsSpec;
use crate::state::StoreKind;

/// `[[table]]`: a topic that is read as a table, the latest value of each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// What `from` and `join.with` call it.
    pub id: String,
    /// The topic, which is read from its start.
    pub topic: String,
    /// How the topic's producers place keys, if known.
    pub partitioner: Option<String>,
    /// How far back, in stream time, what was before can be asked for; none: the latest alone.
    pub history_ms: Option<i64>,
}

/// `[[table]]` with `scope = "global"`: one whole copy for all tasks of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalSpec {
    /// What `join.with` calls it.
    pub id: String,
    /// What it is a copy of.
    pub of: GlobalOf,
}

/// What a global table is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GlobalOf {
    /// A compacted topic. Pipelines that read it share a copy, also with a table of it that stands alone and is global.
    Topic(String),
    /// A table that stands alone, by its name: `pelton table create`.
    Table(String),
}

/// `[[node]]` with a built-in operator.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorSpec {
    /// What `from` and the logs call it, and what its stores and their changelog topics are named by.
    pub id: String,
    /// What it reads, each with `:output` for another output than the first. Several are merged.
    pub from: Vec<String>,
    /// What it does.
    pub work: Work,
    /// What its results are called among tables, where they can be asked for.
    pub table: Option<String>,
    /// Where what it keeps is; none: where the pipeline says.
    pub store: Option<StoreKind>,
    /// What happens to a record that it cannot process.
    pub on_error: OnError,
    /// The plugin that it aggregates with, if it does: its results are what that makes ([`ResultForm::Raw`]).
    pub plugin: Option<OperatorPlugin>,
}

/// A plugin that a built-in operator calls.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorPlugin {
    /// Which.
    pub plugin: PluginRef,
    /// Its settings, as written.
    pub config: BTreeMap<String, toml::Value>,
    /// What it may use; what is left out is `plugin.toml`'s, else the default.
    pub limits: LimitsSpec,
}

/// What a built-in operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Several inputs become one.
    Merge,
    /// Records are aggregated by key, or by a field.
    Aggregate(AggregateWork),
    /// Of records that repeat within a time, the first.
    Deduplicate(DeduplicateWork),
    /// Two inputs are joined.
    Join(JoinWork),
    /// Records of which a condition is true.
    Filter(Condition),
    /// Records by the first condition that is true, each with the name of its output; the others leave by `rest`.
    Branch(Vec<(String, Condition)>),
    /// An object of some of what a record has.
    Select(Selection),
    /// The items of a list, each as a record: the names on the way to it.
    FlatMap(Vec<String>),
}

/// `aggregate`, with `group_by` and `window`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateWork {
    /// The field whose value becomes the key; none: the key as it is.
    pub group_by: Option<Field>,
    /// Which windows, and when they close.
    pub window: Option<(WindowSpec, Closing)>,
    /// The functions.
    pub parts: Vec<Part>,
    /// How a result is written.
    pub form: ResultForm,
}

/// `deduplicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeduplicateWork {
    /// What must not repeat; none: the key.
    pub by: Option<Field>,
    /// For how long.
    pub within_ms: i64,
    /// How much later a record may come.
    pub grace_ms: i64,
    /// What becomes of those that come later still.
    pub late: Late,
}

impl DeduplicateWork {
    /// What must not repeat, if it is not the key.
    pub fn field(&self) -> Option<&Field> {
        self.by.as_ref().filter(|by| **by != Field::Key)
    }
}

/// `join`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinWork {
    /// The right side: a source, a table or a node.
    pub with: String,
    /// The field of left records whose value is the key of right ones; none: their key.
    pub by: Option<Field>,
    /// Which records are emitted without a match.
    pub kind: JoinKind,
    /// Which records of two streams match.
    pub window: Option<JoinWindow>,
    /// How long a record waits for a table with a history.
    pub grace_ms: Option<i64>,
    /// What is made of two values.
    pub result: JsonJoin,
}
